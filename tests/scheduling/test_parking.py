"""Waiting without a slot: agents that wait give it back, so a pool of one runs any tree.

The tools here close over the pool and call ``await (await pool.spawn(...)).wait()``, as an
application's tools do. A gauge counts who is at work: in a driver's request, or in a tool
that does not wait for others.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import attrs
import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    OWNER_ID,
    AgentCancelledError,
    AgentOutcome,
    AgentPool,
    AgentStatus,
    Capability,
    SpawnConfig,
    StopReason,
    open_pool,
)
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait
from agentpool.abc import AgentContext, Completion, CompletionRequest, Event, OnDelta, ToolContext
from agentpool.drivers import FunctionDriver, OverloadedError
from agentpool.observe import AgentParked, AgentResumed, AgentStarted
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import (
    FakeTool,
    Gauge,
    LiveDriver,
    Recorder,
    calling,
    job,
    jobs,
    manifest,
    of_type,
    query_of,
    results_of,
    texts,
    tool_call,
    turns_of,
    wait_all,
)

# --- a scenario: the query says what the agent does


@attrs.define(eq=False)
class House:
    """A pool with tools that wait, and a gauge that sees who does not.

    An agent's query is its script: ``tool argument; tool argument; …``, one turn each, or
    ``tool & tool`` for calls in one answer. Its last turn answers with the last result.
    """

    gauge: Gauge = attrs.field(factory=Gauge)
    turn_seconds: float = 0.0
    pool: AgentPool = attrs.field(init=False)
    log: list[str] = attrs.field(factory=list)

    async def answer(self, request: CompletionRequest, _: OnDelta) -> Completion | str:
        """Make the next turn of the script."""
        query = query_of(request)
        with self.gauge.work(query):
            await trio.sleep(self.turn_seconds)
        turns = query.split(";")
        turn = turns_of(request)
        if turn >= len(turns):
            return results_of(request)[-1].content
        calls = [part.strip() for part in turns[turn].split("&")]
        return calling(
            *(
                tool_call(name, f"{turn}-{index}", argument=argument)
                for index, (name, _, argument) in enumerate(c.partition(" ") for c in calls)
            )
        )

    def tools(self, context: AgentContext) -> ToolRegistry:
        """Build what the scripts call."""

        def fake(name: str, function: Callable[[str, AgentContext], Awaitable[str]]) -> FakeTool:
            async def run(arguments: str, _: ToolContext) -> str:
                (argument,) = re.findall(r': "(.*)"}', arguments)
                return await function(argument, context)

            return FakeTool(name, run)

        return ToolRegistry(
            [
                fake("compute", self.compute),
                fake("tree", self.tree),
                fake("child", self.child),
                fake("hurried", self.hurried),
                fake("several", self.several),
                fake("each", self.each),
                fake("hear", self.hear),
                fake("ask", self.ask),
                fake("hang", self.hang),
                fake("full", self.full),
            ]
        )

    async def compute(self, seconds: str, context: AgentContext) -> str:
        """Be at work."""
        with self.gauge.work(context.name):
            await trio.sleep(float(seconds))
        self.log.append(f"{context.name}@{trio.current_time():g}")
        return f"computed {seconds}"

    async def tree(self, shape: str, context: AgentContext) -> str:
        """Spawn *width* children, each of which does the same a level deeper."""
        depth, width = map(int, shape.split("x"))
        if depth == 0:
            with self.gauge.work(context.name):
                await trio.lowlevel.checkpoint()
            return "1"
        handles = [await self.pool.spawn(job(f"tree {depth - 1}x{width}")) for _ in range(width)]
        counts = [int((await handle.wait()).unwrap()) for handle in handles]
        with self.gauge.work(context.name):
            await trio.lowlevel.checkpoint()
        return str(1 + sum(counts))

    async def child(self, script: str, _: AgentContext) -> str:
        """Spawn one child and wait for it."""
        # A parent that gives up does not take it along: what goes on must keep to the bounds.
        config = msgspec.structs.replace(job(script.replace("|", ";")), outlives_parent=True)
        return (await (await self.pool.spawn(config)).wait()).text

    async def hurried(self, script: str, context: AgentContext) -> str:
        """Wait for a child, for one second at most."""
        with trio.move_on_after(1):
            return await self.child(script, context)
        with self.gauge.work(context.name):
            await trio.sleep(0.25)
        return f"gave up at {trio.current_time():g}"

    async def several(self, script: str, context: AgentContext) -> str:
        """Wait for children from tasks of the tool's own, two after the other in each."""

        async def one_after_the_other() -> None:
            for _ in range(2):
                await self.child(script, context)

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(one_after_the_other)
        return "all four"

    async def each(self, scripts: str, context: AgentContext) -> str:
        """Wait for children from one task of the tool's own each; ``later 2 …`` begins late."""

        async def one(script: str) -> None:
            if script.startswith("later"):
                _, seconds, script = script.split(" ", 2)
                await trio.sleep(float(seconds))
            await self.child(script, context)

        async with trio.open_nursery() as nursery:
            for script in scripts.split(","):
                nursery.start_soon(one, script)
        return "all of them"

    async def hear(self, _: str, context: AgentContext) -> str:
        """Wait for messages."""
        return ", ".join(message.content for message in await context.receive_many())

    async def ask(self, who: str, context: AgentContext) -> str:
        """Ask another agent."""
        return (await context.ask(int(who), f"question of {context.agent_id}")).content

    async def full(self, _: str, context: AgentContext) -> str:
        """Send to the owner, who never reads, until there is no room."""
        while True:
            await context.send(OWNER_ID, "hello")

    async def hang(self, _: str, context: AgentContext) -> str:
        """Be at work for ever."""
        with self.gauge.work(context.name):
            await trio.sleep_forever()
        raise AssertionError("unreachable")  # pragma: no cover


