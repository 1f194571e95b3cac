"""Diagnose a pod from the cluster: its status and events, and if necessary its logs and related pods.

For any pod: a model's, or a Job's (`final`, because it is not restarted).
"""

from collections.abc import Iterable

from bot.clients.diagnosis import ends, pods
from bot.clients.diagnosis.ends import Crash
from bot.clients.diagnosis.log import find
from bot.clients.diagnosis.problems import KubeObject, Problem, about, container_statuses, is_scheduled
from bot.clients.kube import Collection, Kube, Selection
from bot.errors import BotError, Unavailable

_LINES = 1500
"""Lines from the end of a log. The server's traceback after the engine's has 60 to 200 lines; the engine's own, for
each of its processes, about 50.
"""
_MOST, _CHARACTER = 2**20, 4
"""Bytes that are read from the end of a log (lines may have any length), and bytes of the longest character."""
_HEAD = 64 * 1024
"""Bytes that are read from the beginning of a longer log."""


class PodReader:
    """Diagnoses the pods of one namespace. Each crash is read only once."""

    def __init__(self, kube: Kube, in_namespace: Collection) -> None:
        self._kube, self._pods = kube, in_namespace
        self._read: dict[tuple[str, Crash], str] = {}

    async def problem(self, pod: KubeObject, events: Iterable[KubeObject], *, final: bool = False) -> Problem | None:
        """The reason why the pod is not ready; None for the normal wait."""
        everything = tuple(events)
        own = about(pod["metadata"]["name"], "Pod", everything)
        if not is_scheduled(pod) and not container_statuses(pod):
            return pods.without_node(pod, own, everything)
        if crashed := ends.crash(pod):
            log = "" if crashed.not_started else await self._log_of(pod, crashed)
            if found := ends.explain(crashed, log, own, final=final):
                return found
        problem = pods.not_started(pod, own)
        if problem and problem.claim:
            return pods.held_by(problem, pod, await self._kube.list(Selection(self._pods)))
        return problem

    async def last_end(self, pod: KubeObject, events: Iterable[KubeObject]) -> Problem | None:
        """The reason why a container of a pod that was ready ended, even if it runs again; None if no container ended."""
        if (crashed := ends.last(pod)) is None:
            return None
        log = "" if crashed.not_started else await self._log_of(pod, crashed)
        return ends.explain(crashed, log, about(pod["metadata"]["name"], "Pod", tuple(events)), final=True)

    async def tail(self, pod: KubeObject, container: str, lines: int = 40) -> str:
        """The last lines of a container's log, if it has one."""
        try:
            return await self._kube.log(
                self._pods, pod["metadata"]["name"], container=container, lines=lines, previous=False
            )
        except (BotError, Unavailable):
            return ""  # a missing log must not prevent the diagnosis

    async def _log_of(self, pod: KubeObject, crashed: Crash) -> str:
        name, key = pod["metadata"]["name"], (pod["metadata"]["name"], crashed)
        if key not in self._read:
            self._read.clear()  # only one pod is diagnosed at a time: results for another pod are no longer needed
            text = await self._whole(name, crashed.container, previous=crashed.restarted)
            # The container has restarted in the meantime, or its previous run logged more.
            if not find(text) and not crashed.restarted:
                text = await self._whole(name, crashed.container, previous=True) or text
            self._read[key] = text
        return self._read[key]

    async def _whole(self, name: str, container: str, *, previous: bool) -> str:
        """The end of a log, and its beginning if the end is not the whole log."""
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
