"""Every client of a deployer fulfils the same contract; a new client needs one example here.

`tests/manifests/test_deployer_contract.py` is the same test for the repository's side.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient

from bot.clients.argocd import ArgoCD
from bot.clients.deployer import Deployer, SyncFailed
from bot.clients.flux import Flux
from bot.clients.workload import Workload, workload_of
from bot.errors import BotError
from bot.platform.switches.commit import reverting
from manifests.deployers import deployers
from tests.clients.kube import Object, Wire, application, connected, deployment, time_passes, wait_until

COMMIT = "a" * 40


def argo_application(name: str, *, reverts: bool) -> Object:
    argo = application(name)
    policy = {"automated": {"selfHeal": True}} if reverts else {}
    return argo | {"spec": argo["spec"] | {"syncPolicy": policy}}


def kustomization(name: str, *, reverts: bool) -> Object:
    return {
        "kind": "Kustomization",
        "metadata": {"name": name, "namespace": "flux-system"},
        "spec": {
            "path": f"./serving/{name}",
            "sourceRef": {"kind": "GitRepository", "name": "ops"},
            "suspend": not reverts,
        },
        "status": {"lastAppliedRevision": f"main@sha1:{COMMIT}", "observedGeneration": 1},
    }


async def _all_include(later: str, earlier: str) -> bool:
    return True


@dataclass(frozen=True)
class Example:
    """A client, an object of its deployer, and the marks that the deployer leaves on its objects."""

    client: Callable[[ApiClient], Deployer]
    make: Callable[..., Object]
    marks: dict[str, dict[str, str]]
    always_reverts: bool = False
    """True if the deployer reverts replicas regardless of its object."""


EXAMPLES = {
    "Argo CD": Example(
        lambda api: ArgoCD(api, "argocd", "acme/platform"),
        argo_application,
        {"annotations": {"argocd.argoproj.io/tracking-id": "coder-chat:apps/Deployment:serving/coder-chat"}},
    ),
    "Flux": Example(
        lambda api: Flux(api, "flux-system", ("serving",), _all_include),
        kustomization,
        {"labels": {"kustomize.toolkit.fluxcd.io/name": "coder-chat"}},
        always_reverts=True,
    ),
}


@pytest.fixture(params=[deployer.name for deployer in deployers()])
def example(request: pytest.FixtureRequest) -> Example:
    assert request.param in EXAMPLES, f"add a client of {request.param} to EXAMPLES"
    return EXAMPLES[request.param]


@pytest.fixture
async def client(wire: Wire, example: Example) -> AsyncIterator[Deployer]:
    async with connected(wire) as api:
        yield example.client(api)


def deployed(example: Example) -> Workload:
    """A Deployment with the deployer's marks."""
    live: dict[str, Any] = deployment()
    for key, marks in example.marks.items():
        live["metadata"][key] = (live["metadata"].get(key) or {}) | marks
    return workload_of(live, ())


async def test_an_application_is_found_by_its_name_and_by_its_marks(
    wire: Wire, client: Deployer, example: Example
) -> None:
    """The repository is not needed; a Deployment without marks has no application."""
    wire.store.create(example.make("coder-chat", reverts=True))
    wire.store.create(example.make("other", reverts=True))
    assert {listed.name for listed in await client.list()} == {"coder-chat", "other"}
    for applied in (await client.get("coder-chat"), await client.of(deployed(example))):
        assert applied is not None
        assert (applied.name, applied.paths) == ("coder-chat", ("serving/coder-chat",))
    assert await client.get("nobody") is None
    assert await client.get("") is None
    assert await client.of(workload_of(deployment(), ())) is None


@pytest.mark.parametrize(
    ("by", "reverts", "is_commit"),
    [("auto", True, True), ("auto", False, False), ("api", True, False), ("commit", False, True)],
)
async def test_the_switch_depends_on_the_replicas_that_the_deployer_reverts(
    wire: Wire, client: Deployer, example: Example, by: str, reverts: bool, is_commit: bool
) -> None:
    """The setting `switch.by` takes precedence."""
    wire.store.create(example.make("coder-chat", reverts=reverts))
    live = await reverting(client, by, deployed(example))
    assert (live is not None) == (is_commit or (by == "auto" and example.always_reverts))


async def test_a_refresh_is_requested_on_the_application(wire: Wire, client: Deployer, example: Example) -> None:
    """The request may be repeated; an application that does not exist is an error with its name."""
    make = example.make("coder-chat", reverts=True)
    wire.store.create(make)
    await client.refresh("coder-chat")
    await client.refresh("coder-chat")
    stored = wire.store.get(make["kind"], "coder-chat", make["metadata"]["namespace"])
    assert stored
    assert stored["metadata"]["annotations"]
    with pytest.raises(BotError, match="nobody"):
        await client.refresh("nobody")


async def test_the_end_of_an_application_is_awaited(wire: Wire, client: Deployer, example: Example) -> None:
    """An application that is not deleted is an error with its name."""
    make = example.make("coder-chat", reverts=True)
    wire.store.create(make)
    staying = asyncio.create_task(client.wait_gone("coder-chat", timeout=30))
    await wait_until(lambda: wire.count_requests("GET", "watch=true"))
    time_passes(30)
    with pytest.raises(SyncFailed, match="coder-chat"):
        await staying
    waiting = asyncio.create_task(client.wait_gone("coder-chat", timeout=20))
    wire.store.delete(make["kind"], "coder-chat", make["metadata"]["namespace"])
    await waiting
    await client.wait_gone("coder-chat", timeout=20)


async def test_a_client_has_the_name_of_its_deployer(client: Deployer, example: Example) -> None:
    assert EXAMPLES[client.word] is example
