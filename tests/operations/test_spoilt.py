"""Invalid data in Redis or on a Deployment is reported once, and stops neither the bot nor a bring-down."""

import json
from pathlib import Path

import pytest
from redis import Redis

from sandbox.objects import Object
from tests.clients.wire import client
from tests.operations.platform import Platform
from tests.operations.platform import platform as opened
from tests.operations.steps import LEASES, held, replicas, up

QUICK = {"lease": {"reconcile_every": "1s"}, "idle": {"sample_every": "1s"}}


def annotate(it: Platform, name: str, **marks: str | None) -> None:
    """Like `kubectl annotate --overwrite`."""

    def written(live: Object) -> None:
        annotations = live["metadata"].setdefault("annotations", {})
        for key, value in marks.items():
            annotations[f"stoker.dev/{key}"] = value

    it.cluster.store.update("Deployment", name, "serving", written)


def mark_of(it: Platform, name: str) -> dict[str, object]:
    found = it.object("Deployment", name)
    assert found
    text = found["metadata"].get("annotations", {}).get("stoker.dev/lease")
    return dict(json.loads(text)) if text else {}


async def ended(it: Platform) -> None:
    """Wait until no task of an operation runs, even after its end is shown."""

    async def idle() -> bool:
        return not await it.redis.hlen("{stoker}:starts")

    await it.until_true(idle)


async def test_a_poisoned_lease_stops_nothing(tmp_path: Path, redis_url: str) -> None:
    """Status, the bot's metrics and other models continue to work; the lease is restored from its Deployment, and the model goes down."""
    async with opened(tmp_path, redis_url, settings=QUICK) as it:
        await up(it)
        await it.redis.hset(LEASES, "coder-chat", '{"model": "coder-chat", "fence": 1e999}')
        await it.redis.hset("{stoker}:sessions", "coder-chat", '{"fence": null}')
        await it.redis.set("{stoker}:op:other", "{")
        await it.redis.zadd("{stoker}:ops:open", {"other": 1})
        await it.say("dev", "/gpu status")
        await it.sees("coder-chat")
        async with client(f"http://127.0.0.1:{it.environment['STOKER_PORT']}") as http:
            answer = await http.get("/metrics")
        assert "stoker_records_set_aside" in answer.text
        assert 'stoker_dependency_up{system="redis"} 1.0' in answer.text
        told = await it.sees("could not be read and is set aside", "admin")
        assert "{stoker}:" in told
        await it.say("dev", "/gpu down")
        await it.sees("is down and the GPU is free")
        assert replicas(it, "coder-chat") == 0
        assert await held(it) == []


FENCES = ["9" * 400, "not a number"]
"""The others are in tests/bot/test_marks.py."""


@pytest.mark.parametrize("fence", FENCES, ids=lambda fence: fence[:16] or "empty")
async def test_a_fence_that_cannot_be_meant_counts_as_none(tmp_path: Path, redis_url: str, fence: str) -> None:
    """On another Deployment before a bring-up, and on the model's own while it is up."""
    async with opened(tmp_path, redis_url, settings=QUICK) as it:
        annotate(it, "coder-fim", fence=fence)
        await up(it)
        await ended(it)  # it writes its fence onto the Deployment last
        assert 10**12 < (await held(it))[0].fence < 10**13
        annotate(it, "coder-chat", fence=fence)
        await it.sees("The annotation stoker.dev/fence of coder-chat is ignored")
        await it.say("dev", "/gpu down")
        await it.sees("is down and the GPU is free")
        assert replicas(it, "coder-chat") == 0
        told = [text for text in it.visible() if "stoker.dev/fence of coder-fim is ignored" in text]
        assert len(told) == 1


