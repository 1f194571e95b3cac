"""Loads the lease that a request concerns, and checks that it is still the lease in the plan."""

from bot.domain.leases import Lease
from bot.domain.operations import Operation
from bot.domain.plans import ExtendPlan, ReleasePlan
from bot.engine.lifecycle import NotAllowed, PlanMoved
from bot.state.leases import Leases
from bot.text.mrkdwn import md
from bot.views import code


async def held_lease(leases: Leases, op: Operation) -> Lease:
    """Return the lease on the operation's model. Raises NotAllowed if there is none."""
    lease = await leases.of(op.request.model)
    if lease is None:
        raise NotAllowed(md("Nobody holds a lease on {model}; see `/gpu status`.", model=code(op.request.model)))
    return lease


async def planned_lease(leases: Leases, plan: ExtendPlan | ReleasePlan) -> tuple[Lease, Lease]:
    """Return the lease in the plan, and the same lease as it is now. Raises PlanMoved if that session has ended."""
    planned = plan.lease
    lease = await leases.of(planned.model)
    if lease is None or lease.fence != planned.fence:
        raise PlanMoved(
            md("This request's session of {model} has ended, so nothing was done.", model=code(planned.model))
        )
    return planned, lease
