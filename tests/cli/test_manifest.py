"""`stoker manifest` has exactly the scopes in use."""

import ast
import inspect
import json
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from PIL import Image
from ruamel.yaml import YAML
from slack_sdk.web.async_client import AsyncWebClient
from typer.testing import CliRunner

from bot.cli.main import cli
from bot.cli.manifest import manifest
from bot.slack.scopes import BOOKMARK_METHODS, EVENTS, METHODS, scopes

ROOT = Path(__file__).parents[2]
FAMILIES = ("apps_", "auth_", "bookmarks_", "bots_", "chat_", "conversations_", "files_", "pins_", "reactions_", "team_", "user", "views_")  # fmt: skip


def methods_called() -> set[str]:
    """Return Slack's name of every Web API method that the bot's source calls on a client."""
    names = {
        node.attr
        for package in ("bot", "commands")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr.startswith(FAMILIES) and hasattr(AsyncWebClient, node.attr)
    }
    return {method for name in names for method in api_methods(name)}


def api_methods(name: str) -> set[str]:
    """Return Slack's names of the methods that a client method calls, directly or, like files_upload_v2, indirectly."""
    source = inspect.getsource(getattr(AsyncWebClient, name))
    called = set(re.findall(r'api_call\(\s*"([\w.]+)"', source))
    for method in set(re.findall(r"self\.(\w+)\(", source)):
        if method.startswith(FAMILIES):
            called |= api_methods(method)
    return called


def test_every_method_that_the_bot_calls_has_its_scope() -> None:
    """Slack would refuse a call that is not in the manifest with missing_scope."""
    assert methods_called()
    assert methods_called() <= METHODS.keys() | BOOKMARK_METHODS.keys()


def test_no_method_is_listed_that_the_bot_does_not_call() -> None:
    """A method that is no longer called has no scope. auth.test is Bolt's own call."""
    assert METHODS.keys() | BOOKMARK_METHODS.keys() - {"auth.test"} <= methods_called() | {"auth.test"}


def test_the_scopes_are_those_of_methods_events_and_commands() -> None:
    """Each scope has a reason; no unused scope is requested."""
    reasons = {scope for needed in (*METHODS.values(), *EVENTS.values()) for scope in needed}
    assert set(scopes()) == reasons | {"commands"}
    assert not [scope for scope in scopes() if scope.startswith(("admin", "users:read.", "users:write", "groups:"))]


def test_a_private_channel_needs_other_scopes() -> None:
    """Slack's scopes for private channels begin with `groups:`; scopes for public channels are not requested then."""
    private = scopes(private_channel=True)
    assert "groups:history" in private
    assert not [scope for scope in private if scope.startswith("channels:")]


def test_a_bookmark_needs_two_more_scopes() -> None:
    """Only an app whose bot keeps a bookmark requests them."""
    assert set(scopes(bookmark=True)) - set(scopes()) == {"bookmarks:read", "bookmarks:write"}
    requested = manifest(bookmark=True)["oauth_config"]["scopes"]["bot"]
    assert requested == list(scopes(bookmark=True))
    printed = CliRunner().invoke(cli, ["manifest", "--bookmark", "--json"]).stdout
    assert json.loads(printed)["oauth_config"]["scopes"]["bot"] == requested


def test_socket_mode_needs_no_address_and_http_needs_it_everywhere() -> None:
    """Commands, events, clicks and the options of selects all come to /slack/events."""
    assert manifest()["settings"]["socket_mode_enabled"]
    assert "https" not in json.dumps(manifest())
    app_manifest = manifest(http="https://stoker.example.com/")
    assert not app_manifest["settings"]["socket_mode_enabled"]
    assert json.dumps(app_manifest).count('"https://stoker.example.com/slack/events"') == 5


@pytest.mark.parametrize("arguments", [[], ["--http", "https://stoker.example.com"], ["--private-channel"]])
def test_yaml_and_json_have_the_same_content(arguments: list[str]) -> None:
    """Slack's form accepts both formats."""
    run = CliRunner()
    yaml = YAML(typ="safe").load(run.invoke(cli, ["manifest", *arguments]).stdout)
    assert yaml == json.loads(run.invoke(cli, ["manifest", "--json", *arguments]).stdout)


def test_an_address_that_slack_cannot_reach_is_refused() -> None:
    """The error is one line that names the option."""
    result = CliRunner().invoke(cli, ["manifest", "--http", "http://10.0.0.1"])
    assert result.exit_code == 2
    assert "--http http://10.0.0.1" in result.stderr


def test_slacks_limits_hold() -> None:
    """The limits are those of docs.slack.dev/reference/app-manifest."""
    app_manifest = manifest()
    assert len(app_manifest["display_information"]["description"]) <= 140
    assert all(len(item["usage_hint"]) <= 1000 for item in app_manifest["features"]["slash_commands"])
    assert all(len(item["name"]) <= 24 for item in app_manifest["features"]["shortcuts"])


def test_the_docs_give_the_reason_of_each_scope() -> None:
    """The manifest explains its scopes to the person who installs the app."""
    documentation = (ROOT / "docs" / "slack.md").read_text(encoding="utf-8")
    assert [
        scope for scope in (*scopes(bookmark=True), *scopes(private_channel=True)) if f"`{scope}`" not in documentation
    ] == []


def test_the_link_of_the_guide_creates_the_app_of_the_manifest() -> None:
    """The form that the link opens contains the output of `stoker manifest`; `make docs` writes the link."""
    link = re.search(r"^\[create the app\]: (\S+)$", (ROOT / "docs" / "install.md").read_text("utf-8"), re.M)
    assert link
    address = urlsplit(link[1])
    assert (address.hostname, address.path) == ("api.slack.com", "/apps")
    query = dict(parse_qsl(address.query))
    assert query.pop("new_app") == "1"
    assert {name: json.loads(value) for name, value in query.items()} == {"manifest_json": manifest()}
    assert len(link[1]) < 8000


def test_slack_accepts_the_icon() -> None:
    """Slack requires a square PNG of 512 to 2000 pixels (apps.icon.set)."""
    with Image.open(ROOT / "docs" / "icon.png") as icon:
        assert (icon.format, icon.size) == ("PNG", (512, 512))
