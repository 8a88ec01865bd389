"""Reports a pool's events as OpenTelemetry metrics.

Rules:

1. Each attempt to ask a model is one duration, and a failed attempt also has the type of its error.
   Tokens are counted if the provider reported them. Requests with unknown tokens and estimated
   tokens have their own counters.
2. Names of agents, tools and models are attributes. Ids of agents are not, since each id would make
   a separate series.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, final

from agentpool._checks import expect_method
from agentpool._events import (
    AgentFinished,
    AgentSpawned,
    CompletionReceived,
    Event,
    LostRequest,
    RequestFailed,
    RequestStarted,
    ToolFinished,
)
from agentpool._install import as_installed
from agentpool._messages import AgentId, Usage
from agentpool._outcome import AgentStatus
from agentpool.abc import Observer
from agentpool.observe import _genai as names
from agentpool.observe._bill import Bill
from agentpool.observe._codec import unicode_text

try:
    from opentelemetry.metrics import Histogram, MeterProvider, get_meter_provider
except ImportError as exc:
    raise ImportError(
        "OpenTelemetryMetrics needs OpenTelemetry; "
        + as_installed("run: pip install 'trio-agentpool[otel]'")
    ) from exc

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

_BOUNDS: Final = tuple(0.01 * 2**power for power in range(14))
"""Histogram bounds for durations, in seconds, as the conventions advise."""

_CALLS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
"""Histogram bounds for numbers of calls."""


@final
class OpenTelemetryMetrics(Observer):
    """Counts tokens, money and calls, and measures durations, for OpenTelemetry."""

    __slots__ = (
        "_agent_seconds",
        "_cost",
        "_estimates",
        "_first_chunk",
        "_inference_calls",
        "_providers", "_request_seconds",
        "_requests",
        "_spawned",
        "_tokens",
        "_tool_calls",
        "_tool_seconds",
    )  # fmt: skip

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        """Make an observer that records into *meter*.

        Args:
            meter_provider: Where the numbers go. ``None``: the global provider.
        """
        provider = get_meter_provider() if meter_provider is None else meter_provider
        expect_method(
            provider, "get_meter", "meter_provider must be a MeterProvider",
            "write MeterProvider() of opentelemetry.sdk.metrics",
        )  # fmt: skip
        meter = provider.get_meter("agentpool", f"genai-{names.CONVENTIONS}")
        self._tokens = {
            field: meter.create_counter(f"{names.USAGE}.{of}", "{token}", f"Tokens: {of}.")
            for field, of in names.TOKEN_COUNTERS.items()
        }
        self._cost = meter.create_counter("agentpool.cost", "USD", "What answers cost.")

        self._estimates = {
            field: meter.create_counter(f"agentpool.{name}", unit, text)
            for field, (name, unit, text) in names.ESTIMATE_COUNTERS.items()
        }

        def seconds(name: str, text: str) -> Histogram:
            return meter.create_histogram(
                name, "s", text, explicit_bucket_boundaries_advisory=_BOUNDS
            )

        def calls(name: str, text: str) -> Histogram:
            return meter.create_histogram(
                name, "{call}", text, explicit_bucket_boundaries_advisory=_CALLS
            )

        self._request_seconds = seconds(names.REQUEST_SECONDS, "From a request to its end.")
        self._first_chunk = seconds(names.FIRST_CHUNK_SECONDS, "To the first piece of an answer.")
        self._agent_seconds = seconds(names.AGENT_SECONDS, "From the spawn of an agent to its end.")
        self._tool_seconds = seconds(names.TOOL_SECONDS, "How long a tool call ran.")
        self._inference_calls = calls(names.AGENT_REQUESTS, "Attempts of an agent to ask a model.")
        self._tool_calls = calls(names.AGENT_CALLS, "Tool calls of an agent.")
        self._requests: dict[int, RequestStarted] = {}
        self._providers: dict[AgentId, str] = {}
        self._spawned: dict[AgentId, list[float]] = {}
        """When each agent was spawned, and its attempts so far."""

    def on_event(self, event: Event) -> None:
        """Count *event*."""
        match event:
            case AgentSpawned():
                self._spawned[event.agent_id] = [event.at_seconds, 0]
                self._providers[event.agent_id] = names.provider_name(event.provider)
            case RequestStarted():
                self._requests[event.sequence] = event
                if event.agent_id in self._spawned:
                    self._spawned[event.agent_id][1] += 1
            case CompletionReceived():
                self._answered(event)
            case RequestFailed():
                self._failed(event)
            case ToolFinished():
                self._called(event)
            case AgentFinished():
                self._finished(event)
            case _:
                pass

    def _answered(self, event: CompletionReceived) -> None:
        begun = self._requests.pop(event.request_id, None)
        attributes = self._of_request(event.agent_id, begun)
        if event.model is not None:
            attributes[names.RESPONSE_MODEL] = unicode_text(event.model)
        if begun is not None:
            self._request_seconds.record(event.at_seconds - begun.at_seconds, attributes)
        if event.first_piece_seconds is not None:
            self._first_chunk.record(event.first_piece_seconds, attributes)
        if event.usage is not None:
            self._count(event.usage, attributes)
        if event.cost_usd is not None:
            self._cost.add(event.cost_usd, attributes)
        bill = Bill()
        bill.take(event)
        self._estimate(event.agent_id, bill, attributes)
        self._lost(event.lost, attributes)

    def _estimate(
        self, agent_id: AgentId, bill: Bill, attributes: dict[str, AttributeValue]
    ) -> None:
        """Count a request of unknown usage, and the estimate that was charged for the request."""
        if agent_id in self._spawned:
            # An attempt was counted when it began: the rest is drivers of a fallback.
            self._spawned[agent_id][1] += bill.requests
        for field, counter in self._estimates.items():
            number: float = getattr(bill, field)
            if number:
                counter.add(number, attributes)

    def _lost(self, lost: Iterable[LostRequest], attributes: dict[str, AttributeValue]) -> None:
        for one in lost:
            if one.is_measured:
                self._count(one.usage, attributes)
            if one.cost_usd:
                self._cost.add(one.cost_usd, attributes)

    def _count(self, usage: Usage, attributes: dict[str, AttributeValue]) -> None:
        for field, counter in self._tokens.items():
            number: int = getattr(usage, field)
            if number:
                counter.add(number, attributes)

    def _failed(self, event: RequestFailed) -> None:
        begun = self._requests.pop(event.request_id, None)
        attributes = self._of_request(event.agent_id, begun)
        attributes[names.ERROR_TYPE] = event.error_type
        # One that never left is no request: it was given up at a gate, or in front of a budget.
        if begun is not None and event.lost != ():
            self._request_seconds.record(event.at_seconds - begun.at_seconds, attributes)
        bill = Bill()
        bill.take(event)
        self._estimate(event.agent_id, bill, attributes)
        self._lost(event.lost or (), attributes)

    def _called(self, event: ToolFinished) -> None:
        if event.duration_seconds is not None:
            attributes: dict[str, AttributeValue] = {
                names.OPERATION: "execute_tool",
                names.TOOL_NAME: unicode_text(event.call.name),
            }
            if event.is_error:
                attributes[names.ERROR_TYPE] = event.error_type or "tool_error"
            self._tool_seconds.record(event.duration_seconds, attributes)

    def _finished(self, event: AgentFinished) -> None:
        spawned = self._spawned.pop(event.agent_id, None)
        self._providers.pop(event.agent_id, None)
        if spawned is None:
            return  # it began before anybody counted
        outcome = event.outcome
        attributes: dict[str, AttributeValue] = {
            names.OPERATION: "invoke_agent",
            names.AGENT_NAME: unicode_text(event.agent_name),
            "agentpool.status": outcome.status.value,
        }
        if outcome.status is AgentStatus.FAILED:
            error = outcome.error
            attributes[names.ERROR_TYPE] = str(getattr(error, "kind", type(error).__name__))
        self._agent_seconds.record(event.at_seconds - spawned[0], attributes)
        self._inference_calls.record(int(spawned[1]), attributes)
        self._tool_calls.record(outcome.tool_calls_run, attributes)

    def _of_request(
        self, agent_id: AgentId, begun: RequestStarted | None
    ) -> dict[str, AttributeValue]:
        attributes: dict[str, AttributeValue] = {
            names.OPERATION: "chat",
            names.PROVIDER: self._providers.get(agent_id, names.provider_name("")),
        }
        if begun is not None and begun.model:
            attributes[names.REQUEST_MODEL] = begun.model
        return attributes
