"""`stoker manifest`: the Slack app manifest with exactly the scopes in use (`bot.slack.scopes`)."""

import json
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ruamel.yaml import YAML

from bot.errors import BotError
from bot.slack.scopes import EVENTS, scopes
from bot.views.modals import SHORTCUT
from commands.help_topics import COMMANDS


class NoPublicAddress(BotError):
    """Slack cannot reach the address in `--http`."""

    remedy = "Give an https:// address that the internet can reach, or leave `--http` out for Socket Mode."


def manifest(*, http: str = "", private_channel: bool = False, bookmark: bool = False) -> dict[str, Any]:
    """The app manifest. `http` is the bot's public address; empty for Socket Mode."""
    if http and not http.startswith("https://"):
        raise NoPublicAddress(f"--http {http}: Slack needs a public address that begins with https://")
    url = f"{http.rstrip('/')}/slack/events"
    request = {"request_url": url} if http else {}
    return {
        "display_information": {
            "name": "Stoker",
            "description": "Starts the GPU when somebody needs it, tests the model, and stops the GPU when it is idle.",
            "background_color": "#7a2e0e",
        },
        "features": {
            "app_home": {
                "home_tab_enabled": True,
                "messages_tab_enabled": True,
                "messages_tab_read_only_enabled": False,
            },
            "bot_user": {"display_name": "Stoker", "always_online": True},
            "shortcuts": [
                {
                    "name": "Tell Stoker …",
                    "type": "message",
                    "callback_id": SHORTCUT,
                    "description": "A command in a thread, where slash commands do not work",
                }
            ],
            "slash_commands": [
                {
                    "command": name,
                    "description": command.about,
                    "usage_hint": " | ".join(f"{topic.verb} {topic.usage}".strip() for topic in command.topics),
                    "should_escape": False,
                    **({"url": url} if http else {}),
                }
                for name, command in COMMANDS.items()
            ],
        },
        "oauth_config": {"scopes": {"bot": list(scopes(private_channel=private_channel, bookmark=bookmark))}},
        "settings": {
            "event_subscriptions": {"bot_events": sorted(EVENTS)} | request,
            "interactivity": {"is_enabled": True} | request | ({"message_menu_options_url": url} if http else {}),
            "org_deploy_enabled": False,
            "socket_mode_enabled": not http,
            "token_rotation_enabled": False,
        },
    }


def text(*, http: str = "", private_channel: bool = False, bookmark: bool = False, as_json: bool = False) -> str:
    """The manifest for Slack, as YAML or JSON."""
    content = manifest(http=http, private_channel=private_channel, bookmark=bookmark)
    return json.dumps(content, indent=2) + "\n" if as_json else _yaml(content)


def link() -> str:
    """The URL at which Slack creates the app from this manifest."""
    compact = json.dumps(manifest(), separators=(",", ":"))
    return f"https://api.slack.com/apps?new_app=1&manifest_json={quote(compact, safe='')}"


def document(path: str) -> None:
    """Replace the link between the two markers in a Markdown file."""
    file = Path(path)
    head, begin, old_link = file.read_text(encoding="utf-8").partition("<!-- create app -->\n")
    _, end, tail = old_link.partition("<!-- end of create app -->")
    file.write_text(f"{head}{begin}[create the app]: {link()}\n{end}{tail}", encoding="utf-8")


def _yaml(value: dict[str, Any]) -> str:
    stream, yaml = StringIO(), YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(value, stream)
    return stream.getvalue()
