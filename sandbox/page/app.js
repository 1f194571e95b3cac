// The page of the workspace: one snapshot after another comes in, what its user does goes out.
import { blocks, el, held } from "/page/blocks.js";
import { avatar, drawMessages, forget, scrollToEnd } from "/page/messages.js";
import { drawModal, forgetModal } from "/page/modal.js";
import { drawPanel } from "/page/panel.js";
import { $, channelOf, inPlace, inThread, page, post, say } from "/page/state.js";
import { surface } from "/page/surface.js";

const typed = { lines: [], at: 0 };
let stream;

const TRY = [
  ["/gpu up coder-chat for 2h because demo", "as @dev; then switch to @lead and approve"],
  ["/gpu status", "who has the GPU, and what it costs so far"],
  ["/gpu down", "ends it, with a receipt; or leave it idle, and see"],
  ["/model add coder-mini", "a form, a pull request, an approval"],
  ["/model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ", "what an endpoint serves"],
];

/** What stands at the beginning of the channel: what this is, and what to try. */
const intro = el("section", { className: "intro" },
  el("h3", {}, "# gpu-ops"),
  el("p", {}, "The beginning of a channel of a team that shares one GPU. Nothing here is real but the bot: the cluster, GitHub and Slack run on this machine, on a fast clock. Choose on the left who you are; on the right is what happens behind the channel."),
  el("ol", {}, TRY.map(([line, then]) => el("li", {},
    el("button", { type: "button", onclick: () => { $("line").value = line; $("line").focus(); } }, line), el("small", {}, then)))),
  el("p", {}, "Stoker’s Home is on the left, under Apps. When all goes well, break something on the right."));

// ── the stream ──────────────────────────────────────────────────────────────────────────────────────────────────────

function become(user) {
  page.me = sessionStorage.me = user;
  stream?.close();
  forget();
  forgetModal();
  stream = new EventSource(`/stream?user=${encodeURIComponent(user)}`);
  stream.onopen = () => say("");
  stream.onerror = () => say("The sandbox does not answer; trying again…");
  stream.onmessage = (event) => { page.snap = { ...JSON.parse(event.data), seen: Date.now() }; draw(); };
}

// ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function draw() {
  const { snap } = page;
  const home = page.place === "home";
  document.body.dataset.place = page.place;
  drawPeople();
  $("messages").hidden = home;
  $("composer").hidden = home || (page.place === "direct" && !snap.messages_enabled);
  $("home").hidden = !home;
  $("tabs").hidden = page.place === "channel";
  $("title").textContent = page.place === "channel" ? `# ${snap.channel.name}` : snap.users[snap.bot].real_name;
  const to = page.place === "channel" ? `#${snap.channel.name}` : snap.users[snap.bot].real_name;
  $("line").placeholder = `Message ${to} as @${snap.users[page.me].name}, or type / for a command`;
  $("topic").textContent = page.place === "channel" ? "One GPU for all of us. Ask Stoker before you start it." : "";
  if (home) drawHome(); else drawMessages($("messages"), inPlace(page.place), { openThread, intro: page.place === "channel" ? intro : null });
  $("thread").hidden = page.thread === null;
  if (page.thread) drawMessages($("replies"), inThread(page.thread), { threaded: true });
  drawModal();
  markUnread();
}

function drawPeople() {
  if ($("people").dataset.me === page.me) return;
  $("people").dataset.me = page.me;
  const legend = $("people").firstElementChild;
  $("people").replaceChildren(legend, ...page.snap.people.map((id) => el("button", {
    type: "button", "data-user": id, "aria-pressed": String(id === page.me), title: page.snap.users[id].real_name, onclick: () => become(id),
  }, avatar(id), "@" + page.snap.users[id].name, el("span", { className: "unread", hidden: true }))));
}

function drawHome() {
  const view = page.snap.home;
  const signature = JSON.stringify([page.me, view]);
  if ($("home").dataset.signature === signature) return;
  $("home").dataset.signature = signature;
  const restore = held($("home"));
  const shown = view ? blocks(view.blocks, surface({ holder: view.id }, view.values)) : [el("p", { className: "hint" }, "The app has published nothing here yet.")];
  $("home").replaceChildren(...shown);
  restore($("home"));
}

// ── places, threads, unread ─────────────────────────────────────────────────────────────────────────────────────────

function go(place) {
  page.place = place;
  page.thread = null;
  $("messages").replaceChildren();
  document.body.classList.remove("cluster-open");
  if (place === "home") post("/do/home", {});
  draw();
  scrollToEnd($("messages"));
  if (!$("composer").hidden) $("line").focus();
}

function openThread(ts) {
  const log = $("messages"); // it becomes narrower: whoever was at its end stays there
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 120;
  page.thread = ts;
  $("replies").replaceChildren();
  draw();
  if (atEnd) scrollToEnd(log);
  scrollToEnd($("replies"));
  $("reply").focus();
}

