"""`/gpu`: who has it, bring up, bring down."""

from datetime import timedelta
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

from bot.clients.workload import GpuUser
from bot.domain import Kind, Lease, Request, Status
from bot.durations import parse_duration, show_duration
from bot.errors import Unavailable
from bot.operations import queue
from bot.operations.down import bring_down_without_redis, down_request
from bot.operations.life import request
from bot.operations.receipt import draining, report, running_total
from bot.operations.reconcile import rebuild
from bot.services import Services
from bot.views import busy_line, code, escape, money
from bot.views.gpu import free
from commands.answers import answered
from commands.doctor import doctor
from commands.guide import guide, names, unknown
from commands.words import Misunderstood, Words, read

_DRAINS = timedelta(days=2)
"""A session that began before that has no node any more that drains."""


def register(app: AsyncApp, svc: Services) -> None:
    @app.command("/gpu")
    async def gpu(ack: AsyncAck, respond: AsyncRespond, command: dict[str, Any]) -> None:
        await ack()
        await answered(respond, answer(svc, command))


async def answer(svc: Services, command: dict[str, Any]) -> str | None:
    """Do what was typed (`text`, `user_id`, `trigger_id`); returns what its sender alone is told."""
    said = read(command.get("text") or "")
    match said.verb:
        case "" | "status":
            return await status(svc)
        case "help":
            return guide("/gpu", " ".join(said.names), await names(svc))
        case "up":
            models = [name for name in said.names if name.lower() != "keep"]
            if len(models) != 1:
                example = (await names(svc)).gpu
                raise Misunderstood(f"Say which model, and only one: {code(f'/gpu up {example} for 2h because …')}.")
            keep = len(models) < len(said.names)
            await _ask(svc, Kind.GPU_UP, models[0], command, hold=said.hold, reason=said.reason, keep=keep)
            return None
        case "extend":
            await _extend(svc, said, command)
            return None
        case "queue":
            return await queue.describe(svc)
        case "leave":
            return await _leave(svc, command["user_id"])
        case "release":
            name = said.names[0] if said.names else await _the_one_up(svc)
            await _ask(svc, Kind.GPU_RELEASE, name, command, reason=said.reason)
            return None
        case "doctor":
            return await doctor(svc, command["user_id"])
        case "down":
            return await down(svc, said.names, command["user_id"], command["trigger_id"], said.reason)
        case "report":
            if not await svc.store.first(f"report:{command['trigger_id']}"):
                return None  # posted, or being drawn, for an earlier delivery
            return await report(svc, svc.config.slack.channel)
        case _:
            raise unknown("/gpu", command["text"])


async def _ask(
    svc: Services,
    kind: Kind,
    model: str,
    command: dict[str, Any],
    *,
    hold: timedelta | None = None,
    reason: str = "",
    keep: bool = False,
) -> None:
    wanted = Request(
        kind=kind,
        model=model,
        keep=keep,
        actor=command["user_id"],
        channel=svc.config.slack.channel,
        at=svc.clock(),
        hold=hold,
        reason=reason,
    )
    await request(svc, wanted, command["trigger_id"])


async def _held(svc: Services) -> tuple[Lease, ...]:
    """The leases, also those that Redis has just lost and the cluster still knows."""
    if not await svc.leases.held():
        await rebuild(svc, await svc.cluster.gpu_users())
    return await svc.leases.held()


async def _the_one_up(svc: Services) -> str:
    leases = await _held(svc)
    if len(leases) == 1:
        return leases[0].model
    if not leases:
        raise Misunderstood("Nobody holds the GPU.")
    raise Misunderstood(f"Several models are up: say which of {', '.join(code(lease.model) for lease in leases)}.")


async def _extend(svc: Services, said: Words, command: dict[str, Any]) -> None:
    """`extend 1h`, `extend NAME 1h`, `extend NAME for 1h`."""
    known = {lease.model for lease in await svc.leases.held()}
    model = next((name for name in said.names if name in known), None)
    rest = " ".join(name for name in said.names if name != model)
    try:
        hold = said.hold or parse_duration(rest)
    except ValueError as error:
        raise Misunderstood(f"Say how much longer: `/gpu extend 1h`. {escape(str(error))}") from error
    await _ask(svc, Kind.GPU_EXTEND, model or await _the_one_up(svc), command, hold=hold, reason=said.reason)


async def _leave(svc: Services, actor: str) -> str:
    mine = [op for op in await svc.store.open(Kind.GPU_UP) if op.request.actor == actor and op.status is Status.WAITING]
    for op in mine:
        await queue.leave(svc, op.id, actor)
    left = ", ".join(code(op.request.model) for op in mine)
    return f"You no longer wait for the GPU with {left}." if mine else "You are not waiting for the GPU."


async def down(svc: Services, names: tuple[str, ...], actor: str, delivery: str, reason: str = "") -> str | None:
    """Bring a model down; without a name, the one that holds the GPU. With Redis gone it is done here and now."""
    try:
        if not names:
            names = tuple(lease.model for lease in await _held(svc))
            if not names:
                return "Nothing is up: nobody holds the GPU."
        for name in names:
            wanted = down_request(name, actor, svc.config.slack.channel, svc.clock(), reason)
            await request(svc, wanted, f"{delivery}:{name}")
        return None
    except Unavailable as error:
        if error.system != "Redis":
            raise
        if not names:
            return "Redis does not answer, so I don't know what is up. Say which: `/gpu down NAME`."
        return "\n".join([await bring_down_without_redis(svc, name) for name in names])


async def status(svc: Services) -> str:
    """Who holds the GPU, for which model, since when, cost so far, idle time, lease end. Without Redis, what the cluster knows."""
    users = await svc.cluster.gpu_users()
    try:
        return await _status(svc, users)
    except Unavailable as error:
        if error.system != "Redis":
            raise
    said = ["⚠️ Redis does not answer: nothing can be brought up until it does. This is what the cluster says."]
    for user in users:
        lease = Lease.of_mark(user.mark, user.name)
        said.append(f"🔥 {busy_line(lease, svc.clock())}" if lease else f"🔥 {code(str(user))} uses the GPU.")
    return "\n".join(said if users else [*said, "Nothing uses the GPU."])


async def _status(svc: Services, users: tuple[GpuUser, ...]) -> str:
    strangers = await rebuild(svc, users)
    now, said = svc.clock(), []
    leases = await svc.leases.held()
    for lease in leases:
        line = f"🔥 {busy_line(lease, now)}"
        session = await svc.sessions.of(lease.model)
        usd, estimated = running_total(svc, lease, await svc.cluster.node_of(lease.model), now)
        line += f"\nCost so far {'about ' if estimated else ''}{money(usd)}."
        if lease.ready and session and session.fence == lease.fence:
            line += f" Last active {show_duration(now - session.active)} ago, {session.requests:.0f} requests."
        said.append(line)
    for user in strangers:
        end = f" `/gpu down {user.name}` ends it." if user.namespace == svc.config.platform.namespace else ""
        said.append(f"⚠️ {code(str(user))} uses the GPU without a lease (started with kubectl?).{end}")
    leased = {lease.model for lease in leases}
    said = said or [free(draining(await svc.sessions.bills(now - _DRAINS), now), now)]
    waiting = [op for op in await svc.store.open(Kind.GPU_UP) if op.request.model not in leased]
    said += [f"{code(op.request.model)} asked for by <@{op.request.actor}>: {op.status}." for op in waiting]
    return "\n".join(said)
