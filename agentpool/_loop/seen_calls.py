"""Detects repeated tool calls of a run, and whether their results have changed.

The guard's rules 5 to 7 say when two calls are the same, and when repeating them is a loop. Nothing
in here looks back further than four answers.
"""

from __future__ import annotations

import hashlib
from typing import Final, final

import msgspec

from agentpool._base import Live
from agentpool._messages import ToolCall, ToolMessage

_DECODER: Final = msgspec.json.Decoder()
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


@final
class SeenCall(Live, gc=False):
    """One distinct call of a run. Equal calls share one object."""

    count: int = 0
    """How often it was asked for since its result last changed."""
    result: str | None = None
    """The last result, in the form of `told_by`. ``None``: there is none yet."""
    waits: bool = False
    """Whether the call waits for others and did not fail last time. Such a call does not count as
    repeated."""
    failed: bool = False
    """Whether it failed last time."""


@final
class Batch(msgspec.Struct, eq=False, gc=False):
    """The calls of one answer."""

    calls: tuple[SeenCall, ...]
    waits: bool = False
    """Whether one of the calls waits for others. Such a batch does not count as repeated."""
    results: tuple[str | None, ...] | None = None
    """The results. ``None``: there are none yet."""


NO_BATCH: Final = Batch((), waits=True)
"""A batch of no calls, which never counts as a repetition."""


@final
class SeenCalls:
    """All distinct calls of one run."""

    # No struct: each answer writes three of its fields, and to write one takes ten times as long.
    __slots__ = ("_by_meaning", "_by_text", "alternating_in_row", "batches", "same_in_row")

    def __init__(self) -> None:
        self._by_text: dict[tuple[str, str], SeenCall] = {}
        self._by_meaning: dict[tuple[str, bytes], SeenCall] = {}
        # The last ones, the newest first.
        self.batches: tuple[Batch, Batch, Batch, Batch] = (NO_BATCH, NO_BATCH, NO_BATCH, NO_BATCH)
        self.same_in_row = 0
        self.alternating_in_row = 0

    def find(self, name: str, arguments: str) -> SeenCall:
        """Return the entry of a call."""
        return self._by_text.get((name, arguments)) or self._read(name, arguments)

    def find_call(self, call: ToolCall) -> SeenCall:
        """Return the entry of *call*."""
        name, arguments = key = call.name, call.arguments
        return self._by_text.get(key) or self._read(name, arguments)

    def _read(self, name: str, arguments: str) -> SeenCall:
        """Return the entry of a call with new wording; make one if the call is new."""
        try:
            meaning = _ENCODER.encode(_DECODER.decode(arguments))
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            # No JSON, so it means nothing but its own text.
            seen = SeenCall()
        else:
            seen = self._by_meaning.setdefault((name, meaning), SeenCall())
        self._by_text[name, arguments] = seen
        return seen

    def note_batch(self, batch: Batch) -> None:
        """Count how often the newest batch has occurred, in a row or alternating.

        Only batches with the same results count: a result that changes starts the count again.
        """
        last, before, third, fourth = self.batches
        # One that waits for others repeats nothing, and nothing repeats it.
        calls = None if batch.waits else batch.calls
        if calls == last.calls and not last.waits:
            goes_on = self.same_in_row == 1 or last.results == before.results
            self.same_in_row = self.same_in_row + 1 if goes_on else 2
            self.alternating_in_row = 1
        elif calls == before.calls and not before.waits:
            goes_on = (
                self.alternating_in_row < len(self.batches) or before.results == fourth.results
            )
            self.alternating_in_row = self.alternating_in_row + 1 if goes_on else 3
            self.same_in_row = 1
        else:
            self.same_in_row, self.alternating_in_row = 1, 2
        self.batches = (batch, last, before, third)


def told_by(result: ToolMessage) -> str:
    """Return *result* as a text for comparing results. Attachments are digests in it."""
    digests = (hashlib.sha256(one.data).hexdigest() for one in result.attachments)
    return "\n".join((result.content, *digests))
