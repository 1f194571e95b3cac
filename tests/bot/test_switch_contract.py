"""Every way to start and stop a model fulfils the same contract; a new way needs one example here."""

import asyncio
import json
import pkgutil
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from kubernetes.aio.client import ApiClient
from pydantic import SecretStr
from ruamel.yaml import YAML

from bot.clients.cluster import Cluster, StaleFence
from bot.clients.deployer import Deployer
from bot.clients.flux import REQUESTED, Flux
from bot.clients.github import GitHub
from bot.clients.workload import LEASE
from bot.clock import Clock
from bot.domain.leases import Lease
from bot.engine.lifecycle import NotAllowed
from bot.git.repository import Repository
from bot.platform import switches
from bot.platform.deploying import Applications
from bot.platform.switch import Switch
from bot.platform.switches import Method
from bot.platform.switches.api import ByApi
from bot.platform.switches.commit import ByCommit
from bot.settings.config import Config
from tests.bot.git_remote import WHEN, commit, git, repository, work
from tests.clients.kube import Object, Wire, connected, deployment

__all__ = ["work"]

MODEL, FILE = "coder-chat", "serving/coder-chat/deployment.yaml"
LABELS = {"kustomize.toolkit.fluxcd.io/name": "serving", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}


@dataclass
class Stage:
    """A cluster and a repository with one unused model."""

    wire: Wire
    api: ApiClient
    http: httpx.AsyncClient
    repository: Repository
    work: Path

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.api, "serving")

    @property
    def deployer(self) -> Deployer:
        return Flux(self.api, "flux-system", ("serving",), self.repository.includes)

    @property
    def live(self) -> Object:
        live = self.wire.store.get("Deployment", MODEL, "serving")
        assert live
        return live

    def state(self) -> tuple[int, int | None]:
        """The replicas, and the fence of the lease on the Deployment."""
        mark = (self.live["metadata"].get("annotations") or {}).get(LEASE)
        return self.live["spec"]["replicas"], json.loads(mark)["fence"] if mark else None

    def pulled(self) -> str:
        """The head of the branch, in the person's clone."""
        git("pull", "--quiet", "origin", "main", cwd=self.work)
        return git("rev-parse", "HEAD", cwd=self.work)

    def apply(self) -> None:
        """Apply git like kustomize-controller after a request, or at its next interval."""
        head = self.pulled()
        replicas = YAML(typ="safe").load((self.work / FILE).read_text())["spec"]["replicas"]
        self.wire.store.update("Deployment", MODEL, "serving", lambda live: live["spec"].update(replicas=replicas))

        def applied(live: Object) -> None:
            requested = (live["metadata"].get("annotations") or {}).get(REQUESTED)
            revision = f"main@sha1:{head}"
            live["status"] |= {"lastAppliedRevision": revision, "lastAttemptedRevision": revision}
            live["status"] |= {"lastHandledReconcileAt": requested}

        self.wire.store.update("Kustomization", "serving", "flux-system", applied)


def by_commit(stage: Stage) -> Method:
    async def token() -> SecretStr:
        return SecretStr("")

    config = Config.model_validate({"flux": {"namespace": "flux-system"}})
    deployer, clock = stage.deployer, Clock()
    applications = Applications(deployer, stage.repository, config, clock)
    github = GitHub(stage.http, "acme/platform", token)
    return ByCommit(deployer, stage.cluster, github, stage.repository, applications, config, clock)


@dataclass(frozen=True)
class Example:
    method: Callable[[Stage], Method]
    deployed_by_flux: bool
    """True if the deployer reverts changes through the API."""


EXAMPLES = {
    "api": Example(lambda stage: ByApi(stage.cluster), deployed_by_flux=False),
    "commit": Example(by_commit, deployed_by_flux=True),
}


@pytest.fixture(params=[module.name for module in pkgutil.iter_modules(switches.__path__)])
def example(request: pytest.FixtureRequest) -> Example:
    assert request.param in EXAMPLES, f"add a method of {request.param} to EXAMPLES"
    return EXAMPLES[request.param]


