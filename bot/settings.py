"""Every setting, and the only reader of the environment.

Secrets and addresses come from environment variables, secrets also from the files in `STOKER_SECRETS_DIR`; policy and
layout from the YAML file named by `STOKER_CONFIG`. A wrong one stops the start with one line that names it
(`SettingsError`).
"""

import os
import re
from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bot.durations import Duration, parse_duration
from bot.errors import BotError
from bot.logs import conceal
from manifests.contract import Layout


class SettingsError(BotError):
    """A setting is missing or wrong; the message names it."""

    remedy = "Correct the setting that is named, in the environment or in the file named by STOKER_CONFIG; docs/configuration.md has them all."


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _like(pattern: str, example: str) -> AfterValidator:
    """Text of this form. What was written is not repeated: an address may hold a password."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"this is not of the form that it must have; write for example {example}")
        return value

    return AfterValidator(check)


Address = Annotated[str, _like(r"https?://[^\s/]+\S*", "https://host.example.com:8080")]
AddressOrNone = Annotated[str, _like(r"(https?://[^\s/]+\S*)?", "https://host.example.com:8080")]
RepositoryName = Annotated[str, _like(r"[\w.-]+/[\w.-]+", "acme/llm-platform")]
RedisAddress = Annotated[
    str,
    _like(r"((redis|rediss|(redis|rediss)\+(sentinel|cluster)|unix)://.+)?", "redis://redis.stoker.svc:6379/0"),
]


class SlackSection(_Section):
    channel: str = Field(default="", description="Id of the channel where operations are shown, e.g. C0123456789.")
    update_every: Duration = Field(
        default=parse_duration("3s"), description="Shortest time between two updates of one operation's message."
    )


class Roles(_Section):
    requesters: tuple[str, ...] = Field(
        default=(), description="Users (U…) and user groups (S…) who may ask; empty means everybody in the workspace."
    )
    approvers: tuple[str, ...] = Field(
        default=(), description="Users and user groups who may approve; empty means that nothing cost-gated runs."
    )
    admins: tuple[str, ...] = Field(default=(), description="Users and user groups who may cancel what others asked.")


class Approvals(_Section):
    quorum: int = Field(default=1, ge=1, description="How many different people must approve.")
    expire_after: Duration = Field(
        default=parse_duration("1h"), description="After this time without a decision the request expires."
    )
    pull_expire_after: Duration = Field(
        default=parse_duration("7d"), description="The same for the roll-out of a pull request."
    )
    self_approval: bool = Field(default=False, description="Whether one may approve one's own request.")


def _clock_span(value: object) -> object:
    """`20:00-07:00` as two times of day."""
    if not isinstance(value, str):
        return value
    begins, dash, ends = value.partition("-")
    try:
        span = time.fromisoformat(begins.strip()), time.fromisoformat(ends.strip())
    except ValueError:
        dash = ""
    if not dash or span[0] == span[1]:
        raise ValueError(f"“{value}” is no span of hours; write for example 20:00-07:00")
    return span


class LeaseLimits(_Section):
    default: Duration = Field(default=parse_duration("2h"), description="Length of a lease when `for` is not said.")
    longest: Duration = Field(default=parse_duration("8h"), description="The longest lease that can be asked for.")
    warn_before: Duration = Field(
        default=parse_duration("15m"), description="How long before its end the holder is warned."
    )
    reconcile_every: Duration = Field(
        default=parse_duration("1m"), description="How often leases, Deployments and pods are compared."
    )
    offer: Duration = Field(
        default=parse_duration("5m"), description="How long the free GPU is offered to the next in the queue."
    )
    finish_within: Duration = Field(
        default=parse_duration("2m"),
        description="How long a model that is being replaced may go on with the requests that it is answering.",
    )


class Idle(_Section):
    remind_after: Duration = Field(default=parse_duration("15m"), description="Idle time before the first reminder.")
    remind_every: Duration = Field(default=parse_duration("15m"), description="Time between two reminders.")
    down_after: Duration = Field(
        default=parse_duration("60m"), description="Idle time after which the model is brought down."
    )
    announce_before: Duration = Field(
        default=parse_duration("5m"), description="How long before that the bring-down is announced, at least."
    )
    queue_remind_after: Duration = Field(
        default=parse_duration("5m"), description="`remind_after` while somebody waits for the GPU."
    )
    queue_down_after: Duration = Field(
        default=parse_duration("15m"), description="`down_after` while somebody waits for the GPU."
    )
    quiet_hours: Annotated[tuple[time, time] | None, BeforeValidator(_clock_span)] = Field(
        default=None,
        description="Hours, e.g. `20:00-07:00`, in which a model idle for `remind_after` goes down without asking.",
    )
    quiet_days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        default=(), description="The same for whole days, e.g. `[sat, sun]`."
    )
    timezone: str = Field(default="UTC", description="Whose clock the quiet hours and days go by, e.g. Europe/Berlin.")
    sample_every: Duration = Field(default=parse_duration("30s"), description="How often the metrics are read.")
    keep: Duration = Field(default=parse_duration("1h"), description="What *Keep* buys.")
    keeps: int = Field(default=3, ge=0, description="How many times one session can be kept.")

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"“{name}” is no time zone; write for example Europe/Berlin") from error
        return name

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.down_after <= self.remind_after:
            raise ValueError("down_after must be longer than remind_after, or nobody could answer the reminder")
        if self.queue_down_after <= self.queue_remind_after:
            raise ValueError("queue_down_after must be longer than queue_remind_after")
        return self


class Gpu(_Section):
    slots: int = Field(default=1, ge=1, description="How many GPU models may run at a time.")
    price_per_hour: float = Field(default=0.85, gt=0, description="US dollars for one GPU node and hour.")
    prices: dict[str, float] = Field(
        default={}, description="The same by machine type, for those that cost something else: `g2-standard-8: 1.06`."
    )
    history: Duration = Field(
        default=parse_duration("90d"), description="How long past sessions are kept, for `/gpu report`."
    )
    name: str = Field(default="L4", description="What the GPU is called, in refusals and pull requests.")
    machine: str = Field(default="g2-standard-4", description="What its machine is called.")
    vram_mib: int = Field(default=23034, gt=0, description="Usable memory of the GPU, MiB (L4: 23034).")
    host_memory_gib: float = Field(default=16, gt=0, description="Memory of the GPU's machine, GiB.")
    boot_limit: Duration = Field(default=parse_duration("1200s"), description="Longest cold start that is waited for.")
    drain: Duration = Field(
        default=parse_duration("10m"), description="How long the node bills after the last GPU pod has gone."
    )

    def price(self, machine: str = "") -> float:
        """US dollars for an hour of this machine type (the node's label `node.kubernetes.io/instance-type`).

        Of the usual one as long as no node is known: before there is one, and where nodes may not be looked at.
        """
        return self.prices.get(machine or self.machine, self.price_per_hour)


class GitHubSection(_Section):
    poll_every: Duration = Field(
        default=parse_duration("30s"), description="How often open pull requests are looked at without a webhook."
    )
    labels: tuple[str, ...] = Field(default=("stoker",), description="Labels of the pull requests.")
    author_name: str = Field(default="Stoker", description="Author of the commits.")
    author_email: str = Field(default="stoker@users.noreply.github.com", description="Author's address.")


class ArgoSection(_Section):
    namespace: str = Field(default="argocd", description="Namespace of the Applications.")
    sync_limit: Duration = Field(default=parse_duration("5m"), description="Longest sync that is waited for.")
    group_application: str = Field(
        default="group-{group}",
        description="Name of the Application that makes and prunes those of a group; refreshed where there is one.",
    )


class SecretRef(_Section):
    namespace: str
    name: str
    field: str


class Gateway(_Section):
    application: str = Field(default="litellm", description="Name of LiteLLM's Application.")
    namespace: str = Field(default="litellm", description="Namespace of LiteLLM's Deployment.")
    deployment: str = Field(
        default="litellm",
        description="LiteLLM's Deployment, whose pods a roll-out waits for; none of that name: it does not.",
    )
    master_key: SecretRef = Field(
        default=SecretRef(namespace="litellm", name="litellm-secrets", field="PROXY_MASTER_KEY"),
        description="Where LiteLLM's master key is.",
    )
    smoke_budget: float = Field(default=0.01, gt=0, description="Budget of a smoke test's virtual key, US dollars.")


class Engine(_Section):
    api_key: SecretRef = Field(
        default=SecretRef(namespace="serving", name="vllm-api-key", field="api-key"),
        description="Where vLLM's API key is.",
    )


class Bench(_Section):
    image: str = Field(
        default="",
        description="GuideLLM's image (0.8), pinned by its digest, e.g. `ghcr.io/vllm-project/guidellm@sha256:…`; with"
        " it there is `/model bench`, and the bot's Role needs the rights on Jobs that the chart then grants.",
    )
    concurrency: tuple[Annotated[int, Field(ge=1, le=512)], ...] = Field(
        default=(1, 4, 16), min_length=1, max_length=8, description="How many requests at a time, one measurement each."
    )
    each: Duration = Field(default=parse_duration("30s"), description="How long each of them is kept up.")
    prompt_tokens: int = Field(default=256, ge=1, description="Length of the prompts, which are made up.")
    output_tokens: int = Field(default=128, ge=1, description="Length of the answers.")
    limit: Duration = Field(
        default=parse_duration("20m"),
        description="After this Kubernetes ends the Job, whose first start on a node pulls the image.",
    )

    @field_validator("image")
    @classmethod
    def _pinned(cls, image: str) -> str:
        if image and not re.fullmatch(r"[^\s@]+@sha256:[0-9a-f]{64}", image):
            raise ValueError(f"“{image}” is not pinned; write NAME@sha256: and the 64 digits of the image's digest")
        return image

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if self.limit <= self.lasts:
            raise ValueError("limit must be longer than `each` for every number in concurrency")
        return self

    @property
    def lasts(self) -> timedelta:
        """The measurements alone, without the start of the Job."""
        return len(self.concurrency) * self.each


class Audit(_Section):
    keep: Duration = Field(default=parse_duration("365d"), description="How long an entry of the audit log is kept.")


class Config(_Section):
    """Policy and layout: the YAML file named by STOKER_CONFIG."""

    slack: SlackSection = SlackSection()
    roles: Roles = Roles()
    approvals: Approvals = Approvals()
    lease: LeaseLimits = LeaseLimits()
    idle: Idle = Idle()
    gpu: Gpu = Gpu()
    github: GitHubSection = GitHubSection()
    argocd: ArgoSection = ArgoSection()
    litellm: Gateway = Gateway()
    vllm: Engine = Engine()
    bench: Bench = Bench()
    audit: Audit = Audit()
    platform: Layout = Layout()


class ClusterSettings(BaseSettings):
    """What it takes to reach the cluster and nothing else: enough to turn cost off."""

    model_config = SettingsConfigDict(env_prefix="", extra="ignore", frozen=True, env_ignore_empty=True)

    kubeconfig: str = Field(default="", description="Path of a kubeconfig; empty means in-cluster.")
    stoker_config: Path | None = Field(default=None, description="The YAML file with policy and layout.")
    config: Config = Field(default=Config(), exclude=True)


class Settings(ClusterSettings):
    """Secrets and addresses, one environment variable a field (upper case)."""

    slack_bot_token: SecretStr = Field(description="Bot token, xoxb-….")
    slack_app_token: SecretStr | None = Field(default=None, description="App-level token, xapp-…, for Socket Mode.")
    slack_signing_secret: SecretStr | None = Field(
        default=None, description="When set, Slack's requests come over HTTP, signed, at /slack/events."
    )
    slack_api_url: Address = Field(default="https://slack.com/api/", description="Base of Slack's Web API.")
    github_token: SecretStr | None = Field(default=None, description="Token with contents and pull requests: write.")
    github_app_id: str = Field(default="", description="Id of a GitHub App, instead of GITHUB_TOKEN.")
    github_app_private_key: SecretStr | None = Field(default=None, description="Its private key, PEM.")
    github_app_installation_id: str = Field(default="", description="Its installation in the platform repo.")
    github_api_url: Address = Field(default="https://api.github.com", description="Base of GitHub's REST API.")
    github_repository: RepositoryName = Field(description="The platform repo as owner/name.")
    github_webhook_secret: SecretStr | None = Field(default=None, description="Secret of the webhook /github/webhook.")
    git_remote_url: str = Field(default="", description="Git remote; default https://github.com/OWNER/NAME.git.")
    redis_url: RedisAddress = Field(
        default="",
        description="redis://, rediss:// (TLS), redis+sentinel:// or redis+cluster://; empty starts an embedded server.",
    )
    redis_password: SecretStr | None = Field(default=None, description="Its password, when it is not in the address.")
    litellm_url: Address = Field(default="http://litellm.litellm.svc:4000", description="Where LiteLLM answers.")
    vllm_url_template: Address = Field(
        default="http://{service}.{namespace}.svc:{port}", description="Where a model's Service answers."
    )
    prometheus_url: AddressOrNone = Field(
        default="",
        description="Where Prometheus answers, if the models' metrics are to be read there and not directly.",
    )
    hf_endpoint: Address = Field(default="https://huggingface.co", description="Hugging Face Hub.")
    hf_token: SecretStr | None = Field(default=None, description="For gated models.")
    stoker_secrets_dir: Path | None = Field(
        default=None, description="Directory with one file a secret, named like its variable; a mounted Secret."
    )
    stoker_log: Literal["auto", "json", "text"] = Field(
        default="auto", description="`json` lines, `text` for people, or `auto`: text on a terminal, else JSON."
    )
    otel_exporter_otlp_endpoint: AddressOrNone = Field(
        default="", description="Collector for traces of operations (OTLP over HTTP); empty: none are made."
    )
    stoker_data_dir: Path = Field(default=Path(".stoker"), description="Git mirror and the embedded server's data.")
    stoker_port: int = Field(default=8080, ge=1, le=65535, description="Port of /healthz, /readyz and the webhooks.")
    stoker_host: str = Field(default="0.0.0.0", description="Address that the port is bound to.")  # noqa: S104

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.slack_app_token is None and self.slack_signing_secret is None:
            raise ValueError("SLACK_APP_TOKEN (Socket Mode) or SLACK_SIGNING_SECRET (HTTP) must be set")
        return self

    @model_validator(mode="after")
    def _a_whole_app(self) -> Self:
        parts = {
            "GITHUB_APP_ID": self.github_app_id,
            "GITHUB_APP_PRIVATE_KEY": self.github_app_private_key,
            "GITHUB_APP_INSTALLATION_ID": self.github_app_installation_id,
        }
        missing = [name for name, value in parts.items() if not value]
        if missing and len(missing) < len(parts):
            raise ValueError(f"a GitHub App needs {', '.join(missing)} as well")
        return self

    def current(self, secret: str) -> SecretStr | None:
        """A secret as it is now: a mounted file may have been rotated since the start; else what was set at the start."""
        if self.stoker_secrets_dir:
            for name in (secret.upper(), secret):
                try:
                    text = (self.stoker_secrets_dir / name).read_text(encoding="utf-8").strip()
                except OSError:
                    continue
                if text:
                    return conceal(SecretStr(text))
        value: SecretStr | None = getattr(self, secret)
        return value

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """Every secret that is set: none of them may be shown anywhere."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return tuple(value for value in values if isinstance(value, SecretStr))

    @property
    def remote(self) -> str:
        return self.git_remote_url or f"https://github.com/{self.github_repository}.git"


class ToolSettings(Settings):
    """The same for the commands of the terminal that never speak to Slack: nothing is required before it is used."""

    slack_bot_token: SecretStr = SecretStr("")
    github_repository: Annotated[str, _like(r"([\w.-]+/[\w.-]+)?", "acme/llm-platform")] = ""

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        return self


def load_settings() -> Settings:
    """Read the environment and the file it names; SettingsError says in one line what is wrong."""
    settings = _from_environment(Settings)
    config = load_config(settings.stoker_config) if settings.stoker_config else Config()
    if not config.slack.channel:
        where = settings.stoker_config or "the file named by STOKER_CONFIG (not set)"
        raise SettingsError(f"slack.channel is missing in {where}: put the id of the channel for operations there")
    return settings.model_copy(update={"config": config})


def load_cluster_settings() -> ClusterSettings:
    """What the environment says of the cluster; nothing about Slack, Redis or GitHub need be set.

    From a terminal the kubeconfig is kubectl's own where none is named.
    """
    try:
        settings = ClusterSettings()
    except ValidationError as error:
        raise SettingsError(_first_problem(error, env=True)) from None
    config = load_config(settings.stoker_config) if settings.stoker_config else Config()
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ
    kubeconfig = settings.kubeconfig or ("" if in_cluster else str(Path.home() / ".kube" / "config"))
    return settings.model_copy(update={"config": config, "kubeconfig": kubeconfig})


def load_tool_settings(config: Path | None = None) -> ToolSettings:
    """The settings for a command of the terminal. `config` wins over STOKER_CONFIG; with neither, the defaults hold."""
    settings = _from_environment(ToolSettings)
    path = config or settings.stoker_config
    return settings.model_copy(update={"config": load_config(path) if path else Config()})


AnySettings = TypeVar("AnySettings", bound=Settings)


def _from_environment(kind: type[AnySettings]) -> AnySettings:
    mounted = os.environ.get("STOKER_SECRETS_DIR") or None
    if mounted and not Path(mounted).is_dir():
        raise SettingsError(f"STOKER_SECRETS_DIR: there is no directory {mounted}; mount the Secret there")
    try:
        return kind(_secrets_dir=mounted)
    except ValidationError as error:
        raise SettingsError(_first_problem(error, env=True)) from None


def load_config(path: Path) -> Config:
    """Read the policy file; SettingsError names file and key."""
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"STOKER_CONFIG: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"STOKER_CONFIG: {path} is not text in UTF-8") from error
    except YAMLError as error:
        raise SettingsError(f"STOKER_CONFIG: {path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return Config.model_validate(raw or {})
    except ValidationError as error:
        raise SettingsError(f"{path}: {_first_problem(error, env=False)}") from None


def _first_problem(error: ValidationError, *, env: bool) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if env:
        name = name.upper()
        if first["type"] == "missing":
            return f"{name} is not set"
    return f"{name}: {message}" if name else message
