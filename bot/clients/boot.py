"""What a booting pod tells: which phase it is in, and why it will never be ready. Pure: Kubernetes' JSON in, values out.

Only what is certain ends a boot early. A pod that waits for a GPU is normal while the autoscaler adds a node, and a
first failed pull may be a blip; both are shown as the detail of their phase until they are known not to pass.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from bot.errors import BotError

KubeObject = dict[str, Any]
PhaseName = Literal["waiting for a node", "pulling the image", "staging weights", "loading", "ready"]

_PULL_FAILED = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_PULL_REFUSED = re.compile(r"not found|manifest unknown|unauthorized|denied|forbidden", re.IGNORECASE)
_TOO_MANY = re.compile(r"\b429\b|too many requests", re.IGNORECASE)
_NO_TOKEN = re.compile(r"\b401\b|unauthorized|invalid user token|invalid username or password", re.IGNORECASE)
_GATED = re.compile(r"\b403\b|gated|forbidden|access to model", re.IGNORECASE)
_UNCREATED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


class Phase(BaseModel, frozen=True):
    """A part of a boot and when it began, by the cluster's clock."""

    name: PhaseName
    since: datetime
    detail: str = ""


class BootFailed(BotError):
    """The model will not become ready: why, and what to do about it."""

    remedy = "Do what the message says last; the log lines are in the thread. The model is back at zero."

    def __init__(self, reason: str, remedy: str, log: str = "") -> None:
        super().__init__(f"{reason} {remedy}", log)
        self.reason = reason
        self.remedy = remedy


class Crash(NamedTuple):
    """A container that ended; `restarted` when it runs again, so that the log to read is the previous one."""

    container: str
    staging: bool
    out_of_memory: bool
    looping: bool
    exit_code: int
    restarted: bool


