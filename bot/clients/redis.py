"""Connect to Redis with any kind of address, and read its durability settings, which must be safe for leases.

The addresses have the same format as docket's, so that one setting is enough: `redis://` and `rediss://` (TLS) for one
server, `redis+sentinel://` and `rediss+sentinel://` for a primary behind Sentinels, `redis+cluster://` and
`rediss+cluster://` for a cluster, `unix://` for a socket. A password that is not in the address is read at each new
connection, so that it can be rotated.
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
_CONNECTION_OPTIONS: dict[str, Any] = {
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    # After a restart of the server, every pooled connection is closed, and redis-py detects this for one connection per
    # command. All of Stoker's writes are idempotent scripts, so they can be retried.
    "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3, supported_errors=(ConnectionLost,)),
}

_MAX_POOLED = 64
"""Maximum connections to one server; further commands wait for a connection."""
_MAX_CONNECTIONS = 1000
"""Maximum connections in a pool that raises an error if all are in use, instead of waiting; redis-py's default is 100."""

AnyRedis = Redis | RedisCluster


class Password(CredentialProvider):
    """Provides the current password to redis-py at each new connection."""

    def __init__(self, current: Callable[[], SecretStr | None]) -> None:
        self._current = current

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._current()
        return (password.get_secret_value() if password else "",)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the credentials. Without this method, redis-py logs a warning at each connection."""
        return self.get_credentials()


class Durability(BaseModel, frozen=True, defer_build=True):
    """The persistence settings of the server. A field is None if it is unknown, because some managed servers hide it."""

    version: str
    appends: bool | None
    last_write_ok: bool | None
    evicts: str | None
    """The eviction policy. With any policy other than `noeviction`, Redis may evict a lease."""


@asynccontextmanager
async def opened(url: str, password: CredentialProvider | None = None) -> AsyncIterator[AnyRedis]:
    """Open a client for the address, and close it on exit. Raises ValueError if the address is incomplete."""
    scheme, _, address = url.partition("://")
    kind, _, topology = scheme.partition("+")
    options: dict[str, Any] = {"credential_provider": password} if password else {}
    async with AsyncExitStack() as stack:
        redis: AnyRedis
        if topology == "sentinel":
            redis = _sentinel_client(address, stack, tls=kind == "rediss", password=password)
        elif topology == "cluster":
            redis = RedisCluster.from_url(
                f"{kind}://{address}", max_connections=_MAX_CONNECTIONS, **_CONNECTION_OPTIONS, **options
            )
        else:
            wait = _CONNECTION_OPTIONS["socket_timeout"]
            pool = BlockingConnectionPool.from_url(
                url, max_connections=_MAX_POOLED, timeout=wait, **_CONNECTION_OPTIONS, **options
            )
            redis = Redis.from_pool(pool)
        stack.push_async_callback(redis.aclose)
        yield redis


def for_docket(url: str) -> str:
    """Add connection options to the address for docket, which has no other way to set them.

    docket's pool keeps connections that a restarted server has closed. Without a retry, its worker stops at each of
    them, and a task that it has just taken is delayed until its redelivery. A hundred running operations also need more
    than a hundred connections.
    """
    # Clients for Sentinels and clusters already retry.
    words = [] if "+" in url.partition("://")[0] else ["retry_on_timeout=true"]
    return f"{url}{'&' if '?' in url else '?'}{'&'.join([*words, f'max_connections={_MAX_CONNECTIONS}'])}"


def _sentinel_client(address: str, stack: AsyncExitStack, *, tls: bool, password: CredentialProvider | None) -> Redis:
    """A client for the primary behind Sentinels. It asks the Sentinels for the primary's address at each connection."""
    netloc, _, tail = address.partition("/")
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
    credentials: dict[str, Any] = {"credential_provider": password} if password else {}
    if secret:
        credentials = {"username": unquote(user) or None, "password": unquote(secret)}
    sentinel_options = {
        "username": query.get("sentinel_username"),
        "password": query.get("sentinel_password"),
        "max_connections": _MAX_CONNECTIONS,
        **_CONNECTION_OPTIONS,
        **tls_options,
    }
    sentinel = Sentinel([_host(host) for host in hosts.split(",")], sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    stack.push_async_callback(sentinel.aclose)
    primary: Redis = sentinel.master_for(
        service,
        db=int(database or 0),
        max_connections=_MAX_CONNECTIONS,
        **_CONNECTION_OPTIONS,
        **tls_options,
        **credentials,
    )
    return primary


def _host(text: str) -> tuple[str, int]:
    parsed = urlsplit(f"redis://{text.strip()}")
    if not parsed.hostname:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return parsed.hostname, parsed.port or _SENTINEL_PORT


async def durability(redis: AnyRedis) -> Durability:
    """Read the server's durability settings; raises Unavailable if it does not answer."""
    try:
        info = await redis.info()
        if isinstance(redis, RedisCluster):
            info = next(iter(info.values())) if info and isinstance(next(iter(info.values())), dict) else info
    except ResponseError:  # an account without permission (NOPERM), or a server that has renamed the command
        return Durability(version="", appends=None, last_write_ok=None, evicts=None)
    except (RedisError, OSError) as error:
        raise Unavailable("Redis", str(error)) from error
    flag = info.get("aof_enabled")
    wrote = info.get("aof_last_write_status")
    return Durability(
        version=str(info.get("redis_version", "")),
        appends=None if flag is None else bool(int(flag)),
        last_write_ok=None if wrote is None else wrote == "ok",
        evicts=info.get("maxmemory_policy"),
    )
