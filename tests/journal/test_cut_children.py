"""A pool that is cut leaves its children open, also those that their parent's tool cancels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import pytest
import trio

from agentpool import AgentManifest, AgentPool, Capability, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal
from agentpool.tools import ToolRegistry, tool

CHILD: Final = AgentManifest(name="child", capabilities=())
PARENT: Final = SpawnConfig(
    AgentManifest(name="parent", capabilities=(Capability.spawn(3),)), "parent", key="p"
)
MOMENTS: Final = 60
"""Steps of the program in each of which it is cut."""

Use: TypeAlias = Callable[[AgentPool], Awaitable[str]]
End: TypeAlias = Callable[[trio.CancelScope], None]


@tool(on_unknown="rerun")
async def work(context: ToolContext) -> str:
    """Run two children side by side, of which one waits in the queue."""
    said: dict[str, str] = {}

    async def run(name: str) -> None:
        outcome = await context.agent.run_child(SpawnConfig(CHILD, name, key=name))
        said[name] = f"{outcome.status.value}: {outcome.text}"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "a")
        nursery.start_soon(run, "b")
    return str(sorted(said.items()))


DONE: Final = "[('a', 'completed: did a'), ('b', 'completed: did b')]"


async def answer(request: CompletionRequest) -> Answer:
    """Call the tool as a parent, and work as a child."""
    for _ in range(5):
        await trio.lowlevel.checkpoint()
    last = request.messages[-1]
    if isinstance(last, ToolMessage):
        return last.content
    asked = str(getattr(last, "text", ""))
    return call("work") if asked == "parent" else f"did {asked}"


async def spawned(pool: AgentPool) -> str:
    """Spawn the parent."""
    return (await (await pool.spawn(PARENT)).wait()).text


async def mapped(pool: AgentPool) -> str:
    """Map over the parent's query."""
    async with pool.map(PARENT.manifest, ["parent"]) as outcomes:
        (text,) = [outcome.text async for outcome in outcomes]
    return text


async def raced(pool: AgentPool) -> str:
    """Let the parent race alone."""
    return (await pool.race([SpawnConfig(PARENT.manifest, "parent")])).text


def cancel(scope: trio.CancelScope) -> None:
    """Cancel what is around the pool."""
    scope.cancel()


def fail(scope: trio.CancelScope) -> None:
    """Fail beside the pool."""
    raise ValueError(scope)


async def program(journal: InMemoryJournal, use: Use, cut: tuple[End, int] | None) -> str:
    """Run the parent, and cut the pool after some steps."""

    async def breaker(end: End, steps: int, scope: trio.CancelScope) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        end(scope)

    text = "cut"
    async with trio.open_nursery() as nursery:
        if cut is not None:
            nursery.start_soon(breaker, *cut, nursery.cancel_scope)
        async with open_pool(
            FunctionDriver(answer, record=False), tools=ToolRegistry([work]), max_concurrent=1,
            journal=journal, resume=True,
        ) as pool:  # fmt: skip
            text = await use(pool)
        nursery.cancel_scope.cancel()
    return text


@pytest.mark.parametrize("use", [spawned, mapped, raced])
@pytest.mark.parametrize("end", [cancel, fail])
def test_children_of_a_cut_pool_go_on(use: Use, end: End) -> None:
    """Wherever a pool is cut, the next process has what one that was not cut has."""
    for steps in range(1, MOMENTS):
        journal = InMemoryJournal()
        try:
            trio.run(program, journal, use, (end, steps))
        except* ValueError:
            pass
        assert trio.run(program, journal, use, None) == DONE, steps


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_children_that_completed_are_so_in_every_later_process(slots: int) -> None:
    """Their parent has ended as well, and ends in a later process before they get a slot."""
    pools: list[AgentPool] = []

    @tool(on_unknown="rerun", name="work")
    async def spawn(context: ToolContext) -> str:
        """Spawn three children, and wait for them."""
        del context
        handles = await pools[-1].fan_out(SpawnConfig(CHILD, one, key=one) for one in "xyz")
        return " ".join([(await handle.wait()).text for handle in handles])

    async def statuses(journal: InMemoryJournal) -> dict[int, str]:
        async with open_pool(
            FunctionDriver(answer, record=False), tools=ToolRegistry([spawn]), max_concurrent=slots,
            journal=journal, resume=True,
        ) as pool:  # fmt: skip
            pools.append(pool)
            await (await pool.spawn(PARENT)).wait()
            ended = await pool.join_all(children=True)
            return {number: outcome.status.value for number, outcome in ended.items()}

    async def main() -> None:
        journal = InMemoryJournal()
        first = await statuses(journal)
        assert len(first) == 4
        assert set(first.values()) == {"completed"}
        assert await statuses(journal) == first
        assert await statuses(journal) == first

    trio.run(main)
