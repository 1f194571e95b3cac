// The page of the workspace: one snapshot after another comes in, what its user does goes out.
import { blocks, el, mrkdwn, textObject } from "/page/blocks.js";

const $ = (id) => document.getElementById(id);
const page = { me: new URLSearchParams(location.search).get("user") ?? sessionStorage.me ?? "U0DEV", place: "channel", thread: null, snap: null };
const nodes = new Map(); // "place ts" -> {signature, node}: what has not changed is not drawn again
const draft = { view: null, signature: "", values: {} };
const typed = { lines: [], at: 0 };
let stream;

async function post(path, body) {
  const response = await fetch(path, { method: "POST", body: typeof body === "string" ? body : JSON.stringify({ user: page.me, ...body }) });
  if (!response.ok) say(await response.text());
  return response;
}

const say = (text) => { $("connection").textContent = text; };

// ── the stream ──────────────────────────────────────────────────────────────────────────────────────────────────────

function become(user) {
  page.me = sessionStorage.me = user;
  stream?.close();
  nodes.clear();
  Object.assign(draft, { view: null, signature: "", values: {} });
  stream = new EventSource(`/stream?user=${encodeURIComponent(user)}`);
  stream.onopen = () => say("");
  stream.onerror = () => say("The sandbox does not answer; trying again…");
  stream.onmessage = (event) => { page.snap = JSON.parse(event.data); draw(); };
}

// ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const isReply = (message) => message.thread_ts && message.thread_ts !== message.ts;
const channelOf = (place) => (place === "direct" ? page.snap.direct : page.snap.channel.id);
const inPlace = (place) => page.snap.messages.filter((message) => message.channel === channelOf(place) && !isReply(message));

function draw() {
  const { snap } = page;
  drawPeople();
  const home = page.place === "home";
  $("messages").hidden = $("composer").hidden = home;
  $("home").hidden = !home;
  $("title").textContent = home ? "Stoker’s Home" : page.place === "direct" ? "stoker" : `# ${snap.channel.name}`;
  if (home) drawHome(); else drawMessages($("messages"), inPlace(page.place));
  $("thread").hidden = page.thread === null;
  if (page.thread) drawMessages($("replies"), snap.messages.filter((m) => m.ts === page.thread || m.thread_ts === page.thread), true);
  drawModal();
  markUnread();
}

function drawPeople() {
  const legend = $("people").firstElementChild;
  const buttons = page.snap.people.map((id) => el("button", {
    type: "button", "aria-pressed": String(id === page.me), onclick: () => become(id),
  }, avatar(id), "@" + page.snap.users[id].name));
  if ($("people").dataset.me !== page.me) $("people").replaceChildren(legend, ...buttons);
  $("people").dataset.me = page.me;
}

function drawMessages(log, messages, threaded = false) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  const focused = document.activeElement?.closest("article")?.id + " " + document.activeElement?.dataset?.key;
  const wanted = messages.map((message) => messageNode(message, threaded));
  wanted.forEach((node, index) => { if (log.children[index] !== node) log.insertBefore(node, log.children[index] ?? null); });
  while (log.children.length > wanted.length) log.lastElementChild.remove();
  if (!log.contains(document.activeElement)) {
    const again = [...log.querySelectorAll("[data-key]")].find((node) => `${node.closest("article").id} ${node.dataset.key}` === focused);
    again?.focus({ preventScroll: true });
  }
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function messageNode(message, threaded) {
  const replies = threaded ? [] : page.snap.messages.filter((m) => isReply(m) && m.thread_ts === message.ts);
  const key = `${threaded ? "thread" : "log"}-${message.channel}-${message.ts}`;
  const signature = JSON.stringify([message, replies.length]);
  const known = nodes.get(key);
  if (known?.signature === signature) return known.node;
  const node = drawMessage(key, message, replies.length);
  if (known) { node.classList.add("changed"); known.node.replaceWith(node); }
  nodes.set(key, { signature, node });
  return node;
}

function drawMessage(key, message, replies) {
  const { users } = page.snap;
  const author = users[message.user];
  const when = new Date(Number(message.ts) * 1000);
  const surface = messageSurface(message);
  return el("article", { id: key, className: message.only_for ? "ephemeral" : "" },
    avatar(message.user),
    el("div", { className: "content" },
      message.only_for ? el("p", { className: "whisper" }, "Only visible to you") : null,
      el("p", { className: "byline" }, el("strong", {}, author.name), author.is_bot ? el("small", { className: "badge" }, "APP") : null,
        el("time", { dateTime: when.toISOString(), title: when.toLocaleString() }, when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })),
        message.edited ? el("small", {}, "(edited)") : null),
      message.blocks.length ? blocks(message.blocks, surface) : el("div", { className: "text" }, mrkdwn(message.text, users)),
      (message.files ?? []).map((file) => el("a", { href: file.url_private, target: "_blank" }, el("img", { src: file.url_private, alt: file.title }))),
      replies ? el("button", { type: "button", className: "replies", onclick: () => openThread(message.ts) }, replies === 1 ? "1 reply" : `${replies} replies`) : null));
}

