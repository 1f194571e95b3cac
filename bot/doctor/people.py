"""Slack and its users: tokens, scopes, the channel, the approvers, and the clock."""

from collections.abc import AsyncIterator
from datetime import datetime
from email.utils import parsedate_to_datetime

from slack_sdk.web.async_client import AsyncWebClient

from bot.doctor.findings import Finding, ok, unchecked, warning, wrong
from bot.policy import may_use
from bot.services import now
from bot.settings.config import Roles
from bot.settings.environment import Settings
from bot.slack.directory import Directory
from bot.slack.ids import is_user_group
from bot.slack.scopes import scopes
from bot.slack.web_api import SlackRefused, slack_errors
from bot.text.mrkdwn import unmarked

SLACK, PEOPLE, CLOCK = "Slack", "people", "clock"
SKEW = 60.0
"""Maximum skew in seconds. Slack refuses signatures that are five minutes off, GitHub an App's JWT that is one
minute off.
"""


async def slack(settings: Settings, client: AsyncWebClient) -> AsyncIterator[Finding]:
    try:
        with slack_errors("auth.test"):
            answer = await client.auth_test()
    except SlackRefused as error:
        yield wrong(
            SLACK,
            f"the bot token is not accepted ({error.code})",
            "Set SLACK_BOT_TOKEN to the Bot User OAuth Token of the installed app; it begins with xoxb-.",
        )
        return
    yield ok(SLACK, f"the bot is @{answer.get('user')} in {answer.get('team')}")
    yield _clock(str(answer.headers.get("Date", "")), now())
    channel, private = await _channel(settings, client)
    yield channel
    header = str(answer.headers.get("x-oauth-scopes", ""))
    missing = sorted(
        set(scopes(private_channel=private, bookmark=settings.config.slack.bookmark))
        - {scope.strip() for scope in header.split(",")}
    )
    if not header.strip():
        yield unchecked(
            SLACK,
            "the app's scopes",
            "Slack's answer does not name them (no header x-oauth-scopes)",
            "Compare them with the output of `stoker manifest`, at api.slack.com/apps, OAuth & Permissions.",
        )
    elif missing:
        mark = " --bookmark" if settings.config.slack.bookmark else ""
        yield wrong(
            SLACK,
            f"the app lacks the scopes {', '.join(missing)}",
            f"Update the app with what `stoker manifest{' --private-channel' if private else ''}{mark}` prints, then reinstall it "
            "to the workspace.",
        )
    else:
        yield ok(SLACK, "the app has every scope in use")
    yield await _request_delivery(settings, client)
    async for finding in people(settings.config.roles, settings, client):
        yield finding


def _clock(date: str, now: datetime) -> Finding:
    if not date:
        return warning(CLOCK, "Slack's answer has no time", "Check this machine's clock by hand.")
    skew = (now - parsedate_to_datetime(date)).total_seconds()
    if abs(skew) > SKEW:
        way = "ahead" if skew > 0 else "behind"
        return wrong(
            CLOCK,
            f"this machine's clock is {abs(skew):.0f} s {way} of Slack's",
            "Enable time synchronisation (NTP).",
        )
    return ok(CLOCK, "as Slack's")


async def _request_delivery(settings: Settings, client: AsyncWebClient) -> Finding:
    if settings.slack_signing_secret:
        return ok(SLACK, "requests come over HTTP, signed, at /slack/events")
    token = settings.slack_app_token
    try:
        with slack_errors("apps.connections.open"):
            await client.apps_connections_open(app_token=token.get_secret_value() if token else "")
    except SlackRefused as error:
        return wrong(
            SLACK,
            f"the app-level token opens no Socket Mode connection ({error.code})",
            "Set SLACK_APP_TOKEN to an app-level token (xapp-…) with the scope connections:write, and enable Socket Mode.",
        )
    return ok(SLACK, "Socket Mode opens")


