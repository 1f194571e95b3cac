"""Rolls out a merged pull request: syncs the gateway and the endpoint, and runs the smoke tests."""

import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from pydantic import TypeAdapter

from bot.clients.cluster import Cluster
from bot.clients.deployer import Deployer
from bot.clock import Clock
from bot.component import component
from bot.domain import phases
from bot.domain.operations import ChangeOperation, new_operation, plan_of
from bot.domain.outcomes import Removed, RolledOut
from bot.domain.phases import Phase
from bot.domain.plans import ChangePlan
from bot.domain.requests import AddModel, BringUp, SwapModel, operation_id
from bot.engine.lifecycle import Lifecycle
from bot.engine.run import NOTHING, Run, Step
from bot.errors import BotError
from bot.git.repository import Repository
from bot.platform.binding import Binding
from bot.platform.deploying import Applications
from bot.platform.endpoints import Endpoints
from bot.platform.runtime_aliases import GatewayAliases
from bot.platform.smoke_tests import SmokeTests
from bot.platform.staging import Staging
from bot.platform.virtual_keys import VirtualKeys
from bot.settings.config import Config
from bot.state.leases import Leases
from bot.state.operations import Operations
from bot.state.sessions import Sessions
from bot.text.mrkdwn import Mrkdwn, md
from bot.views import code
from bot.views.text import moment
from manifests.contract import ModelEndpoint
from manifests.groups import is_pending_generation
from manifests.platform import Platform

_WAS_UP, _DOWNTIME, _BROUGHT_UP = Step("was up", bool), Step("downtime", timedelta), Step("up", NOTHING)
_STAGING = Step("staging", bool)
_MAYBE_DRIFT = TypeAdapter[Mrkdwn | None](Mrkdwn | None)


class Blocked(Exception):
    """The roll-out is waiting for an external action, described in `by`."""

    def __init__(self, by: Mrkdwn) -> None:
        super().__init__(by)
        self.by = by


