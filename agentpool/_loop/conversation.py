"""The conversation of one run, and the part of it that fits the model's window.

Rules:

1. The conversation only grows. What was said is never changed, moved or shortened;
   ``cut`` and ``fit`` decide which part of it is sent, and what replaces the rest.
2. It has three parts: the history, the pinned messages (recalled data and the current query) and
   the messages after them. The pinned messages are always sent.
3. The first and the third part are divided into groups, which are sent whole or not at all.
   After the pinned messages: a group begins at each answer of the model, and holds the results of
   its calls and the messages that came in after it. The messages before the first answer form a
   group of their own. In the history: a group begins with the user's message after an answer
   without tool calls, and ends with the next such answer. So a call is never parted from its
   result, and a request never begins with an answer.
4. The oldest groups are left out first and none is skipped: first those of the history, then those
   of the third part. A group that was left out once stays out: the window does not grow.
5. The newest group is always sent: without it the model would repeat its last turn. If it does not
   fit together with the pinned messages, that is an error and not a shorter request.

Sizes are high estimates, as explained at `estimate_tokens`. Each message is measured
once and each group dropped once, so a turn costs the same however long the conversation is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self, assert_never, final

import msgspec

from agentpool._attachments import CountAttachment, highest_tokens
from agentpool._base import Live
from agentpool._loop.window import NOTHING, Cut, MessageView, Window
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
"""The tokens of a message in addition to its text: marks of its role and its end."""

CONTINUATION_MASK: Final = 0b1100_0000
CONTINUATION_BYTE: Final = 0b1000_0000
"""Every byte of a UTF-8 character but the first begins with these two bits: RFC 3629."""


@final
class Conversation(Live, gc=False):
    """All messages of one run. Chooses the ones to send."""

    _items: list[ChatMessage]
    _count_attachment: CountAttachment = highest_tokens
    _window: Window | None = None
    _pinned: range = NOTHING
    """The places of the pinned messages. Empty if the window is unknown, since everything is then
    sent."""
    _summary: tuple[ChatMessage, ...] = ()

    @classmethod
    def begin(
        cls,
        history: Sequence[ChatMessage],
        pinned: Sequence[UserMessage],
        *,
        room_tokens: int | None,
        count: CountAttachment = highest_tokens,
    ) -> Self:
        """Begin a conversation.

        Args:
            history: The messages of earlier runs, with a result for every call.
            pinned: The messages that this run is about: recalled data and the query.
            room_tokens: The window minus the room for the answer, the system prompt and the tools.
                ``None``: the window is unknown, so everything is sent.
            count: Estimates the tokens of an image or a document.
        """
        talk = cls([*history, *pinned], count)
        if room_tokens is not None:
            talk._pinned = range(len(history), len(talk._items))
            tokens = talk._tokens(pinned)
            talk._window = window = Window(room_tokens, tokens, tokens)
            before: ChatMessage | None = None
            for place, message in enumerate(history):
                talk._count(window, message, place, begins=_begins_group(before, message))
                before = message
            window.history_groups = len(window.starts)
        return talk

    @property
    def messages(self) -> MessageView:
        """All messages, oldest first."""
        return MessageView(self._items, range(len(self._items)))

    def since(self, place: int) -> tuple[ChatMessage, ...]:
        """Return the messages from *place* on, as a tuple."""
        return tuple(self._items[place:])

    def copy(self) -> tuple[ChatMessage, ...]:
        """Return all messages as a tuple."""
        return tuple(self._items)

    def append(self, message: ChatMessage) -> None:
        """Add the next message."""
        window = self._window
        if window is not None:
            begins = not window.has_answers or isinstance(message, AssistantMessage)
            self._count(window, message, len(self._items), begins=begins)
        self._items.append(message)

    def _count(self, window: Window, message: ChatMessage, place: int, *, begins: bool) -> None:
        is_result = isinstance(message, ToolMessage)
        tokens = message_tokens(message, self._count_attachment)
        window.count(tokens, place, begins=begins, is_result=is_result)

    def _tokens(self, messages: Iterable[ChatMessage]) -> int:
        return sum(message_tokens(one, self._count_attachment) for one in messages)

    # --- the window

    @property
    def left_out(self) -> int:
        """Messages that are no longer sent, or sent only as a stub."""
        window = self._window
        if window is None or not (window.kept or window.stubs):
            return 0
        sent = self._view(window).places
        stubs = sum(any(start <= at < stop for start, stop in sent) for at in window.stubs)
        return self._gone_before(window.kept) + stubs

    def is_full(self, pending: Sequence[ChatMessage] = ()) -> bool:
        """Return whether the conversation must be cut before it is sent with *pending*."""
        if self._window is None:
            return False
        return self.spare_tokens(self._tokens(pending) if pending else 0) < 0

    def spare_tokens(self, pending_tokens: int = 0) -> int:
        """Return the free tokens of the window. 0: the window's size is unknown.

        Args:
            pending_tokens: The tokens of what is sent after the conversation.
        """
        window = self._window
        return 0 if window is None else window.room_tokens - window.kept_tokens - pending_tokens

    def fit(self, pending: Sequence[ChatMessage] = ()) -> Sequence[ChatMessage]:
        """Return the messages to send: the pinned ones and the newest groups that fit.

        Args:
            pending: The messages that are sent after the conversation and are not part of it.

        Raises:
            ContextOverflowError: If the pinned messages and the newest group do not fit.
        """
        if self._window is None:
            view = MessageView(self._items, range(len(self._items)))
        else:
            if self.is_full(pending):
                self.cut(pending)
            view = self._view(self._window)
        return (*view, *pending) if pending else view

    def cut(
        self,
        pending: Sequence[ChatMessage] = (),
        *,
        clears_results: bool = False,
        summary: UserMessage | None = None,
    ) -> Cut:
        """Make room in the window and return what was left out.

        Args:
            pending: The messages that are sent after the conversation and are not part of it.
            clears_results: Whether to leave out old results first, before whole groups.
            summary: The text that replaces everything left out. ``None``: the earlier summary
                stays.

        Raises:
            ContextOverflowError: If the pinned messages and the newest group do not fit.
        """
        window = self._window
        assert window is not None  # noqa: S101  # or there would always be room
        pending_tokens = self._tokens(pending)
        before, gone = window.kept_tokens, self._gone_before(window.kept)
        cleared = window.clear(self._items, pending_tokens) if clears_results else ()
        extra_tokens = 0
        if summary is not None:
            window.drop(window.history_groups)
            extra_tokens = message_tokens(summary) - self._tokens(self._summary)
            self._summary = (summary,)
        window.pin(extra_tokens)
        window.drop(window.first_to_keep(pending_tokens, to_half=clears_results))
        window.check(pending_tokens)
        left_tokens = before + extra_tokens - window.kept_tokens
        messages = self._gone_before(window.kept) - gone
        return Cut(messages, len(cleared), left_tokens, cleared)

    def leaving(self, pending: Sequence[ChatMessage], extra_tokens: int) -> Sequence[ChatMessage]:
        """Return the messages that the next cut will leave out, for a summary.

        These messages are the beginning of the previous request. Empty: nothing would be left out.

        Args:
            pending: The messages that are sent after the conversation and are not part of it.
            extra_tokens: The tokens that the summary may take.
        """
        window = self._window
        assert window is not None  # noqa: S101  # or there would always be room
        pending_tokens = self._tokens(pending)
        # A summary stands behind the query, so all of the history leaves at once.
        kept = max(window.first_to_keep(pending_tokens, extra_tokens), window.history_groups)
        if self._gone_before(kept) == self._gone_before(window.kept):
            return ()
        view = self._view(window)
        return view[: len(view) - (len(self._items) - len(self._pinned) - self._gone_before(kept))]

    def _gone_before(self, kept: int) -> int:
        """Return how many messages are left out if *kept* is the oldest group that is sent."""
        window = self._window
        assert window is not None  # noqa: S101  # only then there are groups
        if kept == window.history_groups:
            return self._pinned.start
        place = window.starts[kept] if kept < len(window.starts) else len(self._items)
        return place if kept < window.history_groups else place - len(self._pinned)

    def _view(self, window: Window) -> MessageView:
        items, end = self._items, len(self._items)
        summary, stubs = self._summary, window.stubs
        if window.kept < window.history_groups:
            return MessageView(items, range(window.starts[window.kept], end), stubs=stubs)
        if window.kept in {0, window.history_groups} and not summary:
            return MessageView(items, range(self._pinned.start, end), stubs=stubs)
        gone = self._gone_before(window.kept)
        rest = range(gone + len(self._pinned), end)
        return MessageView(items, self._pinned, rest, summary, stubs)

    def room_tokens_for_results(self, count: int) -> int | None:
        """Return how many tokens each result of the newest calls may have.

        Call this after the answer was appended, and before its results are. Results of that size
        fit, and take at most half of the room that the pinned messages leave. The other half is for
        earlier turns, or the model would forget why it made the calls.

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


