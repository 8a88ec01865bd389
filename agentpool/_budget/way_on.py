"""What can be done where a budget has too little left, in words."""

from __future__ import annotations

from typing import Final

from agentpool._budget.period import next_period

_GREATER: Final = "; increase the limit to go on"
_OR_THEN: Final = ": increase it, or go on then"
_FOR_EVER: Final = ": increase it to go on"

KEPT_END: Final = (
    "; the journal keeps this end, whatever the limit is now: another journal asks it again, and "
    "in Python also another key or a second map"
)
"""What can be done where a journal keeps that a budget has stopped a run."""


def way_on(period: str) -> str:
    """Return what can be done when too little is left for *period*. Empty: there is no period.

    >>> way_on("day 2024-02-28")
    '; the limit is for the day 2024-02-28 (UTC), and whole again at 2024-02-29 00:00 UTC: \
increase it, or go on then'
    """
    if not period:
        return _GREATER
    if begins := next_period(period):
        return f"; the limit is for the {period} (UTC), and whole again at {begins}{_OR_THEN}"
    return f"; the limit is for as long as the store lasts{_FOR_EVER}"


def kept_end(text: str) -> str:
    """Return the *text* of a budget's error, for an end that a journal keeps.

    No greater limit and no later period asks such a run again, so the text must not say so.

    >>> kept_end("2 are wanted; increase the limit to go on").partition(", whatever")[0]
    '2 are wanted; the journal keeps this end'
    """
    for way in (_GREATER, _OR_THEN, _FOR_EVER):
        text = text.removesuffix(way)
    return text + KEPT_END
