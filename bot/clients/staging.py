"""Run the Jobs that put an endpoint's weights on its volume, on a node without a GPU, and report their result."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Literal

from kubernetes.aio.client import ApiClient
from pydantic import BaseModel

from bot.clients import boot
from bot.clients.diagnosis import ends, pods
from bot.clients.diagnosis.cause import Kind
from bot.clients.diagnosis.problems import Patience, Problem, events_of
from bot.clients.kube import Collection, Conflict, Kube, KubeObject, Selection, View
from bot.clients.rights import EVENTS, MODELS, NODES, PODS, STAGING_JOBS
from bot.clients.staging_job import (
    ATTEMPT,
    CLAIM,
    MODEL,
    NAME,
    OPERATION,
    PLACE,
    Weights,
    manifest,
    model_of,
    name_of,
    takes,
    weights_of,
)
from bot.clients.volume import CannotStage, Place, Volumes
from bot.clients.whereabouts import Whereabouts
from bot.clients.workload import engine_of, named, replicas_of
from bot.clock import REAL_TIME
from bot.errors import BotError, Unavailable
from bot.settings.config import Staging

__all__ = ["Attempt", "CannotStage", "Progress", "Stager", "StagingFailed", "Weights"]

_LINES = 200
_POLL_SECONDS = 2.0
"""Seconds between two reads of a Job's log for its progress."""
_USUAL_BOOT = 1200.0
"""The boot limit in seconds for which the grace periods of `diagnosis` are defined."""
_DELETED_WITHIN = 90.0

_RETRY_AFTER = re.compile(r"retry after (\d+) second", re.IGNORECASE)
_INTERRUPTED = re.compile(
    r"\b50[0234] Server Error|ConnectionError|ConnectTimeout|ReadTimeout|IncompleteRead|RemoteProtocolError"
    r"|ChunkedEncodingError|Connection reset|Temporary failure in name resolution|Incomplete: \d+ files"
)


class StagingFailed(BotError):
    """The staging Job ended without the weights, for a permanent reason."""

    remedy = "Follow the message, then request it again: the downloaded files stay on the volume."


class _Moved(Exception):
    """The model on the Job's node went down, so the Job has to run on another node."""


class StagingTaken(BotError):
    """Another operation's Job is filling the volume."""

    remedy = "Wait for it: its own message shows the progress."


class Progress(BaseModel, frozen=True, defer_build=True):
    """The progress of a Job. `bytes` and `of` are None until the container reports them."""

    doing: Literal["starting", "downloading"]
    bytes: int | None = None
    of: int | None = None
    detail: str = ""


class Attempt(BaseModel, frozen=True, defer_build=True):
    """The result of one Job that did not fail permanently.

    `turned away`: Hugging Face answered 429. `interrupted`: the pod or a connection was interrupted. `moved`: the
    model on the Job's node went down, so the next Job runs on another node. `taken`: another operation's Job is filling
    the volume.
    """

    outcome: Literal["staged", "turned away", "interrupted", "moved", "taken"]
    bytes: int = 0
    seconds: float = 0
    """The running time of the container."""
    retry_after: float | None = None
    """Seconds until the retry, if Hugging Face sent them."""
    why: str = ""
    """The reason. The field has the name under which earlier versions stored it."""
    removed: tuple[str, ...] = ()
    """Models that were deleted from the cache to free space."""


