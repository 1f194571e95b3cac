"""The sandbox's Argo CD: discovers Applications in git, compares them with git, and syncs them at the requested commit.

Its state is in the Applications, as in Argo CD: the last entry of `status.history` is the last sync. A Helm source
becomes a Deployment and a ConfigMap with the values' `proxy_config`; the gateway (`gateway.py`) reads its *synced*
configuration from there.
"""

import asyncio
import posixpath
from collections.abc import Sequence, Set
from contextlib import suppress
from typing import Any, Protocol

from sandbox.application_sets import generated_applications
from sandbox.application_sources import render, sources_of, values_path
from sandbox.clock import Clock
from sandbox.objects import ApiError, Object, ObjectStore, copied
from sandbox.rendering import UNUSUAL, RenderError, documents, load, message_of, read_by

NAMESPACE = "argocd"
REFRESH = "argocd.argoproj.io/refresh"
RECONCILE_SECONDS = 180.0  # interval at which Argo CD polls git
LEAST = 0.5  # minimum seconds of real time between two polls, at any speed of the clock
SYNC_SECONDS = 6.0
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
DENIED = (
    "one or more objects failed to apply, reason: admission webhook "
    '"validation.gatekeeper.sh" denied the request: [gpu-quota] the namespace is frozen'
)


COMPARISON = (
    "Failed to load target state: failed to generate manifest for source 1 of 1: rpc error: code = Unknown desc = "
    'error creating SSH agent: "SSH agent requested but SSH_AUTH_SOCK not-specified"'
)
"""The format of the repo server's errors in a condition (argoproj/argo-cd, controller/state.go)."""
HOOK = "waiting for completion of hook batch/Job/{name}-presync"
WINDOW = "Sync operation blocked by sync window"


class Git(Protocol):
    """The remote that Argo CD's repo server reads."""

    async def main_commit(self) -> str: ...

    async def files_at(self, commit: str, prefix: str) -> dict[str, str]: ...


class SyncError(Exception):
    """The failure of an operation, with Argo CD's message."""


