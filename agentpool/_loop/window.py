"""Chooses the part of a conversation that fits the window, and what replaces the rest.

Rules, in addition to those of ``conversation``:

1. The conversation is cut when the window is full, and then to three quarters of the room that the
   pinned messages leave. So requests begin in the same way for many turns, and a provider that
   caches the beginnings of requests need not read them again.
2. If old results may be cleared, these go first, beginning with the oldest: each call stays, and a
   stub replaces its result. Whole groups are left out only if that is not enough, and then until
   half of the room is free: each group frees few tokens, so the next turn would otherwise fill the
   window again.
3. A summary comes right after the pinned messages, and takes room as they do.
4. The newest group is neither cleared nor left out.
5. A message that was once cleared or left out is never sent again.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final, cast, final, overload

import msgspec

from agentpool._base import Live
from agentpool._errors import ContextOverflowError
from agentpool._messages import ChatMessage, ToolMessage

NOTHING: Final = range(0)
"""The part of a conversation that has no messages."""

NO_STUBS: Final[Mapping[int, ChatMessage]] = {}

STUB_TOKENS: Final = 40
"""The most tokens of a stub, with the marks of its message."""


@final
class MessageView(Sequence[ChatMessage]):  # noqa: PLW1641  # equal to lists: no hash
    """A read-only part of a conversation, as it was when the view was made.

    It shares the conversation's list and copies nothing. The list only grows, so the view
    stays as it is. Equal to any sequence of the same messages; pickled as a tuple.
    """

    __slots__ = ("_between", "_first", "_items", "_second", "_stubs")

    def __init__(
        self,
        items: list[ChatMessage],
        first: range,
        second: range = NOTHING,
        between: tuple[ChatMessage, ...] = (),
        stubs: Mapping[int, ChatMessage] = NO_STUBS,
    ) -> None:
        self._items = items
        self._first = first
        self._second = second
        self._between = between
        """The messages between the two parts that are not part of the conversation."""
        self._stubs = stubs
        """The messages that replace some of the others, by place."""

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """The range of messages in the view: the first, and one past the last."""
        first, second = self._first, self._second
        if first and not second:  # as in most requests: no generator for one pair
            return ((first.start, first.stop),)
        return tuple((part.start, part.stop) for part in (first, second) if part)

    def __len__(self) -> int:
        return len(self._first) + len(self._between) + len(self._second)

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
            return self._at(self._first[index])
        index -= len(self._first)
        if index < len(self._between):
            return self._between[index]
        return self._at(self._second[index - len(self._between)])

    def _at(self, place: int) -> ChatMessage:
        return self._stubs.get(place) or self._items[place]

    def stands_in_as(self, other: MessageView) -> bool:
        """Return whether the same stubs replace the omitted messages as in *other*."""
        return other._stubs is self._stubs and other._between is self._between

    def __iter__(self) -> Iterator[ChatMessage]:
        if not (self._first.start or self._second or self._stubs):
            # The usual case: twice as fast as the other one.
            return islice(self._items, self._first.stop)
        at = self._at if self._stubs else self._items.__getitem__
        return chain(map(at, self._first), self._between, map(at, self._second))

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
class Cut(msgspec.Struct, frozen=True, gc=False):
    """The messages that one cut left out of the window."""

    messages: int
    """Messages that are no longer sent."""
    results: int
    """Tool results that are sent as a stub from now on."""
    tokens: int
    """An estimate of the tokens that these messages and results took."""
    stubs: tuple[int, ...] = ()
    """The places of these results in the conversation."""


def stub_of(result: ToolMessage) -> ToolMessage:
    """Return the short text that is sent instead of *result*."""
    text = f"[a result of {len(result.content):,} characters, left out to make room]"
    return msgspec.structs.replace(result, content=text)


@final
class Window(Live):
    """The part of a conversation that fits a window of known size."""

    room_tokens: int
    pinned_tokens: int
    """The tokens that are always sent: the pinned messages and the summary."""
    kept_tokens: int
    """The tokens that are sent now."""
    starts: list[int] = []  # noqa: RUF012  # each has its own
    """The place where each group begins."""
    costs: list[int] = []  # noqa: RUF012  # each has its own
    """The tokens of each group."""
    history_groups: int = 0
    """The number of groups that come from the history, which is first."""
    kept: int = 0
    """Groups before this one are left out."""
    results: list[tuple[int, int, int]] = []  # noqa: RUF012  # each has its own
    """Tool results that are worth replacing by a stub: place, group, and the tokens that this
    saves."""
    cleared: int = 0
    """Results before this one are cleared."""
    stubs: Mapping[int, ChatMessage] = NO_STUBS
    """The stubs of cleared results, by place. Never changed, only replaced."""

    @property
    def has_answers(self) -> bool:
        """Whether any group follows the pinned messages."""
        return len(self.costs) > self.history_groups

    def count(self, tokens: int, place: int, *, begins: bool, is_result: bool) -> None:
        """Add a message to the newest group, or begin a group with it."""
        self.kept_tokens += tokens
        if begins:
            self.starts.append(place)
            self.costs.append(tokens)
        else:
            self.costs[-1] += tokens
        if is_result and tokens > 2 * STUB_TOKENS:
            self.results.append((place, len(self.costs) - 1, tokens - STUB_TOKENS))

    def pin(self, tokens: int) -> None:
        """Add *tokens* to what is always sent."""
        self.pinned_tokens += tokens
        self.kept_tokens += tokens

    def clear(self, items: Sequence[ChatMessage], pending_tokens: int) -> tuple[int, ...]:
        """Replace the oldest results with stubs. Return their places.

        Args:
            items: The conversation.
            pending_tokens: The tokens of what is sent after it.
        """
        goal, newest = self._goal(pending_tokens), len(self.costs) - 1
        stubs: dict[int, ChatMessage] = {}
        while self.cleared < len(self.results) and self.kept_tokens > goal:
            place, group, saved = self.results[self.cleared]
            if group >= newest:
                break
            self.cleared += 1
            if group < self.kept:
                continue
            result = items[place]
            assert isinstance(result, ToolMessage)  # noqa: S101  # as it was counted
            stubs[place] = stub_of(result)
            self.costs[group] -= saved
            self.kept_tokens -= saved
        if stubs:
            # Without those of groups that have left, which no later view shows.
            start = self.starts[self.kept]
            shown = {place: one for place, one in self.stubs.items() if place >= start}
            self.stubs = {**shown, **stubs}
        return tuple(stubs)

    def first_to_keep(
        self, pending_tokens: int, extra_tokens: int = 0, *, to_half: bool = False
    ) -> int:
        """Return the oldest group to keep so that the window is at most three quarters full.

        Args:
            pending_tokens: The tokens of what is sent after the conversation.
            extra_tokens: The tokens of what is about to be pinned.
            to_half: Whether to go down to half full, if anything has to be left out.
        """
        goal = self._goal(pending_tokens)
        kept, tokens = self.kept, self.kept_tokens + extra_tokens
        if to_half and tokens > goal:
            goal -= (goal - self.pinned_tokens) // 3
        # The newest group stays; the history has none that must.
        last = max(len(self.costs) - 1, self.history_groups)
        while tokens > goal and kept < last:
            tokens -= self.costs[kept]
            kept += 1
        return kept

    def drop(self, kept: int) -> None:
        """Leave out the groups before *kept*."""
        while self.kept < kept:
            self.kept_tokens -= self.costs[self.kept]
            self.kept += 1

    def check(self, pending_tokens: int) -> None:
        """Raise if the pinned and newest messages do not fit.

        Raises:
            ContextOverflowError: If the pinned messages and the newest group do not fit.
        """
        room = self.room_tokens - pending_tokens
        if self.kept_tokens > room:
            turn = " and the newest turn" if self.has_answers else ""
            raise ContextOverflowError(
                f"about {self.kept_tokens} tokens are needed for the query{turn}, and the "
                f"model's window has room for {max(room, 0)}; shorten the query, lower "
                "model.max_tokens or choose a model with a larger window"
            )

    def _goal(self, pending_tokens: int) -> int:
        """Return the most tokens that may be sent after a cut."""
        free = self.room_tokens - pending_tokens - self.pinned_tokens
        return self.pinned_tokens + max(free, 0) * 3 // 4
