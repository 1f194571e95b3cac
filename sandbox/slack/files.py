"""Files that the app uploads: the start and completion of an upload, the scan, and the deletion."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from sandbox.slack import blocks as kit
from sandbox.slack.blocks import Json
from sandbox.slack.history import History

SCAN_SECONDS = 0.5
"""Seconds after completion until a block may show a file: Slack scans it first (python-slack-sdk issue 1521)."""


class NoSuchFile(Exception):
    """The file does not exist; the message is `file_not_found` or `file_deleted`."""


@dataclass
class _File:
    info: Json
    content: bytes | None = None
    completed: float | None = None
    """Time of the completion in monotonic seconds."""
    shared: bool = False
    deleted: bool = False


class Files:
    """The workspace's files, all uploaded by the app."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._files: dict[str, _File] = {}
        self.base_url = ""

    def begin(self, name: str, alt: str = "") -> Json:
        """Return a new file's id and its upload URL; `alt` is the description for screen readers."""
        file_id = self._history.next_id("F")
        url = f"{self.base_url}/files/{file_id}"
        self._files[file_id] = _File({"id": file_id, "name": name, "title": name, "url_private": url, "alt_txt": alt})
        return {"upload_url": url, "file_id": file_id}

    def about(self, file_id: str) -> Json:
        """Return a file as JSON; raises NoSuchFile if it is deleted or has no content."""
        file = self._files.get(file_id)
        if file is None or file.content is None or file.deleted:
            raise NoSuchFile("file_deleted" if file and file.deleted else "file_not_found")
        return file.info

    def complete(self, file_id: str, title: str, *, shared: bool) -> Json:
        info = self.about(file_id)
        file = self._files[file_id]
        file.completed, file.shared = time.monotonic(), shared
        file.info = {**info, **({"title": title} if title else {})}
        return file.info

    def delete(self, file_id: str) -> None:
        """Delete the content; messages that showed the file show a note instead."""
        self.about(file_id)
        self._files[file_id].deleted = True
        tombstone = {"id": file_id, "mode": "tombstone", "title": "This file was deleted."}
        for message in self._history.messages.values():
            message.files = [tombstone if file["id"] == file_id else file for file in message.files]
        self._history.touch()

    def not_to_be_shown(self, blocks: Iterable[Json]) -> list[str]:
        """Return Slack's errors for the files in these blocks that cannot be shown."""
        return [
            f"invalid slack file: {file_id}" for file_id in kit.slack_files(list(blocks)) if not self._usable(file_id)
        ]

    def _usable(self, file_id: str) -> bool:
        file = self._files.get(file_id)
        if file is None or file.completed is None or file.deleted:
            return False
        return time.monotonic() >= file.completed + SCAN_SECONDS

    async def upload(self, request: web.Request) -> web.Response:
        """Handle POST /files/{id} with the bytes, either raw or as a form's file."""
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
        """Handle GET /files/{id} for a file that is shared in a conversation.

        It is served as an image, so that an upload cannot run as a page of this origin.
        """
        file = self._files.get(request.match_info["id"])
        if file is None or file.content is None or file.deleted or not file.shared:
            raise web.HTTPNotFound
        return web.Response(body=file.content, content_type="image/png")
