"""A driver's pieces of an answer must be text, and that does not depend on who watches."""

# ruff: noqa: ANN401  # wrong types are what these tests pass

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    SpawnConfig,
    UsageError,
    UserMessage,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest, Event, OnDelta, ToolContext
from agentpool.drivers import FallbackDriver, ScriptedDriver, call
from agentpool.observe import LoggingObserver, Observer
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import LiveDriver, job

SAYS = r"^driver LiveDriver passed (None|a value of type (int|bytes|list)) to on_delta; each"


def _odd(piece: Any) -> LiveDriver:
    """Return a driver whose answer begins with *piece*."""

    async def answer(_: CompletionRequest, on_delta: OnDelta) -> str:
        for one in (piece, "b"):
            await trio.sleep(0.01)
            on_delta(one)
        return "b"

    return LiveDriver(answer)


async def _outcome(driver: Any, way: str) -> tuple[AgentOutcome, AgentOutcome]:
    """Run an agent on *driver*, watched in this *way*, and another one beside it."""
    observers: list[Observer] = [LoggingObserver()] if way == "observer" else []
    innocent = ScriptedDriver(["well"])
    async with open_pool(
        lambda config: innocent if config.name == "innocent" else driver, observers=observers
    ) as pool:
        beside = await pool.spawn(SpawnConfig(AgentManifest(name="innocent"), "?"))
        handle = await pool.spawn(job())
        if way == "stream":
            with handle.stream() as pieces:
                async for _ in pieces:
                    pass
        elif way == "events":
            with pool.events() as events:
                outcome = await handle.wait()
                assert len(repr(events)) > 0
                return outcome, await beside.wait()
        return await handle.wait(), await beside.wait()


@pytest.mark.parametrize("way", ["nobody", "stream", "observer", "events"])
@pytest.mark.parametrize("piece", [3, None, b"x", []], ids=repr)
async def test_a_piece_that_is_no_text_fails_its_agent_alone(
    piece: Any, way: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The same error whoever watches, and the pool goes on."""
    outcome, other = await _outcome(_odd(piece), way)
    assert outcome.status is AgentStatus.FAILED
    with pytest.raises(UsageError, match=SAYS):
        raise outcome.error or AssertionError
    assert other.text == "well"


async def test_a_driver_behind_another_is_treated_alike(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The next driver is not asked: the answer is wrong, and no provider was at fault."""
    for way in ("nobody", "stream"):
        driver = FallbackDriver(ScriptedDriver([]), _odd(3))
        outcome, other = await _outcome(driver, way)
        assert (outcome.status, other.status) == (AgentStatus.FAILED, AgentStatus.COMPLETED)
        assert isinstance(outcome.error, UsageError)


class _Word(StrEnum):
    YES = "yes"


async def test_a_piece_of_a_subclass_is_passed_on_as_plain_text(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Traces and journals can only write plain text."""
    async with open_pool(_odd(_Word.YES)) as pool:
        handle = await pool.spawn(job())
        with handle.stream() as pieces:
            heard = [piece async for piece in pieces]
        assert [(type(one), one) for one in heard] == [(str, "yes"), (str, "b")]


async def test_a_thought_that_is_no_text_is_told_to_those_who_watch(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nobody else learns thoughts, so it must not fail the agent."""

    async def think(_: CompletionRequest, on_delta: Any) -> str:
        await trio.sleep(0.01)
        if hasattr(on_delta, "thought"):
            on_delta.thought(3)
        return "b"

    warned = list[str]()

    class Ears(Observer):
        def on_event(self, event: Event) -> None:
            if type(event).__name__ == "AgentWarned":
                warned.append(str(event))

    async with open_pool(LiveDriver(think), observers=[Ears()]) as pool:
        assert (await (await pool.spawn(job())).wait()).text == "b"
    assert "driver LiveDriver passed a thought of type int, not str" in "".join(warned)


async def test_a_tool_that_asks_learns_of_it_with_and_without_ears(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The model of a tool is held to the same rule as the agent's own."""
    seen = list[str]()

    @tool
    async def ask(context: ToolContext) -> str:
        """Ask."""
        request = CompletionRequest((UserMessage("?"),))
        for on_delta in (None, seen.append):
            with pytest.raises(UsageError, match=SAYS):
                await context.agent.complete(_odd(3), request, on_delta=on_delta)
        answer: Completion = await context.agent.complete(_odd("a"), request, on_delta=seen.append)
        return answer.text

    driver = ScriptedDriver([call("ask"), "done"])
    async with open_pool(driver, tools=ToolRegistry([ask])) as pool:
        assert (await (await pool.spawn(job())).wait()).text == "done"
    assert seen == ["a", "b"]


async def test_a_cancelled_answer_with_such_a_piece_is_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whichever comes first decides; the pool ends well either way."""
    for seconds in (0.005, 0.01, 0.02):
        async with open_pool(_odd(3)) as pool:
            handle = await pool.spawn(job())
            with trio.move_on_after(seconds), handle.stream() as pieces:
                async for _ in pieces:
                    pass
            handle.cancel()
            status = (await handle.wait()).status
            assert status in {AgentStatus.CANCELLED, AgentStatus.FAILED}
