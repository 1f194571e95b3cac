"""The actual condition of a model that should be serving, from its Deployment, its pods and its node.

The Deployment alone is not sufficient, because it shows zero ready replicas in each of these cases: the pod has no
node, was evicted, is in a crash loop, or is booting.
"""

import hashlib
import json
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from bot.clients import boot
from bot.clients.diagnosis import ends, pods
from bot.clients.diagnosis.problems import KubeObject, Problem, events_of, is_scheduled, moment_of
from bot.clients.diagnosis.reader import PodReader
from bot.clients.workload import engine_of, replicas_of
from bot.domain.sessions import Node

State = Literal["serving", "at zero", "no Deployment", "no pod", "no node", "crash-looping", "not ready", "booting"]


class Condition(BaseModel, frozen=True, defer_build=True):
    """The state of a model and, if it is not serving, the reason, the remedy, and the time when it stopped serving."""

    state: State
    replicas: int = 0
    reason: str = ""
    remedy: str = ""
    log: str = ""
    since: datetime | None = None
    """The time when the pod stopped being ready, by the cluster's clock, if known."""
    node: Node | None = None
    node_known: bool = True
    """True if the bot could read the nodes: then `node` is None only if there is no node."""
    template: str = ""
    """A digest of the Deployment's pod template. If it differs from the digest when the model became ready, the
    Deployment was changed.
    """
    image: str = ""

    @property
    def serving(self) -> bool:
        return self.state == "serving"


async def examine(
    name: str,
    deployment: KubeObject | None,
    listed: tuple[KubeObject, ...],
    events: tuple[KubeObject, ...],
    reader: PodReader,
) -> Condition:
    """The condition of a model, from its Deployment, its pods and the namespace's events. The node is not set."""
    if deployment is None:
        return Condition(state="no Deployment", reason=f"The Deployment {name} no longer exists: somebody deleted it.")
    spec = deployment["spec"]["template"]["spec"]
    common: dict[str, object] = {
        "replicas": replicas_of(deployment),
        "template": hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12],
        "image": str(engine_of(spec).get("image", "")),
    }
    if not common["replicas"]:
        return _condition_of("at zero", None, f"{name} was scaled to zero from outside.", None, common)
    if any(boot.is_ready(pod) and not pod["metadata"].get("deletionTimestamp") for pod in listed):
        return Condition.model_validate({"state": "serving", **common})
    earlier = _earlier_end(listed)
    pod = boot.newest(listed)
    if pod is None:
        sets = [e for e in events if (e.get("involvedObject") or {}).get("kind") == "ReplicaSet"]
        replica_set_events = sorted(
            (e for e in sets if str(e["involvedObject"].get("name", "")).startswith(f"{name}-")), key=moment_of
        )
        problem = pods.creation_refused(replica_set_events) or earlier
        return _condition_of("no pod", problem, "Its pod is gone, and there is no new one.", None, common)
    problem = await reader.problem(pod, events)
    if not is_scheduled(pod) or not pod["spec"].get("nodeName"):
        waits = (
            f" The new pod waits for a node: {problem.detail or problem.reason}"
            if problem
            else " The new pod waits for a node."
        )
        lost = earlier.reason if earlier else "Its node is gone: it was reclaimed, removed or drained."
        return Condition.model_validate(
            {
                "state": "no node",
                "reason": f"{lost.rstrip('. ')}.{waits}",
                "remedy": problem.remedy if problem else "",
                "since": _created(pod),
                **common,
            }
        )
    if ended := await reader.last_end(pod, events):
        return _condition_of("crash-looping", ended, "", _not_ready_since(pod), common)
    if any(int(status.get("restartCount") or 0) for status in (pod.get("status") or {}).get("containerStatuses") or ()):
        return _condition_of(
            "crash-looping", None, "Its engine exited and is loading again.", _not_ready_since(pod), common
        )
    pod_events = events_of(pod["metadata"]["name"], "Pod", events)
    unhealthy = [e for e in pod_events if e.get("reason") == "Unhealthy"]
    if _was_ready(pod):
        probe_message = f" The probe's message: {str(unhealthy[-1].get('message') or '').strip()}" if unhealthy else ""
        return _condition_of(
            "not ready",
            problem,
            f"Its engine runs, but does not answer its probe.{probe_message}",
            _not_ready_since(pod),
            common,
        )
    return _condition_of(
        "booting", problem or earlier, "Its pod was replaced and is starting again.", _created(pod), common
    )


def _condition_of(
    state: State, problem: Problem | None, otherwise: str, since: datetime | None, common: dict[str, object]
) -> Condition:
    cause = (
        {"reason": problem.reason, "remedy": problem.remedy, "log": problem.log} if problem else {"reason": otherwise}
    )
    return Condition.model_validate({"state": state, "since": since, **cause, **common})


def _earlier_end(listed: tuple[KubeObject, ...]) -> Problem | None:
    """The reason why the newest finished or terminating pod ended, if the Deployment did not cause it."""
    over = [p for p in listed if boot.is_over(p) or p["metadata"].get("deletionTimestamp")]
    over.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    return next((problem for pod in over if (problem := ends.ended(pod))), None)


def with_missing_node(condition: Condition, node: str) -> Condition:
    """Adjust the condition if the pod's node no longer exists, because the pod object is then outdated."""
    if condition.serving:
        return condition
    reason = f"Its node {node} is gone: it was reclaimed, or removed."
    return condition.model_copy(update={"state": "no node", "reason": reason, "remedy": ""})


def with_unready_node(condition: Condition, node: str) -> Condition:
    """Adjust the condition if the node does not respond, because the pod's status is then outdated."""
    if condition.state not in ("not ready", "booting"):
        return condition
    return condition.model_copy(update={"reason": f"Its node {node} no longer responds (NotReady)."})


def _was_ready(pod: KubeObject) -> bool:
    """Return whether the engine started and then lost its readiness: `started` is set once the startup probe has
    passed.
    """
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(status.get("started") and "running" in (status.get("state") or {}) for status in statuses)


def _not_ready_since(pod: KubeObject) -> datetime | None:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = next((c for c in conditions if c.get("type") == "Ready" and c.get("status") != "True"), None)
    return _moment((ready or {}).get("lastTransitionTime"))


def _created(pod: KubeObject) -> datetime | None:
    return _moment(pod["metadata"].get("creationTimestamp"))


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
