"""HTTP for MCP: limits answers and removes keys before the SDK reads them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, final

import httpx2
import trio

from agentpool.tools.mcp._message_lines import MAX_MESSAGE_BYTES, MAX_NODES, nodes_in
from agentpool.tools.mcp._secrets import Secrets, SecretsInStream
from agentpool.tools.mcp._trimmed_http import BodyTrimmer, EventTrimmer

NOT_FOUND: Final = 404
SESSION_HEADER: Final = "mcp-session-id"
"""The header with the session id. Source: modelcontextprotocol.io, specification 2025-06-18,
Transports, "Session Management": a client that gets 404 for a request with this header must begin a
new session."""

MAX_HTTP_NODES: Final = 2 * MAX_NODES
"""The most objects and lists of one answer or event, including those inside its texts."""

STREAM_GAP_SECONDS: Final = 0.5
"""The least time between two streams for a server's own messages, once the first ``STREAM_BURST``
streams have been opened. Otherwise, a server that ends each stream with ``retry: 0`` would be asked
350 times a second."""

STREAM_BURST: Final = 10
"""How many streams may be opened without a gap, since several calls may wait for a stream at
once."""


@contextlib.asynccontextmanager
async def open_http_client(
    token: str | None, secrets: Secrets
) -> AsyncGenerator[httpx2.AsyncClient]:
    """Open the HTTP client of one session.

    Args:
        token: The bearer token for the server. ``None``: no token is sent.
        secrets: Removed from everything the server sends.
    """
    # Bytes are counted as they come, and packed ones would say nothing of their size.
    headers = {"accept-encoding": "identity"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    # No proxy from the environment: what is meant for this machine would go through it.
    async with httpx2.AsyncClient(
        transport=Bounded(httpx2.AsyncHTTPTransport(), secrets),
        headers=headers,
        timeout=None,
        trust_env=False,
    ) as client:
        yield client


@final
class Bounded(httpx2.AsyncBaseTransport):
    """Refuses compressed answers, and messages that are too long."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, secrets: Secrets) -> None:
        self._inner = inner
        self._secrets = secrets
        self._next_at = -math.inf

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            await self._wait_turn()
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as error:
            raise _redacted(error, self._secrets) from None
        if response.status_code == NOT_FOUND and SESSION_HEADER in request.headers:
            # The session is gone, as after a restart, whatever the body says: some servers send
            # an error in JSON, which the SDK hands on as the answer of every later call.
            await response.aclose()
            return httpx2.Response(NOT_FOUND, request=request)
        redact = self._secrets.redact_bytes
        response.headers = httpx2.Headers(
            [(redact(name), redact(value)) for name, value in response.headers.raw]
        )
        packing = response.headers.get("content-encoding", "identity")
        if packing != "identity":
            await response.aclose()
            raise httpx2.DecodingError(f"it packed its answer as {packing!r}", request=request)
        # Events are counted one by one, where they are read; a stream of them may be endless.
        kind = response.headers.get("content-type", "")
        is_endless = kind.startswith("text/event-stream")
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101  # an async transport's
        trimmer: EventTrimmer | BodyTrimmer | None = None
        if is_endless:
            trimmer = EventTrimmer()
        elif kind.startswith("application/json"):
            trimmer = BodyTrimmer()
        response.stream = _BoundedStream(
            response.stream, self._secrets, trimmer, is_endless=is_endless
        )
        return response

    async def _wait_turn(self) -> None:
        """Wait until another stream may be opened, whatever the server's `retry` says."""
        now = trio.current_time()
        self._next_at = max(self._next_at, now) + STREAM_GAP_SECONDS
        await trio.sleep(max(self._next_at - STREAM_BURST * STREAM_GAP_SECONDS - now, 0))

    async def aclose(self) -> None:
        await self._inner.aclose()


@final
class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(
        self,
        inner: httpx2.AsyncByteStream,
        secrets: Secrets,
        trimmer: EventTrimmer | BodyTrimmer | None,
        *,
        is_endless: bool,
    ) -> None:
        self._inner = inner
        self._secrets = secrets
        self._trimmer = trimmer
        self._is_endless = is_endless

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._pieces = aiter(self._inner)
        self._in_stream = SecretsInStream(self._secrets)
        self._seen = self._nodes = 0
        return self

    async def __anext__(self) -> bytes:  # noqa: ASYNC910  # to ask for a piece is a checkpoint
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            if rest := self._end():
                return rest  # noqa: ASYNC910  # it has asked
            raise
        except httpx2.TransportError as error:
            raise _redacted(error, self._secrets) from None
        # Of a stream what came since the last event, nearly.
        last = piece.rpartition(b"\n\n") if self._is_endless else (b"", b"", piece)
        self._nodes = nodes_in(last[2]) + (0 if last[1] else self._nodes)
        self._seen += len(piece)
        has_room = self._is_endless or self._seen <= MAX_MESSAGE_BYTES
        if has_room and self._nodes <= MAX_HTTP_NODES:
            known = self._in_stream.feed(piece)
            return known if self._trimmer is None else self._trimmer.feed(known)
        # Closed first, and then asked once more: so the generators inside run to their end,
        # and none of them is left for the garbage collector.
        await self._inner.aclose()
        with contextlib.suppress(Exception):
            await anext(self._pieces)
        most = (
            f"{MAX_HTTP_NODES:,} objects and lists" if has_room else f"{MAX_MESSAGE_BYTES:,} bytes"
        )
        raise httpx2.ReadError(f"it sent a message of more than {most}")

    def _end(self) -> bytes:
        """Return the bytes that were held back. From now on, hold nothing back."""
        rest = self._in_stream.end()
        if self._trimmer is None:
            return rest
        return self._trimmer.feed(rest) + self._trimmer.end()

    async def aclose(self) -> None:
        await self._inner.aclose()


def _redacted(error: httpx2.TransportError, secrets: Secrets) -> httpx2.TransportError:
    """Return *error* without secrets. Raise it ``from None``, since its cause contains them."""
    error.args = (secrets.redact(str(error)),)
    return error
