"""`/gpu doctor`: the diagnosis of the installation, for admins."""

from collections.abc import Sequence
from dataclasses import dataclass

from bot.doctor import Finding, examine
from bot.engine.lifecycle import insist
from bot.mrkdwn import Mrkdwn, md
from bot.policy import may_examine
from bot.roles import RoleMembers
from bot.settings import Settings


@dataclass(frozen=True)
class DoctorCommand:
    """`/gpu doctor`."""

    roles: RoleMembers
    settings: Settings

    async def examine(self, actor: str) -> Mrkdwn:
        insist(may_examine(actor, await self.roles.people()))
        return diagnosis(await examine(self.settings))


def diagnosis(findings: Sequence[Finding]) -> Mrkdwn:
    """Problems first, then the warnings; successful checks are counted."""
    said = []
    for verdict, mark in (("wrong", "🔴"), ("warning", "🟡")):
        for found in findings:
            if found.verdict == verdict:
                said.append(md("{mark} *{system}*: {said}", mark=mark, system=found.system, said=found.said))
                if found.mend:
                    said.append(md("      {mend}", mend=found.mend))
    well = sum(found.verdict == "ok" for found in findings)
    return md("\n").join([f"🩺 {well} of {len(findings)} checks passed.", *said])
