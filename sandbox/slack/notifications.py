"""Slack's notifications of a new message: the notified users, and the text.

Source: docs.slack.dev and Slack's help centre ("Configure your Slack notifications"). With the default preferences
people are notified of direct messages, of mentions of themselves or of one of their user groups, and of @channel, @here
and @everyone, but not of their own messages, of edits (`chat.update`) or of ephemeral messages.
The notification contains the message's `text`; Slack finds mentions in the rendered content, which is the blocks if
there are any.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sandbox.slack import blocks as kit
from sandbox.slack.blocks import Json

_PEOPLE = re.compile(r"<@(\w+)(?:\|[^>]*)?>")
_GROUPS = re.compile(r"<!subteam\^(\w+)(?:\|[^>]*)?>")
_EVERYBODY = re.compile(r"<!(?:channel|here|everyone)(?:\|[^>]*)?>")


@dataclass(frozen=True)
class Notification:
    """A notification of one user at one time (monotonic seconds); `how` is `direct message` or `mention`."""

    at: float
    user: str
    how: str
    text: str
    channel: str
    ts: str
    key: str = ""
    """The key in the message's metadata, if any."""


def mentioned(text: str, blocks: list[Json], members: Collection[str], groups: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the members of a conversation that a message mentions, directly or with a group."""
    user_ids = set[str]()
    for markup in _markup(blocks) if blocks else [text]:
        user_ids.update(_PEOPLE.findall(markup))
        for group in _GROUPS.findall(markup):
            user_ids.update(groups.get(group, ()))
        if _EVERYBODY.search(markup):
            user_ids.update(members)
    return user_ids & set(members)


def pushed(text: str, blocks: list[Json], names: Callable[[str], str]) -> str:
    """Return the text of the notification: the message's text, otherwise Slack's rendering of its blocks."""
    return kit.readable(text, names) if text else kit.visible_text(blocks, names)


def _markup(node: object) -> Iterator[str]:
    """Yield all mrkdwn in blocks; mentions in rich text are converted to mrkdwn."""
    match node:
        case {"type": "mrkdwn" | "markdown", "text": str(text)}:
            yield text
        case {"type": "user", "user_id": str(user)}:
            yield f"<@{user}>"
        case {"type": "usergroup", "usergroup_id": str(group)}:
            yield f"<!subteam^{group}>"
        case {"type": "broadcast", "range": str(whom)}:
            yield f"<!{whom}>"
        case dict():
            for value in node.values():
                yield from _markup(value)
        case list():
            for value in node:
                yield from _markup(value)
