"""Questions to the holder, and their answers."""

from collections.abc import Awaitable, Callable

import pytest

from tests.journeys.conftest import ObservedSandbox, eventually

OpenSandbox = Callable[..., Awaitable[ObservedSandbox]]
pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("forked")]


async def test_no_button_of_a_question_remains_after_the_session(open_sandbox: OpenSandbox) -> None:
    """Of two reminders and a question, only the newest has buttons, and none has any after the model is down."""
    idle = {"remind_after": "5s", "remind_every": "5s", "announce_before": "5s", "down_after": "24s"}
    idle |= {"queue_remind_after": "5s", "queue_down_after": "24s"}
    sandbox = await open_sandbox(speed=300, settings={"idle": idle})
    await sandbox.says("dev", "/gpu up coder-chat")
    await sandbox.clicks("lead", "Approve")
    await sandbox.sees("all smoke tests passed")
    await sandbox.says("admin", "/gpu up coder-fim")
    await sandbox.clicks("admin", "Ask the holder")
    await sandbox.sees("has been idle", "dev")
    await sandbox.sees("It goes down at", "dev")
    await eventually(lambda: len(sandbox.messages("[Keep ")) == 1)
    await sandbox.sees("Receipt", "dev")
    await eventually(lambda: sandbox.messages("[Bring down") == [])
    assert not [text for text in sandbox.world.workspace.now_visible("dev") if "[Bring down" in text or "[Keep" in text]
