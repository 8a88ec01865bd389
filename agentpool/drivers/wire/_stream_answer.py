"""Builds an answer from the events of a stream: the code that all wires share.

Each wire interprets its own events. Rules for all wires:

1. An incomplete answer is an error. Text that ended before the model said why it stopped is never
   handed out as an answer.
2. An unknown ending is an error: half an answer must not pass for a whole one.
3. Thoughts are separate from text.
4. An event that is not a JSON object on one line may be several events, a comment or an error. An
   event that cannot be read strictly is read leniently; only if that fails is it an error.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar, cast

import attrs
import msgspec

from agentpool._errors import BadRequestError, NetworkError, ProtocolError
from agentpool._messages import Completion, FinishReason, ProviderPart, Usage
from agentpool.drivers.wire._failure import failure_in_body, failure_in_stream, shown
from agentpool.drivers.wire._finish_reasons import ENDINGS, NO_ENDING, bad_end
from agentpool.drivers.wire._lenient_json import loads, read_leniently
from agentpool.drivers.wire._open_json import is_json
from agentpool.drivers.wire._partial_answer import GrowingAnswer
from agentpool.drivers.wire._provider_parts import NOWHERE, Origin
from agentpool.drivers.wire._split_characters import Halves, without_bytes
from agentpool.drivers.wire._sse import SseEvent

T = TypeVar("T")


@attrs.define(eq=False, kw_only=True, repr=False)
class GrowingCompletion(ABC):
    """Builds an answer from the events of its stream. Each subclass implements one wire."""

    call_id_prefix: str = "call"
    """The beginning of new ids, for calls without one. It differs in every answer."""
    secret: str = ""
    """The secret to redact in every error."""
    origin: Origin = NOWHERE
    """The provider and model that answer."""
    no_event: str = "none"
    """Describes an event that cannot be understood, for errors."""
    _answer: GrowingAnswer = attrs.field(init=False)
    _halves: Halves = attrs.field(init=False, factory=Halves)
    thoughts: list[str] = attrs.field(init=False, factory=lambda: [])
    """The thoughts since ``take_thoughts`` was called."""
    _refusal: list[str] = attrs.field(init=False, factory=lambda: [])
    _finish: str | None = attrs.field(init=False, default=None)
    _model: str | None = attrs.field(init=False, default=None)
    _done: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        """Start with an empty answer."""
        self._answer = GrowingAnswer(self.call_id_prefix)

    @property
    def done(self) -> bool:
        """Whether the stream has announced its end."""
        return self._done

    @property
    def has_ended(self) -> bool:
        """Whether it is known how the answer ended."""
        return self._done or self._finish is not None

    def feed(self, event: SseEvent) -> list[str]:
        """Process the next event and return the pieces of text in it.

        Raises:
            DriverError: If the event is an error of the provider's.
            ProtocolError: If this wire does not know the event, or the answer becomes too long.
        """
        data = event.data.strip()
        # An empty event keeps a connection open.
        if self._done or not data:
            return []
        if data[0] != "{" or "\n" in data:
            return self._feed_odd(event, without_bytes(data))
        # Looked at more closely only where a half may be: this is done for each word of an answer.
        if ("\\u" in data or self._halves.half or not data.isascii()) and self._halves.concern(
            data
        ):
            return [text for one in self._halves.mend(data) for text in self._feed_one(event, one)]
        texts = self._take(event, data)
        if texts:
            self._answer.add_texts(texts)
        return texts

    def _feed_one(self, event: SseEvent, data: str) -> list[str]:
        texts = self._take(event, data)
        if texts:
            self._answer.add_texts(texts)
        return texts

    def _feed_odd(self, event: SseEvent, data: str) -> list[str]:
        """Process an event whose data is not one JSON object on one line."""
        if data.startswith("data:"):  # written twice, and not any number of times
            inner = data.removeprefix("data:").lstrip()
            if not inner.startswith("data:"):
                return self.feed(SseEvent(inner, event.event))
        # A comment in the place of data, and what some servers send while they think.
        if data.startswith(":") or data == "null":
            return []
        if data.strip('[]" ').lower() == "done":
            texts = [text for one in self._halves.end() for text in self._feed_one(event, one)]
            self._done = True
            return texts
        if (failure := failure_in_body(data.encode(), secret=self.secret)) is not None:
            raise failure
        if event.event == "error" and not is_json(data):
            raise failure_in_stream(data, secret=self.secret)
        several = self._several_in(data)
        return [text for one in several for text in self.feed(SseEvent(one, event.event))]

    def _several_in(self, data: str) -> list[str]:
        """Split an event that holds several: a list, or events with no empty line between."""
        if data.startswith("["):
            with contextlib.suppress(msgspec.DecodeError, RecursionError):
                found = cast("list[object]", loads(data))
                # A list within has no events, and would be written anew at each depth.
                if not any(isinstance(one, list) for one in found):
                    return [json.dumps(one) for one in found]
        elif data.startswith("{") and is_json(data):
            return [" ".join(data.split("\n"))]
        lines = [line for line in data.split("\n") if line.strip()]
        if len(lines) > 1 and not is_json(data):
            return lines
        came = shown(data, secret=self.secret)
        msg = f"an event of the stream is {self.no_event} (not a JSON object): {came!r}"
        raise ProtocolError(msg)

    def take_thoughts(self) -> Sequence[str]:
        """Return the thoughts since the last call."""
        thoughts, self.thoughts = self.thoughts, []
        return thoughts

    def finish(self) -> Completion:
        """Return the answer, after the last event.

        Raises:
            NetworkError: If the stream stopped in the middle of the answer.
            BadRequestError: If the provider or the model withheld the answer.
            OverloadedError: If the provider broke off.
            FailedAttemptError: If the model failed to write a call.
            ProtocolError: If the answer contradicts itself, or its ending is unknown.
        """
        self._settle()
        reason = self._reason()
        was_cut = reason.is_cut
        tool_calls = self._answer.tool_calls(was_cut=was_cut)
        if tool_calls and reason is FinishReason.END_TURN:
            reason = FinishReason.TOOL_USE
        if reason is FinishReason.TOOL_USE and not tool_calls:
            msg = f"the answer ended with {self._finish!r}, but has no tool call"
            raise ProtocolError(msg)
        return Completion(
            self._answer.text,
            tool_calls,
            reason,
            self._measured(),
            self._model,
            self._cost_usd(),
            self._parts(),
        )

    @abstractmethod
    def _take(self, event: SseEvent, data: str) -> list[str]:
        """Process an event with data and return the text in it."""

    @abstractmethod
    def _usage(self) -> Usage | None:
        """Return the tokens used. ``None``: the provider did not say."""

    def used(self) -> Completion | None:
        """Return the usage of an answer that became an error. ``None``: nothing had come."""
        usage = self._measured() if self.has_ended else None
        if usage is None and not self._answer.size:
            return None
        return Completion("", usage=usage, model=self._model, cost_usd=self._cost_usd())

    def _measured(self) -> Usage | None:
        """Return the tokens used. ``None``: unknown, as when the count for a text is zero."""
        usage = self._usage()
        is_impossible = usage is not None and not usage.output_tokens and self._answer.size
        return None if is_impossible else usage

    def _settle(self) -> None:  # noqa: B027  # most wires have nothing to settle
        """Process events that had to wait for the end of the stream."""

    def _parts(self) -> tuple[ProviderPart, ...]:
        """Return the parts that the provider wants back."""
        return tuple(self._answer.parts)

    def _cost_usd(self) -> float | None:
        """Return the cost in US dollars. ``None``: the provider did not say."""
        return None

    def _read(self, data: str, decoder: msgspec.json.Decoder[T]) -> T:
        """Parse *data*.

        Raises:
            DriverError: If *data* is an error of the provider's.
            ProtocolError: If *data* cannot be understood.
        """
        try:
            return decoder.decode(data)
        except (msgspec.DecodeError, RecursionError) as exc:  # a ValidationError is one
            what = shown(str(exc), secret=self.secret)
        if (failure := failure_in_body(data.encode(), secret=self.secret)) is not None:
            raise failure
        try:
            return read_leniently(data, decoder)
        except (msgspec.DecodeError, RecursionError):
            came = shown(data, secret=self.secret)
            msg = f"an event of the stream is {self.no_event} ({what}): {came!r}"
            raise ProtocolError(msg) from None  # the cause would show what came in full

    def _end(self, word: str) -> None:
        """Record why the model stopped."""
        word = word.strip()
        if word.lower() not in NO_ENDING:
            self._finish = word

    def _think(self, text: str) -> None:
        """Append a piece of the model's thoughts."""
        self._answer.grow(len(text))
        self.thoughts.append(text)

    def _refuse(self, text: str) -> None:
        """Append a piece of the model's refusal."""
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
                msg = f"the answer ended without a reason, after {self._answer.so_far}; ask again"
                raise ProtocolError(msg, retryable=True)
            so_far = self._answer.so_far
            msg = f"the stream stopped in the middle of the answer, after {so_far}; ask again"
            raise NetworkError(msg)
        ending = ENDINGS.get(self._finish.lower())
        if isinstance(ending, FinishReason):
            return ending
        raise bad_end(ending, shown(self._finish, secret=self.secret), self._answer.so_far)
