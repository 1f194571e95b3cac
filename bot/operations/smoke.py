"""The smoke tests: does the model answer, directly and by its alias through the gateway, and as well as the last time?

They are the last step of a bring-up and of a roll-out, and an operation of their own (`/model smoke`).
"""

import time
from collections.abc import Awaitable

from pydantic import SecretStr

from bot.clients.vllm import Answer, fim_prompt
from bot.clients.workload import Kind as EndpointKind
from bot.clients.workload import Workload
from bot.domain import Check, Operation, Own, SmokeOutcome, SmokeRun, Status
from bot.errors import BotError, Unavailable
from bot.operations.endpoints import known_endpoint
from bot.operations.life import NotAllowed, attended, finish, insist, step
from bot.policy import may_request
from bot.services import Services
from bot.views import code, escape

_NOTICEABLE = 0.25
"""Seconds below which a difference is noise."""


class SmokeFailed(BotError):
    """The model runs but does not answer as it should."""

    remedy = (
        "Read the failed test's evidence in the thread. The model is at zero again, unless the request said `keep`."
    )


async def refuse_untestable(svc: Services, model: str) -> None:
    """Refuse to test what is not running."""
    await known_endpoint(svc, await svc.repository.head(), model)
    workload = await svc.cluster.workload(model)
    if workload is None or not workload.ready_replicas:
        state = "is booting: it is tested when it is ready" if workload and workload.replicas else "is down"
        raise NotAllowed(
            f"{code(model)} {state}, so there is nothing to test. `/gpu up {model}` brings it up and tests it."
        )


async def smoke_now(svc: Services, op: Operation) -> None:
    """Smoke-test a running endpoint because somebody asked. Safe to run again from the top."""
    model, now = op.request.model, svc.clock()
    if op.failure:
        await finish(svc, op.id, Status.FAILED, op.failure)
        return
    if op.status is Status.REQUESTED:
        insist(may_request(op.request.actor, await svc.people(), svc.config))
        await refuse_untestable(svc, model)
        op = await svc.store.update(op.id, lambda op: op.moved(Status.RUNNING, now), event="started")

    async def tested() -> None:
        await run_smoke(svc, op.id, model, await svc.repository.head())

    await step(svc, op.id, "smoke tests", tested, type(None))
    await finish(svc, op.id, Status.SUCCEEDED, f"{code(model)} answers; all smoke tests passed.")


async def run_smoke(svc: Services, op_id: str, model: str, commit: str) -> Operation:
    """Test a running model, keep the evidence on the operation, and raise SmokeFailed if any test failed."""
    endpoint = await known_endpoint(svc, commit, model)
    workload = await svc.cluster.workload(model)
    if workload is None:
        raise BotError(f"The Deployment of {code(model)} has disappeared.")
    results = await attended(svc, op_id, smoke(svc, workload, endpoint.alias))
    op = await svc.store.update(op_id, lambda op: op.model_copy(update={"checks": results}), event="smoke tested")
    failed = [check for check in results if not check.passed]
    outcome = SmokeOutcome(at=svc.clock(), commit=commit, failed=tuple(check.name for check in failed))
    await svc.store.note_smoke(model, outcome)
    if failed:
        more = f" ({len(failed)} of {len(results)} failed)" if len(failed) > 1 else ""
        raise SmokeFailed(f"Smoke test failed: {escape(failed[0].name)} — {escape(failed[0].evidence)}{more}.")
    return op


async def smoke(svc: Services, workload: Workload, alias: str) -> tuple[Check, ...]:
    """Every test is run, also when an earlier one fails; each carries its evidence.

    Ends with the comparison with the endpoint's last good run, which warns and never fails.
    """
    async with svc.sessions.asking(workload.name, svc.clock()) as asked:
        return await _Run(svc, workload, alias, asked).checks()


class _Failed(Exception):
    """A smoke test's own verdict."""


