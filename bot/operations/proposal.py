"""From what was asked to the change that answers it, and to the words of its pull request.

Slack's operations and the terminal's commands both go through here, so both open the same pull request.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import stamina
import structlog

from bot.clients.huggingface import HuggingFace
from bot.errors import BotError, StokerError, Unavailable
from bot.settings import Config, Gpu
from manifests.add import AddRequest, plan_add
from manifests.change import Change
from manifests.contract import ModelEndpoint
from manifests.edit import decimal
from manifests.remove import plan_remove
from manifests.retarget import refuse_bad_input
from manifests.review import refuse_storage
from manifests.sizing import FIGURES, Machine, ModelFacts
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ManifestError, Tree

log = structlog.get_logger()

Verb = Literal["add", "swap", "remove"]
Options = tuple[tuple[str, str], ...]


def _context(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("give tokens, like 16384")
    return int(text)


def _share(text: str) -> float:
    share = float(text) if text.replace(".", "", 1).isdecimal() else 0.0
    if not 0 < share <= 1:
        raise ValueError("give a share of the GPU's memory, like 0.9")
    return share


def _word(text: str) -> str:
    if not text:
        raise ValueError("give a value")
    return text


def _storage(text: str) -> str:
    refuse_storage(text)
    return text


def _yes(text: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise ValueError("say yes or no")
    return text.lower() == "yes"


_OPTIONS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "like": ("like", _word),
    "served": ("served_name", _word),
    "context": ("context", _context),
    "quantization": ("quantization", _word),
    "gpu-util": ("gpu_utilization", _share),
    "storage": ("storage", _storage),
    "price-in": ("price_in", decimal),
    "price-out": ("price_out", decimal),
    "group": ("group", _word),
    "portal": ("portal", _yes),
}
"""What is said with `key=value`: the field of the plan's request, and how its text is read."""

_USES: Mapping[Verb, tuple[str, ...]] = {
    "add": tuple(_OPTIONS),
    "swap": tuple(key for key in _OPTIONS if key not in ("like", "group", "portal")),
    "remove": ("portal",),
}


def machine(gpu: Gpu) -> Machine:
    """The node that sizing compares with."""
    return Machine(
        vram_bytes=gpu.vram_mib * 2**20,
        host_memory_bytes=int(gpu.host_memory_gib * 2**30),
        gpu=gpu.name,
        name=gpu.machine,
    )


async def looked_up(hub: HuggingFace, hf_id: str) -> ModelFacts:
    """What Hugging Face knows. Where it does not answer: what the name says, so that figures in the request can do."""
    try:
        async for attempt in stamina.retry_context(on=Unavailable, attempts=3, timeout=20.0):
            with attempt:
                return await hub.model(hf_id)
    except Unavailable:
        log.warning("Hugging Face does not answer; the request's own figures are used", hf_id=hf_id)
    return ModelFacts.unseen(hf_id)


async def weights_of(hub: HuggingFace, hf_id: str) -> int | None:
    """The size of weights that lie in a volume already, bytes; None where nobody knows: then their name has to do."""
    try:
        return (await hub.model(hf_id)).weight_bytes or None
    except StokerError:
        return None


def planned(
    tree: Tree,
    config: Config,
    verb: Verb,
    name: str,
    options: Options = (),
    facts: ModelFacts | None = None,
    old_weight_bytes: int | None = None,
) -> Change:
    """The change that is asked for. BotError names an option that is unknown or cannot be read.

    ManifestError says why the repository cannot carry the change; its kind MissingFigures, which figures to ask for.
    `facts` are of no use to `remove`; figures among the options win over them.
    """
    layout, fields = config.platform, read_options(verb, options)
    if verb == "remove" or facts is None:
        return plan_remove(tree, layout, name, portal=bool(fields.get("portal")))
    facts = facts.with_figures({key: text for key, text in options if key in FIGURES})
    wanted = {"name": name, "facts": facts, **fields}
    if verb == "add":
        return plan_add(tree, layout, AddRequest.model_validate(wanted), machine(config.gpu))
    swap = SwapRequest.model_validate({**wanted, "old_weight_bytes": old_weight_bytes})
    return plan_swap(tree, layout, swap, machine(config.gpu))


def refuse_bad_words(verb: Verb, hf_id: str, options: Options) -> None:
    """Refuse a model id or an option that cannot become a change, by the words alone."""
    fields = read_options(verb, options)
    if verb != "remove":
        served, quantization = fields.get("served_name"), fields.get("quantization")
        refuse_bad_input(
            hf_id,
            None if served is None else str(served),
            None if quantization is None else str(quantization),
            tuple(text for key, text in options if key == "arg"),
        )


