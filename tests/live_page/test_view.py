"""What the page shows of each event, without a pool."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agentpool import AgentMessage, AgentOutcome, AgentStatus, StopReason, Usage
from agentpool._errors import AgentCancelledError
from agentpool.drivers import FinishReason, ToolCall
from agentpool.live._http import READ_SECONDS, BadRequestError, Visit
from agentpool.live._view import MAX_SHOWN_TEXT, View
from agentpool.observe import (
    AgentFinished,
    AgentSpawned,
    AgentWarned,
    BudgetNear,
    BudgetReached,
    CompletionReceived,
    Event,
    EventsMissed,
    FellBack,
    GateChanged,
    MessageDropped,
    RequestRetried,
    ToolFinished,
    WindowCut,
)

AT = (2, 1.0, 1, "a")
CALL = ToolCall("c", "search", "{}")


def ended(status: AgentStatus, **more: Any) -> AgentFinished:  # noqa: ANN401  # fields of an outcome
    """Return the end of agent 1."""
    return AgentFinished(*AT, AgentOutcome(agent_id=1, name="a", status=status, **more))


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (ended(AgentStatus.FAILED, error=LookupError("no")), "bad", "failed: LookupError: no"),
        (
            ended(AgentStatus.STOPPED, stop_reason=StopReason.TOKEN_BUDGET),
            "odd",
            "stopped: token_budget",
        ),
        (ToolFinished(*AT, CALL, "no such", is_error=True), "odd", "tool search failed: no such"),
        (AgentWarned(*AT, "near"), "odd", "near"),
        (RequestRetried(*AT, 1, 0.5, "busy"), "odd", "asks again in 0.5 s: busy"),
        (FellBack(*AT, 1, 2, "X", "gone"), "odd", "driver 1 failed (X); asks driver 2"),
        (FellBack(*AT, 1, 2, "", ""), "odd", "driver 1 failed (skipped); asks driver 2"),
        (BudgetNear(*AT, "b", StopReason.TOKEN_BUDGET, 8, 10), "note", "budget b: 8 of 10"),
        (
            BudgetReached(*AT, "b", StopReason.TOKEN_BUDGET, 10, 10),
            "bad",
            "budget b is spent: 10 of 10",
        ),
        (GateChanged(*AT, "g", 3, 1, 1, 2.0), "odd", "gate g lets 3 through"),
        (MessageDropped(*AT, AgentMessage(1, 2, "hi", 1), "gone"), "odd", "dead letter: gone"),
        (
            ended(AgentStatus.CANCELLED, error=RuntimeError("agent 1 (a) was cancelled by owner")),
            "odd",
            "cancelled: by owner",
        ),
        (
            WindowCut(*AT, "summary", 8, 0, 900, failure="the model wrote nothing"),
            "odd",
            (
                "the window was full: 8 messages are no longer sent, there is no summary: the "
                "model wrote nothing"
            ),
        ),
        (EventsMissed(2, 1.0, 0, "", 7), "note", "7 events are not shown: there were too many"),
    ],
)
def test_what_went_otherwise_is_news(event: Event, level: str, text: str) -> None:
    """With how bad it is."""
    view = View()
    view.take(AgentSpawned(1, 0.0, 1, "a", 0))
    view.take(event)
    news: Any = view.shown()["news"]
    ((at_seconds, how, _, _, said),) = news
    assert (at_seconds, how, said) == (1.0, level, text)


def test_a_cancelled_agent_says_why() -> None:
    """It has no stop reason, but an error."""
    view = View()
    view.take(AgentSpawned(1, 0.0, 1, "a", 0))
    error = AgentCancelledError("enough", cancelled_by="owner", reason="enough")
    view.take(ended(AgentStatus.CANCELLED, error=error))
    news: Any = view.shown()["news"]
    assert "enough" in news[0][4]


def test_money_is_added_up_and_unknown_is_not_zero() -> None:
    """As everywhere."""
    view = View()
    view.take(AgentSpawned(1, 0.0, 1, "a", 0))
    place = (2, 1.0, 1, "a", FinishReason.END_TURN)
    view.take(CompletionReceived(*place, Usage(10, 5), 1.0, model="m", cost_usd=0.5))
    view.take(CompletionReceived(*place, Usage(1, 1), 1.0, cost_usd=0.25))
    shown: Any = view.shown()
    assert (shown["cost"], shown["tokens"], shown["unknown"]) == (0.75, "17", [])
    assert shown["agents"][0][9:12] == ["17", 0.75, "m"]
    view.take(CompletionReceived(*place, None, 1.0))
    view.take(CompletionReceived(*place, None, 1.0, cost_usd=1.0))
    shown = view.shown()
    assert (shown["cost"], shown["tokens"]) == (None, "17+?")
    assert shown["unknown_tokens"] == ["the tokens of 2 requests are unknown"]
    assert shown["unknown"] == ["the cost of 1 request is unknown, the rest is $1.7500"]
    assert shown["agents"][0][9:11] == ["17+?", None]


def test_what_began_before_is_passed_over() -> None:
    """An agent whose spawn nobody saw has no row; long texts and half characters are cut."""
    view = View()
    view.take(ended(AgentStatus.COMPLETED))
    assert view.shown()["counts"] == {}
    view.take(AgentSpawned(1, 0.0, 1, "a\ud800", 0, query="x" * (MAX_SHOWN_TEXT + 5)))
    shown: Any = view.shown()
    assert shown["agents"][0][1] == "a\\ud800"
    assert shown["agents"][0][12].endswith("… [5 more]")


async def test_a_request_that_never_ends_is_given_up(autojump_clock: MockClock) -> None:
    """A connection that says nothing is not kept."""
    _, receive = trio.testing.memory_stream_one_way_pair()
    send, _ = trio.testing.memory_stream_one_way_pair()
    begin = trio.current_time()
    with pytest.raises(BadRequestError):
        await Visit(trio.StapledStream(send, receive)).read()
    assert trio.current_time() - begin == READ_SECONDS
