"""A benchmark of the model that holds the GPU: run as a Job in the cluster, told below the card, kept in the repository.

Its requests are use like anybody's, so the model does not count as idle meanwhile. It neither prolongs the lease nor
outlives it: with the lease goes the Job.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from bot import benchmark
from bot.benchmark import Benchmark, Context
from bot.clients.job import BenchFailed, Load
from bot.clients.workload import Workload
from bot.domain import Kind, Lease, Operation, Plan, Status
from bot.durations import show_duration
from bot.errors import BotError, Unavailable
from bot.operations.endpoints import known_endpoint
from bot.operations.life import CancelAsked, NotAllowed, attended, enter, finish, insist, show, step
from bot.policy import may_bench, may_request
from bot.services import Services
from bot.views import clock, code, escape
from bot.views.bench import measured
from manifests.tree import ChangeSet

STARTING, MEASURING = "starting the Job", "measuring"
_RESULT, _CONTEXT, _FENCE, _PULL = "result", "context", "fence", "pull request of the report"
_START = timedelta(minutes=1)
"""From the Job to its first request, where the image is on the node already."""


class LeaseOver(BotError):
    """The model is going down, or its lease has ended, in the middle of a benchmark."""

    remedy = "Bring the model up again, and ask for the benchmark anew."


async def refuse_unmeasurable(svc: Services, actor: str, model: str) -> tuple[Workload, Lease]:
    """Refuse what cannot be measured: nothing configured, nothing up, nobody's lease, no time left, or no right to."""
    shape, config = svc.config.bench, svc.config
    insist(may_request(actor, await svc.people(), config))
    if not shape.image:
        raise NotAllowed(
            "No benchmark is configured: set `bench.image`, in the file named by STOKER_CONFIG, to an image of GuideLLM 0.8"
            " that is pinned by its digest (`NAME@sha256:…`)."
        )
    if config.vllm.api_key.namespace != config.platform.namespace:
        raise NotAllowed(
            f"A Job in namespace {code(config.platform.namespace)} cannot use a Secret of another one: `vllm.api_key` names"
            f" {code(config.vllm.api_key.namespace)}."
        )
    await known_endpoint(svc, await svc.repository.head(), model)
    workload, lease = await svc.cluster.workload(model), await svc.leases.of(model)
    if workload and (not workload.gpus or workload.kind == "embedding"):
        raise NotAllowed(f"{code(model)} generates nothing on a GPU, and that is what the benchmark measures.")
    if workload is None or not workload.ready_replicas or lease is None or lease.ready is None:
        raise NotAllowed(
            f"{code(model)} is not up under a lease, so there is nothing to measure. `/gpu up {model}` brings it up."
        )
    insist(may_bench(lease.holder, actor, await svc.people()))
    if workload.context and shape.prompt_tokens + shape.output_tokens > workload.context:
        raise NotAllowed(
            f"{code(model)} takes {workload.context} tokens in all, and the benchmark sends {shape.prompt_tokens} and wants"
            f" {shape.output_tokens}: lower `bench.prompt_tokens` or `bench.output_tokens`."
        )
    if lease.ends and svc.clock() + _START + shape.lasts > lease.ends:
        raise NotAllowed(
            f"The lease of {code(model)} ends at {clock(lease.ends)}, and the benchmark takes"
            f" {show_duration(_START + shape.lasts)}. `/gpu extend 1h` makes room for it."
        )
    return workload, lease


async def bench(svc: Services, op: Operation) -> None:
    """Carry a benchmark from the request to its table; safe to run again from the top."""
    if op.failure or op.cancelled_by:
        await _stop(svc, op)
        return
    if op.status is Status.REQUESTED:
        op = await _begin(svc, op)
    try:
        result = await _measured(svc, op)
    except CancelAsked:
        cut = svc.clock()
        await _stop(svc, await svc.store.update(op.id, lambda op: op.with_phases_ended(cut, failed=True)))
        return
    await svc.store.once(op.id, "told", lambda: _tell(svc, op, result), type(None))
    best = result.best
    await finish(
        svc,
        op.id,
        Status.SUCCEEDED,
        f"{code(op.request.model)} generates up to {best.tokens_per_second:.0f} tokens/s, with {best.concurrency} requests at"
        f" a time and the first token after {best.first_token_ms:.0f} ms. The table and the picture are in the thread.",
    )


