"""Client for Prometheus, for installations in which vLLM's metrics can only be read from Prometheus."""

import httpx

from bot.clients.http import body, error_message, refuse_if_busy, send
from bot.clients.vllm import amount
from bot.domain.sessions import Activity
from bot.errors import BotError, Unavailable
from manifests.engines import usual

SYSTEM = "Prometheus"


class Prometheus:
    """Queries the HTTP API at one address (`PROMETHEUS_URL`): Prometheus, Thanos, Mimir or Google's frontend."""

    def __init__(self, http: httpx.AsyncClient, base_url: str) -> None:
        self._http, self._base_url = http, base_url.rstrip("/")

    async def activity(self, served_name: str) -> Activity:
        """The usage signals of the model with this served name, as last scraped.

        Raises Unavailable if there is no sample, so that a model with unknown usage does not count as idle. Prometheus
        marks the series of a target that it cannot scrape as stale, so old samples are not returned.
        """
        names = "|".join(usual().signals)
        query = f'sum by (__name__) ({{__name__=~"{names}", model_name="{_quoted(served_name)}"}})'
        response = await send(self._http, SYSTEM, "GET", f"{self._base_url}/api/v1/query", params={"query": query})
        if not response.is_success:
            refuse_if_busy(SYSTEM, response)
            raise BotError(f"Prometheus refused the query: {error_message(response)}. Check PROMETHEUS_URL.")
        totals: dict[str, float] = {}
        try:
            for series in body(response)["data"]["result"]:
                field = usual().signals[series["metric"]["__name__"]]
                totals[field] = totals.get(field, 0) + amount(SYSTEM, series["metric"]["__name__"], series["value"][1])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Unavailable(SYSTEM, "its answer is not that of an instant query") from error
        if not totals:
            raise Unavailable(SYSTEM, f"it has no samples of vLLM's metrics with model_name {served_name}")
        return Activity(**totals)


def _quoted(text: str) -> str:
    """Escape a text for a string in PromQL."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
