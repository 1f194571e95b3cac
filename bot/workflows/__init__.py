"""What each kind of operation does: one module per kind, or per family of kinds, and the table that the tasks read."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from bot.domain.kinds import Kind
from bot.domain.operations import (
    BenchmarkOperation,
    BringDownOperation,
    BringUpOperation,
    ChangeOperation,
    ExtendOperation,
    Operation,
    ReleaseOperation,
    RestartOperation,
    SmokeTestOperation,
    StageOperation,
)
from bot.engine.run import Run
from bot.services import Services
from bot.wiring import wired
from bot.workflows.benchmark import BenchmarkWorkflow
from bot.workflows.bring_down import BringDownWorkflow
from bot.workflows.bring_up import BringUpWorkflow
from bot.workflows.change_model import ChangeModelWorkflow
from bot.workflows.extend_lease import ExtendLeaseWorkflow
from bot.workflows.release_lease import ReleaseLeaseWorkflow
from bot.workflows.restart import RestartWorkflow
from bot.workflows.smoke_test import SmokeTestWorkflow
from bot.workflows.stage_weights import StagingWorkflow

Op = TypeVar("Op", bound=Operation)
Act = Callable[[Run[Op]], Awaitable[None]]


@dataclass(frozen=True)
class Workflow(Generic[Op]):
    """What a kind of operation does. Each of these may be killed anywhere, and is then run again from its first line."""

    execute: Act[Op]
    """Carry out what was approved, or asked for where no approval is needed. CancelAsked leads to `undo`."""
    undo: Act[Op]
    """End the operation after a failure, a cancellation or a denial: take back what it did."""
    plan: Act[Op] | None = None
    """Check the request and ask for its approval."""
    follow_up: Act[Op] | None = None
    """What follows once it has ended."""


@dataclass(frozen=True)
class Workflows:
    """What people can ask for beside the operations themselves, and what the tasks run."""

    bring_up: BringUpWorkflow
    restart: RestartWorkflow
    smoke_test: SmokeTestWorkflow
    benchmark: BenchmarkWorkflow
    stage_weights: StagingWorkflow
    of_kind: Mapping[Kind, Workflow[Any]]


def wire_workflows(svc: Services) -> Workflows:
    parts = wired(svc)
    bring_up = BringUpWorkflow(
        operations=svc.operations,
        slack=svc.slack,
        leases=svc.leases,
        deployer=svc.deployer,
        cluster=svc.cluster,
        repository=svc.repository,
        roles=svc.roles,
        endpoints=parts.endpoints,
        applications=parts.applications,
        binding=parts.binding,
        switch=parts.switch,
        staging=parts.staging,
        smoke_tests=parts.smoke_tests,
        boot_comparison=parts.boot_comparison,
        lease_marks=parts.lease_marks,
        stopping=parts.stopping,
        billing=parts.billing,
        availability=parts.availability,
        queue=parts.queue,
        replacement=parts.replacement,
        decisions=parts.decisions,
        lifecycle=parts.lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    bring_down = BringDownWorkflow(
        operations=svc.operations,
        slack=svc.slack,
        leases=svc.leases,
        presentation=svc.presentation,
        cluster=svc.cluster,
        repository=svc.repository,
        endpoints=parts.endpoints,
        sampler=parts.sampler,
        lease_marks=parts.lease_marks,
        stopping=parts.stopping,
        billing=parts.billing,
        lifecycle=parts.lifecycle,
    )
    restart = RestartWorkflow(
        operations=svc.operations,
        slack=svc.slack,
        leases=svc.leases,
        sessions=svc.sessions,
        presentation=svc.presentation,
        cluster=svc.cluster,
        roles=svc.roles,
        switch=parts.switch,
        smoke_tests=parts.smoke_tests,
        holder_prompts=parts.holder_prompts,
        lease_marks=parts.lease_marks,
        stopping=parts.stopping,
        billing=parts.billing,
        lifecycle=parts.lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    extend_lease = ExtendLeaseWorkflow(
        leases=svc.leases,
        roles=svc.roles,
        lease_marks=parts.lease_marks,
        decisions=parts.decisions,
        lifecycle=parts.lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    release_lease = ReleaseLeaseWorkflow(
        operations=svc.operations,
        leases=svc.leases,
        presentation=svc.presentation,
        roles=svc.roles,
        stopping=parts.stopping,
        decisions=parts.decisions,
        lifecycle=parts.lifecycle,
        bringing_down=bring_down,
    )
    change_model = ChangeModelWorkflow(
        operations=svc.operations,
        presentation=svc.presentation,
        github=svc.github,
        repository=svc.repository,
        binding=parts.binding,
        staging=parts.staging,
        staged_swap=parts.staged_swap,
        gateway_aliases=parts.gateway_aliases,
        pull_request_plans=parts.pull_request_plans,
        change_checks=parts.change_checks,
        pull_requests=parts.pull_requests,
        roll_out=parts.roll_out,
        decisions=parts.decisions,
        lifecycle=parts.lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    smoke_test = SmokeTestWorkflow(
        cluster=svc.cluster,
        repository=svc.repository,
        roles=svc.roles,
        endpoints=parts.endpoints,
        smoke_tests=parts.smoke_tests,
        config=svc.config,
    )
    benchmark = BenchmarkWorkflow(
        docket=svc.docket,
        operations=svc.operations,
        steps=svc.steps,
        audit=svc.audit,
        leases=svc.leases,
        presentation=svc.presentation,
        cluster=svc.cluster,
        jobs=svc.jobs,
        vllm=svc.vllm,
        github=svc.github,
        repository=svc.repository,
        slack=svc.slack,
        roles=svc.roles,
        endpoints=parts.endpoints,
        lifecycle=parts.lifecycle,
        config=svc.config,
        clock=svc.clock,
    )
    stage_weights = StagingWorkflow(
        operations=svc.operations,
        slack=svc.slack,
        stager=svc.stager,
        repository=svc.repository,
        roles=svc.roles,
        endpoints=parts.endpoints,
        staging=parts.staging,
        config=svc.config,
    )
    change = Workflow[ChangeOperation](change_model.execute, change_model.undo, change_model.plan)
    return Workflows(
        bring_up=bring_up,
        restart=restart,
        smoke_test=smoke_test,
        benchmark=benchmark,
        stage_weights=stage_weights,
        of_kind={
            Kind.GPU_UP: Workflow[BringUpOperation](bring_up.execute, bring_up.undo, bring_up.plan, bring_up.end_trial),
            Kind.GPU_DOWN: Workflow[BringDownOperation](bring_down.execute, bring_down.undo),
            Kind.GPU_RESTART: Workflow[RestartOperation](restart.execute, restart.undo),
            Kind.GPU_EXTEND: Workflow[ExtendOperation](extend_lease.execute, extend_lease.undo, extend_lease.plan),
            Kind.GPU_RELEASE: Workflow[ReleaseOperation](release_lease.execute, release_lease.undo, release_lease.plan),
            Kind.MODEL_ADD: change,
            Kind.MODEL_SWAP: change,
            Kind.MODEL_TUNE: change,
            Kind.MODEL_REMOVE: change,
            Kind.MODEL_REVERT: change,
            Kind.MODEL_SMOKE: Workflow[SmokeTestOperation](smoke_test.execute, smoke_test.undo),
            Kind.MODEL_BENCH: Workflow[BenchmarkOperation](benchmark.execute, benchmark.undo),
            Kind.MODEL_STAGE: Workflow[StageOperation](stage_weights.execute, stage_weights.undo),
        },
    )


@lru_cache(maxsize=4)
def workflows(svc: Services) -> Workflows:
    return wire_workflows(svc)
