"""Who watches a pool: one order, nothing that matters is dropped, and nobody is held up."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Literal, Unpack

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    OWNER_ID,
    AgentStatus,
    DriverError,
    SpawnConfig,
    StopReason,
    Usage,
    open_pool,
)
from agentpool._events import LIFECYCLE
from agentpool.abc import (
    AgentContext,
    Completion,
    CompletionRequest,
    Event,
    Observer,
    OnDelta,
    ToolContext,
)
from agentpool.drivers import FinishReason, FunctionDriver, RateLimitError, ScriptedDriver, say
from agentpool.drivers._scripted import Step
from agentpool.observe import (
    AgentFinished,
    AgentParked,
    AgentSpawned,
    AgentStarted,
    AgentWarned,
    CompletionReceived,
    EventsMissed,
    Phase,
    PhaseChanged,
    RequestRetried,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from agentpool.observe._event_reader import READER_BACKLOG, EventReader
from agentpool.observe._hub import EventHub
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import (
    WITH_MEMORY,
    BrokenMemory,
    FakeTool,
    LiveDriver,
    Quota,
    RaisingObserver,
    Recorder,
    calling,
    cut_off,
    echo_tool,
    job,
    jobs,
    manifest,
    of_type,
    query_of,
    sleepy_driver,
    tool_call,
    turns_of,
)


def outline(events: list[Event]) -> list[str]:
    """Return phases and tool events, in the words of the original's sequences."""
    words: list[str] = []
    for event in events:
        if isinstance(event, PhaseChanged):
            words.append(event.phase.value + (f":{event.tool_name}" if event.tool_name else ""))
        elif isinstance(event, ToolStarted):
            words.append("start")
        elif isinstance(event, ToolFinished):
            words.append("end")
    return words


async def watch(
    driver: ScriptedDriver,
    *tools: FakeTool,
    on_cut: Literal["stop", "continue"] = "stop",
    **resources: Unpack[Quota],
) -> Recorder:
    """Return what is seen of one agent's run."""
    recorder = Recorder()
    async with open_pool(driver, tools=ToolRegistry(tools), observers=[recorder]) as pool:
        await (await pool.spawn(SpawnConfig(manifest(on_cut=on_cut, **resources), "hello"))).wait()
    return recorder


# --- the original's event sequences


async def test_sequence_of_a_plain_answer() -> None:
    """Conformance: perceive, reason, done."""
    recorder = await watch(ScriptedDriver(["hi"]))
    assert outline(recorder.events) == ["perceive", "reason", "done"]
    assert recorder.names(1) == [
        "AgentSpawned",
        "AgentStarted",
        "PhaseChanged",
        "PhaseChanged",
        "MessagesAdded",
        "RequestStarted",
        "RequestFirstPiece",
        "TextDelta",
        "CompletionReceived",
        "PhaseChanged",
        "AgentFinished",
    ]


async def test_sequence_of_one_tool() -> None:
    """Conformance: perceive, reason, act, start, end, reason, done."""
    recorder = await watch(ScriptedDriver([calling(tool_call("echo")), "hi"]), echo_tool())
    assert outline(recorder.events) == [
        "perceive",
        "reason",
        "act:echo",
        "start",
        "end",
        "reason",
        "done",
    ]


async def test_sequence_of_several_tools() -> None:
    """Conformance: (act, start, end) for each; side by side, so the threes may interleave."""
    calls = [tool_call("echo", f"id-{n}", n=n) for n in range(3)]
    recorder = await watch(ScriptedDriver([calling(*calls), "hi"]), echo_tool())
    words = outline(recorder.events)
    assert words[:2] == ["perceive", "reason"]
    assert words[-2:] == ["reason", "done"]
    assert sorted(words[2:-2]) == ["act:echo"] * 3 + ["end"] * 3 + ["start"] * 3
    for call in calls:
        ((start, started),) = [
            (i, e)
            for i, e in enumerate(recorder.events)
            if isinstance(e, ToolStarted) and e.call == call
        ]
        (end,) = [
            i
            for i, e in enumerate(recorder.events)
            if isinstance(e, ToolFinished) and e.call == call
        ]
        before = recorder.events[start - 1]
        assert isinstance(before, PhaseChanged)
        assert (before.phase, before.tool_name) == (Phase.ACT, started.call.name)
        assert start < end


