"""One HTTP exchange: limited in bytes and time, with an answer or one of the two families of errors.

Every httpx client in this package sends through this module, so no response is read without a limit, and errors such as
broken connections, rate limits and 5xx are handled in one place. It is independent of the vendor, and never puts a
header (which may contain a key) into a message.
"""

import asyncio
import json
import math
import re
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import structlog
from pydantic import SecretStr

from bot.errors import BotError, Unavailable, Unreachable
from bot.progress import going_to
from bot.text.mrkdwn import time_stamp

if TYPE_CHECKING:
    import aiohttp  # imported late, because terminal commands start without it

log = structlog.get_logger(__name__)
MIB = 2**20
_CHUNK = 64 * 1024
_REDIRECTS = 5
_HEAD = 4096
_TITLE = re.compile(rb"<title[^>]*>([^<]*)", re.IGNORECASE)
_LOG_ABOVE = re.compile(r" *See (?:the )?(?:stack trace|root cause)[^.]*\babove\b[^.]*(?:\.|$)")
"""vLLM's reference to its log above, which people do not see above the message in Slack."""
_PORTS = {"http": "80", "https": "443"}

_ITEMS = 1_000_000
"""Maximum values in one JSON text. The index of a model with 91 000 tensors (DeepSeek-V3) has about 91 000; each takes
64 bytes or more in Python, so without this limit a few megabytes of `[],[],…` would fill the memory of a small pod.
"""


@dataclass(frozen=True)
class Limit:
    """Limits of one response: bytes after decompression, and seconds from the request to the last byte."""

    size: int = 4 * MIB
    seconds: float = 30.0


LIMIT = Limit()

Trusted = Callable[[], ssl.SSLContext]
"""Returns the certificate authorities that a client trusts."""


class TooLarge(BotError):
    """A response exceeds its limit; it was not read completely."""

    remedy = "Check the response of the system in the message: Stoker needs nothing that large."

    def __init__(self, what: str, size: int) -> None:
        shown = f"{size // MIB} MB" if size >= MIB else f"{size // 1024} KB"
        super().__init__(f"{what} is larger than {shown}, which is more than Stoker accepts. Nothing was changed.")


class OpenedAtFirstRequest(httpx.AsyncBaseTransport):
    """A transport that opens its client at the first request.

    Opening a client loads httpcore and every certificate authority: 7 % of the instructions until the bot is ready,
    although it sends nothing until then (benchmarks/start.py). The inner object is a client and not a transport because
    only a client reads HTTPS_PROXY and NO_PROXY.
    """

    def __init__(self, trusted: Trusted) -> None:
        self._trusted = trusted
        self._client: httpx.AsyncClient | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._client is None:
            try:
                self._client = httpx.AsyncClient(verify=self._trusted())
            except (OSError, ValueError, httpx.InvalidURL) as error:
                raise BotError(
                    f"Stoker cannot open a connection ({error}): check SSL_CERT_FILE, HTTPS_PROXY and HTTP_PROXY in its environment."
                ) from error
        return await self._client.send(request, stream=True, follow_redirects=False)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()


def only(*addresses: str) -> Callable[[httpx.Request], Awaitable[None]]:
    """A hook for an httpx client that sends only to these addresses (scheme, host and port), also after redirects.

    `{name}` in an address is a placeholder for one label of a host name, or for a port; a leading dot allows a host's
    subdomains, as in `https://.hf.co`.
    """
    allowed = re.compile("|".join(_origin(address) for address in addresses))

    async def refuse(request: httpx.Request) -> None:
        url = request.url
        if not allowed.fullmatch(f"{url.scheme}://{url.host}:{url.port or _PORTS.get(url.scheme, '')}"):
            raise _stranger(url.host if url.port is None else f"{url.host}:{url.port}")

    return refuse


def guarded_session(*addresses: str) -> dict[str, Any]:
    """Arguments for an aiohttp session, as used by the Slack and Kubernetes libraries.

    It sends nothing to other hosts, and reads at most `AIOHTTP_LIMIT` of a response.
    """
    from bot.clients.bounded import BoundedResponse  # with aiohttp

    allowed = re.compile("|".join(_host(urlsplit(address).hostname or "") for address in addresses))

    async def refuse(
        request: "aiohttp.ClientRequest", handler: "aiohttp.ClientHandlerType"
    ) -> "aiohttp.ClientResponse":
        if not allowed.fullmatch(request.url.host or ""):
            raise _stranger(request.url.host or "")
        return await handler(request)

    return {"middlewares": (refuse,), "response_class": BoundedResponse}


def _origin(address: str) -> str:
    """A pattern for `scheme://host:port`, always with a port."""
    scheme, _, rest = address.partition("://")
    netloc = re.split(r"[/?#]", rest)[0].rpartition("@")[2]
    host, port = re.fullmatch(r"(.*?)(?::(\d+|\{\w+\}))?", netloc).groups()  # type: ignore[union-attr]  # matches anything
    port = port or _PORTS.get(scheme.lower(), "")
    return rf"{re.escape(scheme.lower())}://{_host(host.strip('[]').lower())}:{port if port.isdigit() else '[0-9]+'}"