function avatar(id) {
  return el("span", { className: `avatar ${id.toLowerCase()}`, "aria-hidden": "true" }, page.snap.users[id].name[0].toUpperCase());
}

function messageSurface(message) {
  const act = surfaceAct({ holder: message.ts });
  return {
    people: page.snap.users, values: message.state, act, suggest: suggester({ holder: message.ts }),
    changed: (block, part, chosen) => act(block, part, { chosen }),
  };
}

function surfaceAct(where, values) {
  return async (block, part, { chosen, option }) => {
    if (part.confirm && !(await confirmed(part.confirm))) return;
    if (part.url && /^https?:/i.test(part.url)) window.open(part.url, "_blank", "noopener");
    await post("/do/act", { ...where, block_id: block.block_id, action_id: part.action_id, chosen, option, values: values?.() });
  };
}

function suggester(where) {
  return async (block, part, text) => {
    const response = await post("/do/suggest", { ...where, block_id: block.block_id, action_id: part.action_id, typed: text });
    return response.ok ? response.json() : [];
  };
}

function confirmed(ask) {
  const dialog = $("confirm");
  return new Promise((resolve) => {
    const done = (yes) => { dialog.onclose = null; dialog.close(); resolve(yes); };
    dialog.onclose = () => resolve(false);
    dialog.replaceChildren(
      el("h2", {}, ask.title.text), el("div", { className: "text" }, textObject(ask.text, page.snap.users)),
      el("footer", {}, el("button", { type: "button", onclick: () => done(false) }, ask.deny.text),
        el("button", { type: "button", className: ask.style ?? "primary", autofocus: true, onclick: () => done(true) }, ask.confirm.text)));
    dialog.showModal();
  });
}

function drawHome() {
  const view = page.snap.home;
  const signature = JSON.stringify(view);
  if ($("home").dataset.signature === signature) return;
  $("home").dataset.signature = signature;
  const where = { holder: view?.id };
  const act = surfaceAct(where);
  const surface = { people: page.snap.users, values: view?.values, act, suggest: suggester(where), changed: (block, part, chosen) => act(block, part, { chosen }) };
  $("home").replaceChildren(...(view ? blocks(view.blocks, surface) : [el("p", { className: "hint" }, "The app has published nothing here yet.")]));
}

// ── the modal ───────────────────────────────────────────────────────────────────────────────────────────────────────

function drawModal() {
  const view = page.snap.modal;
  const dialog = $("modal");
  if (!view) { if (dialog.open) dialog.close(); draft.view = null; draft.signature = ""; return; }
  const signature = JSON.stringify([view.id, view.hash, view.errors, view.values]);
  if (signature === draft.signature) return;
  draft.values = merged(view.values, draft.view === view.id ? draft.values : {});
  Object.assign(draft, { view: view.id, signature });
  const focused = document.activeElement?.dataset?.key;
  const where = { holder: view.id };
  const act = surfaceAct(where, () => draft.values);
  const surface = {
    people: page.snap.users, values: draft.values, errors: view.errors, act, suggest: suggester(where),
    changed: (block, part, state) => {
      (draft.values[block.block_id] ??= {})[part.action_id] = state;
      if (block.type !== "input" || block.dispatch_action) act(block, part, { chosen: state });
    },
  };
  dialog.replaceChildren(el("form", { method: "dialog", onsubmit: submit },
    el("h2", {}, view.title.text), el("div", { className: "blocks" }, blocks(view.blocks, surface)),
    view.errors[""] ? el("p", { className: "error", role: "alert" }, view.errors[""]) : null,
    el("footer", {}, el("button", { type: "button", onclick: dismiss }, view.close?.text ?? "Cancel"),
      view.submit ? el("button", { type: "submit", className: "primary" }, view.submit.text) : null)));
  if (!dialog.open) dialog.showModal();
  ([...dialog.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focused) ?? dialog.querySelector("input, select, textarea, button"))?.focus();
}

/** What the server knows, with what has been typed here since on top, where the input is still of the same kind. */
function merged(known, mine) {
  const values = structuredClone(known);
  for (const [block, actions] of Object.entries(mine)) {
    for (const [action, state] of Object.entries(actions)) {
      if (values[block]?.[action]?.type === state.type) values[block][action] = state;
    }
  }
  return values;
}

async function submit(event) {
  event.preventDefault();
  const button = event.target.querySelector("[type=submit]");
  if (!button) return;
  button.disabled = true;
  setTimeout(() => { button.disabled = false; }, 3500);
  await post("/do/submit", { view_id: draft.view, values: draft.values });
}

