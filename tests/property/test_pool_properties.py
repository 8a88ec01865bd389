"""The pool's guarantees under random scripts, random timing and cancellation anywhere.

The schedule is made random through sleeps on a clock that jumps. Times of what happens are
multiples of a tenth of a second; a cancellation comes in between, or at the same instant.
"""

from __future__ import annotations

import math

import attrs
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from agentpool import (
    AgentCancelledError,
    AgentHandle,
    AgentMessage,
    AgentOutcome,
    AgentPool,
    AgentStatus,
    MessageError,
    PoolError,
    PoolFullError,
    UsageError,
    open_pool,
)
from agentpool._outcome import ENDED
from agentpool.abc import AgentContext, Completion, CompletionRequest, OnDelta, ToolContext
from agentpool.drivers import AssistantMessage, ToolMessage
from agentpool.observe import AgentFinished, AgentSpawned, AgentStarted
from agentpool.tools import ToolRegistry
from tests.support.fakes import (
    FakeTool,
    Gauge,
    LiveDriver,
    RaisingObserver,
    Recorder,
    calling,
    job,
    jobs,
    of_type,
    query_of,
    results_of,
    tool_call,
    turns_of,
)

TENTHS = st.integers(0, 10).map(lambda tenths: tenths / 10)

BEHAVIOURS = st.one_of(
    st.sampled_from(["say hi", "raise boom", "hang", "builder raises", "builder garbage",
                     "builder hangs", "builder sleeps", "tool raises", "tool hangs",
                     "tool child", "tool children", "tool cancels itself", "tool aborts",
                     "stream and hang", "stream and raise"]),
    TENTHS.map(lambda seconds: f"sleep {seconds}"),
)  # fmt: skip
"""What an agent does: the first word says where, the second what."""

OPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["spawn", "spawn", "spawn_nowait"]),
            st.lists(BEHAVIOURS, min_size=1, max_size=1),
        ),
        st.tuples(st.sampled_from(["fan_out", "fan_out_nowait"]), st.lists(BEHAVIOURS, max_size=5)),
        st.tuples(st.just("sleep"), TENTHS),
        st.tuples(st.sampled_from(["cancel", "interrupt", "send", "wait"]), st.integers(0, 20)),
        st.tuples(st.just("resize"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["join_next", "abort", "raise"]), st.none()),
    ),
    max_size=12,
)


class BodyError(Exception):
    """Raised by the body of a pool."""


