"""A third-party Slack accepts every call: the bot against `emulate`, a stateful Slack emulator with strict scopes.

The sandbox's own Slack could share a misunderstanding with the bot; this emulator cannot. It has no commands and no clicks, so
the test sends them: it signs them and posts them to the bot, as Slack does. `make emulator` installs it (npm).
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from sandbox.main import STORY_LIMITS
from sandbox.process import app_manifest, free_port
from sandbox.slack import Workspace
from sandbox.slack.http_mode import HttpMode
from sandbox.slack.manifest import read_manifest
from sandbox.world import Sandbox, merged, opened

EMULATE = Path(__file__).parents[2] / ".venv" / "emulate" / "node_modules"
NODE, SCRIPT = EMULATE / "node" / "bin" / "node", EMULATE / "emulate" / "dist" / "index.js"
PEOPLE = ("dev", "lead", "admin")
BOT_TOKEN, PEOPLES_TOKEN = "xoxb-stoker", "xoxb-people"
PATIENCE = 120.0
IDLE = {"remind_after": "10s", "remind_every": "1h", "down_after": "10m"}
WITHOUT = {"usergroups.users.list"}
"""Methods that the emulator does not have; the story needs none of them."""


class EmulatedSlack:
    """The emulated workspace, the bot's requests to it, and actions of its users."""

    def __init__(self, api: httpx.AsyncClient) -> None:
        self.api = api
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[str] = []
        self.users: dict[str, str] = {}
        self.channel = self.url = self.team = ""
        self._bot: HttpMode | None = None

    async def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.api.post(method, json=arguments)).json()
        return answer

    async def forward(self, request: web.Request) -> web.Response:
        """A call of the bot, forwarded with its token, and recorded with its answer."""
        headers = {name: value for name, value in request.headers.items() if name in ("Authorization", "Content-Type")}
        method = request.match_info["method"]
        if body := await request.read():
            answer = await self.api.post(method, params=request.query, content=body, headers=headers)
        else:  # Slack also reads arguments from the address, the emulator only from the body
            headers.pop("Content-Type", None)
            answer = await self.api.post(method, data=dict(request.query), headers=headers)
        self.calls.append((method, answer.json()))
        return web.json_response(answer.json(), status=answer.status_code)

    async def respond(self, request: web.Request) -> web.Response:
        self.answers.append(json.dumps(await request.json(), ensure_ascii=False))
        return web.Response(text="ok")

    def connect_bot(self, world: Sandbox) -> None:
        self._bot = HttpMode(f"{world.bot.url}/slack/events", Workspace.signing_secret, ack_within=20)

    async def command(self, user: str, line: str) -> None:
        command, _, text = line.partition(" ")
        await self._deliver(
            "slash_commands", user_id=self.users[user], user_name=user, command=command, text=text,
            channel_id=self.channel, channel_name="gpu-ops", trigger_id=await self._trigger(user),
            response_url=f"{self.url}/respond", team_domain="t",
        )  # fmt: skip

    async def event(self, kind: str, **event: Any) -> None:
        payload = {"type": kind, "event_ts": str(time.time()), "channel": self.channel, **event}
        await self._deliver("events_api", type="event_callback", event=payload, event_id=f"Ev{time.time()}")

    async def click(self, user: str, label: str) -> None:
        message, block, button = await self._button(label)
        action = {**button, "block_id": block.get("block_id", "block"), "action_ts": str(time.time())}
        await self._deliver(
            "interactive", type="block_actions", actions=[action], message=message, state={"values": {}},
            user={"id": self.users[user], "username": user, "name": user, "team_id": self.team}, team={"id": self.team, "domain": "t"},
            container={"type": "message", "message_ts": message["ts"], "channel_id": self.channel, "is_ephemeral": False},
            channel={"id": self.channel, "name": "gpu-ops"}, trigger_id=await self._trigger(user),
            response_url=f"{self.url}/respond",
        )  # fmt: skip

    async def sees(self, text: str) -> None:
        until = time.monotonic() + PATIENCE
        while text not in (history := json.dumps(await self._history(), ensure_ascii=False)):
            assert time.monotonic() < until, f"{text} is not in {history}"
            await asyncio.sleep(0.3)

    async def _button(self, label: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for message in await self._history():
                for block in message.get("blocks") or []:
                    for element in block.get("elements") or []:
                        if element.get("type") == "button" and element["text"]["text"] == label:
                            return message, block, element
            await asyncio.sleep(0.3)
        raise AssertionError(f"there is no button {label} in {await self._history()}")

    async def _history(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = (await self.ask("conversations.history", channel=self.channel))["messages"]
        return messages

    async def _trigger(self, user: str) -> str:
        bot = {"Authorization": f"Bearer {BOT_TOKEN}"}
        arguments = {"user_id": self.users[user]}
        answer = (await self.api.post("views.generateTriggerId", json=arguments, headers=bot)).json()
        return str(answer["trigger_id"])

    async def _deliver(self, kind: str, **payload: Any) -> None:
        assert self._bot
        common = {"token": "v", "team_id": self.team, "api_app_id": "A1", "is_enterprise_install": "false"}
        await self._bot.deliver(kind, common | payload)


@pytest.fixture
async def slack(tmp_path: Path) -> AsyncIterator[EmulatedSlack]:
    if not (NODE.exists() and SCRIPT.exists()):
        pytest.skip("no third-party emulator here (make emulator installs one; it needs npm)")
    scopes = sorted(read_manifest(await app_manifest(tmp_path)).scopes)
    people = ["channels:history", "channels:manage", "channels:read", "users:read"]
    app = {"client_id": "1.2", "client_secret": "-", "app_id": "A1", "name": "Stoker", "bot_name": "stoker"}
    seed = {
        "oauth_apps": [app | {"scopes": scopes, "redirect_uris": ["http://127.0.0.1/"]}],
        "team": {"name": "T", "domain": "t"},
        "strict_scopes": True,
        "users": [{"name": name, "real_name": name, "email": f"{name}@example.com"} for name in PEOPLE],
        "channels": [{"name": "gpu-ops"}],
        "bots": [{"name": "stoker"}],
        "tokens": [
            {"token": BOT_TOKEN, "user": "stoker", "scopes": scopes},
            {"token": PEOPLES_TOKEN, "user": "dev", "scopes": people},
        ],
    }
    (tmp_path / "seed.json").write_text(json.dumps({"slack": seed}))
    port = free_port()
    emulator = await asyncio.create_subprocess_exec(
        str(NODE), str(SCRIPT), "start", "--service", "slack", "--port", str(port), "--seed", str(tmp_path / "seed.json"),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    url, headers = f"http://127.0.0.1:{port}/api/", {"Authorization": f"Bearer {PEOPLES_TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as api:
        slack = EmulatedSlack(api)
        server = web.Application(client_max_size=2**25)
        server.router.add_route("*", "/api/{method}", slack.forward)
        server.router.add_post("/respond", slack.respond)
        runner = web.AppRunner(server)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        slack.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with asyncio.timeout(PATIENCE):
            while not await _answers(slack):
                await asyncio.sleep(0.2)
        slack.team = (await slack.ask("auth.test"))["team_id"]
        slack.users = {user["name"]: user["id"] for user in (await slack.ask("users.list"))["members"]}
        channels = (await slack.ask("conversations.list"))["channels"]
        slack.channel = next(channel["id"] for channel in channels if channel["name"] == "gpu-ops")
        await slack.ask("conversations.invite", channel=slack.channel, users=slack.users["stoker"])
        yield slack
        await runner.cleanup()
    emulator.terminate()
    await emulator.wait()


async def _answers(slack: EmulatedSlack) -> bool:
    try:
        return bool((await slack.ask("auth.test")).get("ok"))
    except httpx.TransportError:
        return False


@pytest.mark.timeout(600)
async def test_a_third_party_slack_accepts_every_call(slack: EmulatedSlack, tmp_path: Path) -> None:
    """The bot has only the scopes of `stoker manifest`, and goes through up, idle, down, a swap, a form, Home and a mention."""
    roles = {"approvers": [slack.users["lead"]], "admins": [slack.users["admin"]]}
    async with opened(
        platform=None,
        speed=120,
        port=0,
        checks_pass_after=1,
        settings=merged(STORY_LIMITS, {"slack": {"channel": slack.channel}, "roles": roles, "idle": IDLE}),
        directory=tmp_path,
        http=True,
        elsewhere={"SLACK_API_URL": f"{slack.url}/api/", "SLACK_BOT_TOKEN": BOT_TOKEN},
    ) as world:
        slack.connect_bot(world)
        await slack.command("dev", "/gpu up coder-chat for 2h because demo")
        await slack.click("lead", "Approve")
        await slack.sees("all smoke tests passed")
        await slack.event("app_home_opened", user=slack.users["dev"], tab="home")
        await slack.event("app_mention", user=slack.users["dev"], text="<@UBOT> status", ts="1.1")
        await slack.event("member_joined_channel", user="UBOT", inviter=slack.users["dev"], channel_type="C")
        for line in ("/gpu status", "/gpu report", "/model list", "/model add coder-mini"):
            await slack.command("dev", line)
        await slack.sees("has been idle")
        await slack.click("dev", "Keep 1 h")
        await slack.command("dev", "/gpu down")
        await slack.sees("the GPU is free")
        await slack.command("dev", "/model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ")
        await slack.click("lead", "Approve & roll out")
        await slack.sees("is rolled out")
    refused = [(m, a) for m, a in slack.calls if not a.get("ok") and m not in WITHOUT]
    assert refused == []
    assert {"chat.postMessage", "chat.update", "views.open", "views.publish"} <= {method for method, _ in slack.calls}
    assert any("coder-chat" in answer for answer in slack.answers)
