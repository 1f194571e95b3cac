"""The forms. A form that needs git or Hugging Face is opened empty, within Slack's limit of three seconds, and filled
by `views.update`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from bot.domain.leases import Lease
from bot.domain.operations import Operation
from bot.domain.values import Message
from bot.text.mrkdwn import Mrkdwn, md
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
    option,
    plain_text,
    section,
    trimmed_to_limits,
)
from bot.views.card import title
from bot.views.form_terms import LABELS
from bot.views.newer import ALERT_ICONS, alert
from bot.views.reminder import KEEP_UNTIL
from bot.views.text import because, clock, code, inline, person, plain
from manifests.frozen import frozen

TITLE, METADATA, CHOICES = 24, 3000, 100
"""Slack's limits: characters of a title, submit and close, and of `private_metadata`; options of a select."""

BECAUSE_FORM, CHANGE_FORM, ADVANCED_FORM, EXTEND_FORM = "because", "model_change", "model_advanced", "lease_extend"
DOWN_FORM, OBJECT_FORM = "session_down", "object_to_it"
"""The forms' callback ids."""

SHORTCUT = "tell_stoker"
"""The message shortcut, and its form: slash commands do not work in a thread."""

_PROBLEM = "problem"
"""The block with the reason why no pull request can be opened."""

ADVANCED, TYPED = "advanced", "typed"
"""The button for advanced options; the prefix of the action ids of fields that are validated while the user types."""


def modal(callback: str, name: str, blocks: list[Block], *, submit: str = "", metadata: str = "") -> Block:
    """A form; without `submit` it is read-only."""
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
    """The form that is opened immediately, because a trigger is only valid for three seconds."""
    return modal("loading", name, [section(md("⏳ Reading the platform repository …"))])


def unfillable_form(name: str, reason: Mrkdwn) -> Block:
    """A form that cannot be filled, with the reason in mrkdwn."""
    return modal("stopped", name, [alert(reason, "error")])


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
    """A text field; `live` fields send each change to the bot."""
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
    field = {
        "type": "input",
        "block_id": block,
        "label": plain_text(label, 75),
        "element": element,
        "optional": optional,
        "dispatch_action": live,
    }
    return field | ({"hint": plain_text(hint, 150)} if hint else {})


def choice(block: str, label: str, values: tuple[str, ...], chosen: str, hint: str = "") -> Block:
    """A select of names. Names that do not fit into an option are left out; without any options it is a text field.

    If there are more than 100 names, it offers the first names and the chosen name.
    """
    offered = dict.fromkeys((*((chosen,) if chosen in values else ()), *values) if len(values) > CHOICES else values)
    options = [option(value, value) for value in offered if 0 < len(value) <= BUTTON][:CHOICES]
    if not options:
        return text_input(block, label, hint=hint, initial=chosen, live=True)
    element: Block = {"type": "static_select", "action_id": f"{TYPED}:{block}", "options": options}
    if chosen in [entry["value"] for entry in options]:
        element["initial_option"] = option(chosen, chosen)
    return _input(block, label, element, hint=hint, optional=False, live=True)


def because_form(op: Operation, verb: str, value: str) -> Block:
    """The form to `approve`, `deny` or `override` with a reason, which the card and the audit log show.

    `value` is the value of the clicked option, which binds the form to the plan on its card.
    """
    summary = section(
        md("*{title}*, requested by {actor}", title=inline(title(op), 300), actor=person(op.request.actor))
    )
    reason = text_input("reason", "Because", multiline=True, longest=500)
    name = f"{verb.capitalize()} because …"
    return modal(BECAUSE_FORM, name, [summary, reason], submit=verb.capitalize(), metadata=f"{verb}:{value}"[:METADATA])


class Ending(BaseModel, frozen=True, defer_build=True):
    """The metadata of the form that ends other people's sessions: the models, and for each model the operation of its session."""

    models: tuple[str, ...]
    sessions: dict[str, str]
    asked_in: str = ""
    """The channel in which the command was typed; empty for a button."""


def down_form(ending: Ending, leases: Sequence[Lease], reason: str) -> Block:
    """The form that confirms bringing down other people's sessions, with a reason for their holders."""
    sessions = section(md("\n").join(_session_line(lease) for lease in leases))
    reason_field = text_input(
        "reason", "Because", initial=reason, multiline=True, longest=500, hint="The holder gets this reason."
    )
    return modal(
        DOWN_FORM,
        "Bring down?",
        [sessions, reason_field],
        submit="Bring down",
        metadata=ending.model_dump_json()[:METADATA],
    )


