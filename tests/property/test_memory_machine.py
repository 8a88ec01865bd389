"""Both memories against one model, through whatever is done to them, in whatever order."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias, final

import attrs
from hypothesis import given
from hypothesis import strategies as st

from agentpool.abc import Fragment, Memory, MemoryQuery
from agentpool.memory import InMemoryMemory, open_sqlite_memory
from agentpool.memory._word_search import words

WORDS = ["sea", "SEA", "cold", "Straße", "猫", "हिन्दी", "x_1", "\0", '"', "🙂"]
CONTENTS = st.text(max_size=20) | st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
SCOPES = st.sampled_from(["a", "a:b", "b", "", "1", 'a" OR "b'])
SOURCES = st.sampled_from(["conversation", "tool"])
TIMES = st.integers(0, 3).map(float)


@attrs.frozen
class Remember:
    """Keep a fragment."""

    fragment: Fragment


@attrs.frozen
class Forget:
    """Drop the fragment that was remembered as number so and so, or an id that never was."""

    number: int


@attrs.frozen
class Recall:
    """Look for something."""

    query: MemoryQuery


@attrs.frozen
class Reopen:
    """Close the file and open it again."""


Step: TypeAlias = Remember | Forget | Recall | Reopen
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        Remember,
        st.builds(Fragment, content=CONTENTS, scope=SCOPES, source=SOURCES, created_at=TIMES),
    ),
    st.builds(Forget, st.integers(0, 8)),
    st.builds(
        Recall,
        st.builds(
            MemoryQuery,
            text=CONTENTS,
            scope=SCOPES,
            limit=st.integers(0, 9),
            source=st.none() | SOURCES,
            since=st.none() | TIMES,
        ),
    ),
    st.just(Reopen()),
)


@final
@attrs.define(eq=False)
class Model:
    """What a memory should know: a list, looked through from one end to the other."""

    kept: dict[int, Fragment] = attrs.field(factory=dict)
    count: int = 0

    def fitting(self, query: MemoryQuery) -> list[int]:
        """Return the numbers of all that fits, newest first."""
        wanted = set(words(query.text))
        found = [
            number
            for number, fragment in self.kept.items()
            if fragment.scope == query.scope
            and query.source in {None, fragment.source}
            and (query.since is None or fragment.created_at >= query.since)
            and (not query.text.strip() or wanted & set(words(fragment.content)))
        ]
        return sorted(found, key=lambda n: (-self.kept[n].created_at, -n))


async def check_recall(memory: Memory, ids: list[str], model: Model, query: MemoryQuery) -> None:
    """Compare a recall with the model."""
    hits = await memory.recall(query)
    found = [ids.index(hit.fragment.fragment_id) for hit in hits]
    fitting = model.fitting(query)
    assert len(found) == min(query.limit, len(fitting))
    assert set(found) <= set(fitting)
    assert len(set(found)) == len(found)
    order = [(-hit.score, fitting.index(number)) for hit, number in zip(hits, found, strict=True)]
    assert order == sorted(order)
    assert all(0.0 < hit.score <= 1.0 for hit in hits)
    assert not hits or hits[0].score == 1.0
    for hit, number in zip(hits, found, strict=True):
        kept = model.kept[number]
        assert (hit.fragment.content, hit.fragment.scope) == (kept.content, kept.scope)
        assert (hit.fragment.source, hit.fragment.created_at) == (kept.source, kept.created_at)
    if not query.text.strip():
        assert found == fitting[: query.limit]


@given(steps=st.lists(STEPS, max_size=12))
async def test_both_memories_do_what_a_plain_list_would(steps: list[Step]) -> None:
    """Nothing is lost, found twice, found elsewhere, or found after it was forgotten."""
    with TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            path = Path(folder, "memory.db")
            in_file: Memory = await stack.enter_async_context(open_sqlite_memory(path))
            in_memory = InMemoryMemory()
            ids: dict[str, list[str]] = {"file": [], "memory": []}
            model = Model()
            for step in steps:
                if isinstance(step, Reopen):
                    await stack.aclose()
                    in_file = await stack.enter_async_context(open_sqlite_memory(path))
                for name, memory in (("file", in_file), ("memory", in_memory)):
                    if isinstance(step, Remember):
                        fragment_id = await memory.remember(step.fragment)
                        assert fragment_id not in ids[name]
                        ids[name].append(fragment_id)
                    elif isinstance(step, Forget):
                        known = step.number < len(ids[name])
                        fragment_id = ids[name][step.number] if known else "mem-999999"
                        assert await memory.forget(fragment_id) is (step.number in model.kept)
                    elif isinstance(step, Recall):
                        await check_recall(memory, ids[name], model, step.query)
                if isinstance(step, Remember):
                    model.kept[model.count] = step.fragment
                    model.count += 1
                elif isinstance(step, Forget):
                    model.kept.pop(step.number, None)
            everything = [MemoryQuery(text="", scope=s, limit=99) for s in ("a", "a:b", "b", "")]
            for query in everything:
                await check_recall(in_file, ids["file"], model, query)
                await check_recall(in_memory, ids["memory"], model, query)
