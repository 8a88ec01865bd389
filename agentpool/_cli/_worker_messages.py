"""Messages between a command with ``--workers`` and its workers: one line of JSON each.

Outcomes are in the journal, not in the messages. A message only says that the journal has an
outcome.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import PurePath
from typing import Final, TypeAlias, final

import attrs
import msgspec
import trio
from trio.abc import ReceiveStream, SendStream

from agentpool.live import BoardView

SAY_SECONDS: Final = 5.0
"""The time to write one line into the pipe, which the command reads all the time."""

RECEIVE_BYTES: Final = 65536
"""The most bytes to read from a pipe in one call, which is as much as Linux stores in a pipe."""


@final
class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """The text of an item in the journal, which is the question for the worker's agent."""

    path: str = ""
    """The file that is its input. Empty: no file is its input."""
    folder: str = ""
    """The folder in which the path begins."""
    query: str = ""
    """The query for the editor, which gets all answers."""

    @property
    def file(self) -> str:
        """The path of the input from the current folder, or as it was typed if it began there."""
        return self.path if self.folder == os.getcwd() else os.path.join(self.folder, self.path)  # noqa: PTH109, PTH118  # a path that nobody takes apart


@final
class Order(msgspec.Struct, frozen=True):
    """The first line to a worker: its share and its settings."""

    words: tuple[str, ...]
    """The command line."""
    journal: str
    """The file."""
    work: str
    """The name of the shared work."""
    share: str
    """The name of its share."""
    max_concurrent: int
    """Agents that it runs at the same time."""
    lease_seconds: float
    """How many seconds it may be silent."""
    requests_per_minute: int | None
    """Its part of the limit for requests. ``None``: no limit."""
    tokens_per_minute: int | None
    """The same."""
    whole_paths: frozenset[str] = frozenset()
    """The inputs that are called by their paths, since the names of their files are not unique."""

    def name_of(self, agent: str, path: str) -> str:
        """Return what the agent named *agent* is called for the input *path*. Empty: no input."""
        name = path if path in self.whole_paths else PurePath(path).name
        return f"{agent} {name or path}".rstrip()


@final
class Stop(msgspec.Struct, frozen=True, tag=True):
    """To a worker: end the agents and report their partial results."""

    reason: str


@final
class End(msgspec.Struct, frozen=True, tag=True):
    """To a worker: no work is left."""


@final
class Ready(msgspec.Struct, frozen=True, tag=True):
    """From a worker: its pool is open, and it owns its share."""


@final
class Seen(msgspec.Struct, frozen=True, tag=True):
    """From a worker: the state of its agents."""

    view: BoardView
    lines: list[tuple[str, bool]]
    """The events, and whether each is notable."""
    is_idle: bool
    """Whether it has nothing to do."""
    unmeasured: int = 0
    """Requests of unknown usage."""
    unpriced: int = 0
    """Requests without a price."""
    refused: int = 0
    """How many requests the budget did not allow."""
    deadlocks: int = 0
    """How often an agent got a deadlock error."""


@final
class Warned(msgspec.Struct, frozen=True, tag=True):
    """From a worker: a warning about the whole command."""

    text: str


@final
class Ended(msgspec.Struct, frozen=True, tag=True):
    """From a worker: an item has its outcome in the journal."""


@final
class Cut(msgspec.Struct, frozen=True, tag=True):
    """From a worker: the partial result of an interrupted item, which stays open in the journal."""

    key: str
    outcome: str


@final
class Broke(msgspec.Struct, frozen=True, tag=True):
    """From a worker: the worker cannot go on."""

    why: str
    """``lost``: another worker took over its share. ``busy``: another worker had it first.
    ``wrong``: no other worker could go on either."""
    text: str


FromWorker: TypeAlias = Ready | Seen | Warned | Ended | Cut | Broke
ToWorker: TypeAlias = Stop | End


def share_of(total: int, parts: int, number: int) -> int:
    """Return the size of one of *parts* nearly equal parts of *total*.

    >>> [share_of(8, 3, number) for number in range(3)]
    [3, 3, 2]
    """
    return total // parts + (number < total % parts)


def encode(message: object) -> bytes:
    """Return *message* as a line."""
    return msgspec.json.encode(message) + b"\n"


@final
@attrs.define(eq=False)
class LineReader:
    """Reads lines from a pipe."""

    _stream: ReceiveStream
    _rest: bytes = b""

    async def next_line(self) -> bytes | None:
        """Return the next complete line. ``None``: the other end is closed.

        Cancellation:
            No received line is lost.
        """
        await trio.lowlevel.checkpoint()
        while b"\n" not in self._rest:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


@final
@attrs.define(eq=False)
class Mouth:
    """Sends lines to the command."""

    _stream: SendStream
    _turn: trio.Lock = attrs.field(factory=trio.Lock)

    async def say(self, message: FromWorker) -> None:
        """Send *message*, unless the command has ended."""
        # Half a line would be read together with the next one.
        with trio.move_on_after(SAY_SECONDS, shield=True):
            async with self._turn:
                with contextlib.suppress(trio.BrokenResourceError):
                    await self._stream.send_all(encode(message))
