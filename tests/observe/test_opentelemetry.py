"""A pool as OpenTelemetry spans: its tree, its tokens, and the same ids both times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from trio.testing import MockClock

from agentpool import AgentManifest, ModelConfig, PrivacyTier, SpawnConfig, open_pool
from agentpool._install import as_installed
from agentpool.abc import Completion, CompletionRequest, Observer, ToolContext
from agentpool.drivers import FunctionDriver, Provider, ScriptedDriver
from agentpool.observe import (
    AgentSpawned,
    OpenTelemetryObserver,
    PoolInfo,
    RequestStarted,
    RunIds,
    ToolStarted,
    TraceWriter,
    export_trace,
    read_trace,
)
from agentpool.testing import check_observer
from agentpool.tools import ToolRegistry, tool
from tests.support.busy_pool import busy_pool
from tests.support.fakes import calling, manifest, misnamed, tool_call


def receiver() -> tuple[TracerProvider, InMemorySpanExporter]:
    """Return a provider, and where its spans end up."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(id_generator=RunIds())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def by_name(exporter: InMemorySpanExporter, start: str) -> list[ReadableSpan]:
    """Return the spans whose names begin so, in the order of their beginnings."""
    found = [span for span in exporter.get_finished_spans() if span.name.startswith(start)]
    return sorted(found, key=lambda span: span.start_time or 0)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})


def number(span: ReadableSpan) -> int:
    """Return the id of a span."""
    assert span.context is not None
    return int(span.context.span_id)


async def traced(path: Path, *, content: bool = False) -> InMemorySpanExporter:
    """Return the spans of a busy pool, which is written to a trace as well."""
    provider, exporter = receiver()
    observer = OpenTelemetryObserver(provider, content=content)
    async with TraceWriter(path, secrets=()) as trace:
        await busy_pool([trace, observer])
    return exporter


