"""`stoker manifest`: the Slack app, with the scopes in use (`bot.scopes`) and no more."""

import json
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from bot.errors import BotError
from bot.scopes import EVENTS, scopes
from bot.views.modals import SHORTCUT
from commands.topics import COMMANDS


class NoPublicAddress(BotError):
    """The address given for HTTP mode is none that Slack could reach."""

    remedy = "Give an https:// address that the internet can reach, or leave `--http` out for Socket Mode."


def manifest(*, http: str = "", private_channel: bool = False) -> dict[str, Any]:
    """The app manifest. `http` is the bot's public address; without one it is Socket Mode."""
    if http and not http.startswith("https://"):
        raise NoPublicAddress(f"--http {http}: Slack wants a public address that begins with https://")
    url = f"{http.rstrip('/')}/slack/events"
    request = {"request_url": url} if http else {}
    return {
        "display_information": {
            "name": "Stoker",
            "description": "Lights the GPU when somebody needs it, proves that the model answers, banks the fire after.",
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
                    "description": "A command where none can be typed: in a thread",
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
        "oauth_config": {"scopes": {"bot": list(scopes(private_channel=private_channel))}},
        "settings": {
            "event_subscriptions": {"bot_events": sorted(EVENTS)} | request,
            "interactivity": {"is_enabled": True} | request | ({"message_menu_options_url": url} if http else {}),
            "org_deploy_enabled": False,
            "socket_mode_enabled": not http,
            "token_rotation_enabled": False,
        },
    }


def text(*, http: str = "", private_channel: bool = False, as_json: bool = False) -> str:
    """The manifest as Slack takes it, in YAML or JSON."""
    made = manifest(http=http, private_channel=private_channel)
    return json.dumps(made, indent=2) + "\n" if as_json else _yaml(made)


def _yaml(value: dict[str, Any]) -> str:
    stream, yaml = StringIO(), YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(value, stream)
    return stream.getvalue()