@attrs.define(eq=False)
class World:
    """One pool, what its owner does, and what was seen of it."""

    pool: AgentPool = attrs.field(init=False)
    gauge: Gauge = attrs.field(factory=Gauge)
    recorder: Recorder = attrs.field(factory=Recorder)
    handles: list[AgentHandle] = attrs.field(factory=list)
    given_out: list[AgentOutcome] = attrs.field(factory=list)
    most_slots: int = 0
    refused: int = 0

    async def answer(self, request: CompletionRequest, on_delta: OnDelta) -> Completion | str:
        """Do what the query says."""
        query = query_of(request)
        with self.gauge.work(query):
            match query.split("#")[0].split():
                case ["sleep", seconds]:
                    await trio.sleep(float(seconds))
                case ["hang"]:
                    await trio.sleep(50)
                case ["raise", text]:
                    raise ValueError(text)
                case ["stream", "and", what]:
                    on_delta("half ")
                    await trio.sleep(0.1)
                    if what == "raise":
                        raise ValueError("stream broke")
                    await trio.sleep(50)
                case ["tool", *_]:
                    await trio.sleep(0.1)
                    if not turns_of(request):
                        return calling(tool_call("act"), tool_call("act", "second", n=2))
                    return results_of(request)[-1].content
                case _:
                    await trio.lowlevel.checkpoint()
        return f"done: {query}"

    async def build(self, context: AgentContext) -> ToolRegistry:
        """Build what the agent's name says."""
        behaviour = context.name.split("#")[0]
        if behaviour == "builder raises":
            raise RuntimeError("no tools")
        if behaviour == "builder garbage":
            return None  # type: ignore[return-value]
        if behaviour == "builder hangs":
            await trio.sleep(50)
        if behaviour == "builder sleeps":
            await trio.sleep(0.2)

        async def act(arguments: str, _: ToolContext) -> str:
            return await self.act(behaviour, arguments, context)

        return ToolRegistry([FakeTool("act", act)])

    async def act(self, behaviour: str, arguments: str, context: AgentContext) -> str:
        """Do what the agent's name says, in the first of two calls side by side."""
        if "2" in arguments:
            with self.gauge.work(context.name):
                await trio.sleep(0.1)
            return "second"
        match behaviour:
            case "tool raises":
                raise RuntimeError("tool broke")
            case "tool hangs":
                with self.gauge.work(context.name):
                    await trio.sleep(50)
            case "tool child":
                await (await self.pool.spawn(job("sleep 0.3#child"))).wait()
            case "tool children":
                for handle in await self.pool.fan_out(jobs("sleep 0.1#child", "tool child#child")):
                    await handle.wait()
            case "tool cancels itself":
                self.pool[context.agent_id].cancel("enough")
                await trio.sleep(0.1)
            case "tool aborts":
                self.pool.abort_all("told to")
                await trio.sleep(0.1)
            case _:
                await trio.lowlevel.checkpoint()
        return "first"

    async def do(self, what: str, argument: object) -> None:
        """Do one thing that an owner does, and check what is promised of it."""
        pool = self.pool
        if isinstance(argument, list):
            await self.spawn(what, argument)
        elif what == "sleep":
            assert isinstance(argument, float)
            await trio.sleep(argument)
        elif what == "resize":
            assert isinstance(argument, int)
            pool.max_concurrent = argument
            self.most_slots = max(self.most_slots, argument)
        elif what == "abort":
            pool.abort_all("scripted")
            assert pool.queued_count == 0
        elif what == "raise":
            raise BodyError
        elif what == "join_next":
            outcome = await pool.join_next()
            if outcome is None:
                assert all(handle.has_ended for handle in self.everybody())
            else:
                self.given_out.append(outcome)
        elif self.handles:
            assert isinstance(argument, int)
            await self.meddle(what, self.handles[argument % len(self.handles)])

    async def spawn(self, how: str, behaviours: list[str]) -> None:
        """Spawn, and check that a refusal changes nothing and order is kept."""
        pool = self.pool
        number = pool.statistics().spawned
        configs = jobs(*(f"{b}#{number + index}" for index, b in enumerate(behaviours)))
        before = (len(self.recorder.events), pool.router.live_ids(), pool.statistics())
        try:
            if how == "spawn":
                handles = [await pool.spawn(configs[0])]
            elif how == "spawn_nowait":
                handles = [pool.spawn_nowait(configs[0])]
            elif how == "fan_out":
                handles = await pool.fan_out(configs)
            else:
                handles = pool.fan_out_nowait(configs)
        except PoolFullError:
            assert how.endswith("nowait")
            # G6, G9: no id, no inbox, no event, not one of several.
            assert (len(self.recorder.events), pool.router.live_ids(), pool.statistics()) == before
            self.refused += 1
            return
        assert [handle.name for handle in handles] == [config.name for config in configs]
        ids = [handle.agent_id for handle in handles]
        assert ids == sorted(set(ids))
        if how.endswith("nowait"):
            assert ids == list(range(number + 1, number + 1 + len(behaviours)))
        self.handles += handles

    async def meddle(self, what: str, handle: AgentHandle) -> None:
        """Cancel, interrupt, write to or wait for an agent."""
        if what == "cancel":
            handle.cancel("scripted")
        elif what == "interrupt":
            handle.interrupt()
        elif what == "wait":
            with trio.move_on_after(0.5):
                assert (await handle.wait()).agent_id == handle.agent_id
        else:
            try:
                message = handle.send_nowait("hello")
            except MessageError:
                assert handle.has_ended or self.pool.router.inbox_capacity == 1
            else:
                assert isinstance(message, AgentMessage)

    def everybody(self) -> list[AgentHandle]:
        """Return the handles of all agents, children included."""
        return [self.pool[i] for i in range(1, self.pool.statistics().spawned + 1)]


