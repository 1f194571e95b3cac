"""Smoke tests of a model, directly and through the gateway, with a comparison to the last good run.

They are the last step of a bring-up and of a roll-out, and can be requested separately (`/model smoke`).
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta

import stamina
import structlog
from docket import Docket
from pydantic import SecretStr

from bot.clients.cluster import Cluster
from bot.clients.litellm import LiteLLM
from bot.clients.rights import ENGINE_KEY
from bot.clients.vllm import VLLM, Answer, fim_prompt
from bot.clients.workload import Kind as EndpointKind
from bot.clients.workload import Workload
from bot.clock import Clock
from bot.component import component
from bot.domain import phases
from bot.domain.events import AuditEvent
from bot.domain.operations import GATEWAY_CHECK, Check, SmokeOutcome, SmokeRun
from bot.domain.sessions import Own
from bot.engine.run import Run, Step
from bot.engine.task_refs import DELETE_KEY
from bot.errors import BotError, Unavailable, Unreachable
from bot.platform.endpoints import Endpoints
from bot.settings.config import Config
from bot.state.endpoint_history import EndpointHistory
from bot.state.operations import Operations
from bot.state.records import redis_errors
from bot.state.sessions import Sessions
from bot.text.durations import show_duration
from bot.text.mrkdwn import md, stamp
from bot.views import code
from manifests.contract import ModelEndpoint
from manifests.engines import engine_named, usual

log = structlog.get_logger(__name__)

READY = Step("ready", datetime)
"""The time at which the model was ready for the tests."""
_KEY_LIFE = "10m"
_LATER = timedelta(minutes=1)
"""Time until Stoker tries again to delete a virtual key that LiteLLM did not delete. The key expires after
`_KEY_LIFE` in any case.
"""
Tell = Callable[[str], Awaitable[None]]
_NOTICEABLE = 0.25
"""Minimum difference in seconds between two runs; smaller differences are noise."""


class SmokeFailed(BotError):
    """The model runs, but a smoke test failed."""

    remedy = "Read the failed test's evidence in the thread. The model is down again, unless the request has `keep`."


class _Failed(Exception):
    """A smoke test failed; the message is its evidence."""


class _Doubtful(Exception):
    """A smoke test passed with a warning; the message is its evidence."""


class _Tests:
    """One run of the tests of one endpoint. The bot's requests to the model are appended to `own_requests`."""

    def __init__(
        self,
        workload: Workload,
        endpoint: ModelEndpoint,
        own_requests: list[Own],
        tell: Tell,
        *,
        costs: bool,
        vllm: VLLM,
        litellm: LiteLLM,
        cluster: Cluster,
        endpoint_history: EndpointHistory,
        docket: Docket,
        config: Config,
        clock: Clock,
    ) -> None:
        self._workload, self._asked, self._tell = workload, own_requests, tell
        self._vllm, self._litellm, self._cluster, self._endpoint_history = vllm, litellm, cluster, endpoint_history
        self._docket, self._config, self._clock = docket, config, clock
        self._name, self._alias, self._costs = endpoint.name, endpoint.alias, costs
        self._url = vllm.url(workload.service, workload.namespace, workload.port)
        self._engine = engine_named(workload.engine) or usual()
        self._api = f"{self._url}{self._engine.api}"
        self._measured: Answer | None = None
        self._kind = kind_of(workload, endpoint)
        # If the arguments do not contain the served names (a shell, a variable, a file), use the names in the manifests.
        served_names = workload.served_names if workload.names_said else endpoint.served_names or workload.served_names
        self._served_names = served_names

    async def checks(self) -> tuple[Check, ...]:
        """Run all tests, and return their results in order."""
        kind = self._kind
        key = await self._cluster.secret(ENGINE_KEY, self._config.vllm.api_key) if self._workload.keyed else None
        health = self._engine.health
        checks = [await _run_test(f"direct: {health}", self._health(health))]
        if self._workload.gpus or kind not in ("embedding", "rerank"):
            checks.append(await _run_test("direct: served name", self._models(key)))
            checks.append(await _run_test("direct: a request without a key is refused", self._keyless()))
        checks.append(await _run_test(f"direct: {kind}", self._answer(key)))
        if kind == "completion" and (prompt := fim_prompt(self._workload.model)):
            checks.append(await _run_test("direct: fill in the middle", self._fill(key, prompt)))
        if self._config.litellm.smoke_test and self._alias:
            checks.append(await _run_test(f"{GATEWAY_CHECK}{self._alias}", self._gateway()))
        if self._measured and all(check.passed for check in checks):
            compared = await self._compare_with_last(self._measured)
            checks += [compared] if compared else []
        return tuple(checks)

    async def _health(self, path: str) -> str:
        if not await self._vllm.health(self._url, path):
            raise _Failed(f"{path} does not answer 200")
        return "200"

    async def _models(self, key: SecretStr | None) -> str:
        names, expected = await self._vllm.models(self._api, key), self._served_names
        if not expected and names:  # llama.cpp without --alias returns the name of its file
            expected = self._served_names = names
        if set(names) != set(expected):
            raise _Failed(f"/v1/models lists {', '.join(names) or 'nothing'} instead of exactly {', '.join(expected)}")
        return ", ".join(expected)

    async def _keyless(self) -> str:
        if not self._workload.keyed:
            raise _Doubtful("the engine has no API key: every pod in the cluster can use the model")
        path = self._engine.keyed
        if not await self._vllm.refuses_keyless(self._url, path):
            raise _Failed(f"{path} answers without a key: every pod in the cluster can use the model")
        return "401"

    async def _answer(self, key: SecretStr | None) -> str:
        """Send two requests, and measure the second one, because the first one after a start compiles kernels."""
        await self._ask(key)
        answer = self._measured = await self._ask(key)
        figures = [f"{answer.prompt_tokens}+{answer.completion_tokens} tokens in {answer.seconds:.2f} s"]
        if answer.first_token_seconds is not None:
            figures.append(f"first token after {answer.first_token_seconds:.2f} s")
        if answer.tokens_per_second is not None:
            figures.append(f"{answer.tokens_per_second:.0f} tokens/s")
        return ", ".join([*figures, f"“{answer.text.strip()[:100]}”"])

    async def _fill(self, key: SecretStr | None, prompt: str) -> str:
        answer = await self._ask(key, prompt)
        if not answer.text.strip():
            raise _Failed(
                "the model returns nothing between a prefix and a suffix: is this a base model with FIM tokens?"
            )
        return f"{answer.completion_tokens} tokens in {answer.seconds:.2f} s, “{answer.text.strip()[:100]}”"

    async def _ask(self, key: SecretStr | None, prompt: str | None = None) -> Answer:
        served = self._served_names[0] if self._served_names else self._workload.served_name
        path = self._engine.reranks_at
        answer = await self._vllm.ask(self._api, key, served, self._kind, prompt=prompt, reranks_at=path)
        self._asked.append(Own(requests=1, tokens=answer.prompt_tokens + answer.completion_tokens))
        return answer

    async def _gateway(self) -> str:
        """Send a request through the gateway. Waits while the gateway is unreachable, because it may be restarting."""
        wait = self._config.litellm.wait
        try:
            async for attempt in stamina.retry_context(
                on=Unreachable, attempts=None, timeout=self._clock.patience(wait), wait_initial=1.0, wait_max=5.0
            ):
                with attempt:
                    if attempt.num > 1:
                        await self._tell(f"waiting for LiteLLM, at most {show_duration(wait)}")
                    return await self._gateway_once()
        except Unreachable as error:
            raise _Doubtful(
                f"LiteLLM could not be reached for {show_duration(wait)} ({error.detail}), so it is not known whether the alias"
                f" {self._alias} works."
            ) from error
        raise AssertionError("unreachable: the last attempt raises")

    async def _gateway_once(self) -> str:
        budget, undeleted = self._config.litellm.smoke_budget, list[str]()

        async def delete_later(key_alias: str) -> None:
            undeleted.append(key_alias)
            with suppress(Unavailable), redis_errors():  # a key that is not deleted expires
                await DELETE_KEY.add(self._docket, when=self._clock() + _LATER, key=f"delete {key_alias}")(key_alias)

        litellm = self._litellm
        async with litellm.virtual_key(
            self._alias, budget=budget, duration=_KEY_LIFE, on_undeleted=delete_later
        ) as key:
            answer = await litellm.ask(key, self._alias, self._kind)
        self._asked.append(Own(requests=1, tokens=answer.tokens))
        if self._costs and self._kind == "rerank" and not answer.cost:
            raise _Doubtful(
                f"answered by alias in {answer.seconds:.2f} s, cost $0: LiteLLM does not count the cost of these engines'"
                " rankings (BerriAI/litellm#13797), so budgets do not limit them."
            )
        if self._costs and (not answer.cost or answer.cost <= 0):
            raise _Failed(
                "the call costs $0, so budgets have no effect: check input_cost_per_token and output_cost_per_token"
            )
        result = f"answered by alias in {answer.seconds:.2f} s, cost ${answer.cost or 0:.7f}"
        if undeleted:
            raise _Doubtful(f"{result}; LiteLLM did not delete the virtual key {undeleted[0]}: Stoker tries again")
        return f"{result}; virtual key deleted"

    async def _compare_with_last(self, answer: Answer) -> Check | None:
        run = SmokeRun(
            at=self._clock(),
            model=self._workload.model,
            image=self._workload.image,
            answer=answer.text,
            seconds=answer.seconds,
            first_token_seconds=answer.first_token_seconds,
            tokens_per_second=answer.tokens_per_second,
        )
        last = await self._endpoint_history.last_good_run(self._name)
        if last is None or not is_slower(run, last):
            await self._endpoint_history.keep_good_run(self._name, run)
        return compare(run, last) if last else None


