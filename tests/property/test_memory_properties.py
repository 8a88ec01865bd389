"""What holds for every memory in memory, whatever is written and asked."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from agentpool.abc import Fragment, MemoryHit, MemoryQuery
from agentpool.memory import InMemoryMemory
from agentpool.memory._word_search import WordIndex, words

TEXTS = st.text(max_size=40) | st.lists(
    st.sampled_from(
        ["sea", "SEA", "cold", "Straße", "猫", "हिन्दी", "x_1", "İ", "\u017f", "K", "🙂"]
    ),
    max_size=8,
).map(" ".join)
SCOPES = st.sampled_from(["a", "a:b", "b", ""])
FRAGMENTS = st.builds(
    Fragment,
    content=TEXTS,
    scope=SCOPES,
    source=st.sampled_from(["conversation", "tool", "user", "system"]),
    created_at=st.integers(0, 3).map(float),
)


async def filled(
    fragments: Iterable[Fragment], *, limit: int | None = None
) -> tuple[InMemoryMemory, list[str]]:
    """Return a memory with *fragments*, and their ids."""
    memory = InMemoryMemory(max_fragments_per_scope=limit)
    return memory, [await memory.remember(fragment) for fragment in fragments]


async def find(
    memory: InMemoryMemory, text: str, scope: str, limit: int = 1_000
) -> tuple[MemoryHit, ...]:
    """Recall *text* in *scope*."""
    return await memory.recall(MemoryQuery(text=text, scope=scope, limit=limit))


@given(fragments=st.lists(FRAGMENTS, min_size=1, max_size=8), data=st.data())
async def test_what_was_remembered_is_recalled_by_each_of_its_words(
    fragments: list[Fragment], data: st.DataObject
) -> None:
    """In its scope by every word of its own, whatever the script; in no other scope by any."""
    memory, ids = await filled(fragments)
    number = data.draw(st.integers(0, len(fragments) - 1))
    fragment = fragments[number]
    parts = [part for part in fragment.content.split() if words(part)]
    for part in [*parts, *words(fragment.content)]:
        hits = await find(memory, part, fragment.scope)
        assert ids[number] in {hit.fragment.fragment_id for hit in hits}
    for scope in ("a", "a:b", "b", "", "nobody"):
        for hit in await find(memory, fragment.content, scope):
            assert hit.fragment.scope == scope


@given(fragments=st.lists(FRAGMENTS, max_size=8), text=TEXTS, scope=SCOPES, limit=st.integers(0, 9))
async def test_a_recall_is_in_order_and_every_hit_has_a_word_of_the_query(
    fragments: list[Fragment], text: str, scope: str, limit: int
) -> None:
    """Best first, the best at 1.0, ties newest first, no more than asked for."""
    memory, ids = await filled(fragments)
    hits = await find(memory, text, scope, limit)
    assert len(hits) <= limit
    numbers = [ids.index(hit.fragment.fragment_id) for hit in hits]
    order = [
        (-hit.score, -hit.fragment.created_at, -number)
        for hit, number in zip(hits, numbers, strict=True)
    ]
    assert order == sorted(order)
    assert all(0.0 < hit.score <= 1.0 for hit in hits)
    assert not hits or hits[0].score == 1.0
    wanted = set(words(text))
    if text.strip():
        assert all(wanted & set(words(hit.fragment.content)) for hit in hits)
        fitting = [f for f in fragments if f.scope == scope and wanted & set(words(f.content))]
    else:
        fitting = [f for f in fragments if f.scope == scope]
    assert len(hits) == min(limit, len(fitting))


@given(fragments=st.lists(FRAGMENTS, min_size=1, max_size=8), text=TEXTS, data=st.data())
async def test_a_memory_that_forgot_is_as_if_it_had_never_known(
    fragments: list[Fragment], text: str, data: st.DataObject
) -> None:
    """Not even the scores of what is left tell of it."""
    memory, ids = await filled(fragments)
    searched_before = data.draw(st.booleans())
    if searched_before:
        for scope in ("a", "a:b", "b", ""):
            await find(memory, "sea", scope)
    forgotten = data.draw(st.sets(st.sampled_from(range(len(fragments)))))
    for number in forgotten:
        assert await memory.forget(ids[number])
        assert not await memory.forget(ids[number])
    fresh, _ = await filled(f for n, f in enumerate(fragments) if n not in forgotten)
    for scope in ("a", "a:b", "b", ""):
        left = await find(memory, text, scope)
        assert [(hit.fragment.content, hit.score) for hit in left] == [
            (hit.fragment.content, hit.score) for hit in await find(fresh, text, scope)
        ]


@given(
    fragments=st.lists(FRAGMENTS, max_size=12),
    text=TEXTS,
    limit=st.integers(1, 4),
    searched=st.booleans(),
)
async def test_a_bounded_memory_is_one_that_knows_only_the_latest(
    fragments: list[Fragment], text: str, limit: int, *, searched: bool
) -> None:
    """What was put out for want of room leaves no trace, and is counted."""
    memory = InMemoryMemory(max_fragments_per_scope=limit)
    for fragment in fragments:
        await memory.remember(fragment)
        if searched:
            await find(memory, "sea", fragment.scope)
    kept: list[Fragment] = []
    for scope in ("a", "a:b", "b", ""):
        latest = [f for f in fragments if f.scope == scope][-limit:]
        kept += latest
        fresh, _ = await filled(latest)
        assert [(h.fragment.content, h.score) for h in await find(memory, text, scope)] == [
            (h.fragment.content, h.score) for h in await find(fresh, text, scope)
        ]
    assert memory.statistics().fragments == len(kept)
    assert memory.statistics().evicted == len(fragments) - len(kept)


@given(text=st.text())
def test_words_have_no_case_and_no_signs(text: str) -> None:
    """So that a query, which a model writes its own way, meets the text."""
    found = words(text)
    assert all(word and not word.isspace() for word in found)
    assert words(" ".join(found)) == found
    assert words(text.casefold()) == found


@given(texts=st.lists(TEXTS, max_size=6), query=TEXTS)
def test_an_index_gives_every_text_with_a_common_word_a_score(texts: list[str], query: str) -> None:
    """However common the word is, a hit is better than none."""
    index = WordIndex()
    for key, text in enumerate(texts):
        index.add(key, words(text))
    scores = index.search(words(query))
    wanted = set(words(query))
    assert set(scores) == {k for k, text in enumerate(texts) if wanted & set(words(text))}
    assert all(score > 0 for score in scores.values())
    for key in range(len(texts)):
        index.remove(key)
    assert index.search(words(query)) == {}
