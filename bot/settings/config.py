"""The settings for policy and layout: the YAML file named by `STOKER_CONFIG`.

If a setting is invalid, the bot does not start, and prints one line that names it (`SettingsError`).
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bot.errors import BotError
from bot.settings.hints import similar
from bot.settings.types import PINNED, Channel, Hours, LinkTemplate, Member, like
from bot.text.durations import Duration, parse_duration
from manifests.contract import Layout


class SettingsError(BotError):
    """A setting is missing or invalid; the message names it."""

    remedy = "Correct the setting in the message, in the environment or in the file named by STOKER_CONFIG; docs/configuration.md lists all of them."


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class SlackSection(_Section):
    channel: Channel = Field(default="", description="Id of the channel where operations are shown, e.g. C0123456789.")
    update_every: Duration = Field(
        default=parse_duration("3s"), description="Minimum time between two updates of one operation's message."
    )
    bookmark: bool = Field(
        default=False,
        description="Show who has the GPU in a bookmark at the top of the channel. This needs the scopes that `stoker"
        " manifest --bookmark` adds.",
    )


class Roles(_Section):
    requesters: tuple[Member, ...] = Field(
        default=(),
        description="Users (U…) and user groups (S…) who may make requests. If empty, everybody in the workspace may.",
    )
    approvers: tuple[Member, ...] = Field(
        default=(), description="Users and user groups who may approve. If empty, nothing that costs money runs."
    )
    admins: tuple[Member, ...] = Field(
        default=(),
        description="Users and user groups who may cancel other people's requests, override approvals and break leases.",
    )


class PeopleSection(_Section):
    guests: bool = Field(
        default=False, description="Accept requests from guests of the workspace, if their roles allow it."
    )
    bots: bool = Field(default=False, description="Accept requests from apps and workflows that mention the bot.")


class Approvals(_Section):
    quorum: int = Field(default=1, ge=1, description="Number of different people who must approve.")
    expire_after: Duration = Field(
        default=parse_duration("1h"), description="Time without a decision after which a request expires."
    )
    pull_expire_after: Duration = Field(
        default=parse_duration("7d"),
        description="Time without a decision after which the roll-out of a pull request expires.",
    )
    self_approval: bool = Field(default=False, description="Allow people to approve their own requests.")
    checks: Literal["expected", "none"] = Field(
        default="expected",
        description="`expected`: a pull request must have checks before it can be approved. `none`, for a repository without CI:"
        " Stoker does not wait for checks, but a failed check still blocks the approval.",
    )
    checks_grace: Duration = Field(
        default=parse_duration("5m"),
        description="Time for which Stoker waits for further checks after a new commit or a new check. It does not wait if all"
        " required checks and the checks of recent pull requests have appeared.",
    )


class LeaseLimits(_Section):
    default: Duration = Field(default=parse_duration("2h"), description="Length of a lease without `for`.")
    longest: Duration = Field(default=parse_duration("8h"), description="Longest lease that can be requested.")
    warn_before: Duration = Field(
        default=parse_duration("15m"), description="Time before the end of a lease at which its holder is warned."
    )
    reconcile_every: Duration = Field(
        default=parse_duration("1m"), description="Interval at which leases, Deployments and pods are compared."
    )
    offer: Duration = Field(
        default=parse_duration("5m"),
        description="Time for which the free GPU is offered to the next person in the queue.",
    )
    finish_within: Duration = Field(
        default=parse_duration("2m"),
        description="Maximum time for which a model that is being replaced may continue to answer running requests.",
    )


class Idle(_Section):
    remind_after: Duration = Field(default=parse_duration("15m"), description="Idle time before the first reminder.")
    remind_every: Duration = Field(default=parse_duration("15m"), description="Time between two reminders.")
    down_after: Duration = Field(
        default=parse_duration("60m"), description="Idle time after which the model is brought down."
    )
    announce_before: Duration = Field(
        default=parse_duration("5m"), description="Minimum time between the announcement and the bring-down."
    )
    queue_remind_after: Duration = Field(
        default=parse_duration("5m"), description="`remind_after` while somebody waits for the GPU."
    )
    queue_down_after: Duration = Field(
        default=parse_duration("15m"), description="`down_after` while somebody waits for the GPU."
    )
    quiet_hours: Hours | None = Field(
        default=None,
        description="Hours, e.g. `20:00-07:00`, in which a model that is idle for `remind_after` is brought down without a reminder.",
    )
    quiet_days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        default=(), description="Days on which the rule of `quiet_hours` applies all day, e.g. `[sat, sun]`."
    )
    timezone: str = Field(default="UTC", description="Time zone of the quiet hours and days, e.g. Europe/Berlin.")
    sample_every: Duration = Field(default=parse_duration("30s"), description="Interval at which the metrics are read.")
    keep: Duration = Field(default=parse_duration("1h"), description="Time for which *Keep* keeps an idle model up.")
    keeps: int = Field(default=3, ge=0, description="Maximum number of uses of *Keep* in one session.")

    @field_validator("timezone")
    @classmethod
    def _is_time_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"“{name}” is not a time zone; write for example Europe/Berlin") from error
        return name

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.down_after <= self.remind_after:
            raise ValueError("down_after must be longer than remind_after, or nobody could answer the reminder")
        if self.queue_down_after <= self.queue_remind_after:
            raise ValueError("queue_down_after must be longer than queue_remind_after")
        return self


class Gpu(_Section):
    slots: int = Field(default=1, ge=1, description="Maximum number of GPU models that run at the same time.")
    price_per_hour: float = Field(default=0.85, gt=0, description="US dollars per hour for one GPU node.")
    prices: dict[str, float] = Field(
        default={},
        description="Prices of machine types whose price differs from `gpu.price_per_hour`, e.g. `g2-standard-8: 1.06`.",
    )
    history: Duration = Field(
        default=parse_duration("90d"), description="Time for which past sessions are kept, for `/gpu report`."
    )
    beside: tuple[Annotated[str, like(r"[\w.-]+/[\w.-]+", "ollama/ollama")], ...] = Field(
        default=(),
        description="Workloads (`namespace/name`) that may use the GPU together with the models, for example with time-slicing. They"
        " do not prevent a bring-up, and are not reported.",
    )
    name: str = Field(default="L4", description="The name of the GPU, as shown in messages and pull requests.")
    machine: str = Field(default="g2-standard-4", description="The type of the GPU's machine.")
    vram_mib: int | None = Field(
        default=None,
        gt=0,
        description="Memory of the GPU as CUDA reports it, MiB. Not needed for GPUs in Stoker's table (`gpu.name`: T4, L4, "
        "A10, L40S, A100-80, H100, RTX 4090 …).",
    )
    host_memory_gib: float = Field(default=16, gt=0, description="Memory of the GPU's machine, GiB.")
    boot_limit: Duration = Field(
        default=parse_duration("1200s"), description="Maximum duration of a cold start; after that, the bring-up fails."
    )
    drain: Duration = Field(
        default=parse_duration("10m"), description="Time for which the node is billed after the last GPU pod is gone."
    )

    def price(self, machine: str = "") -> float:
        """US dollars per hour for this machine type (the node's label `node.kubernetes.io/instance-type`).

        Without a machine type, because the node does not exist yet or the bot may not read nodes, it is the price of
        `gpu.machine`.
        """
        return self.prices.get(machine or self.machine, self.price_per_hour)


class Fit(_Section):
    shortlist: tuple[str, ...] = Field(
        default=(
            "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ",
            "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ",
            "Qwen/Qwen2.5-Coder-1.5B",
            "Qwen/Qwen3-8B-AWQ",
            "meta-llama/Llama-3.1-8B-Instruct",
            "mistralai/Mistral-7B-Instruct-v0.3",
            "openai/gpt-oss-20b",
            "BAAI/bge-m3",
        ),
        max_length=20,
        description="The models that `/model fit` compares if none is named.",
    )


class GitHubSection(_Section):
    poll_every: Duration = Field(
        default=parse_duration("30s"), description="Interval at which open pull requests are polled."
    )
    labels: tuple[str, ...] = Field(default=("stoker",), description="Labels of the pull requests.")
    author_name: str = Field(default="Stoker", description="Author of the commits.")
    author_email: str = Field(
        default="stoker@users.noreply.github.com", description="Email address of the commits' author."
    )


class ArgoSection(_Section):
    namespace: str = Field(default="argocd", description="Namespace of the Applications.")
    url: str = Field(
        default="",
        pattern=r"^(https?://[^\s<>|]+)?$",
        description="Argo CD's web UI, e.g. https://argocd.example.com: cards then link to their Applications.",
    )
    sync_limit: Duration = Field(
        default=parse_duration("5m"), description="Maximum duration of a sync; after that, the operation fails."
    )
    group_application: str = Field(
        default="group-{group}",
        description="Name of the Application that creates and prunes the Applications of a group. Stoker refreshes it if it exists.",
    )


class LinksSection(_Section):
    logs: LinkTemplate = Field(
        default="",
        description="Link to a model's log, e.g. `https://grafana.example.com/d/logs?var-app={model}&from={from}`, for cards,"
        " `/gpu status` and Home. `{model}` and `{namespace}` are the name and the namespace of the Deployment, `{from}` is the start"
        " of the operation or the session in milliseconds since 1970; write other braces as %7B and %7D. A pod's name"
        " begins with the model's name and has a suffix that changes with each restart.",
    )
    dashboard: LinkTemplate = Field(
        default="", description="Link to the dashboard of a model's metrics, with the placeholders of `links.logs`."
    )


class FluxSection(_Section):
    namespace: str = Field(
        default="",
        description="Namespace of Flux's GitRepository and Kustomizations, usually flux-system, if Flux deploys the endpoints"
        " instead of Argo CD.",
    )


class SwitchSection(_Section):
    by: Literal["auto", "api", "commit"] = Field(
        default="auto",
        description="Method of starting and stopping a model: `api` scales its Deployment; `commit` changes `replicas` in git;"
        " `auto` uses commits only if Argo CD's selfHeal or Flux would revert changes through the API.",
    )
    merge: Literal["push", "pull"] = Field(
        default="push",
        description="Method of committing to the branch: with `push`, Stoker pushes the commit; with `pull`, it opens a pull request"
        " and merges it immediately.",
    )


class SecretRef(_Section):
    """The name and the field of a Secret; empty if there is no such Secret."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["namespace"], "properties": {"namespace": {"minLength": 1}}},
            "then": {"required": ["name", "field"]},
        }
    )
    namespace: str = ""
    name: str = ""
    field: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Refuse a Secret without a name: the Role would have to allow every Secret of the namespace."""
        if self.namespace and not (self.name and self.field):
            raise ValueError("a Secret needs namespace, name and field; write all three, or namespace: '' for none")
        return self


class Gateway(_Section):
    application: str = Field(default="litellm", description="Name of LiteLLM's Application.")
    namespace: str = Field(default="litellm", description="Namespace of LiteLLM's Deployment.")
    deployment: str = Field(
        default="litellm",
        description="Name of LiteLLM's Deployment. A roll-out waits for its pods, if it exists.",
    )
    master_key: SecretRef = Field(
        default=SecretRef(namespace="litellm", name="litellm-secrets", field="PROXY_MASTER_KEY"),
        description="The Secret with LiteLLM's master key.",
    )
    smoke_test: bool = Field(
        default=True, description="Also call the model by its alias through LiteLLM in smoke tests."
    )
    wait: Duration = Field(
        default=parse_duration("2m"),
        description="Time for which a smoke test waits if LiteLLM does not answer, for example while it restarts. After that,"
        " the test ends with a warning instead of a failure.",
    )
    smoke_budget: float = Field(default=0.01, gt=0, description="Budget of a smoke test's virtual key, US dollars.")


class Engine(_Section):
    api_key: SecretRef = Field(
        default=SecretRef(namespace="serving", name="vllm-api-key", field="api-key"),
        description="The Secret with vLLM's API key.",
    )


class Bench(_Section):
    image: str = Field(
        default="",
        json_schema_extra={"pattern": f"^({PINNED})?$"},
        description="GuideLLM's image (0.8), pinned by its digest, e.g. `ghcr.io/vllm-project/guidellm@sha256:…`. It enables"
        " `/model bench`, for which the bot's Role needs rights on Jobs; the chart grants them if this is set.",
    )
    concurrency: tuple[Annotated[int, Field(ge=1, le=512)], ...] = Field(
        default=(1, 4, 16),
        min_length=1,
        max_length=8,
        description="Numbers of concurrent requests; each is one measurement.",
    )
    each: Duration = Field(default=parse_duration("30s"), description="Duration of each measurement.")
    prompt_tokens: int = Field(default=256, ge=1, description="Length of the generated prompts.")
    output_tokens: int = Field(default=128, ge=1, description="Length of the answers.")
    limit: Duration = Field(
        default=parse_duration("20m"),
        description="Maximum duration of the Job, including the image pull at the first start on a node.",
    )

    @field_validator("image")
    @classmethod
    def _pinned(cls, image: str) -> str:
        if image and not re.fullmatch(PINNED, image):
            raise ValueError(f"“{image}” is not pinned; write NAME@sha256: and the 64 digits of the image's digest")
        return image

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if self.limit <= self.lasts:
            raise ValueError("limit must be longer than `each` for every number in concurrency")
        return self

    @property
    def lasts(self) -> timedelta:
        """The duration of the measurements, without the start of the Job."""
        return len(self.concurrency) * self.each


class Toleration(_Section):
    """A toleration with the fields of a pod's. Unknown fields are refused, and fields that are not set are omitted."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Staging(_Section):
    mode: Annotated[Literal["off", "on", "auto"], WithJsonSchema({"enum": ["off", "on", "auto", True, False]})] = Field(
        default="off",
        description="`on`: Stoker downloads weights to a volume without the GPU for `/model stage`, and before it merges the swap"
        " of a running endpoint; `auto`: also after every roll-out. Both need rights on Jobs and volumes, which the chart"
        " grants for these values.",
    )
    image: str = Field(
        default="",
        description="Image of the staging Job, with Python and `huggingface_hub`. If empty, the image of the endpoint's own staging"
        " container is used.",
    )
    zones: tuple[str, ...] = Field(
        default=(),
        description="Zones in which the GPU can be; an unbound volume is bound in one of them. If empty, Stoker derives them from"
        " the pod's node selector, the nodes, and the volumes of other GPU models.",
    )
    node_selector: dict[str, str] = Field(default={}, description="Labels of the nodes that staging Jobs run on.")
    tolerations: tuple[Toleration, ...] = Field(
        default=(), description="Taints that staging Jobs tolerate, as in a pod."
    )
    cpu: str = Field(default="2", description="CPU limit, if the endpoint's own staging container has none.")
    memory: str = Field(default="4Gi", description="Memory limit, if the endpoint's own staging container has none.")
    limit: Duration = Field(
        default=parse_duration("24h"),
        description="Maximum duration of staging, including the waits for Hugging Face.",
    )
    retry_after: Duration = Field(
        default=parse_duration("1m"),
        description="First wait after an HTTP status 429 without `Retry-After`. It doubles with each attempt, up to"
        " `staging.longest_wait`.",
    )
    longest_wait: Duration = Field(default=parse_duration("30m"), description="Maximum wait between two attempts.")
    place_within: Duration = Field(
        default=parse_duration("10m"),
        description="Maximum time for which a staging Job's pod waits for a node without a GPU.",
    )

    @field_validator("mode", mode="before")
    @classmethod
    def _from_boolean(cls, mode: object) -> object:
        """Convert a boolean to `on` or `off`: YAML 1.1, which Helm writes, reads a bare `on` or `off` as a boolean."""
        return {True: "on", False: "off"}.get(mode, mode) if isinstance(mode, bool) else mode

    @property
    def enabled(self) -> bool:
        return self.mode != "off"


