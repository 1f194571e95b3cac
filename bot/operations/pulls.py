"""An operation's pull request: proposed, followed on the card, closed with the operation."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from bot.clients.github import PullRequest
from bot.domain import Kind, Operation, Plan, Pull, Request, Status
from bot.errors import BotError
from bot.operations.endpoints import known_endpoint
from bot.operations.life import NotAllowed, await_approval, finish, insist, present
from bot.operations.proposal import Verb, looked_up, planned, pull_body, refuse_bad_words, weights_of
from bot.policy import can_be_approved, may_request
from bot.services import Services
from bot.views import code, escape
from manifests.add import refuse_taken
from manifests.tree import ManifestError


def verb_of(kind: Kind) -> Verb:
    return "add" if kind is Kind.MODEL_ADD else "swap"


def branch_of(op: Operation) -> str:
    return f"stoker/{verb_of(op.request.kind)}-{op.request.model}-{op.id}"


async def check(svc: Services, wanted: Request) -> None:
    """Refuse what cannot become a pull request, as far as the words and the repository tell; opens nothing."""
    people = await svc.people()
    insist(may_request(wanted.actor, people, svc.config))
    insist(can_be_approved(people))
    with plain_refusals():
        refuse_bad_words(verb_of(wanted.kind), wanted.hf_id, wanted.options)
    commit = await svc.repository.head()
    if wanted.kind is not Kind.MODEL_ADD:
        await known_endpoint(svc, commit, wanted.model)
        return
    tree = await svc.repository.tree(commit)
    with plain_refusals():
        await asyncio.to_thread(refuse_taken, tree, svc.config.platform, wanted.model)


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
    wanted = op.request
    await check(svc, wanted)
    other = await already_open(svc, wanted)
    if other and other.plan and other.plan.pull:
        raise NotAllowed(f"That is open already: <{other.plan.pull.url}|pull request #{other.plan.pull.number}>.")
    commit = await svc.store.once(op.id, "base", svc.repository.head, str)
    tree = await svc.repository.tree(commit)
    facts = await looked_up(svc.hub, wanted.hf_id)
    kept = None
    if wanted.kind is Kind.MODEL_SWAP:
        kept = await weights_of(svc.hub, (await known_endpoint(svc, commit, wanted.model)).hf_id)
    with plain_refusals():
        # In a thread, since reading a git tree starts processes.
        change = await asyncio.to_thread(
            planned, tree, svc.config, verb_of(wanted.kind), wanted.model, wanted.options, facts, kept
        )
    message = f"{change.title}\n\nRequested-by: {wanted.actor}\nOperation: {op.id}\n"
    await svc.repository.push(change.changes, base=commit, branch=branch_of(op), message=message, when=wanted.at)
    body = pull_body(change, asked=f"Asked in Slack by `{wanted.actor}`", reason=wanted.reason, operation=op.id)
    pull = await svc.github.open_pull(
        branch_of(op), svc.config.platform.branch, change.title, body, svc.config.github.labels
    )
    rows = (*change.summary, ("Files", str(len(change.changes.files))))
    plan = Plan(commit=commit, rows=rows, warnings=change.warnings, applications=(wanted.model,), pull=seen(pull))
    await await_approval(svc, op.id, plan)


def seen(pull: PullRequest) -> Pull:
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
    latest, now = seen(pull), svc.clock()

    def updated(op: Operation) -> Operation:
        if op.status is not Status.AWAITING or op.plan is None or op.plan.pull == latest:
            return op
        moved = op.plan.pull is not None and op.plan.pull.head != latest.head
        changes: dict[str, object] = {"plan": op.plan.model_copy(update={"pull": latest}), "updated": now}
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
