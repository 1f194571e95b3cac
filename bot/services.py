"""Everything that an operation talks to, opened in one place and closed with it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from docket import Docket
from kubernetes.aio import client as k8s
from kubernetes.aio import config as k8s_config
from pydantic import SecretStr
from redis.asyncio import Redis
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from bot.clients.argocd import ArgoCD
from bot.clients.cluster import Cluster
from bot.clients.github import GitHub
from bot.clients.huggingface import HuggingFace
from bot.clients.litellm import LiteLLM
from bot.clients.vllm import VLLM
from bot.gitops import Repository
from bot.lease import Leases
from bot.policy import People
from bot.sessions import Sessions
from bot.settings import Config, SecretRef, Settings, SettingsError
from bot.slack import Slack
from bot.store import Store


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Services:
    settings: Settings
    config: Config
    clock: Callable[[], datetime]
    docket: Docket
    store: Store
    leases: Leases
    sessions: Sessions
    slack: Slack
    argocd: ArgoCD
    cluster: Cluster
    vllm: VLLM
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
        redis = Redis.from_url(redis_url, socket_timeout=5, socket_connect_timeout=3)
        stack.push_async_callback(redis.aclose)
        docket = await stack.enter_async_context(
            Docket(name="stoker", url=redis_url, heartbeat_interval=timedelta(seconds=1))
        )
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=httpx.Timeout(30, connect=5)))
        api = await stack.enter_async_context(k8s.ApiClient(await _kubernetes(settings)))
        store = Store(redis)
        web = AsyncWebClient(
            token=settings.slack_bot_token.get_secret_value(),
            base_url=settings.slack_api_url,
            retry_handlers=[AsyncRateLimitErrorRetryHandler(max_retry_count=3)],
        )
        slack = Slack(web, store, update_every=config.slack.update_every)
        stack.push_async_callback(slack.close)
        cluster = Cluster(api, config.platform.namespace)

        async def git_token() -> SecretStr | None:
            return settings.current("github_token")

        async def token() -> SecretStr:
            found = await git_token()
            if found is None:
                raise SettingsError("GITHUB_TOKEN is not set, so no pull request can be opened.")
            return found

        async def master_key() -> SecretStr:
            ref = config.litellm.master_key
            return await cluster.secret(ref.name, ref.field, namespace=ref.namespace)

        settings.stoker_data_dir.mkdir(parents=True, exist_ok=True)
        svc = Services(
            settings=settings,
            config=config,
            clock=now,
            docket=docket,
            store=store,
            leases=Leases(redis, config.gpu.slots),
            sessions=Sessions(redis, kept=config.gpu.history),
            slack=slack,
            argocd=ArgoCD(api, config.argocd.namespace),
            cluster=cluster,
            vllm=VLLM(http, settings.vllm_url_template),
            litellm=LiteLLM(http, settings.litellm_url, master_key),
            hub=HuggingFace(http, settings.hf_endpoint, settings.hf_token),
            github=GitHub(
                await stack.enter_async_context(httpx.AsyncClient(base_url=settings.github_api_url, timeout=30)),
                settings.github_repository,
                token,
            ),
            repository=Repository(
                settings.stoker_data_dir / "mirror.git",
                settings.remote,
                config.platform.branch,
                git_token,
                f"{config.github.author_name} <{config.github.author_email}>",
            ),
        )
        reset = _current.set(svc)
        stack.callback(_current.reset, reset)
        yield svc


async def _kubernetes(settings: Settings) -> k8s.Configuration:
    configuration = k8s.Configuration()
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
    return configuration
