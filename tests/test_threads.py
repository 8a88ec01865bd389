"""Calls from another thread are refused with what to write, and blocks are entered once."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from agentpool import (
    AgentHandle,
    AgentPool,
    AgentStatus,
    ModelConfig,
    UsageError,
    as_bystander,
    open_pool,
    open_session,
)
from agentpool.drivers import RequestGate, ScriptedDriver, call, open_driver
from agentpool.journal import open_journal
from agentpool.live import ApprovalDesk
from agentpool.memory import open_sqlite_memory
from agentpool.observe import TraceWriter
from agentpool.testing import lone_context
from agentpool.tools import ToolContext, ToolRegistry, open_mcp_servers, tool
from tests.support.fakes import hanging_driver, job, manifest

Use = Callable[[AgentPool, AgentHandle], object]


async def _in_a_worker(call: Callable[[], object]) -> None:
    await trio.to_thread.run_sync(call)


async def _in_a_plain_thread(call: Callable[[], object]) -> None:
    raised = list[BaseException]()

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: ASYNC103, BLE001  # raised below
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await trio.to_thread.run_sync(thread.join)
    if raised:
        raise raised[0]


CALLS: dict[str, Use] = {
    "pool.spawn_nowait": lambda pool, _: pool.spawn_nowait(job()),
    "pool.fan_out_nowait": lambda pool, _: pool.fan_out_nowait([job()]),
    "pool.abort_all": lambda pool, _: pool.abort_all(),
    "pool.close": lambda pool, _: pool.close(),
    "router.send_nowait": lambda pool, agent: pool.router.send_nowait(agent.agent_id, "hi"),
    "handle.send_nowait": lambda _, agent: agent.send_nowait("hi"),
    "handle.cancel": lambda _, agent: agent.cancel(),
    "handle.interrupt": lambda _, agent: agent.interrupt(),
    "handle.forget": lambda _, agent: agent.forget(),
    "handle.stream": lambda _, agent: agent.stream(),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_from_another_thread_says_how_to_call(name: str) -> None:
    """Trio is there, in its own thread: `trio.run(main)` would be wrong advice."""
    async with open_pool(hanging_driver()) as pool:
        handle = await pool.spawn(job())
        await trio.testing.wait_all_tasks_blocked()
        use: Any = CALLS[name]
        how = f"{name}() needs trio, and was called in another thread; there, write "
        with pytest.raises(UsageError) as caught:
            await _in_a_worker(lambda: use(pool, handle))
        assert str(caught.value) == f"{how}trio.from_thread.run_sync({name}, ...)"
        with pytest.raises(UsageError) as caught:
            await _in_a_plain_thread(lambda: use(pool, handle))
        assert str(caught.value) == (
            f"{how}trio.from_thread.run_sync({name}, ..., trio_token=token), with token = "
            "trio.lowlevel.current_trio_token(), taken in trio's thread"
        )
        assert (pool.statistics().spawned, pool.router.message_count) == (1, 0)
        assert handle.status is AgentStatus.RUNNING
        handle.cancel()
        assert (await handle.wait()).status is AgentStatus.CANCELLED


async def _in_another_run(use: Callable[[], object]) -> None:
    async def run() -> None:
        result = use()
        if isinstance(result, Awaitable):
            await result

    await trio.to_thread.run_sync(trio.run, run)


async def _all(reader: AsyncIterable[object]) -> None:
    async for _ in reader:
        pass


async def _map(pool: AgentPool) -> None:
    async with pool.map(manifest(), ["a"]):
        pass


def _resize(pool: AgentPool) -> None:
    pool.max_concurrent = 3


ASYNC_CALLS: dict[str, Use] = {
    "pool.spawn": lambda pool, _: pool.spawn(job()),
    "pool.fan_out": lambda pool, _: pool.fan_out([job()]),
    "pool.map": lambda pool, _: _map(pool),
    "pool.race": lambda pool, _: pool.race([job()]),
    "pool.supervise": lambda pool, _: pool.supervise([job()]),
    "pool.join_all": lambda pool, _: pool.join_all(),
    "pool.join_next": lambda pool, _: pool.join_next(),
    "pool.as_completed": lambda pool, _: _all(pool.as_completed()),
    "pool.receive_many": lambda pool, _: pool.receive_many(),
    "pool.broadcast": lambda pool, _: pool.broadcast("hi"),
    "pool.shutdown": lambda pool, _: pool.shutdown(grace_seconds=1),
    "router.send": lambda pool, agent: pool.router.send(agent.agent_id, "hi"),
    "router.ask": lambda pool, agent: pool.router.ask(agent.agent_id, "hi"),
    "handle.wait": lambda _, agent: agent.wait(),
    "handle.send": lambda _, agent: agent.send("hi"),
    "handle.ask": lambda _, agent: agent.ask("hi"),
    "pool.max_concurrent": lambda pool, _: _resize(pool),
}


@pytest.mark.parametrize("name", CALLS | ASYNC_CALLS)
async def test_a_call_from_another_run_of_trio_says_how_to_call(name: str) -> None:
    """Whoever has trio in a thread is in no callback, and trio would not let it block there."""
    async with open_pool(hanging_driver(), max_concurrent=2) as pool:
        handle = await pool.spawn(job())
        await trio.testing.wait_all_tasks_blocked()
        use: Any = (CALLS | ASYNC_CALLS)[name]
        says = r"in another thread, by a trio\.run of its own; there, write await trio\.to_thread"
        with pytest.raises(UsageError, match=says):
            await _in_another_run(lambda: use(pool, handle))
        assert (pool.statistics().spawned, pool.router.message_count) == (1, 0)
        assert (handle.status, pool.max_concurrent) == (AgentStatus.RUNNING, 2)
        pool.abort_all()


async def test_a_tool_that_runs_trio_again_is_told_how_to_call() -> None:
    """Its agent's context is there, but not its thread."""
    said = list[str]()

    @tool(in_thread=True)
    def delegate() -> str:
        """Let another agent do it."""

        async def run() -> None:
            await pool.spawn(job())

        try:
            trio.run(run)
        except UsageError as error:
            said.append(str(error))
        return "done"

    async with open_pool(
        ScriptedDriver([call("delegate"), "a"]), tools=ToolRegistry([delegate])
    ) as pool:
        assert (await (await pool.spawn(job())).wait()).text == "a"
        assert pool.statistics().spawned == 1
    assert "by a trio.run of its own" in said[0]


