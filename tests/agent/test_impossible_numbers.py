"""A usage or a cost that cannot be is unknown: it is neither zero nor a refund."""

from __future__ import annotations

import math

import attrs
import msgspec
import pytest
import trio

from agentpool import (
    AgentStatus,
    Budget,
    PrivacyTier,
    SpawnConfig,
    StopReason,
    Usage,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest, Driver, OnDelta, ToolContext
from agentpool.drivers import (
    FunctionDriver,
    GatedDriver,
    RequestGate,
    ScriptedDriver,
    UserMessage,
)
from agentpool.observe import AgentWarned
from agentpool.tools import ToolRegistry
from tests.support.fakes import FakeTool, Recorder, calling, job, jobs, manifest, of_type, tool_call

HUGE = 10**5000  # Python does not even write it

COSTS: dict[str, object] = {
    "-5.0": -5.0, "nan": math.nan, "inf": math.inf, "True": True, "'x'": "x", "huge": HUGE,
    "1e300": 1e300,
}  # fmt: skip

USAGES: dict[str, Usage] = {
    f"{field}={value!r:.9}": Usage(**{"input_tokens": 5, "output_tokens": 1, field: value})  # type: ignore[arg-type]  # that is the point
    for field in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
    for value in (-1, 1.5, math.nan, True, "x", None, 2**63)
} | {"huge": Usage(HUGE, 1)}


@attrs.define(eq=False)
class Priced(Driver):
    """A driver that says the same price of everything, and answers the same."""

    answer: Completion
    usd: float | None

    @property
    def context_window(self) -> int | None:
        """Nothing."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """On this machine."""
        return PrivacyTier.SOVEREIGN

    async def complete(
        self,
        request: CompletionRequest,  # noqa: ARG002  # as in the seam
        *,
        on_delta: OnDelta | None = None,  # noqa: ARG002  # as in the seam
    ) -> Completion:
        """Answer."""
        await trio.lowlevel.checkpoint()
        return self.answer

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002
        """Return the price."""
        return self.usd


@pytest.mark.parametrize(("usd", "requests"), [(None, 1), (0.0, 2)], ids=["no price", "free"])
@pytest.mark.parametrize("name", COSTS)
async def test_a_cost_that_cannot_be_is_unknown_also_of_a_driver_that_is_free(
    name: str, usd: float | None, requests: int
) -> None:
    """It counted as what the driver computes: as 0.0, so that a limit was never reached."""
    said = Completion("hi", usage=Usage(10, 10))
    said = msgspec.structs.replace(said, cost_usd=COSTS[name])
    budget, recorder = Budget(cost_usd=1.0, name="day"), Recorder()

    async with open_pool(
        Priced(said, usd), budget=budget, observers=[recorder], max_concurrent=1
    ) as pool:
        first, second = await pool.fan_out(jobs("a", "b"))
        one, other = await first.wait(), await second.wait()
    assert (one.status, one.cost_usd, one.text) == (AgentStatus.COMPLETED, None, "hi")
    warned = next(one for one in of_type(recorder.events, AgentWarned) if "impossible" in one.text)
    assert warned.text.startswith("the provider reported the impossible cost ")
    assert warned.text.endswith("; it is counted as unknown")
    now = budget.statistics()
    assert (now.cost_usd, now.unpriced, now.tokens.committed) == (None, requests, 20 * requests)
    # What is free by the driver's own word may go on; what has no price may not.
    assert other.status is (AgentStatus.STOPPED if usd is None else AgentStatus.COMPLETED)
    if usd is None:
        assert other.stop_reason is StopReason.COST_BUDGET
        assert "an answer has no known price" in str(other.error)


async def test_what_was_reserved_is_the_cost_of_an_answer_with_an_impossible_one() -> None:
    """As of every answer whose cost is unknown, if it had an estimate."""
    budget = Budget(cost_usd=10.0)
    said = Completion("hi", usage=Usage(10, 10), cost_usd=-5.0)

    async with open_pool(Priced(said, 2.0), budget=budget) as pool:
        outcome = await (await pool.spawn(job())).wait()
    now = budget.statistics()
    assert outcome.cost_usd is None
    assert (now.cost.committed, now.cost.reserved, now.unpriced, now.unmeasured) == (2.0, 0, 0, 1)


@pytest.mark.parametrize("name", USAGES)
async def test_a_usage_that_is_no_count_is_unknown_and_charged(name: str) -> None:
    """Half a token failed the agent after it had paid, and a text broke it."""
    budget, recorder = Budget(tokens=5000), Recorder()
    gate = RequestGate(tokens_per_minute=10**6)
    driver = GatedDriver(FunctionDriver(lambda _: Completion("hi", usage=USAGES[name])), gate)
    async with open_pool(driver, budget=budget, observers=[recorder]) as pool:
        outcome = await (await pool.spawn(job())).wait()
    assert (outcome.text, outcome.usage, outcome.unmeasured_requests) == ("hi", Usage(), 1)
    now = budget.statistics().tokens
    assert now.reserved == 0
    assert type(now.committed) is int
    assert now.committed == gate.statistics().tokens_last_minute
    assert now.committed > 1000
    warned = of_type(recorder.events, AgentWarned)
    assert warned[0].text.startswith("the provider reported the impossible usage ")


async def test_a_tool_lowers_no_bill_with_a_driver_of_its_own() -> None:
    """An answer of minus a hundred dollars cost nothing at all, beside calls that do cost."""
    budget = Budget(cost_usd=500.0)
    paid = FunctionDriver(lambda _: Completion("x", usage=Usage(1, 1), cost_usd=-100.0))

    async def launder(_: str, context: ToolContext) -> str:
        await trio.sleep(1)
        with trio.move_on_after(0.5):
            await trio.sleep(1)
        asked = CompletionRequest([UserMessage("x")], max_tokens=5)
        answer = await context.agent.complete(paid, asked)
        return f"{answer.cost_usd}"

    asking = calling(tool_call("launder", "1"), tool_call("launder", "2"))
    driver = ScriptedDriver(
        [msgspec.structs.replace(asking, cost_usd=0.5), Completion("x", cost_usd=0.4)]
    )
    tools = ToolRegistry([FakeTool("launder", launder)])
    async with open_pool(driver, budget=budget, tools=tools) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "q"))).wait()
    assert (outcome.status, outcome.cost_usd) == (AgentStatus.COMPLETED, None)
    now = budget.statistics()
    assert (now.cost.committed, now.cost.reserved, now.unpriced) == (0.9, 0, 2)
