"""The sandbox's Argo CD: Applications appear from git, are compared with it, and are synced at the commit asked for.

Its memory is the Applications themselves, as in Argo CD: what an Application was last synced to is the last entry of
its `status.history`. A Helm source becomes a Deployment and the ConfigMap of its values' `proxy_config`, which is where
the gateway (`gateway.py`) reads what is *synced* from.
"""

import asyncio
import hashlib
import json
import posixpath
from collections.abc import Set
from functools import lru_cache
from typing import Any, Protocol

from ruamel.yaml import YAML

from sandbox.clock import Clock
from sandbox.objects import BY_KIND, ApiError, Object, ObjectStore, copied, timestamp

NAMESPACE = "argocd"
REFRESH = "argocd.argoproj.io/refresh"
RECONCILE_SECONDS = 180.0  # how often Argo CD looks at git by itself
LEAST = 0.5  # seconds of ours between two such looks, however fast the clock runs
SYNC_SECONDS = 6.0
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
DENIED = (
    "one or more objects failed to apply, reason: admission webhook "
    '"validation.gatekeeper.sh" denied the request: [gpu-quota] the namespace is frozen'
)


class Git(Protocol):
    """The remote, as Argo CD's repo server reads it."""

    async def main_commit(self) -> str: ...

    async def files_at(self, commit: str, prefix: str) -> dict[str, str]: ...


class SyncError(Exception):
    """Why an operation failed, in Argo CD's words."""


