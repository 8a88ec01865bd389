"""A scenario for each guarantee of docs/explanation/design.md, small enough for every schedule.

At most five agents each, and nothing that takes many steps: ``explore_all`` runs each of them
under all schedules with up to two preemptions. Each asserts what its guarantee promises; that
nothing is left behind, the kit checks by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool import (
    AgentGoneError,
    AgentHandle,
    AgentMessage,
    AgentPool,
    AgentStatus,
    Budget,
    DeadlockError,
    InboxFullError,
    PoolError,
    PoolFullError,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    StopReason,
    UnknownAgentError,
    open_pool,
)
from agentpool.abc import AgentContext, CompletionRequest, Observer, ToolContext
from agentpool.drivers import AssistantMessage, FunctionDriver, ScriptedDriver, call
from agentpool.drivers._scripted import Answer
from agentpool.memory import InMemoryMemory
from agentpool.observe import AgentFinished, MessageSent
from agentpool.testing import EventLog, assert_quiescent, operation
from agentpool.testing._simulation.quiescent import history_faults
from agentpool.tools import TEAM_TOOLS, ToolRegistry
from tests.support.fakes import (
    WITH_MEMORY,
    FakeTool,
    Gauge,
    RaisingObserver,
    job,
    jobs,
    manifest,
    query_of,
    results_of,
)
from tests.support.scenarios import crew, member, nap, open_scene, orders

Scenario = Callable[[], Awaitable[object]]


async def g01_no_orphans() -> None:
    """A parent, its child and one that hears: the kit looks for what is left of them."""
    async with crew() as pool:
        hearer = await pool.spawn(member("a hear"))
        await pool.spawn(member("b spawn=c"))
        with suppress(AgentGoneError):
            await hearer.send("go on")


async def g02_one_outcome() -> None:
    """Driver, builder and observer break, one is cancelled: four ends, each told once."""
    log = EventLog()

    def builder(context: AgentContext) -> ToolRegistry:
        if context.name == "builder":
            raise OSError("no tools today")
        return ToolRegistry([nap])

    def answer(request: CompletionRequest) -> Answer:
        if query_of(request) == "driver":
            raise ValueError("no model today")
        return "done"

    observers: list[Observer] = [RaisingObserver(), log]
    async with open_pool(
        FunctionDriver(answer), max_concurrent=3, tools=builder, observers=observers, random_seed=0
    ) as pool:
        handles = await pool.fan_out(jobs("driver", "builder", "fine", "fine"))
        await trio.lowlevel.checkpoint()
        handles[3].cancel()
        outcomes = await pool.join_all()
    assert list(outcomes) == [1, 2, 3, 4]
    assert [outcomes[1].status, outcomes[2].status] == [AgentStatus.FAILED] * 2
    ends = [event.agent_id for event in log.events if isinstance(event, AgentFinished)]
    assert sorted(ends) == [1, 2, 3, 4]
    log.check()


async def g03_bound() -> None:
    """A parent that comes back from its child, and three others, in two slots."""
    gauge = Gauge()

    def answer(request: CompletionRequest) -> Answer:
        if query_of(request) == "parent" and not results_of(request):
            return call("spawn_agent", query="child")
        return call("work") if not any(r.name == "work" for r in results_of(request)) else "done"

    async def work(_: str, context: ToolContext) -> str:
        with gauge.work(context.agent_name):
            await trio.sleep(1)
        return "worked"

    tools = ToolRegistry([*TEAM_TOOLS, FakeTool("work", work)])
    driver = FunctionDriver(answer, record=False)
    async with open_pool(driver, max_concurrent=2, tools=tools, random_seed=0) as pool:
        await pool.fan_out([member("parent"), member("b"), member("c"), member("d")])
        await pool.join_all()
    assert gauge.peak <= 2, f"{gauge.peak} at work with two slots"


async def g04_no_capacity_deadlock() -> None:
    """Two parents and their three children complete with one slot."""
    async with crew(max_concurrent=1) as pool:
        await pool.fan_out([member("a spawn=b spawn=c"), member("d spawn=e")])
        outcomes = await pool.join_all()
        assert pool.statistics().spawned == 5
    assert {one.status for one in outcomes.values()} == {AgentStatus.COMPLETED}


async def g05_ids() -> None:
    """Two tasks that spawn, a refusal and an abort: the ids have no gap and no double."""
    async with open_scene(FunctionDriver(orders), max_concurrent=2, max_queued=1) as pool:
        given: list[int] = []

        async def spawn() -> None:
            for _ in range(2):
                before = pool.statistics().spawned
                try:
                    given.append(pool.spawn_nowait(member("a nap")).agent_id)
                except PoolFullError:
                    assert pool.statistics().spawned == before
                else:
                    assert given[-1] == before + 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spawn)
            nursery.start_soon(spawn)
            await trio.lowlevel.checkpoint()
            pool.abort_all()
        assert given == [*range(1, len(given) + 1)]
        assert len(given) >= 3
        await pool.join_all()


async def g06_all_or_nothing() -> None:
    """A fan-out that does not fit changes nothing; two that race for the room do not share it."""
    async with open_scene(FunctionDriver(orders), max_concurrent=1, max_queued=2) as pool:
        taken: list[int] = []

        async def fan_out() -> None:  # noqa: ASYNC124  # started as a task
            before = pool.statistics().spawned
            try:
                taken.append(len(pool.fan_out_nowait([member("a"), member("b")])))
            except PoolFullError:
                assert pool.statistics().spawned == before

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fan_out)
            nursery.start_soon(fan_out)
        assert set(taken) == {2}
        assert len(await pool.join_all()) == 2 * len(taken)


async def g07_fan_in_order() -> None:
    """Two readers, one of which gives up: each end once, in the order of the ends."""
    log = EventLog()
    given: list[int] = []

    async def read(pool: AgentPool, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while (outcome := await pool.join_next()) is not None:
                given.append(outcome.agent_id)

    async with crew(log) as pool:
        await pool.fan_out([member("a nap"), member("b"), member("c nap")])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, pool, 1.0)
            nursery.start_soon(read, pool, 1000.0)
        assert list(await pool.join_all()) == [1, 2, 3]
    assert sorted(given) == [1, 2, 3], given


async def g08_messages() -> None:
    """Two senders, an inbox of one, a reader that is cancelled: told once, or a dead letter."""
    log = EventLog()
    async with open_scene(FunctionDriver(orders), log, inbox_capacity=1) as pool:
        handle = await pool.spawn(member("a hear hear"))

        async def write(text: str) -> None:
            with suppress(AgentGoneError):
                await handle.send(f"<{text}1>")
                await handle.send(f"<{text}2>")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "x")
            nursery.start_soon(write, "y")
            await wait_all_tasks_blocked()
            handle.cancel()
        outcome = await handle.wait()
        dead = [letter.message.content for letter in pool.router.dead_letters]
    read = [str(one) for one in outcome.messages if not isinstance(one, AssistantMessage)]
    sent = [event.message.content for event in log.events if isinstance(event, MessageSent)]
    for text in sent:
        assert sum(text in one for one in (*read, *dead)) == 1, (text, read, dead)
    for name in "xy":
        own = [text for one in read for text in (f"<{name}1>", f"<{name}2>") if text in one]
        assert own == sorted(own), f"out of order: {own}"


async def g09_honest_errors() -> None:
    """Each refusal has its own error and leaves no trace, whatever goes on beside it."""
    async with open_scene(
        FunctionDriver(orders), max_concurrent=1, max_queued=1, inbox_capacity=1
    ) as pool:
        ended = await pool.spawn(member("a"))
        await trio.lowlevel.checkpoint()
        await ended.wait()
        live, _ = pool.fan_out_nowait([member("b nap=5"), member("c")])
        await wait_all_tasks_blocked()
        live.send_nowait("one")
        for kind, refused in (
            (InboxFullError, lambda: live.send_nowait("two")),
            (AgentGoneError, lambda: ended.send_nowait("hello?")),
            (UnknownAgentError, lambda: pool.router.send_nowait(99, "hello?")),
            (PoolFullError, lambda: pool.spawn_nowait(member("d"))),
        ):
            await trio.lowlevel.checkpoint()
            before = pool.statistics()
            with pytest.raises(kind):
                refused()
            assert pool.statistics() == before, kind
        await pool.join_all()


async def g10_abort() -> None:
    """One in a tool, one in the queue, one that is being taken by a map: all have an end."""
    async with crew(max_concurrent=1) as pool:
        await pool.fan_out([member("a nap=9"), member("b")])
        async with pool.map(member("m").manifest, ["m1"]) as outcomes:
            await trio.lowlevel.checkpoint()
            pool.abort_all("enough")
            async for outcome in outcomes:
                assert outcome.status in {AgentStatus.CANCELLED, AgentStatus.COMPLETED}
        for outcome in (await pool.join_all()).values():
            assert outcome.status in {AgentStatus.CANCELLED, AgentStatus.COMPLETED}
            assert not list(history_faults(outcome.messages))


async def g11_events() -> None:
    """A reader, a log and an observer that breaks: one order of events, for all of them."""
    log = EventLog()
    async with crew(log, RaisingObserver()) as pool:
        lazy = pool.events()
        await pool.fan_out([member("a tell=0"), member("b fail")])
        await pool.join_all()
    log.check()
    assert [event.sequence for event in log.events] == [*range(1, len(log.events) + 1)]
    assert [event async for event in lazy] == log.events


async def g12_budgets() -> None:
    """Five agents and three requests: exactly three are made."""
    asked: list[str] = []

    async def answer(request: CompletionRequest) -> str:
        asked.append(query_of(request))
        await trio.lowlevel.checkpoint()
        return "done"

    driver, budget = FunctionDriver(answer), Budget(requests=3)
    async with open_pool(driver, max_concurrent=5, budget=budget) as pool:
        await pool.fan_out(job(f"job {nth}") for nth in range(5))
        ends = [outcome.status for outcome in (await pool.join_all()).values()]
    assert len(asked) == 3, asked
    assert ends.count(AgentStatus.STOPPED) == 2
    assert budget.statistics().requests.committed == 3


async def g13_deadlines() -> None:
    """The run's deadline ends one, its tool's another's tool, and each only that."""

    async def look(_: str, context: ToolContext) -> str:
        assert context.remaining_seconds() <= 5
        await trio.sleep_forever()
        raise AssertionError

    driver = FunctionDriver(lambda r: "late" if results_of(r) else call("look"), record=False)
    tools = ToolRegistry([FakeTool("look", look)])
    async with open_pool(driver, max_concurrent=2, tools=tools, random_seed=0) as pool:
        by_run = SpawnConfig(manifest(run_seconds=5.0, tool_seconds=7.0), "run")
        by_tool = SpawnConfig(manifest(run_seconds=9.0, tool_seconds=4.0), "tool")
        first, second = await pool.fan_out([by_run, by_tool])
        ends = (await first.wait()), (await second.wait())
    assert ends[0].stop_reason is StopReason.DEADLINE
    assert (ends[1].status, ends[1].text) == (AgentStatus.COMPLETED, "late")


