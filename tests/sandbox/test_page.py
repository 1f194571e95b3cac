"""The page in a real browser: messages of apps look as in Slack, and actions of people reach the app."""

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.faults import Faults
from sandbox.git import FileChange
from sandbox.github_page import pull_page
from sandbox.slack import Outside, Workspace
from sandbox.slack.manifest import Command, Shortcut, everything
from tests.sandbox.browser import browser, open_page
from tests.sandbox.conftest import connected
from tests.sandbox.test_slack_surfaces import PNG, field, modal, plain, until, usable

__all__ = ["browser"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANIFEST = everything(
    shortcuts=(Shortcut("Show status", "message", "status"),),
    commands=(Command("/gpu", "the shared GPU", "up NAME | down"), Command("/model", "what is served", "list | add")),
)
CHANNEL = "C0GPUOPS"


class World:
    """The world that the panel changes, and the record of the changes."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.done: list[str] = []
        self.speed = 60.0

    def panel(self) -> dict[str, Any]:
        pods = [{"name": "coder-chat-1", "phase": "Running"}]
        models = [{"name": "coder-chat", "replicas": 1}, {"name": "coder-fim", "replicas": 0}]
        pulls = [{"number": 7, "title": "Add coder-mini", "state": "open", "checks": "success", "url": "http://x/7"}]
        return {
            "node": "gke-gpu", "node_state": "in use", "holder": "coder-chat-1", "price": 0.85, "billed_seconds": 600,
            "cost_usd": 0.14, "pods": pods, "models": models, "pulls": pulls, "speed": self.speed, "stopped": ["Redis"],
        }  # fmt: skip

    async def kill(self) -> None:
        self.done.append("kill the bot")

    async def scale(self, name: str, replicas: int) -> None:
        self.done.append(f"scale {name} {replicas}")

    def set_speed(self, speed: float) -> None:
        self.speed = speed


@pytest.fixture
def world() -> World:
    return World()


@pytest_asyncio.fixture(loop_scope="module")
async def workspace(world: World) -> AsyncIterator[Workspace]:
    outside = Outside(world.panel, {"kill the bot": world.kill}, world.set_speed, world.scale)
    async with Workspace(world.faults, outside, manifest=MANIFEST) as workspace:
        yield workspace


@pytest_asyncio.fixture(loop_scope="module")
async def client(workspace: Workspace) -> AsyncWebClient:
    return AsyncWebClient(token=workspace.bot_token, base_url=workspace.api_url)


@pytest_asyncio.fixture(loop_scope="module")
async def app(workspace: Workspace, client: AsyncWebClient) -> AsyncIterator[AsyncApp]:
    async with connected(workspace, client) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, workspace: Workspace) -> AsyncIterator[Page]:
    async with open_page(browser, f"{workspace.url}/?user=U0DEV") as page:
        yield page


async def post(client: AsyncWebClient, *blocks: dict[str, Any], text: str = "x", **more: Any) -> str:
    return str(
        (await client.chat_postMessage(channel=more.pop("channel", CHANNEL), text=text, blocks=blocks, **more))["ts"]
    )


def section(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}, **more}


def button(label: str, action: str, **more: Any) -> dict[str, Any]:
    return {"type": "button", "text": plain(label), "action_id": action, "value": "op-1", **more}


async def test_every_block_in_use_is_drawn(page: Page, client: AsyncWebClient) -> None:
    """Headers, fields, context, dividers, pictures, code, mentions, dates and quotes are rendered."""
    await post(
        client,
        {"type": "header", "text": plain("Bring up coder-chat :fire:")},
        section("*bold `code`* _it_ ~no~ <@U0DEV> <https://example.com|a link>\n&gt; quoted"),
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "*Commit*\n`aa5c`"}, {"type": "mrkdwn", "text": "*Cost*\n$1"}]},
        {"type": "divider"},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "at <!date^0^{date_num}|never>"}]},
        {"type": "rich_text", "elements": [{"type": "rich_text_list", "style": "bullet", "elements": [
            {"type": "rich_text_section", "elements": [{"type": "text", "text": "one", "style": {"bold": True}}]}]}]},
        {"type": "actions", "elements": [button("Approve", "a", style="primary"), button("Deny", "d", style="danger")]},
    )  # fmt: skip
    message = page.locator("#messages article")
    await expect(message.locator("h3")).to_have_text("Bring up coder-chat 🔥")
    await expect(message.locator("strong", has_text="bold code").locator("code")).to_have_text("code")
    await expect(message.locator(".mention.me")).to_have_text("@dev")
    await expect(message.get_by_role("link", name="a link")).to_have_attribute("href", "https://example.com")
    await expect(message.locator("blockquote")).to_have_text("quoted")
    await expect(message.locator(".fields > div")).to_have_count(2)
    await expect(message.locator("hr")).to_have_count(1)
    await expect(message.locator("time", has_text="1970-01-01")).to_be_visible()
    await expect(message.locator("li strong")).to_have_text("one")
    await expect(message.get_by_role("button", name="Deny")).to_have_class("danger")


async def test_hostile_text_is_text(page: Page, client: AsyncWebClient) -> None:
    """Markup, scripts and links to scripts are shown as text, not run."""
    evil = "<img src=x onerror=alert(1)> &lt;script&gt;alert(1)&lt;/script&gt; <javascript:alert(1)|press me>"
    await post(client, section(evil), {"type": "header", "text": plain("<b>bold</b>")})
    message = page.locator("#messages article")
    await expect(message).to_contain_text("<script>alert(1)</script>")
    await expect(message.locator("h3")).to_have_text("<b>bold</b>")
    await expect(message.locator("img, script, b, a")).to_have_count(0)


async def test_a_command_is_offered_typed_and_answered(page: Page, app: AsyncApp) -> None:
    """A slash offers the commands of the manifest; Tab selects one, Enter sends it, and the up arrow recalls it."""

    @app.command("/gpu")
    async def gpu(ack: Any, command: dict[str, Any]) -> None:
        await ack(f"`{command['text']}` by <@{command['user_id']}>")

    line = page.locator("#line")
    await line.fill("/g")
    await expect(page.locator("#offers")).to_contain_text("up NAME | down")
    await line.press("Tab")
    await expect(line).to_have_value("/gpu ")
    await line.press_sequentially("status")
    await line.press("Enter")
    answer = page.locator("article.ephemeral")
    await expect(answer).to_contain_text("Only visible to you")
    await expect(answer).to_contain_text("status by @dev")
    await line.press("ArrowUp")
    await expect(line).to_have_value("/gpu status")


async def test_a_click_is_made_by_the_selected_user(page: Page, app: AsyncApp, client: AsyncWebClient) -> None:
    """Another user does not see the first user's ephemeral messages, and a click may need a confirmation."""
    confirm = {"title": plain("Sure?"), "text": plain("It costs $1."), "confirm": plain("Yes"), "deny": plain("No")}
    pressed: list[str] = []

    @app.action("approve")
    async def approve(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        pressed.append(body["user"]["id"])
        await client.chat_update(channel=CHANNEL, ts=body["container"]["message_ts"], text="Approved", blocks=[])

    await client.chat_postEphemeral(channel=CHANNEL, user="U0DEV", text="for dev alone")
    await post(client, {"type": "actions", "elements": [button("Approve", "approve", confirm=confirm)]})
    await expect(page.locator("#messages")).to_contain_text("for dev alone")
    await page.get_by_role("button", name="@lead").click()
    await expect(page.locator("#messages")).not_to_contain_text("for dev alone")
    await page.get_by_role("button", name="Approve").click()
    await page.locator("#confirm").get_by_role("button", name="No").click()
    await page.get_by_role("button", name="Approve").focus()
    await page.keyboard.press("Enter")
    await page.locator("#confirm").get_by_role("button", name="Yes").press("Enter")
    await expect(page.locator("#messages")).to_contain_text("Approved")
    await expect(page.locator("#messages article").last).to_be_focused()  # its button is gone
    assert pressed == ["U0LEAD"]


async def test_a_thread_is_shown_next_to_the_channel(page: Page, app: AsyncApp, client: AsyncWebClient) -> None:
    """The message shows the number of replies, which are in the thread with an input; Escape closes it."""

    @app.event("app_mention")
    async def mentioned(event: dict[str, Any], say: Any) -> None:
        await say(text="The GPU is free.", thread_ts=event["thread_ts"])

    @app.event("message")
    async def ignore_message() -> None:
        pass

    root = await post(client, section("*Bring up coder-chat*"))
    await post(client, section("Smoke tests: all passed"), thread_ts=root)
    await page.get_by_role("button", name="1 reply").click()
    thread = page.locator("#thread")
    await expect(thread).to_contain_text("Smoke tests: all passed")
    await expect(page.locator("#reply")).to_be_focused()
    await page.locator("#reply").fill("@stoker status")
    await page.locator("#reply").press("Enter")
    await expect(thread).to_contain_text("The GPU is free.")
    await expect(page.get_by_role("button", name="3 replies")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(thread).to_be_hidden()


async def test_a_message_has_the_apps_shortcuts(page: Page, app: AsyncApp, client: AsyncWebClient) -> None:
    """The shortcuts are in the menu with three dots, which also works with the keyboard, and open a modal."""

    @app.shortcut("status")
    async def status(ack: Any, shortcut: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        text_section = section(f"About: {shortcut['message']['text']}")
        await client.views_open(trigger_id=shortcut["trigger_id"], view=modal("Status", text_section))

    await post(client, section("card"), text="Bring up coder-chat")
    more = page.locator("#messages article summary[aria-label='More actions']")
    await more.focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("menuitem", name="Show status").click()
    await expect(page.get_by_role("dialog")).to_contain_text("About: Bring up coder-chat")


async def test_a_modal_keeps_the_typed_text_while_the_app_updates_it(page: Page, app: AsyncApp) -> None:
    """A search offers the app's options, and a choice updates the view; the other fields and the caret do not change."""
    search = {"type": "external_select", "min_query_length": 2, "placeholder": plain("Search the Hub")}
    live = {"type": "plain_text_input", "dispatch_action_config": {"trigger_actions_on": ["on_character_entered"]}}
    form = modal(
        "Swap", field("Model", search, dispatch_action=True), field("Context", live, dispatch_action=True),
        field("When", {"type": "datetimepicker"}, optional=True),
        field("Keep", {"type": "checkboxes", "options": [{"text": plain("The old weights"), "value": "old"}]}, optional=True),
        field("Group", {"type": "radio_buttons", "options": [{"text": plain(g), "value": g} for g in ("chat", "fim")]}),
    )  # fmt: skip
    done: list[dict[str, Any]] = []

    @app.command("/model")
    async def on_command(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=form)

    @app.options("model")
    async def offered(ack: Any, payload: dict[str, Any]) -> None:
        await ack(options=[{"text": plain(f"{payload['value']}-{n}B"), "value": f"{n}"} for n in (3, 7)])

    async def verdict(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        values = body["view"]["state"]["values"]
        model, context = values["model"]["model"]["selected_option"], values["context"]["context"]["value"]
        text = f"{(model or {}).get('value')}B with {context} fits."
        await client.views_update(view_id=body["view"]["id"], view={**form, "blocks": [*form["blocks"], section(text)]})

    app.action("model")(verdict)
    app.action("context")(verdict)

    @app.view("swap")
    async def submitted(ack: Any, view: dict[str, Any]) -> None:
        values = view["state"]["values"]
        if values["context"]["context"]["value"] == "0":
            await ack(response_action="errors", errors={"context": "More than 0."})
            return
        done.append(values)
        await ack()

    await page.locator("#line").fill("/model swap coder-chat")
    await page.locator("#line").press("Enter")
    dialog = page.locator("#modal")
    await dialog.get_by_label("Model").fill("Qwen")
    await expect(dialog.get_by_role("option")).to_have_count(2)
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(dialog).to_contain_text("7B with None fits.")
    await expect(dialog.get_by_label("Model")).to_be_focused()
    context = dialog.get_by_label("Context")
    await context.press_sequentially("0")
    await expect(dialog).to_contain_text("7B with 0 fits.")
    await expect(context).to_be_focused()
    await expect(context).to_have_value("0")
    await dialog.get_by_label("When").fill("2030-01-31T18:00")
    await dialog.get_by_label("The old weights").check()
    await dialog.get_by_label("fim").check()
    await dialog.get_by_role("button", name="Go").click()
    await expect(dialog.get_by_role("alert")).to_have_text("More than 0.")
    assert await unreadable(page) == []
    await context.fill("8192")
    await expect(dialog).to_contain_text("7B with 8192 fits.")
    await dialog.get_by_role("button", name="Go").click()
    await expect(dialog).to_be_hidden()
    (values,) = done
    assert values["group"]["group"]["selected_option"]["value"] == "fim"
    assert [option["value"] for option in values["keep"]["keep"]["selected_options"]] == ["old"]
    assert values["when"]["when"]["selected_date_time"] > 1_896_000_000


async def test_the_app_has_a_home_and_direct_messages(
    workspace: Workspace, page: Page, app: AsyncApp, client: AsyncWebClient
) -> None:
    """A direct message is counted until it is read; the Home has a picture, buttons, and links that lead to messages."""

    @app.event("app_home_opened")
    async def opened_home(event: dict[str, Any], client: AsyncWebClient) -> None:
        image = {"type": "image", "alt_text": "last week", "slack_file": {"id": picture}}
        overflow = {"type": "overflow", "action_id": "more", "options": [{"text": plain("Extend 1 h"), "value": "1h"}]}
        await client.views_publish(
            user_id=event["user"],
            view={
                "type": "home",
                "blocks": [section(f"The GPU is free, <{card}|see its message>", accessory=overflow), image],
            },
        )

    extended: list[str] = []

    @app.action("more")
    async def more(ack: Any, action: dict[str, Any]) -> None:
        await ack()
        extended.append(action["selected_option"]["value"])

    @app.event("message")
    async def on_message(event: dict[str, Any], say: Any) -> None:
        await say("I heard you.")

    root = await post(client, section("the card"))
    card = f"{workspace.url}/archives/{CHANNEL}/p{root.replace('.', '')}"
    picture = str((await client.files_upload_v2(channel=CHANNEL, content=PNG, filename="week.png"))["file"]["id"])
    await usable(client, {"type": "image", "alt_text": "the week", "slack_file": {"id": picture}})
    await client.chat_postMessage(channel="U0DEV", text="coder-chat has been idle")
    stoker = page.locator("nav button", has_text="Stoker")
    await expect(stoker.locator(".unread")).to_have_text("1")
    assert "(1)" in await page.title()
    await stoker.click()
    await expect(page.locator("#messages")).to_contain_text("coder-chat has been idle")
    await expect(stoker.locator(".unread")).to_be_hidden()
    await page.locator("#line").fill("thanks")
    await page.locator("#line").press("Enter")
    await expect(page.locator("#messages")).to_contain_text("I heard you.")
    await page.get_by_role("tab", name="Home").click()
    await expect(page.locator("#home")).to_contain_text("The GPU is free")
    await expect(page.locator("#home img")).to_have_attribute("src", f"/files/{picture}")
    await page.get_by_role("link", name="see its message").click()
    await expect(page.locator("#messages article.found")).to_contain_text("the card")
    await stoker.click()
    await page.get_by_role("tab", name="Home").click()
    await page.locator("#home summary").click()
    await page.get_by_role("menuitem", name="Extend 1 h").click()
    await until(lambda: extended == ["1h"])


async def test_the_panel_acts_on_the_platform(page: Page, world: World) -> None:
    """The cost and the pods are shown; clock, switches and buttons work."""
    panel = page.locator("#cluster")
    await expect(panel).to_contain_text("$0.14 billed for 10 min at $0.85/h")
    await expect(panel.get_by_role("link", name="#7 Add coder-mini")).to_have_attribute("href", "http://x/7")
    await expect(panel.get_by_role("status")).to_have_text("Redis is stopped.")
    await panel.get_by_label("Speed of the platform's clock").select_option("300")
    await until(lambda: world.speed == 300)
    await panel.get_by_role("button", name="kubectl scale 0").click()
    await panel.get_by_role("button", name="kill the bot").click()
    await until(lambda: world.done == ["scale coder-chat 0", "kill the bot"])
    await panel.locator("summary").click()
    await panel.get_by_label("no-stock").check()
    await until(lambda: world.faults == {"no-stock"})
    await expect(panel.locator("summary .unread")).to_have_text("1")
    await panel.get_by_label("no-stock").uncheck()
    await until(lambda: world.faults == set())


FAINT_OR_NAMELESS = """() => {
  const light = (c) => [.2126, .7152, .0722].reduce((sum, part, n) => {
    const x = c[n] / 255;
    return sum + part * (x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
  }, 0);
  const numbers = (css) => css.match(/[\\d.]+/g).map(Number);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *:not([aria-hidden])")) {
    if (!node.offsetParent || ![...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())) continue;
    const pair = [light(numbers(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
    if ((pair[0] + .05) / (pair[1] + .05) < 4.5) found.push(node.textContent.trim().slice(0, 40));
  }
  for (const node of document.querySelectorAll("input, select, textarea, button, img")) {
    const name = node.alt || node.getAttribute("aria-label") || node.labels?.length || node.textContent.trim() || node.title || node.placeholder;
    if (node.offsetParent && !name) found.push(node.outerHTML.slice(0, 80));
  }
  return found;
}"""
"""Text with less contrast than WCAG's 4.5, and elements without a name for screen readers."""


async def unreadable(page: Page) -> list[str]:
    """Return texts with too little contrast in the light or the dark scheme."""
    problems: list[str] = []
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        problems += [f"{scheme}: {text}" for text in await page.evaluate(FAINT_OR_NAMELESS)]
    return problems


SCHEMES: tuple[Literal["dark", "light"], ...] = ("dark", "light")


async def test_the_pull_requests_page_can_be_read(browser: Browser) -> None:
    """The description, the checks, the diff and the buttons are readable in the light and the dark scheme."""
    patch = "@@ -1,2 +1,2 @@\n same\n-replicas: 1\n+replicas: 0\n"
    html = pull_page(
        number=7, title="Add coder-mini", body="## The contract\n\n| | |\n| --- | --- |\n| `a` | b |\n| c | [d](/d) |", state="open",
        head="stoker/add", base="main", author="stoker", mergeable=False, checks="pending", labels=["stoker"],
        comments=[("lead", "why?")], changes=[FileChange("serving/coder-mini/deployment.yaml", "modified", 1, 1, patch)],
    )  # fmt: skip
    async with open_page(browser, "data:text/html,<p>empty") as page:
        await page.set_content(html)
        assert await unreadable(page) == []


async def test_every_text_is_readable_and_every_control_has_a_name(page: Page, client: AsyncWebClient) -> None:
    """The page shows cards with all kinds of buttons, ephemeral messages, the panel, a thread, and Home."""
    danger = {"type": "button", "text": plain("Deny"), "action_id": "d", "style": "danger", "value": "x"}
    primary = {"type": "button", "text": plain("Approve"), "action_id": "a", "style": "primary", "value": "x"}
    quiet = {"type": "context", "elements": [{"type": "mrkdwn", "text": "Operation `abc` by <@U0LEAD> and <@U0DEV>"}]}
    await client.chat_postEphemeral(channel=CHANNEL, user="U0DEV", text="`for` <@U0DEV> alone")
    await client.views_publish(user_id="U0DEV", view={"type": "home", "blocks": [section("*Home* `x`"), quiet]})
    await post(client, section("*Card* `code`"), {"type": "actions", "elements": [primary, danger]}, quiet)
    await expect(page.locator("#messages")).to_contain_text("Operation abc")
    await page.locator("#cluster summary").click()
    await page.locator("#messages article").last.hover()
    await page.get_by_role("button", name="Reply in thread").click()
    await expect(page.locator("#replies")).to_contain_text("Card")
    assert await unreadable(page) == []
    await page.locator("nav button", has_text="Stoker").click()
    await page.get_by_role("tab", name="Home").click()
    await expect(page.locator("#home")).to_contain_text("Home")
    assert await unreadable(page) == []


async def test_a_phone_shows_everything_without_horizontal_scrolling(
    browser: Browser, workspace: Workspace, client: AsyncWebClient
) -> None:
    """The card fits into 390 px, the thread and the panel open over it, and a long word is broken."""
    ts = await post(client, section("a" * 300), section("*Card*", fields=[{"type": "mrkdwn", "text": "*A*\nb"}] * 6))
    await post(client, section("reply"), thread_ts=ts)
    async with open_page(browser, f"{workspace.url}/?user=U0DEV", width=390, height=780) as page:
        await expect(page.locator("#messages")).to_contain_text("Card")
        for _ in range(2):
            wide = await page.evaluate(
                "document.documentElement.scrollWidth > innerWidth || document.querySelector('#messages').scrollWidth > innerWidth"
            )
            assert not wide
            await page.get_by_role("button", name="1 reply").click()
            await expect(page.locator("#replies")).to_contain_text("reply")
            await page.get_by_role("button", name="Close the thread").click()
        await page.get_by_role("button", name="Platform").click()
        await expect(page.locator("#cluster")).to_be_visible()
        await page.get_by_role("button", name="Platform").click()
        await expect(page.locator("#cluster")).to_be_hidden()