class ArgoCD:
    """Keeps the Applications in `store` in step with `git`, at the pace of `clock`."""

    def __init__(self, store: ObjectStore, git: Git, clock: Clock, faults: Set[str], environment: str) -> None:
        self._store, self._git, self._clock, self._faults = store, git, clock, faults
        self._catalog = f"clusters/{environment}"
        self._looked_at = ""
        self._syncing: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Everything of the first commit is there and synced, as on a platform that runs for months."""
        commit = await self._git.main_commit()
        await self._discover(commit)
        for app in self._store.find("Application", NAMESPACE):
            await self._apply(app, commit, _options(app))
            self._succeed(app, commit, initiated_by="")
            await self._compare(app["metadata"]["name"], commit)
        self._looked_at = commit

    async def run(self) -> None:
        """Looks at git every three (simulated) minutes, and at once when an Application asks for it."""
        clock = self._clock
        due = self._next_look()
        try:
            while True:
                seen = self._store.version
                asked = self._take_refreshes()
                if asked or clock.now() >= due:
                    due = self._next_look()
                    await self._reconcile(asked)
                self._begin_operations()
                self._finish_deletions()
                self._judge_health()
                try:
                    async with asyncio.timeout(max(0.01, (due - clock.now()) / clock.speed)):
                        await self._store.changed(seen)
                except TimeoutError:
                    pass
        finally:
            for task in self._syncing.values():
                task.cancel()

    def _next_look(self) -> float:
        return self._clock.now() + max(RECONCILE_SECONDS, LEAST * self._clock.speed)

    def _take_refreshes(self) -> set[str]:
        asked = set()
        for app in self._store.find("Application", NAMESPACE):
            if REFRESH in (app["metadata"].get("annotations") or {}):
                asked.add(app["metadata"]["name"])
        return asked

    async def _reconcile(self, asked: set[str]) -> None:
        commit = await self._git.main_commit()
        if commit != self._looked_at:
            await self._discover(commit)
        stale = commit != self._looked_at
        self._looked_at = commit
        for app in self._store.find("Application", NAMESPACE):
            name = app["metadata"]["name"]
            if name in asked or stale:
                await self._compare(name, commit)
                self._update(name, lambda live: live["metadata"].get("annotations", {}).pop(REFRESH, None))
        for app in self._store.find("Application", NAMESPACE):
            self._sync_by_itself(app, commit)

    def _sync_by_itself(self, app: Object, commit: str) -> None:
        """An automated Application that differs is synced, but not again to a commit that has failed already."""
        name, state = app["metadata"]["name"], app["status"].get("operationState") or {}
        automated = (app["spec"].get("syncPolicy") or {}).get("automated") is not None
        differs = app["status"]["sync"]["status"] == "OutOfSync"
        busy = "operation" in app or name in self._syncing or state.get("revision") == commit
        if automated and differs and not busy:
            sync = {"revision": commit, "syncOptions": list(_options(app))}
            operation = {"initiatedBy": {"automated": True}, "sync": sync}
            self._update(name, lambda live: live.update(operation=operation))

    async def _discover(self, commit: str) -> None:
        """What the ApplicationSet does: one Application for each file in the catalog of an enabled group."""
        files = await self._git.files_at(commit, self._catalog)
        listed = files.get(f"{self._catalog}/groups.generated.yaml")
        groups = _load(listed) if listed else [{"enabled": "true", "catalogPath": f"{self._catalog}/catalog"}]
        enabled = tuple(g["catalogPath"].rstrip("/") + "/" for g in groups if str(g["enabled"]).lower() == "true")
        wanted: dict[str, Object] = {}
        for path, text in files.items():
            if path.startswith(enabled) and path.endswith((".yaml", ".yml")):
                for manifest in _documents(text):
                    if manifest.get("kind") == "Application":
                        wanted[manifest["metadata"]["name"]] = manifest
        for name, manifest in wanted.items():
            if self._store.get("Application", name, NAMESPACE) is None:
                fresh = {"sync": {"status": "Unknown"}, "health": {"status": "Missing"}, "history": []}
                meta = manifest["metadata"] | {"namespace": NAMESPACE}
                self._store.create(manifest | {"metadata": meta, "status": fresh})
            else:
                self._update(name, lambda live, spec=manifest["spec"]: live.update(spec=spec))
        for app in self._store.find("Application", NAMESPACE):
            if app["metadata"]["name"] not in wanted:
                self._store.delete("Application", app["metadata"]["name"], NAMESPACE)

    async def _compare(self, name: str, commit: str) -> None:
        """Synced means that the files under the Application's sources are those that were synced last."""
        app = self._store.get("Application", name, NAMESPACE)
        if app is None:
            return
        history = app["status"].get("history") or []
        wanted = await self._sources(app, commit)
        if not wanted:
            state = "Unknown"
        else:
            same = bool(history) and await self._sources(app, history[-1]["deployedBy"]["commit"]) == wanted
            state = "Synced" if same else "OutOfSync"
        self._status(name, sync={"status": state, **_revisions(app, commit)})

    async def _sources(self, app: Object, commit: str) -> dict[str, str]:
        """The files of git that the Application renders at a commit."""
        files: dict[str, str] = {}
        for source in _sources_of(app):
            if "path" in source:
                files |= await self._git.files_at(commit, source["path"].rstrip("/"))
            for value_file in (source.get("helm") or {}).get("valueFiles") or ():
                path = value_file.removeprefix("$values/")
                found = await self._git.files_at(commit, path)
                files |= {path: found[path]} if path in found else {}
        return files

    def _begin_operations(self) -> None:
        for app in self._store.find("Application", NAMESPACE):
            name = app["metadata"]["name"]
            if "operation" in app and name not in self._syncing and "deletionTimestamp" not in app["metadata"]:
                operation = app["operation"]
                state = {"operation": operation, "phase": "Running", "startedAt": timestamp()}
                state["message"] = "waiting for completion of the sync"
                self._update(name, lambda live: live.pop("operation", None))
                self._status(name, operationState=state)
                task = asyncio.create_task(self._operate(name, operation))
                self._syncing[name] = task
                task.add_done_callback(lambda _, name=name: self._syncing.pop(name, None))  # type: ignore[misc]

    async def _operate(self, name: str, operation: Object) -> None:
        await self._clock.sleep(SYNC_SECONDS)
        app = self._store.get("Application", name, NAMESPACE)
        if app is None:
            return
        asked = (operation.get("sync") or {}).get("revision") or ""
        asked = asked or next(iter(reversed((operation.get("sync") or {}).get("revisions") or [""])))
        commit = await self._git.main_commit() if asked in {"", "HEAD", "main"} else asked
        try:
            if "sync-fails" in self._faults:
                raise SyncError(DENIED)
            # As measured: only Argo CD's API server copies the Application's options into an operation.
            await self._apply(app, commit, tuple((operation.get("sync") or {}).get("syncOptions") or ()))
        except (SyncError, ApiError) as e:
            self._fail(app, commit, operation, str(e))
        else:
            self._succeed(app, commit, (operation.get("initiatedBy") or {}).get("username", ""), operation)
        await self._compare(name, await self._git.main_commit())
        self._store.wake()

    async def _apply(self, app: Object, commit: str, options: tuple[str, ...]) -> None:
        try:
            files = await self._sources(app, commit)
        except Exception as e:
            raise SyncError(f"ComparisonError: failed to resolve revision {commit!r}: {e}") from e
        if not files and any("path" in source for source in _sources_of(app)):
            path = next(source["path"] for source in _sources_of(app) if "path" in source)
            raise SyncError(f"ComparisonError: {path}: app path does not exist")
        for manifest in _render(app, files):
            self._apply_one(app, manifest, options)

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

    def _succeed(self, app: Object, commit: str, initiated_by: str, operation: Object | None = None) -> None:
        name, revisions = app["metadata"]["name"], _revisions(app, commit)
        live = self._store.get("Application", name, NAMESPACE) or app
        history = live["status"].get("history") or []
        # `deployedBy` is ours: a multi-source entry has revisions, and the commit among them is not always the last.
        entry = revisions | {"id": len(history), "deployedAt": timestamp(), "deployedBy": {"commit": commit}}
        state = self._finished(live, operation, "Succeeded", "successfully synced (all tasks run)", revisions)
        self._status(name, history=[*history, entry][-10:], operationState=state)

    def _fail(self, app: Object, commit: str, operation: Object, message: str) -> None:
        live = self._store.get("Application", app["metadata"]["name"], NAMESPACE) or app
        state = self._finished(live, operation, "Failed", message, _revisions(app, commit))
        self._status(app["metadata"]["name"], operationState=state | {"revision": commit})

    @staticmethod
    def _finished(app: Object, operation: Object | None, phase: str, message: str, revisions: Object) -> Object:
        started = (app["status"].get("operationState") or {}).get("startedAt", timestamp())
        operation = operation or {"sync": dict(revisions), "initiatedBy": {"automated": True}}
        ended = {"phase": phase, "message": message, "startedAt": started, "finishedAt": timestamp()}
        return ended | {"operation": operation, "syncResult": dict(revisions)}

    def _finish_deletions(self) -> None:
        """The resources finalizer: what the Application applied goes with it, the claim with its weights as well."""
        for app in self._store.find("Application", NAMESPACE):
            if "deletionTimestamp" in app["metadata"]:
                namespace, name = app["spec"]["destination"]["namespace"], app["metadata"]["name"]
                for kind in ("Deployment", "Service", "PersistentVolumeClaim", "ConfigMap"):
                    for obj in self._store.find(kind, namespace):
                        if (obj["metadata"].get("annotations") or {}).get("argocd.argoproj.io/tracking-id") == name:
                            self._store.remove(kind, obj["metadata"]["name"], namespace)
                self._store.remove("Application", name, NAMESPACE)

    def _judge_health(self) -> None:
        for app in self._store.find("Application", NAMESPACE):
            namespace, name = app["spec"]["destination"]["namespace"], app["metadata"]["name"]
            mine = [d for d in self._store.find("Deployment", namespace) if _tracked(d) == name]
            states = {_health(deployment) for deployment in mine}
            worst = next((s for s in ("Degraded", "Progressing", "Healthy") if s in states), "")
            if not worst:
                worst = "Healthy" if app["status"].get("history") else "Missing"
            self._status(name, health={"status": worst})

    def _update(self, name: str, change: Any) -> None:
        if self._store.get("Application", name, NAMESPACE) is not None:
            self._store.update("Application", name, NAMESPACE, change)

    def _status(self, name: str, **fields: Any) -> None:
        self._update(name, lambda live: live["status"].update(fields))


