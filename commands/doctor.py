"""`/gpu doctor`: the diagnosis of the installation, for admins."""

from collections.abc import Sequence

from bot.doctor import Finding, examine
from bot.operations.life import insist
from bot.policy import may_examine
from bot.services import Services
from bot.views import escape


async def doctor(svc: Services, actor: str) -> str:
    insist(may_examine(actor, await svc.people()))
    return diagnosis(await examine(svc.settings))


def diagnosis(findings: Sequence[Finding]) -> str:
    """What is wrong first, then the warnings; what is well is counted."""
    said = []
    for verdict, mark in (("wrong", "🔴"), ("warning", "🟡")):
        for found in findings:
            if found.verdict == verdict:
                said.append(f"{mark} *{found.system}*: {escape(found.said)}")
                if found.mend:
                    said.append(f"      {escape(found.mend)}")
    well = sum(found.verdict == "ok" for found in findings)
    return "\n".join([f"🩺 {well} of {len(findings)} checks are well.", *said])