async def _begin(svc: Services, op: Operation) -> Operation:
    model, now, shape = op.request.model, svc.clock(), svc.config.bench
    _, lease = await refuse_unmeasurable(svc, op.request.actor, model)
    mine = (op.request.at, op.id)
    for other in await svc.store.open(Kind.MODEL_BENCH, model):
        if other.status is Status.RUNNING or (other.request.at, other.id) < mine:
            raise NotAllowed(
                f"{code(model)} is being measured already, as <@{other.request.actor}> asked: wait for that."
            )
    ends = f"{lease.ends:%H:%M} UTC" if lease.ends else "not set"
    plan = Plan(
        commit=await svc.repository.head(),
        rows=(
            ("Requests at a time", ", ".join(map(str, shape.concurrency))),
            ("Each for", show_duration(shape.each)),
            ("Tokens", f"{shape.prompt_tokens} in, {shape.output_tokens} out"),
            ("Lease ends", f"{ends}: the benchmark ends with it"),
        ),
    )
    return await svc.store.update(op.id, lambda op: op.moved(Status.RUNNING, now, plan=plan), event="started")


async def _measured(svc: Services, op: Operation) -> Benchmark:
    model, shape = op.request.model, svc.config.bench

    async def fence() -> int:
        lease = await svc.leases.of(model)
        return lease.fence if lease else 0

    held = await svc.store.once(op.id, _FENCE, fence, int)

    async def context() -> Context:
        return await _context(svc, op)

    async def start() -> None:
        await _refuse_if_over(svc, op, held)
        await svc.jobs.start(op.id, await _load(svc, model), shape, svc.config.vllm.api_key)

    async def wait() -> Benchmark:
        async def told(doing: str) -> None:
            await enter(svc, op.id, MEASURING if doing == "measuring" else STARTING)

        try:
            text = await svc.jobs.result(op.id, limit=shape.limit, progress=told)
        finally:  # whatever the Job came to meanwhile: without the model it means nothing
            await still()
        return Benchmark(endpoint=model, context=known, levels=benchmark.levels(text))

    async def still() -> None:
        await _refuse_if_over(svc, op, held)

    async with _shown_safely(svc):
        known = await svc.store.once(op.id, _CONTEXT, context, Context)
        await step(svc, op.id, STARTING, start, type(None))
        return await attended(svc, op.id, svc.store.once(op.id, _RESULT, wait, Benchmark), still=still)


@asynccontextmanager
async def _shown_safely(svc: Services) -> AsyncIterator[None]:
    """What the cluster and the Job said becomes fit to be shown; the key is in none of it, whatever the image prints."""
    try:
        yield
    except (BenchFailed, benchmark.Unreadable, benchmark.Unanswered) as error:
        key = (await svc.secret(svc.config.vllm.api_key)).get_secret_value()
        message, details = (text.replace(key, "…") if key else text for text in (error.message, error.details))
        raise type(error)(escape(message), details) from error


async def _refuse_if_over(svc: Services, op: Operation, fence: int) -> None:
    """LeaseOver once the model goes down, whoever wants that; looked at every second."""
    model = op.request.model
    lease = await svc.leases.of(model)
    going = next(iter(await svc.store.open(Kind.GPU_DOWN, model)), None)
    if going and going.status is Status.RUNNING:
        by = f"<@{going.request.actor}>" if going.request.actor else f"the watch ({escape(going.request.reason)})"
        raise LeaseOver(f"{code(model)} went down during the benchmark, as {by} asked.")
    if lease is None or lease.fence != fence:
        raise LeaseOver(f"{code(model)} went down during the benchmark: its lease is over.")


async def _context(svc: Services, op: Operation) -> Context:
    workload, shape = await _workload(svc, op.request.model), svc.config.bench
    node = await svc.cluster.node_of(workload.name)
    return Context(
        at=svc.clock(),
        model=workload.model,
        commit=op.plan.commit if op.plan else "",
        gpu=f"{workload.gpus} × {svc.config.gpu.name}",
        machine=(node.machine if node else "") or svc.config.gpu.machine,
        image=workload.image,
        arguments=workload.arguments,
        tool=shape.image,
        chat=workload.kind == "chat",
        prompt_tokens=shape.prompt_tokens,
        output_tokens=shape.output_tokens,
        each=shape.each,
    )


async def _load(svc: Services, model: str) -> Load:
    workload = await _workload(svc, model)
    return Load(
        model=model,
        target=svc.vllm.url(workload.service, workload.namespace, workload.port),
        served_name=workload.served_name or workload.model,
        tokenizer=workload.model,
        chat=workload.kind == "chat",
    )


