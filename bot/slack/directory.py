"""Profiles of Slack users: their workspace, and whether they are guests or apps. The answers are cached."""

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
"""Seconds for which a cached answer is used without a request."""
_STALE = 86400.0
"""Seconds for which a cached answer is used if Slack does not answer."""
_NAME = 80
"""Maximum characters of a name, which is also Slack's limit for display names."""
_NOBODY = ("user_not_found", "user_not_visible", "users_not_found")


class Directory:
    """Reads the profiles of users by id."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client
        self._home: Home | None = None
        self._known: dict[str, tuple[float, Profile | None]] = {}
        self._asking: dict[str, asyncio.Task[Profile | None]] = {}

    async def home(self) -> Home:
        """The bot's workspace, and its organisation if it has one. The answer is cached, because it never changes."""
        if self._home is None:
            with slack_errors("auth.test"):
                identity = await self._client.auth_test()
            self._home = Home(
                team=str(identity.get("team_id") or ""),
                enterprise=str(identity.get("enterprise_id") or ""),
                bot=str(identity.get("user_id") or ""),
            )
        return self._home

    async def profile(self, user: str) -> Profile | None:
        """The user's profile; None for a user whom Slack does not know. Raises Unavailable if Slack does not answer."""
        asked_at, cached = self._known.get(user, (-_STALE, None))
        age = time.monotonic() - asked_at
        if age < _FRESH:
            return cached
        if user not in self._asking:
            task = self._asking[user] = asyncio.create_task(self._ask(user))
            task.add_done_callback(lambda _: self._asking.pop(user, None))
        try:
            return await asyncio.shield(self._asking[user])
        except Unavailable:
            if age < _STALE:
                return cached
            raise

    async def signature(self, user: str) -> str:
        """The user's name, if Slack returns it, and the user's id, in Markdown for a text outside Slack."""
        profile = None
        with suppress(BotError, Unavailable):  # without the name, the id is sufficient
            profile = await self.profile(user)
        name = f"{markdown.code(profile.name)} " if profile and profile.name else ""
        return f"{name}({markdown.code(user)})" if name else markdown.code(user)

    async def _ask(self, user: str) -> Profile | None:
        profile: Profile | None = None
        try:
            with slack_errors("users.info"):
                answer = await self._client.users_info(user=user)
            account = answer.get("user")
            if not isinstance(account, dict):
                raise Unavailable("Slack", "its answer to users.info is not about a person")
            profile = _profile(account)
        except SlackRefused as refused:
            if refused.code not in _NOBODY:
                raise
        if len(self._known) > 5000:
            self._known.clear()
        self._known[user] = (time.monotonic(), profile)
        return profile


def _profile(account: dict[str, Any]) -> Profile:
    """A profile from Slack's user object (docs.slack.dev/reference/objects/user-object).

    `is_bot` is false for Slackbot. For a person from another workspace (Slack Connect), `team_id` is that workspace.
    """
    enterprise_user = account.get("enterprise_user")
    organisation = enterprise_user if isinstance(enterprise_user, dict) else {}
    teams = organisation.get("teams")
    return Profile(
        id=str(account.get("id") or ""),
        teams=frozenset(map(str, filter(None, (account.get("team_id"), *(teams if isinstance(teams, list) else ()))))),
        enterprise=str(organisation.get("enterprise_id") or ""),
        stranger=bool(account.get("is_stranger")),
        guest=bool(account.get("is_restricted") or account.get("is_ultra_restricted")),
        bot=bool(account.get("is_bot") or account.get("is_workflow_bot") or account.get("id") == "USLACKBOT"),
        deleted=bool(account.get("deleted")),
        name=_name(account),
    )


def _name(account: dict[str, Any]) -> str:
    """The display name, which may be empty; otherwise the real name, otherwise the handle."""
    profile_data = account.get("profile")
    profile = profile_data if isinstance(profile_data, dict) else {}
    names = (profile.get("display_name"), profile.get("real_name"), account.get("real_name"), account.get("name"))
    return str(next(filter(None, names), ""))[:_NAME]
