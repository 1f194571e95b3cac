"""A response class with a size limit for aiohttp, which the Slack and Kubernetes libraries use."""

import aiohttp

LARGEST = 32 * 2**20
"""Maximum bytes of one response, after decompression. A list of 2 000 pods takes about 20 MB of JSON."""


class BoundedResponse(aiohttp.ClientResponse):
    """A response that is read in chunks and aborted if it exceeds `LARGEST`.

    `text()` and `json()` call `read()`. Streamed lines are limited by aiohttp's `read_bufsize`.
    """

    async def read(self) -> bytes:
        if self._body is None:
            self._body = await self._whole()
        return await super().read()

    async def _whole(self) -> bytes:
        pieces, total = [], 0
        try:
            async for piece in self.content.iter_any():
                total += len(piece)
                if total > LARGEST:
                    raise aiohttp.ClientPayloadError(f"the answer is larger than {LARGEST // 2**20} MB")
                pieces.append(piece)
        except BaseException:
            self.close()
            raise
        return b"".join(pieces)
