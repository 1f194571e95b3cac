"""How an HTTP exchange ends: with an answer, or with one of the two families of errors.

The clients of this room share it, so that no vendor's file repeats what a broken connection, a rate limit or a
5xx means. Nothing here knows a vendor, and nothing here puts a header (they hold keys) into a message.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from bot.errors import BotError, Unavailable

if TYPE_CHECKING:
    import aiohttp  # the commands of the terminal start without it


def only(*addresses: str) -> Callable[[httpx.Request], Awaitable[None]]:
    """A hook for a client of httpx that sends nothing to any host but those of these addresses, redirects included.

    A `{name}` in an address stands for one label of a host name; a host's subdomains are allowed where it begins with
    a dot, as in `https://.hf.co`.
    """
    insist = _insist_on(addresses)

    async def refuse(request: httpx.Request) -> None:
        insist(request.url.host)

    return refuse


def guarded_session(*addresses: str) -> dict[str, Any]:
    """The same for a session of aiohttp, which Slack's and Kubernetes' libraries use: the arguments to make it with."""
    insist = _insist_on(addresses)

    async def refuse(
        request: "aiohttp.ClientRequest", handler: "aiohttp.ClientHandlerType"
    ) -> "aiohttp.ClientResponse":
        insist(request.url.host or "")
        return await handler(request)

    return {"middlewares": (refuse,)}


def _insist_on(addresses: Iterable[str]) -> Callable[[str], None]:
    """BotError for each host that is none of these addresses'."""
    hosts = [urlsplit(address).hostname or "" for address in addresses]
    patterns = [re.escape(host.lstrip(".")) for host in hosts]
    labels = [re.sub(r"\\{\w+\\}", r"[a-z0-9-]+", pattern) for pattern in patterns]
    whole = [
        rf"(?:[a-z0-9-]+\.)*{label}" if host.startswith(".") else label
        for host, label in zip(hosts, labels, strict=True)
    ]
    allowed = re.compile("|".join(whole))

    def insist(host: str) -> None:
        if not allowed.fullmatch(host):
            raise BotError(f"{host} is none of the hosts that are configured, so nothing was sent there.")

    return insist


def bearer(key: SecretStr | None) -> dict[str, str]:
    """The Authorization header for a key; no header without one.

    The line break that a file or a Secret often ends in is dropped. Other characters that a header cannot carry are
    refused here, since the libraries below would quote the whole key in their exceptions.
    """
    if key is None:
        return {}
    value = key.get_secret_value().strip()
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise BotError("A key or token is empty or holds a space, a line break or a letter beyond ASCII: set it anew.")
    return {"Authorization": f"Bearer {value}"}


async def send(http: httpx.AsyncClient, system: str, method: str, url: str, **options: Any) -> httpx.Response:
    """The answer, whatever its status. A connection that fails, breaks or times out is Unavailable."""
    try:
        return await http.request(method, url, **options)
    except httpx.RequestError as error:
        raise unreachable(system, error) from error


def unreachable(system: str, error: httpx.RequestError) -> Unavailable:
    """The error of a connection that failed, in words: httpx's own text is often empty for a timeout."""
    return Unavailable(system, str(error) or type(error).__name__)


def refuse_if_busy(system: str, response: httpx.Response, key: SecretStr | None = None) -> None:
    """Raise Unavailable for the statuses that mend themselves (429, 5xx), naming the time where the server does."""
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        raise Unavailable(system, f"{error_message(response, key)}{retry_hint(response)}")


def retry_hint(response: httpx.Response) -> str:
    """ ", asks to wait until …" from Retry-After or x-ratelimit-reset, or nothing."""
    if after := response.headers.get("retry-after"):
        return f", asks to wait {after} s" if after.isdigit() else f", asks to wait until {after}"
    reset = response.headers.get("x-ratelimit-reset", "")
    if reset.isdigit():
        return f", asks to wait until {datetime.fromtimestamp(int(reset), UTC):%H:%M:%S} UTC"
    return ""


def body(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; an empty one when it holds anything else."""
    try:
        value = response.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def error_message(response: httpx.Response, key: SecretStr | None = None) -> str:
    """What an OpenAI-like API says about an error: `{"error": {"message"}}`, `{"error": "…"}`, or the status.

    The key of the request is cut out, since some servers quote it.
    """
    error = body(response).get("error") or body(response).get("detail")
    if isinstance(error, dict):
        error = error.get("message") or error.get("error")
    if not error:
        return f"status {response.status_code}"
    said = str(error) if key is None else str(error).replace(key.get_secret_value().strip(), "***")
    return f"{said[:500].rstrip('.')} ({response.status_code})"
