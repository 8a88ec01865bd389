"""What a newcomer passes by mistake is refused at once, with what was expected."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from agentpool import OWNER_ID, AgentPool, Budget, SpawnConfig, UsageError, open_pool
from agentpool.drivers import (
    FallbackDriver,
    FunctionDriver,
    GatedDriver,
    RequestGate,
    ScriptedDriver,
    open_driver,
)
from agentpool.testing import cancel_everywhere, explore, simulate
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import FakeTool, Recorder, hanging_driver, job, manifest

# Types are what these tests get wrong, so the checker is not asked.
ANY: Any = None
WRONG: Any = "hi"
CLASS: Any = FunctionDriver


async def _scenario() -> None: ...


def _echo(_: str, __: object) -> str:
    return ""


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: SpawnConfig(WRONG, manifest()), "manifest must be an AgentManifest, got a val"),  # type: ignore[arg-type]
        (lambda: SpawnConfig(manifest(), ANY), "query must be a str, got None"),
        (lambda: SpawnConfig(manifest(), "x", limits=WRONG), "limits must be UsageLimits"),
        (lambda: SpawnConfig(manifest(), "x", budget=WRONG), "budget must be a Budget"),
        (lambda: Budget(tokens=1, parent=WRONG), "parent must be a Budget"),
        (lambda: FallbackDriver(hanging_driver(), WRONG), "each driver must be a Driver"),
        (lambda: GatedDriver(WRONG, RequestGate()), "driver must be a Driver, got a value of ty"),
        (lambda: GatedDriver(hanging_driver(), WRONG), "gate must be a RequestGate"),
        (lambda: GatedDriver(CLASS, RequestGate()), "got the class FunctionDriver"),
        (lambda: FunctionDriver(WRONG), "function must be a function of a request"),
        (lambda: ScriptedDriver(WRONG), "steps must be an iterable of answers"),
        (lambda: ScriptedDriver(ANY), "steps must be an iterable of answers, got None"),
        (lambda: ToolRegistry(WRONG), "tools must be an iterable of tools"),
        (lambda: ToolRegistry(ANY or FakeTool("x", _echo)), r"write ToolRegistry\(\[tool\]\)"),  # type: ignore[arg-type]
        (lambda: tool(WRONG), "@tool must decorate a function"),
        (lambda: explore(WRONG), "the scenario must be an async function"),
        (lambda: simulate(WRONG), "the scenario must be an async function"),
        (lambda: cancel_everywhere(WRONG), "the scenario must be an async function"),
    ],
)
def test_what_is_built_of_the_wrong_kind_is_refused(build: Callable[[], object], text: str) -> None:
    """When it is made, not where it is used."""
    with pytest.raises(UsageError, match=text):
        build()


def test_a_coroutine_in_place_of_a_function_is_named_and_closed() -> None:
    """``explore(main())`` is the usual slip; Python would warn of it at another place."""
    called: Any = _scenario()
    with pytest.raises(UsageError, match="pass main, not what main"):
        explore(called)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"driver": "gpt-5"}, "driver must be a Driver, or a function from a manifest to one"),
        ({"driver": None}, "open one with agentpool.drivers.open_driver"),
        ({"tools": [FakeTool("x", _echo)]}, "tools must be a ToolRegistry"),  # type: ignore[arg-type]
        ({"memory": "notes.db"}, "memory must be a Memory"),
        ({"budget": 3}, "budget must be a Budget"),
        ({"approve": "always"}, "approve must be a function"),
        ({"request_retries": 3}, "request_retries must be a RetryPolicy, got a value of type int"),
        ({"observers": Recorder()}, "observers must be a sequence of Observer objects"),
        ({"observers": [print]}, "each observer must be an Observer, got a value of type builtin"),
    ],
)
async def test_a_pool_of_the_wrong_parts_does_not_open(
    arguments: dict[str, Any], text: str
) -> None:
    """Before anything has been opened."""
    with pytest.raises(UsageError, match=text):
        async with open_pool(**{"driver": hanging_driver(), **arguments}):
            pass


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda pool: pool.spawn(WRONG), "config must be a SpawnConfig"),
        (lambda pool: pool.spawn(manifest()), r"write SpawnConfig\(manifest, query\)"),
        (lambda pool: pool.fan_out(job()), "configs must be an iterable of SpawnConfig objects"),
        (lambda pool: pool.fan_out(ANY), "configs must be an iterable of SpawnConfig objects"),
        (lambda pool: pool.fan_out([WRONG]), "config must be a SpawnConfig"),
        (lambda pool: pool.race(job()), "configs must be an iterable"),
        (lambda pool: pool.race("ab"), "configs must be an iterable"),
        (lambda pool: pool.supervise(job()), "configs must be an iterable"),
        (lambda pool: pool.broadcast(3), "content must be a str"),
        (lambda pool: pool.router.send(1, None), "content must be a str, got None"),
        (lambda pool: pool[1].ask(b"x"), "content must be a str, got a value of type bytes"),
    ],
)
async def test_what_a_pool_is_given_is_checked(
    call: Callable[[Any], Awaitable[object]], text: str
) -> None:
    """And nothing has changed: no agent, no message."""
    async with open_pool(hanging_driver()) as pool:
        await pool.spawn(job())
        before = pool.statistics()
        with pytest.raises(UsageError, match=text):
            await call(pool)
        assert pool.statistics() == before
        pool.abort_all()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda pool: pool.map(WRONG, ["a"]), "manifest must be an AgentManifest"),
        (lambda pool: pool.map(manifest(), "one query"), "must be an iterable of queries"),
        (lambda pool: pool.map(manifest(), ["a"], None), "must be an iterable of queries"),
    ],
)
async def test_what_a_map_is_given_is_checked(
    call: Callable[[AgentPool], AbstractAsyncContextManager[object]], text: str
) -> None:
    """A text is one query, and not as many as it has letters."""
    async with open_pool(hanging_driver()) as pool:
        with pytest.raises(UsageError, match=text):
            async with call(pool):
                pass


async def test_a_nowait_spawn_checks_as_well() -> None:
    """Of one agent and of many."""
    async with open_pool(hanging_driver()) as pool:
        for call in (pool.spawn_nowait, pool.fan_out_nowait):
            with pytest.raises(UsageError, match="SpawnConfig"):
                call(WRONG)
        assert pool.router.live_ids() == (OWNER_ID,)


async def test_a_driver_is_opened_of_a_model() -> None:
    """And not of its name; a key that was passed by mistake is not quoted."""
    key: Any = "sk-secret"
    with pytest.raises(UsageError, match="model must be a ModelConfig") as caught:
        async with open_driver(key):
            pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("open_pool", lambda: open_pool(hanging_driver())),
        ("open_driver", lambda: open_driver(manifest().model)),
    ],
)
def test_asyncio_is_told_to_be_trio(
    name: str, opening: Callable[[], AbstractAsyncContextManager[object]]
) -> None:
    """``asyncio.run(main())`` is what most tutorials write."""

    async def main() -> None:
        async with opening():
            pass

    with pytest.raises(UsageError, match=rf"{name}\(\) needs trio; run .* trio.run\(main\)"):
        asyncio.run(main())
