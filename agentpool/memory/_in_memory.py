"""A memory in this process, which is gone when the process ends.

Rules:

1. A recall sees only the fragments of its scope; other scopes do not change its scores either.
2. Remembering costs one dict entry. Words are counted when a scope is first searched: a pool writes
   one fragment per run, and most fragments are never read.
3. A fragment that was forgotten, or removed to make room, leaves nothing behind, not even a word.
4. Of equal hits the newest comes first; of two with the same time, the one remembered last. So
   every recall has exactly one right answer.
"""

from __future__ import annotations

import heapq
import re
from collections import OrderedDict
from itertools import islice
from typing import Final, final

import attrs
import msgspec
import trio

from agentpool._amounts import counted
from agentpool._checks import expect, expect_arguments
from agentpool._errors import UsageError
from agentpool.abc import Fragment, Memory, MemoryHit, MemoryQuery
from agentpool.memory._split_words import AT_ONCE_CHARS, words_of
from agentpool.memory._word_search import WordIndex, rarest, scaled, words

INDEXED_AT_ONCE: Final = 100
"""How many fragments are indexed before other tasks get a turn: 1 to 2 ms."""

_ID: Final = re.compile(r"mem-([1-9][0-9]{0,18})", re.ASCII)
"""The ids that ``remember`` returns. ``int`` would refuse much longer ones."""


@final
@attrs.frozen
class InMemoryStatistics:
    """The size of an ``InMemoryMemory`` at one moment."""

    fragments: int
    """Fragments that can be recalled."""
    scopes: int
    """Scopes that have fragments."""
    evicted: int
    """Fragments removed so far because their scope was full."""


@final
@attrs.define(eq=False, repr=False)
class _Words:
    """The word index of one scope. Made when the scope is first searched."""

    waiting: dict[int, Fragment]
    """Fragments whose words are not counted yet."""
    index: WordIndex = attrs.field(factory=WordIndex)

    async def search(self, text: str) -> dict[int, float]:
        """Return a score for each fragment that fits *text*.

        Cancellation:
            The words counted so far stay counted.
        """
        wanted = rarest(await words_of(text))
        while self.waiting:
            # Others may add, remove and count while this waits: what is left is looked
            # at anew each time, and nothing is awaited between the last and the search.
            long = self._count_short_ones()
            if long is not None:
                found = await words_of(self.waiting[long].content)
                if self.waiting.pop(long, None) is not None:
                    self.index.add(long, found)
            elif self.waiting:
                await trio.lowlevel.checkpoint()
        return self.index.search(wanted)

    def _count_short_ones(self) -> int | None:
        """Index the next short fragments. Return the number of the long one that stopped this."""
        for number in tuple(islice(self.waiting, INDEXED_AT_ONCE)):
            content = self.waiting[number].content
            if len(content) > AT_ONCE_CHARS:
                return number
            del self.waiting[number]
            self.index.add(number, words(content))
        return None


@final
@attrs.define(eq=False, repr=False)
class _Scope:
    """The fragments of one scope by number, oldest first."""

    fragments: dict[int, Fragment]
    words: _Words | None = None

    def add(self, number: int, fragment: Fragment) -> None:
        """Store *fragment*."""
        self.fragments[number] = fragment
        if self.words is not None:
            self.words.waiting[number] = fragment

    def remove(self, number: int) -> None:
        """Delete a fragment and its words."""
        del self.fragments[number]
        if self.words is not None and self.words.waiting.pop(number, None) is None:
            self.words.index.remove(number)


