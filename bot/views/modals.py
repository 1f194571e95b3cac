"""The forms. One that needs git or the Hub is opened empty within Slack's three seconds and filled by `views.update`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from bot.domain import Lease, Message, Operation
from bot.views.blocks import (
    BUTTON,
    VIEW_BLOCKS,
    Block,
    Blocks,
    actions,
    button,
    context,
    divider,
    fields,
    fitted,
    option,
    plain_text,
    section,
)
from bot.views.card import title
from bot.views.reminder import KEEP_UNTIL
from bot.views.text import clock, code, inline, person, plain

TITLE, METADATA, CHOICES = 24, 3000, 100
"""Slack's limits: characters of a title, submit and close, and of `private_metadata`; options of a select."""

BECAUSE_FORM, CHANGE_FORM, ADVANCED_FORM, EXTEND_FORM = "because", "model_change", "model_advanced", "lease_extend"
"""The forms' callback ids."""

SHORTCUT = "tell_stoker"
"""The shortcut of a message, and the form that it opens: a slash command cannot be used in a thread."""

_PROBLEM = "problem"
"""The block that says why there is nothing to open."""

ADVANCED, TYPED = "advanced", "typed"
"""The button for the rarer options; the beginning of the action id of every field that is looked at as one types."""


def modal(callback: str, name: str, blocks: list[Block], *, submit: str = "", metadata: str = "") -> Block:
    """A form; without `submit` it is one to read."""
    view = {
        "type": "modal",
        "callback_id": callback,
        "private_metadata": metadata,
        "title": plain_text(name, TITLE),
        "close": plain_text("Cancel" if submit else "Close", TITLE),
        "blocks": blocks,
    }
    return view | ({"submit": plain_text(submit, TITLE)} if submit else {})


def loading(name: str) -> Block:
    """Opened at once: a trigger is good for three seconds, and what fills the form may take longer."""
    return modal("loading", name, [section("⏳ Looking at the platform …")])


def stopped(name: str, why: str) -> Block:
    """A form that cannot be filled: why, in mrkdwn."""
    return modal("stopped", name, [section(why)])


def text_input(
    block: str,
    label: str,
    *,
    hint: str = "",
    placeholder: str = "",
    initial: str = "",
    optional: bool = False,
    multiline: bool = False,
    live: bool = False,
    longest: int = 200,
) -> Block:
    """A field to type into; `live` ones are told to the bot with each character."""
    element: Block = {
        "type": "plain_text_input",
        "action_id": f"{TYPED}:{block}",
        "multiline": multiline,
        "max_length": longest,
    }
    if placeholder:
        element["placeholder"] = plain_text(placeholder, 150)
    if initial:
        element["initial_value"] = initial[:longest]
    if live:
        element["dispatch_action_config"] = {"trigger_actions_on": ["on_enter_pressed", "on_character_entered"]}
    return _input(block, label, element, hint=hint, optional=optional, live=live)


def _input(block: str, label: str, element: Block, *, hint: str, optional: bool, live: bool) -> Block:
    made = {
        "type": "input",
        "block_id": block,
        "label": plain_text(label, 75),
        "element": element,
        "optional": optional,
        "dispatch_action": live,
    }
    return made | ({"hint": plain_text(hint, 150)} if hint else {})


def choice(block: str, label: str, values: tuple[str, ...], chosen: str, hint: str = "") -> Block:
    """A select of names; what does not fit into an option is left out, and without any option one types.

    Of more than a hundred the first are offered, and the chosen one in any case.
    """
    offered = dict.fromkeys((*((chosen,) if chosen in values else ()), *values) if len(values) > CHOICES else values)
    options = [option(value, value) for value in offered if 0 < len(value) <= BUTTON][:CHOICES]
    if not options:
        return text_input(block, label, hint=hint, initial=chosen, live=True)
    element: Block = {"type": "static_select", "action_id": f"{TYPED}:{block}", "options": options}
    if chosen in [each["value"] for each in options]:
        element["initial_option"] = option(chosen, chosen)
    return _input(block, label, element, hint=hint, optional=False, live=True)


def because_form(op: Operation, verb: str) -> Block:
    """`approve`, `deny` or `override`, with the reason that the card and the audit log will show."""
    asked = section(f"*{inline(title(op), 300)}*, asked by {person(op.request.actor)}")
    reason = text_input("reason", "Because", multiline=True, longest=500)
    name = f"{verb.capitalize()} because …"
    return modal(BECAUSE_FORM, name, [asked, reason], submit=verb.capitalize(), metadata=f"{verb}:{op.id}")


