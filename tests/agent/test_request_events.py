"""What observers are told of a request that ends early, and of one that was answered."""

from __future__ import annotations

import pytest
import trio

from agentpool import AgentManifest, Budget, PrivacyTier, RetryPolicy, SpawnConfig, open_pool
from agentpool.abc import Completion, CompletionRequest, Driver, Event, Observer, OnDelta, Usage
from agentpool.drivers import NetworkError
from agentpool.observe import RequestFailed, RequestStarted


class Heard(Observer):
    """Keeps the events of requests."""

    def __init__(self) -> None:
        """Begin with none."""
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        """Keep *event*."""
        if isinstance(event, RequestStarted | RequestFailed):
            self.events.append(event)


class OneAnswer(Driver):
    """Begins to answer, and then breaks off or loses its prices."""

    context_window = 8192
    privacy = PrivacyTier.SOVEREIGN

    def __init__(self, *, breaks_off: bool) -> None:
        """Say how it ends."""
        self.breaks_off = breaks_off
        self.has_answered = False

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002
        """Return nothing to pay, until the answer is there."""
        if self.has_answered:
            raise RuntimeError("no prices")
        return 0.0

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Answer in one piece."""
        assert request.messages
        assert on_delta is not None
        await trio.lowlevel.checkpoint()
        on_delta("half an answer")
        if self.breaks_off:
            raise NetworkError("the line broke")
        self.has_answered = True
        return Completion("half an answer", usage=Usage(input_tokens=3, output_tokens=5))


@pytest.mark.parametrize("breaks_off", [True, False])
async def test_a_request_fails_with_what_was_lost_or_not_at_all(*, breaks_off: bool) -> None:
    """One whose answer has no price that can be told has failed, and nothing is known of it."""
    heard, budget = Heard(), Budget(cost_usd=1.0)
    async with open_pool(
        OneAnswer(breaks_off=breaks_off),
        observers=[heard], budget=budget, request_retries=RetryPolicy(max_attempts=1),
    ) as pool:  # fmt: skip
        outcome = await (await pool.spawn(SpawnConfig(AgentManifest(), "hi"))).wait()
    started, told = heard.events
    assert isinstance(started, RequestStarted)
    assert isinstance(told, RequestFailed)
    assert told.error == ("the line broke" if breaks_off else "no prices")
    assert outcome.unmeasured_requests == budget.statistics().unmeasured == 1
    assert told.lost is not None
    (lost,) = told.lost
    assert lost.usage is not None
    assert lost.usage.output_tokens > 0
