"""`stoker gpu`: what uses the GPU, and turning it off, with the cluster alone: no Slack, no Redis, no GitHub."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.domain import Lease, Node, cost
from bot.durations import show_duration
from bot.errors import BotError, Unavailable
from bot.settings import ClusterSettings, Config, load_cluster_settings

if TYPE_CHECKING:  # the clients take two seconds to import, which `stoker --help` need not
    from bot.clients.cluster import Cluster
    from bot.clients.job import Jobs
    from bot.clients.workload import Workload

GONE_WITHIN = 300.0
"""Seconds that a pod may take to end; vLLM's grace period is 30."""

cli = typer.Typer(no_args_is_help=True, help="The shared GPU, from a terminal: needs the cluster alone.")


@cli.command()
def status() -> None:
    """Show what uses a GPU, for whom, since when, and what it has cost."""
    _run(_status())


@cli.command()
def down(
    name: Annotated[str | None, typer.Argument(help="The model to bring down.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Bring every GPU model down.")] = False,
) -> None:
    """Scale a GPU model to zero and wait until its pod is gone. Needs no approval: turning cost off is always possible."""
    if (name is None) != everything:
        raise typer.BadParameter("say either which model, or --all")
    _run(_down(name))


def _run(work: Coroutine[Any, Any, int]) -> None:
    """The exit code: 0 done, 1 something still uses a GPU, 2 it could not be tried."""
    try:
        code = asyncio.run(work)
    except (BotError, Unavailable) as error:
        typer.echo(f"stoker: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(code)


@asynccontextmanager
async def _opened() -> "AsyncIterator[tuple[Cluster, Jobs, Config]]":
    from bot.clients.cluster import Cluster
    from bot.clients.job import Jobs
    from bot.services import open_kubernetes

    settings: ClusterSettings = load_cluster_settings()
    async with AsyncExitStack() as stack:
        api = await open_kubernetes(settings, stack)
        namespace = settings.config.platform.namespace
        yield Cluster(api, namespace), Jobs(api, namespace), settings.config


async def _status() -> int:
    async with _opened() as (cluster, _, config):
        found = await cluster.gpu_workloads()
        if not found:
            typer.echo("Nothing uses a GPU.")
        for workload in found:
            node = await cluster.node_of(workload.name) if workload.namespace == config.platform.namespace else None
            typer.echo(_line(workload, node, config, datetime.now(UTC)))
    return 0


def _line(workload: "Workload", node: Node | None, config: Config, now: datetime) -> str:
    lease = Lease.of_mark(workload.lease, workload.name)
    said = [f"{workload.namespace}/{workload.name}", "ready" if workload.ready_replicas else "not ready"]
    if lease:
        ends = f" until {lease.ends:%H:%M} UTC" if lease.ends else ""
        said.append(f"held by {lease.holder} since {lease.claimed:%H:%M} UTC{ends}")
    else:
        said.append("no lease")
    if node:
        billed = now - node.since
        usd = cost(billed, config.gpu.price(node.machine))
        said.append(f"node {node.name} bills for {show_duration(billed)}: ${usd:.2f}")
    return "  ".join(said)


async def _down(name: str | None) -> int:
    async with _opened() as (cluster, jobs, config):
        home = config.platform.namespace
        found = await cluster.gpu_workloads()
        ours = [workload.name for workload in found if workload.namespace == home]
        if name:
            workload = await cluster.workload(name)
            if workload is None or not workload.gpus:
                there = f"Up are: {', '.join(ours)}." if ours else "Nothing uses a GPU there."
                raise BotError(f"There is no GPU model {name} in namespace {home}. {there}")
            ours = [name]
        for model in ours:
            typer.echo(f"{model}: scaling to zero …")
            await cluster.scale(model, 0, lease=None)
            await cluster.wait_gone(model, timeout=GONE_WITHIN)
            if config.bench.image:
                await jobs.delete_all(model)  # a benchmark's pod would keep the node
            typer.echo(f"{model}: down. Its node bills until it has drained, about {show_duration(config.gpu.drain)}.")
        if not ours:
            typer.echo("No GPU model is up.")
        others = [] if name else [f"{w.namespace}/{w.name}" for w in found if w.namespace != home]
        for other in others:
            typer.echo(f"{other} uses a GPU too, but is not in namespace {home}: left alone.", err=True)
        return 1 if others else 0
