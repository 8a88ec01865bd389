"""The guarantees of docs/explanation/design.md, by their numbers.

Each under explored orders of tasks, and cancelled at every point where that makes sense.
``SCHEDULES`` is small here and large under the long profile of Hypothesis:
``nox -s property``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from hypothesis import given, settings

from agentpool import (
    AgentGoneError,
    AgentManifest,
    AgentPool,
    AgentPoolError,
    AgentStatus,
    Budget,
    Capability,
    InboxFullError,
    ManifestError,
    ModelConfig,
    PoolClosedError,
    PoolError,
    PoolFullError,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    StopReason,
    UnknownAgentError,
    Usage,
    UsageError,
    open_pool,
)
from agentpool._budget.budget import ledger_of
from agentpool._budget.claims import MAX_PASSED
from agentpool._events import LIFECYCLE
from agentpool.abc import AgentContext, Completion, CompletionRequest, Event, Observer, ToolContext
from agentpool.drivers import (
    AssistantMessage,
    BadRequestError,
    FunctionDriver,
    OverloadedError,
    RateLimitError,
    ScriptedDriver,
    UserMessage,
    call,
)
from agentpool.drivers._scripted import Answer, Step
from agentpool.memory import InMemoryMemory
from agentpool.observe import (
    AgentFinished,
    AgentResumed,
    AgentStarted,
    EventsMissed,
    MessageSent,
    ToolFinished,
)
from agentpool.testing import (
    EventLog,
    Fault,
    FaultyDriver,
    assert_quiescent,
    cancel_everywhere,
    explore,
    simulate,
)
from agentpool.testing._simulation.quiescent import history_faults
from agentpool.testing._simulation.token import Target
from agentpool.testing.strategies import fault_plans
from agentpool.tools import TEAM_TOOLS, ToolRegistry, tool
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
    sleepy_driver,
    texts,
    turns_of,
)
from tests.support.scenarios import TEAM, crew, member, nap, open_scene, orders

TARGETS: tuple[Target, ...] = ("scenario", "agents", "agent")
SCHEDULES = 25 if settings().max_examples < 1000 else 1000


def everywhere(
    scenario: Callable[[], Awaitable[object]],
    *,
    schedules: int = SCHEDULES,
    late_clock: bool = True,
) -> None:
    """Run a scenario under many orders, and cancel it at every point in each way.

    Args:
        scenario: What is run.
        schedules: Under how many orders.
        late_clock: Whether the clock may be late; not where times are looked at.
    """
    explore(scenario, schedules=schedules, late_clock=late_clock)
    for target in TARGETS:
        cancel_everywhere(scenario, target=target, may_raise=(AgentPoolError,))


def test_no_orphans() -> None:
    """After the block there is no task, no inbox, no slot, whatever went on in it."""

    async def scenario() -> None:
        async with crew(max_concurrent=2) as pool:
            hearer = await pool.spawn(member("c hear"))
            await pool.fan_out([member("a spawn=b.nap nap"), member("d nap")])
            await trio.sleep(0.5)
            await hearer.send("go on")

    everywhere(scenario)


@tool
async def stubborn() -> str:
    """Need a while to clean up."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.move_on_after(5, shield=True):
            await trio.sleep(2)


def test_one_outcome() -> None:
    """Every accepted spawn has one end, also if driver, tool, builder or observer break."""

    async def scenario() -> None:
        log = EventLog()

        def builder(context: AgentContext) -> ToolRegistry:
            if context.name == "builder":
                raise OSError("no tools today")
            return ToolRegistry([nap, stubborn])

        def answer(request: CompletionRequest) -> Answer:
            if query_of(request) == "driver":
                raise ValueError("no model today")
            return call("stubborn" if query_of(request) == "tool" else "nap")

        driver = FunctionDriver(answer)
        observers = [RaisingObserver(), log]
        async with open_pool(
            driver, max_concurrent=2, tools=builder, observers=observers, random_seed=0
        ) as pool:
            handles = await pool.fan_out(jobs("driver", "builder", "tool", "fine", "tool"))
            was_queued = handles[-1].status is AgentStatus.QUEUED  # in most of the orders
            handles[-1].cancel()
            assert handles[-1].outcome is not None or not was_queued
            await trio.sleep(9)
            pool.abort_all()
            outcomes = await pool.join_all()
        assert list(outcomes) == [1, 2, 3, 4, 5]
        assert outcomes[1].status is AgentStatus.FAILED
        assert outcomes[5].status is AgentStatus.CANCELLED
        log.check()

    explore(scenario, schedules=SCHEDULES)
    cancel_everywhere(scenario)


