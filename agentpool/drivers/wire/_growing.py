"""An answer that arrives in pieces: its text, its tool calls, and how large it may become.

What all wires share. Each says by itself what an event means, and how an answer ends:

1. An answer is whole or it is an error. Text that ended before the model said why it
   stopped is never handed out as an answer.
2. An ending that nobody knows is an error: half an answer must not pass for a whole one.
3. Thoughts are told apart from text, and are no part of it.
4. Pieces of calls come in many forms; two calls that share an index, or have none, are
   told apart by their ids and names, and by arguments that are whole.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final, assert_never, final

import attrs
import msgspec

from agentpool._errors import (
    BadRequestError,
    DriverError,
    FailedAttemptError,
    NetworkError,
    OverloadedError,
    ProtocolError,
)
from agentpool._messages import Completion, FinishReason, ProviderPart, ToolCall, Usage
from agentpool.drivers.wire._failure import shown
from agentpool.drivers.wire._parts import NOWHERE, Origin
from agentpool.drivers.wire._sse import SseEvent

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

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are a value by themselves."""
        return _is_json("".join(self.pieces))


@final
@attrs.define(eq=False, repr=False)
class GrowingAnswer:
    """What has arrived of one answer."""

    call_id_prefix: str
    """What the ids of calls without one begin with; unlike in every other answer."""
    parts: list[ProviderPart] = attrs.field(init=False, factory=list[ProviderPart])
    """What its provider wants back."""
    _texts: list[str] = attrs.field(init=False, factory=list[str])
    _calls: list[_GrowingCall] = attrs.field(init=False, factory=list[_GrowingCall])
    _places: dict[int, int] = attrs.field(init=False, factory=dict[int, int])
    """Of each index that a server uses, the place of its newest call."""
    _chars: int = attrs.field(init=False, default=0)
    _size: int = attrs.field(init=False, default=0)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    @property
    def chars(self) -> int:
        """How long the text is."""
        return self._chars

    @property
    def call_count(self) -> int:
        """How many calls there are."""
        return len(self._calls)

    @property
    def so_far(self) -> str:
        """How much there is, for an error."""
        return f"{self._chars} characters and {len(self._calls)} tool calls"

    @property
    def has_whole_calls(self) -> bool:
        """Whether there are calls, and all of them are whole."""
        return bool(self._calls) and all(call.name and call.is_whole for call in self._calls)

    def add_texts(self, texts: Sequence[str]) -> None:
        """Take pieces of text.

        Raises:
            ProtocolError: If the answer becomes too long.
        """
        chars = sum(map(len, texts))
        self._chars += chars
        self.grow(chars)
        self._texts += texts

    def add_call(
        self, index: int | None, *, call_id: str = "", name: str = "", arguments: str = ""
    ) -> int:
        """Take a piece of a call and return the call's place. What is empty changes nothing.

        Args:
            index: The server's number of the call. ``None``: it names none.
            call_id: The call's id, which may come again with each piece.
            name: The tool's name, or a piece of it.
            arguments: A piece of the arguments.

        Raises:
            ProtocolError: If no answer has so many calls, for which nothing is allocated,
                or if it becomes too long.
        """
        if index is not None and index not in range(MAX_TOOL_CALLS):
            msg = f"tool call index {index} is not in 0..{MAX_TOOL_CALLS - 1}"
            raise ProtocolError(msg)
        place = self._place_of(index, call_id, name, arguments)
        if place == len(self._calls):
            self._calls.append(_GrowingCall())
        if index is not None:
            self._places[index] = place
        growing = self._calls[place]
        growing.call_id = growing.call_id or call_id
        # Some servers repeat the name with every piece.
        if name != growing.name:
            growing.name += name
        if arguments:
            if growing.pieces == ["{}"] and arguments.lstrip().startswith("{"):
                growing.pieces.clear()  # "nothing yet" in the words of some gateways
            growing.pieces.append(arguments)
        self.grow(len(name) + len(arguments))
        return place

    def tool_calls(self, *, was_cut: bool) -> tuple[ToolCall, ...]:
        """Return the calls in the order in which they began.

        Args:
            was_cut: Whether the answer ran into ``max_tokens``. Missing arguments are then
                lost; otherwise they mean that the tool has no parameters.

        Raises:
            ProtocolError: If a call has no name.
        """
        calls: list[ToolCall] = []
        for index, growing in enumerate(self._calls):
            if not growing.name:
                msg = f"tool call {index} of the answer has no name"
                raise ProtocolError(msg)
            call_id = growing.call_id or f"{self.call_id_prefix}-{index}"
            arguments = "".join(growing.pieces)
            # "null" is how some models say that a tool has no parameters.
            if (not arguments and not was_cut) or arguments.strip() == "null":
                arguments = "{}"
            calls.append(ToolCall(call_id, growing.name, arguments))
        return tuple(calls)

    def grow(self, chars: int) -> None:
        """Count what has arrived.

        Raises:
            ProtocolError: If the answer becomes too long.
        """
        self._size += chars
        if self._size > MAX_ANSWER_CHARS:
            msg = f"the answer is longer than {MAX_ANSWER_CHARS} characters"
            raise ProtocolError(msg)

    def _place_of(self, index: int | None, call_id: str, name: str, arguments: str) -> int:
        """Return to which call a piece belongs; the number of calls: it begins one."""
        new = len(self._calls)
        if index is not None:
            place = self._places.get(index, new)
        elif call_id:
            # By its id: some servers repeat it with each piece, others only begin with it.
            known = (i for i, call in enumerate(self._calls) if call.call_id == call_id)
            return next(known, new)
        else:
            place = max(new - 1, 0)
        if place == new or not name:
            return place
        call = self._calls[place]
        # A name begins another call where the id is another one, or where the call before
        # has all that it needs. Without either, the server repeats itself.
        if call_id and call.call_id:
            return new if call_id != call.call_id else place
        is_other = bool(arguments) and call.is_whole
        if index is None:
            is_other = is_other or name != call.name
        return new if is_other else place


