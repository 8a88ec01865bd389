"""Watching a pool: observers that are called, readers that take events in their own time."""

from agentpool._budget.statistics import BudgetMeter as BudgetMeter
from agentpool._budget.statistics import BudgetStatistics as BudgetStatistics
from agentpool._budget.statistics import PoolStatistics as PoolStatistics
from agentpool._errors import RecordedError as RecordedError
from agentpool._errors import TraceError as TraceError
from agentpool._events import AgentFinished as AgentFinished
from agentpool._events import AgentParked as AgentParked
from agentpool._events import AgentQueued as AgentQueued
from agentpool._events import AgentResumed as AgentResumed
from agentpool._events import AgentSpawned as AgentSpawned
from agentpool._events import AgentStarted as AgentStarted
from agentpool._events import AgentWarned as AgentWarned
from agentpool._events import ApprovalAsked as ApprovalAsked
from agentpool._events import ApprovalGiven as ApprovalGiven
from agentpool._events import BudgetNear as BudgetNear
from agentpool._events import BudgetReached as BudgetReached
from agentpool._events import CompletionReceived as CompletionReceived
from agentpool._events import Event as Event
from agentpool._events import EventsMissed as EventsMissed
from agentpool._events import FellBack as FellBack
from agentpool._events import GateChanged as GateChanged
from agentpool._events import MessageDropped as MessageDropped
from agentpool._events import MessagesAdded as MessagesAdded
from agentpool._events import MessageSent as MessageSent
from agentpool._events import Phase as Phase
from agentpool._events import PhaseChanged as PhaseChanged
from agentpool._events import PoolInfo as PoolInfo
from agentpool._events import RequestFailed as RequestFailed
from agentpool._events import RequestFirstPiece as RequestFirstPiece
from agentpool._events import RequestRetried as RequestRetried
from agentpool._events import RequestStarted as RequestStarted
from agentpool._events import SlotsChanged as SlotsChanged
from agentpool._events import TextDelta as TextDelta
from agentpool._events import ThoughtDelta as ThoughtDelta
from agentpool._events import ToolFinished as ToolFinished
from agentpool._events import ToolStarted as ToolStarted
from agentpool._messages import AgentId as AgentId
from agentpool._messages import DeadLetter as DeadLetter
from agentpool._scheduling.waits import WaitReason as WaitReason
from agentpool.abc import Observer as Observer
from agentpool.observe._hub import EventReader as EventReader
from agentpool.observe._saved import outcome_from_json as outcome_from_json
from agentpool.observe._saved import outcome_to_json as outcome_to_json

__all__ = [
    "AgentFinished",
    "AgentId",
    "AgentParked",
    "AgentQueued",
    "AgentResumed",
    "AgentSpawned",
    "AgentStarted",
    "AgentWarned",
    "ApprovalAsked",
    "ApprovalGiven",
    "BudgetMeter",
    "BudgetNear",
    "BudgetReached",
    "BudgetStatistics",
    "CompletionReceived",
    "DeadLetter",
    "Event",
    "EventReader",
    "EventsMissed",
    "FellBack",
    "GateChanged",
    "MessageDropped",
    "MessageSent",
    "MessagesAdded",
    "Observer",
    "Phase",
    "PhaseChanged",
    "PoolInfo",
    "PoolStatistics",
    "RecordedError",
    "RequestFailed",
    "RequestFirstPiece",
    "RequestRetried",
    "RequestStarted",
    "SlotsChanged",
    "TextDelta",
    "ThoughtDelta",
    "ToolFinished",
    "ToolStarted",
    "TraceError",
    "WaitReason",
    "outcome_from_json",
    "outcome_to_json",
]
