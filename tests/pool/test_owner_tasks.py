"""Several tasks on the owner's side of a pool that wait at once, in a pool that stands still."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock

from agentpool import (
    AgentGoneError,
    AgentPool,
    Capability,
    CapabilityKind,
    DeadlockError,
    SpawnConfig,
    UsageError,
    as_bystander,
    open_pool,
)
from agentpool.abc import OnDelta
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.observe import AgentFinished, Event, Observer
from agentpool.testing import cancel_everywhere, explore, simulate
from agentpool.tools import TEAM_TOOLS, ToolContext, ToolRegistry, tool
from tests.support.fakes import LiveDriver, calling, manifest, query_of, results_of, tool_call
from tests.support.growth import lines_run

TEAM = manifest(capabilities=(Capability(CapabilityKind.MESSAGE), Capability.spawn(2)))
TOOLS = ToolRegistry(TEAM_TOOLS)


def obedient(request: CompletionRequest) -> Completion | str:
    """Do what the query says (``ask 1``, ``wait``, ``tell 1``), then tell what came of it."""
    results = results_of(request)
    if results:
        return "; ".join(result.content for result in results)
    verb, _, rest = query_of(request).partition(" ")
    match verb:
        case "ask":
            return calling(tool_call("ask_agent", to=int(rest), question="?"))
        case "tell":
            return calling(tool_call("send_message", to=int(rest), content="hello"))
        case "wait":
            return calling(tool_call("wait_for_message"))
        case _:
            return rest


def config(query: str) -> SpawnConfig:
    """Return an agent of the team."""
    return SpawnConfig(TEAM, query)


Act = Callable[[AgentPool], Awaitable[object]]


async def _fill(pool: AgentPool) -> None:
    while True:
        await pool[1].send("more")


async def _broadcast(pool: AgentPool) -> None:
    while pool.active_count:
        await pool.broadcast("more")


async def _messages(pool: AgentPool) -> None:
    while True:
        await pool.receive_many()


async def _map(pool: AgentPool, *, ordered: bool) -> None:
    async with pool.map(TEAM, ["wait"] * 3, ordered=ordered) as outcomes:
        async for _ in outcomes:
            pass


async def _fed_map(pool: AgentPool) -> None:
    async def source() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
        yield "wait"
        for message in await pool.receive_many():  # pragma: no cover  # none is sent
            yield message.content

    async with pool.map(TEAM, source()) as outcomes:
        async for _ in outcomes:
            pass


async def _each(pool: AgentPool) -> None:
    async for _ in pool.as_completed():
        pass


async def _stream(pool: AgentPool) -> None:
    with pool[1].stream() as pieces:
        async for _ in pieces:
            pass


ACTS: dict[str, Act] = {
    "join_all": lambda pool: pool.join_all(),
    "join_next": lambda pool: pool.join_next(),
    "as_completed": _each,
    "wait": lambda pool: pool[1].wait(),
    "stream": _stream,
    "receive_many": _messages,
    "ask": lambda pool: pool[1].ask("?"),
    "send": _fill,
    "broadcast": _broadcast,
    "map": partial(_map, ordered=False),
    "ordered map": partial(_map, ordered=True),
    "map fed by messages": _fed_map,
    "race": lambda pool: pool.race([config("wait"), config("wait")]),
    "supervise": lambda pool: pool.supervise([config("wait"), config("wait")]),
}
"""Every call of a pool in which a task that is no agent can wait for its agents."""


async def _politely(act: Act, pool: AgentPool) -> None:
    with suppress(AgentGoneError, DeadlockError):
        await act(pool)


async def _together(acts: tuple[str, ...], *, is_outside: bool) -> None:
    """Wait in several tasks, in a nursery inside of the pool's block or around it."""
    async with (
        trio.open_nursery() as around,
        open_pool(FunctionDriver(obedient), tools=TOOLS, inbox_capacity=1) as pool,
        trio.open_nursery() as within,
    ):
        await pool.fan_out([config("wait"), config("ask 0")])
        for act in acts:
            (around if is_outside else within).start_soon(_politely, ACTS[act], pool)
    assert trio.current_time() < 1


