"""The hours, days and months in which limits hold. All begin in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

Period: TypeAlias = Literal["hour", "day", "month", "ever"]
"""How long a limit lasts. Periods begin in UTC: at the full hour, at midnight, on the first.
``ever`` has one period, as long as the store lasts."""

_FORMS: Final = {
    "hour": "hour %Y-%m-%dT%H",
    "day": "day %Y-%m-%d",
    "month": "month %Y-%m",
    "ever": "ever",
}

_MORE_THAN: Final = {"hour": timedelta(hours=1), "day": timedelta(1), "month": timedelta(31)}
"""The time that leads from the beginning of a period into the next one."""


def period_at(per: Period, now: float, latest: str) -> str:
    """Return the current period by the clock, but never one before *latest*.

    >>> period_at("day", 0.0, ""), period_at("month", 0.0, "month 2026-11")
    ('day 1970-01-01', 'month 2026-11')
    """
    return max(datetime.fromtimestamp(now, UTC).strftime(_FORMS[per]), latest)


def next_period(period: str) -> str:
    """Return when the period after *period* begins. Empty: there is none.

    >>> next_period("hour 2026-11-27T23"), next_period("day 2024-02-28")
    ('2026-11-28 00:00 UTC', '2024-02-29 00:00 UTC')
    >>> next_period("month 2026-12"), next_period("ever")
    ('2027-01-01 00:00 UTC', '')
    """
    per = period.partition(" ")[0]
    if per not in _MORE_THAN:
        return ""
    begins = datetime.strptime(period, _FORMS[per]).replace(tzinfo=UTC) + _MORE_THAN[per]
    return f"{begins.replace(day=1) if per == 'month' else begins:%Y-%m-%d %H:%M} UTC"
