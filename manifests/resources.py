"""Memory and CPU limits and requests of the engine's container."""

import math

from manifests.change import ModelRequest
from manifests.contract import ModelEndpoint
from manifests.edit import Edit, scalar
from manifests.pieces import Pieces
from manifests.sizing import GIB, Sizing, quantity_bytes
from manifests.tree import ManifestError


def resource_edits(
    pieces: Pieces, before: ModelEndpoint, request: ModelRequest, sizing: Sizing
) -> list[tuple[str, Edit]]:
    """The edits that set the memory limit that the model needs, and the requested limits.

    A limit is only raised, unless `memory=` sets it. A request above the new limit is lowered to it, because Kubernetes
    refuses a pod whose request exceeds its limit.
    """
    limits: dict[str, str] = {}
    if request.memory:
        limits["memory"] = request.memory
    elif before.memory_limit_bytes is not None and sizing.memory_bytes > before.memory_limit_bytes:
        limits["memory"] = f"{math.ceil(sizing.memory_bytes / GIB)}Gi"
    if request.cpu:
        limits["cpu"] = request.cpu
    document, container = pieces.deployment.document, pieces.container
    edits: list[Edit] = []
    if limits and pieces.candidate.resources:
        missing_limits = ", ".join(f"resources.limits.{resource}={limit}" for resource, limit in limits.items())
        raise ManifestError(
            f"{pieces.name} needs {missing_limits}, but {pieces.candidate.resources} sets the limits of every release of the chart: "
            f"write them for this release in {document.path}, then try again."
        )
    for resource, limit in limits.items():
        node = scalar(container, "resources", "limits", resource)
        if node is None:
            raise ManifestError(
                f"{document.path} has no resources.limits.{resource} for the engine: add it by hand, then try again."
            )
        if node.value != limit:
            edits.append(document.set_value(node, limit))
        current_request = scalar(container, "resources", "requests", resource)
        if current_request is not None and _amount(current_request.value) > _amount(limit):
            edits.append(document.set_value(current_request, limit))
    return [(document.path, edit) for edit in edits]


def refuse_resources(memory: str | None, cpu: str | None) -> None:
    """Refuse a quantity that Kubernetes would refuse."""
    for key, text, example in (("memory", memory, "24Gi"), ("cpu", cpu, "4 or 3500m")):
        if text is None:
            continue
        if _amount(text) <= 0 or (key == "memory" and _amount(text) < GIB // 4):
            raise ManifestError(f"{key}={text} cannot be read: write it like {example}.")


def _amount(text: str) -> float:
    """A quantity as a number (`m` means thousandths); 0 if it is invalid."""
    try:
        return float(text[:-1]) / 1000 if text.endswith("m") else quantity_bytes(text)
    except ValueError:
        return 0
