"""Keeps in the journal what the tools of a run ask of models.

Rules:

1. A request is recorded before it is sent, with what it reserves, and again with what it used. If a
   fallback asks several drivers, each has a record of its own.
2. The result of its call has what the call has asked. If the call was cut, the records count, for
   the budgets alone: see ``cut_asides``.
"""

from __future__ import annotations

from typing import final

from agentpool._base import Live
from agentpool._journal_records import JournalRecord, RecordKind
from agentpool._messages import AgentId, Completion
from agentpool._recorded_results import encode
from agentpool._served_call import UNSENT, Loss, ServedCall
from agentpool.journal._writer import JournalWriter


@final
class Aside(Live):
    """The records of one request that a tool makes."""

    _writer: JournalWriter
    _agent_id: AgentId
    _place: int
    """The place of the call in the run."""
    _call: ServedCall
    _name: str = ""
    """The number of the request to a provider, among all of its call. Empty: none is open."""

    async def begin(self, most: tuple[int, float | None]) -> None:
        """Record that an attempt is about to be sent, and wait until that is stored.

        If the last one was not sent, this one takes its place.

        Args:
            most: The tokens and US dollars that it may use.
        """
        self._note(Loss(*most, is_reserved=True))
        await self._writer.flush()

    def withdraw(self) -> None:
        """Record that the attempt was not sent, if its beginning was recorded."""
        if self._name:
            self.keep(UNSENT)

    def keep(self, loss: Loss) -> None:
        """Record what the attempt has used, which is over."""
        self._note(loss)
        self._name = ""

    def _note(self, loss: Loss) -> None:
        if not self._name:
            self._call.asked += 1
            self._name = str(self._call.asked)
        spot, body = (self._place, self._call.part), encode(loss)
        record = JournalRecord(self._agent_id, RecordKind.ASIDE, *spot, self._name, body)
        self._writer.note(record, wakes=False)

    def keep_answer(self, answer: Completion) -> None:
        """Record what an answer has used, if it is known."""
        if answer.usage is not None:
            self.keep(Loss(answer.usage.total_tokens, answer.cost_usd))
