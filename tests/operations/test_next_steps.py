"""The buttons below finished cards, as people press them."""

from pathlib import Path

from sandbox.slack.history import CHANNEL
from sandbox.slack.workspace import _person
from tests.operations.platform import Platform, open_platform
from tests.operations.steps import bring_up, card_of, read_leases


async def press_on_oldest(platform: Platform, user: str, label: str) -> None:
    """Press the oldest button of that label: a card is older than the direct message about it."""
    presses = [press for text, press in platform.workspace._buttons(_person(user)) if text == label]
    await presses[-1]()


async def test_from_a_running_session_to_its_end_and_up_again(platform: Platform) -> None:
    """The card of the bring-up can extend and end the session, and shows its times afterwards; then only the newest card has buttons."""
    await bring_up(platform)
    await platform.until(lambda: "[Extend …]  [Bring down]" in card_of(platform, "Bring up coder-chat"))
    await press_on_oldest(platform, "dev", "Extend …")
    await platform.sees("For how much longer")
    await platform.fill("dev", "For how much longer", "30m")
    await platform.submit("dev")
    until = (await platform.sees("was extended to")).partition("was extended to ")[2][:5]

    def ready() -> str:
        return next(text for text in platform.visible() if "is ready until" in text)

    await platform.until(lambda: f"is ready until {until}" in ready() and "[Extend …]  [Bring down]" in ready())
    await press_on_oldest(platform, "dev", "Bring down")
    await platform.sees("coder-chat is down and the GPU is free")
    await platform.until(lambda: "coder-chat was up" in ready())  # the message keeps its text
    assert "[" not in ready()
    await platform.until(lambda: "coder-chat was up" in card_of(platform, "Bring up coder-chat"))
    card = card_of(platform, "Bring up coder-chat")
    assert "receipt" in card
    assert "[" not in card
    assert "holds the GPU" not in card
    assert "[Bring up]" in card_of(platform, "Bring down coder-chat")
    await platform.click("dev", "Bring up")
    await platform.sees("Bring up a model")
    await platform.submit("dev")
    await platform.sees("Awaiting approval")
    await platform.until(lambda: "[Bring up]" not in card_of(platform, "Bring down coder-chat"))


async def test_a_failed_request_is_repeated_once(tmp_path: Path, redis_url: str) -> None:
    """The new request belongs to the person who pressed, and needs another approval; a second press starts nothing."""
    async with open_platform(tmp_path, redis_url, settings={"gpu": {"boot_limit": "10s"}}) as platform:
        platform.faults.add("no-stock")
        await platform.say("dev", "/gpu up coder-chat for 3h because evaluation")
        await platform.click("lead", "Approve")
        await platform.sees("the GPU is free")
        platform.faults.discard("no-stock")
        await platform.until(lambda: "[Retry]" in card_of(platform, "Bring up coder-chat"))
        pressed = [press for text, press in platform.workspace._buttons(_person("admin")) if text == "Retry"]
        await pressed[0]()
        await platform.sees("requested by @admin for 3 h because evaluation")
        await platform.until(lambda: "[Approve]" in card_of(platform, "Bring up coder-chat"))
        await pressed[0]()
        await platform.sees("already requested this again", "admin")
        cards = [text for text in platform.workspace.posted(CHANNEL) if "Bring up coder-chat" in text]
        assert len(cards) == 2
        await platform.until(lambda: "[Retry]" not in str(platform.workspace.posted(CHANNEL)))
        assert await read_leases(platform) == []


async def test_the_holder_replaces_their_own_model_and_is_not_asked_about_it(platform: Platform) -> None:
    """One button brings their model down and the other up, once an approver agrees."""
    await bring_up(platform)
    await platform.say("dev", "/gpu up coder-fim because the other one is better")
    message = await platform.sees("The requester holds it: Replace coder-chat brings that model down")
    assert "[Ask the holder]" not in message
    await platform.click("dev", "Replace coder-chat")
    await platform.sees("Displaces coder-chat")
    await platform.click("lead", "Approve")
    await platform.sees("coder-fim is up and answers")
    assert [lease.model for lease in await read_leases(platform)] == ["coder-fim"]
    assert not [notification for notification in platform.workspace.notified("dev") if "replace" in notification.text]