@pytest.mark.parametrize("is_outside", [False, True], ids=["inside", "outside"])
@pytest.mark.parametrize("act", ACTS)
def test_two_tasks_of_an_owner_who_wait_at_once_are_told(act: str, *, is_outside: bool) -> None:
    """One task was looked at; beside another one that waited as well, all hung for ever."""
    for other in tuple(ACTS)[tuple(ACTS).index(act) :]:
        simulate(partial(_together, (act, other), is_outside=is_outside))


def test_many_tasks_of_an_owner_who_wait_at_once_are_told_in_any_order() -> None:
    """Whoever is told last may be the first that began to wait."""
    for is_outside in (False, True):
        explore(partial(_together, tuple(ACTS), is_outside=is_outside), schedules=6)


async def _read_beside_a_join(told: list[str]) -> None:
    async def reports() -> None:
        try:
            while True:
                await pool.receive_many()
        except DeadlockError as error:
            told.append(str(error))

    async with (
        open_pool(FunctionDriver(obedient), tools=TOOLS) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(reports)
        await pool.fan_out([config("say x"), config("tell 0")])
        await pool.join_all()


def test_a_reader_beside_a_join_learns_that_no_agent_is_left() -> None:
    """It is the usual shape of a program that hears reports, and it hung for ever."""
    told: list[str] = []
    simulate(partial(_read_beside_a_join, told))
    assert told == ["the owner waits for a message, and no running agent can unblock it"]
    explore(partial(_read_beside_a_join, told), schedules=20)
    cancel_everywhere(partial(_read_beside_a_join, told))


def test_a_source_that_waits_for_a_message_nobody_can_send_ends_its_map() -> None:
    """The source is told, and not whoever reads the map."""
    told: list[DeadlockError] = []

    async def scenario() -> None:
        async with open_pool(FunctionDriver(obedient), tools=TOOLS) as pool:

            async def source() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
                yield "say x"
                try:
                    await pool.receive_many()
                except DeadlockError as error:
                    told.append(error)
                yield "say y"

            async with pool.map(TEAM, source()) as outcomes:
                assert sorted([outcome.text async for outcome in outcomes]) == ["x", "y"]

    simulate(scenario)
    assert [error.agent_ids for error in told] == [(0,)]


async def _map_of_an_agent(told: list[str], *, asks: bool) -> None:
    """Let agent 1 read a map whose source waits for agent 2, which works or asks agent 1."""
    pool: AgentPool

    @tool(timeout_seconds=math.inf)
    async def go() -> str:
        """Read a map."""
        other = await pool.spawn(config("ask 1" if asks else "work"))

        async def source() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
            await other.wait()
            yield "say x"

        async with pool.map(TEAM, source()) as outcomes:
            return "; ".join([outcome.text async for outcome in outcomes])

    async def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "work":
            await trio.sleep(3600)
        if query_of(request) == "go" and not results_of(request):
            return calling(tool_call("go"))
        return obedient(request)

    tools = ToolRegistry([*TEAM_TOOLS, go])
    async with open_pool(FunctionDriver(answer), tools=tools, max_concurrent=2) as pool:
        await pool.spawn(config("go"))
        told.append((await pool[1].wait()).text)


def test_an_agent_whose_map_waits_for_another_agent_is_in_its_circle() -> None:
    """The source of its map waits in its stead."""
    told: list[str] = []
    explore(partial(_map_of_an_agent, told, asks=False), schedules=4)
    assert set(told) == {"x"}
    told.clear()
    explore(partial(_map_of_an_agent, told, asks=True), schedules=4)
    assert "1 (worker) joins 2 (worker), which asks 1 (worker)" in told[0], told


async def test_the_source_of_an_agents_map_acts_for_that_agent() -> None:
    """It is a task of the pool, and was the owner's: so a tool could write as the owner."""
    pool: AgentPool

    @tool(timeout_seconds=math.inf)
    async def go() -> str:
        """Read a map."""
        other = await pool.spawn(config("wait"))

        async def source() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
            sent = await other.send("?")
            yield f"say from {sent.sender}"

        async with pool.map(TEAM, source()) as outcomes:
            return "; ".join([outcome.text async for outcome in outcomes])

    async def answer(request: CompletionRequest) -> Completion | str:
        await trio.lowlevel.checkpoint()
        if query_of(request) == "go" and not results_of(request):
            return calling(tool_call("go"))
        return obedient(request)

    tools = ToolRegistry([*TEAM_TOOLS, go])
    async with open_pool(FunctionDriver(answer), tools=tools, max_concurrent=2) as pool:
        await pool.spawn(config("go"))
        assert (await pool[1].wait()).text == "from 1"


async def _with_a_reader_of_events(agents: tuple[str, ...]) -> None:
    async def read() -> None:
        async for _ in pool.events():
            pass

    async with (
        trio.open_nursery() as around,
        open_pool(FunctionDriver(obedient), tools=TOOLS) as pool,
    ):
        around.start_soon(read)
        await trio.lowlevel.checkpoint()
        await pool.fan_out([config(query) for query in agents])
        await pool.join_all()


@pytest.mark.parametrize("agents", [("wait", "wait"), ("ask 0",), ("wait", "ask 1")])
def test_who_reads_events_hides_no_deadlock(agents: tuple[str, ...]) -> None:
    """It acts on what it reads, and nothing happens any more that it could read."""
    explore(partial(_with_a_reader_of_events, agents), schedules=4)


async def test_who_reads_events_alone_is_told_of_nothing(autojump_clock: MockClock) -> None:
    """It may be all that this program does while others, unknown to the pool, prepare work."""
    async with open_pool(FunctionDriver(obedient), tools=TOOLS) as pool:
        with trio.move_on_after(100), pool.events() as events:
            async for _ in events:  # pragma: no branch  # there is always one more to wait for
                pass
        assert trio.current_time() == 100

        async def end() -> None:
            async for _ in pool.events():  # pragma: no branch  # nothing happens
                break  # pragma: no cover  # nothing happens

        with trio.move_on_after(trio.current_time()):
            await end()


# --- no false alarm: somebody on the owner's side can still act


async def _late(pool: AgentPool, seconds: float = 10) -> None:
    await trio.sleep(seconds)
    with suppress(AgentGoneError):
        await pool[1].send("late news")


async def _late_after_a_use(pool: AgentPool) -> None:
    await pool.spawn(config("say y"))
    await _late(pool)


async def _late_of_a_task(pool: AgentPool) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_late, pool, 5)
        nursery.start_soon(_late, pool)


