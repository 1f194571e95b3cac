"""Argo CD, through its Application objects: reads their state, and requests and follows syncs.

It does not use Argo CD's API server and needs no token for it: a sync is a patch of the Application's `operation`, as
Argo CD's user guide documents for kubectl, and the progress is `status.operationState`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import Any

import structlog
from kubernetes.aio.client import ApiClient

from bot.clients.application import (
    Application,
    application_of,
    describe,
    initiator_of,
    is_blocked,
    is_requested_by,
    is_running,
    is_terminating,
    operation_of,
    revisions_at,
    state_of,
    under_way,
)
from bot.clients.deployer import ObjectName, OnMessage, SyncFailed, ignore_message
from bot.clients.kube import Collection, Conflict, Forbidden, Kube, KubeObject, Selection, View
from bot.clients.rights import APPLICATIONS
from bot.clients.workload import Workload
from bot.errors import BotError

log = structlog.get_logger(__name__)

_REFRESH = "argocd.argoproj.io/refresh"
_ENDED = ("Succeeded", "Failed", "Error")

_SETTLE_SECONDS = 5.0
"""Seconds after a successful sync for which Argo CD may still show an older comparison with git."""

_STALL_SECONDS = 20.0
"""Maximum seconds from a comparison that finds a difference until an automated sync begins."""

_PERSIST_SECONDS = 20.0
"""Seconds that a comparison error must persist after a refresh. Argo CD itself waits three minutes before it reports an
error of its repo server (`ARGOCD_REPO_ERROR_GRACE_PERIOD_SECONDS`), so an error in the status is not temporary.
"""

_TERMINATE_SECONDS = 15.0
"""Maximum seconds that Argo CD needs to end an operation that is being terminated."""


class _Doubt(Enum):
    """Possible problems of an automated Application; each must persist for a while before it is reported."""

    NONE = "none"
    DRIFTS = "drifts"
    """Out of sync although its sync succeeded: a webhook or an autoscaler changes the applied objects."""
    STALLS = "stalls"
    """Out of sync, and no sync begins. If a sync window is the reason, Argo CD's controller only logs it
    (controller/appcontroller.go, "Sync prevented by sync window").
    """
    UNCOMPARED = "uncompared"
    """Argo CD cannot compare the Application with git."""

    @property
    def seconds(self) -> float | None:
        """Seconds for which the problem must persist before it is reported."""
        return {_Doubt.DRIFTS: _SETTLE_SECONDS, _Doubt.STALLS: _STALL_SECONDS, _Doubt.UNCOMPARED: _PERSIST_SECONDS}.get(
            self
        )


class _Blocked(Exception):
    """A sync window forbids the running operation."""


class ArgoCD:
    """The Applications in one namespace. `repository` is the platform repo as `owner/name`."""

    word = "Argo CD"

    def __init__(self, api: ApiClient, namespace: str, repository: str) -> None:
        self._kube = Kube(api)
        self._applications = Collection(APPLICATIONS, namespace)
        self._repository = repository

    async def get(self, name: str) -> Application | None:
        """The Application of this name; None if it does not exist, or if the name is empty."""
        application = await self._kube.get(self._applications, name) if name else None
        return application_of(application) if application else None

    async def list(self) -> tuple[Application, ...]:
        return tuple(
            application_of(application) for application in await self._kube.list(Selection(self._applications))
        )

    async def of(self, workload: Workload) -> Application | None:
        """The Application that deploys a Deployment, from its label or annotation; None if there is none."""
        return await self.get(workload.deployed_by)

    async def refresh(self, name: str) -> None:
        """Make Argo CD poll git now instead of within three minutes."""
        if (
            await self._kube.patch(self._applications, name, {"metadata": {"annotations": {_REFRESH: "normal"}}})
            is None
        ):
            raise self._missing(name)

    async def sync(
        self,
        name: str,
        revision: str,
        *,
        actor: str,
        timeout: float,
        on_message: OnMessage = ignore_message,
        only: tuple[ObjectName, ...] = (),
    ) -> Application:
        """Sync the Application to `revision`. If `only` contains objects, sync only those objects. Idempotent.

        Argo CD does not record a partial sync in its history, and the Application may stay out of sync.

        Returns immediately if the Application is already synced. Waits for a running sync to `revision`; waits for any
        other sync to end before it requests its own. `on_message` receives Argo CD's messages. The returned Application
        may still differ from git although its sync succeeded: see `Application.drift`.

        Raises `SyncFailed` with Argo CD's message if the sync fails, takes longer than `timeout` seconds, or is
        forbidden by a sync window. In the last two cases, the sync is terminated, because Argo CD would otherwise start
        it long after the approval.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    application = await self._kube.get(self._applications, name)
                    if application is None:
                        raise self._missing(name)
                    last = application_of(application)
                    running_revision = under_way(application)
                    if running_revision is None and last.synced_at(revision):
                        return last
                    if running_revision is not None and (running_revision != revision or is_terminating(application)):
                        await self._wait_ended(name, {}, on_message)
                        continue
                    before: KubeObject = {}
                    if running_revision is None:
                        before = state_of(application)
                        try:
                            await self._request_sync(application, revision, actor, only)
                        except Conflict:
                            continue
                    ended = await self._wait_ended(name, before, on_message)
                    if only and ended.operation_revision == revision:
                        return _succeeded(ended, revision).model_copy(update={"sync": "Synced", "out_of_sync": ()})
                    if ended.operation_revision in (revision, None):
                        return await self._wait_compared(_succeeded(ended, revision))
        except _Blocked as e:
            await self.terminate(name, revision, actor)
            raise SyncFailed(
                f"A sync window of Argo CD forbids syncing {name} now ({e}), so nothing was synced. Wait until the window"
                f" is over, or allow manual syncs in it (manualSync: true in the AppProject), then request it again."
            ) from e
        except TimeoutError as e:
            state = await self.get(name)
            terminated = await self.terminate(name, revision, actor)
            raise SyncFailed(
                f"Argo CD did not finish syncing {name} to {revision[:7]} in {timeout:.0f} s ({describe(state)}). "
                + ("Stoker terminated the sync. " if terminated else await self._how_to_terminate(name))
                + "Check the Application in Argo CD, then try again."
            ) from e

    async def terminate(self, name: str, revision: str, actor: str) -> bool:
        """Terminate the sync to `revision` that `actor` requested, like `argocd app terminate-op`. Other syncs continue.

        Returns true if there was such a sync and it has ended. Idempotent.
        """
        application = await self._kube.get(self._applications, name)
        if application is None or not is_requested_by(application, actor, revision):
            return False
        version = {"metadata": {"resourceVersion": application["metadata"]["resourceVersion"]}}
        not_begun = "operation" in application
        end = {"operation": None} if not_begun else {"status": {"operationState": {"phase": "Terminating"}}}
        try:
            await self._kube.patch(self._applications, name, version | end)
            async with asyncio.timeout(_TERMINATE_SECONDS):
                return not_begun or await self._kube.follow(self._only(name), check=_nothing_under_way)
        except (Conflict, Forbidden, TimeoutError) as error:
            log.warning("sync not terminated", application=name, error=str(error))
            return False

    async def _wait_compared(self, application: Application) -> Application:
        """Return the Application after Argo CD has compared it again, or after a short wait."""

        async def is_synced(applications: View) -> Application | None:
            current = next(map(application_of, applications.values()), None)
            return current if current and current.sync == "Synced" else None

        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                return await self._kube.follow(self._only(application.name), check=is_synced)
        return await self.get(application.name) or application

    async def _how_to_terminate(self, name: str) -> str:
        application = await self._kube.get(self._applications, name)
        if application is None or under_way(application) is None:
            return ""
        initiator = initiator_of(operation_of(application))
        return f"A sync{f' by {initiator}' if initiator else ''} is still running; `argocd app terminate-op {name}` ends it. "

    async def wait_for(
        self,
        name: str,
        *,
        timeout: float,
        until: Callable[[Application], bool],
    ) -> Application:
        """Wait until the Application exists and `until` is true; raises `SyncFailed` after `timeout` seconds."""
        last: Application | None = None

        async def check(applications: View) -> Application | None:
            nonlocal last
            last = next(map(application_of, applications.values()), None)
            return last if last and until(last) else None

        try:
            async with asyncio.timeout(timeout):
                return await self._kube.follow(self._only(name), check=check)
        except TimeoutError as e:
            raise SyncFailed(
                f"Application {name} did not reach the expected state within {timeout:.0f} s ({describe(last)}). "
                f"Check it in Argo CD, then try again."
            ) from e

    async def wait_synced(
        self,
        name: str,
        commit: str,
        *,
        includes: Callable[[str], Awaitable[bool]],
        actor: str,
        timeout: float,
        on_message: OnMessage = ignore_message,
    ) -> Application:
        """Wait until an automated Application has been synced to a commit for which `includes` is true.

        An Application that stays out of sync although its sync succeeded and everything is healthy counts as synced:
        see `Application.drift`. If no sync begins, `actor` requests a sync to `commit`, so that Argo CD reports the
        reason. Raises `SyncFailed` if such a sync has failed (Argo CD does not retry a commit), if a sync window blocks
        it, if Argo CD cannot compare the Application with git, and after `timeout` seconds.
        """
        last: Application | None = None

        async def judge(applications: View) -> Application | _Doubt:
            nonlocal last
            application = next(iter(applications.values()), None)
            if application is None:
                raise self._missing(name)
            last = application_of(application)
            return await _verdict_on(
                last, syncing=under_way(application) is not None, includes=includes, on_message=on_message
            )

        deadline = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                verdict = await self._lasting_verdict(name, judge, longest=timeout / 4)
        except TimeoutError as e:
            raise SyncFailed(
                f"Argo CD did not sync {name} automatically within {timeout:.0f} s ({describe(last)}). "
                f"{await self._how_to_terminate(name)}Check the Application in Argo CD, then try again."
            ) from e
        if isinstance(verdict, Application):
            return verdict
        if verdict is _Doubt.DRIFTS and last:
            return last
        if verdict is _Doubt.UNCOMPARED and last:
            raise SyncFailed(
                f"Argo CD cannot compare {name} with git: {last.errors[0]} — fix this (in git, or in Argo CD), then try"
                f" again."
            )
        left = max(1.0, deadline - asyncio.get_running_loop().time())
        return await self.sync(name, commit, actor=actor, timeout=left, on_message=on_message)

    async def _lasting_verdict(
        self, name: str, judge: Callable[[View], Awaitable[Application | _Doubt]], *, longest: float
    ) -> Application | _Doubt:
        """Judge the Application at each change, until it is synced or a doubt about it has persisted.

        A doubt must persist for its `seconds`, but at most for `longest` seconds.
        """

        async def next_verdict(doubt: _Doubt) -> Application | _Doubt:
            """The next verdict other than `doubt`; raises TimeoutError if the doubt has persisted."""

            async def changed_verdict(applications: View) -> Application | _Doubt | None:
                verdict = await judge(applications)
                return None if verdict is doubt else verdict

            async with asyncio.timeout(doubt.seconds and min(doubt.seconds, longest)):
                return await self._kube.follow(self._only(name), check=changed_verdict)

        doubt, drifting_since = _Doubt.NONE, 0.0
        while True:
            try:
                verdict = await next_verdict(doubt)
            except TimeoutError:
                return doubt
            if isinstance(verdict, Application):
                return verdict
            if verdict is _Doubt.UNCOMPARED:
                await self.refresh(name)
            doubt = verdict
            now = asyncio.get_running_loop().time()
            if doubt is _Doubt.DRIFTS:
                drifting_since = drifting_since or now
                if now - drifting_since > _SETTLE_SECONDS:  # self-healing: the same commit is synced repeatedly
                    return doubt

    async def wait_gone(self, name: str, *, timeout: float) -> None:
        """Wait until the Application no longer exists. If it has the finalizer, Argo CD deletes its resources first."""

        async def is_gone(applications: View) -> bool | None:
            return None if applications else True

        try:
            async with asyncio.timeout(timeout):
                await self._kube.follow(self._only(name), check=is_gone)
        except TimeoutError as e:
            raise SyncFailed(
                f"Application {name} is still there after {timeout:.0f} s. Does its ApplicationSet prune? "
                f"Delete it in Argo CD, with its resources."
            ) from e

    async def _request_sync(
        self, application: KubeObject, revision: str, actor: str, only: tuple[ObjectName, ...]
    ) -> None:
        spec = application["spec"]
        sync: dict[str, Any] = {
            "revision": revision,
            # Argo CD's API server copies the options into an operation; the controller does not. Without the option
            # RespectIgnoreDifferences=true, a sync would reset the replicas of a GPU Deployment to zero.
            "syncOptions": (spec.get("syncPolicy") or {}).get("syncOptions") or [],
        }
        if only:
            sync["resources"] = [entry._asdict() for entry in only]
        if sources := spec.get("sources"):
            revisions = revisions_at(sources, self._repository, revision)
            if revisions is None:
                raise SyncFailed(
                    f"None of the git sources of Application {application['metadata']['name']} is the platform repo"
                    f" {self._repository} ({', '.join(str(entry.get('repoURL')) for entry in sources)}), so nothing was"
                    f" synced. Set GITHUB_REPOSITORY to the repository that holds the endpoints."
                )
            sync["revisions"] = revisions
        patch = {
            # If the bot sends two requests at the same time, the second gets a conflict, reads again and finds the
            # first operation.
            "metadata": {"resourceVersion": application["metadata"]["resourceVersion"]},
            "operation": {"initiatedBy": {"username": actor}, "sync": sync},
        }
        name = application["metadata"]["name"]
        if await self._kube.patch(self._applications, name, patch) is None:
            raise self._missing(name)

    async def _wait_ended(self, name: str, before: KubeObject, on_message: OnMessage) -> Application:
        """Wait until no operation is running and the latest operation is not `before`."""
        # Two operations within one second may look the same, because Argo CD's times are whole seconds.
        has_begun = False

        async def ended(applications: View) -> Application | None:
            nonlocal has_begun
            resource = next(iter(applications.values()), None)
            if resource is None:
                raise self._missing(name)
            if is_blocked(resource):
                raise _Blocked(state_of(resource)["message"])
            has_begun = has_begun or is_running(resource) or state_of(resource) != before
            application = application_of(resource)
            if has_begun and under_way(resource) is None and application.phase in _ENDED:
                return application
            await _report(application, on_message)
            return None

        return await self._kube.follow(self._only(name), check=ended)

    def _only(self, name: str) -> Selection:
        return Selection(self._applications, fields=f"metadata.name={name}")

    def _missing(self, name: str) -> BotError:
        return BotError(
            f"Argo CD has no Application {name} in namespace {self._applications.namespace}: "
            f"check the name, and that its group is enabled."
        )


