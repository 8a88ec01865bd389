"""Agents that wait for each other, in a real pool on a clock that jumps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    AgentGoneError,
    AgentManifest,
    AgentOutcome,
    AgentPool,
    AgentStatus,
    Capability,
    CapabilityKind,
    DeadlockError,
    SpawnConfig,
    open_pool,
)
from agentpool._pool.deadlock import Workers
from agentpool._scheduling.slot import Slot, SlotKeeper
from agentpool.abc import Completion, CompletionRequest, OnDelta
from agentpool.drivers import FunctionDriver
from agentpool.testing import cancel_everywhere, explore, simulate
from agentpool.tools import TEAM_TOOLS, ToolContext, ToolRegistry, tool
from tests.support.fakes import LiveDriver, calling, manifest, query_of, results_of, tool_call

TEAM = (Capability(CapabilityKind.MESSAGE), Capability.spawn(2))


def member(*, run_seconds: float | None = None) -> AgentManifest:
    """Return the manifest of an agent that may write and have children."""
    return manifest(capabilities=TEAM, run_seconds=run_seconds)


def obedient(request: CompletionRequest) -> Completion | str:
    """Do what the query says (``ask 2``, ``wait``, ``say x``), then tell what came of it."""
    results = results_of(request)
    if results:
        return "; ".join(result.content for result in results)
    verb, _, rest = query_of(request).partition(" ")
    match verb:
        case "ask":
            asks = [tool_call("ask_agent", f"c{n}", to=int(n), question="?") for n in rest.split()]
            return calling(*asks)
        case "wait":
            return calling(tool_call("wait_for_message"))
        case _:
            return rest


async def test_g14_a_circle_of_questions_is_named_at_the_moment_it_closes(
    autojump_clock: MockClock,
) -> None:
    """Without this, three agents wait for ever, and so does whoever joins them."""
    async with open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        for target in (2, 3, 1):
            await pool.spawn(SpawnConfig(member(), f"ask {target}"))
        outcomes = await pool.join_all()
    assert trio.current_time() == pytest.approx(0, abs=1e-3)
    told = [outcome.text for outcome in outcomes.values()]
    circle = "1 (worker) asks 2 (worker), which asks 3 (worker), which asks 1 (worker)"
    # One of them is told of the circle and goes on; the others' partners then end.
    assert sum(circle in text for text in told) == 1
    assert sum("has ended" in text or "ended before" in text for text in told) == 2


async def test_g14_whoever_closes_a_circle_is_told_of_it(autojump_clock: MockClock) -> None:
    """And not the one with the lowest number: the other had a good reason to wait."""

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        if query_of(request) == "ask 1" and not results_of(request):
            await trio.sleep(1)
        return obedient(request)

    async with open_pool(LiveDriver(answer), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        await pool.fan_out([SpawnConfig(member(), f"ask {target}") for target in (2, 1)])
        first, second = (outcome.text for outcome in (await pool.join_all()).values())
    circle = "1 (worker) asks 2 (worker), which asks 1 (worker)"
    assert (circle in first, circle in second) == (False, True)


async def test_g14_circles_that_close_at_the_same_moment_are_all_named(
    autojump_clock: MockClock,
) -> None:
    """Whoever looked for the first one found both, told one, and nobody looked again."""
    async with open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        handles = await pool.fan_out(
            [SpawnConfig(member(), f"ask {target}") for target in (2, 1, 4, 3)]
        )
        await trio.sleep(1)
        told = [handle.outcome.text for handle in handles if handle.outcome]
    for circle in ("1 (worker) asks 2 (worker), which", "3 (worker) asks 4 (worker), which"):
        assert sum(circle in text for text in told) == 1


async def test_g14_a_quiet_pool_is_reported_when_the_owner_joins() -> None:
    """Everybody waits for a message that nobody can send any more."""
    async with open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        await pool.spawn(SpawnConfig(member(), "wait"))
        await pool.spawn(SpawnConfig(member(), "wait"))
        outcomes = await pool.join_all()
    for outcome in outcomes.values():
        assert "waits for a message" in outcome.text
        assert "no running agent can unblock" in outcome.text


async def test_g14_leaving_the_block_counts_as_waiting() -> None:
    """The owner that has left its block cannot send either."""
    async with open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        handle = await pool.spawn(SpawnConfig(member(), "wait"))
    assert handle.outcome is not None
    assert "unblock it" in handle.outcome.text


async def test_an_owner_who_can_still_send_is_no_deadlock(autojump_clock: MockClock) -> None:
    """A false alarm would end agents that only wait for their owner."""
    async with open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        handle = await pool.spawn(SpawnConfig(member(), "wait"))
        await trio.sleep(1000)
        await handle.send("at last")
        assert "at last" in (await handle.wait()).text


async def test_a_task_beside_the_owner_can_still_send(autojump_clock: MockClock) -> None:
    """The owner joins, but a task of its own has something to say later."""

    async def say_later() -> None:
        await trio.sleep(10)
        await handle.send("late news")

    async with open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        handle = await pool.spawn(SpawnConfig(member(), "wait"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say_later)
            outcomes = await pool.join_all()
    assert "late news" in outcomes[1].text


async def test_a_join_with_a_deadline_is_no_deadlock(autojump_clock: MockClock) -> None:
    """The owner will be back, and may send then."""
    async with open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        handle = await pool.spawn(SpawnConfig(member(), "wait"))
        with trio.move_on_after(5):
            await pool.join_all()
        assert handle.status is AgentStatus.PARKED
        await handle.send("hello")
        assert "hello" in (await handle.wait()).text


async def test_a_task_elsewhere_that_runs_its_agents_child_waits_once(
    autojump_clock: MockClock,
) -> None:
    """A wait that stayed in the books hid every later deadlock: somebody seemed to go on."""
    outcomes: list[AgentOutcome] = []
    is_done = trio.Event()

    @tool
    async def leave(context: ToolContext) -> str:
        """Leave a task in a nursery of the owner, where it waits like the owner."""

        async def run_child() -> None:
            outcomes.append(await context.agent.run_child("say hello"))
            is_done.set()

        around.start_soon(run_child)
        await is_done.wait()
        return "left"

    def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "leave" and not results_of(request):
            return calling(tool_call("leave"))
        return obedient(request)

    tools = ToolRegistry([*TEAM_TOOLS, leave])
    with trio.fail_after(60):
        async with (
            trio.open_nursery() as around,
            open_pool(FunctionDriver(answer), tools=tools) as pool,
        ):
            await pool.spawn(SpawnConfig(member(), "leave"))
            with trio.fail_after(50):
                await is_done.wait()
            (outcome,) = outcomes
            assert (outcome.text, outcome.agent_id) == ("hello", 2)
            waiting = await pool.spawn(SpawnConfig(member(), "wait"))
            await pool.join_all()
            assert waiting.outcome is not None
            assert "no running agent can unblock it" in waiting.outcome.text
    assert trio.current_time() < 1


async def test_an_agent_with_a_deadline_of_its_own_is_not_deadlocked(
    autojump_clock: MockClock,
) -> None:
    """It ends by itself, with a reason of its own."""
    async with open_pool(FunctionDriver(obedient), tools=ToolRegistry(TEAM_TOOLS)) as pool:
        handle = await pool.spawn(SpawnConfig(member(run_seconds=30), "wait"))
        outcome = await handle.wait()
    assert outcome.status is AgentStatus.STOPPED
    assert trio.current_time() == pytest.approx(30, abs=1e-3)


async def test_a_strand_that_works_keeps_the_agent_alive(autojump_clock: MockClock) -> None:
    """One tool waits for a message, the other one sends it to a third agent later."""

    @tool
    async def work_then_tell(context: ToolContext, to: int) -> str:
        """Work, then tell.

        Args:
            context: The call.
            to: Whom.
        """
        await trio.sleep(3)
        await context.agent.send(to, "done working")
        return "told"

    def answer(request: CompletionRequest) -> Completion | str:
        if results_of(request) or query_of(request) != "both":
            return obedient(request)
        return calling(tool_call("wait_for_message"), tool_call("work_then_tell", to=2))

    registry = ToolRegistry((*TEAM_TOOLS, work_then_tell))
    async with open_pool(FunctionDriver(answer), tools=registry) as pool:
        first = await pool.spawn(SpawnConfig(member(), "both"))
        second = await pool.spawn(SpawnConfig(member(), "wait"))
        assert "done working" in (await second.wait()).text
        outcome = await first.wait()
    # Once the work is done, nobody is left who could write to the first one.
    assert "unblock it" in outcome.text
    assert "told" in outcome.text


async def test_the_error_names_the_agents_as_data() -> None:
    """A caller can look them up, and need not read the text."""
    seen: list[DeadlockError] = []

    @tool
    async def ask_or_note(context: ToolContext, to: int) -> str:
        """Ask.

        Args:
            context: The call.
            to: Whom.
        """
        try:
            return (await context.agent.ask(to, "?")).content
        except DeadlockError as error:
            seen.append(error)
            return "noted"

    def answer(request: CompletionRequest) -> Completion | str:
        if results_of(request):
            return "end"
        return calling(tool_call("ask_or_note", to=int(query_of(request))))

    quiet = manifest(capabilities=TEAM, tool_seconds=None)
    async with open_pool(FunctionDriver(answer), tools=ToolRegistry([ask_or_note])) as pool:
        await pool.fan_out(SpawnConfig(quiet, query) for query in ("2", "1"))
        await pool.join_all()
    (error,) = seen
    assert error.agent_ids == (1, 2)


async def test_g14_the_limit_of_a_tool_that_has_ended_is_no_guard(
    autojump_clock: MockClock,
) -> None:
    """A later tool may wait just as long of its own accord, and that is no deadlock."""

    @tool
    async def quick() -> None:
        """End at once."""
        await trio.lowlevel.checkpoint()

    @tool(timeout_seconds=1000)
    async def patient(context: ToolContext) -> str:
        """Wait for a message, for as long as the manifest allows other tools."""
        with trio.move_on_after(60):
            await context.agent.receive_many()
        return "nobody wrote"

    def answer(request: CompletionRequest) -> Completion | str:
        results = results_of(request)
        if len(results) == 2:
            return results[1].content
        return calling(tool_call("patient" if results else "quick", "c1"))

    registry = ToolRegistry([quick, patient])
    async with open_pool(FunctionDriver(answer), tools=registry) as pool:
        await pool.spawn(SpawnConfig(manifest(tool_seconds=60.0), "go"))
        (outcome,) = (await pool.join_all()).values()
    assert (outcome.text, trio.current_time()) == ("nobody wrote", 60.0)


# --- several tasks in one tool


async def hear(context: ToolContext) -> None:
    """Wait for a message."""
    await context.agent.receive_many()


async def work(_: ToolContext) -> None:
    """Be at work for three seconds."""
    await trio.sleep(3)


async def work_and_hear(context: ToolContext) -> None:
    """Be at work, and then wait for a message."""
    await work(context)
    await hear(context)


async def hear_in_time(context: ToolContext) -> None:
    """Wait three seconds for a message."""
    with trio.move_on_after(3):
        await hear(context)


async def work_deep_down(context: ToolContext) -> None:
    """Be at work in a task of a task."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear, context)
        nursery.start_soon(work, context)


