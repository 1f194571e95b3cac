"""Checks before every command, click, form, event and shortcut whether the person may use the bot. It fails closed.

A channel may contain guests, apps and, through Slack Connect, people of other organisations. The person's workspace is
in different fields of a delivery (docs.slack.dev/apis/slack-connect): `team_id` for a command, `user.team_id` for a
click, `user_team` and `source_team` for an event. These fields can only lead to a refusal. Everybody else is looked up
with `users.info`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from slack_bolt.context.async_context import AsyncBoltContext
from slack_bolt.response import BoltResponse

from bot.clock import Clock
from bot.errors import BotError, Unavailable
from bot.observability.logs import about
from bot.policy import Home, Verdict, may_use, refuse
from bot.settings.config import Config
from bot.slack.directory import Directory
from bot.slack.web_api import Slack
from bot.state.audit import AuditLog
from bot.state.deliveries import Deliveries
from bot.text.mrkdwn import Mrkdwn, md, shown
from bot.views import BRING_DOWN, CANCEL, END_USE, lines
from bot.views.home import refusal
from bot.views.modals import DOWN_FORM, unfillable_form
from bot.views.older import older
from commands.help_topics import COMMANDS
from commands.parsing import MENTION
from manifests.frozen import frozen

Body = dict[str, Any]
Next = Callable[[], Awaitable[None]]
log = structlog.get_logger(__name__)

_PATIENCE = 2.0
"""Timeout in seconds for looking up a person, because the delivery must be acknowledged within three."""
_STOPS = frozenset({BRING_DOWN, CANCEL, END_USE})
_DOWN = next(frozenset({topic.verb, *topic.also}) for topic in COMMANDS["/gpu"].topics if topic.verb == "down")


@frozen
class Delivery:
    """The sender of a delivery."""

    user: str
    action: str
    """The command, button or event, for the audit log."""
    teams: tuple[str, ...]
    """The ids of the person's workspaces in the delivery."""
    enterprise: str = ""

    def verdict(self, home: Home) -> Verdict | None:
        """Return a refusal if the person belongs to another organisation; otherwise None."""
        home_ids = {home.team, home.enterprise} - {""}
        foreign = [team for team in self.teams if team not in home_ids]
        if foreign and not (home.enterprise and self.enterprise == home.enterprise):
            return refuse(
                "Stoker accepts requests only from people of its own workspace, and your account belongs to another organisation."
            )
        return None


def read(body: Body) -> Delivery | None:
    """Return the sender of a delivery; None for an event that is not a person's request."""
    if isinstance(event := body.get("event"), dict):
        kind = str(event.get("type"))
        asks = kind in ("app_mention", "app_home_opened") or (
            kind == "message" and event.get("channel_type") == "im" and not event.get("subtype")
        )
        if not asks:
            return None
        user = event.get("user")
        user = user.get("id") if isinstance(user, dict) else user
        text = str(event.get("text") or "")[:200]
        return Delivery(
            str(user or event.get("bot_id") or ""), f"{kind} {text}".strip(), _teams(event, "user_team", "source_team")
        )
    if "command" in body:
        action = f"{body['command']} {body.get('text') or ''}".strip()[:200]
        return Delivery(
            str(body.get("user_id") or ""), action, _teams(body, "team_id"), str(body.get("enterprise_id") or "")
        )
    user = body.get("user") or {}
    actions = body.get("actions") or [{}]
    view = body.get("view") or {}
    action = (
        actions[0].get("action_id") or body.get("callback_id") or view.get("callback_id") or body.get("action_id") or ""
    )
    enterprise = (body.get("enterprise") or {}).get("id") or user.get("enterprise_id") or ""
    return Delivery(str(user.get("id") or ""), f"{body.get('type')} {action}", _teams(user, "team_id"), str(enterprise))


def _teams(fields: Body, *names: str) -> tuple[str, ...]:
    return tuple(str(fields[name]) for name in names if fields.get(name))


