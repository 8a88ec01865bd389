"""What was pruned is forgotten, and what it took is not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentStatus,
    Budget,
    Capability,
    DriverError,
    SpawnConfig,
    ToolMessage,
    Usage,
    UserMessage,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, call
from agentpool.journal import JournalError, JournalRecord, RecordKind, open_journal
from agentpool.tools import TEAM_TOOLS, ToolRegistry, tool

THOUGHT = CompletionRequest(messages=(UserMessage("think"),))
PARENT = AgentManifest(name="parent", capabilities=(Capability.spawn(1),))
ALONE = AgentManifest(name="alone", capabilities=())

open_kept = partial(open_pool, name="kept", resume="branch")


def answer(request: CompletionRequest) -> Completion:
    """Call each tool once; break off once, and have no price once."""
    first, last = request.messages[0], request.messages[-1]
    asked = first.text if isinstance(first, UserMessage) else ""
    usage = Usage(11, 3)
    if asked == "break":
        raise DriverError("the line broke")
    if asked == "free":
        return Completion("done", usage=usage)
    if isinstance(last, ToolMessage) or asked == "think" or not request.tools:
        return Completion("done", usage=usage, cost_usd=0.1)
    wanted = call("think") if asked.startswith("pay") else call("spawn_agent", query="child")
    return Completion("", tool_calls=wanted.tool_calls, usage=usage, cost_usd=0.7)


DRIVER = FunctionDriver(answer)


@tool
async def think(context: ToolContext) -> str:
    """Think."""
    return (await context.agent.complete(DRIVER, THOUGHT)).text


async def run_all(path: Path, *, change: bool = False) -> tuple[Budget, Budget]:
    """Run the agents, or find them as they ended. Return what all spent, and those with prices."""
    everything = Budget(name="all", requests=1_000)
    priced = Budget(name="priced", cost_usd=1e6, parent=everything)
    tools = ToolRegistry([think, *TEAM_TOOLS])
    async with (
        open_journal(path) as journal,
        open_kept(DRIVER, journal=journal, tools=tools, budget=everything) as pool,
    ):
        asked = {"one": "pay", "two": "pay more" if change else "pay", "three": "lead"}
        for key, query in asked.items():
            manifest = PARENT if query == "lead" else ALONE
            handle = await pool.spawn(SpawnConfig(manifest, query, key=key, budget=priced))
            outcome = await handle.wait()
            assert outcome.status is AgentStatus.COMPLETED, outcome
        for query in ("break", "free"):
            await (await pool.spawn(SpawnConfig(ALONE, query, key=query))).wait()
    return everything, priced


def said(budgets: tuple[Budget, Budget]) -> list[tuple[float, ...]]:
    """Return what was used of each budget, by its kinds."""
    found = [budget.statistics() for budget in budgets]
    return [
        (one.tokens.committed, one.cost.committed, one.requests.committed,
         one.tool_calls.committed)
        for one in found
    ]  # fmt: skip


@pytest.mark.parametrize("change", [False, True])
async def test_what_was_spent_outlives_the_pruning(tmp_path: Path, change: bool) -> None:  # noqa: FBT001  # parametrized
    """Tokens, dollars, requests, calls: of children, of tools, of a run that was branched."""
    path = tmp_path / "j.db"
    await run_all(path)
    whole = said(await run_all(path, change=change))
    assert whole[0][2] > whole[1][2] > 5
    assert whole[1][3] >= 3
    async with open_journal(path) as journal:
        size = path.stat().st_size
        assert await journal.prune("kept") > 20
        assert await journal.prune("kept") == 0
        kinds = {one.kind for one in await journal.read("kept")}
        assert kinds == {RecordKind.ACCEPTED, RecordKind.ENDED, RecordKind.SPENT}
        assert path.stat().st_size <= size
    assert said(await run_all(path, change=change)) == whole


async def test_a_later_run_counts_on_after_each_pruning(tmp_path: Path) -> None:
    """What is held against a limit is what all processes took."""
    path = tmp_path / "j.db"
    texts: list[str] = []
    for number in range(3):
        budget = Budget(requests=2)
        async with (
            open_journal(path) as journal,
            open_kept(FunctionDriver(lambda _: "a note"), journal=journal, budget=budget) as pool,
        ):
            queries = [f"text {one}" for one in range(number + 1)]
            async with pool.map(ALONE, queries, ordered=True) as outcomes:
                texts = [str(one.status.value) async for one in outcomes]
            assert budget.statistics().requests.committed == min(number + 1, 2)
        async with open_journal(path) as journal:
            await journal.prune("kept")
    assert texts == ["completed", "completed", "stopped"]


async def test_where_a_session_goes_on_outlives_the_pruning(tmp_path: Path) -> None:
    """A turn that was taken back stays so."""
    head = JournalRecord(1, RecordKind.HEAD)
    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p")
        await journal.append(lease, [head])
        await journal.release(lease)
        assert await journal.prune("p") == 0
        assert list(await journal.read("p")) == [head]


async def test_what_cannot_be_read_is_not_pruned(tmp_path: Path) -> None:
    """What it took would be lost with it."""
    records = [
        JournalRecord(1, RecordKind.ACCEPTED, body=b"{}"),
        JournalRecord(1, RecordKind.LOST, 1, body=b"{"),
        JournalRecord(1, RecordKind.ENDED, body=b"{}"),
    ]
    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p")
        await journal.append(lease, records)
        await journal.release(lease)
        with pytest.raises(JournalError, match="cannot be read"):
            await journal.prune("p")
        assert list(await journal.read("p")) == records


async def test_what_a_cut_call_had_asked_is_not_forgotten(tmp_path: Path) -> None:
    """The call ran again, and has only what it asked since."""
    path, scope = tmp_path / "night.db", trio.CancelScope()

    @tool(name="think", on_unknown="rerun")
    async def cut(context: ToolContext) -> str:
        """Think, and then be cut."""
        await context.agent.complete(DRIVER, THOUGHT)
        if not scope.cancelled_caught:
            scope.cancel()
            await trio.sleep_forever()
        return "thought"

    async def spent() -> float:
        budget = Budget(name="all", requests=1_000)
        async with (
            open_journal(path) as journal,
            open_kept(DRIVER, journal=journal, tools=ToolRegistry([cut]), budget=budget) as pool,
        ):
            await (await pool.spawn(SpawnConfig(ALONE, "pay", key="one"))).wait()
        return budget.statistics().requests.committed

    with scope:
        await spent()
    before = await spent()
    assert before == 4
    async with open_journal(path) as journal:
        await journal.prune("kept")
    assert await spent() == before
