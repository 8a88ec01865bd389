"""Finds the calls of a pool that took longest: requests to models, and tool calls."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from operator import attrgetter
from typing import final

import msgspec

from agentpool._checks import expect_arguments
from agentpool._messages import AgentId
from agentpool.observe._record import PoolRecord


@final
class SlowCall(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a model or a call of a tool, with its duration."""

    seconds: float
    """How long the call took. A call without an end: how long it had taken when its agent or the
    trace ended."""
    begun_at: float
    """When it began, in seconds since the pool opened."""
    agent_id: AgentId
    """Its agent."""
    turn: int
    """The turn to which the call belongs."""
    tool: str = ""
    """The tool that was called. Empty: a model was asked."""
    model: str = ""
    """The model that was asked. Empty: a tool ran, or the model is not known."""
    ending: str = ""
    """``failed``, ``still open`` or ``cut off``. Empty: it ended well."""

    @property
    def subject(self) -> str:
        """What was called, for people."""
        if self.tool:
            return f"tool {self.tool}"
        return f"model {self.model}" if self.model else "the model"


def slowest_calls(record: PoolRecord, count: int) -> list[SlowCall]:
    """Return the *count* calls of *record* that took longest, the longest first."""
    expect_arguments(slowest_calls, locals())
    return heapq.nlargest(count, _all_of(record), key=attrgetter("seconds"))


def _all_of(record: PoolRecord) -> Iterator[SlowCall]:
    for answer in record.answers:
        # Traces of earlier versions include the waits before retries.
        seconds = answer.attempt_seconds
        seconds = answer.duration_seconds if seconds is None else seconds
        yield SlowCall(
            seconds=seconds, begun_at=answer.at_seconds - seconds, agent_id=answer.agent_id,
            turn=answer.turn, model=answer.model or "",
        )  # fmt: skip
    for agent in record.agents.values():
        ending = "still open" if agent.outcome is None else "cut off"
        end, agent_id = record.end_of(agent), agent.agent_id
        for asked in agent.open_requests.values():
            yield SlowCall(
                seconds=end - asked.at_seconds, begun_at=asked.at_seconds, agent_id=agent_id,
                turn=asked.turn, model=asked.model or agent.spawned.model, ending=ending,
            )  # fmt: skip
        for begun in agent.open_calls.values():
            yield SlowCall(
                seconds=end - begun.at_seconds, begun_at=begun.at_seconds, agent_id=agent_id,
                turn=begun.turn, tool=begun.call.name, ending=ending,
            )  # fmt: skip
    for call in record.calls:
        if (seconds := call.duration_seconds) is not None:
            yield SlowCall(
                seconds=seconds, begun_at=call.at_seconds - seconds, agent_id=call.agent_id,
                turn=call.turn, tool=call.call.name, ending="failed" if call.is_error else "",
            )  # fmt: skip
