"""Send HTTP requests with limits for the bytes and the time of each response, and map failures to Stoker's errors.

Every httpx client in this package sends through this module, so no response is read without a limit, and errors such as
broken connections, rate limits and 5xx are handled in one place. Error messages never contain a header, because a
header may contain a key.
"""

import asyncio
import json
import math
import re
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import structlog
from pydantic import SecretStr

from bot.errors import BotError, Unavailable, Unreachable
from bot.progress import going_to
from bot.text.mrkdwn import time_stamp
from manifests.frozen import frozen

if TYPE_CHECKING:
    import aiohttp  # imported late, because terminal commands start without it

log = structlog.get_logger(__name__)
MIB = 2**20
_CHUNK = 64 * 1024
_REDIRECTS = 5
_HEAD = 4096
_TITLE = re.compile(rb"<title[^>]*>([^<]*)", re.IGNORECASE)
_LOG_REFERENCE = re.compile(r" *See (?:the )?(?:stack trace|root cause)[^.]*\babove\b[^.]*(?:\.|$)")
"""vLLM's reference to earlier log lines, which are not visible in Slack."""
_PORTS = {"http": "80", "https": "443"}

_MAX_VALUES = 1_000_000
"""Maximum number of values in one JSON text. The index of a model with 91 000 tensors (DeepSeek-V3) has about 91 000
values. Each value takes at least 64 bytes in Python, so without this limit a few megabytes of `[],[],…` would fill the
memory of a small pod.
"""


@frozen
class Limit:
    """Limits of one response: bytes after decompression, and seconds from the request to the last byte."""

    size: int = 4 * MIB
    seconds: float = 30.0


LIMIT = Limit()

Trusted = Callable[[], ssl.SSLContext]
"""Function that returns a context with the certificate authorities that a client trusts."""


class TooLarge(BotError):
    """A response exceeds its limit, so it was not read completely."""

    remedy = "Check the response of the system in the message: Stoker needs no response of this size."

    def __init__(self, subject: str, size: int) -> None:
        limit_text = f"{size // MIB} MB" if size >= MIB else f"{size // 1024} KB"
        super().__init__(
            f"{subject} is larger than {limit_text}, which is more than Stoker accepts. Nothing was changed."
        )


class OpenedAtFirstRequest(httpx.AsyncBaseTransport):
    """A transport that opens its client at the first request.

    Opening a client loads httpcore and every certificate authority, which would take 7 % of the instructions of the
    start-up (benchmarks/start.py), although no request is sent before the bot is ready. The inner object is a client
    and not a transport, because only a client reads HTTPS_PROXY and NO_PROXY.
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


def restrict_to(*addresses: str) -> Callable[[httpx.Request], Awaitable[None]]:
    """Return a request hook that restricts an httpx client to these addresses (scheme, host and port), also after
    redirects.

    `{name}` in an address is a placeholder for one label of a host name, or for a port; a leading dot allows a host's
    subdomains, as in `https://.hf.co`.
    """
    allowed = re.compile("|".join(_origin(address) for address in addresses))

    async def refuse(request: httpx.Request) -> None:
        url = request.url
        if not allowed.fullmatch(f"{url.scheme}://{url.host}:{url.port or _PORTS.get(url.scheme, '')}"):
            raise _unknown_host(url.host if url.port is None else f"{url.host}:{url.port}")

    return refuse


def guarded_session(*addresses: str) -> dict[str, Any]:
    """Return the arguments for an aiohttp session of the Slack or Kubernetes library.

    The session sends nothing to other hosts, and reads at most `bounded.LARGEST` bytes of a response.
    """
    from bot.clients.bounded import BoundedResponse  # imported here, because it loads aiohttp

    allowed = re.compile("|".join(_host(urlsplit(address).hostname or "") for address in addresses))

    async def refuse(
        request: "aiohttp.ClientRequest", handler: "aiohttp.ClientHandlerType"
    ) -> "aiohttp.ClientResponse":
        if not allowed.fullmatch(request.url.host or ""):
            raise _unknown_host(request.url.host or "")
        return await handler(request)

    return {"middlewares": (refuse,), "response_class": BoundedResponse}


def _origin(address: str) -> str:
    """A regular expression for `scheme://host:port`, always with a port."""
    scheme, _, after_scheme = address.partition("://")
    netloc = re.split(r"[/?#]", after_scheme)[0].rpartition("@")[2]
    host, port = re.fullmatch(r"(.*?)(?::(\d+|\{\w+\}))?", netloc).groups()  # type: ignore[union-attr]  # matches anything
    port = port or _PORTS.get(scheme.lower(), "")
    return rf"{re.escape(scheme.lower())}://{_host(host.strip('[]').lower())}:{port if port.isdigit() else '[0-9]+'}"


def _host(host: str) -> str:
    label = re.sub(r"\\{\w+\\}", r"[a-z0-9-]+", re.escape(host.lstrip(".")))
    return rf"(?:[a-z0-9-]+\.)*{label}" if host.startswith(".") else label


def _unknown_host(host: str) -> BotError:
    return BotError(f"{host} is not one of the configured hosts, so nothing was sent.")


def bearer(key: SecretStr | None) -> dict[str, str]:
    """The Authorization header for a key; no header if there is no key.

    A trailing line break, common in files and Secrets, is removed. Other characters that a header cannot contain are
    refused here, because httpx and aiohttp would quote the whole key in their exceptions.
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
    subject: str = "",
    follow_redirects: bool = False,
    **options: Any,
) -> httpx.Response:
    """Send a request and return the complete answer, with any status.

    Raises Unavailable if the connection fails, breaks or times out, and TooLarge if the answer, which the message calls
    `subject`, exceeds `limit`. Redirects are followed here and not by httpx, which would read each body without a limit.
    """
    subject = subject or f"{system}'s answer"
    async with (
        within(system, limit.seconds),
        _open_response(http, system, method, url, follow_redirects=follow_redirects, **options) as response,
    ):
        answer = await _read(response, system, subject, limit.size)
    if answer.is_success:
        _refuse_page(system, answer.headers, answer.content[:_HEAD])
    return answer


