"""Fake edges for tests of the pool: drivers, tools, observers and gauges, all real code.

Nothing of ours is replaced: a fake stands where a user's own driver, tool, memory or
observer would stand.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Literal, Self, TypedDict, TypeVar, Unpack, final

import attrs
import msgspec
import trio

from agentpool import (
    AgentManifest,
    AgentMessage,
    AgentOutcome,
    AgentPool,
    AgentPoolError,
    Capability,
    CapabilityKind,
    ModelConfig,
    PrivacyTier,
    ResourceQuota,
    SpawnConfig,
    Usage,
)
from agentpool._loop.guard import LoopGuard
from agentpool._loop.loop import run_loop
from agentpool._loop.run import (
    Complete,
    Effect,
    LeftOut,
    Recall,
    Receive,
    Remember,
    Run,
    RunTools,
    Summarize,
)
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
    OnSent,
    SendingDriver,
    Tool,
    ToolContext,
    ToolDefinition,
    ToolResult,
)
from agentpool.drivers import (
    AssistantMessage,
    ChatMessage,
    FinishReason,
    NetworkError,
    ToolCall,
    ToolMessage,
    UserMessage,
)

E = TypeVar("E")

WITH_MEMORY = (Capability(CapabilityKind.MEMORY),)
"""The grant that lets an agent recall and remember."""

LOCAL = AgentManifest(name="local", model=ModelConfig(model_path="m.gguf"))
"""An agent whose model is a file of this machine."""

REMOTE = AgentManifest(
    name="remote",
    privacy=PrivacyTier.STANDARD,
    model=ModelConfig(remote_model="big", api_key_env="MY_KEY"),
)
"""An agent whose model is behind somebody's API, with a key."""


# --- values


class Quota(TypedDict, total=False):
    """Limits of a run, by their names in ``ResourceQuota``."""

    max_iterations: int
    max_tool_calls: int
    max_cost_usd: float
    max_tokens_budget: int | None
    max_repeated_calls: int
    run_seconds: float | None
    request_seconds: float | None
    tool_seconds: float | None
    approval_seconds: float | None


def misnamed(config: SpawnConfig, name: str) -> SpawnConfig:
    """Return *config* with a name that none can be made with, as in the files of others."""
    msgspec.structs.force_setattr(config, "name", name)
    return config


def manifest(
    name: str = "worker",
    *,
    capabilities: tuple[Capability, ...] = (),
    privacy: PrivacyTier = PrivacyTier.SOVEREIGN,
    system_prompt: str = "You are a helpful assistant.",
    max_tokens: int = 1024,
    on_cut: Literal["stop", "continue"] = "stop",
    **resources: Unpack[Quota],
) -> AgentManifest:
    """Return a manifest without memory, so that a request holds the query alone."""
    return AgentManifest(
        name=name,
        privacy=privacy,
        capabilities=capabilities,
        model=ModelConfig(system_prompt=system_prompt, max_tokens=max_tokens, on_cut=on_cut),
        resources=ResourceQuota(**resources),
    )


def job(query: str = "hello", *, deadline_seconds: float | None = None) -> SpawnConfig:
    """Return an agent to spawn that is called what it is asked."""
    return SpawnConfig(
        manifest(), query, name=query.partition("\n")[0], deadline_seconds=deadline_seconds
    )


def jobs(*queries: str) -> list[SpawnConfig]:
    """Return one agent to spawn for each query."""
    return [job(query) for query in queries]


def tool_call(name: str, call_id: str = "", /, **arguments: Json) -> ToolCall:
    """Return the wish to call *name*."""
    return ToolCall(call_id or f"id-{name}", name, json.dumps(arguments))


def calling(*tool_calls: ToolCall, text: str = "", usage: Usage | None = None) -> Completion:
    """Return the answer that makes these calls."""
    return Completion(text, tool_calls, FinishReason.TOOL_USE, usage)


def cut_off(text: str, usage: Usage | None = None) -> Completion:
    """Return an answer that ran into ``max_tokens``."""
    return Completion(text, (), FinishReason.MAX_TOKENS, usage)


def query_of(request: CompletionRequest) -> str:
    """Return what the agent was asked: the first thing that it was told."""
    first = request.messages[0]
    assert isinstance(first, UserMessage)
    return first.text


