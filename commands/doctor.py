"""`/gpu doctor`: the diagnosis of the installation, for admins."""

from collections.abc import Sequence

from bot.component import component
from bot.doctor import Finding, examine
from bot.engine.lifecycle import require
from bot.mrkdwn import Mrkdwn, md
from bot.policy import may_examine
from bot.settings.environment import Settings
from bot.slack.roles import RoleMembers


@component
class DoctorCommand:
    """`/gpu doctor`."""

    roles: RoleMembers
    settings: Settings

    async def examine(self, actor: str) -> Mrkdwn:
        require(may_examine(actor, await self.roles.people()))
        return diagnosis(await examine(self.settings))


def diagnosis(findings: Sequence[Finding], most: int | None = None) -> Mrkdwn:
    """Problems first, then the warnings, up to a maximum; successful checks are counted."""
    said = []
    for verdict, mark in (("wrong", "🔴"), ("warning", "🟡")):
        for found in findings:
            if found.verdict == verdict:
                line = md("{mark} *{system}*: {said}", mark=mark, system=found.system, said=found.said)
                said.append(md("{line}\n      {mend}", line=line, mend=found.fix) if found.fix else line)
    well = sum(found.verdict == "ok" for found in findings)
    more = [md("… and {count} more: `/gpu doctor`", count=len(said) - most)] if most and len(said) > most else []
    return md("\n").join(
        [md("🩺 {well} of {count} checks passed.", well=well, count=len(findings)), *said[:most], *more]
    )
