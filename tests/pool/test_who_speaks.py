"""Who a message is from, and whose child an agent is: decided by the task, not by what it says."""

from __future__ import annotations

import contextvars
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.lowlevel

from agentpool import (
    OWNER_ID,
    AgentManifest,
    AgentOutcome,
    AgentPool,
    AgentStatus,
    Capability,
    CapabilityKind,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.abc import AgentContext
from agentpool.drivers import (
    Completion,
    CompletionRequest,
    FunctionDriver,
    ToolMessage,
    UserMessage,
)
from agentpool.observe import AgentFinished, AgentSpawned, Event, MessageSent, Observer
from agentpool.testing import EventLog, explore
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import (
    calling,
    hanging_driver,
    job,
    manifest,
    query_of,
    results_of,
    tool_call,
)

TEAM = manifest(capabilities=(Capability(CapabilityKind.MESSAGE), Capability.spawn(3)))
LAX = AgentManifest(name="lax", capabilities=(), privacy=PrivacyTier.STANDARD)

Act = Callable[[AgentPool, ToolContext], Awaitable[object]]


async def among_three(act: Act) -> AgentPool:
    """Let a tool of agent 1 *act* while agents 2 and 3 run, and agent 2 has given all it has."""

    @tool(timeout_seconds=math.inf)
    async def go(context: ToolContext) -> str:
        """Act."""
        await trio.sleep(1)
        await act(pool, context)
        return "went"

    @tool
    async def give(context: ToolContext) -> str:  # noqa: ASYNC124  # a stand-in
        """Give away what one has."""
        given.update(agent=context.agent, context=contextvars.copy_context())
        await trio.sleep(9)
        return "gave"

    async def answer(request: CompletionRequest) -> Completion | str:
        if results_of(request) or query_of(request) not in {"go", "give"}:
            await trio.sleep(1 if results_of(request) else 9)
            return "done"
        return calling(tool_call(query_of(request)))

    given.clear()
    async with open_pool(
        FunctionDriver(answer), tools=ToolRegistry([go, give]), inbox_capacity=9
    ) as pool:
        first, *_ = await pool.fan_out([SpawnConfig(TEAM, query) for query in ("go", "give", "x")])
        outcome = await first.wait()
        assert said_by_tools(outcome) == ["went"]
        pool.abort_all()
    return pool


given: dict[str, object] = {}


def said_by_tools(outcome: AgentOutcome) -> list[str]:
    """Return the results of its calls."""
    return [one.content for one in outcome.messages if isinstance(one, ToolMessage)]


def of_another() -> AgentContext:
    """Return what agent 2 gave away."""
    agent = given["agent"]
    assert isinstance(agent, AgentContext)
    return agent


def in_context_of_another(call: Callable[[], object]) -> object:
    """Call in the context of agent 2."""
    context = given["context"]
    assert isinstance(context, contextvars.Context)
    return context.run(call)


def test_a_tool_writes_as_its_agent_in_any_context() -> None:
    """In an empty one it wrote as the owner, and in that of another agent as that one."""

    async def act(pool: AgentPool, _: ToolContext) -> None:  # noqa: ASYNC124  # it sends at once
        empty = contextvars.Context
        sends = (
            partial(pool.router.send_nowait, 3, "x"),
            partial(pool[3].send_nowait, "x"),
        )
        for send in sends:
            assert empty().run(send).sender == 1
            assert in_context_of_another(send).sender == 1  # type: ignore[attr-defined]
            async with trio.open_nursery() as nursery:
                for run in (empty().run, in_context_of_another):
                    run(partial(nursery.start_soon, partial(check, send)))
        with pytest.raises(UsageError, match="agent 1 called join_all"):
            await pool.join_all()

    async def check(send: Callable[[], object]) -> None:  # noqa: ASYNC124  # the same
        assert send().sender == 1  # type: ignore[attr-defined]

    explore(partial(among_three, act), schedules=3)


def test_a_tool_has_no_child_of_a_laxer_tier_in_any_context() -> None:
    """In an empty one, a sovereign agent gave a secret to an agent that may send it anywhere."""

    async def act(pool: AgentPool, _: ToolContext) -> None:  # noqa: ASYNC124  # it spawns at once
        spawn = partial(pool.spawn_nowait, SpawnConfig(LAX, "a secret"))
        batch = partial(pool.fan_out_nowait, [SpawnConfig(LAX, "a secret")])
        for forbidden in (spawn, batch):
            with pytest.raises(PrivacyError):
                contextvars.Context().run(forbidden)
            with pytest.raises(PrivacyError):
                in_context_of_another(forbidden)
        child = contextvars.Context().run(pool.spawn_nowait, SpawnConfig(TEAM, "x"))
        assert child.parent_id == 1

    explore(partial(among_three, act), schedules=3)


ACTS: dict[str, Callable[[AgentContext], Awaitable[object]]] = {
    "send": lambda agent: agent.send(3, "x"),
    "ask": lambda agent: agent.ask(3, "x"),
    "receive_many": lambda agent: agent.receive_many(),
    "run_child": lambda agent: agent.run_child("x"),
    "complete": lambda agent: agent.complete(
        FunctionDriver(lambda _: "paid"), CompletionRequest([UserMessage("q")], max_tokens=5)
    ),
}


@pytest.mark.parametrize("name", ACTS)
def test_the_context_of_an_agent_is_of_use_to_its_own_tasks_alone(name: str) -> None:
    """Whoever got hold of it wrote, asked, spent and had children in that agent's name."""

    async def act(_: AgentPool, context: ToolContext) -> None:
        with pytest.raises(UsageError, match=r"of agent 2 \(.*\) was used by agent 1; only"):
            await ACTS[name](of_another())
        with trio.move_on_after(1):
            await trio.sleep(5)
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112  # a task of its own
            nursery.start_soon(own, context.agent)
        await trio.to_thread.run_sync(
            lambda: trio.from_thread.run(context.agent.send, 3, "by a thread")
        )

    async def own(agent: AgentContext) -> None:
        assert (await agent.send(3, "by a task of its own")).sender == 1

    async def by_the_owner() -> None:
        refused = list[str]()

        async def owner() -> None:
            await trio.sleep(5)
            with pytest.raises(UsageError, match="was used by a task of the owner") as caught:
                await ACTS[name](of_another())
            refused.append(str(caught.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner)
            pool = await among_three(later)
        assert len(refused) == 1
        assert pool.router.message_count == 0

    async def later(_: AgentPool, __: ToolContext) -> None:
        await trio.sleep(6)

    explore(partial(among_three, act), schedules=2)
    explore(by_the_owner, schedules=2)


def test_an_agent_in_a_pool_inside_an_agent_is_that_agents_to_the_outer_pool() -> None:
    """It was the owner to it: it wrote as the owner, and spawned whatever it liked."""

    async def act(pool: AgentPool, _: ToolContext) -> None:
        @tool
        async def inner() -> str:  # noqa: ASYNC124  # as tools are
            """Use the outer pool."""
            assert pool.router.send_nowait(3, "x").sender == 1
            with pytest.raises(PrivacyError):
                pool.spawn_nowait(SpawnConfig(LAX, "a secret"))
            return "used"

        driver = FunctionDriver(
            lambda request: "done" if results_of(request) else calling(tool_call("inner"))
        )
        async with open_pool(driver, tools=ToolRegistry([inner])) as within:
            outcome = await (await within.spawn(job())).wait()
        assert said_by_tools(outcome) == ["used"]

    explore(partial(among_three, act), schedules=2)


def test_a_source_of_an_agents_map_acts_for_that_agent() -> None:
    """It is a task of the pool, and wrote as the owner."""

    async def act(pool: AgentPool, _: ToolContext) -> None:
        async def source() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
            assert pool.router.send_nowait(3, "x").sender == 1
            with pytest.raises(PrivacyError):
                pool.spawn_nowait(SpawnConfig(LAX, "a secret"))
            await trio.lowlevel.checkpoint()
            yield "x"

        async with pool.map(TEAM, source()) as outcomes:
            assert [one.status async for one in outcomes] == [AgentStatus.COMPLETED]

    explore(partial(among_three, act), schedules=2)


def test_the_owner_is_the_owner_in_the_context_of_an_agent() -> None:
    """In each of its tasks; it could choose a sender by the context that it had got hold of."""

    async def scenario() -> None:
        pools, senders = list[AgentPool](), list[int]()

        async def owner() -> None:
            await trio.sleep(5)
            for run in (in_context_of_another, contextvars.Context().run):
                send = partial(pools[0].router.send_nowait, 3, "x")
                senders.append(run(send).sender)  # type: ignore[attr-defined]

        async def act(pool: AgentPool, _: ToolContext) -> None:
            pools.append(pool)
            await trio.sleep(6)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner)
            await among_three(act)
        assert senders == [OWNER_ID, OWNER_ID]

    explore(scenario, schedules=2)


class _Writer(Observer):
    """Writes to agent 3 whenever it is told of something, and spawns once for each kind."""

    def __init__(self) -> None:
        self.pool: AgentPool | None = None
        self.seen = set[tuple[str, int]]()
        self.senders = set[int]()
        self.parents = set[int]()
        self.cancelled = False

    def on_event(self, event: Event) -> None:
        """Write and spawn."""
        key = type(event).__name__, event.agent_id
        if self.pool is None or key in self.seen or event.agent_id in {0, 3} or event.agent_id > 3:
            return
        self.seen.add(key)
        if isinstance(event, MessageSent):
            return
        self.senders.add(self.pool.router.send_nowait(3, "of an observer").sender)
        self.parents.add(self.pool.spawn_nowait(SpawnConfig(LAX, "x")).parent_id)
        if isinstance(event, AgentFinished) and not self.cancelled:
            self.cancelled = True
            self.pool[3].cancel("enough")


def test_what_an_observer_does_the_owner_does_in_any_event() -> None:
    """It chose the sender of its message by the event in which it wrote."""

    async def scenario() -> None:
        writer = _Writer()

        async def answer(request: CompletionRequest) -> str:
            await trio.sleep(9 if query_of(request) == "slow" else 1)
            return "done"

        async with open_pool(
            FunctionDriver(answer), observers=[writer], inbox_capacity=99, max_concurrent=9
        ) as pool:
            writer.pool = pool
            handles = await pool.fan_out([SpawnConfig(TEAM, query) for query in ("a", "b", "slow")])
            last = await handles[2].wait()
            pool.abort_all()
        assert (writer.senders, writer.parents) == ({OWNER_ID}, {OWNER_ID})
        assert len(writer.seen) > 4
        assert "cancelled by owner: enough" in str(last.error)

    explore(scenario, schedules=3)


async def test_what_an_observer_does_while_an_agents_map_is_fed_the_owner_does() -> None:
    """The task that feeds it is the agent's otherwise."""
    senders: list[int] = []

    class Writer(Observer):
        def on_event(self, event: Event) -> None:
            if isinstance(event, AgentSpawned) and event.parent_id == 1:
                senders.append(pool.router.send_nowait(1, "of an observer").sender)

    @tool(timeout_seconds=math.inf)
    async def go() -> str:
        """Map."""
        async with pool.map(manifest(), ["x", "y"]) as outcomes:
            return " ".join([outcome.text async for outcome in outcomes])

    def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) != "go":
            return "done"
        return results_of(request)[0].content if results_of(request) else calling(tool_call("go"))

    async with open_pool(
        FunctionDriver(answer), observers=[Writer()], tools=ToolRegistry([go]), inbox_capacity=9
    ) as pool:
        outcome = await (await pool.spawn(SpawnConfig(TEAM, "go"))).wait()
    assert outcome.text == "done done"
    assert senders == [OWNER_ID] * 2


