"""From an approved pull request to a served model: merge, gateway, endpoint, proof."""

from collections.abc import Awaitable, Callable

from bot.clients.argocd import Application
from bot.clients.github import MergeRefused
from bot.domain import Operation, Status
from bot.errors import BotError
from bot.operations.endpoints import known_endpoint
from bot.operations.gpu import run_smoke
from bot.operations.life import await_approval, enter, finish, step
from bot.operations.pulls import close, seen
from bot.services import Services
from bot.views import code


async def roll_out(svc: Services, op: Operation) -> None:
    """Merge exactly the approved head, wait for Argo CD, sync the endpoint. Safe to run again from the top."""
    if op.failure:
        is_merged = bool(op.plan and op.plan.pull and op.plan.pull.merge_commit)
        undone = "The pull request is merged; revert it to undo." if is_merged else "Nothing was merged."
        await finish(svc, op.id, Status.FAILED, f"{op.failure} {undone}")
        return
    now = svc.clock()

    def started(op: Operation) -> Operation:
        return op if op.cancelled_by or op.status is Status.RUNNING else op.moved(Status.RUNNING, now, outcome="")

    op = await svc.store.update(op.id, started, event="started")
    if op.status is not Status.RUNNING:
        await close(svc, op)
        return
    commit = await _merged(svc, op)
    if commit:
        await _deploy(svc, op, commit)


async def _merged(svc: Services, op: Operation) -> str:
    """The merge commit of the approved head; empty when the approval turned out to be void, and was asked anew."""
    plan = op.plan
    if plan is None or plan.pull is None:
        raise BotError("This request has no pull request; ask again.")
    if plan.pull.merge_commit:
        return plan.pull.merge_commit
    pull = plan.pull

    async def merge() -> str:
        return await svc.github.merge(pull.number, pull.head, f"Merge pull request #{pull.number}")

    try:
        commit = await step(svc, op.id, "merging", merge, str)
    except MergeRefused as refused:
        fresh = seen(await svc.github.pull(pull.number))
        if fresh.head != pull.head:
            note = "⚠️ The pull request got new commits after the approval, so it is void. Please decide again."
            await await_approval(svc, op.id, plan.model_copy(update={"pull": fresh}), note=note)
            return ""
        raise refused

    def noted(op: Operation) -> Operation:
        return op.model_copy(
            update={"plan": plan.model_copy(update={"pull": pull.model_copy(update={"merge_commit": commit})})}
        )

    await svc.store.update(op.id, noted, event="merged")
    return commit


async def _deploy(svc: Services, op: Operation, commit: str) -> None:
    """The gateway first: from the merge on it asks for the new served name. Then the endpoint."""
    model = op.request.model

    async def was_up() -> bool:
        before = await svc.cluster.workload(model)
        return bool(before and before.replicas)

    async def gateway() -> None:
        if await svc.argocd.get(svc.config.litellm.application):
            await _to_commit(svc, op, svc.config.litellm.application, commit, "Argo CD: the gateway")

    async def endpoint() -> None:
        wanted = await known_endpoint(svc, commit, model)
        group = f"group-{wanted.group}"
        if await svc.argocd.get(group):
            await svc.argocd.refresh(group)
        limit = svc.config.argocd.sync_limit.total_seconds()
        await svc.argocd.wait_for(wanted.application, timeout=limit, until=lambda _: True)
        await _to_commit(svc, op, wanted.application, commit, "Argo CD: the endpoint")

    async def restarted() -> None:
        async def quiet(_: object) -> None:
            """The card shows one phase for the whole restart."""

        await svc.cluster.wait_ready(model, timeout=svc.config.gpu.boot_limit.total_seconds(), progress=quiet)

    running = await svc.store.once(op.id, "was up", was_up, bool)
    await step(svc, op.id, "Argo CD: the gateway", gateway, type(None))
    await step(svc, op.id, "Argo CD: the endpoint", endpoint, type(None))
    served = code((await known_endpoint(svc, commit, model)).hf_id)
    if running:
        await step(svc, op.id, "restarting", restarted, type(None))

        async def tested() -> None:
            await run_smoke(svc, op.id, model, commit)

        await step(svc, op.id, "smoke tests", tested, type(None))
        outcome = f"{code(model)} now serves {served} and answers."
    else:
        outcome = f"{code(model)} is rolled out, serving {served}, and is at zero. `/gpu up {model}` lights it."
    await finish(svc, op.id, Status.SUCCEEDED, outcome)


async def _to_commit(svc: Services, op: Operation, application: str, commit: str, phase: str) -> Application:
    """Bring an Application to the commit: one that syncs by itself is refreshed and waited for, another is synced."""
    limit = svc.config.argocd.sync_limit.total_seconds()

    async def includes(revision: str) -> bool:
        return await svc.repository.includes(revision, commit)

    found = await svc.argocd.get(application)
    if found is None or not found.automated:
        return await svc.argocd.sync(
            application, commit, actor=op.request.actor, timeout=limit, tell=_tell(svc, op.id, phase)
        )
    await svc.argocd.refresh(application)
    return await svc.argocd.wait_synced(application, includes=includes, timeout=limit, tell=_tell(svc, op.id, phase))


def _tell(svc: Services, op_id: str, phase: str) -> Callable[[str], Awaitable[None]]:
    async def tell(message: str) -> None:
        await enter(svc, op_id, phase, message)

    return tell
