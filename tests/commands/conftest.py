"""The bot's own app and services against the stand-in workspace; the rest of the platform does not answer."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.embedded import embedded_redis
from bot.services import Services, open_services
from bot.settings.config import Config, SlackSection
from bot.settings.environment import Settings
from bot.tasks import all_tasks
from bot.wiring import Wiring
from commands import listeners
from sandbox.faults import Faults
from sandbox.slack import Workspace
from sandbox.slack.manifest import Manifest, everything

NOWHERE = "http://127.0.0.1:9"
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:9"}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
users: [{name: nobody, user: {}}]
"""


@pytest.fixture
def hf_endpoint() -> str:
    """The address of Hugging Face in the bot's settings."""
    return NOWHERE


@pytest.fixture
def manifest() -> Manifest:
    """The scopes and features of the app."""
    return everything()


@pytest.fixture
async def workspace(manifest: Manifest) -> AsyncIterator[Workspace]:
    async with Workspace(Faults(), manifest=manifest) as workspace:
        yield workspace


@pytest.fixture
async def thread(workspace: Workspace) -> str:
    """A message that a test replies to."""
    client = AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)
    return str((await client.chat_postMessage(channel="C0GPUOPS", text="something to answer to"))["ts"])


@pytest.fixture
async def svc(workspace: Workspace, tmp_path: Path, hf_endpoint: str) -> AsyncIterator[Services]:
    """The systems around the bot; its tasks are scheduled, but no worker runs them."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    settings = Settings(
        slack_bot_token=SecretStr(workspace.bot_token),
        slack_app_token=SecretStr(workspace.app_token),
        slack_api_url=workspace.api_url,
        github_repository="acme/platform",
        github_api_url=NOWHERE,
        git_remote_url=str(tmp_path / "no-repository"),
        hf_endpoint=hf_endpoint,
        litellm_url=NOWHERE,
        kubeconfig=str(kubeconfig),
        stoker_data_dir=tmp_path / "data",
        config=Config(slack=SlackSection(channel="C0GPUOPS")),
    )
    async with AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(embedded_redis(tmp_path / "redis"))
        svc = await stack.enter_async_context(open_services(settings, redis_url))
        for task in all_tasks(Wiring(svc)):
            svc.docket.register(task)
        yield svc


@pytest.fixture
def app(workspace: Workspace, svc: Services) -> AsyncApp:
    """The bot's app. Listeners run to their end before the dispatch returns."""
    client = AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)
    app = AsyncApp(client=client, process_before_response=True)
    listeners.register(app, Wiring(svc))
    return app
