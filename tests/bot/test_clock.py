"""The bot's clock, which can run faster than real time in a demonstration."""

from datetime import UTC, datetime, timedelta

import pytest

from bot.clients.payloads import DataDocket
from bot.clock import REAL_TIME, Clock
from bot.engine.task_refs import EXPIRE
from bot.settings.config import SettingsError
from bot.settings.environment import load_settings

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def test_sixty_seconds_pass_in_one() -> None:
    """After an hour of real time the clock has advanced sixty hours, and it can compute the real time of a moment."""
    since = datetime.now(UTC) - HOUR
    clock = Clock(60, since)
    assert abs(clock() - (since + 60 * HOUR)) < MINUTE
    assert clock.real_time(since + 120 * HOUR) == since + 2 * HOUR
    assert clock.real(HOUR) == MINUTE
    assert clock.passed_in(MINUTE) == HOUR


def test_other_systems_are_not_faster() -> None:
    """A limit for another system is not shortened below 20 s of real time; if the clock is not faster, it is not changed."""
    clock = Clock(60, datetime.now(UTC))
    assert (clock.patience(2 * HOUR), clock.patience(5 * MINUTE), clock.patience(3 * timedelta(seconds=1))) == (
        120,
        20,
        3,
    )
    assert REAL_TIME.patience(5 * MINUTE) == 300
    assert (clock.period(MINUTE), clock.period(timedelta(seconds=15))) == (timedelta(seconds=1), timedelta(seconds=1))
    assert REAL_TIME.period(timedelta(seconds=15)) == timedelta(seconds=15)


@pytest.mark.parametrize("text", ["60", "60x", "60x since", "60x since noon", "0.5x since 2026-11-29T12:00:00+00:00", "60x since 2026-11-29T12:00:00", "9999x since 2026-11-29T12:00:00+00:00"])  # fmt: skip
def test_an_invalid_clock_is_refused(text: str) -> None:
    """The error message contains an example."""
    with pytest.raises(ValueError, match="write, for example, 60x since"):
        Clock.parse(text)


async def test_a_task_is_scheduled_by_the_bots_clock() -> None:
    """An approval that expires after an hour by the clock expires after a minute of real time."""
    clock = Clock(60, datetime.now(UTC))
    async with DataDocket(clock, name="clock", url="memory://") as docket:

        async def expire(op_id: str) -> None: ...

        docket.register(expire)
        execution = await EXPIRE.add(docket, when=clock() + HOUR, key="k")("op")
        assert abs(execution.when - (datetime.now(UTC) + MINUTE)) < timedelta(seconds=10)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> pytest.MonkeyPatch:
    needed = {"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_APP_TOKEN": "xapp-1", "GITHUB_REPOSITORY": "acme/llm-platform"}
    config = f"{tmp_path}/stoker.yaml"
    with open(config, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write("slack: {channel: C1}\n")
    for name, value in {**needed, "STOKER_CONFIG": config}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STOKER_CLOCK", "60x since 2026-11-29T12:00:00+00:00")
    return monkeypatch


@pytest.mark.parametrize("address", ["", "https://slack.com/api/", "https://slack.example.com/api/", "http://127.0.0.1.example.com/api/"])  # fmt: skip
def test_a_real_slack_has_real_time(environment: pytest.MonkeyPatch, address: str) -> None:
    """With a faster clock, the leases of real people would end too early."""
    environment.setenv("SLACK_API_URL", address)
    with pytest.raises(SettingsError, match="STOKER_CLOCK is only for a Slack on this machine"):
        load_settings()


def test_a_slack_on_this_machine_may_be_faster(environment: pytest.MonkeyPatch) -> None:
    """The sandbox gives the bot its clock."""
    environment.setenv("SLACK_API_URL", "http://127.0.0.1:8790/api/")
    assert load_settings().clock.speed == 60
    environment.delenv("STOKER_CLOCK")
    assert load_settings().clock == REAL_TIME
