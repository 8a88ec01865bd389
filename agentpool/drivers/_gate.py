"""One gate for all requests to a provider, whichever agents make them.

Rules:

1. A request that waits at a gate holds no slot. It takes a slot again before it begins, and counts
   from then on.
2. There is no await between reading and changing the throttle.
3. Groups of agents share the gate by their weights, as they share a pool's queue. They share tokens
   if tokens are limited, otherwise requests.
4. As long as requests wait, exactly one of them keeps the time for all, or has been woken to do so.
   So a gate needs no separate task, and nothing of it runs on after a block.
5. A request that was let in, but finds the gate closed once it has its slot, waits again, ahead of
   all requests that were not let in yet.

Between two steps of trio, a gate is in one of these states. In any other state all requests would
sleep forever: rule 4 means that there is no row with "yes, no, no".

| requests wait | one keeps the time | the first was woken | the gate |
|---|---|---|---|
| no | no | no | lets requests through at once |
| no | yes | no | has let in the one that kept the time, which leaves in its next step |
| yes | yes | no | sleeps until the first may go |
| yes | yes | yes | has just let in others, or the first was woken to keep the time |
| yes | no | yes | has woken the first, which keeps the time from its next step on |
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random
from typing import final

import attrs
import msgspec
import trio

from agentpool._amounts import counted
from agentpool._base import Shown, Unique
from agentpool._checks import at_least, expect_arguments, expect_name
from agentpool._errors import OverloadedError, RateLimitError
from agentpool._numbers import plain_number
from agentpool._opening import once_async
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.fair_queue import PLAIN, FairQueue
from agentpool._scheduling.lasting_clock import LastingClock
from agentpool._scheduling.pace import STEPS
from agentpool._scheduling.random import build_random
from agentpool._scheduling.request_clock import waiting_for_turn
from agentpool._scheduling.slot import current_slot, parked
from agentpool._scheduling.waits import Wait
from agentpool._scheduling.watcher import watcher_now
from agentpool.drivers._throttle import Passage, Throttle


@final
class GateStatistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The state of a gate at one moment."""

    name: str
    """Its name."""
    waiting: int
    """Requests that wait to be let in."""
    in_flight: int
    """Requests that were let in and have not ended."""
    limit: int
    """Requests that may be in flight now."""
    closed_seconds: float
    """How long the gate stays closed after a refusal. 0.0: it is open."""
    held_back: int
    """Requests that had to wait so far."""
    answered: int
    """Requests that were answered so far."""
    refused: int
    """Requests that met a rate limit or overload so far."""
    pauses: int
    """How often a refusal closed the gate and cut the limit. One pause may cover several refusals,
    of requests in flight at that time."""
    requests_last_minute: int | None
    """Requests that began in the last minute. ``None``: requests are not limited."""
    tokens_last_minute: int | None
    """Tokens of these requests, estimated if the answer is still missing. ``None``: tokens are not
    limited."""


def _check_used(_: GateTicket, attribute: attrs.Attribute[int | None], tokens: int | None) -> None:
    if tokens is not None:
        at_least(0, attribute.name, tokens)


@final
@attrs.define(eq=False, repr=False)
class GateTicket(Unique, Shown):
    """One request on its way through a gate."""

    tokens: int
    """The estimated tokens of question and answer."""
    used_tokens: int | None = attrs.field(default=None, validator=_check_used)
    """The tokens actually used. Set this before the block ends. ``None``: unknown."""

    def _repr_words(self) -> str:
        return f"of {counted(self.tokens, 'token')}"


@final
@attrs.define(eq=False, repr=False)
class _Waiting:
    """A request that waits at the gate."""

    tokens: int
    passage: Passage | None = None
    """The passage of the request. ``None``: it has not been let in."""
    gone: bool = False
    woken: trio.Event = attrs.field(factory=trio.Event)


