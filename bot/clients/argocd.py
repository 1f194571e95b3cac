"""Argo CD, through its Application objects: what is synced, and a sync asked for once and followed to its end.

There is no Argo CD API server here and no token for one: a sync is a patch of the Application's `operation`, as Argo
CD's user guide documents for kubectl, and the progress is `status.operationState`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from kubernetes.aio.client import ApiClient
from pydantic import BaseModel

from bot.clients.kube import Collection, Conflict, Kube, KubeObject, Selection, View
from bot.errors import BotError

log = structlog.get_logger(__name__)

_REFRESH = "argocd.argoproj.io/refresh"
_ENDED = ("Succeeded", "Failed", "Error")

Tell = Callable[[str], Awaitable[None]]
"""Hears what Argo CD says about an operation that is under way."""


async def _nobody(_: str) -> None:
    """Nobody listens."""


_WINDOW = "blocked by sync window"
"""What Argo CD's controller (controller/sync.go) writes into an operation that a window forbids; it stays Running."""


class SyncFailed(BotError):
    """Argo CD refused or failed a sync, or did not end it in time; the message is Argo CD's own."""

    remedy = "Read Argo CD's message, mend the manifests or the sync window, and ask again."


class _Blocked(Exception):
    """A sync window forbids the operation that is under way."""


class Application(BaseModel, frozen=True):
    """An Application as Argo CD sees it now.

    `automated` is the absence of the cost gate. `revisions` are the commits (and chart versions) that the cluster was
    last compared with, one a source. `phase`, `message`, `operation_revision` and `operation_revisions` (one a source)
    are of the latest operation.
    """

    name: str
    path: str | None
    automated: bool
    sync: str
    health: str
    revisions: tuple[str, ...]
    phase: str | None
    message: str
    operation_revision: str | None
    operation_revisions: tuple[str, ...]
    destination_namespace: str

    def synced_at(self, revision: str) -> bool:
        """Whether the cluster is as `revision` says: compared with it, or with a later commit that changes nothing."""
        applied = self.operation_revision if self.phase == "Succeeded" else None
        return self.sync == "Synced" and revision in (*self.revisions, applied)