async def g14_deadlock() -> None:
    """A circle of three beside one that works: one of them is told, and all have an end."""
    async with crew(max_concurrent=3) as pool:
        members = [member("a ask=2"), member("b ask=3"), member("c ask=1"), member("d nap")]
        pool.fan_out_nowait(members)
        outcomes = await pool.join_all()
    text = "".join(str(outcome.messages) for outcome in outcomes.values())
    circle = ("1 (a) asks 2 (b)", "2 (b) asks 3 (c)", "3 (c) asks 1 (a)")
    # Told from wherever it was closed; the others are answered with an end.
    assert any(begin in text for begin in circle), text
    assert text.count("which asks") == 2 * text.count("asks 1 (a)"), text
    assert {one.status for one in outcomes.values()} == {AgentStatus.COMPLETED}


LOGS: list[str] = []
"""The event logs of ``g15_determinism``, one for each run, in their order."""


async def g15_determinism() -> None:
    """A race, a cancellation and a child; its log is compared with that of the second time."""
    log = EventLog()
    async with crew(log) as pool:
        with suppress(PoolError):
            await pool.race([member("a nap"), member("b spawn=c")])
    LOGS.append(log.text())


async def g16_cancellation() -> None:
    """Two who ask give up while the answers are on their way, and nothing is left of it."""
    async with crew(max_concurrent=2) as pool:
        handles = await pool.fan_out([member("a answer reply"), member("b answer reply")])

        async def ask(handle: AgentHandle) -> None:
            with trio.move_on_after(0), operation(), suppress(AgentGoneError):
                await handle.ask("far?")

        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(ask, handle)
        await pool.join_all()
        assert_quiescent(pool)