async def run_house(
    *scripts: str,
    max_concurrent: int = 1,
    max_queued: int = 10_000,
    turn_seconds: float = 0.0,
    recorder: Recorder | None = None,
) -> tuple[list[AgentOutcome], House]:
    """Run one agent per script and return all outcomes, children included."""
    house = House(turn_seconds=turn_seconds)
    with trio.fail_after(10_000):
        async with open_pool(
            LiveDriver(house.answer),
            max_concurrent=max_concurrent,
            max_queued=max_queued,
            tools=house.tools,
            observers=[recorder] if recorder else [],
        ) as house.pool:
            for script in scripts:
                await house.pool.spawn(job(script))
        return await wait_all(house.pool), house


# --- trees


@pytest.mark.parametrize("max_concurrent", [1, 2, 7])
@pytest.mark.parametrize(("depth", "width"), [(0, 0), (1, 1), (5, 1), (5, 3), (2, 20)])
async def test_g4_a_tree_of_joins_completes(
    depth: int, width: int, max_concurrent: int, autojump_clock: MockClock
) -> None:
    """G4: a parent that waits for its children does not hold the slot that they need."""
    outcomes, house = await run_house(f"tree {depth}x{width}", max_concurrent=max_concurrent)
    everybody = sum(width**level for level in range(depth + 1))
    assert outcomes[0].text == str(everybody)
    assert {outcome.status for outcome in outcomes} == {AgentStatus.COMPLETED}
    assert len(outcomes) == everybody
    assert house.gauge.peak <= max_concurrent


@pytest.mark.parametrize("max_queued", [0, 1, 2])
@pytest.mark.parametrize("max_concurrent", [1, 2])
async def test_g4_a_tree_completes_through_a_short_queue(
    max_concurrent: int, max_queued: int, autojump_clock: MockClock
) -> None:
    """G4: to wait for a place in the queue is to wait without a slot as well."""
    outcomes, house = await run_house(
        "tree 2x2", max_concurrent=max_concurrent, max_queued=max_queued
    )
    assert outcomes[0].text == "7"
    assert house.gauge.peak <= max_concurrent


