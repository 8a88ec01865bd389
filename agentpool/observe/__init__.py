"""Watch a pool, with observers that it calls or readers that take events at their own pace."""

from typing import TYPE_CHECKING

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
from agentpool._events import LostRequest as LostRequest
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
from agentpool._events import WindowCut as WindowCut
from agentpool._messages import AgentId as AgentId
from agentpool._messages import DeadLetter as DeadLetter
from agentpool._public import publish as _publish
from agentpool._scheduling.waits import WaitReason as WaitReason
from agentpool.abc import Observer as Observer
from agentpool.observe._event_reader import EventReader as EventReader

# These are for those who keep what they see.
if TYPE_CHECKING:
    from agentpool.observe._bill import Bill as Bill
    from agentpool.observe._chrome import chrome_trace as chrome_trace
    from agentpool.observe._codec import event_from_json as event_from_json
    from agentpool.observe._codec import event_to_json as event_to_json
    from agentpool.observe._codec import events_from_json as events_from_json
    from agentpool.observe._codec import events_to_json as events_to_json
    from agentpool.observe._content import Content as Content
    from agentpool.observe._difference import Difference as Difference
    from agentpool.observe._difference import FieldDifference as FieldDifference
    from agentpool.observe._difference import first_difference as first_difference
    from agentpool.observe._intervals import Interval as Interval
    from agentpool.observe._intervals import Reason as Reason
    from agentpool.observe._intervals import intervals_of as intervals_of
    from agentpool.observe._logging import LoggingObserver as LoggingObserver
    from agentpool.observe._opentelemetry import OpenTelemetryObserver as OpenTelemetryObserver
    from agentpool.observe._opentelemetry import RunIds as RunIds
    from agentpool.observe._opentelemetry import export_trace as export_trace
    from agentpool.observe._opentelemetry_metrics import (
        OpenTelemetryMetrics as OpenTelemetryMetrics,
    )
    from agentpool.observe._outcome_json import outcome_from_json as outcome_from_json
    from agentpool.observe._outcome_json import outcome_to_json as outcome_to_json
    from agentpool.observe._record import AgentRecord as AgentRecord
    from agentpool.observe._record import PoolRecord as PoolRecord
    from agentpool.observe._record import ToolRecord as ToolRecord
    from agentpool.observe._record import record_of as record_of
    from agentpool.observe._redact import secrets_of_environment as secrets_of_environment
    from agentpool.observe._refused_calls import RefusedCall as RefusedCall
    from agentpool.observe._report import render_report as render_report
    from agentpool.observe._slow_calls import SlowCall as SlowCall
    from agentpool.observe._slow_calls import slowest_calls as slowest_calls
    from agentpool.observe._trace import Trace as Trace
    from agentpool.observe._trace import TraceHeader as TraceHeader
    from agentpool.observe._trace import read_trace as read_trace
    from agentpool.observe._trace_writer import TraceWriter as TraceWriter

# Few programs need these.
_publish(
    globals(),
    {
        "_bill": ("Bill",),
        "_chrome": ("chrome_trace",),
        "_codec": ("event_from_json", "event_to_json", "events_from_json", "events_to_json"),
        "_content": ("Content",),
        "_difference": ("Difference", "FieldDifference", "first_difference"),
        "_intervals": ("Interval", "Reason", "intervals_of"),
        "_logging": ("LoggingObserver",),
        "_opentelemetry": ("OpenTelemetryObserver", "RunIds", "export_trace"),
        "_opentelemetry_metrics": ("OpenTelemetryMetrics",),
        "_outcome_json": ("outcome_from_json", "outcome_to_json"),
        "_record": ("AgentRecord", "PoolRecord", "ToolRecord", "record_of"),
        "_redact": ("secrets_of_environment",),
        "_refused_calls": ("RefusedCall",),
        "_report": ("render_report",),
        "_slow_calls": ("SlowCall", "slowest_calls"),
        "_trace": ("Trace", "TraceHeader", "read_trace"),
        "_trace_writer": ("TraceWriter",),
    },
)
