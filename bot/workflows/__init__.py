"""The kinds of operation: one module per kind, or per family of kinds, and the table that the tasks read."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

from bot.component import component
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
from bot.workflows.benchmark import BenchmarkWorkflow
from bot.workflows.bring_down import BringDownWorkflow
from bot.workflows.bring_up import BringUpWorkflow
from bot.workflows.change_model import ChangeModelWorkflow
from bot.workflows.extend_lease import ExtendLeaseWorkflow
from bot.workflows.release_lease import ReleaseLeaseWorkflow
from bot.workflows.restart import RestartWorkflow
from bot.workflows.smoke_test import SmokeTestWorkflow
from bot.workflows.stage_weights import StagingWorkflow
from manifests.frozen import frozen

Op = TypeVar("Op", bound=Operation)
Act = Callable[[Run[Op]], Awaitable[None]]


@frozen
class Workflow(Generic[Op]):
    """The parts of one kind of operation. If a part is killed at any point, it runs again from its first line."""

    execute: Act[Op]
    """Execute the approved request, or a request that needs no approval. CancelRequested leads to `undo`."""
    undo: Act[Op]
    """End the operation after a failure, a cancellation or a denial: roll back."""
    plan: Act[Op] | None = None
    """Check the request and ask for its approval."""
    follow_up: Act[Op] | None = None
    """Work after the end of the operation."""


@component
class Workflows:
    """Every workflow of the bot."""

    bring_up: BringUpWorkflow
    bring_down: BringDownWorkflow
    restart: RestartWorkflow
    extend_lease: ExtendLeaseWorkflow
    release_lease: ReleaseLeaseWorkflow
    change_model: ChangeModelWorkflow
    smoke_test: SmokeTestWorkflow
    benchmark: BenchmarkWorkflow
    stage_weights: StagingWorkflow

    def table(self) -> Mapping[Kind, Workflow[Any]]:
        """The workflow of each kind of operation."""
        up, down, restart = self.bring_up, self.bring_down, self.restart
        extend, release, change = self.extend_lease, self.release_lease, self.change_model
        smoke, bench, stage = self.smoke_test, self.benchmark, self.stage_weights
        change_workflow = Workflow[ChangeOperation](change.execute, change.undo, change.planning.plan)
        return {
            Kind.GPU_UP: Workflow[BringUpOperation](
                up.execution.execute, up.rollback.undo, up.planning.plan, up.end_trial
            ),
            Kind.GPU_DOWN: Workflow[BringDownOperation](down.execute, down.undo),
            Kind.GPU_RESTART: Workflow[RestartOperation](restart.execute, restart.undo),
            Kind.GPU_EXTEND: Workflow[ExtendOperation](extend.execute, extend.undo, extend.plan),
            Kind.GPU_RELEASE: Workflow[ReleaseOperation](release.execute, release.undo, release.plan),
            Kind.MODEL_ADD: change_workflow,
            Kind.MODEL_SWAP: change_workflow,
            Kind.MODEL_TUNE: change_workflow,
            Kind.MODEL_REMOVE: change_workflow,
            Kind.MODEL_REVERT: change_workflow,
            Kind.MODEL_SMOKE: Workflow[SmokeTestOperation](smoke.execute, smoke.undo),
            Kind.MODEL_BENCH: Workflow[BenchmarkOperation](bench.execute, bench.undo),
            Kind.MODEL_STAGE: Workflow[StageOperation](stage.execute, stage.undo),
        }