async def _nothing_under_way(applications: View) -> bool | None:
    return True if not any(under_way(application) is not None for application in applications.values()) else None


async def _verdict_on(
    application: Application, *, syncing: bool, includes: Callable[[str], Awaitable[bool]], on_message: OnMessage
) -> Application | _Doubt:
    """Return the Application if it was synced to an expected commit, otherwise the doubt about it. `syncing` is true
    while an operation is running.

    Raises `SyncFailed` if a sync to an expected commit has failed.
    """

    async def any_of(revisions: tuple[str, ...]) -> bool:
        return any([await includes(revision) for revision in revisions])

    compared, applied = await any_of(application.revisions), await any_of(application.operation_revisions)
    if application.sync == "Synced" and compared:
        return application
    if application.phase in ("Failed", "Error") and applied:
        raise _failed(application, application.operation_revisions[-1])
    await _report(application, on_message)
    if syncing:
        return _Doubt.NONE
    if application.sync == "Unknown" and application.errors:
        return _Doubt.UNCOMPARED
    if application.sync == "OutOfSync" and application.phase == "Succeeded" and applied:
        return _Doubt.DRIFTS if application.health == "Healthy" else _Doubt.NONE
    return _Doubt.STALLS if application.sync == "OutOfSync" and compared else _Doubt.NONE


def _succeeded(application: Application, revision: str) -> Application:
    if application.phase == "Succeeded":
        return application
    raise _failed(application, revision)


def _failed(application: Application, revision: str) -> SyncFailed:
    return SyncFailed(
        f"Argo CD could not sync {application.name} to {revision[:7]}: {application.message or application.phase} "
        f"— fix this (in git, or in Argo CD), then try again."
    )


async def _report(application: Application, on_message: OnMessage) -> None:
    """Pass Argo CD's message about a running operation to `on_message`.

    Raises `SyncFailed` if a sync window blocks the operation, because the operation would not end.
    """
    if application.phase != "Running":
        return
    if application.blocked:
        raise SyncFailed(
            f"A sync window blocks the running sync of {application.name}: {application.message}. Argo CD continues that "
            "sync when the window opens. Open the window (argocd proj windows), or wait until it opens, then try again."
        )
    await on_message(application.message)
