"""Finds how long a provider asks to wait, wherever it says so.

Rules:

1. ``retry-after-ms`` has precedence over ``retry-after``, which is seconds, a date or words; both
   may begin with ``x-``. Of several numbers in one header the largest counts. Next comes the wait
   named in the body, and last the time at which a limit is full again.
2. A time of day is compared with the answer's own ``date``, so no clock is needed here. If an
   answer has no date, the driver adds one from its own clock; without a date a time of day is
   ignored.
3. If several limits are full again at different times, the latest counts. Limits that are not used
   up are left out, if the provider says which these are.
4. A wait of more than a day counts as never, and a wait is never below zero.

Source: RFC 9110 section 10.2.3; https://platform.openai.com/docs/guides/rate-limits;
https://platform.claude.com/docs/en/api/rate-limits; google.rpc.RetryInfo in
https://cloud.google.com/apis/design/errors; https://console.groq.com/docs/rate-limits;
draft-ietf-httpapi-ratelimit-headers, and Azure's ``x-ms-retry-after-ms`` as the official
clients of OpenAI read it (2026-11).
"""

from __future__ import annotations

import datetime as dt
import email.utils
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Final

# A provider that asks for more has lost its clock; a day is as good as never.
_MAX_SECONDS: Final = 86_400.0

# Seconds since 1970 are ten digits long until 2286, and milliseconds thirteen.
_EPOCH_SECONDS: Final = 1e9
_EPOCH_MILLISECONDS: Final = 1e12

_UNITS: Final[Mapping[str, float]] = {
    "d": 86_400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
_STEP: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|us|µs|ns|d|h|m|s)(?![a-z])")
_SPAN: Final = re.compile(rf"\s*(?:pt)?(?:{_STEP.pattern}\s*(?:,\s*|and\s+)?)+")
_WORDS: Final = (
    (re.compile(r"\bmilliseconds?\b"), "ms"),
    (re.compile(r"\bseconds?\b|\bsecs?\b"), "s"),
    (re.compile(r"\bminutes?\b|\bmins?\b"), "m"),
    (re.compile(r"\bhours?\b|\bhrs?\b"), "h"),
    (re.compile(r"\bdays?\b"), "d"),
)
# What stands between is bounded, and a number is looked at once: the text is the provider's,
# and each beginning would look through all that follows.
_ASKS: Final = re.compile(
    r"(?:try again|retry|wait|available|reset)[a-z ]{0,80}?\b(?:in|after|for)\b"
    r"|\bwait\b(?: (?:at least|about|another|up to)\b)?"
)
_LEFT: Final = re.compile(r"(?<![\d.])([\d.]++\s*+[a-zµ]++) (?:left|remaining)\b")

_RESET: Final = re.compile(r"(?:x-)?ratelimit-reset(-\w+)*|anthropic-ratelimit-[\w-]+-reset")

# The draft that sums the headers of limits up in one: "default";r=0;t=12.
_IETF: Final = re.compile(r";\s*t=(\d+)")

_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms")
_PLAIN: Final = ("retry-after", "x-retry-after")


def retry_after_seconds(headers: Mapping[str, str], text: str = "") -> float | None:
    """Return the seconds that a provider asks to wait. ``None``: it does not say.

    Args:
        headers: The headers of its answer, with names in lower case.
        text: The words and fields of its body.
    """
    for name in _MILLISECONDS:
        number = _latest(headers.get(name))
        if number is not None:
            return _bounded(number / 1000)
    ways: tuple[Callable[[], float | None], ...] = (
        *(partial(_moment, headers.get(name, ""), headers) for name in _PLAIN),
        lambda: _asked(text),
        lambda: _full_again(headers),
    )
    found = (way() for way in ways)
    return next((_bounded(seconds) for seconds in found if seconds is not None), None)


def seconds_of(text: str, begin: int = 0) -> float | None:
    """Return the seconds of a span such as ``1m30.5s``. ``None``: no span starts at *begin*.

    Args:
        text: The text to look in.
        begin: The index in *text* at which the span must start.

    >>> seconds_of("6m0s"), seconds_of("37s"), seconds_of("500ms"), seconds_of("soon")
    (360.0, 37.0, 0.5, None)
    """
    match = _SPAN.match(text, begin)
    if match is None:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _STEP.findall(match[0]))


def _moment(text: str, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until *text*, which is a span, a date, or a point in time."""
    number = _latest(text)
    if number is not None:
        if number < _EPOCH_SECONDS or math.isinf(number):
            return number
        then = number / 1000 if number >= _EPOCH_MILLISECONDS else number
        now = _time_of(headers.get("date", ""))
        return None if now is None else then - now
    span = seconds_of(_in_units(text))
    if span is not None:
        return span
    then_at, now = _time_of(text), _time_of(headers.get("date", ""))
    return None if then_at is None or now is None else then_at - now


def _time_of(text: str) -> float | None:
    """Return a date, in either of the two usual formats, as seconds since 1970."""
    try:
        found = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        try:
            found = dt.datetime.fromisoformat(text)
        except ValueError:
            return None
    # A time without a zone is any of 24.
    return None if found.tzinfo is None else found.timestamp()


def _asked(text: str) -> float | None:
    """Return the seconds in a phrase such as "try again in 1m30s"."""
    plain = _in_units(text)
    places = (match.end() for match in _ASKS.finditer(plain))
    left = (match.start(1) for match in _LEFT.finditer(plain))
    spans = (seconds_of(plain, place) for place in chain(places, left))
    return next((seconds for seconds in spans if seconds is not None), None)


def _in_units(text: str) -> str:
    """Return *text* with units in place of words: ``2 m`` for "2 minutes"."""
    plain = text.lower()
    for pattern, unit in _WORDS:
        plain = pattern.sub(unit, plain)
    return plain


def _full_again(headers: Mapping[str, str]) -> float | None:
    found = dict(_resets(headers))
    empty = [seconds for name, seconds in found.items() if _remaining(name, headers) == 0]
    summed = [float(one) for one in _IETF.findall(headers.get("ratelimit", ""))]
    return max(empty or [*found.values(), *summed], default=None)


def _resets(headers: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for name, value in headers.items():
        if _RESET.fullmatch(name):
            seconds = _moment(value, headers)
            if seconds is not None:
                yield name, seconds


def _remaining(name: str, headers: Mapping[str, str]) -> float | None:
    return _number(headers.get(name.replace("reset", "remaining")))


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number == number else None  # noqa: PLR0124  # "nan" is a float


def _latest(text: str | None) -> float | None:
    """Return a number, or the largest of several, from a repeated header or a list."""
    found = [_number(one) for one in (text or "").split(",")]
    known = [one for one in found if one is not None]
    return max(known) if len(known) == len(found) else None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), _MAX_SECONDS)
