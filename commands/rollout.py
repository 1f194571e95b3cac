"""The buttons in the thread of a card: grant keys access to a new alias, open a pull request with a benchmark's report."""

from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.component import component
from bot.platform.virtual_keys import VirtualKeys
from bot.settings.config import Config
from bot.slack.web_api import Slack
from bot.views.bench import KEEP_REPORT
from bot.views.rollout import LET_IN, LET_IN_FORM, keys_form
from bot.workflows.benchmark_report import BenchmarkReports
from commands.replies import ephemeral_responder, open_and_fill, send_answer

Body = dict[str, Any]


@component
class RollOutButtons:
    """The buttons in the thread of a roll-out or a benchmark."""

    slack: Slack
    benchmark_reports: BenchmarkReports
    virtual_keys: VirtualKeys
    config: Config

    def register(self, app: AsyncApp) -> None:
        @app.action(LET_IN)
        async def choose_keys_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self._open(action["value"], body), urgent=True)

        @app.action(KEEP_REPORT)
        async def keep_report_clicked(ack: AsyncAck, respond: AsyncRespond, body: Body, action: Body) -> None:
            await ack()
            await send_answer(respond, self.benchmark_reports.keep(action["value"], body["user"]["id"]))

        @app.view(LET_IN_FORM)
        async def keys_submitted(ack: AsyncAck, body: Body, view: Body) -> None:
            await ack()
            picked = view["state"]["values"]["keys"]["value"]["selected_options"]
            hashes = frozenset(str(option["value"]) for option in picked)
            actor = body["user"]["id"]
            work = self.virtual_keys.let_in(view["private_metadata"], hashes, actor)
            await send_answer(ephemeral_responder(self.slack, self.config.slack.channel, actor), work)

    async def _open(self, op_id: str, body: Body) -> None:
        async def fill() -> Body:
            alias, keys = await self.virtual_keys.outsiders(op_id, body["user"]["id"])
            return keys_form(op_id, alias, keys)

        await open_and_fill(self.slack, body["trigger_id"], "Grant access", fill)
