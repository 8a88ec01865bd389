"""Makes the outcome of a run that ended, or of an agent that never started."""

from __future__ import annotations

from typing import Final, TypeAlias

import trio

from agentpool._agent.agent import Agent
from agentpool._agent.early_outcome import early_outcome
from agentpool._errors import AgentCancelledError, LimitExceededError
from agentpool._outcome import AgentOutcome, AgentStatus, StopReason
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.slot import Slot
from agentpool._spawn import seconds_of

OUTSIDE: Final = ("outside", "the scope around the pool was cancelled")
"""Who cancelled an agent and why, when the scope around a pool is cancelled."""


Ending: TypeAlias = tuple[AgentStatus, Exception | None, StopReason | None]
"""The status, the error and the reason of a run that has ended."""

UNKNOWN: Final[Ending] = AgentStatus.CANCELLED, None, None
"""The ending of a run that has not ended yet."""


def verdict(record: AgentRecord, slot: Slot, agent: Agent) -> Ending:
    """Return the ending of a run that raised no exception."""
    if slot.scope.cancelled_caught:
        if record.cancelled is not None:
            return AgentStatus.CANCELLED, cancellation_of(record), None
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
    return AgentStatus.COMPLETED, None, run.stop_reason


def verdict_on(record: AgentRecord, raised: Exception) -> Ending:
    """Return the ending of a run that raised an exception.

    An agent that was cancelled counts as cancelled, even if its cleanup fails, so it is not
    restarted. The error says both.
    """
    if record.cancelled is None:
        return AgentStatus.FAILED, raised, None
    error = cancellation_of(record, f"; then it failed: {type(raised).__name__}: {raised}")
    error.__cause__ = raised
    return AgentStatus.CANCELLED, error, None


def unstarted_outcome(record: AgentRecord, finished_at: float) -> AgentOutcome:
    """Make the outcome of an agent that was cancelled before it had a slot."""
    config, _ = record.take_work()
    error = cancellation_of(record)
    return early_outcome(config, record.agent_id, AgentStatus.CANCELLED, finished_at, error=error)


def cancellation_of(record: AgentRecord, more: str = "") -> AgentCancelledError:
    """Make the error of a cancelled agent: who cancelled it, why, and *more*."""
    cancelled_by, reason = record.cancelled or ("unknown", "unknown")
    return AgentCancelledError(
        f"agent {record.agent_id} ({record.name}) was cancelled by {cancelled_by}: {reason}{more}",
        cancelled_by=cancelled_by,
        reason=reason,
    )
