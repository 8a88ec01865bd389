"""The events of a pool, as values in one total order.

Every event carries its place in the order, the time and the agent. Lifecycle events
(spawned, started, finished) are never dropped on the way to a reader; all others may be dropped,
and the reader learns how many were.
"""

from __future__ import annotations

from typing import TypeAlias

from agentpool._events.agents import AgentFinished as AgentFinished
from agentpool._events.agents import AgentParked as AgentParked
from agentpool._events.agents import AgentQueued as AgentQueued
from agentpool._events.agents import AgentResumed as AgentResumed
from agentpool._events.agents import AgentSpawned as AgentSpawned
from agentpool._events.agents import AgentStarted as AgentStarted
from agentpool._events.agents import AgentWarned as AgentWarned
from agentpool._events.agents import Phase as Phase
from agentpool._events.agents import PhaseChanged as PhaseChanged
from agentpool._events.agents import WindowCut as WindowCut
from agentpool._events.base import PoolInfo as PoolInfo
from agentpool._events.pool import BudgetNear as BudgetNear
from agentpool._events.pool import BudgetReached as BudgetReached
from agentpool._events.pool import EventsMissed as EventsMissed
from agentpool._events.pool import MessageDropped as MessageDropped
from agentpool._events.pool import MessageSent as MessageSent
from agentpool._events.pool import SlotsChanged as SlotsChanged
from agentpool._events.requests import CompletionReceived as CompletionReceived
from agentpool._events.requests import FellBack as FellBack
from agentpool._events.requests import GateChanged as GateChanged
from agentpool._events.requests import LostRequest as LostRequest
from agentpool._events.requests import MessagesAdded as MessagesAdded
from agentpool._events.requests import RequestFailed as RequestFailed
from agentpool._events.requests import RequestFirstPiece as RequestFirstPiece
from agentpool._events.requests import RequestRetried as RequestRetried
from agentpool._events.requests import RequestStarted as RequestStarted
from agentpool._events.requests import TextDelta as TextDelta
from agentpool._events.requests import ThoughtDelta as ThoughtDelta
from agentpool._events.tools import ApprovalAsked as ApprovalAsked
from agentpool._events.tools import ApprovalGiven as ApprovalGiven
from agentpool._events.tools import ToolFinished as ToolFinished
from agentpool._events.tools import ToolStarted as ToolStarted

Event: TypeAlias = (
    AgentSpawned
    | AgentQueued
    | AgentStarted
    | AgentFinished
    | AgentParked
    | AgentResumed
    | PhaseChanged
    | MessagesAdded
    | WindowCut
    | RequestStarted
    | RequestFirstPiece
    | TextDelta
    | ThoughtDelta
    | CompletionReceived
    | RequestFailed
    | RequestRetried
    | FellBack
    | GateChanged
    | SlotsChanged
    | ApprovalAsked
    | ApprovalGiven
    | ToolStarted
    | ToolFinished
    | AgentWarned
    | BudgetNear
    | BudgetReached
    | MessageSent
    | MessageDropped
    | EventsMissed
)
"""Anything that can happen in a pool."""

LIFECYCLE = (AgentSpawned, AgentStarted, AgentFinished)
"""The events that no reader misses."""
