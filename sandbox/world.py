"""The complete sandbox: starts every simulated system and both processes, which are connected only by addresses.

It also defines the bot's configuration (environment and settings file), and the actions of a story on the platform.
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

from sandbox.access import Account
from sandbox.clock import Clock
from sandbox.cluster import Cluster
from sandbox.faults import Faults
from sandbox.git import seed
from sandbox.github import GitHub
from sandbox.github_pulls import Refused as GitHubRefused
from sandbox.huggingface import Hub
from sandbox.kubernetes import KubernetesAPI
from sandbox.limits import unsimulated
from sandbox.process import Bot, Redis, app_manifest, free_port, needed_roles, own_settings
from sandbox.serving import Serving
from sandbox.slack import Outside, Workspace
from sandbox.slack.history import OUTSIDERS, PEOPLE
from sandbox.slack.manifest import read_manifest
from sandbox.slack.workspace import NotThere
from sandbox.story_runner import Pushed, Seen, StepError

REPOSITORY = "acme/llm-platform"
ENVIRONMENT = "ai-dev"
WEBHOOK_SECRET = "sandbox-webhook-secret"
BENCH_IMAGE = f"registry.sandbox.example/guidellm:v0.8.1@sha256:{'5a' * 32}"
ACCOUNT = ("stoker", "stoker")
"""Namespace and name of the bot's ServiceAccount."""
SAMPLE = Path(__file__).parent / "platform"


# ------------------------------------------------------------------------------------------------- the bot's configuration


SHORTLIST = (
    "Qwen/Qwen2.5-Coder-1.5B",
    "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ",
    "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ",
    "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ",
    "BAAI/bge-base-en-v1.5",
)
"""The shortlist of `/model fit` in the sandbox: models on the sandbox's Hub."""


