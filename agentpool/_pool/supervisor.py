"""Supervision: restarts agents when they end, by a policy."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import TypeAlias, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._checks import expect_arguments
from agentpool._messages import AgentId
from agentpool._outcome import AgentOutcome, RestartLimitError
from agentpool._pool.entrance import Entrance
from agentpool._pool.record import AgentRecord, OnEnd
from agentpool._pool.restart_policy import RestartCounter, RestartPolicy
from agentpool._pool.shutdown import cancel_rest
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait

Starter: TypeAlias = Callable[[OnEnd], AgentRecord]
"""Starts an agent. Its end is reported only to the function passed in. There must be room."""


@unbroken
async def supervise(
    starters: Sequence[Starter], policy: RestartPolicy | None, entrance: Entrance, owner: Owner
) -> list[AgentOutcome]:
    """Run agents, restart them by *policy*, and return their last outcomes in order.

    Raises:
        RestartLimitError: If they were restarted too often. All have ended, and the error has their
            outcomes.
        UsageError: If *policy* is not a ``RestartPolicy``.

    Cancellation:
        All of them are cancelled, and awaited.
    """
    expect_arguments(supervise, {"policy": policy})
    policy = policy or RestartPolicy()
    return await Supervisor(policy, starters, entrance, owner, RestartCounter(policy)).run()


# A plain dict finds its first entry ever more slowly when its first ones keep going.
def _nothing() -> OrderedDict[int, AgentOutcome]:
    return OrderedDict()


@unbroken
@final
class Supervisor(Live):
    """Runs agents and restarts them."""

    _policy: RestartPolicy
    _starters: Sequence[Starter]
    _entrance: Entrance
    _owner: Owner
    _counter: RestartCounter
    _live: dict[int, AgentRecord] = msgspec.field(default_factory=dict[int, AgentRecord])
    """The running agents, by their places."""
    _live_ids: dict[AgentId, None] = msgspec.field(default_factory=dict[AgentId, None])
    _ended: OrderedDict[int, AgentOutcome] = msgspec.field(default_factory=_nothing)
    """The outcomes that were not dealt with yet, in order, by the places of the agents."""
    _outcomes: dict[int, AgentOutcome] = msgspec.field(default_factory=dict[int, AgentOutcome])
    """The last outcomes, by the places of the agents."""
    _all: list[AgentOutcome] = msgspec.field(default_factory=list[AgentOutcome])
    """All outcomes, in the order in which the agents ended."""
    _restarts: Counter[int] = msgspec.field(default_factory=Counter[int])
    """How often the agent of each place was started again."""
    _in_a_row: Counter[int] = msgspec.field(default_factory=Counter[int])
    """How often it was started again since it last ran for a whole period."""
    _due: list[tuple[float, int, range]] = msgspec.field(
        default_factory=list[tuple[float, int, range]]
    )
    """A heap of the coming restarts: the time, the number and the places of each."""
    _planned: int = 0
    """How many restarts there were, and are to come. Those of one time come in their order."""
    _changed: Lot = msgspec.field(default_factory=Lot)

    async def run(self) -> list[AgentOutcome]:
        """Run the agents until all have ended for good. Return their last outcomes.

        Raises:
            RestartLimitError: If they had to be started again too often. All have ended.

        Cancellation:
            All of them are cancelled, and awaited.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            for place in range(len(self._starters)):
                await self._start(place)
            while self._live or self._ended or self._due:
                if self._due and self._due[0][0] <= trio.current_time():
                    for place in heappop(self._due)[2]:
                        await self._start(place)
                elif self._ended:
                    await self._deal_with(*self._ended.popitem(last=False))
                else:
                    await self._wait()
        except RestartLimitError as error:
            await self._end_all()  # noqa: ASYNC120  # shielded: it cannot be cancelled
            self._all.sort(key=lambda outcome: outcome.agent_id)
            error.outcomes = tuple(self._all)
            raise
        except BaseException:
            await self._end_all(is_broken=True)  # noqa: ASYNC102, ASYNC120  # shielded
            raise
        if not self._starters:
            await trio.lowlevel.checkpoint()
        return [self._outcomes[place] for place in range(len(self._starters))]

    async def _wait(self) -> None:
        """Wait until an agent has ended, or must be restarted."""
        ids = self._live_ids.keys()
        wait = Wait.any_of(ids, "supervised agents", lambda: bool(self._due))
        async with parked(wait, self._changed, self._owner):
            with trio.move_on_at(self._due[0][0] if self._due else math.inf):  # noqa: ASYNC912  # one may have ended while it parked
                while not self._ended:
                    await self._changed.park()

    async def _end_all(self, *, is_broken: bool = False) -> None:
        with trio.CancelScope(shield=True):
            every = range(len(self._starters))
            await self._end(every, "the supervision ended", is_broken=is_broken)

    async def _deal_with(self, place: int, outcome: AgentOutcome) -> None:
        self._outcomes[place] = outcome
        most = self._policy.max_restarts_each
        if not self._policy.wants(outcome) or (most is not None and self._restarts[place] >= most):
            await trio.lowlevel.checkpoint()
            return
        if not self._counter.allows(trio.current_time()):
            error = RestartLimitError(
                f"agents were restarted more than {self._policy.max_restarts} times in "
                f"{self._policy.period_seconds:g} seconds; the last to end was "
                f"{outcome.agent_id} ({outcome.name})",
                used=self._policy.max_restarts + 1,
                limit=self._policy.max_restarts,
                # Filled in when all have ended.
                outcomes=(),
            )
            raise error from outcome.error
        again = self._policy.together(place, len(self._starters))
        await self._end(again, f"agent {outcome.agent_id} ({outcome.name}) is started again")
        if outcome.finished_at - (outcome.started_at or 0) >= self._policy.period_seconds:
            del self._in_a_row[place]
        at = trio.current_time() + self._policy.delay(self._in_a_row[place])
        self._restarts[place] += 1
        self._in_a_row[place] += 1
        if self._policy.strategy != "one_for_one":
            # Whoever waits already is started with them, and not a second time: no agent runs at
            # the place of one that waits, nor at any after it.
            self._due.clear()
        self._planned += 1
        heappush(self._due, (at, self._planned, again))

    async def _start(self, place: int) -> None:
        def on_end(record: AgentRecord) -> None:
            self._live.pop(place, None)
            self._live_ids.pop(record.agent_id, None)
            outcome = record.collect()
            self._all.append(outcome)
            self._ended[place] = outcome
            self._changed.unpark_all()

        def start() -> AgentRecord:
            record = self._starters[place](on_end)
            if not record.has_ended:  # an observer that heard of its spawn may have cancelled it
                self._live[place] = record
                self._live_ids[record.agent_id] = None
            return record

        await self._entrance.enter(start)

    async def _end(self, places: range, reason: str, *, is_broken: bool = False) -> None:
        """Cancel the agents at *places*, wait for them, and store their outcomes."""
        live = [self._live[place] for place in places if place in self._live]
        cancel_rest(live, reason, is_broken=is_broken)
        async with parked(Wait.other("supervised agents to end")):
            for place in places:
                while place in self._live:
                    await self._changed.park()
        for place in places:
            if (outcome := self._ended.pop(place, None)) is not None:
                self._outcomes[place] = outcome
        await trio.lowlevel.checkpoint_if_cancelled()