def _session_line(lease: Lease) -> Mrkdwn:
    until = md(" until {ends}", ends=clock(lease.ends)) if lease.ends else ""
    reason = because(lease.reason)
    return md(
        "{model} is held by {holder}{until}{reason}. Running requests are interrupted.",
        model=code(lease.model),
        holder=person(lease.holder),
        until=until,
        reason=reason,
    )


def object_form(op: Operation) -> Block:
    """The form for the holder's objection to a replacement, which approvers see below the card."""
    summary = section(
        md("*{title}*, requested by {actor}", title=inline(title(op), 300), actor=person(op.request.actor))
    )
    reason = text_input(
        "reason", "Because", multiline=True, longest=500, hint="The approvers see this reason and decide."
    )
    return modal(OBJECT_FORM, "Object", [summary, reason], submit="Object", metadata=op.shown)


def extend_form(lease: Lease, longest: str) -> Block:
    """The form to extend a lease; `longest` is the maximum total duration without an approval."""
    end = md(" Its lease ends at {ends}.", ends=clock(lease.ends)) if lease.ends else ""
    duration_field = text_input(
        "hold", "For how much longer", placeholder="1h", hint=f"Over {longest} in total, an approver decides"
    )
    reason_field = text_input("reason", "Because", optional=True, longest=500)
    introduction = section(md("{model} stays up longer.{end}", model=code(lease.model), end=end))
    return modal(
        EXTEND_FORM,
        "Extend the lease",
        [introduction, duration_field, reason_field],
        submit="Extend",
        metadata=lease.op,
    )


class KeepUntil(BaseModel, frozen=True, defer_build=True):
    """The metadata of the form *Keep until …*: the operation of the session, and the reminder that it answers."""

    op: str
    message: Message


def keep_form(lease: Lease, until: datetime, message: Message) -> Block:
    """The form for the time until which an idle model is kept: `until` by default, at most the end of the lease."""
    ends = md(" At most until {ends}, when its lease ends.", ends=clock(lease.ends)) if lease.ends else ""
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
    question = section(
        md("How long should {model} stay up while nobody uses it?{ends}", model=code(lease.model), ends=ends)
    )
    metadata = KeepUntil(op=lease.op, message=message).model_dump_json()
    return modal(KEEP_UNTIL, "Keep until …", [question, moment], submit="Keep", metadata=metadata)


Verb = Literal["add", "swap"]


