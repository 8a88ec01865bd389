"""Token counts of an answer, as far as its provider reports them.

Rules:

1. What was not measured is unknown, and not zero: a budget would be paid back in full.
2. A count that no model can reach is none.
3. Tokens of a cache are counted among those that were sent, whatever the provider does.
"""

from __future__ import annotations

from typing import Final

from agentpool._messages import Usage

_MAX_TOKENS: Final = 10**12
"""More than any model reads. A count above is a mistake."""


def count_of(number: float | None) -> int:
    """Return a token count; 0 if it is missing or impossible."""
    return int(number) if number is not None and abs(number) <= _MAX_TOKENS else 0


def counted(
    sent: float | None,
    written: float | None,
    *,
    cached: int = 0,
    thought: int = 0,
    kept: int = 0,
    has_cached: bool = True,
) -> Usage | None:
    """Return the usage of an answer. ``None``: the provider did not report it.

    Args:
        sent: Tokens that were sent.
        written: Tokens that came back.
        cached: Those of *sent* that came from the provider's cache.
        thought: Those of *written* that were thoughts.
        kept: Those of *sent* that were written to the cache.
        has_cached: Whether *sent* counts *cached* and *kept*.
    """
    if sent is None or written is None or max(abs(sent), abs(written)) > _MAX_TOKENS:
        return None
    if not sent and not written and not cached and not kept:
        return None  # no answer takes nothing: it was not measured
    # Some count apart what others count in; more cannot come from the cache than was sent.
    total = int(sent) if has_cached and cached + kept <= sent else int(sent) + cached + kept
    return Usage(total, int(written), cached, thought, cache_write_tokens=kept)