async def g17_privacy() -> None:
    """What is not allowed elsewhere is refused before anything is sent, beside two that work."""
    driver = ScriptedDriver(["hello", "hello"], privacy=PrivacyTier.STANDARD)
    async with open_pool(driver, random_seed=0) as pool:

        async def refused() -> None:
            with pytest.raises(PrivacyError):
                await pool.spawn(job("secret"))

        open_one = manifest(privacy=PrivacyTier.STANDARD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused)
            for _ in range(2):
                await pool.spawn(SpawnConfig(open_one, "public"))
        await pool.join_all()
    assert "secret" not in str(driver.requests)
    assert (pool.statistics().spawned, len(driver.requests)) == (2, 2)


async def g18_isolation() -> None:
    """Four agents with a memory each, at the same time: none sees what another one keeps."""
    seen: list[str] = []

    def answer(request: CompletionRequest) -> str:
        seen.append(str(request))
        return "noted"

    driver = FunctionDriver(answer, record=False)
    async with open_pool(driver, memory=InMemoryMemory(), random_seed=0) as pool:
        own = manifest(capabilities=WITH_MEMORY)
        for scope in "abde":
            await pool.spawn(SpawnConfig(own, f"sea of {scope}", memory_scope=scope))
        await pool.join_all()
        await (await pool.spawn(SpawnConfig(own, "sea of c", memory_scope="a"))).wait()
    assert "sea of a" in seen[-1]
    for one in seen:
        assert sum(f"sea of {scope}" in one for scope in "abde") == 1, one


