"""An operation's pull request: proposed, followed on the card, closed with the operation."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog

from bot.clients.github import PullRequest
from bot.domain import Kind, Operation, Plan, Pull, Request, Status, cost
from bot.durations import show_duration
from bot.errors import BotError, Unavailable
from bot.mirror import PushRefused
from bot.operations.endpoints import all_endpoints, known_endpoint
from bot.operations.life import NotAllowed, await_approval, finish, insist, is_closing, present
from bot.operations.proposal import Verb, looked_up, planned, pull_body, refuse_bad_words, weights_of
from bot.policy import can_be_approved, may_request
from bot.services import Services
from bot.views import code, escape, money
from manifests.add import refuse_taken
from manifests.change import Change
from manifests.sizing import ModelFacts
from manifests.swap import unshrunk
from manifests.tree import ManifestError

log = structlog.get_logger(__name__)


def branch_of(op: Operation) -> str:
    return f"stoker/{_verb(op.request.kind)}-{op.request.model}-{op.id}"


def _verb(kind: Kind) -> str:
    return kind.value.removeprefix("model ")


async def check(svc: Services, wanted: Request) -> None:
    """Refuse what cannot become a pull request, as far as the words and the repository tell; opens nothing."""
    people = await svc.people()
    insist(may_request(wanted.actor, people, svc.config))
    insist(can_be_approved(people))
    if wanted.kind is Kind.MODEL_REVERT:
        return
    with plain_refusals():
        refuse_bad_words(_planner(wanted.kind), wanted.hf_id, wanted.options)
    commit = await svc.repository.head()
    if wanted.kind is not Kind.MODEL_ADD:
        await known_endpoint(svc, commit, wanted.model)
    if wanted.kind is Kind.MODEL_REMOVE:
        await refuse_if_up(svc, wanted.model)
    if wanted.kind is Kind.MODEL_ADD:
        tree = await svc.repository.tree(commit)
        with plain_refusals():
            await asyncio.to_thread(refuse_taken, tree, svc.config.platform, wanted.model)


async def refuse_if_up(svc: Services, model: str) -> None:
    """An endpoint that holds the GPU is brought down before it is removed."""
    workload, lease = await svc.cluster.workload(model), await svc.leases.of(model)
    if lease or (workload and workload.gpus and workload.replicas):
        whose = f", and <@{lease.holder}> holds the GPU with it" if lease else ""
        raise NotAllowed(f"{code(model)} is up{whose}: bring it down first, with `/gpu down {model}`.")


def _planner(kind: Kind) -> Verb:
    match kind:
        case Kind.MODEL_ADD:
            return "add"
        case Kind.MODEL_REMOVE:
            return "remove"
        case _:
            return "swap"


@contextmanager
def plain_refusals() -> Iterator[None]:
    """What the GitOps half refuses is plain text, which may quote what people typed: escaped for Slack."""
    try:
        yield
    except (ManifestError, BotError) as error:
        raise BotError(escape(str(error))) from error


async def already_open(svc: Services, wanted: Request) -> Operation | None:
    """The operation whose pull request does this already. NotAllowed when one does something else to the endpoint."""
    for other in await svc.store.open(model=wanted.model):
        if other.plan is None or other.plan.pull is None:
            continue
        asked = other.request
        if (asked.kind, asked.hf_id, asked.options) == (wanted.kind, wanted.hf_id, wanted.options):
            return other
        raise NotAllowed(
            f"{code(wanted.model)} is already in pull request <{other.plan.pull.url}|#{other.plan.pull.number}>,"
            f" asked by <@{asked.actor}>: decide or cancel that one first."
        )
    return None


async def propose(svc: Services, op: Operation) -> None:
    """Check, size, commit, push, open the pull request, and ask for the roll-out. Safe to repeat."""
    await check(svc, op.request)
    await _refuse_second(svc, op)
    commit = await svc.store.once(op.id, "base", svc.repository.head, str)
    change = await planned_change(svc, op, commit)
    pushed = await _push(svc, op, change, commit)
    pull = await svc.github.open_pull(
        branch_of(op), svc.config.platform.branch, change.title, _body(op, change), svc.config.github.labels
    )
    await await_approval(svc, op.id, await _plan(svc, op, change, commit, pushed, pull))


async def _refuse_second(svc: Services, op: Operation) -> None:
    """Two requests for one endpoint at once: the first to come is the one that opens a pull request."""
    other = await already_open(svc, op.request)
    if other and other.plan and other.plan.pull:
        raise NotAllowed(f"That is open already: <{other.plan.pull.url}|pull request #{other.plan.pull.number}>.")
    mine = (op.request.at, op.id)
    for other in await svc.store.open(model=op.request.model):
        if other.request.kind.changes and other.plan is None and (other.request.at, other.id) < mine:
            raise NotAllowed(
                f"A pull request for {code(op.request.model)} is being prepared already, as <@{other.request.actor}>"
                " asked. Ask again when it is there."
            )


async def planned_change(svc: Services, op: Operation, commit: str) -> Change:
    """The change as it is on top of a commit of the main branch."""
    wanted = op.request
    if wanted.kind is Kind.MODEL_REVERT:
        return await _reversal(svc, wanted, commit)
    tree = await svc.repository.tree(commit)
    facts, kept = None, None
    if wanted.hf_id:
        facts = await svc.store.once(op.id, "facts", lambda: looked_up(svc.hub, wanted.hf_id), ModelFacts)
    if wanted.kind is Kind.MODEL_SWAP:
        before = await known_endpoint(svc, commit, wanted.model)
        # In the ledger like the facts: the same commit must come of it when it is made again. Zero: nobody knows.
        kept = await svc.store.once(op.id, "kept", lambda: _known_weights(svc, before.hf_id), int) or None
    with plain_refusals():
        # In a thread, since reading a git tree starts processes.
        return await asyncio.to_thread(
            planned, tree, svc.config, _planner(wanted.kind), wanted.model, wanted.options, facts, kept
        )


async def _known_weights(svc: Services, hf_id: str) -> int:
    return await weights_of(svc.hub, hf_id) or 0


async def _reversal(svc: Services, wanted: Request, commit: str) -> Change:
    reverted = await svc.store.load(wanted.reverts)
    pull = reverted.plan.pull if reverted.plan else None
    if pull is None or not pull.merge_commit:
        raise NotAllowed("That change was never merged, so there is nothing to revert.")
    series = await svc.github.commits(pull.number)
    with plain_refusals():
        changes = await svc.repository.reversal(pull.merge_commit, commit, series)
        tree = await svc.repository.tree(commit)
        changes, told = await asyncio.to_thread(unshrunk, tree, changes)
    if not changes.files:
        raise NotAllowed(f"Pull request <{pull.url}|#{pull.number}> is reverted already.")
    return Change(
        changes=changes,
        title=f"revert: {_verb(reverted.request.kind)} {wanted.model} (#{pull.number})",
        intent=f"Reverts #{pull.number}. What was changed since then stays.",
        summary=(("Endpoint", wanted.model), ("Takes back", f"pull request #{pull.number}, {pull.merge_commit[:10]}")),
        warnings=told,
    )


async def _push(svc: Services, op: Operation, change: Change, base: str, replaces: str = "") -> str:
    message = f"{change.title}\n\nRequested-by: {op.request.actor}\nOperation: {op.id}\n"
    return await svc.repository.push(
        change.changes, base=base, branch=branch_of(op), message=message, when=op.request.at, replaces=replaces
    )


def _body(op: Operation, change: Change) -> str:
    asked = f"Asked in Slack by `{op.request.actor}`"
    return pull_body(change, asked=asked, reason=op.request.reason, operation=op.id)


async def _plan(svc: Services, op: Operation, change: Change, commit: str, pushed: str, pull: PullRequest) -> Plan:
    holder, displaced = await displaced_by(svc, op)
    known = await all_endpoints(svc, commit) if change.endpoint is None else (change.endpoint,)
    return Plan(
        commit=commit,
        rows=(*change.summary, ("Files", str(len(change.changes.files))), *_then(svc, op, change)),
        warnings=change.warnings,
        applications=tuple(each.application for each in known if each.name == op.request.model),
        pull=seen(pull),
        pushed=pushed,
        holder=holder,
        displaced=displaced,
    )


def _then(svc: Services, op: Operation, change: Change) -> tuple[tuple[str, str], ...]:
    """What the approval also covers: the GPU after the roll-out, and what that costs."""
    if not op.request.up or change.endpoint is None or not change.endpoint.gpus:
        return ()
    hold = op.request.hold or svc.config.lease.default
    # A ten-minute cold start (platform.md's figure) and the node's drain are billed in any case.
    billed = timedelta(minutes=10) + svc.config.gpu.drain + (hold if op.request.keep else timedelta())
    then = f"kept for {show_duration(hold)}" if op.request.keep else "back to zero"
    return (("Then", f"brought up, tested, {then}: about {money(cost(billed, svc.config.gpu.price()))}"),)


async def displaced_by(svc: Services, op: Operation) -> tuple[str, str]:
    """Who holds the GPU for the endpoint that a roll-out would restart, and what that interrupts, for the card."""
    model = op.request.model
    workload = await svc.cluster.workload(model)
    if op.request.kind is Kind.MODEL_ADD or workload is None or not workload.replicas:
        return "", ""
    if not workload.gpus:
        if op.request.kind is Kind.MODEL_REMOVE:
            return "-", f"{code(model)} is running: whoever calls it gets errors from the merge on."
        return "-", f"{code(model)} is running and restarts with this change."
    lease = await svc.leases.of(model)
    whose = f"<@{lease.holder}> holds it" if lease else "nobody holds a lease for it"
    try:
        now = await svc.vllm.activity(svc.vllm.url(workload.service, workload.namespace, workload.port))
        busy = f"{now.running + now.waiting:.0f} requests are under way"
    except (Unavailable, BotError):
        busy = "how much it serves now is not known"
    return (
        lease.holder if lease else "-",
        f"{code(model)} is up: {whose}, {busy}. Approving merges, syncs and restarts it in one step; until it is ready"
        " again, about ten minutes, calls to it fail.",
    )


def seen(pull: PullRequest) -> Pull:
    return Pull(
        number=pull.number,
        url=pull.url,
        branch=pull.head_ref,
        head=pull.head_sha,
        checks=pull.checks,
        failing=pull.failing,
        mergeable=pull.mergeable,
        blocked=pull.blocked,
        approved_by=pull.approved_by,
        rejected_by=pull.rejected_by,
        merged_by=pull.merged_by or "",
        merge_commit=(pull.merge_commit or "") if pull.merged else "",
    )


async def follow(svc: Services, op: Operation) -> None:
    """Bring the card up to date with its pull request: checks, conflicts, merged or closed by somebody."""
    if op.status is not Status.AWAITING or op.plan is None or op.plan.pull is None:
        return
    pull = await svc.github.pull(op.plan.pull.number)
    if pull.state == "closed" and not pull.merged:
        if is_closing(await svc.store.load(op.id)):
            return  # the bot closed it itself, and is about to say so
        by = f" by {escape(pull.closed_by)}" if pull.closed_by else ""
        await svc.github.delete_branch(pull.head_ref)
        outcome = f"Pull request #{pull.number} was closed on GitHub{by}. Nothing was rolled out."
        await finish(svc, op.id, Status.CANCELLED, outcome)
        return
    if pull.mergeable is False and pull.head_sha == op.plan.pushed and await _rebased(svc, op, op.plan):
        return
    holder, displaced = await displaced_by(svc, op)
    latest, now = seen(pull), svc.clock()

    def updated(op: Operation) -> Operation:
        if op.status is not Status.AWAITING or op.plan is None:
            return op
        plan = op.plan.model_copy(update={"pull": latest, "holder": holder, "displaced": displaced})
        if plan == op.plan:
            return op
        changes: dict[str, object] = {"plan": plan, "updated": now}
        if op.plan.pull is not None and op.plan.pull.head != latest.head:
            changes |= {"votes": (), "outcome": "⚠️ The pull request got new commits; earlier approvals are void."}
        return op.model_copy(update=changes)

    after = await svc.store.update(op.id, updated)
    if after != op:
        await present(svc, after)


async def _rebased(svc: Services, op: Operation, plan: Plan) -> bool:
    """Make the change anew on top of a main branch that it conflicts with; no when it cannot be made there."""
    commit = await svc.repository.head()
    try:
        change = await planned_change(svc, op, commit)
        pushed = await _push(svc, op, change, commit, replaces=plan.pushed)
    except (NotAllowed, PushRefused, BotError) as refused:
        log.warning("not rebased", op=op.id, model=op.request.model, why=refused.message)
        return False
    pull = await svc.github.open_pull(
        branch_of(op), svc.config.platform.branch, change.title, _body(op, change), svc.config.github.labels
    )
    await svc.github.describe(pull.number, change.title, _body(op, change))
    fresh = await _plan(svc, op, change, commit, pushed, await svc.github.pull(pull.number))
    note, now = (
        "⚠️ The main branch moved, so the change was made anew on top of it; earlier approvals are void.",
        svc.clock(),
    )

    def moved(op: Operation) -> Operation:
        if op.status is not Status.AWAITING:
            return op
        return op.model_copy(update={"plan": fresh, "votes": (), "outcome": note, "updated": now})

    await present(svc, await svc.store.update(op.id, moved, event="approval void"))
    return True


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
