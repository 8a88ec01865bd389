"""Counts and US dollars, written for people."""

from __future__ import annotations

from typing import Final

_LEAST_USD: Final = 0.0001


def counted(count: int, noun: str) -> str:
    """Return *count* with *noun*, in the plural unless *count* is 1.

    >>> counted(1, "agent"), counted(1200, "agent")
    ('1 agent', '1,200 agents')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def dollars(cost_usd: float) -> str:
    """Return US dollars as text. A tiny amount is not shown as zero.

    >>> dollars(0.0), dollars(0.00001), dollars(1234.5)
    ('$0', '<$0.0001', '$1,234.5000')
    """
    if 0 < cost_usd < _LEAST_USD:
        return f"<${_LEAST_USD}"
    return f"${cost_usd:,.4f}" if cost_usd else "$0"
