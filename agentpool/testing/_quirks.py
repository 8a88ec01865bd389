"""Odd answers that real servers have sent, for testing any client.

Each line of ``quirks.jsonl`` is one quirk: where it was seen, what the server answers, and how a
good client reads the answer. The answers are served over real HTTP on this machine.
"""

from __future__ import annotations

import contextlib
import importlib.resources
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final, cast, final

import attrs
import msgspec
import trio

from agentpool._base import Shown
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
    """How a good client reads a quirk."""

    text: str = ""
    """The text of the answer."""
    thoughts: str = ""
    """The model's thoughts, which are not part of the text."""
    tool_calls: tuple[tuple[str | None, str, str], ...] = ()
    """Id, name and arguments of each call, in order. The arguments are JSON text. If an id is
    ``None``, the client makes one."""
    finish: str = "END_TURN"
    """Why the model stopped: ``END_TURN``, ``TOOL_USE``, ``MAX_TOKENS``, ``STOP_SEQUENCE`` or
    ``WINDOW_FULL``. The members of ``FinishReason`` say what each means."""
    usage: tuple[int, ...] | None = None
    """Tokens, in the order of ``Usage``: input, output, cached input, thoughts within the output,
    input written to the cache, and the part of the latter that is kept for an hour. Numbers that
    are missing at the end are 0. ``None``: the usage is unknown, which is not zero."""
    cost_usd: float | None = None
    """The cost in US dollars that the server reports. ``None``: the server reports no cost."""
    error: str | None = None
    """The class of agentpool's error that a client raises instead of returning an answer. Other
    clients have other names for it. ``None``: the client returns an answer."""
    retryable: bool = False
    """Whether asking again makes sense."""
    wait_seconds: float | None = None
    """How long the server asks the client to wait. ``None``: the server does not say."""
    says: str = ""
    """Words that the error's text contains."""


@final
class Quirk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One odd answer of a real server."""

    name: str
    """Its unique name."""
    api: str = "chat"
    """The interface: ``chat``, ``messages`` or ``responses``."""
    seen: str
    """Where it was seen (an issue, a pull request or a page), and when that source was read.
    ``like`` marks a variant that was tried together with another quirk."""
    status: int = 200
    """The HTTP status of the answer."""
    headers: Mapping[str, str] = {}
    """The headers of the answer, besides its content type."""
    body: object = None
    """The body if the answer is not a stream. ``None``: the answer is a stream."""
    events: tuple[object, ...] = ()
    """The data of each event: either JSON or a text that is sent unchanged."""
    raw: str = ""
    """Text that is sent unchanged after the events."""
    back: object = None
    """The keys and items that the message of this answer must have in the next request. With
    ``responses``, the items after the first. ``None``: no rule."""
    result: QuirkResult
    """How a good client reads the answer."""

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
class QuirkServer(Shown):
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
        expect_arguments(QuirkServer.url, locals())
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
        known: The quirks to serve. ``None``: all that come with agentpool.
        latency_seconds: The median time until an answer begins. Each answer draws its own time from
            ``dice("latency")``. Under ``simulate``, this time passes on the simulation's clock.

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