SCENARIOS = st.fixed_dictionaries(
    {
        "ops": OPS,
        "max_concurrent": st.integers(1, 4),
        "max_queued": st.sampled_from([0, 0, 1, 10_000]),
        "inbox_capacity": st.sampled_from([1, 32]),
        "on_failure": st.sampled_from(["collect", "abort"]),
        # On the tenths, and between them: before, at and after what happens.
        "cancel_at": st.just(math.inf) | st.integers(0, 60).map(lambda n: n / 20),
        "broken_observer": st.booleans(),
    }
)


def play(scenario: dict[str, object]) -> World:
    """Run a scenario to its end and return what was seen."""
    world = World(most_slots=scenario["max_concurrent"])  # type: ignore[arg-type]
    observers = [world.recorder]
    if scenario["broken_observer"]:
        observers.insert(0, RaisingObserver())  # type: ignore[arg-type]
    options = {
        name: scenario[name]
        for name in ("max_concurrent", "max_queued", "inbox_capacity", "on_failure")
    }

    async def main() -> None:
        with trio.fail_after(1_000), trio.move_on_at(scenario["cancel_at"]):  # type: ignore[arg-type]
            try:
                async with open_pool(
                    LiveDriver(world.answer),
                    tools=world.build,
                    observers=observers,
                    **options,  # type: ignore[arg-type]
                ) as world.pool:
                    for what, argument in scenario["ops"]:  # type: ignore[attr-defined]
                        await world.do(what, argument)
            except (PoolError, BodyError):
                pass

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return world


scenarios = given(SCENARIOS)


@scenarios
def test_g2_inv010_every_accepted_spawn_has_exactly_one_outcome(
    scenario: dict[str, object],
) -> None:
    """G2, G16: whatever raises, hangs or is cancelled, and wherever."""
    world = play(scenario)
    if not hasattr(world, "pool"):
        return  # cancelled before it was open
    everybody = world.everybody()
    finished = of_type(world.recorder.events, AgentFinished)
    assert sorted(e.agent_id for e in finished) == [h.agent_id for h in everybody]
    for handle in everybody:
        assert handle.outcome is not None
        assert handle.outcome.status in ENDED
        assert handle.outcome.agent_id == handle.agent_id
        assert (handle.outcome.error is None) is (handle.outcome.status is AgentStatus.COMPLETED)


@scenarios
def test_g1_nothing_is_left_after_the_block(scenario: dict[str, object]) -> None:
    """G1, G16: no slot, no place, no inbox, no waiting; trio itself sees to the tasks."""
    world = play(scenario)
    if not hasattr(world, "pool"):
        return
    after = world.pool.statistics()
    assert (after.running, after.parked, after.queued) == (0, 0, 0)
    assert (world.pool.active_count, world.pool.router.live_ids()) == (0, ())
    assert world.gauge.now == 0


@scenarios
def test_g3_inv008_never_more_at_work_than_there_are_slots(scenario: dict[str, object]) -> None:
    """G3: measured by who is at work, in a request or in a tool."""
    world = play(scenario)
    assert world.gauge.peak <= world.most_slots


@scenarios
def test_g5_ids_rise_by_one_and_refusals_use_none(scenario: dict[str, object]) -> None:
    """G5: strictly increasing from 1 in the order of the spawns, without gaps."""
    world = play(scenario)
    spawned = of_type(world.recorder.events, AgentSpawned)
    assert [event.agent_id for event in spawned] == list(range(1, len(spawned) + 1))
    if hasattr(world, "pool"):
        assert world.pool.statistics().spawned == len(spawned)


@scenarios
def test_g7_join_next_gives_each_once_in_the_order_of_the_ends(
    scenario: dict[str, object],
) -> None:
    """G7: in completion order; the rest is still there after the block."""
    world = play(scenario)
    if not hasattr(world, "pool"):
        return
    ended = [event.agent_id for event in of_type(world.recorder.events, AgentFinished)]

    async def rest() -> None:
        given_out = [outcome.agent_id for outcome in world.given_out]
        while outcome := await world.pool.join_next():
            given_out.append(outcome.agent_id)
        assert given_out == ended
        assert list(await world.pool.join_all()) == sorted(ended)

    trio.run(rest)


