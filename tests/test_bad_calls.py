"""Wrong arguments of the calls of a live pool are refused, and nothing has happened then."""

# ruff: noqa: ANN401  # wrong types are what these tests pass

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import pytest
import trio

from agentpool import (
    AgentHandle,
    AgentManifest,
    AgentPool,
    AgentStatus,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.abc import AgentContext
from agentpool.drivers import FunctionDriver, ScriptedDriver, call
from agentpool.journal import open_journal
from agentpool.observe import TraceWriter, read_trace
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import job, manifest

WRONG: Any = 3.0


class _Number(IntEnum):
    ONE = 1


class _Word(StrEnum):
    HELLO = "hello"


def _slow_driver() -> FunctionDriver:
    async def answer(_: object) -> str:
        await trio.sleep(1)
        return "done"

    return FunctionDriver(answer)


def _in_a_tool(use: Callable[[Any], Awaitable[object]]) -> ToolRegistry:
    """Return the tool ``use_context``, which passes its agent's context to *use*."""

    @tool
    async def use_context(context: ToolContext) -> str:
        """Use it."""
        await use(context.agent)
        return "ok"

    return ToolRegistry([use_context])


_WRONG_NUMBERS: tuple[Any, ...] = ("1", True, 1.5, b"x", [], {}, object(), _Number.ONE)


@pytest.mark.parametrize("number", _WRONG_NUMBERS, ids=repr)
@pytest.mark.parametrize("way", ["handle", "handle_nowait", "router", "router_nowait"])
async def test_reply_to_is_the_number_of_a_message(
    way: str, number: Any, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Anything else would be in the journal and in the trace, and neither could be read then."""
    path, trace = tmp_path / "runs.db", tmp_path / "run.trace"
    async with (
        open_journal(path) as journal,
        TraceWriter(trace) as writer,
        open_pool(_slow_driver(), journal=journal, observers=[writer]) as pool,
    ):
        handle = await pool.spawn(SpawnConfig(manifest(), "wait", key="k"))
        send: Callable[[], Awaitable[object]] = {
            "handle": lambda: handle.send("hi", reply_to=number),
            "handle_nowait": lambda: _later(handle.send_nowait, "hi", reply_to=number),
            "router": lambda: pool.router.send(handle.agent_id, "hi", reply_to=number),
            "router_nowait": lambda: _later(
                pool.router.send_nowait, handle.agent_id, "hi", reply_to=number
            ),
        }[way]
        with pytest.raises(UsageError, match="reply_to must be an int or None, got a value of ty"):
            await send()
        assert pool.router.message_count == 0
        good = await handle.send("hi", reply_to=7)
        assert good.reply_to == 7
        assert (await handle.wait()).status is AgentStatus.COMPLETED
    assert read_trace(trace).problems == ()


async def _later(function: Callable[..., object], *args: object, **named: object) -> object:
    await trio.lowlevel.checkpoint()
    return function(*args, **named)


async def test_a_refused_message_of_a_tool_leaves_the_pool_as_it_was(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Another message that waits for room in the same inbox meanwhile arrives."""

    async def use(agent: AgentContext) -> None:
        wrong: Any = []
        with pytest.raises(UsageError, match="reply_to must be an int or None"):
            await agent.send(0, "wrong", reply_to=wrong)

    driver = ScriptedDriver([call("use_context"), "done"])
    async with open_pool(driver, tools=_in_a_tool(use), inbox_capacity=1) as pool:
        other = await pool.spawn(job())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_both, other)
            assert (await other.wait()).status is AgentStatus.COMPLETED


async def _send_both(handle: AgentHandle) -> None:
    handle.send_nowait("first")
    with trio.move_on_after(0.5), pytest.raises(UsageError):
        await handle.send("second", reply_to=WRONG)


async def test_a_text_of_a_subclass_is_sent_as_plain_text(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A member of a StrEnum is text, and a journal can only write plain text."""

    class Loud(str):
        __slots__ = ()

    async with (
        open_journal(tmp_path / "runs.db") as journal,
        open_pool(_slow_driver(), journal=journal) as pool,
    ):
        handle = await pool.spawn(
            SpawnConfig(manifest(), Loud("why"), name=Loud("me"), memory_scope=_Word.HELLO)
        )
        sent = [await handle.send(_Word.HELLO), handle.send_nowait(Loud("you"))]
        sent += await pool.broadcast(Loud("all"))
        assert [type(one.content) for one in sent] == [str] * 3
        assert [one.content for one in sent] == ["hello", "you", "all"]
        assert (await handle.wait()).status is AgentStatus.COMPLETED


@pytest.mark.parametrize("content", [3, None, b"x", [], AgentManifest()], ids=repr)
async def test_a_broadcast_is_text_even_if_nobody_hears_it(content: Any) -> None:
    """Whether the program is right must not depend on who is alive."""
    async with open_pool(ScriptedDriver(["x"])) as pool:
        with pytest.raises(UsageError, match="content must be a str, got"):
            await pool.broadcast(content)
        assert await pool.broadcast("hello") == ()


async def _map(pool: AgentPool, **terms: Any) -> None:
    async with pool.map(manifest(), ["a"], **terms):
        pass


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda pool: pool.join_all(children="no"), "children must be a bool, got"),
        (lambda pool: _map(pool, ordered="no"), "ordered must be a bool, got"),
        (lambda pool: _map(pool, group=3), "group must be a str, got"),
        (lambda pool: _map(pool, priority="high"), "priority must be an int, got"),
        (lambda pool: _map(pool, weight=True), "weight must be a whole number >= 1, got True"),
        (lambda pool: _map(pool, output_type="Review"), "output_type must be an attrs class"),
    ],
)
async def test_words_of_a_pool_are_checked_where_they_are_written(
    use: Callable[[AgentPool], Awaitable[object]], says: str
) -> None:
    """And not by an agent that starts later, or never."""
    async with open_pool(ScriptedDriver(["x"])) as pool:
        with pytest.raises(UsageError, match=says):
            await use(pool)
        assert pool.statistics().spawned == 0


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"weight": True}, "weight must be a whole number >= 1, got True"),
        ({"priority": False}, "priority must be an int, got"),
        ({"priority": 0.0}, "priority must be an int, got"),
        ({"outlives_parent": 0}, "outlives_parent must be a bool, got"),
    ],
)
def test_what_equals_a_default_must_be_of_its_type(terms: dict[str, Any], says: str) -> None:
    """In Python True is 1, and no reader means it so."""
    with pytest.raises(UsageError, match=says):
        SpawnConfig(manifest(), "?", **terms)
