"""The only door to Hypothesis, with a helpful error if it is missing."""

from __future__ import annotations

try:
    from hypothesis import stateful
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy as Strategy
except ImportError as exc:
    msg = "PoolMachine and the strategies need Hypothesis; run: pip install hypothesis"
    raise ImportError(msg) from exc

__all__ = ["Strategy", "st", "stateful"]
