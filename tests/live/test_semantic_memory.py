"""Searching by meaning with the real model, beside searching by words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentpool.abc import Fragment, Memory, MemoryQuery
from agentpool.memory import open_semantic_memory, open_sqlite_memory

pytestmark = pytest.mark.live

NOTES = (
    ("The front door key lies under the mat.", "How do I get into the house?"),
    ("Bread is baked at 230 degrees for forty minutes.", "How hot must the oven be for a loaf?"),
    ("The invoice for March was paid by the accountant.", "Has the bill of spring been settled?"),
    ("Whales breathe air and must come to the surface.", "Why do big sea mammals swim up?"),
    ("The meeting with the lawyers is moved to Friday.", "When will we see the attorneys?"),
    ("Our server runs out of memory every night at two.", "Why does the machine crash at 2 am?"),
    ("The cat is allergic to fish.", "What must my pet not eat?"),
    ("Anna will take over the sales team in autumn.", "Who leads those who sell later this year?"),
    ("The train to Lyon leaves from platform nine.", "Where do I board to go to Lyon?"),
    (
        "Plants on the balcony need water twice a week.",
        "How often must I look after the flowers?",
    ),
)
"""What is kept, and a question that asks for it in other words."""


async def found_first(memory: Memory) -> int:
    """Return how many of the questions find their note in the first place."""
    for content, _ in NOTES:
        await memory.remember(Fragment(content=content, scope="mine"))
    first = 0
    for content, question in NOTES:
        hits = await memory.recall(MemoryQuery(text=question, scope="mine", limit=1))
        first += bool(hits) and hits[0].fragment.content == content
    return first


async def test_meaning_finds_more_than_words(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A small set made by hand: it tells the direction, not the distance."""
    async with open_sqlite_memory(tmp_path / "words.db") as memory:
        by_words = await found_first(memory)
    async with open_semantic_memory(tmp_path / "meaning.db") as memory:
        by_meaning = await found_first(memory)
    record_property("found first by words", by_words)
    record_property("found first by meaning", by_meaning)
    assert by_meaning >= max(by_words + 2, 7)
