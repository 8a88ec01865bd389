"""Turns a pool's events into OpenTelemetry spans, live or from a trace.

Rules:

1. The pool has a span. Each agent has one below its parent's; each attempt to ask a model and each
   tool call has one below its agent's. Waits and notices are events of the agent's span.
2. A span begins and ends with the thing that it describes. If the thing had not ended when the pool
   closed, or when the trace was cut off, its span ends at that moment and is marked
   ``agentpool.open``.
3. With ``RunIds``, the ids of the spans are derived from the id of the run, so that spans made live
   and spans made later from the trace have the same ids. The run's id is the id of its
   OpenTelemetry trace.
4. Spans contain messages and answers only if *content* asks for them. Even then, each request has
   only the messages that are new since the previous request: with whole conversations, the size
   would grow quadratically.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, final

import msgspec

import agentpool._events as events
from agentpool._base import Shown
from agentpool._budget.statistics import PoolStatistics
from agentpool._checks import expect_arguments, expect_method
from agentpool._errors import RecordedError
from agentpool._install import as_installed
from agentpool._messages import AgentId, ChatMessage
from agentpool.abc import Observer
from agentpool.observe import _genai as names
from agentpool.observe._codec import unicode_text
from agentpool.observe._trace import Trace

try:
    from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
    from opentelemetry.trace import (
        INVALID_SPAN,
        Span,
        SpanKind,
        Status,
        StatusCode,
        TracerProvider,
        get_tracer_provider,
        set_span_in_context,
    )
except ImportError as exc:
    raise ImportError(
        "OpenTelemetryObserver needs OpenTelemetry; "
        + as_installed("run: pip install 'trio-agentpool[otel]'")
    ) from exc

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

_NANOSECONDS: Final = 1_000_000_000

_NOTICES: Final = (
    events.AgentParked,
    events.AgentQueued,
    events.AgentResumed,
    events.AgentStarted,
    events.AgentWarned,
    events.BudgetNear,
    events.BudgetReached,
    events.FellBack,
    events.GateChanged,
    events.MessageDropped,
    events.MessageSent,
    events.RequestRetried,
)
"""The events that become events of the agent's span."""


@final
class RunIds(Shown, IdGenerator):
    """Derives the ids of a pool's spans from the id of its run; all other ids are random.

    ``TracerProvider(id_generator=RunIds())``.
    """

    def __init__(self) -> None:
        """Begin without a run."""
        self._random = RandomIdGenerator()
        self.trace_id = 0
        """The id of the next trace. 0: the next trace gets a random id."""
        self.span_id = 0
        """The id of the next span. 0: the next span gets a random id."""

    def generate_span_id(self) -> int:
        """Return the id of a new span."""
        return self.span_id or self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        """Return the id of a new trace."""
        return self.trace_id or self._random.generate_trace_id()


