"""Client for Flux: reads the applied state of Kustomizations and HelmReleases, and requests and follows reconciliations.

Sources: fluxcd.io/flux/components/kustomize/kustomizations (`status.lastAppliedRevision`, `spec.suspend`, conditions
and their reasons), …/helm/helmreleases (`spec.driftDetection`), …/source/gitrepositories (`status.artifact.revision`),
and the source of `flux reconcile kustomization --with-source`. Like this command, the module sets the annotation
`reconcile.fluxcd.io/requestedAt` on the source, then on the Kustomization. A revision has the form `main@sha1:COMMIT`
(RFC-0005). Before Flux 0.41, the form was `main/COMMIT`.
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
"""Seconds for which an error must persist after a refresh, because it may belong to an earlier commit."""

Includes = Callable[[str, str], Awaitable[bool]]
"""Function that returns whether the first commit is the second one, or has the second one in its history."""


class Flux:
    """Reads the Kustomizations in the namespaces of Flux and of the models, and the HelmReleases of the models."""

    word = "Flux"

    def __init__(self, api: ApiClient, namespace: str, serving: tuple[str, ...], includes: Includes) -> None:
        self._kube = Kube(api)
        beside = (
            Collection(KUSTOMIZATIONS_BESIDE, serving_namespace)
            for serving_namespace in serving
            if serving_namespace != namespace
        )
        self._kustomizations = (Collection(KUSTOMIZATIONS, namespace), *beside)
        self._sources = Collection(GIT_REPOSITORIES, namespace)
        self._releases = tuple(Collection(HELM_RELEASES, namespace) for namespace in serving)
        self._includes = includes

    async def get(self, name: str) -> Application | None:
        _, kustomization = await self._find(name)
        return application_of(kustomization).model_copy(update={"name": name}) if kustomization else None

    async def list(self) -> tuple[Application, ...]:
        """All Kustomizations. If several namespaces have a Kustomization of the same name, these names contain the
        namespace.
        """
        listed = [
            kustomization
            for collection in self._kustomizations
            for kustomization in await self._kube.list(Selection(collection))
        ]
        names = Counter(kustomization["metadata"]["name"] for kustomization in listed)
        return tuple(_named(kustomization, among=names[kustomization["metadata"]["name"]]) for kustomization in listed)

    async def _find(self, name: str) -> tuple[Collection, KubeObject | None]:
        """Return the Kustomization of this name, or None, and the collection that it is in or would be in.

        `name` may be `NAMESPACE/NAME`. Raises BotError if several namespaces have a Kustomization of this name.
        """
        namespace, _, bare = name.rpartition("/")
        matches = [match for match in await self._all_named(bare) if namespace in ("", match[0].namespace)]
        if len(matches) > 1:
            places = " and ".join(str(collection.namespace) for collection, _ in matches)
            raise BotError(
                f"Flux has a Kustomization {bare} in each of the namespaces {places}: name one as NAMESPACE/{bare}."
            )
        home = next(
            (collection for collection in self._kustomizations if collection.namespace == namespace),
            self._kustomizations[0],
        )
        return matches[0] if matches else (home, None)

    async def _all_named(self, name: str) -> Sequence[tuple[Collection, KubeObject]]:
        """Return the Kustomizations of this name, in any namespace."""
        kustomizations = [
            (collection, await self._kube.get(collection, name)) for collection in self._kustomizations if name
        ]
        return [
            (collection, kustomization) for collection, kustomization in kustomizations if kustomization is not None
        ]

    async def _from_label(self, name: str) -> Application | None:
        """Return the Kustomization whose name is in a label. Its `name` contains the namespace only if that is necessary."""
        namespace, _, bare = name.rpartition("/")
        every = await self._all_named(bare)
        match = next(
            (kustomization for collection, kustomization in every if namespace in ("", collection.namespace)), None
        )
        return _named(match, among=len(every)) if match is not None else None

    async def of(self, workload: Workload) -> Application | None:
        """The Kustomization that applies a Deployment, or the HelmRelease that installs it.

        helm-controller resets replicas only if the HelmRelease has drift detection for them.
        """
        release = await self._release(*workload.release)
        if release is None:
            return await self._from_label(workload.deployed_by)
        labels = release["metadata"].get("labels") or {}
        parts = (labels.get(f"{_KUSTOMIZE}/namespace"), labels.get(f"{_KUSTOMIZE}/name"))
        application = await self._from_label("/".join(filter(None, parts)) if parts[1] else "")
        return application.model_copy(update={"reverts_replicas": _corrects_replicas(release)}) if application else None

    async def _release(self, namespace: str, name: str) -> KubeObject | None:
        collection = next(
            (
                release_collection
                for release_collection in self._releases
                if name and release_collection.namespace == namespace
            ),
            None,
        )
        listed = await self._kube.list(Selection(collection, fields=f"metadata.name={name}")) if collection else ()
        return next(iter(listed), None)

    async def refresh(self, name: str) -> None:
        """Make Flux fetch its source and then apply it, like `flux reconcile kustomization --with-source`."""
        collection, kustomization = await self._find(name)
        if kustomization is None:
            raise self._missing(name)
        request = {"metadata": {"annotations": {REQUESTED: datetime.now(UTC).isoformat()}}}
        source = kustomization["spec"].get("sourceRef") or {}
        source_namespace = source.get("namespace") or collection.namespace
        if source.get("kind") == "GitRepository" and source_namespace == self._sources.namespace:
            await self._kube.patch(self._sources, str(source.get("name")), request)
        await self._kube.patch(collection, name.rpartition("/")[2], request)

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
        """Wait until Flux has applied a commit with `revision` in its history. Flux only applies its branch's newest commit."""

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
        """Wait until Flux has applied a commit for which `includes` is true, and has upgraded the HelmReleases of the
        Kustomization.

        Raises `SyncFailed` with Flux's message if the Kustomization is suspended, or if its error persists after a
        refresh.
        """
        last: Application | None = None
        error, since = "", 0.0

        async def check(kustomizations: View, *releases: View) -> Application | None:
            nonlocal last, error, since
            kustomization = next(iter(kustomizations.values()), None)
            if kustomization is None:
                raise self._missing(name)
            last = application_of(kustomization)
            if kustomization["spec"].get("suspend"):
                raise SyncFailed(
                    f"Kustomization {name} is suspended, so Flux does not apply it. Resume it (`flux resume kustomization"
                    f" {name}`), then request it again."
                )
            await on_message(last.message)
            at_commit = any([await includes(revision) for revision in last.revisions])
            pending = [
                release
                for view in releases
                for release in view.values()
                if _is_part_of(release, kustomization) and not _is_upgraded(release)
            ]
            if at_commit and last.sync == "Synced" and not pending:
                return last
            now = asyncio.get_running_loop().time()
            current_error = next((message for message in map(_error_of, (kustomization, *pending)) if message), "")
            if current_error != error:
                error, since = current_error, now
            if error and now - since >= min(_PERSISTS, timeout / 4):
                raise SyncFailed(f"Flux could not apply {name}: {error} — fix this in git, then try again.")
            return None

        try:
            async with asyncio.timeout(timeout):
                releases = (Selection(collection) for collection in self._releases)
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
        """Return False, because Flux has no operation that could be terminated."""
        return False

    async def wait_for(self, name: str, *, timeout: float, until: Callable[[Application], bool]) -> Application:
        async def check(kustomizations: View) -> Application | None:
            last = next(map(application_of, kustomizations.values()), None)
            return last if last and until(last) else None

        try:
            async with asyncio.timeout(timeout):
                return await self._kube.follow(await self._only(name), check=check)
        except TimeoutError as e:
            raise SyncFailed(
                f"Kustomization {name} does not exist after {timeout:.0f} s. Check the Kustomization that creates it, then try again."
            ) from e

    async def wait_gone(self, name: str, *, timeout: float) -> None:
        async def check(kustomizations: View) -> bool | None:
            return None if kustomizations else True

        try:
            async with asyncio.timeout(timeout):
                await self._kube.follow(await self._only(name), check=check)
        except TimeoutError as e:
            raise SyncFailed(
                f"Kustomization {name} is still there after {timeout:.0f} s. Does its parent Kustomization prune?"
            ) from e

    async def _only(self, name: str) -> Selection:
        collection, _ = await self._find(name)
        return Selection(collection, fields=f"metadata.name={name.rpartition('/')[2]}")

    def _missing(self, name: str) -> BotError:
        return BotError(
            f"Flux has no Kustomization {name} in namespace {self._sources.namespace} or in those of the models: check"
            " the name and flux.namespace."
        )


