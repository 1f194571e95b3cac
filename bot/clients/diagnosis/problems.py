"""Problems of a pod, and the time for which they may last. Pure.

A temporary problem has a grace period: it is shown immediately, and ends a boot only if it has persisted for that time.
A permanent problem has no grace period.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bot.clients.diagnosis.cause import Kind
from manifests.frozen import frozen

KubeObject = dict[str, Any]
Events = Sequence[KubeObject]


@frozen
class Grace:
    """The time for which a problem may last in a boot with the usual limit (1200 s), and the reason for that time."""

    title: str
    seconds: float
    source: str


NONE = Grace("a permanent problem", 0, "a missing image, an invalid argument, a driver that is too old")
SCALE_UP = Grace(
    "no machine in stock, or no quota",
    90,
    "the cluster autoscaler tries the next zone within its scan interval (10 s) after a zone has failed, and does not retry a"
    " failed zone for 5 minutes (`initial-node-group-backoff-duration`)",
)
NOT_SCALED = Grace(
    "no node group fits", 180, "the autoscaler tries again every 10 s, and after a change of the node groups"
)
CLAIM = Grace("a volume claim that is missing or not bound", 120, "provisioning a disk takes up to a minute")
ATTACH = Grace(
    "a volume that is attached elsewhere or cannot be mounted",
    600,
    "Kubernetes detaches by force after 6 minutes (`maxWaitForUnmountDuration`); the kubelet reports after 2 more",
)
SECRET_SYNC = Grace(
    "a Secret or ConfigMap that the node has not synced yet",
    120,
    "the kubelet tries again at each sync, about once a minute",
)
SECRET_MISSING = Grace("a Secret, ConfigMap or key that is missing", 10, "an operator may create it in the same sync")
PULL = Grace(
    "a registry that does not answer", 300, "the kubelet waits 10, 20, 40, 80, 160 s between pulls: five attempts"
)
WHILE_PULLING = 900.0
"""Grace period in seconds while the kubelet retries a failed pull. An engine's image has 10 GB, and the status shows the
failed attempt until the image is pulled.
"""
PULL_LIMIT = Grace(
    "a registry that limits the rate of pulls",
    600,
    "registries count pulls per hour, so an attempt may succeed some minutes later",
)
PULL_DENIED = Grace("a registry that denies access", 60, "a new node's credential helper answers after some seconds")
NODE_DISK = Grace("a node whose disk is full", 300, "the kubelet removes unused images at 85 % of the disk")
CREATE = Grace(
    "a container that cannot be created", 240, "containerd frees a reserved name after its 2-minute deadline"
)
SANDBOX = Grace("a pod network that is not ready", 300, "the network plugin of a new node starts after the kubelet")
WEBHOOK = Grace("an admission webhook that does not answer", 120, "its pods may be moving to another node")
QUOTA = Grace("a resource quota that is used up", 60, "a pod that ends releases its share within its grace period")

GRACES: tuple[Grace, ...] = (
    NONE, SCALE_UP, NOT_SCALED, CLAIM, ATTACH, SECRET_SYNC, SECRET_MISSING, PULL, PULL_LIMIT, PULL_DENIED, NODE_DISK,
    CREATE, SANDBOX, WEBHOOK, QUOTA,
)  # fmt: skip


@frozen
class Problem:
    """A problem: its description, the remedy, and the time for which it may last."""

    kind: Kind
    reason: str
    remedy: str
    grace: Grace = NONE
    detail: str = ""
    """A short text for the card while the problem lasts."""
    log: str = ""
    claim: str = ""
    """The affected volume claim."""

    @property
    def identity(self) -> tuple[str, str]:
        """A key that identifies the problem, independent of its wording."""
        return self.kind, self.grace.title


_USUAL = 1200.0
"""The boot limit for which the grace periods are defined, in seconds; a shorter limit shortens them."""
_MARGIN = 0.05
"""Seconds added to the time of the next check, so that the grace period is over then."""
_LEAST = 3.0
"""Minimum grace period in seconds. It is longer than the time between two events with the same cause."""


class Patience:
    """Measures how long the current problem has lasted. The time restarts if the problem changes or ends."""

    def __init__(self, limit: float, clock: Callable[[], float]) -> None:
        self._scale, self._clock = min(1.0, limit / _USUAL), clock
        self._problem: tuple[str, str] | None = None
        self._since = self._until = 0.0

    def is_over(self, problem: Problem | None) -> bool:
        """Return whether the problem has lasted too long."""
        if problem is None:
            self._problem = None
            return False
        if problem.identity != self._problem:
            self._problem, self._since = problem.identity, self._clock()
        self._until = self._since + min(problem.grace.seconds, max(_LEAST, problem.grace.seconds * self._scale))
        return self._clock() >= self._until

    def left(self) -> float | None:
        """Seconds until the current problem has lasted too long; None if there is no problem."""
        return None if self._problem is None else max(0.0, self._until - self._clock()) + _MARGIN


def container_statuses(pod: KubeObject) -> list[KubeObject]:
    """The statuses of all containers of a pod, those of the initContainers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def claims_of(pod: KubeObject) -> tuple[str, ...]:
    """The names of the volume claims that a pod mounts."""
    volumes = pod["spec"].get("volumes") or ()
    return tuple(v["persistentVolumeClaim"]["claimName"] for v in volumes if v.get("persistentVolumeClaim"))


def events_of(name: str, kind: str, events: Iterable[KubeObject]) -> tuple[KubeObject, ...]:
    """The events of one object, oldest first."""
    matching = [e for e in events if (e.get("involvedObject") or {}).get("kind") == kind and subject(e) == name]
    return tuple(sorted(matching, key=moment_of))


def message_of(event: KubeObject) -> str:
    """The message of an event; its reason if it has no message."""
    return str(event.get("message") or event.get("reason") or "").strip()


def is_scheduled(pod: KubeObject) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "PodScheduled" and c.get("status") == "True" for c in conditions)


def moment_of(event: KubeObject) -> tuple[str, int]:
    """A sort key for events: the time in seconds, then the order in which the API server wrote them."""
    version = str(event["metadata"].get("resourceVersion") or "")
    return last_seen(event)[:19], int(version) if version.isdecimal() else 0


def last_seen(event: KubeObject) -> str:
    """The time at which an event was last seen; empty if it is unknown."""
    series = event.get("series") or {}
    times = (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return str(next(filter(None, times), ""))


def subject(event: KubeObject) -> str:
    """The name of the object that an event is about."""
    return str((event.get("involvedObject") or {}).get("name") or "")
