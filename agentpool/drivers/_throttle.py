"""Estimates how many requests a provider accepts now, from its limits and its answers.

Rules:

1. There are never more requests in flight than the limit.
2. The requests that begin in any 60 seconds, and their tokens, do not exceed what the provider
   allows in a minute. A single request that is larger than that is still sent, alone.
3. Requests are spread over the minute: after a quiet time, two seconds' worth may go together, and
   then they go one by one.
4. Tokens are estimated before a request and corrected after it. If they stay unknown, the estimate
   is kept.
5. The limit in flight is found by trial. It starts small. Up to the mark, the value that was too
   much last time, it grows by one with each answer (slow start). Above the mark, it grows by one
   with each round of answers. It grows only when it is fully used.
6. A refusal (a rate limit, or overload) closes the gate for all requests, for the time that it
   names plus a random part. It also halves the mark, and the limit starts again at one: the first
   request after the pause is a trial, and its answer lets two more in.
7. Requests that began before the last refusal do not change the limit: if they are refused, the
   gate may stay closed for longer, but the limit is not cut again.
8. For some time after a pause the limit does not grow above the mark.

The caller passes the time, in seconds on any clock that does not go back.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, final

import attrs

from agentpool._errors import UsageError

MINUTE_SECONDS: Final = 60.0

BURST_SECONDS: Final = 2.0
"""How many seconds' worth of requests may go together after a quiet time. A provider that says 60 a
minute may count one a second."""

START_IN_FLIGHT: Final = 8
"""The limit in flight before anything is known: as many as a pool of the usual size sends."""

PAUSE_SECONDS: Final = 1.0
"""The pause after a refusal that names no time. It doubles with each further refusal."""

MAX_PAUSE_SECONDS: Final = 60.0
"""The longest such pause: the minute in which providers count."""

SPREAD: Final = 0.1
"""The most that a random part adds to a pause, as a share of its length: programs that were refused
together should not come back together."""

COOL_DOWN_SECONDS: Final = 10.0
"""How long after a pause the limit does not grow above the mark: the time of a few answers."""


@final
class _Spent:
    """One request that was let in, with its time and tokens."""

    __slots__ = ("amount", "at")

    def __init__(self, at: float, amount: int) -> None:
        self.at = at
        self.amount = amount


@final
class _Minute:
    """The amounts admitted in the last minute, under a limit per minute."""

    __slots__ = ("_limit", "_paced_until", "_promised", "_spent", "_total")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spent: deque[_Spent] = deque()
        self._total = 0
        self._promised = 0
        """The amounts of requests that were let in and have not begun."""
        self._paced_until = -math.inf
        """When everything that was let in would have gone if it were evenly spread."""

    def total(self, now: float) -> int:
        """Return the sum of the last minute."""
        while self._spent and self._spent[0].at + MINUTE_SECONDS <= now:
            self._total -= self._spent.popleft().amount
        return self._total

    def ready_at(self, amount: int, now: float) -> float:
        """Return when *amount* may be let in. ``inf``: not before another request begins."""
        left = self.total(now) + self._promised
        ready_at = self._paced_until - BURST_SECONDS
        if left + amount <= self._limit or not left:
            return ready_at
        for spent in self._spent:
            left -= spent.amount
            if left + amount <= self._limit or not left:
                return max(ready_at, spent.at + MINUTE_SECONDS)
        return math.inf

    def let_in(self, amount: int, now: float) -> None:
        self._promised += amount
        self._pace(amount, now)

    def begin(self, amount: int, now: float) -> _Spent:
        self._promised -= amount
        self._total += amount
        spent = _Spent(now, amount)
        self._spent.append(spent)
        return spent

    def give_back(self, amount: int, now: float) -> None:
        """Remove an admitted amount that never began."""
        self._promised -= amount
        self._pace(-amount, now)

    def correct(self, spent: _Spent, amount: int, now: float) -> None:
        """Replace an estimate by the tokens that were used."""
        more = amount - spent.amount
        self._pace(more, now)
        if spent.at + MINUTE_SECONDS > now:
            # Or it was forgotten, or is about to be, with the amount that it has.
            spent.amount = amount
            self._total += more

    def _pace(self, amount: int, now: float) -> None:
        self._paced_until = max(self._paced_until, now) + amount * MINUTE_SECONDS / self._limit


@final
@attrs.define(eq=False, repr=False)
class Passage:
    """One request that was let in. Tell the throttle when it begins and how it ends."""

    tokens: int
    """The estimated tokens of question and answer."""
    round: int
    """How often the limit had been cut when the request was let in."""
    number: int
    """The number of the request, from 1."""
    tokens_spent: _Spent | None = None
    has_begun: bool = False


@final
@attrs.define(eq=False, repr=False)
class Throttle:
    """Decides when a request may go to a provider."""

    max_in_flight: int | None = None
    """The highest limit. ``None``: it may grow without end."""
    requests_per_minute: int | None = None
    """The most requests that begin in a minute. ``None``: no limit is known."""
    tokens_per_minute: int | None = None
    """The most tokens of questions and answers in a minute. ``None``: no limit is known."""
    in_flight: int = attrs.field(init=False, default=0)
    """Requests that were let in and have not ended."""
    closed_until: float = attrs.field(init=False, default=-math.inf)
    """The end of the last pause."""
    answered: int = attrs.field(init=False, default=0)
    """Requests that were answered."""
    refused: int = attrs.field(init=False, default=0)
    """Requests that met a rate limit or overload."""
    pauses: int = attrs.field(init=False, default=0)
    """How often the limit was cut."""
    _limit: float = attrs.field(init=False)
    _mark: float = attrs.field(init=False, default=math.inf)
    """The mark of rule 5, up to which the limit grows quickly."""
    _let_in: int = attrs.field(init=False, default=0)
    """How many requests were let in so far."""
    _full_at: int = attrs.field(init=False, default=0)
    """The number of the last request that took the last free place."""
    _refused_in_a_row: int = attrs.field(init=False, default=0)
    _requests: _Minute | None = attrs.field(init=False, default=None)
    _tokens: _Minute | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        """Refuse limits that are not whole numbers of at least 1."""
        for name in ("max_in_flight", "requests_per_minute", "tokens_per_minute"):
            limit: object = getattr(self, name)
            # A foreign number, and type checkers are optional.
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise UsageError(
                    f"{name} must be a whole number >= 1, got {limit!r}; use None for no limit"
                )
        self._limit = min(START_IN_FLIGHT, self._most)
        if self.requests_per_minute is not None:
            self._requests = _Minute(self.requests_per_minute)
        if self.tokens_per_minute is not None:
            self._tokens = _Minute(self.tokens_per_minute)

    @property
    def limit(self) -> int:
        """The number of requests that may be in flight now."""
        return int(self._limit)

    @property
    def _most(self) -> float:
        return math.inf if self.max_in_flight is None else self.max_in_flight

    def begun(self, now: float) -> tuple[int | None, int | None]:
        """Return the requests and tokens of the last minute. ``None``: they are not counted."""
        return tuple(  # type: ignore[return-value]  # two of them
            None if minute is None else minute.total(now)
            for minute in (self._requests, self._tokens)
        )

    def ready_at(self, tokens: int, now: float) -> float:
        """Return when a request of that many tokens may go, if no other goes first.

        A past time means now. ``inf``: not before a request in flight ends.
        """
        if self.in_flight >= self.limit:
            return math.inf
        ready_at = self.closed_until
        if self._requests is not None:
            ready_at = max(ready_at, self._requests.ready_at(1, now))
        if self._tokens is not None:
            ready_at = max(ready_at, self._tokens.ready_at(tokens, now))
        return ready_at

    def let_in(self, tokens: int, now: float) -> Passage:
        """Reserve a place for a request that is ready but has not begun."""
        self.in_flight += 1
        self._let_in += 1
        if self.in_flight >= self.limit:
            self._full_at = self._let_in
        if self._requests is not None:
            self._requests.let_in(1, now)
        if self._tokens is not None:
            self._tokens.let_in(tokens, now)
        return Passage(tokens, self.pauses, self._let_in)

    def begin(self, passage: Passage, now: float) -> bool:
        """Mark a request as begun. ``False``: the gate has closed since it was let in."""
        if now < self.closed_until:
            return False
        passage.has_begun = True
        if self._requests is not None:
            self._requests.begin(1, now)
        if self._tokens is not None:
            passage.tokens_spent = self._tokens.begin(passage.tokens, now)
        return True

    def give_up(self, passage: Passage, now: float) -> None:
        """Record a request that ended without information about the provider.

        If it began, the provider may have counted it, so it stays counted here.
        """
        self.in_flight -= 1
        if passage.has_begun:
            return
        if self._requests is not None:
            self._requests.give_back(1, now)
        if self._tokens is not None:
            self._tokens.give_back(passage.tokens, now)

    def answer(self, passage: Passage, now: float, used_tokens: int | None) -> None:
        """Record an answer of the provider.

        Args:
            passage: The request.
            now: The current time.
            used_tokens: The tokens of question and answer. ``None``: the provider did not say.
        """
        self.in_flight -= 1
        self.answered += 1
        if passage.tokens_spent is not None and used_tokens is not None:
            assert self._tokens is not None  # noqa: S101  # or nothing was spent
            self._tokens.correct(passage.tokens_spent, used_tokens, now)
        if passage.round != self.pauses:
            return
        self._refused_in_a_row = 0
        if passage.number > self._full_at:
            return  # the limit was never reached while it was in flight
        if self._limit < self._mark:
            self._limit = min(self._limit + 1, self._mark, self._most)
        elif now >= self.closed_until + COOL_DOWN_SECONDS:
            self._limit = min(self._limit + 1 / self._limit, self._most)

    def refuse(
        self, passage: Passage, now: float, retry_after_seconds: float | None, chance: float
    ) -> None:
        """Close the gate for all requests after a refusal.

        Args:
            passage: The request.
            now: The current time.
            retry_after_seconds: How long the provider asked to wait. ``None``: it did not say.
            chance: A random number from 0.0 up to, not including, 1.0.
        """
        self.in_flight -= 1
        self.refused += 1
        if passage.round == self.pauses:
            self.pauses += 1
            self._refused_in_a_row += 1
            if self._limit > 1:
                # Not when the one that tries is refused: that tells nothing about how many.
                self._mark = self._limit / 2
            self._limit = 1.0
        elif retry_after_seconds is None:
            return
        pause_seconds = retry_after_seconds
        if pause_seconds is None:
            doubled = PAUSE_SECONDS * 2.0 ** min(self._refused_in_a_row - 1, 10)
            pause_seconds = min(doubled, MAX_PAUSE_SECONDS)
        pause_seconds *= 1 + SPREAD * chance
        self.closed_until = max(self.closed_until, now + pause_seconds)
