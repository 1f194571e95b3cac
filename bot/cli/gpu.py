"""`stoker gpu`: shows the use of the GPU and brings models down. It needs the cluster, but no Slack, Redis or GitHub."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.domain.marks import read_mark
from bot.domain.sessions import Node, cost
from bot.errors import BotError, Unavailable
from bot.settings.config import Config
from bot.settings.environment import ClusterSettings, load_cluster_settings
from bot.text.durations import show_duration

if TYPE_CHECKING:  # importing the clients takes two seconds, which `stoker --help` does not need
    from bot.clients.cluster import Cluster
    from bot.clients.deployer import Deployer
    from bot.clients.job import Jobs
    from bot.clients.staging import Stager
    from bot.clients.workload import Workload

GONE_WITHIN = 300.0
"""Timeout in seconds for a pod to terminate; vLLM's grace period is 30."""

cli = typer.Typer(no_args_is_help=True, help="The shared GPU, from a terminal: needs only the cluster.")


@cli.command()
def status() -> None:
    """Show the workloads on a GPU, with their holders, their start and their cost."""
    _run(_status())


@cli.command()
def down(
    name: Annotated[str | None, typer.Argument(help="The model to bring down.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Bring every GPU model down.")] = False,
) -> None:
    """Scale a GPU model to zero and wait until its pod is gone. Needs no approval: stopping costs is always possible."""
    if (name is None) != everything:
        raise typer.BadParameter("name a model, or use --all")
    _run(_down(name))


def _run(work: Coroutine[Any, Any, int]) -> None:
    """Do the work, then exit with code 0 for success, 1 if something still uses a GPU, 2 if the command could not be carried out."""
    try:
        code = asyncio.run(work)
    except (BotError, Unavailable) as error:
        typer.echo(f"stoker: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(code)


@asynccontextmanager
async def _open_clients() -> "AsyncIterator[tuple[Cluster, Deployer, Jobs, Stager, Config]]":
    from bot.clients.job import Jobs
    from bot.clients.staging import Stager
    from bot.services import cluster_of, deployer_of, open_kubernetes

    settings: ClusterSettings = load_cluster_settings()
    async with AsyncExitStack() as stack:
        api = await open_kubernetes(settings, stack)
        config = settings.config
        deployer, cluster = deployer_of(api, config, "", _no_history), cluster_of(api, config)
        yield cluster, deployer, Jobs(api, cluster.whereabouts), Stager(api, cluster.whereabouts), config


async def _no_history(_later: str, _earlier: str) -> bool:
    """Return False: the command has no repository to compare commits with."""
    return False


async def _status() -> int:
    async with _open_clients() as (cluster, _, _, _, config):
        workloads = await cluster.gpu_workloads()
        if not workloads:
            typer.echo("Nothing uses a GPU.")
        for workload in workloads:
            node = await cluster.node_of(workload.endpoint) if workload.endpoint else None
            typer.echo(_line(workload, node, config, datetime.now(UTC)))
    return 0


def _line(workload: "Workload", node: Node | None, config: Config, now: datetime) -> str:
    lease = read_mark(workload.lease, workload.endpoint)
    parts = [f"{workload.namespace}/{workload.name}", "ready" if workload.ready_replicas else "not ready"]
    if lease:
        ends = f" until {lease.ends:%H:%M} UTC" if lease.ends else ""
        parts.append(f"held by {lease.holder} since {lease.claimed:%H:%M} UTC{ends}")
    else:
        parts.append("no lease")
    if node:
        billed = now - node.since
        usd = cost(billed, config.gpu.price(node.machine))
        parts.append(f"node {node.name} bills for {show_duration(billed)}: ${usd:.2f}")
    return "  ".join(parts)


async def _revert_warning(cluster: "Cluster", deployer: "Deployer", model: str) -> str:
    """A warning if Argo CD or Flux will start the model again, because it reverts the replicas; otherwise empty."""
    from bot.platform.switches.commit import reverting

    try:
        workload = await cluster.workload(model)
        application = await reverting(deployer, "auto", workload) if workload else None
    except (BotError, Unavailable) as error:
        return f"it is unknown whether {deployer.word} starts it again ({error})."
    if application is None:
        return ""
    name = application.name
    fix = (
        f"suspend it (`flux suspend kustomization {name}`)"
        if deployer.word == "Flux"
        else f"turn off self-healing of {name}"
    )
    return (
        f"{deployer.word} starts it again if git has `replicas: 1`, because {application.word} {name} reverts changes"
        f" through the API. Commit `replicas: 0`, or {fix}, then run this again."
    )


async def _down(name: str | None) -> int:
    async with _open_clients() as (cluster, deployer, jobs, stager, config):
        running = await cluster.gpu_workloads()
        models = [workload.endpoint for workload in running if workload.endpoint]
        namespaces = " or ".join(cluster.whereabouts.namespaces)
        if name:
            workload = await cluster.workload(name)
            if workload is None or not workload.gpus:
                hint = f"These are up: {', '.join(models)}." if models else "Nothing uses a GPU there."
                raise BotError(f"There is no GPU model {name} in namespace {namespaces}. {hint}")
            models = [name]
        for model in models:
            typer.echo(f"{model}: scaling to zero …")
            await cluster.scale(model, 0, lease=None)
            if warning := await _revert_warning(cluster, deployer, model):
                typer.echo(f"{model}: {warning}", err=True)
            await cluster.wait_gone(model, timeout=GONE_WITHIN)
            if config.staging.enabled:
                await stager.delete_all(model)  # a staging Job would keep the node
            if config.bench.image:
                await jobs.delete_all(model)  # a benchmark Job would keep the node
            typer.echo(f"{model}: down. Its node bills until it has drained, about {show_duration(config.gpu.drain)}.")
        if not models:
            typer.echo("No GPU model is up.")
        unknown = [] if name else [f"{w.namespace}/{w.name}" for w in running if not w.endpoint]
        for workload_name in unknown:
            typer.echo(
                f"{workload_name} uses a GPU too, but is not a model in namespace {namespaces}: it is not changed.",
                err=True,
            )
        return 1 if unknown else 0
