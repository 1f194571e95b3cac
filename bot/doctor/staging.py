"""Checks of the requirements of staging, except for the bot's rights: a node for the Job, and volumes large enough for two models."""

from collections.abc import AsyncIterator, Sequence

from bot.clients.kube import Forbidden
from bot.clients.staging import Stager
from bot.doctor.findings import Finding, ok, warning
from bot.doctor.platform import KUBERNETES
from bot.settings.config import Config
from manifests.contract import ModelEndpoint
from manifests.sizing import estimated_weights, quantity_bytes, storage_for


async def staging(config: Config, client: Stager, endpoints: Sequence[ModelEndpoint]) -> AsyncIterator[Finding]:
    """Check whether the weights of each deployed GPU model can be staged."""
    shape = config.staging
    if not shape.enabled:
        yield ok(KUBERNETES, "no staging: staging.mode is off")
        return
    try:
        problems = [
            await client.obstacles(endpoint.name, _largest(endpoint), shape) for endpoint in endpoints if endpoint.gpus
        ]
    except Forbidden:
        return  # the check of the rights reports this
    obstacles = tuple(dict.fromkeys(obstacle for several in problems for obstacle in several))
    for obstacle in obstacles:
        yield warning(KUBERNETES, obstacle.partition(". ")[0], obstacle.partition(". ")[2])
    if not obstacles:
        yield ok(KUBERNETES, "the weights of every deployed GPU model can be staged without the GPU")


def _largest(endpoint: ModelEndpoint) -> str:
    """The larger of two sizes: the volume's size in git, and the size that a swap to a model of the same size needs."""
    weights = estimated_weights(endpoint.hf_id)
    sizes = [endpoint.pvc_size, *([storage_for(weights, weights)] if weights else [])]
    return max(filter(None, sizes), key=quantity_bytes, default="")