class ArgoCD:
    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._kube = Kube(api)
        self._applications = Collection("/apis/argoproj.io/v1alpha1", "applications", namespace)

    async def get(self, name: str) -> Application | None:
        found = await self._kube.get(self._applications, name)
        return _application(found) if found else None

    async def list(self) -> tuple[Application, ...]:
        return tuple(_application(found) for found in await self._kube.list(Selection(self._applications)))

    async def refresh(self, name: str) -> None:
        """Have Argo CD look at git now instead of within three minutes."""
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
        tell: Tell = _nobody,
    ) -> Application:
        """Bring the Application to `revision`; safe to repeat.

        Done already: returns. Under way: waited for, not asked twice. Another sync in the way: waited out first.
        `tell` hears Argo CD's messages meanwhile. Raises `SyncFailed` with Argo CD's message, also when `timeout`
        seconds were not enough, or a sync window forbids it: then the sync is taken back, as Argo CD would else start it
        when the window opens, long after the approval.
        """
        last: Application | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    found = await self._kube.get(self._applications, name)
                    if found is None:
                        raise self._missing(name)
                    last = _application(found)
                    asked = _under_way(found)
                    if asked is None and last.synced_at(revision):
                        return last
                    if asked is not None and asked != revision:
                        await self._ended(name, {}, tell)
                        continue
                    before: KubeObject = {}
                    if asked is None:
                        before = _state(found)
                        try:
                            await self._ask(found, revision, actor)
                        except Conflict:
                            continue
                    ended = await self._ended(name, before, tell)
                    if ended.operation_revision in (revision, None):
                        return _succeeded(ended, revision)
        except _Blocked as e:
            await self._withdraw(name, revision)
            raise SyncFailed(
                f"A sync window of Argo CD forbids syncing {name} now ({e}), so nothing was synced. Wait until the window"
                f" is over, or allow manual syncs in it (manualSync: true in the AppProject), then ask again."
            ) from e
        except TimeoutError as e:
            last = await self.get(name) or last
            raise SyncFailed(
                f"Argo CD did not finish syncing {name} to {revision[:7]} in {timeout:.0f} s ({_describe(last)}). "
                f"Look at the Application in Argo CD, then try again."
            ) from e

    async def wait_for(
        self,
        name: str,
        *,
        timeout: float,
        until: Callable[[Application], bool],
    ) -> Application:
        """The Application as soon as it exists and `until` holds; `SyncFailed` after `timeout` seconds."""
        last: Application | None = None

        async def look(applications: View) -> Application | None:
            nonlocal last
            last = next(map(_application, applications.values()), None)
            return last if last and until(last) else None

        try:
            async with asyncio.timeout(timeout):
                return await self._kube.follow(self._only(name), look=look)
        except TimeoutError as e:
            raise SyncFailed(
                f"Application {name} is not where it should be after {timeout:.0f} s ({_describe(last)}). "
                f"Look at it in Argo CD, then try again."
            ) from e

    async def wait_synced(
        self,
        name: str,
        *,
        includes: Callable[[str], Awaitable[bool]],
        timeout: float,
        tell: Tell = _nobody,
    ) -> Application:
        """Wait until an Application that syncs by itself is in sync with a commit for which `includes` holds.

        Raises `SyncFailed` as soon as such a sync has failed (Argo CD does not try a commit twice), when a sync window
        holds it back, and after `timeout` seconds.
        """
        last: Application | None = None

        async def any_of(revisions: tuple[str, ...]) -> bool:
            return any([await includes(revision) for revision in revisions])

        async def look(applications: View) -> Application | None:
            nonlocal last
            found = next(iter(applications.values()), None)
            if found is None:
                raise self._missing(name)
            last = _application(found)
            if last.sync == "Synced" and await any_of(last.revisions):
                return last
            if last.phase in ("Failed", "Error") and await any_of(last.operation_revisions):
                raise _failed(last, last.operation_revisions[-1])
            await _report(last, tell)
            return None

        try:
            async with asyncio.timeout(timeout):
                return await self._kube.follow(self._only(name), look=look)
        except TimeoutError as e:
            raise SyncFailed(
                f"Argo CD did not sync {name} by itself in {timeout:.0f} s ({_describe(last)}). "
                f"Look at the Application in Argo CD, then try again."
            ) from e

    async def wait_gone(self, name: str, *, timeout: float) -> None:
        """Returns when there is no such Application any more: with its finalizer, its resources went before it."""

        async def look(applications: View) -> bool | None:
            return None if applications else True

        try:
            async with asyncio.timeout(timeout):
                await self._kube.follow(self._only(name), look=look)
        except TimeoutError as e:
            raise SyncFailed(
                f"Application {name} is still there after {timeout:.0f} s. Does its ApplicationSet prune? "
                f"Delete it in Argo CD, with its resources."
            ) from e

    async def _ask(self, found: KubeObject, revision: str, actor: str) -> None:
        spec = found["spec"]
        sync: dict[str, Any] = {
            "revision": revision,
            # Argo CD's own API server copies these into an operation; the controller does not. Without
            # RespectIgnoreDifferences=true a sync would set a GPU Deployment's replicas back to zero.
            "syncOptions": (spec.get("syncPolicy") or {}).get("syncOptions") or [],
        }
        if sources := spec.get("sources"):
            # Of several sources only those in git are at a commit; a chart stays at its version.
            sync["revisions"] = [s.get("targetRevision", "") if s.get("chart") else revision for s in sources]
        patch = {
            # Two of us asking at once: the second gets a conflict, looks again and finds the first's operation.
            "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
            "operation": {"initiatedBy": {"username": actor}, "sync": sync},
        }
        name = found["metadata"]["name"]
        if await self._kube.patch(self._applications, name, patch) is None:
            raise self._missing(name)

    async def _withdraw(self, name: str, revision: str) -> None:
        """End our own blocked operation, as `argocd app terminate-op` does; somebody else's is left alone."""
        found = await self._kube.get(self._applications, name)
        if found is None or not _is_blocked(found) or _under_way(found) != revision:
            return
        patch = {
            "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
            "status": {"operationState": {"phase": "Terminating"}},
        }
        try:
            await self._kube.patch(self._applications, name, patch)
        except Conflict:
            log.warning("blocked sync not taken back", application=name)

    async def _ended(self, name: str, before: KubeObject, tell: Tell) -> Application:
        """The Application once nothing is under way and its latest operation is no longer the one `before`."""
        seen = False  # two operations in one second may look the same, as Argo CD's times are whole seconds

        async def look(applications: View) -> Application | None:
            nonlocal seen
            found = next(iter(applications.values()), None)
            if found is None:
                raise self._missing(name)
            if _is_blocked(found):
                raise _Blocked(_state(found)["message"])
            seen = seen or _running(found) or _state(found) != before
            application = _application(found)
            if seen and _under_way(found) is None and application.phase in _ENDED:
                return application
            await _report(application, tell)
            return None

        return await self._kube.follow(self._only(name), look=look)

    def _only(self, name: str) -> Selection:
        return Selection(self._applications, fields=f"metadata.name={name}")

    def _missing(self, name: str) -> BotError:
        return BotError(
            f"Argo CD has no Application {name} in namespace {self._applications.namespace}: "
            f"check the name, and that its group is switched on."
        )


