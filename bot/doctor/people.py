"""Checks of Slack: tokens, scopes, the channel, the people in each role, and the clock."""

from collections.abc import AsyncIterator
from datetime import datetime
from email.utils import parsedate_to_datetime

from slack_sdk.web.async_client import AsyncWebClient

from bot.doctor.findings import Finding, ok, unchecked, warning, wrong
from bot.policy import may_use
from bot.services import now
from bot.settings.config import Approvals, Config, Roles
from bot.settings.environment import Settings
from bot.slack.directory import Directory
from bot.slack.ids import is_user_group
from bot.slack.scopes import scopes
from bot.slack.web_api import SlackRefused, slack_errors
from bot.text.mrkdwn import unmarked

SLACK, PEOPLE, CLOCK = "Slack", "people", "clock"
SKEW = 60.0
"""Maximum skew of the clock in seconds. Slack refuses signatures that are five minutes old, and GitHub refuses an App's
JWT that is one minute off.
"""


async def slack(settings: Settings, client: AsyncWebClient) -> AsyncIterator[Finding]:
    """Check the tokens, the clock, the channel, the scopes and the roles."""
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
            "Slack's answer does not list them (no header x-oauth-scopes)",
            "Compare them with the output of `stoker manifest`, at api.slack.com/apps, OAuth & Permissions.",
        )
    elif missing:
        option = " --bookmark" if settings.config.slack.bookmark else ""
        yield wrong(
            SLACK,
            f"the app lacks the scopes {', '.join(missing)}",
            f"Update the app's manifest with the output of `stoker manifest{' --private-channel' if private else ''}{option}`, then "
            "reinstall the app to the workspace.",
        )
    else:
        yield ok(SLACK, "the app has every scope in use")
    yield await _request_delivery(settings, client)
    async for finding in people(settings.config.roles, settings, client):
        yield finding


def _clock(date: str, now: datetime) -> Finding:
    if not date:
        return warning(CLOCK, "Slack's answer contains no time", "Check this machine's clock manually.")
    skew = (now - parsedate_to_datetime(date)).total_seconds()
    if abs(skew) > SKEW:
        direction = "ahead of" if skew > 0 else "behind"
        return wrong(
            CLOCK,
            f"this machine's clock is {abs(skew):.0f} s {direction} Slack's",
            "Enable time synchronisation (NTP).",
        )
    return ok(CLOCK, "this machine's clock agrees with Slack's")


async def _request_delivery(settings: Settings, client: AsyncWebClient) -> Finding:
    if settings.slack_signing_secret:
        return ok(SLACK, "Slack sends signed HTTP requests to /slack/events")
    token = settings.slack_app_token
    try:
        with slack_errors("apps.connections.open"):
            await client.apps_connections_open(app_token=token.get_secret_value() if token else "")
    except SlackRefused as error:
        return wrong(
            SLACK,
            f"the app-level token cannot open a Socket Mode connection ({error.code})",
            "Set SLACK_APP_TOKEN to an app-level token (xapp-…) with the scope connections:write, and enable Socket Mode.",
        )
    return ok(SLACK, "Socket Mode connections can be opened")


async def _channel(settings: Settings, client: AsyncWebClient) -> tuple[Finding, bool]:
    """Return the finding about the channel, and whether the channel is private, because its id does not show that."""
    channel = settings.config.slack.channel
    try:
        with slack_errors("conversations.info"):
            answer = await client.conversations_info(channel=channel)
    except SlackRefused as error:
        if error.code not in ("channel_not_found", "missing_scope"):
            raise
        missing = wrong(
            SLACK,
            f"the bot cannot see a channel {channel} ({error.code})",
            "Set slack.channel to the channel's id (at the bottom of its details in Slack). If it is private, create the app "
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
    """Check the people in each role: resolve the user groups, and report the people whom Stoker refuses."""
    members, directory = dict[str, list[str]](), Directory(client)
    for role, ids in (("requesters", roles.requesters), ("approvers", roles.approvers), ("admins", roles.admins)):
        users, findings = await _users(role, ids, client)
        for finding in findings:
            yield finding
        try:
            members[role], findings = await _accepted(role, users, directory, settings.config)
        except SlackRefused as error:
            if error.code != "missing_scope":
                raise
            yield wrong(
                PEOPLE,
                "Stoker may not read Slack users (the scope users:read is missing), so it refuses everybody",
                "Update the app's manifest with the output of `stoker manifest`, then reinstall the app to the workspace.",
            )
            return
        for finding in findings:
            yield finding
    yield _quorum(len(members["approvers"]), settings.config.approvals)
    if not members["admins"]:
        yield warning(
            PEOPLE, "nobody is an admin, so nobody can break a lease or override", "Add people to roles.admins."
        )


async def _users(role: str, ids: tuple[str, ...], client: AsyncWebClient) -> tuple[set[str], list[Finding]]:
    """Return the users in a role, with its user groups resolved, and the findings about the groups."""
    users, findings = {i for i in ids if not is_user_group(i)}, list[Finding]()
    for group in filter(is_user_group, ids):
        try:
            with slack_errors("usergroups.users.list"):
                answer = await client.usergroups_users_list(usergroup=group)
        except SlackRefused as error:
            if error.code != "no_such_subteam":
                raise
            problem = f"roles.{role} contains the user group {group}, which does not exist"
            findings.append(wrong(PEOPLE, problem, "Correct its id (S…)."))
            continue
        user_ids = answer.get("users") or []
        if not user_ids:
            problem = f"the user group {group} in roles.{role} has no members"
            findings.append(warning(PEOPLE, problem, "Add people to it in Slack."))
        users.update(user for user in user_ids if isinstance(user, str))
    return users, findings


async def _accepted(
    role: str, users: set[str], directory: Directory, config: Config
) -> tuple[list[str], list[Finding]]:
    """Return the users from whom Stoker accepts requests, and the findings about the others."""
    accepted, findings = list[str](), list[Finding]()
    for user in sorted(users):
        verdict = may_use(await directory.profile(user), await directory.home(), config)
        if verdict.allowed:
            accepted.append(user)
            continue
        problem = f"{user} in roles.{role} has no effect: {unmarked(verdict.reason)}"
        findings.append(warning(PEOPLE, problem, "Correct the id, or remove it from the role or its user group."))
    return accepted, findings


def _quorum(approvers: int, approvals: Approvals) -> Finding:
    """The finding about the number of approvers: without enough approvers, nothing that costs money can run."""
    quorum = approvals.quorum
    if not approvers:
        return wrong(
            PEOPLE,
            "nobody may approve, so nothing that costs money can run",
            "Add users or user groups to roles.approvers.",
        )
    if quorum > approvers:
        return wrong(
            PEOPLE,
            f"approvals.quorum is {quorum}, but the number of approvers is only {approvers}",
            "Lower approvals.quorum, or add approvers.",
        )
    if quorum == approvers and not approvals.self_approval:
        return warning(
            PEOPLE,
            f"approvals.quorum and the number of approvers are both {quorum}, so an approver's own request cannot be approved",
            "Add an approver, or set approvals.self_approval.",
        )
    return ok(PEOPLE, f"the number of approvers is {approvers}, and approvals.quorum is {quorum}")
