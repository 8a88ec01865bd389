"""One HTTP/1.1 connection: h11 for the protocol, a trio stream for the bytes.

It serves one exchange at a time. If the answer was read to its end, the connection can serve
another exchange. In all other cases it is closed immediately, without waiting: that is how a
cancelled request tells the provider to stop.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from typing import Final, Self, final

import attrs
import h11
import trio

from agentpool._chunks import ChunkJoiner

# What one read may bring. A token's event is under 1 KiB; a few reads empty any buffer.
_READ_BYTES: Final = 64 * 1024

# More than any provider sends; a server that sends headers without end is refused here.
_MAX_HEADER_BYTES: Final = 64 * 1024

_IN_CHUNKS: Final = (b"transfer-encoding", b"chunked")

# "100 Continue" and its like, before the answer proper.
_MAX_INFORMATIONAL: Final = 16


class ConnectionLostError(Exception):
    """The server closed or broke the connection."""


class NoAnswerError(ConnectionLostError):
    """The connection, perhaps a stale one, was lost before the first byte of an answer."""


class BadAnswerError(Exception):
    """The server did not answer in HTTP/1.1."""


@final
@attrs.frozen(repr=False)
class RequestHead:
    """The head of a request. Its repr hides the headers, since it may appear in tracebacks."""

    request: h11.Request
    """The head that is sent."""


@final
@attrs.frozen
class Target:
    """The address of a server, and whether to encrypt."""

    is_tls: bool
    """Whether the bytes are encrypted."""
    host: str
    """A name or an address."""
    port: int
    """The port."""


@final
@attrs.frozen
class AnswerHead:
    """Status and headers of an answer."""

    status: int
    """The HTTP status."""
    headers: Sequence[tuple[bytes, bytes]]
    """Its headers, names in lower case."""


@final
@attrs.define(eq=False, repr=False)
class Connection:
    """An open connection. Opened by ``open``, closed by ``close``."""

    _socket: trio.SocketStream
    _stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    _http: h11.Connection = attrs.field(
        init=False,
        factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_BYTES),
    )
    _is_closed: bool = attrs.field(init=False, default=False)
    _has_begun: bool = attrs.field(init=False, default=False)
    _joiner: ChunkJoiner | None = attrs.field(init=False, default=None)
    """Joins the chunks of the answer. ``None``: the head of the answer has not been read, or the
    answer does not come in chunks."""
    _later: bytes = attrs.field(init=False, default=b"")
    """Bytes that came together with the head of the answer. h11 gets them after it has read the
    head."""
    idle_since: float = attrs.field(init=False, default=0.0)
    """When the connection last became idle, by trio's clock."""

    @classmethod
    async def open(
        cls, target: Target, tls: ssl.SSLContext | None, *, address: str | None = None
    ) -> Self:
        """Connect to *target*. *tls* is needed for an encrypted connection.

        Args:
            target: The server to connect to. Its certificate must be for ``target.host``.
            tls: The certificates to trust.
            address: The address to connect to, even if the name resolves to a different one.
                ``None``: look the name up.

        Raises:
            OSError: If nothing listens at the address.
            trio.BrokenResourceError: If the TLS handshake failed.

        Cancellation:
            Nothing stays open.
        """
        socket_stream = await trio.open_tcp_stream(address or target.host, target.port)
        if not target.is_tls:
            return cls(socket_stream, socket_stream)
        tls_stream = trio.SSLStream(
            socket_stream,
            tls or ssl.create_default_context(),
            server_hostname=target.host,
            https_compatible=True,
        )
        try:
            await tls_stream.do_handshake()
        except BaseException:
            socket_stream.socket.close()
            raise
        return cls(socket_stream, tls_stream)

    @property
    def peer(self) -> str:
        """The address of the server."""
        return str(self._socket.socket.getpeername()[0]).partition("%")[0]

    @property
    def is_usable(self) -> bool:
        """Return whether another request can be sent. Unexpected bytes mean that it cannot."""
        return not (self._is_closed or self._socket.socket.is_readable() or self._holds_bytes)

    @property
    def _holds_bytes(self) -> bool:
        """Return whether received bytes wait in the TLS layer."""
        stream = self._stream
        if not isinstance(stream, trio.SSLStream):
            return False
        # trio has no public way to ask. They would be taken for the next request's answer.
        return bool(stream._ssl_object.pending() or stream._incoming.pending)  # pyright: ignore[reportPrivateUsage]

    def close(self) -> None:
        """Close the connection immediately, without notice to the server."""
        self._is_closed = True
        self._socket.socket.close()

    async def send(self, head: RequestHead, body: bytes) -> AnswerHead:
        """Send a request and return the head of its answer.

        Raises:
            NoAnswerError: If the connection ended before anything came back.
            ConnectionLostError: If the connection ended in the middle of the headers.
            BadAnswerError: If the answer is not HTTP.

        Cancellation:
            The connection is closed.
        """
        try:
            return await self._send(head, body)
        except BaseException:
            self.close()
            raise

    async def receive(self) -> bytes:
        """Return the next piece of the body. Empty: the body has ended.

        All that has arrived is returned as one piece, however the server divided it.

        Raises:
            ConnectionLostError: If the connection ended before the answer did.
            BadAnswerError: If the answer is not HTTP.

        Cancellation:
            The connection is closed.
        """
        if self.has_answered:
            return b""  # noqa: ASYNC910  # what has arrived is not waited for
        try:
            event = await self._next_event()
            if not isinstance(event, h11.Data):
                return b""
            # Pieces are as small as a token, and each costs a round through all floors.
            pieces = [event.data]
            while isinstance(more := self._http.next_event(), h11.Data):
                pieces.append(more.data)
        except h11.RemoteProtocolError as exc:
            self.close()
            raise BadAnswerError(str(exc)) from None
        except BaseException:
            self.close()
            raise
        return b"".join(pieces)

    @property
    def has_answered(self) -> bool:
        """Whether the whole answer was read."""
        return self._http.their_state is h11.DONE

    def finish(self) -> bool:
        """End the exchange and return whether the connection can be reused.

        If the answer was not read to its end, the connection is closed.
        """
        unasked, _ = self._http.trailing_data
        with contextlib.suppress(h11.LocalProtocolError):
            # Fails if it is not at its end, or one of the two does not want to go on.
            self._http.start_next_cycle()
            # What came after the end would be taken for the next request's answer.
            if not (unasked or self._later or self._is_closed):
                return True
        self.close()
        return False

    def _packed(self, head: RequestHead, body: bytes) -> bytes:
        http = self._http
        data = (http.send(head.request) or b"") + (http.send(h11.Data(data=body)) or b"")
        http.send(h11.EndOfMessage())
        return data

    async def _send(self, head: RequestHead, body: bytes) -> AnswerHead:
        self._has_begun = False
        self._joiner = None
        with contextlib.suppress(trio.BrokenResourceError):
            # A server that refuses a request may close before it has read all of it;
            # its answer, if there is one, is still to be read.
            # The bytes hold a key, so no name is theirs: a traceback may show locals.
            await self._stream.send_all(self._packed(head, body))
        for _ in range(_MAX_INFORMATIONAL):
            event = await self._next_event()
            if isinstance(event, h11.Response):
                headers = [(name.lower(), value) for name, value in event.headers.raw_items()]
                begun, _ = self._http.trailing_data
                if _IN_CHUNKS in headers and not begun:
                    self._joiner = ChunkJoiner()
                return AnswerHead(event.status_code, headers)
        raise BadAnswerError(
            f"more than {_MAX_INFORMATIONAL} informational answers, and no final answer"
        )

    async def _next_event(self) -> h11.Event:
        ended = False
        while True:  # noqa: ASYNC913  # each round waits, or takes what has been read
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as exc:
                if not ended:
                    raise BadAnswerError(str(exc)) from None
                raise self._lost() from None
            if isinstance(event, h11.Event):
                return event  # noqa: ASYNC910  # what has arrived is not waited for
            if self._later:
                data, self._later = self._later, b""
            else:
                try:
                    data = bytes(await self._stream.receive_some(_READ_BYTES))
                except trio.BrokenResourceError as exc:
                    raise self._lost() from exc
            ended = not data
            self._has_begun = self._has_begun or bool(data)
            self._http.receive_data(self._next_part(data))

    def _next_part(self, data: bytes) -> bytes:
        """Return the part of *data* that h11 reads next."""
        if self._joiner is not None:
            return self._joiner.join(data)
        if self._http.their_state is h11.SEND_RESPONSE:
            head, end, self._later = data.partition(b"\r\n\r\n")
            return head + end
        return data

    def _lost(self) -> ConnectionLostError:
        if self._has_begun:
            return ConnectionLostError("the connection ended before the answer did")
        return NoAnswerError("the connection ended without an answer")
