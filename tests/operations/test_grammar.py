"""Commands as people type them."""

from sandbox.github_pulls import Refused
from tests.operations.platform import Platform
from tests.operations.steps import read_leases


async def test_a_question_is_answered_and_starts_nothing(platform: Platform) -> None:
    """A sentence gets the status; no command that changes something is guessed from it."""
    await platform.workspace.say("dev", "@stoker what is running?")
    answer = await platform.sees("The GPU is free")
    assert "gpu help" in answer
    assert "swap" not in answer
    assert await read_leases(platform) == []


async def test_a_request_is_answered_where_it_was_typed(platform: Platform) -> None:
    """In a direct message the answer links to the card; in the channel the card is the answer."""
    await platform.workspace.say("dev", "gpu up coder-chat for 1h", direct=True)
    await platform.sees("Requested: the card is in #gpu-ops")
    await platform.sees("Awaiting approval")
    await platform.say("lead", "/gpu up coder-fim")
    await platform.sees("Bring up coder-fim", "lead")
    assert not [text for text in platform.visible("lead") if "Requested: the card" in text]


async def test_an_unreadable_time_is_answered_with_an_example(platform: Platform) -> None:
    """The answer does not ask for the model, and a bring-down accepts no duration."""
    await platform.say("dev", "/gpu up coder-chat two hours")
    answer = await platform.sees(
        "Name one model, and then a duration such as 45m, 2h or 1h30m: /gpu up coder-chat for 2h"
    )
    assert "two hours is not a duration" in answer
    await platform.workspace.say("dev", "down coder-chat 5", direct=True)
    await platform.sees("5 is not a model, and a bring-down takes effect immediately: use /gpu down coder-chat")
    assert not [text for text in platform.visible("dev") if "Requested" in text]


async def test_only_a_lease_can_be_extended(platform: Platform) -> None:
    """The name of a model that is down is not taken for a time."""
    await platform.say("dev", "/gpu extend coder-chat 2h")
    await platform.sees("coder-chat is neither a model with a lease nor a duration")


async def test_a_long_wait_names_the_system(platform: Platform) -> None:
    """The message appears within seconds, not only after the last attempt."""
    platform.github.refuses["/pulls"] = Refused(502, "Bad Gateway")
    await platform.say("dev", "/model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ")
    await platform.sees("waits for GitHub, which does not answer")


async def test_a_duration_may_follow_the_name_and_an_extension_asks_for_one(platform: Platform) -> None:
    """`up NAME 2h` sets the duration, and `extend` without a duration opens a form."""
    await platform.say("dev", "/gpu up coder-chat 3h")
    await platform.sees("requested by @dev for 3 h")
    await platform.say("lead", "/gpu up coder-chat")
    await platform.sees("was already requested by @dev", "lead")
    raw = str([message.blocks for message in platform.workspace._history.messages.values()])
    assert "archives/C0GPUOPS/p" in raw.partition("|see its card>")[0][-60:], "the answer does not link to the card"
    await platform.click("lead", "Approve")
    await platform.sees("is up and answers")
    await platform.say("dev", "/gpu extend")
    await platform.sees("For how much longer")
    await platform.fill("dev", "For how much longer", "30m")
    await platform.submit("dev")
    await platform.sees("of @dev for coder-chat was extended to")
    await platform.workspace.say("dev", "extend", direct=True)
    await platform.sees("Give the additional time, for example /gpu extend coder-chat 1h")
