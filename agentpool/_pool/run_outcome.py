"""Decides how a run that ended counts: its status, its error and its reason."""

from __future__ import annotations

from typing import Final, TypeAlias

import trio

from agentpool._agent.agent import Agent
from agentpool._errors import LimitExceededError
from agentpool._outcome import CANCELLED, COMPLETED, FAILED, AgentStatus, StopReason
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.slot import Slot
from agentpool._spawn import seconds_of

OUTSIDE: Final = ("outside", "the scope around the pool was cancelled")
"""Who cancelled an agent and why, when the scope around a pool is cancelled."""


Ending: TypeAlias = tuple[AgentStatus, Exception | None, StopReason | None]
"""The status, the error and the reason of a run that has ended."""

UNKNOWN: Final[Ending] = CANCELLED, None, None
"""The ending of a run that has not ended yet."""


def verdict(record: AgentRecord, slot: Slot, agent: Agent) -> Ending:
    """Return the ending of a run that raised no exception."""
    if slot.scope.cancelled_caught:
        if record.cancelled is not None:
            return CANCELLED, record.cancellation(), None
        unfit = "" if agent.run is None else agent.run.misfit_words()
        seconds = seconds_of(agent.config) or 0.0
        late = LimitExceededError(
            f"the run took longer than its {seconds:g} seconds"
            + (f", and {unfit}" if unfit else ""),
            kind=StopReason.DEADLINE.value,
            used=trio.current_time() - slot.scope.deadline + seconds,
            limit=seconds,
            source="deadline",
        )
        return AgentStatus.STOPPED, late, StopReason.DEADLINE
    run = agent.run
    assert run is not None  # noqa: S101  # set_out() made it
    if run.stop is not None:
        # What a child has was narrowed to what its parent had left, so no key has set it.
        quota = None if record.depth else agent.config.manifest.resources
        return AgentStatus.STOPPED, run.stop.to_error(run.misfit_words(), quota), run.stop_reason
    return COMPLETED, None, run.stop_reason


def verdict_on(record: AgentRecord, raised: Exception) -> Ending:
    """Return the ending of a run that raised an exception.

    An agent that was cancelled counts as cancelled, even if its cleanup fails, so it is not
    restarted. The error says both.
    """
    if record.cancelled is None:
        return FAILED, raised, None
    error = record.cancellation(f"; then it failed: {type(raised).__name__}: {raised}")
    error.__cause__ = raised
    return CANCELLED, error, None
