"""What every memory must do, whatever it is made of.

A memory that is added joins ``MEMORIES``; nothing else here changes.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agentpool.abc import Fragment, Memory, MemoryHit, MemoryQuery
from agentpool.memory import InMemoryMemory, open_sqlite_memory


@asynccontextmanager
async def open_in_memory() -> AsyncIterator[Memory]:
    """Open the one in this process."""
    yield InMemoryMemory()  # noqa: ASYNC119  # nothing to clean up


@asynccontextmanager
async def open_in_a_file() -> AsyncIterator[Memory]:
    """Open one in a file of its own."""
    with TemporaryDirectory() as folder:
        async with open_sqlite_memory(Path(folder, "memory.db")) as memory:
            yield memory  # noqa: ASYNC119  # pytest-trio leaves it in order


MEMORIES: dict[str, Callable[[], AbstractAsyncContextManager[Memory]]] = {
    "in memory": open_in_memory,
    "sqlite": open_in_a_file,
}


@pytest.fixture(params=list(MEMORIES))
async def memory(request: pytest.FixtureRequest) -> AsyncIterator[Memory]:
    """Give an empty memory of each kind."""
    async with MEMORIES[request.param]() as opened:
        yield opened


async def keep(
    memory: Memory,
    content: str,
    *,
    scope: str = "mine",
    source: str = "conversation",
    at: float = 0.0,
) -> str:
    """Remember *content*."""
    return await memory.remember(
        Fragment(content=content, scope=scope, source=source, created_at=at)
    )


async def find(
    memory: Memory,
    text: str,
    *,
    scope: str = "mine",
    limit: int = 100,
    source: str | None = None,
    since: float | None = None,
) -> tuple[MemoryHit, ...]:
    """Recall *text*."""
    query = MemoryQuery(text=text, scope=scope, limit=limit, source=source, since=since)
    return await memory.recall(query)


async def contents(memory: Memory, text: str, *, scope: str = "mine") -> list[str]:
    """Return the contents that *text* recalls, best first."""
    return [hit.fragment.content for hit in await find(memory, text, scope=scope)]


async def test_a_fragment_comes_back_as_it_was_given(memory: Memory) -> None:
    """The original makes up the source and the time."""
    fragment_id = await keep(memory, "the sea: 'cold' \n ü🙂", source="tool", at=1.5)
    assert fragment_id
    (hit,) = await find(memory, "sea")
    assert hit.fragment == Fragment(
        content="the sea: 'cold' \n ü🙂",
        scope="mine",
        source="tool",
        fragment_id=fragment_id,
        created_at=1.5,
    )
    assert hit.score == 1.0


async def test_a_question_in_natural_language_finds_what_it_is_about(
    memory: Memory,
) -> None:
    """The original needs the whole query to stand in the text."""
    await keep(memory, "Trio is a library for structured concurrency.")
    await keep(memory, "Bread is baked at 230 degrees.")
    assert await contents(memory, "What do you know about the concurrency of Trio?") == [
        "Trio is a library for structured concurrency."
    ]
    assert await contents(memory, "how hot must BREAD get?") == ["Bread is baked at 230 degrees."]
    assert await contents(memory, "nothing of that") == []


async def test_scores_reward_what_fits_and_not_what_is_short(memory: Memory) -> None:
    """The original's score is the length of the query over that of the text."""
    await keep(memory, "cold")
    await keep(memory, "the cold north wind blows over the cold north sea")
    await keep(memory, "warm bread with butter")
    hits = await find(memory, "cold north wind")
    assert [hit.fragment.content[:8] for hit in hits] == ["the cold", "cold"]
    assert hits[0].score == 1.0
    assert 0.0 < hits[1].score < 1.0


async def test_scopes_never_run_into_each_other(memory: Memory) -> None:
    """The original joins names with a colon, and a:b + c is a + b:c."""
    scopes = ["a", "a:b", "b", "", "A", "a%", "a*", 'a"', "a ", "ä", "a\u0308"]
    for scope in scopes:
        await keep(memory, f"sea of {scope!r}", scope=scope)
    for scope in scopes:
        assert await contents(memory, "sea", scope=scope) == [f"sea of {scope!r}"]
        assert await contents(memory, "", scope=scope) == [f"sea of {scope!r}"]
    assert await contents(memory, "sea", scope="nobody") == []
    assert await contents(memory, "", scope="nobody") == []