@pytest.fixture
async def stage(tmp_path: Path, work: Path, example: Example) -> AsyncIterator[Stage]:
    stored = deployment(MODEL)
    with (work / FILE).open("w") as stream:
        YAML().dump({"apiVersion": "apps/v1"} | stored, stream)
    commit(work, "a model")
    async with Wire() as wire, connected(wire) as api, httpx.AsyncClient() as http:
        live = deployment(MODEL)
        live["metadata"]["labels"] = live["metadata"]["labels"] | (LABELS if example.deployed_by_flux else {})
        wire.store.create(live)
        spec = {"path": "./serving", "sourceRef": {"kind": "GitRepository", "name": "ops"}}
        ready = {"type": "Ready", "status": "True", "reason": "ReconciliationSucceeded", "message": ""}
        status = {"observedGeneration": 1, "conditions": [ready]}
        wire.store.create(
            {"kind": "GitRepository", "metadata": {"name": "ops", "namespace": "flux-system"}, "spec": {}}
        )
        place = {"name": "serving", "namespace": "flux-system"}
        wire.store.create({"kind": "Kustomization", "metadata": place, "spec": spec, "status": status})
        stage = Stage(wire, api, http, repository(tmp_path, str(tmp_path / "remote.git")), work)
        controller = asyncio.create_task(_apply_when_requested(stage))
        yield stage
        controller.cancel()
        with suppress(asyncio.CancelledError):
            await controller


async def _apply_when_requested(stage: Stage) -> None:
    while True:
        kustomization = stage.wire.store.get("Kustomization", "serving", "flux-system") or {}
        requested = (kustomization["metadata"].get("annotations") or {}).get(REQUESTED)
        if requested and requested != kustomization["status"].get("lastHandledReconcileAt"):
            stage.apply()
        await asyncio.sleep(0.01)


def lease(fence: int) -> Lease:
    return Lease(model=MODEL, op=f"op-{fence}", holder="U0DEV", fence=fence, hold=timedelta(hours=1), claimed=WHEN)


async def test_a_switch_applies_to_its_own_workload(stage: Stage, example: Example) -> None:
    assert await example.method(stage).applies(await stage.cluster.workload(MODEL))


async def test_a_model_is_started_and_stopped_once(stage: Stage, example: Example) -> None:
    """The lease is on its Deployment while it is up. A repeated call changes nothing, in the cluster or in git."""
    method = example.method(stage)
    assert await method.set(MODEL, 1, lease=lease(7), fence=7, session=None)
    assert stage.state() == (1, 7)
    head, version = stage.pulled(), stage.live["metadata"]["resourceVersion"]
    assert not await method.set(MODEL, 1, lease=lease(7), fence=7, session=None)
    assert (stage.pulled(), stage.live["metadata"]["resourceVersion"]) == (head, version)
    assert await method.set(MODEL, 0, lease=None, fence=7, session=lease(7))
    assert stage.state() == (0, None)
    assert not await method.set(MODEL, 0, lease=None, fence=7, session=lease(7))


async def test_the_deployer_keeps_the_replicas(stage: Stage, example: Example) -> None:
    """The deployer applies git again, as at each interval; only the replicas differ from before."""
    method, before = example.method(stage), (stage.work / FILE).read_text()
    for replicas, lease_or_none in ((1, lease(7)), (0, None)):
        await method.set(MODEL, replicas, lease=lease_or_none, fence=7, session=lease(7))
        if example.deployed_by_flux:
            stage.apply()
        assert stage.state()[0] == replicas
    stage.pulled()
    assert (stage.work / FILE).read_text() == before


async def test_an_older_lease_changes_nothing(stage: Stage, example: Example) -> None:
    method = example.method(stage)
    await method.set(MODEL, 1, lease=lease(8), fence=8, session=None)
    head = stage.pulled()
    for replicas, lease_or_none in ((1, lease(7)), (0, None)):
        with pytest.raises(StaleFence):
            await method.set(MODEL, replicas, lease=lease_or_none, fence=7, session=lease(7))
    assert (stage.state(), stage.pulled()) == ((1, 8), head)


async def test_a_switch_stops_a_model_without_a_lease(stage: Stage, example: Example) -> None:
    """Somebody else has started the model, so there is no fence for it."""
    method = example.method(stage)
    await method.set(MODEL, 1, lease=lease(7), fence=7, session=None)
    await method.set(MODEL, 0, lease=None, fence=None, session=None)
    assert stage.state() == (0, None)


async def test_a_switch_refuses_a_model_that_is_not_a_deployment(stage: Stage) -> None:
    """Stoker has no right to scale a StatefulSet: the refusal names its file."""
    text = (stage.work / FILE).read_text()
    (stage.work / FILE).write_text(text.replace("kind: Deployment", "kind: StatefulSet"))
    head = commit(stage.work, "a StatefulSet")
    method = by_commit(stage)
    assert isinstance(method, ByCommit)
    switch = Switch(method, ByApi(stage.cluster), stage.cluster, stage.repository, method.config)
    with pytest.raises(NotAllowed) as refused:
        await switch.refuse_if_foreign(MODEL, head)
    assert f"is a StatefulSet ({FILE}:1). Stoker only starts and stops Deployments" in refused.value.message