async def test_an_observer_cannot_use_the_context_of_the_agent_in_whose_task_it_is_told() -> None:
    """Not even a call that it takes one step by hand."""
    contexts: list[AgentContext] = []
    refused: list[str] = []

    class Forger(Observer):
        def on_event(self, event: Event) -> None:
            if contexts and event.agent_id == 1 and not isinstance(event, AgentFinished):
                with pytest.raises(UsageError, match="was used by a task of the owner") as caught:
                    contexts[0].send(2, "forged").send(None)
                refused.append(str(caught.value))

    @tool
    async def keep(context: ToolContext) -> str:
        """Keep it."""
        await trio.lowlevel.checkpoint()
        contexts.append(context.agent)
        return "kept"

    def answer(request: CompletionRequest) -> Completion | str:
        return "done" if results_of(request) else calling(tool_call("keep"))

    async with open_pool(
        FunctionDriver(answer), observers=[Forger()], tools=ToolRegistry([keep])
    ) as pool:
        assert (await (await pool.spawn(SpawnConfig(TEAM, "go"))).wait()).text == "done"
        assert pool.statistics().observer_failures == 0
    assert len(refused) > 3


async def test_what_a_driver_does_its_agent_does() -> None:
    """It runs in the agent's task, for that agent."""

    async def answer(_: CompletionRequest) -> str:
        await trio.sleep(1)
        senders.append(pool.router.send_nowait(2, "of a driver").sender)
        return "done"

    senders = list[int]()
    drivers = {"a": FunctionDriver(answer), "b": hanging_driver()}
    async with open_pool(lambda one: drivers[one.name]) as pool:
        first = await pool.spawn(SpawnConfig(manifest("a"), "q"))
        await pool.spawn(SpawnConfig(manifest("b"), "q"))
        await first.wait()
        pool.abort_all()
    assert senders == [1]


