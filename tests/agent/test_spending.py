"""Agents, their children and their tools, which draw on one budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    AgentOutcome,
    AgentStatus,
    Budget,
    Capability,
    DriverError,
    LimitExceededError,
    PrivacyError,
    PrivacyTier,
    RetryPolicy,
    SpawnConfig,
    StopReason,
    Usage,
    UsageError,
    UsageLimits,
    open_pool,
)
from agentpool._agent.spending import REFUSALS
from agentpool.abc import Completion, CompletionRequest, Driver, OnDelta, ToolContext
from agentpool.drivers import (
    AllDriversFailedError,
    BadRequestError,
    FallbackDriver,
    FunctionDriver,
    GatedDriver,
    NetworkError,
    RateLimitError,
    RequestGate,
    ScriptedDriver,
    TokenPrice,
    ToolMessage,
    UserMessage,
    call,
    calls,
    open_openai,
)
from agentpool.drivers._scripted import Step
from agentpool.observe import AgentWarned, BudgetNear, BudgetReached, BudgetStatistics
from agentpool.testing import EventLog, explore, lone_context
from agentpool.tools import TEAM_TOOLS, ToolRegistry
from tests.support.fakes import (
    FakeTool,
    LiveDriver,
    Quota,
    Recorder,
    calling,
    echo_tool,
    hanging_driver,
    job,
    jobs,
    manifest,
    of_type,
    query_of,
    results_of,
    tool_call,
    turns_of,
)
from tests.support.http_servers import DONE, always, event, open_loopback, whole

SPENT = Usage(60, 40)
"""What one answer takes."""


def answer(text: str = "done") -> Completion:
    """Return an answer that took 100 tokens."""
    return Completion(text, usage=SPENT)


def script(*steps: Step, price: float | None = None) -> ScriptedDriver:
    """Return a driver that gives these answers, in this order."""
    return ScriptedDriver(steps, price_per_token_usd=price)


async def run(
    driver: Driver, budget: Budget, config: SpawnConfig | None = None, **pool: object
) -> AgentOutcome:
    """Run one agent that draws on *budget*."""
    async with open_pool(driver, budget=budget, **pool) as agents:  # type: ignore[arg-type]  # by name
        return await (await agents.spawn(config or job())).wait()


def spent(budget: Budget) -> BudgetStatistics:
    """Return what was spent, of a budget of which nothing is set aside any more."""
    now = budget.statistics()
    meters = (now.tokens, now.cost, now.requests, now.tool_calls)
    assert [meter.reserved for meter in meters] == [0, 0, 0, 0]
    return now


# --- requests


@pytest.mark.parametrize("from_outside", [False, True])
async def test_nobody_is_refused_who_is_cancelled(*, from_outside: bool) -> None:
    """What was under way at an abort is charged; who waited for it gets no refusal any more."""
    budget = Budget(tokens=1_500)  # one request may take some thousand
    with trio.CancelScope() as scope:
        async with open_pool(hanging_driver(), max_concurrent=20, budget=budget) as pool:
            handles = await pool.fan_out(job(f"job {n}") for n in range(20))
            await wait_all_tasks_blocked()
            if from_outside:
                scope.cancel()
            else:
                pool.abort_all("enough")
    statuses = {handle.outcome and handle.outcome.status for handle in handles}
    assert statuses == {AgentStatus.CANCELLED}
    assert spent(budget).tokens.committed > 1_000
    assert spent(budget).refused == 0


async def test_ten_agents_and_three_requests_make_three() -> None:
    """Whoever looks at a shared limit after the fact lets all ten through."""
    driver = FunctionDriver(lambda _: answer())
    budget = Budget(requests=3, name="night")
    async with open_pool(driver, max_concurrent=10, budget=budget) as pool:
        await pool.fan_out(job(f"job {n}") for n in range(10))
        outcomes = list((await pool.join_all()).values())
    assert len(driver.requests) == 3
    stopped = [outcome for outcome in outcomes if outcome.status is AgentStatus.STOPPED]
    assert len(stopped) == 7
    error = stopped[0].error
    assert isinstance(error, LimitExceededError)
    assert (error.kind, error.used, error.limit) == ("request_budget", 3, 3)
    assert error.source == "night"
    assert {outcome.stop_reason for outcome in stopped} == {StopReason.REQUEST_BUDGET}
    assert spent(budget).refused == 7


async def test_an_answer_is_charged_and_priced() -> None:
    """By what the provider says it took, not by the estimate."""
    budget = Budget(tokens=5000, cost_usd=20.0)
    outcome = await run(script(answer(), price=0.01), budget)
    assert outcome.status is AgentStatus.COMPLETED
    now = spent(budget)
    assert (now.tokens.committed, now.cost_usd, now.requests.committed) == (100, 1.0, 1)


async def test_an_estimate_that_does_not_fit_is_not_sent() -> None:
    """Budgets were checked when the money was spent."""
    driver = script(answer())
    outcome = await run(driver, Budget(tokens=1000))
    assert outcome.stop_reason is StopReason.TOKEN_BUDGET
    assert driver.requests == ()
    # The estimate: 2 tokens of text and 4 of marks, 16 of the system prompt, 1024 of answer.
    assert "1,046 are wanted" in str(outcome.error)


async def test_the_answer_that_passes_a_budget_is_kept_and_flagged() -> None:
    """A finished answer that crossed a limit was thrown away."""
    budget = Budget(tokens=1100)
    outcome = await run(script(Completion("dear", usage=Usage(2000, 5))), budget)
    assert (outcome.status, outcome.text, outcome.over_budget) == (
        AgentStatus.COMPLETED,
        "dear",
        True,
    )
    assert spent(budget).tokens.committed == 2005


async def test_a_stopped_agent_keeps_what_it_had() -> None:
    """Its last words, its history with every result, its usage."""
    tools = ToolRegistry([echo_tool()])
    asked = Completion("let me see", call("echo", a=1).tool_calls, usage=SPENT)
    budget = Budget(requests=1)
    outcome = await run(script(asked, "never said"), budget, tools=tools)
    assert (outcome.status, outcome.text) == (AgentStatus.STOPPED, "let me see")
    assert outcome.usage == SPENT
    assert (outcome.tool_calls_run, len(outcome.messages)) == (1, 3)


async def test_every_attempt_is_a_request(autojump_clock: MockClock) -> None:
    """A provider counts what it was sent, and so does the budget; a refusal takes no tokens."""
    budget = Budget(requests=3, tokens=10_000)
    refusals = [RateLimitError("slow down"), RateLimitError("slower")]
    assert (await run(script(*refusals, answer()), budget)).text == "done"
    now = spent(budget)
    assert (now.requests.committed, now.tokens.committed, now.unmeasured) == (3, 100, 0)


async def test_a_retry_that_is_not_allowed_stops_the_run(autojump_clock: MockClock) -> None:
    """The limit is why there is no answer, so the outcome says that."""
    outcome = await run(script(RateLimitError("slow down"), answer()), Budget(requests=1))
    assert outcome.stop_reason is StopReason.REQUEST_BUDGET


@pytest.mark.parametrize(
    ("error", "unmeasured"),
    [
        (BadRequestError("no"), 0),
        (AllDriversFailedError("none", errors=[BadRequestError("no")]), 0),
        (AllDriversFailedError("none", errors=[NetworkError("cut", retryable=False)]), 1),
        (NetworkError("cut", retryable=False), 1),
        (ValueError("broken"), 1),
    ],
)
async def test_a_failed_request_is_charged_by_what_is_known(
    error: Exception, unmeasured: int
) -> None:
    """A provider that refuses takes nothing; of a line that broke nobody knows."""
    budget = Budget(tokens=5000)
    outcome = await run(script(error), budget)
    assert outcome.status is AgentStatus.FAILED
    now = spent(budget)
    assert now.requests.committed == 1
    assert now.unmeasured == unmeasured
    assert now.tokens.committed == (1046 if unmeasured else 0)


async def test_a_refusal_after_a_piece_of_the_answer_is_no_refusal() -> None:
    """The model wrote, so somebody pays."""

    async def broken(_: CompletionRequest, on_delta: OnDelta) -> Completion:
        await trio.lowlevel.checkpoint()
        on_delta("well")
        raise RateLimitError("slow down")

    budget = Budget(tokens=5000)
    await run(LiveDriver(broken), budget)
    assert spent(budget).unmeasured == 1


async def test_a_cancelled_request_charges_what_was_set_aside(autojump_clock: MockClock) -> None:
    """It was under way, and nobody will say what it took."""
    budget = Budget(tokens=5000)

    async def slow(_: CompletionRequest) -> Completion:
        await trio.sleep(60)
        return answer()

    async with open_pool(FunctionDriver(slow), budget=budget) as pool:
        handle = await pool.spawn(job())
        await trio.sleep(1)
        assert budget.statistics().tokens.reserved == 1046
        handle.cancel("enough")
        await handle.wait()
    now = spent(budget)
    assert (now.tokens.committed, now.unmeasured) == (1046, 1)


async def test_g16_who_is_cancelled_before_its_request_is_charged_nothing() -> None:
    """A pool that was aborted at its start had spent its budget on requests nobody made."""
    driver, budget = script(answer()), Budget(tokens=5000)
    async with open_pool(driver, budget=budget) as pool:
        handle = pool.spawn_nowait(job())
        pool.abort_all("enough")
        assert (await handle.wait()).status is AgentStatus.CANCELLED
    now = spent(budget)
    assert (now.tokens.committed, now.requests.committed, now.unmeasured) == (0, 0, 0)


async def test_g16_who_is_cancelled_before_it_asks_again_is_charged_for_one(
    autojump_clock: MockClock,
) -> None:
    """The retry waited for a slot, went on without one, and was charged."""
    budget = Budget(tokens=5000)

    async def refuse(request: CompletionRequest) -> Completion:
        if query_of(request) == "refused":
            raise RateLimitError("slow down", retry_after_seconds=1)
        await trio.sleep(60)
        return answer()

    driver = FunctionDriver(refuse)
    async with open_pool(driver, budget=budget, max_concurrent=1) as pool:
        handle, _ = await pool.fan_out(jobs("refused", "busy"))
        await trio.sleep(30)
        handle.cancel("enough")
        assert (await handle.wait()).status is AgentStatus.CANCELLED
        assert budget.statistics().requests.reserved == 1
        await pool.join_all()
    now = spent(budget)
    assert (now.tokens.committed, now.requests.committed, now.unmeasured) == (100, 2, 0)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(-500, 0),
        Usage(5, -1),
        Usage(5, 1, cached_tokens=-1),
        Usage(5, 1, cache_write_tokens=-1),
        Usage(5, 1, cache_write_hour_tokens=-1),
    ],
    ids=repr,
)
async def test_a_usage_that_means_nothing_is_unknown_and_charged(usage: Usage) -> None:
    """Negative tokens were a refund; they are a provider's fault, and the answer is good."""
    budget = Budget(tokens=5000)
    recorder = Recorder()
    async with open_pool(
        script(Completion("hi", usage=usage)), budget=budget, observers=[recorder]
    ) as pool:
        outcome = await (await pool.spawn(job())).wait()
    assert (outcome.text, outcome.usage, outcome.unmeasured_requests) == ("hi", Usage(), 1)
    assert spent(budget).tokens.committed == 1046
    (warned,) = of_type(recorder.events, AgentWarned)
    assert warned.text.startswith("the provider reported the impossible usage Usage(")
    assert warned.text.endswith("; it is counted as unknown")


