"""A pool as OpenTelemetry metrics: what dashboards add up."""

from __future__ import annotations

import subprocess
import sys

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from trio.testing import MockClock

from agentpool import AgentOutcome, AgentStatus, Usage
from agentpool._install import as_installed
from agentpool.abc import Event, Observer
from agentpool.drivers import FinishReason, ToolCall
from agentpool.observe import (
    AgentFinished,
    AgentSpawned,
    CompletionReceived,
    LostRequest,
    OpenTelemetryMetrics,
    RequestFailed,
    RequestStarted,
    ToolFinished,
    record_of,
)
from agentpool.testing import check_observer
from tests.support.busy_pool import busy_pool


class Kept(Observer):
    """Keeps all."""

    def __init__(self) -> None:
        """Begin."""
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        """Keep *event*."""
        self.events.append(event)


def receiver() -> tuple[OpenTelemetryMetrics, InMemoryMetricReader]:
    """Return an observer, and where its numbers end up."""
    reader = InMemoryMetricReader()
    return OpenTelemetryMetrics(MeterProvider([reader])), reader


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, object], float, int]]]:
    """Return attributes, sum and count of each series, by the name of its metric."""
    found: dict[str, list[tuple[dict[str, object], float, int]]] = {}
    data = reader.get_metrics_data()
    for resource in [] if data is None else data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = [
                    (
                        dict(point.attributes or {}),
                        float(getattr(point, "sum", getattr(point, "value", 0))),
                        int(getattr(point, "count", 1)),
                    )
                    for point in metric.data.data_points
                ]
    return found


async def test_the_numbers_are_those_of_the_pool(autojump_clock: MockClock) -> None:
    """Tokens, dollars, requests, calls and agents: each counted once."""
    observer, reader = receiver()
    kept = Kept()
    await busy_pool([observer, kept])
    record, found = record_of(kept.events), points(reader)

    def total(name: str) -> float:
        return sum(point[1] for point in found[name])

    def count(name: str) -> int:
        return sum(point[2] for point in found[name])

    usage = "gen_ai.client.inference.usage"
    assert total(f"{usage}.input_tokens") == record.usage.input_tokens
    bill = record.bill
    measured = bill.usage.output_tokens - bill.estimated_tokens
    assert total(f"{usage}.output_tokens") == measured
    assert total("agentpool.tokens.estimated") == bill.estimated_tokens > 0
    assert total("agentpool.requests.unmeasured") == bill.unmeasured > 0
    assert total("agentpool.requests.unpriced") == bill.unpriced > 0
    assert total(f"{usage}.cache_read.input_tokens") == record.usage.cached_tokens
    assert f"{usage}.reasoning.output_tokens" not in found
    assert abs(total("agentpool.cost") - bill.known_usd) < 1e-9
    requests = sum(agent.requests for agent in record.agents.values())
    assert count("gen_ai.client.inference.duration") == requests
    assert total("gen_ai.invoke_agent.inference_calls") == requests
    assert count("gen_ai.execute_tool.duration") == len(record.calls)
    assert count("gen_ai.invoke_agent.duration") == len(record.agents) == 8
    ends = [point[0]["agentpool.status"] for point in found["gen_ai.invoke_agent.duration"]]
    assert {"completed", "failed", "cancelled"} <= set(ends)
    errors = {point[0].get("error.type") for point in found["gen_ai.client.inference.duration"]}
    assert {None, "OverloadedError", "NetworkError", "Cancelled"} <= errors
    assert any("error.type" in point[0] for point in found["gen_ai.execute_tool.duration"])


def test_what_began_before_is_counted_as_far_as_it_goes() -> None:
    """An observer of a part of a run, or of a cut trace, does not break."""
    observer, reader = receiver()
    place = (1, 1.0, 1, "a")
    observer.on_event(CompletionReceived(*place, FinishReason.END_TURN, None, 1.0, request_id=7))
    observer.on_event(RequestFailed(*place, 8, 1, "X", "", by_tool=False))
    observer.on_event(ToolFinished(*place, ToolCall("c", "t", "{}"), "", is_error=False))
    outcome = AgentOutcome(agent_id=1, name="a", status=AgentStatus.COMPLETED)
    observer.on_event(AgentFinished(*place, outcome))
    # Both answers are of unknown use, and nothing else of them is known.
    assert set(points(reader)) == {"agentpool.requests.unmeasured", "agentpool.requests.unpriced"}
    # Its spawn was not seen, and its request was.
    observer.on_event(RequestStarted(9, 1.0, 1, "a", 1, 1, "m", by_tool=False, sent=()))
    observer.on_event(RequestFailed(*place, 9, 1, "X", "", by_tool=False))
    ((told, _, count),) = points(reader)["gen_ai.client.inference.duration"]
    assert (told["gen_ai.provider.name"], count) == ("_OTHER", 1)


def test_what_a_fallback_lost_is_paid_for() -> None:
    """A driver that refused after it had answered: its tokens and its dollars are measured."""
    observer, reader = receiver()
    lost = (LostRequest(Usage(10, 2), 0.25), LostRequest(), LostRequest(is_measured=False))
    place = (2, 1.0, 1, "a", FinishReason.END_TURN)
    answer = CompletionReceived(*place, Usage(1, 1), 1.0, cost_usd=0.5, lost=lost)
    observer.on_event(answer)
    found = points(reader)
    assert [one[1] for one in found["agentpool.cost"]] == [0.75]
    assert [one[1] for one in found["gen_ai.client.inference.usage.input_tokens"]] == [11]


def test_numbers_say_whose_model_it_was() -> None:
    """As the conventions name the providers."""
    observer, reader = receiver()
    observer.on_event(AgentSpawned(1, 0.0, 1, "a", 0, provider="mistral"))
    observer.on_event(RequestStarted(2, 1.0, 1, "a", 1, 1, "m", by_tool=False, sent=()))
    observer.on_event(RequestFailed(3, 2.0, 1, "a", 2, 1, "X", "", by_tool=False))
    ((told, _, _),) = points(reader)["gen_ai.client.inference.duration"]
    assert told["gen_ai.provider.name"] == "mistral_ai"


async def test_it_keeps_the_promises_of_an_observer() -> None:
    """Nothing is kept of agents that ended, and nothing raises."""
    await check_observer(OpenTelemetryMetrics)


def test_without_opentelemetry_it_says_what_to_install() -> None:
    """The extra is optional."""
    code = (
        "import sys; sys.modules['opentelemetry.metrics'] = None\n"
        "from agentpool.observe import OpenTelemetryMetrics"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert as_installed("pip install 'trio-agentpool[otel]'") in done.stderr
