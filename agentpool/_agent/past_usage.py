"""Counts what earlier processes of a run had used.

Rules:

1. All that a run had used counts for the run and for the budgets it draws on, as if one process had
   done everything: answers, calls, and requests that broke off.
2. A request that was sent before its process ended may have been charged. It is made again and
   counted as repeated. The first attempt is charged only to the budget, at the amount that a
   request reserves.
3. A call that had begun is charged once, even if it is run again: a budget that allowed it the
   first time does not refuse it the second time.
"""

from __future__ import annotations

from agentpool._agent.agent import Agent
from agentpool._agent.spending import estimate
from agentpool._budget.spent import Spent, spent_on, spent_on_answer
from agentpool._loop.run import Complete, Effect, RunTools, Summarize
from agentpool._loop.tokens import Estimator
from agentpool._messages import CompletionRequest
from agentpool._served_call import Loss


def take_back(agent: Agent, effect: Effect) -> None:
    """Count what *effect* had used before the crash, whether or not it has a result."""
    journal = agent.journal
    assert journal is not None  # noqa: S101  # it gave the result back
    if isinstance(effect, RunTools):
        begun, ended = journal.begun_count(effect)
        agent.tools_run += ended
        if begun:
            _spend_again(agent, Spent(tool_calls=begun))
        charges, journal.charges = journal.charges, []
        for charge in charges:
            agent.charge(charge.usage, charge.cost_usd, unmeasured=charge.unmeasured)
            if charge.requests:
                known = charge.usage, charge.cost_usd, charge.reserved
                _spend_again(agent, spent_on_answer(*known, requests=charge.requests))
    elif not isinstance(effect, Complete | Summarize):
        return
    losses, journal.losses = journal.losses, []
    for loss in losses:
        agent.lose(loss)
        _spend_again(agent, spent_on(loss))
    if isinstance(effect, Complete | Summarize) and effect.completion is not None:
        used = effect.completion.usage, effect.completion.cost_usd
        if isinstance(effect, Summarize):  # an answer of its own is the loop's to count
            agent.charge(*used)
        _spend_again(agent, spent_on_answer(*used, effect.reserved))


def begin(agent: Agent, request: CompletionRequest) -> bool:
    """Record that *request* is about to be sent, and pay for its earlier attempts.

    Returns whether the caller must wait until that is stored.
    """
    journal = agent.journal
    assert journal is not None  # noqa: S101  # or nothing is recorded
    for _ in range(journal.left_before):
        estimator = Estimator() if agent.purse is None else agent.purse.estimator
        loss = Loss(*estimate(agent.driver, request, estimator), is_repeated=True)
        _spend_again(agent, spent_on(loss))
        journal.repeated_requests += 1
        journal.keep_loss(loss)
    purse, reserved = agent.purse, None
    if purse is not None:
        reserved = Loss(*estimate(agent.driver, request, purse.estimator))
    return journal.begin_request(request, reserved, is_joint=is_joint(agent))


def is_joint(agent: Agent) -> bool:
    """Return whether a budget of *agent* is written in one transaction with its journal."""
    journal, purse = agent.journal, agent.purse
    return journal is not None and purse is not None and bool(purse.kept_with(journal))


def _spend_again(agent: Agent, spent: Spent) -> None:
    if agent.purse is not None:
        assert agent.journal is not None  # noqa: S101  # it has the past
        agent.journal.writer.ahead.record(agent.purse.ledger, agent.agent_id, spent)