class Stager:
    """Runs staging Jobs. Each Job is in the namespace of its model and fills the model's volume."""

    def __init__(self, api: ApiClient, whereabouts: Whereabouts, clock: Callable[[], datetime] = REAL_TIME) -> None:
        self._kube, self._clock, self._whereabouts = Kube(api), clock, whereabouts

    def volumes(self, model: str) -> Volumes:
        """The claims in the namespace of a model."""
        return Volumes(self._kube, self._whereabouts.require(model).namespace)

    async def weights(self, endpoint: str, hf_id: str = "", container: KubeObject | None = None) -> tuple[Weights, int]:
        """The weights that the endpoint's Deployment stages, and its replicas; raises CannotStage if staging is not
        possible.

        `hf_id` and `container` replace those of the Deployment, for a change that is not merged yet.
        """
        place = self._whereabouts.require(endpoint)
        deployment = await self._kube.get(Collection(MODELS, place.namespace), place.name)
        if deployment is None:
            raise CannotStage(f"The cluster has no Deployment {place.name}: is its Application synced?")
        return weights_of(deployment, hf_id, container, endpoint=endpoint), replicas_of(deployment)

    async def obstacles(self, endpoint: str, size: str, shape: Staging) -> tuple[str, ...]:
        """The reasons why the endpoint's weights cannot be staged, or its volume cannot grow to `size`. Each text
        contains the fix.

        Empty for an endpoint that is not deployed.
        """
        place = self._whereabouts.require(endpoint)
        deployment = await self._kube.get(Collection(MODELS, place.namespace), place.name)
        if deployment is None:
            return ()
        try:
            weights = weights_of(deployment, endpoint=endpoint)
            obstacles = await self._node_obstacle(weights, shape, running=replicas_of(deployment) > 0)
        except CannotStage as error:
            return (f"{error.message.rstrip('. ')}. {error.remedy}",)
        try:
            volumes = self.volumes(endpoint)
            if growth := await volumes.growth(weights.claim, size):
                await volumes.refuse_growth(growth)
        except CannotStage as error:
            more = "Otherwise a swap that needs both models on it downloads during its downtime."
            obstacles.append(
                f"{error.message.rstrip('. ')}. Use a storage class that allows it, or a larger volume. {more}"
            )
        return tuple(obstacles)

    async def _node_obstacle(self, weights: Weights, shape: Staging, *, running: bool) -> list[str]:
        """One sentence if no existing node accepts the Job; otherwise an empty list.

        If the model is `running`, only the zones of the volume are considered, not the node that uses it.
        """
        volumes = self.volumes(weights.endpoint)
        place = Place() if running else await volumes.place(weights.claim, weights.deployment, shape)
        place = Place(zones=place.zones or await volumes.zones_of(weights.claim))
        pod = manifest("", 1, weights, place, shape, (), shape.limit)["spec"]["template"]["spec"]
        if any(takes(node, pod) for node in await self._kube.list(Selection(Collection(NODES)))):
            return []
        selector = _selector(pod["nodeSelector"])
        labelled = f" with {selector}" if selector else ""
        zone_suffix = f" in zone {' or '.join(place.zones)}" if place.zones else ""
        return [
            f"No node without a GPU{labelled}{zone_suffix} takes a staging Job. Set `staging.node_selector` and `staging.tolerations` to a pool"
            " of CPU nodes. If an autoscaler adds such a node when it is needed, nothing is wrong."
        ]

    async def delete_jobs_of(self, operation: str) -> None:
        """Delete the operation's Jobs and their pods, and wait until both are gone."""
        for namespace in self._whereabouts.namespaces:
            jobs = Collection(STAGING_JOBS, namespace)
            for job in await self._kube.list(Selection(jobs, labels=_selector(NAME | {OPERATION: operation}))):
                await self._delete(namespace, job["metadata"]["annotations"][CLAIM])

    async def attempt(
        self,
        operation: str,
        number: int,
        weights: Weights,
        shape: Staging,
        *,
        limit: timedelta,
        progress: Callable[[Progress], Awaitable[None]],
    ) -> Attempt:
        """Run one Job until it ends. A Job that was created before a restart is followed instead of created again.

        Raises StagingFailed for a permanent reason, and StagingTaken while another operation fills the volume.
        """
        await self._create_job(operation, number, weights, shape, limit)
        last: KubeObject | None = None
        unplaced: datetime | None = None
        patience = Patience(_USUAL_BOOT, asyncio.get_running_loop().time)

        async def check(jobs: View, pods: View, events: View, deployments: View) -> KubeObject | None:
            nonlocal last, unplaced
            last = boot.newest(pods.values()) or next(iter(pods.values()), last)
            if not jobs:
                raise StagingFailed("The staging Job is gone: somebody deleted it.")
            job = next(iter(jobs.values()))
            if _ended(job):
                return job
            _refuse_if_moved(job, next(iter(deployments.values()), None))
            problem, now = _problem(weights, last, events), self._clock()
            if patience.is_over(problem) and problem:
                raise StagingFailed(f"{problem.reason.rstrip('. ')}. {problem.remedy}", problem.log)
            scheduling = _scheduling_message(last) if last else ""
            unplaced = (unplaced or now) if scheduling else None
            if scheduling and unplaced and now - unplaced > shape.place_within:
                raise StagingFailed(
                    f"No node without a GPU takes the staging Job: {scheduling.rstrip('.')}. Add a CPU node where the volume can"
                    " be mounted, or set `staging.node_selector` and `staging.tolerations`."
                )
            if last is None or not _is_running(last):
                detail = (problem.detail or problem.reason) if problem else scheduling
                await progress(Progress(doing="starting", detail=detail))
            return None

        async def poll() -> None:
            while True:
                await asyncio.sleep(_POLL_SECONDS)
                if last and _is_running(last):
                    try:
                        figures = _byte_counts(await self._log(last, weights, lines=20))
                    except (BotError, Unavailable):
                        continue  # the progress is optional: only the end of the Job matters
                    await progress(Progress(doing="downloading", bytes=figures.get("bytes"), of=figures.get("of")))

        polling = asyncio.create_task(poll())
        try:
            namespace, name = named(weights.deployment)
            only = Selection(Collection(MODELS, namespace), fields=f"metadata.name={name}")
            job = await self._kube.follow(
                _of(weights.claim, namespace),
                _pods_of(weights.claim, namespace),
                Selection(Collection(EVENTS, namespace)),
                only,
                check=check,
                next_check=patience.left,
            )
        except _Moved as moved:
            await self._delete(weights.namespace, weights.claim)
            return Attempt(outcome="moved", why=str(moved))
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
        return await self._outcome(job, weights)

    async def _delete(self, namespace: str, claim: str) -> None:
        """Delete the volume's Job and its pod, and wait until both are gone."""
        await self._kube.delete(Collection(STAGING_JOBS, namespace), name_of(claim))

        async def check(jobs: View, pods: View) -> bool | None:
            return None if jobs or any(not boot.is_over(pod) for pod in pods.values()) else True

        try:
            async with asyncio.timeout(_DELETED_WITHIN):
                await self._kube.follow(_of(claim, namespace), _pods_of(claim, namespace), check=check)
        except TimeoutError as error:
            raise Unavailable("Kubernetes", f"the staging Job {name_of(claim)} is not deleted") from error

    async def delete_all(self, model: str) -> None:
        """Delete every staging Job of a model, without waiting for its pod."""
        for namespace in self._whereabouts.namespaces:
            jobs = Collection(STAGING_JOBS, namespace)
            for job in await self._kube.list(Selection(jobs, labels=_selector(NAME | {MODEL: model}))):
                await self._kube.delete(jobs, job["metadata"]["name"])

    async def _create_job(
        self, operation: str, number: int, weights: Weights, shape: Staging, limit: timedelta
    ) -> None:
        """Create this operation's Job for the volume, if it does not exist."""
        mine = {OPERATION: operation, ATTEMPT: str(number)}
        job = next(iter(await self._kube.list(_of(weights.claim, weights.namespace))), None)
        if job and mine.items() <= _labels(job).items():
            return
        if job and not _ended(job) and _labels(job).get(OPERATION) != operation:
            raise StagingTaken(f"The volume {weights.claim} is already being filled for {_labels(job).get(MODEL)}.")
        if job:
            await self._delete(weights.namespace, weights.claim)
        place = await self.volumes(weights.endpoint).place(weights.claim, weights.deployment, shape)
        keep = await self._models_to_keep(weights)
        try:
            jobs = Collection(STAGING_JOBS, weights.namespace)
            await self._kube.create(jobs, manifest(operation, number, weights, place, shape, keep, limit))
        except Conflict as error:
            raise Unavailable(
                "Kubernetes", f"another staging Job was made for {weights.claim} at the same time"
            ) from error

    async def _models_to_keep(self, weights: Weights) -> tuple[str, ...]:
        """The models that must stay on the volume. Empty if other Deployments share it: then nothing is deleted."""
        sharing = await self.volumes(weights.endpoint).shared_with(weights.claim)
        if {named(workload) for workload in sharing} - {named(weights.deployment)}:
            return ()
        served = model_of(engine_of(weights.template))
        return tuple(dict.fromkeys(hf_id for hf_id in (served, weights.hf_id) if hf_id))

    async def _outcome(self, job: KubeObject, weights: Weights) -> Attempt:
        """The result of a Job, from its condition, its pod and its log."""
        condition = _ended(job) or {}
        # Read the pods now, because the watch of the Jobs may be ahead of the watch of the pods.
        pod = next(iter(await self._kube.list(_pods_of(weights.claim, weights.namespace))), None)
        if pod is None:
            return Attempt(outcome="interrupted", why="its pod is gone")
        log = await self._log(pod, weights, lines=_LINES)
        figures, ended = _byte_counts(log), _terminated(pod)
        seconds = _seconds(ended)
        if condition["type"] == "Complete":
            return Attempt(outcome="staged", bytes=figures.get("bytes") or 0, seconds=seconds, removed=_removed(log))
        if condition.get("reason") == "DeadlineExceeded":
            raise StagingFailed("The staging Job did not end within `staging.limit`.", _tail(log))
        if lost := ends.ended(pod):
            return Attempt(outcome="interrupted", why=lost.reason, seconds=seconds)
        crashed = ends.crash(pod)
        problem = ends.explain(crashed, log, final=True) if crashed else None
        if problem is None:
            return Attempt(outcome="interrupted", why="its pod has ended without a reason", seconds=seconds)
        if problem.kind is Kind.RATE_LIMIT:
            return Attempt(outcome="turned away", retry_after=_retry_after(log), seconds=seconds)
        if _INTERRUPTED.search(log) and problem.kind in (Kind.NETWORK, Kind.UNKNOWN):
            return Attempt(
                outcome="interrupted", why=f"{problem.reason.rstrip('. ')}. {problem.remedy}", seconds=seconds
            )
        raise StagingFailed(f"{problem.reason.rstrip('. ')}. {problem.remedy}", problem.log)

    async def _log(self, pod: KubeObject, weights: Weights, *, lines: int) -> str:
        name, container = pod["metadata"]["name"], weights.container["name"]
        pods = Collection(PODS, weights.namespace)
        return await self._kube.log(pods, name, container=container, lines=lines, previous=False)


