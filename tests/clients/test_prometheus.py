"""The usage signals from Prometheus' instant queries."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bot.clients.prometheus import Prometheus
from bot.domain.sessions import Activity
from bot.errors import BotError, Unavailable
from tests.clients.wire import Wire, client, nobody, wire

QUERY = "/api/v1/query"


@pytest.fixture
async def prometheus() -> AsyncIterator[Wire]:
    async with wire() as server:
        yield server


def vector(**values: float) -> dict[str, Any]:
    """An instant vector, with the one label that `sum by (__name__)` leaves."""
    result = [
        {"metric": {"__name__": f"vllm:{name}"}, "value": [1794700800.0, str(value)]} for name, value in values.items()
    ]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


async def activity(url: str, name: str = "qwen") -> Activity:
    async with client() as http:
        return await Prometheus(http, url + "/").activity(name)


async def test_the_signals_of_one_model_are_read_in_one_query(prometheus: Wire) -> None:
    """The series are selected by the served name, and summed over engines and finish reasons; a name cannot change the query."""
    prometheus.on("GET", QUERY, vector(num_requests_running=1, request_success_total=12, generation_tokens_total=340))
    assert await activity(prometheus.url, 'a"b') == Activity(running=1, requests=12, generation_tokens=340)
    (request,) = prometheus.calls("GET", QUERY)
    assert request.query["query"].startswith("sum by (__name__) (")
    assert 'model_name="a\\"b"' in request.query["query"]


async def test_no_samples_are_unknown_and_not_idle(prometheus: Wire) -> None:
    """A target that cannot be scraped has no series."""
    prometheus.on("GET", QUERY, vector())
    with pytest.raises(Unavailable, match="no samples of vLLM's metrics with model_name qwen"):
        await activity(prometheus.url)


async def test_a_failing_prometheus_is_unavailable(prometheus: Wire) -> None:
    """Without an answer the model counts as in use."""
    async with nobody() as url:
        with pytest.raises(Unavailable, match="Prometheus"):
            await activity(url)
    prometheus.on("GET", QUERY, {"status": "error"}, status=503)
    with pytest.raises(Unavailable, match="Prometheus"):
        await activity(prometheus.url)
    prometheus.on("GET", QUERY, text="<html>a login page</html>")
    with pytest.raises(Unavailable, match="a web page instead of data"):
        await activity(prometheus.url)


async def test_a_refused_query_names_the_setting(prometheus: Wire) -> None:
    """A URL that is not Prometheus is a mistake in the configuration."""
    with pytest.raises(BotError, match="PROMETHEUS_URL"):
        await activity(prometheus.url + "/elsewhere")
