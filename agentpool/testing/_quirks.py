"""Odd answers that real servers have sent, for testing any client.

Each line of ``quirks.jsonl`` is one: where it was seen, what the server answers, and what a
good client makes of it. The answers are served over real HTTP on this machine.
"""

from __future__ import annotations

import contextlib
import importlib.resources
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final, cast, final

import attrs
import msgspec
import trio

from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool._opening import opening
from agentpool.testing._latency import latency
from agentpool.testing._loopback import (
    EVENT_STREAM,
    HttpAsked,
    HttpReply,
    json_reply,
    open_loopback_server,
)


@final
class QuirkResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result that a good client makes of a quirk."""

    text: str = ""
    """The text of the answer."""
    thoughts: str = ""
    """What the model thought, which is not part of the text."""
    tool_calls: tuple[tuple[str | None, str, str], ...] = ()
    """Id, name and arguments of each call. The id ``None``: the client gives it one."""
    finish: str = "END_TURN"
    """Why the model stopped, in the words of ``FinishReason``."""
    usage: tuple[int, ...] | None = None
    """Tokens in, out, cached, thought, written to the cache. ``None``: unknown."""
    cost_usd: float | None = None
    """US dollars, as the server says. ``None``: it does not."""
    error: str | None = None
    """The error that it is instead, by its class. ``None``: it is an answer."""
    retryable: bool = False
    """Whether to ask again makes sense."""
    wait_seconds: float | None = None
    """How long the server asks to wait. ``None``: it does not say."""
    says: str = ""
    """What the error's text has in it."""


@final
class Quirk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One odd answer of a real server."""

    name: str
    """Its unique name."""
    api: str = "chat"
    """The interface: ``chat``, ``messages`` or ``responses``."""
    seen: str
    """Where it was seen, and when that was looked up: an issue, a pull request or a page. One
    that is ``like`` another was tried beside it."""
    status: int = 200
    """The HTTP status of the answer."""
    headers: Mapping[str, str] = {}
    """Its headers, besides its type."""
    body: object = None
    """The body, where it is not a stream. ``None``: it is one."""
    events: tuple[object, ...] = ()
    """The data of each event: JSON, or a text that is sent as it is."""
    raw: str = ""
    """What is sent after the events, as it is."""
    back: object = None
    """What the next request must have in the message of this answer. ``None``: anything."""
    result: QuirkResult
    """What a good client makes of it."""

    def reply(self) -> HttpReply:
        """Return the server's answer."""
        if self.body is not None:
            return json_reply(self.status, self.body, **self.headers)
        pieces = [_event(self.api, one) for one in self.events]
        return HttpReply(
            status=self.status,
            headers={"content-type": EVENT_STREAM, **self.headers},
            pieces=[*pieces, *([self.raw.encode()] if self.raw else [])],
        )


def _event(api: str, event: object) -> bytes:
    if isinstance(event, str):
        return f"data: {event}\n\n".encode()
    data = msgspec.json.encode(event)
    kind = cast("Mapping[str, object]", event).get("type") if isinstance(event, Mapping) else None
    name = f"event: {kind}\n" if api != "chat" and kind else ""
    return name.encode() + b"data: " + data + b"\n\n"


def quirks() -> Sequence[Quirk]:
    """Return all known quirks, each with its source."""
    lines = importlib.resources.files("agentpool.testing").joinpath("quirks.jsonl").read_bytes()
    return _LINES.decode_lines(lines)


_LINES: Final = msgspec.json.Decoder(Quirk)


@final
@attrs.define(eq=False, repr=False)
class QuirkServer:
    """Serves quirks over HTTP. Opened by ``open_quirk_server``."""

    _port: int
    _quirks: Mapping[str, Quirk]
    _requests: list[HttpAsked]

    @property
    def requests(self) -> Sequence[HttpAsked]:
        """The requests received, oldest first."""
        return tuple(self._requests)

    def url(self, name: str) -> str:
        """Return the base URL that answers every request with the quirk *name*.

        Raises:
            UsageError: If there is no such quirk.
        """
        if name not in self._quirks:
            msg = f"there is no quirk {name!r}; look through quirks()"
            raise UsageError(msg)
        return f"http://127.0.0.1:{self._port}/{name}/v1"


@opening("server")
@contextlib.asynccontextmanager
async def open_quirk_server(
    known: Sequence[Quirk] | None = None, *, latency_seconds: float = 0.0
) -> AsyncGenerator[QuirkServer]:
    """Serve quirks on this machine until the end of the block.

    Args:
        known: What is served. ``None``: all that come with agentpool.
        latency_seconds: How long an answer takes to begin, in the median; drawn for each from
            ``dice("latency")``. Under ``simulate`` that is time of its clock.

    Cancellation:
        Every connection is closed.
    """
    expect_arguments(open_quirk_server, locals())
    if not latency_seconds >= 0.0:
        msg = f"latency_seconds must be >= 0, got {latency_seconds!r}"
        raise UsageError(msg)
    by_name = {quirk.name: quirk for quirk in (quirks() if known is None else known)}
    requests: list[HttpAsked] = []

    async def serve(asked: HttpAsked) -> HttpReply:
        requests.append(asked)
        await trio.sleep(latency(latency_seconds))
        quirk = by_name.get(asked.path.split("/")[1])
        if quirk is None:
            return json_reply(404, {"error": {"message": f"no quirk at {asked.path}"}})
        return quirk.reply()

    async with open_loopback_server(serve) as port:
        yield QuirkServer(port, by_name, requests)