def _of(claim: str, namespace: str) -> Selection:
    return Selection(Collection(STAGING_JOBS, namespace), fields=f"metadata.name={name_of(claim)}")


def _pods_of(claim: str, namespace: str) -> Selection:
    return Selection(Collection(PODS, namespace), labels=f"batch.kubernetes.io/job-name={name_of(claim)}")


def _refuse_if_moved(job: KubeObject, deployment: KubeObject | None) -> None:
    """Raise _Moved if the model on the Job's node went down, and StagingFailed if the model's pod is starting."""
    place, replicas = job["metadata"]["annotations"][PLACE], replicas_of(deployment) if deployment else 0
    if place == "beside" and not replicas:
        raise _Moved("the model went down, and its node must not be kept for the download")
    if place == "alone" and replicas:
        raise StagingFailed(
            "The endpoint was brought up during the staging, so the staging was stopped: the endpoint's own pod needs"
            " the volume, and downloads the rest."
        )


def _ended(job: KubeObject) -> KubeObject | None:
    """The final condition of a Job."""
    conditions: list[KubeObject] = (job.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["status"] == "True" and c["type"] in ("Complete", "Failed")), None)


def _labels(job: KubeObject) -> dict[str, str]:
    return job["metadata"].get("labels") or {}


def _statuses(pod: KubeObject) -> list[KubeObject]:
    return (pod.get("status") or {}).get("containerStatuses") or []


