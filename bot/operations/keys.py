"""Tenants' virtual keys and a new alias: who cannot call it yet, and letting chosen ones."""

import structlog

from bot.clients.litellm import TenantKey
from bot.domain import Operation
from bot.errors import BotError, Unavailable
from bot.operations.endpoints import known_endpoint
from bot.operations.life import NotAllowed, insist
from bot.policy import may_let_in
from bot.services import Services
from bot.views import code, lines
from bot.views.rollout import Tenant, keys_offer

log = structlog.get_logger(__name__)


async def offer(svc: Services, op: Operation, alias: str) -> None:
    """Say below the card whose keys cannot call the alias yet. A gateway without keys has nothing to say."""
    try:
        keys = await svc.litellm.tenant_keys()
    except (BotError, Unavailable) as error:
        log.info("virtual keys not listed", op=op.id, model=op.request.model, error=str(error))
        return
    outside = tuple(_tenant(key) for key in keys if not key.reaches(alias))
    if outside and op.message:
        await svc.slack.post(f"{op.id}:keys", op.message.channel, keys_offer(op.id, alias, outside), thread=op.message)


async def outsiders(svc: Services, op_id: str, actor: str) -> tuple[str, tuple[Tenant, ...]]:
    """The alias that an operation brought, and the keys that cannot call it now."""
    _, alias = await _allowed(svc, op_id, actor)
    found = tuple(_tenant(key) for key in await svc.litellm.tenant_keys() if not key.reaches(alias))
    if not found:
        raise NotAllowed(f"Every virtual key can call {code(alias)} by now.")
    return alias, found


async def let_in(svc: Services, op_id: str, hashes: frozenset[str], actor: str) -> str:
    """Add the alias to the chosen keys; returns what to say. Repeating it changes nothing."""
    op, alias = await _allowed(svc, op_id, actor)
    chosen = [key for key in await svc.litellm.tenant_keys() if key.hash in hashes]
    for key in chosen:
        await svc.litellm.let_call(key, alias)
        await svc.store.note_decision(op, actor, "key let in", f"{key.name} may call {alias}", svc.clock())
    names = ", ".join(code(key.name) for key in chosen) or "no key"
    said = f"🔑 {names} may call {code(alias)} now, as <@{actor}> decided."
    log.info("keys let in", op=op_id, actor=actor, model=op.request.model, keys=[key.name for key in chosen])
    if op.message:
        once = f"{op_id}:let-in:{'-'.join(sorted(each[:8] for each in hashes))[:200]}"
        await svc.slack.post(once, op.message.channel, lines(said), thread=op.message)
    return said


async def _allowed(svc: Services, op_id: str, actor: str) -> tuple[Operation, str]:
    """The operation and the alias that it brought, for somebody who may let keys in; a refusal is in the audit log too."""
    op, verdict = await svc.store.load(op_id), may_let_in(actor, await svc.people())
    if not verdict.allowed:
        await svc.store.note_refusal(op, actor, "key let in", verdict.reason, svc.clock())
    insist(verdict)
    return op, (await known_endpoint(svc, await svc.repository.head(), op.request.model)).alias


def _tenant(key: TenantKey) -> Tenant:
    return Tenant(hash=key.hash, name=key.name, owner=key.owner)