Step = Callable[[ToolContext], Awaitable[None]]


async def together(body: Step | None, *steps: Step) -> tuple[str, float]:
    """Run one agent whose tool does this side by side; return what came of it, and when."""

    @tool
    async def several(context: ToolContext) -> str:
        """Do several things.

        Args:
            context: The call.
        """
        async with trio.open_nursery() as nursery:
            for step in steps:
                nursery.start_soon(step, context)
            if body is not None:
                await body(context)
        return "all done"

    def answer(request: CompletionRequest) -> Completion | str:
        results = results_of(request)
        return results[0].content if results else calling(tool_call("several"))

    with trio.fail_after(1000):
        async with open_pool(FunctionDriver(answer), tools=ToolRegistry([several])) as pool:
            await pool.spawn(SpawnConfig(manifest(tool_seconds=None), "several"))
            (outcome,) = (await pool.join_all()).values()
    return outcome.text, trio.current_time()


@pytest.mark.parametrize(
    ("steps", "body", "at"),
    [
        ((hear, hear), None, 0.0),
        ((hear,), hear, 0.0),
        ((hear, work), None, 3.0),
        ((hear,), work, 3.0),
        ((work,), hear, 3.0),
        ((hear, work_and_hear), None, 3.0),
        ((hear,), work_and_hear, 3.0),
        ((hear, work_deep_down), None, 3.0),
        ((hear, hear_in_time), None, 3.0),
        ((hear, work, work), work, 3.0),
    ],
)
def test_g14_a_tool_that_waits_in_several_tasks_is_told(
    steps: tuple[Step, ...], body: Step | None, at: float
) -> None:
    """When the last one at work is done, who is left waits for ever, and nobody looked."""
    text, told_at = simulate(partial(together, body, *steps))
    assert "no running agent can unblock it" in text
    assert told_at == pytest.approx(at)