async def test_a_usage_of_zero_is_known() -> None:
    """An answer without a word costs its question alone."""
    for usage in (Usage(5, 0), Usage(0, 5)):
        recorder = Recorder()
        async with open_pool(script(Completion("hi", usage=usage)), observers=[recorder]) as pool:
            outcome = await (await pool.spawn(job())).wait()
        assert (outcome.usage, outcome.unmeasured_requests) == (usage, 0)
        assert not of_type(recorder.events, AgentWarned)


@pytest.mark.parametrize("cost_usd", [-0.5, math.inf, math.nan])
async def test_a_cost_that_means_nothing_is_unknown(cost_usd: float) -> None:
    """It is neither a refund nor an error of the calling code."""
    answers = script(Completion("hi", usage=Usage(5, 1), cost_usd=cost_usd))
    outcome = await run(answers, Budget(cost_usd=1.0))
    assert (outcome.text, outcome.cost_usd) == ("hi", None)


async def test_a_price_that_nobody_knows_is_said() -> None:
    """A driver without prices cost nothing, so the cost limit never held."""
    budget = Budget(cost_usd=5.0, name="night")
    async with open_pool(script(answer(), answer()), max_concurrent=1, budget=budget) as pool:
        await pool.fan_out(jobs("a", "b"))
        first, second = (await pool.join_all()).values()
        now = pool.statistics().budget
    assert (first.status, first.cost_usd) == (AgentStatus.COMPLETED, None)
    assert (second.status, second.stop_reason) == (AgentStatus.STOPPED, StopReason.COST_BUDGET)
    assert "an answer has no known price" in str(second.error)
    assert now is not None
    assert (now.cost_usd, now.unpriced) == (None, 1)


