"""Token counts of an answer, as far as its provider reports them.

Rules:

1. What was not measured is unknown, and not zero: a budget would be paid back in full.
2. A count that no model can reach is none.
3. Tokens of a cache are counted among those that were sent, whatever the provider does, and
   thoughts among those that came back. A total that is larger than both has what they lack.
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
    kept_an_hour: int = 0,
    total: float | None = None,
    has_cached: bool = True,
) -> Usage | None:
    """Return the usage of an answer. ``None``: the provider did not report it.

    Args:
        sent: Tokens that were sent.
        written: Tokens that came back.
        cached: Those of *sent* that came from the provider's cache.
        thought: The thoughts, counted in *written* or beside it.
        kept: Those of *sent* that were written to the cache.
        kept_an_hour: Those of *kept* that the cache keeps for an hour.
        total: All tokens. ``None``: the provider did not say.
        has_cached: Whether *sent* counts *cached* and *kept*.
    """
    if sent is None or written is None or max(abs(sent), abs(written)) > _MAX_TOKENS:
        return None
    if not sent and not written and not cached and not kept:
        return None  # no answer takes nothing: it was not measured
    if min(sent, written, cached, thought, kept) < 0:
        return Usage(int(sent), int(written), cached, thought, kept, kept_an_hour)
    # Some count apart what others count in; more cannot come from the cache than was sent, and
    # no more can be thoughts than was written.
    all_sent = int(sent) if has_cached and cached + kept <= sent else int(sent) + cached + kept
    all_written = int(written) if thought <= written else int(written) + thought
    rest = count_of(total) - all_sent - all_written
    if rest > 0 and rest == cached + kept:
        all_sent += rest
    elif rest > 0:
        all_written += rest
    return Usage(all_sent, all_written, cached, thought, kept, kept_an_hour)