class ArgoCD:
    """Keeps the Applications in `store` in sync with `git`, on `clock`'s time."""

    def __init__(self, store: ObjectStore, git: Git, clock: Clock, faults: Set[str], environment: str) -> None:
        self._store, self._git, self._clock, self._faults = store, git, clock, faults
        self._catalog = f"clusters/{environment}"
        self._looked_at = ""
        self._faults_seen: frozenset[str] = frozenset()
        self._syncing: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Create and sync everything in the first commit, so that the platform looks as if it were in use."""
        commit = await self._git.main_commit()
        await self._discover(commit)
        for app in self._store.find("Application", NAMESPACE):
            try:
                await self._apply(app, commit, _options(app))
            except (
                SyncError,
                *UNUSUAL,
            ) as error:  # a manifest of an unknown repository must not fail the other Applications
                self._fail(app, commit, {"sync": {"revision": commit}}, message_of(error))
            else:
                self._succeed(app, commit)
            await self._compare(app["metadata"]["name"], commit)
        self._looked_at = commit

    async def run(self) -> None:
        """Poll git every three simulated minutes, and immediately when an Application requests a refresh."""
        clock = self._clock
        due = self._next_poll()
        judged_version = -1  # the store's version at the last check
        try:
            while True:
                version = self._store.version
                requested = self._take_refreshes()
                if requested or clock.now() >= due:
                    due = self._next_poll()
                    await self._reconcile(requested)
                self._begin_operations()
                self._finish_deletions()
                if self._store.version != judged_version:
                    self._update_health()
                    await self._heal()
                    judged_version = (
                        -1 if self._syncing else version
                    )  # `_heal` skips Applications that are being synced
                try:
                    async with asyncio.timeout(max(0.01, (due - clock.now()) / clock.speed)):
                        await self._store.changed(version)
                except TimeoutError:
                    pass
        finally:
            for task in self._syncing.values():
                task.cancel()

    def _next_poll(self) -> float:
        return self._clock.now() + max(RECONCILE_SECONDS, LEAST * self._clock.speed)

    def _take_refreshes(self) -> set[str]:
        requested = set()
        for app in self._store.stored("Application", NAMESPACE):
            if REFRESH in (app["metadata"].get("annotations") or {}):
                requested.add(app["metadata"]["name"])
        return requested

    async def _reconcile(self, requested: set[str]) -> None:
        commit = await self._git.main_commit()
        if commit != self._looked_at:
            await self._discover(commit)
        stale = commit != self._looked_at or self._faults_seen != self._faults
        self._looked_at, self._faults_seen = commit, frozenset(self._faults)
        for app in self._store.stored("Application", NAMESPACE):
            name = app["metadata"]["name"]
            if name in requested or stale:
                await self._compare(name, commit)
                self._update(name, lambda live: live["metadata"].get("annotations", {}).pop(REFRESH, None))
        for app in self._store.stored("Application", NAMESPACE):
            self._sync_automatically(app, commit)

    def _sync_automatically(self, app: Object, commit: str) -> None:
        """Sync an automated Application that differs, but never twice to the same commit."""
        if "argocd-sync-window" in self._faults:
            return  # the real controller only logs this
        name, state = app["metadata"]["name"], app["status"].get("operationState") or {}
        automated = (app["spec"].get("syncPolicy") or {}).get("automated") is not None
        differs = app["status"]["sync"]["status"] == "OutOfSync"
        tried = commit in (state.get("revision"), *_commits_of(state))
        busy = "operation" in app or name in self._syncing or tried
        if automated and differs and not busy:
            sync = {"revision": commit, "syncOptions": list(_options(app))}
            operation = {"initiatedBy": {"automated": True}, "sync": sync}
            self._update(name, lambda live: live.update(operation=operation))

    async def _discover(self, commit: str) -> None:
        """Create one Application per file in the catalog of each enabled group, like the platform's ApplicationSet.

        If a file does not parse, no Application changes.
        """
        files = await self._git.files_at(commit, self._catalog)
        if not any(path.startswith((f"{self._catalog}/catalog/", f"{self._catalog}/groups.")) for path in files):
            self._install({app["metadata"]["name"]: app for app in await self._declared_applications(commit)})
            return
        listed = files.get(f"{self._catalog}/groups.generated.yaml")
        groups = load(listed) if listed else [{"enabled": "true", "catalogPath": f"{self._catalog}/catalog"}]
        enabled = tuple(g["catalogPath"].rstrip("/") + "/" for g in groups if str(g["enabled"]).lower() == "true")
        declared: dict[str, Object] = {}
        for path, text in files.items():
            if path.startswith(enabled) and path.endswith((".yaml", ".yml")):
                try:
                    manifests = documents(text)
                except RenderError:
                    return
                for manifest in manifests:
                    if manifest.get("kind") == "Application":
                        declared[manifest["metadata"]["name"]] = manifest
        self._install(declared)

    async def _declared_applications(self, commit: str) -> list[Object]:
        """Return all Applications of a repository with another layout, as if somebody had applied every one of them."""
        files = await self._git.files_at(commit, "")
        applications: list[Object] = []
        for path, text in sorted(files.items()):
            if not path.endswith((".yaml", ".yml")) or "argoproj.io" not in text:
                continue
            with suppress(*UNUSUAL):  # a chart's template is not a manifest
                for manifest in documents(text):
                    if manifest.get("kind") == "ApplicationSet":
                        applications += generated_applications(manifest, files)
                    elif manifest.get("kind") == "Application":
                        applications.append(manifest)
        return applications

    def _install(self, declared: dict[str, Object]) -> None:
        for name, manifest in declared.items():
            if not self._store.exists("Application", name, NAMESPACE):
                fresh = {"sync": {"status": "Unknown"}, "health": {"status": "Missing"}, "history": []}
                meta = manifest["metadata"] | {"namespace": NAMESPACE}
                self._store.create(manifest | {"metadata": meta, "status": fresh})
            else:
                self._update(name, lambda live, spec=manifest["spec"]: live.update(spec=spec))
        for app in self._store.find("Application", NAMESPACE):
            if app["metadata"]["name"] not in declared:
                self._store.delete("Application", app["metadata"]["name"], NAMESPACE)

    async def _compare(self, name: str, commit: str) -> None:
        """Set the sync status: Synced if the files of the Application's sources are the same as at the last sync."""
        app = self._store.get("Application", name, NAMESPACE)
        if app is None:
            return
        history = app["status"].get("history") or []
        current = await self._sources(app, commit)
        conditions, resources = [], []
        if "argocd-comparison-error" in self._faults:
            state = "Unknown"
            conditions = [
                {"type": "ComparisonError", "message": COMPARISON, "lastTransitionTime": self._store.timestamp()}
            ]
        elif not current:
            state = "Unknown"
        else:
            same = bool(history) and await self._sources(app, history[-1]["deployedBy"]["commit"]) == current
            state = "Synced" if same and "argocd-outofsync" not in self._faults else "OutOfSync"
            if same and state == "OutOfSync":  # as if an autoscaler or a webhook had changed the applied objects
                resources = [{"group": "apps", "kind": "Deployment", "name": name, "status": "OutOfSync"}]
        self._status(
            name, sync={"status": state, **_revisions(app, commit)}, conditions=conditions, resources=resources
        )

    async def _sources(self, app: Object, commit: str) -> dict[str, str]:
        """Return the files in git that the Application renders at a commit: path -> text."""
        files: dict[str, str] = {}
        for source in sources_of(app):
            if "path" in source:
                path = posixpath.normpath(source["path"]).strip("/")
                own_files = await self._git.files_at(commit, "" if path == "." else path)
                outside = any(
                    ".." in text for name, text in own_files.items() if name.endswith(("kustomization.yaml", ".yml"))
                )
                files |= read_by(path, await self._git.files_at(commit, "")) if outside else own_files
            for value_file in (source.get("helm") or {}).get("valueFiles") or ():
                path = values_path(source, value_file)
                value_files = await self._git.files_at(commit, path)
                files |= {path: value_files[path]} if path in value_files else {}
        return files

    def _begin_operations(self) -> None:
        for app in self._store.stored("Application", NAMESPACE):
            name = app["metadata"]["name"]
            if "operation" in app and name not in self._syncing and "deletionTimestamp" not in app["metadata"]:
                operation = app["operation"]
                state = {"operation": operation, "phase": "Running", "startedAt": self._store.timestamp()}
                state["message"] = "waiting for completion of the sync"
                self._update(name, lambda live: live.pop("operation", None))
                self._status(name, operationState=state)
                task = asyncio.create_task(self._operate(name, operation))
                self._syncing[name] = task
                task.add_done_callback(lambda _, name=name: self._syncing.pop(name, None))  # type: ignore[misc]

    async def _operate(self, name: str, operation: Object) -> None:
        await self._clock.sleep(SYNC_SECONDS)
        if await self._wait_while_blocked(name):
            return
        app = self._store.get("Application", name, NAMESPACE)
        if app is None:
            return
        revision = (operation.get("sync") or {}).get("revision") or ""
        revision = revision or next(iter(reversed((operation.get("sync") or {}).get("revisions") or [""])))
        commit = await self._git.main_commit() if revision in {"", "HEAD", "main"} else revision
        try:
            if "argocd-comparison-error" in self._faults:
                raise SyncError(f"ComparisonError: {COMPARISON}")
            if "sync-fails" in self._faults:
                raise SyncError(DENIED)
            # Measured: only Argo CD's API server copies the Application's options into an operation.
            sync = operation.get("sync") or {}
            await self._apply(app, commit, tuple(sync.get("syncOptions") or ()), sync.get("resources") or ())
        except (SyncError, ApiError) as e:
            self._fail(app, commit, operation, str(e))
        else:
            self._succeed(app, commit, operation, partly=bool(sync.get("resources")))
        await self._compare(name, await self._git.main_commit())
        self._store.wake()

    async def _wait_while_blocked(self, name: str) -> bool:
        """Wait while a hook or a sync window blocks the operation; returns whether somebody terminated it."""
        while True:
            version = self._store.version
            app = self._store.get("Application", name, NAMESPACE)
            state = app["status"]["operationState"] if app else {}
            if not state or state["phase"] == "Terminating":
                ended = {"phase": "Failed", "message": "Operation terminated", "finishedAt": self._store.timestamp()}
                self._status(name, operationState=state | ended)
                return True
            blocking = {"argocd-hook-hangs": HOOK.format(name=name), "argocd-sync-window": WINDOW}
            message = next((text for fault, text in blocking.items() if fault in self._faults), "")
            if not message:
                return False
            if state["message"] != message:
                self._status(name, operationState=state | {"message": message})
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LEAST):
                        await self._store.changed(version)

    async def _apply(self, app: Object, commit: str, options: tuple[str, ...], only: Sequence[Object] = ()) -> None:
        try:
            files = await self._sources(app, commit)
        except Exception as e:
            raise SyncError(f"ComparisonError: failed to resolve revision {commit!r}: {e}") from e
        if not files and any("path" in source for source in sources_of(app)):
            path = next(source["path"] for source in sources_of(app) if "path" in source)
            raise SyncError(f"ComparisonError: {path}: app path does not exist")
        try:
            manifests = render(app, files)
            for manifest in manifests:
                if not only or _identity(manifest) in [(r.get("group", ""), r["kind"], r["name"]) for r in only]:
                    self._apply_one(app, manifest, options)
        except ApiError:
            raise
        except UNUSUAL as e:
            raise SyncError(f"ComparisonError: {message_of(e)}") from e

    def _apply_one(self, app: Object, manifest: Object, options: tuple[str, ...]) -> None:
        kind, meta = manifest["kind"], manifest["metadata"]
        live = self._store.get(kind, meta["name"], meta.get("namespace", ""))
        if live is None:
            self._store.create(manifest)
            return
        if kind == "Deployment":
            if "RespectIgnoreDifferences=true" in options:
                _keep_replicas(app, manifest, live)
            if live["spec"].get("selector") != manifest["spec"].get("selector"):
                raise SyncError(f'Deployment.apps "{meta["name"]}" is invalid: spec.selector: field is immutable')
        if kind == "PersistentVolumeClaim" and _storage(manifest) < _storage(live):
            raise SyncError(
                f'PersistentVolumeClaim "{meta["name"]}" is invalid: spec.resources.requests.storage: '
                "Forbidden: field can not be less than status.capacity"
            )

        def change(obj: Object) -> None:
            for field, value in manifest.items():
                if field not in {"metadata", "status"}:
                    obj[field] = value
            for field in ("labels", "annotations"):
                if meta.get(field):
                    obj["metadata"][field] = (obj["metadata"].get(field) or {}) | meta[field]

        self._store.update(kind, meta["name"], meta.get("namespace", ""), change)

    def _succeed(self, app: Object, commit: str, operation: Object | None = None, *, partly: bool = False) -> None:
        """Record a sync. A sync of selected resources is not in the history (Argo CD's documentation, "Selective Sync")."""
        name, revisions = app["metadata"]["name"], _revisions(app, commit)
        live = self._store.get("Application", name, NAMESPACE) or app
        history = live["status"].get("history") or []
        # `deployedBy` does not exist in Argo CD. It records the commit, because an entry for several sources has
        # several revisions.
        entry = revisions | {
            "id": len(history),
            "deployedAt": self._store.timestamp(),
            "deployedBy": {"commit": commit},
        }
        state = self._operation_state(live, operation, "Succeeded", "successfully synced (all tasks run)", revisions)
        self._status(name, history=history if partly else [*history, entry][-10:], operationState=state)

    def _fail(self, app: Object, commit: str, operation: Object, message: str) -> None:
        live = self._store.get("Application", app["metadata"]["name"], NAMESPACE) or app
        state = self._operation_state(live, operation, "Failed", message, _revisions(app, commit))
        self._status(app["metadata"]["name"], operationState=state | {"revision": commit})

    def _operation_state(
        self, app: Object, operation: Object | None, phase: str, message: str, revisions: Object
    ) -> Object:
        started = (app["status"].get("operationState") or {}).get("startedAt", self._store.timestamp())
        operation = operation or {"sync": dict(revisions), "initiatedBy": {"automated": True}}
        ended = {"phase": phase, "message": message, "startedAt": started, "finishedAt": self._store.timestamp()}
        return ended | {"operation": operation, "syncResult": dict(revisions)}

    def _finish_deletions(self) -> None:
        """Delete everything that a deleted Application applied, including the claim with its weights.

        This is the effect of the resources finalizer.
        """
        for app in self._store.stored("Application", NAMESPACE):
            if "deletionTimestamp" in app["metadata"]:
                namespace, name = app["spec"]["destination"]["namespace"], app["metadata"]["name"]
                for kind in ("Deployment", "Service", "PersistentVolumeClaim", "ConfigMap"):
                    for obj in self._store.stored(kind, namespace):
                        if (obj["metadata"].get("annotations") or {}).get("argocd.argoproj.io/tracking-id") == name:
                            self._store.remove(kind, obj["metadata"]["name"], namespace)
                self._store.remove("Application", name, NAMESPACE)

    def _update_health(self) -> None:
        for app in self._store.stored("Application", NAMESPACE):
            namespace, name = app["spec"]["destination"].get("namespace", ""), app["metadata"]["name"]
            mine = [d for d in self._store.stored("Deployment", namespace) if _application_of(d) == name]
            states = {_health(deployment) for deployment in mine}
            worst = next((s for s in ("Degraded", "Progressing", "Healthy") if s in states), "")
            if not worst:
                worst = "Healthy" if app["status"].get("history") else "Missing"
            if app["status"].get("health") != {"status": worst}:
                self._status(name, health={"status": worst})

    async def _heal(self) -> None:
        """Revert replicas that differ from git, if `selfHeal` is set (`SelfHealTimeoutSeconds` is 5).

        Differences in `ignoreDifferences` do not count; other differences do not occur in the sandbox.
        """
        for app in self._store.stored("Application", NAMESPACE):
            automated = (app["spec"].get("syncPolicy") or {}).get("automated") or {}
            history = app["status"].get("history") or []
            if not automated.get("selfHeal") or not history or app["metadata"]["name"] in self._syncing:
                continue
            commit = history[-1]["deployedBy"]["commit"]
            with suppress(*UNUSUAL):
                for manifest in render(app, await self._sources(app, commit)):
                    self._revert_replicas(app, manifest)

    def _revert_replicas(self, app: Object, manifest: Object) -> None:
        meta = manifest["metadata"]
        live = self._store.get("Deployment", meta["name"], meta.get("namespace", ""))
        if manifest["kind"] != "Deployment" or live is None or "replicas" not in manifest["spec"]:
            return
        _keep_replicas(app, manifest, live)
        replicas = manifest["spec"]["replicas"]
        if live["spec"].get("replicas", 1) != replicas:
            self._store.update(
                "Deployment",
                meta["name"],
                meta["namespace"],
                lambda deployment: deployment["spec"].update(replicas=replicas),
            )

    def _update(self, name: str, change: Any) -> None:
        if self._store.exists("Application", name, NAMESPACE):
            self._store.update("Application", name, NAMESPACE, change)

    def _status(self, name: str, **fields: Any) -> None:
        self._update(name, lambda live: live["status"].update(fields))


