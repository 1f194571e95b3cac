"""The bot, in this process or a separate one, against a whole platform on loopback."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis
from ruamel.yaml import YAML

from bot.app import run
from bot.clients.rights import roles
from bot.domain.notifications import TABLE
from bot.settings.config import load_config
from bot.settings.environment import Settings
from sandbox.access import Account
from sandbox.cluster import Cluster
from sandbox.faults import Faults
from sandbox.git import seed
from sandbox.github import GitHub
from sandbox.github_pulls import Pull
from sandbox.huggingface import Hub
from sandbox.kubernetes import KubernetesAPI
from sandbox.objects import Object
from sandbox.process import free_port
from sandbox.serving import Serving
from sandbox.slack import Workspace
from sandbox.slack.workspace import NotThere
from sandbox.story_runner import Seen
from sandbox.world import ACCOUNT, REPOSITORY, SAMPLE, WEBHOOK_SECRET, merged, policy
from tests.clients.wire import client

PATIENCE = 300.0
"""Seconds to wait for something to be seen; a busy machine is much slower than an idle one."""

SPEED, STOPPED = 2000.0, 0.001
"""Speeds of the platform's clock: boots and syncs take a moment, or do not end before the test continues."""

UNHURRIED = {
    "argocd": {"sync_limit": "5m"},
    "gpu": {"boot_limit": "2m"},
    "idle": {"remind_after": "10m", "down_after": "60m", "queue_remind_after": "10m", "queue_down_after": "60m"},
    "lease": {"offer": "10m"},
    "litellm": {"wait": "5m"},
    "slack": {"update_every": "1s"},
    "staging": {"limit": "10m", "place_within": "5m"},
}
"""Nothing is brought down and nothing expires on a slow machine; messages are written immediately."""

_ROLLING_BACK = re.compile(r"\b(Failed; rolling back|Being cancelled by)\b")
"""The text on the card of an operation that is being rolled back."""


@dataclass
class Platform:
    """The platform that a test acts on and inspects."""

    workspace: Workspace
    github: GitHub
    cluster: Cluster
    serving: Serving
    faults: Faults
    redis: Redis
    environment: dict[str, str]
    directory: Path
    account: Account
    running: asyncio.Task[None] | None = None
    patience: float = PATIENCE
    since: float = 0.0
    """The time when somebody last acted (time.monotonic)."""

    @property
    def webhook_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['STOKER_PORT']}/github/webhook"

    @property
    def remote(self) -> Path:
        return self.directory / "platform.git"

    def visible(self, user: str = "dev") -> list[str]:
        """Every message that the user sees now, including ephemeral ones."""
        return self.workspace.now_visible(user)

    async def say(self, user: str, text: str) -> None:
        """Type a command as the user; earlier texts no longer count."""
        self.since = time.monotonic()
        await self.workspace.command(user, text)

    async def click(self, user: str, label: str) -> None:
        """Press the newest button with that label, as soon as it exists; earlier texts no longer count."""
        await self._when_it_exists(lambda: self.workspace.click(user, label, timeout=0))

    async def fill(self, user: str, label: str, value: str) -> None:
        """Fill a field of the form that opens, or of Home."""
        await self._when_it_exists(lambda: self.workspace.fill(user, label, value))

    async def submit(self, user: str) -> None:
        """Submit the form that opens, once it is no longer the loading view."""
        await self._when_it_exists(lambda: self.workspace.submit(user))

    async def _when_it_exists(self, act: Callable[[], Awaitable[None]]) -> None:
        deadline = time.monotonic() + self.patience
        while True:
            self.since = time.monotonic()
            try:
                return await act()
            except NotThere:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.05)

    async def end_for_another(self, user: str, command: str, reason: str = "it is needed elsewhere") -> None:
        """End another person's session with a command or a button, and give the reason in the confirmation."""
        await (self.say(user, command) if command.startswith("/") else self.click(user, command))
        await self.fill(user, "Because", reason)
        await self.submit(user)

    async def sees(self, text: str, user: str = "dev") -> str:
        """Wait for a message with the text since the last action, and return it."""

        def find() -> str | None:
            revisions = [
                Seen(revision.source, revision.text, revision.before)
                for revision in self.workspace.revisions(user, self.since)
            ]
            return next((revision.text for revision in reversed(revisions) if revision.shows(text)), None)

        await self.until(
            find, lambda: f"“{text}” was not seen by @{user}. Seen:\n" + "\n---\n".join(self.visible(user))
        )
        return find() or ""

    async def sees_end(self, text: str, user: str = "dev") -> str:
        """Wait like `sees`, and until the operation has ended: its card shows the failure before the rollback has ended."""

        def find() -> str | None:
            revisions = [
                Seen(revision.source, revision.text, revision.before)
                for revision in self.workspace.revisions(user, self.since)
            ]
            newest = {revision.source: revision.text for revision in revisions}
            ended = (newest[revision.source] for revision in reversed(revisions) if revision.shows(text))
            return next((now for now in ended if not _ROLLING_BACK.search(now)), None)

        await self.until(
            find,
            lambda: f"The end with “{text}” was not seen by @{user}. Seen:\n" + "\n---\n".join(self.visible(user)),
        )
        return find() or ""

    async def until(self, condition: Callable[[], object], describe: Callable[[], str] | None = None) -> None:
        """Wait until the condition is true; `describe` returns the actual state for the error, by default all visible messages."""
        describe = describe or (
            lambda: (
                "The condition never became true. Messages that @admin sees:\n" + "\n---\n".join(self.visible("admin"))
            )
        )
        try:
            async with asyncio.timeout(self.patience):
                while not condition():
                    if self.running and self.running.done():
                        self.running.result()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(describe()) from None

    async def until_true(self, condition: Callable[[], Awaitable[object]]) -> None:
        """Like `until`, for an asynchronous condition."""
        async with asyncio.timeout(self.patience):
            while not await condition():
                await asyncio.sleep(0.05)

    def pull(self, number: int = 1) -> Pull:
        return self.github._pulls[number]

    @property
    def pulls(self) -> list[Pull]:
        return list(self.github._pulls.values())

    def object(self, kind: str, name: str, namespace: str = "serving") -> Object | None:
        return self.cluster.store.get(kind, name, namespace)

    async def start(self) -> None:
        """Start the bot in this process."""
        values = {name.lower(): value for name, value in self.environment.items()}
        settings = Settings.model_validate(values)
        settings = settings.model_copy(update={"config": load_config(Path(values["stoker_config"]))})
        self.running = asyncio.create_task(run(settings))
        await self.workspace.connected(PATIENCE)
        async with asyncio.timeout(PATIENCE), client(f"http://127.0.0.1:{self.environment['STOKER_PORT']}") as http:
            while True:  # the port opens after Slack's connection
                with suppress(httpx.TransportError):
                    await http.get("/healthz")
                    break
                await asyncio.sleep(0.05)

    async def restart(self, old: str, new: str) -> None:
        """Restart the bot with another value in its settings file."""
        await self.stop()
        config = Path(self.environment["STOKER_CONFIG"])
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new))
        await self.start()

    async def stop(self) -> None:
        if self.running:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
            self.running = None


