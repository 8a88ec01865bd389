"""The only module that imports Hypothesis, with a helpful error if it is missing."""

from __future__ import annotations

from agentpool._install import as_installed

try:
    from hypothesis import stateful
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy as Strategy
except ImportError as exc:
    raise ImportError(
        as_installed(
            "PoolMachine and the strategies need Hypothesis; run: "
            "pip install 'trio-agentpool[testing]'; the rest of agentpool.testing works without it"
        )
    ) from exc

__all__ = ["Strategy", "st", "stateful"]
