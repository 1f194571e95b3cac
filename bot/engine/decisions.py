"""Decisions about an operation: votes, which are counted at the click and again at the start, and cancellations."""

from collections.abc import Callable

from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.kinds import CancelRule
from bot.domain.operations import AlreadyDecided, BringUpOperation, Operation, Status, Vote, lease_in_plan
from bot.domain.outcomes import Cancelled, Denied, NothingStarted
from bot.engine.lifecycle import (
    Lifecycle,
    NotAllowed,
    is_closing,
    require,
)
from bot.errors import BotError
from bot.observability.logs import about
from bot.policy import (
    People,
    costs_money,
    is_approved,
    may_cancel,
    may_deny,
    may_override,
    may_vote,
    must_notify,
    standing,
)
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.slack.roles import RoleMembers
from bot.state.audit import AuditLog
from bot.state.operations import Operations
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import code, inline, lines, plan_in_words
from bot.views.news import objection

_NOT_CANCELLABLE = {
    CancelRule.UNTIL_MERGE: "This can no longer be cancelled: the pull request is being merged and rolled out."
    " To undo it, revert it afterwards.",
    CancelRule.BEFORE_START: "This is already running and will end; there is nothing to undo.",
}
"""The reason why a running operation cannot be cancelled."""


class VotesShort(BotError):
    """Too few approvals were still valid when the work was about to start; `votes` are the valid ones."""

    remedy = "Have another approver decide: the message names the approval that no longer counts, and the reason."

    def __init__(self, message: Mrkdwn, votes: tuple[Vote, ...]) -> None:
        super().__init__(message)
        self.votes = votes


class PlanChanged(BotError):
    """A click or a form for a plan that is not the operation's current one."""

    remedy = "Read the current plan on the card, then decide."