async def _channel(settings: Settings, client: AsyncWebClient) -> tuple[Finding, bool]:
    """The finding about the channel, and whether it is private, which its id does not show."""
    channel = settings.config.slack.channel
    try:
        with slack_errors("conversations.info"):
            answer = await client.conversations_info(channel=channel)
    except SlackRefused as error:
        if error.code not in ("channel_not_found", "missing_scope"):
            raise
        missing = wrong(
            SLACK,
            f"there is no channel {channel} for the bot ({error.code})",
            "Set slack.channel to the channel's id (its details in Slack, at the bottom). If it is private, make the app "
            "with `stoker manifest --private-channel` and invite the bot.",
        )
        return missing, channel.startswith("G")
    details = answer["channel"]
    name, private = f"#{details.get('name', channel)}", bool(details.get("is_private"))
    if details.get("is_archived"):
        return wrong(SLACK, f"{name} is archived", "Unarchive it, or set slack.channel to another one."), private
    if not details.get("is_member"):
        return wrong(SLACK, f"the bot is not in {name}", f"Type `/invite @stoker` in {name}."), private
    return ok(SLACK, f"the bot is in {name}"), private


async def people(roles: Roles, settings: Settings, client: AsyncWebClient) -> AsyncIterator[Finding]:
    """Check the approvers, with user groups resolved and without people whom Stoker refuses. Without approvers
    nothing that costs money runs.
    """
    members, directory = dict[str, frozenset[str]](), Directory(client)
    for role, ids in (("requesters", roles.requesters), ("approvers", roles.approvers), ("admins", roles.admins)):
        users = {i for i in ids if not is_user_group(i)}
        for group in filter(is_user_group, ids):
            try:
                with slack_errors("usergroups.users.list"):
                    answer = await client.usergroups_users_list(usergroup=group)
            except SlackRefused as error:
                if error.code != "no_such_subteam":
                    raise
                yield wrong(
                    PEOPLE, f"roles.{role} names the user group {group}, which does not exist", "Correct its id (S…)."
                )
                continue
            user_ids = answer.get("users") or []
            if not user_ids:
                yield warning(
                    PEOPLE, f"the user group {group} in roles.{role} has no members", "Add people to it in Slack."
                )
            users.update(user for user in user_ids if isinstance(user, str))
        counted = set[str]()
        for user in sorted(users):
            try:
                verdict = may_use(await directory.profile(user), await directory.home(), settings.config)
            except SlackRefused as error:
                if error.code != "missing_scope":
                    raise
                yield wrong(
                    PEOPLE,
                    "Stoker may not read Slack users (the scope users:read is missing), so it refuses everybody",
                    "The app's manifest must be updated: paste what `stoker manifest` prints, then reinstall the app to "
                    "the workspace.",
                )
                return
            if verdict.allowed:
                counted.add(user)
            else:
                yield warning(
                    PEOPLE,
                    f"{user} in roles.{role} has no effect: {unmarked(verdict.reason)}",
                    "Correct the id, or remove it from the role or its user group.",
                )
        members[role] = frozenset(counted)
    approvers, quorum = members["approvers"], settings.config.approvals.quorum
    if not approvers:
        yield wrong(
            PEOPLE,
            "nobody may approve, so nothing that costs money can run",
            "Add users or user groups to roles.approvers.",
        )
    elif quorum > len(approvers):
        yield wrong(
            PEOPLE,
            f"approvals.quorum is {quorum}, and there are {len(approvers)} approvers",
            "Lower approvals.quorum, or name more approvers.",
        )
    elif quorum == len(approvers) and not settings.config.approvals.self_approval:
        yield warning(
            PEOPLE,
            f"{len(approvers)} may approve and {quorum} must, so no approver's own request can pass",
            "Name one more approver, or set approvals.self_approval.",
        )
    else:
        yield ok(PEOPLE, f"{len(approvers)} may approve, {quorum} must")
    if not members["admins"]:
        yield warning(
            PEOPLE, "nobody is an admin, so nobody can break a lease or override", "Name people in roles.admins."
        )