@scenarios
@example(
    {
        "ops": [("fan_out", ["tool child", "say hi"])],
        "max_concurrent": 1, "max_queued": 10_000, "inbox_capacity": 1,
        "on_failure": "collect", "cancel_at": math.inf, "broken_observer": False,
    }
)  # fmt: skip
def test_g10_g11_histories_are_whole_and_events_in_order(scenario: dict[str, object]) -> None:
    """G10, G11: a result for every call, text that came is kept; spawned, started, finished."""
    world = play(scenario)
    numbers = [event.sequence for event in world.recorder.events]
    assert numbers == list(range(1, len(numbers) + 1))
    for event in of_type(world.recorder.events, AgentFinished):
        outcome = event.outcome
        messages = outcome.messages
        asked = [m.tool_calls for m in messages if isinstance(m, AssistantMessage)]
        calls = [call.call_id for calls in asked for call in calls]
        assert [m.call_id for m in messages if isinstance(m, ToolMessage)] == calls
        if isinstance(outcome.error, AgentCancelledError):
            assert outcome.error.cancelled_by
            assert outcome.error.reason
        if outcome.name.startswith("stream") and outcome.status is not AgentStatus.COMPLETED:
            assert outcome.text in {"", "half "}
        story = world.recorder.names(outcome.agent_id)
        assert story[0] == "AgentSpawned"
        assert story.count("AgentStarted") == (outcome.started_at is not None)
        late = story[story.index("AgentFinished") + 1 :]
        assert set(late) <= {"MessageDropped", "MessageSent"}
    started = [event.agent_id for event in of_type(world.recorder.events, AgentStarted)]
    parents = {
        event.agent_id: event.parent_id for event in of_type(world.recorder.events, AgentSpawned)
    }
    for parent in {*parents.values()}:  # groups take turns; in each, first come, first served
        siblings = [agent for agent in started if parents[agent] == parent]
        assert siblings == sorted(siblings)


@given(st.lists(BEHAVIOURS, min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 4))
def test_g6_inv009_fan_out_nowait_is_all_or_none(
    behaviours: list[str], max_concurrent: int, max_queued: int
) -> None:
    """G6: k handles if there is room for k; otherwise not one, and no id is used."""

    async def main() -> None:
        world = World()
        async with open_pool(
            LiveDriver(world.answer),
            tools=world.build,
            max_concurrent=max_concurrent,
            max_queued=max_queued,
            observers=[world.recorder],
        ) as world.pool:
            pool = world.pool
            room = max_concurrent + max_queued
            fits = len(behaviours) <= room
            try:
                handles = pool.fan_out_nowait(jobs(*behaviours))
            except PoolFullError as error:
                assert not fits
                assert (error.running, error.queued) == (0, 0)  # noqa: PT017  # not always raised
                assert (world.recorder.events, pool.statistics().spawned) == ([], 0)
            else:
                assert fits
                assert [h.agent_id for h in handles] == list(range(1, len(behaviours) + 1))
                assert pool.active_count == min(len(behaviours), max_concurrent)
                assert pool.queued_count == len(behaviours) - pool.active_count
            pool.abort_all()
            await pool.join_all()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@given(st.tuples(*[st.integers(-3, 3) | st.booleans() | st.floats() | st.none()] * 3))
def test_g9_sizes_are_taken_or_refused_and_never_half(sizes: tuple[object, ...]) -> None:
    """G9: a pool with a wrong size is not opened, and the error names which one."""
    names = ("max_concurrent", "inbox_capacity", "max_queued")
    least = (1, 1, 0)
    right = all(
        isinstance(size, int) and not isinstance(size, bool) and size >= minimum
        for size, minimum in zip(sizes, least, strict=True)
    )

    async def main() -> None:
        world = World()
        try:
            async with open_pool(
                LiveDriver(world.answer),
                **dict(zip(names, sizes, strict=True)),  # type: ignore[arg-type]
            ) as pool:
                assert right
                await pool.spawn(job("say hi"))
        except UsageError as error:
            assert not right
            assert any(name in str(error) for name in names)  # noqa: PT017  # not always raised

    trio.run(main)