def application_of(kustomization: KubeObject) -> Application:
    """Parse a Kustomization from Flux's JSON."""
    spec, status = kustomization["spec"], kustomization.get("status") or {}
    ready = _condition(kustomization)
    path = str(spec.get("path") or "").strip("/").removeprefix("./").removeprefix(".")
    applied, attempted = (str(status.get(key) or "") for key in ("lastAppliedRevision", "lastAttemptedRevision"))
    is_ready = ready.get("status") == "True" and _is_observed(kustomization)
    error = _error_of(kustomization)
    return Application(
        name=kustomization["metadata"]["name"],
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


def _named(kustomization: KubeObject, *, among: int) -> Application:
    """Parse a Kustomization. `among` is the number of Kustomizations with its name. If it is above 1, the result's
    `name` contains the namespace.
    """
    namespace = kustomization["metadata"].get("namespace", "")
    application = application_of(kustomization)
    return application.model_copy(update={"name": f"{namespace}/{application.name}"}) if among > 1 else application


def commit_of(revision: str) -> str:
    """The commit in a revision of Flux; empty for a revision without a commit, such as a chart's version."""
    match = _COMMIT.search(revision)
    return match[1] if match else ""


def describe(application: Application) -> str:
    """The state, the applied commit and the message as one line, for error messages."""
    applied = application.revisions[0][:7] if application.revisions else "nothing"
    return ", ".join(filter(None, (application.sync, f"applied {applied}", application.message)))


def _condition(resource: KubeObject) -> KubeObject:
    conditions = (resource.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == "Ready"), {})


