"""The phases of a boot, and its failures. Pure: Kubernetes' JSON in, values out.

Only certain failures end a boot early: problems that cannot resolve without action, and problems that have lasted too
long (`bot.clients.diagnosis`). Other problems are shown as the detail of their phase.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from bot.clients.diagnosis.cause import Kind
from bot.clients.diagnosis.log import tail
from bot.clients.diagnosis.problems import KubeObject, Problem, last_seen, message_of
from bot.domain.phases import LOAD, PULL_IMAGE, READY, STAGE_WEIGHTS, WAIT_FOR_NODE, Phase
from bot.errors import BotError
from bot.text.durations import show_duration
from bot.text.mrkdwn import time_stamp, with_code


class BootPhase(NamedTuple):
    """A phase of a boot and its start by the cluster's clock. The last phase is `READY`."""

    phase: Phase
    since: datetime
    detail: str = ""


class BootFailed(BotError):
    """The boot of a model failed. The message contains the reason and the remedy."""

    remedy = "Follow the last sentence of the message; the log lines are in the thread. The model is down again."

    def __init__(self, reason: str, remedy: str, log: str = "", kind: Kind = Kind.UNKNOWN) -> None:
        super().__init__(with_code(f"{reason.rstrip('. ')}. {remedy}"), log)
        self.reason = reason
        self.remedy = remedy
        self.kind = kind

    @classmethod
    def of(cls, problem: Problem) -> "BootFailed":
        return cls(problem.reason, problem.remedy, problem.log, problem.kind)


def newest(pods: Iterable[KubeObject]) -> KubeObject | None:
    """The newest pod that is neither terminating nor finished (an evicted pod stays listed for a long time)."""
    booting = [p for p in pods if not p["metadata"].get("deletionTimestamp") and not is_over(p)]
    return max(booting, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


def is_over(pod: KubeObject) -> bool:
    """Return whether the pod has finished, successfully or not."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_ready(pod: KubeObject) -> bool:
    return (_condition(pod, "Ready") or {}).get("status") == "True"


def phases(pod: KubeObject, events: Iterable[KubeObject], problem: str = "") -> tuple[BootPhase, ...]:
    """The phases so far. They come from the pod's timestamps, so the result is the same after a restart of the bot. The
    problem, if any, is the detail of the last phase.
    """
    status = pod.get("status") or {}
    scheduled = _condition(pod, "PodScheduled") or {}
    reached: list[tuple[Phase, Any]] = [(WAIT_FOR_NODE, pod["metadata"]["creationTimestamp"])]
    if scheduled.get("status") == "True":
        reached.append((PULL_IMAGE, scheduled.get("lastTransitionTime")))
        reached.append((STAGE_WEIGHTS, _first_start(status.get("initContainerStatuses"))))
        reached.append((LOAD, _first_start(status.get("containerStatuses"))))
        if is_ready(pod):
            reached.append((READY, (_condition(pod, "Ready") or {}).get("lastTransitionTime")))
    begun: list[BootPhase] = []
    for phase, since in reached:
        if since:
            # A restart changes the start time, and clocks differ, but no phase may begin before the previous phase.
            moment = _moment(since)
            begun.append(BootPhase(phase, max(moment, begun[-1].since) if begun else moment))
    last = begun[-1]
    return (*begun[:-1], last._replace(detail=problem or _detail(last.phase, events)))


def gpu_taken(holder: str) -> Problem:
    """The problem of a pod that cannot be scheduled because `holder` uses the GPU."""
    return Problem(
        Kind.SCHEDULING,
        f"The GPU is taken by {holder}, so the scheduler cannot place this pod.",
        f"Bring {holder} down first, then try again.",
    )


def never_ready(
    waited: timedelta, reached: BootPhase | None, events: Iterable[KubeObject], log: str = ""
) -> BootFailed:
    """The error for a boot that reached its limit, with its phase, the last warning event, and the engine's last log
    lines.
    """
    stuck = (
        f", stuck at “{reached.phase.label}” since {time_stamp(reached.since)}"
        if reached
        else ", and no pod was created"
    )
    warnings = [e for e in events if e.get("type") == "Warning"]
    log_lines = tail(log)
    probes = [e for e in warnings if e.get("reason") == "Unhealthy"]
    if reached and reached.phase is LOAD and probes:
        return BootFailed(
            f"The model was not ready after {show_duration(waited)}{stuck}: its probe never passed. {message_of(probes[-1]).rstrip('.')}.",
            "If the log lines in the thread show that it is still loading, give it more time (gpu.boot_limit, and the probe's failureThreshold);"
            " otherwise correct the problem in the log, or the probe's path and port.",
            log_lines,
        )
    if reached:  # problems of an earlier phase have been resolved
        warnings = [e for e in warnings if (at := last_seen(e)) and _moment(at) >= reached.since]
    last = f" The last warning: {message_of(warnings[-1]).rstrip('.')}." if warnings else ""
    return BootFailed(
        f"The model was not ready after {show_duration(waited)}{stuck}.{last}",
        "Check the pod's log and events; if it only needs more time, raise gpu.boot_limit.",
        log_lines,
    )


def _detail(phase: Phase, events: Iterable[KubeObject]) -> str:
    if phase is WAIT_FOR_NODE:
        scheduling = [
            e for e in events if e.get("reason") in ("FailedScheduling", "TriggeredScaleUp", "NotTriggerScaleUp")
        ]
        if scheduling and scheduling[-1]["reason"] == "TriggeredScaleUp":
            return "the autoscaler adds one"
        return message_of(scheduling[-1]) if scheduling else ""
    return ""


def _condition(pod: KubeObject, kind: str) -> KubeObject | None:
    conditions: list[KubeObject] = (pod.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), None)


def _first_start(statuses: list[KubeObject] | None) -> str | None:
    """The time when the first container started, in its current or previous run; None if none has started."""
    for status in statuses or ():
        state = status.get("state") or {}
        lives = (state.get("running"), state.get("terminated"), (status.get("lastState") or {}).get("terminated"))
        for life in lives:
            if life and life.get("startedAt"):
                return str(life["startedAt"])
    return None


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
