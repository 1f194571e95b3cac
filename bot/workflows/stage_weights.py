"""Stage the weights of an endpoint on its volume, without the GPU, on request."""

from bot.clients.staging import CannotStage, Stager, Weights
from bot.component import component
from bot.domain.operations import Operation, StageOperation, Status
from bot.domain.outcomes import DownloadKept, WeightsStaged
from bot.domain.plans import JobPlan
from bot.engine.lifecycle import NotAllowed, require
from bot.engine.run import Run
from bot.git.repository import Repository
from bot.platform.endpoints import Endpoints
from bot.platform.staging import Staging
from bot.policy import may_request
from bot.settings.config import Config
from bot.slack.roles import RoleMembers
from bot.slack.web_api import Slack
from bot.state.operations import Operations
from bot.text.mrkdwn import md, person
from bot.views import code, escape


@component
class StagingWorkflow:
    """Stages the weights of an endpoint."""

    operations: Operations
    slack: Slack
    stager: Stager
    repository: Repository
    roles: RoleMembers
    endpoints: Endpoints
    staging: Staging
    config: Config

    async def refuse_unstageable(self, actor: str, model: str) -> Weights:
        """Return the weights for `/model stage`. Raises NotAllowed or CannotStage if they cannot be staged now."""
        require(may_request(actor, await self.roles.people(), self.config))
        if not self.config.staging.enabled:
            raise NotAllowed(
                md(
                    "Staging is off: set `staging.mode` to `on` or `auto`, in the file named by STOKER_CONFIG and in "
                    "the chart's values, which then grant the rights that it needs."
                )
            )
        await self.endpoints.require(await self.repository.head(), model)
        try:
            weights, _ = await self.stager.weights(model)
            if staging := await self.staging.under_way(model):
                raise await self._already_staging(staging)
            await self.stager.volumes(model).place(weights.claim, weights.deployment, self.config.staging)
        except CannotStage as error:
            raise CannotStage(escape(error.message)) from error
        return weights

    async def execute(self, run: Run[StageOperation]) -> None:
        """Execute a staging request. Idempotent."""
        op, model = run.op, run.model
        if op.status is Status.REQUESTED:
            await self._begin(run)
        try:
            weights, _ = await self.stager.weights(model)
            staged = await self.staging.fill(run, weights)
        except CannotStage as error:
            raise CannotStage(escape(error.message)) from error
        await run.finish(WeightsStaged(hf_id=staged.hf_id, bytes=staged.bytes))

    async def _begin(self, run: Run[StageOperation]) -> None:
        op, model = run.op, run.model
        require(may_request(op.request.actor, await self.roles.people(), self.config))
        for staging in await self.operations.open(StageOperation, model):
            if staging.id != op.id and (staging.status is Status.RUNNING or staging.was_requested_before(op)):
                raise await self._already_staging(staging)
        try:
            weights, _ = await self.stager.weights(model)
        except CannotStage as error:
            raise CannotStage(escape(error.message)) from error
        plan = JobPlan(
            commit=await self.repository.head(),
            rows=(("Weights", weights.hf_id), ("Volume", weights.claim), ("Cost", "no GPU is used")),
        )
        await run.start(plan=plan)

    async def _already_staging(self, staging: Operation) -> NotAllowed:
        return NotAllowed(
            md(
                "The weights of {model} are already being staged, as {actor} requested: {see}.",
                see=await self.slack.card_of(staging),
                model=code(staging.request.model),
                actor=person(staging.request.actor),
            )
        )

    async def undo(self, run: Run[StageOperation]) -> None:
        """Delete the Job, and report how it ended. Downloaded files stay."""
        await self.staging.delete_job(run.op)
        await run.finish_undone(DownloadKept())
