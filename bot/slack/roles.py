"""The members of each role in the settings, read from Slack."""

import asyncio

from bot.component import component
from bot.errors import BotError
from bot.policy import People, may_use
from bot.settings.config import Config
from bot.slack.directory import Directory
from bot.slack.web_api import Slack, SlackRefused


@component
class RoleMembers:
    """The people who have a role now, and the people and groups in the settings that have no effect."""

    slack: Slack
    directory: Directory
    config: Config

    async def people(self) -> People:
        """The current members of each role. User groups are read each time; people who may not use the bot have no
        role.
        """
        roles = self.config.roles
        return People(
            requesters=await self._members(roles.requesters),
            approvers=await self._members(roles.approvers),
            admins=await self._members(roles.admins),
        )

    async def unknown(self) -> tuple[str, ...]:
        """Problems with the people and groups in the settings, according to Slack: none of these has an effect."""
        home, found = await self.directory.home(), list[str]()
        roles = self.config.roles
        for name, ids in (("requesters", roles.requesters), ("approvers", roles.approvers), ("admins", roles.admins)):
            for member in ids:
                try:
                    users = sorted(await self.slack.members((member,)))
                except BotError as error:
                    found.append(": ".join((f"roles.{name}", member, str(error))))
                    continue
                for user in users:
                    if not (verdict := may_use(await self.directory.profile(user), home, self.config)).allowed:
                        found.append(
                            f"roles.{name}: {user} has no effect, because Stoker would refuse them ({verdict.reason})"
                        )
        return tuple(found)

    async def _users(self, member: str) -> frozenset[str]:
        """A user, or the people of a user group; nobody if the group was deleted, which must not stop the others."""
        try:
            return await self.slack.members((member,))
        except SlackRefused as refused:
            if refused.code != "no_such_subteam":
                raise
            return frozenset()

    async def _members(self, ids: tuple[str, ...]) -> frozenset[str]:
        home, members = await self.directory.home(), sorted(frozenset().union(*[await self._users(i) for i in ids]))
        profiles = await asyncio.gather(*(self.directory.profile(user) for user in members))
        found = zip(members, profiles, strict=True)
        return frozenset(user for user, profile in found if may_use(profile, home, self.config).allowed)
