"""From what was asked to the change that answers it, and to the words of its pull request.

Slack's operations and the terminal's commands both go through here, so both open the same pull request.
"""

from typing import Literal

from pydantic import ValidationError

from bot.errors import BotError
from bot.settings import Config, Gpu
from manifests.add import AddRequest, plan_add
from manifests.change import Change
from manifests.remove import plan_remove
from manifests.sizing import Machine, ModelFacts
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import Tree

Verb = Literal["add", "swap", "remove"]
Options = tuple[tuple[str, str], ...]

_FIELDS = {
    "like": "like",
    "served": "served_name",
    "context": "context",
    "quantization": "quantization",
    "gpu-util": "gpu_utilization",
    "storage": "storage",
    "price-in": "price_in",
    "price-out": "price_out",
    "group": "group",
}
_ADD_ALONE = ("like", "group")


def machine(gpu: Gpu) -> Machine:
    """The node that sizing compares with."""
    return Machine(vram_bytes=gpu.vram_mib * 2**20, host_memory_bytes=int(gpu.host_memory_gib * 2**30))


def planned(
    tree: Tree, config: Config, verb: Verb, name: str, options: Options = (), facts: ModelFacts | None = None
) -> Change:
    """The change that is asked for. BotError names an option that is unknown or cannot be read.

    ManifestError says why the repository cannot carry the change. `facts` are of no use to `remove`.
    """
    layout, fields = config.platform, _fields(verb, options)
    if verb == "remove" or facts is None:
        return plan_remove(tree, layout, name)
    wanted = {"name": name, "facts": facts, **fields}
    try:
        if verb == "add":
            return plan_add(tree, layout, AddRequest.model_validate(wanted), machine(config.gpu))
        return plan_swap(tree, layout, SwapRequest.model_validate(wanted), machine(config.gpu))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = next((key for key, field in _FIELDS.items() if field == first["loc"][0]), str(first["loc"][0]))
        raise BotError(f"The option {option}= cannot be read: {first['msg']}.") from error


def _fields(verb: Verb, options: Options) -> dict[str, object]:
    known = () if verb == "remove" else tuple(key for key in _FIELDS if verb == "add" or key not in _ADD_ALONE)
    unknown = next((key for key, _ in options if key not in known and key != "arg"), None)
    if unknown is not None or (verb == "remove" and options):
        there_are = f"there are {', '.join(f'{key}=' for key in known)} and arg=" if known else "there is none"
        raise BotError(f"{unknown or 'arg'}= is no option of model {verb}; {there_are}.")
    fields: dict[str, object] = {_FIELDS[key]: value for key, value in options if key != "arg"}
    arguments = tuple(value for key, value in options if key == "arg")
    return fields | ({"args": arguments} if arguments else {})


def pull_body(change: Change, *, asked: str, reason: str = "", operation: str = "") -> str:
    """What reviewers read, in Markdown: the contract, the sizing, what to beware of, who asked, how to undo.

    `asked` is written by us ("Asked in Slack by `U1`"); `reason` came from a person and is quoted.
    """
    parts = [
        asked + (f": {_inline(reason)}" if reason else "."),
        "## The contract\n\n| | |\n| --- | --- |\n" + _table(change.summary),
    ]
    if change.sizing:
        numbers = "\n".join(
            f"| {row.label} | {row.value} | {row.limit} | {'ok' if row.ok else '**no**'} |"
            for row in change.sizing.numbers
        )
        parts.append(f"## Sizing: {change.sizing.verdict}\n\n| | needs | has | |\n| --- | --- | --- | --- |\n{numbers}")
    if change.warnings:
        parts.append("## Warnings\n\n" + "\n".join(f"- {warning}" for warning in change.warnings))
    parts.append(
        "## After the merge\n\nStoker waits for Argo CD, syncs the Application at the merge commit and reports in Slack."
        " To undo, revert this pull request."
    )
    footer = f"\n\n<sub>Operation {operation}</sub>" if operation else ""
    return "\n\n".join(parts) + footer + "\n"


def _table(rows: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(f"| {label} | {value.replace('|', chr(92) + '|')} |" for label, value in rows)


def _inline(text: str) -> str:
    return "`" + text.replace("`", "ˋ").replace("\n", " ") + "`"
