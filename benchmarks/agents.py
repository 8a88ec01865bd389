"""agentpool itself: real pools and real agents, with a driver that answers at once.

``W1:agents`` and ``W3:agent`` are agents as a user gets them who sets nothing but limits out
of reach. Such agents keep nothing in memory, since nobody could recall it;
``W1:remembering`` is the same with a memory that was handed in, so every agent recalls once
and remembers once. ``W3:deadlines`` has a time limit on every request and every tool call,
as the full loop among the yardsticks has; ``W3:unwatched`` has these, and no observer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import ExitStack
from typing import Final, TypeAlias, final

import attrs
import trio
from meter import Meter, Workload, load_settled, main
from yardsticks import INBOX, MESH, MIN_TURNS, SLEEP_SECONDS, SLEEPERS, SLOTS, WARM_UP

from agentpool import (
    AgentHandle,
    AgentManifest,
    AgentOutcome,
    AgentPool,
    AgentStatus,
    InboxFullError,
    PrivacyTier,
    ResourceQuota,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import (
    AgentContext,
    Completion,
    CompletionRequest,
    Driver,
    Event,
    Memory,
    Observer,
    OnDelta,
)
from agentpool.drivers import FinishReason, ToolCall
from agentpool.memory import InMemoryMemory
from agentpool.observe import Phase, PhaseChanged
from agentpool.observe._hub import EventHub
from agentpool.tools import ToolRegistry, tool

DONE = Completion("done")
"""What every model here says in the end."""

PLENTY = 1_000_000
"""A limit that no workload reaches."""


@attrs.define(eq=False)
class NullDriver(Driver):
    """Answers at once, and always the same."""

    @property
    def context_window(self) -> int | None:
        """Unknown."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """This machine."""
        return PrivacyTier.SOVEREIGN

    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
    ) -> Completion:
        """Answer after a checkpoint."""
        await trio.lowlevel.checkpoint()
        return self.answer()

    def answer(self) -> Completion:
        """Return the answer."""
        return DONE


@final
@attrs.define(eq=False)
class CallingDriver(NullDriver):
    """Calls a tool in every turn of a run but the last, each time with other arguments."""

    turns: int
    tool_name: str = "noop"
    turn: int = 0

    def answer(self) -> Completion:
        """Return a call, or the end of the run."""
        self.turn += 1
        if self.turn % self.turns == 0:
            return DONE
        call = ToolCall(f"c{self.turn}", self.tool_name, f'{{"x": {self.turn}}}')
        return Completion("", (call,), FinishReason.TOOL_USE)


@final
@attrs.define(eq=False)
class Listener(Observer):
    """Keeps every event, as the full loop among the yardsticks does."""

    events: list[Event] = attrs.field(factory=list)

    def on_event(self, event: Event) -> None:
        """Keep *event*."""
        self.events.append(event)


# --- Many agents that do nothing


async def w1_agents(n: int, meter: Meter) -> None:
    """Measure a pool of agents, each with one question, as the README shows."""
    await _agents(WARM_UP)
    with meter.running():
        await _agents(n)


async def w1_nowait(n: int, meter: Meter) -> None:
    """Measure the same by ``fan_out_nowait``."""
    await _agents(WARM_UP, fan_out=_fan_out_nowait)
    with meter.running():
        await _agents(n, fan_out=_fan_out_nowait)


async def w1_spawn(n: int, meter: Meter) -> None:
    """Measure the same, spawned one by one."""
    await _agents(WARM_UP, fan_out=_spawn_each)
    with meter.running():
        await _agents(n, fan_out=_spawn_each)


async def w1_as_completed(n: int, meter: Meter) -> None:
    """Measure the same, taken one by one in the order of the ends."""
    await _taken(WARM_UP)
    with meter.running():
        await _taken(n)


async def w1_map(n: int, meter: Meter) -> None:
    """Measure a map over queries."""
    await _mapped(WARM_UP)
    with meter.running():
        await _mapped(n)


async def w1_remembering(n: int, meter: Meter) -> None:
    """Measure agents with a memory that outlives the pool."""
    await _agents(WARM_UP, InMemoryMemory())
    memory = InMemoryMemory()
    with meter.running():
        await _agents(n, memory)


@final
@attrs.define(eq=False)
class SlowDriver(NullDriver):
    """Takes the time of a model of W2."""

    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
    ) -> Completion:
        """Answer after a while."""
        await trio.sleep(SLEEP_SECONDS)
        return self.answer()


async def w2_agents(n: int, meter: Meter) -> None:
    """Measure agents whose models take their time, a thousand at once."""
    await _agents(WARM_UP)
    manifest = AgentManifest()
    with meter.running():
        async with open_pool(SlowDriver(), max_concurrent=SLEEPERS, max_queued=n) as pool:
            await pool.fan_out(SpawnConfig(manifest, "go") for _ in range(n))
            assert len(await pool.join_all()) == n


FanOut: TypeAlias = Callable[[AgentPool, Iterable[SpawnConfig]], Coroutine[object, object, None]]
"""How the agents get into the pool."""


async def _fan_out(pool: AgentPool, configs: Iterable[SpawnConfig]) -> None:
    await pool.fan_out(configs)


async def _fan_out_nowait(pool: AgentPool, configs: Iterable[SpawnConfig]) -> None:  # noqa: ASYNC124  # called like its neighbours
    pool.fan_out_nowait(configs)


async def _spawn_each(pool: AgentPool, configs: Iterable[SpawnConfig]) -> None:
    for config in configs:
        await pool.spawn(config)


async def _agents(count: int, memory: Memory | None = None, fan_out: FanOut = _fan_out) -> None:
    manifest = AgentManifest()
    async with open_pool(
        NullDriver(), max_concurrent=SLOTS, max_queued=count, memory=memory
    ) as pool:
        await fan_out(pool, (SpawnConfig(manifest, "go") for _ in range(count)))
        outcomes = await pool.join_all()
    assert len(outcomes) == count
    assert outcomes[count].status is AgentStatus.COMPLETED


async def _taken(count: int) -> None:
    manifest = AgentManifest()
    taken = 0
    async with open_pool(NullDriver(), max_concurrent=SLOTS, max_queued=count) as pool:
        await pool.fan_out(SpawnConfig(manifest, "go") for _ in range(count))
        async for outcome in pool.as_completed():
            taken += outcome.status is AgentStatus.COMPLETED
    assert taken == count


async def _mapped(count: int) -> None:
    taken = 0
    async with (
        open_pool(NullDriver(), max_concurrent=SLOTS) as pool,
        pool.map(AgentManifest(), ("go" for _ in range(count))) as outcomes,
    ):
        async for outcome in outcomes:
            taken += outcome.status is AgentStatus.COMPLETED
    assert taken == count


# --- One agent, many turns


@tool
async def noop(x: int) -> str:  # noqa: ARG001  # a model has something to write
    """Do nothing.

    Args:
        x: Any number.
    """
    await trio.lowlevel.checkpoint()
    return "ok"


LIMITED: Final = ResourceQuota(
    max_iterations=PLENTY, max_tool_calls=PLENTY, request_seconds=60.0, tool_seconds=60.0
)
"""A time limit on every request and every tool call."""


async def w3_agent(n: int, meter: Meter) -> None:
    """Measure an agent whose limits are out of reach."""
    await _turns(n, meter, ResourceQuota(max_iterations=PLENTY, max_tool_calls=PLENTY))


async def w3_deadlines(n: int, meter: Meter) -> None:
    """Measure an agent with time limits."""
    await _turns(n, meter, LIMITED)


async def w3_unwatched(n: int, meter: Meter) -> None:
    """Measure an agent with time limits in a pool that has no observer."""
    await _turns(n, meter, LIMITED, watched=False)


async def _turns(n: int, meter: Meter, quota: ResourceQuota, *, watched: bool = True) -> None:
    await _one_agent(CallingDriver(50), quota, watched=watched)
    runs = meter.times(MIN_TURNS, n)
    meter.operations = n * runs
    driver = CallingDriver(n)
    with meter.running():
        for _ in range(runs):
            outcome = await _one_agent(driver, quota, watched=watched)
            assert len(outcome.messages) == 2 * n


async def _one_agent(driver: Driver, quota: ResourceQuota, *, watched: bool) -> AgentOutcome:
    config = SpawnConfig(AgentManifest(resources=quota), "go")
    observers = [Listener()] if watched else []
    async with open_pool(driver, tools=ToolRegistry([noop]), observers=observers) as pool:
        handle = await pool.spawn(config)
        outcome = await handle.wait()
    outcome.unwrap()
    return outcome


# --- Messages between two agents, sent and received by their tools

Work: TypeAlias = Callable[[AgentContext], Coroutine[object, object, None]]
"""What an agent of W4 does with the messages."""

Owner: TypeAlias = Callable[[list[AgentHandle]], Coroutine[object, object, None]]
"""What the pool's owner does in W4."""


