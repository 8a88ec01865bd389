"""Hypothesis strategies for every public value that goes into an agent or comes out of it.

Texts may be any text: empty, with quotes, or in other scripts. Numbers are at their limits as often
as between them. Invalid values are not drawn.
"""

from __future__ import annotations

import json
from typing import Final, TypeAlias

from agentpool._errors import (
    AgentCancelledError,
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    DriverError,
    LimitExceededError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    UnknownModelError,
)
from agentpool._manifest.capability import SCOPE_KEYS, Capability, CapabilityKind, PrivacyTier
from agentpool._manifest.manifest import (
    AgentManifest,
    McpServerConfig,
    McpTransport,
    ModelConfig,
    ResourceQuota,
)
from agentpool._manifest.request_settings import MAX_TEMPERATURE
from agentpool._messages import (
    AgentMessage,
    AssistantMessage,
    ChatMessage,
    Completion,
    FinishReason,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentpool._outcome import AgentOutcome, AgentStatus, StopReason
from agentpool._spawn import SpawnConfig
from agentpool.abc import Fragment, MemoryQuery
from agentpool.testing._hypothesis import Strategy, st
from agentpool.testing._spending import usage_limits

MAX_SMALL: Final = 5
"""The longest tuple that is drawn. Faults in the handling of sequences show with two or three
items."""

DRIVER_ERRORS: Final[tuple[type[DriverError], ...]] = (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    UnknownModelError,
)
"""Every way in which a driver may fail."""

_SIMPLE_KINDS: Final = tuple(
    kind
    for kind in CapabilityKind
    if kind not in {*SCOPE_KEYS, CapabilityKind.MCP, CapabilityKind.SPAWN}
)
_WORDS: Final = st.from_regex(r"[a-z][a-z0-9_-]{0,15}", fullmatch=True)


def agent_ids() -> Strategy[int]:
    """Draw ids of agents, including the owner's."""
    return st.integers(min_value=0, max_value=40)


def names() -> Strategy[str]:
    """Draw names of agents: one line of any printable text."""
    alphabet = st.characters(exclude_categories=("C", "Z"))
    return _WORDS | st.text(alphabet, min_size=1, max_size=20)


def queries() -> Strategy[str]:
    """Draw queries: any text that is not blank."""
    return _WORDS | st.text(min_size=1).filter(lambda text: bool(text.strip()))


def usages() -> Strategy[Usage]:
    """Draw usages whose parts never exceed the whole."""
    tokens = st.integers(min_value=0, max_value=1_000_000)

    def build(heard: int, said: int, cached: int, thought: int) -> Usage:
        return Usage(heard, said, min(cached, heard), min(thought, said))

    return st.builds(build, tokens, tokens, tokens, tokens)


def tool_arguments() -> Strategy[str]:
    """Draw arguments as models write them: JSON, and text that only looks like it."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=MAX_SMALL,
    )
    objects = st.dictionaries(_WORDS, values, max_size=3)
    broken = st.sampled_from(["", "{", "{'a': 1}", '{"a": 1,}', "null", "[]", '{"a": NaN}', "\x00"])
    return objects.map(json.dumps) | values.map(json.dumps) | broken | st.text()


def tool_calls(*names_of_tools: str) -> Strategy[ToolCall]:
    """Draw calls of these tools, or of unknown ones."""
    known = st.sampled_from(names_of_tools) | _WORDS if names_of_tools else _WORDS
    return st.builds(ToolCall, _WORDS, known | st.text(max_size=10), tool_arguments())


def calls_of_one_answer(*names_of_tools: str) -> Strategy[tuple[ToolCall, ...]]:
    """Draw the calls of one answer, with distinct ids."""
    calls = st.lists(tool_calls(*names_of_tools), min_size=1, max_size=3)
    return calls.map(
        lambda found: tuple(
            ToolCall(f"{number}-{one.call_id}", one.name, one.arguments)
            for number, one in enumerate(found)
        )
    )


def completions(*names_of_tools: str) -> Strategy[Completion]:
    """Draw answers of a provider: text, truncated text, and tool calls."""
    usage = st.none() | usages()
    ends = st.sampled_from([FinishReason.END_TURN, FinishReason.STOP_SEQUENCE])
    said = st.builds(Completion, text=st.text(), finish_reason=ends, usage=usage)
    limits = st.sampled_from([FinishReason.MAX_TOKENS, FinishReason.WINDOW_FULL])
    cut = st.builds(Completion, text=st.text(), finish_reason=limits, usage=usage)
    asked = st.builds(
        Completion,
        text=st.text(max_size=20),
        tool_calls=calls_of_one_answer(*names_of_tools),
        finish_reason=st.just(FinishReason.TOOL_USE),
        usage=usage,
    )
    return said | asked | cut


def driver_errors() -> Strategy[DriverError]:
    """Draw any error that a driver may raise."""

    def build(kind: type[DriverError], text: str, seconds: float | None) -> DriverError:
        return kind(text, retry_after_seconds=seconds)

    seconds = st.none() | st.floats(min_value=0.0, max_value=30.0)
    return st.builds(build, st.sampled_from(DRIVER_ERRORS), st.text(max_size=20), seconds)


def histories() -> Strategy[tuple[ChatMessage, ...]]:
    """Draw conversations in which every tool call has one result."""

    def turn(completion: Completion, texts: list[str]) -> tuple[ChatMessage, ...]:
        results = [
            ToolMessage(call.call_id, call.name, text, bool(len(text) % 2))
            for call, text in zip(completion.tool_calls, texts, strict=False)
        ]
        return (AssistantMessage(completion.text, completion.tool_calls), *results)

    texts = st.lists(st.text(max_size=20), min_size=3, max_size=3)
    turns = st.builds(turn, completions(), texts) | st.builds(UserMessage, st.text()).map(
        lambda message: (message,)
    )
    return st.lists(turns, max_size=3).map(lambda parts: tuple(m for part in parts for m in part))


def agent_messages() -> Strategy[AgentMessage]:
    """Draw messages between two agents, or an agent and the owner."""

    def build(
        sender: int, step: int, content: str, number: int, reply_to: int | None
    ) -> AgentMessage:
        return AgentMessage(sender, sender + step, content, number, reply_to)

    numbers = st.integers(min_value=1, max_value=1000)
    return st.builds(build, agent_ids(), numbers, st.text(), numbers, st.none() | numbers)


def capabilities() -> Strategy[Capability]:
    """Draw any grant that a manifest may have."""
    scopes = st.lists(_WORDS | st.just("*"), min_size=1, max_size=3, unique=True).map(tuple)
    scoped = st.builds(Capability, st.sampled_from(list(SCOPE_KEYS)), scopes)
    mcp = st.builds(Capability.mcp, _WORDS | st.just("*"), _WORDS | st.just("*"))
    spawn = st.integers(min_value=1, max_value=4).map(Capability.spawn)
    return st.sampled_from(_SIMPLE_KINDS).map(Capability) | scoped | mcp | spawn


def resources() -> Strategy[ResourceQuota]:
    """Draw limits of resources, tight ones as often as wide ones."""
    seconds = st.none() | st.floats(min_value=0.001, max_value=3600.0)
    return st.builds(
        ResourceQuota,
        max_iterations=st.integers(min_value=1, max_value=20),
        max_tool_calls=st.integers(min_value=1, max_value=50),
        max_cost_usd=st.floats(min_value=0.0, max_value=10.0),
        max_tokens_budget=st.none() | st.integers(min_value=1, max_value=100_000),
        max_repeated_calls=st.integers(min_value=2, max_value=5),
        run_seconds=seconds,
        request_seconds=seconds,
        tool_seconds=seconds,
        approval_seconds=seconds,
    )


def models() -> Strategy[ModelConfig]:
    """Draw settings of local models."""
    return st.builds(
        ModelConfig,
        max_tokens=st.none() | st.integers(min_value=1, max_value=2048),
        temperature=st.none() | st.floats(min_value=0.0, max_value=MAX_TEMPERATURE),
        system_prompt=st.text(max_size=100),
        context_window=st.none() | st.integers(min_value=100_000, max_value=1_000_000),
    )


def manifests() -> Strategy[AgentManifest]:
    """Draw valid manifests with any grants and limits."""

    def server(command: str) -> tuple[McpServerConfig, ...]:
        config = McpServerConfig(name="server", transport=McpTransport.STDIO, command=(command,))
        return (config,)

    return st.builds(
        AgentManifest,
        name=names(),
        description=st.text(max_size=20),
        privacy=st.sampled_from(PrivacyTier),
        model=models(),
        resources=resources(),
        capabilities=st.lists(capabilities(), max_size=MAX_SMALL, unique=True).map(tuple),
        mcp_servers=st.just(()) | _WORDS.map(server),
    )


def spawn_configs(manifest: Strategy[AgentManifest] | None = None) -> Strategy[SpawnConfig]:
    """Draw configs of agents to spawn, with *manifest* or with any manifest."""
    return st.builds(
        SpawnConfig,
        manifests() if manifest is None else manifest,
        queries(),
        name=st.none() | names(),
        history=histories(),
        deadline_seconds=st.none() | st.floats(min_value=0.001, max_value=3600.0),
        memory_scope=st.none() | _WORDS,
        limits=st.none() | usage_limits(),
    )


def fragments() -> Strategy[Fragment]:
    """Draw fragments of a memory, in so few scopes that several share one."""
    return st.builds(
        Fragment,
        content=st.text(min_size=1),
        scope=st.sampled_from(["a", "a:b", "b", ""]),
        source=st.sampled_from(["conversation", "tool", "user", "system"]),
        created_at=st.floats(min_value=0.0, max_value=1e9),
    )


def memory_queries() -> Strategy[MemoryQuery]:
    """Draw queries to a memory."""
    return st.builds(
        MemoryQuery,
        text=st.text(),
        scope=st.sampled_from(["a", "a:b", "b", ""]),
        limit=st.integers(min_value=1, max_value=10),
        source=st.none() | st.sampled_from(["conversation", "tool"]),
        since=st.none() | st.floats(min_value=0.0, max_value=1e9),
    )


def outcomes() -> Strategy[AgentOutcome]:
    """Draw outcomes whose fields are consistent."""
    times = st.floats(min_value=0.0, max_value=1e6)

    @st.composite
    def build(draw: st.DrawFn) -> AgentOutcome:
        status, error, reason = draw(_ends())
        started_at = draw(times)
        return AgentOutcome(
            agent_id=draw(st.integers(min_value=1, max_value=40)),
            name=draw(names()),
            status=status,
            text=draw(st.text()),
            error=error,
            stop_reason=reason,
            usage=draw(usages()),
            messages=draw(histories()),
            started_at=started_at,
            finished_at=started_at + draw(times),
        )

    return build()


_End: TypeAlias = tuple[AgentStatus, Exception | None, StopReason | None]


def _ends() -> Strategy[_End]:
    limit = LimitExceededError("too much", kind="max_iterations", used=2, limit=1)
    cancelled = AgentCancelledError("cancelled", cancelled_by="owner", reason="test")
    completed = (AgentStatus.COMPLETED, None, StopReason.END_TURN)

    def stopped(reason: StopReason) -> _End:
        return AgentStatus.STOPPED, limit, reason

    def failed(error: Exception) -> _End:
        return AgentStatus.FAILED, error, None

    return st.one_of(
        st.sampled_from([completed, (AgentStatus.CANCELLED, cancelled, None)]),
        st.sampled_from(StopReason).map(stopped),
        driver_errors().map(failed),
    )
