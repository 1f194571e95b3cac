"""Flux, through its Kustomizations and HelmReleases: reads the applied state, and requests and follows reconciliations.

Sources: fluxcd.io/flux/components/kustomize/kustomizations (`status.lastAppliedRevision`, `spec.suspend`, conditions
and their reasons), …/helm/helmreleases (`spec.driftDetection`), …/source/gitrepositories (`status.artifact.revision`),
and `flux reconcile kustomization --with-source`, which does the same as this module: it sets the annotation
`reconcile.fluxcd.io/requestedAt` on the source, then on the Kustomization. A revision is written `main@sha1:COMMIT`
(RFC-0005); releases before 0.41 wrote `main/COMMIT`.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from kubernetes.aio.client import ApiClient

from bot.clients.application import Application
from bot.clients.deployer import ObjectName, OnMessage, SyncFailed, ignore_message
from bot.clients.kube import Collection, Kube, KubeObject, Selection, View
from bot.clients.rights import GIT_REPOSITORIES, HELM_RELEASES, KUSTOMIZATIONS, KUSTOMIZATIONS_BESIDE
from bot.clients.workload import Workload
from bot.errors import BotError
from manifests.deployed import source_text

REQUESTED = "reconcile.fluxcd.io/requestedAt"
_KUSTOMIZE = "kustomize.toolkit.fluxcd.io"
_COMMIT = re.compile(r"(?:^|[@/:])([0-9a-f]{40})$")
_WAITS = ("Progressing", "ProgressingWithRetry", "DependencyNotReady", "Unknown")
"""Reasons of a Ready condition that may resolve without action."""
_PERSISTS = 20.0
"""Seconds that an error must persist after a refresh: it may belong to an earlier commit."""

Includes = Callable[[str, str], Awaitable[bool]]
"""True if the first commit is the second, or has it in its history."""


class Flux:
    """The Kustomizations in Flux's namespace and in those of the models, and the HelmReleases in the latter."""

    word = "Flux"

    def __init__(self, api: ApiClient, namespace: str, serving: tuple[str, ...], includes: Includes) -> None:
        self._kube = Kube(api)
        beside = (Collection(KUSTOMIZATIONS_BESIDE, each) for each in serving if each != namespace)
        self._kustomizations = (Collection(KUSTOMIZATIONS, namespace), *beside)
        self._sources = Collection(GIT_REPOSITORIES, namespace)
        self._releases = tuple(Collection(HELM_RELEASES, each) for each in serving)
        self._includes = includes

    async def get(self, name: str) -> Application | None:
        _, found = await self._find(name)
        return application_of(found).model_copy(update={"name": name}) if found else None

    async def list(self) -> tuple[Application, ...]:
        listed = [found for each in self._kustomizations for found in await self._kube.list(Selection(each))]
        names = Counter(found["metadata"]["name"] for found in listed)
        return tuple(_named(found, among=names[found["metadata"]["name"]]) for found in listed)

    async def _find(self, name: str) -> tuple[Collection, KubeObject | None]:
        """Return the collection and the Kustomization of this name; None, with the default collection, if it does not
        exist.

        `NAMESPACE/NAME` is the one in that namespace. Raises BotError if several namespaces have one of this name.
        """
        namespace, _, bare = name.rpartition("/")
        found = [each for each in await self._every(bare) if namespace in ("", each[0].namespace)]
        if len(found) > 1:
            places = " and ".join(str(each.namespace) for each, _ in found)
            raise BotError(
                f"Flux has a Kustomization {bare} in each of the namespaces {places}: name one as NAMESPACE/{bare}."
            )
        home = next((each for each in self._kustomizations if each.namespace == namespace), self._kustomizations[0])
        return found[0] if found else (home, None)

    async def _every(self, name: str) -> Sequence[tuple[Collection, KubeObject]]:
        """Return the Kustomizations of this name, in any namespace."""
        found = [(each, await self._kube.get(each, name)) for each in self._kustomizations if name]
        return [(where, each) for where, each in found if each is not None]

    async def _marked(self, name: str) -> Application | None:
        """Return the Kustomization that a label names, with the shortest name that is unique."""
        namespace, _, bare = name.rpartition("/")
        every = await self._every(bare)
        own = next((found for where, found in every if namespace in ("", where.namespace)), None)
        return _named(own, among=len(every)) if own is not None else None

    async def of(self, workload: Workload) -> Application | None:
        """The Kustomization of a Deployment, or of the HelmRelease that installs it.

        helm-controller changes replicas back only if the HelmRelease has drift detection for them.
        """
        release = await self._release(*workload.release)
        if release is None:
            return await self._marked(workload.deployed_by)
        labels = release["metadata"].get("labels") or {}
        parts = (labels.get(f"{_KUSTOMIZE}/namespace"), labels.get(f"{_KUSTOMIZE}/name"))
        found = await self._marked("/".join(filter(None, parts)) if parts[1] else "")
        return found.model_copy(update={"reverts_replicas": _corrects_replicas(release)}) if found else None

    async def _release(self, namespace: str, name: str) -> KubeObject | None:
        where = next((each for each in self._releases if name and each.namespace == namespace), None)
        listed = await self._kube.list(Selection(where, fields=f"metadata.name={name}")) if where else ()
        return next(iter(listed), None)

    async def refresh(self, name: str) -> None:
        """Make Flux fetch its source and then apply it, like `flux reconcile kustomization --with-source`."""
        where, found = await self._find(name)
        if found is None:
            raise self._missing(name)
        asked = {"metadata": {"annotations": {REQUESTED: datetime.now(UTC).isoformat()}}}
        source = found["spec"].get("sourceRef") or {}
        of = source.get("namespace") or where.namespace
        if source.get("kind") == "GitRepository" and of == self._sources.namespace:
            await self._kube.patch(self._sources, str(source.get("name")), asked)
        await self._kube.patch(where, name.rpartition("/")[2], asked)

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
        """Flux only applies the newest commit of its branch: wait until that has `revision` in its history."""

        async def includes(applied: str) -> bool:
            return await self._includes(applied, revision)

        await self.refresh(name)
        return await self.wait_synced(
            name, revision, includes=includes, actor=actor, timeout=timeout, on_message=on_message
        )

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
        """Wait until Flux has applied a commit for which `includes` is true, and the HelmReleases in it are upgraded.

        Raises `SyncFailed` with Flux's message if the Kustomization is suspended, or if its error persists after a
        refresh.
        """
        last: Application | None = None
        error, since = "", 0.0

        async def check(kustomizations: View, *releases: View) -> Application | None:
            nonlocal last, error, since
            found = next(iter(kustomizations.values()), None)
            if found is None:
                raise self._missing(name)
            last = application_of(found)
            if found["spec"].get("suspend"):
                raise SyncFailed(
                    f"Kustomization {name} is suspended, so Flux does not apply it. Resume it (`flux resume kustomization"
                    f" {name}`), then request it again."
                )
            await on_message(last.message)
            at_commit = any([await includes(revision) for revision in last.revisions])
            behind = [
                each for view in releases for each in view.values() if _is_part_of(each, found) and not _is_done(each)
            ]
            if at_commit and last.sync == "Synced" and not behind:
                return last
            now = asyncio.get_running_loop().time()
            said = next((each for each in map(_error_of, (found, *behind)) if each), "")
            if said != error:
                error, since = said, now
            if error and now - since >= min(_PERSISTS, timeout / 4):
                raise SyncFailed(f"Flux could not apply {name}: {error} — fix this in git, then try again.")
            return None

        try:
            async with asyncio.timeout(timeout):
                releases = (Selection(each) for each in self._releases)
                return await self._kube.follow(
                    await self._only(name), *releases, check=check, next_check=lambda: min(1.0, timeout / 8)
                )
        except TimeoutError as e:
            state = describe(last) if last else "it does not exist"
            raise SyncFailed(
                f"Flux did not bring {name} to {commit[:7]} in {timeout:.0f} s ({state}). Check it (`flux get kustomizations`),"
                " then try again."
            ) from e

    async def terminate(self, name: str, revision: str, actor: str) -> bool:
        """Flux has no operation that could be terminated: it applies the content of the branch."""
        return False

    async def wait_for(self, name: str, *, timeout: float, until: Callable[[Application], bool]) -> Application:
        async def check(found: View) -> Application | None:
            last = next(map(application_of, found.values()), None)
            return last if last and until(last) else None

        try:
            async with asyncio.timeout(timeout):
                return await self._kube.follow(await self._only(name), check=check)
        except TimeoutError as e:
            raise SyncFailed(
                f"Kustomization {name} does not exist after {timeout:.0f} s. Check the Kustomization that creates it, then try again."
            ) from e

    async def wait_gone(self, name: str, *, timeout: float) -> None:
        async def check(found: View) -> bool | None:
            return None if found else True

        try:
            async with asyncio.timeout(timeout):
                await self._kube.follow(await self._only(name), check=check)
        except TimeoutError as e:
            raise SyncFailed(
                f"Kustomization {name} is still there after {timeout:.0f} s. Does its parent Kustomization prune?"
            ) from e

    async def _only(self, name: str) -> Selection:
        where, _ = await self._find(name)
        return Selection(where, fields=f"metadata.name={name.rpartition('/')[2]}")

    def _missing(self, name: str) -> BotError:
        return BotError(
            f"Flux has no Kustomization {name} in namespace {self._sources.namespace} or in those of the models: check"
            " the name and flux.namespace."
        )


