"""An HTTP server on this machine that does what a test tells it, right or wrong."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping

import attrs
import trio

DONE = b"data: [DONE]\n\n"
EVENT_STREAM = {"content-type": "text/event-stream"}


def event(value: object) -> bytes:
    """Return *value* as one server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def text_event(text: str, finish: str | None = None) -> bytes:
    """Return a chunk with a piece of text, or the last one."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return event({"model": "m", "choices": [choice]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
HELLO = text_event("Hel") + text_event("lo") + text_event("", "stop") + USAGE + DONE
"""A whole answer that says Hello."""


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def whole(body: bytes, *, status: int = 200, **headers: str) -> bytes:
    """Return an answer with its length."""
    fields = {"content-type": "text/event-stream", "content-length": str(len(body))}
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    return head(status, fields) + body


def chunk(data: bytes) -> bytes:
    """Return *data* as one piece of a chunked body; empty for its end."""
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = head(200, {**EVENT_STREAM, "transfer-encoding": "chunked"})


@attrs.define(eq=False)
class Line:
    """The server's end of one connection."""

    stream: trio.SocketStream
    requests: list[bytes]
    _unread: bytes = b""

    async def read_request(self) -> bytes | None:
        """Return the next request, head and body; ``None``: there is none any more."""
        while True:
            top, found, rest = self._unread.partition(b"\r\n\r\n")
            fields = dict(
                line.lower().split(b": ", 1) for line in top.split(b"\r\n")[1:] if b": " in line
            )
            length = int(fields.get(b"content-length", 0))
            if found and len(rest) >= length:
                self._unread = rest[length:]
                self.requests.append(top + found + rest[:length])
                return self.requests[-1]
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._unread += data

    async def send(self, data: bytes) -> None:
        """Send *data*, whether or not anybody still listens."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.send_all(data)

    def reset(self) -> None:
        """End the connection rudely, as a crashed server does."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def wait_gone(self) -> None:
        """Wait until the other side has closed the connection."""
        while await self.read_request() is not None:
            pass


@attrs.define(eq=False)
class Loopback:
    """A running server."""

    port: int
    requests: list[bytes] = attrs.field(factory=list)
    lines: list[Line] = attrs.field(factory=list)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.asynccontextmanager
async def open_loopback(
    serve: Callable[[Line], Awaitable[None]],
) -> AsyncGenerator[Loopback]:
    """Serve every connection with *serve* and close it afterwards."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = Loopback(listener.socket.getsockname()[1])

        async def handle(stream: trio.SocketStream) -> None:
            line = Line(stream, server.requests)
            server.lines.append(line)
            await serve(line)

        await nursery.start(trio.serve_listeners, handle, [listener])
        yield server
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def loopback_thread(serve: Callable[[Line], Awaitable[None]]) -> Generator[Loopback]:
    """Serve from a thread of its own, for a command that runs trio itself."""
    # Loaded for the first request, it would take a second of the command's deadline.
    import tests.support.sdk_types  # noqa: F401

    ready: queue.SimpleQueue[tuple[Loopback, trio.lowlevel.TrioToken, trio.Event]]
    ready = queue.SimpleQueue()

    async def main() -> None:
        async with open_loopback(serve) as server:
            stop = trio.Event()
            ready.put((server, trio.lowlevel.current_trio_token(), stop))
            await stop.wait()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    server, token, stop = ready.get(timeout=10)
    try:
        yield server
    finally:
        token.run_sync_soon(stop.set)
        thread.join()


def always(*answers: bytes) -> Callable[[Line], Awaitable[None]]:
    """Return what gives the same answer, in these pieces, to every request."""

    async def serve(line: Line) -> None:
        while await line.read_request() is not None:
            for piece in answers:
                await line.send(piece)

    return serve


def once(*answers: bytes) -> Callable[[Line], Awaitable[None]]:
    """Return what answers one request per connection and then closes it."""

    async def serve(line: Line) -> None:
        if await line.read_request() is not None:
            for piece in answers:
                await line.send(piece)

    return serve
