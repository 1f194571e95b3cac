"""One line of a diagnosis, and the conversion of a failed check to a line."""

from collections.abc import AsyncIterator
from typing import Literal

import structlog
from pydantic import BaseModel

from bot.errors import BotError, Unavailable

log = structlog.get_logger(__name__)

Verdict = Literal["ok", "warning", "wrong"]


class Finding(BaseModel, frozen=True, defer_build=True):
    """The result of a check. `mend` is the fix, empty if none is needed; `wrong` stops work, a warning does not."""

    system: str
    verdict: Verdict
    said: str
    mend: str = ""


def ok(system: str, said: str) -> Finding:
    return Finding(system=system, verdict="ok", said=said)


def warning(system: str, said: str, mend: str) -> Finding:
    return Finding(system=system, verdict="warning", said=said, mend=mend)


def wrong(system: str, said: str, mend: str) -> Finding:
    return Finding(system=system, verdict="wrong", said=said, mend=mend)


def unchecked(system: str, what: str, why: str, do: str) -> Finding:
    """A check that the other system does not answer: neither right nor wrong."""
    return warning(system, f"{what} could not be checked: {why}", do)


async def gathered(system: str, checks: AsyncIterator[Finding], setting: str = "") -> list[Finding]:
    """The results of one system's checks, up to the first that could not be carried out, which is a finding too.

    `setting` is the setting with the system's address.
    """
    found: list[Finding] = []
    try:
        async for finding in checks:
            found.append(finding)  # noqa: PERF401  # what was found before a failure is kept
    except BotError as error:
        found.append(wrong(system, error.message, ""))
    except Unavailable as error:
        way = "Check that it runs where {} says, and that the network policy allows the connection (networkPolicy in the chart's values)."
        found.append(wrong(system, f"{error}.", way.format(setting)))
    except Exception as error:
        # An unexpected error in one check must not prevent the others.
        log.exception("check failed", system=system)
        found.append(wrong(system, f"the check itself failed: {type(error).__name__}", "Report this, with the log."))
    return found
