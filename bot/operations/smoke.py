"""The smoke tests: does the model answer, directly and by its alias through the gateway?"""

from pydantic import SecretStr

from bot.clients.cluster import Kind as EndpointKind
from bot.clients.cluster import Workload
from bot.domain import Check
from bot.errors import BotError, Unavailable
from bot.services import Services


async def smoke(svc: Services, workload: Workload, alias: str) -> tuple[Check, ...]:
    """Every test is run, also when an earlier one fails; each carries its evidence."""
    url = svc.vllm.url(workload.service, workload.namespace, workload.port)
    key = await svc.secret(svc.config.vllm.api_key)
    served = workload.served_name or ""
    checks = [await _tried("direct: /health", _health(svc, url))]
    if workload.kind != "embedding":
        checks.append(await _tried("direct: served name", _models(svc, url, key, served)))
        checks.append(await _tried("direct: a request without a key is refused", _keyless(svc, url)))
    checks.append(await _tried(f"direct: {workload.kind}", _answer(svc, url, key, served, workload.kind)))
    checks.append(await _tried(f"gateway: {alias}", _gateway(svc, alias, workload.kind)))
    return tuple(checks)


class _Failed(Exception):
    """A smoke test's own verdict."""


async def _tried(name: str, test: "object") -> Check:
    try:
        return Check(name=name, passed=True, evidence=await test)  # type: ignore[misc]  # a coroutine giving evidence
    except (_Failed, BotError, Unavailable) as error:
        return Check(name=name, passed=False, evidence=str(error))


async def _health(svc: Services, url: str) -> str:
    if not await svc.vllm.health(url):
        raise _Failed("/health does not answer 200")
    return "200"


async def _models(svc: Services, url: str, key: SecretStr, served: str) -> str:
    names = await svc.vllm.models(url, key)
    if names != (served,):
        raise _Failed(f"/v1/models lists {', '.join(names) or 'nothing'} instead of exactly {served}")
    return served


async def _keyless(svc: Services, url: str) -> str:
    if not await svc.vllm.refuses_keyless(url):
        raise _Failed("/v1/models answers without a key: anybody in the cluster can use the model")
    return "401"


async def _answer(svc: Services, url: str, key: SecretStr, served: str, kind: EndpointKind) -> str:
    answer = await svc.vllm.ask(url, key, served, kind)
    first = f", first token after {answer.first_token_seconds:.2f} s" if answer.first_token_seconds else ""
    return f"{answer.prompt_tokens}+{answer.completion_tokens} tokens in {answer.seconds:.2f} s{first}"


async def _gateway(svc: Services, alias: str, kind: EndpointKind) -> str:
    async with svc.litellm.virtual_key(alias, budget=svc.config.litellm.smoke_budget, duration="10m") as key:
        answer = await svc.litellm.ask(key, alias, kind)
    if not answer.cost or answer.cost <= 0:
        raise _Failed("the call costs $0: are input_cost_per_token and output_cost_per_token set? Budgets never bind")
    return f"answered by alias in {answer.seconds:.2f} s, cost ${answer.cost:.7f}; virtual key deleted"
