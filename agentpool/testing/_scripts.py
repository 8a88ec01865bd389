"""Hypothesis strategies for scripts, plans of faults, and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from agentpool._events import (
    AgentFinished,
    AgentParked,
    AgentResumed,
    AgentSpawned,
    AgentStarted,
    AgentWarned,
    ApprovalAsked,
    ApprovalGiven,
    BudgetNear,
    BudgetReached,
    CompletionReceived,
    Event,
    EventsMissed,
    MessageDropped,
    MessageSent,
    Phase,
    PhaseChanged,
    RequestRetried,
    TextDelta,
    ToolFinished,
    ToolStarted,
    WindowCut,
)
from agentpool._manifest.context import ContextStrategy
from agentpool._messages import Completion, FinishReason
from agentpool._outcome import StopReason
from agentpool.drivers._scripted import Step
from agentpool.testing._faulty import (
    Answer,
    CallWildly,
    Fail,
    Fault,
    Hang,
    Stall,
    Trickle,
    Truncate,
)
from agentpool.testing._hypothesis import Strategy, st
from agentpool.testing._strategies import (
    MAX_SMALL,
    agent_ids,
    agent_messages,
    calls_of_one_answer,
    completions,
    driver_errors,
    names,
    outcomes,
    tool_calls,
    usages,
)


def scripts(*names_of_tools: str) -> Strategy[list[Step]]:
    """Draw scripts for ``ScriptedDriver``: tool calls and errors, then an answer.

    Args:
        names_of_tools: The existing tools. Unknown ones are called as well.
    """
    step = completions(*names_of_tools) | driver_errors()
    return st.lists(step, max_size=MAX_SMALL).map(lambda steps: [*steps, "done"])


def faults(*names_of_tools: str, hangs: bool = True) -> Strategy[Fault]:
    """Draw one fault of a request.

    Args:
        names_of_tools: The existing tools. Unknown ones are called as well.
        hangs: Whether a model may never answer. Use it only where the request will be cancelled.
    """
    seconds = st.floats(min_value=0.0, max_value=100.0)
    pieces = st.lists(st.text(min_size=1, max_size=5), max_size=MAX_SMALL).map(tuple)
    kinds: list[Strategy[Fault]] = [
        completions(*names_of_tools).map(Answer),
        st.builds(Fail, driver_errors() | st.text().map(ValueError), pieces),
        st.builds(Stall, seconds, completions(*names_of_tools)),
        st.builds(Trickle, pieces, seconds),
        st.text().map(Truncate),
        (calls_of_one_answer(*names_of_tools) | st.just(())).map(CallWildly),
    ]
    if hangs:
        kinds.append(st.just(Hang()))
    return st.one_of(kinds)


def fault_plans(*names_of_tools: str, hangs: bool = True) -> Strategy[list[Fault]]:
    """Draw plans for ``FaultyDriver``.

    Args:
        names_of_tools: The existing tools. Unknown ones are called as well.
        hangs: Whether a model may never answer. Use it only where the request will be cancelled.
    """
    return st.lists(faults(*names_of_tools, hangs=hangs), max_size=MAX_SMALL)


def events() -> Strategy[Event]:
    """Draw one event of any kind."""
    text, call = st.text(max_size=20), tool_calls()
    counts = st.integers(min_value=1, max_value=100)
    seconds = st.floats(min_value=0.0, max_value=1e6)
    stamp = (counts, seconds, agent_ids(), names())
    budget_facts = (names(), st.sampled_from(StopReason), seconds, seconds)

    def kind(made: Callable[..., Event], *fields: Strategy[object]) -> Strategy[Event]:
        return st.builds(made, *stamp, *fields)

    return st.one_of(
        kind(AgentSpawned, agent_ids()),
        kind(AgentStarted),
        kind(AgentFinished, outcomes()),
        kind(AgentParked, text),
        kind(AgentResumed),
        kind(PhaseChanged, st.sampled_from(Phase), text),
        kind(
            WindowCut,
            st.sampled_from(get_args(ContextStrategy)),
            counts,
            counts,
            counts,
            text,
            text,
        ),
        kind(TextDelta, text),
        kind(CompletionReceived, st.sampled_from(FinishReason), st.none() | usages(), seconds),
        kind(RequestRetried, counts, seconds, text),
        kind(ApprovalAsked, call),
        kind(ApprovalGiven, call, st.booleans(), text),
        kind(ToolStarted, call),
        kind(ToolFinished, call, text, st.booleans()),
        kind(AgentWarned, text),
        kind(BudgetNear, *budget_facts),
        kind(BudgetReached, *budget_facts),
        kind(MessageSent, agent_messages()),
        kind(MessageDropped, agent_messages(), text),
        kind(EventsMissed, counts),
    )


def answers() -> Strategy[Completion]:
    """Draw answers that end a run: text without calls."""
    return st.builds(Completion, text=st.text(), usage=st.none() | usages())