const dismiss = () => post("/do/dismiss", { view_id: draft.view });
$("modal").addEventListener("cancel", (event) => { event.preventDefault(); dismiss(); });

// ── places, threads, unread ─────────────────────────────────────────────────────────────────────────────────────────

function go(place) {
  page.place = place;
  page.thread = null;
  $("messages").replaceChildren();
  if (place === "home") post("/do/home", {});
  draw();
  $("messages").scrollTop = $("messages").scrollHeight;
}

function openThread(ts) {
  page.thread = ts;
  $("replies").replaceChildren();
  draw();
  $("replies").scrollTop = $("replies").scrollHeight;
  $("replies").focus();
}

function markUnread() {
  for (const button of document.querySelectorAll(".place")) {
    const { place } = button.dataset;
    button.setAttribute("aria-current", String(place === page.place));
    const badge = button.querySelector(".unread");
    if (!badge) continue;
    const key = `read ${page.me} ${place}`;
    const messages = inPlace(place);
    if (place === page.place && !document.hidden) sessionStorage[key] = messages.at(-1)?.ts ?? "";
    const count = messages.filter((message) => message.ts > (sessionStorage[key] ?? "") && message.user !== page.me).length;
    badge.hidden = count === 0;
    badge.textContent = count;
  }
}

document.querySelectorAll(".place").forEach((button) => button.addEventListener("click", () => go(button.dataset.place)));
$("close-thread").addEventListener("click", () => { page.thread = null; draw(); $("line").focus(); });
document.addEventListener("visibilitychange", () => page.snap && markUnread());

// ── the composer ────────────────────────────────────────────────────────────────────────────────────────────────────

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("line").value.trim();
  if (!text) return;
  typed.at = typed.lines.push(text);
  $("line").value = "";
  $("messages").scrollTop = $("messages").scrollHeight;
  post("/do/command", { text, channel: channelOf(page.place) });
});

$("line").addEventListener("keydown", (event) => {
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!step || !typed.lines.length) return;
  event.preventDefault();
  typed.at = Math.max(0, Math.min(typed.lines.length, typed.at + step));
  $("line").value = typed.lines[typed.at] ?? "";
});

// ── the panel ───────────────────────────────────────────────────────────────────────────────────────────────────────

async function drawCluster() {
  try {
    const text = await (await fetch("/cluster.json")).text();
    if ($("cluster").dataset.shown !== text) {
      $("cluster").dataset.shown = text;
      $("cluster").replaceChildren(...panel(JSON.parse(text)));
    }
  } catch { /* the stream says that the sandbox does not answer */ }
  setTimeout(drawCluster, 1500);
}

function panel({ node, pods = [], gpu, cost_usd: cost, pulls = [], speed, faults, actions }) {
  const shown = (value) => (typeof value === "object" && value !== null ? Object.entries(value).map(([k, v]) => `${k} ${v}`).join(" · ") : String(value));
  const row = (name, value) => (value === undefined || value === null ? [] : [el("dt", {}, name), el("dd", {}, shown(value))]);
  return [
    el("h2", {}, "The platform behind it"),
    el("dl", {}, row("Node", node), row("GPU", gpu), row("Cost", typeof cost === "number" ? `$${cost.toFixed(2)}` : cost), row("Clock", speed && `${speed}× faster`)),
    el("h3", {}, "Pods"),
    pods.length ? el("ul", {}, pods.map((pod) => el("li", {}, el("code", {}, pod.name), el("small", {}, pod.phase)))) : el("p", { className: "hint" }, "none"),
    el("h3", {}, "Pull requests"),
    pulls.length ? el("ul", {}, pulls.map((pull) => el("li", {},
      el("a", { href: /^https?:/.test(pull.url) ? pull.url : "#", target: "_blank", rel: "noopener" }, `#${pull.number} ${pull.title}`),
      el("small", {}, `${pull.state} · checks ${pull.checks}`)))) : el("p", { className: "hint" }, "none"),
    actions.length ? el("h3", {}, "From outside") : null,
    el("div", { className: "actions" }, actions.map((name) => el("button", { type: "button", onclick: () => post(`/actions/${encodeURIComponent(name)}`, "") }, name))),
    el("h3", {}, "Break something"),
    ...faults.map((fault) => el("label", { className: "choice", title: fault.what },
      el("input", { type: "checkbox", checked: fault.on, onchange: (event) => post(`/faults/${fault.name}`, event.target.checked ? "on" : "off") }),
      el("span", {}, fault.name, el("small", {}, fault.what)))),
  ].filter(Boolean);
}

$("show-cluster").addEventListener("click", (event) => {
  const open = document.body.classList.toggle("cluster-open");
  event.currentTarget.setAttribute("aria-expanded", String(open));
});

become(page.me);
drawCluster();
