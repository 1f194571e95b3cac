"""The result of a staging Job: staged, rate-limited, interrupted, moved, or failed permanently."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient

from bot.clients.staging import Attempt, Progress, Stager, StagingFailed, StagingTaken, Weights
from bot.clients.staging_job import name_of
from bot.clients.whereabouts import Address, Whereabouts
from bot.settings.config import Staging
from tests.clients.kube import Wire, connected, event, now, wait_until
from tests.clients.test_staging_job import CLAIM, claim, model, user

SHAPE = Staging(mode="on", place_within=timedelta(seconds=1))
OP = "0123456789"
POD = "stoker-stage-x"
URL = "https://huggingface.co/api/models/Qwen/X/revision/main"


@pytest.fixture
async def wire() -> Any:
    async with Wire() as server:
        server.store.create(model())
        server.store.create(claim(bound=True))
        server.store.create({"kind": "Node", "metadata": {"name": "cpu"}, "status": {"capacity": {}}})
        yield server


@pytest.fixture
async def api(wire: Wire) -> Any:
    async with connected(wire) as client:
        yield client


@pytest.fixture
async def weights(api: ApiClient) -> Weights:
    staged_weights, _ = await Stager(api, Whereabouts("serving")).weights("coder-chat")
    return staged_weights


def job(wire: Wire) -> dict[str, Any] | None:
    return wire.store.get("Job", name_of(CLAIM), "serving")


def add_pod(wire: Wire, *, log: str = "", **status: Any) -> None:
    """Add the Job's pod, whose container has this `log`."""
    wire.store.create(
        {
            "kind": "Pod",
            "metadata": {
                "name": POD,
                "namespace": "serving",
                "labels": {"batch.kubernetes.io/job-name": name_of(CLAIM), "app.kubernetes.io/name": "stoker-staging"},
            },
            "spec": {"containers": [{"name": "prestage-weights"}], "nodeName": "cpu"},
            "status": {"phase": "Running"} | status,
        }
    )
    wire.logs = lambda *_: log.splitlines()


def end_job(wire: Wire, kind: str = "Failed", reason: str = "BackoffLimitExceeded") -> None:
    condition = {"type": kind, "status": "True", "reason": reason, "message": ""}
    wire.store.update("Job", name_of(CLAIM), "serving", lambda live: live.update(status={"conditions": [condition]}))


def container(code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    times = {"startedAt": "2026-01-01T10:00:00Z", "finishedAt": "2026-01-01T10:01:30Z"}
    state = {"terminated": {"exitCode": code, "reason": reason} | times}
    over = {"name": "prestage-weights", "state": state}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [over], **more}


async def attempt(
    wire: Wire,
    api: ApiClient,
    weights: Weights,
    act: Callable[[], object],
    *,
    progress: Callable[[Progress], Awaitable[None]] | None = None,
) -> Attempt:
    """Run one attempt, call `act` once the Job exists, and return the result."""

    async def nobody(_: Progress) -> None:
        """Ignore the progress."""

    running = asyncio.create_task(
        Stager(api, Whereabouts("serving")).attempt(
            OP, 1, weights, SHAPE, limit=timedelta(hours=1), progress=progress or nobody
        )
    )
    await wait_until(lambda: job(wire) or running.done())
    act()
    return await asyncio.wait_for(running, 90)


async def test_staged_weights_are_reported_in_bytes(wire: Wire, api: ApiClient, weights: Weights) -> None:
    def act() -> None:
        add_pod(wire, log='stoker {"bytes": 7, "of": 9}\nstoker {"bytes": 9, "of": 9}', **container(0, "Completed"))
        end_job(wire, "Complete", "")

    result = await attempt(wire, api, weights, act)
    assert (result.outcome, result.bytes, result.seconds) == ("staged", 9, 90.0)


async def test_the_progress_is_read_from_the_log(wire: Wire, api: ApiClient, weights: Weights) -> None:
    reports: list[Progress] = []

    async def progress(report: Progress) -> None:
        reports.append(report)
        if report.bytes:
            end_job(wire, "Complete", "")

    running = {"containerStatuses": [{"name": "prestage-weights", "state": {"running": {"startedAt": now()}}}]}
    line = 'stoker {"bytes": 3, "of": 9}'
    await attempt(wire, api, weights, lambda: add_pod(wire, log=line, **running), progress=progress)
    assert Progress(doing="downloading", bytes=3, of=9) in reports


@pytest.mark.parametrize(
    ("log", "after"),
    [
        (f"huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: {URL}", None),
        (f"HfHubHTTPError: 429 Client Error: Too Many Requests for url: {URL}\nRetry after 55 seconds (0/2500 requests).", 55),
        ('stoker {"retry_after": "77"}\n' f"HfHubHTTPError: 429 Client Error: Too Many Requests for url: {URL}", 77),
    ],
    ids=["no time", "huggingface_hub's sentence", "the header"],
)  # fmt: skip
async def test_429_has_the_time_to_wait(
    wire: Wire, api: ApiClient, weights: Weights, log: str, after: float | None
) -> None:
    def act() -> None:
        add_pod(wire, log=log, **container(1))
        end_job(wire)

    result = await attempt(wire, api, weights, act)
    assert (result.outcome, result.retry_after) == ("turned away", after)