async def _late_of_a_server(pool: AgentPool) -> None:
    """Serve with a task for each request, the next one of which comes later."""
    async with trio.open_nursery() as handlers:
        handlers.start_soon(_politely, lambda pool: pool.spawn(config("say y")), pool)
        await trio.sleep(10)
        handlers.start_soon(_late, pool, 0)


async def _late_after_a_message(pool: AgentPool) -> None:
    """Wait for a message that comes, and write later."""
    await pool.spawn(config("tell 0"))
    await pool.receive_many()
    await _late(pool)


async def _late_of_a_thread(pool: AgentPool) -> None:
    await trio.to_thread.run_sync(lambda: trio.from_thread.run(pool.spawn, config("say y")))
    await _late(pool)


LATE: dict[str, Callable[[AgentPool], Awaitable[None]]] = {
    "after a use": _late_after_a_use,
    "of a task below": _late_of_a_task,
    "of the next handler": _late_of_a_server,
    "after a message": _late_after_a_message,
    "after a thread": _late_of_a_thread,
}


@pytest.mark.parametrize("is_outside", [False, True], ids=["inside", "outside"])
@pytest.mark.parametrize("late", LATE)
def test_a_task_that_can_still_act_is_no_deadlock(late: str, *, is_outside: bool) -> None:
    """A false alarm would end agents that only wait for their owner."""
    act = LATE[late]

    async def scenario() -> None:
        async with trio.open_nursery() as around:
            async with open_pool(FunctionDriver(obedient), tools=TOOLS) as pool:
                await pool.spawn(config("wait"))
                async with trio.open_nursery() as within:
                    if is_outside:
                        # A task outside is known as soon as it has used the pool.
                        around.start_soon(act, pool)  # noqa: ASYNC111  # the reader outlives the pool on purpose
                        await trio.sleep(1)
                    else:
                        within.start_soon(act, pool)
                    # One that waits as well, and takes no message from the other one.
                    beside = "wait" if late == "after a message" else "receive_many"
                    within.start_soon(_politely, ACTS[beside], pool)
                    outcome = await pool[1].wait()
                    within.cancel_scope.cancel()
                    assert "late news" in outcome.text, outcome.text
            assert 5 <= trio.current_time() < 11

    for seed in range(3):
        simulate(scenario, seed=seed)


