"""The Slack methods and events that the bot uses, with their scopes from Slack's reference.

The app manifest requests these scopes, and the doctor compares the token's scopes with them.
"""

from collections.abc import Mapping

METHODS: Mapping[str, tuple[str, ...]] = {
    "apps.connections.open": (),  # needs the scope connections:write of the app-level token
    "auth.test": (),
    "chat.postEphemeral": ("chat:write",),
    "chat.postMessage": ("chat:write",),
    "chat.update": ("chat:write",),
    "conversations.info": ("channels:read",),
    "conversations.history": ("channels:history", "im:history"),
    "conversations.open": ("im:write",),
    "conversations.replies": ("channels:history", "im:history"),
    "files.completeUploadExternal": ("files:write",),
    "files.getUploadURLExternal": ("files:write",),
    "users.info": ("users:read",),
    "usergroups.users.list": ("usergroups:read",),
    "views.open": (),
    "views.publish": (),
    "views.push": (),
    "views.update": (),
}
"""The scopes of each method, for a public channel and for direct messages (docs.slack.dev/reference/methods)."""

BOOKMARK_METHODS: Mapping[str, tuple[str, ...]] = {
    "bookmarks.add": ("bookmarks:write",),
    "bookmarks.edit": ("bookmarks:write",),
    "bookmarks.list": ("bookmarks:read",),
}
"""The scopes of the methods that are only used with the setting `slack.bookmark`."""

EVENTS: Mapping[str, tuple[str, ...]] = {
    "app_home_opened": (),
    "app_mention": ("app_mentions:read",),
    "member_joined_channel": ("channels:read",),
    "message.im": ("im:history",),
}
"""The scopes of each event (docs.slack.dev/reference/events)."""


def scopes(*, private_channel: bool = False, bookmark: bool = False) -> tuple[str, ...]:
    """The bot's scopes, sorted. `bookmark` adds those for the setting `slack.bookmark`. For a private channel, Slack's
    scopes begin with `groups:` instead of `channels:`.
    """
    required = {"commands"}.union(*METHODS.values(), *EVENTS.values())
    if bookmark:
        required = required.union(*BOOKMARK_METHODS.values())
    if private_channel:
        required = {scope.replace("channels:", "groups:") for scope in required}
    return tuple(sorted(required))