async def test_g4_a_chain_of_a_hundred_parents_completes(autojump_clock: MockClock) -> None:
    """Depth costs memory, not slots."""
    outcomes, house = await run_house("tree 100x1")
    assert outcomes[0].text == "101"
    assert house.gauge.peak == 1


async def test_g4_tasks_of_a_tools_own_may_wait_too(autojump_clock: MockClock) -> None:
    """A tool may open a nursery and wait for several children side by side."""
    outcomes, house = await run_house("several compute 1", max_concurrent=1)
    assert outcomes[0].text == "all four"
    assert {outcome.status for outcome in outcomes} == {AgentStatus.COMPLETED}
    assert house.gauge.peak == 1


async def test_g4_tasks_of_a_tools_own_may_come_back_one_by_one(
    autojump_clock: MockClock,
) -> None:
    """The first one back took a slot that nobody gave back, and the others' children starved."""
    (parent, *_), house = await run_house("each compute 1,compute 2,compute 3,compute 4")
    assert parent.text == "all of them"
    assert trio.current_time() == 10
    assert house.gauge.peak == 1


async def test_g4_who_comes_back_while_another_task_begins_to_wait_takes_no_slot(
    autojump_clock: MockClock,
) -> None:
    """Granted later, the slot would belong to an agent that waits, for ever."""
    # The first child ends at 1, and "compute 10" runs when its waiter comes back. The second
    # child is spawned at 2, before there is a slot for that one.
    (parent, *_), house = await run_house("each compute 1,later 2 compute 1", "compute 10")
    assert parent.text == "all of them"
    assert (trio.current_time(), house.gauge.peak) == (12, 1)


async def test_g4_parallel_calls_may_all_wait(autojump_clock: MockClock) -> None:
    """Each call of one answer spawns and waits; the one slot goes round."""
    script = "child compute 1 & child compute 2 & child compute 3"
    outcomes, house = await run_house(script)
    assert outcomes[0].text == "computed 3"
    assert house.gauge.peak == 1
    assert len(house.log) == 3  # in any order: trio decides which call begins first
    assert trio.current_time() == 6


async def test_g4_a_pool_in_a_tool_waits_without_the_outer_slot(
    autojump_clock: MockClock,
) -> None:
    """Nested pools: who joins an inner pool's agents lets the outer pool's run."""
    order: list[str] = []

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        query = query_of(request)
        if query == "outer" and not turns_of(request):
            return calling(tool_call("nested"))
        await trio.sleep(1)
        order.append(query)
        return "done"

    async def nested(_: str, __: ToolContext) -> str:
        async with open_pool(LiveDriver(answer)) as inner:
            await inner.fan_out(jobs("inner a", "inner b"))
            return " ".join(texts(await wait_all(inner)))

    tools = ToolRegistry([FakeTool("nested", nested)])
    async with open_pool(LiveDriver(answer), tools=tools, max_concurrent=1) as pool:
        await pool.fan_out(jobs("outer", "neighbour"))
        await pool.join_all()
    assert sorted(order[:3]) == ["inner a", "inner b", "neighbour"]
    assert order[3] == "outer"


async def test_g4_leaving_a_pool_in_a_tool_waits_without_the_outer_slot(
    autojump_clock: MockClock,
) -> None:
    """Nested pools: to leave a block is to join its agents, which may need the outer pool."""

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        await trio.sleep(1)
        query = query_of(request)
        if query == "leaf":
            return "leaf"
        if turns_of(request):
            return results_of(request)[-1].content
        return calling(tool_call("nested" if query == "outer" else "up"))

    async def up(_: str, __: ToolContext) -> str:
        return (await (await pool.spawn(job("leaf"))).wait()).text

    async def nested(_: str, __: ToolContext) -> str:
        async with open_pool(LiveDriver(answer), tools=ToolRegistry([FakeTool("up", up)])) as inner:
            handle = await inner.spawn(job("inner"))
        return (await handle.wait()).text

    tools = ToolRegistry([FakeTool("nested", nested)])
    async with open_pool(LiveDriver(answer), tools=tools, max_concurrent=1) as pool:
        outcome = await (await pool.spawn(job("outer"))).wait()
    assert outcome.text == "leaf"


