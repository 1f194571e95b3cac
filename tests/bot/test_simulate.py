"""The cost of a policy for a trace."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.analysis.simulate import (
    Arrival,
    World,
    always_on,
    clairvoyant,
    never_remind,
    office_hours,
    office_trace,
    on_traffic,
    read_trace,
    replay,
    written,
)
from bot.cli.simulate import compare, sample
from bot.errors import BotError
from bot.settings.config import Config

DOCS = Path(__file__).parents[2] / "docs"
NINE = datetime(2026, 11, 23, 9, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def requests(*minutes: float, takes: timedelta = timedelta()) -> list[Arrival]:
    return [Arrival(NINE + minute * MINUTE, takes) for minute in minutes]


def config(**idle: object) -> Config:
    return Config.model_validate({"idle": idle})


def test_one_request_is_billed_as_calculated_by_hand() -> None:
    """The bill has 2 minutes to the approval, 10 to a ready model, 0.5 to the first sample, an idle hour, and 10 minutes of drain."""
    outcome = replay("", requests(0), Config(), World())
    assert outcome.billed == [(NINE + 2 * MINUTE, NINE + 82.5 * MINUTE)]
    assert (outcome.up, outcome.idle, outcome.cold_starts) == (60.5 * MINUTE, HOUR, 1)
    assert outcome.waits == [12 * MINUTE]
    assert outcome.usd(World()) == pytest.approx(0.85 * 80.5 / 60)


def test_requests_during_the_boot_wait_and_later_ones_do_not() -> None:
    """The second request waits for two minutes, and the third finds the model up."""
    assert replay("", requests(0, 10, 30), Config(), World()).waits == [12 * MINUTE, 2 * MINUTE]


def test_a_request_after_the_bring_down_is_a_cold_start() -> None:
    """One minute earlier the model is still up."""
    assert replay("", requests(0, 71), Config(), World()).cold_starts == 1
    assert replay("", requests(0, 73), Config(), World()).cold_starts == 2


def test_a_node_that_still_drains_is_billed_once() -> None:
    """The model is down at 72 and its node drained at 82; it is requested again at 73 and approved at 75."""
    outcome = replay("", requests(0, 73), Config(), World())
    assert outcome.billed == [(NINE + 2 * MINUTE, NINE + (73 + 82.5) * MINUTE)]


def test_a_lease_in_use_is_extended_up_to_the_longest() -> None:
    """A session lasts eight hours at most, even if it is busy; the next request waits for a cold start."""
    busy = requests(*range(0, 600, 5))
    outcome = replay("", busy, Config(), World())
    assert outcome.cold_starts == 2
    assert outcome.billed[0][0] == NINE + 2 * MINUTE


def test_shorter_times_cost_less_and_make_people_wait_more() -> None:
    """The table shows the trade-off between cost and waiting."""
    trace = requests(0, 55, 110, 165)
    patient = replay("", trace, Config(), World())
    hasty = replay("", trace, config(remind_after="5m", down_after="15m"), World())
    assert hasty.usd(World()) < patient.usd(World())
    assert hasty.waited > patient.waited


def test_the_clairvoyant_stays_up_only_if_that_is_cheaper() -> None:
    """A cold start and a drain take twenty minutes: the model stays up for a gap of twenty, but not of twenty-one."""
    stays, leaves = (clairvoyant(requests(0, gap), World()) for gap in (20, 21))
    assert (stays.cold_starts, leaves.cold_starts) == (1, 2)
    assert stays.gpu_time == 40 * MINUTE
    assert leaves.gpu_time == 40 * MINUTE
    assert stays.waited == timedelta()


def test_every_policy_costs_between_the_references() -> None:
    """For the shipped trace, nothing costs more than always on, and nothing without waiting costs less than
    clairvoyance.
    """
    trace, world = office_trace(), World()
    costs = [
        outcome.usd(world)
        for outcome in (
            clairvoyant(trace, world),
            replay("", trace, Config(), world),
            never_remind(trace, Config(), world),
            always_on(trace, world),
        )
    ]
    assert costs == sorted(costs)


def test_the_generator_returns_the_shipped_trace() -> None:
    """The same seed gives the same trace on any machine, and reading it back gives the same result."""
    shipped = DOCS / "traces" / "office.csv"
    assert shipped.read_text() == sample()
    assert read_trace(shipped) == office_trace(1)
    assert office_trace(2) != office_trace(1)


def test_the_documented_table_equals_the_output_of_the_command() -> None:
    """The numbers in docs/simulate.md are those that a reader gets."""
    printed = compare(None, (), None, 2 * MINUTE, 10 * MINUTE)
    assert printed in (DOCS / "simulate.md").read_text()


def test_a_trace_may_have_seconds_since_1970_and_no_durations(tmp_path: Path) -> None:
    """The lines may be in any order."""
    path = tmp_path / "own.csv"
    path.write_text(f"timestamp\n{NINE.timestamp() + 60}\n2026-11-23T10:00:00+01:00\n")
    assert [arrival.at for arrival in read_trace(path)] == [NINE, NINE + MINUTE]


@pytest.mark.parametrize(
    "text", ["", "timestamp\n", "when\n2026-11-23\n", "timestamp\nyesterday\n", "timestamp,seconds\n1,-1\n"]
)
def test_an_unreadable_trace_is_reported_with_its_line(tmp_path: Path, text: str) -> None:
    """One line describes the required format."""
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(BotError, match=r"bad\.csv"):
        read_trace(path)


@pytest.mark.parametrize("policy", ["sleep=5m", "remind_after", "remind_after=2h", "quiet_hours=night"])
def test_an_invalid_policy_is_reported(policy: str) -> None:
    """The error names the key or the problem."""
    with pytest.raises(BotError, match="--policy"):
        compare(None, (policy,), None, MINUTE, MINUTE)


def test_a_written_trace_is_a_csv() -> None:
    """The file has a header that documents it."""
    assert written(requests(0, takes=timedelta(seconds=1.5))) == "timestamp,seconds\n2026-11-23T09:00:00+00:00,1.5\n"


def test_the_readme_has_the_costs_that_the_command_prints() -> None:
    """The costs in the table of the readme are compared; the names of the policies may be longer there."""
    costs = dict(re.findall(r"^(\S.*?)  .*(\$\d+\.\d\d)$", compare(None, (), None, 2 * MINUTE, 10 * MINUTE), re.M))
    rows = [row.split("|")[1:3] for row in (DOCS.parent / "README.md").read_text("utf-8").splitlines() if "| $" in row]
    costs_in_readme = {name.strip(" *").partition(" (")[0]: cost.strip(" *") for name, cost in rows}
    of_stoker = {"Stoker, idle limits of 5 and 15 min": "remind_after=5m down_after=15m"}
    assert len(costs_in_readme) == 4
    assert costs_in_readme == {name: costs[of_stoker.get(name, name)] for name in costs_in_readme}
    assert f"**{costs['configured: 15 min / 1 h']}**" in (DOCS.parent / "README.md").read_text("utf-8")


def test_a_request_outside_office_hours_waits_for_the_morning() -> None:
    """A request on Friday evening waits for Monday. The node is billed for ten hours of each weekday, with its boot and drain."""
    friday = datetime(2026, 11, 6, 20, tzinfo=UTC)
    outcome = office_hours([Arrival(friday - 10 * HOUR), Arrival(friday)], World())
    assert outcome.waits == [60 * HOUR]
    assert outcome.gpu_time == 2 * (10 * HOUR + 20 * MINUTE)


def test_scale_to_zero_needs_no_approval() -> None:
    """Each request after a pause boots the GPU, and nobody waits for an approval."""
    monday = datetime(2026, 11, 2, 9, tzinfo=UTC)
    outcome = on_traffic([Arrival(monday), Arrival(monday + HOUR)], Config(), World())
    assert (outcome.cold_starts, outcome.waits) == (2, [10 * MINUTE, 10 * MINUTE])