def test_a_thread_that_was_left_behind_speaks_for_its_agent() -> None:
    """What trio runs for a thread has the thread's context, and nothing else tells whose it is."""

    async def act(pool: AgentPool, _: ToolContext) -> None:
        def call() -> None:
            assert trio.from_thread.run_sync(pool.router.send_nowait, 3, "x").sender == 1
            assert trio.from_thread.run(pool.router.send, 3, "x").sender == 1

        await trio.to_thread.run_sync(call, abandon_on_cancel=True)

    trio.run(among_three, act, clock=trio.testing.MockClock(autojump_threshold=0.05))


def test_calls_that_nobody_can_place_are_the_owners() -> None:
    """A system task and ``run_sync_soon`` have no context of the tool that asked for them."""
    senders = list[int]()

    async def act(pool: AgentPool, _: ToolContext) -> None:
        def send() -> None:
            senders.append(pool.router.send_nowait(3, "x").sender)

        async def system() -> None:  # noqa: ASYNC124  # it sends at once
            send()

        trio.lowlevel.spawn_system_task(system)
        trio.lowlevel.current_trio_token().run_sync_soon(send)
        await trio.sleep(1)

    trio.run(among_three, act, clock=trio.testing.MockClock(autojump_threshold=0.05))
    assert senders == [OWNER_ID, OWNER_ID]


