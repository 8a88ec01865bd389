"""Slots and gates are in the states that the tables next to their code list, and in no other."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import trio

from agentpool import Capability, SpawnConfig, open_pool
from agentpool._scheduling import slot as slots
from agentpool.abc import AgentContext, CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, GatedDriver, RequestGate, _gate, say
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry
from tests.support.fakes import FakeTool, calling, manifest, query_of, tool_call, turns_of
from tests.support.strands import all_strands_wait

State = tuple[str, ...]


def legal_states(module: ModuleType) -> dict[State, str]:
    """Return the rows of the table in a module's docstring: the states, and what they mean."""
    lines = [line for line in (module.__doc__ or "").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    return {tuple(row[:-1]): row[-1] for row in rows}


def as_words(*facts: bool) -> State:
    """Return the facts as the tables have them."""
    return tuple("yes" if fact else "no" for fact in facts)


class States(trio.abc.Instrument):
    """Writes down in which states slots and a gate are after each step of any task."""

    def __init__(self, gate: RequestGate) -> None:
        """Watch *gate*, and the slot of each task that takes a step."""
        self.gate = gate
        self.of_slots = set[State]()
        self.of_gate = set[State]()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Look at both."""
        slot = task.context.get(slots.current_slot)
        if slot is not None and slot.task is not None and slot.task.coro.cr_frame is not None:
            waits = all_strands_wait(slot)
            self.of_slots.add(as_words(slot.held, slot.lent, slot.wanted, waits))
        first = self.gate._head()
        woken = first is not None and first.woken.is_set()
        self.of_gate.add(as_words(first is not None, self.gate._keeper is not None, woken))


def family(seed: int) -> States:
    """Run parents with children, side by side and through a narrow gate."""
    gate = RequestGate(max_in_flight=1, requests_per_minute=3 if seed % 2 else None)
    states = States(gate)

    async def answer(request: CompletionRequest) -> object:
        await trio.sleep(1)
        if turns_of(request) or query_of(request) == "child":
            return say("done")
        return calling(tool_call("child", "1"), tool_call("nap", "2"))

    def build(_: AgentContext) -> ToolRegistry:
        async def child(_: str, context: ToolContext) -> str:
            return (await context.agent.run_child("child")).text

        async def nap(_: str, context: ToolContext) -> str:
            async with context.agent.without_slot("a nap"):
                await trio.sleep(2)
            return "rested"

        return ToolRegistry([FakeTool("child", child), FakeTool("nap", nap)])

    async def scenario() -> None:
        trio.lowlevel.add_instrument(states)
        driver = GatedDriver(FunctionDriver(answer), gate)  # type: ignore[arg-type]  # all answer
        parent = manifest(capabilities=(Capability.spawn(1),))
        async with open_pool(driver, max_concurrent=2, tools=build) as pool:
            pool.fan_out_nowait([SpawnConfig(parent, f"parent {number}") for number in range(4)])
            if seed % 4 == 0:
                await trio.sleep(seed % 7)
                pool.abort_all()
            outcomes = await pool.join_all()
        assert len(outcomes) == 4
        trio.lowlevel.remove_instrument(states)

    simulate(scenario, seed=seed)
    return states


@pytest.mark.parametrize(
    ("module", "states_of"),
    [(slots, lambda states: states.of_slots), (_gate, lambda states: states.of_gate)],
    ids=["slot", "gate"],
)
def test_every_state_is_in_the_table_next_to_the_code(
    module: ModuleType, states_of: Callable[[States], set[State]]
) -> None:
    """And every row is reached, so that none of them is a guess."""
    legal = legal_states(module)
    seen = set[State]().union(*(states_of(family(seed)) for seed in range(120)))
    assert seen - legal.keys() == set(), sorted(seen)
    assert legal.keys() - seen == set(), sorted(seen)