@given(plan=fault_plans("nap"))
@settings(max_examples=30)
def test_one_outcome_whatever_the_model_does(plan: list[Fault]) -> None:
    """A driver that fails, stalls, hangs, truncates or calls wildly ends in an outcome."""

    async def scenario() -> None:
        log = EventLog()
        driver = FaultyDriver(plan)
        async with open_pool(
            driver, tools=ToolRegistry([nap]), observers=[log], random_seed=0
        ) as pool:
            await pool.fan_out(
                SpawnConfig(manifest(), f"job {n}", deadline_seconds=1000) for n in range(3)
            )
            outcomes = await pool.join_all()
        assert [o.status in {*AgentStatus} for o in outcomes.values()] == [True] * 3
        log.check()

    simulate(scenario)


class Bound(Observer):
    """Counts who holds a slot by the events alone, and remembers the most."""

    def __init__(self, pool: list[AgentPool]) -> None:
        """Begin at nobody."""
        self.pool, self.most = pool, 0

    def on_event(self, event: Event) -> None:
        """Look when somebody gets a slot."""
        if isinstance(event, AgentStarted | AgentResumed) and self.pool:
            self.most = max(self.most, self.pool[0].statistics().running)


@pytest.mark.parametrize("slots", [1, 2])
def test_bound(slots: int) -> None:
    """At no instant more agents run than there are slots, also when they come back."""

    def answer(request: CompletionRequest) -> Answer:
        if query_of(request) == "help":
            return "helped"
        steps: list[Answer] = [call("spawn_agent", query="help"), call("work"), "done"]
        return steps[turns_of(request)]

    async def scenario() -> None:
        pools: list[AgentPool] = []
        bound, gauge = Bound(pools), Gauge()

        async def work(_: str, context: ToolContext) -> str:
            with gauge.work(context.agent_name):
                await trio.sleep(1)
            return "worked"

        async with open_pool(
            FunctionDriver(answer, record=False),
            max_concurrent=slots,
            tools=ToolRegistry([*TEAM_TOOLS, FakeTool("work", work)]),
            observers=[bound],
            random_seed=0,
        ) as pool:
            pools.append(pool)
            await pool.fan_out(member(name) for name in "abcde")
            pool[1].cancel()
            await pool.join_all()
        assert gauge.peak <= slots, f"{gauge.peak} at work with {slots} slots"
        assert bound.most <= slots, f"{bound.most} running with {slots} slots"

    everywhere(scenario, schedules=10)


def test_no_capacity_deadlock() -> None:
    """A tree of parents that wait for their children completes with one slot."""
    # The whole tree asks within the limits of its root.
    root = manifest(capabilities=TEAM, max_iterations=500, max_tool_calls=500)

    async def divided(depth: int, width: int) -> str:
        driver = FunctionDriver(_divide, record=False)
        async with open_scene(driver, max_concurrent=1) as pool:
            config = SpawnConfig(root, f"{depth}x{width}")
            return (await (await pool.spawn(config)).wait()).text

    async def scenario() -> None:
        assert await divided(2, 2) == "7"

    explore(scenario, schedules=SCHEDULES)
    for target in TARGETS:
        cancel_everywhere(divided, 2, 2, target=target)
    assert simulate(divided, 3, 3) == "40"


def _divide(request: CompletionRequest) -> Answer:
    """Spawn as many children as the query says, each one level lower; count the nodes."""
    depth, _, width = query_of(request).partition("x")
    results = results_of(request)
    if not int(depth) or len(results) == int(width):
        return str(1 + sum(int(one.content) for one in results if one.content.isdigit()))
    return call("spawn_agent", query=f"{int(depth) - 1}x{width}", name=f"child{len(results)}")


def test_ids() -> None:
    """Ids rise from 1 without gaps; a refused spawn consumes nothing."""

    async def scenario() -> None:
        async with crew(max_concurrent=1) as pool:
            first = await pool.fan_out([member("a nap"), member("b nap")])
            with pytest.raises(ManifestError):
                pool.spawn_nowait(_too_large())
            await trio.sleep(1.5)
            pool.abort_all()
            later = await pool.fan_out([member("c nap"), member("d nap")])
            assert [h.agent_id for h in (*first, *later)] == [1, 2, 3, 4]
            await pool.join_all()

    everywhere(scenario)


def _too_large() -> SpawnConfig:
    model = ModelConfig(max_tokens=8000, context_window=8100, system_prompt="x" * 1000)
    return SpawnConfig(AgentManifest(model=model, capabilities=()), "hello")


