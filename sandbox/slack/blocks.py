"""Block Kit: the visible text of blocks, their interactive elements, and the errors that Slack would return."""

import html
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.slack import limits, newer_blocks

Json = dict[str, Any]

MESSAGE_BLOCKS = 50
VIEW_BLOCKS = 100
# Near this number of characters, Slack returns msg_blocks_too_long; the limit is not documented.
MESSAGE_CHARACTERS = 13_000

_BLOCK_TYPES = {
    "section", "header", "context", "actions", "divider", "image", "input", "rich_text", "markdown", "video", "file",
    "context_actions",
} | newer_blocks.NEWER  # fmt: skip
_MENTION = re.compile(r"<([@#!])([^>|]+)(?:\|([^>]*))?>")
_LINK = re.compile(r"<((?:https?|mailto|tel)[^>|]*)(?:\|([^>]*))?>")
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_STYLED = [
    re.compile(rf"(?<![\w{re.escape(c)}]){re.escape(c)}(?=\S)([^\n]+?)(?<=\S){re.escape(c)}(?!\w)") for c in "*_~"
]


@dataclass(frozen=True)
class Control:
    """One interactive element and its block."""

    block: Json
    element: Json
    label: str
    option: Json | None = None  # for an overflow menu

    @property
    def pressable(self) -> bool:
        return self.element["type"] in ("button", "workflow_button", "overflow")


# ── visible text ──────────────────────────────────────────────────────────────────────────────────────────────


def readable(mrkdwn: str, names: Callable[[str], str]) -> str:
    """Return the visible text: without markup, with names for mentions and texts for links.

    `names` returns the name for an id.
    """

    def mention(match: re.Match[str]) -> str:
        sigil, target, label = match.groups()
        if sigil == "!":
            kind, _, group = target.partition("^")
            return label or "@" + (names(group) if kind == "subteam" else kind)
        return sigil + (label or names(target))

    codes: list[str] = []

    def set_aside(match: re.Match[str]) -> str:
        codes.append(match[0].strip("`"))
        return f"\0{len(codes) - 1}\0"  # bold text may contain code, but code contains no markup

    text = _CODE.sub(set_aside, mrkdwn.replace("\0", ""))
    text = _LINK.sub(lambda m: m[2] or m[1], _MENTION.sub(mention, text))
    for styled in _STYLED:
        text = styled.sub(r"\1", text)
    return html.unescape(re.sub(r"\0(\d+)\0", lambda m: codes[int(m[1])], text))


def visible_text(blocks: Sequence[Json], names: Callable[[str], str]) -> str:
    """Return the visible text of these blocks, one line per block, with buttons as `[label]`."""
    return "\n".join(line for block in blocks if (line := _block_text(block, names)))


def _block_text(block: Json, names: Callable[[str], str]) -> str:
    match block.get("type"):
        case "rich_text":
            return "".join(_leaves(block, names))
        case "table" | "data_table" | "plan" | "task_card" | "container" | "data_visualization":
            return _newer_block_text(block, names)
        case "image":
            return " ".join(filter(None, (_text(block.get("title"), names), str(block.get("alt_text", "")))))
        case "input":
            parts = [block.get("label"), block.get("hint"), block.get("element")]
        case "context" | "actions" | "context_actions":
            parts = list(block.get("elements", []))
        case "markdown":
            parts = [{"type": "mrkdwn", "text": block.get("text", "")}]
        case _:
            fields = " · ".join(_field_text(field, names) for field in block.get("fields", []))
            lines = [_text(block.get("text"), names), fields, _text(block.get("accessory"), names)]
            return "\n".join(filter(None, lines))
    return "  ".join(text for part in parts if (text := _text(part, names)))