function closeThread() {
  page.thread = null;
  draw();
  $("line").focus();
}

/** How often Slack has notified a user of something there since they last looked: mentions and direct messages, no edits. */
function unread(user, place) {
  const read = sessionStorage[`read ${user} ${place}`] ?? "";
  return page.snap.notified[user].filter(([channel, ts]) => (channel === page.snap.channel.id) === (place === "channel") && ts > read).length;
}

/** Bold where something is new; a number where it is for this user alone, or names them. */
function markUnread() {
  let waiting = 0;
  for (const button of document.querySelectorAll(".place")) {
    const { place } = button.dataset;
    const here = place === page.place || (place === "direct" && page.place === "home");
    button.setAttribute("aria-current", String(here));
    const badge = button.querySelector(".unread");
    if (!badge) continue;
    const key = `read ${page.me} ${place}`;
    const messages = page.snap.messages.filter((message) => message.channel === channelOf(place));
    if (place === page.place && !document.hidden) sessionStorage[key] = messages.at(-1)?.ts ?? "";
    const fresh = messages.filter((message) => message.ts > (sessionStorage[key] ?? "") && message.user !== page.me);
    const mine = unread(page.me, place);
    button.classList.toggle("fresh", fresh.length > 0);
    badge.hidden = mine === 0;
    badge.textContent = mine;
    waiting += mine;
  }
  for (const button of $("people").querySelectorAll("button")) {
    const [badge, count] = [button.querySelector(".unread"), ["channel", "direct"].reduce((sum, place) => sum + unread(button.dataset.user, place), 0)];
    badge.hidden = count === 0;
    badge.textContent = count;
  }
  for (const tab of document.querySelectorAll("#tabs button")) tab.setAttribute("aria-selected", String(tab.dataset.place === page.place));
  document.title = `${waiting ? `(${waiting}) ` : ""}${page.snap.channel.name} · Stoker’s sandbox`;
}

/** A message's own address leads to the message, as in Slack. */
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  const found = link?.origin === location.origin && link.pathname.match(/^\/archives\/(\w+)\/p(\d+)(\d{6})$/);
  if (!found) return;
  event.preventDefault();
  const [, channel, seconds, rest] = found;
  go(channel === page.snap.channel.id ? "channel" : "direct");
  const message = $(`log-${channel}-${seconds}.${rest}`);
  message?.scrollIntoView({ block: "center" });
  message?.classList.add("found");
});

document.querySelectorAll(".place, #tabs button").forEach((button) => button.addEventListener("click", () => go(button.dataset.place)));
$("close-thread").addEventListener("click", closeThread);
$("thread").addEventListener("keydown", (event) => { if (event.key === "Escape") closeThread(); });
document.addEventListener("visibilitychange", () => page.snap && markUnread());

// ── the composers ───────────────────────────────────────────────────────────────────────────────────────────────────

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("line").value.trim();
  if (!text) return;
  typed.at = typed.lines.push(text);
  $("line").value = "";
  offer();
  scrollToEnd($("messages"));
  post("/do/command", { text, channel: channelOf(page.place) });
});

$("reply-composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("reply").value.trim();
  if (!text) return;
  $("reply").value = "";
  scrollToEnd($("replies"));
  const root = page.snap.messages.find((message) => message.ts === page.thread);
  post("/do/command", { text, channel: root?.channel ?? page.snap.channel.id, thread: page.thread });
});

/** The commands that the typed word may become, as Slack offers them above the composer. */
function offer() {
  const text = $("line").value;
  const begun = text.startsWith("/") && !/^\S+\s+\S/.test(text) ? page.snap.commands.filter((c) => c.command.startsWith(text.trim())) : [];
  $("offers").hidden = begun.length === 0;
  $("offers").replaceChildren(...begun.map((c) => el("li", {}, el("button", {
    type: "button", tabIndex: -1, onclick: () => { $("line").value = `${c.command} `; offer(); $("line").focus(); },
  }, el("strong", {}, c.command), el("span", {}, c.usage_hint), el("small", {}, c.description)))));
}

$("line").addEventListener("input", offer);
$("line").addEventListener("keydown", (event) => {
  if (event.key === "Escape") { $("offers").hidden = true; return; }
  const first = $("offers").hidden ? null : $("offers").querySelector("button");
  if (event.key === "Tab" && first && !event.shiftKey && $("line").value.trim() !== first.firstElementChild.textContent) { event.preventDefault(); first.click(); return; }
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!step || !typed.lines.length) return;
  event.preventDefault();
  typed.at = Math.max(0, Math.min(typed.lines.length, typed.at + step));
  $("line").value = typed.lines[typed.at] ?? "";
  offer();
});

become(page.me);
drawPanel();