async def test_the_advice_for_another_run_works() -> None:
    """As it says, for both kinds of calls."""
    async with open_pool(ScriptedDriver(["a", "b"])) as pool:
        token = trio.lowlevel.current_trio_token()

        async def run() -> None:
            await trio.to_thread.run_sync(
                lambda: trio.from_thread.run(pool.spawn, job(), trio_token=token)
            )
            await trio.to_thread.run_sync(
                lambda: trio.from_thread.run_sync(pool.spawn_nowait, job(), trio_token=token)
            )

        await trio.to_thread.run_sync(trio.run, run)
        statuses = [one.status for one in (await pool.join_all()).values()]
    assert statuses == [AgentStatus.COMPLETED] * 2


async def test_the_advice_for_threads_works() -> None:
    """From a thread of trio and from another, beside an agent that is cancelled meanwhile."""
    async with open_pool(ScriptedDriver(["a", "b", "c"])) as pool:
        token = trio.lowlevel.current_trio_token()
        beside = await pool.spawn(job())
        beside.cancel()
        await _in_a_worker(lambda: trio.from_thread.run_sync(pool.spawn_nowait, job()))
        await _in_a_worker(lambda: trio.from_thread.run(pool.spawn, job()))
        await _in_a_plain_thread(
            lambda: trio.from_thread.run_sync(pool.spawn_nowait, job(), trio_token=token)
        )
        statuses = [one.status for one in (await pool.join_all()).values()]
    assert statuses == [AgentStatus.CANCELLED, *[AgentStatus.COMPLETED] * 3]


async def test_an_async_call_from_a_thread_is_told_to_be_async() -> None:
    """It goes by another function of trio's."""
    async with open_pool(ScriptedDriver(["a"])) as pool:

        def spawn() -> None:
            with pytest.raises(UsageError, match=r"trio.from_thread.run\(pool.spawn, ...\)$"):
                pool.spawn(job()).send(None)

        await _in_a_worker(spawn)


async def test_a_block_cannot_be_entered_in_a_thread() -> None:
    """A thread of trio has trio nearby; an async function brings the block there."""

    def enter() -> None:
        opening: Any = open_pool(ScriptedDriver(["a"]))
        says = r"call that with trio.from_thread.run\(function\)"
        with pytest.raises(UsageError, match=says):
            opening.__aenter__().send(None)

    await _in_a_worker(enter)


class _Spawner(trio.abc.Instrument):
    """Spawns before trio waits: in trio's thread, and in no task."""

    def __init__(self, pool: AgentPool) -> None:
        self.pool = pool
        self.said = list[str]()

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002  # as trio calls it
        try:
            self.pool.spawn_nowait(job())
        except UsageError as error:
            self.said.append(str(error))


async def test_a_callback_is_told_to_be_a_task() -> None:
    """No thread has to be crossed, so advice about threads would be wrong."""
    async with open_pool(ScriptedDriver(["a"])) as pool:
        spawner = _Spawner(pool)
        trio.lowlevel.add_instrument(spawner)
        await trio.sleep(0.001)
        trio.lowlevel.remove_instrument(spawner)
        assert pool.statistics().spawned == 0
    assert spawner.said[0] == (
        "pool.spawn_nowait() was called in a callback; call it in a task of trio"
    )