@frozen
class ChangeForm:
    """The form of `/model add` and `/model swap`: its input, and the resulting change.

    - `values`: the input by block id; `options`: the advanced options, from the second page
    - `names`: the endpoints to choose from
    - `summary`, `verdict`, `sizing`, `files`, `warnings`: the change that the form would open
    - `problem`: the reason why it cannot be opened, as plain text
    - `figures`: the options to ask for if Hugging Face did not answer, each with its label and an example
    - `asked_in`: the channel of the command
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
    asked_in: str = ""

    @property
    def name(self) -> str:
        return "Add a model" if self.verb == "add" else "Swap a model"

    def derived(self, label: str) -> str:
        return dict(self.summary).get(label, "")


def change_form(form: ChangeForm) -> Block:
    """The input fields, then the result: the contract with its derived values, the sizing, the files."""
    values = form.values
    blocks: Blocks = []
    if form.verb == "add":
        hint = "A DNS label: lowercase letters, digits and hyphens"
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
            choice("like", LABELS["like"], form.names, values.get("like", ""), hint="The template of the new endpoint")
        )
    for key, label in ((key, LABELS[key]) for key in ("context", "served")):
        derived = form.derived(label)
        blocks.append(
            text_input(
                key,
                label,
                initial=values.get(key, ""),
                placeholder=f"{derived} (derived)" if derived else "derived from the model",
                optional=True,
                live=True,
                longest=100,
            )
        )
    blocks.append(text_input("reason", "Because", initial=values.get("reason", ""), optional=True, longest=300))
    chosen_options = md(" · ").join(md("{k}: {v}", k=LABELS.get(k, k), v=inline(v, 200)) for k, v in form.options)
    blocks.append(actions(button("Advanced …", ADVANCED, form.verb), about="more options of the change"))
    blocks += [context(chosen_options)] if chosen_options else []
    blocks += [divider(), *_preview(form)]
    state = {"verb": form.verb, "commit": form.commit, "options": form.options, "asked_in": form.asked_in}
    metadata = json.dumps(state, ensure_ascii=False)
    return modal(
        CHANGE_FORM, form.name, trimmed_to_limits(blocks, VIEW_BLOCKS), submit="Open pull request", metadata=metadata
    )


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


def _preview(form: ChangeForm) -> Blocks:
    """A preview of the pull request that the form would open, or the reason why it cannot."""
    if form.problem:
        return [_problem(form.problem)]
    if not form.summary:
        return [context(md("Choose a model: its derived values are shown here before anything is opened."))]
    blocks = [
        section(md("*The contract*")),
        *fields([md("*{k}*\n{v}", k=inline(k, 60), v=inline(v, 200)) for k, v in form.summary[:20]]),
    ]
    if form.verdict:
        icon = "✅" if form.verdict == "fits" else "⚠️"
        rows = [
            md(
                "{value} {label}: {value2} of {limit}",
                value="✔️" if ok else "✖️",
                label=inline(label, 80),
                value2=inline(value, 300),
                limit=inline(limit, 60),
            )
            for label, value, limit, ok in form.sizing
        ]
        blocks.append(
            section(
                md("\n").join([md("{icon} *Sizing: {verdict}*", icon=icon, verdict=inline(form.verdict, 40)), *rows])
            )
        )
    if form.warnings:
        blocks += [alert(inline(text, 300), "warning") for text in form.warnings[:8]]
    changed = [
        md("{path} +{plus} −{minus}", path=code(path), plus=plus, minus=minus) for path, plus, minus in form.files[:20]
    ]
    blocks.append(section(md("\n").join([md("*The pull request*: {count} files", count=len(form.files)), *changed])))
    return blocks


def shows_problem(view: Block, problem: str) -> bool:
    """Return whether a submitted form already shows this problem."""
    text = "".join(block["text"]["text"] for block in view["blocks"] if block.get("block_id") == _PROBLEM)
    return bool(text) and _without_icon(text) == _without_icon(_problem(problem)["text"]["text"])


def _problem(problem: str) -> Block:
    return alert(inline(problem, 1500), "error") | {"block_id": _PROBLEM}


def _without_icon(text: str) -> str:
    """Remove the icon from a text. It is part of the text only if a section replaces the alert, for a long text or in
    an older workspace.
    """
    return text.removeprefix(ALERT_ICONS["error"]).strip()


def advanced_form(verb: Verb, options: tuple[tuple[str, str], ...], metadata: str) -> Block:
    """The second page, with the advanced options; extra arguments are entered one per line."""
    values = dict(options)
    arguments = "\n".join(value for key, value in options if key == "arg")
    rows = [
        ("quantization", "awq_marlin, or none"),
        ("gpu-util", "0.9"),
        ("storage", "20Gi"),
        ("memory", "24Gi"),
        ("cpu", "4"),
        ("kind", "chat, completion, embeddings or reranker"),
        ("price-in", "0.50"),
        ("price-out", "1.50"),
    ]
    rows += [("group", "coding-assistant")] if verb == "add" else []
    blocks = [
        text_input(
            key, LABELS[key], initial=values.get(key, ""), placeholder=f"e.g. {example}", optional=True, longest=100
        )
        for key, example in rows
    ]
    hint = "One per line, e.g. --enable-prefix-caching"
    blocks.append(
        text_input("arg", LABELS["arg"], initial=arguments, hint=hint, optional=True, multiline=True, longest=1000)
    )
    return modal(ADVANCED_FORM, "Advanced", blocks, submit="Use these", metadata=metadata)


def form_values(view: Block) -> dict[str, str]:
    """The values of a form's fields by block id, without empty values."""
    values = {}
    for block, states in view["state"]["values"].items():
        for state in states.values():
            value = state.get("value") or (state.get("selected_option") or {}).get("value")
            value = value or state.get("selected_date_time") or " ".join(state.get("selected_users") or ())
            # A lone surrogate cannot be stored: JSON may contain one, UTF-8 may not.
            if text := str(value).encode(errors="replace").decode().strip():
                values[block] = text
    return values


def model_options(hf_ids: tuple[str, ...], typed_text: str) -> list[Block]:
    """The suggestions of the search field: the typed text, if it can be a model id, and the models that Hugging Face
    found.
    """
    ids = dict.fromkeys([*([typed_text] if typed_text.count("/") == 1 else []), *hf_ids])
    return [option(hf_id, hf_id) for hf_id in ids if len(hf_id) <= 150 and plain(hf_id) == hf_id][:CHOICES]