def _identity(manifest: Object) -> tuple[str, str, str]:
    return manifest["apiVersion"].rpartition("/")[0], manifest["kind"], manifest["metadata"]["name"]


def _commits_of(state: Object) -> list[str]:
    """Return the commits of an operation. Argo CD does not sync to them again automatically, even if the operation failed."""
    result = state.get("syncResult") or {}
    return [*(result.get("revisions") or ()), result.get("revision") or ""]


def _options(app: Object) -> tuple[str, ...]:
    return tuple((app["spec"].get("syncPolicy") or {}).get("syncOptions") or ())


def _revisions(app: Object, commit: str) -> Object:
    """Return `revision` for one source, `revisions` for several; a chart's revision is its version."""
    if not app["spec"].get("sources"):
        return {"revision": commit}
    return {"revisions": [s.get("targetRevision", "") if "chart" in s else commit for s in app["spec"]["sources"]]}


def _application_of(obj: Object) -> str | None:
    return (obj["metadata"].get("annotations") or {}).get("argocd.argoproj.io/tracking-id")


def _keep_replicas(app: Object, manifest: Object, live: Object) -> None:
    """Keep the live value of an ignored `/spec/replicas`, for `RespectIgnoreDifferences`."""
    for ignored in app["spec"].get("ignoreDifferences") or ():
        mine = ignored.get("name") in {None, "", manifest["metadata"]["name"]}
        pointed = "/spec/replicas" in (ignored.get("jsonPointers") or ())
        if mine and pointed:
            manifest["spec"] = copied(manifest["spec"]) | {"replicas": live["spec"].get("replicas", 1)}


def _storage(claim: Object) -> float:
    quantity = str(claim["spec"]["resources"]["requests"]["storage"])
    return float(quantity[:-2]) * UNITS[quantity[-2:]] if quantity[-2:] in UNITS else float(quantity)


def _health(deployment: Object) -> str:
    status, replicas = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    rolled = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return "Healthy" if rolled and status.get("readyReplicas", 0) >= replicas else "Progressing"