def test_all_or_nothing() -> None:
    """A fan-out that does not fit starts nobody, and changes nothing."""

    async def scenario() -> None:
        log = EventLog()
        async with open_scene(FunctionDriver(orders), log, max_concurrent=2, max_queued=2) as pool:
            await pool.spawn(member("a nap"))
            before, events = pool.statistics(), len(log.events)
            with pytest.raises(PoolFullError) as caught:
                pool.fan_out_nowait([member("b nap")] * 4)
            assert (pool.statistics(), len(log.events)) == (before, events)
            assert caught.value.running + caught.value.queued == 1
            assert len(pool.fan_out_nowait([member("c nap")] * 3)) == 3
            await pool.join_all()

    everywhere(scenario)


def test_fan_in_order() -> None:
    """join_all in spawn order; join_next in the order of the ends, each once, then None."""

    async def scenario() -> None:
        log = EventLog()
        async with crew(log, max_concurrent=3) as pool:
            await pool.fan_out([member("a nap=2"), member("b nap"), member("c nap"), member("d")])
            given: list[int] = []
            while (outcome := await pool.join_next()) is not None:
                given.append(outcome.agent_id)
            ended = [e.agent_id for e in log.events if isinstance(e, AgentFinished)]
            assert given == ended
            assert sorted(given) == [1, 2, 3, 4]
            assert list(await pool.join_all()) == [1, 2, 3, 4]

    everywhere(scenario)


def test_each_end_is_given_to_one_of_many() -> None:
    """Readers that stand in line, some of whom give up, lose and double nothing."""

    async def scenario() -> None:
        given: list[int] = []

        async def read(pool: AgentPool, seconds: float) -> None:
            with trio.move_on_after(seconds):
                while (outcome := await pool.join_next()) is not None:
                    given.append(outcome.agent_id)

        async with crew(max_concurrent=2) as pool:
            await pool.fan_out(member(f"a{n} nap") for n in range(6))
            async with trio.open_nursery() as nursery:
                for seconds in (1.0, 2.0, 1000.0):
                    nursery.start_soon(read, pool, seconds)
        assert sorted(given) == [1, 2, 3, 4, 5, 6], given

    explore(scenario, schedules=SCHEDULES)


def test_no_end_is_lost_to_a_reader_that_gives_up() -> None:
    """Wherever it was cancelled, the next reader gets what it was not given."""

    async def scenario(steps: int) -> None:
        given: list[int] = []

        async def read(pool: AgentPool) -> None:
            while (outcome := await pool.join_next()) is not None:
                given.append(outcome.agent_id)

        async with crew(max_concurrent=3) as pool:
            await pool.fan_out([member("a"), member("b"), member("c")])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, pool)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await read(pool)
        assert sorted(given) == [1, 2, 3], given

    for steps in range(20):
        explore(scenario, steps, schedules=5)


def test_messages() -> None:
    """Per sender in order; accepted means read once, or among the dead letters."""

    async def scenario() -> None:
        log = EventLog()
        read: list[tuple[int, str]] = []
        async with open_scene(
            FunctionDriver(orders), log, max_concurrent=2, inbox_capacity=1
        ) as pool:
            await pool.fan_out([member("a tell=0 tell=0"), member("b hear nap"), member("c nap")])

            async def write(to: int, text: str) -> None:
                with contextlib.suppress(AgentGoneError):
                    for n in range(3):
                        await pool[to].send(f"{text}{n}")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, 2, "x")
                nursery.start_soon(write, 3, "y")
                await trio.sleep(1.5)
                pool[3].cancel()
            await pool.join_all()
            with trio.move_on_after(0):
                read += [(m.sender, m.content) for m in await pool.receive_many()]
            outcomes = await pool.join_all()
        _check_post(pool, log, read, {n: str(o.messages) for n, o in outcomes.items()})

    everywhere(scenario, schedules=SCHEDULES)


def _check_post(
    pool: AgentPool, log: EventLog, read: list[tuple[int, str]], told: dict[int, str]
) -> None:
    """Check that every accepted message of the owner's was told once, or is dead."""
    dead = [letter.message.message_id for letter in pool.router.dead_letters]
    for event in log.events:
        if not isinstance(event, MessageSent) or event.message.sender:
            continue
        message = event.message
        times = told[message.recipient].count(f":\\n{message.content}")
        # Between the lines of a fence where a tool returned it.
        times += told[message.recipient].count(f"~\\n{message.content}\\n~")
        assert times + dead.count(message.message_id) == 1, (message, times, dead)
    for text in told.values():
        places = [text.find(f"x{n}") for n in range(3)]
        found = [place for place in places if place >= 0]
        assert found == sorted(found), f"out of order: {places}"
    assert len(read) <= 2


