"""Acknowledgements before work, and one answer for each request."""

import asyncio
from typing import Any

from bot.errors import BotError, Unavailable
from commands.replies import AcksFirst, send_answer
from tests.clients.kube import time_passes


async def answers_for(work: Any) -> list[str]:
    texts: list[str] = []

    async def respond(*, text: str, **_: object) -> None:
        texts.append(text)

    await send_answer(respond, work)
    return texts


async def test_work_waits_while_requests_arrive() -> None:
    """Work begins after the last request of a burst has been acknowledged."""
    gate, order = AcksFirst(quiet=60, longest=600), list[str]()

    async def work() -> None:
        async with gate.turn():
            order.append("work")

    gate.arrived()
    working = asyncio.create_task(work())
    for _ in range(5):
        await asyncio.sleep(0.005)
        gate.arrived()
        order.append("request")
    time_passes(60)
    await working
    assert order == ["request"] * 5 + ["work"]


async def test_work_does_not_wait_forever() -> None:
    """Acknowledgements wait neither for a quiet moment nor for long work."""
    gate, release = AcksFirst(), asyncio.Event()

    async def long_work() -> None:
        async with gate.turn():
            await release.wait()

    busy = [asyncio.create_task(long_work()) for _ in range(20)]
    async with asyncio.timeout(30), gate.turn():
        assert not any(task.done() for task in busy)
    release.set()
    await asyncio.gather(*busy)


async def test_errors_are_explained() -> None:
    """An answer explains an error that people can fix or a system that does not answer; otherwise it has an id for the log."""

    async def refuse() -> None:
        raise BotError("Say which.")

    async def fail_on_github() -> None:
        raise Unavailable("GitHub", "503")

    async def fail_on_redis() -> None:
        raise Unavailable("Redis", "")

    async def crash() -> None:
        raise ZeroDivisionError

    assert await answers_for(refuse()) == ["Say which."]
    assert "Nothing was changed" in (await answers_for(fail_on_github()))[0]
    assert "Your request may have been stored: look for a card" in (await answers_for(fail_on_redis()))[0]
    assert "Search Stoker's log for" in (await answers_for(crash()))[0]