class Audit(_Section):
    keep: Duration = Field(
        default=parse_duration("365d"), description="Time for which an entry of the audit log is kept."
    )


class Config(_Section):
    """Policy and layout: the YAML file named by STOKER_CONFIG."""

    slack: SlackSection = SlackSection()
    roles: Roles = Roles()
    people: PeopleSection = PeopleSection()
    approvals: Approvals = Approvals()
    lease: LeaseLimits = LeaseLimits()
    idle: Idle = Idle()
    gpu: Gpu = Gpu()
    fit: Fit = Fit()
    github: GitHubSection = GitHubSection()
    argocd: ArgoSection = ArgoSection()
    links: LinksSection = LinksSection()
    flux: FluxSection = FluxSection()
    switch: SwitchSection = SwitchSection()
    litellm: Gateway = Gateway()
    vllm: Engine = Engine()
    bench: Bench = Bench()
    staging: Staging = Staging()
    audit: Audit = Audit()
    platform: Layout = Layout()


def load_config(path: Path) -> Config:
    """Read the settings file. Raises SettingsError with the file and the key."""
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
        raise SettingsError(f"{path}: {first_problem(error, env=False)}") from None


def first_problem(error: ValidationError, *, env: bool) -> str:
    """The first invalid setting and its error. With `env`, the name is that of an environment variable."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if env:
        name = name.upper()
        if first["type"] == "missing":
            return f"{name} is not set"
    elif first["type"] == "extra_forbidden":
        message = f"there is no such setting{similar(first['loc'], Config)}; docs/configuration.md lists all settings"
    return f"{name}: {message}" if name else message