async def test_a_pool_is_a_tree_of_spans(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Pool, agents, requests and tools, each below who made it, with tokens and cost."""
    exporter = await traced(tmp_path / "a")
    (pool,) = by_name(exporter, "invoke_workflow night")
    assert pool.parent is None
    assert attributes(pool)["gen_ai.operation.name"] == "invoke_workflow"
    agents = by_name(exporter, "invoke_agent")
    assert len(agents) == 8
    for agent in agents:
        assert agent.parent is not None
        assert agent.parent.span_id == number(pool)
        assert agent.kind is SpanKind.INTERNAL
    search = next(a for a in agents if attributes(a)["agentpool.agent.id"] == 2)
    told = attributes(search)
    assert told["gen_ai.usage.input_tokens"] == 320
    assert told["gen_ai.usage.cache_read.input_tokens"] == 140
    assert told["agentpool.cost_usd"] == pytest.approx(0.004)
    assert told["agentpool.status"] == "completed"
    assert told["gen_ai.conversation.id"].endswith("/2")
    assert {
        span.name for span in by_name(exporter, "execute_tool") + by_name(exporter, "chat")
        if span.parent is not None and span.parent.span_id == number(search)
    } == {"execute_tool search", "chat"}  # fmt: skip
    requests = by_name(exporter, "chat")
    assert len(requests) == 15
    assert all(span.kind is SpanKind.CLIENT for span in requests)
    assert [s.name for s in requests if attributes(s)["agentpool.by_tool"]] == ["chat small"]
    answered = [s for s in requests if "gen_ai.response.model" in attributes(s)]
    assert {attributes(s)["gen_ai.response.model"] for s in answered} == {"m-1", "small"}
    assert attributes(answered[0])["gen_ai.response.time_to_first_chunk"] == 0.5
    reasons = {attributes(s)["gen_ai.response.finish_reasons"] for s in answered}
    assert reasons == {("end_turn",), ("tool_use",)}


async def test_what_failed_is_marked(tmp_path: Path, autojump_clock: MockClock) -> None:
    """By the type of its error; and what explains it is an event of the agent."""
    exporter = await traced(tmp_path / "a")
    failed = [s for s in exporter.get_finished_spans() if s.status.status_code is StatusCode.ERROR]
    kinds = {(s.name.split()[0], attributes(s)["error.type"]) for s in failed}
    assert kinds == {
        ("invoke_agent", "NetworkError"),
        ("invoke_agent", "AgentCancelledError"),
        ("chat", "NetworkError"),
        ("chat", "OverloadedError"),
        ("chat", "Cancelled"),
        ("execute_tool", "LookupError"),
    }
    retried = next(a for a in by_name(exporter, "invoke_agent retry"))
    names = [event.name for event in retried.events]
    assert "agentpool.RequestRetried" in names
    parked = next(e for e in retried.events if e.name == "agentpool.AgentParked")
    assert dict(parked.attributes or {})["agentpool.waits_for"] == "a retry"


async def test_times_are_those_of_the_pool(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Not those of the moment in which a span was made."""
    exporter = await traced(tmp_path / "a")
    header = read_trace(tmp_path / "a").header
    (pool,) = by_name(exporter, "invoke_workflow")
    assert pool.start_time == round(header.opened_at * 1e9)
    plain = by_name(exporter, "invoke_agent plain")[0]
    assert (plain.end_time or 0) - (plain.start_time or 0) == pytest.approx(1e9, abs=1000)


async def test_a_run_has_the_same_ids_live_and_afterwards(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Whoever kept a link finds the run again; the trace is called as the run is."""
    live = await traced(tmp_path / "a")
    provider, later = receiver()
    export_trace(read_trace(tmp_path / "a"), provider)

    def shape(exporter: InMemorySpanExporter) -> list[tuple[Any, ...]]:
        return sorted(
            (number(s), s.name, s.parent and s.parent.span_id, s.start_time, s.end_time,
             sorted(attributes(s).items(), key=str))
            for s in exporter.get_finished_spans()
        )  # fmt: skip

    assert shape(live) == shape(later)
    traces = {span.context.trace_id for span in live.get_finished_spans() if span.context}
    assert traces == {int(read_trace(tmp_path / "a").header.run_id, 16)}


async def test_what_was_said_is_in_no_span_unless_asked_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """And then each message is in one of them alone."""
    quiet = await traced(tmp_path / "a")
    text = " ".join(str(attributes(span)) for span in quiet.get_finished_spans())
    for word in ("attic", "You are a helpful", "found in", "let me see"):
        assert word not in text
    full = await traced(tmp_path / "b", content=True)
    text = " ".join(str(attributes(span)) for span in full.get_finished_spans())
    assert "You are a helpful assistant." in text
    assert "found in the attic" in text
    inputs = [str(attributes(s).get("gen_ai.input.messages", "")) for s in by_name(full, "chat")]
    assert sum("the attic" in value for value in inputs) == 1


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (ModelConfig(remote_model="m", provider="gemini"), "gcp.gemini"),
        (ModelConfig(remote_model="m", provider="openrouter"), "openrouter"),
        (ModelConfig(remote_model="m", provider=Provider(base_url="https://a.example")), "_OTHER"),
        (ModelConfig(model_path="a.gguf"), "llama.cpp"),
        (ModelConfig(), "_OTHER"),
    ],
)
async def test_a_request_says_whose_model_it_asks(model: ModelConfig, says: str) -> None:
    """The conventions require it."""
    provider, exporter = receiver()
    async with open_pool(
        ScriptedDriver(["hi"]), observers=[OpenTelemetryObserver(provider)]
    ) as pool:
        await pool.spawn(
            SpawnConfig(AgentManifest(model=model, privacy=PrivacyTier.STANDARD), "hello")
        )
    (request,) = by_name(exporter, "chat")
    assert attributes(request)["gen_ai.provider.name"] == says


def test_what_had_not_ended_ends_with_the_pool() -> None:
    """Of a killed run as well: an open span would never be seen."""
    provider, exporter = receiver()
    observer = OpenTelemetryObserver(provider)
    observer.on_open(PoolInfo(run_id="ab" * 16, name="p", opened_at=1.0, max_concurrent=1))
    observer.on_event(AgentSpawned(1, 0.0, 1, "a", 0))
    observer.on_event(RequestStarted(2, 1.0, 1, "a", 1, 1, "", by_tool=False, sent=()))
    observer.on_event(ToolStarted(3, 2.0, 1, "a", tool_call("t")))
    assert exporter.get_finished_spans() == ()
    from agentpool.observe._opentelemetry import _NOT_CLOSED

    observer.on_close(_NOT_CLOSED)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"chat", "execute_tool t", "invoke_agent a", "invoke_workflow p"}
    assert attributes(spans["chat"])["agentpool.open"] is True
    assert spans["invoke_agent a"].end_time == 3_000_000_000


async def test_children_are_below_their_parents() -> None:
    """Whoever asks what a sub-agent cost finds it below who started it."""

    @tool
    async def delegate(context: ToolContext) -> str:
        """Have a child do it."""
        return (await context.agent.run_child("a part")).text

    from agentpool import Capability

    provider, exporter = receiver()
    config = SpawnConfig(manifest(capabilities=(Capability.spawn(1),)), "all", name="lead")
    driver = ScriptedDriver([calling(tool_call("delegate")), "part", "whole"])
    async with open_pool(
        driver, tools=ToolRegistry([delegate]), observers=[OpenTelemetryObserver(provider)]
    ) as pool:
        await pool.spawn(config)
    (lead,), (child,) = (
        by_name(exporter, "invoke_agent lead")[:1],
        by_name(exporter, "invoke_agent lead-sub"),
    )
    assert child.parent is not None
    assert child.parent.span_id == number(lead)


def test_without_the_extra_it_says_how_to_get_it() -> None:
    """As every optional door does."""
    code = """
import sys
sys.modules["opentelemetry"] = None
from agentpool.observe import OpenTelemetryObserver
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert as_installed("run: pip install 'trio-agentpool[otel]'") in done.stderr


async def test_it_is_an_observer_like_any_other() -> None:
    """Also without a pool, without our ids, and with the global provider."""
    await check_observer(OpenTelemetryObserver)
    ids = RunIds()
    assert ids.generate_span_id() != ids.generate_span_id()
    assert ids.generate_trace_id() != ids.generate_trace_id()
    observer: Observer = OpenTelemetryObserver(TracerProvider())
    observer.on_open(PoolInfo(run_id="ab" * 16, name="p", opened_at=1.0, max_concurrent=1))


async def test_half_a_character_in_a_name_costs_no_batch() -> None:
    """A name of a file that is not UTF-8, and a reason, are written out."""
    provider, exporter = receiver()
    half = "caf\udce9.txt"
    observer = OpenTelemetryObserver(provider)

    async def wait(_: CompletionRequest) -> Completion:
        await trio.sleep_forever()
        raise AssertionError

    async with open_pool(FunctionDriver(wait), observers=[observer]) as pool:
        handle = await pool.spawn(misnamed(SpawnConfig(manifest(), "?"), half))
        await trio.testing.wait_all_tasks_blocked()
        handle.cancel(half)
    for span in exporter.get_finished_spans():
        whole = span.to_json()
        assert whole.encode()
        assert ("caf\\\\udce9.txt" in whole) is span.name.startswith("invoke_agent")


def shape(exporter: InMemorySpanExporter) -> list[tuple[object, ...]]:
    """Return what both exports of a run must have in common."""
    spans = exporter.get_finished_spans()
    return sorted(
        (number(one), one.name, one.start_time, one.end_time, one.status.status_code.name,
         attributes(one).get("error.type", ""))
        for one in spans
    )  # fmt: skip


async def test_a_call_ends_with_its_agent(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One that was cancelled in a tool, and one whose time was over, live and from the file."""

    @tool
    async def work() -> str:
        """Work."""
        await trio.sleep(60)
        return "done"

    async def answer(request: CompletionRequest) -> Completion:
        if "long" in str(request.messages):
            await trio.sleep(10)
            return Completion(text="done")
        return calling(tool_call("work"), tool_call("work", "second"))

    path = tmp_path / "a.trace"
    provider, live = receiver()
    async with (
        TraceWriter(path, secrets=()) as trace,
        open_pool(
            FunctionDriver(answer),
            tools=ToolRegistry([work]),
            observers=[trace, OpenTelemetryObserver(provider)],
        ) as pool,
    ):
        cancelled = await pool.spawn(SpawnConfig(manifest(), "work"))
        await pool.spawn(SpawnConfig(manifest(), "work", deadline_seconds=2))
        await pool.spawn(SpawnConfig(manifest(), "long"))
        await trio.sleep(0.5)
        cancelled.cancel("enough")
        await pool.join_all()
    for call in by_name(live, "execute_tool"):
        agent = attributes(call)["agentpool.agent.id"]
        kind = {1: "AgentCancelledError", 2: "LimitExceededError"}[agent]
        assert (call.end_time or 0) - (call.start_time or 0) == {1: 0.5e9, 2: 2e9}[agent]
        assert call.status.status_code is StatusCode.ERROR
        assert attributes(call)["error.type"] == kind
        assert "agentpool.open" not in attributes(call)
    provider, later = receiver()
    export_trace(read_trace(path), provider)
    assert shape(later) == shape(live)
