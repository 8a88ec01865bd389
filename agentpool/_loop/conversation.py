"""The conversation of one run, and what of it fits the model's window.

Rules:

1. The conversation only grows. What was said is never changed, moved or shortened;
   ``fit`` decides what of it is sent.
2. It has three parts: the history, the pinned messages (recalled data and the current
   query) and what follows them. The pinned messages are always sent.
3. History and what follows are cut into groups, which are sent whole or not at all.
   What follows: a group begins at each answer of the model, and holds the results of its
   calls and the messages that came in after it. What came in before the first answer is a
   group of its own.
   History: a group begins at what was told after a finished answer, and ends with the
   answer that finishes it. So a call is never parted from its result, and what is sent
   never begins with an answer.
4. The oldest groups go first and none is skipped, first of the history, then of what
   follows. A group that was left out once stays out: the window does not grow.
5. The newest group is always sent: without it the model would repeat its last turn. If it
   does not fit beside the pinned messages, that is an error and not a shorter request.

Sizes are estimates on the high side, as said at `estimate_tokens`. Each message is measured
once and each group dropped once, so a turn costs the same however long the conversation is.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final, assert_never, cast, final, overload

import msgspec

from agentpool._base import Live
from agentpool._errors import ContextOverflowError
from agentpool._messages import (
    AnswerForm,
    AssistantMessage,
    ChatMessage,
    CompletionRequest,
    Json,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    answer_tokens,
    estimate_tokens,
)

MESSAGE_TOKENS: Final = 4
"""What a message costs besides its text: the marks of its role and its end."""

CONTINUATION_MASK: Final = 0b1100_0000
CONTINUATION_BYTE: Final = 0b1000_0000
"""Every byte of a UTF-8 character but its first begins with these two bits: RFC 3629."""

NOTHING: Final = range(0)
"""The part of a conversation that has no messages."""


@final
class MessageView(Sequence[ChatMessage]):  # noqa: PLW1641  # equal to lists: no hash
    """A part of a conversation as it was when the view was made.

    It shares the conversation's list and copies nothing. The list only grows, so the view
    stays as it is. Equal to any sequence of the same messages; pickled as a tuple.
    """

    __slots__ = ("_first", "_items", "_second")

    def __init__(self, items: list[ChatMessage], first: range, second: range) -> None:
        self._items = items
        self._first = first
        self._second = second

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """What it shows of the conversation: from, and up to but not including."""
        parts = (self._first, self._second)
        return tuple((part.start, part.stop) for part in parts if part)

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @overload
    def __getitem__(self, index: int) -> ChatMessage: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ChatMessage, ...]: ...
    def __getitem__(self, index: int | slice) -> ChatMessage | tuple[ChatMessage, ...]:
        if isinstance(index, slice):
            return tuple(self[at] for at in range(*index.indices(len(self))))
        if index < 0:
            index += len(self)
        if index < 0:
            raise IndexError("message index out of range")
        if index < len(self._first):
            return self._items[self._first[index]]
        return self._items[self._second[index - len(self._first)]]

    def __iter__(self) -> Iterator[ChatMessage]:
        if self._first.start == 0 and not self._second:
            # The usual case: twice as fast as the other one.
            return islice(self._items, self._first.stop)
        return map(self._items.__getitem__, chain(self._first, self._second))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MessageView | list | tuple):
            return NotImplemented
        others = cast("Sequence[object]", other)
        return len(self) == len(others) and all(map(operator.eq, self, others))

    def __repr__(self) -> str:
        return f"MessageView({list(self)!r})"

    def __reduce__(self) -> tuple[type[tuple[ChatMessage, ...]], tuple[tuple[ChatMessage, ...]]]:
        return tuple, (tuple(self),)


@final
class _Window(Live):
    """What of a conversation fits a window that somebody knows."""

    room_tokens: int
    pinned_tokens: int
    kept_tokens: int
    """What is sent now."""
    starts: list[int] = []  # noqa: RUF012  # each has its own
    """Where each group begins."""
    costs: list[int] = []  # noqa: RUF012  # each has its own
    """What each group takes."""
    history_groups: int = 0
    """So many of the groups are of the history. They come first."""
    kept: int = 0
    """Groups before this one are left out."""

    @property
    def has_answers(self) -> bool:
        """Whether any group follows the pinned messages."""
        return len(self.costs) > self.history_groups

    def take_history(self, history: Sequence[ChatMessage]) -> None:
        """Measure what was said in earlier runs."""
        before: ChatMessage | None = None
        for index, message in enumerate(history):
            self.count(message, index, begins=_begins_group(before, message))
            before = message
        self.history_groups = len(self.starts)

    def append(self, message: ChatMessage, index: int) -> None:
        """Measure what was said next."""
        begins = not self.has_answers or isinstance(message, AssistantMessage)
        self.count(message, index, begins=begins)

    def count(self, message: ChatMessage, index: int, *, begins: bool) -> None:
        """Add a message to the newest group, or begin one with it."""
        tokens = message_tokens(message)
        self.kept_tokens += tokens
        if begins:
            self.starts.append(index)
            self.costs.append(tokens)
        else:
            self.costs[-1] += tokens

    def drop(self, pending_tokens: int) -> None:
        """Leave out the oldest groups until the others fit.

        Args:
            pending_tokens: What is sent behind the conversation.

        Raises:
            ContextOverflowError: If the pinned messages and the newest group do not fit.
        """
        room = self.room_tokens - pending_tokens
        # The newest group stays; the history has none that must.
        last = max(len(self.costs) - 1, self.history_groups)
        while self.kept_tokens > room and self.kept < last:
            self.kept_tokens -= self.costs[self.kept]
            self.kept += 1
        if self.kept_tokens > room:
            turn = " and the newest turn" if self.has_answers else ""
            raise ContextOverflowError(
                f"about {self.kept_tokens} tokens are needed for the query{turn}, and the "
                f"model's window leaves {max(room, 0)}; shorten the query, lower "
                "model.max_tokens or choose a model with a larger window"
            )


@final
class Conversation:
    """What was said in one run, and which part of it to send."""

    __slots__ = ("_items", "_pinned", "_window")

    def __init__(
        self,
        history: Sequence[ChatMessage],
        pinned: Sequence[UserMessage],
        *,
        room_tokens: int | None,
    ) -> None:
        """Begin a conversation.

        Args:
            history: What was said in earlier runs, a result for every call.
            pinned: What this run is about: recalled data and the query.
            room_tokens: The window without the answer's own room, the system prompt and
                the tools. ``None``: nobody knows the window, so everything is sent.
        """
        self._items: list[ChatMessage] = [*history, *pinned]
        self._pinned = range(len(history), len(self._items))
        self._window: _Window | None = None
        if room_tokens is not None:
            tokens = sum(map(message_tokens, pinned))
            self._window = _Window(room_tokens, tokens, tokens)
            self._window.take_history(history)

    @property
    def messages(self) -> MessageView:
        """All that was said, oldest first."""
        return MessageView(self._items, range(len(self._items)), NOTHING)

    def copy(self) -> tuple[ChatMessage, ...]:
        """Return all that was said, for good."""
        return tuple(self._items)

    def append(self, message: ChatMessage) -> None:
        """Add what was said next."""
        if self._window is not None:
            self._window.append(message, len(self._items))
        self._items.append(message)

    def fit(self, pending: Sequence[ChatMessage] = ()) -> Sequence[ChatMessage]:
        """Return what to send now: the pinned messages and the newest groups that fit.

        Args:
            pending: What is sent behind the conversation and is no part of it.

        Raises:
            ContextOverflowError: If the pinned messages and the newest group do not fit.
        """
        pending_tokens = sum(map(message_tokens, pending))
        if self._window is not None and self.spare_tokens(pending_tokens) < 0:
            self._window.drop(pending_tokens)
        view = self._view()
        return (*view, *pending) if pending else view

    def spare_tokens(self, pending_tokens: int = 0) -> int:
        """Return how many tokens of the window are free; 0 if no window is known.

        Args:
            pending_tokens: What is sent behind the conversation.
        """
        window = self._window
        return 0 if window is None else window.room_tokens - window.kept_tokens - pending_tokens

    def _view(self) -> MessageView:
        items, window = self._items, self._window
        if window is None:
            return MessageView(items, range(len(items)), NOTHING)
        if window.kept < window.history_groups:
            return MessageView(items, range(window.starts[window.kept], len(items)), NOTHING)
        if window.kept in {0, window.history_groups}:
            return MessageView(items, range(self._pinned.start, len(items)), NOTHING)
        return MessageView(items, self._pinned, range(window.starts[window.kept], len(items)))

    def room_tokens_for_results(self, count: int) -> int | None:
        """Return how large each result of the newest answer's calls may be, in tokens.

        To be asked when the answer was appended and its results were not. Results of that
        size fit, and take at most half of what the pinned messages leave: the other half
        is for the turns before, or the model would forget what it asked for.

        Args:
            count: Calls of the answer; at least 1.

        Returns:
            Tokens, 0 if there is no room at all. ``None``: there is no limit.
        """
        window = self._window
        if window is None:
            return None
        room = window.room_tokens - window.pinned_tokens
        newest = window.costs[-1] if window.has_answers else 0
        return max(min(room // 2, room - newest) // count - MESSAGE_TOKENS, 0)


def message_tokens(message: ChatMessage) -> int:
    """Estimate how many tokens *message* takes of the window."""
    match message:
        case UserMessage():
            tokens = MESSAGE_TOKENS + estimate_tokens(message.text)
            return tokens + sum(one.tokens for one in message.attachments)
        case ToolMessage():
            tokens = MESSAGE_TOKENS + estimate_tokens(message.content)
            return tokens + sum(one.tokens for one in message.attachments)
        case AssistantMessage():
            tokens = MESSAGE_TOKENS + estimate_tokens(message.text)
            for call in message.tool_calls:
                tokens += estimate_tokens(call.name) + estimate_tokens(call.arguments)
            for part in message.parts:
                tokens += estimate_tokens(part.data)
            return tokens
        case _:
            assert_never(message)


def fixed_tokens(
    system: str, tools: tuple[ToolDefinition, ...], form: AnswerForm | None = None
) -> int:
    """Estimate what is the same in each request: system prompt, tools, form of the answer."""
    tokens = MESSAGE_TOKENS + estimate_tokens(system) if system else 0
    for tool in tools:
        tokens += MESSAGE_TOKENS + estimate_tokens(tool.name)
        tokens += estimate_tokens(tool.description) + _schema_tokens(tool.input_schema)
    return tokens if form is None else tokens + _schema_tokens(form.schema)


def _schema_tokens(schema: Mapping[str, object]) -> int:
    return estimate_tokens(msgspec.json.encode(schema, enc_hook=_plain).decode())


def request_tokens(request: CompletionRequest, window: int | None = None) -> int:
    """Estimate the most tokens that *request* and its answer take together in *window*."""
    tokens = fixed_tokens(request.system, request.tools, request.answer_form)
    tokens += answer_tokens(request.max_tokens, window)
    return tokens + sum(map(message_tokens, request.messages))


def cut_to_tokens(text: str, tokens: int) -> str:
    r"""Return *text*, or as much of its beginning as *tokens* hold, and a note of the cut.

    Characters are kept whole. Where not even the note has room, a part of the note is all.

    >>> cut_to_tokens("word " * 100, 20)
    'word word word \n[cut: 15 of 500 characters shown]'
    """
    tokens = max(tokens, 0)
    if estimate_tokens(text) <= tokens:
        return text
    # The inverse of estimate_tokens(): the most bytes that it counts as that many.
    most_bytes = tokens * 5 // 2
    room = max(most_bytes - len(_note(len(text), len(text))), 0)
    # A character takes at least one byte: what is beyond needs no encoding.
    data = text[: room + 1].encode("utf-8", "surrogatepass")
    while data[room] & CONTINUATION_MASK == CONTINUATION_BYTE:
        room -= 1  # the first byte to go is inside a character, so all of that one goes
    kept = data[:room].decode("utf-8", "surrogatepass")
    note = _note(len(kept), len(text))
    return kept + note if kept else note[1 : most_bytes + 1]


def repaired(messages: Sequence[ChatMessage], text: str) -> tuple[ChatMessage, ...]:
    """Return *messages* with a result for every call.

    The results of an answer follow it in the order of its calls; for each call without
    one there is an error.

    Args:
        messages: A conversation that may have been broken off.
        text: What the error says, such as ``not run: the pool was aborted``.
    """
    whole: list[ChatMessage] = []  # each has its own
    left = list(reversed(messages))
    while left:
        message = left.pop()
        whole.append(message)
        if not isinstance(message, AssistantMessage) or not message.tool_calls:
            continue
        # Some models name two calls the same, so each name has a queue of results.
        results: dict[str, deque[ToolMessage]] = {}
        while left and isinstance(result := left[-1], ToolMessage):
            left.pop()
            results.setdefault(result.call_id, deque()).append(result)
        for call in message.tool_calls:
            queue = results.get(call.call_id)
            missing = ToolMessage(call.call_id, call.name, text, is_error=True)
            whole.append(queue.popleft() if queue else missing)
        # Results of no call are kept: nothing that was said is dropped here.
        whole.extend(chain.from_iterable(results.values()))
    return tuple(whole)


def _begins_group(before: ChatMessage | None, message: ChatMessage) -> bool:
    """Whether *message* of a history, coming after *before*, begins a group."""
    if before is None:
        return True
    finished = isinstance(before, AssistantMessage) and not before.tool_calls
    return finished and isinstance(message, UserMessage)


def _note(kept: int, of: int) -> str:
    return f"\n[cut: {kept:,} of {of:,} characters shown]"


def _plain(value: Mapping[str, Json] | Sequence[Json]) -> dict[str, Json] | list[Json]:
    """Return a read-only schema as the encoder knows it."""
    return dict(value) if isinstance(value, Mapping) else list(value)
