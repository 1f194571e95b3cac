"""Store data about endpoints from earlier sessions: smoke tests, staged weights, and measurements of boots."""

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from bot.domain.operations import SmokeOutcome, SmokeRun
from bot.domain.sessions import Staged
from bot.errors import Unavailable
from bot.state.records import PREFIX, Records
from manifests.sizing.observed import KEPT, Observation

_SMOKE_TESTS, _GOOD_RUNS = f"{PREFIX}:smoke", f"{PREFIX}:good-runs"
_STAGED_WEIGHTS, _OBSERVED = f"{PREFIX}:staged", f"{PREFIX}:observed"
_SMOKE, _RUN, _STAGED = TypeAdapter(SmokeOutcome), TypeAdapter(SmokeRun), TypeAdapter(Staged)
_OBSERVATIONS = TypeAdapter(tuple[Observation, ...])


class EndpointHistory:
    """Stores data by endpoint. Except for `observations`, methods raise Unavailable if Redis does not answer."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis, self._records = redis, Records(redis)

    async def note_smoke_test(self, model: str, outcome: SmokeOutcome) -> None:
        await self._set(_SMOKE_TESTS, model, outcome.model_dump_json())

    async def smoke_tests(self) -> dict[str, SmokeOutcome]:
        """The result of each endpoint's last smoke tests, by its name."""
        return await self._records.fields(_SMOKE_TESTS, _SMOKE)

    async def last_good_run(self, model: str) -> SmokeRun | None:
        """The measurements of the last run in which all smoke tests of the endpoint passed at full speed."""
        return await self._records.field(_GOOD_RUNS, model, _RUN)

    async def keep_good_run(self, model: str, run: SmokeRun) -> None:
        await self._set(_GOOD_RUNS, model, run.model_dump_json())

    async def staged(self, model: str) -> Staged | None:
        """The weights that a staging Job last put on the endpoint's volume."""
        return await self._records.field(_STAGED_WEIGHTS, model, _STAGED)

    async def keep_staged(self, model: str, staged: Staged) -> None:
        await self._set(_STAGED_WEIGHTS, model, staged.model_dump_json())

    async def note_observation(self, measured: Observation) -> None:
        """Record the measurements of a boot. Of comparable boots, only the newest are kept, one for each model."""
        stored = (await self._records.fields(_OBSERVED, _OBSERVATIONS)).get(measured.key, ())
        other_models = (observation for observation in stored if observation.hf_id != measured.hf_id)
        await self._set(_OBSERVED, measured.key, _OBSERVATIONS.dump_json((*other_models, measured)[-KEPT:]))

    async def observations(self) -> tuple[Observation, ...]:
        """All measurements of boots; empty if Redis does not answer, because the size estimate works without them."""
        try:
            comparable = await self._records.fields(_OBSERVED, _OBSERVATIONS)
        except Unavailable:
            return ()
        return tuple(observation for several in comparable.values() for observation in several)

    async def _set(self, key: str, field: str, text: str | bytes) -> None:
        await self._records.run(key, "hash", lambda: self._redis.hset(key, field, text))