async def test_a_forged_fence_does_not_keep_a_model_up(tmp_path: Path, redis_url: str) -> None:
    """A plausible fence above the lease's: Redis decides which lease is valid."""
    async with opened(tmp_path, redis_url, settings=QUICK) as it:
        await up(it)
        annotate(it, "coder-chat", fence=str(8 * 10**12))
        await it.say("dev", "/gpu down")
        await it.sees("is down and the GPU is free")
        assert replicas(it, "coder-chat") == 0


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
    async with opened(tmp_path, redis_url, settings=QUICK) as it:
        await up(it)
        await ended(it)
        before = (await held(it))[0]
        annotate(it, "coder-chat", lease=json.dumps(mark_of(it, "coder-chat") | forged))
        await it.sees("The annotation stoker.dev/lease of coder-chat is ignored")
        await it.until(
            lambda: (
                mark_of(it, "coder-chat").get("holder") == "U0DEV"
                and not {"2999", "2100"} & {str(mark_of(it, "coder-chat").get("ends"))[:4]}
            )
        )
        assert await held(it) == [before]
        await it.say("dev", "/gpu down")
        await it.sees("is down and the GPU is free")


@pytest.mark.parametrize("mark", ["{", "x" * 100_000], ids=lambda mark: mark[:9])
async def test_an_annotation_that_is_no_lease_is_an_unmanaged_use(tmp_path: Path, redis_url: str, mark: str) -> None:
    """Redis lost the lease, and the Deployment's annotation is unreadable: there is an alert, and the model can be brought down."""
    async with opened(tmp_path, redis_url, settings={"lease": {"reconcile_every": "10m"}}) as it:
        await up(it)
        await ended(it)  # it writes the lease onto the Deployment last
        annotate(it, "coder-chat", lease=mark)
        await it.redis.delete(LEASES)
        await it.say("dev", "/gpu status")
        await it.sees("uses the GPU without a lease")
        await it.say("dev", "/gpu down coder-chat")
        await it.until(lambda: replicas(it, "coder-chat") == 0)


@pytest.mark.parametrize("words", ["/gpu extend 1h", "keep"])
async def test_what_was_promised_survives_a_failover(tmp_path: Path, redis_url: str, words: str) -> None:
    """The replica that took over has missed the extension, or the keep: the Deployment still has it."""
    settings = QUICK | {"idle": {"sample_every": "1s", "remind_after": "3s", "down_after": "2h"}}
    async with opened(tmp_path, redis_url, settings=settings) as it:
        await up(it, words="for 2h")
        await ended(it)
        before = (await held(it))[0]
        if words == "keep":
            await it.click("dev", "Keep 1 h")
            await it.sees("is kept until")
        else:
            await it.say("dev", words)
            await it.sees("of @dev for coder-chat was extended to")
        promised = (await held(it))[0]
        await it.until(lambda: mark_of(it, "coder-chat") == json.loads(promised.mark))
        await it.redis.hset(LEASES, "coder-chat", before.model_dump_json())
        await it.sees("Redis had lost a change of the lease of coder-chat")
        await it.until(lambda: mark_of(it, "coder-chat") == json.loads(promised.mark))
        now = (await held(it))[0]
        assert (now.ends, now.keep_until, now.keeps) == (promised.ends, promised.keep_until, promised.keeps)


async def test_a_restored_lease_has_no_more_than_policy_allows(tmp_path: Path, redis_url: str) -> None:
    """Redis lost it; the annotation's end in 75 years is cut to the longest lease."""
    settings = QUICK | {"lease": {"reconcile_every": "1s", "longest": "6h"}}
    async with opened(tmp_path, redis_url, settings=settings) as it:
        await up(it)
        await ended(it)
        forged = mark_of(it, "coder-chat") | {"ends": "2101-01-01T00:00:00Z", "hold": "P3000D"}
        with Redis.from_url(redis_url) as redis:  # both without a break, in which the bot could write the lease back
            annotate(it, "coder-chat", lease=json.dumps(forged))
            redis.delete(LEASES)
        await it.sees("it is rebuilt from the cluster")
        (lease,) = await held(it)
        assert lease.ready
        assert lease.ends
        assert (lease.ends - lease.ready).total_seconds() == 6 * 3600
