"""What events tell: enough to answer where the time and the money of an agent went."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from agentpool import Budget, SpawnConfig, Usage, open_pool
from agentpool._approval import ApprovalRequest, Denied
from agentpool.abc import Driver, Observer, OnDelta, ToolContext
from agentpool.drivers import (
    Completion,
    CompletionRequest,
    FallbackDriver,
    GatedDriver,
    OverloadedError,
    RateLimitError,
    RequestGate,
    ScriptedDriver,
    UserMessage,
    say,
)
from agentpool.observe import (
    AgentParked,
    AgentQueued,
    AgentSpawned,
    ApprovalGiven,
    CompletionReceived,
    Event,
    FellBack,
    GateChanged,
    MessagesAdded,
    PhaseChanged,
    PoolInfo,
    PoolStatistics,
    RequestFailed,
    RequestFirstPiece,
    RequestStarted,
    SlotsChanged,
    ToolFinished,
    ToolStarted,
    WaitReason,
)
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import (
    FakeTool,
    LiveDriver,
    Recorder,
    calling,
    echo_tool,
    job,
    manifest,
    of_type,
    sleepy_driver,
    tool_call,
)


async def run_one(
    driver: Driver,
    *tools: FakeTool,
    config: SpawnConfig | None = None,
    budget: Budget | None = None,
) -> Recorder:
    """Return what is seen of one agent, whatever becomes of it."""
    recorder = Recorder()
    async with open_pool(
        driver, tools=ToolRegistry(tools), observers=[recorder], budget=budget
    ) as pool:
        await (await pool.spawn(config or job())).wait()
    return recorder


# --- spawns and slots


async def test_a_spawn_tells_what_was_asked() -> None:
    """A trace explains itself: query, manifest, prompt and limit are in it."""
    config = SpawnConfig(manifest("reader"), "why?", name="r1", deadline_seconds=9.0, group="g")
    recorder = await run_one(ScriptedDriver(["so"]), config=config)
    (spawned,) = of_type(recorder.events, AgentSpawned)
    assert (spawned.query, spawned.manifest, spawned.group) == ("why?", "reader", "g")
    assert spawned.system_prompt == "You are a helpful assistant."
    assert spawned.deadline_seconds == 9.0
    assert spawned.grants == ()


async def test_who_finds_no_slot_is_told_to_be_queued(autojump_clock: MockClock) -> None:
    """With the reason: how many run, how many may, how many come first."""
    recorder = Recorder()
    async with open_pool(sleepy_driver(), max_concurrent=1, observers=[recorder]) as pool:
        await pool.fan_out([job("sleep 1 say a"), job("sleep 1 say b"), job("sleep 1 say c")])
        pool.max_concurrent = 2
        await pool.join_all()
    queued = of_type(recorder.events, AgentQueued)
    assert [(e.agent_id, e.running, e.max_concurrent, e.ahead) for e in queued] == [
        (2, 1, 1, 0),
        (3, 1, 1, 1),
    ]
    assert [event.max_concurrent for event in of_type(recorder.events, SlotsChanged)] == [2]


# --- requests


async def test_a_request_is_told_from_its_start_to_its_answer(autojump_clock: MockClock) -> None:
    """Turn, attempt, model, cost, first piece: all under one number."""

    async def answer(_: CompletionRequest, on_delta: OnDelta) -> Completion:
        await trio.sleep(1)
        on_delta("a")
        await trio.sleep(2)
        on_delta("b")
        return Completion("ab", usage=Usage(5, 2, 3), model="m-1", cost_usd=0.25)

    recorder = await run_one(LiveDriver(answer))
    (started,) = of_type(recorder.events, RequestStarted)
    (first,) = of_type(recorder.events, RequestFirstPiece)
    (received,) = of_type(recorder.events, CompletionReceived)
    assert (started.turn, started.attempt, started.by_tool) == (1, 1, False)
    assert started.sent == ((0, 1),)
    assert (started.budget, started.reserved_tokens, started.reserved_usd) == ("", None, None)
    assert (first.request_id, first.seconds) == (started.sequence, 1.0)
    assert received.request_id == started.sequence
    assert (received.turn, received.attempt, received.model) == (1, 1, "m-1")
    assert (received.cost_usd, received.first_piece_seconds) == (0.25, 1.0)
    assert received.duration_seconds == 3.0
    assert [e.turn for e in of_type(recorder.events, PhaseChanged)] == [0, 1, 1]


async def test_each_message_is_told_once() -> None:
    """By its place, so that requests refer to it; the outcome has what came last."""
    recorder = await run_one(ScriptedDriver([calling(tool_call("echo")), "done"]), echo_tool())
    added = of_type(recorder.events, MessagesAdded)
    assert [(event.place, len(event.messages)) for event in added] == [(0, 1), (1, 2)]
    assert added[0].messages == (UserMessage("hello"),)
    assert [event.sent for event in of_type(recorder.events, RequestStarted)] == [
        ((0, 1),),
        ((0, 3),),
    ]


async def test_each_attempt_that_fails_is_told(autojump_clock: MockClock) -> None:
    """A retry is a request of its own, and costs money."""
    recorder = await run_one(ScriptedDriver([OverloadedError("busy"), "hi"]))
    first, second = of_type(recorder.events, RequestStarted)
    (failed,) = of_type(recorder.events, RequestFailed)
    assert (failed.request_id, failed.attempt) == (first.sequence, 1)
    assert (failed.error_type, failed.error) == ("OverloadedError", "busy")
    (received,) = of_type(recorder.events, CompletionReceived)
    assert (received.request_id, received.attempt) == (second.sequence, 2)
    (parked,) = of_type(recorder.events, AgentParked)
    assert parked.reason is WaitReason.RETRY


async def test_a_request_that_is_given_up_is_told(autojump_clock: MockClock) -> None:
    """Its money may be spent, though nobody has the answer."""
    recorder = await run_one(sleepy_driver(), config=job("hang", deadline_seconds=1))
    (failed,) = of_type(recorder.events, RequestFailed)
    assert (failed.error_type, failed.error) == ("Cancelled", "given up")


async def test_a_request_tells_what_was_set_aside_for_it() -> None:
    """The books of the budget can be followed."""
    recorder = await run_one(ScriptedDriver([say("hi")]), budget=Budget(tokens=9000, name="day"))
    (started,) = of_type(recorder.events, RequestStarted)
    assert started.budget == "day"
    assert started.reserved_tokens is not None
    assert started.reserved_tokens > 1024  # the answer's room, and the question
    assert started.reserved_usd == 0.0


async def test_what_a_tool_spends_on_models_is_told() -> None:
    """It is the agent's expense, and no turn of its conversation."""
    inner = ScriptedDriver([say("inside", usage=Usage(7, 3))])

    async def run(_: str, context: ToolContext) -> str:
        request = CompletionRequest((UserMessage("sub"),))
        pieces: list[str] = []
        await context.agent.complete(inner, request, on_delta=pieces.append)
        return "".join(pieces)

    think = FakeTool("think", run)
    recorder = await run_one(ScriptedDriver([calling(tool_call("think")), "done"]), think)
    assert [event.by_tool for event in of_type(recorder.events, RequestStarted)] == [
        False,
        True,
        False,
    ]
    aside = next(e for e in of_type(recorder.events, CompletionReceived) if e.by_tool)
    assert aside.usage == Usage(7, 3)
    assert len(of_type(recorder.events, RequestFirstPiece)) == 2  # calls come whole


