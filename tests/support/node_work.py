"""What nodes do in the tests: a model that does as it is told, and tools. Imported by name."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import msgspec
import trio

from agentpool import AgentManifest, PrivacyTier, SpawnConfig, ToolError, UsageError
from agentpool.abc import (
    AgentContext,
    Driver,
    HearsThoughts,
    OnDelta,
    Tool,
    ToolContext,
    ToolDefinition,
    ToolResult,
)
from agentpool.cluster._far_context import FarContext
from agentpool.drivers import (
    BadRequestError,
    Completion,
    CompletionRequest,
    FunctionDriver,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentpool.tools import ToolRegistry, tool


class OddError(Exception):
    """An error that does not survive the way: it is made of other things than it has."""

    def __init__(self, one: str, two: str) -> None:
        """Make it of two."""
        super().__init__(f"{one} and {two}")


async def answer(request: CompletionRequest) -> Completion | str:
    """Do what the last message says.

    ``say X``, ``sleep S``, ``tick FILE NUMBER S``, ``call TOOL {...}``, ``slowly TOOL {...}``,
    ``fail KIND``, ``exit``.

    With ``mark FILE WORD`` in front of it, WORD is written into FILE first.
    """
    last = request.messages[-1]
    await trio.lowlevel.checkpoint()
    if isinstance(last, ToolMessage):
        return last.content
    assert isinstance(last, UserMessage)
    text = last.text.rpartition("\n")[2]
    if text.startswith("mark "):
        _, file, word, text = text.split(" ", 3)
        mark(file, word)
    verb, _, rest = text.partition(" ")
    match verb:
        case "sleep":
            await trio.sleep(float(rest))
            return f"slept {rest}"
        case "tick":
            file, number, seconds = rest.split(" ")
            return await tick(file, number, float(seconds))
        case "call" | "slowly":
            if verb == "slowly":
                await trio.sleep(1)
            name, _, arguments = rest.partition(" ")
            return Completion(tool_calls=(ToolCall("c1", name, arguments or "{}"),))
        case "fail":
            raise {"odd": OddError("this", "that"), "value": ValueError("no value")}.get(
                rest, BadRequestError("bad request", status_code=400)
            )
        case "exit":
            raise SystemExit(3)
        case _:
            return rest if verb == "say" else text


async def tick(file: str, number: str, seconds: float) -> str:
    """Write number, process and time into a file, again and again: it is still at work."""
    end = trio.current_time() + seconds
    mark(file, f"b:{number}:{os.getpid()}:{time.monotonic()}")
    while trio.current_time() < end:
        await trio.sleep(0.1)
        mark(file, f"t:{number}:{os.getpid()}:{time.monotonic()}")
    return number


def mark(file: str, word: str) -> None:
    """Add *word* to a file, at once: many processes may do so."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{word}\n".encode())
    os.close(descriptor)


def marks(file: Path) -> list[str]:
    """Return the words of such a file."""
    return file.read_text().split() if file.exists() else []


class Thinker(Driver):
    """A model that thinks, and does not say what that took; or one whose answers cannot cross."""

    def __init__(self, *, is_odd: bool) -> None:
        """Make one of the two."""
        self.is_odd = is_odd

    @property
    def context_window(self) -> int | None:
        """Unknown."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """It is here."""
        return PrivacyTier.SOVEREIGN

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Think."""
        await trio.lowlevel.checkpoint()
        if self.is_odd:
            return Completion("x", model=lambda: request)  # type: ignore[arg-type]
        assert isinstance(on_delta, HearsThoughts)
        on_delta.thought("hm")
        on_delta("so it is")
        return Completion("so it is")


MAY_BE_FOUND = threading.Event()
"""Whether ``open_late`` is there at once. Where a variable says so, it is not."""
if "AGENTPOOL_TEST_LATE" not in os.environ:
    MAY_BE_FOUND.set()


def __getattr__(name: str) -> object:
    """Have names that are something else on a node, as if it had another version.

    And one that may take long to import.
    """
    if name.startswith("UNLIKE_"):
        is_there = threading.current_thread().name == "node local-2"
        return _unlike(name.removeprefix("UNLIKE_")) if is_there else ToolRegistry([process, nap])
    if name == "open_only_here" and threading.current_thread() is threading.main_thread():
        return open_model
    if name == "open_late":
        MAY_BE_FOUND.wait(600)
        return open_model
    raise AttributeError(name)