def _newer_block_text(block: Json, names: Callable[[str], str]) -> str:
    def rich(part: Json) -> str:
        return "".join(_leaves(part, names)).rstrip("\n")

    match block["type"]:
        case "table" | "data_table":
            caption = [str(block["caption"])] if block.get("caption") else []
            return "\n".join([*caption, newer_blocks.table_text(block["rows"], rich)])
        case "plan":
            return "\n".join([str(block["title"]), newer_blocks.tasks_text(block.get("tasks", []), rich)])
        case "task_card":
            return newer_blocks.tasks_text([block], rich)
        case "container":
            title = rich(block["rich_text_title"]) if "rich_text_title" in block else _text(block["title"], names)
            return "\n".join([title, visible_text(block["child_blocks"], names)])
    return newer_blocks.chart_text(block)


def _field_text(field: Json, names: Callable[[str], str]) -> str:
    """Return `Commit: aa5c0ffee1` for a field whose bold first line is its label."""
    label, _, value = _text(field, names).partition("\n")
    return f"{label}: {value}" if value else label


def _text(part: Json | None, names: Callable[[str], str]) -> str:
    if part is None:
        return ""
    match part:
        case {"type": "mrkdwn", "text": str(text)}:
            return readable(text, names)
        case {"type": "plain_text", "text": str(text)}:
            return text
        case {"type": "button", "text": {"text": str(text)}}:
            return f"[{text}]"
        case {"type": "image"}:
            return str(part.get("alt_text", ""))
        case {"type": "overflow" | "radio_buttons" | "checkboxes", "options": [*options]}:
            return " ".join(f"[{option['text']['text']}]" for option in options)
        case {"initial_value": value}:
            return str(value)
        case {"initial_option": option}:
            return str(option["text"]["text"])
        case {"placeholder": placeholder}:
            return _text(placeholder, names)
    return ""


def _leaves(node: Json, names: Callable[[str], str]) -> Iterator[str]:
    match node:
        case {"type": "text" | "raw_text" | "raw_number", "text": str(text)}:
            yield text
        case {"type": "link", "url": str(url)}:
            yield str(node.get("text") or url)
        case {"type": "user", "user_id": str(user)}:
            yield "@" + names(user)
        case {"type": "usergroup", "usergroup_id": str(group)}:
            yield "@" + names(group)
        case {"type": "emoji", "name": str(name)}:
            yield f":{name}:"
        case {"type": "date", "fallback": str(text)}:
            yield text
    for child in node.get("elements", []):
        yield from _leaves(child, names)
        if child.get("type", "").startswith("rich_text_"):
            yield "\n"


# ── controls ────────────────────────────────────────────────────────────────────────────────────────────────


def controls(blocks: Sequence[Json]) -> Iterator[Control]:
    """Yield every interactive element in reading order; an overflow menu has one control per option."""
    for block in blocks:
        yield from controls(block.get("child_blocks", []))
        for element in _elements(block):
            if element.get("type") in (None, "image", "mrkdwn", "plain_text"):
                continue
            if element["type"] == "overflow":
                for option in element.get("options", []):
                    yield Control(block, element, option["text"]["text"], option)
            else:
                yield Control(block, element, _label(block, element))


def _label(block: Json, element: Json) -> str:
    for holder in (element.get("text"), block.get("label"), element.get("placeholder"), block.get("text")):
        if isinstance(holder, dict) and holder.get("text"):
            return str(holder["text"])
    return str(element.get("action_id", ""))


def _elements(block: Json) -> list[Json]:
    if block.get("type") in ("actions", "context_actions", "context"):
        return list(block.get("elements", []))
    return [element for key in ("accessory", "element") if isinstance(element := block.get(key), dict)]


def initial_state(blocks: Sequence[Json]) -> dict[str, dict[str, Json]]:
    """Return `state.values` of blocks without input."""
    values: dict[str, dict[str, Json]] = {}
    for control in controls(blocks):
        if not control.pressable:
            values.setdefault(control.block["block_id"], {})[control.element["action_id"]] = _initial(control.element)
    return values


def _initial(element: Json) -> Json:
    state: Json = {"type": element["type"]}
    for name, key in _STATE_KEYS.get(element["type"], (("initial_value", "value"),)):
        state[key] = element.get(name, [] if key.endswith("s") else None)
    return state