class Ending(enum.Enum):
    """What an ending means that is none of a whole answer."""

    WITHHELD = "withheld"
    """The provider kept the rest back."""
    BROKEN = "broken"
    """The provider failed."""
    FAILED = "failed"
    """The model failed to write what it wanted to."""
    PAUSED = "paused"
    """The provider waits to be asked to go on, with tools of its own."""


@attrs.define(eq=False, kw_only=True, repr=False)
class GrowingCompletion(ABC):
    """Puts an answer together from the events of its stream. A subclass knows the wire."""

    call_id_prefix: str = "call"
    """What the ids of calls without one begin with; unlike in every other answer."""
    secret: str = ""
    """Redacted in every error."""
    origin: Origin = NOWHERE
    """Where the answer comes from."""
    _answer: GrowingAnswer = attrs.field(init=False)
    _thoughts: list[str] = attrs.field(init=False, factory=list[str])
    _refusal: list[str] = attrs.field(init=False, factory=list[str])
    _finish: str | None = attrs.field(init=False, default=None)
    _model: str | None = attrs.field(init=False, default=None)
    _done: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing."""
        self._answer = GrowingAnswer(self.call_id_prefix)

    @property
    def done(self) -> bool:
        """Whether the stream has said that nothing more comes."""
        return self._done

    def feed(self, event: SseEvent) -> list[str]:
        """Take the next event and return the pieces of text in it.

        Raises:
            DriverError: If the event is an error of the provider's.
            ProtocolError: If it is nothing that this wire knows, or too much.
        """
        data = event.data.strip()
        # An empty event keeps a connection open; a comment in the place of data as well.
        if self._done or not data or data.startswith(":"):
            return []
        texts = self._take(event, data)
        if texts:
            self._answer.add_texts(texts)
        return texts

    def take_thoughts(self) -> Sequence[str]:
        """Return what the model thought since the last call."""
        if not self._thoughts:
            return ()
        thoughts, self._thoughts = self._thoughts, []
        return thoughts

    def finish(self) -> Completion:
        """Return the answer, after the last event.

        Raises:
            NetworkError: If the stream stopped in the middle of the answer.
            BadRequestError: If the provider or the model withheld the answer.
            OverloadedError: If the provider broke off.
            FailedAttemptError: If the model failed to write a call.
            ProtocolError: If the answer contradicts itself, or ends in no known way.
        """
        self._settle()
        reason = self._reason()
        was_cut = reason is FinishReason.MAX_TOKENS
        tool_calls = self._answer.tool_calls(was_cut=was_cut)
        if tool_calls and reason is FinishReason.END_TURN:
            reason = FinishReason.TOOL_USE
        if reason is FinishReason.TOOL_USE and not tool_calls:
            msg = f"the answer ended with {self._finish!r} and has no tool call"
            raise ProtocolError(msg)
        return Completion(
            self._answer.text,
            tool_calls,
            reason,
            self._usage(),
            self._model,
            self._cost_usd(),
            self._parts(),
        )

    @abstractmethod
    def _take(self, event: SseEvent, data: str) -> list[str]:
        """Take an event whose data is not empty; return the text in it."""

    @abstractmethod
    def _endings(self) -> Mapping[str, FinishReason | Ending]:
        """Return what the words of this wire mean."""

    @abstractmethod
    def _usage(self) -> Usage | None:
        """Return the tokens that were spent. ``None``: the provider did not say."""

    def _settle(self) -> None:  # noqa: B027  # most wires have nothing to settle
        """Take what could not be taken before the stream was over."""

    def _parts(self) -> tuple[ProviderPart, ...]:
        """Return what the provider wants back."""
        return tuple(self._answer.parts)

    def _cost_usd(self) -> float | None:
        """Return the price in US dollars. ``None``: the provider did not say."""
        return None

    def _think(self, text: str) -> None:
        """Take a piece of what the model thinks."""
        self._answer.grow(len(text))
        self._thoughts.append(text)

    def _refuse(self, text: str) -> None:
        """Take a piece of the model's reason for not answering."""
        self._answer.grow(len(text))
        self._refusal.append(text)

    def _reason(self) -> FinishReason:
        if self._refusal:
            said = shown("".join(self._refusal), secret=self.secret)
            msg = f"the model refused to answer: {said!r}; change the request"
            raise BadRequestError(msg)
        if self._finish is None:
            if self._done and self._answer.has_whole_calls:
                # Nothing is missing of them, and asking again would cost as much.
                return FinishReason.TOOL_USE
            if self._done:
                msg = f"the answer ended without a reason, after {self._answer.so_far}"
                raise ProtocolError(msg, retryable=True)
            msg = f"the stream stopped in the middle of the answer, after {self._answer.so_far}"
            raise NetworkError(msg)
        reason = self._endings().get(self._finish)
        if isinstance(reason, FinishReason):
            return reason
        raise self._bad_end(reason, shown(self._finish, secret=self.secret))

    def _bad_end(self, ending: Ending | None, word: str) -> DriverError:
        so_far = f"after {self._answer.so_far}"
        match ending:
            case Ending.WITHHELD:
                msg = f"the provider's filter withheld the answer ({word}); change the request"
                return BadRequestError(msg)
            case Ending.BROKEN:
                return OverloadedError(f"the provider broke off its answer ({word}), {so_far}")
            case Ending.FAILED:
                msg = f"the model failed to write a tool call ({word}), {so_far}"
                return FailedAttemptError(msg)
            case Ending.PAUSED:
                msg = f"the provider paused its answer ({word}), {so_far}; use no tools of its own"
                return ProtocolError(msg)
            case None:
                msg = f"the answer ended with {word!r}, which is no known ending, {so_far}"
                return ProtocolError(msg)
            case _:
                assert_never(ending)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
    return True
