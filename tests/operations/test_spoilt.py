"""Invalid data in Redis or on a Deployment is reported once, and stops neither the bot nor a bring-down."""

import json
from pathlib import Path

import pytest
from redis import Redis

from sandbox.objects import Object
from tests.clients.wire import client
from tests.operations.platform import Platform, open_platform
from tests.operations.steps import LEASES, bring_up, read_leases, replicas

QUICK = {"lease": {"reconcile_every": "1s"}, "idle": {"sample_every": "1s"}}


def annotate(platform: Platform, name: str, **marks: str | None) -> None:
    """Annotate a Deployment, like `kubectl annotate --overwrite`."""

    def set_annotations(live: Object) -> None:
        annotations = live["metadata"].setdefault("annotations", {})
        for key, value in marks.items():
            annotations[f"stoker.dev/{key}"] = value

    platform.cluster.store.update("Deployment", name, "serving", set_annotations)


def mark_of(platform: Platform, name: str) -> dict[str, object]:
    deployment = platform.object("Deployment", name)
    assert deployment
    text = deployment["metadata"].get("annotations", {}).get("stoker.dev/lease")
    return dict(json.loads(text)) if text else {}


async def until_idle(platform: Platform) -> None:
    """Wait until no task of an operation runs, even after its end is shown."""

    async def idle() -> bool:
        return not await platform.redis.hlen("{stoker}:starts")

    await platform.until_true(idle)


async def test_an_invalid_lease_does_not_stop_the_bot(tmp_path: Path, redis_url: str) -> None:
    """Status, the bot's metrics and other models continue to work; the lease is restored from its Deployment, and the model goes down."""
    async with open_platform(tmp_path, redis_url, settings=QUICK) as platform:
        await bring_up(platform)
        await platform.redis.hset(LEASES, "coder-chat", '{"model": "coder-chat", "fence": 1e999}')
        await platform.redis.hset("{stoker}:sessions", "coder-chat", '{"fence": null}')
        await platform.redis.set("{stoker}:op:other", "{")
        await platform.redis.zadd("{stoker}:ops:open", {"other": 1})
        await platform.say("dev", "/gpu status")
        await platform.sees("coder-chat")
        async with client(f"http://127.0.0.1:{platform.environment['STOKER_PORT']}") as http:
            answer = await http.get("/metrics")
        assert "stoker_records_set_aside" in answer.text
        assert 'stoker_dependency_up{system="redis"} 1.0' in answer.text
        message = await platform.sees("could not be read and is set aside", "admin")
        assert "{stoker}:" in message
        await platform.say("dev", "/gpu down")
        await platform.sees("is down and the GPU is free")
        assert replicas(platform, "coder-chat") == 0
        assert await read_leases(platform) == []


FENCES = ["9" * 400, "not a number"]
"""Other invalid fences are in tests/bot/test_marks.py."""


@pytest.mark.parametrize("fence", FENCES, ids=lambda fence: fence[:16] or "empty")
async def test_an_invalid_fence_is_ignored(tmp_path: Path, redis_url: str, fence: str) -> None:
    """The fence may be on another Deployment before a bring-up, or on the model's own Deployment while it is up."""
    async with open_platform(tmp_path, redis_url, settings=QUICK) as platform:
        annotate(platform, "coder-fim", fence=fence)
        await bring_up(platform)
        await until_idle(platform)  # the fence is written onto the Deployment last
        assert 10**12 < (await read_leases(platform))[0].fence < 10**13
        annotate(platform, "coder-chat", fence=fence)
        await platform.sees("The annotation stoker.dev/fence of coder-chat is ignored")
        await platform.say("dev", "/gpu down")
        await platform.sees("is down and the GPU is free")
        assert replicas(platform, "coder-chat") == 0
        messages = [text for text in platform.visible() if "stoker.dev/fence of coder-fim is ignored" in text]
        assert len(messages) == 1


async def test_a_forged_fence_does_not_keep_a_model_up(tmp_path: Path, redis_url: str) -> None:
    """The fence is plausible and above that of the lease, but Redis decides which lease is valid."""
    async with open_platform(tmp_path, redis_url, settings=QUICK) as platform:
        await bring_up(platform)
        annotate(platform, "coder-chat", fence=str(8 * 10**12))
        await platform.say("dev", "/gpu down")
        await platform.sees("is down and the GPU is free")
        assert replicas(platform, "coder-chat") == 0