def application_of(found: KubeObject) -> Application:
    """A Kustomization from Flux's JSON."""
    spec, status = found["spec"], found.get("status") or {}
    ready = _condition(found)
    path = str(spec.get("path") or "").strip("/").removeprefix("./").removeprefix(".")
    applied, attempted = (str(status.get(key) or "") for key in ("lastAppliedRevision", "lastAttemptedRevision"))
    is_ready = ready.get("status") == "True" and _is_seen(found)
    error = _error_of(found)
    return Application(
        name=found["metadata"]["name"],
        path=path,
        automated=True,
        sync="Suspended" if spec.get("suspend") else "Synced" if is_ready else "OutOfSync" if error else "Unknown",
        health="Healthy" if is_ready else "Degraded" if error else "Progressing",
        revisions=tuple(filter(None, [commit_of(applied)])),
        phase=None if not attempted else "Succeeded" if is_ready else "Failed" if error else "Running",
        message=str(ready.get("message") or ""),
        operation_revision=commit_of(attempted) or None,
        operation_revisions=tuple(filter(None, [commit_of(attempted)])),
        errors=(error,) if error else (),
        source=source_text({"path": path, "sourceRef": spec.get("sourceRef"), "patches": spec.get("patches")}),
        paths=(path,),
        reverts_replicas=True,
        word="Kustomization",
    )


