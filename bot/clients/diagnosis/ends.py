"""The reasons why containers and pods end, from exit codes, the runtime's messages, logs and events. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bot.clients.diagnosis.cause import Kind
from bot.clients.diagnosis.log import Finding, find, tail
from bot.clients.diagnosis.pods import runtime_cause
from bot.clients.diagnosis.problems import Events, KubeObject, Problem, container_statuses, message_of
from manifests.frozen import frozen


@frozen
class Crash:
    """A container that ended. If it is running again, `restarted` is true, and its previous log contains the error."""

    container: str
    staging: bool
    reason: str
    exit_code: int
    message: str
    ends: int
    """The number of times that it has ended."""
    looping: bool
    restarted: bool

    @property
    def out_of_memory(self) -> bool:
        return self.reason == "OOMKilled"

    @property
    def not_started(self) -> bool:
        """True if the runtime could not start the container (exit code 128). It has no log; `message` is the reason."""
        return self.reason in ("StartError", "ContainerCannotRun")


def crash(pod: KubeObject) -> Crash | None:
    """The container that prevents the pod from running, because it ran out of memory, could not stage or start, is in a
    crash loop, or ended repeatedly. None if there is no such container.
    """
    over = (pod.get("status") or {}).get("phase") == "Failed"
    for crashed, is_ready in _ends(pod):
        failed = crashed.exit_code != 0 and not is_ready
        if crashed.looping or crashed.out_of_memory or (failed and (crashed.staging or crashed.not_started or over)):
            return crashed
        # A container that a probe kills repeatedly restarts without a back-off, and an engine may exit with 0 on
        # SIGTERM.
        if not is_ready and crashed.restarted and crashed.ends > 1:
            return crashed
    return None


def last(pod: KubeObject) -> Crash | None:
    """The container that ended in a pod that was ready before; unlike `crash`, a single end is sufficient."""
    return next((crashed for crashed, is_ready in _ends(pod) if not is_ready and not crashed.staging), None)


def _ends(pod: KubeObject) -> Iterator[tuple[Crash, bool]]:
    """The last end of each container that ended, and whether the container is ready again."""
    inits = {s["name"] for s in (pod.get("status") or {}).get("initContainerStatuses") or ()}
    for status in container_statuses(pod):
        state = status.get("state") or {}
        ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
        if not ended:
            continue
        crashed = Crash(
            container=status["name"],
            staging=status["name"] in inits,
            reason=str(ended.get("reason") or ""),
            exit_code=int(ended.get("exitCode") or 0),
            message=str(ended.get("message") or ""),
            ends=int(status.get("restartCount") or 0) + (1 if "terminated" in state else 0) or 1,
            looping=(state.get("waiting") or {}).get("reason") == "CrashLoopBackOff",
            restarted="running" in state,
        )
        yield crashed, bool(status.get("ready"))


def explain(crashed: Crash, log: str, events: Events = (), *, final: bool = False) -> Problem | None:
    """The reason why the container ended; None if a restart may succeed. With `final`, the container is not restarted,
    as in a Job's pod.
    """
    loops = " keeps crashing" if crashed.looping else ""
    suffix = f"container {crashed.container}{loops}, exit code {crashed.exit_code}"
    if crashed.out_of_memory:
        return Problem(
            Kind.MEMORY,
            f"Container {crashed.container} was killed for using more memory than its limit (OOMKilled).",
            "Raise its memory limit (on a larger machine, if the node's memory is used up), or serve a smaller model.",
            log=tail(log),
        )
    if crashed.not_started:
        text = crashed.message or tail(log)
        headline, remedy, kind = (
            f"it cannot be started ({crashed.reason}){f': {text}' if text else ''}",
            "Correct what the message names.",
            Kind.IMAGE,
        )
        if explained := runtime_cause(text):
            headline, remedy, kind = explained[0], explained[1], explained[2].kind
        return Problem(kind, f"{headline.rstrip('.')} ({suffix})", remedy, log=text)
    finding = find(f"{log}\n{crashed.message}" if crashed.message else log)
    if probe := _killed_by_probe(crashed, events, log, finding):
        return probe if final or crashed.ends > 1 or crashed.looping else None
    if finding is None or finding.name == "unknown":
        return _unexplained(crashed, finding, log) if crashed.looping or final else None
    if not final and crashed.ends < finding.crashes:
        return None
    if final or crashed.looping or crashed.staging or crashed.ends > 1:
        return Problem(finding.kind, f"{finding.headline.rstrip('.')} ({suffix})", finding.remedy, log=finding.excerpt)
    return None


def _killed_by_probe(crashed: Crash, events: Events, log: str, finding: Finding | None) -> Problem | None:
    killed = [
        e
        for e in events
        if e.get("reason") == "Killing" and "probe" in message_of(e) and crashed.container in message_of(e)
    ]
    if not killed or (finding and (finding.name != "unknown" or crashed.exit_code not in (0, 137, 143))):
        return None
    unhealthy = [e for e in events if e.get("reason") == "Unhealthy"]
    probe_message = f" {message_of(unhealthy[-1]).rstrip('.')}." if unhealthy else ""
    return Problem(
        Kind.PROBE,
        f"The kubelet killed container {crashed.container} {crashed.ends} times because its probe failed:"
        f" {message_of(killed[-1]).rstrip('.')}.{probe_message}",
        "If the log in the thread shows that it is still loading, raise the startup probe's failureThreshold; otherwise check"
        " the probe's path and port.",
        log=tail(log),
    )


_EXITS = {
    126: "its command cannot be executed (126)",
    127: "its command does not exist (127)",
    132: "it used an instruction that the processor does not have (SIGILL, 132)",
    134: "it aborted itself (SIGABRT, 134)",
    135: "bus error, mostly a /dev/shm that is too small (SIGBUS, 135)",
    137: "it was killed (SIGKILL, 137), mostly for memory or by the node",
    139: "it crashed in native code (SIGSEGV, 139)",
    143: "it was terminated (SIGTERM, 143)",
}


def _unexplained(crashed: Crash, finding: Finding | None, log: str) -> Problem:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    reason = (
        finding.headline if finding else _EXITS.get(crashed.exit_code, lines[-1].rstrip(".")[:300] if lines else "")
    )
    outcome = "failed" if crashed.staging else "keeps crashing"
    kind, remedy = (
        Kind.UNKNOWN,
        "Correct the arguments, the model or the image that the log lines in the thread name, in git.",
    )
    if finding is None and crashed.exit_code == 0 and not crashed.staging:
        outcome, reason = f"{'ends again and again' if crashed.looping else 'ended'} without an error", ""
        kind, remedy = (
            Kind.CONFIGURATION,
            "Check `command` and `args` in the Deployment: they must start a server that stays.",
        )
    elif finding is None:
        kind, remedy = _EXIT_REMEDIES.get(crashed.exit_code, (kind, remedy))
    return Problem(
        finding.kind if finding else kind,
        f"Container {crashed.container} {outcome} (exit code {crashed.exit_code}){f': {reason}' if reason else ''}.",
        remedy,
        log=finding.excerpt if finding else tail(log),
    )


_EXIT_REMEDIES = {
    135: (Kind.DISK, "Mount an emptyDir with `medium: Memory` at /dev/shm in the Deployment."),
    137: (
        Kind.MEMORY,
        "Raise the container's memory limit (on a larger machine, if the node's memory is used up), or serve a smaller model.",
    ),
}
_REFUSED_BY_NODE = (
    "NodeAffinity",
    "NodePorts",
    "TopologyAffinityError",
    "SysctlForbidden",
    "AppArmor",
    "PodOSNotSupported",
)


def repeated(over: Sequence[Problem]) -> Problem | None:
    """A problem that ended several pods of one boot, so the next pod will probably fail too."""
    for problem in reversed(over):
        alike = sum(ended_pod.kind == problem.kind for ended_pod in over)
        if alike >= (2 if problem.kind is Kind.EVICTION else 3):
            return replace(problem, reason=f"{problem.reason.rstrip('.')} ({alike} pods in a row)")
    return None


def ended(pod: KubeObject) -> Problem | None:
    """The reason why a pod ended or terminates (eviction, preemption, lost node), unless its Deployment caused it."""
    status = pod.get("status") or {}
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    target = next((c for c in status.get("conditions") or () if c.get("type") == "DisruptionTarget"), None)
    if target and not reason:
        reason, message = str(target.get("reason") or ""), str(target.get("message") or message)
    match reason:
        case "Evicted" | "TerminationByKubelet" | "EvictionByEvictionAPI":
            low = re.search(r"low on resource: (?P<what>[\w-]+)", message) or re.search(
                r"(?P<what>ephemeral[ -]\w+)", message
            )
            remedy = "Give the pod a memory request as high as its limit, or use a larger machine."
            if low and "ephemeral" in low["what"]:
                remedy = "Put caches on the volume, set an ephemeral-storage limit, or use a larger boot disk."
            return Problem(Kind.EVICTION, f"The pod was evicted{f': {message}' if message else ''}", remedy)
        case "Preempting" | "Preempted" | "PreemptionByScheduler":
            return Problem(
                Kind.EVICTION,
                f"The pod was preempted by a pod with a higher priority: {message}",
                "Give it a higher priorityClassName.",
            )
        case "NodeShutdown" | "Shutdown" | "Terminated" | "NodeLost" | "DeletionByTaintManager" | "DeletionByPodGC":
            return Problem(
                Kind.CAPACITY,
                f"The pod's node was reclaimed or lost{f': {message}' if message else ''}",
                "A spot or preemptible machine can be taken back at any time; a regular one avoids that.",
            )
        case "UnexpectedAdmissionError":
            return Problem(
                Kind.GPU,
                f"The node refused the pod: {message}",
                "The node's GPU or device plugin does not work: drain the node.",
            )
        case _ if reason.startswith("OutOf") or reason in _REFUSED_BY_NODE:
            return Problem(
                Kind.SCHEDULING,
                f"The node refused the pod ({reason}): {message}",
                "Check the pod's requests and the node's size.",
            )
    return None
