// Block Kit and mrkdwn as DOM. Everything that an app wrote becomes a text node or a checked attribute, never markup.
import { now } from "/page/state.js";

/** An element with properties and children; a string child is text. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// ── mrkdwn ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const TOKEN = new RegExp(
  [
    "```([\\s\\S]+?)```", "`([^`\\n]+)`", "<([^<>\\n]+)>",
    "(?<![\\w*])\\*(?=\\S)([^\\n]*?\\S)\\*(?!\\w)", "(?<!\\w)_(?=\\S)([^\\n]*?\\S)_(?!\\w)", "(?<![\\w~])~(?=\\S)([^\\n]*?\\S)~(?!\\w)",
    ":([a-z][a-z0-9_+-]*):",
  ].join("|"),
  "g",
);
const EMOJI = {
  white_check_mark: "✅", heavy_check_mark: "✔️", x: "❌", warning: "⚠️", rotating_light: "🚨", fire: "🔥", hourglass: "⌛",
  hourglass_flowing_sand: "⏳", money_with_wings: "💸", rocket: "🚀", zzz: "💤", tada: "🎉", information_source: "ℹ️", lock: "🔒",
  large_green_circle: "🟢", red_circle: "🔴", large_yellow_circle: "🟡", white_circle: "⚪", black_circle: "⚫", eyes: "👀",
  arrow_up: "⬆️", arrow_down: "⬇️", wave: "👋", robot_face: "🤖", no_entry: "⛔", clock1: "🕐", bulb: "💡", link: "🔗",
};

const unescaped = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

/** The nodes of a text in Slack's mrkdwn. `people` maps a user id to {name}. */
export function mrkdwn(text, people) {
  const lines = String(text).split("\n");
  if (!lines.some((line) => line.startsWith("&gt;") || line.startsWith(">"))) return inline(String(text), people);
  const nodes = [];
  for (const line of lines) {
    const quoted = line.match(/^(?:&gt;|>)\s?(.*)$/);
    if (quoted) nodes.push(el("blockquote", {}, inline(quoted[1], people)));
    else nodes.push(...inline(line, people), "\n");
  }
  return nodes;
}

function inline(text, people) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(TOKEN)) {
    nodes.push(unescaped(text.slice(end, match.index)));
    end = match.index + match[0].length;
    const [, fence, code, angle, bold, italic, struck, emoji] = match;
    if (fence !== undefined) nodes.push(el("pre", {}, unescaped(fence.replace(/^\n/, ""))));
    else if (code !== undefined) nodes.push(el("code", {}, unescaped(code)));
    else if (angle !== undefined) nodes.push(reference(angle, people));
    else if (bold !== undefined) nodes.push(el("strong", {}, inline(bold, people)));
    else if (italic !== undefined) nodes.push(el("em", {}, inline(italic, people)));
    else if (struck !== undefined) nodes.push(el("s", {}, inline(struck, people)));
    else nodes.push(EMOJI[emoji] ?? match[0]);
  }
  nodes.push(unescaped(text.slice(end)));
  return nodes;
}

function reference(inside, people) {
  const [target, label] = inside.split(/\|(.*)/s);
  if (target.startsWith("@")) return el("span", { className: "mention", "data-user": target.slice(1) }, "@" + (people[target.slice(1)]?.name ?? label ?? target.slice(1)));
  if (target.startsWith("#")) return el("span", { className: "mention" }, "#" + (label || "gpu-ops"));
  if (target.startsWith("!date^")) return date(target, label);
  if (target.startsWith("!")) {
    const [kind, group] = target.slice(1).split("^");
    return el("span", { className: "mention" }, label || "@" + (kind === "subteam" ? people[group]?.name ?? group : kind));
  }
  return link(unescaped(target), unescaped(label ?? target));
}

function link(url, ...label) {
  if (!/^(https?:|mailto:)/i.test(url)) return el("span", {}, ...label);
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, ...label);
}