@final
class InMemoryMemory(Memory):
    """A memory that lives as long as this object, with ids ``mem-1``, ``mem-2`` and so on."""

    def __init__(self, *, max_fragments_per_scope: int | None = None) -> None:
        """Make an empty memory.

        Args:
            max_fragments_per_scope: The most fragments that a scope may have. When it is full, a
                new fragment replaces the oldest, which is counted as evicted. ``None``: no limit.

        Raises:
            UsageError: If the limit is below 1.
        """
        expect_arguments(InMemoryMemory.__init__, locals())
        if max_fragments_per_scope is not None and max_fragments_per_scope < 1:
            raise UsageError(
                "max_fragments_per_scope must be >= 1, "
                f"got {max_fragments_per_scope!r}; use None for no limit"
            )
        self._max_fragments = max_fragments_per_scope
        self._scopes: dict[str, _Scope] = {}
        self._scope_of: dict[int, str] = {}
        self._written = 0
        self._evicted = 0

    def _repr_words(self) -> str:
        return counted(len(self._scope_of), "fragment")

    async def remember(self, fragment: Fragment) -> str:
        """Store *fragment* and return its id.

        Cancellation:
            The fragment is not kept.
        """
        expect(
            fragment,
            Fragment,
            "fragment must be a Fragment",
            "write Fragment(content=..., scope=...)",
        )
        await trio.lowlevel.checkpoint()
        self._written = number = self._written + 1
        scope = self._scopes.get(fragment.scope)
        if scope is None:
            scope = self._scopes[fragment.scope] = self._new_scope()
        elif len(scope.fragments) == self._max_fragments:
            oldest = next(iter(scope.fragments))
            scope.remove(oldest)
            del self._scope_of[oldest]
            self._evicted += 1
        scope.add(number, fragment)
        self._scope_of[number] = fragment.scope
        return f"mem-{number}"

    async def recall(self, query: MemoryQuery) -> tuple[MemoryHit, ...]:
        """Return the fragments in the scope that fit *query*, best first.

        Cancellation:
            Nothing has changed.
        """
        expect(
            query,
            MemoryQuery,
            "query must be a MemoryQuery",
            "write MemoryQuery(text=..., scope=...)",
        )
        scope = self._scopes.get(query.scope)
        if scope is None or query.limit < 1:
            await trio.lowlevel.checkpoint()
            return ()
        if query.text.strip():
            if scope.words is None:
                scope.words = _Words(scope.fragments.copy())
            scores = await scope.words.search(query.text)
        else:
            await trio.lowlevel.checkpoint()
            # Without words to look for, all fit equally well.
            scores = dict.fromkeys(scope.fragments, 1.0)
        # From here on nothing is awaited, so every number is still there.
        return _best(scope.fragments, scores, query)

    async def forget(self, fragment_id: str) -> bool:
        """Delete a fragment for good. Return whether it existed.

        Cancellation:
            The fragment is still there.
        """
        expect(fragment_id, str, "fragment_id must be a str", "pass what remember() returned")
        await trio.lowlevel.checkpoint()
        parts = _ID.fullmatch(fragment_id)
        number = int(parts[1]) if parts else 0
        name = self._scope_of.pop(number, None)
        if name is None:
            return False
        scope = self._scopes[name]
        scope.remove(number)
        if not scope.fragments:
            del self._scopes[name]
        return True

    def _new_scope(self) -> _Scope:
        if self._max_fragments is None:
            return _Scope({})
        # A dict from whose front much was taken walks over the gaps to its first key:
        # 9 µs with 10,000 fragments, 70 with 100,000. An OrderedDict does not.
        return _Scope(OrderedDict())

    def statistics(self) -> InMemoryStatistics:
        """Return a snapshot of its size."""
        return InMemoryStatistics(len(self._scope_of), len(self._scopes), self._evicted)


def _best(
    fragments: dict[int, Fragment], scores: dict[int, float], query: MemoryQuery
) -> tuple[MemoryHit, ...]:
    def place(number: int) -> tuple[float, float, int]:
        return -scores[number], -fragments[number].created_at, -number

    fitting = (number for number in scores if _passes(fragments[number], query))
    best = heapq.nsmallest(query.limit, fitting, key=place)
    return tuple(
        MemoryHit(msgspec.structs.replace(fragments[number], fragment_id=f"mem-{number}"), score)
        for number, score in zip(best, scaled([scores[n] for n in best]), strict=True)
    )


def _passes(fragment: Fragment, query: MemoryQuery) -> bool:
    return (query.source is None or fragment.source == query.source) and (
        query.since is None or fragment.created_at >= query.since
    )
