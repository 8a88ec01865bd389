"""Wrong arguments of the calls of a live pool are refused, and nothing has happened then."""

# ruff: noqa: ANN401  # wrong types are what these tests pass

from __future__ import annotations

import gc
import re
import weakref
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
    Capability,
    PoolPlan,
    Session,
    SpawnConfig,
    UnknownAgentError,
    UsageError,
    UserMessage,
    open_drivers,
    open_pool,
    open_session,
    session_pool_name,
)
from agentpool._checks import MOST_KNOWN
from agentpool.abc import AgentContext, CompletionRequest, Journal
from agentpool.cluster import open_cluster
from agentpool.drivers import FunctionDriver, ScriptedDriver, call
from agentpool.journal import open_journal
from agentpool.live import Board
from agentpool.observe import TraceWriter, read_trace
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import LiveDriver, hanging_driver, job, manifest

WRONG: Any = 3.0
_REQUEST = CompletionRequest((UserMessage("?"),))


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


def _kind_of(value: object) -> str:
    return type(value).__name__


_WRONG_NUMBERS: tuple[Any, ...] = ("1", True, 1.5, b"x", [], {}, object(), _Number.ONE)


@pytest.mark.parametrize("number", _WRONG_NUMBERS, ids=_kind_of)
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


@pytest.mark.parametrize("content", [3, None, b"x", [], AgentManifest()], ids=_kind_of)
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


@tool
def delete_all(what: str) -> str:
    """Delete everything."""
    raise AssertionError(what)


async def _open_pool(**parts: Any) -> None:
    async with open_pool(**{"driver": ScriptedDriver(["x"]), **parts}) as pool:
        await pool.spawn(job())


async def _open_session(journal: Journal, driver: Any) -> None:
    async with open_session(journal, "anna", driver):
        pass


async def _open_cluster(**parts: Any) -> None:
    async with open_cluster(address="local:1", **parts):
        pass


_DRIVER = "driver must be a Driver, or a function from a manifest to one, got "
_TOOLS = "tools must be a ToolRegistry, or a function that makes one, got "


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (
            lambda _: _open_pool(tools=delete_all),
            f"{_TOOLS}a value of type FunctionTool; write",
        ),
        (lambda _: _open_pool(tools=ToolRegistry), f"{_TOOLS}the class ToolRegistry"),
        (lambda _: _open_pool(driver=ScriptedDriver), f"{_DRIVER}the class ScriptedDriver; write"),
        (lambda _: _open_pool(driver=LiveDriver), f"{_DRIVER}the class LiveDriver"),
        (lambda _: _open_pool(driver=delete_all), f"{_DRIVER}a value of type FunctionTool"),
        (lambda _: _open_pool(approve=delete_all), "approve must be a function, got a value of t"),
        (lambda j: _open_session(j, ScriptedDriver), "driver must be a Driver or a function, got"),
        (
            lambda j: _open_session(j, delete_all),
            "driver must be a Driver or a function, got a val",
        ),
        (
            lambda _: _later(PoolPlan, manifests=(manifest(),), driver=ScriptedDriver),
            "driver must be a Driver, a function or None, got the class ScriptedDriver",
        ),
        (
            lambda _: _open_cluster(driver="agentpool.cluster:open_echo", tools=delete_all),
            "is a single tool; name a registry",
        ),
        (lambda _: _later(FunctionDriver, delete_all), "function must be a function of a request"),
        (lambda _: _later(tool, delete_all), "@tool must decorate a function, got a value of typ"),
    ],
)
async def test_a_thing_is_no_function_that_makes_one(
    use: Callable[[Journal], Awaitable[object]], says: str, tmp_path: Path
) -> None:
    """A tool that was taken for the builder of all tools ran at each spawn, unasked."""
    async with open_journal(tmp_path / "runs.db") as journal:
        with pytest.raises(UsageError, match=re.escape(says)):
            await use(journal)