def turns_of(request: CompletionRequest) -> int:
    """Return how many answers the model has given so far."""
    return sum(isinstance(message, AssistantMessage) for message in request.messages)


def told(request: CompletionRequest) -> list[str]:
    """Return everything that was told to the model from the user's side."""
    return [m.text for m in request.messages if isinstance(m, UserMessage)]


def results_of(request: CompletionRequest) -> list[ToolMessage]:
    """Return the results of tool calls in the request."""
    return [m for m in request.messages if isinstance(m, ToolMessage)]


def of_type(events: Iterable[object], kind: type[E]) -> list[E]:
    """Return the events of one type."""
    return [event for event in events if isinstance(event, kind)]


# --- gauges


@final
class Gauge:
    """Counts who is at work at each instant, and the most that ever were."""

    def __init__(self) -> None:
        """Begin at nobody."""
        self._busy: Counter[str] = Counter()
        self.peak = 0
        """The most who were at work at the same time."""

    @property
    def now(self) -> int:
        """Who is at work."""
        return sum(count > 0 for count in self._busy.values())

    @contextmanager
    def work(self, name: str) -> Iterator[None]:
        """Be at work as *name* while inside."""
        self._busy[name] += 1
        self.peak = max(self.peak, self.now)
        try:
            yield
        finally:
            self._busy[name] -= 1


# --- drivers


Answering = Callable[[CompletionRequest, OnDelta], Awaitable[Completion | str]]


@final
@attrs.define(eq=False)
class NoConnection(SendingDriver):
    """A driver that cannot connect, so that nothing ever leaves."""

    seconds: float = 0.0
    """How long it tries."""

    @property
    def context_window(self) -> None:
        """Unknown."""

    @property
    def privacy(self) -> PrivacyTier:
        """This machine."""
        return PrivacyTier.SOVEREIGN

    async def complete(
        self,
        request: CompletionRequest,  # noqa: ARG002  # nobody gets it
        *,
        on_delta: OnDelta | None = None,  # noqa: ARG002  # nothing comes
        on_sent: OnSent | None = None,  # noqa: ARG002  # nothing leaves
    ) -> Completion:
        """Try, and fail."""
        await trio.sleep(self.seconds)
        raise NetworkError("no connection")


