"""Adding and swapping an endpoint: a pull request with the whole contract, then the roll-out."""

import asyncio

from bot.clients.github import MergeRefused, PullRequest
from bot.domain import Kind, Operation, Plan, Pull, Status
from bot.errors import BotError
from bot.operations.gpu import known_endpoint, run_smoke
from bot.operations.life import NotAllowed, attended, await_approval, enter, finish, insist, present
from bot.operations.proposal import Verb, planned, pull_body
from bot.policy import can_be_approved, may_request
from bot.services import Services
from bot.views import code, escape
from manifests.tree import ManifestError


def branch_of(op: Operation) -> str:
    verb = "add" if op.request.kind is Kind.MODEL_ADD else "swap"
    return f"stoker/{verb}-{op.request.model}-{op.id}"


async def propose(svc: Services, op: Operation) -> None:
    """Validate, size, commit, push, open the pull request, and ask for the roll-out. Safe to repeat."""
    people = await svc.people()
    insist(may_request(op.request.actor, people, svc.config))
    insist(can_be_approved(people))
    for other in await svc.store.open(op.request.kind, op.request.model):
        if other.id != op.id and other.plan and other.plan.pull:
            raise NotAllowed(
                f"{code(op.request.model)} is already in pull request <{other.plan.pull.url}|#{other.plan.pull.number}>,"
                f" asked by <@{other.request.actor}>: decide or cancel that one first."
            )

    async def base() -> str:
        return await svc.repository.head()

    commit = await svc.store.once(op.id, "base", base, str)
    tree = await svc.repository.tree(commit)
    if op.request.kind is Kind.MODEL_SWAP:
        await known_endpoint(svc, commit, op.request.model)
    verb: Verb = "add" if op.request.kind is Kind.MODEL_ADD else "swap"
    facts = await svc.hub.model(op.request.hf_id)
    try:
        # In a thread, since reading a git tree starts processes.
        change = await asyncio.to_thread(planned, tree, svc.config, verb, op.request.model, op.request.options, facts)
    except (ManifestError, BotError) as error:
        raise BotError(escape(str(error))) from error
    message = f"{change.title}\n\nRequested-by: {op.request.actor}\nOperation: {op.id}\n"
    await svc.repository.push(change.changes, base=commit, branch=branch_of(op), message=message, when=op.request.at)
    body = pull_body(change, asked=f"Asked in Slack by `{op.request.actor}`", reason=op.request.reason, operation=op.id)
    pull = await svc.github.open_pull(
        branch_of(op), svc.config.platform.branch, change.title, body, svc.config.github.labels
    )
    rows = (*change.summary, ("Files", str(len(change.changes.files))))
    plan = Plan(commit=commit, rows=rows, warnings=change.warnings, applications=(op.request.model,), pull=_seen(pull))
    await await_approval(svc, op.id, plan)


def _seen(pull: PullRequest) -> Pull:
    return Pull(
        number=pull.number,
        url=pull.url,
        branch=pull.head_ref,
        head=pull.head_sha,
        checks=pull.checks,
        failing=pull.failing,
        mergeable=pull.mergeable,
        merged_by=pull.merged_by or "",
        merge_commit=(pull.merge_commit or "") if pull.merged else "",
    )


async def follow(svc: Services, op: Operation) -> None:
    """Bring the card up to date with its pull request: checks, conflicts, merged or closed by somebody."""
    if op.status is not Status.AWAITING or op.plan is None or op.plan.pull is None:
        return
    pull = await svc.github.pull(op.plan.pull.number)
    if pull.state == "closed" and not pull.merged:
        by = f" by {escape(pull.closed_by)}" if pull.closed_by else ""
        await svc.github.delete_branch(pull.head_ref)
        outcome = f"Pull request #{pull.number} was closed on GitHub{by}. Nothing was rolled out."
        await finish(svc, op.id, Status.CANCELLED, outcome)
        return
    seen, now = _seen(pull), svc.clock()

    def updated(op: Operation) -> Operation:
        if op.status is not Status.AWAITING or op.plan is None or op.plan.pull == seen:
            return op
        moved = op.plan.pull is not None and op.plan.pull.head != seen.head
        changes: dict[str, object] = {"plan": op.plan.model_copy(update={"pull": seen}), "updated": now}
        if moved:
            changes |= {"votes": (), "outcome": "⚠️ The pull request got new commits; earlier approvals are void."}
        return op.model_copy(update=changes)

    after = await svc.store.update(op.id, updated)
    if after != op:
        await present(svc, after)


