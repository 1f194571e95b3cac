"""The sandbox's Flux. It applies Kustomizations from git repeatedly, which reverts changes in the cluster.

It behaves like kustomize-controller and helm-controller (fluxcd.io/flux/components). A Kustomization is applied at its
interval and when the annotation `reconcile.fluxcd.io/requestedAt` requests it. Server-side apply resets every field in
git, including `replicas`. `status.lastAppliedRevision` has the last applied commit as `main@sha1:COMMIT`.
"""

import asyncio
import posixpath
from collections.abc import Set
from typing import Any

from sandbox.argocd import Git
from sandbox.charts import is_chart, own_chart
from sandbox.clock import Clock
from sandbox.known_charts import known_chart
from sandbox.objects import BY_KIND, Object, ObjectStore, copied
from sandbox.rendering import UNUSUAL, RenderError, documents, generated, known, message_of, placed
from sandbox.substitution import substituted

GROUP = "kustomize.toolkit.fluxcd.io"
REQUESTED = "reconcile.fluxcd.io/requestedAt"
INTERVAL = 600.0  # seconds; a common value
LEAST = 0.5  # minimum seconds of real time between two runs, at any speed of the clock
APPLY_SECONDS = 6.0
DENIED = (
    'Deployment/{name} dry-run failed (Forbidden): admission webhook "validation.gatekeeper.sh" denied the request: '
    "[gpu-quota] the namespace is frozen"
)