@unbroken
@final
class RequestGate(Unique, Shown):
    """Holds requests back until the provider can accept them.

    Pass the same gate to all drivers whose requests count together, usually all with the same key.
    A gate may serve several pools, one after another or in parallel, in one trio run.

    >>> from agentpool.drivers import GatedDriver, RequestGate, ScriptedDriver
    >>> gate = RequestGate("one key", max_in_flight=2, requests_per_minute=60)
    >>> drivers = [GatedDriver(ScriptedDriver(["Hello!"]), gate) for _ in range(3)]
    >>> gate
    <RequestGate 'one key' 0/2 in flight>
    """

    __slots__ = (
        "_again", "_alarm", "_clock", "_held_back", "_keeper", "_next_at", "_passed", "_queue",
        "_random", "_seed", "_throttle", "name",
    )  # fmt: skip

    def __init__(
        self,
        name: str = "gate",
        *,
        max_in_flight: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        random_seed: int | None = None,
    ) -> None:
        """Make an open gate.

        The gate finds out how many requests may be in flight: the limit grows while answers come,
        and is cut when the provider refuses.

        Args:
            name: The gate's name in events and statistics.
            max_in_flight: The most requests at the same time. ``None``: as many as the gate finds
                out.
            requests_per_minute: The most requests that begin in any 60 seconds. ``None``:
                no limit is known.
            tokens_per_minute: The most tokens of these requests and their answers. ``None``: no
                limit is known.
            random_seed: The seed for the random part of pauses. ``None``: a seed from the system.

        Raises:
            UsageError: If a limit is not a whole number of at least 1.
        """
        expect_arguments(RequestGate.__init__, locals())
        expect_name(name)
        self.name: str = name
        """Its name in events and statistics."""
        self._throttle = Throttle(
            plain_number(max_in_flight),
            plain_number(requests_per_minute),
            plain_number(tokens_per_minute),
        )
        cost_of = None if tokens_per_minute is None else _tokens_of
        self._queue: FairQueue[_Waiting] = FairQueue(_is_gone, cost_of)
        self._again: deque[_Waiting] = deque()
        """Requests that were let in once, but found the gate closed."""
        self._keeper: _Waiting | None = None
        """The request that keeps the time."""
        self._alarm = trio.CancelScope()
        """The cancel scope in which the keeper sleeps."""
        self._clock = LastingClock()
        self._next_at = math.inf
        self._passed = 0
        self._held_back = 0
        self._seed = random_seed
        self._random: Random | None = None

    def __repr__(self) -> str:
        """Return name and load: ``<RequestGate 'gate' 2/4 in flight>``."""
        parts = [f"{self._throttle.in_flight}/{self._throttle.limit} in flight"]
        waiting = len(self._queue) + len(self._again)
        parts += [f"{waiting} waiting"] * (waiting > 0)
        return f"<RequestGate {self.name!r} {', '.join(parts)}>"

    @once_async
    @asynccontextmanager
    async def request(self, tokens: int = 0) -> AsyncGenerator[GateTicket, None]:
        """Wait until a request may go; then make the request inside the block.

        If the block raises ``RateLimitError`` or ``OverloadedError``, the gate closes for
        all requests, for as long as the error says.

        Args:
            tokens: The estimated tokens of question and answer. 0: they are not counted.

        Raises:
            UsageError: If *tokens*, or the ``used_tokens`` that the block sets, is not a whole
                number of at least 0. Nothing was counted.

        Cancellation:
            No other request loses its turn. A request that had begun still counts in its minute.
        """
        passage = await self._enter(at_least(0, "tokens", tokens))
        ticket = GateTicket(passage.tokens)
        try:
            yield ticket
        except (RateLimitError, OverloadedError) as error:
            self._refuse(passage, error.retry_after_seconds)
            raise
        except BaseException:
            self._throttle.give_up(passage, self._clock.now())
            raise
        else:
            self._throttle.answer(passage, self._clock.now(), ticket.used_tokens)
        finally:
            self._pump()

    @property
    def counts_tokens(self) -> bool:
        """Whether the gate limits tokens, so that requests need estimates."""
        return self._throttle.tokens_per_minute is not None

    def statistics(self) -> GateStatistics:
        """Return a snapshot of the gate."""
        now = self._clock.now()
        throttle = self._throttle
        requests, tokens = throttle.begun(now)
        return GateStatistics(
            name=self.name,
            waiting=len(self._queue) + len(self._again),
            in_flight=throttle.in_flight,
            limit=throttle.limit,
            closed_seconds=max(throttle.closed_until - now, 0.0),
            held_back=self._held_back,
            answered=throttle.answered,
            refused=throttle.refused,
            pauses=throttle.pauses,
            requests_last_minute=requests,
            tokens_last_minute=tokens,
        )

    def _refuse(self, passage: Passage, retry_after_seconds: float | None) -> None:
        if self._random is None:
            self._random = build_random(self._seed)
        now, chance = self._clock.now(), self._random.random()
        throttle = self._throttle
        throttle.refuse(passage, now, retry_after_seconds, chance)
        watcher = watcher_now()
        if watcher is not None:
            watcher.gate_changed(
                self.name,
                limit=throttle.limit,
                in_flight=throttle.in_flight,
                waiting=len(self._queue) + len(self._again),
                closed_seconds=max(throttle.closed_until - now, 0.0),
            )

    # --- waiting

    async def _enter(self, tokens: int) -> Passage:
        await trio.lowlevel.checkpoint_if_cancelled()
        throttle, now = self._throttle, self._clock.now()
        if not (self._queue or self._again) and throttle.ready_at(tokens, now) <= now:
            passage = throttle.let_in(tokens, now)
            throttle.begin(passage, now)
            self._passed += 1
            if self._passed % STEPS == 0:  # or a loop that never waits would stop all others
                await trio.lowlevel.cancel_shielded_checkpoint()
            return passage
        slot = current_slot.get()
        waiting = _Waiting(tokens)
        self._queue.push(waiting, PLAIN if slot is None else slot.keeper.share_of(slot))
        self._held_back += 1
        self._pump()
        try:
            with waiting_for_turn():
                while True:
                    async with parked(Wait.gate(self.name)):
                        passage = await self._let_in(waiting)
                    await trio.lowlevel.checkpoint_if_cancelled()
                    if throttle.begin(passage, self._clock.now()):
                        return passage  # noqa: ASYNC910  # it has waited
                    throttle.give_up(passage, self._clock.now())
                    self._put_back(waiting)
        except BaseException:
            self._withdraw(waiting)
            raise
        finally:
            # What was promised to it has begun, or is free again.
            self._pump()

    async def _let_in(self, waiting: _Waiting) -> Passage:  # noqa: ASYNC910  # see below
        """Wait until the request may go."""
        try:
            while waiting.passage is None:
                if self._keeper is None:
                    await self._keep_time(waiting)
                else:
                    await waiting.woken.wait()
                    waiting.woken = trio.Event()
        except BaseException:
            # At once, not when it has its slot again: until then it would keep no time.
            self._withdraw(waiting)
            self._pump()
            raise
        return waiting.passage  # noqa: ASYNC910  # who is let in at once goes on at once

    async def _keep_time(self, waiting: _Waiting) -> None:
        """Sleep on behalf of all waiting requests, until one of them may go."""
        self._keeper = waiting
        if waiting.woken.is_set():
            waiting.woken = trio.Event()  # it was woken to keep the time
        try:
            with trio.CancelScope(deadline=self._clock.in_trio(self._next_at)) as self._alarm:
                await waiting.woken.wait()
        finally:
            self._keeper = None
            self._pump()

    def _pump(self) -> None:
        """Let in every request that may go, and wake one to keep the time for the others."""
        self._next_at = math.inf
        now = self._clock.now()
        while (waiting := self._head()) is not None:
            ready_at = self._throttle.ready_at(waiting.tokens, now)
            if ready_at > now:
                self._next_at = ready_at
                if self._keeper is None:
                    waiting.woken.set()
                break
            if self._again:
                self._again.popleft()
            else:
                self._queue.pop()
            waiting.passage = self._throttle.let_in(waiting.tokens, now)
            waiting.woken.set()
        if self._keeper is not None:
            self._alarm.deadline = self._clock.in_trio(self._next_at)

    def _head(self) -> _Waiting | None:
        if self._again:
            return self._again[0]
        return self._queue.head() if self._queue else None

    def _put_back(self, waiting: _Waiting) -> None:
        waiting.passage = None
        waiting.woken = trio.Event()
        self._again.append(waiting)
        self._pump()

    def _withdraw(self, waiting: _Waiting) -> None:
        if waiting.gone:
            return
        waiting.gone = True
        if waiting.passage is not None:
            self._throttle.give_up(waiting.passage, self._clock.now())
        elif waiting in self._again:
            self._again.remove(waiting)
        else:
            self._queue.note_gone()


def _is_gone(waiting: _Waiting) -> bool:
    return waiting.gone


def _tokens_of(waiting: _Waiting) -> int:
    return max(waiting.tokens, 1)