# --- who goes first


async def test_who_comes_back_goes_before_newcomers(autojump_clock: MockClock) -> None:
    """Work that has begun is ended before work that has not."""
    _, house = await run_house(
        "child compute 1; compute 1", "compute 2", "compute 3", max_concurrent=1
    )
    # The child was queued last and goes first. Its parent wakes one step after that, when
    # the slot has gone to the second agent, and goes on before the third.
    assert house.log == [
        "compute 1@1",
        "compute 2@3",
        "child compute 1; compute 1@4",
        "compute 3@7",
    ]


async def test_a_returning_agent_overtakes_a_full_queue(autojump_clock: MockClock) -> None:
    """The slot that becomes free goes to the parent, not to the ten that queue."""
    recorder = Recorder()
    newcomers = [f"compute 1.{n}" for n in range(5)]
    await run_house("hurried hang", *newcomers, max_concurrent=2, recorder=recorder)
    # The parent parks at 0, and wants to go on at 1, while two newcomers hold the slots.
    started = [e for e in recorder.events if isinstance(e, AgentStarted)]
    (resumed,) = of_type(recorder.events, AgentResumed)
    first_later = next(e for e in started if e.at_seconds > 1)
    assert resumed.sequence < first_later.sequence


async def test_returning_agents_go_in_the_order_of_their_return(
    autojump_clock: MockClock,
) -> None:
    """First come, first served among those who come back."""
    house = House()
    async with open_pool(
        LiveDriver(house.answer), tools=house.tools, max_concurrent=1
    ) as house.pool:
        pool = house.pool
        await pool.fan_out(jobs("hear a; compute 1", "hear b; compute 1", "compute 5"))
        await trio.sleep(1)
        pool.router.send_nowait(2, "wake up")
        await trio.sleep(1)
        pool.router.send_nowait(1, "wake up")
    assert house.log == ["compute 5@5", "hear b; compute 1@6", "hear a; compute 1@7"]


# --- the bound


async def test_g3_one_call_waits_and_the_other_computes(autojump_clock: MockClock) -> None:
    """An agent that computes in one call holds its slot, although another call waits."""
    outcomes, house = await run_house("child compute 1 & compute 5", "compute 1", max_concurrent=1)
    assert house.gauge.peak == 1
    assert {outcome.status for outcome in outcomes} == {AgentStatus.COMPLETED}
    assert house.log[0] == "child compute 1 & compute 5@5"


async def test_g3_two_waits_in_one_call_are_not_a_wait_of_the_other(
    autojump_clock: MockClock,
) -> None:
    """A call that waits twice gives back no more than its own strand."""
    _, house = await run_house("several compute 1 & compute 5", max_concurrent=1)
    assert house.log[0] == "several compute 1 & compute 5@5"
    assert house.gauge.peak == 1


async def test_g3_a_task_left_in_a_nursery_of_others_does_not_give_the_slot_back(
    autojump_clock: MockClock,
) -> None:
    """It is not the agent's: it waits like the owner, and the agent computes on."""
    gauge = Gauge()
    seen: list[str] = []

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        with gauge.work(query_of(request)):
            await trio.sleep(1)
        return "done" if turns_of(request) or "leave" not in query_of(request) else calls

    calls = calling(tool_call("leave"))

    async def leave(_: str, __: ToolContext) -> str:
        others.start_soon(listen)
        await trio.lowlevel.checkpoint()
        return "left"

    async def listen() -> None:
        outcome = await pool[2].wait()
        seen.append(f"{outcome.text}@{trio.current_time():g}")

    tools = ToolRegistry([FakeTool("leave", leave)])
    async with (
        trio.open_nursery() as others,
        open_pool(LiveDriver(answer), tools=tools, max_concurrent=1) as pool,
    ):
        await pool.fan_out(jobs("leave", "other"))
        await pool.join_all()
        assert pool.statistics().running == 0
    assert seen == ["done@3"]
    assert gauge.peak == 1


