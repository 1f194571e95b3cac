"""The settings in the environment: secrets and addresses. No other module reads the environment.

Secrets are also read from the files in `STOKER_SECRETS_DIR`. If a setting is invalid, the bot does not start, and prints
one line that names it (`SettingsError`).
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bot.clock import Clock
from bot.observability.logs import conceal
from bot.settings.config import Config, SettingsError, first_problem, load_config
from bot.settings.hints import PREFIXED, refuse_other_tokens
from bot.settings.of_repository import OWN_CONFIG, layered
from bot.settings.types import like

Address = Annotated[str, like(r"https?://[^\s/]+\S*", "https://host.example.com:8080")]
AddressOrNone = Annotated[str, like(r"(https?://[^\s/]+\S*)?", "https://host.example.com:8080")]
RepositoryName = Annotated[str, like(r"[\w.-]+/[\w.-]+", "acme/llm-platform")]
RedisAddress = Annotated[
    str,
    like(r"((redis|rediss|(redis|rediss)\+(sentinel|cluster)|unix)://.+)?", "redis://redis.stoker.svc:6379/0"),
]


AnySettings = TypeVar("AnySettings", bound="ClusterSettings")


class ClusterSettings(BaseSettings):
    """The settings that are needed for the cluster, and so for stopping costs."""

    model_config = SettingsConfigDict(
        env_prefix="", extra="ignore", frozen=True, env_ignore_empty=True, defer_build=True
    )

    kubeconfig: str = Field(
        default="", description="Path of a kubeconfig. If empty, the bot uses its in-cluster service account."
    )
    stoker_config: Path | None = Field(default=None, description="The YAML file with policy and layout.")
    config: Config = Field(default=Config(), exclude=True)


class Settings(ClusterSettings):
    """Secrets and addresses, one environment variable per field (upper case)."""

    slack_bot_token: SecretStr = Field(description="Bot token, xoxb-….")
    slack_app_token: SecretStr | None = Field(default=None, description="App-level token, xapp-…, for Socket Mode.")
    slack_signing_secret: SecretStr | None = Field(
        default=None,
        description="If set, Slack sends signed HTTP requests to /slack/events instead of using Socket Mode.",
    )
    slack_api_url: Address = Field(default="https://slack.com/api/", description="Base URL of Slack's Web API.")
    github_token: SecretStr | None = Field(
        default=None, description="Token with write permission for contents and pull requests."
    )
    github_app_id: str = Field(default="", description="Id of a GitHub App, which replaces GITHUB_TOKEN.")
    github_app_private_key: SecretStr | None = Field(default=None, description="The App's private key, PEM.")
    github_app_installation_id: str = Field(
        default="", description="The id of the App's installation in the platform repo."
    )
    github_api_url: Address = Field(default="https://api.github.com", description="Base URL of GitHub's REST API.")
    github_repository: RepositoryName = Field(description="The platform repo as owner/name.")
    github_webhook_secret: SecretStr | None = Field(default=None, description="Secret of the webhook /github/webhook.")
    git_remote_url: str = Field(
        default="", description="URL of the git remote; default https://github.com/OWNER/NAME.git."
    )
    redis_url: RedisAddress = Field(
        default="",
        description="redis://, rediss:// (TLS), redis+sentinel:// or redis+cluster://. If empty, the bot starts an embedded server.",
    )
    redis_password: SecretStr | None = Field(default=None, description="Password of Redis, if it is not in REDIS_URL.")
    litellm_url: Address = Field(default="http://litellm.litellm.svc:4000", description="Address of LiteLLM.")
    vllm_url_template: Address = Field(
        default="http://{service}.{namespace}.svc:{port}", description="Address of a model's Service."
    )
    prometheus_url: AddressOrNone = Field(
        default="",
        description="Address of Prometheus. If set, Stoker reads the models' metrics from it instead of from each model.",
    )
    hf_endpoint: Address = Field(default="https://huggingface.co", description="Address of the Hugging Face Hub.")
    hf_file_hosts: Annotated[str, like(r"(https?://[^\s/]+\s*)*", "https://files.example.com")] = Field(
        default="",
        description="Other hosts to which a mirror in HF_ENDPOINT may redirect, separated by spaces, e.g. https://files.example.com."
        " The Hub's own file hosts are always allowed.",
    )
    hf_token: SecretStr | None = Field(default=None, description="Token of Hugging Face, for gated models.")
    stoker_secrets_dir: Path | None = Field(
        default=None,
        description="Directory with one file per secret, for example a mounted Secret; each file has the name of its variable.",
    )
    stoker_log: Literal["auto", "json", "text"] = Field(
        default="auto", description="Format of the log: `json`, `text`, or `auto`: text on a terminal, otherwise JSON."
    )
    otel_exporter_otlp_endpoint: AddressOrNone = Field(
        default="",
        description="Address of a collector for traces of operations (OTLP over HTTP). If empty, there are no traces.",
    )
    stoker_data_dir: Path = Field(
        default=Path(".stoker"), description="Directory of the git mirror and of the embedded Redis server's data."
    )
    stoker_port: int = Field(default=8080, ge=1, le=65535, description="Port of /healthz, /readyz and the webhooks.")
    stoker_host: str = Field(default="0.0.0.0", description="Address on which the bot listens.")  # noqa: S104

    stoker_clock: str = Field(
        default="",
        description="A clock that runs faster than real time, e.g. `60x since 2026-11-29T12:00:00+00:00`, for demonstrations with a"
        " simulated Slack on this machine. Leases, idle limits and costs follow it; network timeouts do not.",
    )

    @field_validator("stoker_clock")
    @classmethod
    def _is_a_clock(cls, text: str) -> str:
        Clock.parse(text)
        return text

    @model_validator(mode="after")
    def _real_time_for_people(self) -> Self:
        host = urlsplit(self.slack_api_url).hostname or ""
        if self.clock.speed != 1 and host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(
                f"STOKER_CLOCK is only for a Slack on this machine, and SLACK_API_URL is {host}: people's leases need real time"
            )
        return self

    @property
    def clock(self) -> Clock:
        return Clock.parse(self.stoker_clock)

    @model_validator(mode="after")
    def _tokens_in_their_places(self) -> Self:
        for name in PREFIXED:
            refuse_other_tokens(name, getattr(self, name))
        return self

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
            raise ValueError(f"a GitHub App also needs {', '.join(missing)}")
        return self

    def current(self, secret: str) -> SecretStr | None:
        """The current value of a secret: the content of its mounted file, because it may have been rotated since the start,
        or the value at the start if there is no file.
        """
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
        """All secrets that are set, which must be removed from every output."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return tuple(value for value in values if isinstance(value, SecretStr))

    @property
    def remote(self) -> str:
        return self.git_remote_url or f"https://github.com/{self.github_repository}.git"


