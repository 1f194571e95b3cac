"""A benchmark of the model that holds the GPU. It runs as a Job in the cluster; its results are posted below the card.

Its requests count as use, so the model is not idle during it. It does not extend the lease, and the Job is deleted when
the lease ends.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from bot.analysis import benchmark
from bot.analysis.benchmark import Benchmark, Context
from bot.clients.cluster import Cluster
from bot.clients.job import BenchFailed, Jobs, Load
from bot.clients.rights import ENGINE_KEY
from bot.clients.vllm import VLLM
from bot.clients.workload import Workload
from bot.clock import Clock
from bot.component import component
from bot.domain import phases
from bot.domain.leases import Lease
from bot.domain.operations import BenchmarkOperation, BringDownOperation, Status, plan_of
from bot.domain.outcomes import Benchmarked, JobDeleted
from bot.domain.plans import JobPlan
from bot.engine.lifecycle import NotAllowed, require
from bot.engine.run import NOTHING, Run, Step
from bot.engine.task_refs import SHOW_PICTURE
from bot.errors import BotError
from bot.git.repository import Repository
from bot.platform.endpoints import Endpoints
from bot.policy import may_bench, may_request
from bot.settings.config import Config
from bot.slack.roles import RoleMembers
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.text.durations import show_duration
from bot.text.mrkdwn import md, person, time_stamp
from bot.views import clock, code, escape
from bot.views.bench import benchmark_results

RESULT, _CONTEXT, _FENCE = Step("result", Benchmark), Step("context", Context), Step("fence", int)
_POSTED, _JOB_DELETED = Step("told", NOTHING), Step("job deleted", bool)
_START = timedelta(minutes=1)
"""Time from the start of the Job to its first request, if the node already has the image."""


class LeaseOver(BotError):
    """The model is going down, or its lease has ended, during a benchmark."""

    remedy = "Bring the model up again, and request the benchmark again."


@component
class BenchmarkWorkflow:
    """Measures a model that is up."""

    operations: Operations
    leases: Leases
    cluster: Cluster
    jobs: Jobs
    vllm: VLLM
    repository: Repository
    roles: RoleMembers
    endpoints: Endpoints
    config: Config
    clock: Clock

    async def refuse_unmeasurable(self, actor: str, model: str) -> tuple[Workload, Lease]:
        """Return the workload and the lease to measure. Raises NotAllowed if the benchmark is not configured or not
        permitted, or if the model is not up under a lease that lasts long enough.
        """
        shape, config = self.config.bench, self.config
        require(may_request(actor, await self.roles.people(), config))
        if not shape.image:
            raise NotAllowed(
                md(
                    "No benchmark is configured: set `bench.image`, in the file named by STOKER_CONFIG, to an image of "
                    "GuideLLM 0.8 that is pinned by its digest (`NAME@sha256:…`)."
                )
            )
        await self.endpoints.require(await self.repository.head(), model)
        workload, lease = await self.cluster.workload(model), await self.leases.of(model)
        namespace = workload.namespace if workload else config.platform.namespace
        if config.vllm.api_key.namespace not in ("", namespace):
            raise NotAllowed(
                md(
                    "A Job in namespace {namespace} cannot use a Secret in another namespace: `vllm.api_key` is in "
                    "{api_key_namespace}.",
                    namespace=code(namespace),
                    api_key_namespace=code(config.vllm.api_key.namespace),
                )
            )
        if workload and (not workload.gpus or workload.kind in ("embedding", "rerank")):
            raise NotAllowed(
                md(
                    "{model} does not generate text on a GPU, so the benchmark cannot measure it.",
                    model=code(model),
                )
            )
        if workload is None or not workload.ready_replicas or lease is None or lease.ready is None:
            raise NotAllowed(
                md(
                    "{model} is not up under a lease, so there is nothing to measure. `/gpu up {name}` brings it up.",
                    model=code(model),
                    name=model,
                )
            )
        require(may_bench(lease.holder, actor, await self.roles.people()))
        if workload.context and shape.prompt_tokens + shape.output_tokens > workload.context:
            raise NotAllowed(
                md(
                    "{model} takes {context} tokens in total. The benchmark sends {prompt_tokens} and requests "
                    "{output_tokens}: lower `bench.prompt_tokens` or `bench.output_tokens`.",
                    model=code(model),
                    context=workload.context,
                    prompt_tokens=shape.prompt_tokens,
                    output_tokens=shape.output_tokens,
                )
            )
        if lease.ends and self.clock() + _START + shape.lasts > lease.ends:
            raise NotAllowed(
                md(
                    "The lease of {model} ends at {ends}, and the benchmark takes {start}. Use `/gpu extend 1h` to make room "
                    "for it.",
                    model=code(model),
                    ends=clock(lease.ends),
                    start=show_duration(_START + shape.lasts),
                )
            )
        return workload, lease

    async def execute(self, run: Run[BenchmarkOperation]) -> None:
        """Run a benchmark from the request to its table. Idempotent."""
        op = run.op
        if op.status is Status.REQUESTED:
            op = await self._begin(run)
        result = await self._measure(run)
        await run.once(_POSTED, lambda: _post_results(run, result))
        best = result.best
        await run.finish(
            Benchmarked(
                tokens_per_second=best.tokens_per_second,
                concurrency=best.concurrency,
                first_token_ms=best.first_token_ms,
            )
        )

    async def _begin(self, run: Run[BenchmarkOperation]) -> BenchmarkOperation:
        op, model, shape = run.op, run.model, self.config.bench
        _, lease = await self.refuse_unmeasurable(op.request.actor, model)
        for benchmark_op in await run.operations.open(BenchmarkOperation, model):
            if benchmark_op.status is Status.RUNNING or benchmark_op.was_requested_before(op):
                raise NotAllowed(
                    md(
                        "{model} is already being measured, as {actor} requested: wait for it.",
                        model=code(model),
                        actor=person(benchmark_op.request.actor),
                    )
                )
        ends = time_stamp(lease.ends) if lease.ends else "not set"
        plan = JobPlan(
            commit=await self.repository.head(),
            rows=(
                ("Requests at a time", ", ".join(map(str, shape.concurrency))),
                ("Each for", show_duration(shape.each)),
                ("Tokens", f"{shape.prompt_tokens} in, {shape.output_tokens} out"),
                ("Lease ends", f"{ends}: the benchmark ends with it"),
            ),
        )
        return await run.start(plan=plan)

    async def _measure(self, run: Run[BenchmarkOperation]) -> Benchmark:
        op = run.op
        model, shape = op.request.model, self.config.bench

        async def fence() -> int:
            lease = await self.leases.of(model)
            return lease.fence if lease else 0

        lease_fence = await run.once(_FENCE, fence)

        async def context() -> Context:
            return await self._context(op)

        async def start() -> None:
            await self._refuse_if_over(op, lease_fence)
            await self.jobs.start(op.id, await self._load(model), shape, self.config.vllm.api_key)

        async def wait() -> Benchmark:
            try:
                text = await self.jobs.result(op.id, model, limit=shape.limit, progress=run.enter)
            finally:  # check the lease again: a result is meaningless if the session is over
                await check_lease()
            return Benchmark(endpoint=model, context=benchmark_context, levels=benchmark.levels(text))

        async def check_lease() -> None:
            await self._refuse_if_over(op, lease_fence)

        async with self._redacted_errors():
            benchmark_context = await run.once(_CONTEXT, context)
            await run.step(phases.START_BENCHMARK, start)
            return await run.cancellable(run.once(RESULT, wait), check=check_lease)

    @asynccontextmanager
    async def _redacted_errors(self) -> AsyncIterator[None]:
        """Remove the API key from errors of the cluster and the Job: the image could print it."""
        try:
            yield
        except (BenchFailed, benchmark.Unreadable, benchmark.Unanswered) as error:
            ref = self.config.vllm.api_key
            key = (await self.cluster.secret(ENGINE_KEY, ref)).get_secret_value() if ref.namespace else ""
            message, details = (text.replace(key, "…") if key else text for text in (error.message, error.details))
            raise type(error)(escape(message), details) from error

    async def _refuse_if_over(self, op: BenchmarkOperation, fence: int) -> None:
        """Raise LeaseOver once the model goes down for any reason; checked every second."""
        model = op.request.model
        lease = await self.leases.of(model)
        bring_down = next(iter(await self.operations.open(BringDownOperation, model)), None)
        if bring_down and bring_down.status is Status.RUNNING:
            by = (
                person(bring_down.request.actor)
                if bring_down.request.actor
                else md("the watch ({reason})", reason=bring_down.request.reason)
            )
            raise LeaseOver(md("{model} went down during the benchmark, as {by} requested.", model=code(model), by=by))
        if lease is None or lease.fence != fence:
            raise LeaseOver(md("{model} went down during the benchmark: its lease has ended.", model=code(model)))

    async def _context(self, op: BenchmarkOperation) -> Context:
        workload, shape = await self._workload(op.request.model), self.config.bench
        node = await self.cluster.node_of(op.request.model)
        return Context(
            at=self.clock(),
            model=workload.model,
            commit=plan_of(op).commit,
            gpu=f"{workload.gpus} × {self.config.gpu.name}",
            machine=(node.machine if node else "") or self.config.gpu.machine,
            image=workload.image,
            arguments=workload.arguments,
            tool=shape.image,
            chat=workload.kind == "chat",
            prompt_tokens=shape.prompt_tokens,
            output_tokens=shape.output_tokens,
            each=shape.each,
        )

    async def _load(self, model: str) -> Load:
        workload = await self._workload(model)
        return Load(
            model=model,
            target=self.vllm.url(workload.service, workload.namespace, workload.port),
            served_name=workload.served_name,
            tokenizer=workload.model,
            chat=workload.kind == "chat",
        )

    async def _workload(self, model: str) -> Workload:
        workload = await self.cluster.workload(model)
        if workload is None:
            raise BenchFailed(f"The Deployment of {model} no longer exists: deploy it again, then repeat the request.")
        return workload

    async def undo(self, run: Run[BenchmarkOperation]) -> None:
        """Delete the Job, and report how it ended."""
        op = run.op

        async def delete() -> bool:
            return await self.jobs.delete(op.id)

        await run.finish_undone(JobDeleted(existed=await run.once(_JOB_DELETED, delete)))


async def _post_results(run: Run[BenchmarkOperation], result: Benchmark) -> None:
    """Post the table and the chart below the card, each once. Both are retried until Slack accepts them."""
    op = run.op
    await run.presentation.post(table_key(op), op.request.channel, benchmark_results(op.id, result), card=op.id)
    await SHOW_PICTURE.add(run.docket, key=f"{op.id}:picture")(op.id)


def table_key(op: BenchmarkOperation) -> str:
    """The key of the message with the results."""
    return f"{op.id}:table"
