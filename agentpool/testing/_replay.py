"""Transports that record a provider's answers and replay them.

Both are ``httpx`` transports, so the driver under test is the real driver, with its wire format,
its errors and its retries. Only the network is replaced.
"""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Self, cast, final

import attrs
import httpx
import msgspec
import trio

from agentpool._base import Shown
from agentpool._checks import expect_arguments
from agentpool._disk_file import open_to_write
from agentpool._errors import RecordingMissError, UsageError
from agentpool._opening import opening
from agentpool.drivers._http_stack import StackTransport
from agentpool.drivers._sent_headers import secrets_in
from agentpool.testing._recording import (
    KEPT_HEADERS,
    Asked,
    Exchange,
    Piece,
    build_pieces,
    explain_miss,
    masked,
    read_asked,
    read_exchanges,
    write_exchange,
)

# A foreign transport gets this long to close; ours needs no time.
_CLOSE_SECONDS: Final = 1.0


@final
@attrs.define(eq=False, repr=False)
class _RecordedBody(httpx.AsyncByteStream):
    """The body of an answer while it is recorded."""

    _inner: httpx.AsyncByteStream
    _iterator: AsyncIterator[bytes]
    _recorder: RecordingTransport
    _exchange: Exchange
    _secrets: Sequence[str]
    _start: float
    _pieces: list[tuple[float, bytes]] = attrs.field(init=False, factory=list[tuple[float, bytes]])
    _is_whole: bool = attrs.field(init=False, default=False)
    _is_written: bool = attrs.field(init=False, default=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await anext(self._iterator)
        except StopAsyncIteration:
            self._is_whole = True
            raise
        self._pieces.append((trio.current_time() - self._start, data))
        return data

    async def aclose(self) -> None:
        if not self._is_written:
            self._is_written = True
            pieces = build_pieces(self._pieces, self._secrets)
            self._recorder.write(
                msgspec.structs.replace(self._exchange, pieces=pieces, is_whole=self._is_whole)
            )
        await self._inner.aclose()


@final
@attrs.define(eq=False, repr=False)
class RecordingTransport(Shown, httpx.AsyncBaseTransport):
    """Sends requests and records the answers. Opened by ``open_recording``."""

    _inner: httpx.AsyncBaseTransport
    _file: BinaryIO
    _more_secrets: Sequence[str]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*, and record its answer when the answer's body is closed.

        Raises:
            httpx.TransportError: What the inner transport raised. The error is not recorded.

        Cancellation:
            The part of the answer that has arrived is recorded as an answer that breaks off.
        """
        secrets = (*secrets_in(request.headers), *self._more_secrets)
        asked = await _asked_of(request, secrets)
        start = trio.current_time()
        response = await self._inner.handle_async_request(request)
        headers = {
            name: masked(response.headers[name].encode(), secrets).decode()
            for name in sorted(KEPT_HEADERS & set(response.headers))
        }
        after = round(trio.current_time() - start, 6)
        exchange = Exchange(asked, response.status_code, headers, after, (), is_whole=False)
        stream = cast("httpx.AsyncByteStream", response.stream)
        body = _RecordedBody(stream, aiter(stream), self, exchange, secrets, start)
        return httpx.Response(response.status_code, headers=response.headers, stream=body)

    def write(self, exchange: Exchange) -> None:
        """Write one line immediately: the file is not buffered."""
        self._file.write(write_exchange(exchange))


@final
@attrs.define(eq=False, repr=False)
class _ReplayedBody(httpx.AsyncByteStream):
    """The body of an answer from a recording."""

    _pieces: Iterator[Piece]
    _is_whole: bool
    _start: float
    """When the request came. Minus infinity: the replay does not wait between pieces."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = next(self._pieces, None)
        if piece is not None:
            await trio.sleep_until(self._start + piece.after_seconds)
            return piece.content
        await trio.lowlevel.checkpoint()
        if self._is_whole:
            raise StopAsyncIteration
        msg = "the recorded answer breaks off here: it was cancelled, left or lost"
        raise httpx.ReadError(msg)


@final
@attrs.define(eq=False, repr=False)
class ReplayTransport(Shown, httpx.AsyncBaseTransport):
    """Answers requests from a recording. Opened by ``open_replay``."""

    _name: str
    _exchanges: Sequence[Exchange]
    _paced: bool
    _left: dict[bytes, collections.deque[Exchange]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Group the answers by request."""
        self._left = {}
        for exchange in self._exchanges:
            queue = self._left.setdefault(exchange.asked.identity, collections.deque())
            queue.append(exchange)

    @property
    def left_count(self) -> int:
        """The number of recorded answers not yet used."""
        return sum(map(len, self._left.values()))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the next recorded answer to *request*.

        Raises:
            RecordingMissError: If no answer is left for *request*. The error describes the most
                similar recorded request.

        Cancellation:
            The answer counts as used.
        """
        start = trio.current_time() if self._paced else float("-inf")
        asked = await _asked_of(request, tuple(secrets_in(request.headers)))
        queue = self._left.get(asked.identity)
        if not queue:
            raise RecordingMissError(explain_miss(asked, self._exchanges, name=self._name))
        exchange = queue.popleft()
        await trio.sleep_until(start + exchange.after_seconds)
        body = _ReplayedBody(iter(exchange.pieces), exchange.is_whole, start)
        return httpx.Response(exchange.status, headers=dict(exchange.headers), stream=body)


async def _asked_of(request: httpx.Request, secrets: Sequence[str]) -> Asked:
    content = await request.aread()
    url = request.url
    return read_asked(request.method, url.host, url.raw_path, content, secrets)


@opening("transport")
@contextlib.asynccontextmanager
async def open_recording(  # noqa: ASYNC911  # nothing to wait for
    path: str | os.PathLike[str],
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    secrets: Sequence[str] = (),
) -> AsyncGenerator[RecordingTransport]:
    """Open a transport that appends every exchange to the file at *path*.

    A line is written at the end of each exchange, so a crash loses only exchanges that were under
    way. Request headers are not stored. An API key that is in one of these headers is replaced by
    stars wherever else it appears.

    Args:
        path: The file. If it is missing, it is created. Otherwise exchanges are appended.
        transport: The transport that sends the requests. It is not closed at the end. ``None``: a
            new transport sends them.
        secrets: Other texts that must not be written, such as a name in a prompt.

    Raises:
        OSError: If the file cannot be written.

    Cancellation:
        The part of an answer that has arrived is recorded as an answer that breaks off.
    """
    expect_arguments(open_recording, locals())
    place = Path(path)
    own = None
    if transport is None:
        own = transport = StackTransport(httpx.create_ssl_context())
    with _open_for_lines(place) as file:
        try:
            yield RecordingTransport(transport, file, tuple(secrets))  # noqa: ASYNC911  # a file on disk
        finally:
            if own is not None:
                with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                    await own.aclose()


def _open_for_lines(place: Path) -> BinaryIO:
    """Open the file without a buffer, so that each line is in the file as soon as it is written."""
    # Conversations are in it: its owner alone can read a new one.
    file = os.fdopen(open_to_write(place, append=True), "ab", buffering=0)
    recording = place.read_bytes()
    if recording and not recording.endswith(b"\n"):
        # What a crash left of a line goes, or the next one would go on with it.
        file.truncate(recording.rfind(b"\n") + 1)
    return cast("BinaryIO", file)


def _read(place: Path) -> bytes:
    try:
        return place.read_bytes()
    except FileNotFoundError as exc:
        msg = f"there is no recording at {str(place)!r}; make it with open_recording"
        raise UsageError(msg) from exc


@opening("transport")
@contextlib.asynccontextmanager
async def open_replay(  # noqa: ASYNC124, ASYNC911  # nothing to wait for
    path: str | os.PathLike[str], *, paced: bool = False
) -> AsyncGenerator[ReplayTransport]:
    """Open a transport that answers from the recording at *path*, without a network.

    Args:
        path: A file that ``open_recording`` wrote.
        paced: Whether every piece comes as late as in the recording. On a clock that jumps, even
            this takes no real time.

    Raises:
        UsageError: If there is no such file, or it is not a recording.

    Cancellation:
        Nothing is left.
    """
    expect_arguments(open_replay, locals())
    place = Path(path)
    exchanges = read_exchanges(_read(place), name=place.name)
    yield ReplayTransport(place.name, exchanges, paced)  # noqa: ASYNC911  # a file on disk