class Priced(Driver):
    """A driver that says which model answered, and notes which one is to be priced."""

    def __init__(self) -> None:
        """Begin with an empty list."""
        self.models: list[str | None] = []

    async def complete(
        self,
        request: CompletionRequest,  # noqa: ARG002  # as in the seam
        *,
        on_delta: OnDelta | None = None,  # noqa: ARG002  # as in the seam
    ) -> Completion:
        """Answer at once."""
        await trio.lowlevel.checkpoint()
        return Completion("hi", usage=SPENT, model="answerer")

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002  # as in the seam
        """Note it."""
        self.models.append(model)
        return 0.0

    @property
    def context_window(self) -> int | None:
        """Nobody knows."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """Here."""
        return PrivacyTier.SOVEREIGN


async def test_the_models_own_price_is_asked_for() -> None:
    """Before the request that of the model that is asked, and then of the one that answered."""
    driver = Priced()
    await run(driver, Budget(cost_usd=1.0))
    assert driver.models == [None, "answerer"]


@pytest.mark.parametrize("usage", [SPENT, None])
async def test_a_cost_that_comes_with_an_answer_is_not_computed(usage: Usage | None) -> None:
    """The provider knows its own prices, with a usage or without."""

    async def ask(_: CompletionRequest) -> Completion:
        await trio.lowlevel.checkpoint()
        return Completion("hi", usage=usage, cost_usd=0.25)

    class Dear(FunctionDriver):  # type: ignore[misc]  # one with a price
        def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002  # as in the seam
            return 99.0

    outcome = await run(Dear(ask), Budget())
    assert (outcome.status, outcome.cost_usd) == (AgentStatus.COMPLETED, 0.25)


# --- waiting


async def test_agents_wait_for_what_others_have_set_aside(autojump_clock: MockClock) -> None:
    """Four requests fit one after the other and not side by side; nobody is stopped."""

    async def slow(_: CompletionRequest) -> Completion:
        await trio.sleep(1)
        return answer()

    budget = Budget(tokens=1500)
    async with open_pool(FunctionDriver(slow), max_concurrent=4, budget=budget) as pool:
        await pool.fan_out(jobs("a", "b", "c", "d"))
        await wait_all_tasks_blocked()
        parked = pool.statistics().parked
        outcomes = await pool.join_all()
    assert parked == 3
    assert [outcome.status for outcome in outcomes.values()] == [AgentStatus.COMPLETED] * 4
    assert trio.current_time() == 4
    assert spent(budget).tokens.committed == 400


async def test_one_that_waits_holds_no_slot(autojump_clock: MockClock) -> None:
    """So a pool of one is not held up by a budget that another pool has set aside."""
    budget = Budget(tokens=1500)

    async def slow(request: CompletionRequest) -> Completion:
        await trio.sleep(5 if query_of(request) == "other pool" else 0)
        return answer()

    driver = FunctionDriver(slow)
    async with (
        open_pool(driver, budget=budget) as other,
        open_pool(driver, max_concurrent=1) as pool,
    ):
        await other.spawn(job("other pool"))
        await wait_all_tasks_blocked()
        own = SpawnConfig(manifest(), "waits", budget=budget)
        waits, free = await pool.fan_out([own, job("free")])
        await free.wait()
        assert (trio.current_time(), waits.status) == (0, AgentStatus.PARKED)
        assert (await waits.wait()).status is AgentStatus.COMPLETED
    assert trio.current_time() == 5


async def test_who_is_cancelled_while_it_waits_has_set_nothing_aside(
    autojump_clock: MockClock,
) -> None:
    """Nothing was sent for it."""
    budget = Budget(tokens=1500)

    async def slow(_: CompletionRequest) -> Completion:
        await trio.sleep(1)
        return answer()

    async with open_pool(FunctionDriver(slow), budget=budget) as pool:
        first = await pool.spawn(job("a"))
        await wait_all_tasks_blocked()
        second = await pool.spawn(job("b"))
        await wait_all_tasks_blocked()
        second.cancel("enough")
        assert (await second.wait()).status is AgentStatus.CANCELLED
        await first.wait()
    now = spent(budget)
    assert (now.requests.committed, now.tokens.committed) == (1, 100)


@pytest.mark.parametrize("spent", [5, 60])
def test_who_is_cancelled_as_it_gets_its_turn_keeps_nothing(spent: int) -> None:
    """Of the reservation, or of the refusal, that came after the cancellation."""

    async def scenario() -> None:
        go = trio.Event()

        async def answer(_: CompletionRequest, __: OnDelta) -> Completion:
            await go.wait()
            return Completion("done", usage=Usage(0, spent))

        budget = Budget(tokens=100)
        async with open_pool(LiveDriver(answer), budget=budget) as pool:
            config = SpawnConfig(manifest(max_tokens=50), "hello")
            await pool.spawn(config)
            await wait_all_tasks_blocked()
            late = await pool.spawn(config)
            await wait_all_tasks_blocked()
            late.cancel()
            go.set()
            assert (await late.wait()).status is AgentStatus.CANCELLED
        statistics = budget.statistics()
        assert (statistics.tokens.committed, statistics.tokens.reserved) == (spent, 0)
        assert statistics.refused == 0

    explore(scenario, schedules=20)


async def test_a_call_that_gives_up_wants_nothing_while_it_waits_for_its_slot(
    autojump_clock: MockClock,
) -> None:
    """What it was granted then stood idle for as long as others had the slots."""
    budget = Budget(tokens=2000)

    async def think(request: CompletionRequest) -> Completion:
        await trio.sleep({"slow": 10, "busy": 100}.get(query_of(request), 0))
        if query_of(request) == "hurried" and not results_of(request):
            return calling(tool_call("ask_model"), usage=SPENT)
        return answer()

    hurry = asking(script("never asked"), timeout_seconds=2)
    driver = FunctionDriver(think)
    async with (
        open_pool(driver, budget=budget) as other,
        open_pool(driver, tools=ToolRegistry([hurry]), max_concurrent=1) as pool,
    ):
        hurried = SpawnConfig(manifest(), "hurried", budget=budget)
        handle, _ = await pool.fan_out([hurried, job("busy")])
        await other.spawn(job("slow"))
        await trio.sleep(20)
        assert handle.status is AgentStatus.PARKED
        assert spent(budget).tokens.committed == 200
    assert spent(budget).tokens.committed == 300


async def test_one_that_waits_at_a_gate_is_waited_for(autojump_clock: MockClock) -> None:
    """It waits for its provider and for no agent, so what it has set aside comes back."""
    gate = RequestGate(max_in_flight=1, random_seed=0)

    async def slow(_: CompletionRequest) -> Completion:
        await trio.sleep(1)
        return answer()

    budget = Budget(tokens=2500)
    driver = GatedDriver(FunctionDriver(slow), gate)
    async with open_pool(driver, max_concurrent=4, budget=budget) as pool:
        await pool.fan_out(jobs("a", "b", "c", "d"))
        outcomes = await pool.join_all()
    assert [outcome.status for outcome in outcomes.values()] == [AgentStatus.COMPLETED] * 4
    assert spent(budget).tokens.committed == 400


async def test_who_waits_for_one_that_waits_for_it_is_told(autojump_clock: MockClock) -> None:
    """A driver that runs a pool of its own: its agents must not wait for their own request."""
    budget = Budget(tokens=1500)

    async def nested(request: CompletionRequest) -> Completion:
        async with open_pool(script(answer("inner")), budget=budget) as inner:
            outcome = await (await inner.spawn(job("inner"))).wait()
        return answer(f"inner: {outcome.status.value}")

    outcome = await run(FunctionDriver(nested), budget)
    assert outcome.text == "inner: stopped"
    assert trio.current_time() == 0


# --- runs and children


async def test_a_run_spends_of_its_own_budget_and_of_the_pools() -> None:
    """Whichever is narrower stops it."""
    pool_budget = Budget(requests=10, name="pool")
    own = Budget(requests=1, parent=pool_budget, name="own")
    tools = ToolRegistry([echo_tool()])
    config = SpawnConfig(manifest(), "go", budget=own)
    outcome = await run(script(call("echo"), "x"), pool_budget, config, tools=tools)
    assert isinstance(outcome.error, LimitExceededError)
    assert outcome.error.source == "own"
    assert spent(pool_budget).requests.committed == spent(own).requests.committed == 1


async def test_a_budget_beside_the_pools_is_refused_and_changes_nothing() -> None:
    """Nobody gets around a budget by bringing another one."""
    async with open_pool(script("hi"), budget=Budget(requests=1, name="pool")) as pool:
        before = pool.statistics()
        beside = SpawnConfig(manifest(), "go", budget=Budget(name="beside"))
        with pytest.raises(UsageError, match="budget 'beside' of agent 'worker' is not part of"):
            pool.spawn_nowait(beside)
        with pytest.raises(UsageError, match="make it with parent="):
            pool.fan_out_nowait([job(), beside])
        assert pool.statistics() == before


def parent(request: CompletionRequest) -> Completion:
    """Have a child once, and repeat what it says; children answer at once."""
    if query_of(request) != "parent":
        return answer()
    results = results_of(request)
    if results:
        return answer(results[-1].content)
    asked = call("spawn_agent", query="child")
    return Completion("", asked.tool_calls, asked.finish_reason, SPENT)


FAMILY = (Capability.spawn(3),)


@pytest.mark.parametrize(("requests", "made"), [(1, 1), (2, 2), (3, 3)])
async def test_children_spend_of_their_parents_budget(requests: int, made: int) -> None:
    """Every child had the whole budget of its parent, and told nobody."""
    driver = FunctionDriver(parent)
    budget = Budget(requests=10)
    own = Budget(requests=requests, parent=budget, name="own")
    config = SpawnConfig(manifest(capabilities=FAMILY), "parent", budget=own)
    outcome = await run(driver, budget, config, tools=ToolRegistry(TEAM_TOOLS))
    assert len(driver.requests) == made
    assert (outcome.status is AgentStatus.COMPLETED) is (requests == 3)
    assert spent(budget).requests.committed == spent(own).requests.committed == made


@pytest.mark.parametrize("limit", [{"max_tokens_budget": 350}, {"max_cost_usd": 3.5}])
async def test_children_side_by_side_share_what_is_left(limit: Quota) -> None:
    """Each of them had all that was left, so five could use five times as much."""

    def answers(request: CompletionRequest) -> Completion:
        if query_of(request) == "parent":
            five = calls(*(call("spawn_agent", query=f"child {n}") for n in range(5)))
            return Completion("", five.tool_calls, five.finish_reason, SPENT)
        return Completion("", call("echo", n=turns_of(request)).tool_calls, usage=SPENT)

    driver = FunctionDriver(answers, price_per_token_usd=0.01)
    config = SpawnConfig(manifest(capabilities=FAMILY, **limit), "parent")
    tools = ToolRegistry([*TEAM_TOOLS, echo_tool()])
    async with open_pool(driver, max_concurrent=1, tools=tools) as pool:
        outcome = await (await pool.spawn(config)).wait()
    # 100 of its own, and then whoever is not above the 250 that are left may ask once more.
    assert len(driver.requests) == 1 + 3
    assert outcome.usage.total_tokens == 400
    assert outcome.status is AgentStatus.STOPPED


async def test_an_agent_that_a_tool_spawns_spends_of_the_same_budget() -> None:
    """Also one that is spawned by hand, in the pool itself."""
    budget = Budget(name="pool")
    own = Budget(requests=2, parent=budget, name="own")
    asked: list[Budget | None] = []

    async def spawn(_: str, context: ToolContext) -> str:
        asked.append(context.budget)
        handle = await pool.spawn(job("by hand"))
        return (await handle.wait()).status.value

    def answers(request: CompletionRequest) -> Completion:
        return call("spawn") if turns_of(request) == 0 else answer()

    tools = ToolRegistry([FakeTool("spawn", spawn)])
    async with open_pool(FunctionDriver(answers), budget=budget, tools=tools) as pool:
        config = SpawnConfig(manifest(), "go", budget=own)
        await (await pool.spawn(config)).wait()
    assert asked[0] is own
    # One request of the first, one of the second, and the third agent's was refused.
    assert spent(own).requests.committed == spent(budget).requests.committed == 2


# --- tools


async def test_tool_calls_are_counted_exactly() -> None:
    """Five calls of one answer, and a budget of two: two run, and all have a result."""
    echo = echo_tool()
    five = calls(*(call("echo", n=n) for n in range(5)))
    budget = Budget(tool_calls=2, name="night")
    outcome = await run(script(five, "x"), budget, tools=ToolRegistry([echo]))
    assert outcome.stop_reason is StopReason.TOOL_CALL_BUDGET
    assert len(echo.calls) == outcome.tool_calls_run == 2
    results = [m for m in outcome.messages if isinstance(m, ToolMessage)]
    # They begin in no particular order, and each has its result in its place.
    assert sorted(result.is_error for result in results) == [False, False, True, True, True]
    refused = next(result for result in results if result.is_error)
    assert "not run: budget 'night' has too little left" in refused.content
    assert spent(budget).tool_calls.committed == 2


def asking(driver: Driver, timeout_seconds: float | None = None) -> FakeTool:
    """Return a tool that asks a model of its own."""

    async def ask(arguments: str, context: ToolContext) -> str:
        request = CompletionRequest([UserMessage(arguments)], max_tokens=1024)
        pieces: list[str] = []
        completion = await context.agent.complete(driver, request, on_delta=pieces.append)
        assert "".join(pieces) in {"", completion.text}
        return completion.text

    return FakeTool("ask_model", ask, timeout_seconds=timeout_seconds)


async def test_a_tool_that_asks_a_model_spends_of_the_agents_budget() -> None:
    """Sub-inference was outside of every limit."""
    inner = script(answer("inner"), price=0.001)
    driver = script(call("ask_model"), answer(), price=0.0)
    budget = Budget(requests=3, cost_usd=10.0)
    outcome = await run(driver, budget, tools=ToolRegistry([asking(inner)]))
    assert outcome.status is AgentStatus.COMPLETED
    now = spent(budget)
    assert (now.requests.committed, now.cost.committed) == (3, 0.1)
    # It counts for the run as well, so that the run's own limits hold for it.
    assert outcome.usage.total_tokens == now.tokens.committed
    assert outcome.cost_usd == 0.1


async def test_a_tools_model_is_not_asked_without_budget() -> None:
    """The tool fails, the model is told, and the run's own next request is stopped."""
    inner = script("never asked")
    budget = Budget(requests=1)
    outcome = await run(
        script(call("ask_model"), "never said"), budget, tools=ToolRegistry([asking(inner)])
    )
    assert inner.requests == ()
    assert outcome.stop_reason is StopReason.REQUEST_BUDGET
    assert "LimitExceededError" in str(outcome.messages[-1])


