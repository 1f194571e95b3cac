"""Adding and swapping an endpoint: a pull request with the whole contract, then the roll-out."""

import asyncio

from bot.clients.github import MergeRefused, PullRequest
from bot.domain import Kind, Operation, Plan, Pull, Status
from bot.errors import BotError
from bot.operations.gpu import known_endpoint, run_smoke
from bot.operations.life import NotAllowed, attended, await_approval, enter, finish, insist, present
from bot.policy import can_be_approved, may_request
from bot.services import Services
from bot.views import code, escape
from manifests.add import AddRequest, plan_add
from manifests.change import Change
from manifests.sizing import Machine, ModelFacts
from manifests.swap import SwapRequest, plan_swap
from manifests.tree import ManifestError, Tree

_OPTIONS = {
    "like": "like",
    "served": "served_name",
    "context": "context",
    "quantization": "quantization",
    "gpu-util": "gpu_utilization",
    "storage": "storage",
    "price-in": "price_in",
    "price-out": "price_out",
    "group": "group",
}


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
    facts = await svc.hub.model(op.request.hf_id)
    change = await asyncio.to_thread(planned, tree, svc, op, facts)  # reading a git tree starts processes
    message = f"{change.title}\n\nRequested-by: {op.request.actor}\nOperation: {op.id}\n"
    await svc.repository.push(change.changes, base=commit, branch=branch_of(op), message=message, when=op.request.at)
    pull = await svc.github.open_pull(
        branch_of(op), svc.config.platform.branch, change.title, pull_body(op, change), svc.config.github.labels
    )
    rows = (*change.summary, ("Files", str(len(change.changes.files))))
    plan = Plan(commit=commit, rows=rows, warnings=change.warnings, applications=(op.request.model,), pull=_seen(pull))
    await await_approval(svc, op.id, plan)


def planned(tree: Tree, svc: Services, op: Operation, facts: ModelFacts) -> Change:
    """The change that a request asks for; bad options are refused by name."""
    gpu, options = svc.config.gpu, dict(op.request.options)
    arguments = tuple(value for key, value in op.request.options if key == "arg")
    options.pop("arg", None)
    unknown = [key for key in options if key not in _OPTIONS]
    if unknown:
        raise NotAllowed(
            f"Unknown option {code(unknown[0])}; there are {', '.join(code(o) for o in _OPTIONS)} and `arg`."
        )
    machine = Machine(vram_bytes=gpu.vram_mib * 2**20, host_memory_bytes=int(gpu.host_memory_gib * 2**30))
    fields = {_OPTIONS[key]: value for key, value in options.items()}
    try:
        if op.request.kind is Kind.MODEL_ADD:
            wanted = AddRequest.model_validate({"name": op.request.model, "facts": facts, "args": arguments, **fields})
            return plan_add(tree, svc.config.platform, wanted, machine)
        swap = SwapRequest.model_validate({"name": op.request.model, "facts": facts, "args": arguments, **fields})
        return plan_swap(tree, svc.config.platform, swap, machine)
    except ManifestError as error:
        raise BotError(escape(str(error))) from error
    except ValueError as error:
        raise BotError(f"One of the options cannot be read: {escape(str(error).splitlines()[-2].strip())}") from error


def pull_body(op: Operation, change: Change) -> str:
    """What reviewers read: the contract, the sizing, who asked, how to undo."""

    def table(rows: tuple[tuple[str, str], ...]) -> str:
        return "\n".join(f"| {label} | {value.replace('|', chr(92) + '|')} |" for label, value in rows)

    parts = [
        f"Asked in Slack by `{op.request.actor}`" + (f": {_inline(op.request.reason)}" if op.request.reason else "."),
        "## The contract\n\n| | |\n| --- | --- |\n" + table(change.summary),
    ]
    if change.sizing:
        numbers = "\n".join(
            f"| {row.label} | {row.value} | {row.limit} | {'ok' if row.ok else '**no**'} |"
            for row in change.sizing.numbers
        )
        parts.append(f"## Sizing: {change.sizing.verdict}\n\n| | needs | has | |\n| --- | --- | --- | --- |\n{numbers}")
    if change.warnings:
        parts.append("## Warnings\n\n" + "\n".join(f"- {warning}" for warning in change.warnings))
    parts.append(
        "## After the merge\n\nStoker waits for Argo CD, syncs the Application at the merge commit and reports in Slack."
        " To undo, revert this pull request."
    )
    return "\n\n".join(parts) + f"\n\n<sub>Operation {op.id}</sub>\n"


def _inline(text: str) -> str:
    return "`" + text.replace("`", "ˋ").replace("\n", " ") + "`"


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
