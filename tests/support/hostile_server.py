"""Servers that do everything wrong that a server can, on this machine.

Each is a function that serves one connection. They take the bytes of a whole answer, so
that both wires meet the same faults.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Final, TypeAlias

import attrs
import trio

from agentpool import DriverError
from agentpool.drivers import BadRequestError, NetworkError, OverloadedError, ProtocolError
from tests.support.http_servers import (
    CHUNKED,
    EVENT_STREAM,
    Line,
    Loopback,
    chunk,
    head,
    open_loopback,
    whole,
)

Serve: TypeAlias = Callable[[Line], Awaitable[None]]

FOREVER: Final = 64 << 20
"""Bytes after which a server that never ends does: nobody should have read so many."""


@attrs.define(eq=False)
class Watched:
    """A running server that knows who is still there."""

    server: Loopback
    open_count: int = 0
    """Connections that neither side has closed."""
    _nobody: trio.Event = attrs.field(factory=trio.Event)

    async def wait_nobody(self) -> None:
        """Wait until the other side has closed every connection."""
        while self.open_count:
            self._nobody = trio.Event()
            await self._nobody.wait()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count a connection for as long as the block lasts."""
        self.open_count += 1
        try:
            yield
        finally:
            self.open_count -= 1
            self._nobody.set()


@contextlib.asynccontextmanager
async def open_watched(serve: Serve) -> AsyncGenerator[Watched]:
    """Serve every connection with *serve*, and count it until the other side has closed it."""
    found: list[Watched] = []

    async def counted(line: Line) -> None:
        with found[0].counted():
            await serve(line)
            # What is still unread, or never comes, is no reason for the other side to stay.
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await line.stream.send_eof()
                await line.wait_gone()

    async with open_loopback(counted) as server:
        found.append(Watched(server))
        yield found[0]


