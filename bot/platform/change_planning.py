"""Plans the change of a request, and writes the text of its pull request.

Slack's commands and the command line use this module, so both open the same pull request.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal

import stamina
import structlog
from pydantic import BaseModel, model_validator

from bot.clients.huggingface import HuggingFace
from bot.errors import BotError, StokerError, Unavailable
from bot.settings.config import Config, Gpu
from bot.text import markdown
from manifests.add import AddRequest, plan_add
from manifests.change import Change
from manifests.contract import ModelEndpoint
from manifests.edit import decimal
from manifests.platform import Platform
from manifests.reading import other_differences
from manifests.remove import plan_remove
from manifests.resources import refuse_resources
from manifests.retarget import refuse_bad_input
from manifests.review import refuse_storage
from manifests.risks import refuse_expansion
from manifests.sizing import FIGURES, Machine, ModelFacts, quantity_bytes
from manifests.sizing.facts import SERVED_KINDS
from manifests.sizing.observed import Observation
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ManifestError, Tree
from manifests.tune import plan_tune

log = structlog.get_logger()

Verb = Literal["add", "swap", "remove", "tune"]
Options = tuple[tuple[str, str], ...]


_CHEAPEST, _DEAREST = Decimal("0.0001"), 10_000
"""Lowest and highest plausible price in dollars per million tokens."""
_PRICE_EXAMPLE = "use dollars per million tokens, like 0.50"


def _context(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("use a number of tokens, like 16384")
    return int(text)


def _share(text: str) -> float:
    share = float(text) if text.replace(".", "", 1).isdecimal() else 0.0
    if not 0 < share <= 1:
        raise ValueError("use a share of the GPU's memory, like 0.9")
    return share


def _word(text: str) -> str:
    if not text:
        raise ValueError("enter a value")
    return text


def _storage(text: str) -> str:
    refuse_storage(text)
    return text


def _memory(text: str) -> str:
    refuse_resources(text, None)
    return text


def _bytes(text: str) -> int:
    return quantity_bytes(_memory(text))


def _cpu(text: str) -> str:
    refuse_resources(None, text)
    return text


def _kind(text: str) -> str:
    if text not in SERVED_KINDS:
        raise ValueError(f"use one of {', '.join(SERVED_KINDS)}")
    return text


def _price(text: str) -> str:
    """Convert dollars per million tokens to LiteLLM's unit, dollars per token.

    A value below `_CHEAPEST` is taken as dollars per token, the unit of LiteLLM's file and of earlier requests.
    """
    try:
        usd = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        raise ValueError(_PRICE_EXAMPLE) from None
    if not (usd.is_finite() and 0 <= usd < _DEAREST):
        raise ValueError(_PRICE_EXAMPLE)
    return decimal(f"{usd if usd < _CHEAPEST else usd / 10**6:f}")


def _yes(text: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise ValueError("write yes or no")
    return text.lower() == "yes"


_OPTIONS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "like": ("like", _word),
    "served": ("served_name", _word),
    "context": ("context", _context),
    "quantization": ("quantization", _word),
    "gpu-util": ("gpu_utilization", _share),
    "storage": ("storage", _storage),
    "memory": ("memory", _memory),
    "cpu": ("cpu", _cpu),
    "kind": ("kind", _kind),
    "price-in": ("price_in", _price),
    "price-out": ("price_out", _price),
    "group": ("group", _word),
    "portal": ("portal", _yes),
    "gpu": ("gpu", _word),
    "host-memory": ("host_memory_bytes", _bytes),
}
"""The `key=value` options: the field of the plan's request, and the parser of the value."""

_USES: Mapping[Verb | Literal["fit"], tuple[str, ...]] = {
    "add": tuple(key for key in _OPTIONS if key not in ("gpu", "host-memory")),
    "swap": tuple(key for key in _OPTIONS if key not in ("like", "group", "portal", "gpu", "host-memory")),
    "fit": ("context", "gpu-util", "quantization", "storage", "memory", "kind", "gpu", "host-memory"),
    "remove": ("portal",),
    "tune": (),
}


def machine(gpu: Gpu) -> Machine:
    """Return the machine for the sizing; raises BotError if the settings do not describe it."""
    try:
        return Machine.of(gpu=gpu.name, vram_mib=gpu.vram_mib, host_memory_gib=gpu.host_memory_gib, name=gpu.machine)
    except ValueError as error:
        raise BotError(f"{error}.") from error


async def look_up_model(hub: HuggingFace, hf_id: str, observed: Sequence[Observation] = ()) -> ModelFacts:
    """Read a model's facts from Hugging Face, and add the measurements of earlier boots (`observed`).

    If Hugging Face does not answer, the facts are derived from the model's name, and the request must contain the
    missing figures.
    """
    try:
        async for attempt in stamina.retry_context(on=Unavailable, attempts=3, timeout=20.0):
            with attempt:
                facts = await _suggest_alternatives(hub, await hub.model(hf_id))
                return facts.model_copy(update={"observed": tuple(observed)})
    except Unavailable:
        log.warning("Hugging Face does not answer; the request's own figures are used", hf_id=hf_id)
    return ModelFacts.unseen(hf_id).model_copy(update={"observed": tuple(observed)})


