// What can be pressed, chosen and typed in blocks, told to the workspace: the same in a message, a modal and the Home.
import { el, textObject } from "/page/blocks.js";
import { $, page, post } from "/page/state.js";

/**
 * What blocks.js needs of the place where blocks stand. `where` names the message or view; `values` are the states of
 * its inputs; with `draft` set, they are kept there until something is pressed.
 */
export function surface(where, values, { errors = {}, draft = null } = {}) {
  const act = async (block, part, { chosen, option } = {}) => {
    if (part.confirm && !(await confirmed(part.confirm))) return;
    if (part.url && /^https?:/i.test(part.url)) window.open(part.url, "_blank", "noopener");
    await post("/do/act", { ...where, block_id: block.block_id, action_id: part.action_id, chosen, option, values: draft ?? undefined });
  };
  const note = (block, part, state) => { if (draft) (draft[block.block_id] ??= {})[part.action_id] = state; };
  return {
    people: { ...page.snap.users, ...page.snap.groups }, values, errors, act, note,
    changed: (block, part, state) => {
      note(block, part, state);
      if (block.type !== "input" || block.dispatch_action) act(block, part, { chosen: state });
    },
    suggest: async (block, part, typed) => {
      const response = await post("/do/suggest", { ...where, block_id: block.block_id, action_id: part.action_id, typed });
      return response.ok ? response.json() : [];
    },
  };
}

function confirmed(ask) {
  const dialog = $("confirm");
  return new Promise((resolve) => {
    const done = (yes) => { dialog.onclose = null; dialog.close(); resolve(yes); };
    dialog.onclose = () => resolve(false);
    dialog.replaceChildren(
      el("h2", {}, ask.title.text), el("div", { className: "text" }, textObject(ask.text, { ...page.snap.users, ...page.snap.groups })),
      el("footer", {}, el("button", { type: "button", onclick: () => done(false) }, ask.deny.text),
        el("button", { type: "button", className: ask.style ?? "primary", autofocus: true, onclick: () => done(true) }, ask.confirm.text)));
    dialog.showModal();
  });
}