class _Ender(trio.abc.Instrument):
    """Ends agents before trio waits, as a signal's handler does: in no task."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.end = end

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002  # as trio calls it
        self.end()


@pytest.mark.parametrize("name", ["pool.abort_all", "handle.cancel"])
async def test_a_callback_ends_agents_for_the_owner(name: str) -> None:
    """A handler of a signal has no task."""
    async with open_pool(hanging_driver()) as pool:
        handle = await pool.spawn(job())
        ender = _Ender(lambda: cast("None", CALLS[name](pool, handle)))
        trio.lowlevel.add_instrument(ender)
        outcome = await handle.wait()
        trio.lowlevel.remove_instrument(ender)
    assert outcome.status is AgentStatus.CANCELLED
    assert "owner" in str(outcome.error)


Open = Callable[[Path, Any], AbstractAsyncContextManager[object]]

BLOCKS: dict[str, Open] = {
    "open_pool": lambda _, __: open_pool(ScriptedDriver(["x"])),
    "open_journal": lambda folder, _: open_journal(folder / "a.db"),
    "open_sqlite_memory": lambda folder, _: open_sqlite_memory(folder / "b.db"),
    "open_mcp_servers": lambda _, __: open_mcp_servers(),
    "open_session": lambda _, journal: open_session(journal, "anna", ScriptedDriver(["x"])),
    "open_driver": lambda _, __: open_driver(
        ModelConfig(remote_model="m", base_url="http://localhost:1")
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
async def test_a_block_is_entered_once(name: str, tmp_path: Path) -> None:
    """During the first time, and after it."""
    says = re.escape(
        f"this block of {name}() has already been entered; call {name}(...) again for each"
    )
    async with open_journal(tmp_path / "runs.db") as journal:
        block = BLOCKS[name](tmp_path, journal)
        async with block:
            with pytest.raises(UsageError, match=says):
                await _enter(block)
        with pytest.raises(UsageError, match=says):
            await _enter(block)


async def test_the_blocks_of_agents_and_gates_are_entered_once() -> None:
    """During the first time, and after it."""
    said = list[str]()

    async def twice(name: str, block: AbstractAsyncContextManager[object]) -> None:
        says = f"this block of {name}() has already been entered; call {name}(...) again for each"
        async with block:
            with pytest.raises(UsageError, match=re.escape(says)):
                await _enter(block)
        with pytest.raises(UsageError, match=re.escape(says)):
            await _enter(block)
        said.append(name)

    @tool
    async def go(context: ToolContext) -> str:
        """Go."""
        await twice("without_slot", context.agent.without_slot("a webhook"))
        return "gone"

    gate = RequestGate(max_in_flight=1)
    await twice("request", gate.request(tokens=1))
    await twice("without_slot", lone_context().agent.without_slot("a webhook"))
    assert (gate.statistics().in_flight, gate.statistics().answered) == (0, 1)
    async with open_pool(ScriptedDriver([call("go"), "end"]), tools=ToolRegistry([go])) as pool:
        assert (await (await pool.spawn(job())).wait()).text == "end"
    assert said == ["request", "without_slot", "without_slot"]


@pytest.mark.parametrize(
    ("name", "make"),
    [("as_bystander", as_bystander), ("tell", lambda: ApprovalDesk().tell(lambda: None))],
)
def test_a_block_without_a_wait_is_entered_once(
    name: str, make: Callable[[], AbstractContextManager[object]]
) -> None:
    """During the first time, and after it; what it began has ended."""
    block = make()
    with block, pytest.raises(UsageError, match="has already been entered"), block:
        pass
    with pytest.raises(UsageError, match=f"call {name}"), block:
        pass
    with make():
        pass


async def test_a_block_that_was_cancelled_while_it_opened_is_used_up(tmp_path: Path) -> None:
    """It is not known how far it came, and another one is a call away."""
    block = open_journal(tmp_path / "a.db")
    with trio.CancelScope() as scope:
        scope.cancel()
        await _enter(block)
    assert scope.cancelled_caught
    with pytest.raises(UsageError, match="has already been entered"):
        await _enter(block)
    async with open_journal(tmp_path / "a.db"):
        pass


async def _enter(block: AbstractAsyncContextManager[object]) -> None:
    async with block:
        pass


async def test_a_map_and_a_writer_are_entered_once(tmp_path: Path) -> None:
    """The second time would mix two runs in one place."""
    async with open_pool(ScriptedDriver(["x"])) as pool:
        block = pool.map(manifest(), ["a"])
        async with block as outcomes:
            async for _ in outcomes:
                pass
        with pytest.raises(
            UsageError, match=re.escape("this block of pool.map() has already been")
        ):
            await _enter(block)
    writer = TraceWriter(tmp_path / "run.trace")
    async with writer:
        with pytest.raises(UsageError, match="this TraceWriter has already been entered"):
            await _enter(writer)
    with pytest.raises(UsageError, match="this TraceWriter has already been entered"):
        await _enter(writer)