async def _suggest_alternatives(hub: HuggingFace, facts: ModelFacts) -> ModelFacts:
    """If a model cannot be served, suggest repositories with a similar name that are neither adapters nor GGUF files."""
    if not facts.unservable or facts.base_model:
        return facts
    name = re.sub(r"(?i)[-_.](gguf|lora|adapter|eagle\d*|onnx|mlx|q\d\w*)\b.*", "", facts.hf_id.partition("/")[2])
    try:
        hf_ids = await hub.search(name)
    except (BotError, Unavailable):
        return facts
    alternatives = [
        hf_id for hf_id in hf_ids if hf_id != facts.hf_id and not re.search(r"(?i)gguf|lora|eagle|onnx|mlx", hf_id)
    ]
    if not alternatives:
        return facts
    return facts.model_copy(
        update={"unservable": f"{facts.unservable}. Repositories with a similar name: {', '.join(alternatives[:3])}"}
    )


class OldWeights(BaseModel, frozen=True, defer_build=True):
    """The sizes, in bytes, of the model that an endpoint serves before a swap; 0 if unknown."""

    weight_bytes: int = 0
    repo_bytes: int = 0

    @model_validator(mode="before")
    @classmethod
    def _of_number(cls, stored: object) -> object:
        """Convert the record of earlier versions, which stored only `weight_bytes`, as a number."""
        return {"weight_bytes": stored} if isinstance(stored, int) else stored


async def weights_of(hub: HuggingFace, hf_id: str) -> OldWeights:
    """Read the size of a model's weights from Hugging Face; 0 if it is unknown."""
    try:
        facts = await hub.model(hf_id)
    except StokerError:
        return OldWeights()
    return OldWeights(weight_bytes=facts.weight_bytes, repo_bytes=facts.repo_bytes)


def plan_change(
    tree: Tree,
    config: Config,
    verb: Verb,
    name: str,
    options: Options = (),
    facts: ModelFacts | None = None,
    old_weights: OldWeights | None = None,
) -> Change:
    """Plan the requested change. Figures in the options override the figures in `facts`, which `remove` does not use.

    Raises BotError for an unknown or invalid option, ManifestError if the repository does not allow the change, and its
    subclass MissingFigures if figures are missing.
    """
    platform, fields = Platform(tree, config.platform), read_options(verb, options)
    if verb == "tune":
        return plan_tune(platform, name)
    if verb == "remove" or facts is None:
        return plan_remove(platform, name, portal=bool(fields.get("portal")))
    facts = facts.with_figures({key: text for key, text in options if key in FIGURES})
    request = {"name": name, "facts": facts, **fields}
    if verb == "add":
        change = plan_add(platform, AddRequest.model_validate(request), machine(config.gpu))
    else:
        old_weights = old_weights or OldWeights()
        before = {
            "old_weight_bytes": old_weights.weight_bytes or None,
            "old_repo_bytes": old_weights.repo_bytes or None,
        }
        swap = SwapRequest.model_validate(request | before)
        change = plan_swap(platform, swap, machine(config.gpu))
    return _with_differences(platform, name, change)


def _with_differences(platform: Platform, name: str, change: Change) -> Change:
    """Add each argument and field that differs from the previous version or the template. Dangerous ones become warnings."""
    after = platform.with_changes(change.changes)
    now, was = after.locate(name), platform.locate(change.template or name)
    if now is None:
        return change
    rows, dangers = other_differences(platform, after, was, now)
    warnings = (*dangers, *change.warnings)
    return change.model_copy(update={"summary": (*change.summary, *rows), "warnings": warnings})


def refuse_bad_words(verb: Verb, hf_id: str, options: Options) -> None:
    """Refuse an invalid model id or option, without reading the repository."""
    fields = read_options(verb, options)
    if verb in ("add", "swap"):
        served, quantization = fields.get("served_name"), fields.get("quantization")
        refuse_bad_input(
            hf_id,
            None if served is None else str(served),
            None if quantization is None else str(quantization),
            tuple(text for key, text in options if key == "arg"),
        )


