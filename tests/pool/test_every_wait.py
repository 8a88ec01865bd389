"""Every wait of every public call, in a circle and in a pool where nobody can go on."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from agentpool import (
    AgentGoneError,
    AgentPool,
    AgentStatus,
    Capability,
    CapabilityKind,
    DeadlockError,
    RestartPolicy,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import OnDelta
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.observe import AgentFinished
from agentpool.testing import explore, simulate
from agentpool.tools import TEAM_TOOLS, ToolContext, ToolRegistry, tool
from tests.support.fakes import (
    LiveDriver,
    Recorder,
    calling,
    manifest,
    of_type,
    query_of,
    results_of,
    tool_call,
)
from tests.support.growth import lines_run

TEAM = manifest(capabilities=(Capability(CapabilityKind.MESSAGE), Capability.spawn(2)))


def obedient(request: CompletionRequest) -> Completion | str:
    """Do what the query says (``ask 1``, ``wait``, ``way race``), then tell what came of it."""
    results = results_of(request)
    if results:
        return "; ".join(result.content for result in results)
    verb, _, rest = query_of(request).partition(" ")
    match verb:
        case "ask":
            return calling(tool_call("ask_agent", to=int(rest), question="?"))
        case "wait":
            return calling(tool_call("wait_for_message"))
        case "way":
            return calling(tool_call("go"))
        case _:
            return rest


def config(query: str) -> SpawnConfig:
    """Return an agent of the team."""
    return SpawnConfig(TEAM, query)


# --- circles: agent 1 waits for agent 2, in every way there is, and agent 2 asks agent 1

Way = Callable[[AgentPool, ToolContext], Awaitable[object]]


async def _by_handle(pool: AgentPool, _: ToolContext) -> object:
    return await (await pool.spawn(config("ask 1"))).wait()


async def _by_child(_: AgentPool, context: ToolContext) -> object:
    return await context.agent.run_child("ask 1")


async def _by_race(pool: AgentPool, _: ToolContext) -> object:
    return await pool.race([config("ask 1")])


async def _by_race_of_many(pool: AgentPool, _: ToolContext) -> object:
    return await pool.race([config("ask 1"), config("ask 1"), config("ask 1")])


async def _by_supervision(pool: AgentPool, _: ToolContext) -> object:
    return await pool.supervise([config("ask 1")], RestartPolicy(restart="never"))


async def _by_map(pool: AgentPool, _: ToolContext) -> object:
    async with pool.map(TEAM, ["ask 1"]) as outcomes:
        return [outcome async for outcome in outcomes]


async def _by_ordered_map(pool: AgentPool, _: ToolContext) -> object:
    async with pool.map(TEAM, ["ask 1", "say x"], ordered=True) as outcomes:
        return [outcome async for outcome in outcomes]


async def _by_ask(pool: AgentPool, context: ToolContext) -> object:
    handle = await pool.spawn(config("ask 1"))
    return await context.agent.ask(handle.agent_id, "?")


async def _by_room(pool: AgentPool, context: ToolContext) -> object:
    handle = await pool.spawn(config("ask 1"))
    for number in range(100):
        await context.agent.send(handle.agent_id, f"{number}")
    return None  # pragma: no cover  # its inbox is not as large


WAYS: tuple[Way, ...] = (
    _by_handle, _by_child, _by_race, _by_race_of_many, _by_supervision, _by_map,
    _by_ordered_map, _by_ask, _by_room,
)  # fmt: skip
"""Every call in which one agent can wait for another."""


async def _circle(way: Way, *, beside: bool, slots: int) -> None:
    """Close a circle in one *way*, perhaps while another agent works for an hour."""
    seen = Recorder()
    with trio.fail_after(7200):
        async with open_pool(
            LiveDriver(at_work),
            tools=lambda _: tools,
            max_concurrent=slots,
            inbox_capacity=1,
            observers=[seen],
        ) as pool:

            @tool(timeout_seconds=math.inf)
            async def go(context: ToolContext) -> str:
                """Wait."""
                try:
                    await way(pool, context)
                except* AgentGoneError:
                    pass
                return "went on"

            tools = ToolRegistry([*TEAM_TOOLS, go])
            await pool.spawn(config("way"))
            if beside:
                await pool.spawn(config("work"))
            await trio.sleep(60)
            # At the moment at which it closed, and not when the other one had its day.
            ended = [one.outcome.text for one in of_type(seen.events, AgentFinished)]
            pool.abort_all("the end")
    circles = [text for text in ended if "which" in text]
    assert circles, ended
    assert all("1 (worker)" in text for text in circles), circles


async def at_work(request: CompletionRequest, _: OnDelta) -> Completion | str:
    """Do what the query says; ``work`` takes an hour."""
    if query_of(request) == "work":
        await trio.sleep(3600)
    return obedient(request)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
def test_a_circle_through_any_wait_is_named(way: Way, *, beside: bool) -> None:
    """Through ``race``, ``supervise`` and ``map`` it was a wait that "ends by itself"."""
    explore(partial(_circle, way, beside=beside, slots=2), schedules=4)


# --- nobody can go on: the owner waits, in every way there is


async def _fill(pool: AgentPool) -> object:
    handle = await pool.spawn(config("ask 0"))
    while True:
        await handle.send("more")


async def _broadcast(pool: AgentPool) -> object:
    await pool.spawn(config("ask 0"))
    while True:
        await pool.broadcast("more")
        if not pool.active_count:
            return None


async def _each(pool: AgentPool) -> object:
    await pool.spawn(config("wait"))
    return [outcome async for outcome in pool.as_completed()]


async def _map(pool: AgentPool, *, ordered: bool) -> object:
    async with pool.map(TEAM, ["wait"] * 3, ordered=ordered) as outcomes:
        return [outcome async for outcome in outcomes]


async def _spawned(pool: AgentPool, then: Callable[[AgentPool], Awaitable[object]]) -> object:
    await pool.fan_out([config("wait"), config("wait")])
    return await then(pool)


async def _leave(_: AgentPool) -> None:
    await trio.lowlevel.checkpoint()


OWNER_WAYS: dict[str, Callable[[AgentPool], Awaitable[object]]] = {
    "leave": partial(_spawned, then=_leave),
    "join_all": partial(_spawned, then=lambda pool: pool.join_all()),
    "join_next": partial(_spawned, then=lambda pool: pool.join_next()),
    "as_completed": _each,
    "wait": partial(_spawned, then=lambda pool: pool[1].wait()),
    "receive_many": partial(_spawned, then=lambda pool: pool.receive_many()),
    "ask": partial(_spawned, then=lambda pool: pool[1].ask("?")),
    "send": _fill,
    "broadcast": _broadcast,
    "map": partial(_map, ordered=False),
    "ordered map": partial(_map, ordered=True),
    "race": lambda pool: pool.race([config("wait"), config("wait")]),
    "supervise": lambda pool: pool.supervise([config("wait"), config("wait")]),
    "spawn": lambda pool: pool.fan_out([config("wait")] * 4),
}
"""Every call in which an owner can wait."""


async def _standstill(way: str, *, slots: int) -> None:
    with trio.fail_after(100):
        async with open_pool(
            FunctionDriver(obedient),
            tools=ToolRegistry(TEAM_TOOLS),
            max_concurrent=slots,
            max_queued=1,
            inbox_capacity=1,
        ) as pool:
            # The owner is told itself when no agent is left that could be told.
            with suppress(AgentGoneError, DeadlockError):
                await OWNER_WAYS[way](pool)
    assert trio.current_time() < 1


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("way", OWNER_WAYS)
def test_an_owner_who_waits_where_nobody_can_go_on(way: str, slots: int) -> None:
    """The docs say "the owner included"; five of these hung for ever."""
    explore(partial(_standstill, way, slots=slots), schedules=4)


async def test_an_owner_who_waits_for_a_message_of_nobody_is_told() -> None:
    """The last agent has ended, and no one is left who could write."""
    async with open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        handle = await pool.spawn(config("say x"))
        with pytest.raises(DeadlockError, match="the owner waits for a message") as caught:
            await pool.receive_many()
        assert caught.value.agent_ids == (0,)
        assert handle.status is AgentStatus.COMPLETED
        # It goes on, and so does its pool.
        assert (await (await pool.spawn(config("say y"))).wait()).text == "y"


async def test_an_owner_and_an_agent_who_wait_for_each_others_message() -> None:
    """The agent is told first: it can still report to the owner."""

    def answer(request: CompletionRequest) -> Completion | str:
        match len(results_of(request)):
            case 0:
                return calling(tool_call("wait_for_message"))
            case 1:
                told = results_of(request)[0].content
                return calling(tool_call("send_message", to=0, content=told))
            case _:
                return "reported"

    async with open_pool(FunctionDriver(answer), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        await pool.spawn(config("listen"))
        (report,) = await pool.receive_many()
    assert "waits for a message" in report.content


async def test_an_owner_with_a_task_of_its_own_is_no_deadlock(autojump_clock: MockClock) -> None:
    """That task may spawn or send at any time."""
    async with open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool:

        async def later() -> None:
            await trio.sleep(10)
            await pool.spawn(config("say x"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            with pytest.raises(DeadlockError):
                await pool.receive_many()
    assert trio.current_time() == 10


async def test_an_owner_who_waits_beside_an_open_map_is_no_deadlock(
    autojump_clock: MockClock,
) -> None:
    """Its source may bring the agent that writes."""

    async def queries() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
        await trio.sleep(10)
        yield "report"

    def report(request: CompletionRequest) -> Completion | str:
        if results_of(request):
            return "reported"
        return calling(tool_call("send_message", to=0, content="hello"))

    async with (
        open_pool(FunctionDriver(report), tools=ToolRegistry(TEAM_TOOLS)) as pool,
        pool.map(TEAM, queries()),
    ):
        (letter,) = await pool.receive_many()
    assert letter.content == "hello"


async def test_a_map_that_waits_for_its_source_is_no_deadlock(autojump_clock: MockClock) -> None:
    """All of its agents wait, and the next one may be the one that they wait for."""

    async def queries() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
        yield "wait"
        await trio.sleep(10)
        yield "tell 1"

    def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "tell 1" and not results_of(request):
            return calling(tool_call("send_message", to=1, content="hello"))
        return obedient(request)

    async with (
        open_pool(FunctionDriver(answer), tools=ToolRegistry(TEAM_TOOLS)) as pool,
        pool.map(TEAM, queries(), ordered=True) as outcomes,
    ):
        first = await anext(outcomes)
    assert "hello" in first.text
    assert trio.current_time() == 10


def test_a_map_whose_source_ends_while_all_of_its_agents_wait_is_a_deadlock() -> None:
    """Until then the next query could have been an agent that writes."""

    async def queries() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
        yield "wait"
        await trio.sleep(10)

    async def scenario() -> None:
        async with (
            open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool,
            pool.map(TEAM, queries()) as outcomes,
        ):
            first = await anext(outcomes)
        assert "DeadlockError" in first.text
        assert trio.current_time() == 10

    simulate(scenario)


async def _map_with_retries() -> None:
    """Let one agent of a map ask its reader, while another one fails and is asked again."""
    asked_at = math.nan

    async def answer(request: CompletionRequest) -> Completion | str:
        nonlocal asked_at
        if not results_of(request):
            await trio.sleep(1)
        if query_of(request) == "fail":
            raise ValueError("not today")
        if not results_of(request):
            asked_at = trio.current_time()
        return obedient(request)

    async with (
        open_pool(FunctionDriver(answer), tools=ToolRegistry(TEAM_TOOLS)) as pool,
        pool.map(TEAM, ["ask 0", "fail"], ordered=True, retries=1) as outcomes,
    ):
        first = await anext(outcomes)
        assert "DeadlockError" in first.text
        # Not at 1: the clock may be late, and wakes a model that sleeps as late.
        assert trio.current_time() == asked_at


def test_a_reader_that_was_woken_for_nothing_is_looked_at_again() -> None:
    """A circle through it is named at once, and not when the query is asked again."""
    explore(_map_with_retries, schedules=60)


# --- What it costs


async def _ring(
    count: int, order: Callable[[int], float], limit: float, told: list[tuple[float, str]]
) -> None:
    """Let *count* agents ask each other in a circle, one after the other in some order."""
    asked_at = 0.0

    @tool(timeout_seconds=math.inf)
    async def go(context: ToolContext, to: int) -> str:
        """Ask, when all have come as far as this."""
        nonlocal asked_at
        await trio.sleep(order(context.agent_id))
        asked_at = time.thread_time()
        try:
            with trio.move_on_after(limit):
                await context.agent.ask(to, "?")
        except DeadlockError as error:
            told.append((time.thread_time() - asked_at, str(error)))
        except AgentGoneError:
            pass
        return "went on"

    def answer(request: CompletionRequest) -> Completion | str:
        if results_of(request):
            return results_of(request)[0].content
        return calling(tool_call("go", to=int(query_of(request))))

    async with open_pool(
        FunctionDriver(answer), tools=ToolRegistry([go]), max_concurrent=count
    ) as pool:
        await pool.fan_out([config(str(n % count + 1)) for n in range(1, count + 1)])
        outcomes = await pool.join_all()
    assert all(one.text == "went on" for one in outcomes.values())


def ring(
    count: int, order: Callable[[int], float], limit: float = math.inf
) -> list[tuple[float, str]]:
    """Let a ring live; return what was told, and how soon in seconds of this thread."""
    told: list[tuple[float, str]] = []
    trio.run(_ring, count, order, limit, told, clock=MockClock(autojump_threshold=0))
    return told


ORDERS: dict[str, Callable[[int], float]] = {
    "ascending": lambda agent_id: agent_id,
    "descending": lambda agent_id: 100_000 - agent_id,
    "scattered": lambda agent_id: agent_id * 7919 % 100_003,
    "at once": lambda _: 1,
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_circle_is_named_at_once(order: str) -> None:
    """400 agents took 17 seconds, 1,000 over six minutes."""
    ((seconds, circle),) = ring(1000, ORDERS[order])
    assert circle.count("which asks") == 999
    # It takes less than 0.1 s; the rest is for a machine that is slow.
    assert seconds < 10


def looks(function: Callable[[], object]) -> int:
    """Return how much the watch for deadlocks does while *function* runs."""
    return lines_run(function, "_pool/deadlock.py", "_scheduling/waits.py")


async def _pairs(count: int) -> None:
    async with open_pool(
        FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS), max_concurrent=count
    ) as pool:
        await pool.fan_out([config(f"ask {((n - 1) ^ 1) + 1}") for n in range(1, count + 1)])
        await pool.join_all()


@pytest.mark.parametrize("order", ORDERS)
def test_a_circle_costs_what_its_size_does(order: str) -> None:
    """It was the cube: n passes over n waits, n times. Where all ask at once, trio throws dice."""
    small, large = (
        sum(
            looks(partial(ring, count, ORDERS[order]))
            for _ in range(40 if order == "at once" else 1)
        )
        for count in (40, 80)
    )
    assert large <= 2.5 * small


def test_questions_with_deadlines_cost_what_they_are() -> None:
    """None of them is for ever, so nobody needs to look."""
    assert not ring(2000, ORDERS["descending"], 10**6)
    costs = [looks(partial(ring, n, ORDERS["descending"], 10**6)) for n in (5, 40, 80)]
    assert costs[2] <= 2.5 * costs[1]


def test_circles_of_two_cost_what_they_are() -> None:
    """Each one that closed had every agent of the pool looked at."""
    costs = [looks(partial(trio.run, _pairs, count)) for count in (4, 40, 80)]
    assert costs[2] <= 2.5 * costs[1]


# --- Which of several tasks is watched is nobody's choice


class _Steps(trio.abc.Instrument):
    """Writes down the name of every task that takes a step."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Write it down."""
        self.names.append(task.name)


