"""The accounts of a trace add up: with its outcomes, with the budget's books, with the truth.

Providers answer, refuse, break off, hang and send bills with their errors, alone and in
fallbacks; agents have children and tools that ask models; all may be cancelled at any time.
"""

from __future__ import annotations

import math

import attrs
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from agentpool import AgentOutcome, Budget, Capability, RetryPolicy, SpawnConfig, Usage, open_pool
from agentpool.abc import (
    Completion,
    CompletionRequest,
    Driver,
    OnDelta,
    OnSent,
    PrivacyTier,
    SendingDriver,
    ToolContext,
)
from agentpool.drivers import (
    BadRequestError,
    FallbackDriver,
    NetworkError,
    RateLimitError,
    UserMessage,
)
from agentpool.observe import (
    AgentFinished,
    Bill,
    BudgetStatistics,
    Event,
    events_from_json,
    events_to_json,
    record_of,
)
from agentpool.tools import ToolRegistry
from tests.support.fakes import FakeTool, Recorder, calling, manifest, tool_call

STEPS = st.sampled_from(
    ["say", "say", "say unmeasured", "child", "consult", "refuse", "limit", "cut", "bill",
     "bill twice", "bill without a price",
     "stream and hang", "stream and cut", "stream and say", "hang",
     "never leave", "wait at a gate", "connect for ever"]
)  # fmt: skip
"""What a provider does when it is asked."""

PRICES = st.sampled_from([None, 0.0, 0.001])

PARENT = manifest(capabilities=(Capability.spawn(2),))

PATIENCE_SECONDS = 1.0


