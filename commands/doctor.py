"""`/gpu doctor`: the diagnosis of the installation, for admins."""

from collections.abc import Sequence

from bot.component import component
from bot.doctor import Finding, examine
from bot.engine.lifecycle import require
from bot.policy import may_examine
from bot.settings.environment import Settings
from bot.slack.roles import RoleMembers
from bot.text.mrkdwn import Mrkdwn, md


@component
class DoctorCommand:
    """`/gpu doctor`."""

    roles: RoleMembers
    settings: Settings

    async def examine(self, actor: str) -> Mrkdwn:
        """Run all checks, and return the diagnosis; raises NotAllowed if the person is not an admin."""
        require(may_examine(actor, await self.roles.people()))
        return diagnosis(await examine(self.settings))


def diagnosis(findings: Sequence[Finding], most: int | None = None) -> Mrkdwn:
    """Format the problems, then the warnings, at most `most` of them; passed checks are counted."""
    problems = []
    for verdict, mark in (("wrong", "🔴"), ("warning", "🟡")):
        for finding in findings:
            if finding.verdict == verdict:
                line = md("{mark} *{system}*: {said}", mark=mark, system=finding.system, said=finding.message)
                problems.append(md("{line}\n      {fix}", line=line, fix=finding.fix) if finding.fix else line)
    passed = sum(finding.verdict == "ok" for finding in findings)
    more = (
        [md("… and {count} more: `/gpu doctor`", count=len(problems) - most)] if most and len(problems) > most else []
    )
    return md("\n").join(
        [md("🩺 {passed} of {count} checks passed.", passed=passed, count=len(findings)), *problems[:most], *more]
    )