@final
class OpenTelemetryObserver(Observer):
    """Creates OpenTelemetry spans for one pool."""

    __slots__ = (
        "_agents", "_content", "_ids", "_info", "_last_seconds", "_new", "_pool", "_providers",
        "_requests", "_tools", "_tracer",
    )  # fmt: skip

    def __init__(
        self, tracer_provider: TracerProvider | None = None, *, content: bool = False
    ) -> None:
        """Make an observer for one pool.

        Args:
            tracer_provider: Where the spans go. ``None``: the global provider.
            content: Whether spans contain messages and answers.
        """
        expect_arguments(OpenTelemetryObserver.__init__, locals())
        provider = get_tracer_provider() if tracer_provider is None else tracer_provider
        expect_method(
            provider, "get_tracer", "tracer_provider must be a TracerProvider",
            "write TracerProvider() of opentelemetry.sdk.trace",
        )  # fmt: skip
        self._tracer = provider.get_tracer("agentpool", f"genai-{names.CONVENTIONS}")
        # The interface of a provider does not show its ids.
        ids: object = getattr(provider, "id_generator", None)
        self._ids = ids if isinstance(ids, RunIds) else RunIds()
        self._content = content
        self._info: events.PoolInfo | None = None
        self._pool: Span = INVALID_SPAN
        self._agents: dict[AgentId, Span] = {}
        self._providers: dict[AgentId, str] = {}
        self._requests: dict[int, Span] = {}
        self._tools: dict[AgentId, dict[str, Span]] = {}
        self._new: dict[AgentId, tuple[ChatMessage, ...]] = {}
        self._last_seconds = 0.0

    def on_open(self, pool: events.PoolInfo) -> None:
        """Begin the pool's span."""
        self._info = pool
        name = f"invoke_workflow {pool.name}"
        attributes: dict[str, AttributeValue] = {
            names.OPERATION: "invoke_workflow",
            names.AGENT_NAME: pool.name,
            "agentpool.run.id": pool.run_id,
            "agentpool.max_concurrent": pool.max_concurrent,
        }
        self._pool = self._begin("pool", name, 0.0, attributes, None)

    def on_event(self, event: events.Event) -> None:
        """Begin, end or annotate a span."""
        self._last_seconds = event.at_seconds
        match event:
            case events.AgentSpawned():
                self._spawned(event)
            case events.AgentFinished():
                self._finished(event)
            case events.MessagesAdded():
                self._new[event.agent_id] = event.messages
            case events.RequestStarted():
                self._asked(event)
            case events.CompletionReceived():
                self._answered(event)
            case events.RequestFailed():
                self._failed(event)
            case events.ToolStarted():
                self._called(event)
            case events.ToolFinished():
                self._returned(event)
            case _:
                self._noticed(event)

    def on_close(self, statistics: PoolStatistics) -> None:  # noqa: ARG002  # the spans have them
        """End all open spans, the pool's last."""
        last = self._at(self._last_seconds)
        calls = [call for running in self._tools.values() for call in running.values()]
        for span in (*self._requests.values(), *calls, *self._agents.values()):
            span.set_attribute("agentpool.open", value=True)
            span.end(last)
        self._pool.end(last)

    # --- agents

    def _spawned(self, event: events.AgentSpawned) -> None:
        attributes: dict[str, AttributeValue] = {
            names.OPERATION: "invoke_agent",
            names.AGENT_NAME: event.agent_name,
            names.CONVERSATION: f"{self._info.run_id if self._info else ''}/{event.agent_id}",
            "agentpool.agent.id": event.agent_id,
            "agentpool.parent.id": event.parent_id,
            "agentpool.manifest": event.manifest,
        }
        if self._content:
            attributes[names.SYSTEM] = event.system_prompt
        self._providers[event.agent_id] = names.provider_name(event.provider)
        parent = self._agents.get(event.parent_id, self._pool)
        name = f"invoke_agent {event.agent_name}"
        span = self._begin(f"agent {event.agent_id}", name, event.at_seconds, attributes, parent)
        self._agents[event.agent_id] = span

    def _finished(self, event: events.AgentFinished) -> None:
        span = self._agents.pop(event.agent_id, INVALID_SPAN)
        self._providers.pop(event.agent_id, None)
        outcome = event.outcome
        attributes: dict[str, AttributeValue] = {**names.usage_of(outcome.usage)}
        attributes["agentpool.status"] = outcome.status.value
        attributes["agentpool.turns"] = outcome.iterations
        if outcome.unmeasured_requests:
            attributes["agentpool.unmeasured_requests"] = outcome.unmeasured_requests
        if outcome.stop_reason is not None:
            attributes["agentpool.stop_reason"] = outcome.stop_reason.value
        if outcome.cost_usd is not None:
            attributes["agentpool.cost_usd"] = outcome.cost_usd
        span.set_attributes(names.writable(attributes))
        error, kind = outcome.error, outcome.status.value
        if error is not None:
            kind = error.kind if isinstance(error, RecordedError) else type(error).__name__
            self._blame(span, kind, str(error))
        for call in self._tools.pop(event.agent_id, {}).values():
            # Its agent was cancelled, or failed, while it ran.
            self._blame(call, kind, "")
            call.end(self._at(event.at_seconds))
        span.end(self._at(event.at_seconds))

    def _noticed(self, event: events.Event) -> None:
        span = self._agents.get(event.agent_id, self._pool)
        if isinstance(event, _NOTICES):
            name = type(event).__name__
            span.add_event(f"agentpool.{name}", _fields(event), self._at(event.at_seconds))

    # --- requests

    def _asked(self, event: events.RequestStarted) -> None:
        attributes: dict[str, AttributeValue] = {
            names.OPERATION: "chat",
            names.PROVIDER: self._providers.get(event.agent_id, names.provider_name("")),
            "agentpool.agent.id": event.agent_id,
            "agentpool.turn": event.turn,
            "agentpool.attempt": event.attempt,
            "agentpool.by_tool": event.by_tool,
        }
        if event.model:
            attributes[names.REQUEST_MODEL] = event.model
        new = self._new.pop(event.agent_id, ())
        if self._content and new:
            attributes[names.INPUT_MESSAGES] = _shown(new)
        parent = self._agents.get(event.agent_id, self._pool)
        name = f"chat {event.model}".rstrip()
        span = self._begin(
            f"request {event.sequence}", name, event.at_seconds, attributes, parent,
            kind=SpanKind.CLIENT,
        )  # fmt: skip
        self._requests[event.sequence] = span

    def _answered(self, event: events.CompletionReceived) -> None:
        span = self._requests.pop(event.request_id, INVALID_SPAN)
        attributes: dict[str, AttributeValue] = {**names.bill_of(event)}
        attributes[names.FINISH_REASONS] = [event.finish_reason.value]
        if event.model is not None:
            attributes[names.RESPONSE_MODEL] = event.model
        if event.first_piece_seconds is not None:
            attributes[names.FIRST_CHUNK] = event.first_piece_seconds
        span.set_attributes(names.writable(attributes))
        span.end(self._at(event.at_seconds))

    def _failed(self, event: events.RequestFailed) -> None:
        span = self._requests.pop(event.request_id, INVALID_SPAN)
        span.set_attributes({**names.bill_of(event), "agentpool.sent": event.lost != ()})
        self._blame(span, event.error_type, event.error)
        span.end(self._at(event.at_seconds))

    # --- tools

    def _called(self, event: events.ToolStarted) -> None:
        call = event.call
        attributes: dict[str, AttributeValue] = {
            names.OPERATION: "execute_tool",
            names.TOOL_NAME: call.name,
            names.TOOL_CALL_ID: call.call_id,
            "agentpool.agent.id": event.agent_id,
            "agentpool.turn": event.turn,
        }
        if self._content:
            attributes[names.TOOL_ARGUMENTS] = call.arguments
        parent = self._agents.get(event.agent_id, self._pool)
        name = f"execute_tool {call.name}"
        span = self._begin(f"tool {event.sequence}", name, event.at_seconds, attributes, parent)
        self._tools.setdefault(event.agent_id, {})[call.call_id] = span

    def _returned(self, event: events.ToolFinished) -> None:
        span = self._tools.get(event.agent_id, {}).pop(event.call.call_id, INVALID_SPAN)
        if self._content:
            span.set_attribute(names.TOOL_RESULT, unicode_text(event.content))
        if event.is_error:
            text = event.content if self._content else ""
            self._blame(span, event.error_type or "tool_error", text)
        span.end(self._at(event.at_seconds))

    # --- spans

    def _begin(  # what every span has
        self,
        what: str,
        name: str,
        at_seconds: float,
        attributes: Mapping[str, AttributeValue],
        parent: Span | None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        ids = self._ids
        run_id = self._info.run_id if self._info else ""
        # Zero is not an id; nor is it ever the hash of anything that is named here.
        digest = hashlib.blake2b(f"{run_id} {what}".encode(), digest_size=8).digest()
        ids.trace_id, ids.span_id = int(run_id or "0", 16), int.from_bytes(digest)
        try:
            # Explicit, and not the current one: an observer is called from any task.
            context = set_span_in_context(INVALID_SPAN if parent is None else parent)
            return self._tracer.start_span(
                unicode_text(name),
                context,
                kind,
                names.writable(attributes),
                start_time=self._at(at_seconds),
            )
        finally:
            ids.trace_id = ids.span_id = 0

    def _at(self, at_seconds: float) -> int:
        opened_at = self._info.opened_at if self._info else 0.0
        return round((opened_at + at_seconds) * _NANOSECONDS)

    def _blame(self, span: Span, kind: str, text: str) -> None:
        span.set_attribute(names.ERROR_TYPE, unicode_text(kind))
        span.set_status(Status(StatusCode.ERROR, unicode_text(text)))


def export_trace(
    trace: Trace, tracer_provider: TracerProvider | None = None, *, content: bool = False
) -> None:
    """Create the spans of *trace*, with the times in it.

    Args:
        trace: What ``read_trace`` returned.
        tracer_provider: Where the spans go. ``None``: the global provider.
        content: Whether spans contain messages and answers.
    """
    expect_arguments(export_trace, locals())
    observer = OpenTelemetryObserver(tracer_provider, content=content)
    header = trace.header
    observer.on_open(
        events.PoolInfo(
            run_id=header.run_id,
            name=header.pool,
            opened_at=header.opened_at,
            max_concurrent=header.max_concurrent,
        )
    )
    for event in trace.events:
        observer.on_event(event)
    observer.on_close(trace.statistics or _NOT_CLOSED)


_NOT_CLOSED: Final = PoolStatistics(
    running=0, parked=0, at_gate=0, queued=0, spawned=0, max_concurrent=0, messages=0,
    dead_letters=0, warnings=0, observer_failures=0,
)  # fmt: skip


def _fields(event: events.Event) -> dict[str, AttributeValue]:
    """Return the short fields of *event* that contain no text of messages or answers."""
    own = event.__struct_fields__[4:]
    values = {name: getattr(event, name) for name in own if name not in {"error", "text"}}
    return names.writable(
        {
            f"agentpool.{name}": value
            for name, value in values.items()
            if isinstance(value, str | bool | int | float)
        }
    )


def _shown(messages: Sequence[ChatMessage]) -> str:
    return msgspec.json.encode(messages).decode()
