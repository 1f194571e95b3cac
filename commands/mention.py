"""Where no slash command can be typed: a mention in a thread, a direct message, the shortcut of a message; and hello."""

import json
import re
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.domain import Message
from bot.services import Services
from bot.views import View, code, lines, section
from bot.views.modals import SHORTCUT, modal, text_input, typed
from commands import gpu, model
from commands.answers import Respond, answered, whisperer
from commands.guide import guide, names, noun_of, unknown
from commands.topics import COMMANDS
from commands.words import Misunderstood

Body = dict[str, Any]

_MENTION = re.compile(r"<@[A-Z0-9]+(\|[^>]*)?>")


def register(app: AsyncApp, svc: Services) -> None:
    @app.event("app_mention")
    async def mentioned(ack: AsyncAck, event: Body, body: Body) -> None:
        await ack()
        respond = _there(svc, event["channel"], event.get("thread_ts") or event["ts"], body["event_id"])
        if event.get("user"):
            await answered(respond, tell(svc, event.get("text") or "", event["user"], body["event_id"]))

    @app.event("message")
    async def written(ack: AsyncAck, event: Body, body: Body) -> None:
        """A direct message is a command too; edits, other apps and what the bot wrote itself are not."""
        await ack()
        if event.get("channel_type") == "im" and not event.get("subtype") and not event.get("bot_id"):
            respond = _there(svc, event["channel"], event.get("thread_ts"), body["event_id"])
            await answered(respond, tell(svc, event.get("text") or "", event["user"], body["event_id"]))

    @app.event("member_joined_channel")
    async def joined(ack: AsyncAck, event: Body, context: Body) -> None:
        await ack()
        if event["user"] == context.get("bot_user_id"):
            await svc.slack.post(f"hello:{event['channel']}", event["channel"], await _hello(svc))

    @app.shortcut(SHORTCUT)
    async def picked(ack: AsyncAck, respond: AsyncRespond, shortcut: Body) -> None:
        await ack()
        message = shortcut["message"]
        place = {"channel": shortcut["channel"]["id"], "thread": message.get("thread_ts") or message["ts"]}
        hint = "What would follow the slash: gpu status, gpu up NAME for 2h, model list"
        field = text_input("said", "Command", placeholder="gpu status", hint=hint, longest=1000)
        form = modal(SHORTCUT, "Tell Stoker", [field], submit="Say it", metadata=json.dumps(place))
        await answered(respond, _opened(svc, shortcut["trigger_id"], form), urgent=True)

    @app.view(SHORTCUT)
    async def said(ack: AsyncAck, body: Body, view: Body) -> None:
        await ack()
        place, user = json.loads(view["private_metadata"]), body["user"]["id"]
        respond = whisperer(svc, place["channel"], user, place["thread"])
        await answered(respond, tell(svc, typed(view)["said"], user, view["id"]))


async def tell(svc: Services, text: str, user: str, delivery: str) -> str | None:
    """Do what was said without a slash; `delivery` tells a repeated one from a second one."""
    words = _MENTION.sub(" ", text).strip().removeprefix("/")
    noun, _, rest = words.partition(" ")
    if noun.lower() not in ("gpu", "model"):
        greeted = noun.lower() in ("", "help", "hello", "hi")
        noun, rest = "help" if greeted else noun_of(noun.lower()).removeprefix("/"), words
    command = {"text": rest, "user_id": user, "trigger_id": delivery}
    match noun.lower():
        case "help":
            examples = await names(svc)
            return "\n".join(guide(command, "", examples) for command in COMMANDS)
        case "gpu":
            return await gpu.answer(svc, command)
        case "model":
            verb, _, said = rest.partition(" ")
            if verb.lower() in ("add", "swap") and len(said.split()) < 2:
                raise Misunderstood(
                    f"Say the endpoint and the model, or let a form ask: {code(f'/model {verb} {said}'.strip()[:100])} in the channel."
                )
            return await model.answer(svc, command)
        case _:
            raise unknown("", words)


async def _opened(svc: Services, trigger_id: str, form: Body) -> None:
    await svc.slack.open_form(trigger_id, form)


def _there(svc: Services, channel: str, thread_ts: str | None, event_id: str) -> Respond:
    """Where the bot was asked, for all who read it there."""
    thread = Message(channel=channel, ts=thread_ts) if thread_ts else None

    async def respond(*, text: str, **_: object) -> None:
        await svc.slack.post(f"mention:{event_id}", channel, lines(text), thread=thread)

    return respond


async def _hello(svc: Services) -> View:
    """Said once in each channel that the bot joins."""
    examples = await names(svc)
    where = svc.config.slack.channel
    text = (
        "👋 I am Stoker. I light the GPU when somebody needs a model, prove that it answers, and bank the fire when"
        " nobody is there.\n"
        f"• {code(f'/gpu up {examples.gpu} for 2h because …')} asks for a model; a teammate approves in <#{where}>\n"
        "• `/gpu status` says who has the GPU and what it costs\n"
        "• `/model list` says what is served, `/model add` brings a new model by pull request\n"
        "In a thread, mention me: `@stoker status`. My Home tab shows everything at a glance. `/gpu help` says more."
    )
    return View(text="Hello, I am Stoker.", blocks=[section(text)])
