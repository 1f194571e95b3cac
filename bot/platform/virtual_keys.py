"""Lists the virtual keys that cannot call a new alias yet, and grants access."""

import structlog

from bot.clients.litellm import LiteLLM, TenantKey
from bot.clock import Clock
from bot.component import component
from bot.domain.events import AuditEvent
from bot.domain.operations import Operation
from bot.engine.lifecycle import NotAllowed, require
from bot.errors import BotError, Unavailable
from bot.git.repository import Repository
from bot.platform.endpoints import Endpoints
from bot.policy import may_let_in
from bot.slack.presentation import Presentation
from bot.slack.roles import RoleMembers
from bot.state.audit import AuditLog
from bot.state.operations import Operations
from bot.text.mrkdwn import Mrkdwn, md, person
from bot.views import code, lines
from bot.views.rollout import Tenant, keys_offer

log = structlog.get_logger(__name__)


@component
class VirtualKeys:
    """The virtual keys of tenants that cannot call a new alias yet."""

    operations: Operations
    audit: AuditLog
    presentation: Presentation
    litellm: LiteLLM
    repository: Repository
    roles: RoleMembers
    endpoints: Endpoints
    clock: Clock

    async def offer(self, op: Operation, alias: str) -> None:
        """Post the keys that cannot call the alias yet in the thread of the card; does nothing if there are none."""
        try:
            keys = await self.litellm.tenant_keys()
        except (BotError, Unavailable) as error:
            log.info("virtual keys not listed", op=op.id, model=op.request.model, error=str(error))
            return
        outside = tuple(_tenant(key) for key in keys if not key.reaches(alias))
        if outside:
            await self.presentation.post(
                f"{op.id}:keys", op.request.channel, keys_offer(op.id, alias, outside), card=op.id
            )

    async def outsiders(self, op_id: str, actor: str) -> tuple[str, tuple[Tenant, ...]]:
        """Return the alias that an operation added, and the keys that cannot call it yet."""
        _, alias = await self._authorise(op_id, actor)
        keys = tuple(_tenant(key) for key in await self.litellm.tenant_keys() if not key.reaches(alias))
        if not keys:
            raise NotAllowed(md("Every virtual key can already call {alias}.", alias=code(alias)))
        return alias, keys

    async def let_in(self, op_id: str, hashes: frozenset[str], actor: str) -> Mrkdwn:
        """Grant the chosen keys access to the alias, and return the message about it. Idempotent."""
        op, alias = await self._authorise(op_id, actor)
        chosen = [key for key in await self.litellm.tenant_keys() if key.hash in hashes]
        for key in chosen:
            await self.litellm.grant(key, alias)
            await self.audit.note_decision(
                op, actor, AuditEvent.KEY_LET_IN, f"{key.name} may call {alias}", self.clock()
            )
        names = md(", ").join(code(key.name) for key in chosen) or "no key"
        answer = md(
            "🔑 {names} may call {alias} now: {actor} granted access.",
            names=names,
            alias=code(alias),
            actor=person(actor),
        )
        log.info(
            "access granted to keys", op=op_id, actor=actor, model=op.request.model, keys=[key.name for key in chosen]
        )
        once = f"{op_id}:let-in:{'-'.join(sorted(key_hash[:8] for key_hash in hashes))[:200]}"
        await self.presentation.post(once, op.request.channel, lines(answer), card=op.id)
        return answer

    async def _authorise(self, op_id: str, actor: str) -> tuple[Operation, str]:
        """Return the operation and its alias if the person may grant access; a refusal is recorded in the audit log."""
        op, verdict = await self.operations.load(op_id), may_let_in(actor, await self.roles.people())
        if not verdict.allowed:
            await self.audit.note_refusal(op, actor, AuditEvent.KEY_LET_IN, verdict.reason, self.clock())
        require(verdict)
        return op, (await self.endpoints.require(await self.repository.head(), op.request.model)).alias


def _tenant(key: TenantKey) -> Tenant:
    return Tenant(hash=key.hash, name=key.name, owner=key.owner)
