"""A pool that a tool opens has no agent of a laxer tier than the agent it is opened in."""

from __future__ import annotations

import pytest
import trio

from agentpool import AgentManifest, AgentOutcome, PrivacyError, PrivacyTier, SpawnConfig, open_pool
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.testing import explore
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import calling, results_of, tool_call

STANDARD, PRIVATE, SOVEREIGN = PrivacyTier.STANDARD, PrivacyTier.PRIVATE, PrivacyTier.SOVEREIGN


def _config(tier: PrivacyTier, query: str) -> SpawnConfig:
    return SpawnConfig(AgentManifest(name=tier.value, capabilities=(), privacy=tier), query)


def _of_a_tool(
    outer: PrivacyTier, inner: PrivacyTier, *, levels: int = 1
) -> tuple[list[str], list[str]]:
    """Return what the model was asked below the first agent, and how the spawns were refused."""
    asked: list[str] = []
    refused: list[str] = []

    @tool
    async def look(level: int) -> str:
        """Open a pool, and spawn in it."""
        driver = FunctionDriver(answer)
        async with open_pool(driver, tools=ToolRegistry([look])) as pool:
            last = level == levels
            config = _config(inner if last else outer, f"secret {level + 1}")
            for spawn in (pool.spawn, lambda config: pool.race([config])):
                try:
                    await spawn(config)
                except PrivacyError as error:
                    refused.append(str(error))
            outcomes: list[AgentOutcome] = [one async for one in pool.as_completed()]
        return str(len(outcomes))

    async def answer(request: CompletionRequest) -> Completion | str:
        await trio.sleep(1)
        text: str = request.messages[0].text  # type: ignore[union-attr]  # it has text
        level = int(text.split()[1])
        if level > 1:
            asked.append(text)
        if level > levels or results_of(request):
            return "done"
        return calling(tool_call("look", level=level))

    async def scenario() -> None:
        async with open_pool(FunctionDriver(answer), tools=ToolRegistry([look])) as pool:
            await pool.spawn(_config(outer, "secret 1"))
            await pool.join_all()

    explore(scenario, schedules=2)
    return asked, refused


@pytest.mark.parametrize(
    ("outer", "inner"), [(SOVEREIGN, PRIVATE), (SOVEREIGN, STANDARD), (PRIVATE, STANDARD)]
)
def test_g17_a_laxer_agent_is_refused(outer: PrivacyTier, inner: PrivacyTier) -> None:
    """Before its model is asked anything, and the error names both manifests."""
    asked, refused = _of_a_tool(outer, inner)
    assert not asked
    assert len(refused) == 4
    assert outer.value in refused[0]
    assert inner.value in refused[0]


@pytest.mark.parametrize(("outer", "inner"), [(STANDARD, STANDARD), (PRIVATE, SOVEREIGN)])
def test_one_that_is_as_strict_is_taken(outer: PrivacyTier, inner: PrivacyTier) -> None:
    """A pool of its own is no fault."""
    asked, refused = _of_a_tool(outer, inner)
    assert len(asked) == 4
    assert not refused


def test_g17_it_holds_for_a_pool_in_a_pool() -> None:
    """Each is held to the tier of the one around it."""
    asked, refused = _of_a_tool(SOVEREIGN, STANDARD, levels=2)
    assert set(asked) == {"secret 2"}
    assert refused
