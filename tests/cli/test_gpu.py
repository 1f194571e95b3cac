"""`stoker gpu`, as a person runs it: a process with only a kubeconfig (a fork of a process that has imported Stoker)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.domain.leases import Lease
from tests.bot.test_idle import a_lease
from tests.clients.kube import Object, Wire, deployment, pod, wait_until
from tests.forked import start_stoker

PATIENCE = 250.0


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire() as api:
        yield api


async def run(kubeconfig: Path, *words: str) -> tuple[int | None, str, str]:
    """Run the command with an environment that has neither Slack nor Redis."""
    process = await start_stoker(*words, environment={"KUBECONFIG": str(kubeconfig)}, directory=kubeconfig.parent)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode, out.decode(), err.decode()


def marked(name: str, lease: Lease) -> Object:
    up = deployment(name, replicas=1)
    up["metadata"]["annotations"] = {"stoker.dev/lease": lease.mark}
    return up


async def ends(wire: Wire, name: str) -> None:
    """Remove the pod once the Deployment is at zero, as the cluster does."""
    await wait_until(lambda: (wire.store.get("Deployment", name, "serving") or {})["spec"]["replicas"] == 0, PATIENCE)
    wire.store.remove("Pod", f"{name}-1", "serving")


async def test_a_model_can_be_brought_down_with_only_the_cluster(wire: Wire, tmp_path: Path) -> None:
    """The command ends when the pod is gone, and reports that the node is still draining."""
    wire.store.create(marked("coder-chat", a_lease()))
    wire.store.create(pod())
    running = asyncio.create_task(run(wire.kubeconfig(tmp_path / "k"), "gpu", "down", "coder-chat"))
    await ends(wire, "coder-chat")
    code, out, err = await running
    assert (code, err) == (0, "")
    assert "coder-chat: down" in out
    assert "drained" in out


async def test_a_deployer_that_starts_it_again_is_named(wire: Wire, tmp_path: Path) -> None:
    """The model is stopped first, because reading the deployer may fail."""
    up = marked("coder-chat", a_lease())
    up["metadata"]["annotations"]["argocd.argoproj.io/tracking-id"] = "ai-coder:apps/Deployment:serving/coder-chat"
    wire.store.create(up)
    wire.store.create(pod())
    policy = {"automated": {"selfHeal": True}}
    meta = {"name": "ai-coder", "namespace": "argocd"}
    wire.store.create({"kind": "Application", "metadata": meta, "spec": {"source": {}, "syncPolicy": policy}})
    running = asyncio.create_task(run(wire.kubeconfig(tmp_path / "k"), "gpu", "down", "coder-chat"))
    await ends(wire, "coder-chat")
    code, out, err = await running
    assert (code, "coder-chat: down" in out) == (0, True)
    assert "Argo CD starts it again if git has `replicas: 1`, because Application ai-coder reverts" in err


async def test_all_means_all_models_of_the_namespace(wire: Wire, tmp_path: Path) -> None:
    """A workload in another namespace is named and not changed; the exit code shows that not everything is off."""
    for name in ("coder-chat", "coder-fim"):
        wire.store.create(deployment(name, replicas=1))
        wire.store.create(pod(f"{name}-1", name))
    stranger = deployment("notebook", replicas=1)
    stranger["metadata"]["namespace"] = "research"
    wire.store.create(stranger)
    running = asyncio.create_task(run(wire.kubeconfig(tmp_path / "k"), "gpu", "down", "--all"))
    await asyncio.gather(ends(wire, "coder-chat"), ends(wire, "coder-fim"))
    code, out, err = await running
    assert code == 1
    assert "coder-chat: down" in out
    assert "coder-fim: down" in out
    assert "research/notebook uses a GPU too" in err


async def test_an_unknown_name_is_refused_with_the_names_of_the_running_models(wire: Wire, tmp_path: Path) -> None:
    """The error is one line without a traceback."""
    wire.store.create(deployment(replicas=1))
    code, _, err = await run(wire.kubeconfig(tmp_path / "k"), "gpu", "down", "coder-chad")
    assert code == 2
    assert err == "stoker: There is no GPU model coder-chad in namespace serving. These are up: coder-chat.\n"


async def test_the_status_is_read_from_the_cluster(wire: Wire, tmp_path: Path) -> None:
    """The holder is on the Deployment, and the cost follows from the node's age."""
    kubeconfig = wire.kubeconfig(tmp_path / "k")
    assert await run(kubeconfig, "gpu", "status") == (0, "Nothing uses a GPU.\n", "")
    wire.store.create(marked("coder-chat", a_lease()))
    wire.store.create(pod())
    wire.store.create({"kind": "Node", "metadata": {"name": "gpu-1"}})
    code, out, err = await run(kubeconfig, "gpu", "status")
    assert (code, err) == (0, "")
    assert "serving/coder-chat  not ready  held by U1 since 03:00 UTC until 07:00 UTC  node gpu-1 bills for" in out


async def test_a_cluster_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    """The error names the setting."""
    code, _, err = await run(tmp_path / "nowhere", "gpu", "status")
    assert code == 2
    assert err == f"stoker: KUBECONFIG is {tmp_path / 'nowhere'}, which does not exist.\n"