class Gate:
    """The middleware that refuses deliveries of people who may not use the bot."""

    def __init__(
        self, directory: Directory, deliveries: Deliveries, audit: AuditLog, slack: Slack, config: Config, clock: Clock
    ) -> None:
        self._directory, self._deliveries, self._audit = directory, deliveries, audit
        self._slack, self._config, self._clock = slack, config, clock
        self._reports: set[asyncio.Task[None]] = set()

    async def listen(self, context: AsyncBoltContext, body: Body, next: Next) -> BoltResponse | None:  # noqa: A002
        """Pass the delivery on, or return the acknowledgement of the refusal."""
        delivery = read(body)
        if delivery is None:
            await next()
            return None
        verdict = await self._verdict(delivery, body)
        if verdict.allowed:
            await next()
            return None
        reason = shown(verdict.reason)
        task = asyncio.create_task(self._report_refusal(delivery, reason, context, body))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
        return _acknowledgement(body, reason)

    async def _verdict(self, delivery: Delivery, body: Body) -> Verdict:
        try:
            async with asyncio.timeout(_PATIENCE):
                home = await self._directory.home()
                if foreign := delivery.verdict(home):
                    return foreign
                if delivery.user and delivery.user == home.bot:
                    return Verdict(True)
                return may_use(await self._directory.profile(delivery.user), home, self._config)
        except BotError as error:
            log.warning("person not looked up", actor=delivery.user, error=str(error))
            return Verdict(True) if _only_stops(body) else refuse(
                md("Nothing was done, because Slack could not look up your account: {error}.", error=error)
            )  # fmt: skip
        except (Unavailable, TimeoutError) as error:
            log.warning("person not looked up", actor=delivery.user, error=str(error))
            # A bring-down must work even if Slack does not answer.
            return Verdict(True) if _only_stops(body) else refuse(
                "Nothing was done, because Slack could not look up your account. Try again in a moment."
            )  # fmt: skip

    async def _report_refusal(self, delivery: Delivery, reason: Mrkdwn, context: AsyncBoltContext, body: Body) -> None:
        """Record the refusal in the audit log, and show it to the sender only, once for each delivery."""
        delivery_id = str(body.get("event_id") or body.get("trigger_id") or "")
        with about(actor=delivery.user):
            try:
                if delivery_id and not await self._deliveries.is_first(f"turned away:{delivery_id}"):
                    return
                await self._audit.note_turned_away(delivery.user, delivery.action, str(reason), self._clock())
            except Unavailable as error:
                log.warning("refusal not in the audit log", what=delivery.action, error=str(error))
            try:
                await self._tell(delivery.user, reason, context, body)
            except (BotError, Unavailable) as error:
                log.info("refusal not shown", error=str(error))

    async def _tell(self, user: str, reason: Mrkdwn, context: AsyncBoltContext, body: Body) -> None:
        slack, event = self._slack, body.get("event") or {}
        match event.get("type") or body.get("type"):
            case "app_home_opened":
                await slack.publish_home(user, refusal(reason))
            case "app_mention":
                await slack.whisper(event["channel"], user, reason, thread=event.get("thread_ts"))
            case "message":
                await slack.send(user, reason)
            case "block_actions" | "message_action" | "shortcut" if context.respond and context.response_url:
                view = lines(reason)
                await context.respond(
                    text=view.text, blocks=view.blocks, response_type="ephemeral", replace_original=False
                )
            case "block_actions" | "message_action" | "shortcut":
                await slack.send(user, reason)


def _acknowledgement(body: Body, reason: Mrkdwn) -> BoltResponse:
    """The acknowledgement of a refused delivery. For a command or a form, it contains the reason."""
    if "command" in body:
        return _json(response_type="ephemeral", text=reason)
    match body.get("type"):
        case "view_submission":
            view = unfillable_form("Stoker", reason)
            return _json(response_action="update", view=view | {"blocks": older(view["blocks"])})
        case "block_suggestion":
            return _json(options=[])
    return BoltResponse(status=200, body="")


def _json(**content: Any) -> BoltResponse:
    return BoltResponse(status=200, body=content)


def _only_stops(body: Body) -> bool:
    """Return whether a delivery can only stop something that costs money."""
    if body.get("command") == "/gpu":
        return _begins_with_down(str(body.get("text") or ""))
    if isinstance(event := body.get("event"), dict):  # a mention, or a direct message
        words = MENTION.sub(" ", str(event.get("text") or "")).strip().removeprefix("/")
        noun, _, arguments = words.partition(" ")
        return noun.lower() == "down" or (noun.lower() == "gpu" and _begins_with_down(arguments))
    if body.get("type") == "view_submission":  # the confirmation of `/gpu down`
        return (body.get("view") or {}).get("callback_id") == DOWN_FORM
    actions = body.get("actions") or ()
    return bool(actions) and all(action.get("action_id") in _STOPS for action in actions)


def _begins_with_down(text: str) -> bool:
    return next(iter(text.lower().split()), "") in _DOWN