_STATE_KEYS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "static_select": (("initial_option", "selected_option"),),
    "external_select": (("initial_option", "selected_option"),),
    "radio_buttons": (("initial_option", "selected_option"),),
    "checkboxes": (("initial_options", "selected_options"),),
    "multi_static_select": (("initial_options", "selected_options"),),
    "multi_external_select": (("initial_options", "selected_options"),),
    "users_select": (("initial_user", "selected_user"),),
    "multi_users_select": (("initial_users", "selected_users"),),
    "conversations_select": (("initial_conversation", "selected_conversation"),),
    "channels_select": (("initial_channel", "selected_channel"),),
    "datepicker": (("initial_date", "selected_date"),),
    "timepicker": (("initial_time", "selected_time"),),
    "datetimepicker": (("initial_date_time", "selected_date_time"),),
}


def empty(state: Json) -> bool:
    """Return whether the element has no choice and no text."""
    return not any(value for key, value in state.items() if key != "type")


def options(element: Json) -> list[Json]:
    """Return the options of a select, including those in groups."""
    return [*element.get("options", []), *(o for group in element.get("option_groups", []) for o in group["options"])]


def with_ids(blocks: Sequence[Json]) -> list[Json]:
    """Return the blocks as Slack stores them: with generated ids where the app set none."""
    stored = []
    for block in blocks:
        block = {**block, "block_id": block.get("block_id") or _short_id()}
        if "child_blocks" in block:
            block["child_blocks"] = with_ids(block["child_blocks"])
        for key in ("accessory", "element"):
            if isinstance(block.get(key), dict):
                block[key] = _with_action_id(block[key])
        if block.get("type") in ("actions", "context_actions"):
            block["elements"] = [_with_action_id(element) for element in block.get("elements", [])]
        stored.append(block)
    return stored


def _with_action_id(element: Json) -> Json:
    return (
        element if element.get("type") == "image" else {**element, "action_id": element.get("action_id") or _short_id()}
    )


def _short_id() -> str:
    return secrets.token_urlsafe(4)


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────


def complaints(blocks: object, limit: int = MESSAGE_BLOCKS, surface: str = "message") -> list[str]:
    """Return the reasons why Slack would answer `invalid_blocks`; empty if it would accept the blocks.

    `surface` is `message`, `modal` or `home`. The limits are from docs.slack.dev/reference/block-kit.
    """
    if not isinstance(blocks, list):
        return ["blocks must be an array"]
    problems = [f"no more than {limit} items allowed [json-pointer:/blocks]"] if len(blocks) > limit else []
    block_ids: list[str] = []
    for index, block in enumerate(blocks):
        pointer = f"/blocks/{index}"
        if not isinstance(block, dict) or block.get("type") not in _BLOCK_TYPES:
            problems.append(f"unsupported type [json-pointer:{pointer}/type]")
            continue
        block_ids += [block["block_id"]] if block.get("block_id") else []
        problems += [f"{problem} [json-pointer:{pointer}]" for problem in _block_complaints(block)]
    if len(set(block_ids)) < len(block_ids):
        problems.append("block_id already exists [json-pointer:/blocks]")
    return [
        *problems,
        *newer_blocks.combination_complaints([block for block in blocks if isinstance(block, dict)], surface),
    ]


def _block_complaints(block: Json) -> Iterator[str]:
    yield from limits.length("block_id", block.get("block_id", "-"), 255)
    match block["type"]:
        case "section":
            yield from _section_complaints(block)
        case "header":
            yield from limits.text_object("text", block.get("text"), 150, plain=True)
        case "context":
            yield from limits.count("elements", block.get("elements", []), 10)
            for element in block.get("elements", []):
                if element.get("type") != "image":
                    yield from limits.text_object("element", element, 2000)
        case "actions":
            yield from limits.count("elements", block.get("elements", []), 25)
        case "input":
            yield from limits.text_object("label", block.get("label"), 2000, plain=True)
            if "element" not in block:
                yield "missing required field: element"
        case "image":
            yield from (f"missing required field: {key}" for key in ("alt_text",) if not block.get(key))
        case _:
            yield from newer_blocks.complaints(block, _block_complaints)
    elements = [element for element in _elements(block) if block["type"] != "context"]
    action_ids = [element["action_id"] for element in elements if element.get("action_id")]
    if len(set(action_ids)) < len(action_ids):
        yield "action_id already exists"
    for element in elements:
        yield from _element_complaints(element)