async def test_g3_a_task_left_behind_takes_no_slot_when_its_agent_has_ended(
    autojump_clock: MockClock,
) -> None:
    """Or the slot would be lost to the pool."""

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        await trio.sleep(1)
        return "done" if turns_of(request) or "leave" not in query_of(request) else calls

    calls = calling(tool_call("leave"))

    async def leave(_: str, __: ToolContext) -> str:  # noqa: ASYNC124  # a tool is async
        others.start_soon(listen)
        return "left"

    async def listen() -> None:
        await trio.sleep(5)
        await pool[10].wait()

    tools = ToolRegistry([FakeTool("leave", leave)])
    async with (
        trio.open_nursery() as others,
        open_pool(LiveDriver(answer), tools=tools, max_concurrent=1) as pool,
    ):
        await pool.fan_out(jobs("leave", *["other"] * 9))
        await pool.join_all()
        await trio.sleep(1)
        assert pool.statistics().running == 0


async def test_g3_a_call_that_ends_while_the_other_waits_frees_the_slot(
    autojump_clock: MockClock,
) -> None:
    """From then on nobody of that agent is at work, so it is parked."""
    recorder = Recorder()
    _, house = await run_house("compute 5 & child compute 1", max_concurrent=1, recorder=recorder)
    assert house.log == ["compute 5 & child compute 1@5", "compute 1@6"]
    assert house.gauge.peak == 1


@given(
    scripts=st.lists(
        st.lists(
            st.lists(
                st.sampled_from(
                    [
                        "compute 1",
                        "compute 0.5",
                        "child compute 1",
                        "child compute 0.5|compute 1",
                        "hurried compute 3",
                        "tree 1x2",
                        "several compute 0.5",
                    ]
                ),
                min_size=1,
                max_size=3,
            ).map(" & ".join),
            min_size=1,
            max_size=2,
        ).map("; ".join),
        min_size=1,
        max_size=4,
    ),
    max_concurrent=st.integers(1, 3),
    max_queued=st.sampled_from([0, 1, 10_000]),
)
@settings(max_examples=40)
def test_g3_g4_any_mix_of_work_and_waiting(
    scripts: list[str], max_concurrent: int, max_queued: int
) -> None:
    """G3, G4: whatever waits for whatever, all complete, and no more run than there are slots."""

    async def main() -> None:
        recorder = Recorder()
        outcomes, house = await run_house(
            *scripts,
            max_concurrent=max_concurrent,
            max_queued=max_queued,
            turn_seconds=0.1,
            recorder=recorder,
        )
        assert {outcome.status for outcome in outcomes} == {AgentStatus.COMPLETED}
        assert house.pool.statistics().running == 0
        assert_parks_and_resumes_alternate(recorder.events)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def assert_parks_and_resumes_alternate(events: list[Event]) -> None:
    """Every time that an agent gave its slot back, it took one again, or ended."""
    held: dict[int, bool] = {}
    for event in events:
        if isinstance(event, AgentStarted):
            held[event.agent_id] = True
        elif isinstance(event, AgentParked | AgentResumed):
            assert held[event.agent_id] is isinstance(event, AgentParked), event
            held[event.agent_id] = not held[event.agent_id]


@given(
    scripts=st.lists(
        st.sampled_from(
            ["compute 1", "child compute 1; compute 1", "compute 2 & child compute 1", "tree 2x2"]
        ),
        min_size=1,
        max_size=5,
    ),
    max_concurrent=st.integers(1, 3),
)
@settings(max_examples=30)
def test_g3_the_bound_holds_at_every_instant(scripts: list[str], max_concurrent: int) -> None:
    """G3: measured by who is at work in a driver or a tool, not by the pool's own count."""

    async def main() -> None:
        outcomes, house = await run_house(*scripts, max_concurrent=max_concurrent, turn_seconds=0.5)
        assert len(outcomes) >= len(scripts)
        assert house.gauge.peak <= max_concurrent

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_parks_and_resumes_alternate_also_with_calls_side_by_side(
    autojump_clock: MockClock,
) -> None:
    """Whoever counts parked agents by their events comes to the right number."""
    recorder = Recorder()
    await run_house(
        "child compute 1 & child compute 1 & compute 0.5", max_concurrent=1, recorder=recorder
    )
    assert_parks_and_resumes_alternate(recorder.events)
    assert of_type(recorder.events, AgentParked)


