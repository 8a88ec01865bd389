"""Asking the model: one request of a run, within its time, again where that makes sense.

Rules:

1. A request is asked again only if its error says so and nothing of the answer has arrived:
   a text is never said twice.
2. While an agent waits to ask again it has no slot.
3. An answer leaves here with its price, if anybody knows it: the one that it came with, or
   else the driver's.
"""

from __future__ import annotations

from typing import Final

import msgspec
import trio

from agentpool._agent import Agent
from agentpool._errors import DriverError, NetworkError
from agentpool._events import CompletionReceived, Phase, RequestRetried
from agentpool._messages import Completion, CompletionRequest
from agentpool._retry import RetrySchedule
from agentpool._run import Run
from agentpool._slot import parked
from agentpool._waits import Wait

RETRIES: Final = RetrySchedule()


async def complete(agent: Agent, request: CompletionRequest, run: Run) -> Completion:
    """Ask the driver, within the time that the manifest gives one request.

    Raises:
        DriverError: What the last attempt failed with.

    Cancellation:
        The request ends at the provider as well. What had arrived is in the run.
    """
    agent.phase(Phase.REASON)
    hub = agent.hub
    asked_at = hub.seconds() if hub.listening else 0.0
    seconds = agent.config.manifest.resources.request_seconds
    if seconds is None:
        completion = await _ask(agent, request, run)
    else:
        answered: list[Completion] = []
        with trio.move_on_after(seconds):
            answered.append(await _ask(agent, request, run))
        if not answered:
            raise NetworkError(
                f"no whole answer within {seconds:g} seconds; "
                "raise resources.request_seconds if the model is slow"
            )
        (completion,) = answered
    if hub.listening:
        reason, usage = completion.finish_reason, completion.usage
        stamp = hub.stamp(agent.agent_id, agent.name)
        hub.publish(CompletionReceived(*stamp, reason, usage, hub.seconds() - asked_at))
    return completion


async def _ask(agent: Agent, request: CompletionRequest, run: Run) -> Completion:
    """Ask again where that makes sense and nothing has arrived yet."""
    attempt, waited_seconds = 1, 0.0
    while True:
        try:
            return _priced(agent, await agent.driver.complete(request, on_delta=agent.arrived))
        except DriverError as error:
            delay_seconds = (
                RETRIES.next_delay_seconds(
                    attempt, waited_seconds, error.retry_after_seconds, agent.random.random()
                )
                if error.retryable and not run.arriving
                else None
            )
            if delay_seconds is None:
                raise
            if agent.hub.listening:
                stamp = agent.hub.stamp(agent.agent_id, agent.name)
                agent.hub.publish(RequestRetried(*stamp, attempt, delay_seconds, str(error)))
        async with parked(Wait.other("a retry")):
            await trio.sleep(delay_seconds)
        attempt, waited_seconds = attempt + 1, waited_seconds + delay_seconds


def _priced(agent: Agent, completion: Completion) -> Completion:
    if completion.cost_usd is not None or completion.usage is None:
        return completion
    cost_usd = agent.driver.price(completion.usage, model=completion.model)
    if cost_usd is None:
        return completion
    return msgspec.structs.replace(completion, cost_usd=cost_usd)
