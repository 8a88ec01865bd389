"""The public names. A change of this list is a promise, or breaks one."""

import ast
import importlib
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import agentpool

NAMES: dict[str, list[str]] = {
    "agentpool": [
        "AgentCancelledError",
        "AgentGoneError",
        "AgentHandle",
        "AgentManifest",
        "AgentMessage",
        "AgentOutcome",
        "AgentPool",
        "AgentPoolError",
        "AgentStatus",
        "AssistantMessage",
        "Budget",
        "BudgetConfig",
        "Capability",
        "CapabilityDeniedError",
        "CapabilityKind",
        "ChatMessage",
        "ContextConfig",
        "DeadlockError",
        "DriverError",
        "InboxFullError",
        "LimitExceededError",
        "ManifestError",
        "McpServerConfig",
        "McpTransport",
        "MessageError",
        "MessageRouter",
        "ModelConfig",
        "OWNER_ID",
        "OutcomeStream",
        "PoolClosedError",
        "PoolError",
        "PoolFullError",
        "PoolPlan",
        "PoolStatistics",
        "PrivacyError",
        "PrivacyTier",
        "Queries",
        "ResourceQuota",
        "RestartLimitError",
        "RestartPolicy",
        "RetryPolicy",
        "Session",
        "SessionTurn",
        "ShutdownStep",
        "SpawnConfig",
        "StopReason",
        "TextStream",
        "ToolBuilder",
        "ToolCall",
        "ToolError",
        "ToolMessage",
        "UnknownAgentError",
        "Usage",
        "UsageError",
        "UsageLimits",
        "UserMessage",
        "__version__",
        "as_bystander",
        "open_drivers",
        "open_manifest_pool",
        "open_pool",
        "open_session",
        "session_names",
        "session_pool_name",
        "trace_of_journal",
        "wait_until_asking",
    ],
    "agentpool.abc": [
        "AgentContext",
        "AgentId",
        "AgentInfo",
        "AgentManifest",
        "AgentMessage",
        "AgentOutcome",
        "AgentStatus",
        "Budget",
        "BudgetStore",
        "Capability",
        "Completion",
        "CompletionRequest",
        "Correction",
        "Driver",
        "DriverFactory",
        "Event",
        "Fragment",
        "HearsThoughts",
        "Journal",
        "Memory",
        "MemoryHit",
        "MemoryQuery",
        "Observer",
        "OnDelta",
        "OnSent",
        "OnUnknown",
        "PoolInfo",
        "PoolStatistics",
        "PrivacyTier",
        "SendingDriver",
        "StoredUse",
        "Tool",
        "ToolContext",
        "ToolDefinition",
        "ToolResult",
        "Usage",
    ],
    "agentpool.cluster": [
        "Cluster",
        "ClusterError",
        "NodeCheckError",
        "NodeLostError",
        "NodeState",
        "NodeStatus",
        "PoolTerms",
        "RemoteError",
        "open_cluster",
        "open_cluster_pool",
        "open_echo",
    ],
    "agentpool.drivers": [
        "AllDriversFailedError",
        "AnswerForm",
        "AnthropicDriver",
        "ApiKey",
        "AssistantMessage",
        "Attachment",
        "AuthenticationError",
        "BadRequestError",
        "BreakerState",
        "ChatMessage",
        "Completion",
        "CompletionRequest",
        "ContextOverflowError",
        "EmptyAnswerError",
        "FailedAttemptError",
        "FallbackCounts",
        "FallbackDriver",
        "FinishReason",
        "FunctionDriver",
        "GateStatistics",
        "GateTicket",
        "GatedDriver",
        "HearsThoughts",
        "InvalidOutputError",
        "Json",
        "LocalDriver",
        "ModelFacts",
        "NO_USAGE",
        "NetworkError",
        "OpenAIDriver",
        "OverloadedError",
        "PROVIDERS",
        "Place",
        "Prices",
        "ProtocolError",
        "Provider",
        "ProviderGates",
        "ProviderPart",
        "PublishedPrice",
        "RateLimitError",
        "RequestGate",
        "ScriptedDriver",
        "TokenPrice",
        "ToolCall",
        "ToolDefinition",
        "ToolMessage",
        "UnknownModelError",
        "UserMessage",
        "call",
        "calls",
        "estimate_tokens",
        "find_facts",
        "messages_from_json",
        "messages_to_json",
        "near_names",
        "open_anthropic",
        "open_driver",
        "open_local",
        "open_openai",
        "published_names",
        "say",
    ],
    "agentpool.live": [
        "AgentView",
        "ApprovalDesk",
        "Board",
        "BoardView",
        "FRAMES_PER_SECOND",
        "LiveDisplay",
        "LivePage",
        "PendingCall",
        "counts_line",
        "first_decision",
        "listen",
        "open_display",
        "serve_live",
        "show_in_terminal",
    ],
    "agentpool.journal": [
        "EndedItem",
        "InMemoryJournal",
        "ItemState",
        "Journal",
        "JournalError",
        "JournalRecord",
        "Lease",
        "LeaseHolder",
        "LeaseLostError",
        "OpenQuestion",
        "PoolSummary",
        "RecordKind",
        "ResumeMismatchError",
        "RunBusyError",
        "SessionBusyError",
        "SharedWork",
        "SqliteJournal",
        "WorkItem",
        "WorkShare",
        "answer_question",
        "open_journal",
        "open_questions",
    ],
    "agentpool.memory": [
        "Fragment",
        "InMemoryMemory",
        "InMemoryStatistics",
        "Memory",
        "MemoryHit",
        "MemoryQuery",
        "MemoryStoreError",
        "ScopeSummary",
        "SemanticMemory",
        "SqliteMemory",
        "open_semantic_memory",
        "open_sqlite_memory",
    ],
    "agentpool.observe": [
        "AgentFinished",
        "AgentId",
        "AgentParked",
        "AgentQueued",
        "AgentRecord",
        "AgentResumed",
        "AgentSpawned",
        "AgentStarted",
        "AgentWarned",
        "ApprovalAsked",
        "ApprovalGiven",
        "Bill",
        "BudgetMeter",
        "BudgetNear",
        "BudgetReached",
        "BudgetStatistics",
        "CompletionReceived",
        "Content",
        "DeadLetter",
        "Difference",
        "Event",
        "EventReader",
        "EventsMissed",
        "FellBack",
        "FieldDifference",
        "GateChanged",
        "Interval",
        "LoggingObserver",
        "LostRequest",
        "MessageDropped",
        "MessageSent",
        "MessagesAdded",
        "Observer",
        "OpenTelemetryMetrics",
        "OpenTelemetryObserver",
        "Phase",
        "PhaseChanged",
        "PoolInfo",
        "PoolRecord",
        "PoolStatistics",
        "Reason",
        "RecordedError",
        "RefusedCall",
        "RequestFailed",
        "RequestFirstPiece",
        "RequestRetried",
        "RequestStarted",
        "RunIds",
        "SlotsChanged",
        "SlowCall",
        "TextDelta",
        "ThoughtDelta",
        "ToolFinished",
        "ToolRecord",
        "ToolStarted",
        "Trace",
        "TraceError",
        "TraceHeader",
        "TraceWriter",
        "WaitReason",
        "WindowCut",
        "chrome_trace",
        "event_from_json",
        "event_to_json",
        "events_from_json",
        "events_to_json",
        "export_trace",
        "first_difference",
        "intervals_of",
        "outcome_from_json",
        "outcome_to_json",
        "read_trace",
        "record_of",
        "render_report",
        "secrets_of_environment",
        "slowest_calls",
    ],
    "agentpool.testing": [
        "Answer",
        "CallWildly",
        "CancelPointError",
        "CancelReport",
        "CrashPointError",
        "CrashReport",
        "EventLog",
        "Exploration",
        "Fail",
        "FakeTurn",
        "Fault",
        "FaultyDriver",
        "Hang",
        "HangError",
        "JumpingClock",
        "LatencyDriver",
        "LeakError",
        "PoolMachine",
        "Proof",
        "Quirk",
        "QuirkResult",
        "QuirkServer",
        "RecordingMissError",
        "RecordingTransport",
        "ReplayTransport",
        "ScheduleError",
        "Stall",
        "StrictFake",
        "Trickle",
        "Truncate",
        "assert_quiescent",
        "cancel_everywhere",
        "check_driver",
        "check_journal",
        "check_memory",
        "check_observer",
        "check_tool",
        "crash_everywhere",
        "dice",
        "explore",
        "explore_all",
        "latency",
        "lone_context",
        "open_quirk_server",
        "open_recording",
        "open_replay",
        "open_strict_server",
        "operation",
        "quirks",
        "replay",
        "simulate",
        "slow",
        "strategies",
        "strict_fake",
    ],
    "agentpool.tools": [
        "ApprovalRequest",
        "Approved",
        "Approver",
        "Changed",
        "Cleaner",
        "Decision",
        "Denied",
        "EMPTY_REGISTRY",
        "FileWork",
        "FunctionTool",
        "MARKERS",
        "McpServers",
        "Reservation",
        "TEAM_TOOLS",
        "Tool",
        "ToolContext",
        "ToolDefinition",
        "ToolRegistry",
        "ToolResult",
        "as_data",
        "file_tools",
        "find_isolation",
        "http_tools",
        "inference_tools",
        "memory_tools",
        "one_line",
        "open_mcp_servers",
        "printable",
        "shell_tools",
        "tool",
    ],
}