def _load(text: str) -> Any:
    return next(iter(_parsed(text)), None)


def _documents(text: str) -> list[Object]:
    return [copied(document) for document in _parsed(text) if isinstance(document, dict)]


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[Any, ...]:
    """The documents of a file: the same few files are compared and rendered again and again."""
    return tuple(YAML(typ="safe").load_all(text))


def _options(app: Object) -> tuple[str, ...]:
    return tuple((app["spec"].get("syncPolicy") or {}).get("syncOptions") or ())


def _sources_of(app: Object) -> list[Object]:
    spec = app["spec"]
    return list(spec.get("sources") or [spec["source"]])


def _revisions(app: Object, commit: str) -> Object:
    """`revision` for one source, `revisions` for several; a chart's revision is its version."""
    if not app["spec"].get("sources"):
        return {"revision": commit}
    return {"revisions": [s.get("targetRevision", "") if "chart" in s else commit for s in app["spec"]["sources"]]}


def _tracked(obj: Object) -> str | None:
    return (obj["metadata"].get("annotations") or {}).get("argocd.argoproj.io/tracking-id")


def _render(app: Object, files: dict[str, str]) -> list[Object]:
    """The manifests that the Application's sources come to."""
    manifests: list[Object] = []
    for source in _sources_of(app):
        if "path" in source:
            manifests += _kustomize(source["path"].rstrip("/"), files)
        elif helm := source.get("helm"):
            manifests += _chart(source, helm, files)
    name, namespace = app["metadata"]["name"], app["spec"]["destination"].get("namespace", "default")
    known = [manifest for manifest in manifests if manifest.get("kind") in BY_KIND]
    for manifest in known:
        if BY_KIND[manifest["kind"]].namespaced:
            manifest["metadata"].setdefault("namespace", namespace)
        manifest["metadata"].setdefault("annotations", {})["argocd.argoproj.io/tracking-id"] = name
    return known


