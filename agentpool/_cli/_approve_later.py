"""``--approve later``: ends the command when all that is left waits for approvals."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import final

import attrs
import trio

from agentpool import AgentPool, wait_until_asking
from agentpool.tools import printable

REASON = "its question is stored, and can be answered later"
"""The reason for ending agents that wait for an approval."""


@final
@attrs.define(eq=False)
class Later:
    """Notices when all work waits for approvals."""

    is_waiting: bool = False
    """Whether the command has ended its agents. They go on when their questions are answered."""
    _feeding: trio.Event = attrs.field(factory=trio.Event)

    def begin_feeding(self) -> None:
        """Expect more agents."""
        self._feeding = trio.Event()

    def end_feeding(self) -> None:
        """Expect no more agents for now."""
        self._feeding.set()

    async def watch(self, pool: AgentPool, stop: Callable[[str], None]) -> None:
        """Call *stop* once nothing in *pool* can go on without an approval.

        Cancellation:
            *stop* was not called.
        """
        await wait_until_asking(pool)
        while not self._feeding.is_set():
            await self._feeding.wait()
            await wait_until_asking(pool)
        self.is_waiting = True
        stop(REASON)


def how_to_answer(file: str) -> str:
    """Return a line that says how to answer the questions in the journal *file*."""
    name = printable(shlex.quote(file))
    how = f"agentpool approve {name} lists them and takes answers; then run this command again"
    return f"calls wait for approval: {how}"