# --- the three worst faults that these guarantees had: ten lines each, and the kit finds them


async def d01_a_wake_up_is_lost() -> None:
    """Four senders wait for room in an inbox of one, and its owner reads on."""
    driver = FunctionDriver(orders)
    async with open_scene(driver, max_concurrent=4, inbox_capacity=1) as pool:
        heard: list[int] = []
        await pool.fan_out(member(f"a{nth} tell=0") for nth in range(4))
        await trio.sleep(1)
        while len(heard) < 4:
            heard += [message.sender for message in await pool.receive_many()]
        assert sorted(heard) == [1, 2, 3, 4]


async def d06_a_map_is_left() -> None:
    """A map is left while its query waits for a place: nobody would cancel its agent."""
    async with open_scene(FunctionDriver(orders), max_concurrent=1, max_queued=0) as pool:
        await pool.spawn(member("a nap"))
        with trio.move_on_after(1):
            async with pool.map(member("m").manifest, ["m nap=9"]):
                await trio.sleep_forever()
        assert trio.current_time() < 5, "leaving the map waited for an agent that came too late"


async def d17_a_reply_is_lost() -> None:
    """Who asks gives up, and the reply that was accepted is nowhere."""
    log, got = EventLog(), list[AgentMessage]()
    async with crew(log, max_concurrent=1) as pool:
        answerer = await pool.spawn(member("b answer reply"))
        with operation():
            got.append(await answerer.ask("far?"))
        await pool.join_all()
        with trio.move_on_after(1), suppress(DeadlockError):
            got += await pool.receive_many()
        dead = [one.message for one in pool.router.dead_letters if one.message.sender]
    sent = [event.message for event in log.events if isinstance(event, MessageSent)]
    replies = [message for message in sent if message.sender]
    assert len(replies) == len(got) + len(dead), "a reply that was accepted is lost"


WORST: tuple[Scenario, ...] = (d01_a_wake_up_is_lost, d06_a_map_is_left, d17_a_reply_is_lost)

GUARANTEES: tuple[Scenario, ...] = (
    g01_no_orphans,
    g02_one_outcome,
    g03_bound,
    g04_no_capacity_deadlock,
    g05_ids,
    g06_all_or_nothing,
    g07_fan_in_order,
    g08_messages,
    g09_honest_errors,
    g10_abort,
    g11_events,
    g12_budgets,
    g13_deadlines,
    g14_deadlock,
    g15_determinism,
    g16_cancellation,
    g17_privacy,
    g18_isolation,
)
"""One for each guarantee, in their order."""