@component
class Syncs:
    """Deploys a merged change: syncs the gateway and the endpoint, or waits until the endpoint is removed."""

    leases: Leases
    sessions: Sessions
    deployer: Deployer
    cluster: Cluster
    repository: Repository
    applications: Applications
    binding: Binding
    endpoints: Endpoints
    config: Config
    clock: Clock

    async def gateway(self, run: Run[ChangeOperation], plan: ChangePlan) -> Mrkdwn | None:
        """Sync LiteLLM to the merge commit, and wait for its new pods, because the old ones have the old configuration.

        Returns the remaining differences from git, as mrkdwn.
        """
        gateway, limit = self.config.litellm, self.clock.patience(self.config.argocd.sync_limit)
        application = await self.applications.of_gateway(plan.target)
        if application is None:
            await run.enter(
                phases.SYNC_GATEWAY, f"nothing in {self.deployer.word} deploys LiteLLM, so there is nothing to sync"
            )
            return None
        await self.binding.refuse_if_elsewhere(run.model, plan, application)
        drift = await self._to_commit(run, application.name, plan.target, phases.SYNC_GATEWAY)
        await run.enter(phases.SYNC_GATEWAY, "waiting until its pods are restarted")
        if not await self.cluster.wait_rolled_out(gateway.deployment, namespace=gateway.namespace, timeout=limit):
            await run.enter(
                phases.SYNC_GATEWAY, f"there is no Deployment {gateway.namespace}/{gateway.deployment} to wait for"
            )
        return drift

    async def endpoint(self, run: Run[ChangeOperation], endpoint: ModelEndpoint, plan: ChangePlan) -> Mrkdwn | None:
        """Sync the endpoint's Application to the merge commit. Waits until the ApplicationSet has created it.

        Returns the remaining differences from git, as mrkdwn.
        """
        limit = self.clock.patience(self.config.argocd.sync_limit)
        if not endpoint.application:
            application = await self.applications.of(endpoint, plan.target)
            if application is None:
                await run.enter(phases.SYNC_ENDPOINT, f"nothing in {self.deployer.word} deploys it: nothing to sync")
                return None
            return await self._endpoint_at(run, endpoint, application.name, plan)
        await self._refresh_group(endpoint.group)
        if await self.deployer.get(endpoint.application) is None:
            await self._refuse_if_blocked(run, endpoint)
            await run.enter(phases.SYNC_ENDPOINT, "waiting until its ApplicationSet has created the Application")
            await self.deployer.wait_for(endpoint.application, timeout=limit, until=lambda _: True)
        await set_blocked(run, Mrkdwn())
        return await self._endpoint_at(run, endpoint, endpoint.application, plan)

    async def _endpoint_at(
        self, run: Run[ChangeOperation], endpoint: ModelEndpoint, name: str, plan: ChangePlan
    ) -> Mrkdwn | None:
        """Deploy the merge commit with the endpoint's Application or Kustomization."""
        if current := await self.deployer.get(name):
            await self.binding.refuse_if_elsewhere(run.model, plan, current)
        differs = await self._to_commit(run, name, plan.target, phases.SYNC_ENDPOINT, model=endpoint.name)
        if lease := await self.leases.of(endpoint.name):
            await self.sessions.forget_template(lease)  # the content that is deployed now was approved with this plan
        return differs

    async def _refuse_if_blocked(self, run: Run[ChangeOperation], endpoint: ModelEndpoint) -> None:
        """Raise Blocked while the endpoint's group is off in the generated list, which Stoker must not edit."""
        layout, group = self.config.platform, endpoint.group
        tree = await self.repository.tree(await self.repository.head())
        if not await asyncio.to_thread(is_pending_generation, Platform(tree, layout), group):
            return
        blocked = await run.first_reached("blocked since")
        until, generated = blocked + self.config.approvals.pull_expire_after, code(layout.path(layout.groups_file))
        if self.clock() > until:
            raise BotError(
                md(
                    "The group {group} is still off in {generated}, so Argo CD never created {application}: run the "
                    "generator of that file, merge its output, then bring the endpoint up.",
                    group=code(group),
                    generated=generated,
                    application=code(endpoint.application),
                )
            )
        raise Blocked(
            md(
                "The group {group} is off in {generated}, so Argo CD does not create {application}. Run the "
                "generator of that file and merge its output by {until}: the roll-out then continues automatically.",
                group=code(group),
                generated=generated,
                application=code(endpoint.application),
                until=moment(until),
            )
        )

    async def wait_removed(self, op: ChangeOperation) -> None:
        """Wait until the Application is deleted; its finalizer deletes the Deployment, the Service and the volume."""
        model, limit = op.request.model, self.clock.patience(self.config.argocd.sync_limit)
        before = await self.endpoints.all(plan_of(op).commit)
        for endpoint in (candidate for candidate in before if candidate.name == model and candidate.application):
            await self._refresh_group(endpoint.group)
            await self.deployer.wait_gone(endpoint.application, timeout=limit)
        if await self.cluster.workload(model):
            raise BotError(
                md(
                    "The Application of {model} is deleted, but its Deployment is not, because it had no finalizer. "
                    "Delete it: kubectl -n {namespace} delete deployment {name}.",
                    model=code(model),
                    namespace=self.config.platform.namespace,
                    name=model,
                )
            )

    async def _refresh_group(self, group: str) -> None:
        """Refresh the group's Application, which creates and prunes the Applications of its endpoints, if it exists."""
        name = self.config.argocd.group_application.format(group=group)
        if await self.deployer.get(name):
            await self.deployer.refresh(name)

    async def _to_commit(
        self, run: Run[ChangeOperation], application: str, commit: str, phase: Phase, model: str = ""
    ) -> Mrkdwn | None:
        """Deploy a commit with an Application: refresh an automated Application and wait for it, or sync another Application.

        Returns the remaining differences from git after a successful sync, as mrkdwn.
        """
        synced = await self.applications.bring_to(
            application, commit, actor=run.op.request.actor, on_message=partial(run.enter, phase), model=model
        )
        return md("{application}: {drift}", application=code(application), drift=synced.drift) if synced.drift else None