def _is_observed(resource: KubeObject) -> bool:
    """Return whether the controller has processed the newest spec and the last request."""
    status, meta = resource.get("status") or {}, resource["metadata"]
    requested = (meta.get("annotations") or {}).get(REQUESTED)
    handled = status.get("lastHandledReconcileAt")
    return int(status.get("observedGeneration") or 0) >= int(meta.get("generation") or 0) and (
        requested is None or requested == handled
    )


def _error_of(resource: KubeObject) -> str:
    """The reason and the message of a failed object; empty if it is ready, or may become ready without action."""
    ready = _condition(resource)
    if ready.get("status") != "False" or ready.get("reason") in _WAITS:
        return ""
    return f"{ready.get('reason')}: {ready.get('message')}"


def _is_upgraded(release: KubeObject) -> bool:
    return _condition(release).get("status") == "True" and _is_observed(release)


def _corrects_replicas(release: KubeObject) -> bool:
    """Return whether drift detection corrects the replicas of Deployments (`spec.driftDetection`)."""
    detection = release["spec"].get("driftDetection") or {}
    ignored = any(
        "/spec/replicas" in (rule.get("paths") or ()) and (rule.get("target") or {}).get("kind") in (None, "Deployment")
        for rule in detection.get("ignore") or ()
    )
    return detection.get("mode") == "enabled" and not ignored


def _is_part_of(release: KubeObject, kustomization: KubeObject) -> bool:
    """Return whether a Kustomization applied this HelmRelease, according to the labels of kustomize-controller."""
    labels, meta = release["metadata"].get("labels") or {}, kustomization["metadata"]
    applied_by = (labels.get(f"{_KUSTOMIZE}/namespace"), labels.get(f"{_KUSTOMIZE}/name"))
    return applied_by == (meta.get("namespace"), meta["name"])
