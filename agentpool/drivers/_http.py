"""The only door to httpx: POST a body, read the answer as a stream.

Why not ``httpx.AsyncClient``: its connection pool looks at every connection at every
request, which at 100 requests at once costs more than all the rest (encode/httpcore#1035).
So the transport is our own, a stack of idle connections: the last one put aside is the
first one taken, and the others grow old at the bottom. Any other ``httpx`` transport can
take its place, for proxies, for tests, for recording.

Seconds are the caller's, by cancel scope. Only connecting has a limit of its own.
"""

from __future__ import annotations

import collections
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Final, Self, TypeAlias, cast, final

import attrs
import h11
import httpx
import trio

from agentpool._errors import ProtocolError, UsageError
from agentpool.drivers._connection import (
    BadAnswerError,
    Connection,
    ConnectionLostError,
    NoAnswerError,
    Target,
)
from agentpool.drivers._http_failure import raise_as_driver_error
from agentpool.drivers._http_headers import FIXED_HEADERS, checked_headers
from agentpool.drivers.wire._failure import shown

# Two SYN retransmissions and a TLS handshake over a slow line. A deadline that is nearer
# wins, being a cancel scope.
CONNECT_SECONDS: Final = 15.0

# Providers and their proxies close idle connections after 60 s and more; llama.cpp after
# 5 s, which is seen by looking at the socket.
_IDLE_SECONDS: Final = 60.0

# A transport of somebody else's gets this long to close an answer; ours needs no time.
_CLOSE_SECONDS: Final = 1.0

# An error's explanation is a few hundred bytes; what is longer is cut.
_MAX_ERROR_BYTES: Final = 64 * 1024

_PORTS: Final = {"http": 80, "https": 443}


_Stack: TypeAlias = collections.deque[Connection]


@final
@attrs.define(eq=False, repr=False)
class _Body(httpx.AsyncByteStream):
    """The rest of an answer. Closing it gives the connection back."""

    _transport: StackTransport
    _target: Target
    _connection: Connection

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._connection.receive()
        except (ConnectionLostError, BadAnswerError) as exc:
            raise _to_httpx(exc) from exc
        if not data:
            raise StopAsyncIteration
        return data

    @property
    def has_ended(self) -> bool:
        return self._connection.has_answered

    def close(self) -> None:
        self._transport.put_aside(self._target, self._connection)

    async def aclose(self) -> None:  # noqa: ASYNC910  # cleanup works when cancelled
        self.close()


