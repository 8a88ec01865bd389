"""Asks the model in an agent's own turn, within the time limit of its manifest."""

from __future__ import annotations

from collections.abc import Awaitable

from agentpool._agent.agent import Agent
from agentpool._agent.request import ModelRequest
from agentpool._agent.request_events import tell_request
from agentpool._loop.run import Complete
from agentpool._scheduling.step_limit import allow
from agentpool.abc import OnDelta


def complete(agent: Agent, effect: Complete) -> Awaitable[object]:
    """Ask the driver for *effect*, within the manifest's time limit for one request.

    If a budget does not allow it, there is no completion, and ``run.exhausted`` says which budget.

    Returns:
        An awaitable, to be awaited immediately: another coroutine is 300 bytes of an agent.
    """
    request, run = effect.request, agent.run
    assert run is not None  # noqa: S101  # only a run has turns
    hear: OnDelta = agent.arrived
    teller = None
    if agent.hub.listening:
        hear = teller = tell_request(agent, run, request)
    seconds, scope = agent.config.manifest.resources.request_seconds, agent.step_scope
    if scope is not None:
        allow(scope, seconds, agent.hub.now)
    agent.slot.asking = asking = ModelRequest(
        agent, agent.driver, request, hear, (), teller, None, effect,
        None if seconds is None else scope,
    )  # fmt: skip
    return asking.make()