async def test_an_async_function_cannot_choose_drivers() -> None:
    """It is said, and Python does not warn of a coroutine that nobody awaited."""

    async def choose(_: object) -> ScriptedDriver:  # noqa: ASYNC124  # the slip
        return ScriptedDriver(["x"])  # pragma: no cover  # never awaited

    async with open_pool(choose) as pool:  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="got a coroutine: an async function cannot choose"):
            await pool.spawn(job())


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda agent: agent.run_child("hi", name=3), "name must be a str or None, got a value"),
        (lambda agent: agent.run_child("hi", name=b"x"), "name must be a str or None, got a val"),
        (lambda agent: agent.run_child(3), "query must be a str or a SpawnConfig, got"),
        (lambda agent: agent.send(0, "hi", reply_to="x"), "reply_to must be an int or None"),
        (lambda agent: agent.send(0, 3), "content must be a str, got a value of type int"),
        (lambda agent: agent.ask(0, None), "content must be a str, got None"),
        (lambda agent: agent.complete("gpt", _REQUEST), "driver must be a Driver, got a value"),
        (lambda agent: agent.complete(None, _REQUEST), "driver must be a Driver, got None"),
        (lambda agent: agent.complete(hanging_driver(), "y"), "request must be a CompletionReq"),
        (
            lambda agent: agent.complete(hanging_driver(), CompletionRequest("hi")),  # type: ignore[arg-type]
            "messages must be a Sequence, got a value of type str",
        ),
        (
            lambda agent: agent.complete(hanging_driver(), CompletionRequest(["hi"])),  # type: ignore[list-item]
            "each item in messages must be a",
        ),
        (
            lambda agent: agent.complete(hanging_driver(), _REQUEST, on_delta=3),
            "on_delta must be a function or None, got a value of type int",
        ),
    ],
)
async def test_a_tool_is_told_what_its_context_takes(
    use: Callable[[Any], Awaitable[object]], says: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing was sent, asked or started, and another call beside it goes on."""
    ran = list[str]()

    async def try_it(agent: AgentContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside, agent)
            with pytest.raises(UsageError, match=re.escape(says)):
                await use(agent)

    async def beside(agent: AgentContext) -> None:
        async with agent.without_slot("a webhook"):
            await trio.sleep(1)
        ran.append("beside")

    driver = ScriptedDriver([call("use_context"), "done"])
    async with open_pool(driver, tools=_in_a_tool(try_it)) as pool:
        child = Capability.spawn(2)
        config = SpawnConfig(AgentManifest(name="a", capabilities=(child,)), "?")
        outcome = await (await pool.spawn(config)).wait()
        assert (outcome.text, outcome.error) == ("done", None)
        assert (pool.router.message_count, pool.statistics().spawned) == (0, 1)
    assert ran == ["beside"]
    assert len(driver.requests) == 2


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda _: _later(Session.of, "x"), "pool must be an AgentPool, got a value of type str"),
        (lambda s: _later(Session.of, s.pool, on_busy="no"), "on_busy must be 'refuse' or 'wait'"),
        (lambda s: s.go_back("one"), "turns must be an int, got"),
        (lambda s: s.go_back(True), "turns must be an int, got"),  # noqa: FBT003
        (lambda s: s.branch(3), "name must be a str, got"),
        (lambda s: s.branch("b", turns="x"), "turns must be an int or None, got"),
        (lambda s: s.ask("hi"), "config must be a SpawnConfig"),
        (lambda s: s.begin("hi"), "config must be a SpawnConfig"),
        (lambda _: _later(session_pool_name, 3), "name must be a str, got"),
    ],
)
async def test_a_session_says_what_it_takes(
    use: Callable[[Any], Awaitable[object]], says: str, tmp_path: Path
) -> None:
    """And goes on with its next turn."""
    async with (
        open_journal(tmp_path / "runs.db") as journal,
        open_session(journal, "anna", ScriptedDriver(["one", "two"])) as session,
    ):
        await session.ask(job())
        with pytest.raises(UsageError, match=re.escape(says)):
            await use(session)
        assert (await session.ask(job())).text == "two"


async def test_whoever_names_an_agent_or_loops_over_a_pool_is_told_of_numbers() -> None:
    """A name may belong to many agents."""
    says = "the last one is 1; agents are known by number: handle.agent_id"
    async with open_pool(ScriptedDriver(["x"])) as pool:
        await pool.spawn(job())
        unsure: Any = pool
        with pytest.raises(UsageError, match=f"there is no agent 'a' in this pool; {says}"):
            unsure["a"]
        with pytest.raises(TypeError, match="cannot be iterated over"):
            list(unsure)
        with pytest.raises(UnknownAgentError, match=f"no agent 'a' in this pool; {says}"):
            await unsure.router.send("a", "hi")


@pytest.mark.parametrize("number", [-(10**400), True, "1", 1.0], ids=range(4))
async def test_an_agent_that_never_was_is_named_shortly(number: Any) -> None:
    """A number of 400 digits helps nobody, and Python refuses to write one of 5,000."""
    longer = 10**5_000
    async with open_pool(ScriptedDriver(["x"])) as pool:
        await pool.spawn(job())
        for one in (number, longer):
            with pytest.raises(UsageError, match="there is no agent"):
                pool[one]
        with pytest.raises(UnknownAgentError, match="there is no agent"):
            pool.router.send_nowait(number, "hi")


@pytest.mark.parametrize(
    "given", [ScriptedDriver(["x"]), None, "gpt"], ids=["driver", "none", "text"]
)
async def test_what_opens_a_driver_returns_a_block(given: Any) -> None:
    """A driver that nobody closes is the usual slip."""
    with pytest.raises(UsageError, match="open_one must return an async context manager of a dri"):
        async with open_drivers([manifest()], open_one=lambda _: given):
            pass


def test_classes_that_a_program_makes_anew_are_not_kept() -> None:
    """What was learnt of the types of arguments is kept of so many types, and no more."""
    board = Board()
    made: list[weakref.ref[type[str]]] = []

    def say() -> None:
        kind = type("Line", (str,), {})
        board.say(kind("said"))
        made.append(weakref.ref(kind))

    for _ in range(2 * MOST_KNOWN):
        say()
    gc.collect()
    assert sum(one() is not None for one in made) <= MOST_KNOWN