async def test_sequence_of_refused_calls() -> None:
    """Conformance: no events for calls that did not run."""
    recorder = await watch(ScriptedDriver([calling(tool_call("rm")), "hi"]), echo_tool())
    assert outline(recorder.events) == ["perceive", "reason", "reason", "done"]


async def test_sequence_of_a_truncated_answer() -> None:
    """Conformance: perceive, reason, reason, done."""
    recorder = await watch(ScriptedDriver([cut_off("he"), "llo"]), on_cut="continue")
    assert outline(recorder.events) == ["perceive", "reason", "reason", "done"]
    reasons = [event.finish_reason for event in of_type(recorder.events, CompletionReceived)]
    assert reasons == [FinishReason.MAX_TOKENS, FinishReason.END_TURN]


async def test_sequence_of_a_guard_abort() -> None:
    """The iteration simply stops, and the last event says how the agent ended."""
    script = [calling(tool_call("echo", f"id-{n}", n=n)) for n in range(3)]
    recorder = await watch(ScriptedDriver(script), echo_tool(), max_iterations=2)
    assert outline(recorder.events) == [
        "perceive",
        *["reason", "act:echo", "start", "end"] * 2,
    ]
    last = recorder.events[-1]
    assert isinstance(last, AgentFinished)
    assert last.outcome.status is AgentStatus.STOPPED
    assert last.outcome.stop_reason is StopReason.MAX_ITERATIONS


async def test_sequence_of_a_failure() -> None:
    """In the original errors ended the sequence mutely."""
    error = DriverError("no")
    recorder = await watch(ScriptedDriver([error]))
    assert outline(recorder.events) == ["perceive", "reason"]
    last = recorder.events[-1]
    assert isinstance(last, AgentFinished)
    assert last.outcome.error is error


# --- what events carry


async def test_events_tell_the_story_of_a_run(autojump_clock: MockClock) -> None:
    """Text as it comes, tokens, durations, results: a display needs nothing else."""

    async def answer(request: CompletionRequest, on_delta: OnDelta) -> Completion:
        await trio.sleep(2)
        if len(request.messages) > 1:
            for piece in ("fi", "ne"):
                on_delta(piece)
            return say("fine", usage=Usage(30, 4))
        return calling(tool_call("echo", n=1), usage=Usage(20, 3))

    recorder = Recorder()
    tools = ToolRegistry([echo_tool()])
    async with open_pool(LiveDriver(answer), tools=tools, observers=[recorder]) as pool:
        await trio.sleep(1)
        await pool.spawn(job("ann"))
    assert [(e.text, e.at_seconds) for e in of_type(recorder.events, TextDelta)] == [
        ("fi", 5),
        ("ne", 5),
    ]
    received = of_type(recorder.events, CompletionReceived)
    assert [(e.usage, e.duration_seconds) for e in received] == [
        (Usage(20, 3), 2),
        (Usage(30, 4), 2),
    ]
    (finished,) = of_type(recorder.events, ToolFinished)
    assert (finished.content, finished.is_error) == ('{"n": 1}', False)
    (spawned,) = of_type(recorder.events, AgentSpawned)
    assert (spawned.agent_id, spawned.agent_name, spawned.parent_id) == (1, "ann", OWNER_ID)


async def test_parents_are_named_in_the_spawn() -> None:
    """A tree can be drawn from the events alone."""

    async def spawn(_: str, __: ToolContext) -> str:
        await pool.spawn(job("say child"))
        return "done"

    recorder = Recorder()
    driver = ScriptedDriver([calling(tool_call("spawn")), "a", "b"])
    tools = ToolRegistry([FakeTool("spawn", spawn)])
    async with open_pool(driver, tools=tools, observers=[recorder], max_concurrent=1) as pool:
        await pool.spawn(job("parent"))
    assert [(e.agent_id, e.parent_id) for e in of_type(recorder.events, AgentSpawned)] == [
        (1, 0),
        (2, 1),
    ]