@final
@attrs.define(eq=False)
class LiveDriver(Driver):
    """A driver that asks an async function, which may stream, hang, sleep or raise."""

    _answer: Answering
    _privacy: PrivacyTier = PrivacyTier.SOVEREIGN
    _context_window: int | None = None
    _usage: Usage | None = None
    _max_output_tokens: int | None = None
    _price_per_token_usd: float | None = None
    calls: int = 0
    """Requests so far."""

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Ask the function."""
        await trio.lowlevel.checkpoint()
        self.calls += 1
        answer = await self._answer(request, on_delta or _ignore)
        return Completion(answer, usage=self._usage) if isinstance(answer, str) else answer

    @property
    def context_window(self) -> int | None:
        """What it was made with."""
        return self._context_window

    @property
    def max_output_tokens(self) -> int | None:
        """What it was made with."""
        return self._max_output_tokens

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002  # one price
        """Return the price that it was made with, for all tokens."""
        price = self._price_per_token_usd
        return None if price is None else usage.total_tokens * price

    @property
    def privacy(self) -> PrivacyTier:
        """What it was made with."""
        return self._privacy


def _ignore(_: str) -> None:
    """Take a piece of text and forget it."""


async def _hang(_: CompletionRequest, __: OnDelta) -> Completion:
    await trio.sleep_forever()
    raise AssertionError("unreachable")  # pragma: no cover


def hanging_driver() -> LiveDriver:
    """Return a driver whose model never answers."""
    return LiveDriver(_hang)


def sleepy_driver(gauge: Gauge | None = None) -> LiveDriver:
    """Return a driver that does what the query says, word by word.

    ``sleep 3`` sleeps, ``raise text`` raises ``ValueError``, ``hang`` hangs, ``piece text``
    streams, ``say text`` answers with the rest of the query.
    """
    gauge = gauge or Gauge()

    async def answer(request: CompletionRequest, on_delta: OnDelta) -> str:
        query = query_of(request)
        words = iter(query.split())
        with gauge.work(query):
            for word in words:
                if word == "sleep":
                    await trio.sleep(float(next(words)))
                elif word == "hang":
                    await trio.sleep_forever()
                elif word == "raise":
                    raise ValueError(next(words, "boom"))
                elif word == "piece":
                    on_delta(next(words))
                elif word == "say":
                    return " ".join(words)
        return f"done: {query}"

    return LiveDriver(answer)


# --- tools


ToolFunction = Callable[[str, ToolContext], Awaitable[ToolResult | str]]


@final
@attrs.define(eq=False)
class FakeTool(Tool):
    """A tool made of an async function of the arguments' text and the context."""

    _name: str
    _function: ToolFunction
    _capability: Capability | None = None
    _timeout_seconds: float | None = None
    calls: list[str] = attrs.field(factory=list)
    """The arguments of every call."""

    @property
    def definition(self) -> ToolDefinition:
        """Name and no parameters."""
        return ToolDefinition(self._name, f"the tool {self._name}", {"type": "object"})

    @property
    def capability(self) -> Capability | None:
        """What it was made with."""
        return self._capability

    @property
    def timeout_seconds(self) -> float | None:
        """What it was made with."""
        return self._timeout_seconds

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Call the function."""
        await trio.lowlevel.checkpoint()
        self.calls.append(arguments)
        result = await self._function(arguments, context)
        return ToolResult(result) if isinstance(result, str) else result


def echo_tool(name: str = "echo") -> FakeTool:
    """Return a tool that gives back its arguments."""

    async def echo(arguments: str, _: ToolContext) -> str:
        await trio.lowlevel.checkpoint()
        return arguments

    return FakeTool(name, echo)


# --- observers and memories


@final
@attrs.define(eq=False)
class Recorder(Observer):
    """Writes down every event."""

    events: list[Event] = attrs.field(factory=list)
    """What happened, in order."""

    def on_event(self, event: Event) -> None:
        """Write it down."""
        self.events.append(event)

    def names(self, agent_id: int) -> list[str]:
        """Return the types of one agent's events, in order."""
        return [type(event).__name__ for event in self.events if event.agent_id == agent_id]


@final
@attrs.define(eq=False)
class RaisingObserver(Observer):
    """Raises at every event."""

    calls: int = 0
    """How often it was called."""

    def on_event(self, event: Event) -> None:
        """Raise."""
        self.calls += 1
        raise RuntimeError(f"observer broke at {event.sequence}")


@final
class BrokenMemory(Memory):
    """Raises, whatever it is asked."""

    async def remember(self, fragment: Fragment) -> str:  # noqa: ARG002  # it breaks before it looks
        """Raise."""
        await trio.lowlevel.checkpoint()
        raise OSError("disk full")

    async def recall(self, query: MemoryQuery) -> tuple[MemoryHit, ...]:  # noqa: ARG002  # it breaks before it looks
        """Raise."""
        await trio.lowlevel.checkpoint()
        raise OSError("disk gone")

    async def forget(self, fragment_id: str) -> bool:  # noqa: ARG002  # it breaks before it looks
        """Raise."""
        await trio.lowlevel.checkpoint()
        raise OSError("disk gone")


# --- pools


async def wait_all(pool: AgentPool) -> list[AgentOutcome]:
    """Return all outcomes, in spawn order."""
    return list((await pool.join_all()).values())