def _named(found: KubeObject, *, among: int) -> Application:
    """Return a Kustomization, with its namespace in its name if it is one of several with that name."""
    namespace = found["metadata"].get("namespace", "")
    application = application_of(found)
    return application.model_copy(update={"name": f"{namespace}/{application.name}"}) if among > 1 else application


def commit_of(revision: str) -> str:
    """The commit in a revision of Flux; empty for other revisions, such as a chart's version."""
    match = _COMMIT.search(revision)
    return match[1] if match else ""


def describe(application: Application) -> str:
    applied = application.revisions[0][:7] if application.revisions else "nothing"
    return ", ".join(filter(None, (application.sync, f"applied {applied}", application.message)))


def _condition(found: KubeObject) -> KubeObject:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == "Ready"), {})


def _is_seen(found: KubeObject) -> bool:
    """Return whether the controller has processed the newest spec and the last request."""
    status, meta = found.get("status") or {}, found["metadata"]
    asked = (meta.get("annotations") or {}).get(REQUESTED)
    handled = status.get("lastHandledReconcileAt")
    return int(status.get("observedGeneration") or 0) >= int(meta.get("generation") or 0) and (
        asked is None or asked == handled
    )


def _error_of(found: KubeObject) -> str:
    """Flux's message with the reason why it is not ready; empty if that may resolve without action."""
    ready = _condition(found)
    if ready.get("status") != "False" or ready.get("reason") in _WAITS:
        return ""
    return f"{ready.get('reason')}: {ready.get('message')}"


def _is_done(release: KubeObject) -> bool:
    return _condition(release).get("status") == "True" and _is_seen(release)


def _corrects_replicas(release: KubeObject) -> bool:
    """Return whether drift detection corrects the replicas of Deployments (`spec.driftDetection`)."""
    detection = release["spec"].get("driftDetection") or {}
    ignored = any(
        "/spec/replicas" in (rule.get("paths") or ()) and (rule.get("target") or {}).get("kind") in (None, "Deployment")
        for rule in detection.get("ignore") or ()
    )
    return detection.get("mode") == "enabled" and not ignored


def _is_part_of(release: KubeObject, kustomization: KubeObject) -> bool:
    """Return whether a Kustomization applied this HelmRelease: kustomize-controller labels the objects that it applies."""
    labels, meta = release["metadata"].get("labels") or {}, kustomization["metadata"]
    applied_by = (labels.get(f"{_KUSTOMIZE}/namespace"), labels.get(f"{_KUSTOMIZE}/name"))
    return applied_by == (meta.get("namespace"), meta["name"])