async def send_forever(line: Line, data: bytes) -> None:
    """Send *data* again and again while somebody listens."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for _ in range(FOREVER // len(data)):
            await line.stream.send_all(data)


def answering(*pieces: bytes) -> Serve:
    """Return what sends these pieces, each by itself, and then no more on that connection."""

    async def serve(line: Line) -> None:
        if await line.read_request() is not None:
            for piece in pieces:
                await line.send(piece)
                await trio.lowlevel.checkpoint()

    return serve


def endless(start: bytes, again: bytes) -> Serve:
    """Return what sends *start*, and then *again* without end."""

    async def serve(line: Line) -> None:
        if await line.read_request() is not None:
            await line.send(start)
            await send_forever(line, again)

    return serve


def silent(start: bytes) -> Serve:
    """Return what sends *start*, and then waits for the other side to go."""

    async def serve(line: Line) -> None:
        if await line.read_request() is not None:
            await line.send(start)
            await line.wait_gone()

    return serve


def resetting(start: bytes) -> Serve:
    """Return what sends *start* and then ends the connection rudely."""

    async def serve(line: Line) -> None:
        if await line.read_request() is not None:
            await line.send(start)
            line.reset()

    return serve


def trickling(answer: bytes) -> Serve:
    """Return what sends a whole answer byte by byte."""
    return answering(*(answer[i : i + 1] for i in range(len(answer))))


def bodies(answer: bytes) -> Mapping[str, Callable[[bytes], bytes]]:
    """Return the ways in which HTTP says how long a body is; the argument is the stream."""
    return {
        "chunked": lambda body: CHUNKED + chunk(body) + chunk(b""),
        "length": whole,
        "until_closed": lambda body: head(200, {**EVENT_STREAM, "connection": "close"}) + body,
        "length_of_another": lambda body: (
            head(200, {**EVENT_STREAM, "content-length": str(len(answer))}) + body
        ),
    }


@attrs.frozen
class Fault:
    """What a server does, and what that has to come to."""

    serve: Serve
    becomes: type[DriverError] | None
    """``None``: nothing; whoever asked must be able to leave."""


def faults(answer: bytes, error: bytes) -> Mapping[str, Fault]:
    """Return every fault that is neither a cut nor a status.

    Args:
        answer: The stream of a whole answer.
        error: An event that says ``overloaded`` in the middle of one.
    """
    half = answer[: answer.index(b"\n\n", len(answer) // 3) + 2]
    big = b"data: " + b"x" * 65_536
    stream = head(200, EVENT_STREAM)
    typed = {"content-type": "application/json"}
    return {
        # It waits
        "silent from the start": Fault(silent(b""), None),
        "silent in the status line": Fault(silent(b"HTTP/1.1 2"), None),
        "silent in the headers": Fault(silent(stream[:-4]), None),
        "silent before the body": Fault(silent(CHUNKED), None),
        "silent in the stream": Fault(silent(CHUNKED + chunk(half)), None),
        "silent in a chunk": Fault(silent(CHUNKED + chunk(half)[:-9]), None),
        "comments for ever": Fault(endless(CHUNKED, chunk(b": wait\n\n" * 64)), None),
        "empty lines for ever": Fault(endless(CHUNKED, chunk(b"\n" * 512)), None),
        # It is not HTTP
        "another protocol": Fault(answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), ProtocolError),
        "HTTP/0.9": Fault(answering(answer), ProtocolError),
        "HTTP/2": Fault(answering(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" * 4), ProtocolError),
        "a bad status": Fault(answering(b"HTTP/1.1 twohundred OK\r\n\r\n"), ProtocolError),
        "a bad header": Fault(answering(stream[:-2] + b"no colon\r\n\r\n"), ProtocolError),
        "two lengths": Fault(
            answering(stream[:-2] + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
            ProtocolError,
        ),
        "a bad chunk": Fault(answering(CHUNKED + b"zz\r\n" + half), ProtocolError),
        "a negative chunk": Fault(answering(CHUNKED + b"-5\r\nhello\r\n"), ProtocolError),
        "100 Continue for ever": Fault(endless(b"", head(100, {})), ProtocolError),
        "headers for ever": Fault(
            endless(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 99), ProtocolError
        ),
        "a header for ever": Fault(endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 9999), ProtocolError),
        "a status line for ever": Fault(endless(b"HTTP/1.1 200 ", b"O" * 9999), ProtocolError),
        "a chunk's head for ever": Fault(endless(CHUNKED + b"5;x=", b"y" * 9999), ProtocolError),
        "trailers for ever": Fault(
            endless(CHUNKED + chunk(half) + b"0\r\n", b"x-a: b\r\n" * 99), ProtocolError
        ),
        # It is not an event stream
        "a page": Fault(answering(whole(b"<html>hi", content_type="text/html")), ProtocolError),
        "JSON": Fault(
            answering(head(200, {**typed, "content-length": "2"}) + b"{}"), ProtocolError
        ),
        "an answer that is not streamed": Fault(
            answering(whole(b'{"choices":[]}', content_type="application/json")), ProtocolError
        ),
        "an error inside a 200": Fault(
            answering(
                whole(
                    b'{"type":"error","error":{"type":"overloaded_error","message":"no"}}',
                    content_type="application/json",
                )
            ),
            OverloadedError,
        ),
        "no type": Fault(answering(head(200, {"content-length": "2"}) + b"hi"), ProtocolError),
        "a page for ever": Fault(
            endless(head(200, {"content-type": "text/html"}), b"x" * 9999), ProtocolError
        ),
        "gzip": Fault(answering(whole(b"\x1f\x8b", content_encoding="gzip")), ProtocolError),
        # It is no such stream
        "an empty stream": Fault(answering(whole(b"")), NetworkError),
        "a line for ever": Fault(endless(CHUNKED, chunk(b"x" * 65_536)), ProtocolError),
        "an event for ever": Fault(endless(CHUNKED, chunk(big + b"\n")), ProtocolError),
        "giant events": Fault(endless(CHUNKED, chunk(big * 15 + b"\n\n")), ProtocolError),
        "no UTF-8": Fault(answering(whole(half + b"data: \xff\n\n")), ProtocolError),
        "half a character": Fault(answering(whole(b"data: \xf0\x9f\n\n")), ProtocolError),
        "a lone surrogate": Fault(answering(whole(b"data: \xed\xa0\x80\n\n")), ProtocolError),
        "UTF-16": Fault(answering(whole(answer.decode().encode("utf-16"))), NetworkError),
        "no JSON": Fault(answering(whole(b"data: {oops\n\n")), ProtocolError),
        "JSON of another kind": Fault(answering(whole(b"data: [1]\n\n")), ProtocolError),
        "JSON without a bottom": Fault(
            answering(whole(b'data: {"usage":' + b"[" * 100_000 + b"\n\n")), ProtocolError
        ),
        "an error after 200": Fault(answering(CHUNKED, chunk(half), chunk(error)), OverloadedError),
        "an error first": Fault(answering(whole(error)), OverloadedError),
        # It breaks off
        "reset at once": Fault(resetting(b""), NetworkError),
        "reset in the headers": Fault(resetting(stream[:-4]), NetworkError),
        "reset in the stream": Fault(resetting(CHUNKED + chunk(half)), NetworkError),
        "closed at once": Fault(answering(), NetworkError),
        "1xx and closed": Fault(answering(head(103, {})), NetworkError),
        # It leads elsewhere
        "switching protocols": Fault(
            answering(head(101, {"upgrade": "websocket", "connection": "upgrade"})), ProtocolError
        ),
        "not modified": Fault(answering(head(304, {})), BadRequestError),
    }