async def test_warnings_of_the_guard_are_events() -> None:
    """In the original a warning vanished; G2 rows: counted even if nobody watches."""
    script: list[Step] = [*[cut_off("a")] * 4, "e"]
    recorder = await watch(ScriptedDriver(script), on_cut="continue", max_iterations=5)
    warned = [event.text for event in of_type(recorder.events, AgentWarned)]
    assert warned == [
        "iteration 4/5 (80% of max_iterations)",
        "iteration 5/5 (100% of max_iterations)",
    ]
    async with open_pool(ScriptedDriver(script)) as pool:
        await pool.spawn(SpawnConfig(manifest(on_cut="continue", max_iterations=5), "hello"))
        await pool.join_all()
        assert pool.statistics().warnings == 2


async def test_a_memory_that_fails_is_told_and_tolerated() -> None:
    """The original swallowed it, so an invariant could be false in silence."""
    recorder = Recorder()
    async with open_pool(
        ScriptedDriver(["hi"]), memory=BrokenMemory(), observers=[recorder]
    ) as pool:
        await pool.spawn(SpawnConfig(manifest(capabilities=WITH_MEMORY), "hello"))
        (outcome,) = (await pool.join_all()).values()
        assert (outcome.status, outcome.text) == (AgentStatus.COMPLETED, "hi")
        assert pool.statistics().warnings == 2
    assert [event.text for event in of_type(recorder.events, AgentWarned)] == [
        "memory failed to recall: OSError: disk gone; the run goes on",
        "memory failed to remember: OSError: disk full; the run goes on",
    ]


async def test_retries_are_events(autojump_clock: MockClock) -> None:
    """In the original nobody saw a retry, and its wait was blind."""
    recorder = await watch(ScriptedDriver([RateLimitError("slow down"), "hi"]))
    (retried,) = of_type(recorder.events, RequestRetried)
    assert (retried.attempt, retried.error) == (1, "slow down")
    assert 0 < retried.delay_seconds <= 1
    (received,) = of_type(recorder.events, CompletionReceived)
    assert received.duration_seconds == pytest.approx(retried.delay_seconds)


# --- the order


async def test_g11_sequence_is_one_two_three(autojump_clock: MockClock) -> None:
    """G11: a total order across all agents, and times that never go back."""
    recorder = Recorder()
    async with open_pool(sleepy_driver(), max_concurrent=3, observers=[recorder]) as pool:
        await pool.fan_out(jobs(*(f"sleep {n % 4} say {n}" for n in range(12))))
        await pool[3].send("hello")
    numbers = [event.sequence for event in recorder.events]
    assert numbers == list(range(1, len(numbers) + 1))
    times = [event.at_seconds for event in recorder.events]
    assert times == sorted(times)


async def test_g11_everybody_sees_the_same_order() -> None:
    """G11: observers and readers agree, event by event."""
    first, second = Recorder(), Recorder()
    async with open_pool(sleepy_driver(), observers=[first, second]) as pool:
        with pool.events() as reader:
            await pool.fan_out(jobs("say a", "raise b", "say c"))
            await pool.join_all()
        read = [event async for event in reader]
    assert first.events == second.events == read


async def test_a_reader_begins_with_its_opening() -> None:
    """What happened before is not told; what the numbers say is that there was something."""
    async with open_pool(sleepy_driver()) as pool:
        await (await pool.spawn(job("say a"))).wait()
        with pool.events() as first:
            await (await pool.spawn(job("say b"))).wait()
            with pool.events() as second:
                await (await pool.spawn(job("say c"))).wait()
        agents = [[e.agent_id async for e in reader] for reader in (first, second)]
    assert set(agents[0]) == {2, 3}
    assert set(agents[1]) == {3}


