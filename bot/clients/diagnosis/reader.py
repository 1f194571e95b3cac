"""Diagnose a pod of a model or of a Job: reads its status and events, and if necessary its logs and related pods."""

from collections.abc import Iterable

from bot.clients.diagnosis import ends, pods
from bot.clients.diagnosis.ends import Crash
from bot.clients.diagnosis.log import find
from bot.clients.diagnosis.problems import KubeObject, Problem, container_statuses, events_of, is_scheduled
from bot.clients.kube import Collection, Kube, Selection
from bot.errors import BotError, Unavailable

_LINES = 1500
"""Number of lines read from the end of a log. The server's traceback, which follows the engine's, has 60 to 200 lines;
the engine's traceback has about 50 for each of its processes.
"""
_MOST, _CHARACTER = 2**20, 4
"""Maximum bytes read from the end of a log (lines may have any length), and bytes of the longest UTF-8 character."""
_HEAD = 64 * 1024
"""Maximum bytes read from the beginning of a longer log."""


class PodReader:
    """Diagnoses the pods of one namespace. The log of each crash is read only once."""

    def __init__(self, kube: Kube, in_namespace: Collection) -> None:
        self._kube, self._pods = kube, in_namespace
        self._read: dict[tuple[str, Crash], str] = {}

    async def problem(self, pod: KubeObject, events: Iterable[KubeObject], *, final: bool = False) -> Problem | None:
        """The reason why the pod is not ready; None if the wait is normal. With `final`, the pod is not restarted, as
        in a Job.
        """
        everything = tuple(events)
        pod_events = events_of(pod["metadata"]["name"], "Pod", everything)
        if not is_scheduled(pod) and not container_statuses(pod):
            return pods.without_node(pod, pod_events, everything)
        if crashed := ends.crash(pod):
            log = "" if crashed.not_started else await self._log_of(pod, crashed)
            if problem := ends.explain(crashed, log, pod_events, final=final):
                return problem
        problem = pods.not_started(pod, pod_events)
        if problem and problem.claim:
            return pods.with_holder(problem, pod, await self._kube.list(Selection(self._pods)))
        return problem

    async def last_end(self, pod: KubeObject, events: Iterable[KubeObject]) -> Problem | None:
        """The reason why a container of a formerly ready pod ended, even if it has restarted; None if none ended."""
        if (crashed := ends.last(pod)) is None:
            return None
        log = "" if crashed.not_started else await self._log_of(pod, crashed)
        return ends.explain(crashed, log, events_of(pod["metadata"]["name"], "Pod", tuple(events)), final=True)

    async def tail(self, pod: KubeObject, container: str, lines: int = 40) -> str:
        """The last lines of a container's log; empty if the log cannot be read."""
        try:
            return await self._kube.log(
                self._pods, pod["metadata"]["name"], container=container, lines=lines, previous=False
            )
        except (BotError, Unavailable):
            return ""  # a missing log must not prevent the diagnosis

    async def _log_of(self, pod: KubeObject, crashed: Crash) -> str:
        name, key = pod["metadata"]["name"], (pod["metadata"]["name"], crashed)
        if key not in self._read:
            self._read.clear()  # only one pod is diagnosed at a time, so older results are not needed
            text = await self._whole(name, crashed.container, previous=crashed.restarted)
            # The container may have restarted in the meantime, or the log of its previous run may contain more.
            if not find(text) and not crashed.restarted:
                text = await self._whole(name, crashed.container, previous=True) or text
            self._read[key] = text
        return self._read[key]

    async def _whole(self, name: str, container: str, *, previous: bool) -> str:
        """The last lines of a log; for a longer log, its beginning and its last lines."""
        log = ""
        for lines in (_LINES, _LINES // 10, _LINES // 100):
            log = await self._kube.log(
                self._pods, name, container=container, lines=lines, size=_MOST, previous=previous
            )
            if len(log.encode()) < _MOST - _CHARACTER:  # otherwise the server has truncated it: request fewer lines
                break
        if log.count("\n") < lines - 1:
            return log
        head = await self._kube.log(self._pods, name, container=container, size=_HEAD, previous=previous)
        return f"{head}\n{log}"
