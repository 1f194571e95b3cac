"""Read the members of each role in the settings from Slack."""

import asyncio

from bot.component import component
from bot.errors import BotError
from bot.policy import People, may_use
from bot.settings.config import Config
from bot.slack.directory import Directory
from bot.slack.web_api import Slack, SlackRefused


@component
class RoleMembers:
    """Determines the people who have a role now, and the entries of the settings that have no effect."""

    slack: Slack
    directory: Directory
    config: Config

    async def people(self) -> People:
        """The current members of each role. User groups are read each time. People who may not use the bot are omitted."""
        roles = self.config.roles
        return People(
            requesters=await self._members(roles.requesters),
            approvers=await self._members(roles.approvers),
            admins=await self._members(roles.admins),
        )

    async def unknown(self) -> tuple[str, ...]:
        """One text for each person or group in the settings that has no effect, with the reason."""
        home, problems = await self.directory.home(), list[str]()
        roles = self.config.roles
        for name, ids in (("requesters", roles.requesters), ("approvers", roles.approvers), ("admins", roles.admins)):
            for member in ids:
                try:
                    users = sorted(await self.slack.members((member,)))
                except BotError as error:
                    problems.append(": ".join((f"roles.{name}", member, str(error))))
                    continue
                for user in users:
                    if not (verdict := may_use(await self.directory.profile(user), home, self.config)).allowed:
                        problems.append(
                            f"roles.{name}: {user} has no effect, because Stoker would refuse them ({verdict.reason})"
                        )
        return tuple(problems)

    async def _users(self, member: str) -> frozenset[str]:
        """The user, or the members of the user group; empty if the group was deleted, so that the other entries work."""
        try:
            return await self.slack.members((member,))
        except SlackRefused as refused:
            if refused.code != "no_such_subteam":
                raise
            return frozenset()

    async def _members(self, ids: tuple[str, ...]) -> frozenset[str]:
        home, members = await self.directory.home(), sorted(frozenset().union(*[await self._users(i) for i in ids]))
        profiles = await asyncio.gather(*(self.directory.profile(user) for user in members))
        accounts = zip(members, profiles, strict=True)
        return frozenset(user for user, profile in accounts if may_use(profile, home, self.config).allowed)
