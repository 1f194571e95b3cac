"""Connect to Redis with any kind of address, and check whether it is safe for leases.

The addresses have docket's format, so that one setting serves both: `redis://` and `rediss://` (TLS) for one server,
`redis+sentinel://` and `rediss+sentinel://` for a primary behind Sentinels, `redis+cluster://` and `rediss+cluster://`
for a cluster, `unix://` for a socket. A password that is not in the address is read at each new connection, so that it
can be rotated.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError, ResponseError

import bot.cancellation  # noqa: F401  # redis-py needs this fix
from bot.errors import Unavailable

_SENTINEL_PORT = 26379
_TIMES: dict[str, Any] = {
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    # A restarted server has closed every pooled connection, and redis-py detects that one command at a time. All of
    # Stoker's writes are idempotent scripts, so a retry changes nothing.
    "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3, supported_errors=(ConnectionLost,)),
}

_AT_ONCE = 64
"""Maximum connections to one server; further requests wait."""
_MOST = 1000
"""Maximum connections if redis-py refuses further ones instead of waiting; its default is 100."""

AnyRedis = Redis | RedisCluster


class Password(CredentialProvider):
    """The current password; redis-py requests it at each new connection."""

    def __init__(self, current: Callable[[], SecretStr | None]) -> None:
        self._current = current

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._current()
        return (password.get_secret_value() if password else "",)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the same; without this method, redis-py logs a warning at each connection."""
        return self.get_credentials()


class Durability(BaseModel, frozen=True, defer_build=True):
    """The persistence settings of the server. None if unknown (some managed servers hide them)."""

    version: str
    appends: bool | None
    last_write_ok: bool | None
    evicts: str | None
    """Its eviction policy; anything but `noeviction` may evict a lease."""


@asynccontextmanager
async def opened(url: str, password: CredentialProvider | None = None) -> AsyncIterator[AnyRedis]:
    """A client for the address; sends nothing yet. Raises ValueError if the address is incomplete."""
    scheme, _, rest = url.partition("://")
    kind, _, how = scheme.partition("+")
    options: dict[str, Any] = {"credential_provider": password} if password else {}
    async with AsyncExitStack() as stack:
        redis: AnyRedis
        if how == "sentinel":
            redis = _watched(rest, stack, tls=kind == "rediss", password=password)
        elif how == "cluster":
            redis = RedisCluster.from_url(f"{kind}://{rest}", max_connections=_MOST, **_TIMES, **options)
        else:
            wait = _TIMES["socket_timeout"]
            pool = BlockingConnectionPool.from_url(url, max_connections=_AT_ONCE, timeout=wait, **_TIMES, **options)
            redis = Redis.from_pool(pool)
        stack.push_async_callback(redis.aclose)
        yield redis


def for_docket(url: str) -> str:
    """The address with connection options for docket, which only accepts an address.

    Its pool keeps connections that a restarted server has closed. Without a retry its worker stops at each of them, and
    a task that it had just taken waits for its redelivery. A hundred running operations also need more than a hundred
    connections.
    """
    # Sentinels and clusters have their own retries.
    words = [] if "+" in url.partition("://")[0] else ["retry_on_timeout=true"]
    return f"{url}{'&' if '?' in url else '?'}{'&'.join([*words, f'max_connections={_MOST}'])}"


def _watched(rest: str, stack: AsyncExitStack, *, tls: bool, password: CredentialProvider | None) -> Redis:
    """A client for the primary that the Sentinels name; it asks them again at each connection."""
    netloc, _, tail = rest.partition("/")
    login, _, hosts = netloc.rpartition("@")
    path = urlsplit(f"redis://host/{tail}")
    service, _, database = path.path.strip("/").partition("/")
    if not hosts or not service:
        raise ValueError("write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DATABASE")
    query = dict(parse_qsl(path.query))
    tls_options: dict[str, Any] = {}
    if tls:
        tls_options = {"ssl": True, **{key: value for key, value in query.items() if key.startswith("ssl_")}}
    user, _, secret = login.partition(":")
    own: dict[str, Any] = {"credential_provider": password} if password else {}
    if secret:
        own = {"username": unquote(user) or None, "password": unquote(secret)}
    watchers = {
        "username": query.get("sentinel_username"),
        "password": query.get("sentinel_password"),
        "max_connections": _MOST,
        **_TIMES,
        **tls_options,
    }
    watching = Sentinel([_host(host) for host in hosts.split(",")], sentinel_kwargs=watchers)  # type: ignore[no-untyped-call]
    stack.push_async_callback(watching.aclose)
    primary: Redis = watching.master_for(
        service, db=int(database or 0), max_connections=_MOST, **_TIMES, **tls_options, **own
    )
    return primary


def _host(text: str) -> tuple[str, int]:
    parsed = urlsplit(f"redis://{text.strip()}")
    if not parsed.hostname:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return parsed.hostname, parsed.port or _SENTINEL_PORT


async def durability(redis: AnyRedis) -> Durability:
    """The server's durability settings; raises Unavailable if it does not answer."""
    try:
        said = await redis.info()
        if isinstance(redis, RedisCluster):
            said = next(iter(said.values())) if said and isinstance(next(iter(said.values())), dict) else said
    except ResponseError:  # an account without permission (NOPERM), or a server that has renamed the command
        return Durability(version="", appends=None, last_write_ok=None, evicts=None)
    except (RedisError, OSError) as error:
        raise Unavailable("Redis", str(error)) from error
    flag = said.get("aof_enabled")
    wrote = said.get("aof_last_write_status")
    return Durability(
        version=str(said.get("redis_version", "")),
        appends=None if flag is None else bool(int(flag)),
        last_write_ok=None if wrote is None else wrote == "ok",
        evicts=said.get("maxmemory_policy"),
    )
