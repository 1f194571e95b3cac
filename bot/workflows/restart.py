"""Restart a session that no longer serves requests: a new pod under the same lease, whose end does not change.

It works like a boot: the same phases, diagnosis and smoke tests. If it fails, the session ends like a failed bring-up.
"""

from datetime import timedelta

from bot.clients.cluster import Cluster
from bot.component import component
from bot.domain import phases
from bot.domain.leases import Lease
from bot.domain.operations import BringDownOperation, RestartOperation, Status
from bot.domain.outcomes import NothingRan, ServesAgain, SessionOver
from bot.domain.requests import Restart
from bot.engine.lifecycle import Lifecycle, NotAllowed, require
from bot.engine.run import Run
from bot.errors import BotError
from bot.gpu.billing import Billing
from bot.gpu.holder_prompts import HolderPrompts
from bot.gpu.lease_marks import LeaseMarks
from bot.gpu.starting import Starting
from bot.gpu.stopping import GONE_WITHIN, LEASE, Stopping
from bot.platform.smoke_tests import SmokeTests
from bot.platform.switch import Switch
from bot.policy import may_request, must_notify
from bot.settings.config import Config
from bot.slack.presentation import Presentation
from bot.slack.roles import RoleMembers
from bot.slack.web_api import Slack
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.state.sessions import Sessions
from bot.text.mrkdwn import Mrkdwn, code, md, person
from bot.views import lines


@component
class RestartRequests:
    """Turns a click on *Restart* into a request."""

    operations: Operations
    leases: Leases
    sessions: Sessions
    cluster: Cluster
    roles: RoleMembers
    slack: Slack
    presentation: Presentation
    holder_prompts: HolderPrompts
    lifecycle: Lifecycle
    config: Config

    async def ask(self, op_id: str, actor: str) -> Mrkdwn:
        """Handle *Restart* on the message about a session's problem, and return the answer. The answer to a second click
        refers to the first one.
        """
        lease = await self.leases.of_operation(op_id)
        if lease is None:
            raise NotAllowed(md("That session has already ended; `/gpu status` shows who has the GPU now."))
        require(may_request(actor, await self.roles.people(), self.config))
        health = await self.sessions.health(lease)
        trouble = health.trouble if health else None
        if trouble is None:
            raise NotAllowed(md("{model} is serving, so there is nothing to restart.", model=code(lease.model)))
        for bring_down in await self.operations.open(BringDownOperation, lease.model):
            raise NotAllowed(
                md(
                    "{model} is being brought down, as {actor} requested: {see}.",
                    see=await self.slack.card_of(bring_down),
                    model=code(lease.model),
                    actor=person(bring_down.request.actor),
                )
            )
        await refuse_if_changed(self.sessions, self.cluster, lease)
        request = Restart(
            model=lease.model,
            actor=actor,
            channel=lease.channel(self.config.slack.channel),
            at=self.lifecycle.clock(),
            reason=trouble.reason,
        )
        # With this key there is one operation per problem, for any number of clicks.
        op = await self.lifecycle.request(request, f"restart:{lease.fence}:{int(trouble.since.timestamp())}")
        if op.request.actor != actor or op.status is not Status.REQUESTED:
            raise NotAllowed(
                md(
                    "{model} is already being restarted, as {actor} requested: {see}.",
                    see=await self.slack.card_of(op),
                    model=code(lease.model),
                    actor=person(op.request.actor),
                )
            )
        answer = md("🔄 {actor} restarts {model}.", actor=person(actor), model=code(lease.model))
        await self.holder_prompts.settle(op_id, answer)
        if must_notify(lease.holder, actor):
            text = md("🔄 {actor} restarts {model}, which you hold.", actor=person(actor), model=code(lease.model))
            await self.presentation.post(f"restarted:{op.id}", lease.holder, lines(text))
        return answer


@component
class RestartWorkflow:
    """Restarts a session that no longer serves requests."""

    leases: Leases
    lease_marks: LeaseMarks
    sessions: Sessions
    cluster: Cluster
    switch: Switch
    starting: Starting
    stopping: Stopping
    smoke_tests: SmokeTests
    billing: Billing
    lifecycle: Lifecycle

    async def execute(self, run: Run[RestartOperation]) -> None:
        """Scale to zero, wait until the pod is gone, scale up under the same lease, wait until it serves. Idempotent."""
        op, model = run.op, run.model

        async def find_lease() -> Lease | None:
            return await self.lease_marks.lease_on(model)

        lease = await run.once(LEASE, find_lease)
        if lease is None:
            raise NotAllowed(
                md(
                    "The session of {model} has already ended; `/gpu up {name}` requests a new one.",
                    model=code(model),
                    name=model,
                )
            )
        if op.status is Status.REQUESTED:
            await run.start()
        await self._boot(run, lease)

    async def _boot(self, run: Run[RestartOperation], lease: Lease) -> None:
        model = lease.model

        async def stop() -> None:
            await self.switch.turn(model, 0, lease=lease, fence=lease.fence)  # keep the lease annotation
            await self.cluster.wait_gone(model, timeout=GONE_WITHIN)

        async def start() -> None:
            current = await self.leases.of(model)
            if current is None or current.fence != lease.fence:
                raise BotError(
                    md("The lease of {model} has ended, so the model is not started again.", model=code(model))
                )
            await refuse_if_changed(self.sessions, self.cluster, current)
            await self.switch.turn(model, 1, lease=current, fence=current.fence)

        await run.step(phases.STOP_OLD_POD, stop)
        await run.step(phases.START, start)
        await self.starting.wait_ready(run)
        await run.enter(phases.SMOKE_TESTS)
        await self.smoke_tests.run(run, lease.commit)
        current = await self.leases.of(model) or lease
        if health := await self.sessions.health(current):
            await self.sessions.keep_health(model, health.model_copy(update={"trouble": None}))
        duration = max(timedelta(minutes=1), run.clock() - run.op.request.at)
        await run.finish(ServesAgain(holder=current.holder, ends=current.ends, took=duration))

    async def undo(self, run: Run[RestartOperation]) -> None:
        """End the session of a failed or cancelled restart: bring it down with a receipt, and release its lease."""
        model = run.model

        async def find_lease() -> Lease | None:
            return await self.lease_marks.lease_on(model)

        lease = await run.once(LEASE, find_lease)
        undone: NothingRan | SessionOver = NothingRan()
        if lease:
            machine = await self.billing.record_node(run, model)
            await run.step(phases.UNDO_RESTART, lambda: self.stopping.to_zero(model, lease), undoing=True)
            undone = SessionOver(bill=await self.billing.close_session(lease, op_id=run.op.id, node=machine))
            await self.leases.release(lease)
            await self.lifecycle.hand_over_soon()
        await run.finish_undone(undone)


async def refuse_if_changed(sessions: Sessions, cluster: Cluster, lease: Lease) -> None:
    """Raise NotAllowed if the Deployment is no longer the approved one: a restart would start unapproved content."""
    health = await sessions.health(lease)
    if health is None or not health.template:
        return
    deployed = await cluster.condition(lease.model, health.node)
    if deployed.template in ("", health.template):
        return
    image = md(" (image {was} → {now})", was=code(health.image), now=code(deployed.image))
    raise NotAllowed(
        md(
            "The Deployment of {model} was changed after its approval{image}, so it is not restarted. Bring it down; "
            "`/gpu up {name}` then asks for an approval.",
            model=code(lease.model),
            image=image if health.image != deployed.image else "",
            name=lease.model,
        )
    )
