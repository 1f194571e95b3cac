// A conversation as a list of messages: what has not changed is not drawn again, and what was focused stays focused.
import { blocks, el, held, mrkdwn } from "/page/blocks.js";
import { isReply, now, page, post } from "/page/state.js";
import { surface } from "/page/surface.js";

const nodes = new Map(); // "log channel ts" -> {signature, node}
const TOGETHER = 300; // seconds within which messages of one author are shown under one name

export const forget = () => nodes.clear();

export function drawMessages(log, messages, { threaded = false, openThread, intro = null } = {}) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 120;
  const wanted = intro ? [intro] : [];
  let before = null;
  for (const message of messages) {
    if (!threaded && (!before || day(before) !== day(message))) wanted.push(line(log, day(message) === now().toDateString() ? "Today" : day(message)));
    wanted.push(messageNode(message, before && follows(before, message), threaded, openThread));
    before = message;
    if (threaded && message === messages[0] && messages.length > 1) {
      wanted.push(line(log, messages.length === 2 ? "1 reply" : `${messages.length - 1} replies`));
      before = null;
    }
  }
  wanted.forEach((node, index) => { if (log.children[index] !== node) log.insertBefore(node, log.children[index] ?? null); });
  while (log.children.length > wanted.length) log.lastElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

const at = (message) => new Date(Number(message.ts) * 1000);
const day = (message) => at(message).toDateString();
const follows = (before, message) =>
  before.user === message.user && !message.only_for && !before.only_for && Number(message.ts) - Number(before.ts) < TOGETHER && day(before) === day(message);

function line(log, text) {
  const key = `${log.id} ${text}`;
  if (!nodes.has(key)) nodes.set(key, { node: el("p", { className: "day" }, el("span", {}, text)) });
  return nodes.get(key).node;
}

const TIME = { hour: "numeric", minute: "2-digit" };

function messageNode(message, compact, threaded, openThread) {
  const replies = threaded ? [] : page.snap.messages.filter((m) => isReply(m) && m.thread_ts === message.ts);
  const key = `${threaded ? "thread" : "log"}-${message.channel}-${message.ts}`;
  const signature = JSON.stringify([message, replies.length, compact]);
  const known = nodes.get(key);
  if (known?.signature === signature) return known.node;
  const node = drawMessage(key, message, { replies, compact, threaded, openThread });
  if (known) {
    const restore = held(known.node);
    known.node.replaceWith(node);
    restore(node);
  }
  nodes.set(key, { signature, node });
  return node;
}

function drawMessage(key, message, { replies, compact, threaded, openThread }) {
  const { users, me } = page.snap;
  const author = users[message.user];
  const content = el("div", { className: "content" },
    message.only_for ? el("p", { className: "whisper" }, "👁 Only visible to you") : null,
    compact ? null : el("p", { className: "byline" }, el("strong", {}, author.is_bot ? author.real_name : author.name), author.is_bot ? el("small", { className: "badge" }, "APP") : null, moment(message)),
    message.blocks.length
      ? blocks(message.blocks, surface({ holder: message.ts }, message.state))
      : el("div", { className: "text" }, mrkdwn(message.text, users)),
    message.edited ? el("small", { className: "edited" }, "(edited)") : null,
    (message.files ?? []).map(file),
    replies.length ? el("button", { type: "button", className: "replies", "data-key": "replies", onclick: () => openThread(message.ts) },
      [...new Set(replies.map((reply) => reply.user))].slice(0, 3).map((user) => avatar(user)),
      el("span", {}, replies.length === 1 ? "1 reply" : `${replies.length} replies`),
      el("small", {}, `Last reply ${at(replies.at(-1)).toLocaleTimeString([], TIME)}`)) : null);
  for (const mention of content.querySelectorAll(`.mention[data-user="${me}"]`)) mention.classList.add("me");
  const classes = [message.only_for && "ephemeral", compact && "compact"].filter(Boolean).join(" ");
  return el("article", { id: key, tabIndex: -1, className: classes, "aria-label": `${author.is_bot ? author.real_name : author.name}, ${at(message).toLocaleTimeString()}` },
    compact ? moment(message) : avatar(message.user), content, message.only_for ? null : toolbar(message, threaded, openThread));
}

function moment(message) {
  return el("time", { dateTime: at(message).toISOString(), title: at(message).toLocaleString() },
    at(message).toLocaleTimeString([], TIME));
}

function file(given) {
  if (given.mode === "tombstone") return el("em", { className: "deleted" }, given.title);
  return el("figure", {}, el("figcaption", {}, given.title ?? given.name),
    el("a", { href: given.url_private, target: "_blank" }, el("img", { src: given.url_private, alt: given.alt_txt || (given.title ?? given.name) })));
}

/** What Slack shows over a message: its thread, and the app's shortcuts under three dots. */
function toolbar(message, threaded, openThread) {
  const shortcuts = page.snap.shortcuts;
  const choose = (event, shortcut) => {
    event.target.closest("details").open = false;
    post("/do/shortcut", { callback_id: shortcut.callback_id, channel: message.channel, ts: message.ts });
  };
  return el("div", { className: "toolbar", role: "toolbar", "aria-label": "Message actions" },
    threaded ? null : el("button", { type: "button", title: "Reply in thread", "aria-label": "Reply in thread", "data-key": "reply", onclick: () => openThread(message.thread_ts ?? message.ts) }, "💬"),
    shortcuts.length ? el("details", { className: "menu", name: "message-menu" },
      el("summary", { title: "More actions", "aria-label": "More actions", "data-key": "more" }, "⋮"),
      el("div", { role: "menu" }, shortcuts.map((shortcut) => el("button", { type: "button", role: "menuitem", onclick: (event) => choose(event, shortcut) },
        shortcut.name, el("small", {}, page.snap.users[page.snap.bot].real_name))))) : null);
}

export function avatar(id) {
  return el("span", { className: `avatar ${id.toLowerCase()}`, "aria-hidden": "true" },
    id === page.snap.bot ? "🔥" : page.snap.users[id].name[0].toUpperCase());
}

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open], details.overflow[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" ? event.target.closest?.("details[open]") : null;
  if (menu) { menu.open = false; menu.querySelector("summary").focus(); event.stopPropagation(); }
}, true);

/** A picture that comes after its message must not push the end of the conversation out of sight. */
document.addEventListener("load", (event) => {
  const log = event.target.closest?.("[role=log]");
  if (log && log.scrollHeight - log.scrollTop - log.clientHeight < 120 + event.target.offsetHeight) scrollToEnd(log);
}, true);

export const scrollToEnd = (log) => { log.scrollTop = log.scrollHeight; };
