"""The sandbox's world: every simulated system and both processes, started in order, wired by address alone.

It owns what the bot is told (its environment and its settings file) and what a story can do to the platform.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sandbox.cluster import Cluster
from sandbox.faults import Faults
from sandbox.git import seed
from sandbox.github import GitHub
from sandbox.github_pulls import Refused as GitHubRefused
from sandbox.huggingface import Hub
from sandbox.kubernetes import KubernetesAPI
from sandbox.process import Bot, Redis, app_manifest, free_port
from sandbox.serving import Serving
from sandbox.slack import Outside, Workspace
from sandbox.slack.manifest import read_manifest
from sandbox.slack.workspace import NotThere
from sandbox.telling import Seen, StepError

REPOSITORY = "acme/llm-platform"
ENVIRONMENT = "ai-dev"
WEBHOOK_SECRET = "sandbox-webhook-secret"
BENCH_IMAGE = f"registry.sandbox.example/guidellm:v0.8.1@sha256:{'5a' * 32}"
SAMPLE = Path(__file__).parent / "platform"


# ------------------------------------------------------------------------------------------------- what the bot is told


def policy(speed: float) -> dict[str, Any]:
    """The bot's settings file: the people of the workspace, and times as fast as the platform."""

    def fast(minutes: float, least: float = 1.0) -> str:
        return f"{max(least, minutes * 60 / speed):g}s"

    return {
        "slack": {"channel": "C0GPUOPS", "update_every": "1s"},
        "roles": {"approvers": ["U0LEAD", "U0ADMIN"], "admins": ["U0ADMIN"]},
        "idle": {
            "remind_after": fast(15),
            "remind_every": fast(15),
            "down_after": fast(60, least=2.0),
            "announce_before": fast(5),
            "queue_remind_after": fast(5),
            "queue_down_after": fast(15, least=2.0),
            "sample_every": "1s",
        },
        "lease": {"reconcile_every": "2s", "offer": fast(5, least=20.0), "finish_within": fast(2, least=3.0)},
        "gpu": {"boot_limit": fast(20, least=10.0), "drain": fast(10)},
        "github": {"poll_every": "2s"},
        # GuideLLM's stand-in measures real requests, so in real time.
        "bench": {"image": BENCH_IMAGE, "each": fast(0.5), "limit": "5m"},
    }


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `over` says, section by section."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """`{"approvals.expire_after": "5s"}` as the sections of a settings file."""
    result: dict[str, Any] = {}
    for key, value in dotted.items():
        *sections, name = key.split(".")
        tree: dict[str, Any] = {name: value}
        for section in reversed(sections):
            tree = {section: tree}
        result = merged(result, tree)
    return result


# --------------------------------------------------------------------------------------------------------- the platform


@dataclass(frozen=True)
class Sandbox:
    """Everything that runs, as the world that a story acts on."""

    workspace: Workspace
    github: GitHub
    cluster: Cluster
    serving: Serving
    redis: Redis
    bot: Bot
    faults: Faults

    def now(self) -> float:
        return time.monotonic()

    def visible(self, user: str, since: float) -> list[Seen]:
        return [Seen(revision.source, revision.text) for revision in self.workspace.revisions(user or "dev", since)]

    async def command(self, user: str, text: str) -> None:
        await self.workspace.command(user, text)

    async def say(self, user: str, text: str, under: str) -> None:
        with refusals():
            await self.workspace.say(user, text, on=under)

    async def write(self, user: str, text: str) -> None:
        with refusals():
            await self.workspace.say(user, text, direct=True)

    async def pick(self, user: str, name: str, on: str) -> None:
        with refusals():
            await self.workspace.shortcut(user, name, on)

    async def open_home(self, user: str) -> None:
        await self.workspace.open_home(user)

    async def click(self, user: str, label: str) -> None:
        with refusals():
            await self.workspace.click(user, label, timeout=0)  # the story waits for its button itself

    async def fill(self, user: str, label: str, value: str) -> None:
        with refusals():
            await self.workspace.fill(user, label, value)

    async def submit(self, user: str) -> None:
        with refusals():
            await self.workspace.submit(user)

    async def checks(self, *, passed: bool) -> None:
        with refusals():
            await self.github.checks("success" if passed else "failure")

    async def merge(self) -> None:
        with refusals():
            await self.github.merge()

    async def close(self) -> None:
        with refusals():
            await self.github.close()

    async def traffic(self, model: str, per_second: float, seconds: float) -> None:
        with refusals():
            await self.serving.traffic(model, per_second, seconds)

    async def scale(self, name: str, replicas: int) -> None:
        with refusals():
            await self.cluster.scale(name, replicas)

    async def redis_stops(self) -> None:
        await self.redis.stop()

    async def redis_starts(self) -> None:
        await self.redis.start()

    async def redis_flushed(self) -> None:
        await self.redis.flush()

    async def kill_bot(self) -> None:
        await self.bot.kill()

    def break_(self, fault: str) -> None:
        self.faults.add(fault)

    def mend(self, fault: str) -> None:
        self.faults.discard(fault)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What a part of the platform cannot do is a failed step of the story, in the part's own words."""
    try:
        yield
    except (NotThere, GitHubRefused, LookupError, ValueError, RuntimeError, TimeoutError) as e:
        raise StepError(str(e).rstrip(".") or type(e).__name__) from e