def test_honest_errors() -> None:
    """Full, unknown, ended, to oneself, closed, cannot work: each its own, and no trace."""

    async def scenario() -> None:
        async with open_scene(
            FunctionDriver(orders), max_concurrent=1, max_queued=1, inbox_capacity=1
        ) as pool:
            ended = await pool.spawn(member("a"))
            await ended.wait()
            live, _ = await pool.spawn(member("b nap=5")), await pool.spawn(member("c"))
            live.send_nowait("one")
            before = pool.statistics()
            for kind, refused in (
                (InboxFullError, lambda: live.send_nowait("two")),
                (AgentGoneError, lambda: ended.send_nowait("hello?")),
                (UnknownAgentError, lambda: pool.router.send_nowait(99, "hello?")),
                (UsageError, lambda: pool.router.send_nowait(0, "hello me")),
                (PoolFullError, lambda: pool.spawn_nowait(member("d"))),
                (ManifestError, lambda: pool.spawn_nowait(_too_large())),
                (UsageError, lambda: pool[99]),
            ):
                with pytest.raises(kind) as caught:
                    refused()
                assert type(caught.value) is kind
                assert pool.statistics() == before, kind
            pool.close()
            with pytest.raises(PoolClosedError):
                pool.spawn_nowait(member("e"))
            assert pool.statistics() == before
            await pool.join_all()

    explore(scenario, schedules=SCHEDULES)
    cancel_everywhere(scenario)


def test_g10_abort() -> None:
    """After an abort everybody has an end in time, with text and history as they were."""

    async def scenario() -> None:
        def answer(request: CompletionRequest) -> Answer:
            name = "stubborn" if query_of(request) == "deaf" else "nap"
            return call(name) if name == "stubborn" else call("nap", seconds=9)

        driver = FunctionDriver(answer)
        async with open_pool(
            driver, max_concurrent=2, tools=ToolRegistry([nap, stubborn]), random_seed=0
        ) as pool:
            await pool.fan_out(jobs("deaf", "asleep", "queued"))
            await trio.sleep(1)
            pool.abort_all("enough")
            aborted_at = trio.current_time()
            outcomes = await pool.join_all()
            assert trio.current_time() - aborted_at <= 2.0
        assert {o.status for o in outcomes.values()} == {AgentStatus.CANCELLED}
        for outcome in outcomes.values():
            assert not list(history_faults(outcome.messages))
            assert "enough" in str(outcome.error)
        assert [o.tool_calls for o in outcomes.values()] == [1, 1, 0]

    # What is looked at is a time, so the clock must be right.
    explore(scenario, schedules=SCHEDULES, late_clock=False)
    cancel_everywhere(scenario)


def test_g10_what_had_been_said_is_kept() -> None:
    """The part of an answer that had arrived is the text, and the end of the history."""

    async def scenario() -> None:
        async with open_pool(sleepy_driver(), random_seed=0) as pool:
            await pool.fan_out(jobs("piece half hang", "piece a sleep 1 piece b hang"))
            await trio.sleep(2)
            pool.abort_all()
            outcomes = await pool.join_all()
        assert texts(list(outcomes.values())) == ["half", "ab"]
        last = [outcome.messages[-1] for outcome in outcomes.values()]
        assert last == [AssistantMessage("half"), AssistantMessage("ab")]

    # One must have said its second piece before all are ended.
    explore(scenario, schedules=SCHEDULES, late_clock=False)
    cancel_everywhere(scenario)


class Slow(Observer):
    """Breaks at every third event, and sees how long the pool is held up by it."""

    def on_event(self, event: Event) -> None:
        """Break, now and then."""
        if event.sequence % 3 == 0:
            raise RuntimeError(f"observer broke at {event.sequence}")


def test_g11_events() -> None:
    """A total order; a lazy reader and a broken observer delay nobody, and it is counted."""

    async def scenario(*, watched: bool = True) -> float:
        log = EventLog()
        observers = (log, Slow()) if watched else ()
        async with crew(*observers) as pool:
            lazy = pool.events() if watched else None
            await pool.fan_out([member("a spawn=b.nap"), member("c tell=1 nap"), member("d fail")])
            await pool.join_all()
            took = trio.current_time()
        if lazy is not None:
            log.check()
            assert [e.sequence for e in log.events] == [*range(1, len(log.events) + 1)]
            assert [event async for event in lazy] == log.events
            assert pool.statistics().observer_failures == len(log.events) // 3
        return took

    assert simulate(scenario) == simulate(partial(scenario, watched=False))
    everywhere(scenario)


