"""One line of a diagnosis, and how a check that cannot be made becomes one."""

from collections.abc import AsyncIterator
from typing import Literal

import structlog
from pydantic import BaseModel

from bot.errors import BotError, Unavailable

log = structlog.get_logger(__name__)

Verdict = Literal["ok", "warning", "wrong"]


class Finding(BaseModel, frozen=True):
    """What a check found. `mend` is empty where nothing needs mending; `wrong` stops work, a warning does not."""

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


async def gathered(system: str, checks: AsyncIterator[Finding], setting: str = "") -> list[Finding]:
    """What the checks of one system found, up to the one that could not be made; that one is a finding too.

    `setting` is the one that says where the system is.
    """
    found: list[Finding] = []
    try:
        async for finding in checks:
            found.append(finding)  # noqa: PERF401  # what was found before a failure is kept
    except BotError as error:
        found.append(wrong(system, error.message, ""))
    except Unavailable as error:
        way = "Check that it runs where {} says, and that the network lets the bot out (networkPolicy in the chart's values)."
        found.append(wrong(system, f"{error}.", way.format(setting)))
    except Exception as error:
        # A doctor that dies of one patient sees no other.
        log.exception("check failed", system=system)
        found.append(wrong(system, f"the check itself failed: {type(error).__name__}", "Report this, with the log."))
    return found
