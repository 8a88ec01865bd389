"""What the agents of one command asked in this process, whatever a journal has of earlier ones."""

from __future__ import annotations

from typing import final

import attrs

from agentpool import AgentOutcome, AgentStatus
from agentpool.abc import AgentId, Observer
from agentpool.observe import Bill, CompletionReceived, Event, RequestFailed, RequestStarted


@final
@attrs.define(eq=False)
class ThisRun(Observer):
    """Counts the requests of this process, and remembers whose they were."""

    _bill: Bill = attrs.field(factory=Bill)
    _asked: set[AgentId] = attrs.field(factory=set[AgentId])

    def on_event(self, event: Event) -> None:
        """Count *event* if it is about a request."""
        if isinstance(event, RequestStarted | RequestFailed | CompletionReceived):
            self._bill.take(event)
            self._asked.add(event.agent_id)

    @property
    def written_tokens(self) -> int:
        """The tokens that models have written in this process."""
        return self._bill.usage.output_tokens

    def is_from_journal(self, outcome: AgentOutcome) -> bool:
        """Return whether *outcome* has an answer for which nothing was asked in this process."""
        is_answer = outcome.status is AgentStatus.COMPLETED
        return is_answer and outcome.agent_id not in self._asked