async def test_a_tools_model_counts_for_the_run_without_any_budget() -> None:
    """The run's own limits are for all that it causes."""
    inner = script(Completion("inner", usage=Usage(500, 500)))
    config = SpawnConfig(manifest(max_tokens_budget=600), "go")
    async with open_pool(script(call("ask_model"), "x"), tools=ToolRegistry([asking(inner)])) as p:
        outcome = await (await p.spawn(config)).wait()
    assert outcome.stop_reason is StopReason.TOKEN_BUDGET
    assert outcome.usage.total_tokens >= 1000


async def test_a_tools_model_is_asked_again_as_the_agents_own(autojump_clock: MockClock) -> None:
    """A tool need not know about rate limits."""
    inner = script(RateLimitError("slow down"), answer("inner"))
    budget = Budget(requests=10)
    await run(script(call("ask_model"), "x"), budget, tools=ToolRegistry([asking(inner)]))
    assert spent(budget).requests.committed == 4


async def test_g17_a_tools_model_is_held_to_the_agents_privacy() -> None:
    """What the agent may not send, its tools may not send for it."""
    inner = ScriptedDriver(["never asked"], privacy=PrivacyTier.STANDARD)
    told: list[Exception] = []

    async def ask(_: str, context: ToolContext) -> str:
        try:
            await context.agent.complete(inner, CompletionRequest([UserMessage("hi")]))
        except PrivacyError as error:
            told.append(error)
        return "refused"

    await run(script(call("ask"), "x"), Budget(), tools=ToolRegistry([FakeTool("ask", ask)]))
    assert inner.requests == ()
    assert "is Sovereign, and the driver of a tool is Standard" in str(told[0])