async def _at_work(meter: Meter, works: list[Work], owner: Owner | None = None) -> None:
    """Let an agent do each of *works* in its tool; measure from their start to the end.

    Args:
        meter: What measures.
        works: The work of agents 1, 2, 3, …
        owner: What the owner does meanwhile, with their handles.
    """
    manifest = AgentManifest(resources=ResourceQuota(tool_seconds=None))
    settled = load_settled()

    def tools(context: AgentContext) -> ToolRegistry:
        @tool
        async def work(x: int) -> None:  # noqa: ARG001  # as in W3
            """Do the agent's work."""
            # An agent's loop takes what waits in its inbox: all must be at work first.
            await settled()
            await works[context.agent_id - 1](context)

        return ToolRegistry([work])

    def driver(_: AgentManifest) -> Driver:
        return CallingDriver(2, "work")

    async with open_pool(
        driver, tools=tools, max_concurrent=len(works), inbox_capacity=INBOX
    ) as pool:
        with meter.running():
            handles = pool.fan_out_nowait(SpawnConfig(manifest, "go") for _ in works)
            if owner is not None:
                await owner(handles)
            for outcome in (await pool.join_all()).values():
                outcome.unwrap()


def receiver(count: int) -> Work:
    """Return the work of receiving *count* messages."""

    async def receive(context: AgentContext) -> None:
        left = count
        while left > 0:
            left -= len(await context.receive_many())

    return receive


