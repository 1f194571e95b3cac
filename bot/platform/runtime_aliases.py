"""Runtime aliases: `/model add … now` registers an alias in LiteLLM until the pull request that adds it is merged.

The alias points to an engine that already serves the model. The operation is recorded before the alias is registered,
and the alias contains the operation's id, so that it is removed after a merge, a refusal or a crash.
"""

import structlog

from bot.clients.cluster import Cluster
from bot.clients.litellm import LiteLLM, Registration
from bot.clients.workload import Workload
from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.operations import ChangeOperation
from bot.domain.requests import AddModel
from bot.engine.lifecycle import NotAllowed, require
from bot.errors import BotError, Unavailable
from bot.policy import may_register
from bot.slack.roles import RoleMembers
from bot.state.aliases import RuntimeAliases
from bot.state.audit import AuditLog
from bot.state.operations import OperationNotFound, Operations
from bot.text.mrkdwn import code, md
from manifests.change import Change
from manifests.contract import litellm_mode

log = structlog.get_logger(__name__)


@component
class GatewayAliases:
    """The aliases that exist in LiteLLM until their pull requests are merged."""

    operations: Operations
    audit: AuditLog
    aliases: RuntimeAliases
    cluster: Cluster
    litellm: LiteLLM
    roles: RoleMembers
    clock: Clock

    async def register(self, op: ChangeOperation, change: Change) -> None:
        """Register the alias that a change adds; raises NotAllowed if no engine serves its model. Idempotent."""
        endpoint = change.endpoint
        request = op.request
        if not isinstance(request, AddModel) or not request.now or endpoint is None:
            return
        require(may_register(op.request.actor, await self.roles.people()))
        engine = await self._engine(request.hf_id)
        if await self._is_taken(op, endpoint.alias):
            message = md(
                "LiteLLM already has the alias {alias}: choose another name, or leave out `now`.",
                alias=code(endpoint.alias),
            )
            raise NotAllowed(message)
        mode = litellm_mode(endpoint)
        await self.aliases.note(op.id)
        await self.litellm.register(
            Registration(
                alias=endpoint.alias,
                model=f"{'hosted_vllm' if mode == 'rerank' else 'openai'}/{engine.served_name}",
                api_base=f"http://{engine.service}.{engine.namespace}.svc.cluster.local:{engine.port}/v1",
                api_key=endpoint.upstream_key,
                price_in=_number(endpoint.price_in),
                price_out=_number(endpoint.price_out),
                operation=op.id,
                mode=mode,
            )
        )
        await self.audit.note_decision(
            op, op.request.actor, AuditEvent.ALIAS_REGISTERED, f"{endpoint.alias} on {engine.name}", self.clock()
        )

    async def remove(self, op_id: str) -> None:
        """Remove the models that an operation registered. If LiteLLM fails to remove one now, `tidy` tries again
        after the end of the operation.
        """
        if op_id not in await self.aliases.all():
            return
        try:
            await self.litellm.unregister(op_id)
        except (BotError, Unavailable) as error:
            log.warning("alias not removed", op=op_id, error=str(error))
        else:
            await self.aliases.forget(op_id)

    async def tidy(self) -> None:
        """Remove the aliases of operations that have ended."""
        for op_id in await self.aliases.all():
            if not await self._is_needed(op_id):
                await self.remove(op_id)

    async def strangers(self, in_git: set[str]) -> tuple[str, ...]:
        """Return the runtime aliases that are not in git and do not belong to an open operation."""
        open_ids = {op_id for op_id in await self.aliases.all() if await self._is_needed(op_id)}
        models = await self.litellm.runtime_models()
        return tuple(
            sorted({model.alias for model in models if model.alias not in in_git and model.operation not in open_ids})
        )

    async def _is_needed(self, op_id: str) -> bool:
        try:
            return not (await self.operations.load(op_id)).status.final
        except OperationNotFound:
            return False

    async def _engine(self, hf_id: str) -> Workload:
        """Return an engine in the cluster that serves the model, preferably a ready one; raises NotAllowed."""
        serving = [workload for workload in (await self.cluster.workloads()).values() if workload.model == hf_id]
        if not serving:
            raise NotAllowed(
                md(
                    "Nothing in the cluster serves {model} yet, so an alias for it would not work. Leave out `now`: the roll-out "
                    "adds the alias.",
                    model=code(hf_id),
                )
            )
        return max(serving, key=lambda workload: workload.ready_replicas)

    async def _is_taken(self, op: ChangeOperation, alias: str) -> bool:
        own_aliases = {model.alias for model in await self.litellm.runtime_models() if model.operation == op.id}
        return alias not in own_aliases and alias in await self.litellm.aliases()


def _number(price: str) -> float | None:
    try:
        return float(price)
    except ValueError:
        return None
