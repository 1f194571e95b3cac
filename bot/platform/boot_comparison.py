"""Compares the engine's measurements after a boot with the estimate, and stores them for later estimates."""

import asyncio

import structlog

from bot.clients.cluster import Cluster
from bot.clients.huggingface import HuggingFace
from bot.component import component
from bot.engine.run import Run, Step
from bot.errors import StokerError
from bot.platform.change_planning import look_up_model, machine
from bot.platform.endpoints import Endpoints
from bot.settings.config import Config
from bot.state.endpoint_history import EndpointHistory
from manifests.contract import ModelEndpoint
from manifests.sizing import Machine, ModelFacts, overhead_of
from manifests.sizing.observed import Observation, Report, observe, read_report
from manifests.sizing.quantities import GIB, in_gib
from manifests.tree import ManifestError

log = structlog.get_logger(__name__)

_COMPARED = Step("compared with the estimate", bool)
_LIMIT = 20.0
"""Timeout in seconds; short, because the requester waits although the model is up."""


@component
class BootComparison:
    """Compares a boot with its estimate."""

    endpoint_history: EndpointHistory
    cluster: Cluster
    hub: HuggingFace
    endpoints: Endpoints
    config: Config

    async def compare(self, run: Run, commit: str) -> None:
        """Post the comparison in the thread, once. Errors are only logged."""
        try:
            async with asyncio.timeout(_LIMIT):
                await run.once(_COMPARED, lambda: self._compare_once(run, commit))
        except (StokerError, ManifestError, TimeoutError) as error:
            log.info("boot not compared with its estimate", op=run.op.id, model=run.model, error=str(error))

    async def _compare_once(self, run: Run, commit: str) -> bool:
        """Return False if there is nothing to compare: an engine other than vLLM, a log without the figures, or a model of
        unknown size.
        """
        report = read_report(await self.cluster.engine_log(run.model))
        endpoint = await self.endpoints.require(commit, run.model)
        if report is None or not endpoint.gpus:
            return False
        facts = await look_up_model(self.hub, endpoint.hf_id, await self.endpoint_history.observations())
        if not facts.weight_bytes:
            return False
        node = machine(self.config.gpu)
        observation = _observation(report, endpoint, facts, node)
        rows, difference = _compared_rows(report, endpoint, facts, node)
        await run.add_note("Measured by the engine", _conclusion(difference, learns=observation is not None), rows)
        if observation is not None:
            await self.endpoint_history.note_observation(observation)
        return True


def _budget(endpoint: ModelEndpoint, node: Machine) -> int:
    return int(node.vram_bytes * (endpoint.gpu_utilization or 0.9))


def _observation(report: Report, endpoint: ModelEndpoint, facts: ModelFacts, node: Machine) -> Observation | None:
    version = endpoint.engine_version
    return observe(
        report,
        hf_id=facts.hf_id,
        gpu=node.gpu,
        budget=_budget(endpoint, node),
        weights=facts.gpu_bytes,
        model_class=facts.model_class,
        engine=".".join(map(str, version)) if version else "unknown",
    )


def _compared_rows(
    report: Report, endpoint: ModelEndpoint, facts: ModelFacts, node: Machine
) -> tuple[list[tuple[str, ...]], float]:
    """A table of the GPU memory, measured and estimated, and the difference for the cache in GiB."""
    overhead_used = overhead_of(facts, node, endpoint.engine_version)
    weights = int(facts.gpu_bytes * overhead_used.weights_factor)
    budget = _budget(endpoint, node)
    room = budget - weights - overhead_used.bytes
    token = facts.kept.per_token
    measured = int(report.available_gib * GIB)
    overhead = budget - measured - int(report.model_gib * GIB)
    rows: list[tuple[str, ...]] = [
        ("Part", "Engine", "Estimate"),
        ("GPU memory", in_gib(budget), in_gib(budget)),
        ("weights", f"{report.model_gib:.1f} GiB", in_gib(weights)),
        ("overhead", in_gib(overhead), f"{in_gib(overhead_used.bytes)} ({overhead_used.source})"),
        ("cache", in_gib(measured), in_gib(room)),
    ]
    if report.tokens and token:
        rows.append(("tokens in the cache", f"{report.tokens:,}", f"{room // token:,}"))
    return rows, (measured - room) / GIB


def _conclusion(difference: float, *, learns: bool) -> str:
    comparative = "more" if difference >= 0 else "less"
    next_estimate = (
        "The next estimate for this engine and GPU uses these measurements."
        if learns
        else "These figures do not agree with the model's size, so the next estimate does not use them."
    )
    return f"The engine has {abs(difference):.1f} GiB {comparative} for the cache than estimated. {next_estimate}"
