"""Why a run ends where a budget has too little left."""

from __future__ import annotations

import re
from typing import Final

from agentpool._agent.agent import Agent
from agentpool._budget.way_on import kept_end
from agentpool._errors import LimitExceededError
from agentpool._loop.guard import Stop
from agentpool._outcome import StopReason

_ASKED_ANEW: Final = re.compile(r"[0-9a-f]{32}(#|turn )[0-9]+~*")
"""The key of a run that is new whenever it is asked for: without a key of its own, or of a session.
The pool's number comes first."""


def budget_stop(agent: Agent, error: LimitExceededError) -> Stop:
    """Make the verdict for a budget's *error* that ends the run of *agent*."""
    journal, text = agent.journal, str(error)
    if journal is not None and not _ASKED_ANEW.fullmatch(journal.key):
        text = kept_end(text)
    return Stop(StopReason(error.kind), text, error.used, error.limit, error.source)


def stop_of(agent: Agent) -> Stop | None:
    """Return why the run of *agent* ends after this turn. ``None``: it goes on."""
    return None if agent.run is None else agent.run.exhausted