@asynccontextmanager
async def opened(
    *,
    platform: str | None,
    speed: float,
    port: int,
    checks_pass_after: float | None,
    settings: Mapping[str, Any],
    directory: Path,
    http: bool = False,
    elsewhere: Mapping[str, str] | None = None,
) -> AsyncIterator[Sandbox]:
    """Start everything, the bot last; all files are below `directory`.

    `settings` is merged over `policy`. With `checks_pass_after` (seconds) a pull request's checks pass by themselves.
    With `http` Slack's requests come signed to the bot's port instead of over Socket Mode. `elsewhere` points the bot
    at services that are not the sandbox's: environment variables laid over its own.
    """
    faults = Faults()
    bot_port = free_port()
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(directory / "redis"))
        bare = directory / "platform.git"
        await seed(platform or SAMPLE, bare)
        github = await stack.enter_async_context(
            GitHub(bare, faults, repository=REPOSITORY, auto_checks_after=checks_pass_after)
        )
        github.webhook(f"http://127.0.0.1:{bot_port}/github/webhook", WEBHOOK_SECRET)
        hub = await stack.enter_async_context(Hub(faults))
        api = await stack.enter_async_context(KubernetesAPI(faults))
        environment = await environment_of(github, settings)
        settings = merged({"platform": {"environment": environment}}, settings)
        cluster = await stack.enter_async_context(Cluster(api, github, speed, faults, environment=environment))
        serving = await stack.enter_async_context(Serving(cluster, faults))

        async def kill_bot() -> None:
            await bot.kill()

        async def use() -> None:
            await asyncio.gather(*(serving.traffic(name, 2, 20) for name in cluster.ready_models()))

        actions = {
            "use what is up for 20 s": use,
            "kill the bot": kill_bot,
            "stop Redis": redis.stop,
            "start Redis": redis.start,
        }

        def panel() -> dict[str, Any]:
            return {**cluster.panel(), "pulls": github.panel(), "stopped": [] if redis.running else ["Redis"]}

        workspace = await stack.enter_async_context(
            Workspace(
                faults,
                Outside(panel, actions, cluster.set_speed, cluster.scale),
                port=port,
                manifest=read_manifest(await app_manifest(directory)),
                request_url=f"http://127.0.0.1:{bot_port}/slack/events" if http else "",
            )
        )
        mode = {"SLACK_SIGNING_SECRET": workspace.signing_secret} if http else {"SLACK_APP_TOKEN": workspace.app_token}
        variables = {
            "SLACK_BOT_TOKEN": workspace.bot_token,
            **mode,
            "SLACK_API_URL": workspace.api_url,
            "GITHUB_TOKEN": github.token,
            "GITHUB_API_URL": github.api_url,
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "GIT_REMOTE_URL": github.git_url,
            "REDIS_URL": redis.url,
            "LITELLM_URL": serving.litellm_url,
            "VLLM_URL_TEMPLATE": serving.vllm_url_template,
            "HF_ENDPOINT": hub.url,
            "KUBECONFIG": str(cluster.kubeconfig(directory / "kubeconfig")),
            "STOKER_CONFIG": str(_written(merged(policy(speed), settings), directory / "stoker.yaml")),
            "STOKER_DATA_DIR": str(directory / "data"),
            "STOKER_HOST": "127.0.0.1",
            "STOKER_PORT": str(bot_port),
        }
        variables |= elsewhere or {}
        bot = await stack.enter_async_context(Bot(variables, port=bot_port, directory=directory))
        yield Sandbox(workspace, github, cluster, serving, redis, bot, faults)


async def environment_of(git: GitHub, settings: Mapping[str, Any]) -> str:
    """The environment that is operated: the one in the settings, else the sample's, else the first in the repo."""
    asked = (settings.get("platform") or {}).get("environment")
    if asked:
        return str(asked)
    found = {path.split("/")[1] for path in await git.files_at(await git.main_commit(), "clusters")}
    return ENVIRONMENT if ENVIRONMENT in found else min(found, default=ENVIRONMENT)


def _written(settings: Mapping[str, Any], path: Path) -> Path:
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(dict(settings), file)
    return path
