"""Everything that an operation talks to, opened in one place and closed with it."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import stamina
from aiohttp import ClientSession, ClientTimeout
from docket import Docket
from kubernetes.aio import client as k8s
from kubernetes.aio import config as k8s_config
from pydantic import SecretStr
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from bot.clients.argocd import ArgoCD
from bot.clients.cluster import Cluster
from bot.clients.github import GitHub
from bot.clients.github_app import AppToken
from bot.clients.http import guarded_session, only
from bot.clients.huggingface import HuggingFace
from bot.clients.job import Jobs
from bot.clients.litellm import LiteLLM
from bot.clients.prometheus import Prometheus
from bot.clients.redis import AnyRedis, Password, for_docket, opened
from bot.clients.vllm import VLLM
from bot.errors import Unavailable
from bot.gitops import Repository
from bot.lease import Leases
from bot.metrics import Metrics
from bot.policy import People
from bot.sessions import Sessions
from bot.settings import ClusterSettings, Config, SecretRef, Settings, SettingsError
from bot.slack import Slack
from bot.store import Store

_REDIS_WITHIN = 45.0
"""Seconds that Redis may take at the start; the chart's startup probe waits for 60."""

Token = Callable[[], Awaitable[SecretStr]]


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Services:
    settings: Settings
    config: Config
    clock: Callable[[], datetime]
    docket: Docket
    store: Store
    metrics: Metrics
    leases: Leases
    sessions: Sessions
    slack: Slack
    argocd: ArgoCD
    cluster: Cluster
    jobs: Jobs
    vllm: VLLM
    prometheus: Prometheus | None
    litellm: LiteLLM
    hub: HuggingFace
    github: GitHub
    repository: Repository

    async def people(self) -> People:
        """Who is in which role now: user groups are asked anew, so a removed approver is one no more."""
        roles = self.config.roles
        return People(
            requesters=await self.slack.members(roles.requesters),
            approvers=await self.slack.members(roles.approvers),
            admins=await self.slack.members(roles.admins),
        )

    async def secret(self, ref: SecretRef) -> SecretStr:
        return await self.cluster.secret(ref.name, ref.field, namespace=ref.namespace)


_current: ContextVar[Services] = ContextVar("services")


def services() -> Services:
    """The services of the running bot, for docket's `Depends`."""
    return _current.get()


@asynccontextmanager
async def open_services(settings: Settings, redis_url: str) -> AsyncIterator[Services]:
    """Open every client; nothing is asked of the other side yet, but Redis."""
    config = settings.config
    async with AsyncExitStack() as stack:
        redis = await open_redis(settings, redis_url, stack)
        metrics = Metrics()
        store = Store(redis, audit_kept=config.audit.keep, observe=metrics.observe)
        await _answering(store)
        docket = await stack.enter_async_context(
            Docket(
                name="stoker",
                url=for_docket(redis_url),
                heartbeat_interval=timedelta(seconds=1),
                credential_provider=redis_password(settings),
            )
        )
        trusted = httpx.create_ssl_context()  # one for both: each holds every certificate authority, almost a MiB
        http = await stack.enter_async_context(platform_http(settings, trusted))
        api = await open_kubernetes(settings, stack)
        slack = Slack(await open_slack(settings, stack), store, update_every=config.slack.update_every)
        stack.push_async_callback(slack.close)
        cluster = Cluster(api, config.platform.namespace)
        hosted = await stack.enter_async_context(github_http(settings, trusted))
        token = github_token(settings, hosted)

        async def master_key() -> SecretStr:
            ref = config.litellm.master_key
            return await cluster.secret(ref.name, ref.field, namespace=ref.namespace)

        svc = Services(
            settings=settings,
            config=config,
            clock=now,
            docket=docket,
            store=store,
            metrics=metrics,
            leases=Leases(redis, config.gpu.slots),
            sessions=Sessions(redis, kept=config.gpu.history),
            slack=slack,
            argocd=ArgoCD(api, config.argocd.namespace),
            cluster=cluster,
            jobs=Jobs(api, config.platform.namespace),
            vllm=VLLM(http, settings.vllm_url_template),
            prometheus=Prometheus(http, settings.prometheus_url) if settings.prometheus_url else None,
            litellm=LiteLLM(http, settings.litellm_url, master_key),
            hub=HuggingFace(http, settings.hf_endpoint, partial(settings.current, "hf_token")),
            github=GitHub(hosted, settings.github_repository, token),
            repository=repository(settings, token),
        )
        reset = _current.set(svc)
        stack.callback(_current.reset, reset)
        yield svc