async def test_a_reader_that_an_observer_opens_begins_with_what_comes_after() -> None:
    """The event that it was opened at has happened, and is told to the reader no more."""
    readers: list[EventReader] = []
    at: list[Event] = []

    class Opener(Observer):
        """Opens a reader when the agent starts."""

        def on_event(self, event: Event) -> None:
            """Open it."""
            if isinstance(event, AgentStarted):
                at.append(event)
                readers.append(pool.events())

    recorder = Recorder()
    async with open_pool(sleepy_driver(), observers=[Opener(), recorder]) as pool:
        await (await pool.spawn(job("say a"))).wait()
    (reader,) = readers
    after = recorder.events[recorder.events.index(at[0]) + 1 :]
    assert [event async for event in reader] == after


# --- readers


async def test_a_reader_that_was_left_gets_no_more_events() -> None:
    """Nobody can read it; it would keep every event until the pool closes."""
    async with open_pool(sleepy_driver()) as pool:
        left = [weakref.ref(pool.events()) for _ in range(3)]
        with pool.events() as kept:
            await (await pool.spawn(job("say a"))).wait()
            gc.collect()
            assert [one() for one in left] == [None] * 3
            await (await pool.spawn(job("say b"))).wait()
    assert {event.agent_id async for event in kept} == {1, 2}


async def test_a_reader_waits_for_the_next_event(autojump_clock: MockClock) -> None:
    """And ends when the pool has closed; in the original it never did."""
    seen: list[str] = []

    async def read() -> None:
        async for event in reader:
            seen.append(type(event).__name__)  # noqa: PERF401  # seen while it is read

    async with trio.open_nursery() as nursery, open_pool(sleepy_driver()) as pool:
        reader = pool.events()
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert seen == []
        await pool.spawn(job("sleep 1"))
        await wait_all_tasks_blocked()
        assert seen[:2] == ["AgentSpawned", "AgentStarted"]
    assert seen[-1] == "AgentFinished"


async def test_an_agent_may_wait_for_events(autojump_clock: MockClock) -> None:
    """In a tool. It keeps its slot, or its own parking would be what it waits for."""
    heard: list[str] = []

    @tool
    async def overhear() -> str:
        """Wait for what happens next."""
        with pool.events() as events:
            heard.append(type(await anext(events)).__name__)
        return "heard"

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion:
        await trio.sleep(1 + 2 * (query_of(request) == "talk"))
        if query_of(request) == "listen" and turns_of(request) == 0:
            return calling(tool_call("overhear"))
        return Completion("done")

    recorder = Recorder()
    registry = ToolRegistry([overhear])
    async with open_pool(LiveDriver(answer), tools=registry, observers=[recorder]) as pool:
        await pool.spawn(SpawnConfig(manifest(), "listen"))
        await pool.spawn(SpawnConfig(manifest(), "talk"))
    assert heard == ["CompletionReceived"]
    assert not of_type(recorder.events, AgentParked)


async def test_a_closed_reader_can_be_read_to_its_end() -> None:
    """Closing stops what comes, not what is there; twice is not harm."""
    async with open_pool(sleepy_driver()) as pool:
        with pool.events() as reader:
            await (await pool.spawn(job())).wait()
        reader.close()
        before = [event async for event in reader]
        await (await pool.spawn(job())).wait()
        assert [event async for event in reader] == []
    assert {event.agent_id for event in before} == {1}


async def test_reading_can_be_cancelled_without_loss(autojump_clock: MockClock) -> None:
    """G16: ``Cancelled`` means that the event is still there."""
    async with open_pool(sleepy_driver()) as pool:
        with pool.events() as reader:
            with trio.move_on_after(1) as scope:
                await reader.__anext__()
            assert scope.cancelled_caught
            pool.spawn_nowait(job())
            with trio.CancelScope() as scope:
                scope.cancel()
                await reader.__anext__()
            assert scope.cancelled_caught
            assert isinstance(await reader.__anext__(), AgentSpawned)