def read_options(verb: Verb, options: Options) -> dict[str, object]:
    """The options as fields of the plan's request; BotError names a wrong one, with an example."""
    known = _USES[verb]
    fields: dict[str, object] = {}
    for key, text in options:
        if verb != "remove" and (key == "arg" or key in FIGURES):
            continue
        if key not in known:
            there_are = ", ".join(f"{each}=" for each in (*known, *(("arg", *FIGURES) if verb != "remove" else ())))
            raise BotError(f"{key}= is no option of model {verb}; there are {there_are}.")
        field, read = _OPTIONS[key]
        if field in fields:
            raise BotError(f"{key}= is given twice; say it once.")
        try:
            fields[field] = read(text)
        except (ValueError, ManifestError) as error:
            raise BotError(f"{key}={text} cannot be read: {str(error).rstrip('.')}.") from error
    arguments = tuple(text for key, text in options if key == "arg")
    return fields | ({"args": arguments} if arguments else {})


def pull_body(change: Change, *, asked: str, reason: str = "", operation: str = "") -> str:
    """What reviewers read, in Markdown: what and why, the contract, the sizing, the tests, what to beware of, how to undo.

    `asked` is written by us ("Asked in Slack by `U1`"); `reason` came from a person and is quoted.
    """
    parts = [
        change.intent,
        asked + (f": {_inline(reason)}" if reason else "."),
        f"## The contract\n\n{_contract(change)}",
    ]
    if change.sizing:
        numbers = "\n".join(
            f"| {row.label} | {row.value} | {row.limit} | {'ok' if row.ok else '**no**'} |"
            for row in change.sizing.numbers
        )
        parts.append(f"## Sizing: {change.sizing.verdict}\n\n| | needs | has | |\n| --- | --- | --- | --- |\n{numbers}")
    if change.endpoint:
        parts.append(f"## Smoke tests\n\n{_smoke_plan(change.endpoint, rolled_out=bool(operation))}")
    if change.warnings:
        parts.append("## Warnings\n\n" + "\n".join(f"- {warning}" for warning in change.warnings))
    follows = _by_stoker(change) if operation else _by_hand(change)
    parts.append(f"## After the merge\n\n{follows} To undo, revert this pull request.")
    footer = f"\n\n<sub>Operation {operation}</sub>" if operation else ""
    return "\n\n".join(parts) + footer + "\n"


def _contract(change: Change) -> str:
    """The contract as a table; beside what changes stands what held until now."""
    if not change.before:
        return "| | |\n| --- | --- |\n" + "\n".join(f"| {label} | {_cell(value)} |" for label, value in change.summary)
    before, after = dict(change.before), dict(change.summary)
    rows = [
        (label, after.get(label, ""), "" if before.get(label, "") == after.get(label, "") else before.get(label) or "–")
        for label in (*after, *(each for each in before if each not in after))
    ]
    table = "\n".join(f"| {label} | {_cell(now)} | {_cell(was)} |" for label, now, was in rows)
    return f"| | | until now |\n| --- | --- | --- |\n{table}"


def _smoke_plan(endpoint: ModelEndpoint, *, rolled_out: bool) -> str:
    """The tests of `bot.operations.smoke`, and when they run."""
    name, direct = endpoint.name, "`/health` answers; "
    if endpoint.gpus:
        when = f"Whenever Stoker brings {name} up (`/gpu up {name}`)"
        when += ", and in this roll-out if it is up by then:" if rolled_out else ":"
        direct += f"`/v1/models` lists exactly `{endpoint.served_name}` and refuses a request without a key; "
    else:
        when = "As soon as the new pods are ready:" if rolled_out else f"Whenever somebody says `/model smoke {name}`:"
    asks = {
        "gpu-chat": "a chat completion is answered.",
        "gpu-completion": "a text completion is answered, and one with a hole in the middle where the model can fill it.",
        "cpu-embeddings": "an embedding is answered.",
    }[endpoint.kind]
    return (
        f"{when}\n\n- {direct}{asks}\n"
        f"- Through LiteLLM, a key made for `{endpoint.alias}` alone, with a small budget and a short life, gets an answer "
        "that costs more than $0; the key is deleted."
    )


def _by_stoker(change: Change) -> str:
    if change.endpoint is None:
        return "Stoker waits until Argo CD has brought the cluster to the merge commit, and reports in Slack."
    application = change.endpoint.application
    if change.endpoint.manual_sync:
        return (
            f"Stoker waits for LiteLLM, syncs the Application {application} at the merge commit, and reports in Slack."
        )
    return f"LiteLLM and the Application {application} sync by themselves; Stoker waits for them and reports in Slack."


def _by_hand(change: Change) -> str:
    """What follows a pull request that no operation in Slack watches over."""
    if change.endpoint is None:
        return "Argo CD deletes what it deployed."
    if change.endpoint.manual_sync:
        return f"LiteLLM syncs by itself; the Application {change.endpoint.application} waits for a person to sync it."
    return f"LiteLLM and the Application {change.endpoint.application} sync by themselves."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _inline(text: str) -> str:
    return "`" + text.replace("`", "ˋ").replace("\n", " ") + "`"
