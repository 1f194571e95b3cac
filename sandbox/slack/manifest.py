"""The app's manifest: the scopes of its token, and its registered commands, events and shortcuts.

Like Slack, this workspace refuses a method without its scope (`missing_scope`), and sends no event, command or shortcut
that is not in the manifest. The scopes of methods and events are from docs.slack.dev/reference.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

METHOD_SCOPES: Mapping[str, str] = {
    "chat.postMessage": "chat:write",
    "chat.postEphemeral": "chat:write",
    "chat.update": "chat:write",
    "chat.delete": "chat:write",
    "conversations.open": "im:write",
    "conversations.history": "{kind}:history",
    "conversations.replies": "{kind}:history",
    "conversations.info": "{kind}:read",
    "conversations.members": "{kind}:read",
    "conversations.list": "channels:read",
    "users.info": "users:read",
    "users.list": "users:read",
    "usergroups.list": "usergroups:read",
    "usergroups.users.list": "usergroups:read",
    "reactions.add": "reactions:write",
    "bookmarks.list": "bookmarks:read",
    "bookmarks.add": "bookmarks:write",
    "bookmarks.edit": "bookmarks:write",
    "files.info": "files:read",
    "files.delete": "files:write",
    "files.getUploadURLExternal": "files:write",
    "files.completeUploadExternal": "files:write",
}
"""The scope of each method that needs one; `{kind}` is `channels`, or `im` for direct messages."""

EVENT_SCOPES: Mapping[str, str] = {
    "app_mention": "app_mentions:read",
    "message.im": "im:history",
    "message.channels": "channels:history",
    "member_joined_channel": "channels:read",
    "app_home_opened": "",
}


class BadManifest(ValueError):
    """The text is not a valid app manifest."""


@dataclass(frozen=True)
class Command:
    """A slash command with its hint in the composer."""

    command: str
    description: str = ""
    usage_hint: str = ""


@dataclass(frozen=True)
class Shortcut:
    """An entry in the shortcuts menu (`global`) or in a message's ⋮ menu (`message`)."""

    name: str
    kind: str
    callback_id: str


@dataclass(frozen=True)
class Manifest:
    """The parts of a manifest that the workspace uses."""

    scopes: frozenset[str]
    commands: tuple[Command, ...]
    events: frozenset[str]
    shortcuts: tuple[Shortcut, ...] = ()
    home: bool = True
    messages: bool = True
    """True if people may write to the app in its Messages tab."""

    def shortcut(self, name: str, kind: str) -> Shortcut | None:
        """Return the shortcut with this name (case is ignored) or callback id; None if there is none."""
        return next(
            (s for s in self.shortcuts if s.kind == kind and name.casefold() in (s.name.casefold(), s.callback_id)),
            None,
        )

    def lacks(self, needed: str) -> bool:
        return bool(needed) and needed not in self.scopes


def read_manifest(text: str) -> Manifest:
    """Parse a manifest from JSON or YAML; raises BadManifest with the problem."""
    try:
        document = YAML(typ="safe").load(text)
    except YAMLError as e:
        raise BadManifest(f"The manifest is neither JSON nor YAML: {' '.join(str(e).split())}") from e
    if not isinstance(document, Mapping) or "features" not in document:
        raise BadManifest("The manifest has no features: it must have display_information, features and oauth_config.")
    features, settings = document["features"], document.get("settings") or {}
    scopes = frozenset(((document.get("oauth_config") or {}).get("scopes") or {}).get("bot") or ())
    events = frozenset((settings.get("event_subscriptions") or {}).get("bot_events") or ())
    commands = tuple(
        Command(c["command"], c.get("description", ""), c.get("usage_hint", ""))
        for c in features.get("slash_commands") or ()
    )
    shortcuts = tuple(Shortcut(s["name"], s["type"], s["callback_id"]) for s in features.get("shortcuts") or ())
    home = features.get("app_home") or {}
    problems = [
        f"event {event} needs the scope {scope}" for event, scope in _needed_scopes(events) if scope not in scopes
    ]
    if (commands or shortcuts) and "commands" not in scopes:
        problems.append("slash commands and shortcuts need the scope commands")
    unknown = sorted(events - EVENT_SCOPES.keys())
    problems += [f"this workspace does not send the event {event}" for event in unknown]
    if problems:
        raise BadManifest(f"Slack would not accept the manifest: {'; '.join(problems)}.")
    return Manifest(
        scopes,
        commands,
        events,
        shortcuts,
        home=bool(home.get("home_tab_enabled")),
        messages=bool(home.get("messages_tab_enabled")) and not home.get("messages_tab_read_only_enabled"),
    )


def _needed_scopes(events: Iterable[str]) -> Iterable[tuple[str, str]]:
    return ((event, EVENT_SCOPES[event]) for event in sorted(events) if EVENT_SCOPES.get(event))


def everything(**features: Any) -> Manifest:
    """Return a manifest with every scope and event of this workspace, for an app without a manifest."""
    scopes = {scope.format(kind=kind) for scope in METHOD_SCOPES.values() for kind in ("channels", "im")}
    fields: dict[str, Any] = {
        "scopes": frozenset(scopes | {scope for scope in EVENT_SCOPES.values() if scope} | {"commands"}),
        "commands": (Command("/gpu"), Command("/model")),
        "events": frozenset(EVENT_SCOPES),
    }
    return Manifest(**(fields | features))