@asynccontextmanager
async def background(async_fn: Callable[[], Awaitable[object]]) -> AsyncGenerator[None, None]:
    """Run a function beside the block, and cancel it at the block's end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(async_fn)
        yield
        nursery.cancel_scope.cancel()


def texts(outcomes: Sequence[AgentOutcome]) -> list[str]:
    """Return the texts of outcomes."""
    return [outcome.text for outcome in outcomes]


# --- the loop without an event loop


@final
@attrs.define(eq=False)
class Performer:
    """Performs the effects of one run by hand, without an event loop."""

    run: Run
    answers: Iterator[Completion | str]
    fragments: Sequence[str] = ()
    post: dict[int, list[AgentMessage]] = attrs.field(factory=dict)
    """What waits in the inbox before turn 0, 1, 2, …"""
    interrupt_at: int | None = None
    """The turn before which somebody wants the run to stop."""
    tool: Callable[[ToolCall], str] = attrs.field(default=lambda call: f"ran {call.call_id}")
    price: Callable[[Usage], float | None] = attrs.field(default=lambda _: 0.0)
    """What an answer costs whose usage is known."""
    stop_after: int | None = None
    """The effect after which the run is broken off, as a cancellation does."""
    summaries: list[str] = attrs.field(factory=list)
    """What the model writes when it is asked for a summary."""
    cuts: list[LeftOut] = attrs.field(factory=list)
    """What left the window."""
    asked_to_sum_up: list[CompletionRequest] = attrs.field(factory=list)
    after_summary: Callable[[], object] = lambda: None
    """Called when a summary was written."""
    effects: list[Effect] = attrs.field(factory=list)
    requests: list[CompletionRequest] = attrs.field(factory=list)
    """What the model was asked, with the messages as they were then."""
    ran: list[ToolCall] = attrs.field(factory=list)
    remembered: list[str] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    error: Exception | None = None
    """What the run raised."""
    turn: int = 0

    def go(self) -> Self:
        """Take the run to its end, or to where it is broken off."""
        try:
            for effect in run_loop(self.run):
                self.effects.append(effect)
                if self.stop_after is not None and len(self.effects) > self.stop_after:
                    break
                self.perform(effect)
        except AgentPoolError as error:
            self.error = error
        return self

    def perform(self, effect: Effect) -> None:
        """Do what the run asks for."""
        if isinstance(effect, Recall):
            effect.fragments = self.fragments
        elif isinstance(effect, Receive):
            effect.messages = self.post.get(self.turn, [])
            effect.interrupted = self.interrupt_at == self.turn
            self.turn += 1
        elif isinstance(effect, Complete):
            request = effect.request
            self.requests.append(msgspec.structs.replace(request, messages=tuple(request.messages)))
            answer = next(self.answers)
            completion = Completion(answer) if isinstance(answer, str) else answer
            if completion.usage is not None:
                cost_usd = self.price(completion.usage)
                completion = msgspec.structs.replace(completion, cost_usd=cost_usd)
            effect.completion = completion
        elif isinstance(effect, RunTools):
            for index, call in enumerate(effect.calls):
                if effect.results[index] is None:
                    self.ran.append(call)
                    effect.results[index] = ToolMessage(call.call_id, call.name, self.tool(call))
        elif isinstance(effect, Remember):
            self.remembered.append(effect.content)
        elif isinstance(effect, Summarize | LeftOut):
            self._make_room(effect)
        else:
            self.warnings.append(effect.text)

    def _make_room(self, effect: Summarize | LeftOut) -> None:
        if isinstance(effect, LeftOut):
            self.cuts.append(effect)
        else:
            self.asked_to_sum_up.append(effect.request)
            effect.text = self.summaries.pop(0)
            effect.failure = "the model wrote nothing"
            self.after_summary()

    @property
    def words(self) -> list[str]:
        """Return the types of the effects, in order."""
        return [type(effect).__name__ for effect in self.effects]

    @property
    def transcript(self) -> tuple[ChatMessage, ...]:
        """Return the conversation as an outcome would have it."""
        return self.run.settled_messages("broken off")


def new_run(
    query: str = "hello",
    *,
    history: Sequence[ChatMessage] = (),
    refuse: Callable[[str], str | None] = lambda _: None,
    room_tokens: int | None = None,
    run_manifest: AgentManifest | None = None,
    on_cut: Literal["stop", "continue"] = "stop",
    **resources: Unpack[Quota],
) -> Run:
    """Return a run that has not begun."""
    run_manifest = run_manifest or manifest(on_cut=on_cut, **resources)
    guard = LoopGuard(run_manifest.resources)
    return Run(run_manifest, query, history, (), refuse, room_tokens, guard)


def perform(
    answers: Iterable[Completion | str], run: Run | None = None, **given: object
) -> Performer:
    """Take a run to its end with these answers."""
    return Performer(run or new_run(), iter(answers), **given).go()  # type: ignore[arg-type]  # see Performer
