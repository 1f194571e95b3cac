"""The bookmarks at the top of the channel: `bookmarks.list`, `bookmarks.add` and `bookmarks.edit`."""

from collections.abc import Callable

from sandbox.slack.blocks import Json
from sandbox.slack.history import APP, CHANNEL


class NoBookmark(Exception):
    """Slack's error code for a request that cannot be fulfilled."""


class Bookmarks:
    def __init__(self) -> None:
        self.shown: list[Json] = []
        self.methods: dict[str, Callable[[Json], Json]] = {
            "bookmarks.list": self._list,
            "bookmarks.add": self._add,
            "bookmarks.edit": self._edit,
        }

    def _list(self, asked: Json) -> Json:
        _refuse_other_channels(asked)
        return {"bookmarks": [dict(each) for each in self.shown]}

    def _add(self, asked: Json) -> Json:
        _refuse_other_channels(asked)
        if asked.get("type") != "link" or not asked.get("title"):
            raise NoBookmark("invalid_arguments")
        if not str(asked.get("link", "")).startswith(("http://", "https://")):
            raise NoBookmark("invalid_link")
        fields = {name: asked.get(name, "") for name in ("title", "link", "emoji", "type")}
        bookmark = {"id": f"Bk{len(self.shown):06d}", "channel_id": CHANNEL, "app_id": APP, **fields}
        self.shown.append(bookmark)
        return {"bookmark": dict(bookmark)}

    def _edit(self, asked: Json) -> Json:
        _refuse_other_channels(asked)
        found = next((each for each in self.shown if each["id"] == asked.get("bookmark_id")), None)
        if found is None:
            raise NoBookmark("not_found")
        found |= {name: asked[name] for name in ("title", "link", "emoji") if name in asked}
        return {"bookmark": dict(found)}


def _refuse_other_channels(asked: Json) -> None:
    if asked.get("channel_id") != CHANNEL:
        raise NoBookmark("channel_not_found")
