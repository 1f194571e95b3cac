"""The node with the GPU: made when a pod wants it, drained when none does, billed until it is gone."""

import asyncio
import secrets
from contextlib import suppress

from sandbox.clock import Clock
from sandbox.kubelet import Address
from sandbox.objects import Object, ObjectStore, timestamp

GPU = "nvidia.com/gpu"
GPU_NODE_PRICE = 0.85  # dollars an hour, a g2-standard-4 with its L4
DRAIN = 600.0
"""Seconds on the real platform."""


class GpuNode:
    """One node or none, and at most one pod on it."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.holder: Address | None = None
        """The pod that holds the GPU, or has a node on its way."""
        self.name: str | None = None
        self._up_since = 0.0
        self._billed_before = 0.0
        self._drain: asyncio.Task[None] | None = None

    @property
    def billed(self) -> float:
        """Seconds, of all nodes that there were; the platform's, not the viewer's."""
        return self._billed_before + (self._clock.now() - self._up_since if self.name else 0.0)

    @property
    def state(self) -> str:
        if self.name:
            return "in use" if self.holder else "drains, and bills until it is gone"
        return "on its way" if self.holder else "none: nothing is billed"

    def take(self, pod: Address) -> None:
        """The pod is the next to use it; a node that drains stays."""
        self.holder = pod
        if self._drain:
            self._drain.cancel()
            self._drain = None

    def leave(self, pod: Address) -> None:
        """The pod is gone; the node follows after a while."""
        if self.holder == pod:
            self.holder = None
            if self.name:
                self._drain = asyncio.create_task(self._drained())

    def provision(self) -> str:
        self.name = f"gke-ai-dev-gpu-{secrets.token_hex(4)}-{secrets.token_hex(2)}"
        self._up_since = self._clock.now()
        labels = {"cloud.google.com/gke-accelerator": "nvidia-l4", "node.kubernetes.io/instance-type": "g2-standard-4"}
        self._store.create(node(self.name, {"cpu": "4", "memory": "16Gi", GPU: "1"}, labels))
        return self.name

    async def _drained(self) -> None:
        await self._clock.sleep(DRAIN)
        self._billed_before = self.billed
        self._store.remove("Node", self.name or "")
        self.name = self._drain = None

    async def close(self) -> None:
        if self._drain:
            self._drain.cancel()
            with suppress(asyncio.CancelledError):
                await self._drain


def node(name: str, capacity: dict[str, str], labels: dict[str, str] | None = None) -> Object:
    """A node that is ready."""
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": timestamp()}
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {},
        "status": {"capacity": capacity, "allocatable": capacity, "conditions": [ready]},
    }
