"""The public names. A change of this list is a promise, or breaks one."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import agentpool

MAX_TOP_LEVEL_NAMES = 40

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
        "Budget",
        "Capability",
        "CapabilityDeniedError",
        "CapabilityKind",
        "DeadlockError",
        "DriverError",
        "InboxFullError",
        "LimitExceededError",
        "ManifestError",
        "MessageError",
        "MessageRouter",
        "ModelConfig",
        "OWNER_ID",
        "OutcomeStream",
        "PoolClosedError",
        "PoolError",
        "PoolFullError",
        "PoolStatistics",
        "PrivacyError",
        "PrivacyTier",
        "ResourceQuota",
        "RestartPolicy",
        "ShutdownStep",
        "SpawnConfig",
        "StopReason",
        "ToolError",
        "UnknownAgentError",
        "Usage",
        "UsageError",
        "UsageLimits",
        "open_pool",
    ],
    "agentpool.abc": [
        "AgentContext",
        "AgentInfo",
        "Driver",
        "DriverFactory",
        "Fragment",
        "Memory",
        "MemoryHit",
        "MemoryQuery",
        "Observer",
        "OnDelta",
        "Tool",
        "ToolContext",
        "ToolResult",
    ],
    "agentpool.drivers": [
        "AllDriversFailedError",
        "AnswerForm",
        "AnthropicDriver",
        "AssistantMessage",
        "AuthenticationError",
        "BadRequestError",
        "BreakerState",
        "ChatMessage",
        "Completion",
        "CompletionRequest",
        "ContextOverflowError",
        "EmptyAnswerError",
        "FallbackCounts",
        "FallbackDriver",
        "FinishReason",
        "FunctionDriver",
        "GateStatistics",
        "GateTicket",
        "GatedDriver",
        "InvalidOutputError",
        "LocalDriver",
        "NetworkError",
        "OpenAIDriver",
        "OverloadedError",
        "ProtocolError",
        "ProviderGates",
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
        "open_anthropic",
        "open_driver",
        "open_local",
        "open_openai",
        "say",
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
        "ToolFinished",
        "ToolStarted",
        "TraceError",
        "WaitReason",
    ],
    "agentpool.testing": [
        "Answer",
        "CallWildly",
        "CancelPointError",
        "CancelReport",
        "EventLog",
        "Exploration",
        "Fail",
        "Fault",
        "FaultyDriver",
        "Hang",
        "HangError",
        "JumpingClock",
        "LeakError",
        "PoolMachine",
        "RecordingMissError",
        "RecordingTransport",
        "ReplayTransport",
        "ScheduleError",
        "Stall",
        "Trickle",
        "Truncate",
        "assert_quiescent",
        "cancel_everywhere",
        "check_driver",
        "check_memory",
        "check_observer",
        "check_tool",
        "explore",
        "lone_context",
        "open_recording",
        "open_replay",
        "simulate",
        "strategies",
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
        "open_mcp_servers",
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


def public(face: str) -> list[str]:
    """Return what type checkers take for public: defined here, or `Y as Y`.

    Not read from the module: a name may be loaded only when it is asked for, and
    the module also has the names it imported for itself.
    """
    names: set[str] = set()
    for node in ast.walk(source(face)):
        if isinstance(node, ast.ImportFrom):
            names |= {a.name for a in node.names if a.asname == a.name}
    for node in source(face).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.Assign():
                names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return sorted(name for name in names if not name.startswith("_"))


@each_face
def test_public_names(face: str) -> None:
    """Nothing becomes public, or stops being so, unseen."""
    assert public(face) == NAMES[face]


def test_every_face_is_listed() -> None:
    """A module without an underscore is public, so its names are listed here."""
    folder = Path(agentpool.__file__).parent
    rooms = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/*.py")}
    faces = {f"agentpool.{room}" for room in rooms if not room.startswith("_")}
    assert {"agentpool", *faces} == set(NAMES)


def test_top_level_fits_in_one_head() -> None:
    """What most people need; the rest is in a face of its own."""
    assert len(NAMES["agentpool"]) <= MAX_TOP_LEVEL_NAMES


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
def test_public_things_say_where_they_are_from(face: str) -> None:
    """A repr, a traceback and a pickle name a path that will not move."""
    module = importlib.import_module(face)
    things = {name: getattr(module, name) for name in NAMES[face]}
    wrong = [
        f"{thing.__module__}.{name}"
        for name, thing in things.items()
        if inspect.isclass(thing) or inspect.isroutine(thing)
        if thing.__name__ == name  # not another name for something foreign
        if name not in NAMES.get(thing.__module__, ())
    ]
    assert wrong == []
