"""Smoke-test a running endpoint."""

from bot.clients.cluster import Cluster
from bot.component import component
from bot.domain import phases
from bot.domain.operations import SmokeTestOperation, Status
from bot.domain.outcomes import Failed, SmokeTested
from bot.engine.lifecycle import NotAllowed, require
from bot.engine.run import Run
from bot.git.repository import Repository
from bot.platform.endpoints import Endpoints
from bot.platform.smoke_tests import SmokeTests
from bot.policy import may_request
from bot.settings.config import Config
from bot.slack.roles import RoleMembers
from bot.text.mrkdwn import md
from bot.views import code


@component
class SmokeTestWorkflow:
    """Smoke-tests an endpoint that runs."""

    cluster: Cluster
    repository: Repository
    roles: RoleMembers
    endpoints: Endpoints
    smoke_tests: SmokeTests
    config: Config

    async def refuse_untestable(self, model: str) -> None:
        """Refuse to test a model that is not running."""
        await self.endpoints.require(await self.repository.head(), model)
        workload = await self.cluster.workload(model)
        if workload is None or not workload.ready_replicas:
            state = "is booting: it is tested when it is ready" if workload and workload.replicas else "is down"
            raise NotAllowed(
                md(
                    "{model} {state}, so there is nothing to test. `/gpu up {name}` brings it up and tests it.",
                    model=code(model),
                    state=state,
                    name=model,
                )
            )

    async def execute(self, run: Run[SmokeTestOperation]) -> None:
        """Smoke-test a running endpoint on request. Idempotent."""
        op, model = run.op, run.model
        if op.status is Status.REQUESTED:
            require(may_request(op.request.actor, await self.roles.people(), self.config))
            await self.refuse_untestable(model)
            await run.start()

        async def test() -> None:
            await self.smoke_tests.run(run, await self.repository.head())

        await run.step(phases.SMOKE_TESTS, test)
        await run.finish(SmokeTested())

    async def undo(self, run: Run[SmokeTestOperation]) -> None:
        """End the operation as failed; there is nothing to roll back."""
        await run.finish(Failed(reason=run.op.failure))
