"""The bookmarks at the top of the channel: `bookmarks.list`, `bookmarks.add` and `bookmarks.edit`."""

from collections.abc import Callable

from sandbox.slack.blocks import Json
from sandbox.slack.history import APP, CHANNEL


class NoBookmark(Exception):
    """The request cannot be fulfilled; the message is Slack's error code."""


class Bookmarks:
    def __init__(self) -> None:
        self.shown: list[Json] = []
        self.methods: dict[str, Callable[[Json], Json]] = {
            "bookmarks.list": self._list,
            "bookmarks.add": self._add,
            "bookmarks.edit": self._edit,
        }

    def _list(self, arguments: Json) -> Json:
        _refuse_other_channels(arguments)
        return {"bookmarks": [dict(bookmark) for bookmark in self.shown]}

    def _add(self, arguments: Json) -> Json:
        _refuse_other_channels(arguments)
        if arguments.get("type") != "link" or not arguments.get("title"):
            raise NoBookmark("invalid_arguments")
        if not str(arguments.get("link", "")).startswith(("http://", "https://")):
            raise NoBookmark("invalid_link")
        fields = {name: arguments.get(name, "") for name in ("title", "link", "emoji", "type")}
        bookmark = {"id": f"Bk{len(self.shown):06d}", "channel_id": CHANNEL, "app_id": APP, **fields}
        self.shown.append(bookmark)
        return {"bookmark": dict(bookmark)}

    def _edit(self, arguments: Json) -> Json:
        _refuse_other_channels(arguments)
        bookmark = next(
            (candidate for candidate in self.shown if candidate["id"] == arguments.get("bookmark_id")), None
        )
        if bookmark is None:
            raise NoBookmark("not_found")
        bookmark |= {name: arguments[name] for name in ("title", "link", "emoji") if name in arguments}
        return {"bookmark": dict(bookmark)}


def _refuse_other_channels(arguments: Json) -> None:
    if arguments.get("channel_id") != CHANNEL:
        raise NoBookmark("channel_not_found")