function date(target, fallback) {
  const [, seconds, format, url] = target.split("^");
  const when = new Date(Number(seconds) * 1000);
  if (Number.isNaN(when.getTime())) return document.createTextNode(unescaped(fallback ?? ""));
  const shown = (options) => new Intl.DateTimeFormat(undefined, options).format(when);
  const day = when.toDateString() === now().toDateString() ? "today" : null;
  const text = format.replace(/\{(\w+)\}/g, (whole, name) => {
    if (name === "time") return shown({ timeStyle: "short" });
    if (name === "time_secs") return shown({ timeStyle: "medium" });
    if (name === "date_num") return when.toISOString().slice(0, 10);
    if (name === "ago") return ago(when);
    if (name.startsWith("date")) return (name.endsWith("_pretty") && day) || shown({ dateStyle: name.includes("long") ? "full" : "medium" });
    return whole;
  });
  return url ? link(url, text) : el("time", { dateTime: when.toISOString(), title: when.toLocaleString() }, text);
}

function ago(when) {
  const minutes = Math.round((when - now()) / 60000);
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
  return Math.abs(minutes) < 60 ? relative.format(minutes, "minute") : relative.format(Math.round(minutes / 60), "hour");
}

// ── blocks ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * The nodes of blocks. `surface`: {people, values, errors, act(block, element, {chosen, option}), suggest(block, element, typed),
 * changed(block, element, state), note(block, element, state)}; what is noted is told with the next thing that is.
 */
export function blocks(list, surface) {
  const seen = new Map();
  const key = (part) => { seen.set(part.action_id, (seen.get(part.action_id) ?? 0) + 1); return `${part.action_id}-${seen.get(part.action_id)}`; };
  const drawn = { ...surface, key };
  return list.map((block) => el("div", { className: `block ${block.type}` }, RENDER[block.type]?.(block, drawn) ?? unknown(block)));
}

/** Who draws a place anew calls this with the old nodes before, and the outcome with the new: menus stay open, the focus where it was, or near it. */
export function held(old) {
  const opened = [...old.querySelectorAll("details[open] > summary[data-key]")].map((summary) => summary.dataset.key);
  const focused = old.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  return (fresh) => {
    const keyed = [...fresh.querySelectorAll("[data-key]")];
    for (const node of keyed) if (opened.includes(node.dataset.key) && node.matches("summary")) node.parentElement.open = true;
    if (focused) (keyed.find((node) => node.dataset.key === focused) ?? fresh).focus({ preventScroll: true });
  };
}

export const textObject = (text, people) => (text?.type === "mrkdwn" ? mrkdwn(text.text, people) : [plain(text?.text ?? "")]);
const plain = (text) => text.replace(/:([a-z][a-z0-9_+-]*):/g, (whole, name) => EMOJI[name] ?? whole);
const unknown = (block) => [el("em", {}, `[${block.type}]`)];

const RENDER = {
  section: (block, surface) => [
    el("div", { className: "body" },
      block.text ? el("div", { className: "text" }, textObject(block.text, surface.people)) : null,
      block.fields ? el("div", { className: "fields" }, block.fields.map((f) => el("div", {}, textObject(f, surface.people)))) : null),
    block.accessory ? element(block, block.accessory, surface) : null,
  ],
  header: (block, surface) => [el("h3", {}, textObject(block.text, surface.people))],
  context: (block, surface) => block.elements.map((part) => (part.type === "image" ? picture(part) : el("span", {}, textObject(part, surface.people)))),
  actions: (block, surface) => block.elements.map((part) => element(block, part, surface)),
  divider: () => [el("hr")],
  image: (block) => [block.title ? el("p", {}, plain(block.title.text)) : null, picture(block)],
  markdown: (block, surface) => [el("div", { className: "text" }, mrkdwn(block.text.replace(/\*\*(.+?)\*\*/g, "*$1*"), surface.people))],
  rich_text: (block, surface) => block.elements.map((part) => rich(part, surface.people)),
  plan: (block, surface) => [el("p", { className: "title" }, plain(block.title)), el("ol", {}, (block.tasks ?? []).map((task) => taskItem(task, surface)))],
  task_card: (block, surface) => [el("ol", {}, taskItem(block, surface))],
  table: (block, surface) => [tableOf(block.rows, surface, { settings: block.column_settings ?? [] })],
  data_table: (block, surface) => [paged(block, surface)],
  container: (block, surface) => [container(block, surface)],
  alert: (block, surface) => [el("div", { className: `alert ${block.level ?? "default"}`, role: block.level === "error" ? "alert" : "note" }, textObject(block.text, surface.people))],
  data_visualization: (block) => [chart(block)],
  input: (block, surface) => {
    const error = surface.errors?.[block.block_id];
    const errorId = `error-${block.block_id}`;
    const control = element(block, block.element, surface);
    const named = control.matches("input, select, textarea") ? control : control.querySelector("[role=combobox]") ?? control;
    named.setAttribute("aria-label", block.label.text);
    if (error) named.setAttribute("aria-describedby", errorId);
    return [
      el("div", { className: "label" }, block.label.text, block.optional ? el("small", {}, " (optional)") : null),
      control,
      error ? el("p", { className: "error", id: errorId, role: "alert" }, error) : null,
      block.hint ? el("p", { className: "hint" }, block.hint.text) : null,
    ];
  },
};

