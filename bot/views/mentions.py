"""Mentions. The code that posts a message chooses the people to notify; other mentions in the text are shown by name."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from bot.text.mrkdwn import Mrkdwn, md, mention, mentioned, mentioning
from bot.views.blocks import MESSAGE_BLOCKS, View, section
from bot.views.text import plain


def mentioned_in(view: View) -> set[str]:
    """The ids of the users and user groups whom a message mentions."""
    return mentioned(view.text).union(_people(view.blocks), *(mentioned(text) for text in _texts(view.blocks)))


def notifying(view: View, recipients: Collection[str], names: Mapping[str, str]) -> View:
    """The message with only the mentions of `recipients`; other people are shown by name."""

    def quiet(node: Any) -> Any:
        if isinstance(node, dict):
            if (user := _person(node)) and user not in recipients:
                return {"type": "text", "text": f"@{plain(names.get(user) or user)}"}
            return {
                key: mentioning(value, recipients, names) if key == "text" and isinstance(value, str) else quiet(value)
                for key, value in node.items()
            }
        return [quiet(child) for child in node] if isinstance(node, list) else node

    return View(text=mentioning(view.text, recipients, names), blocks=quiet(view.blocks))


def addressed(view: View, recipients: Collection[str], text: Mrkdwn) -> View:
    """The message with a first line that mentions the recipients and asks them to act; that line is the notification."""
    line = md("{recipients}: {text}", recipients=md(" ").join(mention(member) for member in recipients), text=text)
    return View(text=line, blocks=[section(line), *view.blocks][:MESSAGE_BLOCKS])


def _person(part: Mapping[str, Any]) -> str:
    """The id that an element of rich text mentions; empty if it mentions nobody."""
    key = {"user": "user_id", "usergroup": "usergroup_id"}.get(str(part.get("type")), "")
    return str(part.get(key) or "")


def _people(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if user := _person(node):
            yield user
        for value in node.values():
            yield from _people(value)
    elif isinstance(node, list):
        for child in node:
            yield from _people(child)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str):
                yield from [value] if key == "text" else []
            else:
                yield from _texts(value)
    elif isinstance(node, list):
        for child in node:
            yield from _texts(child)
