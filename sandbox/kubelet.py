"""The output of the sandbox's kubelet and scheduler: conditions of pods, states of containers, events and logs."""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.objects import Object, ObjectStore

NO_GPU = (
    "0/{nodes} nodes are available: {nodes} Insufficient nvidia.com/gpu. preemption: 0/{nodes} nodes are available: "
    "{nodes} No preemption victims found for incoming pod."
)


@dataclass(frozen=True)
class Address:
    """Namespace and name of a pod."""

    namespace: str
    name: str


class Kubelet:
    """Writes to the pods in `store`; a pod that no longer exists is ignored."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._logs: dict[tuple[Address, str], list[list[str]]] = defaultdict(lambda: [[]])
        """The logs of each container, one for each run."""

    def update(self, address: Address, change: Callable[[Object], None]) -> None:
        if self._store.exists("Pod", address.name, address.namespace):
            self._store.update("Pod", address.name, address.namespace, change)

    def condition(self, address: Address, **conditions: bool) -> None:
        def change(pod: Object) -> None:
            for kind, holds in conditions.items():
                value = "True" if holds else "False"
                condition = next((c for c in pod["status"]["conditions"] if c["type"] == kind), None)
                if condition is None:
                    condition = {"type": kind}
                    pod["status"]["conditions"].append(condition)
                if condition.get("status") != value:
                    condition |= {"status": value, "lastTransitionTime": self._store.timestamp()}
                    condition.pop("message", None)

        self.update(address, change)

    def unschedulable(self, address: Address, message: str = "") -> None:
        """Report that no node fits the pod; the default message is that no node has a free GPU."""
        message = message or NO_GPU.format(nodes=len(self._store.stored("Node")))
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        condition["lastTransitionTime"] = self._store.timestamp()
        self.update(address, lambda pod: pod["status"].update(conditions=[condition]))
        self.event(address, "FailedScheduling", message, warning=True)

    def bound(self, address: Address, node: str) -> None:
        self.update(address, lambda pod: pod["spec"].update(nodeName=node))
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self._store.timestamp()}
        started = {"conditions": [scheduled], "startTime": self._store.timestamp(), "podIP": "10.8.2.7"}
        self.update(address, lambda pod: pod["status"].update(started))
        self.event(address, "Scheduled", f"Successfully assigned {address.namespace}/{address.name} to {node}")

    def started(self, address: Address, container: Object, restarts: int, *, init: bool = False) -> None:
        if restarts:
            self._logs[address, container["name"]].append([])
        self.event(address, "Created", f"Created container: {container['name']}")
        self.event(address, "Started", f"Started container {container['name']}")
        self.container(address, container, init=init, running=True, restarts=restarts)

    def container(
        self,
        address: Address,
        container: Object,
        *,
        init: bool = False,
        waiting: str = "",
        message: str = "",
        running: bool = False,
        terminated: Object | None = None,
        last: Object | None = None,
        ready: bool = False,
        restarts: int = 0,
    ) -> None:
        """Write one container's status: waiting with a reason, running, or terminated."""
        state: Object = {"running": {"startedAt": self._store.timestamp()}} if running else {"terminated": terminated}
        if waiting:
            state = {"waiting": {"reason": waiting, **({"message": message} if message else {})}}
        status = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": restarts,
            "state": state,
            "lastState": {"terminated": last} if last else {},
        }

        def change(pod: Object) -> None:
            statuses = pod["status"].setdefault("initContainerStatuses" if init else "containerStatuses", [])
            for status_before in statuses:
                if status_before["name"] == container["name"] and restarts and not last:
                    # The result of the previous run stays until the next one ends.
                    before = status_before["state"].get("terminated") or status_before["lastState"].get("terminated")
                    status["lastState"] = {"terminated": before} if before else {}
                if status_before["name"] == container["name"] and "running" in status_before["state"]:
                    # The start time of a run does not change when it becomes ready or ends.
                    for life in ("running", "terminated"):
                        if state.get(life):
                            state[life]["startedAt"] = status_before["state"]["running"]["startedAt"]
            statuses[:] = [*(existing for existing in statuses if existing["name"] != container["name"]), status]

        self.update(address, change)

    def event(
        self,
        address: Address,
        reason: str,
        message: str,
        *,
        warning: bool = False,
        involved: tuple[str, str] | None = None,
    ) -> None:
        """Record an event, or increase its count if it exists."""
        kind, name = involved or ("Pod", address.name)
        for event in self._store.stored("Event", address.namespace, fields=f"involvedObject.name={name}"):
            if (event["reason"], event["message"]) == (reason, message):
                self._store.update("Event", event["metadata"]["name"], address.namespace, self._count_up)
                return
        pod = self._store.get("Pod", address.name, address.namespace) or {"metadata": {}}
        reference = {"kind": kind, "namespace": address.namespace, "name": name, "apiVersion": "v1"}
        self._store.create(
            {
                "kind": "Event",
                "metadata": {"generateName": f"{name}.", "namespace": address.namespace},
                "involvedObject": reference | ({"uid": pod["metadata"].get("uid", "")} if kind == "Pod" else {}),
                "type": "Warning" if warning else "Normal",
                "reason": reason,
                "message": message,
                "count": 1,
                "firstTimestamp": self._store.timestamp(),
                "lastTimestamp": self._store.timestamp(),
                "source": {"component": "sandbox"},
                # Whole seconds would hide the order of the events of an accelerated boot.
                "eventTime": self._store.date().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "reportingComponent": "sandbox",
                "reportingInstance": "sandbox",
                "action": reason,
            }
        )

    def _count_up(self, event: Object) -> None:
        event |= {"count": event["count"] + 1, "lastTimestamp": self._store.timestamp()}

    def log(self, address: Address, container: Object, *lines: str) -> None:
        self._logs[address, container["name"]][-1].extend(lines)

    def last_error(self, address: Address, container: Object) -> str:
        """Return the last line of the current run's log that contains an error; empty if there is none."""
        lines = self._logs[address, container["name"]][-1]
        return next((line for line in reversed(lines) if re.search(r"Error|ERROR|[Ff]ailed|denied", line)), "")

    def read_log(self, namespace: str, pod: str, container: str) -> list[str] | None:
        lives = self._logs.get((Address(namespace, pod), container))
        return lives[-1] if lives else None

    def read_previous_log(self, namespace: str, pod: str, container: str) -> list[str] | None:
        lives = self._logs.get((Address(namespace, pod), container)) or []
        return lives[-2] if len(lives) > 1 else None
