"""The checks of the seams: each breach of a contract is found, and named."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import msgspec
import pytest
import trio

from agentpool import Capability, DriverError, PrivacyTier, ToolError, Usage
from agentpool._messages import Json
from agentpool.abc import (
    Completion,
    CompletionRequest,
    Driver,
    Event,
    Fragment,
    Memory,
    MemoryHit,
    MemoryQuery,
    Observer,
    OnDelta,
    Tool,
    ToolContext,
    ToolDefinition,
    ToolResult,
)
from agentpool.drivers import FinishReason, FunctionDriver, ToolCall
from agentpool.memory import InMemoryMemory
from agentpool.testing import (
    check_driver,
    check_memory,
    check_observer,
    check_tool,
    lone_context,
)
from tests.support.fakes import FakeTool, LiveDriver, RaisingObserver, Recorder

# --- drivers


@attrs.define(eq=False)
class BadDriver(Driver):
    """A driver with one breach at a time."""

    window: int | None = None
    tier: object = PrivacyTier.SOVEREIGN
    cost: float | None = None
    completion: object = Completion("hello")
    pieces: tuple[str, ...] = ()
    error: Exception | None = None
    waits: bool = True

    @property
    def context_window(self) -> int | None:
        """What it was made with."""
        return self.window

    @property
    def privacy(self) -> PrivacyTier:
        """What it was made with."""
        return self.tier  # type: ignore[return-value]  # a breach

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002  # as in the seam
        """Return what it was made with."""
        return self.cost

    async def complete(
        self,
        request: CompletionRequest,  # noqa: ARG002  # as in the seam
        *,
        on_delta: OnDelta | None = None,
    ) -> Completion:
        """Answer as it was made to."""
        if self.waits:
            await trio.lowlevel.checkpoint()
        for piece in self.pieces:
            if on_delta is not None:
                on_delta(piece)
        if self.error is not None:
            raise self.error
        return self.completion  # type: ignore[return-value]  # perhaps a breach


CALL = ToolCall("1", "add", "{}")
CALLS = Completion(tool_calls=(CALL, CALL), finish_reason=FinishReason.TOOL_USE)


@pytest.mark.parametrize(
    ("driver", "text"),
    [
        (BadDriver(window=0), "context_window must be a number > 0 or None, got 0"),
        (BadDriver(tier="Sovereign"), "privacy must be a PrivacyTier, got 'Sovereign'"),
        (BadDriver(cost=-1.0), "price\\(\\) must be >= 0 or None"),
        (BadDriver(completion="hello"), "must return a Completion, got 'hello'"),
        (
            BadDriver(completion=Completion(tool_calls=(CALL,))),
            "is end_turn, but there are 1 calls",
        ),
        (BadDriver(completion=CALLS), "call ids must differ"),
        (BadDriver(pieces=("hel",)), "the pieces must join to the text 'hello'"),
        (BadDriver(pieces=("hello", "")), "must not be called with an empty piece"),
        (BadDriver(waits=False), "complete\\(\\) must have a checkpoint"),
    ],
)
async def test_a_breach_of_a_driver_is_named(driver: Driver, text: str) -> None:
    """Each with the value that is wrong."""
    with pytest.raises(AssertionError, match=text):
        await check_driver(lambda: driver)


async def test_a_thing_that_is_no_driver_is_named() -> None:
    """A class is easily given instead of what it makes."""
    with pytest.raises(AssertionError, match="must be a Driver"):
        await check_driver(object)  # type: ignore[arg-type]  # the breach


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, "should have failed"),
        (OSError("no route"), "must fail with a DriverError, got OSError"),
        (DriverError(""), "must say what went wrong"),
        (DriverError("busy", retry_after_seconds=-1.0), "retry_after_seconds must be >= 0"),
    ],
)
async def test_a_breach_of_a_failure_is_named(error: Exception | None, text: str) -> None:
    """A driver whose model is not there must say so in our words."""
    with pytest.raises(AssertionError, match=text):
        await check_driver(lambda: BadDriver(error=error), is_answered=False)


async def test_a_driver_that_fails_well_passes() -> None:
    """An error of the right kind, with a text."""
    await check_driver(lambda: BadDriver(error=DriverError("busy")), is_answered=False)


async def test_a_driver_that_answers_one_at_a_time_is_named() -> None:
    """Two agents may ask at the same time."""
    busy = trio.Event()
    answers = 1

    async def answer(_: CompletionRequest, __: OnDelta) -> str:
        nonlocal answers
        answers += 1
        if answers == 4:  # after two answers and one that was cancelled
            with trio.move_on_after(0.01):
                await busy.wait()
            raise DriverError("one at a time")
        return "hello"

    with pytest.RaisesGroup(DriverError):
        await check_driver(lambda: LiveDriver(answer))


# --- tools


def broken_tool(function: Callable[[str, ToolContext], Awaitable[ToolResult | str]]) -> Tool:
    """Return a tool of *function*."""
    return FakeTool("broken", function)


@attrs.define(eq=False)
class BadTool(Tool):
    """A tool with one breach at a time."""

    schema: dict[str, Json] = attrs.field(factory=lambda: {"type": "object"})
    seconds: float | None = None
    grant: object = None
    result: object = ToolResult("ok")
    waits: bool = True
    looks: int = 0
    restless: bool = False

    @property
    def definition(self) -> ToolDefinition:
        """Another one at each look, if it is restless."""
        self.looks += self.restless
        return ToolDefinition("bad", f"look {self.looks}", self.schema)

    @property
    def capability(self) -> Capability | None:
        """What it was made with."""
        return self.grant  # type: ignore[return-value]  # perhaps a breach

    @property
    def timeout_seconds(self) -> float | None:
        """What it was made with."""
        return self.seconds

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:  # noqa: ARG002  # as in the seam
        """Return what it was made with."""
        if self.waits:
            await trio.lowlevel.checkpoint()
        return self.result  # type: ignore[return-value]  # perhaps a breach


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        (BadTool(restless=True), "must be the same every time"),
        (BadTool(schema={"type": "array"}), "must be of type 'object'"),
        (BadTool(grant="shell"), "must be a Capability or None, got 'shell'"),
        (BadTool(seconds=0.0), "timeout_seconds must be > 0 or None"),
        (BadTool(result="ok"), "must return a ToolResult, got 'ok'"),
        (BadTool(result=ToolResult(3)), "content must be text, got 3"),  # type: ignore[arg-type]  # the breach
        (BadTool(result=ToolResult("no", is_error=True)), "failed: no"),
        (BadTool(waits=False), "run\\(\\) must have a checkpoint"),
    ],
)
async def test_a_breach_of_a_tool_is_named(tool: Tool, text: str) -> None:
    """Each with the value that is wrong."""
    with pytest.raises(AssertionError, match=text):
        await check_tool(lambda: tool)


async def test_a_tool_that_breaks_on_bad_json_is_named() -> None:
    """Models write bad JSON; the tool says so, and does not break."""

    async def strict(arguments: str, _: ToolContext) -> str:
        await trio.lowlevel.checkpoint()
        if arguments != "{}":
            raise KeyError(arguments)
        return "ok"

    with pytest.raises(AssertionError, match=r"run\(''\) must return a result or raise"):
        await check_tool(lambda: broken_tool(strict))


async def test_a_tool_that_returns_nonsense_for_bad_json_is_named() -> None:
    """A good call is not all."""

    async def sloppy(arguments: str, _: ToolContext) -> ToolResult:
        await trio.lowlevel.checkpoint()
        return ToolResult("ok" if arguments == "{}" else 3)  # type: ignore[arg-type]  # the breach

    with pytest.raises(AssertionError, match="content must be text, got 3"):
        await check_tool(lambda: broken_tool(sloppy))


async def test_a_tool_may_refuse_bad_json_in_its_own_words() -> None:
    """A ToolError is told to the model as it is."""

    async def polite(arguments: str, _: ToolContext) -> str:
        await trio.lowlevel.checkpoint()
        if arguments != "{}":
            raise ToolError("write an object")
        return "ok"

    await check_tool(lambda: broken_tool(polite))


async def test_a_lone_context_stands_for_an_agent() -> None:
    """A tool that writes, asks and looks around can be tried without a pool."""
    agent = lone_context().agent
    assert (agent.agent_id, agent.name, agent.depth, agent.list_agents()) == (1, "checker", 0, ())
    assert agent.manifest.name
    assert (agent.memory_scope, agent.seconds()) == ("checker/1", 0.0)
    assert agent.parent_id == 0
    async with agent.without_slot("a webhook"):
        assert (await agent.send(2, "meanwhile")).recipient == 2
    assert (await agent.send(2, "hi")).content == "hi"
    assert (await agent.ask(2, "well?")).reply_to == 1
    assert (await agent.receive_many())[0].sender == 0
    with pytest.raises(ToolError, match="no pool in which 'help' could run"):
        await agent.run_child("help")


# --- memories


@attrs.define(eq=False)
class BadMemory(Memory):
    """A memory with one breach, on top of one that is good."""

    breach: str
    inner: InMemoryMemory = attrs.field(factory=InMemoryMemory)

    async def remember(self, fragment: Fragment) -> str:
        """Keep it, or something like it."""
        if self.breach == "no checkpoint" and "half" in fragment.content:
            return "id"
        if self.breach == "one scope":
            fragment = msgspec.structs.replace(fragment, scope="one")
        if self.breach == "no source":
            fragment = msgspec.structs.replace(fragment, source="memory")
        await self.inner.remember(fragment)
        if self.breach == "same id":
            return "mem-1"
        return await self.inner.remember(fragment) if self.breach == "other id" else "?"

    async def recall(self, query: MemoryQuery) -> tuple[MemoryHit, ...]:
        """Find it, or something else."""
        if self.breach == "finds nothing":
            await trio.lowlevel.checkpoint()
            return ()
        return await self.inner.recall(query)

    async def forget(self, fragment_id: str) -> bool:  # noqa: ARG002  # as in the seam
        """Say that it was there."""
        await trio.lowlevel.checkpoint()
        return True


@pytest.mark.parametrize(
    ("breach", "text"),
    [
        ("finds nothing", "must find a word that was remembered"),
        ("no source", "must come back as it was given"),
        ("same id", "forgotten fragment must not be found|newest first|never be used again"),
        ("wrong id", "must carry the id"),
        ("other id", "must not find fragments without the word"),
    ],
)
async def test_a_breach_of_a_memory_is_named(breach: str, text: str) -> None:
    """Each with the value that is wrong."""
    with pytest.raises(AssertionError, match=text):
        await check_memory(lambda: BadMemory(breach))


# --- observers


class AsyncObserver(Observer):
    """Somebody who thinks that everything is async."""

    async def on_event(self, event: Event) -> None:  # type: ignore[override]  # the breach
        """Never called."""


async def test_a_breach_of_an_observer_is_named() -> None:
    """One that raises, one that is async, one that is none."""
    with pytest.raises(AssertionError, match="raised RuntimeError"):
        await check_observer(RaisingObserver)
    with pytest.raises(AssertionError, match="must be an Observer"):
        await check_observer(object)  # type: ignore[arg-type]  # the breach


async def test_an_observer_sees_every_kind() -> None:
    """The check shows all that there are, so that none is new to it in a real pool."""
    recorder = Recorder()
    await check_observer(lambda: recorder)
    assert {type(event) for event in recorder.events} == set(Event.__args__)


async def test_what_is_opened_is_closed() -> None:
    """An opener may be an async context manager."""
    states: list[str] = []

    @asynccontextmanager
    async def opener() -> AsyncGenerator[Driver, None]:
        states.append("open")
        yield FunctionDriver(lambda _: "hello")  # noqa: ASYNC119  # nothing to clean up
        states.append("closed")

    await check_driver(opener)
    assert states == ["open", "closed"]