def test_g11_lifecycle_is_never_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that reads nothing misses pieces of text, is told how many, and no end."""
    monkeypatch.setattr("agentpool.observe._event_reader.READER_BACKLOG", 5)

    async def scenario() -> None:
        log = EventLog()
        async with crew(log, max_concurrent=3) as pool:
            lazy = pool.events()
            await pool.fan_out([member("a note nap"), member("b nap note"), member("c note")])
            await pool.join_all()
        read = [event async for event in lazy]
        life = [event for event in log.events if isinstance(event, LIFECYCLE)]
        assert [event for event in read if isinstance(event, LIFECYCLE)] == life
        missed = sum(event.count for event in read if isinstance(event, EventsMissed))
        kept = sum(not isinstance(event, EventsMissed) for event in read)
        assert missed + kept == len(log.events)

    everywhere(scenario, schedules=10)


def _frugal(request: CompletionRequest) -> Completion:
    """Have a child once if the query says so; answers take more or less than was estimated."""
    name, _, child = query_of(request).partition(" ")
    usage = Usage(40 * len(name), 100)
    if child and not results_of(request):
        asked = call("spawn_agent", query=child)
        return Completion(name, asked.tool_calls, asked.finish_reason, usage)
    return Completion(name, usage=usage)


async def _spend(budget: Budget, asked: list[str], *, slots: int = 3) -> None:
    """Let agents with children draw on *budget*, some slowly; some fail, one is cancelled."""

    async def answer(request: CompletionRequest) -> Completion:
        name = query_of(request).partition(" ")[0]
        asked.append(name)
        await trio.sleep(len(name) % 3)
        if name == "refused":
            raise BadRequestError("no")
        if name == "broken":
            raise ValueError("broken")
        return _frugal(request)

    queries = ["a aa", "bbbb", "refused", "ccccc cc", "broken", "dddddddd", "e ee"]
    config = manifest(capabilities=TEAM, max_tokens=100, system_prompt="")
    driver = FunctionDriver(answer, record=False, price_per_token_usd=0.001)
    tools = ToolRegistry(TEAM_TOOLS)
    async with open_pool(
        driver, max_concurrent=slots, budget=budget, tools=tools, random_seed=0
    ) as pool:
        own = Budget(requests=2, parent=budget, name="own")
        handles = await pool.fan_out(SpawnConfig(config, query) for query in queries)
        handles += await pool.fan_out([SpawnConfig(config, "f ff", budget=own)])
        await trio.sleep(1.5)
        handles[5].cancel("enough")
        await pool.join_all()


@pytest.mark.parametrize(
    "limits", [{"requests": 5}, {"tool_calls": 1}, {"tokens": 2000}, {"cost_usd": 2.0}]
)
def test_g12_budgets(limits: dict[str, float]) -> None:
    """Exact in requests and calls; else over by no more than estimates were too low."""
    budgets: list[Budget] = []

    async def scenario(cut_short: int = 20) -> None:
        budget = Budget(**limits)  # type: ignore[arg-type]  # one of four
        budgets.append(budget)
        asked: list[str] = []
        try:
            await _spend(budget, asked)
        finally:
            now = budget.statistics()
            # One that is cancelled on its way counts as made.
            assert len(asked) <= now.requests.committed <= len(asked) + cut_short
            meters = (now.tokens, now.cost, now.requests, now.tool_calls)
            assert [meter.reserved for meter in meters] == [0, 0, 0, 0]
            assert not ledger_of(budget).waiting
            for meter in (now.requests, now.tool_calls):
                assert meter.limit is None or meter.committed <= meter.limit
            # "dddddddd" alone takes 420 tokens and was estimated at some 110, three of
            # the others take a little more than that: they may have been under way together.
            assert now.tokens.limit is None or now.tokens.committed <= now.tokens.limit + 520
            assert now.cost.limit is None or now.cost.committed <= now.cost.limit + 0.52

    # The one that is cancelled may be on its way then.
    explore(scenario, 1, schedules=SCHEDULES)
    assert len(budgets) == SCHEDULES
    for target in TARGETS:
        cancel_everywhere(scenario, target=target, may_raise=(AgentPoolError,))


def test_g12_ten_agents_and_three_requests() -> None:
    """Exactly three reach the driver, in every order of tasks."""

    async def scenario() -> None:
        asked: list[str] = []

        async def answer(request: CompletionRequest) -> str:
            asked.append(query_of(request))
            await trio.lowlevel.checkpoint()
            return "done"

        async with open_pool(
            FunctionDriver(answer), max_concurrent=10, budget=Budget(requests=3)
        ) as pool:
            await pool.fan_out(job(f"job {n}") for n in range(10))
            ends = [outcome.status for outcome in (await pool.join_all()).values()]
        assert len(asked) == 3, asked
        assert ends.count(AgentStatus.STOPPED) == 7

    explore(scenario, schedules=SCHEDULES)


def test_g12_who_waits_for_a_budget_has_its_turn() -> None:
    """What fits one after the other is sent; one that gives up waiting holds up nobody."""

    async def scenario() -> None:
        budget = Budget(tokens=1500)

        async def slow(_: CompletionRequest) -> Completion:
            await trio.sleep(1)
            return Completion("done", usage=Usage(60, 40))

        driver = FunctionDriver(slow, record=False)
        async with open_pool(driver, max_concurrent=4, budget=budget, random_seed=0) as pool:
            handles = await pool.fan_out(jobs("a", "b", "c", "d"))
            await trio.sleep(0.5)
            waiting = [one for one in handles if one.status is AgentStatus.PARKED]
            assert len(waiting) == 3
            waiting[0].cancel()
            ends = [outcome.status for outcome in (await pool.join_all()).values()]
        assert ends.count(AgentStatus.COMPLETED) == 3, ends
        assert budget.statistics().tokens.committed == 300
        assert (budget.statistics().tokens.reserved, len(ledger_of(budget).waiting)) == (0, 0)

    # The first request must be under way while the others are looked at.
    explore(scenario, schedules=SCHEDULES, late_clock=False)


def test_g12_one_that_wants_much_has_its_turn_among_those_that_want_little() -> None:
    """A queue of small requests does not keep a large one waiting to its own end."""

    async def scenario() -> None:
        budget = Budget(tokens=2000)
        asked: list[str] = []

        async def slow(request: CompletionRequest) -> Completion:
            asked.append(query_of(request))
            await trio.sleep(1 + len(asked) % 3)
            return Completion("done", usage=Usage(3, 2))

        small = [SpawnConfig(manifest(max_tokens=500), f"small {n}") for n in range(18)]
        large = SpawnConfig(manifest(max_tokens=1500), "large")
        driver = FunctionDriver(slow, record=False)
        async with open_pool(driver, max_concurrent=19, budget=budget, random_seed=0) as pool:
            for config in (*small[:3], large, *small[3:]):
                await pool.spawn(config)
                await trio.sleep(0.01)
            outcomes = await pool.join_all()
        if all(one.status is AgentStatus.COMPLETED for one in outcomes.values()):
            assert len(asked) == 19
            assert asked.index("large") <= 3 + MAX_PASSED
        assert budget.statistics().tokens.committed <= 2000
        assert not ledger_of(budget).waiting
        assert not ledger_of(budget).under_way

    explore(scenario, schedules=SCHEDULES)
    cancel_everywhere(scenario, target="agent", may_raise=(AgentPoolError,))


def test_g12_waiting_for_a_budget_ends() -> None:
    """Pools inside of drivers that draw on one budget: somebody stops, nobody hangs."""

    async def scenario() -> None:
        budget = Budget(tokens=2400)

        async def nested(request: CompletionRequest) -> str:
            if query_of(request) == "outer":
                async with open_pool(driver, max_concurrent=2, budget=budget) as inner:
                    await inner.fan_out(jobs("inner", "inner"))
                    await inner.join_all()
            await trio.sleep(1)
            return "done"

        driver = FunctionDriver(nested, record=False)
        async with open_pool(driver, max_concurrent=3, budget=budget, random_seed=0) as pool:
            await pool.fan_out(jobs("outer", "outer", "plain", "outer"))
            outcomes = await pool.join_all()
        ends = {one.status for one in outcomes.values()}
        assert ends & {AgentStatus.COMPLETED, AgentStatus.CANCELLED}
        assert not ledger_of(budget).waiting
        assert not ledger_of(budget).under_way

    everywhere(scenario, schedules=SCHEDULES)


def test_g13_deadlines() -> None:
    """What counts is the least of pool, run, request and tool; a tool can read it."""

    async def scenario(pool_s: float, run_s: float, tool_s: float) -> tuple[float, float, str]:
        left: list[float] = []

        async def look(_: str, context: ToolContext) -> str:
            left.append(context.remaining_seconds())
            await trio.sleep_forever()
            raise AssertionError

        driver = FunctionDriver(lambda r: "late" if len(r.messages) > 1 else call("look"))
        tools = ToolRegistry([FakeTool("look", look)])
        status = "outside"
        with trio.move_on_after(pool_s):
            async with open_pool(driver, tools=tools, random_seed=0) as pool:
                config = SpawnConfig(manifest(run_seconds=run_s, tool_seconds=tool_s), "job")
                outcome = await (await pool.spawn(config)).wait()
                status = str((outcome.stop_reason or outcome.status).value)
        return left[0], trio.current_time(), status

    assert simulate(scenario, 3.0, 5.0, 7.0) == (3.0, 3.0, "outside")
    assert simulate(scenario, 9.0, 5.0, 7.0) == (5.0, 5.0, StopReason.DEADLINE.value)
    assert simulate(scenario, 9.0, 8.0, 7.0) == (7.0, 7.0, StopReason.END_TURN.value)
    explore(scenario, 9.0, 5.0, 7.0, schedules=SCHEDULES)
    cancel_everywhere(scenario, 9.0, 5.0, 7.0, may_raise=(IndexError,))


def test_g14_deadlock() -> None:
    """A circle of three that ask each other is named at the moment it closes."""

    async def scenario() -> None:
        log = EventLog()
        async with crew(log, max_concurrent=2) as pool:
            # All at once: who asks an agent that is not there yet is told so.
            pool.fan_out_nowait([member("a nap=1 ask=2"), member("b ask=3"), member("c ask=1")])
            await pool.join_all()
        # The first one that was told gives up; then the others can be answered with an end.
        told = [
            e for e in log.events if isinstance(e, ToolFinished) and "DeadlockError" in e.content
        ]
        assert told, "nobody was told"
        assert "1 (a) asks 2 (b), which asks 3 (c), which asks 1 (a)" in told[0].content
        assert told[0].at_seconds == 1.0

    async def innocent() -> None:
        async with crew(max_concurrent=1) as pool:
            pool.fan_out_nowait([member("a ask=2"), member("b nap=9 answer reply")])
            outcomes = await pool.join_all()
        assert outcomes[1].text == "a ask=2: far", outcomes[1].text

    # When it is told is looked at as well, so the clock must be right.
    explore(scenario, schedules=SCHEDULES, late_clock=False)

    async def in_a_hurry() -> None:
        log = EventLog()
        async with crew(log, max_concurrent=1) as pool:
            pool.fan_out_nowait([member("a ask=2", deadline_seconds=5), member("b ask=1")])
            outcomes = await pool.join_all()
        assert outcomes[1].stop_reason is StopReason.DEADLINE
        assert outcomes[2].finished_at == 5.0
        assert "DeadlockError" not in log.text()

    explore(innocent, schedules=SCHEDULES)
    explore(in_a_hurry, schedules=SCHEDULES, late_clock=False)
    for target in TARGETS:
        cancel_everywhere(crew_of_three, target=target)


async def crew_of_three() -> None:
    """Let three agents ask each other."""
    async with crew(max_concurrent=1) as pool:
        await pool.fan_out([member("a ask=2"), member("b ask=3"), member("c ask=1")])
        await pool.join_all()


def test_g14_everybody_waits_for_a_message() -> None:
    """An owner that only joins cannot send: who waits for a message waits for ever."""

    async def scenario() -> None:
        async with crew(max_concurrent=1) as pool:
            await pool.fan_out([member("a hear"), member("b hear")])
            outcomes = await pool.join_all()
        assert all("no running agent can unblock" in o.text for o in outcomes.values())

    explore(scenario, schedules=SCHEDULES)


@pytest.mark.parametrize("seed", range(5))
def test_g15_determinism(seed: int) -> None:
    """The same seed and the same scripts: the same event log, byte for byte."""

    async def scenario(log: EventLog) -> None:
        errors = [RateLimitError("slow down", retry_after_seconds=1.0), OverloadedError("busy")]
        steps: list[Step] = [
            call("nap", seconds=1),
            *errors,
            "done",
            "done",
            "done",
            "done",
            "done",
            "done",
        ]
        async with open_scene(ScriptedDriver(steps), log, max_concurrent=2) as pool:
            await pool.fan_out(member(f"a{n}") for n in range(4))
            await pool.race([member(f"racer{n}") for n in range(4)])
            await pool.join_all()

    logs = [EventLog(), EventLog()]
    for log in logs:
        simulate(scenario, log, seed=seed)
    assert logs[0].text() == logs[1].text()
    assert len(logs[0].events) > 50


def test_g15_determinism_of_a_race() -> None:
    """The losers of a race are cancelled in an order, not in that of their addresses."""

    async def scenario(log: EventLog) -> None:
        async with crew(log, max_concurrent=1) as pool:
            await pool.race([member(f"racer{n}") for n in range(9)])

    def run(waste: int) -> str:
        # Other objects before it, so that the agents lie elsewhere in memory.
        kept = [object() for _ in range(waste)]
        log = EventLog()
        simulate(scenario, log)
        assert len(kept) == waste
        return log.text()

    assert len({run(waste) for waste in range(0, 2000, 97)}) == 1


def test_g16_cancellation() -> None:
    """Tools, memory, streaming, messages, children, a race, a map: cancelled everywhere."""

    async def scenario() -> None:
        async with crew(max_concurrent=1, pieces=2) as pool:
            async with pool.map(member("x").manifest, ["m1 nap", "m2 note"]) as outcomes:
                async for outcome in outcomes:
                    assert outcome.agent_id
            with contextlib.suppress(PoolError):
                await pool.race([member("r nap"), member("s nap=2")])
            await pool.fan_out([member("a note=1 spawn=b.nap"), member("c answer reply")])
            with contextlib.suppress(AgentGoneError):
                await pool.router.ask(pool.statistics().spawned, "far?")
            await pool.join_all()
            assert_quiescent(pool)
            await pool.shutdown(grace_seconds=1)

    for target in TARGETS:
        report = cancel_everywhere(scenario, target=target)
        assert report.points > 30


def test_g16_who_is_cancelled_ends_at_once() -> None:
    """It waits neither for its child's own end nor until there is a slot for it."""

    async def scenario() -> None:
        async with crew(max_concurrent=1) as pool:
            listener, parent = await pool.fan_out([member("a hear"), member("b spawn=c.nap.nap")])
            await trio.sleep(0.5)
            await listener.send("wake up")  # the slot is the child's now
            await trio.sleep(0.5)
            listener.cancel()
            assert (await listener.wait()).finished_at <= 1
            parent.cancel()
            assert (await parent.wait()).finished_at <= 1

    everywhere(scenario, late_clock=False)


