"""The contract of observers, as a check for any implementation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Final

import trio

import agentpool._events as events
from agentpool._checks import expect_arguments
from agentpool._messages import (
    AgentMessage,
    AssistantMessage,
    FinishReason,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentpool._outcome import AgentOutcome, AgentStatus, StopReason
from agentpool.abc import Observer
from agentpool.testing._contract import Opener, is_a, open_one, promise

ROUNDS: Final = 100
"""How often an observer gets every kind of event, to find out whether it waits or grows."""


async def check_observer(opener: Opener[Observer]) -> None:
    """Check an observer: it handles every kind of event, and does not wait.

    Args:
        opener: Opens the observer.

    Raises:
        AssertionError: If the observer breaks its contract. The error says how.
    """
    expect_arguments(check_observer, locals())
    async with AsyncExitStack() as stack:
        observer = await open_one(opener, stack)
        promise(is_a(observer, Observer), f"an observer must be an Observer, got {observer!r}")
        for number in range(ROUNDS):
            for event in every_event(number * 100):
                try:
                    returned: object = observer.on_event(event)
                except Exception as error:
                    raise AssertionError(f"on_event() raised {error!r} for {event}") from error
                promise(
                    returned is None,
                    f"on_event() must not be async and must return nothing, got {returned!r}",
                )
        await trio.lowlevel.checkpoint()


def every_event(first: int = 0) -> Iterator[events.Event]:
    """Yield one event of each kind, as from the life of one agent.

    Args:
        first: The sequence number before the first event.
    """
    message, call = AgentMessage(1, 2, "hello", 1), ToolCall("call-1", "add", '{"a": 1}')
    outcome = AgentOutcome(agent_id=1, name="a", status=AgentStatus.COMPLETED, text="done")
    stamp = ((number, float(number), 1, "a") for number in itertools.count(first + 1))
    yield events.AgentSpawned(*next(stamp), 0)
    yield events.AgentQueued(*next(stamp), 8, 8, 0, again=False)
    yield events.AgentStarted(*next(stamp))
    yield events.PhaseChanged(*next(stamp), events.Phase.REASON)
    yield events.WindowCut(*next(stamp), "drop", 2, 0, 100)
    said = (UserMessage("hello"), AssistantMessage("", (call,)), ToolMessage("call-1", "add", "3"))
    yield events.MessagesAdded(*next(stamp), 0, said)
    yield events.RequestStarted(*next(stamp), 1, 1, "a-model", by_tool=False, sent=((0, 3),))
    yield events.FellBack(*next(stamp), 1, 2, "OverloadedError", "busy")
    yield events.GateChanged(*next(stamp), "a gate", 2, 1, 0, 5.0)
    yield events.RequestFailed(*next(stamp), first + 5, 1, "OverloadedError", "busy", by_tool=False)
    yield events.RequestFirstPiece(*next(stamp), first + 5, 0.25)
    yield events.TextDelta(*next(stamp), "a piece")
    yield events.ThoughtDelta(*next(stamp), "a thought")
    yield events.CompletionReceived(*next(stamp), FinishReason.TOOL_USE, Usage(1, 2), 0.5)
    yield events.RequestRetried(*next(stamp), 1, 2.0, "overloaded")
    yield events.ApprovalAsked(*next(stamp), call)
    yield events.ApprovalGiven(*next(stamp), call, approved=True, reason="")
    yield events.ToolStarted(*next(stamp), call)
    yield events.ToolFinished(*next(stamp), call, "3", is_error=False)
    yield events.MessageSent(*next(stamp), message)
    yield events.AgentParked(*next(stamp), "a message")
    yield events.AgentResumed(*next(stamp))
    yield events.AgentWarned(*next(stamp), "near a limit")
    yield events.BudgetNear(*next(stamp), "night", StopReason.TOKEN_BUDGET, 800, 1000)
    yield events.BudgetReached(*next(stamp), "night", StopReason.COST_BUDGET, 1.0, 1.0)
    yield events.MessageDropped(*next(stamp), message, "it ended first")
    yield events.SlotsChanged(*next(stamp), 4)
    yield events.EventsMissed(*next(stamp), 5)
    yield events.AgentFinished(*next(stamp), outcome)