@component
class RollOut:
    """Rolls out merged pull requests."""

    operations: Operations
    cluster: Cluster
    endpoints: Endpoints
    gateway_aliases: GatewayAliases
    lifecycle: Lifecycle
    smoke_tests: SmokeTests
    staging: Staging
    syncs: Syncs
    virtual_keys: VirtualKeys
    config: Config
    clock: Clock

    async def deploy(self, run: Run[ChangeOperation], plan: ChangePlan) -> None:
        """Deploy the gateway, whose new configuration has the new served name, then the endpoint, and finish the operation."""
        op, model, commit = run.op, run.model, plan.target

        began = await run.first_reached("cut-over")

        async def was_up() -> bool:
            before = await self.cluster.workload(model)
            return bool(before and before.replicas)

        up = await run.once(_WAS_UP, was_up)
        drifts = [await run.step(phases.SYNC_GATEWAY, lambda: self.syncs.gateway(run, plan), _MAYBE_DRIFT)]
        await self.gateway_aliases.remove(op.id)  # the deployed configuration now contains it
        endpoint = next((listed for listed in await self.endpoints.all(commit) if listed.name == model), None)
        if endpoint is None:
            await run.step(phases.REMOVE_ENDPOINT, lambda: self.syncs.wait_removed(op))
            await run.finish(Removed())
            return
        drifts.append(
            await run.step(phases.SYNC_ENDPOINT, lambda: self.syncs.endpoint(run, endpoint, plan), _MAYBE_DRIFT)
        )
        if endpoint.alias not in {listed.alias for listed in await self.endpoints.all(plan.commit)}:
            await self.virtual_keys.offer(op, endpoint.alias)
        then: Literal["answers", "restarted", "being brought up", "at zero"] = "answers"
        downtime, stages = None, False
        if up:
            await self._smoke_test(run, endpoint, commit)
            then, downtime = "restarted", await run.once(_DOWNTIME, partial(self._elapsed, began))
        elif not endpoint.gpus:
            await self._smoke_test(run, endpoint, commit)
        else:
            stages = await run.once(_STAGING, partial(self.staging.stage_after, op, model))
            request, then = op.request, "at zero"
            if isinstance(request, AddModel | SwapModel) and request.up:
                then = "being brought up"
                await run.once(_BROUGHT_UP, partial(self._request_bring_up, op, request))
        await run.finish(
            RolledOut(
                serves=endpoint.hf_id,
                then=then,
                downtime=downtime,
                staging=stages,
                drifts=tuple(drift for drift in drifts if drift),
            )
        )

    async def _elapsed(self, began: datetime) -> timedelta:
        return self.clock() - began

    async def _request_bring_up(self, op: ChangeOperation, change: AddModel | SwapModel) -> None:
        """Request the bring-up that the approval of the change covers, for the same requester."""
        bring_up = BringUp(
            model=change.model,
            actor=change.actor,
            channel=change.channel,
            at=self.clock(),
            hold=change.hold,
            reason="its change is rolled out",
            trial=not change.keep,
            part_of=op.id,
        )
        operation = new_operation(
            operation_id(f"{op.id}:up"), bring_up, self.clock(), deciders=op.deciders, votes=op.approvals
        )
        await self.lifecycle.enqueue(await self.operations.create(operation))

    async def _smoke_test(self, run: Run[ChangeOperation], endpoint: ModelEndpoint, commit: str) -> None:
        """Wait until the new pods are up, and run the smoke tests."""
        model, limit = run.model, self.clock.patience(self.config.gpu.boot_limit)

        async def wait_restarted() -> None:
            await self.cluster.wait_rolled_out(model, timeout=limit, available=not endpoint.gpus)
            if endpoint.gpus:
                waits = self.config.gpu.boot_limit
                await self.cluster.wait_ready(model, timeout=limit, progress=run.record_boot, waits=waits)

        async def run_tests() -> None:
            await self.smoke_tests.run(run, commit)

        await run.step(phases.RESTART_ENDPOINT, wait_restarted)
        await run.step(phases.SMOKE_TESTS, run_tests)


async def set_blocked(run: Run[ChangeOperation], by: Mrkdwn) -> None:
    """Store and show the external action that the operation waits for; an empty `by` removes it."""

    def blocked(op: ChangeOperation) -> ChangeOperation:
        return op if op.blocked == by else op.model_copy(update={"blocked": by})

    await run.operations.update(run.op.id, blocked)
    run.presentation.show(run.op.id)