def newest(pods: Iterable[KubeObject]) -> KubeObject | None:
    """The pod that the boot is about: not one that is going or gone (an evicted pod stays listed for long)."""
    booting = [p for p in pods if not p["metadata"].get("deletionTimestamp") and not is_over(p)]
    return max(booting, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


def is_over(pod: KubeObject) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def of(name: str, kind: str, events: Iterable[KubeObject]) -> tuple[KubeObject, ...]:
    """The events about one object, oldest first."""
    about = [e for e in events if _involved(e).get("kind") == kind and _involved(e).get("name") == name]
    return tuple(sorted(about, key=_event_time))


def is_ready(pod: KubeObject) -> bool:
    return (_condition(pod, "Ready") or {}).get("status") == "True"


def phases(pod: KubeObject, events: Iterable[KubeObject]) -> tuple[Phase, ...]:
    """The phases so far, from the pod's own times, so that whoever looks again sees the same."""
    status = pod.get("status") or {}
    scheduled = _condition(pod, "PodScheduled") or {}
    reached: list[tuple[PhaseName, Any]] = [("waiting for a node", pod["metadata"]["creationTimestamp"])]
    if scheduled.get("status") == "True":
        reached.append(("pulling the image", scheduled.get("lastTransitionTime")))
        reached.append(("staging weights", _started(status.get("initContainerStatuses"))))
        reached.append(("loading", _started(status.get("containerStatuses"))))
        if is_ready(pod):
            reached.append(("ready", (_condition(pod, "Ready") or {}).get("lastTransitionTime")))
    begun: list[Phase] = []
    for name, since in reached:
        if since:
            # A restarted container starts anew, and clocks differ: no phase begins before the one it follows.
            moment = _moment(since)
            begun.append(Phase(name=name, since=max(moment, begun[-1].since) if begun else moment))
    last = begun[-1]
    return (*begun[:-1], last.model_copy(update={"detail": _detail(pod, last.name, events)}))


def no_machine(events: Iterable[KubeObject]) -> BootFailed | None:
    """No node can be had: the zone is out of stock, or the project out of quota."""
    scaling = [e for e in events if e.get("reason") in ("FailedScaleUp", "TriggeredScaleUp")]
    if not scaling or scaling[-1].get("reason") != "FailedScaleUp":
        return None  # the autoscaler went on to try another zone
    said = _said(scaling[-1])
    if "quota" in said.lower():
        return BootFailed(
            f"The GPU quota is used up: {said}", "Ask for more quota in the cloud project, or free a GPU elsewhere."
        )
    if "out of resources" in said.lower() or "stockout" in said.lower():
        return BootFailed(
            f"The zone has no GPU machine in stock: {said}",
            "Try again later, or let the node pool use another zone or machine type.",
        )
    return None


def refused_pod(events: Iterable[KubeObject]) -> BootFailed | None:
    """Not even a pod could be made, as the ReplicaSet's events say."""
    for event in events:
        if event.get("reason") == "FailedCreate":
            return BootFailed(
                f"Kubernetes refused to create the pod: {_said(event)}",
                "Raise the namespace's quota, or mend what the message names.",
            )
    return None


def wants_gpu(events: Iterable[KubeObject]) -> bool:
    """Whether the scheduler found no free GPU, and no node is on its way that would bring one."""
    reasons = {e.get("reason") for e in events}
    lacking = any(e.get("reason") == "FailedScheduling" and "nvidia.com/gpu" in _said(e) for e in events)
    return lacking and "TriggeredScaleUp" not in reasons


def gpu_taken(holder: str) -> BootFailed:
    return BootFailed(
        f"The GPU is taken by {holder}, so the scheduler finds no room for this pod.",
        f"Bring {holder} down first, then try again.",
    )


def pull_failure(pod: KubeObject) -> BootFailed | None:
    for status in _container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason, said = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _PULL_FAILED or (reason == "ErrImagePull" and _PULL_REFUSED.search(said)):
            return BootFailed(
                f"The image of container {status['name']} cannot be pulled ({reason}): {said or status.get('image', '')}",
                "Check the image's name, digest and pull secret in the Deployment.",
            )
    return None


def uncreated(pod: KubeObject) -> BootFailed | None:
    """A container that cannot even be made, mostly for a Secret or ConfigMap that is not there."""
    for status in _container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _UNCREATED:
            return BootFailed(
                f"Container {status['name']} cannot be made ({waiting['reason']}): {waiting.get('message', '')}",
                "Create the Secret or ConfigMap that the message names, or mend the Deployment.",
            )
    return None


def crash(pod: KubeObject) -> Crash | None:
    """A container whose end decides the boot: any end by memory, any end of the staging, otherwise a loop of ends."""
    inits = {s["name"] for s in (pod.get("status") or {}).get("initContainerStatuses") or ()}
    for status in _container_statuses(pod):
        state = status.get("state") or {}
        ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
        looping = (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff"
        code = int((ended or {}).get("exitCode") or 0)
        out_of_memory = (ended or {}).get("reason") == "OOMKilled"
        staging = status["name"] in inits
        if looping or out_of_memory or (staging and code and not status.get("ready")):
            return Crash(status["name"], staging, out_of_memory, looping, code, "running" in state)
    return None


def explain(crashed: Crash, log: str) -> BootFailed | None:
    """Why the container ended, by its last log lines, which are the details; None while it may yet succeed when restarted."""
    tail = "\n".join(log.strip().splitlines()[-8:])
    if crashed.out_of_memory:
        return BootFailed(
            f"Container {crashed.container} was killed for using more memory than its limit (OOMKilled).",
            "Raise its memory limit (and the machine, if that is full), or serve a smaller model.",
            tail,
        )
    if crashed.staging and _TOO_MANY.search(log):
        return BootFailed(
            "Hugging Face turned the download of the weights away as too many requests (429).",
            "Stage the weights by hand into the model's volume (kubectl cp), or try again later.",
            tail,
        )
    if crashed.staging and _GATED.search(log):
        return BootFailed(
            "Hugging Face refused the download of the weights: the model is gated, and the token has no access to it.",
            "Accept the model's licence with the account whose token the pod uses, or choose an open model.",
            tail,
        )
    if crashed.staging and _NO_TOKEN.search(log):
        return BootFailed(
            "Hugging Face refused the download of the weights: without a valid token there is no such model (401).",
            "Check the model's name, and put a valid token into the Secret that the pod reads.",
            tail,
        )
    if crashed.looping:
        return BootFailed(
            f"Container {crashed.container} keeps crashing (exit code {crashed.exit_code}){_complaint(tail)}.",
            "Mend the arguments or the model that the log lines in the thread complain about, in git.",
            tail,
        )
    return None


def _complaint(log: str) -> str:
    """The line of a log that says why it ended: the last that names an error, else the last."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = next(
        (line for line in reversed(lines) if re.search(r"(Error|Exception)\b", line)), lines[-1] if lines else ""
    )
    return f": {said.rstrip('.')[:300]}" if said else ""


def never_ready(seconds: float, phase: Phase | None, events: Iterable[KubeObject], log: str = "") -> BootFailed:
    """The limit is over: where it stands, what the cluster last complained about, and the engine's last log lines."""
    stuck = f", stuck at “{phase.name}” since {phase.since:%H:%M} UTC" if phase else ", and no pod was made"
    warnings = [e for e in events if e.get("type") == "Warning"]
    tail = "\n".join(log.strip().splitlines()[-8:])
    probes = [e for e in warnings if e.get("reason") == "Unhealthy"]
    if phase and phase.name == "loading" and probes:
        return BootFailed(
            f"The model was not ready after {seconds:.0f} s{stuck}: its probe never passed. {_said(probes[-1]).rstrip('.')}.",
            "If the log lines in the thread show that it still loads, give it longer (gpu.boot_limit, and the probe's failureThreshold);"
            " else mend what they complain about, or the probe's path and port.",
            tail,
        )
    if phase:  # what stood in the way of an earlier phase has passed
        warnings = [e for e in warnings if (at := _event_time(e)[0]) and _moment(at) >= phase.since]
    last = f" The last warning: {_said(warnings[-1]).rstrip('.')}." if warnings else ""
    return BootFailed(
        f"The model was not ready after {seconds:.0f} s{stuck}.{last}",
        "Look at the pod's log and events; if it only needs longer, raise gpu.boot_limit.",
        tail,
    )


def _detail(pod: KubeObject, phase: PhaseName, events: Iterable[KubeObject]) -> str:
    if phase == "waiting for a node":
        said = [e for e in events if e.get("reason") in ("FailedScheduling", "TriggeredScaleUp", "NotTriggerScaleUp")]
        if said and said[-1]["reason"] == "TriggeredScaleUp":
            return "the autoscaler adds one"
        return _said(said[-1]) if said else ""
    if phase == "pulling the image":
        waiting = [(s.get("state") or {}).get("waiting") or {} for s in _container_statuses(pod)]
        return next((str(w.get("message") or "") for w in waiting if w.get("reason") == "ErrImagePull"), "")
    return ""


def _container_statuses(pod: KubeObject) -> list[KubeObject]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _condition(pod: KubeObject, kind: str) -> KubeObject | None:
    conditions: list[KubeObject] = (pod.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), None)


def _started(statuses: list[KubeObject] | None) -> str | None:
    """When the first of the containers started, in its present or last life."""
    for status in statuses or ():
        state = status.get("state") or {}
        lives = (state.get("running"), state.get("terminated"), (status.get("lastState") or {}).get("terminated"))
        for life in lives:
            if life and life.get("startedAt"):
                return str(life["startedAt"])
    return None


def _involved(event: KubeObject) -> KubeObject:
    return event.get("involvedObject") or {}


def _said(event: KubeObject) -> str:
    return str(event.get("message") or event.get("reason") or "").strip()


def _event_time(event: KubeObject) -> tuple[str, bool]:
    """When it was last seen; of two in the same second the failure is the later."""
    times = (event.get("lastTimestamp"), event.get("eventTime"), event["metadata"].get("creationTimestamp"))
    return str(next(filter(None, times), "")), event.get("reason") == "FailedScaleUp"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