@component
class SmokeTests:
    """Runs the smoke tests of models."""

    docket: Docket
    operations: Operations
    sessions: Sessions
    endpoint_history: EndpointHistory
    cluster: Cluster
    vllm: VLLM
    litellm: LiteLLM
    endpoints: Endpoints
    config: Config
    clock: Clock

    async def delete_key(self, key_alias: str) -> None:
        """Delete the virtual key of a test, after LiteLLM failed to delete it during the test."""
        await self.litellm.delete_key(key_alias)

    async def run(self, run: Run, commit: str) -> None:
        """Test a running model, store the evidence in the operation, and raise SmokeFailed if any test failed."""
        model = run.model
        endpoint = await self.endpoints.require(commit, model)
        workload = await self.cluster.workload(model)
        if workload is None:
            raise BotError(
                md(
                    "The Deployment of {model} no longer exists: deploy it again, then repeat the request.",
                    model=code(model),
                )
            )

        async def tell(message: str) -> None:
            await run.enter(phases.SMOKE_TESTS, message)

        priced = any(
            endpoint_with_price.price_in or endpoint_with_price.price_out
            for endpoint_with_price in await self.endpoints.all(commit)
        )
        results = await run.cancellable(self.smoke(workload, endpoint, tell, costs=priced and not endpoint.is_free))
        await self.operations.update(
            run.op.id, lambda op: op.model_copy(update={"checks": results}), event=AuditEvent.SMOKE_TESTED
        )
        failed = [check for check in results if not check.passed]
        names = tuple(check.name for check in failed)
        outcome = SmokeOutcome(at=self.clock(), commit=commit, failed=names, hf_id=endpoint.hf_id)
        await self.endpoint_history.note_smoke_test(model, outcome)
        if failed:
            more = f" ({len(failed)} of {len(results)} failed)" if len(failed) > 1 else ""
            raise SmokeFailed(
                md(
                    "Smoke test failed: {name} — {evidence}{more}.",
                    name=failed[0].name,
                    evidence=failed[0].evidence.rstrip(". "),
                    more=more,
                ),
                details=await self._last_log(model),
            )

    async def _last_log(self, model: str) -> str:
        """Read the end of the engine's log; empty on an error. The pod is deleted after a failed test."""
        try:
            return await self.cluster.last_log(model)
        except (BotError, Unavailable) as error:
            log.info("log not read", model=model, error=str(error))
            return ""

    async def smoke(self, workload: Workload, endpoint: ModelEndpoint, tell: Tell, *, costs: bool) -> tuple[Check, ...]:
        """Run every test, even if an earlier one fails. Each result contains its evidence.

        With `costs`, a call through the gateway must have a cost; some platforms do not set prices. The last result
        compares this run with the endpoint's last good one; it can be a warning, but not a failure.
        """
        async with self.sessions.asking(endpoint.name, self.clock()) as own_requests:
            return await _Tests(
                workload,
                endpoint,
                own_requests,
                tell,
                costs=costs,
                vllm=self.vllm,
                litellm=self.litellm,
                cluster=self.cluster,
                endpoint_history=self.endpoint_history,
                docket=self.docket,
                config=self.config,
                clock=self.clock,
            ).checks()