def message_tokens(message: ChatMessage, count: CountAttachment = highest_tokens) -> int:
    """Estimate the tokens that *message* takes of the window.

    Args:
        message: The message.
        count: Estimates the tokens of an image or a document.
    """
    match message:
        case UserMessage():
            tokens = MESSAGE_TOKENS + estimate_tokens(message.text)
            files = message.attachments
            return tokens + sum(map(count, files)) if files else tokens
        case ToolMessage():
            tokens = MESSAGE_TOKENS + estimate_tokens(message.content)
            files = message.attachments
            return tokens + sum(map(count, files)) if files else tokens
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
    """Estimate the tokens of every request: system prompt, tools and form of the answer."""
    tokens = MESSAGE_TOKENS + estimate_tokens(system) if system else 0
    for tool in tools:
        tokens += MESSAGE_TOKENS + estimate_tokens(tool.name)
        tokens += estimate_tokens(tool.description) + _schema_tokens(tool.input_schema)
    return tokens if form is None else tokens + _schema_tokens(form.schema)


def _schema_tokens(schema: Mapping[str, object]) -> int:
    return estimate_tokens(msgspec.json.encode(schema, enc_hook=_plain).decode())


def request_tokens(
    request: CompletionRequest,
    window: int | None = None,
    count: CountAttachment = highest_tokens,
) -> int:
    """Estimate the most tokens that *request* and its answer can need in *window*."""
    tokens = fixed_tokens(request.system, request.tools, request.answer_form)
    tokens += answer_tokens(request.max_tokens, window)
    return tokens + sum(message_tokens(one, count) for one in request.messages)


def cut_to_tokens(text: str, tokens: int) -> str:
    r"""Return *text*, cut to *tokens* with a note if it is longer.

    Characters are not divided. If there is no room even for the note, a part of it is returned.

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


def _begins_group(before: ChatMessage | None, message: ChatMessage) -> bool:
    """Return whether *message*, which follows *before*, begins a new group."""
    if before is None:
        return True
    finished = isinstance(before, AssistantMessage) and not before.tool_calls
    return finished and isinstance(message, UserMessage)


def _note(kept: int, of: int) -> str:
    return f"\n[cut: {kept:,} of {of:,} characters shown]"


def _plain(value: Mapping[str, Json] | Sequence[Json]) -> dict[str, Json] | list[Json]:
    """Return a read-only schema as a type that the encoder can write."""
    return dict(value) if isinstance(value, Mapping) else list(value)