def _is_running(pod: KubeObject) -> bool:
    return any("running" in (status.get("state") or {}) for status in _statuses(pod))


def _terminated(pod: KubeObject) -> KubeObject:
    ended = ((status.get("state") or {}).get("terminated") for status in _statuses(pod))
    return next((termination for termination in ended if termination), {})


def _seconds(ended: KubeObject) -> float:
    if not (ended.get("startedAt") and ended.get("finishedAt")):
        return 0
    return (datetime.fromisoformat(ended["finishedAt"]) - datetime.fromisoformat(ended["startedAt"])).total_seconds()


def _scheduling_message(pod: KubeObject) -> str:
    """The scheduler's reason why no node accepts the pod; empty if it is scheduled."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason") or "no node takes its pod")
    return ""


def _problem(weights: Weights, pod: KubeObject | None, events: View) -> Problem | None:
    """The reason why the Job is not running; None if the wait is normal."""
    if pod is None:
        return pods.creation_refused(events_of(name_of(weights.claim), "Job", events.values()))
    return pods.not_started(pod, events_of(pod["metadata"]["name"], "Pod", events.values()))


def _reports(log: str) -> list[dict[str, object]]:
    """The progress reports in a log: the lines that `download.py` printed. The other lines are the script's output."""
    reports = []
    for line in log.splitlines():
        if line.startswith("stoker {"):
            try:
                reports.append(json.loads(line.removeprefix("stoker ")))
            except ValueError:
                continue
    return reports


def _byte_counts(log: str) -> dict[str, int]:
    for report in reversed(_reports(log)):
        if isinstance(report.get("bytes"), int) and isinstance(report.get("of"), int):
            return {"bytes": int(str(report["bytes"])), "of": int(str(report["of"]))}
    return {}


def _removed(log: str) -> tuple[str, ...]:
    return tuple(str(report["removed"]) for report in _reports(log) if "removed" in report)


def _retry_after(log: str) -> float | None:
    """Seconds from the Retry-After header, otherwise from huggingface_hub's message "Retry after 55 seconds"."""
    for report in _reports(log):
        if str(report.get("retry_after", "")).isdecimal():
            return float(str(report["retry_after"]))
    match = _RETRY_AFTER.search(log)
    return float(match[1]) if match else None


def _tail(log: str) -> str:
    return "\n".join([line for line in log.strip().splitlines() if not line.startswith("stoker {")][-20:])


def _selector(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())