def _section_complaints(block: Json) -> Iterator[str]:
    if "text" not in block and "fields" not in block:
        yield "missing required field: text or fields"
    if "text" in block:
        yield from limits.text_object("text", block["text"], 3000)
    yield from limits.count("fields", block.get("fields", ["-"]), 10)
    for field in block.get("fields", []):
        yield from limits.text_object("field", field, 2000)


def _element_complaints(element: Json) -> Iterator[str]:
    yield from limits.length("action_id", element.get("action_id", "-"), 255)
    if "placeholder" in element:
        yield from limits.text_object("placeholder", element["placeholder"], 150, plain=True)
    if "confirm" in element:
        yield from _confirm_complaints(element["confirm"])
    if element.get("type") == "button":
        yield from limits.text_object("button text", element.get("text"), 75, plain=True)
        yield from limits.length("value", element.get("value", "-"), 2000)
        yield from limits.length("url", element.get("url", "-"), 3000)
        yield from limits.length("accessibility_label", element.get("accessibility_label", "-"), 75)
        if element.get("style", "primary") not in ("primary", "danger"):
            yield "invalid button style"
    most = {"overflow": 5, "radio_buttons": 10, "checkboxes": 10}.get(str(element.get("type")), 100)
    if "options" in element:
        yield from limits.count("options", element["options"], most)
    for option in options(element):
        yield from limits.text_object("option text", option.get("text"), 75)
        yield from limits.length("option value", option.get("value", ""), 150)


def _confirm_complaints(confirm: Json) -> Iterator[str]:
    for key, limit in {"title": 100, "text": 300, "confirm": 30, "deny": 30}.items():
        yield from limits.text_object(f"confirm {key}", confirm.get(key), limit, plain=key != "text")


def view_complaints(view: object) -> list[str]:
    """Return the reasons why Slack would answer `invalid_arguments` to a view."""
    if not isinstance(view, dict) or view.get("type") not in ("modal", "home"):
        return ["view must be an object of type modal or home"]
    problems = complaints(view.get("blocks", []), VIEW_BLOCKS, view["type"])
    for key in ("title", "submit", "close"):
        if view["type"] == "modal" and (key == "title" or view.get(key)):
            problems += [
                f"{problem} [json-pointer:/view/{key}]"
                for problem in limits.text_object(key, view.get(key), 24, plain=True)
            ]
    if len(view.get("private_metadata") or "") > 3000:
        problems.append("private_metadata: must be less than 3001 characters [json-pointer:/view/private_metadata]")
    if (
        view["type"] == "modal"
        and not view.get("submit")
        and any(b.get("type") == "input" for b in view.get("blocks", []))
    ):
        problems.append("a view with input blocks needs a submit button [json-pointer:/view/submit]")
    return problems


def slack_files(blocks: Sequence[Json]) -> Iterator[str]:
    """Yield the ids of the uploaded files in image blocks."""

    def find(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            file = node.get("slack_file")
            if isinstance(file, dict):
                yield str(file.get("id") or str(file.get("url", "")).rpartition("/")[2])
            for child in node.values():
                yield from find(child)
        for child in node if isinstance(node, list) else ():
            yield from find(child)

    return find(list(blocks))


def characters(blocks: Sequence[Json]) -> int:
    """Return the number of characters in the blocks, for Slack's undocumented total limit."""

    def count(node: object) -> int:
        if isinstance(node, dict):
            return sum(len(v) if k in ("text", "value") and isinstance(v, str) else count(v) for k, v in node.items())
        return sum(map(count, node)) if isinstance(node, list) else 0

    return count(list(blocks))