# --- what is waited for


async def test_every_kind_of_waiting_gives_the_slot_back(autojump_clock: MockClock) -> None:
    """A message, an answer, room in an inbox, a retry, a child: all of them park."""
    failed: list[str] = []

    async def answer(request: CompletionRequest, on_delta: OnDelta) -> Completion | str:
        if query_of(request) == "retry" and not failed:
            failed.append("once")
            raise OverloadedError("busy")
        if query_of(request) == "retry":
            return "tried again"
        return await house.answer(request, on_delta)

    house = House()
    recorder = Recorder()
    async with open_pool(
        LiveDriver(answer),
        tools=house.tools,
        max_concurrent=1,
        inbox_capacity=1,
        observers=[recorder],
    ) as house.pool:
        handles = await house.pool.fan_out(
            jobs("hear x", "ask 5", "retry", "full 1", "child compute 9")
        )
        await wait_all_tasks_blocked()
        assert [handle.status for handle in handles] == [AgentStatus.PARKED] * 5
        assert (house.pool.statistics().parked, house.pool.statistics().running) == (5, 1)
        house.pool.abort_all()
    waits = {e.agent_id: e.waits_for for e in of_type(recorder.events, AgentParked)}
    assert sorted(waits) == [1, 2, 3, 4, 5]
    assert "a message" in waits[1]
    assert "agent 5" in waits[2]
    assert "retry" in waits[3]
    assert "room" in waits[4]
    assert "agent 6" in waits[5]


async def test_waiting_for_an_ended_agent_costs_nothing(autojump_clock: MockClock) -> None:
    """There is nothing to wait for, so the slot stays and no event says otherwise."""
    recorder = Recorder()

    async def look(_: str, __: ToolContext) -> str:
        return (await pool[1].wait()).text

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        await trio.lowlevel.checkpoint()
        if query_of(request) == "first":
            return "hello"
        return results_of(request)[-1].content if turns_of(request) else calling(tool_call("look"))

    tools = ToolRegistry([FakeTool("look", look)])
    async with open_pool(
        LiveDriver(answer), tools=tools, max_concurrent=1, observers=[recorder]
    ) as pool:
        await pool.fan_out(jobs("first", "second"))
        assert texts(await wait_all(pool)) == ["hello", "hello"]
    assert of_type(recorder.events, AgentParked) == []


# --- more and fewer slots


async def test_more_slots_start_more_at_once(autojump_clock: MockClock) -> None:
    """Setting the number takes effect now, not at the next end."""
    house = House()
    async with open_pool(
        LiveDriver(house.answer), tools=house.tools, max_concurrent=1
    ) as house.pool:
        await house.pool.fan_out(jobs(*["compute 10"] * 4))
        assert house.pool.active_count == 1
        house.pool.max_concurrent = 3
        assert (house.pool.active_count, house.pool.queued_count) == (3, 1)
        await wait_all_tasks_blocked()
        assert house.pool.statistics().running == 3
        house.pool.abort_all()


async def test_fewer_slots_let_run_who_runs(autojump_clock: MockClock) -> None:
    """Nobody is thrown out; nobody starts until the new number fits."""
    gauge = Gauge()
    house = House(gauge)
    async with open_pool(
        LiveDriver(house.answer), tools=house.tools, max_concurrent=3
    ) as house.pool:
        await house.pool.fan_out(jobs(*(f"compute {n}" for n in (1, 2, 3, 1.5, 2.5))))
        house.pool.max_concurrent = 1
        await trio.sleep(0.5)
        assert gauge.now == 3
        await trio.sleep(1)  # the first has ended
        assert (gauge.now, house.pool.queued_count) == (2, 2)
        await trio.sleep(1)  # the second as well
        assert (gauge.now, house.pool.queued_count) == (1, 2)
        await trio.sleep(1)  # the third: one newcomer may start
        assert (gauge.now, house.pool.queued_count) == (1, 1)
    assert trio.current_time() == 7