class Flux:
    """Deploys the Kustomizations in `store` from `git`, on `clock`'s time."""

    def __init__(self, store: ObjectStore, git: Git, clock: Clock, faults: Set[str]) -> None:
        self._store, self._git, self._clock, self._faults = store, git, clock, faults
        self._installed: dict[tuple[str, str], object] = {}
        """The replicas in the last release of each Deployment that a chart created."""

    async def start(self) -> None:
        """Apply everything in the first commit, so that the platform looks as if it were in use."""
        commit = await self._git.main_commit()
        await self._discover(commit)
        await self._apply_all(commit)

    async def run(self) -> None:
        clock = self._clock
        due = clock.now() + self._pause
        while True:
            version = self._store.version
            if self._is_requested() or clock.now() >= due:
                await clock.sleep(APPLY_SECONDS)
                due = clock.now() + self._pause
                commit = await self._git.main_commit()
                await self._discover(commit)
                await self._apply_all(commit)
            try:
                async with asyncio.timeout(max(0.01, (due - clock.now()) / clock.speed)):
                    await self._store.changed(version)
            except TimeoutError:
                pass

    @property
    def _pause(self) -> float:
        return max(INTERVAL, LEAST * self._clock.speed)

    def _is_requested(self) -> bool:
        return any(
            _requested_at(kustomization) not in (None, _handled_at(kustomization))
            for kustomization in self._store.stored("Kustomization")
        )

    def _kustomizations(self) -> list[Object]:
        return self._store.find("Kustomization")

    async def _discover(self, commit: str) -> None:
        """Create all of Flux's Kustomizations in the repository, as if somebody had bootstrapped the topmost one."""
        declared: dict[tuple[str, str], Object] = {}
        files = await self._git.files_at(commit, "")
        spaces = placed(files)
        for path, text in files.items():
            if path.endswith((".yaml", ".yml")) and GROUP in text:
                try:
                    manifests = documents(text)
                except RenderError:
                    continue
                for manifest in manifests:
                    if manifest.get("kind") == "Kustomization" and str(manifest.get("apiVersion", "")).startswith(
                        GROUP
                    ):
                        manifest["metadata"]["namespace"] = (
                            spaces.get(path) or manifest["metadata"].get("namespace") or "flux-system"
                        )
                        declared[manifest["metadata"]["namespace"], manifest["metadata"]["name"]] = manifest
        for (namespace, name), manifest in declared.items():
            if self._store.get("Kustomization", name, namespace) is None:
                self._store.create(manifest | {"status": {}})
            source = manifest["spec"].get("sourceRef") or {}
            source_namespace = source.get("namespace") or namespace
            if (
                source.get("kind") == "GitRepository"
                and self._store.get("GitRepository", source["name"], source_namespace) is None
            ):
                spec = {"interval": "1m", "ref": {"branch": "main"}, "url": "ssh://git@example.com/platform"}
                meta = {"name": source["name"], "namespace": source_namespace}
                self._store.create({"kind": "GitRepository", "metadata": meta, "spec": spec, "status": {}})
        for kustomization in self._kustomizations():
            if (kustomization["metadata"]["namespace"], kustomization["metadata"]["name"]) not in declared:
                self._store.remove(
                    "Kustomization", kustomization["metadata"]["name"], kustomization["metadata"]["namespace"]
                )

    async def _apply_all(self, commit: str) -> None:
        files, revision = await self._git.files_at(commit, ""), f"main@sha1:{commit}"
        for source in self._store.find("GitRepository"):
            status = {"artifact": {"revision": revision}, "observedGeneration": source["metadata"]["generation"]}
            self._set_status(source, status, "Succeeded", f"stored artifact for revision '{revision}'")
        for kustomization in self._kustomizations():
            if kustomization["spec"].get("suspend"):
                continue
            status = {"lastAttemptedRevision": revision}
            try:
                if "flux-fails" in self._faults:
                    raise RenderError(DENIED.format(name=kustomization["metadata"]["name"]))
                self._apply(kustomization, files)
            except UNUSUAL as e:
                self._set_status(kustomization, status, "ReconciliationFailed", message_of(e), ready=False)
            else:
                status |= {"lastAppliedRevision": revision}
                self._set_status(kustomization, status, "ReconciliationSucceeded", f"Applied revision: {revision}")

    def _apply(self, kustomization: Object, files: dict[str, str]) -> None:
        spec, meta = kustomization["spec"], kustomization["metadata"]
        path = posixpath.normpath(str(spec.get("path") or ".")).strip("/")
        folder = path if path != "." else ""
        if folder and not any(name.startswith(f"{folder}/") for name in files):
            raise RenderError(
                f"kustomization path not found: stat /tmp/kustomization-1/{folder}: no such file or directory"
            )
        components = [
            posixpath.normpath(posixpath.join(folder, str(component))) for component in spec.get("components") or ()
        ]
        for manifest in substituted(kustomization, generated(folder, files, components), files):
            if not known(manifest) or manifest["kind"] == "Kustomization":  # `_discover` creates Kustomizations
                continue
            labels = {f"{GROUP}/name": meta["name"], f"{GROUP}/namespace": meta["namespace"]}
            target = spec.get("targetNamespace") or manifest["metadata"].get("namespace") or "default"
            self._put(manifest, target, labels)
            if manifest["kind"] == "HelmRelease":
                self._release(manifest, target, files)

    def _release(self, release: Object, namespace: str, files: dict[str, str]) -> None:
        """Install the objects of a release and set its status. Without drift detection, helm-controller reverts nothing.

        An upgrade is a three-way merge: it changes the replicas only if they differ from those of the last release.
        """
        name = release["metadata"]["name"]
        live = self._store.get("HelmRelease", name, namespace) or release
        labels = {"helm.toolkit.fluxcd.io/name": name, "helm.toolkit.fluxcd.io/namespace": namespace}
        values = release["spec"].get("values") or {}
        if (live.get("status") or {}).get("observedGeneration") != live["metadata"].get("generation"):
            chart = posixpath.normpath(str(((release["spec"].get("chart") or {}).get("spec") or {}).get("chart") or ""))
            of_repository = own_chart(chart, files, values, name, namespace) if is_chart(chart, files) else None
            objects = known_chart(name, values) if of_repository is None else of_repository
            for manifest in objects or ():
                if manifest["kind"] == "Deployment":
                    self._keep_replicas(manifest, namespace)
                self._put(manifest, namespace, labels)
        self._set_status(live, {}, "UpgradeSucceeded", f"Helm upgrade succeeded for release {namespace}/{name}.v2")

    def _keep_replicas(self, manifest: Object, namespace: str) -> None:
        key, replicas = (namespace, manifest["metadata"]["name"]), manifest["spec"].get("replicas", 1)
        live = self._store.get("Deployment", key[1], namespace)
        if live is not None and self._installed.get(key) == replicas:
            manifest["spec"]["replicas"] = live["spec"].get("replicas", 1)
        self._installed[key] = replicas

    def _put(self, manifest: Object, namespace: str, labels: dict[str, str]) -> None:
        """Apply exactly the fields in the manifest, like server-side apply."""
        kind, meta = manifest["kind"], manifest["metadata"]
        if not BY_KIND[kind].namespaced:
            namespace = ""
            meta.pop("namespace", None)
        else:
            meta["namespace"] = namespace
        meta["labels"] = (meta.get("labels") or {}) | labels
        if self._store.get(kind, meta["name"], namespace) is None:
            self._store.create(copied(manifest))
            return

        def change(live: Object) -> None:
            for field, value in manifest.items():
                if field not in {"metadata", "status"}:
                    live_value = live.get(field)
                    merges = isinstance(value, dict) and isinstance(live_value, dict) and field == "spec"
                    live[field] = (live_value | value) if merges and isinstance(live_value, dict) else value
            live["metadata"]["labels"] = (live["metadata"].get("labels") or {}) | meta["labels"]

        if kind != "PersistentVolumeClaim":
            self._store.update(kind, meta["name"], namespace, change)

    def _set_status(
        self, owner: Object, status: dict[str, Any], reason: str, message: str, *, ready: bool = True
    ) -> None:
        meta = owner["metadata"]
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "reason": reason,
            "message": message,
            "observedGeneration": meta.get("generation", 1),
        }

        def change(live: Object) -> None:
            known_before = (live.get("status") or {}).get("conditions") or [{}]
            same = {k: v for k, v in known_before[0].items() if k != "lastTransitionTime"} == condition
            updated = known_before[0] if same else condition | {"lastTransitionTime": self._store.timestamp()}
            observed = {"observedGeneration": live["metadata"]["generation"], "conditions": [updated]}
            requested_at = _requested_at(live)
            live["status"] = (
                (live.get("status") or {})
                | status
                | observed
                | ({"lastHandledReconcileAt": requested_at} if requested_at else {})
            )

        self._store.update(owner["kind"], meta["name"], meta["namespace"], change)


def _requested_at(kustomization: Object) -> str | None:
    requested = (kustomization["metadata"].get("annotations") or {}).get(REQUESTED)
    return str(requested) if requested else None


def _handled_at(kustomization: Object) -> str | None:
    handled = (kustomization.get("status") or {}).get("lastHandledReconcileAt")
    return str(handled) if handled else None
