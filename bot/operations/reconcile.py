"""Redis, Deployments and pods compared, and brought together: at the start, and every minute.

What Redis lost is rebuilt from the Deployment's annotation; a lease without a model is closed with a receipt; a model
without a lease is told, once, with what can be done about it. Events are not trusted: everything is looked at anew.
"""

from collections.abc import Callable, Iterable

import structlog

from bot.clients.workload import GpuUser
from bot.domain import Kind, Lease, Status
from bot.errors import BotError, Unavailable
from bot.lease import GpuBusy
from bot.operations.down import down_request
from bot.operations.endpoints import known_endpoint
from bot.operations.life import request
from bot.services import Services
from bot.views import clock, code, escape, lines, settled_reminder, unmanaged

log = structlog.get_logger(__name__)

_TRY_AGAIN = 600
"""Seconds after which closing a lease is tried anew, when the first attempt failed."""


async def reconcile(svc: Services) -> None:
    """One look at everything. Safe at any moment, beside running operations and in two bots at once."""
    users = await svc.cluster.gpu_users()
    strangers = await rebuild(svc, users)
    up = {user.name: user for user in users if _may_be_leased(svc, user)}
    for lease in await svc.leases.held():
        if await svc.store.is_open(lease.op):
            continue  # its own operation is working on it
        if lease.displaced:  # left by a bot that was killed right after its operation's end
            lease = await svc.leases.change(lease, Lease.settled) or lease
        if lease.model not in up:
            await _close(svc, lease)
        else:
            await _agree(svc, lease, up[lease.model])
    await _alert(svc, strangers)


async def rebuild(svc: Services, users: Iterable[GpuUser]) -> tuple[GpuUser, ...]:
    """Put back the leases that Redis has lost; returns who uses a GPU and has none."""
    leases = await svc.leases.held()
    leased = {lease.model for lease in leases} | {lease.displaced.model for lease in leases if lease.displaced}
    return tuple(
        [
            user
            for user in users
            if not _may_be_leased(svc, user) or (user.name not in leased and not await _rebuilt(svc, user))
        ]
    )


async def renew(svc: Services, lease: Lease, change: Callable[[Lease], Lease]) -> Lease | None:
    """Change a lease, in Redis and on its Deployment; None when it is no longer held."""
    changed = await svc.leases.change(lease, change)
    if changed:
        try:
            await svc.cluster.mark(changed.model, changed.mark, changed.fence)
        except (Unavailable, BotError) as error:
            log.warning("lease not marked", model=lease.model, op=lease.op, error=str(error))  # the next minute's work
    return changed


def _may_be_leased(svc: Services, user: GpuUser) -> bool:
    return user.kind == "Deployment" and user.namespace == svc.config.platform.namespace


async def _rebuilt(svc: Services, user: GpuUser) -> bool:
    """Whether the model has a lease after all, or is no longer up: what was read a moment ago may be over."""
    now = await svc.cluster.workload(user.name)
    if now is None or now.replicas == 0 or await svc.leases.of(user.name):
        return True
    lost = Lease.of_mark(now.lease, user.name)
    if lost is None:
        return False
    try:
        put_back = await svc.leases.restore(lost)
    except GpuBusy:
        return False
    if put_back:
        log.warning("lease rebuilt", model=lost.model, op=lost.op, fence=lost.fence)
        until = f" until {clock(lost.ends)}" if lost.ends else ""
        text = (
            f"🧭 Redis had lost the lease of {code(lost.model)}; it is rebuilt from the cluster:"
            f" <@{lost.holder}> holds it{until}."
        )
        await svc.slack.post(f"rebuilt:{lost.fence}:{lost.revision}", svc.config.slack.channel, lines(text))
    return True


async def _close(svc: Services, lease: Lease) -> None:
    """End a lease whose model somebody took down; a bring-down of our own is left to do its work."""
    now = await svc.cluster.workload(lease.model)
    if now is not None and now.replicas:
        return
    for kind in (Kind.GPU_UP, Kind.GPU_DOWN, Kind.GPU_RELEASE):
        if any(op.status is not Status.AWAITING for op in await svc.store.open(kind, lease.model)):
            return
    why = "it is at zero already: its lease is closed"
    wanted = down_request(lease.model, "", _channel(svc, lease), svc.clock(), why)
    await request(svc, wanted, delivery=f"closed:{lease.fence}:{int(svc.clock().timestamp()) // _TRY_AGAIN}")


async def _agree(svc: Services, lease: Lease, user: GpuUser) -> None:
    """The newer of the two copies of a lease wins; a rebuilt one that was still booting starts when it is ready."""
    if lease.ready is None:
        if user.ready:
            now = svc.clock()
            lease = await svc.leases.change(lease, lambda held: held.started(now)) or lease
        elif svc.clock() - lease.claimed > svc.config.gpu.boot_limit:
            why = "it did not get ready in time"
            wanted = down_request(lease.model, "", _channel(svc, lease), svc.clock(), why)
            await request(svc, wanted, delivery=f"unready:{lease.fence}:{int(svc.clock().timestamp()) // _TRY_AGAIN}")
            return
    known = Lease.of_mark(user.mark, lease.model)
    if known and (known.fence, known.revision) > (lease.fence, lease.revision):
        await svc.leases.restore(known)
    elif known is None or (known.fence, known.revision) < (lease.fence, lease.revision):
        await svc.cluster.mark(lease.model, lease.mark, lease.fence)


async def _alert(svc: Services, strangers: Iterable[GpuUser]) -> None:
    """Tell of each once, for as long as it lasts; what is over loses its buttons."""
    now, channel = svc.clock(), svc.config.slack.channel
    current = {str(user): user for user in strangers}
    for about, user in current.items():
        alert = await svc.store.raise_alert(about, now)
        ours = _may_be_leased(svc, user)
        can_adopt = ours and await _is_endpoint(svc, user.name)
        await svc.slack.post(alert.key, channel, unmanaged(about, user.name, ours=ours, can_adopt=can_adopt))
    for alert in await svc.store.alerts():
        if alert.about not in current:
            text = f"✅ {code(alert.about)} used the GPU without a lease since {clock(alert.since)}; that is over."
            message = await svc.slack.post(alert.key, channel, settled_reminder(text))
            await svc.slack.update(message, settled_reminder(text))
            await svc.store.clear_alert(alert.about)


async def _is_endpoint(svc: Services, name: str) -> bool:
    try:
        return bool((await known_endpoint(svc, await svc.repository.head(), name)).gpus)
    except (BotError, Unavailable) as error:
        log.info("cannot be adopted", model=name, error=escape(str(error)))
        return False


def _channel(svc: Services, lease: Lease) -> str:
    return lease.message.channel if lease.message else svc.config.slack.channel
