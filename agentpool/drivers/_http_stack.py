"""Sends requests over a stack of idle connections, the most recently used one first.

``httpx.AsyncClient``'s pool is not used because it checks every connection at every request, which
with 100 parallel requests costs more than everything else (encode/httpcore#1035). In a stack,
unused connections age at the bottom, and taking one costs the same however many there are.

``_http`` uses ``exchange``. The stack is also an ``httpx`` transport, for use under an httpx
client.
"""

from __future__ import annotations

import collections
import contextlib
import socket
import ssl
from typing import Final, Self, TypeAlias, final

import attrs
import httpx
import trio

from agentpool._answer_parser import AnswerHead, BadAnswerError
from agentpool._connection import (
    LENGTH_HEADERS,
    Connection,
    ConnectionLostError,
    NoAnswerError,
    RequestHead,
    Target,
)
from agentpool._errors import BadRequestError, NetworkError
from agentpool.abc import OnSent
from agentpool.drivers.wire._failure import shown

# Two SYN retransmissions and a TLS handshake over a slow line. A deadline that is nearer
# wins, being a cancel scope.
CONNECT_SECONDS: Final = 15.0

PORTS: Final = {"http": 80, "https": 443}
"""The supported schemes, and their ports."""

# Providers and their proxies close idle connections after 60 s and more; llama.cpp after
# 5 s, which is seen by looking at the socket.
_IDLE_SECONDS: Final = 60.0

_Stack: TypeAlias = collections.deque[Connection]

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
"""Headers as they are sent."""


@final
@attrs.define(eq=False, repr=False)
class _HttpxBody(httpx.AsyncByteStream):
    """The rest of an answer, in the form that httpx expects."""

    _stack: StackTransport
    _target: Target
    _connection: Connection

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._connection.receive()
        except (ConnectionLostError, BadAnswerError) as exc:
            raise _to_httpx(exc) from None
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:  # noqa: ASYNC910  # cleanup works when cancelled
        self._stack.put_aside(self._target, self._connection)


@final
@attrs.define(eq=False, repr=False)
class StackTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over idle connections that are kept in a stack."""

    _tls: ssl.SSLContext | None = None
    _idle: dict[Target, _Stack] = attrs.field(init=False, factory=dict[Target, _Stack])
    _open: set[Connection] = attrs.field(init=False, factory=set[Connection])
    _is_closed: bool = attrs.field(init=False, default=False)

    @property
    def idle_count(self) -> int:
        """The number of connections that wait for a request."""
        return sum(map(len, self._idle.values()))

    @property
    def open_count(self) -> int:
        """The number of all connections, idle and busy."""
        return len(self._open)

    async def exchange(
        self, target: Target, head: RequestHead, content: bytes, on_sent: OnSent | None = None
    ) -> tuple[AnswerHead, Connection]:
        """Send a request, if possible on the idle connection that was used last.

        The rest of the answer is received from the connection that is returned with its head. It
        must be ``put_aside`` afterwards.

        *on_sent* is called when there is a connection, before the first byte is sent.

        Raises:
            NetworkError: If the server could not be reached.
            ConnectionLostError: If the connection ended before an answer had begun.
            BadAnswerError: If what came is not HTTP.

        Cancellation:
            The connection is closed.
        """
        idle = self._take(target)
        if idle is not None:
            # The server may have closed it while the request was on its way. Nothing
            # came back, so nothing was begun; once more, on a new connection.
            with contextlib.suppress(NoAnswerError):
                return await self._exchange(idle, head, content, on_sent)
        connection = await self._connect(target)
        return await self._exchange(connection, head, content, on_sent)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* for an httpx client.

        Raises:
            httpx.TransportError: For any failure, as one of its subclasses.

        Cancellation:
            The connection is closed.
        """
        url = request.url
        target = Target(url.scheme == "https", url.host, url.port or PORTS[url.scheme])
        content = await request.aread()
        try:
            # The whole body is here, however httpx would have sent it.
            headers = [
                (name, value)
                for name, value in request.headers.raw
                if name.lower() not in LENGTH_HEADERS
            ]
            head = build_head(
                request.method,
                url.raw_path,
                headers,
                says_length=len(headers) < len(request.headers.raw),
            )
            answer, connection = await self.exchange(target, head, content)
        except BadRequestError as exc:
            raise httpx.LocalProtocolError(str(exc)) from None
        except NetworkError as exc:
            raise httpx.ConnectError(str(exc)) from exc
        except (ConnectionLostError, BadAnswerError) as exc:
            raise _to_httpx(exc) from None
        body = _HttpxBody(self, target, connection)
        return httpx.Response(answer.status, headers=answer.headers, stream=body)

    async def aclose(self) -> None:  # noqa: ASYNC910  # cleanup works when cancelled
        """Close every connection, idle or busy."""
        self._is_closed = True
        self._idle.clear()
        while self._open:
            self._open.pop().close()

    def put_aside(self, target: Target, connection: Connection) -> None:
        """Keep *connection* for another request if it can serve one; otherwise close it."""
        if self._is_closed or not connection.finish():
            connection.close()
            self._open.discard(connection)
            return
        now = trio.current_time()
        connection.idle_since = now
        stack = self._idle.setdefault(target, _Stack())
        stack.append(connection)
        # The oldest are at the bottom, and at most one is added: this is constant time.
        while stack[0].idle_since < now - _IDLE_SECONDS:
            self._drop(stack.popleft())

    def _take(self, target: Target) -> Connection | None:
        stack = self._idle.get(target)
        while stack:
            connection = stack.pop()
            if connection.is_usable:
                return connection
            self._drop(connection)
        return None

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._open.discard(connection)

    async def _connect(self, target: Target) -> Connection:
        place = f"{target.host}:{target.port}"
        with trio.move_on_after(CONNECT_SECONDS):
            try:
                connection = await Connection.open(target, self._tls)
            except OSError as exc:
                msg = f"cannot connect to {place}: {exc}"
                if target.host in _HERE:
                    msg += "; start the server there: `agentpool doctor` says which ones listen"
                elif isinstance(exc, socket.gaierror):
                    msg += "; check the name of the host, and that this machine is online"
                raise NetworkError(msg) from exc
            except trio.BrokenResourceError as exc:
                msg = f"TLS handshake with {place} failed: {exc.__cause__ or exc}"
                raise NetworkError(msg) from exc
            self._open.add(connection)
            return connection
        msg = f"no connection to {place} within {CONNECT_SECONDS:g} seconds"
        raise NetworkError(msg)

    async def _exchange(
        self,
        connection: Connection,
        head: RequestHead,
        content: bytes,
        on_sent: OnSent | None,
    ) -> tuple[AnswerHead, Connection]:
        if on_sent is not None:
            on_sent()
        try:
            answer = await connection.send(head, content)
        except BaseException:
            self._drop(connection)
            raise
        return answer, connection


_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine, on which a user may have forgotten to start a server."""


def build_head(method: str, path: bytes, headers: RawHeaders, *, says_length: bool) -> RequestHead:
    """Return the head of a request.

    Raises:
        BadRequestError: If it cannot be sent.
    """
    try:
        return RequestHead.build(method, path, headers, says_length=says_length)
    except ValueError as exc:
        raise BadRequestError(f"the request cannot be sent as HTTP: {exc}") from None


def _to_httpx(exc: Exception) -> httpx.TransportError:
    if isinstance(exc, BadAnswerError):
        return httpx.RemoteProtocolError(shown(str(exc)))
    return httpx.ReadError(str(exc))
