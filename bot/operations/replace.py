"""Replacing the model that holds the GPU: room is made for the new one, and the old one is restored when it fails.

The slot changes hands in one step before anything is touched (`Leases.replace`), and the new lease remembers the old one
until the new model answers. So at every moment one operation is answerable for the GPU, also after a crash.
"""

import asyncio

from bot.domain import Lease, Operation, Status
from bot.durations import show_duration
from bot.errors import BotError, Unavailable
from bot.lease import LeaseMoved
from bot.operations.down import to_zero
from bot.operations.life import finish, since, step
from bot.operations.receipt import close_session, displaced, displaced_key, machine_of
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
        await svc.slack.nudge(f"displaced:{lease.fence}", old.holder, lines(text))

    async def drain() -> None:
        deadline = await since(svc, op.id, "drain began") + svc.config.lease.finish_within
        while await _is_answering(svc, old.model):
            if svc.clock() >= deadline:
                return
            await asyncio.sleep(_LOOK_EVERY)

    async def down() -> None:
        await sample_last(svc, old)
        await to_zero(svc, old.model, lease)

    async def receipt() -> None:
        told = displaced(old.model, op.request.model, await close_session(svc, old, op_id=op.id, node=machine))
        channel = old.message.channel if old.message else op.request.channel
        await svc.slack.post(displaced_key(old), channel, told, thread=old.message)

    if await svc.store.is_open(old.op):  # it was still booting: that ends here, and its own task finds it ended
        asked = f"Replaced by {code(op.request.model)}, as <@{op.request.actor}> asked, before it was up."
        await finish(svc, old.op, Status.CANCELLED, asked)
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
    """Bring the old model back, under a new fence and for the time that it had left; returns what became of it."""

    async def take_back() -> Lease:
        left = old.ends - lease.claimed if old.ends else old.hold
        again = {"op": op.id, "hold": left, "claimed": svc.clock(), "ready": None, "ends": None, "displaced": None}
        floor = await svc.cluster.highest_fence()
        return await svc.leases.replace(lease, old.model_copy(update=again), floor=floor)

    try:
        back = await svc.store.once(op.id, "lease given back", take_back, Lease)
    except LeaseMoved as moved:
        outcome = f"{code(old.model)} of <@{old.holder}> does not come back: {moved.message}"
    else:
        outcome = await _restored(svc, op, old, back)
    text = f"↩️ {code(op.request.model)} did not take over. {outcome}"
    await svc.slack.nudge(f"restored:{old.fence}", old.holder, lines(text))
    return outcome


async def _restored(svc: Services, op: Operation, old: Lease, back: Lease) -> str:
    """Under its lease `back` the old model boots; one that does not get ready either is brought down with a receipt."""
    model = old.model

    async def up() -> None:
        await svc.cluster.scale(model, 1, lease=back.mark, fence=back.fence)

    async def ready() -> str:
        left = await since(svc, op.id, "restore began") + svc.config.gpu.boot_limit - svc.clock()
        try:
            await svc.cluster.wait_ready(model, timeout=max(1.0, left.total_seconds()), progress=_without_a_word)
        except BotError as error:
            return error.message
        now = svc.clock()
        await renew(svc, back, lambda held: held.started(now).model_copy(update={"op": old.op}))
        return ""

    await step(svc, op.id, f"restoring {model}", up, type(None), undoing=True)
    failed = await step(svc, op.id, f"waiting for {model}", ready, str, undoing=True)
    if not failed:
        held = await svc.leases.of(model)
        until = f" until {clock(held.ends)}" if held and held.ends else ""
        return f"{code(model)} is restored: <@{old.holder}> holds the GPU again{until}."
    machine = await machine_of(svc, op.id, model, session=", restored")
    await step(svc, op.id, f"taking {model} down again", lambda: to_zero(svc, model, back), type(None), undoing=True)
    receipt = "\n" + await close_session(svc, back, op_id=op.id, node=machine) if machine else ""
    await svc.leases.release(back)
    return f"{code(model)} of <@{old.holder}> could not be restored either: {failed} The GPU is free.{receipt}"


async def _without_a_word(_: object) -> None:
    """The card shows one phase for the whole restart."""