def test_g17_privacy_is_checked_before_anything_is_sent() -> None:
    """A sovereign manifest and a driver elsewhere: no id, no request."""

    async def scenario() -> None:
        driver = ScriptedDriver(["hello"], privacy=PrivacyTier.STANDARD)
        async with open_pool(driver, random_seed=0) as pool:
            with pytest.raises(PrivacyError):
                await pool.spawn(job("secret"))
            assert (pool.statistics().spawned, driver.requests) == (0, ())

    explore(scenario, schedules=5)


def test_g17_tools_and_children_are_held_to_the_tier() -> None:
    """What a sovereign agent may not send, no tool, model of a tool or child sends for it."""

    async def scenario() -> None:
        elsewhere = ScriptedDriver(["hello"], privacy=PrivacyTier.STANDARD)
        told: list[object] = []

        async def consult(_: str, context: ToolContext) -> str:
            with pytest.raises(PrivacyError):
                await context.agent.complete(elsewhere, CompletionRequest([UserMessage("hi")]))
            return "refused"

        async def send(_: str, context: ToolContext) -> str:  # noqa: ASYNC124  # a tool is async
            told.append(context.agent_name)
            return "sent"

        network = Capability.network("example.org")
        tools = [FakeTool("send", send, network), FakeTool("consult", consult), *TEAM_TOOLS]
        steps = [call("send"), call("consult")]
        driver = ScriptedDriver([*steps, call("spawn_agent", query="and you?"), *steps, "no", "no"])
        async with open_pool(driver, tools=ToolRegistry(tools), random_seed=0) as pool:
            own = manifest(capabilities=(*TEAM, network))
            outcome = await (await pool.spawn(SpawnConfig(own, "secret"))).wait()
        assert (outcome.text, outcome.tool_calls, outcome.error) == ("no", 3, None)
        assert (told, elsewhere.requests, len(driver.requests)) == ([], (), 7)

    explore(scenario, schedules=5)


