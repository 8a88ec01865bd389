"""A small HTTP server on this machine, for testing clients.

The server speaks HTTP/1.1 through h11, with one task for each connection, and keeps connections
open. It stores the requests that it gets, so that a test can check them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias, final

import attrs
import h11
import msgspec
import trio

from agentpool._background import background

_MAX_PIECE_BYTES: Final = 65_536

EVENT_STREAM: Final = "text/event-stream"
"""The content type of a stream of events."""


@final
@attrs.frozen(kw_only=True)
class HttpAsked:
    """A request that a server received."""

    method: str
    """The method, such as ``POST``."""
    path: str
    """The path with its query."""
    headers: Mapping[str, str]
    """The headers, with names in lower case."""
    body: bytes = attrs.field(repr=False)
    """The body, unchanged."""


@final
@attrs.frozen(kw_only=True)
class HttpReply:
    """A server's answer."""

    status: int = 200
    """The HTTP status."""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Its headers. The length of the body is added automatically."""
    pieces: Sequence[bytes] = ()
    """The body, sent piece by piece."""


Serve: TypeAlias = Callable[[HttpAsked], Awaitable[HttpReply]]
"""Answers a request."""


def json_reply(status: int, value: object, **headers: str) -> HttpReply:
    """Make a reply with a JSON body."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpReply(
        status=status,
        headers={"content-type": "application/json", **fields},
        pieces=[msgspec.json.encode(value)],
    )


@contextlib.asynccontextmanager
async def open_loopback_server(serve: Serve) -> AsyncGenerator[int]:
    """Answer requests on this machine with *serve*, and yield the port.

    Cancellation:
        Every connection is closed.
    """
    async with background() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port: int = listener.socket.getsockname()[1]

        async def handle(stream: trio.SocketStream) -> None:  # noqa: ASYNC910  # only one that broke
            with contextlib.suppress(trio.BrokenResourceError, h11.ProtocolError):
                await _serve_connection(stream, serve)

        await nursery.start(trio.serve_listeners, handle, [listener])
        yield port


async def _serve_connection(stream: trio.SocketStream, serve: Serve) -> None:
    connection = h11.Connection(h11.SERVER)
    while (asked := await _read(connection, stream)) is not None:
        reply = await serve(asked)
        await _send(connection, stream, reply)
        connection.start_next_cycle()


async def _read(connection: h11.Connection, stream: trio.SocketStream) -> HttpAsked | None:
    """Return the next request. ``None``: the client has left."""
    request: h11.Request | None = None
    body = bytearray()
    while True:  # noqa: ASYNC913  # what has arrived is not waited for
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_MAX_PIECE_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return HttpAsked(  # noqa: ASYNC910  # what has arrived is not waited for
                method=request.method.decode(),
                path=request.target.decode(),
                headers={name.decode(): value.decode("latin-1") for name, value in request.headers},
                body=bytes(body),
            )
        else:
            return None  # noqa: ASYNC910  # what has arrived is not waited for


async def _send(connection: h11.Connection, stream: trio.SocketStream, reply: HttpReply) -> None:
    head = h11.Response(
        status_code=reply.status, headers=[*reply.headers.items(), ("transfer-encoding", "chunked")]
    )
    await stream.send_all(connection.send(head) or b"")
    for piece in reply.pieces:
        await stream.send_all(connection.send(h11.Data(data=piece)) or b"")
    await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
