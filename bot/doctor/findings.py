"""One line of a diagnosis, and the conversion of a failed check to a line."""

from collections.abc import AsyncIterator
from typing import Literal

import structlog
from pydantic import BaseModel

from bot.errors import BotError, Unavailable

log = structlog.get_logger(__name__)

Verdict = Literal["ok", "warning", "wrong"]


class Finding(BaseModel, frozen=True, defer_build=True):
    """The result of a check. `fix` is empty if nothing needs a fix. The bot does not work if a check is `wrong`, but
    works despite warnings.
    """

    system: str
    verdict: Verdict
    said: str
    fix: str = ""


def ok(system: str, said: str) -> Finding:
    return Finding(system=system, verdict="ok", said=said)


def warning(system: str, said: str, fix: str) -> Finding:
    return Finding(system=system, verdict="warning", said=said, fix=fix)


def wrong(system: str, said: str, fix: str) -> Finding:
    return Finding(system=system, verdict="wrong", said=said, fix=fix)


def unchecked(system: str, what: str, why: str, do: str) -> Finding:
    """A warning about a check that is inconclusive, because the other system does not return what it needs."""
    return warning(system, f"{what} could not be checked: {why}", do)


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
        advice = "Check that it runs where {} says, and that the network policy allows the connection (networkPolicy in the chart's values)."
        results.append(wrong(system, f"{error}.", advice.format(setting)))
    except Exception as error:
        # An unexpected error in one check must not prevent the others.
        log.exception("check failed", system=system)
        results.append(wrong(system, f"the check itself failed: {type(error).__name__}", "Report this, with the log."))
    return results