def test_g14_the_last_one_at_work_may_end_in_any_order() -> None:
    """Who wakes first, and who is cancelled where, changes nothing."""
    explore(together, None, hear, work, hear_in_time, schedules=25)
    cancel_everywhere(together, None, hear, work, hear_in_time)


async def ask_each_other(*, replies: bool) -> tuple[list[str], float]:
    """Let 1 ask 2, which asks 1, where a second task takes the question and works on it."""

    @tool
    async def listen_and_ask(context: ToolContext) -> str:
        """Take a question, and ask one.

        Args:
            context: The call.
        """

        async def listen() -> None:
            (question,) = await context.agent.receive_many()
            await work(context)
            if replies:
                await context.agent.send(2, "well", reply_to=question.message_id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await wait_all_tasks_blocked()
            await context.agent.ask(2, "?")
        return "heard"

    def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "ask 1" or results_of(request):
            return obedient(request)
        return calling(tool_call("listen_and_ask"))

    registry = ToolRegistry((*TEAM_TOOLS, listen_and_ask))
    patient = manifest(capabilities=TEAM, tool_seconds=None)
    async with open_pool(FunctionDriver(answer), tools=registry) as pool:
        first = await pool.spawn(SpawnConfig(patient, "both"))
        await wait_all_tasks_blocked()
        second = await pool.spawn(SpawnConfig(patient, "ask 1"))
        # An owner that only waits would be a reason to look, and there is none.
        await trio.sleep(100)
        ended = [handle.outcome for handle in (first, second)]
    return [outcome.text for outcome in ended if outcome], trio.current_time()


async def hear_and_ask() -> list[str]:
    """Let 1 hear what comes and, beside that, ask 2, which has asked it; return who was told."""
    told: list[str] = []

    @tool
    async def hear_and_ask_2(context: ToolContext) -> str:
        """Listen all the time, and ask as well.

        Args:
            context: The call.
        """
        has_heard = trio.Event()

        async def listen() -> None:
            try:
                while True:
                    await context.agent.receive_many()
                    has_heard.set()
            except DeadlockError:
                told.append("listens")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await has_heard.wait()
            await wait_all_tasks_blocked()
            try:
                await context.agent.ask(2, "?")
            except DeadlockError:
                told.append("asks")
            nursery.cancel_scope.cancel()
        return "enough"

    def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "ask 1" or results_of(request):
            return obedient(request)
        return calling(tool_call("hear_and_ask_2"))

    registry = ToolRegistry((*TEAM_TOOLS, hear_and_ask_2))
    patient = manifest(capabilities=TEAM, tool_seconds=None)
    async with open_pool(FunctionDriver(answer), tools=registry) as pool:
        await pool.fan_out([SpawnConfig(patient, "both"), SpawnConfig(patient, "ask 1")])
        await pool.join_all()
    return told


def test_g14_of_several_waits_the_one_for_the_other_is_told() -> None:
    """Who only listens has asked for nothing, and could not say who is in the circle."""
    assert simulate(hear_and_ask) == ["asks"]


def test_g14_who_woke_beside_one_that_waits_is_watched_to_its_end() -> None:
    """It was waiting when the circle closed, so nobody had a reason to look later."""
    texts, _ = simulate(partial(ask_each_other, replies=False))
    circle = "1 (worker) asks 2 (worker), which asks 1 (worker)"
    assert sum(circle in text for text in texts) == 1


def test_who_works_beside_one_that_waits_may_end_the_circle() -> None:
    """A question that is being worked on is not a deadlock."""
    texts, _ = simulate(partial(ask_each_other, replies=True))
    assert not any("can unblock" in text or "which asks" in text for text in texts)
    assert "well" in texts[1]


async def test_nobody_watches_longer_than_somebody_works(autojump_clock: MockClock) -> None:
    """What watches is called at every step of every task, so it must not stay."""
    stopped: list[int] = []
    workers = Workers(stopped.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1, name="one")
        nursery.start_soon(trio.sleep, 2, name="two")
        for agent_id, task in enumerate(nursery.child_tasks):
            slot = Slot(cast("SlotKeeper", None), agent_id, trio.CancelScope())
            workers.watch(task, agent_id, (slot,))
    assert sorted(stopped) == [0, 1]
    with pytest.raises(KeyError):
        trio.lowlevel.remove_instrument(workers)


# --- a pool in an agent of another


async def inside(act: Callable[[AgentPool, AgentPool], Awaitable[str]]) -> tuple[str, float]:
    """Run a pool of two in agent 1 of another, beside an agent 2 that works for ten seconds.

    Agent 1 of the inner pool does *act*, and agent 2 of it joins agent 1.
    """

    @tool
    async def do() -> str:
        """Do it."""
        return await act(outer, inner[0])

    @tool
    async def join() -> str:
        """Wait for agent 1."""
        return (await inner[0][1].wait()).text

    def answer(request: CompletionRequest) -> Completion | str:
        results = results_of(request)
        return results[0].content if results else calling(tool_call(query_of(request)))

    async def outer_answer(request: CompletionRequest) -> str:
        if query_of(request) == "work":
            await trio.sleep(10)
            await outer.router.send(0, "worked")
            return "worked"
        async with open_pool(FunctionDriver(answer), tools=ToolRegistry([do, join])) as pool:
            inner.append(pool)
            await pool.fan_out(SpawnConfig(quiet, query) for query in ("do", "join"))
            return (await pool.join_all())[2].text

    quiet = manifest(tool_seconds=None)
    inner: list[AgentPool] = []
    async with open_pool(FunctionDriver(outer_answer), inbox_capacity=1) as outer:
        await outer.fan_out(SpawnConfig(quiet, query) for query in ("open", "work"))
        outcomes = await outer.join_all()
    return outcomes[1].text, trio.current_time()


async def wait_for_two(outer: AgentPool, _: AgentPool) -> str:
    """Wait for agent 2 of the outer pool."""
    return (await outer[2].wait()).text


async def wait_for_oneself(outer: AgentPool, _: AgentPool) -> str:
    """Wait for the agent in which all of this happens."""
    return (await outer[1].wait()).text


async def join_next(outer: AgentPool, _: AgentPool) -> str:
    """Wait for any agent of the outer pool."""
    outcome = await outer.join_next()
    return "nobody" if outcome is None else outcome.text


async def receive(outer: AgentPool, _: AgentPool) -> str:
    """Wait for a message to the owner of the outer pool."""
    return (await outer.receive_many())[0].content


async def ask_two(outer: AgentPool, _: AgentPool) -> str:
    """Ask agent 2 of the outer pool, which will not answer."""
    with pytest.raises(AgentGoneError):
        await outer[2].ask("and?")
    return "worked"


async def fill_two(outer: AgentPool, _: AgentPool) -> str:
    """Wait for room in the inbox of agent 2 of the outer pool."""
    await outer[2].send("one")
    with pytest.raises(AgentGoneError):
        await outer[2].send("two")
    return "worked"


@pytest.mark.parametrize("act", [wait_for_two, receive, ask_two, fill_two])
def test_who_waits_for_another_pool_is_in_no_circle_of_its_own(
    act: Callable[[AgentPool, AgentPool], Awaitable[str]],
) -> None:
    """Agents of two pools have the same numbers, and a false alarm would end them."""
    assert simulate(inside, act) == ("worked", 10)


@pytest.mark.parametrize("act", [wait_for_oneself, join_next])
def test_g14_who_waits_for_the_agent_around_its_pool_is_told(
    act: Callable[[AgentPool, AgentPool], Awaitable[str]],
) -> None:
    """That one waits for the pool, and so for who waits: no watch sees both."""
    text, _ = simulate(inside, act)
    assert "itself" in text