const STATE = { pending: ["▫️", "pending"], in_progress: ["🔸", "in progress"], complete: ["✔️", "complete"], error: ["✖️", "failed"] };

function taskItem(task, surface) {
  const [icon, state] = STATE[task.status ?? "pending"];
  return el("li", { className: task.status ?? "pending" }, el("span", { role: "img", "aria-label": state }, icon),
    el("div", {}, el("span", { className: "title" }, plain(task.title)),
      ["details", "output"].filter((key) => task[key]).map((key) => el("div", { className: "more" }, task[key].elements.map((part) => rich(part, surface.people))))));
}

const cellOf = (cell, surface) => (cell.type === "rich_text" ? cell.elements.map((part) => rich(part, surface.people)) : [plain(cell.text)]);

function tableOf(rows, surface, { settings = [], caption = null, header = 0 } = {}) {
  const [head, ...body] = rows;
  const style = (n) => `${settings[n]?.align ?? ""} ${settings[n]?.is_wrapped === false ? "whole" : ""}`.trim() || undefined;
  const row = (cells, tag) => el("tr", {}, cells.map((cell, n) => el(tag === "td" && n === header ? "th" : tag, {
    scope: tag === "th" ? "col" : n === header ? "row" : undefined, className: cell.type === "raw_number" ? "right" : style(n),
  }, cellOf(cell, surface))));
  return el("div", { className: "scrolled", tabIndex: 0, role: "region", "aria-label": caption ?? "Table" },
    el("table", {}, caption ? el("caption", {}, caption) : null, el("thead", {}, row(head, "th")), el("tbody", {}, body.map((cells) => row(cells, "td")))));
}

/** A data table: its reader turns its pages here, and sorts it by a column; the app is not asked. */
function paged(block, surface) {
  const [head, ...rows] = block.rows;
  const size = block.page_size ?? 5;
  const place = el("div", { className: "paged" });
  let at = 0, by = null, down = false;
  const value = (row) => (row[by].type === "raw_number" ? row[by].value : cellOf(row[by], surface).map((part) => part.textContent ?? part).join(""));
  const sorted = () => (by === null ? rows : [...rows].sort((a, b) => {
    const [left, right] = [value(a), value(b)];
    return (typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right))) * (down ? -1 : 1);
  }));
  const draw = () => {
    const shown = tableOf([head, ...sorted().slice(at, at + size)], surface, { caption: block.caption, header: block.row_header_column_index ?? 0 });
    shown.querySelectorAll("thead th").forEach((cell, n) => {
      if (by === n) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      cell.replaceChildren(el("button", { type: "button", className: "sort", onclick: () => { down = by === n && !down; by = n; at = 0; draw(); } }, ...cell.childNodes));
    });
    const turn = (label, to, on) => el("button", { type: "button", disabled: !on, onclick: () => { at = to; draw(); } }, label);
    place.replaceChildren(shown, ...(rows.length > size ? [el("p", { className: "pages" }, turn("‹", at - size, at > 0),
      `${at + 1}–${Math.min(at + size, rows.length)} of ${rows.length}`, turn("›", at + size, at + size < rows.length))] : []));
  };
  draw();
  return place;
}