@attrs.define(eq=False)
class Provider(SendingDriver):
    """Does what the next step says, and counts what left for it."""

    steps: list[str]
    asked: list[str]
    price_usd: float | None

    @property
    def context_window(self) -> None:
        """Unknown."""

    @property
    def privacy(self) -> PrivacyTier:
        """None of its requests leaves this process."""
        return PrivacyTier.SOVEREIGN

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002  # one price
        """Return the price of all tokens."""
        return None if self.price_usd is None else usage.total_tokens * self.price_usd

    async def complete(
        self,
        request: CompletionRequest,  # noqa: ARG002  # the steps say what to do
        *,
        on_delta: OnDelta | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Do the next step."""
        await trio.lowlevel.checkpoint()
        step = self.steps.pop(0) if self.steps else "say"
        if step == "never leave":
            raise NetworkError("no route")
        if step == "connect for ever":
            await trio.sleep_forever()
        if step == "wait at a gate":
            await trio.sleep(0.35)
        assert on_sent is not None
        on_sent()
        self.asked.append(step)
        await trio.sleep(0.25)
        if step.startswith("stream"):
            assert on_delta is not None
            on_delta("some words of an answer")
        if step.endswith("hang"):
            await trio.sleep_forever()
        return answer(step)


def answer(step: str) -> Completion:
    """Return what a provider answers, or raise what it does instead."""
    if step == "refuse":
        raise BadRequestError("no")
    if step == "limit":
        raise RateLimitError("later", retry_after_seconds=0.5)
    if step.endswith("cut"):
        raise NetworkError("cut")
    if step.startswith("bill"):
        error = NetworkError("filtered", retryable=step == "bill twice")
        error.has_begun, error.tokens, error.cost_usd = True, (7, 3), 0.5
        if step == "bill without a price":
            error.cost_usd = None
        raise error
    calls = (tool_call(step),) if step in {"child", "consult"} else ()
    usage = None if step == "say unmeasured" else Usage(20, 5, 4)
    if calls:
        return calling(*calls, usage=usage)
    return Completion("said", usage=usage)


@attrs.define(eq=False)
class Accounts:
    """What was said of one pool, by all who say something."""

    asked: list[str] = attrs.field(factory=list)
    outcomes: list[AgentOutcome] = attrs.field(factory=list)
    """Of agents that the owner spawned: they have what their children used."""
    events: list[Event] = attrs.field(factory=list)
    books: BudgetStatistics | None = None


async def run(
    plans: list[list[str]],
    price_usd: float | None,
    cancel_at: float,
    *,
    patient: bool,
    allowed: int | None,
) -> Accounts:
    """Run an agent for each plan, cancel the first one at *cancel_at*, and return the accounts.

    Together they may make *allowed* requests. ``None``: there is no budget.
    """
    accounts, recorder = Accounts(), Recorder()

    async def child(_: str, context: ToolContext) -> str:
        outcome = await context.agent.run_child("do a part")
        return outcome.text

    def providers(steps: list[str]) -> Driver:
        one, two, three = (Provider(steps, accounts.asked, price_usd) for _ in range(3))
        seconds = None if patient else PATIENCE_SECONDS
        inner = FallbackDriver(two, three, patience_seconds=seconds)
        return FallbackDriver(one, inner, patience_seconds=None if patient else 3.0)

    async def consult(_: str, context: ToolContext) -> str:
        driver = Provider(asides, accounts.asked, price_usd)
        request = CompletionRequest([UserMessage("what do you think?")])
        return (await context.agent.complete(driver, request)).text

    asides = list(plans[-1])
    tools = ToolRegistry([FakeTool("child", child), FakeTool("consult", consult)])
    drivers = iter([providers(list(plan)) for plan in plans])
    budget = None
    if allowed is not None:
        budget = Budget(tokens=10**9, cost_usd=1e6, requests=allowed, allow_unpriced=True)
    async with open_pool(
        lambda _: next(drivers),
        tools=tools,
        observers=[recorder],
        budget=budget,
        request_retries=RetryPolicy(max_attempts=3),
        random_seed=7,
    ) as pool:
        handles = [await pool.spawn(SpawnConfig(PARENT, "hello")) for _ in plans]
        with trio.move_on_after(cancel_at):
            await handles[0].wait()
        handles[0].cancel("enough")
        with trio.move_on_after(100):
            for handle in handles:
                await handle.wait()
        for handle in handles:
            handle.cancel("it hangs")
            accounts.outcomes.append(await handle.wait())
        accounts.books = pool.statistics().budget
    accounts.events = recorder.events
    return accounts


@example(
    plans=[["bill without a price"]], price_usd=0.001, cancel_at=200.0, patient=True, allowed=10**9
)
@given(
    plans=st.lists(st.lists(STEPS, max_size=7), min_size=1, max_size=2),
    price_usd=PRICES,
    cancel_at=st.integers(0, 60).map(lambda tenths: tenths / 10) | st.just(200.0),
    patient=st.booleans(),
    allowed=st.sampled_from([None, 10**9]) | st.integers(1, 9),
)
@example(
    plans=[["hang", "refuse", "say"]],
    price_usd=0.001,
    cancel_at=200.0,
    patient=False,
    allowed=10**9,
)
@example(
    plans=[["cut", "refuse", "connect for ever", "say"]],
    price_usd=0.001,
    cancel_at=200.0,
    patient=False,
    allowed=10**9,
)
@example(plans=[["stream and hang"]], price_usd=0.001, cancel_at=1.0, patient=True, allowed=10**9)
@example(
    plans=[["cut", "wait at a gate"]], price_usd=0.001, cancel_at=0.4, patient=True, allowed=10**9
)
@example(
    plans=[["child", "cut", "say", "consult", "say"], ["bill"]],
    price_usd=None,
    cancel_at=200.0,
    patient=True,
    allowed=10**9,
)
def test_all_accounts_are_the_same(
    plans: list[list[str]],
    price_usd: float | None,
    cancel_at: float,
    *,
    patient: bool,
    allowed: int | None,
) -> None:
    """Requests, tokens, cost and what is unknown, over answers and everything else."""
    accounts = trio.run(
        lambda: run(plans, price_usd, cancel_at, patient=patient, allowed=allowed),
        clock=MockClock(autojump_threshold=0),
    )
    # What the outcomes say is left out: the requests say it all.
    said = [event for event in accounts.events if not isinstance(event, AgentFinished)]
    bill = record_of(said).bill
    read = record_of(events_from_json(events_to_json(accounts.events)))
    assert fields_of(read.bill) == fields_of(bill)
    assert bill.requests == len(accounts.asked)
    assert allowed is None or bill.requests <= allowed
    # As tokens do, those of children count in the outcomes of their parents.
    total, cost_usd, unmeasured = Usage(), 0.0, 0
    for outcome in accounts.outcomes:
        total += outcome.usage
        unmeasured += outcome.unmeasured_requests
        cost_usd += math.nan if outcome.cost_usd is None else outcome.cost_usd
    assert bill.usage == total
    assert bill.unmeasured == unmeasured
    assert_same_cost(bill.cost_usd, None if math.isnan(cost_usd) else cost_usd)
    if accounts.books is not None:
        books = accounts.books
        assert books.requests.committed == bill.requests
        assert books.tokens.committed == bill.budget_tokens
        assert books.unmeasured == bill.charged_requests
        assert_same_cost(books.cost.committed, bill.known_usd + bill.charged_usd)


def fields_of(bill: Bill) -> dict[str, object]:
    """Return what *bill* counts."""
    return {name: getattr(bill, name) for name in bill.__struct_fields__}


def assert_same_cost(one: float | None, other: float | None) -> None:
    """Compare sums of floats that were added in different orders."""
    assert (one is None) == (other is None), (one, other)
    assert abs((one or 0.0) - (other or 0.0)) < 1e-9, (one, other)