async def test_fewer_slots_hold_for_those_who_come_back(autojump_clock: MockClock) -> None:
    """Parked agents come back one by one into the smaller pool."""
    house = House()
    async with open_pool(
        LiveDriver(house.answer), tools=house.tools, max_concurrent=3
    ) as house.pool:
        await house.pool.fan_out(jobs(*(f"hear {n}; compute 1" for n in range(3))))
        await wait_all_tasks_blocked()
        house.pool.max_concurrent = 1
        await house.pool.broadcast("go")
    assert house.gauge.peak <= 3
    assert [entry.partition("@")[2] for entry in house.log] == ["1", "2", "3"]


async def test_more_slots_let_a_waiting_spawn_go_on(autojump_clock: MockClock) -> None:
    """Whoever waits for room is told when there is more of it."""
    house = House()
    async with open_pool(
        LiveDriver(house.answer), tools=house.tools, max_concurrent=1, max_queued=1
    ) as house.pool:
        await house.pool.fan_out(jobs("hang x", "hang x"))

        async def grow() -> None:
            await trio.sleep(1)
            house.pool.max_concurrent = 2

        async with trio.open_nursery() as nursery:
            nursery.start_soon(grow)
            await house.pool.spawn(job("hang x"))
        assert trio.current_time() == 1
        house.pool.abort_all()


# --- cancelled while parked


async def test_a_parked_agent_can_be_cancelled(autojump_clock: MockClock) -> None:
    """It ends where it waits, needs no slot for that, and its child goes on."""
    house = House()
    async with open_pool(
        LiveDriver(house.answer), tools=house.tools, max_concurrent=1
    ) as house.pool:
        parent = await house.pool.spawn(job("child compute 5"))
        await trio.sleep(1)
        assert parent.status is AgentStatus.PARKED
        parent.cancel("no longer needed")
        outcome = await parent.wait()
        assert trio.current_time() == 1
        assert isinstance(outcome.error, AgentCancelledError)
        assert (await house.pool[2].wait()).text == "computed 5"
        assert (await house.pool.spawn(job("compute 1"))).status is AgentStatus.RUNNING


async def test_an_agent_that_waits_for_its_slot_can_be_cancelled(
    autojump_clock: MockClock,
) -> None:
    """It has been woken and others run: it ends without a slot, and takes none later."""
    house = House()
    async with open_pool(
        LiveDriver(house.answer), tools=house.tools, max_concurrent=1
    ) as house.pool:
        sleeper, _ = await house.pool.fan_out(jobs("hear x", "compute 5"))
        await trio.sleep(1)
        await sleeper.send("wake up")
        await trio.sleep(1)
        sleeper.cancel()
        assert (await sleeper.wait()).finished_at == 2
        later = await house.pool.spawn(job("compute 1"))
        assert (await later.wait()).finished_at == 6


async def test_an_agent_whose_deadline_comes_while_it_waits_for_its_slot_takes_none(
    autojump_clock: MockClock,
) -> None:
    """An agent that has ended never holds a slot: it would be lost to the pool for good."""
    house = House()
    with trio.fail_after(100):
        async with open_pool(
            LiveDriver(house.answer), tools=house.tools, max_concurrent=1
        ) as house.pool:
            sleeper = await house.pool.spawn(job("hear x", deadline_seconds=3))
            await house.pool.spawn(job("compute 5"))
            await trio.sleep(1)
            await sleeper.send("wake up")
            outcome = await sleeper.wait()
            assert (outcome.stop_reason, outcome.finished_at) == (StopReason.DEADLINE, 3)
            later = await house.pool.spawn(job("compute 1"))
            assert (await later.wait()).finished_at == 6
            assert house.pool.statistics().running == 0


