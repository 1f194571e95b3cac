"""The lease that a request is about: held now, and the same as in its plan."""

from bot.domain.leases import Lease
from bot.domain.operations import Operation
from bot.domain.plans import ExtendPlan, ReleasePlan
from bot.engine.lifecycle import NotAllowed, PlanMoved
from bot.mrkdwn import md
from bot.state.leases import Leases
from bot.views import code


async def held_lease(leases: Leases, op: Operation) -> Lease:
    lease = await leases.of(op.request.model)
    if lease is None:
        raise NotAllowed(md("Nobody holds a lease on {model}; see `/gpu status`.", model=code(op.request.model)))
    return lease


async def planned_lease(leases: Leases, plan: ExtendPlan | ReleasePlan) -> tuple[Lease, Lease]:
    """The plan's lease, as it was and as it is now; raises PlanMoved if the GPU has changed hands since."""
    planned = plan.lease
    lease = await leases.of(planned.model)
    if lease is None or lease.fence != planned.fence:
        raise PlanMoved(
            md("The session of {model} of this request has ended, so nothing was done.", model=code(planned.model))
        )
    return planned, lease