def extend_form(model: str, ends: datetime | None, longest: str) -> Block:
    """How much longer; `longest` is how long a lease may be without asking."""
    now = f" Its lease ends at {clock(ends)}." if ends else ""
    by = text_input("hold", "For how much longer", placeholder="1h", hint=f"Over {longest} in all an approver decides")
    why = text_input("reason", "Because", optional=True, longest=500)
    about = section(f"{code(model)} stays up longer.{now}")
    return modal(
        EXTEND_FORM, "Extend the lease", [about, by, why], submit="Extend", metadata=model[:METADATA]
    )  # an endpoint's name has 63 characters


class KeepUntil(BaseModel, frozen=True):
    """What the form of *Keep until …* is about: an operation's session, and the reminder that it answers."""

    op: str
    message: Message


def keep_form(lease: Lease, until: datetime, message: Message) -> Block:
    """A moment to keep an idle model up to: `until` at first, at the latest the end of the lease."""
    ends = f" At the latest {clock(lease.ends)}, when its lease ends." if lease.ends else ""
    moment = {
        "type": "input",
        "block_id": "until",
        "label": plain_text("Keep until", 75),
        "element": {
            "type": "datetimepicker",
            "action_id": "value",
            "initial_date_time": int(until.timestamp()),
        },
    }
    asked = section(f"How long shall {code(lease.model)} stay up although nobody uses it?{ends}")
    about = KeepUntil(op=lease.op, message=message).model_dump_json()
    return modal(KEEP_UNTIL, "Keep until …", [asked, moment], submit="Keep", metadata=about)


Verb = Literal["add", "swap"]


@dataclass(frozen=True)
class ChangeForm:
    """The form of `/model add` and `/model swap`: what was typed, and what comes of it.

    `options` are those of the second page; `names` the endpoints to choose from; `summary`, `sizing` and `files` the
    change as it would be opened; `problem` why there is none (plain text); `figures` the options to ask for when
    Hugging Face did not tell, each with its words and an example.
    """

    verb: Verb
    commit: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    options: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()
    summary: tuple[tuple[str, str], ...] = ()
    verdict: str = ""
    sizing: tuple[tuple[str, str, str, bool], ...] = ()
    files: tuple[tuple[str, int, int], ...] = ()
    warnings: tuple[str, ...] = ()
    problem: str = ""
    figures: tuple[tuple[str, str, str], ...] = ()

    @property
    def name(self) -> str:
        return "Add a model" if self.verb == "add" else "Swap a model"

    def derived(self, label: str) -> str:
        return dict(self.summary).get(label, "")


def change_form(form: ChangeForm) -> Block:
    """What to fill in, then what it comes to: the contract with its derived values, the sizing, the files."""
    values = form.values
    blocks: Blocks = []
    if form.verb == "add":
        hint = "A DNS label: small letters, digits and dashes"
        initial = values.get("name", "")
        blocks.append(
            text_input("name", "Name", initial=initial, placeholder="coder-mini", hint=hint, live=True, longest=63)
        )
    else:
        blocks.append(choice("name", "Endpoint", form.names, values.get("name", "")))
    blocks.append(_model_field(values.get("hf_id", "")))
    blocks += [
        text_input(option, words.capitalize(), initial=values.get(option, ""), hint=f"e.g. {example}", live=True)
        for option, words, example in form.figures
    ]
    if form.verb == "add":
        blocks.append(
            choice("like", "Made like", form.names, values.get("like", ""), hint="The template of its manifests")
        )
    for key, label, row in (("context", "Context", "Context"), ("served", "Served name", "Served name")):
        told = form.derived(row)
        blocks.append(
            text_input(
                key,
                label,
                initial=values.get(key, ""),
                placeholder=f"{told} (derived)" if told else "derived from the model",
                optional=True,
                live=True,
                longest=100,
            )
        )
    blocks.append(text_input("reason", "Because", initial=values.get("reason", ""), optional=True, longest=300))
    said = "  ".join(code(f"{key}={value}") for key, value in form.options)
    blocks.append(actions(button("Advanced …", ADVANCED, form.verb)))
    blocks += [context(said)] if said else []
    blocks += [divider(), *_outlook(form)]
    metadata = json.dumps({"verb": form.verb, "commit": form.commit, "options": form.options}, ensure_ascii=False)
    return modal(CHANGE_FORM, form.name, fitted(blocks, VIEW_BLOCKS), submit="Open pull request", metadata=metadata)