def _unlike(kind: str) -> object:
    """Return what one node has in place of two tools."""
    match kind:
        case "less":
            return ToolRegistry([process])
        case "more":
            return ToolRegistry([process, nap, refuse])
        case "schema":

            async def doze(seconds: int) -> str:  # noqa: ASYNC124  # called like its neighbours
                """Rest, and say for how long."""
                return str(seconds)

            return ToolRegistry([process, tool(name="nap")(doze)])
        case "asked":
            asked = tool(needs_approval=True, timeout_seconds=9.0)(process.function)
            return ToolRegistry([asked, nap])
        case "made":
            return build_kit
        case _:
            return 42


def open_model(manifest: AgentManifest) -> Driver:
    """Return the model, which keeps to every tier."""
    if manifest.name in {"thinker", "uncrossable"}:
        return Thinker(is_odd=manifest.name == "uncrossable")
    tier = PrivacyTier.STANDARD if manifest.name == "leaky" else manifest.privacy
    price = 1 / 1_000_000 if manifest.name == "priced" else 0.0
    return FunctionDriver(answer, privacy=tier, price_per_token_usd=price)


@asynccontextmanager
async def open_held(manifest: AgentManifest) -> AsyncGenerator[Driver, None]:
    """Open the model for a while."""
    if manifest.name == "broken":
        raise BadRequestError("no weights here")
    if manifest.name.startswith("slow "):
        mark(manifest.name.removeprefix("slow "), "opening")
        await trio.sleep(600)
    yield open_model(manifest)


HELD_TIMES: dict[str, int] = {}
"""How often a model is still held, by its manifest's name."""


@asynccontextmanager
async def open_held_once_more(manifest: AgentManifest) -> AsyncGenerator[Driver, None]:
    """Open the model, but for so many times, in which it takes until the node is lost."""
    if HELD_TIMES[manifest.name]:
        HELD_TIMES[manifest.name] -= 1
        mark(manifest.name.removeprefix("slow "), "opening")
        await trio.sleep(600)
    yield open_model(manifest)


@asynccontextmanager
async def open_stuck(manifest: AgentManifest) -> AsyncGenerator[Driver, None]:
    """Open no model: wait for ever, or where no cancellation arrives."""
    if manifest.name == "held":
        await trio.to_thread.run_sync(STUCK.wait, 60)
    await trio.sleep(600 if manifest.name == "slow" else 0)
    yield open_model(manifest)


STUCK = threading.Event()
"""What such a model waits for."""


SAME = FunctionDriver(answer)


def open_nothing(manifest: AgentManifest) -> int:
    """Return what is no driver."""
    return len(manifest.name)


@tool
async def process() -> str:
    """Say in which process this runs."""
    await trio.lowlevel.checkpoint()
    return str(os.getpid())


@tool
async def nap(seconds: float, file: str) -> str:
    """Sleep, and say that it ended."""
    mark(file, "began")
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        mark(file, "cancelled")
        raise
    mark(file, "ended")
    return "rested"


@tool(on_unknown="rerun")
async def nap_again(seconds: float, file: str) -> str:
    """Sleep; twice does no harm."""
    mark(file, "began")
    if len(marks(Path(file))) == 1:
        await trio.sleep(seconds)
    return "rested"


@tool
async def refuse() -> str:
    """Refuse."""
    await trio.lowlevel.checkpoint()
    raise ToolError("not today")


@tool
async def tell(recipient: int, text: str, context: ToolContext) -> str:
    """Write to another agent."""
    message = await context.agent.send(recipient, text)
    return f"{message.sender} to {message.recipient}"


@tool
async def ask(recipient: int, text: str, context: ToolContext) -> str:
    """Ask another agent."""
    return (await context.agent.ask(recipient, text)).content


@tool
async def reply(text: str, context: ToolContext) -> str:
    """Wait for a question, and answer it."""
    (question,) = await context.agent.receive_many()
    await context.agent.send(question.sender, text, reply_to=question.message_id)
    return question.content


@tool
async def child(query: str, other: bool, context: ToolContext) -> str:  # noqa: FBT001
    """Have a child do something."""
    wanted = SpawnConfig(AgentManifest(name="other"), query) if other else query
    outcome = await context.agent.run_child(wanted, name="kid")
    return f"{outcome.name} {outcome.status.value}: {outcome.text}"


@tool
async def look(context: ToolContext) -> str:
    """Say what a tool can know about its agent."""
    agent = context.agent
    await trio.lowlevel.checkpoint()
    known = [agent.agent_id, agent.name, agent.manifest.name, agent.depth, agent.parent_id]
    others = [info.agent_id for info in agent.list_agents()]
    left = context.remaining_seconds()
    return json.dumps([*known, others, agent.seconds() >= 0, bool(agent.memory_scope), left < 99])


@tool
async def budget_of(context: ToolContext) -> str:
    """Look at the budget."""
    await trio.lowlevel.checkpoint()
    return str(context.budget)