async def w4_stream(n: int, meter: Meter) -> None:
    """Measure one sender, one receiver."""

    async def send(context: AgentContext) -> None:
        for _ in range(n):
            await context.send(2, "a message")

    await _at_work(meter, [send, receiver(n)])


async def w4_batch(n: int, meter: Meter) -> None:
    """Measure a sender who waits only when the inbox is full."""
    settled = load_settled()

    async def send(handles: list[AgentHandle]) -> None:
        (handle,) = handles
        await settled()  # as in _at_work(): or the loop takes the first ones
        for _ in range(n):
            try:
                handle.send_nowait("a message")
            except InboxFullError:
                await handle.send("a message")

    await _at_work(meter, [receiver(n)], send)


async def w4_ping_pong(n: int, meter: Meter) -> None:
    """Measure two who answer each other."""
    meter.operations = n // 2 * 2

    async def ping(context: AgentContext) -> None:
        for _ in range(n // 2):
            await context.send(2, "ping")
            await context.receive_many()

    async def pong(context: AgentContext) -> None:
        for _ in range(n // 2):
            await context.receive_many()
            await context.send(1, "pong")

    await _at_work(meter, [ping, pong])


async def w4_ask(n: int, meter: Meter) -> None:
    """Measure one who asks and one who answers."""
    meter.operations = n // 2 * 2

    async def ask(context: AgentContext) -> None:
        for _ in range(n // 2):
            await context.ask(2, "ping")

    async def reply(context: AgentContext) -> None:
        for _ in range(n // 2):
            (asked,) = await context.receive_many()
            await context.send(1, "pong", reply_to=asked.message_id)

    await _at_work(meter, [ask, reply])


async def w4_mesh(n: int, meter: Meter) -> None:
    """Measure many, of whom everyone sends to everyone and listens meanwhile."""
    count = n // MESH
    meter.operations = count * MESH

    async def work(context: AgentContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver(count), context)
            for number in range(count):
                other = (context.agent_id + number % (MESH - 1)) % MESH + 1
                await context.send(other, "a message")

    await _at_work(meter, [work] * MESH)


# --- The end of many agents


@final
@attrs.define(eq=False)
class SleepingDriver(NullDriver):
    """Never answers."""

    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
    ) -> Completion:
        """Sleep."""
        await trio.sleep_forever()
        raise AssertionError


async def w5_running(n: int, meter: Meter) -> None:
    """Measure the end of agents that all wait in a completion."""
    await _aborted(n, n, meter)


async def w5_queued(n: int, meter: Meter) -> None:
    """Measure the end of agents of which only a few run."""
    await _aborted(n, SLOTS, meter)


async def _aborted(n: int, slots: int, meter: Meter) -> None:
    manifest, settled = AgentManifest(), load_settled()
    # Measured until the pool's block is left, which waits for the last of them.
    with ExitStack() as measured:
        async with open_pool(SleepingDriver(), max_concurrent=slots, max_queued=n) as pool:
            await pool.fan_out(SpawnConfig(manifest, "go") for _ in range(n))
            await settled()
            measured.enter_context(meter.running())
            pool.abort_all("measured")


# --- Agents that wait


async def w7_waiting(n: int, meter: Meter) -> None:
    """Measure the start of agents that all wait in a completion; its peak tells their memory."""
    settled = load_settled()
    async with open_pool(SleepingDriver(), max_concurrent=n, max_queued=n) as pool:
        with meter.running():
            await pool.fan_out(SpawnConfig(AgentManifest(), "go") for _ in range(n))
            await settled()
        pool.abort_all("measured")


# --- One event

EVENTS = 100_000
"""What W8 measures of them: an event for each of n observers is n of these."""

FEWEST = 100
"""Events for the most observers."""


async def w8_unheard(n: int, meter: Meter) -> None:
    """Measure an event that nobody listens to."""
    await _events(n * meter.times(EVENTS, n), meter, EventHub.open(()))


async def w8_heard(n: int, meter: Meter) -> None:
    """Measure an event that is made, and handed to one listener."""
    await _events(n * meter.times(EVENTS, n), meter, EventHub.open([Listener()]))


@final
@attrs.define(eq=False)
class Counter(Observer):
    """Counts events, and keeps none."""

    count: int = 0

    def on_event(self, event: Event) -> None:
        """Count *event*."""
        self.count += 1


async def w8_observers(n: int, meter: Meter) -> None:
    """Measure an event for each of *n* observers."""
    hub = EventHub.open([Counter() for _ in range(n)])
    events = FEWEST * meter.times(EVENTS // FEWEST, n)
    await _events(events, meter, hub)
    meter.operations = events * n


async def _events(n: int, meter: Meter, hub: EventHub) -> None:
    meter.operations = n
    with meter.running():
        for _ in range(n):
            if hub.listening:  # as an agent reports its phases
                sequence, at_seconds, agent_id, name = hub.stamp(1, "agent")
                hub.publish(PhaseChanged(sequence, at_seconds, agent_id, name, Phase.REASON))
    await trio.lowlevel.checkpoint()


# --- Messages that wait


async def w10_waiting(n: int, meter: Meter) -> None:
    """Measure a message for an inbox in which *n* wait in the end; few are sent several times."""
    inboxes, settled = meter.times(10_000, n), load_settled()
    async with open_pool(SleepingDriver(), max_concurrent=inboxes, inbox_capacity=n) as pool:
        handles = await pool.fan_out([SpawnConfig(AgentManifest(), "go")] * inboxes)
        await settled()
        meter.operations = n * inboxes
        with meter.running():
            for handle in handles:
                for _ in range(n):
                    await handle.send("a message")
        pool.abort_all("measured")
        await pool.join_all()


WORKLOADS: Final[Mapping[str, Workload]] = {
    "W1:agents": w1_agents,
    "W1:nowait": w1_nowait,
    "W1:spawn": w1_spawn,
    "W1:as-completed": w1_as_completed,
    "W1:map": w1_map,
    "W1:remembering": w1_remembering,
    "W2:agents": w2_agents,
    "W3:agent": w3_agent,
    "W3:deadlines": w3_deadlines,
    "W3:unwatched": w3_unwatched,
    "W4:stream": w4_stream,
    "W4:batch": w4_batch,
    "W4:ping-pong": w4_ping_pong,
    "W4:ask": w4_ask,
    "W4:mesh": w4_mesh,
    "W5:running": w5_running,
    "W5:queued": w5_queued,
    "W8:unheard": w8_unheard,
    "W7:waiting": w7_waiting,
    "W8:heard": w8_heard,
    "W8:observers": w8_observers,
    "W10:waiting": w10_waiting,
}

if __name__ == "__main__":
    main(WORKLOADS)
