"""Flux as a deployer: a commit is applied when Flux reports it, and errors have Flux's own messages."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bot.clients.deployer import SyncFailed
from bot.clients.flux import REQUESTED, Flux, application_of, commit_of
from bot.clients.workload import workload_of
from bot.errors import BotError
from bot.platform.switches.commit import reverting
from tests.clients.kube import Wire, connected, deployment, hurry, wait_until

OLD, NEW = "a" * 40, "b" * 40


def kustomization(name: str = "apps", *, applied: str = OLD, **changes: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "reason": "ReconciliationSucceeded", "message": "Applied revision"}
    revision = f"main@sha1:{applied}"
    status = {"lastAppliedRevision": revision, "lastAttemptedRevision": revision, "observedGeneration": 1}
    return {
        "kind": "Kustomization",
        "metadata": {"name": name, "namespace": "flux-system"},
        "spec": {"path": "./apps", "sourceRef": {"kind": "GitRepository", "name": "flux-system"}},
        "status": status | {"conditions": [ready]},
    } | changes


@pytest.fixture
async def flux(wire: Wire) -> AsyncIterator[Flux]:
    async def includes(later: str, earlier: str) -> bool:
        return (later, earlier) in ((NEW, OLD), (NEW, NEW), (OLD, OLD))

    async with connected(wire) as client:
        yield Flux(client, "flux-system", ("llm",), includes)


def report_applied(wire: Wire, commit: str, **ready: str) -> None:
    """Write the status that kustomize-controller writes once it has tried a commit and processed the request."""

    def change(live: dict[str, Any]) -> None:
        requested_at = (live["metadata"].get("annotations") or {}).get(REQUESTED)
        condition = live["status"]["conditions"][0] | ready
        live["status"] |= {"conditions": [condition], "lastHandledReconcileAt": requested_at}
        live["status"]["lastAttemptedRevision"] = f"main@sha1:{commit}"
        if not ready:
            live["status"]["lastAppliedRevision"] = f"main@sha1:{commit}"

    wire.store.update("Kustomization", "apps", "flux-system", change)


async def test_a_commit_is_waited_for_until_flux_has_applied_it(wire: Wire, flux: Flux) -> None:
    wire.store.create(
        {"kind": "GitRepository", "metadata": {"name": "flux-system", "namespace": "flux-system"}, "spec": {}}
    )
    wire.store.create(kustomization())
    waiting = asyncio.create_task(flux.sync("apps", NEW, actor="dev", timeout=20))
    while not (wire.store.get("Kustomization", "apps", "flux-system") or {})["metadata"].get("annotations"):
        await asyncio.sleep(0.01)
    source = wire.store.get("GitRepository", "flux-system", "flux-system")
    assert source
    assert REQUESTED in source["metadata"]["annotations"]
    assert not waiting.done()
    report_applied(wire, NEW)
    assert (await waiting).revisions == (NEW,)


async def test_an_error_has_fluxs_message(wire: Wire, flux: Flux) -> None:
    wire.store.create(kustomization())
    waiting = asyncio.create_task(flux.sync("apps", NEW, actor="dev", timeout=600))
    message = "kustomization path not found: stat /tmp/kustomization-1/apps: no such file or directory"
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    report_applied(wire, NEW, status="False", reason="ArtifactFailed", message=message)
    await hurry(waiting.done)
    with pytest.raises(SyncFailed, match="could not apply apps: ArtifactFailed: kustomization path not found"):
        await waiting


async def test_a_suspended_kustomization_is_not_waited_for(wire: Wire, flux: Flux) -> None:
    live_object = kustomization()
    wire.store.create(live_object | {"spec": live_object["spec"] | {"suspend": True}})
    with pytest.raises(SyncFailed, match=r"apps is suspended.*flux resume kustomization apps"):
        await flux.sync("apps", NEW, actor="dev", timeout=20)


async def test_a_release_that_is_not_upgraded_yet_is_waited_for(wire: Wire, flux: Flux) -> None:
    """A Kustomization is ready when the HelmRelease is applied, which happens before its chart is ready."""
    wire.store.create(kustomization(applied=NEW))
    labels = {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
    failed = {
        "type": "Ready",
        "status": "False",
        "reason": "UpgradeFailed",
        "message": "Helm upgrade failed: timed out",
    }
    wire.store.create(
        {
            "kind": "HelmRelease",
            "metadata": {"name": "vllm", "namespace": "llm", "labels": labels},
            "spec": {},
            "status": {"observedGeneration": 1, "conditions": [failed]},
        }
    )

    async def always(_: str) -> bool:
        return True

    waiting = asyncio.create_task(flux.wait_synced("apps", NEW, includes=always, actor="dev", timeout=600))
    await hurry(waiting.done)
    with pytest.raises(SyncFailed, match="UpgradeFailed: Helm upgrade failed: timed out"):
        await waiting


@pytest.mark.parametrize(
    ("revision", "commit"),
    [
        (f"main@sha1:{NEW}", NEW),
        (f"main/{NEW}", NEW),
        (f"sha1:{NEW}", NEW),
        ("6.5.4", ""),
        ("latest@sha256:" + "c" * 64, ""),
    ],
)
def test_revisions_of_every_release_of_flux_are_read(revision: str, commit: str) -> None:
    assert commit_of(revision) == commit


def test_a_kustomization_reverts_replicas_and_has_no_cost_gate() -> None:
    application = application_of(kustomization())
    assert (application.automated, application.reverts_replicas, application.sync, application.paths) == (
        True,
        True,
        "Synced",
        ("apps",),
    )


DRIFT = {"mode": "enabled"}


@pytest.mark.parametrize(
    ("detection", "reverts"),
    [
        ({}, False),
        ({"mode": "warn"}, False),
        (DRIFT, True),
        (DRIFT | {"ignore": [{"paths": ["/spec/replicas"]}]}, False),
        (DRIFT | {"ignore": [{"paths": ["/spec/replicas"], "target": {"kind": "StatefulSet"}}]}, True),
    ],
)
async def test_a_release_reverts_replicas_only_with_drift_detection(
    wire: Wire, flux: Flux, detection: dict[str, Any], reverts: bool
) -> None:
    """Its Kustomization reverts changes of its own objects. Charts label the Deployment with the release's name."""
    labels = {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
    meta = {"name": "vllm", "namespace": "llm", "labels": labels}
    wire.store.create({"kind": "HelmRelease", "metadata": meta, "spec": {"driftDetection": detection}, "status": {}})
    for name in ("apps", "vllm"):
        wire.store.create(kustomization(name))
    installed = deployment("vllm")
    installed["metadata"]["labels"] = {
        "app.kubernetes.io/instance": "vllm",
        "helm.toolkit.fluxcd.io/name": "vllm",
        "helm.toolkit.fluxcd.io/namespace": "llm",
    }
    application = await flux.of(workload_of(installed, ()))
    assert application is not None
    assert (application.name, application.reverts_replicas) == ("apps", reverts)


async def test_a_kustomization_beside_its_models_is_found(wire: Wire, flux: Flux) -> None:
    """In many repositories the Kustomization is in the namespace of its objects, and its source in Flux's namespace."""
    meta = {"name": "flux-system", "namespace": "flux-system"}
    wire.store.create({"kind": "GitRepository", "metadata": meta, "spec": {}})
    spec = {"path": "./apps/vllm", "sourceRef": {"kind": "GitRepository", **meta}}
    wire.store.create(kustomization("vllm", metadata={"name": "vllm", "namespace": "llm"}, spec=spec))
    assert [listed.name for listed in await flux.list()] == ["vllm"]
    await flux.refresh("vllm")
    for kind, name, namespace in (("Kustomization", "vllm", "llm"), ("GitRepository", "flux-system", "flux-system")):
        live = wire.store.get(kind, name, namespace)
        assert live
        assert REQUESTED in live["metadata"]["annotations"]


async def test_one_name_in_two_namespaces_is_two_kustomizations(wire: Wire, flux: Flux) -> None:
    """The label on the Deployment names its release; a name without the label is refused."""
    meta = {"name": "flux-system", "namespace": "flux-system"}
    wire.store.create({"kind": "GitRepository", "metadata": meta, "spec": {}})
    wire.store.create(kustomization())
    wire.store.create(kustomization(metadata={"name": "apps", "namespace": "llm"}))
    assert {listed.name for listed in await flux.list()} == {"flux-system/apps", "llm/apps"}
    workload = deployment("vllm")
    labels = {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "llm"}
    workload["metadata"]["labels"] = labels
    application = await flux.of(workload_of(workload, ()))
    assert application
    assert application.name == "llm/apps"
    await flux.refresh(application.name)
    annotated = [
        (wire.store.get("Kustomization", "apps", namespace) or {})["metadata"] for namespace in ("flux-system", "llm")
    ]
    assert [REQUESTED in (metadata.get("annotations") or {}) for metadata in annotated] == [False, True]
    waiting = asyncio.create_task(flux.wait_gone("llm/apps", timeout=600))
    wire.store.delete("Kustomization", "apps", "llm")
    await waiting
    assert (await flux.get("apps") or application).name == "apps"


async def test_an_ambiguous_name_is_refused(wire: Wire, flux: Flux) -> None:
    wire.store.create(kustomization())
    wire.store.create(kustomization(metadata={"name": "apps", "namespace": "llm"}))
    with pytest.raises(BotError, match="each of the namespaces flux-system and llm: name one as NAMESPACE/apps"):
        await flux.refresh("apps")


@pytest.mark.parametrize(
    ("kind", "scaler", "by_commit"),
    [("InferenceService", "", False), ("InferenceService", "none", True), ("LLMInferenceService", "", True)],
)
async def test_kserve_decides_who_reverts_its_replicas(
    wire: Wire, flux: Flux, kind: str, scaler: str, by_commit: bool
) -> None:
    """KServe gives its Deployments the labels of a service, including Flux's, although Flux never reverts these replicas."""
    wire.store.create(kustomization())
    workload = deployment("chat-predictor")
    workload["metadata"] |= {
        "labels": {"kustomize.toolkit.fluxcd.io/name": "apps"},
        "annotations": {"serving.kserve.io/autoscalerClass": scaler},
        "ownerReferences": [{"kind": kind, "name": "chat", "controller": True}],
    }
    application = await reverting(flux, "auto", workload_of(workload, ()))
    assert (application is not None) == by_commit
    assert await reverting(flux, "api", workload_of(workload, ())) is None