async def test_a_tool_spends_by_hand() -> None:
    """Whatever else costs something."""

    async def buy(_: str, context: ToolContext) -> str:
        await trio.lowlevel.checkpoint()
        assert context.budget is not None
        with context.budget.reserve(cost_usd=0.5) as reservation:
            reservation.commit(tokens=0, cost_usd=0.25)
        return "bought"

    budget = Budget(cost_usd=1.0)
    tools = ToolRegistry([FakeTool("buy", buy)])
    await run(script(call("buy"), "x", price=0.0), budget, tools=tools)
    assert spent(budget).cost_usd == 0.25


async def test_a_lone_tool_has_no_budget_and_may_ask() -> None:
    """A tool is tested outside of any pool."""
    context = lone_context()
    assert context.budget is None
    request = CompletionRequest([UserMessage("hi")])
    assert (await context.agent.complete(script("hello"), request)).text == "hello"


# --- limits of one run


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (UsageLimits(request_limit=1), StopReason.MAX_ITERATIONS),
        (UsageLimits(tool_calls_limit=1), StopReason.MAX_TOOL_CALLS),
        (UsageLimits(total_tokens_limit=150), StopReason.TOKEN_BUDGET),
        (UsageLimits(cost_limit_usd=1.5), StopReason.COST_BUDGET),
    ],
)
async def test_limits_of_a_run_are_its_guards(limits: UsageLimits, reason: StopReason) -> None:
    """In the field's words, and with the guard's own reasons."""
    steps = [Completion("", call("echo", n=n).tool_calls, usage=SPENT) for n in range(5)]
    config = SpawnConfig(manifest(), "go", limits=limits)
    tools = ToolRegistry([echo_tool()])
    async with open_pool(script(*steps, price=0.01), tools=tools) as pool:
        outcome = await (await pool.spawn(config)).wait()
    assert outcome.stop_reason is reason
    assert isinstance(outcome.error, LimitExceededError)
    assert outcome.error.source == "guard"
    assert "[resources]" not in str(outcome.error)  # no key of the manifest has this number


