"""The GPU node: created when a pod needs it, drained when no pod does, billed until it is deleted."""

import asyncio
import re
import secrets
from contextlib import suppress

from sandbox.clock import Clock
from sandbox.kubelet import Address
from sandbox.objects import Object, ObjectStore

GPU = "nvidia.com/gpu"
_GPUS = re.compile(r"(nvidia\.com/(gpu|mig-.*)(\.shared)?|amd\.com/gpu|gpu\.intel\.com/(xe|i915))")
GPU_NODE_PRICE = 0.85  # dollars an hour, a g2-standard-4 with its L4
DRAIN = 600.0
"""Seconds between the last pod and the deletion of the node, on a real platform."""


class GpuNode:
    """At most one node, with at most `shares` pods on it: several with time-slicing, otherwise one."""

    def __init__(self, store: ObjectStore, clock: Clock, shares: int = 1) -> None:
        self._store, self._clock, self._shares = store, clock, shares
        self.holders: list[Address] = []
        """The pods that hold the GPU, or whose node is being created."""
        self.name: str | None = None
        self._up_since = 0.0
        self._billed_before = 0.0
        self._drain: asyncio.Task[None] | None = None
        self.scarce = False
        """True if the next machine is out of stock, because one was just reclaimed."""

    @property
    def billed(self) -> float:
        """Billed seconds of all nodes so far, in the platform's time."""
        return self._billed_before + (self._clock.now() - self._up_since if self.name else 0.0)

    @property
    def state(self) -> str:
        if self.name:
            return "in use" if self.holders else "draining, and billed until it is deleted"
        return "starting" if self.holders else "none: nothing is billed"

    def is_free_for(self, pod: Address) -> bool:
        return pod in self.holders or len(self.holders) < self._shares

    def take(self, pod: Address) -> None:
        """Assign the node to a pod; a draining node stays."""
        if pod not in self.holders:
            self.holders.append(pod)
        if self._drain:
            self._drain.cancel()
            self._drain = None

    def leave(self, pod: Address) -> None:
        """Release the node; it is deleted after `DRAIN` seconds without a pod."""
        if pod in self.holders:
            self.holders.remove(pod)
            if self.name and not self.holders:
                self._drain = asyncio.create_task(self._drained())

    def provision(self) -> str:
        self.name = f"gke-ai-dev-gpu-{secrets.token_hex(4)}-{secrets.token_hex(2)}"
        self._up_since = self._clock.now()
        labels = {
            "cloud.google.com/gke-accelerator": "nvidia-l4",
            "node.kubernetes.io/instance-type": "g2-standard-4",
            "topology.kubernetes.io/zone": "us-central1-a",
        }
        self._store.create(
            node(self.name, {"cpu": "4", "memory": "16Gi", GPU: str(self._shares)}, self._store.timestamp(), labels)
        )
        return self.name

    def reclaim(self) -> None:
        """Remove the machine, as when a cloud reclaims it: billing ends, and no pod has it."""
        self._billed_before = self.billed
        self._store.remove("Node", self.name or "")
        self.name = None
        self.holders.clear()
        self.scarce = True

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


def is_gpu(resource: str) -> bool:
    """Return whether the resource is a GPU, by the names of NVIDIA's, AMD's and Intel's device plugins."""
    return _GPUS.fullmatch(resource) is not None


def node(name: str, capacity: dict[str, str], since: str, labels: dict[str, str] | None = None) -> Object:
    """Return a Node that has been ready since the time `since`."""
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": since}
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {},
        "status": {"capacity": capacity, "allocatable": capacity, "conditions": [ready]},
    }
