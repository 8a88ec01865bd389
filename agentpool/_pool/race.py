"""A race: the first agent that completes wins, and all others are cancelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._errors import AgentPoolError, PoolError, UsageError
from agentpool._messages import AgentId
from agentpool._outcome import AgentOutcome, AgentStatus
from agentpool._pool.entrance import Entrance
from agentpool._pool.nursery import AgentNursery
from agentpool._pool.record import AgentRecord, OnEnd
from agentpool._pool.shutdown import cancel_rest
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait
from agentpool._served_call import current_call
from agentpool._spawn import SpawnConfig
from agentpool.abc import Driver

Starter: TypeAlias = Callable[[OnEnd], AgentRecord]
"""Starts one racer. Its end is reported only to the function passed in. There must be room."""


@unbroken
async def race(
    agents: AgentNursery,
    parent: AgentRecord | None,
    wanted: Sequence[tuple[SpawnConfig, Driver]],
) -> AgentOutcome:
    """Run the *wanted* agents and return the first outcome that completed, once all have ended.

    Args:
        agents: The agents of the pool.
        parent: The agent that makes the call. ``None``: the owner does.
        wanted: The configs of the racers, with their drivers.

    Raises:
        PoolClosedError: If the pool closes before all have started.
        PoolError: If none completed.
        UsageError: If there are none, if two have the same key, or one that another agent has.
        DeadlockError: If none of them can go on while the caller waits.

    Cancellation:
        All of them are cancelled, and awaited.
    """
    if not wanted:
        raise UsageError("race() needs at least one config, got none")
    run, journal = Race(agents.entrance, agents.deadlocks.owner), agents.journal
    if journal is None or journal.keys.is_plain:
        return await run.run([partial(agents.accept, parent, None, *one) for one in wanted])
    call = None if parent is None else current_call.get()
    with journal.keys.of_race([config for config, _ in wanted], call) as keys:
        racers = list(zip(wanted, keys, strict=True))
        starters = [partial(agents.accept, parent, None, *one, key=key) for one, key in racers]
        winner = await run.run(starters)
    for (config, _), key in racers:
        journal.end_unstarted(key, agents.budget_of(config))
    return winner


@unbroken
@final
class Race(Live):
    """One race."""

    _entrance: Entrance
    _owner: Owner
    _scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    """Cancelled when there is a winner."""
    _left: dict[AgentId, AgentRecord] = msgspec.field(default_factory=dict[AgentId, AgentRecord])
    """The racers that have not ended, in the order of their start."""
    _ended: list[AgentOutcome] = msgspec.field(default_factory=list[AgentOutcome])
    _winner: AgentOutcome | None = None
    _changed: Lot = msgspec.field(default_factory=Lot)

    async def run(self, starters: Sequence[Starter]) -> AgentOutcome:
        """Start all agents and return the first outcome that completed, once all have ended.

        A racer that finds no room before there is a winner is not started.

        Raises:
            PoolClosedError: If the pool closes before all have started.
            PoolError: If none completed.
            DeadlockError: If none of them can go on while the caller waits.

        Cancellation:
            All of them are cancelled, and awaited.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            with self._scope:
                for start in starters:
                    await self._entrance.enter(self._start, start)
                wait = Wait.any_of(self._left.keys(), "the winner of a race")
                async with parked(wait, self._changed, self._owner):
                    while self._left:
                        await self._changed.park()
        finally:
            reason = "lost the race" if self._winner else "the race was cancelled"
            cancel_rest(self._left.values(), reason, is_broken=self._winner is None)
            with trio.CancelScope(shield=True):
                async with parked(Wait.other("the losers of a race")):
                    while self._left:
                        await self._changed.park()
        if self._winner is None:
            self._ended.sort(key=lambda outcome: outcome.agent_id)
            raise PoolError(
                f"none of the {len(starters)} racers completed",
                [outcome.error or AgentPoolError(outcome.status.value) for outcome in self._ended],
                tuple(outcome.agent_id for outcome in self._ended),
            )
        return self._winner

    def _start(self, start: Starter) -> AgentRecord:
        record = start(self._on_end)
        if not record.has_ended:  # an observer that heard of its spawn may have cancelled it
            self._left[record.agent_id] = record
        return record

    def _on_end(self, record: AgentRecord) -> None:
        outcome = record.collect()
        self._ended.append(outcome)
        if self._winner is None and outcome.status is AgentStatus.COMPLETED:
            self._winner = outcome
            self._scope.cancel()
        self._left.pop(record.agent_id, None)
        if not self._left:
            self._changed.unpark_all()