async def test_a_child_has_its_parents_limits(autojump_clock: MockClock) -> None:
    """What narrows a run narrows everything below it."""
    config = SpawnConfig(
        manifest(capabilities=FAMILY),
        "parent",
        limits=UsageLimits(cost_limit_usd=1.5, total_tokens_limit=1000),
    )
    driver = FunctionDriver(parent, price_per_token_usd=0.01)
    async with open_pool(driver, tools=ToolRegistry(TEAM_TOOLS)) as pool:
        outcome = await (await pool.spawn(config)).wait()
    # The child's answer passed what was left, so it is flagged, and the parent stops.
    assert outcome.stop_reason is StopReason.COST_BUDGET
    assert outcome.cost_usd == 2.0


# --- telling


async def test_observers_are_told_once_that_a_limit_is_near_and_reached() -> None:
    """The warning at four fifths was thrown away."""
    log = EventLog()
    driver = FunctionDriver(lambda _: answer())
    budget = Budget(requests=5, name="night")
    async with open_pool(driver, max_concurrent=1, budget=budget, observers=[log]) as pool:
        await pool.fan_out(job(f"job {n}") for n in range(8))
        await pool.join_all()
    (near,) = of_type(log.events, BudgetNear)
    (reached,) = of_type(log.events, BudgetReached)
    assert (near.budget, near.kind, near.used, near.limit) == (
        "night",
        StopReason.REQUEST_BUDGET,
        4,
        5,
    )
    assert (near.agent_id, reached.agent_id, reached.used) == (4, 5, 5)
    log.check()


