"""The report of a benchmark: a chart below its card, and a pull request that stores the results in the repository."""

import asyncio

import structlog

from bot.analysis import benchmark
from bot.analysis.benchmark import Benchmark
from bot.clients.github import GitHub
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.operations import BenchmarkOperation
from bot.engine.lifecycle import Lifecycle, require
from bot.engine.run import Run, Step
from bot.engine.task_refs import PUBLISH_REPORT
from bot.errors import BotError, Unavailable
from bot.git.repository import Repository
from bot.policy import may_request
from bot.settings.config import Config
from bot.slack.roles import RoleMembers
from bot.slack.web_api import Slack, SlackRefused
from bot.state.audit import AuditLog
from bot.state.operations import Operations
from bot.text import markdown
from bot.text.mrkdwn import Mrkdwn, link, md, shown
from bot.views.bench import benchmark_results
from bot.workflows.benchmark import RESULT, table_key
from manifests.tree import ChangeSet

log = structlog.get_logger(__name__)

_BASE, _PULL = Step("base of the report", str), Step("pull request of the report", str)


@component
class BenchmarkReports:
    """Draws the results of benchmarks, and stores them."""

    operations: Operations
    audit: AuditLog
    github: GitHub
    repository: Repository
    slack: Slack
    roles: RoleMembers
    lifecycle: Lifecycle
    config: Config

    async def draw(self, op_id: str) -> None:
        """Draw the results of a benchmark below its card. Idempotent; if Slack refuses it, only the chart is missing."""
        op = await self.operations.load(op_id, BenchmarkOperation)
        result = await self.lifecycle.run(op).result(RESULT)
        if result is None:
            return
        if op.message is None:
            raise Unavailable("Slack", "the card is not shown yet")
        png = await asyncio.to_thread(benchmark.picture, result)
        name = f"benchmark-{op.request.model}-{op.id}.png"
        title = f"Benchmark of {op.request.model}"
        try:
            await self.slack.attach(
                f"{op.id}:picture",
                op.message,
                png,
                name,
                title=title,
                alt=benchmark.in_words(result),
                text=shown(benchmark.LEGEND),
            )
        except SlackRefused as refused:
            log.warning("picture not shown", op=op.id, model=op.request.model, error=refused.message)

    async def keep(self, op_id: str, actor: str) -> Mrkdwn:
        """Start the task that opens a pull request with a benchmark's report, and return the answer to the click."""
        op = await self.operations.load(op_id, BenchmarkOperation)
        run, verdict = self.lifecycle.run(op), may_request(actor, await self.roles.people(), self.config)
        if not verdict.allowed:
            await self.audit.note_refusal(op, actor, AuditEvent.REPORT_KEPT, verdict.reason, run.clock())
        require(verdict)
        if url := await run.result(_PULL):
            return md("The report is already in {pull}.", pull=link(url, "a pull request"))
        await PUBLISH_REPORT.add(run.docket, key=f"{op_id}:report")(op_id)
        await self.audit.note_decision(
            op, actor, AuditEvent.REPORT_KEPT, f"benchmark of {op.request.model}", run.clock()
        )
        return md("⏳ The pull request is being opened; its link will replace the button.")

    async def publish(self, op_id: str, *, last: bool) -> None:
        """Open the pull request with a benchmark's report, and link it below the table. Idempotent.

        If a system does not answer, this raises Unavailable, so that the task is retried. After the `last` attempt the
        button stays, with the error.
        """
        op = await self.operations.load(op_id, BenchmarkOperation)
        run = self.lifecycle.run(op)
        result = await run.result(RESULT)
        if result is None:
            return  # unreachable: the button exists only below a result table
        try:
            message = benchmark_results(op.id, result, pull=await run.once(_PULL, lambda: self._open(run, result)))
        except (BotError, Unavailable) as error:
            if isinstance(error, Unavailable) and not last:
                raise
            message = benchmark_results(op.id, result, failure=str(error))
        await run.presentation.revise(table_key(op), message)

    async def _open(self, run: Run[BenchmarkOperation], result: Benchmark) -> str:
        op = run.op
        model, at = op.request.model, result.context.at
        layout, best = self.config.platform, result.best
        base = await run.once(_BASE, self.repository.head)
        text = benchmark.markdown(result, asked_by=op.request.actor, operation=op.id)
        path = f"{layout.measurements(model)}/{at:%Y-%m-%d}-{op.id}.md"
        title = f"docs(benchmarks): {model}, {best.tokens_per_second:.0f} tokens/s with {best.concurrency} requests at a time"
        branch = f"stoker/bench-{model}-{op.id}"
        message = f"{title}\n\nRequested-by: {op.request.actor}\nOperation: {op.id}\n"
        await self.repository.push(
            ChangeSet(files={path: text}), base=base, branch=branch, message=message, when=op.request.at
        )
        body = f"Adds {markdown.code(path)}, as requested in Slack. It deploys nothing.\n\n{text}\n<sub>Operation {op.id}</sub>\n"
        pull = await self.github.open_pull(branch, layout.branch, title, body, self.config.github.labels)
        return pull.url
