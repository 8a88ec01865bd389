"""One HTTP/1.1 connection: a trio stream for the bytes, and a parser for what they say.

It serves one exchange at a time. If the answer was read to its end, the connection can serve
another exchange. In all other cases it is closed immediately, without waiting: that is how a
cancelled request tells the provider to stop.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterable
from typing import Final, Self, final

import attrs
import trio

from agentpool._answer_parser import AnswerHead, AnswerParser, BadAnswerError

# What one read may bring. A token's event is under 1 KiB; a few reads empty any buffer.
_READ_BYTES: Final = 64 * 1024

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")

_PROTOCOL: Final = b"HTTP/"

LENGTH_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding"})
"""Headers about the length of the body, which are not in a head: they are sent with the body."""


class ConnectionLostError(Exception):
    """The server closed or broke the connection."""


class NoAnswerError(ConnectionLostError):
    """The connection, perhaps a stale one, was lost before the first byte of an answer."""


@final
@attrs.frozen(repr=False)
class RequestHead:
    """The head of a request, checked once and sent as often as it is needed.

    Its repr hides the headers, since it may appear in tracebacks.
    """

    _start: bytes
    """The bytes that are sent, up to the length of the body."""
    _says_length: bool
    has_answer_body: bool
    """Whether the answer may have a body."""
    keeps_alive: bool
    """Whether the connection may be used again."""

    @classmethod
    def build(
        cls,
        method: str,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        says_length: bool,
    ) -> Self:
        """Return the head of a request for *target*.

        Args:
            method: What to do with the target.
            target: The path and the query.
            headers: All but those about the length of the body.
            says_length: Whether to say the length of a body that is empty.

        Raises:
            ValueError: If a part of it has bytes that it may not have, the host is missing, or a
                header is about the body's length. The error shows no value, which may be a key.
        """
        fields = [*headers]
        if not all(map(_is_field, fields)):
            raise ValueError("a header has bytes that no header may have")
        if not (_NAME.fullmatch(method.encode()) and _TARGET.fullmatch(target)):
            raise ValueError("the method or the target has bytes that it may not have")
        names = [name.lower() for name, _ in fields]
        if names.count(b"host") != 1 or not LENGTH_HEADERS.isdisjoint(names):
            raise ValueError("it needs one host, and no header about the length of its body")
        keeps_alive = not any(
            name.lower() == b"connection" and b"close" in value.lower() for name, value in fields
        )
        lines = [b"%b %b HTTP/1.1\r\n" % (method.encode(), target)]
        lines += (b"%b: %b\r\n" % field for field in fields)
        return cls(b"".join(lines), says_length, method != "HEAD", keeps_alive)

    def with_body(self, body: bytes) -> bytes:
        """Return all bytes of the request."""
        if body or self._says_length:
            return b"%bcontent-length: %d\r\n\r\n%b" % (self._start, len(body), body)
        return self._start + b"\r\n"


def _is_field(field: tuple[bytes, bytes]) -> bool:
    name, value = field
    is_name = _NAME.fullmatch(name) is not None
    return is_name and _VALUE.fullmatch(value) is not None and value == value.strip()


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
@attrs.define(eq=False, repr=False)
class Connection:
    """An open connection. Opened by ``open``, closed by ``close``."""

    _socket: trio.SocketStream
    _stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    _parser: AnswerParser = attrs.field(init=False, factory=AnswerParser)
    _keeps_alive: bool = attrs.field(init=False, default=True)
    _is_closed: bool = attrs.field(init=False, default=False)
    _has_begun: bool = attrs.field(init=False, default=False)
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
        parser = self._parser
        parser.begin(has_body=head.has_answer_body)
        self._has_begun = False
        self._keeps_alive = head.keeps_alive
        try:
            with contextlib.suppress(trio.BrokenResourceError):
                # A server that refuses a request may close before it has read all of it;
                # its answer, if there is one, is still to be read.
                # The bytes hold a key, so no name is theirs: a traceback may show locals.
                await self._stream.send_all(head.with_body(body))
            while (answer := parser.head) is None:
                await self._read()
        except BaseException:
            self.close()
            raise
        return answer  # noqa: ASYNC910  # a request sent is a checkpoint

    async def receive(self) -> bytes:
        """Return the next piece of the body. Empty: the body has ended.

        All that has arrived is returned as one piece, however the server divided it.

        Raises:
            ConnectionLostError: If the connection ended before the answer did.
            BadAnswerError: If the answer is not HTTP.

        Cancellation:
            The connection is closed.
        """
        parser = self._parser
        try:
            while not (parser.has_pieces or parser.has_ended):
                await self._read()
        except BaseException:
            self.close()
            raise
        return parser.take()  # noqa: ASYNC910  # what has arrived is not waited for

    @property
    def has_ended(self) -> bool:
        """Whether the whole answer was read."""
        return self._parser.has_ended and not self._parser.has_pieces

    def finish(self) -> bool:
        """End the exchange and return whether the connection can be reused.

        If the answer has not come to its end, the connection is closed.
        """
        # What came after the end would be taken for the next request's answer.
        can_go_on = self.has_ended and self._parser.can_go_on and self._keeps_alive
        if can_go_on and not self._is_closed:
            return True
        self.close()
        return False

    async def _read(self) -> None:
        """Read what has come, or wait for it.

        Raises:
            ConnectionLostError: If the connection has ended, and the answer has not.
            BadAnswerError: If the answer is not HTTP.
        """
        self._parser.refuse_broken()
        try:
            data = await self._stream.receive_some(_READ_BYTES)
        except trio.BrokenResourceError as exc:
            raise self._lost() from exc
        if data:
            if not self._has_begun and not _PROTOCOL.startswith(data[: len(_PROTOCOL)]):
                raise BadAnswerError("it is not HTTP: it does not begin with 'HTTP/'")
            self._has_begun = True
            self._parser.feed(data)
        elif not self._parser.end():
            raise self._lost()

    def _lost(self) -> ConnectionLostError:
        if self._has_begun:
            return ConnectionLostError("the connection ended before the answer did")
        return NoAnswerError("the connection ended without an answer")
