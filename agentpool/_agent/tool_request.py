"""Asks a model on behalf of a tool, beside the requests of the agent's own turns."""

from __future__ import annotations

from agentpool._agent.agent import Agent
from agentpool._agent.request import ModelRequest
from agentpool._agent.request_events import RequestTeller
from agentpool._checks import expect_piece
from agentpool._errors import LimitExceededError
from agentpool._loop.tokens import Estimator
from agentpool._messages import Completion, CompletionRequest
from agentpool._scheduling.watcher import current_asking
from agentpool._served_call import Loss
from agentpool.abc import Driver, OnDelta


async def complete_aside(
    agent: Agent, driver: Driver, request: CompletionRequest, on_delta: OnDelta | None
) -> tuple[Completion, Loss | None]:
    """Ask a model on behalf of a tool of *agent*. The agent pays for it.

    Returns:
        The answer, and what budgets are charged for the part of its usage that is unknown.

    Raises:
        DriverError: The error of the last attempt.
        LimitExceededError: If a budget does not allow it. The driver was not asked.

    Cancellation:
        The request ends at the provider as well.
    """
    arrived: list[str] = []
    teller = None
    if agent.hub.listening:
        teller = RequestTeller(agent, request, agent.turn, agent.hub.seconds(), by_tool=True)

    def arrive(piece: str) -> None:
        piece = expect_piece(piece, driver)
        arrived.append(piece)
        if teller is not None:
            teller.arrived()
        if on_delta is not None:
            on_delta(piece)

    asking = ModelRequest(agent, driver, request, arrive, arrived, teller, Estimator())
    asking.aside = None if agent.journal is None else agent.journal.aside()
    token = current_asking.set((agent.slot, asking))
    try:
        answer = await asking.make()
    finally:
        current_asking.reset(token)
    if isinstance(answer, LimitExceededError):
        raise answer
    reserved = asking.reserved_for(answer)
    agent.charge(answer.usage, answer.cost_usd, requests=1, reserved=reserved)
    if asking.aside is not None:
        asking.aside.keep_answer(answer)
    if teller is not None:
        teller.answered(answer, asking.reservation)
    return answer, reserved