def _steps_of_a_run() -> list[str]:
    """Return the steps of a run in which an agent works in many tasks beside a wait."""
    steps = _Steps()

    @tool(timeout_seconds=math.inf)
    async def go(context: ToolContext) -> str:
        """Ask, beside tasks that work for different times."""
        told = "went on"
        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(trio.sleep, number, name=f"worker {number}")
            await trio.lowlevel.checkpoint()
            try:
                await context.agent.ask(2, "?")
            except DeadlockError as error:
                told = str(error)
        return told

    async def scenario() -> None:
        trio.lowlevel.add_instrument(steps)
        tools = ToolRegistry([*TEAM_TOOLS, go])
        async with open_pool(FunctionDriver(obedient), tools=tools) as pool:
            await pool.fan_out([config("way"), config("ask 1")])
            outcomes = await pool.join_all()
        trio.lowlevel.remove_instrument(steps)
        assert any("which asks" in outcome.text for outcome in outcomes.values())

    simulate(scenario)
    return steps.names


def test_the_same_seed_is_the_same_run_whatever_the_addresses() -> None:
    """The first task of a set was watched, and a set has the order of its addresses."""
    kept: list[object] = []
    runs: list[list[str]] = []
    for number in range(12):
        runs.append(_steps_of_a_run())
        kept += [bytearray(100 + number * n) for n in range(number)]
    assert all(run == runs[0] for run in runs)