async def _late_after_a_wait() -> None:
    """Wait outside of the pool for an agent that another task has spawned, and write later."""

    async def write(pool: AgentPool) -> None:
        await pool[2].wait()
        await _late(pool)

    async def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "say y":
            await trio.sleep(1)
        return obedient(request)

    async def own() -> None:
        async with open_pool(FunctionDriver(answer), tools=TOOLS) as pool:
            await pool.fan_out([config("wait"), config("say y")])
            around.start_soon(write, pool)
            assert "late news" in (await pool[1].wait()).text

    async with trio.open_nursery() as around:  # noqa: ASYNC112  # another task opens the pool
        # A nursery of the task that opened the pool would be on its side in any case.
        around.start_soon(own)
    assert trio.current_time() == 11


def test_a_task_outside_that_has_only_waited_can_still_act() -> None:
    """To wait is to use the pool, and who has used it may do so again."""
    explore(_late_after_a_wait, schedules=4, late_clock=False)


async def _works_on(seconds: int) -> None:
    """Work beside a pool that waits for it, and on after its end."""

    async def work(pool: AgentPool) -> None:
        await pool.spawn(config("say y"))
        await trio.sleep(5)
        pool[1].cancel()
        for _ in range(seconds):
            await trio.sleep(1)

    async with trio.open_nursery() as around:
        async with open_pool(FunctionDriver(obedient), tools=TOOLS) as pool:
            await pool.spawn(config("wait"))
            around.start_soon(work, pool)  # noqa: ASYNC111  # that it lasts longer is the case
            await pool[1].wait()
        assert trio.current_time() == 5


def test_a_pool_that_has_ended_looks_at_nobody() -> None:
    """It would cost every step of every task, as long as one works that it has looked at."""
    few, many = (
        lines_run(partial(simulate, _works_on, seconds), "_pool/deadlock.py")
        for seconds in (1, 1000)
    )
    assert few == many > 0


async def _left_with_the_owner() -> None:
    told: list[str] = []

    async def listen(context: ToolContext) -> None:
        try:
            await context.agent.receive_many()
        except (AgentGoneError, DeadlockError) as error:
            told.append(type(error).__name__)

    async with trio.open_nursery() as nursery:

        @tool(timeout_seconds=math.inf)
        async def leave(context: ToolContext) -> str:
            """Leave a task behind, and wait."""
            nursery.start_soon(listen, context)
            await trio.lowlevel.checkpoint()
            return "; ".join(one.content for one in await context.agent.receive_many())

        def answer(request: CompletionRequest) -> Completion | str:
            results = results_of(request)
            return results[0].content if results else calling(tool_call("leave"))

        async with open_pool(FunctionDriver(answer), tools=ToolRegistry([leave])) as pool:
            await pool.spawn(config("go"))
            outcomes = await pool.join_all()
    assert "DeadlockError" in outcomes[1].text
    assert told in (["AgentGoneError"], ["DeadlockError"])


def test_a_task_that_an_agent_left_with_the_owner_waits_like_the_owner() -> None:
    """It has no slot, it is no part of its agent, and it cannot act while it waits."""
    explore(_left_with_the_owner, schedules=4)


async def _sleeps() -> None:
    await trio.sleep_forever()


async def _waits_beside(task: Callable[[], Awaitable[None]]) -> None:
    """Let an agent wait for a message beside *task*, which looks on."""
    async with trio.open_nursery() as nursery:
        with as_bystander():
            nursery.start_soon(task)
        with trio.fail_after(60):
            async with open_pool(FunctionDriver(obedient), tools=TOOLS) as pool:
                outcome = await (await pool.spawn(config("wait"))).wait()
        assert "no running agent can unblock it" in outcome.text
        nursery.cancel_scope.cancel()


async def _sleeps_below() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_sleeps)
        nursery.start_soon(_sleeps)


@pytest.mark.parametrize("task", [_sleeps, _sleeps_below])
def test_a_bystander_hides_no_deadlock(task: Callable[[], Awaitable[None]]) -> None:
    """It, and whatever it starts, could still do anything but write to an agent."""

    async def scenario() -> None:
        await _waits_beside(task)

    explore(scenario, schedules=50)
    cancel_everywhere(scenario)