async def test_g11_a_slow_reader_misses_no_lifecycle_and_knows_what_it_missed() -> None:
    """G11: the gap stands where it is, with its length; spawn, start and end are never in it."""
    count = READER_BACKLOG // 2
    recorder = Recorder()
    async with open_pool(sleepy_driver(), observers=[recorder], max_queued=count) as pool:
        with pool.events() as reader:
            await pool.fan_out(jobs(*["say hi"] * count))
            await pool.join_all()
        read = [event async for event in reader]
    everything = recorder.events
    assert len(everything) > 2 * READER_BACKLOG
    for kind in LIFECYCLE:
        assert of_type(read, kind) == of_type(everything, kind)
        assert len(of_type(read, kind)) == count
    gaps = of_type(read, EventsMissed)
    assert sum(gap.count for gap in gaps) + len(read) - len(gaps) == len(everything)
    # Each gap is as long as the hole in the numbers around it.
    last = 0
    missed = 0
    for event in read:
        if isinstance(event, EventsMissed):
            missed = event.count
            continue
        assert event.sequence == last + missed + 1
        last, missed = event.sequence, 0


async def test_g11_what_is_missed_at_the_very_end_is_counted_too() -> None:
    """G11: a gap at the end has no event after it, and is a gap all the same."""
    recorder = Recorder()

    def build(context: AgentContext) -> ToolRegistry:
        async def tell(_: str, __: ToolContext) -> str:
            for _unused in range(32):
                await context.send(OWNER_ID, "read me")
            return "sent"

        return ToolRegistry([FakeTool("tell", tell)])

    def stream(n: int) -> Completion:
        return say("x" * READER_BACKLOG) if n else calling(tool_call("tell"))

    driver = ScriptedDriver((stream(n) for n in range(2)), pieces=READER_BACKLOG)
    async with open_pool(driver, tools=build, observers=[recorder]) as pool:
        reader = pool.events()
        await (await pool.spawn(job())).wait()
    # The owner never read its post: 32 dead letters, after the last lifecycle event.
    read = [event async for event in reader]
    gaps = of_type(read, EventsMissed)
    assert sum(gap.count for gap in gaps) + len(read) - len(gaps) == len(recorder.events)


async def test_g11_a_closed_reader_that_was_too_slow_says_so() -> None:
    """Also when the reader closes itself in the middle of a gap."""
    driver = ScriptedDriver(["x" * (READER_BACKLOG + 100), "y"], pieces=READER_BACKLOG + 100)
    seen: list[int] = []

    class Closer(Observer):
        def on_event(self, event: Event) -> None:
            seen.append(event.sequence)
            if len(seen) == READER_BACKLOG + 50:
                reader.close()

    async with open_pool(driver, observers=[Closer()]) as pool:
        reader = pool.events()
        await (await pool.spawn(job())).wait()
        read = [event async for event in reader]
    assert len(of_type(read, EventsMissed)) == 1


# --- observers that break or meddle


async def test_g11_a_raising_observer_is_counted_told_once_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G11: everybody else, and every agent, goes on as if it were not there."""
    broken, recorder = RaisingObserver(), Recorder()
    with caplog.at_level(logging.ERROR, logger="agentpool"):
        async with open_pool(sleepy_driver(), observers=[broken, recorder]) as pool:
            handle = await pool.spawn(job("say hi"))
            assert (await handle.wait()).text == "hi"
    assert broken.calls == len(recorder.events) == pool.statistics().observer_failures
    (record,) = caplog.records
    assert "RaisingObserver" in record.getMessage()
    assert record.exc_info is not None


async def test_a_key_in_what_an_observer_raised_is_told_nowhere(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter quotes what it sent: not in the statistics, and not in the log."""
    monkeypatch.setenv("COLLECTOR_API_KEY", "hush-hush-hush")

    class Exporter(Observer):
        def on_event(self, _: Event) -> None:
            raise OSError("refused: authorization: hush-hush-hush")

    async with open_pool(sleepy_driver(), observers=[Exporter()]) as pool:
        await (await pool.spawn(job("say hi"))).wait()
    told = "Exporter: refused: authorization: [secret]"
    assert pool.statistics().observer_failure == told
    assert "hush-hush" not in caplog.text
    assert "in on_event" in caplog.text