@tool
async def think(text: str, context: ToolContext, *, aloud: bool = True) -> str:
    """Ask another model at the agent's expense."""
    pieces: list[str] = []
    request = CompletionRequest((UserMessage(f"say {text}"),))
    answered = await context.agent.complete(open_model(AgentManifest()), request,
                                            on_delta=pieces.append if aloud else None)  # fmt: skip
    return f"{answered.text} {pieces}"


@tool
async def outside(seconds: float, context: ToolContext) -> str:
    """Wait without a slot."""
    async with context.agent.without_slot("the weather"):
        await trio.sleep(seconds)
    return "back"


@tool
async def impatient(context: ToolContext) -> str:
    """Wait for a message, but not long."""
    with trio.move_on_after(0.2):
        await context.agent.receive_many()
    return "gave up"


@tool
async def stubborn(file: str, context: ToolContext) -> str:
    """Write to the owner when it is cancelled."""
    mark(file, "began")
    try:
        await trio.sleep(600)
    finally:
        with trio.CancelScope(shield=True):
            try:
                await context.agent.send(0, "good bye")
            except UsageError:
                mark(file, "refused")
    return "never"


@tool
async def nonsense(context: ToolContext) -> str:
    """Ask what is not known."""
    agent = context.agent
    assert isinstance(agent, FarContext)
    return str(await agent._ask("nonsense"))


@tool
async def local_child(context: ToolContext) -> str:
    """Want a child whose answer has a form that is known here alone."""

    class Local(msgspec.Struct):
        x: int

    wanted = SpawnConfig(AgentManifest(), "say x", output_type=Local)
    return (await context.agent.run_child(wanted)).text


TOOLS = ToolRegistry(
    [
        process,
        nap,
        nap_again,
        refuse,
        tell,
        ask,
        reply,
        child,
        look,
        budget_of,
        think,
        outside,
        impatient,
        stubborn,
        nonsense,
        local_child,
    ]
)


class ProxyTool(Tool):
    """A tool whose schema cannot be pickled."""

    @property
    def definition(self) -> ToolDefinition:
        """Return it."""
        return ToolDefinition("odd", "Odd.", MappingProxyType({"type": "object"}))

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Never asked."""
        raise AssertionError(arguments, context)


UNCROSSABLE = ToolRegistry([ProxyTool()])


async def build_kit(context: AgentContext) -> ToolRegistry:
    """Make each agent its own tools."""
    await trio.lowlevel.checkpoint()
    if context.name == "clumsy":
        raise ValueError("no tools for you")
    return ToolRegistry([process]) if context.name == "modest" else TOOLS


async def build_slowly(context: AgentContext) -> ToolRegistry:
    """Take long the first time."""
    mark(context.name, "building")
    if len(marks(Path(context.name))) == 1:
        await trio.sleep(600)
    return TOOLS


FIRST_AT: dict[str, int] = {}
"""How often ``open_by_turns`` was called, by manifest."""

COUNTING = threading.Lock()
"""Nodes that are threads open their models side by side."""


@asynccontextmanager
async def open_by_turns(manifest: AgentManifest) -> AsyncGenerator[Driver, None]:
    """Open the model on the first node that asks; fail on the next as the manifest's name says."""
    with COUNTING:
        FIRST_AT[manifest.name] = turn = FIRST_AT.get(manifest.name, 0) + 1
    await trio.lowlevel.checkpoint()
    if turn % 2 == 0:
        match manifest.name.partition(" ")[0]:
            case "file":
                raise FileNotFoundError("no such file: mine.gguf")
            case "odd":
                raise OddError("this", "that")
            case "exit":
                raise SystemExit(3)
            case _:
                yield 42  # type: ignore[misc]
    yield open_model(manifest)


MEETING = threading.Barrier(2)
"""Where two nodes meet that open their models side by side."""


@asynccontextmanager
async def open_beside_another(manifest: AgentManifest) -> AsyncGenerator[Driver, None]:
    """Open the model when another node opens it as well."""
    await trio.to_thread.run_sync(MEETING.wait, 30)
    yield open_model(manifest)


def open_quoting(manifest: AgentManifest) -> Driver:
    """Fail with a key of this node in the error; the manifest's name says how."""
    text = f"refused: {os.environ['READERS_WORD']} {os.environ['NODES_OWN_TOKEN']}"
    match manifest.name:
        case "ours":
            raise BadRequestError(text, status_code=401)
        case "system":
            raise FileNotFoundError(2, "refused", text)
        case "odd":
            raise OddError(text, "that")
        case _:
            raise ValueError(text)
