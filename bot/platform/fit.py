"""The requirements of models, and whether they fit, for `/model fit` and `stoker model fit`."""

from collections.abc import Sequence
from typing import cast

import structlog

from bot.clients.huggingface import HuggingFace, model_id
from bot.errors import BotError, Unavailable
from bot.platform.change_planning import Options, look_up_model, machine, read_options
from bot.settings.config import Config
from manifests.contract import ModelEndpoint
from manifests.review import refuse_unknown
from manifests.sizing import FIGURES, GIB, Machine, ModelFacts, quantity_bytes
from manifests.sizing.facts import Kind
from manifests.sizing.flags import on_cpu
from manifests.sizing.machine import cuda_bytes, usual_machine
from manifests.sizing.observed import Observation
from manifests.sizing.report import Account, Wish, account
from manifests.tree import ManifestError

log = structlog.get_logger()


async def accounts(
    hub: HuggingFace,
    config: Config,
    hf_ids: Sequence[str],
    options: Options = (),
    template: ModelEndpoint | None = None,
    observed: Sequence[Observation] = (),
) -> list[Account | BotError]:
    """Return one answer per model, in order. Without models, the configured shortlist is used.

    The answer for a model that cannot be looked up is the error, so that the other answers are not lost.
    """
    fields = read_options("fit", options)
    node = _machine(config, fields.pop("gpu", None), fields.pop("host_memory_bytes", None))
    wish = _wish(fields, template)
    kind = cast("Kind | None", fields.get("kind"))
    answers: list[Account | BotError] = []
    for hf_id in hf_ids or config.fit.shortlist:
        try:
            facts = await look_up_model(hub, model_id(hf_id), observed)
            answers.append(await _account(hub, facts, node, wish, options, kind))
        except BotError as error:
            answers.append(error)
        except ManifestError as error:
            answers.append(BotError(str(error)))
    return answers


async def _account(
    hub: HuggingFace, facts: ModelFacts, node: Machine, wish: Wish, options: Options, kind: Kind | None
) -> Account:
    facts = facts.with_figures({key: text for key, text in options if key in FIGURES})
    if kind is not None:
        facts = facts.model_copy(update={"kind": kind})
    if not facts.unservable:
        refuse_unknown(facts, gpu=not on_cpu(facts))
    answer = account(facts, node, wish)
    if answer.fit.verdict != "refused" or facts.unservable or facts.quantization:
        return answer
    smaller = await _search_quantized(hub, facts.hf_id)
    if not smaller:
        return answer
    hint = f"Smaller versions: {', '.join(smaller)}."
    return answer.model_copy(update={"fit": answer.fit.model_copy(update={"warnings": (*answer.fit.warnings, hint)})})


async def _search_quantized(hub: HuggingFace, hf_id: str) -> tuple[str, ...]:
    """Search Hugging Face for quantized versions of a model, by its name; empty if the search fails."""
    try:
        hits = await hub.search(hf_id.partition("/")[2])
    except (BotError, Unavailable) as error:
        log.info("quantized versions not found", error=str(error))
        return ()
    marks = ("awq", "gptq", "w4a16", "fp8", "int4")
    return tuple(hit for hit in hits if any(mark in hit.lower() for mark in marks))[:3]


def _wish(fields: dict[str, object], template: ModelEndpoint | None) -> Wish:
    memory = fields.get("memory")
    fields_set = {
        "context": fields.get("context"),
        "gpu_utilization": fields.get("gpu_utilization"),
        "quantization": fields.get("quantization"),
        "storage": fields.get("storage"),
        "memory_bytes": quantity_bytes(str(memory)) if memory else None,
    }
    if template is not None:
        fields_set |= {
            "template_context": template.context,
            "template_memory_bytes": template.memory_limit_bytes,
            "template_gpu_utilization": template.gpu_utilization,
            "engine": template.engine_version,
        }
    return Wish.model_validate(fields_set)


def _machine(config: Config, gpu: object, host_memory_bytes: object) -> Machine:
    """The machine in the settings, or the usual machine with the requested GPU."""
    node = machine(config.gpu)
    if isinstance(gpu, str) and cuda_bytes(gpu) != node.vram_bytes:
        vram = cuda_bytes(gpu)
        if vram is None:
            raise BotError(f"gpu={gpu} is unknown: use a name like L4, A100-80 or H100, or set gpu.vram_mib.")
        name, host = usual_machine(gpu)
        node = Machine(vram_bytes=vram, host_memory_bytes=host or 2 * vram, gpu=gpu, name=name)
    if isinstance(host_memory_bytes, int):
        node = node.model_copy(
            update={"host_memory_bytes": host_memory_bytes, "name": f"a machine with {host_memory_bytes // GIB} GiB"}
        )
    return node
