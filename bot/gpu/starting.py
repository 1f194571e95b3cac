"""Starts a model on the GPU: claims its lease, syncs its files, scales it to 1 and waits until it is ready."""

from datetime import datetime

from bot.clients.cluster import Cluster
from bot.clients.deployer import ignore_message
from bot.component import component
from bot.domain import phases
from bot.domain.leases import Lease
from bot.domain.operations import BringUpOperation
from bot.domain.plans import BringUpPlan
from bot.engine.lifecycle import Lifecycle
from bot.engine.run import Run
from bot.gpu.availability import GpuAvailability
from bot.gpu.bring_up_plan import BringUpPlans
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.replacement import MakingRoom
from bot.platform.deploying import Applications
from bot.platform.smoke_tests import READY
from bot.platform.switch import Switch
from bot.settings.config import Config
from bot.state.leases import Leases


@component
class Starting:
    """Starts models on the GPU."""

    leases: Leases
    lease_marks: LeaseMarks
    cluster: Cluster
    availability: GpuAvailability
    plans: BringUpPlans
    making_room: MakingRoom
    applications: Applications
    switch: Switch
    lifecycle: Lifecycle
    config: Config

    async def claim(self, op: BringUpOperation, plan: BringUpPlan) -> Lease:
        """Claim a lease for the operation, or return the lease that it already has. A lease that Redis has lost is
        restored from the Deployment.
        """
        model = op.request.model
        workload = await self.cluster.workload(model)
        marked = await self.lease_marks.restorable(workload.lease, model) if workload and workload.replicas else None
        if marked and marked.op == op.id:
            await self.leases.restore(marked)
        lease = Lease(
            model=model,
            op=op.id,
            holder=op.request.actor,
            reason=op.request.reason,
            fence=0,
            commit=plan.commit,
            hold=self.plans.hold(op.request),
            claimed=self.lifecycle.clock(),
            message=op.message,
        )
        floor = await self.cluster.highest_fence()
        if plan.lease:
            return await self.leases.replace(
                plan.lease, lease.model_copy(update={"displaced": plan.lease}), floor=floor
            )
        return await self.leases.claim(lease, floor=floor)

    async def start(self, run: Run[BringUpOperation], plan: BringUpPlan, lease: Lease) -> Lease:
        """Bring down the replaced model, sync, scale to 1, and wait until the model is ready. Returns the lease, whose
        time begins now.
        """
        model = run.model

        async def sync() -> None:
            await self.plans.refuse_if_changed(model, plan)
            if not await self.plans.is_deployed(model, plan):
                await self.applications.bring_to(
                    plan.applications[0],
                    plan.commit,
                    actor=run.op.request.actor,
                    on_message=ignore_message,
                    model=model,
                )

        async def scale() -> None:
            await self.availability.refuse_if_taken(model)
            await self.plans.refuse_if_changed(model, plan)
            await self.switch.turn(model, 1, lease=lease, fence=lease.fence)
            # Check again: if Redis lost a claim, two operations may both have found the GPU free.
            await self.availability.refuse_if_taken(model)

        if lease.displaced:
            await self.making_room.make_room(run, lease, lease.displaced)
        await run.step(phases.SYNC, sync)
        await run.step(phases.START, scale)
        ready = await self.wait_ready(run)
        return await self.lease_marks.renew(lease, lambda current: current.started(ready)) or lease

    async def wait_ready(self, run: Run) -> datetime:
        """Follow the pod until the model serves, and show its phases on the card. Raises after the boot limit."""
        limit = self.config.gpu.boot_limit

        async def wait() -> datetime:
            time_left = await run.first_reached("boot began") + limit - run.clock()
            await self.cluster.wait_ready(
                run.model,
                timeout=max(1.0, run.clock.patience(time_left)),
                progress=run.record_boot,
                limit=run.clock.patience(limit),
                waits=limit,
            )
            return run.clock()

        return await run.cancellable(run.once(READY, wait))

    async def give_back(self, run: Run[BringUpOperation], lease: Lease) -> bool:
        """Release a lease under which nothing has started yet. Returns False if there is something to roll back."""
        workload = await self.cluster.workload(lease.model)
        if lease.displaced or (workload and workload.replicas):
            return False
        await run.forget(phases.SYNC)
        await self.leases.release(lease)
        await self.lifecycle.hand_over_soon()
        return True