def platform_http(settings: Settings, trusted: ssl.SSLContext | bool = True) -> httpx.AsyncClient:
    """For the gateway, the models, Prometheus and the Hub, and for no other host; the Hub's files may come from its own network."""
    hosts = [settings.litellm_url, settings.vllm_url_template, settings.hf_endpoint, "https://.hf.co"]
    hosts += [settings.prometheus_url] if settings.prometheus_url else []
    return httpx.AsyncClient(
        timeout=httpx.Timeout(30, connect=5), event_hooks={"request": [only(*hosts)]}, verify=trusted
    )


def github_http(settings: Settings, trusted: ssl.SSLContext | bool = True) -> httpx.AsyncClient:
    """For GitHub's API, and for no other host."""
    address = settings.github_api_url
    return httpx.AsyncClient(base_url=address, timeout=30, event_hooks={"request": [only(address)]}, verify=trusted)


async def open_slack(settings: Settings, stack: AsyncExitStack) -> AsyncWebClient:
    """Slack's Web API and the hosts that it gives files to, and no other host. Its calls share their connections."""
    # Also behind a proxy of one's own, Slack names files.slack.com for an upload.
    hosts = [f"https://.{urlsplit(settings.slack_api_url).hostname}", "https://.slack.com", "https://.slack-gov.com"]
    session = ClientSession(timeout=ClientTimeout(total=30), **guarded_session(*hosts))
    return AsyncWebClient(
        session=await stack.enter_async_context(session),
        token=settings.slack_bot_token.get_secret_value(),
        base_url=settings.slack_api_url,
        retry_handlers=[AsyncRateLimitErrorRetryHandler(max_retry_count=3)],
    )


def redis_password(settings: Settings) -> Password | None:
    """How connections ask for the password, where it is not in the address."""
    return Password(lambda: settings.current("redis_password")) if settings.redis_password else None


async def open_redis(settings: Settings, url: str, stack: AsyncExitStack) -> AnyRedis:
    try:
        return await stack.enter_async_context(opened(url, redis_password(settings)))
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from error


async def _answering(store: Store) -> None:
    """Wait until Redis answers: on a new installation its volume is being made; SettingsError when it takes too long."""
    try:
        async for attempt in stamina.retry_context(on=Unavailable, attempts=None, timeout=_REDIS_WITHIN, wait_max=3):
            with attempt:
                await store.ping()
    except Unavailable as error:
        raise SettingsError(
            f"REDIS_URL: {error}. Check that it runs there, and that the network lets the bot out."
        ) from error


async def open_kubernetes(settings: ClusterSettings, stack: AsyncExitStack) -> k8s.ApiClient:
    """SettingsError when the kubeconfig, or the pod's own account, cannot be read."""
    return await stack.enter_async_context(k8s.ApiClient(await _kubernetes(settings)))


def github_token(settings: Settings, http: httpx.AsyncClient) -> Token:
    """Who the bot is at GitHub: an App, whose tokens live for an hour, or a token that is read anew each time."""
    if settings.github_app_id:
        key = partial(settings.current, "github_app_private_key")
        return AppToken(http, settings.github_app_id, settings.github_app_installation_id, key)

    async def token() -> SecretStr:
        found = settings.current("github_token")
        if found is None:
            raise SettingsError("Neither GITHUB_TOKEN nor a GitHub App is set, so no pull request can be opened.")
        return found

    return token


def repository(settings: Settings, token: Token) -> Repository:
    async def credentials() -> SecretStr | None:
        return await token() if settings.github_app_id else settings.current("github_token")

    config = settings.config
    settings.stoker_data_dir.mkdir(parents=True, exist_ok=True)
    return Repository(
        settings.stoker_data_dir / "mirror.git",
        settings.remote,
        config.platform.branch,
        credentials,
        f"{config.github.author_name} <{config.github.author_email}>",
    )


async def _kubernetes(settings: ClusterSettings) -> k8s.Configuration:
    configuration = k8s.Configuration(connection_pool_maxsize=0)  # any number: each operation has watches of its own
    if settings.kubeconfig and not Path(settings.kubeconfig).is_file():  # noqa: ASYNC240  # once, before all else
        raise SettingsError(f"KUBECONFIG names {settings.kubeconfig}, and there is no such file.")
    try:
        if settings.kubeconfig:
            await k8s_config.load_kube_config(config_file=settings.kubeconfig, client_configuration=configuration)
        else:
            k8s_config.load_incluster_config(client_configuration=configuration)
    except (k8s_config.ConfigException, OSError) as error:
        where = (
            f"KUBECONFIG ({settings.kubeconfig})" if settings.kubeconfig else "KUBECONFIG is not set, and in-cluster"
        )
        raise SettingsError(f"{where}: {error}") from error
    configuration.client_session_kwargs = guarded_session(configuration.host)
    return configuration
