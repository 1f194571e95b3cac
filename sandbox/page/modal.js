// The modal on top of the stack: what is typed stays when the app updates it, the caret too.
import { blocks, el } from "/page/blocks.js";
import { $, page, post } from "/page/state.js";
import { surface } from "/page/surface.js";

const draft = { view: null, signature: "", values: {} };

export const forgetModal = () => Object.assign(draft, { view: null, signature: "", values: {} });

export function drawModal() {
  const view = page.snap.modal;
  const dialog = $("modal");
  if (!view) { if (dialog.open) dialog.close(); forgetModal(); return; }
  const signature = JSON.stringify([view.id, view.hash, view.errors, view.values]);
  if (signature === draft.signature) return;
  const same = draft.view === view.id;
  draft.values = merged(view.values, same ? draft.values : {});
  Object.assign(draft, { view: view.id, signature });
  const was = same ? held(dialog) : null;
  const place = surface({ holder: view.id }, draft.values, { errors: view.errors, draft: draft.values });
  dialog.replaceChildren(el("form", { method: "dialog", onsubmit: submit },
    el("header", {}, el("span", { className: "avatar u0stoker", "aria-hidden": "true" }, "🔥"), el("h2", {}, view.title.text),
      el("button", { type: "button", className: "close", "aria-label": "Close", onclick: dismiss }, "✕")),
    el("div", { className: "blocks", tabIndex: -1 }, blocks(view.blocks, place)),
    view.errors[""] ? el("p", { className: "error", role: "alert" }, view.errors[""]) : null,
    el("footer", {}, el("button", { type: "button", onclick: dismiss }, view.close?.text ?? "Cancel"),
      view.submit ? el("button", { type: "submit", className: "primary" }, view.submit.text) : null)));
  dialog.setAttribute("aria-label", view.title.text);
  if (!dialog.open) dialog.showModal();
  restore(dialog, was);
}

/** Where the reader was: the focused input, its caret, and how far they had scrolled. */
function held(dialog) {
  const node = document.activeElement;
  return { key: node?.dataset?.key, start: node?.selectionStart, end: node?.selectionEnd, top: dialog.querySelector(".blocks")?.scrollTop };
}

function restore(dialog, was) {
  const list = dialog.querySelector(".blocks");
  const again = was && [...dialog.querySelectorAll("[data-key]")].find((node) => node.dataset.key === was.key);
  const wrong = dialog.querySelector("[aria-describedby]");
  (again ?? wrong ?? list.querySelector("input, select, textarea, button") ?? dialog.querySelector("footer .primary, footer button"))?.focus({ preventScroll: Boolean(was) });
  if (again && typeof was.start === "number" && again.setSelectionRange) {
    try { again.setSelectionRange(was.start, was.end); } catch { /* an input of a kind without a caret */ }
  }
  if (was) list.scrollTop = was.top ?? 0;
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
