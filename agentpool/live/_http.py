"""The part of HTTP that one page needs: one request per connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import attrs
import h11
import trio

from agentpool.live._access import Request

MAX_BODY: Final = 64 * 1024
"""The most bytes of a request. The longest part of a request is typed by a person."""

READ_SECONDS: Final = 10.0
"""The time for a whole request. The page sends it in one go."""

_SAFE: Final = (
    ("Connection", "close"),
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
"""The headers of every answer."""


class BadRequestError(Exception):
    """The received data is not an acceptable request."""


@final
@attrs.define(eq=False)
class Visit:
    """One connection of a browser."""

    _stream: trio.abc.Stream
    _wire: h11.Connection = attrs.field(init=False, factory=lambda: h11.Connection(h11.SERVER))

    async def read(self) -> Request:
        """Return the request.

        Raises:
            BadRequestError: If no request comes, or it is invalid or too large.
            trio.BrokenResourceError: If the client has gone.
        """
        with trio.move_on_after(READ_SECONDS):
            try:
                head = await self._next()
                if not isinstance(head, h11.Request):
                    raise BadRequestError
                body = b""
                while isinstance(part := await self._next(), h11.Data):
                    body += bytes(part.data)
                    if len(body) > MAX_BODY:
                        raise BadRequestError
            except h11.RemoteProtocolError as error:
                raise BadRequestError from error
            headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in head.headers}
            target = head.target.decode("latin-1")
            return Request(head.method.decode("latin-1"), target, headers, body)
        raise BadRequestError

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._wire.next_event()) is h11.NEED_DATA:
            self._wire.receive_data(bytes(await self._stream.receive_some(65536)))
        return event  # type: ignore[return-value]  # all but NEED_DATA  # noqa: ASYNC910

    async def answer(
        self, status: int, kind: str, body: bytes, more: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Send a complete answer, unless the client has left before it sent a request.

        Raises:
            trio.BrokenResourceError: If the client has gone.
        """
        if self._wire.our_state is h11.MUST_CLOSE:
            # Browsers open connections for later, and close them if they were not needed.
            await trio.lowlevel.checkpoint()
            return
        length = ("Content-Length", str(len(body)))
        await self.begin(status, kind, (length, *more))
        await self.send(body)

    async def begin(self, status: int, kind: str, more: Sequence[tuple[str, str]] = ()) -> None:
        """Send the head of an answer.

        Raises:
            trio.BrokenResourceError: If the client has gone.
        """
        headers = [("Content-Type", kind), *_SAFE, *more]
        raw = [(name.encode(), value.encode()) for name, value in headers]
        head = self._wire.send(h11.Response(status_code=status, headers=raw))
        await self._stream.send_all(head or b"")

    async def send(self, data: bytes) -> None:
        """Send a part of an answer.

        Raises:
            trio.BrokenResourceError: If the client has gone.
        """
        wrapped = self._wire.send(h11.Data(data=data))
        await self._stream.send_all(wrapped or b"")