def _state(found: KubeObject) -> KubeObject:
    return (found.get("status") or {}).get("operationState") or {}


def _under_way(found: KubeObject) -> str | None:
    """The revision of the operation that was asked for or is running (empty: no particular one), or None."""
    for operation in (found.get("operation"), _state(found).get("operation", {}) if _running(found) else None):
        if operation is not None:
            return str((operation.get("sync") or {}).get("revision") or "")
    return None


def _is_blocked(found: KubeObject) -> bool:
    return _state(found).get("phase") == "Running" and _WINDOW in (_state(found).get("message") or "")


def _running(found: KubeObject) -> bool:
    return _state(found).get("phase") in ("Running", "Terminating")


def _succeeded(application: Application, revision: str) -> Application:
    if application.phase == "Succeeded":
        return application
    raise _failed(application, revision)


def _failed(application: Application, revision: str) -> SyncFailed:
    return SyncFailed(
        f"Argo CD could not sync {application.name} to {revision[:7]}: {application.message or application.phase} "
        f"— mend that (in git, or in Argo CD), then try again."
    )


async def _report(application: Application, tell: Tell) -> None:
    """Pass on what Argo CD says of a running operation; one that waits for a sync window does not end by itself."""
    if application.phase != "Running":
        return
    if _WINDOW in application.message:
        raise SyncFailed(
            f"A sync window holds back the sync of {application.name}: {application.message}. Argo CD starts it when "
            f"the window opens; open it (argocd proj windows), or try again then."
        )
    await tell(application.message)


def _describe(application: Application | None) -> str:
    if application is None:
        return "it does not exist"
    words = [application.sync, application.health, f"last operation {application.phase or 'none'}", application.message]
    return ", ".join(word for word in words if word)


def _application(found: KubeObject) -> Application:
    spec, status, state = found["spec"], found.get("status") or {}, _state(found)
    sync = status.get("sync") or {}
    sources = spec.get("sources") or [spec.get("source") or {}]
    operation, result = (state.get("operation") or {}).get("sync") or {}, state.get("syncResult") or {}
    errors = [c.get("message", "") for c in status.get("conditions") or () if c.get("type", "").endswith("Error")]
    return Application(
        name=found["metadata"]["name"],
        path=next((source["path"] for source in sources if source.get("path")), None),
        automated=_is_automated(spec),
        sync=sync.get("status") or "Unknown",
        health=(status.get("health") or {}).get("status") or "Unknown",
        revisions=_revisions(sync),
        phase=state.get("phase"),
        message=state.get("message") or "; ".join(filter(None, errors)),
        operation_revision=operation.get("revision") or result.get("revision"),
        operation_revisions=_revisions(result) or _revisions(operation),
        destination_namespace=(spec.get("destination") or {}).get("namespace") or "",
    )


def _revisions(of: KubeObject) -> tuple[str, ...]:
    """One revision a source: a list for several sources, else the one."""
    return tuple(of.get("revisions") or filter(None, [of.get("revision")]))


def _is_automated(spec: KubeObject) -> bool:
    """`automated: {}` counts, `automated: null` and `automated: {enabled: false}` do not."""
    automated = (spec.get("syncPolicy") or {}).get("automated")
    return automated is not None and automated.get("enabled") is not False