class ToolSettings(Settings):
    """Settings for terminal commands without Slack: each setting is required only by the commands that use it."""

    slack_bot_token: SecretStr = SecretStr("")
    github_repository: Annotated[str, like(r"([\w.-]+/[\w.-]+)?", "acme/llm-platform")] = ""

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        return self


def load_settings(default_config: Path | None = None) -> Settings:
    """Read the environment and the settings file. Raises SettingsError with a message of one line.

    `default_config` is the settings file if the environment has no STOKER_CONFIG.
    """
    settings = _from_environment(Settings)
    if default_config and not settings.stoker_config:
        settings = settings.model_copy(update={"stoker_config": default_config})
    config = load_config(settings.stoker_config) if settings.stoker_config else Config()
    if not config.slack.channel:
        file = settings.stoker_config or "the file named by STOKER_CONFIG (not set)"
        raise SettingsError(f"slack.channel is missing in {file}: set it to the id of the channel for operations")
    return settings.model_copy(update={"config": config})


def stored_own(directory: Path) -> str:
    """The copy of the repository's `.stoker.yaml` in the bot's data directory; empty if there is none."""
    try:
        return (directory / OWN_CONFIG).read_text(encoding="utf-8")
    except OSError:
        return ""


def store_own(directory: Path, text: str) -> None:
    """Copy the repository's `.stoker.yaml` to the data directory, if it is writable."""
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / OWN_CONFIG).write_text(text, encoding="utf-8")


def with_own(settings: AnySettings, text: str) -> AnySettings:
    """The settings, with the text of `.stoker.yaml` at a lower precedence. Raises SettingsError if it is invalid."""
    return settings.model_copy(update={"config": layered(settings.config, text)})


def load_cluster_settings() -> ClusterSettings:
    """The settings for the cluster; settings for Slack, Redis and GitHub are not required.

    Outside a cluster, the default is kubectl's kubeconfig.
    """
    try:
        settings = ClusterSettings()
    except ValidationError as error:
        raise SettingsError(first_problem(error, env=True)) from None
    config = load_config(settings.stoker_config) if settings.stoker_config else Config()
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ
    kubeconfig = settings.kubeconfig or ("" if in_cluster else str(Path.home() / ".kube" / "config"))
    settings = settings.model_copy(update={"config": config, "kubeconfig": kubeconfig})
    return with_own(settings, stored_own(Path(os.environ.get("STOKER_DATA_DIR") or ".stoker")))


def load_tool_settings(config: Path | None = None) -> ToolSettings:
    """The settings for a terminal command. `config` overrides STOKER_CONFIG; without both, the defaults apply."""
    settings = _from_environment(ToolSettings)
    path = config or settings.stoker_config
    return settings.model_copy(update={"config": load_config(path) if path else Config()})


def _from_environment(kind: type[AnySettings]) -> AnySettings:
    mounted = os.environ.get("STOKER_SECRETS_DIR") or None
    if mounted and not Path(mounted).is_dir():
        raise SettingsError(f"STOKER_SECRETS_DIR: there is no directory {mounted}; mount the Secret there")
    try:
        return kind(_secrets_dir=mounted)
    except ValidationError as error:
        raise SettingsError(first_problem(error, env=True)) from None