async def test_any_other_task_may_still_write(autojump_clock: MockClock) -> None:
    """Nothing is told while there is one, even if nothing will ever wake it."""
    with trio.move_on_after(60) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_sleeps)
            async with open_pool(FunctionDriver(obedient), tools=TOOLS) as pool:
                await (await pool.spawn(config("wait"))).wait()
    assert scope.cancelled_caught


async def test_a_bystander_that_writes_is_refused(autojump_clock: MockClock) -> None:
    """An agent may have been told that nothing could come. It may look, and end agents."""
    async with open_pool(FunctionDriver(obedient), tools=TOOLS) as pool:
        handle = await pool.spawn(config("wait"))
        with as_bystander():
            for act in (
                partial(pool.spawn, config("say x")),
                partial(handle.send, "hello"),
                partial(pool.broadcast, "hello"),
                pool.receive_many,
            ):
                with pytest.raises(UsageError, match="this task is a bystander but"):
                    await act()
            assert pool.statistics().spawned == 1
            handle.cancel("enough")
        await pool.spawn(config("say x"))


@attrs.define(eq=False)
class Replacer(Observer):
    """Spawns an agent, and writes to the first one, when the second was cancelled."""

    pool: AgentPool | None = None
    done: list[str] = attrs.field(factory=list)

    def on_event(self, event: Event) -> None:
        """Act."""
        if isinstance(event, AgentFinished) and event.agent_id == 2:
            assert self.pool is not None
            self.done.append(self.pool.spawn_nowait(config("say new")).name)
            self.done.append(self.pool[1].send_nowait("the second one is gone").content)


async def patient(request: CompletionRequest, _: OnDelta) -> Completion | str:
    """Hold the only slot for a minute when told so."""
    if query_of(request) == "say held":
        await trio.sleep(60)
    return obedient(request)


async def _cancelled_by_a_bystander() -> None:
    observer = Replacer()
    async with open_pool(
        LiveDriver(patient), tools=TOOLS, max_concurrent=1, observers=[observer]
    ) as pool:
        observer.pool = pool
        first, second = pool.fan_out_nowait([config("wait"), config("say x")])
        with as_bystander():
            second.cancel("enough")
            with pytest.raises(UsageError, match="this task is a bystander but"):
                first.send_nowait("hello")
        assert "the second one is gone" in str((await first.wait()).messages)
        assert (await pool[3].wait()).text == "new"
    assert observer.done == ["worker", "the second one is gone"]
    assert pool.statistics().observer_failures == 0


def test_an_observer_acts_for_the_pool_whoever_tells_it() -> None:
    """What it did was refused as the doing of the bystander whose cancel told it."""
    explore(_cancelled_by_a_bystander, schedules=20)


async def _deadlock_after_a_bystanders_cancel() -> None:
    observer, opened = Replacer(), trio.Event()

    async def cancels() -> None:
        await opened.wait()
        assert observer.pool is not None
        observer.pool[2].cancel("enough")

    async def owns() -> None:
        with trio.fail_after(300):
            async with open_pool(
                LiveDriver(patient), tools=TOOLS, max_concurrent=1, observers=[observer]
            ) as pool:
                observer.pool = pool
                pool.fan_out_nowait([config("say held"), config("say x")])
                opened.set()
                outcome = await (await pool.spawn(config("wait"))).wait()
        assert "no running agent can unblock it" in outcome.text
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_sleeps)
        nursery.start_soon(owns)
        with as_bystander():
            nursery.start_soon(cancels)


def test_an_observers_act_makes_no_bystander_a_task_of_the_owner() -> None:
    """Those beside it could then write too, and a deadlock would not be told any more."""
    explore(_deadlock_after_a_bystanders_cancel, schedules=10)


async def test_an_agent_that_reads_for_the_owner_gets_the_owners_messages() -> None:
    """A tool that has the pool may read what was sent to the owner."""
    heard: list[str] = []

    @tool
    async def read() -> str:
        """Read."""
        heard.extend([message.content for message in await pool.receive_many()])
        return "read"

    def answer(request: CompletionRequest) -> Completion | str:
        if results_of(request):
            return "done"
        if query_of(request) == "tell":
            return calling(tool_call("send_message", to=0, content="hello"))
        return calling(tool_call("read"))

    async with open_pool(
        FunctionDriver(answer), tools=ToolRegistry([*TEAM_TOOLS, read]), max_concurrent=1
    ) as pool:
        await pool.fan_out([config("tell"), config("read")])
        await pool.join_all()
    assert heard == ["hello"]
