"""The set-up of Stoker: the survey of the repository, the form, and the result."""

from collections.abc import Sequence

from bot.text.mrkdwn import Mrkdwn, link, md, person
from bot.views.blocks import (
    SECTION,
    Block,
    Blocks,
    View,
    actions,
    button,
    context,
    plain_text,
    preformatted,
    section,
    sections,
)
from bot.views.modals import TYPED, modal, text_input
from bot.views.text import code, inline
from manifests.frozen import frozen

SET_UP, SETUP_FORM = "set_up", "set_up"
"""The button, and the form that it opens."""
_CHARACTERS, _NAMED, _PARTS = 6000, 10, 3
"""Maximum number of a report's characters, of overruled settings, and of a text's parts: a message may have about
13 000 characters.
"""


@frozen
class SetupNeeded:
    """A repository that the settings do not describe."""

    report: tuple[str, ...]
    readable: bool
    """True if it has an endpoint that Stoker can read."""
    admins: frozenset[str]
    pull: str = ""
    """The open pull request with the settings."""
    waits: bool = False
    """True if its `.stoker.yaml` is not in use."""


def setup_needed(needed: SetupNeeded, user: str) -> View:
    """The findings and the next step for admins; for other people, the names of the admins."""
    title = md(
        "🧭 *Stoker is not set up for this repository yet*: its settings do not match the repository's contents."
    )
    if user not in needed.admins:
        admins = md(", ").join(person(admin) for admin in sorted(needed.admins))
        can = md("Admins can set it up, in Stoker's Home: {admins}.", admins=admins) if admins else _NOBODY
        return View(text=title, blocks=[section(md("{title} {can}", title=title, can=can))])
    blocks: Blocks = [section(title), *sections(report_lines(needed.report))]
    if needed.waits:
        hint = md("Its `.stoker.yaml` is not in use yet. If it cannot be used, Stoker sends the admins the reason.")
        blocks.append(section(hint))
    if needed.pull:
        pull = link(needed.pull, "The pull request with its settings")
        blocks.append(section(md("{pull} is open. After the merge, Stoker uses them without a restart.", pull=pull)))
    elif needed.readable:
        blocks.append(actions(button("Set up …", SET_UP, "set up", "primary"), about="opens a form"))
    else:
        blocks.append(section(_UNREADABLE))
    return View(text=title, blocks=blocks)


_NOBODY = md("`roles.admins` is empty: name admins there, in Stoker's settings, or run `stoker init` in a checkout.")
_UNREADABLE = md(
    "It has no endpoint that Stoker can read. docs/platforms.md lists the supported forms, and docs/contract.md "
    "explains how `platform.endpoints` describes another one."
)


def report_lines(report: Sequence[str]) -> list[Mrkdwn]:
    """Format the report, with bold headings and lists below them. Lines that do not fit into a message are counted."""
    lines = list[Mrkdwn]()
    for line in report:
        text = line.lstrip()
        depth = (len(line) - len(text)) // 2
        label, colon, value = text.partition(": ")
        if depth == 0 and colon:
            lines.append(md("*{label}*: {value}", label=inline(label, 60), value=inline(value, 300)))
        else:
            indent = "      " if depth > 1 else ""
            lines.append(md("{indent}• {text}", indent=indent, text=inline(text, 300)))
    fitting = [line for n, line in enumerate(lines) if sum(map(len, lines[: n + 1])) <= _CHARACTERS]
    more = [md("… and {count} more lines", count=len(lines) - len(fitting))] if len(fitting) < len(lines) else []
    return [*fitting, *more]


def setup_form(report: Sequence[str], questions: Sequence[tuple[str, str, str, str]]) -> Block:
    """The form with the report and a field per question; a question is a name, a label, a hint and the current value."""
    blocks = [*sections(report_lines(report))]
    for name, label, hint, value in questions:
        if name == "roles.approvers":
            blocks.append(_people(name, label))
        else:
            blocks.append(text_input(name, label, hint=hint, initial=value, optional=True))
    explanation = md("The form opens a pull request with `.stoker.yaml`. Stoker uses its settings after the merge.")
    return modal(SETUP_FORM, "Set up Stoker", [*blocks, context(explanation)], submit="Open pull request")


def _people(name: str, label: str) -> Block:
    hint = "A user group can be added in the pull request, by its id (S…)."
    return {
        "type": "input",
        "block_id": name,
        "label": plain_text(label, 75),
        "element": {"type": "multi_users_select", "action_id": f"{TYPED}:{name}"},
        "optional": True,
        "hint": plain_text(hint, 150),
    }


def proposal_answer(url: str, number: int, *, merged: bool, is_new: bool) -> Mrkdwn:
    """The answer about the pull request with the settings: opened, already open, or already merged."""
    pull = link(url, f"pull request #{number}")
    if merged:
        return md(
            "{pull} is already merged: Stoker uses its settings within a minute, or sends the admins the reason why it cannot.",
            pull=pull,
        )
    if is_new:
        return md("Opened {pull} with `.stoker.yaml`. After the merge, Stoker uses it without a restart.", pull=pull)
    return md(
        "{pull} with `.stoker.yaml` is already open, and nothing was added to it. Merge it, change it there, or close it "
        "and set Stoker up again.",
        pull=pull,
    )


def to_copy(text: str, overruled: Sequence[str]) -> View:
    """The settings to copy, if the installation sets them too: its values take precedence over the repository's."""
    names = md(", ").join(code(name) for name in overruled[:_NAMED])
    introduction = md(
        "Stoker reads {names} only from the installation's file (STOKER_CONFIG), not from `.stoker.yaml`, and cannot write "
        "that file. Copy this into it (in the chart: below `config` in the values), then restart Stoker:",
        names=names,
    )
    parts = [""]
    for line in text.splitlines(keepends=True):
        if len(parts[-1]) + len(line) > SECTION:
            parts.append("")
        parts[-1] += line
    return View(text=introduction, blocks=[section(introduction), *(preformatted(part) for part in parts[:_PARTS])])


def in_use(commit: str, endpoints: int) -> Mrkdwn:
    return md(
        "🧭 Stoker uses the settings of `.stoker.yaml` at {commit}; it finds {count} endpoint{s}.",
        commit=code(commit[:10]),
        count=endpoints,
        s="" if endpoints == 1 else "s",
    )


def not_used(commit: str, reason: str) -> Mrkdwn:
    return md(
        "🧭 Stoker does not use the settings of `.stoker.yaml` at {commit} yet: {reason}. It keeps its current "
        "settings, and tries again every minute.",
        commit=code(commit[:10]),
        reason=reason,
    )