def _kustomize(path: str, files: dict[str, str]) -> list[Object]:
    listed = files.get(f"{path}/kustomization.yaml")
    if listed is None:
        return [manifest for text in files.values() for manifest in _documents(text)]
    kustomization = _load(listed)
    manifests: list[Object] = []
    for resource in kustomization.get("resources") or ():
        wanted = posixpath.normpath(f"{path}/{resource}")
        if wanted not in files:
            raise SyncError(f"ComparisonError: kustomize build {path} failed: {resource}: no such file or directory")
        manifests += _documents(files[wanted])
    for manifest in manifests:
        if kustomization.get("namespace"):
            manifest["metadata"]["namespace"] = kustomization["namespace"]
    return manifests


def _chart(source: Object, helm: Object, files: dict[str, str]) -> list[Object]:
    """A chart of a proxy: its config as a ConfigMap, and a Deployment that rolls when the config changes."""
    release = helm.get("releaseName") or source["chart"]
    values: Object = {}
    for value_file in helm.get("valueFiles") or ():
        values |= _load(files.get(value_file.removeprefix("$values/"), "")) or {}
    config = json.dumps(values.get("proxy_config") or {}, indent=1)
    labels = {"app.kubernetes.io/name": release}
    template = {
        "metadata": {
            "labels": labels,
            "annotations": {"checksum/config": hashlib.sha256(config.encode()).hexdigest()},
        },
        "spec": {"containers": [{"name": release, "image": f"{source['chart']}:{source.get('targetRevision', '')}"}]},
    }
    spec = {"replicas": values.get("replicaCount", 1), "selector": {"matchLabels": labels}, "template": template}
    return [
        {
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": {"name": f"{release}-config"},
            "data": {"config": config},
        },
        {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": release, "labels": labels}, "spec": spec},
    ]


def _keep_replicas(app: Object, manifest: Object, live: Object) -> None:
    """`RespectIgnoreDifferences`: an ignored `/spec/replicas` stays what whoever operates the Deployment made it."""
    for ignored in app["spec"].get("ignoreDifferences") or ():
        mine = ignored.get("name") in {None, manifest["metadata"]["name"]}
        pointed = "/spec/replicas" in (ignored.get("jsonPointers") or ())
        if mine and pointed:
            manifest["spec"] = copied(manifest["spec"]) | {"replicas": live["spec"].get("replicas", 1)}


def _storage(claim: Object) -> float:
    asked = str(claim["spec"]["resources"]["requests"]["storage"])
    return float(asked[:-2]) * UNITS[asked[-2:]] if asked[-2:] in UNITS else float(asked)


def _health(deployment: Object) -> str:
    status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    rolled = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return "Healthy" if rolled and status.get("readyReplicas", 0) >= wanted else "Progressing"
