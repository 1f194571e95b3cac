"""Opens every client and every record, and closes them together."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import stamina
import structlog
from aiohttp import ClientSession, ClientTimeout
from docket import Docket
from kubernetes.aio import client as k8s
from kubernetes.aio import config as k8s_config
from pydantic import SecretStr
from slack_sdk.web.async_client import AsyncWebClient

from bot.clients.argocd import ArgoCD
from bot.clients.cluster import Cluster
from bot.clients.deployer import Deployer
from bot.clients.flux import Flux, Includes
from bot.clients.github import GitHub
from bot.clients.github_app import AppToken
from bot.clients.http import OpenedAtFirstRequest, Trusted, guarded_session, restrict_to
from bot.clients.huggingface import FILE_HOSTS, HuggingFace
from bot.clients.job import Jobs
from bot.clients.litellm import LiteLLM
from bot.clients.payloads import DataDocket
from bot.clients.prometheus import Prometheus
from bot.clients.redis import AnyRedis, Password, for_docket, opened
from bot.clients.rights import ENGINE_KEY, MASTER_KEY
from bot.clients.staging import Stager
from bot.clients.vllm import VLLM
from bot.clock import Clock
from bot.errors import BotError, Unavailable
from bot.git.repository import Repository
from bot.observability.metrics import Metrics
from bot.settings.config import Config, SettingsError
from bot.settings.environment import ClusterSettings, Settings, store_own, with_own
from bot.settings.of_repository import Installed
from bot.slack.directory import Directory
from bot.slack.presentation import Presentation
from bot.slack.roles import RoleMembers
from bot.slack.web_api import CleanWebClient, Patience, Slack
from bot.state.alerts import Alerts
from bot.state.aliases import RuntimeAliases
from bot.state.audit import AuditLog
from bot.state.bills import Bills
from bot.state.cards import Cards
from bot.state.deliveries import Deliveries
from bot.state.endpoint_history import EndpointHistory
from bot.state.home import HomeState
from bot.state.leases import Leases
from bot.state.messages import Messages
from bot.state.operations import Operations
from bot.state.outbox import Outbox
from bot.state.questions import Questions
from bot.state.records import Records
from bot.state.sessions import Sessions
from bot.state.setup import SetupState
from bot.state.step_ledger import StepLedger
from bot.state.task_starts import TaskStarts

log = structlog.get_logger(__name__)

_REDIS_TIMEOUT = 45.0
"""Maximum seconds to wait for Redis at the start; the chart's startup probe waits for 60."""

Token = Callable[[], Awaitable[SecretStr]]


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, eq=False)
class Stores:
    """The records in Redis."""

    records: Records
    operations: Operations
    steps: StepLedger
    task_starts: TaskStarts
    audit: AuditLog
    leases: Leases
    sessions: Sessions
    bills: Bills
    questions: Questions
    alerts: Alerts
    aliases: RuntimeAliases
    endpoint_history: EndpointHistory
    home: HomeState
    setup: SetupState
    messages: Messages
    deliveries: Deliveries


@dataclass(frozen=True, eq=False)
class Clients:
    """The clients of the systems around the bot, except Redis and Slack."""

    deployer: Deployer
    cluster: Cluster
    jobs: Jobs
    stager: Stager
    vllm: VLLM
    prometheus: Prometheus | None
    litellm: LiteLLM
    hub: HuggingFace
    github: GitHub
    repository: Repository


@dataclass(frozen=True, eq=False)
class Services(Stores, Clients):
    """Every client and every record of one running bot."""

    settings: Settings
    config: Config
    installed: Installed
    clock: Clock
    docket: Docket
    metrics: Metrics
    slack: Slack
    directory: Directory
    roles: RoleMembers
    presentation: Presentation


async def learn_secrets(cluster: Cluster, config: Config) -> None:
    """Read the cluster's secrets, so that they are removed from the bot's output; for example, a log may quote them."""
    for access, ref in ((ENGINE_KEY, config.vllm.api_key), (MASTER_KEY, config.litellm.master_key)):
        if ref.namespace:
            with suppress(BotError, Unavailable):
                await cluster.secret(access, ref)


@asynccontextmanager
async def open_services(settings: Settings, redis_url: str) -> AsyncIterator[Services]:
    """Open every client. This connects only to Redis. `settings` take precedence over the settings in the
    `.stoker.yaml` that is in use.
    """
    installed, clock = Installed(settings.config), settings.clock
    async with AsyncExitStack() as stack:
        redis = await open_redis(settings, redis_url, stack)
        await _wait_for_redis(Records(redis))
        settings = await _with_own(settings, SetupState(redis))
        config, metrics = settings.config, Metrics()
        stores = stores_of(redis, config, clock, metrics)
        docket = await stack.enter_async_context(docket_of(settings, redis_url))
        clients = await open_clients(settings, stack)
        slack_client = await open_slack(settings, stack)
        slack = Slack(slack_client, stores.messages, clock, clients.cluster.whereabouts.of)
        directory = Directory(slack_client)
        presentation = Presentation(
            slack,
            stores.operations,
            stores.audit,
            stores.messages,
            stores.steps,
            Outbox(redis),
            stores.questions,
            Cards(redis),
            config,
            clock,
        )
        stack.push_async_callback(presentation.close)
        yield Services(
            **vars(stores),
            **vars(clients),
            settings=settings,
            config=config,
            installed=installed,
            clock=clock,
            docket=docket,
            metrics=metrics,
            slack=slack,
            directory=directory,
            roles=RoleMembers(slack, directory, config),
            presentation=presentation,
        )


