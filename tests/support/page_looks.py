"""What a browser is sent that looks at the live page, without a browser."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, final

import attrs
import trio

from agentpool.live import LivePage


@final
@attrs.define(eq=False)
class Looks:
    """What one browser is sent, as it comes."""

    stream: trio.SocketStream
    data: bytes = b""

    async def until(self, end: bytes) -> bytes:
        """Return what comes before *end*; nothing if the stream ends."""
        while end not in self.data:
            more = await self.stream.receive_some()
            if not more:
                return b""
            self.data += more
        found, _, self.data = self.data.partition(end)
        return found

    async def next(self) -> dict[str, Any] | None:
        """Return the next look. ``None``: there is no other."""
        line = await self.until(b"\n\n")
        return json.loads(line.removeprefix(b"data: ")) if line else None


@asynccontextmanager
async def looking(page: LivePage) -> AsyncGenerator[Looks]:
    """Look at *page*."""
    base, _, token = page.url.partition("#")
    place = base.removeprefix("http://").rstrip("/")
    async with await trio.open_tcp_stream("127.0.0.1", int(place.rpartition(":")[2])) as stream:
        # In HTTP 1.0 an answer is what comes until its end.
        head = f"GET /events HTTP/1.0\r\nHost: {place}\r\nX-Agentpool-Token: {token}\r\n\r\n"
        await stream.send_all(head.encode())
        looks = Looks(stream)
        assert (await looks.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        yield looks
