"""Slack users: their workspace, and whether they are guests or apps. Cached answers of Slack."""

import asyncio
import time
from contextlib import suppress
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import BotError, Unavailable
from bot.policy import Home, Profile
from bot.slack.web_api import SlackRefused, slack_errors
from bot.text import markdown

_FRESH = 300.0
"""Seconds for which an answer is current: afterwards, a changed account is detected."""
_STALE = 86400.0
"""Seconds for which an older answer is used while Slack does not answer."""
_NAME = 80
"""Maximum characters of a name, as for Slack's display names."""
_NOBODY = ("user_not_found", "user_not_visible", "users_not_found")


class Directory:
    """The people of the workspace, by id."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client
        self._home: Home | None = None
        self._known: dict[str, tuple[float, Profile | None]] = {}
        self._asking: dict[str, asyncio.Task[Profile | None]] = {}

    async def home(self) -> Home:
        """The bot's own workspace, and its organisation if it is in one; it never changes."""
        if self._home is None:
            with slack_errors("auth.test"):
                said = await self._client.auth_test()
            self._home = Home(
                team=str(said.get("team_id") or ""),
                enterprise=str(said.get("enterprise_id") or ""),
                bot=str(said.get("user_id") or ""),
            )
        return self._home

    async def profile(self, user: str) -> Profile | None:
        """The user's profile; None for a user whom Slack does not know. Raises Unavailable if Slack does not answer."""
        asked, known = self._known.get(user, (-_STALE, None))
        age = time.monotonic() - asked
        if age < _FRESH:
            return known
        if user not in self._asking:
            task = self._asking[user] = asyncio.create_task(self._ask(user))
            task.add_done_callback(lambda _: self._asking.pop(user, None))
        try:
            return await asyncio.shield(self._asking[user])
        except Unavailable:
            if age < _STALE:
                return known
            raise

    async def signature(self, user: str) -> str:
        """The user for a text outside Slack, in Markdown: the name, if Slack returns it, and the id."""
        profile = None
        with suppress(BotError, Unavailable):  # without the name, the id is sufficient
            profile = await self.profile(user)
        name = f"{markdown.code(profile.name)} " if profile and profile.name else ""
        return f"{name}({markdown.code(user)})" if name else markdown.code(user)

    async def _ask(self, user: str) -> Profile | None:
        found: Profile | None = None
        try:
            with slack_errors("users.info"):
                answer = await self._client.users_info(user=user)
            said = answer.get("user")
            if not isinstance(said, dict):
                raise Unavailable("Slack", "its answer to users.info is not about a person")
            found = _profile(said)
        except SlackRefused as refused:
            if refused.code not in _NOBODY:
                raise
        if len(self._known) > 5000:
            self._known.clear()
        self._known[user] = (time.monotonic(), found)
        return found


def _profile(said: dict[str, Any]) -> Profile:
    """A profile from Slack's user object (docs.slack.dev/reference/objects/user-object).

    `is_bot` is false for Slackbot. `team_id` of a person who is here through Slack Connect is their own workspace.
    """
    found = said.get("enterprise_user")
    organisation = found if isinstance(found, dict) else {}
    teams = organisation.get("teams")
    return Profile(
        id=str(said.get("id") or ""),
        teams=frozenset(map(str, filter(None, (said.get("team_id"), *(teams if isinstance(teams, list) else ()))))),
        enterprise=str(organisation.get("enterprise_id") or ""),
        stranger=bool(said.get("is_stranger")),
        guest=bool(said.get("is_restricted") or said.get("is_ultra_restricted")),
        bot=bool(said.get("is_bot") or said.get("is_workflow_bot") or said.get("id") == "USLACKBOT"),
        deleted=bool(said.get("deleted")),
        name=_name(said),
    )


def _name(said: dict[str, Any]) -> str:
    """The display name, which may be empty; otherwise the real name, otherwise the handle."""
    found = said.get("profile")
    profile = found if isinstance(found, dict) else {}
    names = (profile.get("display_name"), profile.get("real_name"), said.get("real_name"), said.get("name"))
    return str(next(filter(None, names), ""))[:_NAME]