@pytest.mark.parametrize(
    "status",
    [
        container(137) | {"reason": "Evicted", "message": "The node was low on resource: memory."},
        container(143)
        | {"reason": "NodeShutdown", "message": "Pod was terminated in response to imminent node shutdown."},
    ],
    ids=["evicted", "node shut down"],
)
async def test_a_pod_that_was_ended_from_outside_is_an_interruption(
    wire: Wire, api: ApiClient, weights: Weights, status: dict[str, Any]
) -> None:
    def act() -> None:
        add_pod(wire, **status)
        end_job(wire)

    assert (await attempt(wire, api, weights, act)).outcome == "interrupted"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (f"GatedRepoError: 403 Client Error. Cannot access gated repo for url {URL}.\nAccess to model Qwen/X is restricted.", "gated|terms"),
        ("No space left on device: 100 bytes are still to be downloaded, and 7 are free.", "full|space"),
        ("PermissionError: [Errno 13] Permission denied: '/models/hub'", "fsGroup|written|permission"),
        ("ProxyError('Unable to connect to proxy', OSError('Tunnel connection failed: 403 Forbidden'))", "proxy"),
    ],
)  # fmt: skip
async def test_a_permanent_problem_is_a_failure(
    wire: Wire, api: ApiClient, weights: Weights, log: str, reason: str
) -> None:
    def act() -> None:
        add_pod(wire, log=log, **container(1))
        end_job(wire)

    with pytest.raises(StagingFailed, match=f"(?i){reason}"):
        await attempt(wire, api, weights, act)


async def test_a_job_without_a_node_is_given_up(wire: Wire, api: ApiClient, weights: Weights) -> None:
    reason = "0/1 nodes are available: 1 node(s) had volume node affinity conflict."
    unplaced = {"type": "PodScheduled", "status": "False", "message": reason}

    def act() -> None:
        add_pod(wire, conditions=[unplaced], phase="Pending")
        asyncio.get_running_loop().call_later(2, lambda: wire.store.create(event("FailedScheduling", reason, POD)))

    with pytest.raises(StagingFailed, match=r"volume node affinity conflict.*staging\.node_selector"):
        await attempt(wire, api, weights, act)


async def test_one_volume_has_one_job(wire: Wire, api: ApiClient, weights: Weights) -> None:
    stager = Stager(api, Whereabouts("serving"))

    async def nobody(_: Progress) -> None:
        """Ignore the progress."""

    first = asyncio.create_task(stager.attempt(OP, 1, weights, SHAPE, limit=timedelta(hours=1), progress=nobody))
    await wait_until(lambda: job(wire))
    with pytest.raises(StagingTaken):
        await stager.attempt("another", 1, weights, SHAPE, limit=timedelta(hours=1), progress=nobody)
    again = asyncio.create_task(stager.attempt(OP, 1, weights, SHAPE, limit=timedelta(hours=1), progress=nobody))
    add_pod(wire, **container(0))
    end_job(wire, "Complete", "")
    assert (await first).outcome == (await again).outcome == "staged"
    assert wire.count_requests("POST", "/jobs") == 1


async def test_the_job_fills_the_volume_in_the_namespace_of_the_model(wire: Wire, api: ApiClient) -> None:
    """A volume of the same name in the home namespace is not used."""
    deployed, volume = model(), claim(bound=True)
    deployed["metadata"] |= {"namespace": "chat", "name": "vllm-server"}
    volume["metadata"]["namespace"] = "chat"
    wire.store.create(deployed)
    wire.store.create(volume)
    whereabouts = Whereabouts("serving", "chat")
    whereabouts.update({"coder": Address("chat", "vllm-server")})
    stager = Stager(api, whereabouts)
    weights, _ = await stager.weights("coder")

    async def nobody(_: Progress) -> None:
        """Ignore the progress."""

    running = asyncio.create_task(stager.attempt(OP, 1, weights, SHAPE, limit=timedelta(hours=1), progress=nobody))
    await wait_until(lambda: wire.store.get("Job", name_of(CLAIM), "chat"))
    assert job(wire) is None
    await stager.delete_jobs_of(OP)
    with pytest.raises(StagingFailed, match="somebody deleted it"):
        await running
    assert wire.store.get("Job", name_of(CLAIM), "chat") is None


async def test_the_job_leaves_the_node_of_a_model_that_goes_down(wire: Wire, api: ApiClient) -> None:
    """Otherwise the GPU node would stay, and be billed, for the download."""
    wire.store.update("Deployment", "coder-chat", "serving", lambda live: live["spec"].update(replicas=1))
    wire.store.create(user(ready=True))
    weights, _ = await Stager(api, Whereabouts("serving")).weights("coder-chat")

    def act() -> None:
        required = (job(wire) or {})["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
        assert "gpu-node" in json.dumps(required)
        wire.store.update("Deployment", "coder-chat", "serving", lambda live: live["spec"].update(replicas=0))

    assert (await attempt(wire, api, weights, act)).outcome == "moved"
    assert job(wire) is None


async def test_a_boot_without_the_bot_ends_the_staging(wire: Wire, api: ApiClient, weights: Weights) -> None:
    def act() -> None:
        wire.store.update("Deployment", "coder-chat", "serving", lambda live: live["spec"].update(replicas=1))

    with pytest.raises(StagingFailed, match="was brought up during the staging"):
        await attempt(wire, api, weights, act)
