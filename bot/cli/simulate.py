"""`stoker simulate`: compares idle policies for a trace of real or generated requests."""

from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError

from bot.analysis.simulate import (
    World,
    always_on,
    clairvoyant,
    never_remind,
    office_hours,
    office_trace,
    on_traffic,
    read_trace,
    replay,
    table,
    written,
)
from bot.errors import BotError
from bot.settings.config import Config, Idle, load_config
from bot.text.durations import parse_duration, show_duration

_ALTERNATIVES = ("remind_after=5m down_after=15m", "remind_after=15m down_after=30m", "remind_after=30m down_after=2h")


def compare(
    trace: Path | None, policies: tuple[str, ...], config_file: Path | None, approval: timedelta, boot: timedelta
) -> str:
    """The table that compares the configured policy, other policies and five references. Without a trace, a synthetic trace is used."""
    config = load_config(config_file) if config_file else Config()
    arrivals = read_trace(trace) if trace else office_trace()
    world = World(approval=approval, boot=boot, drain=config.gpu.drain, price_per_hour=config.gpu.price())
    alternatives = policies or _ALTERNATIVES
    outcomes = [replay(f"configured: {_short(config.idle)}", arrivals, config, world)]
    outcomes += [replay(text, arrivals, _changed(config, text), world) for text in alternatives]
    outcomes += [never_remind(arrivals, config, world), on_traffic(arrivals, config, world)]
    outcomes += [office_hours(arrivals, world), always_on(arrivals, world), clairvoyant(arrivals, world)]
    days = (arrivals[-1].at - arrivals[0].at) / timedelta(days=1)
    head = f"{len(arrivals)} requests in {days:.1f} days; ${world.price_per_hour:.2f} an hour, cold start {show_duration(boot)}, drain {show_duration(world.drain)}."
    return f"{head}\n\n{table(outcomes, world)}\n"


def sample() -> str:
    """The synthetic trace as CSV."""
    return written(office_trace())


def _short(idle: Idle) -> str:
    return f"{show_duration(idle.remind_after)} / {show_duration(idle.down_after)}"


def _changed(config: Config, text: str) -> Config:
    """The configuration with the keys in `text`, such as `remind_after=5m quiet_days=sat,sun`, in its section `idle`."""
    changes: dict[str, object] = config.idle.model_dump()
    for word in text.split():
        key, equals, value = word.partition("=")
        if not equals or key not in Idle.model_fields:
            keys = ", ".join(Idle.model_fields)
            raise BotError(f"--policy: “{word}” is not KEY=VALUE of the section `idle`; the keys are {keys}.")
        changes[key] = value.split(",") if key == "quiet_days" else value
    try:
        return config.model_copy(update={"idle": Idle.model_validate(changes)})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BotError(
            f"--policy “{text}”: {key}{': ' if key else ''}{first['msg'].removeprefix('Value error, ')}."
        ) from error


def duration(text: str) -> timedelta:
    """Parse a duration such as 10m or 90s."""
    return parse_duration(text)