async def test_an_answer_is_told_to_who_came_late(autojump_clock: MockClock) -> None:
    """Its request began unseen: it has no number."""
    watching: list[Event] = []

    async def answer(_: CompletionRequest, __: OnDelta) -> str:
        await trio.sleep(2)
        return "hi"

    async with open_pool(LiveDriver(answer)) as pool, trio.open_nursery() as nursery:

        async def read() -> None:
            watching.extend([event async for event in reader])

        handle = await pool.spawn(job())
        await trio.sleep(1)
        reader = pool.events()
        nursery.start_soon(read)
        await handle.wait()
        reader.close()
    (received,) = of_type(watching, CompletionReceived)
    assert (received.request_id, received.attempt) == (0, 1)


async def test_a_fallback_is_told() -> None:
    """Which driver failed, with what, and that the next one is asked."""
    bad, good = ScriptedDriver([OverloadedError("busy")] * 2), ScriptedDriver(["hi"] * 3)
    driver = FallbackDriver(bad, good, max_failures=1, models=["big", "small"])
    recorder = await run_one(driver)
    (fell,) = of_type(recorder.events, FellBack)
    assert (fell.driver, fell.next_driver) == (1, 2)
    assert (fell.error_type, fell.error) == ("OverloadedError", "busy")
    assert fell.words() == "from big to small: OverloadedError: busy"
    recorder = await run_one(driver)
    (fell,) = of_type(recorder.events, FellBack)
    assert (fell.driver, fell.error_type) == (1, "")  # left alone by its breaker