def test_g18_isolation() -> None:
    """Memory, history and errors of one agent reach another only when asked for."""

    async def scenario() -> None:
        memory = InMemoryMemory()
        seen: dict[str, str] = {}

        def answer(request: CompletionRequest) -> str:
            query = query_of(request) if "Recalled" not in query_of(request) else "recalled"
            seen[query] = str(request)
            if "secret-b" in str(request):
                raise ValueError("error-b")
            return "the sea is secret-a" if query == "sea of a" else "nothing"

        driver = FunctionDriver(answer, record=False)
        async with open_pool(driver, max_concurrent=1, memory=memory, random_seed=0) as pool:
            own = manifest(capabilities=WITH_MEMORY)
            await (await pool.spawn(SpawnConfig(own, "sea of a", memory_scope="a's"))).wait()
            await (await pool.spawn(SpawnConfig(own, "sea of secret-b"))).wait()
            await (await pool.spawn(SpawnConfig(own, "sea of nobody"))).wait()
            outcome = await (await pool.spawn(SpawnConfig(own, "sea of c"))).wait()
            assert outcome.text == "nothing"
            assert "recalled" not in seen, seen["recalled"]
            shared = SpawnConfig(own, "sea of d", memory_scope="a's")
            await (await pool.spawn(shared)).wait()
        assert "secret-a" in seen["recalled"]
        assert "secret-b" not in seen["sea of c"] + seen["recalled"]
        assert "error-b" not in "".join(seen.values())

    explore(scenario, schedules=SCHEDULES)
    cancel_everywhere(scenario)