async def test_an_observer_may_use_the_pool() -> None:
    """It is called in the pool's thread: a supervisor that spawns again is an observer."""
    spawned: list[int] = []

    class Restarter(Observer):
        def on_event(self, event: Event) -> None:
            if isinstance(event, AgentFinished) and event.outcome.error and len(spawned) < 3:
                spawned.append(pool.spawn_nowait(job("raise again")).agent_id)

    async with open_pool(sleepy_driver(), max_concurrent=1, observers=[Restarter()]) as pool:
        await pool.spawn(job("raise once"))
        seen = [outcome.agent_id async for outcome in pool.as_completed()]
    assert spawned == [2, 3, 4]
    assert seen == [1, 2, 3, 4]


async def test_an_observer_may_cancel_at_the_spawn() -> None:
    """An agent that is cancelled when its spawn is told asks no model, and is not a leak."""

    class Bouncer(Observer):
        def on_event(self, event: Event) -> None:
            if isinstance(event, AgentSpawned) and event.agent_name == "unwanted":
                pool[event.agent_id].cancel("not on the list")

    recorder = Recorder()
    driver = sleepy_driver()
    async with open_pool(
        driver, max_concurrent=1, max_queued=1, observers=[Bouncer(), recorder]
    ) as pool:
        handle = await pool.spawn(job("unwanted"))
        assert (await handle.wait()).status is AgentStatus.CANCELLED
        assert (pool.active_count, pool.queued_count, pool.router.agent_count) == (0, 0, 0)
        await pool.fan_out(jobs("say a", "say b"))
        outcomes = await pool.join_all()
    assert [outcome.status.value for outcome in outcomes.values()] == [
        "cancelled",
        "completed",
        "completed",
    ]
    assert driver.calls == 2


async def test_started_comes_once_and_only_with_a_slot(autojump_clock: MockClock) -> None:
    """Parking is not a second start."""
    recorder = Recorder()
    async with open_pool(sleepy_driver(), max_concurrent=1, observers=[recorder]) as pool:
        await pool.fan_out(jobs("sleep 1", "sleep 1"))
    started = of_type(recorder.events, AgentStarted)
    assert [(e.agent_id, e.at_seconds) for e in started] == [(1, 0), (2, 1)]


# --- the hub itself


def test_nobody_watching_costs_no_events() -> None:
    """Whoever asks whether to make an event is told no, and again once the last has gone."""
    hub = EventHub((), 0.0)
    told = [hub.listening]
    reader = hub.open_reader()
    told.append(hub.listening)
    reader.close()
    reader.close()
    told.append(hub.listening)
    assert told == [False, True, False]
    hub.warned(1, "ann", "counted all the same")
    assert hub.warnings == 1
    assert EventHub((Recorder(),), 0.0).listening


async def test_stamps_count_from_one_and_from_the_opening(autojump_clock: MockClock) -> None:
    """Seconds since the pool opened, not since the machine started."""
    await trio.sleep(5)
    hub = EventHub((), trio.current_time())
    await trio.sleep(2)
    assert hub.stamp(3, "ann") == (1, 2, 3, "ann")
    assert hub.stamp(4, "bob") == (2, 2, 4, "bob")
    assert hub.seconds() == 2


async def test_observers_hear_the_same_of_a_function_driver() -> None:
    """A driver that does not stream in pieces tells its text in one."""
    recorder = Recorder()
    async with open_pool(FunctionDriver(lambda _: "all at once"), observers=[recorder]) as pool:
        await pool.spawn(job())
    assert [e.text for e in of_type(recorder.events, TextDelta)] == ["all at once"]