async def status(http: httpx.AsyncClient, system: str, url: str) -> int:
    """Request a page and return its status code, without reading its body. Raises Unavailable if there is no answer."""
    async with within(system, LIMIT.seconds), _open_response(http, system, "GET", url) as response:
        return response.status_code


async def stream_lines(
    http: httpx.AsyncClient,
    system: str,
    method: str,
    url: str,
    *,
    refuse: Callable[[httpx.Response], None],
    limit: Limit = LIMIT,
    subject: str = "",
    **options: Any,
) -> AsyncGenerator[str, None]:
    """Send a request and yield the lines of the streamed answer as they arrive. `refuse` raises the exception for an
    error response.

    `limit` only limits the bytes. Use `within` around the loop to limit the time.
    """
    subject = subject or f"{system}'s answer"
    async with _open_response(http, system, method, url, **options) as response:
        if not response.is_success:
            refuse(await _read(response, system, subject, limit.size))
        partial = b""
        first = True
        async for chunk in _decompress(response, system, subject, limit.size):
            if first:
                _refuse_page(system, response.headers, chunk[:_HEAD])
                first = False
            *lines, partial = (partial + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace").rstrip("\r")
        if partial:
            yield partial.decode(errors="replace")


@asynccontextmanager
async def within(system: str, seconds: float) -> AsyncIterator[None]:
    """Raise Unavailable if the block takes longer than `seconds`. httpx's timeouts are not sufficient, because they restart
    with every byte.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unavailable(system, f"its answer was not complete after {seconds:g} s") from error


@asynccontextmanager
async def _open_response(
    http: httpx.AsyncClient, system: str, method: str, url: str, *, follow_redirects: bool = False, **options: Any
) -> AsyncIterator[httpx.Response]:
    # Only request encodings that can be decompressed in chunks (see `_decompress`).
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


async def _read(response: httpx.Response, system: str, subject: str, size: int) -> httpx.Response:
    """Read the whole content of a response. The headers about its encoding are removed."""
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > size:
        raise TooLarge(subject, size)
    content = b"".join([chunk async for chunk in _decompress(response, system, subject, size)])
    packed = ("content-encoding", "content-length", "transfer-encoding")
    headers = [(name, text) for name, text in response.headers.multi_items() if name.lower() not in packed]
    return httpx.Response(response.status_code, headers=headers, content=content, request=response.request)


async def _decompress(response: httpx.Response, system: str, subject: str, size: int) -> AsyncIterator[bytes]:
    """Yield the decompressed content in chunks of limited size, because a few bytes of gzip may unpack to gigabytes."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise Unavailable(system, f"it answers with the encoding {encoding[:40]}, which was not requested")
    # 32 lets zlib detect the format, gzip or deflate, from the header.
    packed = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32) if encoding not in ("", "identity") else None
    total = 0
    async for raw in response.aiter_raw(_CHUNK):
        chunk = packed.decompress(raw, _CHUNK) if packed else raw
        while chunk:
            total += len(chunk)
            if total > size:
                raise TooLarge(subject, size)
            yield chunk
            chunk = packed.decompress(packed.unconsumed_tail, _CHUNK) if packed and not packed.eof else b""


