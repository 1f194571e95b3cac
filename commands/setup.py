"""The set-up of Stoker: the offer to a person who types a command, the form, and the result with the doctor's findings."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Any

import structlog
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond
from slack_bolt.context.async_context import AsyncBoltContext

from bot.component import component
from bot.doctor import examine
from bot.doctor.findings import wrong
from bot.doctor.platform import ADD_RIGHT, KUBERNETES
from bot.errors import BotError, Unavailable
from bot.platform.endpoints import Endpoints
from bot.platform.proposal import QUESTIONS, answer
from bot.platform.setup import PlatformSetup, Proposed
from bot.settings.config import Config, SettingsError
from bot.settings.environment import Settings
from bot.settings.of_repository import merged
from bot.slack.presentation import Presentation
from bot.slack.web_api import Slack
from bot.state.deliveries import Deliveries
from bot.state.setup import SetupState
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import View, lines
from bot.views.modals import form_values
from bot.views.setup import SET_UP, SETUP_FORM, in_use, proposal_answer, setup_form, setup_needed, to_copy
from commands.doctor import diagnosis
from commands.replies import Answer, Respond, acks_first, dm_responder, open_and_fill, send_answer

Body = dict[str, Any]
log = structlog.get_logger(__name__)


@component
class SetupForms:
    """The offer to set Stoker up, and its form."""

    slack: Slack
    deliveries: Deliveries
    setup: PlatformSetup
    settings: Settings
    _offers: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    def register(self, app: AsyncApp) -> None:
        @app.action(SET_UP)
        async def set_up_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body) -> None:
            await ack()
            await send_answer(respond, self._open(body["user"]["id"], body["trigger_id"]), urgent=True)

        @app.view(SETUP_FORM)
        async def setup_submitted(ack: AsyncAck, body: Body, view: Body) -> None:
            values, answers, errors = form_values(view), dict[str, Any](), dict[str, str]()
            for question in QUESTIONS:
                if text := values.get(question.name):
                    try:
                        answers = merged(answers, answer(question, text))
                    except SettingsError as error:
                        errors[question.name] = str(error)
            if errors:
                await ack(response_action="errors", errors=errors)
                return
            await ack()
            actor = body["user"]["id"]
            respond = dm_responder(self.slack, actor)
            await send_answer(respond, self._propose(actor, answers, view["id"], respond))

    async def listen(
        self,
        context: AsyncBoltContext,
        body: Body,
        next: Callable[[], Awaitable[None]],  # noqa: A002
    ) -> None:
        """Notify a person who types a command that Stoker is not set up yet, at most once per hour, in the background."""
        await next()
        if "command" in body and "offer" in context:
            task = asyncio.create_task(self._offer(body["user_id"], context["offer"]))
            self._offers.add(task)
            task.add_done_callback(self._offers.discard)

    async def _offer(self, user: str, respond: Respond) -> None:
        try:
            with acks_first.owing():  # a restart waits until this is done
                needed = await self.setup.needed()
                if needed and await self.deliveries.is_first(f"setup:{user}"):
                    view = setup_needed(needed, user)
                    await respond(text=view.text, blocks=view.blocks, response_type="ephemeral", replace_original=False)
        except (BotError, Unavailable) as error:
            log.info("set-up not offered", actor=user, error=str(error))  # the answer to the command contains the error

    async def _open(self, actor: str, trigger_id: str) -> None:
        async def fill() -> Body:
            survey, questions = await self.setup.ask(actor)
            return setup_form(
                survey.report, [(question.name, question.label, question.hint, value) for question, value in questions]
            )

        await open_and_fill(self.slack, trigger_id, "Set up Stoker", fill)

    async def _propose(self, actor: str, answers: Body, delivery: str, respond: Respond) -> Answer:
        result = await self.setup.propose(actor, answers, delivery)
        view = _result_view(result)
        await respond(text=view.text, blocks=view.blocks)  # before the findings, which take longer
        return await _findings(self.settings, result.config)


@component
class SettingsInUse:
    """Notifies the admins of the settings with which the bot has started."""

    presentation: Presentation
    state: SetupState
    endpoints: Endpoints
    settings: Settings

    async def announce(self, *, every: float = 60.0) -> None:
        """Notify the admins once for each version of `.stoker.yaml`. Retries every `every` seconds if a system does not
        answer.
        """
        while True:
            try:
                await self._announce()
            except (BotError, Unavailable) as error:
                log.warning("settings not announced", error=str(error))
                await asyncio.sleep(every)
            else:
                return

    async def _announce(self) -> None:
        used = await self.state.in_use()
        if used is None or used.announced:
            return
        count = len(await self.endpoints.all(used.commit))
        findings = await _findings(self.settings, self.settings.config)
        text = lines(md("{settings}\n{findings}", settings=in_use(used.commit, count), findings=findings))
        await self.presentation.notify_admins(f"setup:{used.commit}", text)
        await self.state.use(used.model_copy(update={"announced": True}))


def _result_view(result: Proposed) -> View:
    if result.pull is None:
        return to_copy(result.text, result.overruled)
    pull = result.pull
    return lines(proposal_answer(pull.url, pull.number, merged=pull.merged, is_new=result.is_new))


async def _findings(settings: Settings, config: Config) -> Mrkdwn:
    """Run the doctor with these settings. Missing rights are combined into one finding."""
    findings = await examine(settings.model_copy(update={"config": config}))
    rights = [finding for finding in findings if finding.fix == ADD_RIGHT]
    if len(rights) > 1:
        message = f"{rights[0].message}, and lacks {len(rights) - 1} more rights"
        findings = (
            *(finding for finding in findings if finding.fix != ADD_RIGHT),
            wrong(
                KUBERNETES,
                message,
                "Add these settings below `config` in the chart's values; the chart then grants the rights.",
            ),
        )
    return md("*With these settings:*\n{diagnosis}", diagnosis=diagnosis(findings, most=8))