def _host(host: str) -> str:
    label = re.sub(r"\\{\w+\\}", r"[a-z0-9-]+", re.escape(host.lstrip(".")))
    return rf"(?:[a-z0-9-]+\.)*{label}" if host.startswith(".") else label


def _stranger(host: str) -> BotError:
    return BotError(f"{host} is not one of the configured hosts, so nothing was sent.")


def bearer(key: SecretStr | None) -> dict[str, str]:
    """The Authorization header for a key; no header without one.

    A trailing line break, common in files and Secrets, is removed. Other characters that a header cannot contain are
    refused here, because the libraries below would quote the whole key in their exceptions.
    """
    if key is None:
        return {}
    value = key.get_secret_value().strip()
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise BotError(
            "A key or token is empty, or contains a space, a line break or a non-ASCII character: set it again."
        )
    return {"Authorization": f"Bearer {value}"}


async def send(
    http: httpx.AsyncClient,
    system: str,
    method: str,
    url: str,
    *,
    limit: Limit = LIMIT,
    what: str = "",
    follow_redirects: bool = False,
    **options: Any,
) -> httpx.Response:
    """The complete answer, with any status.

    Raises Unavailable if the connection fails, breaks or times out, and TooLarge, with the name `what`, if the answer
    exceeds `limit`. Redirects are followed here and not by httpx, which would read each body without a limit.
    """
    what = what or f"{system}'s answer"
    async with (
        within(system, limit.seconds),
        _opened(http, system, method, url, follow_redirects=follow_redirects, **options) as response,
    ):
        answer = await _read(response, system, what, limit.size)
    if answer.is_success:
        _refuse_page(system, answer.headers, answer.content[:_HEAD])
    return answer


async def status(http: httpx.AsyncClient, system: str, url: str) -> int:
    """The status of a page, whose body is not read. Raises Unavailable if there is no answer."""
    async with within(system, LIMIT.seconds), _opened(http, system, "GET", url) as response:
        return response.status_code


async def stream_lines(
    http: httpx.AsyncClient,
    system: str,
    method: str,
    url: str,
    *,
    refuse: Callable[[httpx.Response], None],
    limit: Limit = LIMIT,
    what: str = "",
    **options: Any,
) -> AsyncGenerator[str, None]:
    """The lines of a streamed answer as they arrive; `refuse` raises for an error response.

    This function limits the bytes; `within` around the loop limits the time.
    """
    what = what or f"{system}'s answer"
    async with _opened(http, system, method, url, **options) as response:
        if not response.is_success:
            refuse(await _read(response, system, what, limit.size))
        rest = b""
        first = True
        async for chunk in _decoded(response, system, what, limit.size):
            if first:
                _refuse_page(system, response.headers, chunk[:_HEAD])
                first = False
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace").rstrip("\r")
        if rest:
            yield rest.decode(errors="replace")


@asynccontextmanager
async def within(system: str, seconds: float) -> AsyncIterator[None]:
    """A deadline for a whole exchange: httpx's own timeouts restart with every byte. Raises Unavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unavailable(system, f"its answer was not complete after {seconds:g} s") from error


@asynccontextmanager
async def _opened(
    http: httpx.AsyncClient, system: str, method: str, url: str, *, follow_redirects: bool = False, **options: Any
) -> AsyncIterator[httpx.Response]:
    # Only request encodings that can be decompressed in chunks (see `_decoded`).
    headers = {"Accept-Encoding": "gzip"} | dict(options.pop("headers", None) or {})
    try:
        request = http.build_request(method, url, headers=headers, **options)
        if method != "GET":
            await going_to(f"{method} {request.url.path}")
        for _ in range(_REDIRECTS):
            response = await http.send(request, stream=True, follow_redirects=False)
            if not (follow_redirects and response.next_request):
                break
            await response.aclose()
            request = response.next_request
        else:
            raise Unavailable(system, f"it redirects more than {_REDIRECTS} times")
        try:
            yield response
        finally:
            await response.aclose()
    except httpx.RequestError as error:
        raise unreachable(system, error) from error
    except httpx.InvalidURL as error:
        raise Unavailable(system, f"it redirects to an invalid address ({error})") from error


async def _read(response: httpx.Response, system: str, what: str, size: int) -> httpx.Response:
    """The response with its whole content; the headers about its encoding are removed."""
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > size:
        raise TooLarge(what, size)
    content = b"".join([chunk async for chunk in _decoded(response, system, what, size)])
    packed = ("content-encoding", "content-length", "transfer-encoding")
    headers = [(name, text) for name, text in response.headers.multi_items() if name.lower() not in packed]
    return httpx.Response(response.status_code, headers=headers, content=content, request=response.request)


async def _decoded(response: httpx.Response, system: str, what: str, size: int) -> AsyncIterator[bytes]:
    """The decompressed content, at most one chunk at a time: a few bytes of gzip may unpack to gigabytes."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise Unavailable(system, f"it answers with the encoding {encoding[:40]}, which was not asked for")
    packed = (
        zlib.decompressobj(wbits=zlib.MAX_WBITS | 32) if encoding not in ("", "identity") else None
    )  # 32: selected by the header
    total = 0
    async for raw in response.aiter_raw(_CHUNK):
        chunk = packed.decompress(raw, _CHUNK) if packed else raw
        while chunk:
            total += len(chunk)
            if total > size:
                raise TooLarge(what, size)
            yield chunk
            chunk = packed.decompress(packed.unconsumed_tail, _CHUNK) if packed and not packed.eof else b""


