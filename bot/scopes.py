"""Which scopes Slack's reference names for what the bot calls and listens to; what is not here is not asked for.

The manifest asks for these, and the doctor compares the token's with them.
"""

from collections.abc import Mapping

METHODS: Mapping[str, tuple[str, ...]] = {
    "apps.connections.open": (),  # by the app-level token, which has its own scope, connections:write
    "auth.test": (),
    "chat.postEphemeral": ("chat:write",),
    "chat.postMessage": ("chat:write",),
    "chat.update": ("chat:write",),
    "conversations.info": ("channels:read",),
    "conversations.history": ("channels:history", "im:history"),
    "conversations.open": ("im:write",),
    "conversations.replies": ("channels:history", "im:history"),
    "files.completeUploadExternal": ("files:write",),
    "files.delete": ("files:write",),
    "files.getUploadURLExternal": ("files:write",),
    "usergroups.users.list": ("usergroups:read",),
    "views.open": (),
    "views.publish": (),
    "views.push": (),
    "views.update": (),
}
"""docs.slack.dev/reference/methods: the scopes of each method, for a public channel and for direct messages."""

EVENTS: Mapping[str, tuple[str, ...]] = {
    "app_home_opened": (),
    "app_mention": ("app_mentions:read",),
    "member_joined_channel": ("channels:read",),
    "message.im": ("im:history",),
}
"""docs.slack.dev/reference/events."""


def scopes(*, private_channel: bool = False) -> tuple[str, ...]:
    """The bot's scopes; in a private channel Slack calls the `channels:` ones `groups:`."""
    found = {"commands"}.union(*METHODS.values(), *EVENTS.values())
    if private_channel:
        found = {scope.replace("channels:", "groups:") for scope in found}
    return tuple(sorted(found))