def kind_of(workload: Workload, endpoint: ModelEndpoint) -> EndpointKind:
    """Return the kind of request for the tests. Only the manifests distinguish chat and completion reliably."""
    if workload.kind == "embedding" and endpoint.kind.endswith("-reranker") and not workload.kind_is_said:
        return "rerank"  # LiteLLM's entry shows this, but the model's name does not
    if workload.kind_is_said or workload.kind in ("embedding", "rerank"):
        return workload.kind
    kinds: dict[str, EndpointKind] = {"gpu-chat": "chat", "gpu-completion": "completion"}
    return kinds.get(endpoint.kind, workload.kind)


async def _run_test(name: str, test: Awaitable[str]) -> Check:
    start = time.perf_counter()
    passed, warning = True, False
    try:
        evidence = await test
    except _Doubtful as doubt:
        evidence, warning = str(doubt), True
    except (_Failed, BotError, Unavailable) as error:
        evidence, passed = str(error), False
    return Check(name=name, passed=passed, warning=warning, evidence=evidence, seconds=time.perf_counter() - start)


def compare(run: SmokeRun, last: SmokeRun) -> Check | None:
    """Compare a run with the endpoint's last good one. Half the speed or a different answer is a warning.

    Returns None if the last run tested another model.
    """
    if last.model != run.model:
        return None
    name, since, differs = "as the last good run", stamp(last.at), list[str]()
    if is_slower(run, last):
        differs.append(f"less than half as fast: {_speed(run)}; on {since} {_speed(last)}")
    if last.answer != run.answer:
        other_image = "" if last.image == run.image else ", with another image"
        differs.append(
            f"a different answer at temperature 0{other_image}: “{run.answer.strip()[:80]}”, previously "
            f"“{last.answer.strip()[:80]}”"
        )
    if differs:
        return Check(name=name, passed=True, warning=True, evidence="; ".join(differs))
    return Check(name=name, passed=True, evidence=f"same answer, {_speed(run)}; on {since} {_speed(last)}")


def is_slower(run: SmokeRun, last: SmokeRun) -> bool:
    """Return whether a run took more than twice as long: to the first token, between tokens, or in total."""
    if last.model != run.model:
        return False
    speed, was = run.tokens_per_second, last.tokens_per_second
    if speed and was and speed < was / 2 and run.seconds - last.seconds > _NOTICEABLE:
        return True
    before, now = last.first_token_seconds or last.seconds, run.first_token_seconds or run.seconds
    return now > 2 * before and now - before > _NOTICEABLE


def _speed(run: SmokeRun) -> str:
    first = f"first token after {run.first_token_seconds:.2f} s" if run.first_token_seconds is not None else ""
    tokens = f"{run.tokens_per_second:.0f} tokens/s" if run.tokens_per_second else ""
    return ", ".join(filter(None, (first, tokens))) or f"answered in {run.seconds:.2f} s"