def _model_field(hf_id: str) -> Block:
    element: Block = {
        "type": "external_select",
        "action_id": f"{TYPED}:hf_id",
        "min_query_length": 2,
        "placeholder": plain_text("Search the Hub, or type organisation/name", 150),
    }
    if hf_id:
        element["initial_option"] = option(hf_id, hf_id[:150])
    return _input("hf_id", "Model on Hugging Face", element, hint="", optional=False, live=True)


def _outlook(form: ChangeForm) -> Blocks:
    """What the pull request would be, as far as is known by now."""
    if form.problem:
        return [section(f"❌ {inline(form.problem, 1500)}") | {"block_id": _PROBLEM}]
    if not form.summary:
        return [context("Choose a model: what follows from it is shown here before anything is opened.")]
    blocks = [
        section("*The contract*"),
        *fields([f"*{inline(k, 60)}*\n{inline(v, 200)}" for k, v in form.summary[:20]]),
    ]
    if form.verdict:
        icon = "✅" if form.verdict == "fits" else "⚠️"
        rows = [
            f"{'✔️' if ok else '✖️'} {inline(label, 80)}: {inline(value, 120)} of {inline(limit, 60)}"
            for label, value, limit, ok in form.sizing
        ]
        blocks.append(section("\n".join([f"{icon} *Sizing: {inline(form.verdict, 40)}*", *rows])))
    if form.warnings:
        blocks.append(section("\n".join(f"⚠️ {inline(text, 300)}" for text in form.warnings[:8])))
    changed = [f"{code(path)} +{plus} −{minus}" for path, plus, minus in form.files[:20]]
    blocks.append(section("\n".join([f"*The pull request*: {len(form.files)} files", *changed])))
    return blocks


def shows_problem(view: Block, problem: str) -> bool:
    """Whether a form that was handed in says this problem already."""
    shown = "".join(block["text"]["text"] for block in view["blocks"] if block.get("block_id") == _PROBLEM)
    return bool(shown) and shown == section(f"❌ {inline(problem, 1500)}")["text"]["text"]


def advanced_form(verb: Verb, options: tuple[tuple[str, str], ...], metadata: str) -> Block:
    """The second page: what is rarely said. Extra arguments are one a line."""
    given = dict(options)
    arguments = "\n".join(value for key, value in options if key == "arg")
    rows = [
        ("quantization", "Quantization", "awq_marlin, or none"),
        ("gpu-util", "GPU memory utilization", "0.9"),
        ("storage", "Volume", "20Gi"),
        ("price-in", "Price per input token, dollars", "0.0000005"),
        ("price-out", "Price per output token, dollars", "0.0000015"),
    ]
    rows += [("group", "Group", "coding-assistant")] if verb == "add" else []
    blocks = [
        text_input(key, label, initial=given.get(key, ""), placeholder=f"e.g. {example}", optional=True, longest=100)
        for key, label, example in rows
    ]
    hint = "One a line, e.g. --enable-prefix-caching"
    blocks.append(
        text_input(
            "arg", "Arguments of vLLM", initial=arguments, hint=hint, optional=True, multiline=True, longest=1000
        )
    )
    return modal(ADVANCED_FORM, "Advanced", blocks, submit="Use these", metadata=metadata)


def typed(view: Block) -> dict[str, str]:
    """What stands in a form's fields, by block id; empty ones are left out."""
    values = {}
    for block, states in view["state"]["values"].items():
        for state in states.values():
            value = state.get("value") or (state.get("selected_option") or {}).get("value")
            value = value or state.get("selected_date_time") or ""
            # Half of a surrogate pair cannot be stored: JSON may carry it, UTF-8 may not.
            if told := str(value).encode(errors="replace").decode().strip():
                values[block] = told
    return values


def model_options(found: tuple[str, ...], typed_text: str) -> list[Block]:
    """What the search field offers: the Hub's models, and first what was typed, if it can be an id."""
    ids = dict.fromkeys([*([typed_text] if typed_text.count("/") == 1 else []), *found])
    return [option(hf_id, hf_id) for hf_id in ids if len(hf_id) <= 150 and plain(hf_id) == hf_id][:CHOICES]