@final
@attrs.define(eq=False, repr=False)
class StackTransport(httpx.AsyncBaseTransport):
    """An httpx transport over HTTP/1.1 that keeps idle connections in a stack."""

    _tls: ssl.SSLContext | None = None
    _idle: dict[Target, _Stack] = attrs.field(init=False, factory=dict[Target, _Stack])
    _open: set[Connection] = attrs.field(init=False, factory=set[Connection])
    _is_closed: bool = attrs.field(init=False, default=False)

    @property
    def idle_count(self) -> int:
        """Connections that wait for the next request."""
        return sum(map(len, self._idle.values()))

    @property
    def open_count(self) -> int:
        """Connections, idle and busy."""
        return len(self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*, on the connection that was put aside last if there is one.

        Raises:
            httpx.TransportError: In one of its subclasses.

        Cancellation:
            The connection is closed.
        """
        url = request.url
        target = Target(url.scheme == "https", url.host, url.port or _PORTS[url.scheme])
        head = _to_h11(request)
        idle = self._take(target)
        try:
            if idle is not None:
                # The server may have closed it while the request was on its way. Nothing
                # came back, so nothing was begun; once more, on a new connection.
                with contextlib.suppress(NoAnswerError):
                    return await self._exchange(idle, target, head, request.content)
            connection = await self._connect(target)
            return await self._exchange(connection, target, head, request.content)
        except (ConnectionLostError, BadAnswerError) as exc:
            raise _to_httpx(exc) from exc

    async def aclose(self) -> None:  # noqa: ASYNC910  # cleanup works when cancelled
        """Close every connection, idle or busy."""
        self._is_closed = True
        self._idle.clear()
        while self._open:
            self._open.pop().close()

    def put_aside(self, target: Target, connection: Connection) -> None:
        """Keep *connection* for the next request if it can serve one; or close it."""
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
                raise httpx.ConnectError(f"cannot connect to {place}: {exc}") from exc
            except trio.BrokenResourceError as exc:
                why = exc.__cause__ or exc
                msg = f"TLS handshake with {place} failed: {why}"
                raise httpx.ConnectError(msg) from exc
            self._open.add(connection)
            return connection
        msg = f"no connection to {place} within {CONNECT_SECONDS:g} seconds"
        raise httpx.ConnectTimeout(msg)

    async def _exchange(
        self, connection: Connection, target: Target, head: h11.Request, body: bytes
    ) -> httpx.Response:
        try:
            answer = await connection.send(head, body)
        except BaseException:
            self._drop(connection)
            raise
        stream = _Body(self, target, connection)
        return httpx.Response(answer.status, headers=list(answer.headers), stream=stream)


@final
@attrs.frozen(eq=False)
class HttpAnswer:
    """An answer whose body is still to come."""

    status: int
    """The HTTP status."""
    headers: Mapping[str, str]
    """Its headers; names in any case."""
    _body: httpx.AsyncByteStream = attrs.field(repr=False)
    _pieces: AsyncIterator[bytes] = attrs.field(repr=False)

    @property
    def has_ended(self) -> bool:
        """Whether all of it has been read, as far as one can know without waiting."""
        return isinstance(self._body, _Body) and self._body.has_ended

    async def receive(self) -> bytes:  # noqa: ASYNC910  # what has arrived is not waited for
        """Return the next piece of the body; empty at its end.

        Raises:
            NetworkError: If the connection broke.
            ProtocolError: If what came is not HTTP.

        Cancellation:
            The answer is over; leave its block.
        """
        try:
            return await anext(self._pieces, b"")
        except Exception as exc:  # noqa: BLE001  # what is not httpx's is raised as it is
            raise_as_driver_error(exc)

    async def receive_all(self) -> bytes:
        """Return the beginning of the body, as much of it as explains an error."""
        whole = bytearray()
        while piece := await self.receive():
            whole += piece
            if len(whole) > _MAX_ERROR_BYTES:
                break
        return bytes(whole[:_MAX_ERROR_BYTES])


@final
@attrs.define(eq=False, repr=False)
class HttpClient:
    """Sends requests to one base URL. Made by ``open_http``."""

    _transport: httpx.AsyncBaseTransport = attrs.field(repr=False)
    _base_url: httpx.URL
    # In none of our texts: these may be keys.
    _headers: httpx.Headers = attrs.field(repr=False)
    _urls: dict[str, httpx.URL] = attrs.field(init=False, factory=dict[str, httpx.URL])

    def set_headers(self, headers: Mapping[str, str]) -> None:
        """Send *headers* with every request from now on.

        Raises:
            UsageError: If one of them cannot be sent. It is named; its value is not.
        """
        self._headers.update(checked_headers(headers))

    @contextlib.asynccontextmanager
    async def post_stream(  # noqa: ASYNC911  # a request sent is a checkpoint
        self, path: str, body: bytes, *, method: str = "POST"
    ) -> AsyncGenerator[HttpAnswer]:
        """POST *body* to *path* below the base URL; the block is the answer's life.

        Raises:
            NetworkError: If there is no connection, or it broke.
            ProtocolError: If what came is not HTTP.
            BadRequestError: If the request cannot be sent.

        Cancellation:
            The connection is closed, which tells the provider to stop. It is closed as
            well if the block is left before the answer's end.
        """
        request = httpx.Request(method, self._url(path), headers=self._headers, content=body)
        try:
            response = await self._transport.handle_async_request(request)
        except Exception as exc:  # noqa: BLE001  # what is not httpx's is raised as it is
            raise_as_driver_error(exc)
        stream = cast("httpx.AsyncByteStream", response.stream)
        try:
            _refuse_encoding(response)
            yield HttpAnswer(response.status_code, response.headers, stream, aiter(stream))  # noqa: ASYNC911  # a request sent is a checkpoint
        finally:
            if isinstance(stream, _Body):
                stream.close()  # ours needs no await, and so no shield
            else:
                with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                    await stream.aclose()

    async def get(self, path: str) -> tuple[int, bytes]:
        """GET *path* below the base URL; return the status and the body, cut at 64 KiB.

        Raises:
            NetworkError: If there is no connection, or it broke.
            ProtocolError: If what came is not HTTP.

        Cancellation:
            The connection is closed.
        """
        async with self.post_stream(path, b"", method="GET") as answer:
            return answer.status, await answer.receive_all()

    def _url(self, path: str) -> httpx.URL:
        url = self._urls.get(path)
        if url is None:
            base = self._base_url
            start, _, query = base.raw_path.partition(b"?")
            whole = start.rstrip(b"/") + path.encode() + (b"?" + query if query else b"")
            url = self._urls[path] = base.copy_with(raw_path=whole)
        return url


@contextlib.asynccontextmanager
async def open_http(
    base_url: str,
    *,
    headers: Mapping[str, str] | None = None,
    verify: ssl.SSLContext | bool = True,
    proxy: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncGenerator[HttpClient]:
    """Open a client for everything below *base_url*.

    Args:
        base_url: ``http`` or ``https``, a host, and perhaps a path and a query.
        headers: Sent with every request. Their values appear in no text of ours.
        verify: Whether to check certificates, or the TLS context to use.
        proxy: The URL of a proxy; httpx's own transport then does the talking.
        transport: Used instead, and left open: it is the caller's.

    Raises:
        UsageError: If the URL or a header cannot be used.

    Cancellation:
        Every connection is closed.
    """
    url = _checked_url(base_url)
    fields = httpx.Headers({**FIXED_HEADERS, **checked_headers(headers or {})})
    if transport is not None:
        yield HttpClient(transport, url, fields)  # noqa: ASYNC911  # nothing to wait for
        return  # noqa: ASYNC911  # nothing to wait for
    own = _build_transport(url, verify=verify, proxy=proxy)
    try:
        yield HttpClient(own, url, fields)  # noqa: ASYNC911  # nothing to wait for
    finally:
        with trio.move_on_after(_CLOSE_SECONDS, shield=True):
            await own.aclose()


def _to_httpx(exc: Exception) -> httpx.TransportError:
    if isinstance(exc, BadAnswerError):
        return httpx.RemoteProtocolError(shown(str(exc)))
    return httpx.ReadError(str(exc))


def _to_h11(request: httpx.Request) -> h11.Request:
    try:
        return h11.Request(
            method=request.method, target=request.url.raw_path, headers=request.headers.raw
        )
    except h11.LocalProtocolError:
        # From None: h11 quotes the header that it refuses, which may be a key.
        raise httpx.LocalProtocolError("a header cannot be sent") from None


def _refuse_encoding(response: httpx.Response) -> None:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        msg = f"the answer is encoded as {encoding!r}, which was not asked for"
        raise ProtocolError(msg)


def _checked_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as exc:
        msg = f"base_url {shown(base_url)!r} is no URL: {exc}"
        raise UsageError(msg) from exc
    if url.userinfo:
        msg = f"base_url for {url.host!r} holds a password; use api_key or headers"
        raise UsageError(msg)
    if url.scheme not in _PORTS or not url.host:
        msg = f"base_url must be http:// or https:// and a host, got {shown(base_url)!r}"
        raise UsageError(msg)
    return url


def _build_transport(
    url: httpx.URL, *, verify: ssl.SSLContext | bool, proxy: str | None
) -> httpx.AsyncBaseTransport:
    is_tls = "https" in {url.scheme, httpx.URL(proxy or "").scheme}
    context = verify if isinstance(verify, ssl.SSLContext) else None
    if context is None and is_tls:
        # Once per driver: reading the certificates takes 20 ms.
        context = httpx.create_ssl_context(verify=verify)
    if proxy is None:
        return StackTransport(context)
    # None: no bound. How many requests run at once is decided elsewhere.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncHTTPTransport(verify=context or False, proxy=proxy, limits=limits)