def read_options(verb: Verb | Literal["fit"], options: Options) -> dict[str, object]:
    """Convert options to the fields of the plan's request; raises BotError for an invalid one, with an example."""
    allowed = _USES[verb]
    fields: dict[str, object] = {}
    for key, text in options:
        try:
            refuse_expansion(f"{key}=", text)
        except ManifestError as error:
            raise BotError(str(error)) from error
        if (key == "arg" and verb in ("add", "swap")) or (key in FIGURES and verb not in ("remove", "tune")):
            continue
        if key not in allowed:
            other_options = {"remove": (), "tune": (), "fit": tuple(FIGURES)}.get(verb, ("arg", *FIGURES))
            available = ", ".join(f"{option}=" for option in (*allowed, *other_options))
            raise BotError(f"{key}= is not an option of model {verb}; the options are {available}.")
        field, parse = _OPTIONS[key]
        if field in fields:
            raise BotError(f"{key}= is set twice; set it once.")
        try:
            fields[field] = parse(text)
        except (ValueError, ManifestError) as error:
            raise BotError(f"{key}={text} cannot be read: {str(error).rstrip('.')}.") from error
    arguments = tuple(text for key, text in options if key == "arg")
    return fields | ({"args": arguments} if arguments else {})


def pull_body(change: Change, *, origin: str, reason: str = "", operation: str = "") -> str:
    """Return the body of a pull request, in Markdown: intent, contract, sizing, tests, warnings, next steps.

    `origin` is Stoker's own text ("Requested in Slack by `U1`"); `reason` is a person's text and is quoted.
    """
    parts = [
        markdown.text(change.intent)
        if change.endpoint
        else change.intent,  # the intent of a revert is Stoker's own text, with a link to the reverted pull request
        origin + (f": {markdown.code(reason)}" if reason else "."),
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
        parts.append("## Warnings\n\n" + "\n".join(f"- {markdown.prose(warning)}" for warning in change.warnings))
    follows = _by_stoker(change) if operation else _by_hand(change)
    parts.append(f"## After the merge\n\n{follows} To undo this, revert this pull request.")
    footer = f"\n\n<sub>Operation {operation}</sub>" if operation else ""
    return "\n\n".join(parts) + footer + "\n"


def _contract(change: Change) -> str:
    """The contract as a table, with the previous values of changed rows."""
    if not change.before:
        return "| | |\n| --- | --- |\n" + "\n".join(
            f"| {markdown.text(label)} | {_cell(value)} |" for label, value in change.summary
        )
    before, after = dict(change.before), dict(change.summary)
    rows = [
        (label, after.get(label, ""), "" if before.get(label, "") == after.get(label, "") else before.get(label) or "–")
        for label in (*after, *(label_before for label_before in before if label_before not in after))
    ]
    table = "\n".join(f"| {markdown.text(label)} | {_cell(now)} | {_cell(was)} |" for label, now, was in rows)
    return f"| | | before |\n| --- | --- | --- |\n{table}"


def _cell(value: str) -> str:
    return markdown.cell(markdown.prose(value))


def _smoke_plan(endpoint: ModelEndpoint, *, rolled_out: bool) -> str:
    """Describe the tests of `bot.platform.smoke_tests`, and when they run."""
    name, direct = markdown.text(endpoint.name), "`/health` answers; "
    if endpoint.gpus:
        occasion = f"When Stoker brings {name} up ({markdown.code(f'/gpu up {endpoint.name}')})"
        occasion += ", and during this roll-out if it is up:" if rolled_out else ":"
        direct += (
            f"`/v1/models` lists exactly {markdown.code(endpoint.served_name)} and refuses a request without a key; "
        )
    else:
        occasion = (
            "As soon as the new pods are ready:"
            if rolled_out
            else f"On request, with {markdown.code(f'/model smoke {endpoint.name}')}:"
        )
    requests = {
        "gpu-chat": "a chat completion request gets an answer.",
        "gpu-completion": "a text completion request gets an answer, and so does a fill-in-the-middle request if the model supports it.",
        "gpu-embeddings": "an embedding request gets an answer.",
        "cpu-embeddings": "an embedding request gets an answer.",
        "gpu-reranker": "two texts are ranked for a query.",
        "cpu-reranker": "two texts are ranked for a query.",
    }[endpoint.kind]
    return (
        f"{occasion}\n\n- {direct}{requests}\n"
        f"- Through LiteLLM, a key for {markdown.code(endpoint.alias)} only, with a small budget and a short lifetime, gets an answer "
        "that costs more than $0; the key is deleted."
    )


def _by_stoker(change: Change) -> str:
    if change.endpoint is None:
        return "Stoker waits until Argo CD has synced the merge commit, and reports in Slack."
    application = markdown.text(change.endpoint.application)
    if change.endpoint.manual_sync:
        return (
            f"Stoker waits for LiteLLM, syncs the Application {application} at the merge commit, and reports in Slack."
        )
    return f"LiteLLM and the Application {application} sync automatically; Stoker waits for them and reports in Slack."


def _by_hand(change: Change) -> str:
    """The next steps for a pull request without an operation in Slack."""
    if change.endpoint is None:
        return "Argo CD deletes the deployed objects."
    if change.endpoint.manual_sync:
        return f"LiteLLM syncs automatically; the Application {change.endpoint.application} must be synced manually."
    return f"LiteLLM and the Application {change.endpoint.application} sync automatically."