def check_notifications(workspace: Workspace) -> None:
    """Check that every notification of the bot is in the table of the contract, with its channel, and was sent once."""
    notifications = [notification for user in ("dev", "lead", "admin") for notification in workspace.notified(user)]
    for notification in notifications:
        rule = TABLE.get(notification.key.partition(":")[0])
        assert rule, f"not in the table of notifications: {notification}"
        assert notification.how in rule.channels, f"{notification} may only be sent by {rule.channels}"
    repeated = [
        key
        for key, times in Counter(
            (notification.key, notification.user) for notification in notifications if notification.key
        ).items()
        if times > 1
    ]
    assert repeated == [], "sent twice"


@asynccontextmanager
async def open_platform(
    directory: Path,
    redis_url: str,
    *,
    settings: Mapping[str, Any] | None = None,
    sample: Path = SAMPLE,
    speed: float = SPEED,
    started: bool = True,
    connect: Callable[[dict[str, str]], Any] | None = None,
) -> AsyncIterator[Platform]:
    """Start a whole platform, and with `started` also the bot in this process. `sample` is the repository.

    `connect` is an async context manager that may put a proxy between the bot and an address.
    """
    faults, port = Faults(), free_port()
    async with AsyncExitStack() as stack:
        redis = Redis.from_url(redis_url)
        stack.push_async_callback(redis.aclose)
        await redis.flushall()
        bare = directory / "platform.git"
        await seed(sample, bare)
        github = await stack.enter_async_context(GitHub(bare, faults, repository=REPOSITORY))
        github.webhook(f"http://127.0.0.1:{port}/github/webhook", WEBHOOK_SECRET)
        hub = await stack.enter_async_context(Hub(faults))
        api = await stack.enter_async_context(KubernetesAPI())
        cluster = await stack.enter_async_context(Cluster(api, github, speed, faults, hub=hub.url))
        serving = await stack.enter_async_context(Serving(cluster, faults))
        workspace = await stack.enter_async_context(Workspace(faults, ack_within=PATIENCE, patience=PATIENCE))
        config = directory / "stoker.yaml"
        with config.open("w", encoding="utf-8") as file:
            YAML().dump(merged(merged(policy(speed), UNHURRIED), settings or {}), file)
        account, token = api.account(*ACCOUNT, roles(load_config(config)))
        environment = {
            "SLACK_BOT_TOKEN": workspace.bot_token,
            "SLACK_APP_TOKEN": workspace.app_token,
            "SLACK_API_URL": workspace.api_url,
            "GITHUB_TOKEN": github.token,
            "GITHUB_API_URL": github.api_url,
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "GIT_REMOTE_URL": github.git_url,
            "REDIS_URL": redis_url,
            "LITELLM_URL": serving.litellm_url,
            "VLLM_URL_TEMPLATE": serving.vllm_url_template,
            "HF_ENDPOINT": hub.url,
            "KUBECONFIG": str(cluster.kubeconfig(directory / "kubeconfig", token)),
            "STOKER_CONFIG": str(config),
            "STOKER_DATA_DIR": str(directory / "data"),
            "STOKER_HOST": "127.0.0.1",
            "STOKER_PORT": str(port),
        }
        if connect:
            await stack.enter_async_context(connect(environment))
        platform = Platform(workspace, github, cluster, serving, faults, redis, environment, directory, account)
        if started:
            await platform.start()
            stack.push_async_callback(platform.stop)
        yield platform
        check_notifications(workspace)
        assert account.refused == [], "the bot sent requests to Kubernetes that its Roles do not allow"