function container(block, surface) {
  const title = block.rich_text_title ? block.rich_text_title.elements.map((part) => rich(part, surface.people)) : [plain(block.title.text)];
  const inside = el("div", { className: "inside" }, block.subtitle ? el("p", { className: "hint" }, textObject(block.subtitle, surface.people)) : null,
    block.child_blocks.map((child) => el("div", { className: `block ${child.type}` }, RENDER[child.type]?.(child, surface) ?? unknown(child))));
  if (!block.is_collapsible) return el("div", {}, el("p", { className: "title" }, title), inside);
  return el("details", { open: !block.default_collapsed }, el("summary", { "data-key": surface.key({ action_id: `container-${block.title?.text ?? ""}` }) }, title), inside);
}

// ── charts ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const svg = (tag, properties, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

/** Bars, grouped by category; a line or an area is drawn as bars, and a pie as one bar for each slice. */
function chart(block) {
  const { chart } = block;
  const series = chart.series ?? [{ name: block.title, data: chart.segments }];
  const names = chart.axis_config?.categories ?? chart.segments.map((segment) => segment.label);
  const most = Math.max(...series.flatMap((each) => each.data.map((point) => point.value)), 0) || 1;
  const [width, height, foot] = [560, 160, 22];
  const group = width / names.length;
  const bar = Math.min(34, (group - 8) / series.length);
  const told = series.map((each) => `${each.name}: ${each.data.map((point) => `${point.label} ${point.value}`).join(", ")}`).join("; ");
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height + foot + 14}`, role: "img", "aria-label": `${block.title}. ${told}` });
  names.forEach((name, n) => {
    const left = n * group + (group - bar * series.length) / 2;
    series.forEach((each, s) => {
      const value = each.data[n].value;
      const tall = Math.max((value / most) * height, value ? 1 : 0);
      drawn.append(svg("rect", { x: left + s * bar, y: height + 14 - tall, width: Math.max(bar - 2, 1), height: tall, class: `series-${s}` }, svg("title", {}, `${each.name}, ${name}: ${value}`)));
      if (value && series.length < 3) drawn.append(svg("text", { x: left + s * bar + bar / 2, y: height + 10 - tall, "text-anchor": "middle" }, String(value)));
    });
    drawn.append(svg("text", { x: n * group + group / 2, y: height + 14 + foot - 6, "text-anchor": "middle" }, name));
  });
  const legend = series.length > 1 ? el("ul", { className: "legend" }, series.map((each, s) => el("li", {}, el("span", { className: `series-${s}` }), each.name))) : null;
  return el("figure", {}, el("figcaption", {}, el("strong", {}, block.title), chart.axis_config?.y_label ? ` (${chart.axis_config.y_label})` : ""), drawn, legend);
}

function picture(image) {
  const url = image.image_url ?? image.slack_file?.url ?? (image.slack_file?.id ? `/files/${image.slack_file.id}` : "");
  return /^(https?:|data:image\/|\/)/i.test(url) ? el("img", { src: url, alt: image.alt_text ?? "" }) : el("em", {}, image.alt_text ?? "");
}

function rich(part, people) {
  const children = () => (part.elements ?? []).map((child) => rich(child, people));
  switch (part.type) {
    case "rich_text_section": return el("p", {}, children());
    case "rich_text_list": return el(part.style === "ordered" ? "ol" : "ul", {}, (part.elements ?? []).map((item) => el("li", {}, rich(item, people))));
    case "rich_text_preformatted": return el("pre", {}, children());
    case "rich_text_quote": return el("blockquote", {}, children());
    case "link": return link(part.url, part.text ?? part.url);
    case "user": return el("span", { className: "mention" }, "@" + (people[part.user_id]?.name ?? part.user_id));
    case "usergroup": return el("span", { className: "mention" }, "@" + (people[part.usergroup_id]?.name ?? part.usergroup_id));
    case "date": return date(`!date^${part.timestamp}^${part.format}${part.url ? `^${part.url}` : ""}`, part.fallback);
    case "emoji": return document.createTextNode(EMOJI[part.name] ?? `:${part.name}:`);
    default: {
      const tag = part.style?.code ? "code" : part.style?.bold ? "strong" : part.style?.italic ? "em" : part.style?.strike ? "s" : "span";
      return el(tag, {}, part.text ?? "");
    }
  }
}

// ── elements ────────────────────────────────────────────────────────────────────────────────────────────────────────

function element(block, part, surface) {
  if (part.type === "image") return picture(part);
  const key = surface.key(part); // and not Slack's block_id, which is another one after each update
  const state = surface.values?.[block.block_id]?.[part.action_id] ?? {};
  const set = (value) => surface.changed(block, part, { type: part.type, ...value });
  const placeholder = part.placeholder?.text ?? "";
  switch (part.type) {
    case "button":
    case "workflow_button":
      return el("button", { type: "button", className: part.style ?? "", "data-key": key, "aria-label": part.accessibility_label, onclick: () => surface.act(block, part, {}) }, plain(part.text.text));
    case "overflow":
      return el("details", { className: "overflow" }, el("summary", { "aria-label": "More", "data-key": key }, "⋯"),
        el("div", { role: "menu" }, part.options.map((option) => el("button", {
          type: "button", role: "menuitem", "data-key": `${key} ${option.value}`,
          onclick: (event) => { event.target.closest("details").open = false; surface.act(block, part, { option: option.value }); },
        }, plain(option.text.text)))));
    case "plain_text_input": case "number_input": case "email_text_input": case "url_text_input":
      return written(block, part, state, key, placeholder, surface);
    case "static_select": case "multi_static_select":
      return select(part, state, key, placeholder, set);
    case "external_select": case "multi_external_select":
      return external(block, part, state, key, placeholder, surface, set);
    case "radio_buttons": case "checkboxes":
      return choices(part, state, key, surface.people, set);
    case "users_select":
      return el("select", { "data-key": key, onchange: (event) => set({ selected_user: event.target.value || null }) },
        el("option", { value: "" }, placeholder),
        Object.entries(surface.people).map(([id, user]) => el("option", { value: id, selected: id === state.selected_user }, "@" + user.name)));
    case "multi_users_select": {
      const chosen = state.selected_users ?? [];
      return el("select", { multiple: true, "data-key": key, onchange: (event) => set({ selected_users: [...event.target.selectedOptions].map((one) => one.value) }) },
        Object.entries(surface.people).map(([id, user]) => el("option", { value: id, selected: chosen.includes(id) }, "@" + user.name)));
    }
    case "datepicker":
      return el("input", { type: "date", "data-key": key, value: state.selected_date ?? "", onchange: (e) => set({ selected_date: e.target.value || null }) });
    case "timepicker":
      return el("input", { type: "time", "data-key": key, value: state.selected_time ?? "", onchange: (e) => set({ selected_time: e.target.value || null }) });
    case "datetimepicker":
      return el("input", {
        type: "datetime-local", "data-key": key, value: state.selected_date_time ? localTime(state.selected_date_time) : "",
        onchange: (e) => set({ selected_date_time: Math.floor(new Date(e.target.value) / 1000) || null }),
      });
    default:
      return el("em", {}, `[${part.type}]`);
  }
}

const PAUSE = 400; // ms without a keystroke after which an input that dispatches characters tells what is written

/** A line or a text; an input that dispatches tells the app on Enter, or while one types, as its configuration says. */
function written(block, part, state, key, placeholder, surface) {
  const on = block.dispatch_action ? part.dispatch_action_config?.trigger_actions_on ?? ["on_enter_pressed"] : [];
  const value = (event) => ({ type: part.type, value: event.target.value || null });
  let waiting;
  return el(part.multiline ? "textarea" : "input", {
    "data-key": key, placeholder, value: state.value ?? "", maxLength: part.max_length, minLength: part.min_length, autocomplete: "off",
    rows: part.multiline ? 3 : undefined, inputMode: part.type === "number_input" ? "decimal" : undefined,
    oninput: (event) => {
      surface.note(block, part, value(event));
      clearTimeout(waiting);
      if (on.includes("on_character_entered")) waiting = setTimeout(() => surface.act(block, part, { chosen: value(event) }), PAUSE);
    },
    onkeydown: (event) => {
      if (event.key !== "Enter" || part.multiline || !on.includes("on_enter_pressed")) return;
      event.preventDefault();
      surface.act(block, part, { chosen: value(event) });
    },
  });
}

function localTime(seconds) {
  const when = new Date(seconds * 1000);
  return new Date(when.getTime() - when.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

function select(part, state, key, placeholder, set) {
  const many = part.type.startsWith("multi_");
  const all = [...(part.options ?? []), ...(part.option_groups ?? []).flatMap((group) => group.options)];
  const chosen = new Set((many ? state.selected_options ?? [] : [state.selected_option]).filter(Boolean).map((option) => option.value));
  const item = (option) => el("option", { value: option.value, selected: chosen.has(option.value) }, plain(option.text.text));
  return el("select", {
    "data-key": key, multiple: many,
    onchange: (event) => {
      const picked = [...event.target.selectedOptions].map((node) => all.find((option) => option.value === node.value)).filter(Boolean);
      set(many ? { selected_options: picked } : { selected_option: picked[0] ?? null });
    },
  },
  many ? null : el("option", { value: "" }, placeholder || "Choose…"),
  (part.options ?? []).map(item),
  (part.option_groups ?? []).map((group) => el("optgroup", { label: group.label.text }, group.options.map(item))));
}

/** A select whose options the app looks up while one types; arrow keys and Enter choose. */
function external(block, part, state, key, placeholder, surface, set) {
  const chosen = state.selected_option ?? state.selected_options?.[0];
  const found = el("div", { className: "suggestions", role: "listbox", id: `found-${key}` });
  const line = el("input", {
    "data-key": key, placeholder, autocomplete: "off", value: chosen?.text.text ?? "", role: "combobox", "aria-controls": `found-${key}`, "aria-expanded": "false",
  });
  let asked = 0;
  const show = (nodes) => { found.replaceChildren(...nodes); line.setAttribute("aria-expanded", String(nodes.length > 0)); };
  const look = async () => {
    const mine = ++asked;
    if (line.value.length < (part.min_query_length ?? 3)) return show([]);
    const offered = await surface.suggest(block, part, line.value);
    if (mine !== asked || !line.isConnected) return;
    show(offered.length ? offered.map(option) : [el("p", { className: "hint" }, "Nothing found.")]);
  };
  const choose = (each) => {
    line.value = each.text.text;
    line.focus();
    show([]);
    set(part.type.startsWith("multi_") ? { selected_options: [each] } : { selected_option: each });
  };
  const option = (each) => el("button", { type: "button", role: "option", onclick: () => choose(each) },
    plain(each.text.text), each.description ? el("small", {}, plain(each.description.text)) : null);
  let waiting;
  line.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(look, PAUSE / 2); });
  line.addEventListener("focus", () => { if ((part.min_query_length ?? 3) === 0 && !found.children.length) look(); });
  const box = el("div", { className: "external" }, line, found);
  box.addEventListener("keydown", (event) => {
    const all = [...found.querySelectorAll("button")];
    const here = all.indexOf(document.activeElement);
    if (event.key === "ArrowDown" && all.length) { event.preventDefault(); all[Math.min(here + 1, all.length - 1)].focus(); }
    if (event.key === "ArrowUp" && here >= 0) { event.preventDefault(); (all[here - 1] ?? line).focus(); }
    if (event.key === "Enter" && event.target === line) { event.preventDefault(); all[0]?.click(); }
    if (event.key === "Escape" && all.length) { event.stopPropagation(); event.preventDefault(); show([]); line.focus(); }
  });
  return box;
}

function choices(part, state, key, people, set) {
  const many = part.type === "checkboxes";
  const chosen = new Set((many ? state.selected_options ?? [] : [state.selected_option]).filter(Boolean).map((option) => option.value));
  return el("div", { role: many ? "group" : "radiogroup" }, part.options.map((option) => el("label", { className: "choice" },
    el("input", {
      type: many ? "checkbox" : "radio", name: key, checked: chosen.has(option.value), "data-key": `${key}/${option.value}`,
      onchange: (event) => {
        if (!many) return set({ selected_option: option });
        if (event.target.checked) chosen.add(option.value); else chosen.delete(option.value);
        return set({ selected_options: part.options.filter((each) => chosen.has(each.value)) });
      },
    }),
    el("span", {}, textObject(option.text, people), option.description ? el("small", {}, " ", textObject(option.description, people)) : null))));
}