@component
class Decisions:
    """Records votes, cancellations and objections."""

    operations: Operations
    audit: AuditLog
    presentation: Presentation
    roles: RoleMembers
    lifecycle: Lifecycle
    config: Config
    clock: Clock

    async def count_votes(self, op: Operation) -> None:
        """Raise VotesShort if the approvals are no longer sufficient: they are counted again when the work starts."""
        votes, lacking = standing(op, await self.roles.people(), self.config, self.clock())
        if lacking:
            raise VotesShort(lacking, votes)

    async def still_approved(self, op: Operation) -> bool:
        """Return whether the approvals are still sufficient at the start. If they are not, ask for another approval on
        the same card.
        """
        try:
            await self.count_votes(op)
        except VotesShort as short:
            if op.plan is None:
                raise
            await self.lifecycle.await_approval(op, op.plan, note=md("⚠️ {short}", short=short), votes=short.votes)
            return False
        return True

    async def carry_votes(self, op: Operation) -> None:
        """Apply the parent operation's votes to this one. A queued operation keeps its votes."""
        votes, now = op.votes, self.clock()

        def counted(op: Operation) -> Operation:
            voted = op.model_copy(update={"votes": votes, "updated": now})
            if op.status is not Status.AWAITING or not is_approved(voted, self.config):
                return op
            return voted.moved(Status.APPROVED, now, outcome=md(""))

        if votes:
            by = votes[-1].by
            await self._act_on(await self.operations.update(op.id, counted, event=AuditEvent.APPROVED, actor=by))

    async def as_shown(self, op_id: str, plan_hash: str, *, against: bool = False) -> Operation:
        """Return the operation if a button was rendered for its current plan; otherwise raise PlanChanged and update
        the card.

        `plan_hash` is from the button's value. With `against` it also covers the holder of the GPU.
        """
        op = await self.operations.load(op_id)
        current = op.shown_against if against and isinstance(op, BringUpOperation) else op.shown
        if op.status in (Status.AWAITING, Status.WAITING) and f"{op.id}.{plan_hash}" != current:
            await self.lifecycle.show(op)
            raise _changed_since(op)
        return op

    async def vote(
        self,
        op_id: str,
        actor: str,
        *,
        approve: bool,
        reason: str = "",
        override: bool = False,
        plan_hash: str = "",
    ) -> Operation:
        """Count one decision, by the policy at the time of the click. Raises AlreadyDecided with the first decision.

        A request that waits for the GPU may be decided before its turn. With `override`, an admin's vote replaces the
        whole quorum. `plan_hash` is the hash of the plan on the card: an approval of another plan raises PlanChanged. A
        denial is valid for any plan, because it starts nothing.
        """
        people = await self.roles.people()
        vote = Vote(by=actor, at=self.clock(), approve=approve, reason=reason, override=override)

        def counted(op: Operation) -> Operation:
            self._require_countable(op, vote, people, plan_hash)
            return self._with_vote(op, vote)

        event = AuditEvent.OVERRIDDEN if override else AuditEvent.APPROVED if approve else AuditEvent.DENIED
        try:
            op = await self._store_decision(op_id, actor, counted, event, why=reason)
        except PlanChanged:
            await self.lifecycle.show(await self.operations.load(op_id))
            raise
        await self._act_on(op)
        return op

    def _require_countable(self, op: Operation, vote: Vote, people: People, plan_hash: str) -> None:
        """Raise an error if the request is no longer open, the policy refuses the vote, or the plan cannot be approved."""
        if op.status not in (Status.AWAITING, Status.WAITING) or is_closing(op):
            op.moved(Status.APPROVED, vote.at)  # raises AlreadyDecided with the decision if the operation is final
            raise AlreadyDecided("This request has just been closed.")
        if vote.override:
            require(may_override(vote.by, vote.reason, people))
        elif vote.approve:
            require(may_vote(op, vote.by, people, self.config))
        else:
            require(may_deny(op, vote.by, people))
        if not vote.approve:
            return
        if plan_hash != (op.plan.mark if op.plan else ""):
            raise _changed_since(op)
        if op.open_pull and op.lacks:
            raise NotAllowed(
                md("Pull request #{number} can be approved when {lacks}.", number=op.open_pull.number, lacks=op.lacks)
            )

    def _with_vote(self, op: Operation, vote: Vote) -> Operation:
        """The operation with the vote, in its next status if the vote decides."""
        op = op.model_copy(update={"votes": (*op.votes, vote), "updated": vote.at})
        if not vote.approve:
            return op if op.open_pull else op.ended(Denied(undone=NothingStarted()), vote.at)
        if op.status is Status.AWAITING and is_approved(op, self.config):
            return op.moved(Status.APPROVED, vote.at, outcome=md(""))
        return op

    async def cancel(self, op_id: str, actor: str, reason: str = "") -> Operation:
        """Cancel an operation: immediately if nothing has begun, otherwise the running task rolls back."""
        ends_cost, now = costs_money(await self.operations.load(op_id)), self.clock()
        # Roles are looked up in Slack, but stopping costs must not wait for Slack.
        people = People(frozenset(), frozenset(), frozenset()) if ends_cost else await self.roles.people()

        def cancelled(op: Operation) -> Operation:
            if op.status.final:
                op.moved(Status.CANCELLED, now)
            require(may_cancel(op, actor, people))
            if not op.can_be_cancelled:
                raise NotAllowed(_NOT_CANCELLABLE[op.request.kind.spec.cancel])
            op = op.model_copy(update={"cancelled_by": actor, "updated": now})
            if op.status in (Status.RUNNING, Status.APPROVED) or op.open_pull:
                return op
            return op.ended(Cancelled(by=actor, undone=NothingStarted()), now)

        op = await self._store_decision(op_id, actor, cancelled, AuditEvent.CANCELLED, why=reason)
        await self._act_on(op)
        if ends_cost and must_notify(op.request.actor, actor):
            ending = md(": {reason}", reason=inline(reason, 300)) if reason else "."
            model = code(op.request.model)
            text = md(
                "↩️ {by} is cancelling your bring-up of {model}{ending}", by=person(actor), model=model, ending=ending
            )
            await self.presentation.post(f"cancelled:{op.id}", op.request.actor, lines(text))
        return op

    async def may_object(self, op_id: str, actor: str) -> Operation:
        """Return the request to replace a session, if `actor` holds that session. Raises NotAllowed for anybody else,
        and AlreadyDecided if the request no longer awaits approval.
        """
        op = await self.operations.load(op_id)
        lease = lease_in_plan(op)
        if op.status is not Status.AWAITING or is_closing(op):
            op.moved(Status.APPROVED, self.clock())  # raises AlreadyDecided with the decision if the operation is final
            raise AlreadyDecided("This request has just been closed.")
        if lease is None or lease.holder != actor:
            raise NotAllowed("Only the holder of the session can object to this request.")
        return op

    async def object_to(self, op_id: str, actor: str, reason: str) -> None:
        """Show the holder's objection on the card, and notify the approvers; they decide."""
        text = objection(await self.may_object(op_id, actor), actor, reason)

        def objected(op: Operation) -> Operation:
            return op.model_copy(update={"outcome": text})

        op = await self.operations.update(op_id, objected, event=AuditEvent.OBJECTED, actor=actor, reason=reason)
        await self.presentation.announcements.announce_objection(op, actor, reason)
        await self.lifecycle.show(op)

    async def _store_decision(
        self, op_id: str, actor: str, change: Callable[[Operation], Operation], event: AuditEvent, why: str = ""
    ) -> Operation:
        """Store the decision of a click; a refusal by the policy is recorded in the audit log."""
        with about(op=op_id, actor=actor):
            try:
                return await self.operations.update(op_id, change, event=event, actor=actor, reason=why)
            except (NotAllowed, PlanChanged) as error:
                await self.audit.note_refusal(
                    await self.operations.load(op_id), actor, event, error.message, self.clock()
                )
                raise

    async def _act_on(self, op: Operation) -> None:
        """Act on a stored decision: start the work, offer the GPU to the next request, or update the card."""
        if not op.status.final:
            await self.lifecycle.enqueue(op)
        elif isinstance(op, BringUpOperation) and op.waiting:  # pass the turn to the next in the queue
            await self.lifecycle.hand_over_soon()
        await self.lifecycle.show(op)


def _changed_since(op: Operation) -> PlanChanged:
    return PlanChanged(
        md(
            "The plan has changed: look again. Nothing was decided. This is the current plan:\n{plan}",
            plan=plan_in_words(op),
        )
    )
