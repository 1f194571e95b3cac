"""The findings of the checks; a check that raises an error also becomes a finding."""

from collections.abc import AsyncIterator
from typing import Literal

import structlog
from pydantic import BaseModel, Field

from bot.errors import BotError, Unavailable

log = structlog.get_logger(__name__)

Verdict = Literal["ok", "warning", "wrong"]


class Finding(BaseModel, frozen=True, defer_build=True):
    """The result of a check. `fix` is empty if there is nothing to fix. With a `wrong` finding the bot does not work;
    with a `warning` it does.
    """

    system: str
    verdict: Verdict
    message: str = Field(serialization_alias="said")
    """The text of the finding. Its key in the output of `stoker doctor --json` stays `said`."""
    fix: str = ""


def ok(system: str, message: str) -> Finding:
    return Finding(system=system, verdict="ok", message=message)


def warning(system: str, message: str, fix: str) -> Finding:
    return Finding(system=system, verdict="warning", message=message, fix=fix)


def wrong(system: str, message: str, fix: str) -> Finding:
    return Finding(system=system, verdict="wrong", message=message, fix=fix)


def unchecked(system: str, subject: str, reason: str, fix: str) -> Finding:
    """A warning that `subject` could not be checked, because the system does not return what the check needs."""
    return warning(system, f"{subject} could not be checked: {reason}", fix)


async def collect(system: str, checks: AsyncIterator[Finding], setting: str = "") -> list[Finding]:
    """Return the findings about one system. A check that raises becomes the last finding.

    `setting` is the setting with the system's address.
    """
    results: list[Finding] = []
    try:
        async for finding in checks:
            results.append(finding)  # noqa: PERF401  # keeps the findings before a failure
    except BotError as error:
        results.append(wrong(system, error.message, ""))
    except Unavailable as error:
        advice = "Check that it runs at the address in {}, and that the network policy allows the connection (networkPolicy in the chart's values)."
        results.append(wrong(system, f"{error}.", advice.format(setting)))
    except Exception as error:
        # An unexpected error in one check must not prevent the others.
        log.exception("check failed", system=system)
        results.append(wrong(system, f"the check itself failed: {type(error).__name__}", "Report this, with the log."))
    return results
