"""What a request took is the same in the trace, in the outcome and in the budget's books."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agentpool import AgentOutcome, AgentStatus, Budget, Usage, open_pool
from agentpool._cli._trace_text import overview
from agentpool.abc import Completion, CompletionRequest, Driver, OnDelta
from agentpool.drivers import FallbackDriver, FinishReason, OverloadedError
from agentpool.observe import (
    AgentFinished,
    AgentSpawned,
    Bill,
    BudgetStatistics,
    CompletionReceived,
    Event,
    LostRequest,
    PoolRecord,
    RequestFailed,
    RequestStarted,
    Trace,
    TraceHeader,
    record_of,
    render_report,
)
from tests.support.fakes import LiveDriver, Recorder, job

PRICE = 0.001
HEADER = TraceHeader(run_id="ab", pool="p", opened_at=1.0, max_concurrent=2)
END = FinishReason.END_TURN


async def silent(_: CompletionRequest, on_delta: OnDelta) -> str:
    """Say nothing."""
    await trio.sleep_forever()
    raise AssertionError  # pragma: no cover


async def murmur(_: CompletionRequest, on_delta: OnDelta) -> str:
    """Begin an answer that never ends."""
    on_delta("a few words of it")
    await trio.sleep_forever()
    raise AssertionError  # pragma: no cover


async def busy(_: CompletionRequest, on_delta: OnDelta) -> str:
    """Refuse."""
    await trio.lowlevel.checkpoint()
    raise OverloadedError("busy")


async def good(_: CompletionRequest, on_delta: OnDelta) -> Completion:
    """Answer."""
    await trio.lowlevel.checkpoint()
    return Completion("good", usage=Usage(10, 5))


async def run(driver: Driver) -> tuple[PoolRecord, AgentOutcome, BudgetStatistics, str]:
    """Run one agent for five seconds; return the record, outcome, books and report of it."""
    recorder, budget = Recorder(), Budget(tokens=10**6, cost_usd=100.0, name="b")
    async with open_pool(driver, observers=[recorder], budget=budget) as pool:
        handle = await pool.spawn(job())
        with trio.move_on_after(5):
            await handle.wait()
        handle.cancel("enough")
        outcome = await handle.wait()
    trace = Trace(header=HEADER, events=tuple(recorder.events))
    record = record_of(trace.events)
    text = overview(trace, record) + render_report(trace).split("<script")[0]
    return record, outcome, budget.statistics(), text


async def test_every_driver_of_a_fallback_is_counted(autojump_clock: MockClock) -> None:
    """One was silent, one busy, one answered: three requests, one of them of unknown cost."""
    drivers = (LiveDriver(one, price_per_token_usd=PRICE) for one in (silent, busy, good))
    record, outcome, books, text = await run(FallbackDriver(*drivers, patience_seconds=0.2))
    bill = record.bill
    assert bill.requests == books.requests.committed == 3
    assert bill.failed == 2
    assert (bill.unmeasured, bill.cost_usd) == (outcome.unmeasured_requests, outcome.cost_usd)
    assert (bill.unmeasured, bill.cost_usd, bill.known_usd) == (1, None, 0.015)
    assert bill.usage == outcome.usage == Usage(10, 5)
    assert bill.budget_tokens == books.tokens.committed
    assert abs(bill.known_usd + bill.charged_usd - books.cost.committed) < 1e-9
    charged = f"{bill.charged_tokens:,} tokens and ${bill.charged_usd:,.4f}"
    for words in (
        "15+?",
        "the tokens of 1 request are unknown",
        "the cost of 1 request is unknown, the rest is $0.0150",
        f"budgets were charged {charged} as an estimate",
    ):
        assert text.count(words) >= 2, words  # in the terminal and in the page


@pytest.mark.parametrize(("model", "tokens"), [(silent, 0), (murmur, 7)])
async def test_a_request_that_was_given_up_is_no_zero(
    model: Callable[[CompletionRequest, OnDelta], Awaitable[str]],
    tokens: int,
    autojump_clock: MockClock,
) -> None:
    """What it took is unknown; the text that had come is an estimate."""
    record, outcome, books, text = await run(LiveDriver(model, price_per_token_usd=PRICE))
    bill = record.bill
    assert (record.cost_usd, record.agents[1].cost_usd, outcome.cost_usd) == (None, None, None)
    assert record.usage == outcome.usage == Usage(0, tokens)
    assert bill.estimated_tokens == tokens
    assert bill.charged_tokens == books.tokens.committed
    assert bill.charged_requests == books.unmeasured == 1
    assert ("estimate of text that came" in text) == bool(tokens)
    assert ("7+?" if tokens else "?") in text
    assert "$0" not in text.replace("the rest is $0", "")


async def test_a_refusal_takes_nothing_but_the_request(autojump_clock: MockClock) -> None:
    """It is no reason to call a cost unknown."""
    record, outcome, books, _ = await run(
        FallbackDriver(
            LiveDriver(busy, price_per_token_usd=PRICE), LiveDriver(good, price_per_token_usd=PRICE)
        )
    )
    assert record.cost_usd == outcome.cost_usd == books.cost_usd == 0.015
    assert record.bill.requests == books.requests.committed == 2
    assert record.bill.unknown_words() == []


def bill_of(*events: Event) -> Bill:
    """Return what agent 1 took, by these events."""
    return record_of([AgentSpawned(1, 0.0, 1, "a", 0), *events]).agents[1].bill


def test_an_earlier_version_says_less() -> None:
    """What its failed requests took stands in the outcome alone."""
    started = RequestStarted(2, 0.0, 1, "a", 1, 1, "", by_tool=False, sent=())
    failed = RequestFailed(3, 1.0, 1, "a", 2, 1, "Cancelled", "given up", by_tool=False)
    bill = bill_of(started, failed)
    assert (bill.requests, bill.failed, bill.unmeasured) == (1, 1, 0)
    ended = AgentOutcome(
        agent_id=1, name="a", status=AgentStatus.CANCELLED, unmeasured_requests=1, cost_usd=None
    )
    bill = bill_of(started, failed, AgentFinished(4, 1.0, 1, "a", ended))
    assert (bill.unmeasured, bill.unpriced, bill.tokens_words()) == (1, 1, "?")
    free = msgspec.structs.replace(ended, cost_usd=0.0)
    assert bill_of(started, failed, AgentFinished(4, 1.0, 1, "a", free)).cost_usd == 0.0


def test_an_answer_without_numbers_is_unknown() -> None:
    """Its budget is charged as an estimate; what was never sent is no request."""
    place = (3, 1.0, 1, "a")
    bill = bill_of(CompletionReceived(*place, END, None, 1.0, charged_tokens=9, charged_usd=None))
    assert bill.unknown_words() == [
        "the tokens of 1 request are unknown",
        "the cost of 1 request is unknown, the rest is $0",
        "budgets were charged 9 tokens as an estimate",
    ]
    free = (LostRequest(is_measured=False, charged_tokens=0, charged_usd=0.0),) * 2
    started = RequestStarted(2, 0.0, 1, "a", 1, 1, "", by_tool=False, sent=())
    bill = bill_of(started, RequestFailed(*place, 2, 1, "X", "", by_tool=False, lost=free))
    assert bill.unknown_words() == [
        "the tokens of 2 requests are unknown",
        "budgets were charged nothing as an estimate",
    ]
    bill = bill_of(started, RequestFailed(*place, 2, 1, "X", "", by_tool=False, lost=()))
    assert (bill.requests, bill.failed) == (0, 0)


async def test_a_wait_to_ask_again_is_no_slow_call(autojump_clock: MockClock) -> None:
    """The model answered at once; the back-off is a time of its own."""
    asked: list[CompletionRequest] = []

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion:
        asked.append(request)
        await trio.sleep(0.0625)
        if len(asked) == 1:
            raise OverloadedError("busy", retry_after_seconds=0.5)
        return Completion("good", usage=Usage(10, 5))

    record, _, _, text = await run(LiveDriver(answer, price_per_token_usd=PRICE))
    (answered,) = record.answers
    # It began after a back-off of no round length.
    assert answered.attempt_seconds == pytest.approx(0.0625)
    assert answered.duration_seconds > 0.5
    assert "    0.06 s  the model, agent 1 (hello), turn 1" in text
    old = msgspec.structs.replace(answered, attempt_seconds=None)
    spawned = AgentSpawned(1, 0.0, 1, "a", 0)
    trace = Trace(header=HEADER, events=(spawned, old))
    assert f"{answered.duration_seconds:8.2f} s  the model" in overview(
        trace, record_of(trace.events)
    )