def _refuse_page(system: str, headers: httpx.Headers, head: bytes) -> None:
    """Raise Unavailable for a web page with status 200, such as the login page of a proxy: it is not an empty answer."""
    if page := _page(headers, head):
        raise Unavailable(
            system,
            f"it answers with {page} instead of data. Probably a proxy or its login page answers: check the address",
        )


def _page(headers: httpx.Headers, head: bytes) -> str:
    """A description of a web page; empty for anything else. No endpoint that the bot calls returns HTML."""
    begins = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower()
    if not (
        headers.get("content-type", "").lower().startswith("text/html")
        or begins.startswith((b"<!doctype html", b"<html"))
    ):
        return ""
    title = _TITLE.search(head)
    said = " ".join(title[1].decode(errors="replace").split())[:80] if title else ""
    return f"the web page “{said}”" if said else "a web page"


def unreachable(system: str, error: httpx.RequestError) -> Unreachable:
    """The error of a failed connection: a sentence for the reader, and httpx's own text for the log."""
    said = str(error)
    log.info("no connection", system=system, error=f"{type(error).__name__}: {said}")
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(system, "it took too long")
    if re.search(r"[Nn]ame or service|name resolution|nodename|getaddrinfo", said):
        return Unreachable(system, "its host name is unknown")
    if re.search(r"certificate|SSL|TLS", said):
        return Unreachable(system, "its certificate is not trusted")
    if "location header" in said:
        return Unreachable(system, "it redirects to an invalid address")
    connected = not isinstance(error, httpx.ConnectError | httpx.ProxyError)
    return Unreachable(system, "the connection was interrupted" if connected else "no connection to it is possible")


def refuse_if_busy(system: str, response: httpx.Response, key: SecretStr | None = None) -> None:
    """Raise Unavailable for temporary statuses (429, 5xx), with the server's retry time if it sends one."""
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        answered = response.status_code == httpx.codes.INTERNAL_SERVER_ERROR  # the others are those of an outage
        raise Unavailable(system, f"{error_message(response, key)}{retry_hint(response)}", answered=answered)


def retry_hint(response: httpx.Response) -> str:
    """ ", asks to wait until …" from Retry-After or x-ratelimit-reset, or ""."""
    if after := response.headers.get("retry-after"):
        return f", asks to wait {after[:40]} s" if after.isdigit() else f", asks to wait until {after[:40]}"
    reset = response.headers.get("x-ratelimit-reset", "")
    if reset.isdecimal() and int(reset[:12]) < 2**36:
        return f", asks to wait until {time_stamp(datetime.fromtimestamp(int(reset[:12]), UTC))}"
    return ""


def parse_json(text: str | bytes) -> Any:
    """Parse external JSON. Raises ValueError if it is invalid, nested too deep or has more than a million values.

    A number that is not finite (NaN, Infinity, 1e400) becomes None, meaning unknown: Python would read it, and later
    comparisons would be wrong. Some models' config.json contain Infinity (Mamba's time_step_limit).
    """
    raw = text.encode() if isinstance(text, str) else text
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _ITEMS:
        raise ValueError(f"more than {_ITEMS} values")
    try:
        return json.loads(raw, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def decoded(system: str, response: httpx.Response) -> Any:
    """The JSON of an answer; raises Unavailable if it has none."""
    try:
        return parse_json(response.content)
    except ValueError as error:
        raise Unavailable(system, "its answer is not JSON") from error


def body(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty if it contains anything else."""
    try:
        value = parse_json(response.content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def count(value: object, most: int = 2**53) -> int:
    """A count in an answer; 0 for anything that is not a whole number from 0 to `most`."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else 0


def error_message(response: httpx.Response, key: SecretStr | None = None) -> str:
    """The error message of an OpenAI-like API: `{"error": {"message"}}`, `{"error": "…"}`, or the status.

    The request's key is removed, because some servers quote it.
    """
    error = body(response).get("error") or body(response).get("detail")
    if isinstance(error, dict):
        error = error.get("message") or error.get("error")
    if not error:
        page = _page(response.headers, response.content[:_HEAD])
        return f"status {response.status_code}" + (f" and {page}" if page else "")
    said = str(error) if key is None else str(error).replace(key.get_secret_value().strip(), "***")
    said = _LOG_ABOVE.sub("", said) or said
    return f"{said[:500].rstrip('.')} ({response.status_code})"
