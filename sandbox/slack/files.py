"""Files that apps upload: started, uploaded, completed, scanned, shown where they are shared, deleted."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from sandbox.slack import blocks as kit
from sandbox.slack.blocks import Json
from sandbox.slack.history import History

LOOKED_THROUGH = 0.5
"""Seconds after completion until a block may show a file: Slack scans it first (python-slack-sdk issue 1521)."""


class NoSuchFile(Exception):
    """Slack's `file_not_found`, or `file_deleted`."""


@dataclass
class _File:
    about: Json
    content: bytes | None = None
    completed: float | None = None
    """Monotonic seconds."""
    shared: bool = False
    deleted: bool = False


class Files:
    """The workspace's files, all uploaded by the app."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._files: dict[str, _File] = {}
        self.base_url = ""

    def begin(self, name: str, alt: str = "") -> Json:
        """A new file's id, and where its content goes; `alt` is read to those who do not see it."""
        file_id = self._history.next_id("F")
        url = f"{self.base_url}/files/{file_id}"
        self._files[file_id] = _File({"id": file_id, "name": name, "title": name, "url_private": url, "alt_txt": alt})
        return {"upload_url": url, "file_id": file_id}

    def about(self, file_id: str) -> Json:
        """A file with its content."""
        found = self._files.get(file_id)
        if found is None or found.content is None or found.deleted:
            raise NoSuchFile("file_deleted" if found and found.deleted else "file_not_found")
        return found.about

    def complete(self, file_id: str, title: str, *, shared: bool) -> Json:
        about = self.about(file_id)
        file = self._files[file_id]
        file.completed, file.shared = time.monotonic(), shared
        file.about = {**about, **({"title": title} if title else {})}
        return file.about

    def delete(self, file_id: str) -> None:
        """Delete the content; messages that showed the file show a note instead."""
        self.about(file_id)
        self._files[file_id].deleted = True
        gone = {"id": file_id, "mode": "tombstone", "title": "This file was deleted."}
        for message in self._history.messages.values():
            message.files = [gone if file["id"] == file_id else file for file in message.files]
        self._history.touch()

    def not_to_be_shown(self, blocks: Iterable[Json]) -> list[str]:
        """Return why Slack would refuse these blocks because of their files."""
        return [
            f"invalid slack file: {file_id}" for file_id in kit.slack_files(list(blocks)) if not self._usable(file_id)
        ]

    def _usable(self, file_id: str) -> bool:
        file = self._files.get(file_id)
        if file is None or file.completed is None or file.deleted:
            return False
        return time.monotonic() >= file.completed + LOOKED_THROUGH

    async def upload(self, request: web.Request) -> web.Response:
        """POST /files/{id}: the bytes, raw or as a form's file."""
        file = self._files.get(request.match_info["id"])
        if file is None:
            raise web.HTTPNotFound
        body = await request.read()
        if request.content_type == "multipart/form-data":
            form = await request.post()
            body = b"".join(field.file.read() for field in form.values() if isinstance(field, web.FileField))
        file.content = body
        return web.Response(text="OK")

    async def download(self, request: web.Request) -> web.Response:
        """GET /files/{id}. Served only as an image: an upload must not run as a page of this origin.

        Only the app can read a file that is not shared in a conversation.
        """
        file = self._files.get(request.match_info["id"])
        if file is None or file.content is None or file.deleted or not file.shared:
            raise web.HTTPNotFound
        return web.Response(body=file.content, content_type="image/png")
