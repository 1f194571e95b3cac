"""The actual condition of a model that should be serving, from its Deployment, its pods and its node.

A Deployment is not sufficient: a pod without a node, an evicted one, a crash-looping one and a booting one all mean
zero ready replicas.
"""

import hashlib
import json
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from bot.clients import boot
from bot.clients.diagnosis import ends, pods
from bot.clients.diagnosis.problems import KubeObject, Problem, about, is_scheduled, moment_of
from bot.clients.diagnosis.reader import PodReader
from bot.clients.workload import engine_of, replicas_of
from bot.domain.sessions import Node

State = Literal["serving", "at zero", "no Deployment", "no pod", "no node", "crash-looping", "not ready", "booting"]


class Condition(BaseModel, frozen=True, defer_build=True):
    """The state of a model and, if it is not serving, the reason, the time since then and the remedy."""

    state: State
    replicas: int = 0
    reason: str = ""
    remedy: str = ""
    log: str = ""
    since: datetime | None = None
    """The time when the pod stopped being ready, by the cluster's clock, if known."""
    node: Node | None = None
    node_known: bool = True
    """True if the node was read, so that None means that there is none."""
    template: str = ""
    """A digest of the Deployment's pod template. If it differs after the model was ready, somebody has changed the
    Deployment.
    """
    image: str = ""

    @property
    def serving(self) -> bool:
        return self.state == "serving"


async def examine(
    name: str,
    deployment: KubeObject | None,
    found: tuple[KubeObject, ...],
    events: tuple[KubeObject, ...],
    reader: PodReader,
) -> Condition:
    """The condition of a model, from its Deployment, its pods and the namespace's events; without its node."""
    if deployment is None:
        return Condition(state="no Deployment", reason=f"There is no Deployment {name} any more: somebody deleted it.")
    spec = deployment["spec"]["template"]["spec"]
    known: dict[str, object] = {
        "replicas": replicas_of(deployment),
        "template": hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12],
        "image": str(engine_of(spec).get("image", "")),
    }
    if not known["replicas"]:
        return _told("at zero", None, f"{name} was scaled to zero from outside.", None, known)
    if any(boot.is_ready(pod) and not pod["metadata"].get("deletionTimestamp") for pod in found):
        return Condition.model_validate({"state": "serving", **known})
    before = _before(found)
    pod = boot.newest(found)
    if pod is None:
        sets = [e for e in events if (e.get("involvedObject") or {}).get("kind") == "ReplicaSet"]
        about_us = sorted(
            (e for e in sets if str(e["involvedObject"].get("name", "")).startswith(f"{name}-")), key=moment_of
        )
        problem = pods.refused(about_us) or before
        return _told("no pod", problem, "Its pod is gone, and there is no new one.", None, known)
    problem = await reader.problem(pod, events)
    if not is_scheduled(pod) or not pod["spec"].get("nodeName"):
        waits = (
            f" The new pod waits for a node: {problem.detail or problem.reason}"
            if problem
            else " The new pod waits for a node."
        )
        lost = before.reason if before else "Its node is gone: it was reclaimed, removed or drained."
        return Condition.model_validate(
            {
                "state": "no node",
                "reason": f"{lost.rstrip('. ')}.{waits}",
                "remedy": problem.remedy if problem else "",
                "since": _created(pod),
                **known,
            }
        )
    if ended := await reader.last_end(pod, events):
        return _told("crash-looping", ended, "", _not_ready_since(pod), known)
    if any(int(status.get("restartCount") or 0) for status in (pod.get("status") or {}).get("containerStatuses") or ()):
        return _told("crash-looping", None, "Its engine has ended, and loads again.", _not_ready_since(pod), known)
    own = about(pod["metadata"]["name"], "Pod", events)
    unhealthy = [e for e in own if e.get("reason") == "Unhealthy"]
    if _was_ready(pod):
        said = f" The probe says: {str(unhealthy[-1].get('message') or '').strip()}" if unhealthy else ""
        return _told(
            "not ready",
            problem,
            f"Its engine runs, but does not answer its probe.{said}",
            _not_ready_since(pod),
            known,
        )
    return _told("booting", problem or before, "Its pod was replaced, and boots again.", _created(pod), known)


def _told(
    state: State, problem: Problem | None, otherwise: str, since: datetime | None, known: dict[str, object]
) -> Condition:
    told = (
        {"reason": problem.reason, "remedy": problem.remedy, "log": problem.log} if problem else {"reason": otherwise}
    )
    return Condition.model_validate({"state": state, "since": since, **told, **known})


def _before(found: tuple[KubeObject, ...]) -> Problem | None:
    """The reason why the newest finished or terminating pod ended, if the Deployment did not cause it."""
    over = [p for p in found if boot.is_over(p) or p["metadata"].get("deletionTimestamp")]
    over.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    return next((problem for pod in over if (problem := ends.ended(pod))), None)


def without(seen: Condition, node: str) -> Condition:
    """The condition if the pod's node no longer exists: the pod object is outdated."""
    if seen.serving:
        return seen
    reason = f"Its node {node} is gone: it was reclaimed, or removed."
    return seen.model_copy(update={"state": "no node", "reason": reason, "remedy": ""})


def silent(seen: Condition, node: str) -> Condition:
    """The condition if the node does not respond: the pod's status is outdated."""
    if seen.state not in ("not ready", "booting"):
        return seen
    return seen.model_copy(update={"reason": f"Its node {node} does not answer any more (NotReady)."})


def _was_ready(pod: KubeObject) -> bool:
    """Return whether the engine started and only lost its readiness: `started` is set once the startup probe has
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
