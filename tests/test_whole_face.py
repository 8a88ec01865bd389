"""Every public function, class and method names an argument of a wrong type at once.

What there is to call, and which arguments are wrong, is read from the public names and their
annotations: a new name is held to it as well. What is not stands in `EXEMPT`, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from agentpool import (
    AgentOutcome,
    AgentStatus,
    Capability,
    CapabilityKind,
    ModelConfig,
    PoolPlan,
    RestartPolicy,
    RetryPolicy,
    ToolCall,
    Usage,
    UsageLimits,
    UserMessage,
)
from agentpool.abc import CompletionRequest, Fragment, MemoryQuery
from agentpool.drivers import Completion, TokenPrice
from agentpool.journal import JournalRecord, Lease, RecordKind
from agentpool.observe import AgentStarted, Trace, TraceHeader
from agentpool.testing import lone_context
from agentpool.tools import ApprovalRequest, Approved
from tests.support.face import Caller, functions, methods, public_things
from tests.support.fakes import hanging_driver, job, manifest
from tests.support.live_objects import live_objects

EXEMPT: Final[Mapping[str, str]] = {
    "handed out by the package, and made by nobody else": """
        AgentHandle AgentPool MessageRouter OutcomeStream Session TextStream Cluster AnthropicDriver
        LocalDriver OpenAIDriver SharedWork SqliteJournal LiveDisplay LivePage SemanticMemory
        SqliteMemory EventReader Reservation JumpingClock PoolMachine QuirkServer RecordingTransport
        ReplayTransport StrictFake FunctionTool McpServers RunIds""",
    "what the package found out, and users read": """
        AgentOutcome PoolStatistics SessionTurn AgentInfo MemoryHit PoolInfo StoredUse Correction
        NodeStatus FallbackCounts GateStatistics ModelFacts PublishedPrice Place Provider EndedItem
        ItemState OpenQuestion PoolSummary WorkShare LeaseHolder AgentView BoardView PendingCall
        InMemoryStatistics ScopeSummary AgentRecord Bill BudgetMeter BudgetStatistics DeadLetter
        Difference FieldDifference Interval LostRequest PoolRecord RefusedCall SlowCall ToolRecord
        Trace TraceHeader CancelReport CrashReport Exploration Proof ApprovalRequest AgentMessage
        ToolContext Quirk QuirkResult""",
    "made for each step of an agent, and checked where a user's enter the pool": """
        UserMessage AssistantMessage ToolMessage ToolCall ProviderPart Usage Completion
        CompletionRequest ToolResult JournalRecord Lease""",
    "called by what serves: a page, a transport, a journal, the record of a trace": """
        InMemoryJournal.append_and_spend SqliteJournal.append_and_spend
        InMemoryJournal.spend_together SqliteJournal.spend_together
        LivePage.serve LivePage.visited StrictFake.handle_async_request StrictFake.serve
        PoolRecord.take PoolRecord.end_of""",
    "as the get of a dict: what is no name has no tool": "ToolRegistry.get",
    "whatever names no agent is told that it does not": """
        MessageRouter.ask(recipient) MessageRouter.send(recipient)
        MessageRouter.send_nowait(recipient)""",
    "counts tokens of a request": "GateTicket RequestGate.request(tokens)",
    "starts Ray: see tests/cluster/test_bad_input_on_ray.py": "open_cluster open_cluster_pool",
}
"""Classes, their methods, and single arguments, by the reason why they are not tried."""

NOT_TRIED: Final = [name for names in EXEMPT.values() for name in names.split()]

HEADER = TraceHeader(run_id="0" * 32, pool="x", opened_at=0.0, max_concurrent=1)
CALL = ToolCall("1", "x", "{}")
SAMPLES: Final[tuple[object, ...]] = (
    "x", b"x", 1, 1.0, False, Path("x"), manifest(), job(), HEADER, CALL, Usage(1, 1),
    ModelConfig(provider="ollama", remote_model="m"),
    Capability(CapabilityKind.RAG),
    Completion("x"),
    CompletionRequest((UserMessage("x"),)),
    lone_context(),
    JournalRecord(1, RecordKind.ACCEPTED),
    Lease("x", 1, 30.0),
    Fragment(content="x", scope="s"),
    MemoryQuery(text="x", scope="s"),
    TokenPrice(input_usd_per_million=1, output_usd_per_million=1),
    AgentOutcome(agent_id=1, name="x", status=AgentStatus.COMPLETED),
    AgentStarted(1, 0.0, 1, "x"),
    PoolPlan(manifests=(manifest(),), driver=hanging_driver()),
    Approved(),
    ApprovalRequest(1, "x", CALL, None),
    Trace(header=HEADER, events=()),
    RestartPolicy(),
    RetryPolicy(),
    UsageLimits(),
    ValueError("x"),
)  # fmt: skip

SAID_AS: Final[Mapping[str, str]] = {
    "async_fn": "scenario",
    "paths": "scope",
    "commands": "scope",
    "hosts": "scope",
    "server": "scope",
    "tool": "scope",
}

LATER: Final[Mapping[str, object]] = {
    "transport": httpx.AsyncBaseTransport | None,
    "policy": RestartPolicy | None,
    "meter_provider": MeterProvider | None,
    "tracer_provider": TracerProvider | None,
}

MOST_EXEMPT: Final = 110


async def test_each_function_and_class_names_an_argument_of_a_wrong_type(tmp_path: Path) -> None:
    """And does nothing else."""
    async with live_objects(tmp_path) as live:
        caller = Caller((*SAMPLES, *live.values()), SAID_AS, {"drivers": hanging_driver()}, LATER)
        faces = list(functions(NOT_TRIED))
        assert len(faces) > 100
        assert [one for face in faces for one in await caller.faults_of(face, NOT_TRIED)] == []


async def test_each_method_names_an_argument_of_a_wrong_type(tmp_path: Path) -> None:
    """Of each object that is at hand without a network."""
    async with live_objects(tmp_path) as live:
        caller = Caller((*SAMPLES, *live.values()), SAID_AS, {"sources": ["a query"]}, LATER)
        faces = list(methods(caller.objects, NOT_TRIED))
        assert len(faces) > 30
        assert [one for face in faces for one in await caller.faults_of(face, NOT_TRIED)] == []


def test_what_is_not_tried_is_there_and_is_not_more() -> None:
    """Or the list would grow in place of the checks."""
    kinds = dict(public_things())
    assert len(kinds) == len([*public_things()])
    for name in NOT_TRIED:
        kind, _, method = name.partition("(")[0].partition(".")
        assert kind in kinds, name
        assert not method or hasattr(kinds[kind], method), name
    assert len(NOT_TRIED) == len(set(NOT_TRIED)) <= MOST_EXEMPT
