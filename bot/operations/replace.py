"""Replacing the model that holds the GPU: room is made for the new one, and the old one is restored when it fails.

The slot changes hands in one step before anything is touched (`Leases.replace`), and the new lease remembers the old one
until the new model answers. So at every moment one operation is answerable for the GPU, also after a crash.
"""

import asyncio
from datetime import datetime

from bot.domain import Lease, Operation
from bot.durations import show_duration
from bot.errors import BotError, Unavailable
from bot.operations.down import to_zero
from bot.operations.life import step
from bot.operations.receipt import close_session, machine_of
from bot.operations.reconcile import renew
from bot.operations.sampling import sample_last
from bot.services import Services
from bot.views import clock, code, inline, lines

_LOOK_EVERY = 1.0
"""Seconds between two looks at the requests that a model is still answering."""


async def make_room(svc: Services, op: Operation, lease: Lease, old: Lease) -> None:
    """Tell the holder, let the running requests finish, bring the old model down, post its receipt."""
    model = code(old.model)

    async def tell() -> None:
        limit = show_duration(svc.config.lease.finish_within)
        text = (
            f"🔁 Your session of {model} is being replaced by {code(op.request.model)}, asked by <@{op.request.actor}>"
            f"{f' because {inline(op.request.reason, 300)}' if op.request.reason else ''}."
            f" What it is answering now may finish within {limit}. If {code(op.request.model)} does not start, yours comes back."
        )
        await svc.slack.post(f"displaced:{lease.fence}", old.holder, lines(text))

    async def until() -> datetime:
        return svc.clock() + svc.config.lease.finish_within

    async def drain() -> None:
        deadline = await svc.store.once(op.id, "drain until", until, datetime)
        while await _is_answering(svc, old.model):
            if svc.clock() >= deadline:
                return
            await asyncio.sleep(_LOOK_EVERY)

    async def down() -> None:
        await sample_last(svc, old)
        await to_zero(svc, old.model, lease)

    async def receipt() -> None:
        text = f"{code(old.model)} is down, replaced by {code(op.request.model)}.\n"
        text += await close_session(svc, old, op_id=op.id, node=machine)
        channel = old.message.channel if old.message else op.request.channel
        await svc.slack.post(f"receipt:{old.fence}", channel, lines(text), thread=old.message)

    await svc.store.once(op.id, "told the holder", tell, type(None))
    machine = await machine_of(svc, op.id, old.model)
    await step(svc, op.id, f"finishing requests of {old.model}", drain, type(None))
    await step(svc, op.id, f"bringing down {old.model}", down, type(None))
    await svc.store.once(op.id, "receipt of the old", receipt, type(None))


async def _is_answering(svc: Services, model: str) -> bool:
    workload = await svc.cluster.workload(model)
    if workload is None or not workload.ready_replicas:
        return False
    try:
        activity = await svc.vllm.activity(svc.vllm.url(workload.service, workload.namespace, workload.port))
    except (Unavailable, BotError):
        return True  # unknown: it is given its time
    return activity.running > 0 or activity.waiting > 0


async def restore(svc: Services, op: Operation, lease: Lease, old: Lease) -> str:
    """Bring the old model back, under a new fence and with the time that it lost; returns what became of it."""

    async def take_back() -> Lease:
        lost = svc.clock() - lease.claimed
        ends = old.ends + lost if old.ends else None
        again = old.model_copy(update={"op": op.id, "ends": ends, "displaced": None})
        return await svc.leases.replace(lease, again, floor=await svc.cluster.highest_fence())

    async def up() -> None:
        await svc.cluster.scale(old.model, 1, lease=back.mark, fence=back.fence)

    async def ready() -> str:
        try:
            await svc.cluster.wait_ready(
                old.model, timeout=svc.config.gpu.boot_limit.total_seconds(), progress=_without_a_word
            )
        except BotError as error:
            await to_zero(svc, old.model, back)
            await svc.leases.release(back)
            return (
                f"{code(old.model)} of <@{old.holder}> could not be restored either: {error.message} The GPU is free."
            )
        now = svc.clock()
        held = await renew(svc, back, lambda held: held.started(now).model_copy(update={"op": old.op})) or back
        until = f" until {clock(held.ends)}" if held.ends else ""
        return f"{code(old.model)} is restored: <@{old.holder}> holds the GPU again{until}."

    back = await svc.store.once(op.id, "lease given back", take_back, Lease)
    await step(svc, op.id, f"restoring {old.model}", up, type(None), undoing=True)
    outcome = await step(svc, op.id, f"waiting for {old.model}", ready, str, undoing=True)
    text = f"↩️ {code(op.request.model)} did not take over. {outcome}"
    await svc.slack.post(f"restored:{back.fence}", old.holder, lines(text))
    return outcome


async def _without_a_word(_: object) -> None:
    """The card shows one phase for the whole restart."""