async def test_a_pool_without_a_budget_says_so() -> None:
    """None is not a budget of which nothing was spent."""
    recorder = Recorder()
    async with open_pool(script("hi"), observers=[recorder]) as pool:
        await (await pool.spawn(job())).wait()
        assert pool.statistics().budget is None
    assert not of_type(recorder.events, BudgetNear)


async def test_two_pools_share_a_budget() -> None:
    """It belongs to nobody, and lasts as long as somebody has it."""
    budget = Budget(requests=3)
    counts: list[Sequence[AgentStatus]] = []
    for _ in range(2):
        async with open_pool(script(answer(), answer()), budget=budget) as pool:
            await pool.fan_out(jobs("a", "b"))
            # Two agents start at once, so which one comes too late is the scheduler's choice.
            ends = [outcome.status for outcome in (await pool.join_all()).values()]
            counts.append(sorted(ends, key=lambda status: status.value))
    assert counts == [
        [AgentStatus.COMPLETED, AgentStatus.COMPLETED],
        [AgentStatus.COMPLETED, AgentStatus.STOPPED],
    ]


def test_what_the_model_wrote_is_no_refusal() -> None:
    """Whatever comes after an answer, or in the middle of one, was paid for."""
    kinds = DriverError.__subclasses__()
    charged = {kind.__name__ for kind in kinds if kind not in REFUSALS}
    assert charged >= {"InvalidOutputError", "NetworkError", "ProtocolError"}
    assert set(REFUSALS) <= set(kinds)


# --- what a mutation once got past


@pytest.mark.parametrize("tokens", [5_000, None])
async def test_a_refusal_is_free_and_known_to_be(tokens: int | None) -> None:
    """It is measured and priced: at nothing, but for the request itself."""
    budget = Budget(tokens=tokens, cost_usd=None if tokens else 5.0)
    outcome = await run(script(BadRequestError("no"), price=0.001), budget)
    assert outcome.status is AgentStatus.FAILED
    now = spent(budget)
    assert (now.tokens.committed, now.cost_usd, now.requests.committed) == (0, 0.0, 1)
    assert (now.unmeasured, now.unpriced) == (0, 0)


CHAT_USAGE = {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}


def ending(delta: dict[str, str], finish: str) -> list[dict[str, object]]:
    """Return the end of an answer in Chat Completions."""
    return [{"choices": [{"delta": delta}]}, {"choices": [{"delta": {}, "finish_reason": finish}]}]


@pytest.mark.parametrize(
    ("events", "tokens", "unmeasured"),
    [
        ([*ending({"refusal": "I can't."}, "stop"), CHAT_USAGE], 1500, 0),
        ([*ending({"reasoning_content": "hm"}, "content_filter"), CHAT_USAGE], 1500, 0),
        ([*ending({}, "content_filter"), CHAT_USAGE], 1500, 0),
        ([*ending({}, "insufficient_system_resource"), CHAT_USAGE], 1500, 0),
        ([*ending({}, "no word"), CHAT_USAGE], 1500, 0),
        (ending({"reasoning_content": "hm"}, "content_filter"), 1046, 1),
        (ending({}, "content_filter"), 0, 0),
        (
            [
                *ending({}, "error"),
                {"choices": [], "usage": {"prompt_tokens": -9, "completion_tokens": 2}},
            ],
            1046,
            1,
        ),
    ],
)
async def test_a_refusal_at_the_end_of_an_answer_is_charged(
    events: list[dict[str, object]], tokens: int, unmeasured: int
) -> None:
    """By what the provider says, and it is unknown where something came and it says nothing."""
    body = b"".join(event(one) for one in events) + DONE
    price = TokenPrice(input_usd_per_million=1, output_usd_per_million=2)
    budget = Budget(tokens=100_000)
    async with (
        open_loopback(always(whole(body))) as server,
        open_openai("m", base_url=server.url, price=price, privacy=PrivacyTier.SOVEREIGN) as driver,
    ):
        once = RetryPolicy(max_attempts=1)
        outcome = await run(driver, budget, request_retries=once)
    assert outcome.status is AgentStatus.FAILED
    now = spent(budget)
    assert (now.tokens.committed, now.requests.committed) == (tokens, 1)
    assert (now.unmeasured, outcome.unmeasured_requests) == (unmeasured, unmeasured)
    if tokens == 1500:
        assert outcome.usage == Usage(1000, 500)
        assert outcome.cost_usd == now.cost_usd == pytest.approx(0.002)


