"""Mentions, direct messages and the message shortcut, and the greeting when the bot joins a channel."""

import json
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.component import component
from bot.domain.values import Message
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.slack.web_api import Slack
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import Blocks, View, code, context, lines, section, without_buttons
from bot.views.modals import SHORTCUT, form_values, modal, text_input
from commands.gpu.command import GpuCommand
from commands.guide import ExampleNames, guide, noun_of, unknown
from commands.help_topics import COMMANDS
from commands.model import ModelCommand
from commands.parsing import MENTION, Misunderstood, is_question
from commands.replies import Answer, Respond, ephemeral_responder, send_answer

Body = dict[str, Any]


@component
class Conversations:
    """Mentions, direct messages and the message shortcut."""

    slack: Slack
    presentation: Presentation
    example_names: ExampleNames
    gpu: GpuCommand
    model: ModelCommand
    config: Config

    def register(self, app: AsyncApp) -> None:
        @app.event("app_mention")
        async def bot_mentioned(ack: AsyncAck, event: Body, body: Body) -> None:
            await ack()
            respond = _thread_responder(
                self.slack, event["channel"], event.get("thread_ts") or event["ts"], body["event_id"]
            )
            if event.get("user"):
                await send_answer(
                    respond, self.tell(event.get("text") or "", event["user"], body["event_id"], event["channel"])
                )

        @app.event("message")
        async def direct_message(ack: AsyncAck, event: Body, body: Body) -> None:
            """Execute a direct message as a command. Edits and messages of apps are ignored."""
            await ack()
            if event.get("channel_type") == "im" and not event.get("subtype") and not event.get("bot_id"):
                respond = _thread_responder(self.slack, event["channel"], event.get("thread_ts"), body["event_id"])
                await send_answer(
                    respond, self.tell(event.get("text") or "", event["user"], body["event_id"], event["channel"])
                )

        @app.event("member_joined_channel")
        async def channel_joined(ack: AsyncAck, event: Body, context: Body) -> None:
            await ack()
            if event["user"] == context.get("bot_user_id"):
                self.presentation.reopen(event["channel"])
                await self.slack.post(f"hello:{event['channel']}", event["channel"], await self._hello())

        @app.shortcut(SHORTCUT)
        async def shortcut_picked(ack: AsyncAck, respond: AsyncRespond, shortcut: Body) -> None:
            await ack()
            message = shortcut["message"]
            place = {"channel": shortcut["channel"]["id"], "thread": message.get("thread_ts") or message["ts"]}
            hint = "A command without the slash: gpu status, gpu up NAME for 2h, model list"
            field = text_input("said", "Command", placeholder="gpu status", hint=hint, longest=1000)
            form = modal(SHORTCUT, "Tell Stoker", [field], submit="Send", metadata=json.dumps(place))
            await send_answer(respond, _open_form(self.slack, shortcut["trigger_id"], form), urgent=True)

        @app.view(SHORTCUT)
        async def shortcut_submitted(ack: AsyncAck, body: Body, view: Body) -> None:
            await ack()
            place, user = json.loads(view["private_metadata"]), body["user"]["id"]
            respond = ephemeral_responder(self.slack, place["channel"], user, place["thread"])
            await send_answer(respond, self.tell(form_values(view)["said"], user, view["id"], place["channel"]))

    async def tell(self, text: str, user: str, delivery: str, channel: str = "") -> Answer:
        """Execute a command without a slash, and return the answer. `delivery` identifies repeated deliveries."""
        words = MENTION.sub(" ", text).strip().removeprefix("/")
        noun, _, arguments_text = words.partition(" ")
        if noun.lower() not in ("gpu", "model"):
            if is_question(words) and not noun_of(noun.lower()):
                return await self._status()
            greeted = noun.lower() in ("", "help", "hello", "hi")
            noun, arguments_text = "help" if greeted else noun_of(noun.lower()).removeprefix("/"), words
        command = {"text": arguments_text, "user_id": user, "trigger_id": delivery, "channel_id": channel}
        match noun.lower():
            case "help":
                examples = await self.example_names.read()
                return md("\n").join(guide(command, "", examples) for command in COMMANDS)
            case "gpu":
                return await self.gpu.answer(command)
            case "model":
                verb, _, arguments = arguments_text.partition(" ")
                if verb.lower() in ("add", "swap") and len(arguments.split()) < 2:
                    raise Misunderstood(
                        md(
                            "Name the endpoint and the model, or use the form: {strip} in the channel.",
                            strip=code(md("/model {verb} {arguments}", verb=verb, arguments=arguments).strip()[:100]),
                        )
                    )
                return await self.model.answer(command)
            case _:
                raise unknown("", words)

    async def _status(self) -> Answer:
        """Answer a question with the status of the GPU; a question never starts anything."""
        view = await self.gpu.answer({"text": "status"})
        hint = context(md("This is the status of the GPU. `gpu help` and `model help` list all commands."))
        return View(text=view.text, blocks=[*view.blocks, hint]) if isinstance(view, View) else view

    async def _hello(self) -> View:
        """The greeting that is posted once in each channel that the bot joins."""
        examples = await self.example_names.read()
        channel = self.config.slack.channel
        text = md(
            "👋 I am Stoker. I bring up models on the GPU, test them, and bring them down when nobody uses them.\n"
            "• {up} requests a model; a teammate approves in <#{channel}>\n"
            "• `/gpu status` shows who has the GPU and what it costs\n"
            "• `/model list` lists the endpoints, `/model add` adds a model by pull request\n"
            "In a thread, mention me: `@stoker status`. My Home tab shows an overview. `/gpu help` lists the commands.",
            up=code(f"/gpu up {examples.gpu} for 2h because …"),
            channel=channel,
        )
        return View(text=md("Hello, I am Stoker."), blocks=[section(text)])


async def _open_form(slack: Slack, trigger_id: str, form: Body) -> None:
    await slack.open_form(trigger_id, form)


def _thread_responder(slack: Slack, channel: str, thread_ts: str | None, event_id: str) -> Respond:
    """Return a responder that answers publicly where the bot was mentioned, once per event."""
    thread = Message(channel=channel, ts=thread_ts) if thread_ts else None

    async def respond(*, text: Mrkdwn, blocks: Blocks | None = None, **_: object) -> None:
        # The buttons of a message that nothing updates would become outdated.
        view = without_buttons(View(text=text, blocks=blocks)) if blocks else lines(text)
        await slack.post(f"mention:{event_id}", channel, view, thread=thread)

    return respond
