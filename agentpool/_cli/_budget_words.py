"""The spending, and the waits at gates, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentpool._amounts import counted
from agentpool._cli._command import BUDGET_NAME
from agentpool.drivers import GateStatistics
from agentpool.observe import BudgetMeter, BudgetStatistics

_BUDGET: Final = f"budget {BUDGET_NAME!r}"

_OPTIONS: Final[Mapping[str, str]] = {
    " tokens are used": "--max-total-tokens",
    "US dollars are used": "--max-cost",
    " requests are used": "--max-requests",
    "no known price": "--max-cost",
}
"""The option that sets a limit, by words that are in the error when that limit is reached."""


def named_by_option(text: str) -> str:
    """Return the error *text*, with the name of the option in place of the budget's name.

    >>> named_by_option("budget 'command line' has too little left: 3 of 3 requests are used")
    '--max-requests has too little left: 3 of 3 requests are used'
    """
    options = [option for words, option in _OPTIONS.items() if words in text]
    return text.replace(_BUDGET, options[0], 1) if options else text


def budget_words(spent: BudgetStatistics) -> str:
    """Return how much of each limit was spent, and how many requests were refused.

    >>> meter = BudgetMeter(limit=None, committed=0, reserved=0)
    >>> three = BudgetMeter(limit=3, committed=3, reserved=0)
    >>> budget_words(BudgetStatistics(name="b", tokens=meter, cost=meter, requests=three,
    ...                               tool_calls=meter, unmeasured=0, unpriced=1, refused=7))
    'spent 0 tokens, cost unknown (1 request without a price), 3 of 3 requests; 7 refused'
    """
    tokens = f"{_of(spent.tokens, ',')} tokens"
    if spent.cost_usd is None:
        cost = f"cost unknown ({counted(spent.unpriced, 'request')} without a price)"
    else:
        cost = f"{_of(spent.cost, '.4f')} US dollars"
    unmeasured = f", {spent.unmeasured} charged by estimate" if spent.unmeasured else ""
    noun = "request" if (spent.requests.limit or spent.requests.committed) == 1 else "requests"
    requests = f"{_of(spent.requests, ',')} {noun}{unmeasured}"
    return f"spent {tokens}, {cost}, {requests}; {spent.refused} refused"


def gate_words(gate: GateStatistics) -> str:
    """Return how many requests were answered, had to wait, or were refused."""
    left = f", {gate.waiting:,} still wait" if gate.waiting else ""
    answered = f"{counted(gate.answered, 'request')} answered"
    return (
        f"gate {gate.name!r}: {answered}, {gate.held_back:,} held back, "
        f"{gate.refused:,} refused{left}"
    )


def _of(meter: BudgetMeter, form: str) -> str:
    limit = "" if meter.limit is None else f" of {meter.limit:{form}}"
    return f"{meter.committed:{form}}{limit}"