async def test_a_tool_may_give_up_waiting(autojump_clock: MockClock) -> None:
    """``move_on_after`` around a wait ends the wait, and the agent goes on with a slot."""
    outcomes, house = await run_house("hurried compute 9", "compute 3", max_concurrent=1)
    # Given up at 1, while the child holds the only slot until 9: the parent comes back
    # before the newcomer, which has not started.
    assert outcomes[0].text == "gave up at 9.25"
    assert house.gauge.peak == 1
    assert {outcome.status for outcome in outcomes} == {AgentStatus.COMPLETED}


@pytest.mark.parametrize("slots", [1, 2])
async def test_g4_a_tool_may_give_up_a_child_that_has_the_only_slot(
    slots: int, autojump_clock: MockClock
) -> None:
    """It had to have its slot again before it could end the child, which never gave it back."""

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        if query_of(request) == "hang":
            await trio.sleep_forever()
        return "done" if turns_of(request) else calling(tool_call("delegate"))

    async def delegate(_: str, context: ToolContext) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(context.agent.run_child, "hang")
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
        return "gave up"

    tools = ToolRegistry([FakeTool("delegate", delegate)])
    config = SpawnConfig(manifest(capabilities=(Capability.spawn(1),), tool_seconds=None), "go")
    async with open_pool(LiveDriver(answer), tools=tools, max_concurrent=slots) as pool:
        with trio.fail_after(100):
            outcome = await (await pool.spawn(config)).wait()
        assert (outcome.text, trio.current_time()) == ("done", 5)
        assert pool.statistics().running == 0


async def test_abort_all_ends_parked_and_queued_and_running(autojump_clock: MockClock) -> None:
    """G10: at once, whatever they wait for."""
    house = House()
    async with open_pool(
        LiveDriver(house.answer), tools=house.tools, max_concurrent=1
    ) as house.pool:
        await house.pool.fan_out(
            jobs("hear x", "child hang x & child hang x", "hang x", "compute 1")
        )
        await trio.sleep(1)
        house.pool.abort_all()
        outcomes = await wait_all(house.pool)
    assert trio.current_time() == 1
    assert {outcome.status for outcome in outcomes} == {AgentStatus.CANCELLED}
    assert house.pool.statistics().running == house.pool.statistics().parked == 0


async def test_outside_of_an_agent_nothing_is_parked(autojump_clock: MockClock) -> None:
    """The owner has no slot, so its waits change nothing."""
    recorder = Recorder()
    house = House()
    async with open_pool(
        LiveDriver(house.answer), tools=house.tools, max_concurrent=1, observers=[recorder]
    ) as house.pool:
        handle = await house.pool.spawn(job("compute 1"))
        await handle.wait()
    assert of_type(recorder.events, AgentParked) == []


async def test_a_cancelled_agent_waits_for_no_slot(autojump_clock: MockClock) -> None:
    """It needs none to end: in a busy pool its end would come as late as the others'."""

    @tool
    async def nap() -> str:
        """Wait without a slot."""
        async with parked(Wait.other("a nap")):
            await trio.sleep(1)
        return "slept"

    async def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "nap":
            return calling(tool_call("nap"))
        await trio.sleep(1000)
        return "worked"

    tools = ToolRegistry([nap])
    async with open_pool(FunctionDriver(answer), tools=tools, max_concurrent=1) as pool:
        napper = await pool.spawn(SpawnConfig(manifest(), "nap"))
        await pool.spawn(SpawnConfig(manifest(), "work"))
        await trio.sleep(5)  # it has slept, and waits for the slot that the other one has
        assert napper.status is AgentStatus.PARKED
        napper.cancel("not needed")
        assert (await napper.wait()).status is AgentStatus.CANCELLED
        assert trio.current_time() == pytest.approx(5)
        pool.abort_all("seen enough")
