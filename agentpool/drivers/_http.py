"""Posts a body over HTTP and reads the answer as a stream. Only this module uses httpx.

The transport is our own stack of connections, unless there is a proxy or the caller passes a
transport: any ``httpx`` transport will do, for tests or for recording. Our own is used without
httpx's request and answer objects, which cost as much as the HTTP itself.

Time limits are the caller's, set by cancel scopes. Only connecting, and reading the explanation of
an error, have their own limits.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Final, Protocol, cast, final

import attrs
import httpx
import trio

from agentpool._answer_parser import BadAnswerError
from agentpool._checks import expect
from agentpool._connection import Connection, ConnectionLostError, RequestHead, Target
from agentpool._errors import NetworkError, ProtocolError, UsageError
from agentpool._secrets import redacted, remember_secrets
from agentpool.abc import OnSent
from agentpool.drivers._http_failure import raise_as_driver_error
from agentpool.drivers._http_stack import PORTS, RawHeaders, StackTransport, build_head
from agentpool.drivers._sent_headers import FIXED_HEADERS, checked_headers, hidden, secrets_in
from agentpool.drivers.wire._failure import shown

# A foreign transport gets this long to close an answer; ours needs no time.
_CLOSE_SECONDS: Final = 1.0

# An error's explanation is a few hundred bytes; what is longer is cut.
_MAX_ERROR_BYTES: Final = 64 * 1024

# It comes with its head, mostly in the same packet. Who refuses a request and then says
# nothing more is not waited for: the status has said enough.
_EXPLANATION_SECONDS: Final = 2.0

_NO_CONNECTION: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class _Body(Protocol):
    """The rest of an answer, from any transport."""

    @property
    def has_ended(self) -> bool: ...
    async def receive(self) -> bytes: ...


@final
@attrs.define(eq=False, repr=False)
class _ForeignBody:
    """The rest of an answer from a transport that is not ours."""

    _pieces: AsyncIterator[bytes]
    has_ended: bool = attrs.field(init=False, default=False)

    async def receive(self) -> bytes:  # noqa: ASYNC910  # its transport's own
        piece = await anext(self._pieces, b"")
        self.has_ended = not piece
        return piece


@final
@attrs.frozen(eq=False)
class HttpAnswer:
    """An answer whose body is still to be read."""

    status: int
    """The HTTP status."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """Its headers, with names in lower case. They may repeat an API key."""
    _body: _Body = attrs.field(repr=False)
    _secrets: frozenset[str] = attrs.field(repr=False)

    @property
    def has_ended(self) -> bool:
        """Whether the whole body is known to have been read, without waiting."""
        return self._body.has_ended

    def headers_to_show(self) -> dict[str, str]:
        """Return the headers, with any API key in them redacted."""
        return {name: redacted(value, self._secrets) for name, value in self.headers.items()}

    async def receive(self) -> bytes:  # noqa: ASYNC910  # what has arrived is not waited for
        """Return the next piece of the body. Empty: the body has ended.

        Raises:
            NetworkError: If the connection broke.
            ProtocolError: If what came is not HTTP.

        Cancellation:
            The answer is over; leave its block.
        """
        try:
            return await self._body.receive()
        except Exception as exc:  # noqa: BLE001  # what is not HTTP's is raised as it is
            raise_as_driver_error(exc, self._secrets)

    async def receive_all(self) -> bytes:
        """Return the body, cut at 64 KiB.

        Raises:
            NetworkError: If the connection broke.
            ProtocolError: If what came is not HTTP.

        Cancellation:
            The answer is over; leave its block.
        """
        whole = bytearray()
        while (piece := await self.receive()) and len(whole) <= _MAX_ERROR_BYTES:
            whole += piece
        return bytes(whole[:_MAX_ERROR_BYTES])

    async def receive_explanation(self) -> bytes:
        """Return the part of the body that came within two seconds, to explain a status.

        An API key in it is redacted, since a traceback may show local variables. If the connection
        breaks, the part so far is returned: the status is already known.

        Cancellation:
            The answer is over; leave its block.
        """
        whole = bytearray()
        with (
            trio.move_on_after(_EXPLANATION_SECONDS),
            contextlib.suppress(NetworkError, ProtocolError),
        ):
            while (piece := await self.receive()) and len(whole) <= _MAX_ERROR_BYTES:
                whole += piece
        text = bytes(whole[:_MAX_ERROR_BYTES]).decode("latin-1")
        return redacted(text, self._secrets).encode("latin-1")  # noqa: ASYNC910  # as receive()


@final
@attrs.define(eq=False, repr=False)
class HttpClient:
    """Sends requests to one base URL. Opened by ``open_http``."""

    _transport: httpx.AsyncBaseTransport
    _base_url: httpx.URL
    _own_headers: httpx.Headers
    """The headers of every request, unless overridden."""
    _headers: httpx.Headers = attrs.field(init=False)
    _target: Target = attrs.field(init=False)
    _raw: RawHeaders = attrs.field(init=False)
    _heads: dict[tuple[str, str], RequestHead] = attrs.field(
        init=False, factory=dict[tuple[str, str], RequestHead]
    )
    """The heads of requests with these headers, by method and path."""
    # What must be redacted in every text, because a server may quote it.
    _secrets: frozenset[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Precompute what every request needs."""
        url = self._base_url
        self._target = Target(url.scheme == "https", url.host, url.port or PORTS[url.scheme])
        self.set_headers({})

    @property
    def host(self) -> str:
        """The host that all requests go to, without its port."""
        return self._base_url.host

    @property
    def place(self) -> str:
        """The server of all requests: the host, with its port if that is unusual."""
        return self._base_url.netloc.decode("ascii")

    def set_headers(self, headers: Mapping[str, str]) -> None:
        """Send *headers* with every request from now on, in place of those set before.

        Headers that the client was opened with are still sent, unless one of *headers* has the same
        name.

        Raises:
            UsageError: If a header cannot be sent. The error shows its name, but not its value.
        """
        found = self._own_headers.copy()
        found.update(checked_headers(headers))
        self._headers = found
        self._raw = [(b"host", self._base_url.netloc), *hidden(self._headers.raw)]
        self._heads.clear()
        self._secrets = secrets_in(self._headers)
        remember_secrets(self._secrets)

    @contextlib.asynccontextmanager
    async def post_stream(  # noqa: ASYNC911  # a request sent is a checkpoint
        self, path: str, content: bytes, *, method: str = "POST", on_sent: OnSent | None = None
    ) -> AsyncGenerator[HttpAnswer]:
        """POST *content* to *path* below the base URL. The answer lives as long as the block.

        *on_sent* is called before the first byte is sent; if there is no connection, it is not
        called.

        Raises:
            NetworkError: If there is no connection, or it broke.
            ProtocolError: If what came is not HTTP.
            BadRequestError: If the request cannot be sent.

        Cancellation:
            The connection is closed, which tells the provider to stop. Leaving the block before the
            answer's end also closes it.
        """
        stack = self._transport
        if isinstance(stack, StackTransport):
            answer, connection = await self._ask_stack(stack, method, path, content, on_sent)
            try:
                _refuse_encoding(answer)
                yield answer  # noqa: ASYNC911  # a request sent is a checkpoint
            finally:
                # It needs no await, and so no shield.
                stack.put_aside(self._target, connection)
            return  # noqa: ASYNC911  # a request sent is a checkpoint
        answer, stream = await self._ask_other(method, path, content, on_sent)
        try:
            _refuse_encoding(answer)
            yield answer  # noqa: ASYNC911  # a request sent is a checkpoint
        finally:
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

    async def _ask_stack(
        self, stack: StackTransport, method: str, path: str, content: bytes, on_sent: OnSent | None
    ) -> tuple[HttpAnswer, Connection]:
        secrets = self._secrets
        head = self._heads.get((method, path))
        if head is None:
            says_length = method == "POST"
            head = build_head(method, self._path(path), self._raw, says_length=says_length)
            self._heads[method, path] = head
        try:
            found, connection = await stack.exchange(self._target, head, content, on_sent)
        except (ConnectionLostError, BadAnswerError) as exc:
            raise_as_driver_error(exc, secrets)
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in found.headers}
        return HttpAnswer(found.status, fields, connection, secrets), connection  # noqa: ASYNC910  # it was sent

    async def _ask_other(
        self, method: str, path: str, content: bytes, on_sent: OnSent | None
    ) -> tuple[HttpAnswer, httpx.AsyncByteStream]:
        url = self._base_url.copy_with(raw_path=self._path(path))
        request = httpx.Request(method, url, headers=self._headers, content=content)
        secrets = self._secrets
        try:
            response = await self._transport.handle_async_request(request)
        except _NO_CONNECTION as exc:
            raise_as_driver_error(exc, secrets)
        except BaseException as exc:
            # Whose transport it is does not say when the request left.
            if on_sent is not None:
                on_sent()
            if isinstance(exc, Exception):
                raise_as_driver_error(exc, secrets)  # what is not httpx's is raised as it is
            raise
        if on_sent is not None:
            on_sent()
        stream = cast("httpx.AsyncByteStream", response.stream)
        body = _ForeignBody(aiter(stream))
        answer = HttpAnswer(response.status_code, response.headers, body, secrets)
        return answer, stream  # noqa: ASYNC910  # its transport's own

    def _path(self, path: str) -> bytes:
        start, _, query = self._base_url.raw_path.partition(b"?")
        return start.rstrip(b"/") + path.encode() + (b"?" + query if query else b"")


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
        headers: Headers for every request. Their values never appear in an error or log.
        verify: Whether to check certificates, or the TLS context to use.
        proxy: The URL of a proxy, which is used through httpx's own transport.
        transport: The transport to use instead of our own; it is left open at the end.

    Raises:
        UsageError: If the URL or a header cannot be used.

    Cancellation:
        Every connection is closed.
    """
    if transport is not None:
        expect(
            transport, httpx.AsyncBaseTransport, "transport must be an httpx.AsyncBaseTransport",
            "leave it out for the network",
        )  # fmt: skip
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


def _refuse_encoding(answer: HttpAnswer) -> None:
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        # No local holds it as it came: it may quote a key, and a traceback may show locals.
        came = shown(answer.headers_to_show()["content-encoding"])
        msg = f"the answer is encoded as {came!r}, which was not asked for"
        raise ProtocolError(msg)


def _checked_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as exc:
        # What stands before an @ may be a password, and httpx quotes it.
        _, _, place = base_url.rpartition("@")
        msg = f"base_url {shown(place)!r} is not a URL; write it as https://host/path"
        raise UsageError(msg) from None if place != base_url else exc
    if url.userinfo:
        msg = f"base_url for {url.host!r} holds a password; use api_key or headers"
        raise UsageError(msg)
    if url.scheme not in PORTS or not url.host:
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
    try:
        return httpx.AsyncHTTPTransport(verify=context or False, proxy=proxy, limits=limits)
    except ValueError as exc:
        # Not quoted: it may have a password in it.
        raise UsageError("proxy is not a URL; write it as http://host:port") from exc
