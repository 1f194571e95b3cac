"""Parse and format durations for people: `2h`, `1h30m`, `45 min`, `900s`."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_UNITS = "days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s"
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*({_UNITS})", re.IGNORECASE)
_LONGEST = 3650 * 86400
"""Maximum duration in seconds: a longer duration is a typing mistake, and would exceed the range of dates."""
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def parse_duration(text: str) -> timedelta:
    """Parse `2h`, `1h30m`, `1 h 30 min`, `45m`, `900s`. Raises ValueError, with examples, for other texts."""
    compact = text.strip().replace(" ", "")
    parts = _PART.findall(compact)
    if not parts or "".join(n + unit for n, unit in parts) != compact:
        raise ValueError(f"“{text[:100]}” is not a duration: write for example 45m, 2h or 1h30m.")
    seconds = sum(float(n) * _SECONDS[unit[0].lower()] for n, unit in parts)
    if seconds > _LONGEST:
        raise ValueError(f"“{text[:40]}” is longer than ten years: write for example 45m, 2h or 1h30m.")
    total = timedelta(seconds=seconds)
    if total <= timedelta(0):
        raise ValueError(f"“{text}” is not longer than zero: write for example 45m, 2h or 1h30m.")
    return total


def show_duration(value: timedelta) -> str:
    """Format a duration with at most two units: `12 s`, `4 min 10 s`, `1 h 30 min`, `2 d 3 h`."""
    seconds = max(0, round(value.total_seconds()))
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    for index, (size, name) in enumerate(units):
        if seconds >= size:
            count, remainder = divmod(seconds, size)
            text = f"{count} {name}"
            if index + 1 < len(units) and remainder >= units[index + 1][0]:
                small, small_name = units[index + 1]
                text += f" {remainder // small} {small_name}"
            return text
    return "0 s"


def _coerce(value: object) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, int | float) and not 0 <= value <= _LONGEST:
        raise ValueError(f"{value} is not a number of seconds up to ten years: write for example 45m, 2h or 1h30m.")
    return timedelta(seconds=value) if isinstance(value, int | float) else value


def _schema() -> dict[str, Any]:
    """The JSON schema of a duration in a settings file. Its patterns are also valid in JavaScript and Go."""
    units = "".join(f"[{letter}{letter.upper()}]" if letter.isalpha() else letter for letter in _UNITS)
    text = {"type": "string", "pattern": rf"^( *[0-9]+(\.[0-9]+)? *({units}))+ *$", "not": {"pattern": "^[^1-9]*$"}}
    return {"anyOf": [text, {"type": "number", "minimum": 0, "maximum": _LONGEST}]}


Duration = Annotated[timedelta, BeforeValidator(_coerce), WithJsonSchema(_schema())]
"""A timedelta, written as `15m` in a settings file; a number without a unit is in seconds."""
