"""Calls of one answer that write to others begin in the order in which the model wrote them."""

from __future__ import annotations

import math
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from agentpool import Capability, CapabilityKind, SpawnConfig, open_pool
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.journal import InMemoryJournal
from agentpool.testing import cancel_everywhere, explore, simulate
from agentpool.tools import (
    TEAM_TOOLS,
    ApprovalRequest,
    Approved,
    Decision,
    Denied,
    ToolContext,
    ToolRegistry,
    tool,
)
from tests.support.fakes import calling, manifest, results_of, tool_call

FREE = (Capability(CapabilityKind.MESSAGE), Capability.spawn(2))
ASKED = (Capability(CapabilityKind.MESSAGE, ask_first=True),)


@tool
async def slowly(context: ToolContext) -> str:
    """Work for a while, side by side with all others."""
    await trio.sleep(5)
    return "worked"


@tool(capability=Capability(CapabilityKind.MESSAGE), timeout_seconds=math.inf)
async def tell_twice(context: ToolContext, to: int, content: str) -> str:
    """Write two messages, one at once and one after a while."""
    await context.agent.send(to, content)
    await trio.sleep(1)
    await context.agent.send(to, f"{content}, later")
    return "told"


async def _answer_of_many(
    kinds: list[str], decisions: list[float] | None, *, journal: bool, capacity: int
) -> None:
    """Let a model write calls of those *kinds* in one answer; a decision < 0 denies a call."""
    asked: list[str] = []

    def answer(request: CompletionRequest) -> Completion | str:
        if results_of(request):
            assert len(results_of(request)) == len(kinds)
            return "done"
        calls = []
        for number, kind in enumerate(kinds):
            terms: dict[str, int | str] = {"to": 0, "content": str(number)}
            if kind == "slowly":
                terms = {}
            calls.append(tool_call(kind, f"c{number}", **terms))
        return calling(*calls)

    async def approve(request: ApprovalRequest) -> Decision:
        number = len(asked)
        asked.append(request.call.arguments)
        assert decisions is not None
        seconds = decisions[number % len(decisions)]
        await trio.sleep(abs(seconds))
        return Denied("no") if seconds < 0 else Approved()

    async with open_pool(
        FunctionDriver(answer),
        tools=ToolRegistry([*TEAM_TOOLS, slowly, tell_twice]),
        inbox_capacity=capacity,
        approve=approve,
        journal=InMemoryJournal() if journal else None,
    ) as pool:
        await pool.spawn(
            SpawnConfig(manifest(capabilities=FREE if decisions is None else ASKED), "go")
        )
        got: list[str] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                while True:
                    got.extend(one.content for one in await pool.receive_many())
                    await trio.sleep(0.5)

            nursery.start_soon(read)
            outcome = await pool[1].wait()
            assert outcome.text == "done", outcome
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
    firsts = [one for one in got if "later" not in one]
    assert firsts == sorted(firsts, key=int)
    if decisions is None:
        assert len(firsts) == sum(kind != "slowly" for kind in kinds)


@settings(max_examples=30)
@given(
    kinds=st.lists(
        st.sampled_from(["send_message", "tell_twice", "slowly"]), min_size=2, max_size=7
    ),
    decisions=st.none() | st.lists(st.sampled_from([0.0, 1.0, 3.0, -1.0]), min_size=1, max_size=5),
    journal=st.booleans(),
    capacity=st.sampled_from([1, 3, 32]),
    seed=st.integers(0, 1000),
)
def test_messages_of_one_answer_arrive_in_the_order_of_its_calls(
    kinds: list[str],
    decisions: list[float] | None,
    *,
    journal: bool,
    capacity: int,
    seed: int,
) -> None:
    """Five sends of one answer arrived in either of two orders."""
    scenario = partial(_answer_of_many, kinds, decisions, journal=journal, capacity=capacity)
    simulate(scenario, seed=seed)


def test_five_messages_of_one_answer_arrive_in_order_under_many_schedules() -> None:
    """In whatever order the tasks of the calls take their first steps."""
    kinds = ["send_message"] * 5
    explore(partial(_answer_of_many, kinds, None, journal=False, capacity=2), schedules=30)


@pytest.mark.parametrize("decisions", [None, [1.0, 0.0]], ids=["free", "asked"])
def test_calls_in_order_may_be_cancelled_anywhere(decisions: list[float] | None) -> None:
    """Whoever comes next goes on, or ends: it waits for none that has ended."""
    kinds = ["send_message", "slowly", "tell_twice"]
    cancel_everywhere(
        partial(_answer_of_many, kinds, decisions, journal=False, capacity=1),
    )


async def _beside_work() -> None:
    """Let a call that writes stand before one that only works, and wait for approval."""

    def answer(request: CompletionRequest) -> Completion | str:
        if results_of(request):
            return "done"
        return calling(tool_call("send_message", "a", to=0, content="x"), tool_call("slowly", "b"))

    async def approve(_: ApprovalRequest) -> Decision:
        await trio.sleep(4)
        return Approved()

    tools = ToolRegistry([*TEAM_TOOLS, slowly])
    async with open_pool(FunctionDriver(answer), tools=tools, approve=approve) as pool:
        await pool.spawn(SpawnConfig(manifest(capabilities=ASKED), "go"))
        await pool.join_all()
    # The work took five seconds, beside the four of the decision.
    assert trio.current_time() == pytest.approx(5, abs=0.01)


def test_a_call_that_writes_to_nobody_waits_for_none() -> None:
    """Only those that write keep an order; all others begin at once."""
    explore(_beside_work, schedules=4)
