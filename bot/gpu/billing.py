"""The cost of sessions: the running total, the receipt at the end, the bill when the node is gone, and the report."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from docket import Docket
from pydantic import TypeAdapter

from bot.analysis.report import weekly
from bot.clients.cluster import Cluster
from bot.clients.staging import Stager
from bot.clock import Clock
from bot.component import component
from bot.domain.leases import Lease
from bot.domain.operations import Operation
from bot.domain.outcomes import with_bill
from bot.domain.sessions import Bill, Health, Node, cost
from bot.engine.lifecycle import Lifecycle
from bot.engine.run import Run, Step
from bot.engine.task_refs import SETTLE_BILL
from bot.errors import BotError, Unavailable
from bot.gpu import session_cards
from bot.gpu.holder_prompts import HolderPrompts
from bot.settings.config import Config, Gpu
from bot.slack.presentation import Presentation
from bot.slack.web_api import Slack
from bot.state.bills import Bills
from bot.state.endpoint_history import EndpointHistory
from bot.state.leases import Leases
from bot.state.operations import OperationNotFound, Operations
from bot.state.sessions import Sessions
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import View, code, lines, money
from bot.views.news import was_up
from bot.views.receipt import receipt
from bot.views.usage import usage

_CHECKS_PER_DRAIN = 10
"""Number of node checks per expected drain period."""
_MAYBE_NODE = TypeAdapter[Node | None](Node | None)


def running_total(
    gpu: Gpu, lease: Lease, node: Node | None, now: datetime, health: Health | None = None
) -> tuple[float, bool]:
    """Return a session's cost so far in US dollars, and whether it is an estimate because its node cannot be read.

    `health` contains the nodes that were removed: time without a node is not billed.
    """
    earlier_nodes = health.spans if health else ()
    price = gpu.price(node.machine if node else "")
    spent = cost(sum((span.length for span in earlier_nodes), timedelta()), price)
    if earlier_nodes and node is None:
        return spent, False
    began = max(lease.claimed, node.since) if node else lease.claimed
    return spent + cost(now - began, price), node is None


@component
class Billing:
    """The bills of sessions."""

    docket: Docket
    operations: Operations
    sessions: Sessions
    bills: Bills
    endpoint_history: EndpointHistory
    presentation: Presentation
    cluster: Cluster
    stager: Stager
    holder_prompts: HolderPrompts
    config: Config
    clock: Clock

    async def record_node(self, run: Run, model: str, *, session: str = "") -> Node | None:
        """Record the node of a model in the operation that ends its session, while the cluster still shows it.

        `session` distinguishes the sessions of one model that the same operation ends.
        """

        async def find_node() -> Node | None:
            return await self.cluster.node_of(model)

        return await run.once(Step(f"node of {model}{session}", _MAYBE_NODE), find_node)

    async def close_session(self, lease: Lease, *, op_id: str = "", node: Node | None = None) -> Bill:
        """Store the bill of a session whose model is down, and schedule the watch of its node.

        Idempotent: the first bill of a lease is kept. `node` is the node of the model; without it, the node that the
        idle watch recorded is used. `op_id` is the operation whose card shows the final bill.
        """
        bill = await self.bills.of(lease.fence)
        if bill is None:
            session = await self.sessions.of(lease)
            health = await self.sessions.health(lease)
            if health and (health.node or health.spans):
                health = health.billing(node or health.node, lease.claimed, self.clock())
                node = health.node
            else:
                node = node or (session.node if session else None)
            bill = Bill(
                fence=lease.fence,
                op=op_id,
                model=lease.model,
                holder=lease.holder,
                reason=lease.reason,
                approved_by=await self._approvers(lease),
                claimed=lease.claimed,
                ready=lease.ready,
                down=self.clock(),
                node=node,
                earlier=health.spans if health else (),
                drain=self.config.gpu.drain,
                price_per_hour=self.config.gpu.price(node.machine if node else ""),
                idle_seconds=session.idle_seconds if session else 0,
                requests=session.requests if session else 0,
                tokens=session.tokens if session else 0,
                staged_seconds=await self._staged_before(lease),
            )
            await self.bills.keep(bill)
        amount = f"about {money(bill.usd)}" if bill.estimated else money(bill.usd)
        cost_text = md("It cost {amount}.", amount=amount)
        await self.holder_prompts.close(lease, was_up(bill.model, bill.ready, bill.down, cost_text))
        await session_cards.end(self.operations, self.presentation, lease, bill.down, receipt=op_id)
        if bill.gone is None and bill.node:
            await SETTLE_BILL.add(self.docket, key=f"bill:{bill.fence}")(bill.fence)
        return bill

    async def _staged_before(self, lease: Lease) -> float:
        """Return the seconds that staging saved in this session. A download counts only for the first session that
        used it.
        """
        staged = await self.endpoint_history.staged(lease.model)
        if staged is None or staged.fence not in (0, lease.fence):
            return 0
        try:
            served, _ = await self.stager.weights(lease.model)
        except (BotError, Unavailable):
            return 0  # the endpoint or its volume was changed, or the cluster does not answer
        if served.hf_id != staged.hf_id:  # staged for a swap that was not merged
            return 0
        await self.endpoint_history.keep_staged(lease.model, staged.model_copy(update={"fence": lease.fence}))
        return staged.seconds

    async def _approvers(self, lease: Lease) -> tuple[str, ...]:
        try:
            return tuple(vote.by for vote in (await self.operations.load(lease.op)).approvals)
        except OperationNotFound:  # the lease was adopted, or Redis no longer has its operation
            return ()


@component
class BillSettlement:
    """Corrects the bill of a session after its node is gone."""

    operations: Operations
    leases: Leases
    bills: Bills
    presentation: Presentation
    cluster: Cluster
    lifecycle: Lifecycle
    config: Config
    clock: Clock

    async def settle_bill(self, fence: int) -> None:
        """Watch the node of a closed session until it is gone, and correct the cost on the receipt. Idempotent."""
        bill = await self.bills.of(fence)
        if bill is None or bill.node is None:
            return
        gone_at = bill.gone
        while gone_at is None and (now := self.clock()) < bill.watched_until:
            seconds = self.clock.real(min(bill.drain / _CHECKS_PER_DRAIN, bill.watched_until - now)).total_seconds()
            is_gone = await self.cluster.wait_node_gone(bill.node.name, timeout=max(1.0, seconds))
            gone_at = await self._taken_over_at(bill) or (self.clock() if is_gone else None)
        if gone_at is None:
            return
        estimated, bill = bill.model_copy(update={"gone": None}), bill.model_copy(update={"gone": gone_at})
        await self.bills.keep(bill)
        if not bill.op:
            return

        def with_final_bill(op: Operation) -> Operation:
            if op.result:
                return op.model_copy(update={"result": with_bill(op.result, bill)})
            # An earlier version of Stoker stored the receipt as text.
            return op.model_copy(update={"outcome": op.outcome.replace(receipt(estimated), receipt(bill))})

        op = await self.operations.update(bill.op, with_final_bill)
        await self.lifecycle.show(op)
        if op.request.model != bill.model:
            view = replaced_session_view(bill.model, op.request.model, bill)
            await self.presentation.revise(replaced_session_key(bill), view)

    async def _taken_over_at(self, bill: Bill) -> datetime | None:
        """Return when the next session took over the draining node; later cost is billed to that session."""
        # With one slot, a replacement claims its lease before this session is down, so search from the claim.
        since = bill.claimed if self.config.gpu.slots == 1 else bill.down
        later = [(past.claimed, past.fence, past.node) for past in await self.bills.since(since)]
        later += [
            (lease.claimed, lease.fence, await self.cluster.node_of(lease.model))
            for lease in await self.leases.held()
            if lease.claimed >= since
        ]
        name = bill.node.name if bill.node else ""
        return min((at for at, fence, node in later if fence > bill.fence and node and node.name == name), default=None)


@component
class UsageReport:
    """`/gpu report`: the use of the GPU, week by week."""

    bills: Bills
    slack: Slack
    clock: Clock

    async def post(self, channel: str, weeks: int = 8) -> Mrkdwn | None:
        """Post charts of the last weeks with their totals; return a message instead if there is nothing to draw."""
        now = self.clock()
        bills = await self.bills.since(now - timedelta(weeks=weeks))
        drawn_weeks = weekly(bills, now, weeks)
        if not any(week.hours for week in drawn_weeks):
            return md("No session on the GPU has ended in the last weeks, so there is nothing to report yet.")
        view = usage(drawn_weeks, len(bills), sum(bill.estimated for bill in bills))
        await self.slack.post(f"usage:{now.isoformat()}", channel, view)
        return None


def draining(bills: Iterable[Bill], now: datetime) -> datetime | None:
    """Return the estimated end of billing for draining nodes (may be in the past); None if no node is draining."""
    ends = [bill.ends for bill in bills if bill.node and bill.gone is None and bill.watched_until > now]
    return max(ends, default=None)


def replaced_session_key(session: Lease | Bill) -> str:
    """Return the key of the receipt in the thread of a session that was replaced."""
    return f"receipt:{session.fence}"


def replaced_session_view(model: str, by: str, bill: Bill) -> View:
    """Return the receipt of a session of `model` that was replaced by the model `by`."""
    return lines(
        md("{model} is down, replaced by {by}.\n{receipt}", model=code(model), by=code(by), receipt=receipt(bill))
    )
