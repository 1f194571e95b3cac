"""A volume that grows before the merge of a swap: whether it can grow, when it has grown, and errors."""

import asyncio
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient

from bot.clients import volume
from bot.clients.kube import Conflict, Kube
from bot.clients.volume import CannotStage, Growth, Volumes
from tests.clients.kube import Wire, connected, wait_until
from tests.clients.test_staging_job import CLAIM, claim, storage_class, user

GROWTH = Growth(claim=CLAIM, current="20Gi", target="40Gi")
FAILED = {"type": "ControllerResizeError", "status": "True", "message": "quota of the project is exhausted."}


@pytest.fixture
async def wire() -> Any:
    async with Wire() as api:
        api.store.create(storage_class() | {"allowVolumeExpansion": True})
        api.store.create(claim(bound=True))
        report(api, capacity={"storage": "20Gi"})
        yield api


@pytest.fixture
async def volumes(wire: Wire) -> Any:
    async with connected(wire) as api:
        yield volumes_of(api)


def volumes_of(api: ApiClient) -> Volumes:
    return Volumes(Kube(api), "serving")


def report(wire: Wire, **status: Any) -> None:
    """Kubernetes' report about the claim."""
    wire.store.update(
        "PersistentVolumeClaim", CLAIM, "serving", lambda live: live.update(status=live["status"] | status)
    )


def requested(wire: Wire) -> str:
    live = wire.store.get("PersistentVolumeClaim", CLAIM, "serving") or {}
    return str(live["spec"]["resources"]["requests"]["storage"])


@pytest.mark.parametrize(("size", "grows"), [("40Gi", True), ("20Gi", False), ("10Gi", False), ("21474836481", True)])
async def test_a_volume_grows_only_if_it_is_too_small(volumes: Volumes, size: str, grows: bool) -> None:
    assert bool(await volumes.growth(CLAIM, size)) is grows


async def test_a_growth_ends_when_the_volume_is_larger(wire: Wire, volumes: Volumes) -> None:
    """The call waits for the growth, because a download into the old size would fill the volume."""
    growing = asyncio.create_task(volumes.grow(GROWTH))
    await wait_until(lambda: requested(wire) == "40Gi")
    await wait_until(lambda: wire.count_requests("GET", "persistentvolumeclaims") >= 3)
    assert not growing.done()
    report(wire, capacity={"storage": "40Gi"})
    await asyncio.wait_for(growing, 90)


async def test_a_killed_bot_does_not_request_the_growth_again(wire: Wire, volumes: Volumes) -> None:
    for _ in range(2):
        growing = asyncio.create_task(volumes.grow(GROWTH))
        await wait_until(lambda: requested(wire) == "40Gi")
        growing.cancel()
        await asyncio.gather(growing, return_exceptions=True)
    report(wire, capacity={"storage": "40Gi"})
    await volumes.grow(GROWTH)
    assert wire.count_requests("PATCH", "persistentvolumeclaims") == 1


async def test_a_larger_request_of_somebody_else_is_not_reverted(wire: Wire, volumes: Volumes) -> None:
    def larger(live: dict[str, Any]) -> None:
        live["spec"]["resources"]["requests"]["storage"] = "80Gi"

    wire.before_patch = lambda: wire.store.update("PersistentVolumeClaim", CLAIM, "serving", larger)
    with pytest.raises(Conflict):
        await volumes.grow(GROWTH)
    assert requested(wire) == "80Gi"


async def test_a_file_system_that_grows_with_the_next_pod_is_not_waited_for(wire: Wire, volumes: Volumes) -> None:
    pending = {"type": "FileSystemResizePending", "status": "True", "message": ""}
    wire.store.create(user(ready=True))
    growing = asyncio.create_task(volumes.grow(GROWTH))
    await wait_until(lambda: requested(wire) == "40Gi")
    report(wire, conditions=[pending])
    reads = wire.count_requests("GET", "persistentvolumeclaims")
    await wait_until(lambda: wire.count_requests("GET", "persistentvolumeclaims") > reads + 1)
    assert not growing.done(), "the wait ended before the node has resized the file system"
    wire.store.remove("Pod", "coder-chat-1", "serving")
    await asyncio.wait_for(growing, 90)


async def test_a_failed_growth_has_kubernetes_message(wire: Wire, volumes: Volumes) -> None:
    growing = asyncio.create_task(volumes.grow(GROWTH))
    await wait_until(lambda: requested(wire) == "40Gi")
    report(wire, conditions=[FAILED])
    with pytest.raises(CannotStage, match="does not grow from 20Gi to 40Gi: quota of the project is exhausted"):
        await asyncio.wait_for(growing, 90)
    with pytest.raises(
        CannotStage, match="has not grown from 20Gi to 40Gi yet, as requested earlier: quota of the project"
    ):
        await volumes.refuse_growth(GROWTH)


async def test_a_growth_without_an_end_is_given_up(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "_GROWN_WITHIN", 0.5)
    with pytest.raises(CannotStage, match=f"kubectl describe pvc {CLAIM} shows why"):
        await volumes.grow(GROWTH)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"allowVolumeExpansion": False}, "its storage class rwo does not allow that"),
        ({"metadata": {"name": "rwo", "annotations": {}}}, "storage class .there is none. does not allow that"),
    ],
)
async def test_a_volume_that_cannot_grow_is_not_changed(
    wire: Wire, volumes: Volumes, change: dict[str, Any], reason: str
) -> None:
    wire.store.update("StorageClass", "rwo", "", lambda live: live.update(change))
    for refused in (volumes.refuse_growth, volumes.grow):
        with pytest.raises(CannotStage, match=reason):
            await refused(GROWTH)
    assert wire.count_requests("PATCH", "persistentvolumeclaims") == 0