async def test_a_gate_that_a_refusal_closes_is_told(autojump_clock: MockClock) -> None:
    """One agent's refusal holds up all, so all who look must find it."""
    await trio.sleep(1000)
    inner = ScriptedDriver([RateLimitError("slow down", retry_after_seconds=5), "hi"])
    recorder = await run_one(GatedDriver(inner, RequestGate("home")))
    (changed,) = of_type(recorder.events, GateChanged)
    assert changed.gate == "home"
    assert 5 <= changed.closed_seconds < 10
    assert changed.waiting == 0


async def test_a_gate_without_watchers_tells_nobody(autojump_clock: MockClock) -> None:
    """The same refusals and fallbacks, and nobody looks."""
    inner = ScriptedDriver([RateLimitError("slow down"), "hi"])
    last = ScriptedDriver([OverloadedError("busy")])
    driver = FallbackDriver(last, GatedDriver(inner, RequestGate("home")))
    async with open_pool(driver) as pool:
        outcome = await (await pool.spawn(job())).wait()
    assert outcome.text == "hi"


# --- tools and approvals


async def test_a_tool_tells_how_long_it_ran_and_where_it_failed(
    autojump_clock: MockClock,
) -> None:
    """The model is told the text alone; people need the place."""

    async def run(_: str, __: ToolContext) -> str:
        await trio.sleep(2)
        raise ValueError("no such place")

    travel = FakeTool("travel", run)
    recorder = await run_one(ScriptedDriver([calling(tool_call("travel")), "oh"]), travel)
    (started,) = of_type(recorder.events, ToolStarted)
    (finished,) = of_type(recorder.events, ToolFinished)
    assert (started.turn, finished.turn) == (1, 1)
    assert finished.duration_seconds == 2.0
    assert finished.error_type == "ValueError"
    assert "in run\n" in finished.traceback
    assert finished.traceback.endswith("ValueError: no such place\n")
    assert "Traceback" not in finished.content


async def test_an_approval_tells_who_decided(autojump_clock: MockClock) -> None:
    """And how long the agent waited for it."""

    async def decide(_: ApprovalRequest) -> Denied:
        await trio.sleep(3)
        return Denied("not today", by="kim")

    @tool(needs_approval=True)
    def erase() -> str:
        """Erase all."""
        raise AssertionError("it was denied")

    recorder = Recorder()
    driver = ScriptedDriver([calling(tool_call("erase")), "ok"])
    async with open_pool(
        driver, tools=ToolRegistry([erase]), approve=decide, observers=[recorder]
    ) as pool:
        await (await pool.spawn(job())).wait()
    (given,) = of_type(recorder.events, ApprovalGiven)
    assert (given.decided_by, given.waited_seconds, given.reason) == ("kim", 3.0, "not today")
    (parked,) = of_type(recorder.events, AgentParked)
    assert parked.reason is WaitReason.APPROVAL


# --- the pool itself


class Host(Observer):
    """Keeps what a pool says of itself."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.opened: list[PoolInfo] = []
        self.closed: list[PoolStatistics] = []

    def on_event(self, event: Event) -> None:  # noqa: ARG002  # its time counts alone
        """Events come in between."""
        assert self.opened
        assert not self.closed

    def on_open(self, pool: PoolInfo) -> None:
        """Keep it."""
        self.opened.append(pool)

    def on_close(self, statistics: PoolStatistics) -> None:
        """Keep it."""
        self.closed.append(statistics)


async def test_a_pool_introduces_itself_and_says_when_it_closed() -> None:
    """A run id that no other has, the clock on the wall, and the numbers at the end."""
    first, second = Host(), Host()
    for host in (first, second):
        async with open_pool(
            ScriptedDriver(["hi"]), name="night", max_concurrent=3, observers=[host]
        ) as pool:
            await (await pool.spawn(job())).wait()
    (info,) = first.opened
    assert (info.name, info.max_concurrent) == ("night", 3)
    assert len(info.run_id) == 32
    assert info.run_id != second.opened[0].run_id
    assert info.opened_at > 1_700_000_000
    (statistics,) = first.closed
    assert (statistics.spawned, statistics.running) == (1, 0)


async def test_an_observer_that_fails_at_the_doors_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As everywhere: the pool goes on."""

    class Rude(Observer):
        def on_event(self, event: Event) -> None:
            raise AssertionError(f"nothing happens here: {event}")

        def on_open(self, pool: PoolInfo) -> None:  # noqa: ARG002  # it fails
            raise RuntimeError("at the door")

        def on_close(self, statistics: PoolStatistics) -> None:  # noqa: ARG002  # it fails
            raise RuntimeError("at the other door")

    async with open_pool(ScriptedDriver(["hi"]), observers=[Rude()]) as pool:
        pass
    assert pool.statistics().observer_failures == 2
    assert "Rude raised" in caplog.text