async def _workload(svc: Services, model: str) -> Workload:
    found = await svc.cluster.workload(model)
    if found is None:
        raise BenchFailed(f"The Deployment of {model} has disappeared.")
    return found


async def _tell(svc: Services, op: Operation, result: Benchmark) -> None:
    """The table, then the picture, both below the card and once."""
    card = (await show(svc, op)).message
    if card is None:
        raise BotError("The benchmark's card is lost, so its result cannot be shown.")
    await svc.slack.post(_table_key(op), card.channel, measured(op.id, result), thread=card)
    png = await asyncio.to_thread(benchmark.picture, result)
    name = f"benchmark-{op.request.model}-{op.id}.png"
    title = f"Benchmark of {op.request.model}"
    await svc.slack.attach(f"{op.id}:picture", card, png, name, title=title, text=benchmark.LEGEND)


async def _stop(svc: Services, op: Operation) -> None:
    """End the Job, and say how it ended."""

    async def delete() -> bool:
        return await svc.jobs.delete(op.id)

    existed = await svc.store.once(op.id, "job deleted", delete, bool)
    said = "Its Job is deleted." if existed else "No Job is left of it."
    if op.cancelled_by and not op.failure:
        await finish(svc, op.id, Status.CANCELLED, f"Cancelled by <@{op.cancelled_by}>. {said}")
    else:
        await finish(svc, op.id, Status.FAILED, f"{op.failure} {said}")


def _table_key(op: Operation) -> str:
    return f"{op.id}:table"


async def keep_report(svc: Services, op_id: str, actor: str) -> str:
    """Have a benchmark's report put into a pull request, which a task does; returns what to say."""
    op, verdict = await svc.store.load(op_id), may_request(actor, await svc.people(), svc.config)
    if not verdict.allowed:
        await svc.store.note_refusal(op, actor, "report kept", verdict.reason, svc.clock())
    insist(verdict)
    if url := await svc.store.done(op_id, _PULL, str):
        return f"The report is in <{url}|a pull request> already."
    await svc.docket.add("publish_report", key=f"{op_id}:report")(op_id)
    await svc.store.note_decision(op, actor, "report kept", f"benchmark of {op.request.model}", svc.clock())
    return "⏳ The pull request is being opened; its link comes in place of the button."


async def publish_report(svc: Services, op_id: str, *, last: bool) -> None:
    """Open the pull request with a benchmark's report, and link it below the table. Safe to repeat.

    Who does not answer is asked again, unless this is the `last` attempt: then the button stays, with what went wrong.
    """
    op, result = await svc.store.load(op_id), await svc.store.done(op_id, _RESULT, Benchmark)
    card = op.message
    if result is None or card is None:
        return  # nobody could have asked: there is a button only below a table
    try:
        shown = measured(op.id, result, pull=await svc.store.once(op_id, _PULL, lambda: _opened(svc, op, result), str))
    except (BotError, Unavailable) as error:
        if isinstance(error, Unavailable) and not last:
            raise
        shown = measured(op.id, result, wrong=str(error))
    table = await svc.slack.post(_table_key(op), card.channel, measured(op.id, result), thread=card)
    await svc.slack.update(table, shown)


async def _opened(svc: Services, op: Operation, result: Benchmark) -> str:
    model, at = op.request.model, result.context.at
    layout, best = svc.config.platform, result.best
    base = await svc.store.once(op.id, "base of the report", svc.repository.head, str)
    text = benchmark.markdown(result, asked_by=op.request.actor, operation=op.id)
    path = f"{layout.measurements(model)}/{at:%Y-%m-%d}-{op.id}.md"
    title = (
        f"docs(benchmarks): {model}, {best.tokens_per_second:.0f} tokens/s with {best.concurrency} requests at a time"
    )
    branch = f"stoker/bench-{model}-{op.id}"
    message = f"{title}\n\nRequested-by: {op.request.actor}\nOperation: {op.id}\n"
    await svc.repository.push(
        ChangeSet(files={path: text}), base=base, branch=branch, message=message, when=op.request.at
    )
    body = f"Adds `{path}`, as asked in Slack. Nothing is rolled out by it.\n\n{text}\n<sub>Operation {op.id}</sub>\n"
    pull = await svc.github.open_pull(branch, layout.branch, title, body, svc.config.github.labels)
    return pull.url
