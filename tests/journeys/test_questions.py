"""Questions to the holder, and their answers."""

from collections.abc import Awaitable, Callable

import pytest

from tests.journeys.conftest import ObservedSandbox, eventually

OpenSandbox = Callable[..., Awaitable[ObservedSandbox]]
pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("forked")]


async def test_no_button_of_a_question_remains_after_the_session(open_sandbox: OpenSandbox) -> None:
    """Two reminders and a question: the newest can be answered, and none after the model is down."""
    idle = {"remind_after": "10s", "remind_every": "10s", "announce_before": "5s", "down_after": "45s"}
    idle |= {"queue_remind_after": "10s", "queue_down_after": "45s"}
    here = await open_sandbox(speed=60, settings={"idle": idle})
    await here.says("dev", "/gpu up coder-chat")
    await here.clicks("lead", "Approve")
    await here.sees("all smoke tests passed")
    await here.says("admin", "/gpu up coder-fim")
    await here.clicks("admin", "Ask the holder")
    await here.sees("has been idle", "dev")
    await here.sees("It goes down at", "dev")
    await eventually(lambda: len(here.messages("[Keep ")) == 1)
    await here.sees("Receipt", "dev")
    await eventually(lambda: here.messages("[Bring down") == [])
    assert not [text for text in here.world.workspace.now_visible("dev") if "[Bring down" in text or "[Keep" in text]