async def close(svc: Services, op: Operation) -> None:
    """A cancelled or denied change: close its pull request and delete the branch, then say so. Safe to repeat."""
    pull = op.plan.pull if op.plan else None
    if pull:
        await svc.github.close(pull.number)
        await svc.github.delete_branch(pull.branch)
    where = f" Pull request #{pull.number} is closed and its branch deleted." if pull else ""
    denied = next((vote for vote in op.votes if not vote.approve), None)
    if denied:
        await finish(svc, op.id, Status.DENIED, f"Nothing was rolled out.{where}")
    else:
        await finish(svc, op.id, Status.CANCELLED, f"Cancelled by <@{op.cancelled_by}>.{where}")


async def roll_out(svc: Services, op: Operation) -> None:
    """Merge exactly the approved head, wait for Argo CD, sync the endpoint. Safe to run again from the top."""
    if op.failure:
        is_merged = bool(op.plan and op.plan.pull and op.plan.pull.merge_commit)
        undone = "The pull request is merged; revert it to undo." if is_merged else "Nothing was merged."
        await finish(svc, op.id, Status.FAILED, f"Failed: {op.failure} {undone}")
        return
    plan, now = op.plan, svc.clock()
    if plan is None or plan.pull is None:
        raise BotError("This request has no pull request; ask again.")
    pull = plan.pull
    if op.status is Status.APPROVED:
        op = await svc.store.update(op.id, lambda op: op.moved(Status.RUNNING, now, outcome=""), event="started")
    merge_commit = pull.merge_commit
    if not merge_commit:
        await enter(svc, op.id, "merging")
        try:
            merge_commit = await svc.github.merge(pull.number, pull.head, f"Merge pull request #{pull.number}")
        except MergeRefused as refused:
            fresh = _seen(await svc.github.pull(pull.number))
            if fresh.head != pull.head:
                note = "⚠️ The pull request got new commits after the approval, so it is void. Please decide again."
                await await_approval(svc, op.id, plan.model_copy(update={"pull": fresh}), note=note)
                return
            raise refused
        merged = pull.model_copy(update={"merge_commit": merge_commit})
        op = await svc.store.update(
            op.id,
            lambda op: op.model_copy(update={"plan": plan.model_copy(update={"pull": merged})}),
            event="merged",
        )
    await _deploy(svc, op, merge_commit)


async def _deploy(svc: Services, op: Operation, commit: str) -> None:
    model, limit = op.request.model, svc.config.argocd.sync_limit.total_seconds()
    await enter(svc, op.id, "Argo CD: the gateway")
    gateway = svc.config.litellm.application
    if await svc.argocd.get(gateway):
        await svc.argocd.refresh(gateway)
        await attended(
            svc,
            op.id,
            svc.argocd.wait_for(
                gateway, timeout=limit, until=lambda app: app.sync == "Synced" and commit in app.revisions
            ),
        )
    await enter(svc, op.id, "Argo CD: the endpoint")
    endpoint = await known_endpoint(svc, commit, model)
    group = f"group-{endpoint.group}"
    if await svc.argocd.get(group):
        await svc.argocd.refresh(group)
    app = await attended(svc, op.id, svc.argocd.wait_for(endpoint.application, timeout=limit, until=lambda _: True))
    before = await svc.cluster.workload(model)
    if app.automated:
        await svc.argocd.refresh(app.name)
        await attended(
            svc,
            op.id,
            svc.argocd.wait_for(app.name, timeout=limit, until=lambda a: a.sync == "Synced" and commit in a.revisions),
        )
    else:
        await attended(svc, op.id, svc.argocd.sync(app.name, commit, actor=op.request.actor, timeout=limit))
    if before and before.replicas:
        await enter(svc, op.id, "restarting")

        async def quiet(_: object) -> None:
            """The card shows one phase for the whole restart."""

        await attended(
            svc,
            op.id,
            svc.cluster.wait_ready(model, timeout=svc.config.gpu.boot_limit.total_seconds(), progress=quiet),
        )
        await enter(svc, op.id, "smoke tests")
        await run_smoke(svc, op.id, model, commit)
        outcome = f"{code(model)} now serves {code(endpoint.hf_id)} and answers."
    else:
        outcome = (
            f"{code(model)} is rolled out, serving {code(endpoint.hf_id)}, and is at zero. `/gpu up {model}` lights it."
        )
    await finish(svc, op.id, Status.SUCCEEDED, outcome)
