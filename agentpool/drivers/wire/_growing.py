"""An answer that arrives in pieces: its text, its tool calls, and how large it may become.

What all wires share. Each says by itself how an answer ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import attrs

from agentpool._errors import ProtocolError
from agentpool._messages import ToolCall

# No provider allows as many calls in one answer; a larger index is a broken stream.
MAX_TOOL_CALLS: Final = 128

# The longest answers on offer (128,000 tokens) are around 0.5 MiB.
MAX_ANSWER_CHARS: Final = 16 << 20


@final
@attrs.define(eq=False, repr=False)
class _GrowingCall:
    call_id: str = ""
    name: str = ""
    pieces: list[str] = attrs.field(factory=list[str])


@final
@attrs.define(eq=False, repr=False)
class GrowingAnswer:
    """What has arrived of one answer."""

    call_id_prefix: str
    """What the ids of calls without one begin with; unlike in every other answer."""
    _texts: list[str] = attrs.field(init=False, factory=list[str])
    _calls: dict[int, _GrowingCall] = attrs.field(init=False, factory=dict[int, _GrowingCall])
    _size: int = attrs.field(init=False, default=0)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    @property
    def so_far(self) -> str:
        """How much there is, for an error."""
        return f"{sum(map(len, self._texts))} characters and {len(self._calls)} tool calls"

    @property
    def last_index(self) -> int:
        """The highest index of a call. -1: there is none."""
        return max(self._calls, default=-1)

    def add_texts(self, texts: Sequence[str]) -> None:
        """Take pieces of text.

        Raises:
            ProtocolError: If the answer becomes too long.
        """
        self._grow(sum(map(len, texts)))
        self._texts += texts

    def add_call(
        self, index: int, *, call_id: str = "", name: str = "", arguments: str = ""
    ) -> None:
        """Take a piece of the call at *index*. What is empty changes nothing.

        Raises:
            ProtocolError: If no answer has so many calls, for which nothing is allocated,
                or if it becomes too long.
        """
        if index not in range(MAX_TOOL_CALLS):
            msg = f"tool call index {index} is not in 0..{MAX_TOOL_CALLS - 1}"
            raise ProtocolError(msg)
        growing = self._calls.setdefault(index, _GrowingCall())
        growing.call_id = growing.call_id or call_id
        # Some servers repeat the name with every piece.
        if name != growing.name:
            growing.name += name
        if arguments:
            growing.pieces.append(arguments)
        self._grow(len(name) + len(arguments))

    def tool_calls(self, *, was_cut: bool) -> tuple[ToolCall, ...]:
        """Return the calls in the order of their indices.

        Args:
            was_cut: Whether the answer ran into ``max_tokens``. Missing arguments are then
                lost; otherwise they mean that the tool has no parameters.

        Raises:
            ProtocolError: If a call has no name.
        """
        calls: list[ToolCall] = []
        for index, growing in sorted(self._calls.items()):
            if not growing.name:
                msg = f"tool call {index} of the answer has no name"
                raise ProtocolError(msg)
            call_id = growing.call_id or f"{self.call_id_prefix}-{index}"
            arguments = "".join(growing.pieces)
            if not arguments and not was_cut:
                arguments = "{}"
            calls.append(ToolCall(call_id, growing.name, arguments))
        return tuple(calls)

    def _grow(self, chars: int) -> None:
        self._size += chars
        if self._size > MAX_ANSWER_CHARS:
            msg = f"the answer is longer than {MAX_ANSWER_CHARS} characters"
            raise ProtocolError(msg)
