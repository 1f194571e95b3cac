"""How people write times, and how times are shown to them: `2h`, `1h30m`, `45 min`, `900s`."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)", re.IGNORECASE)
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def parse_duration(text: str) -> timedelta:
    """Read `2h`, `1h30m`, `1 h 30 min`, `45m`, `900s`; raises ValueError with the fix for anything else."""
    compact = text.strip().replace(" ", "")
    parts = _PART.findall(compact)
    if not parts or "".join(n + unit for n, unit in parts) != compact:
        raise ValueError(f"“{text}” is not a duration: write for example 45m, 2h or 1h30m.")
    total = timedelta(seconds=sum(float(n) * _SECONDS[unit[0].lower()] for n, unit in parts))
    if total <= timedelta(0):
        raise ValueError(f"“{text}” is not longer than zero: write for example 45m, 2h or 1h30m.")
    return total


def show_duration(value: timedelta) -> str:
    """Two units at most, the way a person says it: `12 s`, `4 min 10 s`, `1 h 30 min`, `2 d 3 h`."""
    seconds = max(0, round(value.total_seconds()))
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    for index, (size, name) in enumerate(units):
        if seconds >= size:
            first, rest = divmod(seconds, size)
            text = f"{first} {name}"
            if index + 1 < len(units) and rest >= units[index + 1][0]:
                small, small_name = units[index + 1]
                text += f" {rest // small} {small_name}"
            return text
    return "0 s"


def _coerce(value: object) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    return timedelta(seconds=value) if isinstance(value, int | float) else value


Duration = Annotated[timedelta, BeforeValidator(_coerce)]
"""A timedelta that a settings file may spell `15m`; a bare number is seconds."""
