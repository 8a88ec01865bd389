"""Fragments in this process. What every memory must do is in tests/contract."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool import UsageError
from agentpool.abc import Fragment, MemoryQuery
from agentpool.memory import InMemoryMemory, InMemoryStatistics
from agentpool.memory._in_memory import INDEXED_AT_ONCE
from agentpool.memory._split_words import AT_ONCE_CHARS


def note(content: str, scope: str = "mine", *, at: float = 0.0) -> Fragment:
    """Return a fragment."""
    return Fragment(content=content, scope=scope, created_at=at)


async def recalled(memory: InMemoryMemory, text: str, scope: str = "mine") -> list[str]:
    """Return the contents that *text* recalls, best first."""
    hits = await memory.recall(MemoryQuery(text=text, scope=scope, limit=1_000_000))
    return [hit.fragment.content for hit in hits]


async def test_ids_count_from_one_over_all_scopes() -> None:
    """An id alone says which fragment to forget."""
    memory = InMemoryMemory()
    ids = [await memory.remember(note("a", scope)) for scope in ("x", "y", "x")]
    assert ids == ["mem-1", "mem-2", "mem-3"]


@pytest.mark.parametrize(
    "fragment_id",
    [
        "",
        "1",
        "mem-",
        "mem-0",
        "mem-01",
        "mem--1",
        "mem-2",
        "mem-1 ",
        "mem-\u0661",
        "mem-" + "9" * 9_999,
    ],
)
async def test_an_id_that_was_never_given_out_forgets_nothing(fragment_id: str) -> None:
    """Also one that a lenient reader of numbers would take for another."""
    memory = InMemoryMemory()
    await memory.remember(note("a"))
    assert not await memory.forget(fragment_id)
    assert await recalled(memory, "a") == ["a"]


async def test_the_oldest_goes_when_a_scope_is_full() -> None:
    """The original grows without bound."""
    memory = InMemoryMemory(max_fragments_per_scope=2)
    for content in ("one a", "two a"):
        await memory.remember(note(content))
    assert await recalled(memory, "a") == ["two a", "one a"]
    for content in ("three a", "four a", "five a"):
        await memory.remember(note(content))
    await memory.remember(note("six a", "other"))
    assert await recalled(memory, "a") == ["five a", "four a"]
    assert await recalled(memory, "one two three") == []
    assert await recalled(memory, "a", "other") == ["six a"]
    assert memory.statistics() == InMemoryStatistics(fragments=3, scopes=2, evicted=3)
    assert not await memory.forget("mem-1")
    assert await memory.forget("mem-5")
    await memory.remember(note("seven a"))
    assert await recalled(memory, "a") == ["seven a", "four a"]


async def test_the_oldest_goes_from_a_scope_that_nobody_searched() -> None:
    """Whether words were counted yet makes no difference to what is kept."""
    memory = InMemoryMemory(max_fragments_per_scope=1)
    for content in ("one a", "two a", "three a"):
        await memory.remember(note(content))
    assert await recalled(memory, "one two three") == ["three a"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    """A memory that keeps nothing is not a memory."""
    with pytest.raises(UsageError, match=f"must be >= 1, got {limit}; use None"):
        InMemoryMemory(max_fragments_per_scope=limit)


async def test_statistics_count_what_is_there() -> None:
    """A scope whose last fragment was forgotten is gone, too."""
    memory = InMemoryMemory()
    assert memory.statistics() == InMemoryStatistics(0, 0, 0)
    first = await memory.remember(note("a", "x"))
    await memory.remember(note("b", "y"))
    assert memory.statistics() == InMemoryStatistics(2, 2, 0)
    await memory.forget(first)
    assert memory.statistics() == InMemoryStatistics(1, 1, 0)
    assert await recalled(memory, "a", "x") == []


async def test_words_are_counted_when_a_scope_is_first_searched() -> None:
    """A pool writes one fragment per run, and most of them are never looked at."""
    memory = InMemoryMemory()
    await memory.remember(note("cold sea"))
    assert memory._scopes["mine"].words is None
    assert await recalled(memory, "") == ["cold sea"]
    assert memory._scopes["mine"].words is None
    assert await recalled(memory, "sea") == ["cold sea"]
    assert memory._scopes["mine"].words is not None


async def test_fragments_written_after_a_search_are_found() -> None:
    """And those forgotten before they were counted are not."""
    memory = InMemoryMemory()
    await memory.remember(note("cold sea"))
    assert await recalled(memory, "sea") == ["cold sea"]
    gone = await memory.remember(note("deep sea"))
    await memory.remember(note("blue sea"))
    await memory.forget(gone)
    assert await recalled(memory, "sea") == ["blue sea", "cold sea"]


async def test_counting_words_lets_other_tasks_have_their_turn() -> None:
    """A scope that a hundred thousand agents share must not stop the loop for a second."""
    memory = InMemoryMemory()
    count = 10 * INDEXED_AT_ONCE
    for number in range(count):
        await memory.remember(note(f"sea {number}"))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert len(await recalled(memory, "sea")) == count
        nursery.cancel_scope.cancel()
    assert turns >= 9


async def test_a_fragment_forgotten_while_words_are_counted_is_not_found() -> None:
    """Two recalls and a forget meet in the middle, and each sees the truth."""
    memory = InMemoryMemory()
    count = 5 * INDEXED_AT_ONCE
    for number in range(count):
        await memory.remember(note(f"sea {number}"))
    results: list[int] = []

    async def recall() -> None:
        results.append(len(await recalled(memory, "sea")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(recall)
        nursery.start_soon(recall)
        nursery.start_soon(memory.forget, "mem-1")
        nursery.start_soon(memory.forget, f"mem-{count}")
    assert results == [count - 2, count - 2]


async def test_a_long_fragment_is_counted_once_and_not_after_it_was_forgotten() -> None:
    """Its words are found in a thread, and meanwhile another recall and a forget go on."""
    memory, fresh = InMemoryMemory(), InMemoryMemory()
    gone, stays = (f"sea {number} " + "wave " * 5 * AT_ONCE_CHARS for number in range(2))
    for one, contents in ((memory, (gone, stays, "sea")), (fresh, (stays, "sea"))):
        for content in contents:
            await one.remember(note(content))
    query = MemoryQuery(text="sea", scope="mine")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(memory.recall, query)
        nursery.start_soon(memory.recall, query)
        await wait_all_tasks_blocked()  # both count the words of the first one
        assert await memory.forget("mem-1")
    # How well a text fits depends on the lengths of all that were counted.
    found = [
        [(hit.fragment.content, hit.score) for hit in await one.recall(query)]
        for one in (memory, fresh)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 2


async def test_a_cancelled_call_changes_nothing() -> None:
    """Kept whole or not at all; gone or still there."""
    memory = InMemoryMemory()
    fragment_id = await memory.remember(note("cold sea"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await memory.remember(note("deep sea"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await memory.forget(fragment_id)
    with trio.CancelScope() as scope:
        scope.cancel()
        await memory.recall(MemoryQuery(text="sea", scope="mine"))
    assert scope.cancelled_caught
    assert await recalled(memory, "sea") == ["cold sea"]
    assert await memory.remember(note("deep sea")) == "mem-2"


async def test_a_search_that_was_cancelled_half_way_can_be_repeated() -> None:
    """Words that were counted stay counted, and none is counted twice."""
    memory = InMemoryMemory()
    count = 5 * INDEXED_AT_ONCE
    for number in range(count):
        await memory.remember(note(f"sea {number}"))
    with trio.CancelScope() as scope:

        async def cancel_soon() -> None:
            await trio.lowlevel.checkpoint()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_soon)
            await recalled(memory, "sea")
    assert scope.cancelled_caught
    words = memory._scopes["mine"].words
    assert words is not None
    assert 0 < len(words.waiting) < count
    assert len(await recalled(memory, "sea")) == count


async def test_a_memory_is_gone_when_nobody_holds_it() -> None:
    """It keeps nothing outside itself: no registry, no cache."""
    memory = InMemoryMemory()
    fragment = note("secret")
    await memory.remember(fragment)
    assert await recalled(memory, "secret") == ["secret"]
    await memory.forget("mem-1")
    assert not memory._scopes
    assert not memory._scope_of