class _Run:
    """One run of the tests of one endpoint; what is asked of the model is noted in `asked`."""

    def __init__(self, svc: Services, workload: Workload, alias: str, asked: list[Own]) -> None:
        self._svc, self._workload, self._alias, self._asked = svc, workload, alias, asked
        self._url = svc.vllm.url(workload.service, workload.namespace, workload.port)
        self._measured: Answer | None = None

    async def checks(self) -> tuple[Check, ...]:
        kind: EndpointKind = self._workload.kind
        key = await self._svc.secret(self._svc.config.vllm.api_key)
        checks = [await _tried("direct: /health", self._health())]
        if kind != "embedding":
            checks.append(await _tried("direct: served name", self._models(key)))
            checks.append(await _tried("direct: a request without a key is refused", self._keyless()))
        checks.append(await _tried(f"direct: {kind}", self._answer(key)))
        if kind == "completion" and (prompt := fim_prompt(self._workload.model)):
            checks.append(await _tried("direct: fill in the middle", self._fill(key, prompt)))
        checks.append(await _tried(f"gateway: {self._alias}", self._gateway()))
        if self._measured and all(check.passed for check in checks):
            compared = await self._compared(self._measured)
            checks += [compared] if compared else []
        return tuple(checks)

    async def _health(self) -> str:
        if not await self._svc.vllm.health(self._url):
            raise _Failed("/health does not answer 200")
        return "200"

    async def _models(self, key: SecretStr) -> str:
        served = self._workload.served_name or ""
        names = await self._svc.vllm.models(self._url, key)
        if names != (served,):
            raise _Failed(f"/v1/models lists {', '.join(names) or 'nothing'} instead of exactly {served}")
        return served

    async def _keyless(self) -> str:
        if not await self._svc.vllm.refuses_keyless(self._url):
            raise _Failed("/v1/models answers without a key: anybody in the cluster can use the model")
        return "401"

    async def _answer(self, key: SecretStr) -> str:
        """Asked twice: the first request after a start compiles kernels, and tells nothing about the speed."""
        await self._ask(key)
        answer = self._measured = await self._ask(key)
        said = [f"{answer.prompt_tokens}+{answer.completion_tokens} tokens in {answer.seconds:.2f} s"]
        if answer.first_token_seconds is not None:
            said.append(f"first token after {answer.first_token_seconds:.2f} s")
        if answer.tokens_per_second is not None:
            said.append(f"{answer.tokens_per_second:.0f} tokens/s")
        return ", ".join([*said, f"“{answer.text.strip()[:100]}”"])

    async def _fill(self, key: SecretStr, prompt: str) -> str:
        answer = await self._ask(key, prompt)
        if not answer.text.strip():
            raise _Failed("nothing is filled in between a prefix and a suffix: is this a base model with FIM tokens?")
        return f"{answer.completion_tokens} tokens in {answer.seconds:.2f} s, “{answer.text.strip()[:100]}”"

    async def _ask(self, key: SecretStr, prompt: str | None = None) -> Answer:
        served = self._workload.served_name or ""
        answer = await self._svc.vllm.ask(self._url, key, served, self._workload.kind, prompt=prompt)
        self._asked.append(Own(requests=1, tokens=answer.prompt_tokens + answer.completion_tokens))
        return answer

    async def _gateway(self) -> str:
        budget = self._svc.config.litellm.smoke_budget
        async with self._svc.litellm.virtual_key(self._alias, budget=budget, duration="10m") as key:
            answer = await self._svc.litellm.ask(key, self._alias, self._workload.kind)
        self._asked.append(Own(requests=1, tokens=answer.tokens))
        if not answer.cost or answer.cost <= 0:
            raise _Failed(
                "the call costs $0: are input_cost_per_token and output_cost_per_token set? Budgets never bind"
            )
        return f"answered by alias in {answer.seconds:.2f} s, cost ${answer.cost:.7f}; virtual key deleted"

    async def _compared(self, answer: Answer) -> Check | None:
        run = SmokeRun(
            at=self._svc.clock(),
            model=self._workload.model,
            image=self._workload.image,
            answer=answer.text,
            seconds=answer.seconds,
            first_token_seconds=answer.first_token_seconds,
            tokens_per_second=answer.tokens_per_second,
        )
        last = await self._svc.sessions.last_good_run(self._workload.name)
        if last is None or not is_slower(run, last):
            await self._svc.sessions.keep_good_run(self._workload.name, run)
        return compare(run, last) if last else None


async def _tried(name: str, test: Awaitable[str]) -> Check:
    start = time.perf_counter()
    try:
        evidence, passed = await test, True
    except (_Failed, BotError, Unavailable) as error:
        evidence, passed = str(error), False
    return Check(name=name, passed=passed, evidence=evidence, seconds=time.perf_counter() - start)


def compare(run: SmokeRun, last: SmokeRun) -> Check | None:
    """What differs from the endpoint's last good run: slower than half, or another answer to the same question.

    None after a swap: another model answers otherwise, and what was not compared has not passed.
    """
    if last.model != run.model:
        return None
    name, since, differs = "as the last good run", f"{last.at:%Y-%m-%d %H:%M} UTC", list[str]()
    if is_slower(run, last):
        differs.append(f"slower than half: {_speed(run)}, and {_speed(last)} on {since}")
    if last.answer != run.answer:
        other = "" if last.image == run.image else ", with another image"
        differs.append(
            f"another answer at temperature 0{other}: “{run.answer.strip()[:80]}” was “{last.answer.strip()[:80]}”"
        )
    if differs:
        return Check(name=name, passed=True, warning=True, evidence="; ".join(differs))
    return Check(name=name, passed=True, evidence=f"same answer, {_speed(run)}; on {since} {_speed(last)}")


def is_slower(run: SmokeRun, last: SmokeRun) -> bool:
    """Whether a run took more than twice as long: to the first token, from token to token, or as a whole."""
    if last.model != run.model:
        return False
    each, was = run.tokens_per_second, last.tokens_per_second
    if each and was and each < was / 2 and run.seconds - last.seconds > _NOTICEABLE:
        return True
    before, now = last.first_token_seconds or last.seconds, run.first_token_seconds or run.seconds
    return now > 2 * before and now - before > _NOTICEABLE


def _speed(run: SmokeRun) -> str:
    first = f"first token after {run.first_token_seconds:.2f} s" if run.first_token_seconds is not None else ""
    each = f"{run.tokens_per_second:.0f} tokens/s" if run.tokens_per_second else ""
    return ", ".join(filter(None, (first, each))) or f"answered in {run.seconds:.2f} s"