@pytest.mark.parametrize("observers", [[], [EventLog]], ids=["unheard", "heard"])
def test_spawns_beside_each_other_keep_their_parents(observers: list[type[EventLog]]) -> None:
    """The owner and two agents spawn at the same time, wait for room, and some give up."""

    async def scenario() -> None:
        async def spawn_some(me: int) -> None:
            leaf = partial(SpawnConfig, TEAM, "leaf", name=f"of {me}")
            handles = [await pool.spawn(leaf())]
            handles += await pool.fan_out([leaf(), leaf()])
            with trio.move_on_after(0.5):
                handles.append(await pool.spawn(leaf()))
            async with pool.map(TEAM, ["leaf", "leaf"], group=f"of {me}") as outcomes:
                mapped.extend([(one.agent_id, me) async for one in outcomes])
            mapped.append(((await pool.race([leaf(), leaf()])).agent_id, me))
            for handle in handles:
                await handle.wait()

        @tool(timeout_seconds=math.inf)
        async def go(context: ToolContext) -> str:
            """Spawn agents."""
            await spawn_some(context.agent.agent_id)
            return "done"

        async def answer(request: CompletionRequest) -> Completion | str:
            if query_of(request) == "leaf":
                await trio.sleep(1)
                return "left"
            return "done" if results_of(request) else calling(tool_call("go"))

        mapped = list[tuple[int, int]]()
        async with open_pool(
            FunctionDriver(answer), tools=ToolRegistry([go]), max_concurrent=2, max_queued=1,
            observers=[make() for make in observers],
        ) as pool:  # fmt: skip
            await pool.fan_out([SpawnConfig(TEAM, "go", name="of 0") for _ in range(2)])
            await spawn_some(OWNER_ID)
            outcomes = await pool.join_all(children=True)
            seen = {(pool[one].parent_id, outcomes[one].name) for one in outcomes}
            of_maps = {(pool[one].parent_id, me) for one, me in mapped}
        named = {(parent, name) for parent, name in seen if name != TEAM.name}
        assert len(named) == len(of_maps) == 3
        assert all(name == f"of {parent}" for parent, name in named)
        assert all(parent == me for parent, me in of_maps)
        assert all(one.status is not AgentStatus.FAILED for one in outcomes.values())

    explore(scenario, schedules=5)