def policy(speed: float, *, shared: bool = False) -> dict[str, Any]:
    """Return the bot's settings: the people of the workspace, and times that match the platform's speed.

    If the bot shares the clock (`shared`), the times are those of a real installation.
    """

    def fast(minutes: float, least: float = 1.0) -> str:
        """Convert minutes of the platform's time to a setting of at least `least` real seconds."""
        real = max(least, minutes * 60 / speed)
        return f"{real * (speed if shared else 1):g}s"

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
            "sample_every": fast(0),
        },
        "lease": {
            "reconcile_every": fast(0, least=2.0),
            "offer": fast(5, least=20.0),
            "finish_within": fast(2, least=3.0),
        },
        "gpu": {"boot_limit": fast(20, least=30.0 if shared else 10.0), "drain": fast(10)},
        "fit": {"shortlist": SHORTLIST},
        "litellm": {"wait": fast(2, least=6.0)},
        "argocd": {"sync_limit": fast(5, least=20.0)},
        "approvals": {"checks_grace": fast(5, least=0.1)}
        | ({"expire_after": fast(60, least=900.0)} if shared else {}),  # people are not accelerated
        "github": {"poll_every": fast(0, least=2.0)},
        # The simulated GuideLLM sends real requests in real time.
        "bench": {"image": BENCH_IMAGE, "each": f"{max(1.0, 30 / speed):g}s", "limit": "5m"},
        "staging": {
            "mode": "auto",
            "limit": fast(24 * 60),
            "retry_after": fast(1),
            "longest_wait": fast(30),
            "place_within": fast(10, least=5.0),
        },
    }


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` overridden by `over`, section by section."""
    result = dict(base)
    for key, value in over.items():
        current = result.get(key)
        result[key] = merged(current, value) if isinstance(current, Mapping) and isinstance(value, Mapping) else value
    return result


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Convert `{"approvals.expire_after": "5s"}` to the sections of a settings file."""
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
    """All systems together, as the `World` on which a story acts."""

    workspace: Workspace
    github: GitHub
    cluster: Cluster
    serving: Serving
    redis: Redis
    bot: Bot
    faults: Faults
    account: Account
    """The bot's account in the cluster, with exactly the Roles that the chart renders."""
    report: str = ""
    """For a custom platform: the report of `stoker init`, and the parts that the sandbox does not simulate."""

    def now(self) -> float:
        return time.monotonic()

    def visible(self, user: str, since: float) -> list[Seen]:
        return [
            Seen(revision.source, revision.text, revision.before)
            for revision in self.workspace.revisions(user or "dev", since)
        ]

    def pushed(self, since: float) -> list[Pushed]:
        people = [person.name for person in (*PEOPLE, *OUTSIDERS)]
        notifications = [(name, sent) for name in people for sent in self.workspace.notified(name, since)]
        notifications.sort(key=lambda notification: notification[1].at)
        return [Pushed(sent.at, name, sent.how, sent.text) for name, sent in notifications]

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
            await self.workspace.click(user, label, timeout=0)  # the story waits for its button

    async def fill(self, user: str, label: str, value: str) -> None:
        with refusals():
            await self.workspace.fill(user, label, value)

    async def submit(self, user: str) -> None:
        with refusals():
            await self.workspace.submit(user)

    def replicas(self, name: str) -> int | None:
        return self.cluster.replicas(name)

    async def slack_deletes(self) -> None:
        with refusals():
            self.workspace.delete_card()

    async def slack_archives(self, *, archived: bool) -> None:
        self.workspace.archive(archived=archived)

    async def slack_membership(self, *, member: bool) -> None:
        await (self.workspace.invite_bot() if member else self.workspace.remove_bot())

    async def checks(self, *, passed: bool) -> None:
        with refusals():
            await self.github.checks("success" if passed else "failure")

    async def checks_appear(self) -> None:
        await self.github.checks_appear()

    async def checks_none(self) -> None:
        await self.github.checks_none()

    async def push(self, path: str, text: str, old: str) -> None:
        with refusals():
            await self.github.push(path, text, old)

    async def retarget(self, branch: str) -> None:
        with refusals():
            await self.github.retarget(branch)

    async def change_main(self, path: str, text: str, old: str) -> None:
        with refusals():
            await self.github.change_main(path, text, old)

    def merged_to(self) -> str | None:
        return self.github.merged_to()

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

    def reclaim_node(self) -> None:
        with refusals():
            self.cluster.reclaim_node()

    def engine_crashes(self, model: str) -> None:
        with refusals():
            self.cluster.engine_crashes(model)

    def engine_says(self, line: str, model: str) -> None:
        with refusals():
            self.cluster.engine_says(line, model)

    def break_(self, fault: str) -> None:
        self.faults.add(fault)

    def mend(self, fault: str) -> None:
        self.faults.discard(fault)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Convert an error of a simulated system to a StepError with the same message."""
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
    one_clock: bool = False,
) -> AsyncIterator[Sandbox]:
    """Start all systems, and the bot last; all files are below `directory`.

    `settings` overrides `policy`. With `checks_pass_after` (seconds) the checks of a pull request pass automatically.
    With `one_clock` the bot and Slack are as fast as the platform. With `http` Slack sends signed requests to the bot's
    port instead of using Socket Mode. `elsewhere` overrides environment variables of the bot, for example with the
    addresses of services outside the sandbox.
    """
    faults, clock = Faults(), Clock(speed, shared=one_clock)
    bot_port = free_port()
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(directory / "redis"))
        bare = directory / "platform.git"
        await seed(platform or SAMPLE, bare)
        github = await stack.enter_async_context(
            GitHub(bare, faults, repository=REPOSITORY, auto_checks_after=checks_pass_after, date=clock.date)
        )
        github.webhook(f"http://127.0.0.1:{bot_port}/github/webhook", WEBHOOK_SECRET)
        hub = await stack.enter_async_context(Hub(faults))
        api = await stack.enter_async_context(KubernetesAPI(faults, clock.date))
        report = ""
        if platform:
            files = await github.files_at(await github.main_commit(), "")
            discovered, report = await _discover_settings(files, directory)
            settings = merged(discovered, settings)
            report = "\n".join(filter(None, (report, unsimulated(files))))
        environment = await environment_of(github, settings)
        settings = merged({"platform": {"environment": environment}}, settings)
        cluster = await stack.enter_async_context(
            Cluster(
                api,
                github,
                clock,
                faults,
                environment=environment,
                hub=hub.url,
                gpu_shares=gpu_shares(settings),
                keys=keys(settings),
            )
        )
        serving = await stack.enter_async_context(Serving(cluster, faults))

        async def kill_bot() -> None:
            await bot.kill()

        async def use() -> None:
            await asyncio.gather(*(serving.traffic(name, 2, 20) for name in cluster.ready_models()))

        actions = {
            "send requests for 20 s": use,
            "kill the bot": kill_bot,
            "stop Redis": redis.stop,
            "start Redis": redis.start,
        }

        def panel() -> dict[str, Any]:
            return {**cluster.panel(), "pulls": github.panel(), "stopped": [] if redis.running else ["Redis"]}

        config = _write_settings(merged(policy(clock.speed, shared=clock.shared), settings), directory / "stoker.yaml")
        bookmark = ["--bookmark"] if (settings.get("slack") or {}).get("bookmark") else []
        manifest, roles = await asyncio.gather(app_manifest(directory, *bookmark), needed_roles(directory, config))
        account, token = api.account(*ACCOUNT, roles)
        workspace = await stack.enter_async_context(
            Workspace(
                faults,
                Outside(panel, actions, None if clock.shared else cluster.set_speed, cluster.scale),
                clock=clock,
                port=port,
                manifest=read_manifest(manifest),
                request_url=f"http://127.0.0.1:{bot_port}/slack/events" if http else "",
                patience=120,  # on a busy machine, a killed bot needs a long time to start
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
            "KUBECONFIG": str(cluster.kubeconfig(directory / "kubeconfig", token)),
            "STOKER_CONFIG": str(config),
            "STOKER_DATA_DIR": str(directory / "data"),
            "STOKER_HOST": "127.0.0.1",
            "STOKER_PORT": str(bot_port),
        }
        variables |= clock.for_the_bot() | dict(elsewhere or {})
        bot = await stack.enter_async_context(Bot(variables, port=bot_port, directory=directory))
        yield Sandbox(workspace, github, cluster, serving, redis, bot, faults, account, report)


async def _discover_settings(files: Mapping[str, str], directory: Path) -> tuple[dict[str, Any], str]:
    """Return the settings that `stoker init` finds for a custom platform, and its report.

    Staging is off by default, because only vLLM's volumes contain weights that Stoker can stage.
    """
    checkout = directory / "checkout"
    for path, text in files.items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(text, encoding="utf-8")
    settings, report = await own_settings(directory, checkout)
    (settings.get("platform") or {}).pop("branch", None)  # the sandbox's copy has one branch, main
    return merged({"staging": {"mode": "off"}}, settings), report


async def environment_of(git: GitHub, settings: Mapping[str, Any]) -> str:
    """Return the environment in the settings, otherwise the sample's, otherwise the first in the repository."""
    configured = (settings.get("platform") or {}).get("environment")
    if configured:
        return str(configured)
    environments = {path.split("/")[1] for path in await git.files_at(await git.main_commit(), "clusters")}
    return ENVIRONMENT if ENVIRONMENT in environments else min(environments, default=ENVIRONMENT)


def gpu_shares(settings: Mapping[str, Any]) -> int:
    """Return the number of pods that may share the GPU with time-slicing: the slots and the workloads beside them."""
    gpu = settings.get("gpu") or {}
    return int(gpu.get("slots") or 1) + len(gpu.get("beside") or ())


def keys(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the Secrets in the settings for the engines' key and for LiteLLM's master key."""
    return {
        "engine": dict((settings.get("vllm") or {}).get("api_key") or {}),
        "master": dict((settings.get("litellm") or {}).get("master_key") or {}),
    }


def _write_settings(settings: Mapping[str, Any], path: Path) -> Path:
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(dict(settings), file)
    return path
