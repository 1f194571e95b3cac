"""`/model list` and Home with several pages, over the wire."""

from datetime import UTC, datetime

import pytest

from bot.domain.operations import SmokeOutcome
from bot.state.endpoint_history import EndpointHistory
from tests.operations.platform import Platform


async def test_a_list_has_a_filter_and_pages(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buttons change the list in place; Home has the same pages, and a search field."""
    monkeypatch.setattr("bot.views.endpoint_list._PAGE", 2)
    await platform.say("dev", "/model list fim")
    assert "coder-chat" not in await platform.sees("1 of 3 endpoints")
    await platform.say("dev", "/model list")
    first = await platform.sees("3 endpoints")
    assert "[Next]" in first
    await platform.click("dev", "Next")
    second = await platform.sees("[Previous]")
    assert [name in first for name in ("coder-chat", "coder-fim", "embeddings")].count(True) == 2
    assert [name in second for name in ("coder-chat", "coder-fim", "embeddings")].count(True) == 1
    assert len([text for text in platform.visible() if text.startswith("3 endpoints")]) == 1
    await platform.workspace.open_home("dev")
    await platform.until(lambda: "[Next]" in platform.workspace.home("dev"))
    await platform.fill("dev", "Find endpoints (press Enter)", "embed")
    await platform.until(lambda: "1 of 3 endpoints: embed" in platform.workspace.home("dev"))
    assert "coder-fim" not in platform.workspace.home("dev")


async def test_an_older_workspace_gets_the_list_in_sections(platform: Platform) -> None:
    """The answer to a command is sent to its response_url, not to a Web API method; that address also refuses newer blocks."""
    platform.faults.add("slack-old-blocks")
    await platform.say("dev", "/model list")
    assert "coder-chat — " in await platform.sees("3 endpoints")


async def test_a_smoke_test_counts_only_for_the_model_that_it_tested(platform: Platform) -> None:
    """After a swap, or after a test by an earlier version, the endpoint's model has not been tested yet."""
    before = SmokeOutcome(at=datetime(2026, 11, 23, tzinfo=UTC), commit="a" * 40, hf_id="acme/before-the-swap")
    await EndpointHistory(platform.redis).note_smoke_test("coder-chat", before)
    await platform.say("dev", "/model list")
    message = await platform.sees("3 endpoints")
    assert "not smoke-tested yet" in message
    assert "smoke tests passed" not in message
