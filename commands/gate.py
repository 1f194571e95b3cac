"""The right to use the bot: one check before every command, click, form, event and shortcut. It fails closed.

Slack Connect brings people of other organisations into a channel, and guests and apps are in it too. Deliveries
identify the person's workspace in different fields (docs.slack.dev/apis/slack-connect): a command in `team_id`, a click
in `user.team_id`, an event in `user_team` and `source_team`. These fields can only lead to a refusal. The decision is
based on Slack's answer about the person (users.info).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
from bot.views.modals import DOWN_FORM, stopped
from bot.views.older import older
from commands.help_topics import COMMANDS
from commands.parsing import MENTION

Body = dict[str, Any]
Next = Callable[[], Awaitable[None]]
log = structlog.get_logger(__name__)

_PATIENCE = 2.0
"""Seconds for Slack's answer about a person: the delivery must be acknowledged within three."""
_STOPS = frozenset({BRING_DOWN, CANCEL, END_USE})
_DOWN = next(frozenset({topic.verb, *topic.also}) for topic in COMMANDS["/gpu"].topics if topic.verb == "down")


@dataclass(frozen=True)
class Delivery:
    """The sender of a delivery."""

    user: str
    what: str
    """The command, button or event, for the audit log."""
    teams: tuple[str, ...]
    """The person's workspaces that the delivery names."""
    enterprise: str = ""

    def verdict(self, home: Home) -> Verdict | None:
        """A refusal if the delivery names another organisation; None if there is no reason to refuse."""
        ours = {home.team, home.enterprise} - {""}
        foreign = [team for team in self.teams if team not in ours]
        if foreign and not (home.enterprise and self.enterprise == home.enterprise):
            return refuse(
                "Stoker accepts requests only from people of its own workspace, and your account belongs to another organisation."
            )
        return None


def read(body: Body) -> Delivery | None:
    """The sender of a delivery; None for an event that is not a person's request."""
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
        what = f"{body['command']} {body.get('text') or ''}".strip()[:200]
        return Delivery(
            str(body.get("user_id") or ""), what, _teams(body, "team_id"), str(body.get("enterprise_id") or "")
        )
    user = body.get("user") or {}
    actions = body.get("actions") or [{}]
    view = body.get("view") or {}
    what = (
        actions[0].get("action_id") or body.get("callback_id") or view.get("callback_id") or body.get("action_id") or ""
    )
    enterprise = (body.get("enterprise") or {}).get("id") or user.get("enterprise_id") or ""
    return Delivery(str(user.get("id") or ""), f"{body.get('type')} {what}", _teams(user, "team_id"), str(enterprise))


def _teams(fields: Body, *names: str) -> tuple[str, ...]:
    return tuple(str(fields[name]) for name in names if fields.get(name))


class Gate:
    def __init__(
        self, directory: Directory, deliveries: Deliveries, audit: AuditLog, slack: Slack, config: Config, clock: Clock
    ) -> None:
        self._directory, self._deliveries, self._audit = directory, deliveries, audit
        self._slack, self._config, self._clock = slack, config, clock
        self._telling: set[asyncio.Task[None]] = set()

    async def listen(self, context: AsyncBoltContext, body: Body, next: Next) -> BoltResponse | None:  # noqa: A002
        delivery = read(body)
        if delivery is None:
            await next()
            return None
        verdict = await self._verdict(delivery, body)
        if verdict.allowed:
            await next()
            return None
        reason = shown(verdict.reason)
        task = asyncio.create_task(self._refused(delivery, reason, context, body))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        return _answer(body, reason)

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
                md("Slack does not return who you are, so nothing was done: {error}.", error=error)
            )  # fmt: skip
        except (Unavailable, TimeoutError) as error:
            log.warning("person not looked up", actor=delivery.user, error=str(error))
            # Bringing a model down must work even if Slack fails.
            return Verdict(True) if _only_stops(body) else refuse(
                "Slack does not return who you are at the moment, so nothing was done. Try again in a moment."
            )  # fmt: skip

    async def _refused(self, delivery: Delivery, reason: Mrkdwn, context: AsyncBoltContext, body: Body) -> None:
        """Record the refusal, and show it only to the sender, once for each delivery."""
        again = str(body.get("event_id") or body.get("trigger_id") or "")
        with about(actor=delivery.user):
            try:
                if again and not await self._deliveries.is_first(f"turned away:{again}"):
                    return
                await self._audit.note_turned_away(delivery.user, delivery.what, str(reason), self._clock())
            except Unavailable as error:
                log.warning("refusal not in the audit log", what=delivery.what, error=str(error))
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
                await slack.tell(user, reason)
            case "block_actions" | "message_action" | "shortcut" if context.respond and context.response_url:
                view = lines(reason)
                await context.respond(
                    text=view.text, blocks=view.blocks, response_type="ephemeral", replace_original=False
                )
            case "block_actions" | "message_action" | "shortcut":
                await slack.tell(user, reason)


def _answer(body: Body, reason: Mrkdwn) -> BoltResponse:
    """The acknowledgement: it answers a command or a form, visible only to the sender."""
    if "command" in body:
        return _json(response_type="ephemeral", text=reason)
    match body.get("type"):
        case "view_submission":
            view = stopped("Stoker", reason)
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
        noun, _, rest = words.partition(" ")
        return noun.lower() == "down" or (noun.lower() == "gpu" and _begins_with_down(rest))
    if body.get("type") == "view_submission":  # the confirmation that `/gpu down` has opened
        return (body.get("view") or {}).get("callback_id") == DOWN_FORM
    actions = body.get("actions") or ()
    return bool(actions) and all(action.get("action_id") in _STOPS for action in actions)


def _begins_with_down(text: str) -> bool:
    return next(iter(text.lower().split()), "") in _DOWN