@pytest.mark.parametrize(
    "forged",
    [
        {"ends": "2999-01-01T00:00:00Z"},
        {"ends": "2100-01-01T00:00:00Z", "revision": 99},
        {"holder": "U0LEAD", "fence": 8_000_000_000_000},
    ],
    ids=str,
)
async def test_an_annotation_never_replaces_a_lease(tmp_path: Path, redis_url: str, forged: dict[str, object]) -> None:
    """Redis's lease is unchanged and written back; the holder keeps it, and the model can be brought down."""
    async with open_platform(tmp_path, redis_url, settings=QUICK) as platform:
        await bring_up(platform)
        await until_idle(platform)
        before = (await read_leases(platform))[0]
        annotate(platform, "coder-chat", lease=json.dumps(mark_of(platform, "coder-chat") | forged))
        await platform.sees("The annotation stoker.dev/lease of coder-chat is ignored")
        await platform.until(
            lambda: (
                mark_of(platform, "coder-chat").get("holder") == "U0DEV"
                and not {"2999", "2100"} & {str(mark_of(platform, "coder-chat").get("ends"))[:4]}
            )
        )
        assert await read_leases(platform) == [before]
        await platform.say("dev", "/gpu down")
        await platform.sees("is down and the GPU is free")


@pytest.mark.parametrize("mark", ["{", "x" * 100_000], ids=lambda mark: mark[:9])
async def test_an_invalid_lease_annotation_counts_as_unmanaged_use(tmp_path: Path, redis_url: str, mark: str) -> None:
    """Redis lost the lease, and the Deployment's annotation is unreadable: there is an alert, and the model can be brought down."""
    async with open_platform(tmp_path, redis_url, settings={"lease": {"reconcile_every": "10m"}}) as platform:
        await bring_up(platform)
        await until_idle(platform)  # the lease is written onto the Deployment last
        annotate(platform, "coder-chat", lease=mark)
        await platform.redis.delete(LEASES)
        await platform.say("dev", "/gpu status")
        await platform.sees("uses the GPU without a lease")
        await platform.say("dev", "/gpu down coder-chat")
        await platform.until(lambda: replicas(platform, "coder-chat") == 0)


@pytest.mark.parametrize("words", ["/gpu extend 1h", "keep"])
async def test_an_extension_survives_a_failover(tmp_path: Path, redis_url: str, words: str) -> None:
    """The replica that took over has missed the extension, or the keep: the Deployment still has it."""
    settings = QUICK | {"idle": {"sample_every": "1s", "remind_after": "3s", "down_after": "2h"}}
    async with open_platform(tmp_path, redis_url, settings=settings) as platform:
        await bring_up(platform, words="for 2h")
        await until_idle(platform)
        before = (await read_leases(platform))[0]
        if words == "keep":
            await platform.click("dev", "Keep 1 h")
            await platform.sees("is kept until")
        else:
            await platform.say("dev", words)
            await platform.sees("of @dev for coder-chat was extended to")
        promised = (await read_leases(platform))[0]
        await platform.until(lambda: mark_of(platform, "coder-chat") == json.loads(promised.mark))
        await platform.redis.hset(LEASES, "coder-chat", before.model_dump_json())
        await platform.sees("Redis had lost a change of the lease of coder-chat")
        await platform.until(lambda: mark_of(platform, "coder-chat") == json.loads(promised.mark))
        now = (await read_leases(platform))[0]
        assert (now.ends, now.keep_until, now.keeps) == (promised.ends, promised.keep_until, promised.keeps)


async def test_a_restored_lease_is_limited_by_the_policy(tmp_path: Path, redis_url: str) -> None:
    """If Redis lost the lease, the annotation's end in 75 years is cut to the longest lease."""
    settings = QUICK | {"lease": {"reconcile_every": "1s", "longest": "6h"}}
    async with open_platform(tmp_path, redis_url, settings=settings) as platform:
        await bring_up(platform)
        await until_idle(platform)
        forged = mark_of(platform, "coder-chat") | {"ends": "2101-01-01T00:00:00Z", "hold": "P3000D"}
        with Redis.from_url(redis_url) as redis:  # synchronous, so that the bot cannot write the lease back
            annotate(platform, "coder-chat", lease=json.dumps(forged))
            redis.delete(LEASES)
        await platform.sees("it is rebuilt from the cluster")
        (lease,) = await read_leases(platform)
        assert lease.ready
        assert lease.ends
        assert (lease.ends - lease.ready).total_seconds() == 6 * 3600