each_face = pytest.mark.parametrize("face", sorted(NAMES))


def source(face: str) -> ast.Module:
    """Return the source of the module *face*."""
    path = Path(agentpool.__file__).parent.joinpath(*face.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text())


@each_face
def test_public_names(face: str) -> None:
    """Nothing becomes public, or stops being so, unseen."""
    assert sorted(importlib.import_module(face).__all__) == NAMES[face]


def test_every_face_is_listed() -> None:
    """A module without an underscore is public, so its names are listed here."""
    folder = Path(agentpool.__file__).parent
    rooms = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/*.py")}
    faces = {f"agentpool.{room}" for room in rooms if not room.startswith("_")}
    assert {"agentpool", *faces} == set(NAMES)


@each_face
def test_names_can_be_found(face: str) -> None:
    """Every public name is there, also for completion at a prompt."""
    module = importlib.import_module(face)
    assert [n for n in NAMES[face] if not hasattr(module, n)] == []
    assert sorted(set(NAMES[face]) - set(dir(module))) == []


@pytest.mark.parametrize("face", sorted(set(NAMES) - {"agentpool.abc"}))
def test_what_a_face_takes_from_a_room_it_shows(face: str) -> None:
    """A face re-exports with `Y as Y`; a plain import of ours would be neither."""
    plain = [
        alias.name
        for node in ast.walk(source(face))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agentpool")
        for alias in node.names
        if alias.asname != alias.name and not (alias.asname or "").startswith("_")
    ]
    assert plain == []


@each_face
def test_the_source_of_public_things_is_found(face: str) -> None:
    """By ``inspect.getsource``, ``help`` and the ``??`` of a shell, for who wants to read it."""
    module = importlib.import_module(face)
    things = {name: getattr(module, name) for name in NAMES[face]}
    missing = [
        name
        for name, thing in things.items()
        if inspect.isclass(thing) or inspect.isroutine(thing)
        if getattr(thing, "__module__", "").startswith("agentpool")
        if thing.__name__ not in inspect.getsource(thing)
    ]
    assert missing == []


def test_a_star_brings_all_names() -> None:
    """Also those that are loaded when they are asked for."""
    found: dict[str, object] = {}
    exec("from agentpool import *", found)  # noqa: S102  # it is what somebody writes
    assert set(NAMES["agentpool"]) <= set(found)


def test_the_version_is_that_of_the_distribution() -> None:
    """So a report of a bug can name it."""
    assert agentpool.__version__ == importlib.metadata.version("trio-agentpool")


def test_a_source_tree_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed says so, and is not an error."""

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    monkeypatch.delitem(sys.modules, "agentpool._version")
    assert agentpool.__version__ == "(not installed)"


@pytest.mark.parametrize(
    ("module", "needs", "left_out"),
    [
        ("agentpool", "nothing_of_that_name", ""),
        ("agentpool.memory", "numpy", "open_semantic_memory"),
        ("agentpool.observe", "opentelemetry", "OpenTelemetryMetrics"),
        ("agentpool.testing", "hypothesis", "PoolMachine"),
    ],
)
def test_a_star_takes_what_is_there(module: str, needs: str, left_out: str) -> None:
    """A name whose extra is not installed is no reason to refuse all others."""
    code = (
        "import sys\n"
        f"sys.modules[{needs!r}] = None\n"
        f"from {module} import *\n"
        f"assert {left_out!r} not in globals()\n"
        f"import {module} as face\n"
        f"assert set(face.__all__) <= set(globals())\n"
        f"assert {left_out!r} in dir(face) + ['']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
