"""Reads the token counts of an answer, as far as its provider reports them.

Rules:

1. A missing count is unknown, not zero: with zero, a budget would be paid back in full.
2. A count that no model can reach is ignored.
3. Cached tokens are always included in those sent, and thoughts in those that came back, even if
   the provider counts them separately. If the total is larger than both together, the difference is
   added.
"""

from __future__ import annotations

from typing import Final

from agentpool._messages import Usage

_MAX_TOKENS: Final = 10**12
"""The highest plausible count: more than any model reads. A higher one is a mistake."""


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
        written: Tokens that the model wrote.
        cached: Tokens of *sent* that were read from the provider's cache.
        thought: Tokens of thoughts, either included in *written* or counted separately.
        kept: Tokens of *sent* that were written to the cache.
        kept_an_hour: Tokens of *kept* that the cache keeps for an hour.
        total: All tokens. ``None``: the provider did not say.
        has_cached: Whether *sent* includes *cached* and *kept*.
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