def stores_of(redis: AnyRedis, config: Config, clock: Clock, metrics: Metrics) -> Stores:
    """The records in this Redis."""
    return Stores(
        records=Records(redis),
        operations=Operations(redis, audit_kept=config.audit.keep, observe=metrics.observe),
        steps=StepLedger(redis, clock),
        task_starts=TaskStarts(redis),
        audit=AuditLog(redis),
        leases=Leases(redis, config.gpu.slots),
        sessions=Sessions(redis),
        bills=Bills(redis, kept=config.gpu.history),
        questions=Questions(redis),
        alerts=Alerts(redis),
        aliases=RuntimeAliases(redis),
        endpoint_history=EndpointHistory(redis),
        home=HomeState(redis),
        setup=SetupState(redis),
        messages=Messages(redis),
        deliveries=Deliveries(redis),
    )


def docket_of(settings: Settings, redis_url: str) -> DataDocket:
    """The queue of tasks. A worker renews its hold every second, so that another worker soon takes over after a crash."""
    return DataDocket(
        settings.clock,
        name="stoker",
        url=for_docket(redis_url),
        heartbeat_interval=timedelta(seconds=1),
        credential_provider=redis_password(settings),
    )


async def open_clients(settings: Settings, stack: AsyncExitStack) -> Clients:
    """Open the clients of Kubernetes, the deployer, the models, the gateway, Hugging Face and GitHub."""
    config = settings.config
    # The clients share one TLS context, because each context needs almost 1 MiB for the certificate authorities.
    trusted = cache(httpx.create_ssl_context)
    http = await stack.enter_async_context(platform_http(settings, trusted))
    hub = await stack.enter_async_context(hub_http(settings, trusted))
    hosted = await stack.enter_async_context(github_http(settings, trusted))
    api = await open_kubernetes(settings, stack)
    cluster = cluster_of(api, config)
    token = github_token(settings, hosted)
    git = repository(settings, token)

    async def master_key() -> SecretStr:
        return await cluster.secret(MASTER_KEY, config.litellm.master_key)

    return Clients(
        deployer=deployer_of(api, config, settings.github_repository, git.includes),
        cluster=cluster,
        jobs=Jobs(api, cluster.whereabouts),
        stager=Stager(api, cluster.whereabouts, settings.clock),
        vllm=VLLM(http, settings.vllm_url_template),
        prometheus=Prometheus(http, settings.prometheus_url) if settings.prometheus_url else None,
        litellm=LiteLLM(http, settings.litellm_url, master_key),
        hub=HuggingFace(hub, settings.hf_endpoint, partial(settings.current, "hf_token")),
        github=GitHub(hosted, settings.github_repository, token),
        repository=git,
    )


async def _with_own(settings: Settings, setup: SetupState) -> Settings:
    """Add the settings of the `.stoker.yaml` that is in use. An invalid file is ignored, because the bot must be able to
    start and to stop costs.

    A copy is stored in the data directory for the commands `stoker doctor`, `stoker rights` and `stoker gpu`.
    """
    used = await setup.in_use()
    text = used.text if used else ""
    installed = settings
    try:
        settings = with_own(installed, text)
    except SettingsError as error:
        log.error("settings of the repository not used", error=str(error))
        text = ""
    store_own(installed.stoker_data_dir, text)
    return settings


def platform_http(settings: Settings, trusted: Trusted = httpx.create_ssl_context) -> httpx.AsyncClient:
    """A client that connects only to the gateway, the models and Prometheus."""
    hosts = [settings.litellm_url, settings.vllm_url_template]
    hosts += [settings.prometheus_url] if settings.prometheus_url else []
    return httpx.AsyncClient(
        timeout=httpx.Timeout(30, connect=5),
        event_hooks={"request": [restrict_to(*hosts)]},
        transport=OpenedAtFirstRequest(trusted),
    )


def hub_http(settings: Settings, trusted: Trusted = httpx.create_ssl_context) -> httpx.AsyncClient:
    """A client that connects only to the Hub and its file hosts, so that a redirect cannot reach the cluster."""
    hosts = [settings.hf_endpoint, *FILE_HOSTS, *settings.hf_file_hosts.split()]
    return httpx.AsyncClient(
        timeout=httpx.Timeout(30, connect=5),
        event_hooks={"request": [restrict_to(*hosts)]},
        transport=OpenedAtFirstRequest(trusted),
    )