def _refuse_page(system: str, headers: httpx.Headers, head: bytes) -> None:
    """Raise Unavailable for a web page with status 200, such as the login page of a proxy."""
    if page := _page(headers, head):
        raise Unavailable(
            system,
            f"it answers with {page} instead of data. Probably a proxy or its login page answers: check the address",
        )


def _page(headers: httpx.Headers, head: bytes) -> str:
    """A description of the web page in a response; empty for other content. No API that the bot calls returns HTML."""
    begins = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower()
    if not (
        headers.get("content-type", "").lower().startswith("text/html")
        or begins.startswith((b"<!doctype html", b"<html"))
    ):
        return ""
    title = _TITLE.search(head)
    title_text = " ".join(title[1].decode(errors="replace").split())[:80] if title else ""
    return f"the web page “{title_text}”" if title_text else "a web page"


def unreachable(system: str, error: httpx.RequestError) -> Unreachable:
    """Return the error for a failed connection, with a sentence for people. Log httpx's own text."""
    message = str(error)
    log.info("no connection", system=system, error=f"{type(error).__name__}: {message}")
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(system, "it took too long")
    if re.search(r"[Nn]ame or service|name resolution|nodename|getaddrinfo", message):
        return Unreachable(system, "its host name is unknown")
    if re.search(r"certificate|SSL|TLS", message):
        return Unreachable(system, "its certificate is not trusted")
    if "location header" in message:
        return Unreachable(system, "it redirects to an invalid address")
    connected = not isinstance(error, httpx.ConnectError | httpx.ProxyError)
    return Unreachable(system, "the connection was interrupted" if connected else "no connection to it is possible")


def refuse_if_busy(system: str, response: httpx.Response, key: SecretStr | None = None) -> None:
    """Raise Unavailable for temporary statuses (429, 5xx), with the server's retry time if it sends one."""
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        answered = response.status_code == httpx.codes.INTERNAL_SERVER_ERROR  # other codes mean an outage
        raise Unavailable(system, f"{error_message(response, key)}{retry_hint(response)}", answered=answered)


def retry_hint(response: httpx.Response) -> str:
    """The text ", asks to wait until …" from Retry-After or x-ratelimit-reset; empty without these headers."""
    if after := response.headers.get("retry-after"):
        return f", asks to wait {after[:40]} s" if after.isdigit() else f", asks to wait until {after[:40]}"
    reset = response.headers.get("x-ratelimit-reset", "")
    if reset.isdecimal() and int(reset[:12]) < 2**36:
        return f", asks to wait until {time_stamp(datetime.fromtimestamp(int(reset[:12]), UTC))}"
    return ""


def parse_json(text: str | bytes) -> Any:
    """Parse external JSON. Raises ValueError if it is invalid, nested too deep or has more than a million values.

    A number that is not finite (NaN, Infinity, 1e400) becomes None, because comparisons with it would be wrong. The
    config.json of some models contains Infinity (Mamba's time_step_limit).
    """
    raw = text.encode() if isinstance(text, str) else text
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _MAX_VALUES:
        raise ValueError(f"more than {_MAX_VALUES} values")
    try:
        return json.loads(raw, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def decoded(system: str, response: httpx.Response) -> Any:
    """Parse the JSON of an answer; raises Unavailable if it is not JSON."""
    try:
        return parse_json(response.content)
    except ValueError as error:
        raise Unavailable(system, "its answer is not JSON") from error


def body(response: httpx.Response) -> dict[str, Any]:
    """Parse the JSON object of an answer; empty for any other content."""
    try:
        value = parse_json(response.content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def count(value: object, most: int = 2**53) -> int:
    """Return the value if it is a whole number from 0 to `most`, otherwise 0."""
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
    message = str(error) if key is None else str(error).replace(key.get_secret_value().strip(), "***")
    message = _LOG_REFERENCE.sub("", message) or message
    return f"{message[:500].rstrip('.')} ({response.status_code})"