async def test_what_was_forgotten_is_gone(memory: Memory) -> None:
    """In the original, forgetting by the id that it gave out deletes nothing."""
    first = await keep(memory, "secret sea")
    second = await keep(memory, "open sea")
    assert await contents(memory, "sea") == ["open sea", "secret sea"]
    assert await memory.forget(first)
    assert await contents(memory, "sea") == ["open sea"]
    assert await contents(memory, "secret") == []
    assert await contents(memory, "") == ["open sea"]
    assert not await memory.forget(first)
    assert not await memory.forget("no such id")
    assert await memory.forget(second)
    assert await contents(memory, "") == []


async def test_an_id_is_never_given_out_again(memory: Memory) -> None:
    """A model that forgets by an old id must not hit something new."""
    first = await keep(memory, "a")
    await memory.forget(first)
    assert await keep(memory, "a") != first


async def test_the_same_content_can_be_remembered_twice(memory: Memory) -> None:
    """Each is a fragment of its own, and one can be forgotten."""
    first, second = await keep(memory, "sea"), await keep(memory, "sea")
    assert first != second
    await memory.forget(first)
    (hit,) = await find(memory, "sea")
    assert hit.fragment.fragment_id == second


async def test_filters_by_source_and_time_work(memory: Memory) -> None:
    """The original ignores them."""
    await keep(memory, "sea one", source="user", at=1.0)
    await keep(memory, "sea two", source="tool", at=2.0)
    await keep(memory, "sea three", source="user", at=3.0)
    for text in ("sea", ""):
        by_user = await find(memory, text, source="user")
        assert {hit.fragment.content for hit in by_user} == {"sea one", "sea three"}
        late = await find(memory, text, since=2.0)
        assert {hit.fragment.content for hit in late} == {"sea two", "sea three"}
        (both,) = await find(memory, text, source="user", since=2.0)
        assert both.fragment.content == "sea three"
        assert both.score == 1.0
        assert await find(memory, text, source="system") == ()


async def test_no_words_recall_the_newest(memory: Memory) -> None:
    """By their time; of the same time, the one that was remembered last."""
    await keep(memory, "b", at=2.0)
    await keep(memory, "a", at=1.0)
    await keep(memory, "c", at=2.0)
    for text in ("", "  \n"):
        assert await contents(memory, text) == ["c", "b", "a"]
        assert {hit.score for hit in await find(memory, text)} == {1.0}
    (newest,) = await find(memory, "", limit=1)
    assert newest.fragment.content == "c"


async def test_signs_without_words_recall_nothing(memory: Memory) -> None:
    """There was something to look for, and nothing has it."""
    await keep(memory, "sea")
    assert await contents(memory, "?! 🙂") == []


async def test_what_fits_equally_well_comes_newest_first(memory: Memory) -> None:
    """So that a recall has one right answer, and a run can be repeated."""
    for content, at in (("sea x", 1.0), ("sea y", 3.0), ("sea z", 2.0), ("sea w", 2.0)):
        await keep(memory, content, at=at)
    assert await contents(memory, "sea") == ["sea y", "sea w", "sea z", "sea x"]


@pytest.mark.parametrize(("limit", "count"), [(3, 3), (1, 1), (99, 9), (0, 0), (-1, 0)])
async def test_a_recall_returns_no_more_than_its_limit(
    memory: Memory, limit: int, count: int
) -> None:
    """A prompt has only so much room."""
    for number in range(9):
        await keep(memory, f"sea {number}")
    assert len(await find(memory, "sea", limit=limit)) == count
    assert len(await find(memory, "", limit=limit)) == count


@pytest.mark.parametrize(
    "text",
    [
        '"sea',
        "sea AND",
        "sea:x",
        "sea*",
        "-sea",
        "(sea",
        "NEAR(sea)",
        "sea^2",
        "'; DROP TABLE",
        "\0",
    ],
)
async def test_a_query_is_words_and_no_language(memory: Memory, text: str) -> None:
    """What a model writes must not be read as operators by a search engine."""
    await keep(memory, "cold sea drop table near and x 2")
    assert len(await find(memory, text)) == (0 if text == "\0" else 1)


@pytest.mark.parametrize(
    "word", ["Straße", "CAFÉ", "naïve", "猫", "हिन्दी", "Ωμέγα", "Привет", "한국어", "x_1"]
)
async def test_words_of_every_script_are_found(memory: Memory, word: str) -> None:
    """Not everybody writes English."""
    await keep(memory, f"one {word} two")
    await keep(memory, "something else")
    assert await contents(memory, word) == [f"one {word} two"]
    assert await contents(memory, f"({word.swapcase()})!") == [f"one {word} two"]