def github_http(settings: Settings, trusted: Trusted = httpx.create_ssl_context) -> httpx.AsyncClient:
    """A client that connects only to GitHub's API."""
    address = settings.github_api_url
    return httpx.AsyncClient(
        base_url=address,
        timeout=30,
        event_hooks={"request": [restrict_to(address)]},
        transport=OpenedAtFirstRequest(trusted),
    )


async def open_slack(settings: Settings, stack: AsyncExitStack) -> AsyncWebClient:
    """A client that connects only to Slack's Web API and its file hosts. Its calls share connections."""
    # Slack returns files.slack.com for an upload even if SLACK_API_URL is a proxy.
    hosts = [f"https://.{urlsplit(settings.slack_api_url).hostname}", "https://.slack.com", "https://.slack-gov.com"]
    session = ClientSession(timeout=ClientTimeout(total=30), **guarded_session(*hosts))
    return CleanWebClient(
        session=await stack.enter_async_context(session),
        token=settings.slack_bot_token.get_secret_value(),
        base_url=settings.slack_api_url,
        retry_handlers=[Patience(max_retry_count=3)],
    )


def redis_password(settings: Settings) -> Password | None:
    """The password of Redis, which each connection reads again; None if it is in the URL."""
    return Password(lambda: settings.current("redis_password")) if settings.redis_password else None


async def open_redis(settings: Settings, url: str, stack: AsyncExitStack) -> AnyRedis:
    """Open the client of Redis. Raises SettingsError if the URL is invalid."""
    try:
        return await stack.enter_async_context(opened(url, redis_password(settings)))
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from error


async def _wait_for_redis(records: Records) -> None:
    """Wait until Redis answers, because in a new installation its volume may not exist yet.
    Raises SettingsError after a timeout.
    """
    try:
        async for attempt in stamina.retry_context(on=Unavailable, attempts=None, timeout=_REDIS_TIMEOUT, wait_max=3):
            with attempt:
                await records.ping()
    except Unavailable as error:
        raise SettingsError(
            f"REDIS_URL: {error}. Check that Redis runs at this address, and that the network policy allows the connection."
        ) from error


async def open_kubernetes(settings: ClusterSettings, stack: AsyncExitStack) -> k8s.ApiClient:
    """Open the client of Kubernetes. Raises SettingsError if the kubeconfig or the service account cannot be read."""
    return await stack.enter_async_context(k8s.ApiClient(await _kubernetes(settings)))


def cluster_of(api: k8s.ApiClient, config: Config) -> Cluster:
    """The client for the models in the namespaces of the settings."""
    layout = config.platform
    return Cluster(api, layout.namespace, *layout.namespaces, more_gpus=layout.gpu_resources, beside=config.gpu.beside)


def deployer_of(api: k8s.ApiClient, config: Config, repository: str, includes: Includes) -> Deployer:
    """The client of Flux if its namespace is set, otherwise that of Argo CD."""
    if config.flux.namespace:
        serving = (config.platform.namespace, *config.platform.namespaces)
        return Flux(api, config.flux.namespace, serving, includes)
    return ArgoCD(api, config.argocd.namespace, repository)


def github_token(settings: Settings, http: httpx.AsyncClient) -> Token:
    """The source of the bot's GitHub token: an App, whose tokens expire after an hour, or GITHUB_TOKEN, which is read at
    each use.
    """
    if settings.github_app_id:
        key = partial(settings.current, "github_app_private_key")
        return AppToken(http, settings.github_app_id, settings.github_app_installation_id, key)

    async def token() -> SecretStr:
        value = settings.current("github_token")
        if value is None:
            raise SettingsError("Neither GITHUB_TOKEN nor a GitHub App is set, so no pull request can be opened.")
        return value

    return token


def repository(settings: Settings, token: Token) -> Repository:
    """The platform repository, with its mirror in the data directory."""

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
        settings.github_repository,
    )


async def _kubernetes(settings: ClusterSettings) -> k8s.Configuration:
    configuration = k8s.Configuration(connection_pool_maxsize=0)  # 0 is unlimited: each operation has its own watches
    if settings.kubeconfig and not Path(settings.kubeconfig).is_file():  # noqa: ASYNC240  # once, at the start
        raise SettingsError(f"KUBECONFIG is {settings.kubeconfig}, which does not exist.")
    try:
        if settings.kubeconfig:
            await k8s_config.load_kube_config(config_file=settings.kubeconfig, client_configuration=configuration)
        else:
            k8s_config.load_incluster_config(client_configuration=configuration)
    except (k8s_config.ConfigException, OSError) as error:
        source = (
            f"KUBECONFIG ({settings.kubeconfig})"
            if settings.kubeconfig
            else "KUBECONFIG is not set, and there is no service account"
        )
        raise SettingsError(f"{source}: {error}") from error
    configuration.client_session_kwargs = guarded_session(configuration.host)
    return configuration
