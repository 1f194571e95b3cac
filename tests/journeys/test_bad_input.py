"""Impossible requests end in one clear sentence, and leave nothing behind."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sandbox.story_runner import StepError
from tests.journeys.conftest import ObservedSandbox, eventually

OpenSandbox = Callable[..., Awaitable[ObservedSandbox]]
pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("forked")]

AWQ = "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
REFUSED = [
    ("/gpu up nobody", "Unknown model nobody"),
    ("/gpu up", "Name the model"),
    ("/gpu up coder-chat for -3h", "-3h"),
    ("/gpu up coder-chat for 900h", "longer than the longest lease"),
    ("/gpu up $(reboot)", "Unknown model"),
    ("/gpu up 'coder-chat", "A quote is not closed"),
    ("/gpu down nobody", "Unknown model nobody"),
    (f"/model add Coder_Mini {AWQ}", "is not a valid endpoint name"),
    (f"/model add ../../etc {AWQ}", "is not a valid endpoint name"),
    (f"/model add coder-chat {AWQ}", "exists"),
    ("/model add coder-mini Qwen/$(reboot)", "is not a model on Hugging Face"),
    ("/model add coder-mini 'Qwen/x: {y}'", "is not a model on Hugging Face"),
    ("/model add coder-mini Qwen/../x", "is not a model on Hugging Face"),
    ("/model add coder-mini Qwen/There-Is-None", "Qwen/There-Is-None"),
    (f"/model add coder-mini {AWQ} colour=red", "colour= is not an option"),
    (f"/model add coder-mini {AWQ} context=lots", "context=lots cannot be read"),
    (f"/model swap nobody {AWQ}", "Unknown model nobody"),
    ("/model frobnicate", "Unknown command: /model frobnicate"),
]


async def test_an_impossible_request_is_answered_only_to_its_sender(open_sandbox: OpenSandbox, tmp_path: Path) -> None:
    """Nothing appears in the channel, no branch is pushed, no pull request is opened, and nothing is scaled."""
    sandbox = await open_sandbox(speed=60)
    for text, answer in REFUSED:
        await sandbox.says("dev", text)
        await sandbox.sees(answer)
        assert answer.casefold() not in sandbox.seen("lead").casefold(), text
    assert sandbox.messages() == []
    assert sandbox.replicas("coder-chat") == 0
    assert _branches(tmp_path) == ["main"]


async def test_two_people_click_at_the_same_moment(open_sandbox: OpenSandbox) -> None:
    """One decision counts; the answer to the other click names the first, and nothing happens twice."""
    sandbox = await open_sandbox(speed=60)
    await sandbox.says("dev", "/gpu up coder-chat")
    await sandbox.sees("Approve")
    clicks = [sandbox.world.workspace.click(user, "Approve", timeout=0) for user in ("lead", "admin")]
    await asyncio.gather(*clicks)
    await sandbox.sees("all smoke tests passed")
    card = sandbox.messages("Bring up coder-chat")
    assert len(card) == 1
    assert card[0].count("Approved by") == 1
    late = "admin" if "@lead" in card[0].split("Approved by")[1] else "lead"
    assert "already" in sandbox.seen(late)
    assert sandbox.changes_of("coder-chat") == 1


async def test_an_unlisted_person_cannot_approve(open_sandbox: OpenSandbox) -> None:
    """The answer to the click names the people who can approve, and nothing starts."""
    sandbox = await open_sandbox(speed=60)
    await sandbox.says("admin", "/gpu up coder-chat")
    await sandbox.clicks("dev", "Approve")
    await sandbox.sees("Only approvers can decide this")
    assert sandbox.replicas("coder-chat") == 0
    assert "Awaiting approval" in sandbox.messages("Bring up coder-chat")[0]


async def test_messages_are_delayed_but_not_lost_while_slack_answers_429(open_sandbox: OpenSandbox) -> None:
    """While Slack rejects everything, the work continues; the end is shown once Slack answers again."""
    sandbox = await open_sandbox(speed=60)
    await sandbox.says("dev", "/gpu up coder-chat")
    await sandbox.clicks("lead", "Approve")
    await sandbox.sees("waiting for a node")
    sandbox.world.break_("slack-429")
    await eventually(lambda: sandbox.ready("coder-chat"))
    sandbox.world.mend("slack-429")
    await sandbox.sees("all smoke tests passed")
    assert len(sandbox.messages("Bring up coder-chat")) == 1


async def test_a_removed_button_cannot_be_pressed(open_sandbox: OpenSandbox) -> None:
    """After a decision there are no buttons."""
    sandbox = await open_sandbox(speed=60)
    await sandbox.says("dev", "/gpu up coder-chat")
    await sandbox.clicks("lead", "Deny")
    await sandbox.sees("Denied by @lead")
    with pytest.raises(StepError, match="no button “Approve”"):
        await sandbox.world.click("lead", "Approve")


def _branches(directory: Path) -> list[str]:
    result = subprocess.run(
        ["git", "-C", str(directory / "platform.git"), "for-each-ref", "--format=%(refname:short)", "refs/heads"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return result.stdout.split()