async def test_several_drivers_took_nothing_only_if_each_of_them_refused() -> None:
    """One that broke off may have been billed, whatever the other one said."""

    def failing(error: DriverError) -> FunctionDriver:
        def fail(_: CompletionRequest) -> Completion:
            raise error

        return FunctionDriver(fail)

    broken = NetworkError("reset", retryable=False)
    for drivers, charged in (
        ([failing(BadRequestError("no")), failing(broken)], 1),
        ([failing(BadRequestError("no")), failing(BadRequestError("nor this"))], 0),
    ):
        budget = Budget(tokens=5_000)
        outcome = await run(FallbackDriver(*drivers), budget)
        assert isinstance(outcome.error, AllDriversFailedError)
        assert (spent(budget).unmeasured, outcome.unmeasured_requests) == (charged, charged)
        assert (spent(budget).tokens.committed > 0) is bool(charged)


async def test_a_fallback_of_ones_own_took_nothing_where_each_of_its_drivers_refused() -> None:
    """Any driver may raise it, and knows alone what those below it were told."""
    no, broken = BadRequestError("no"), NetworkError("reset", retryable=False)
    for errors, charged in (((no, no), 0), ((), 0), ((no, broken), 1), ((broken, no), 1)):
        budget = Budget(tokens=5_000)
        outcome = await run(raising(AllDriversFailedError("none", errors=errors)), budget)
        assert isinstance(outcome.error, AllDriversFailedError)
        assert (spent(budget).unmeasured, outcome.unmeasured_requests) == (charged, charged)


def raising(error: DriverError) -> FunctionDriver:
    """Return a driver that fails each time."""

    def fail(_: CompletionRequest) -> Completion:
        raise error

    return FunctionDriver(fail)


def billed(error: DriverError) -> DriverError:
    """Return *error* as the end of an answer that took 30 tokens and ten cents."""
    error.has_begun, error.tokens, error.cost_usd = True, (10, 20), 0.1
    return error


@pytest.mark.parametrize(
    ("error", "requests", "tokens", "unmeasured"),
    [
        (NetworkError("cut"), 4, 1146, 1),
        (billed(BadRequestError("filtered")), 4, 130, 0),
        (BadRequestError("no"), 4, 100, 0),
    ],
)
@pytest.mark.parametrize("has_budget", [True, False])
async def test_what_a_driver_took_is_counted_though_another_one_answered(
    error: DriverError, requests: int, tokens: int, unmeasured: int, *, has_budget: bool
) -> None:
    """The attempt was paid for, and was in no budget and no outcome. A refusal is a request."""
    budget = Budget(tokens=5_000)
    inner = FallbackDriver(raising(RateLimitError("busy")), raising(BadRequestError("no")))
    driver = FallbackDriver(inner, raising(error), script(answer()))
    if has_budget:
        outcome = await run(driver, budget)
        now = spent(budget)
        assert (now.requests.committed, now.tokens.committed) == (requests, tokens)
        assert now.unmeasured == unmeasured
    else:
        async with open_pool(driver) as pool:
            outcome = await (await pool.spawn(job())).wait()
    assert (outcome.text, outcome.unmeasured_requests) == ("done", unmeasured)
    assert outcome.usage.total_tokens == (130 if tokens == 130 else 100)


async def test_drivers_that_broke_off_are_each_counted() -> None:
    """Not as one attempt, also where none of them answered."""
    budget = Budget(tokens=5_000)
    cut = NetworkError("cut", retryable=False)
    outcome = await run(FallbackDriver(raising(cut), raising(cut), raising(cut)), budget)
    assert outcome.unmeasured_requests == spent(budget).unmeasured == 3
    assert spent(budget).requests.committed == 3


async def test_a_tools_model_is_not_asked_again_once_it_has_said_something(
    autojump_clock: MockClock,
) -> None:
    """It would be said twice: the tool has the first words already."""
    pieces: list[str] = []

    async def break_off(_: CompletionRequest, on_delta: OnDelta) -> str:
        await trio.lowlevel.checkpoint()
        on_delta("once upon")
        raise NetworkError("reset")

    inner = LiveDriver(break_off)

    async def consult(_: str, context: ToolContext) -> str:
        request = CompletionRequest([UserMessage("hi")])
        answered = await context.agent.complete(inner, request, on_delta=pieces.append)
        return answered.text  # pragma: no cover

    driver = script(calling(tool_call("consult")), answer())
    tools = ToolRegistry([FakeTool("consult", consult)])
    async with open_pool(driver, tools=tools) as pool:
        outcome = await (await pool.spawn(job())).wait()
    assert (inner.calls, pieces, outcome.text) == (1, ["once upon"], "done")
    assert outcome.unmeasured_requests == 1


async def test_a_tool_is_told_by_which_limit_its_model_was_not_asked() -> None:
    """By an error of its own kind, so that a tool can go on without the model."""

    async def consult(_: str, context: ToolContext) -> str:
        try:
            await context.agent.complete(script(), CompletionRequest([UserMessage("hi")]))
        except LimitExceededError as error:
            return error.kind
        raise AssertionError("unreachable")  # pragma: no cover

    driver = script(calling(tool_call("consult")))
    tools = ToolRegistry([FakeTool("consult", consult)])
    async with open_pool(driver, tools=tools, budget=Budget(requests=1)) as pool:
        outcome = await (await pool.spawn(job())).wait()
    (result,) = [m for m in outcome.messages if isinstance(m, ToolMessage)]
    assert (result.content, result.is_error) == ("request_budget", False)
