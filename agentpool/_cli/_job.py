"""An agent that a command is to run, and its result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

import attrs

from agentpool import AgentHandle, AgentManifest, SpawnConfig
from agentpool._cli._result import Result
from agentpool.drivers import Attachment


def _as_key(text: str) -> str:
    # The name of a file may be no text, and a journal has text alone.
    return text.encode("utf-8", "backslashreplace").decode()


@final
@attrs.frozen(kw_only=True, eq=False)
class Job:
    """One agent to run."""

    manifest: AgentManifest
    """The manifest of its agent."""
    label: str
    """The heading of its result."""
    key: str = attrs.field(converter=_as_key)
    """Its name in a journal. No other job of the command has it."""
    name: str
    """Its name while it runs."""
    read: Callable[[], str]
    """Returns the query. It is called in a thread, so it may wait for a file."""
    source: str | None = None
    """The path of its input. ``None``: its input is not a file."""
    output_type: type | None = None
    """The type of its answer. ``None``: any text."""
    attachments: tuple[Attachment, ...] = ()
    """Images and documents that belong to its query."""
    turn: int = 0
    """Its place in its source."""
    may_wait: bool = False
    """Whether reading may take forever. If so, the other jobs do not wait for it."""
    begin: Callable[[SpawnConfig], Awaitable[AgentHandle]] | None = None
    """Starts the agent. ``None``: the pool spawns the agent under its key."""

    def result(
        self,
        handle: AgentHandle | None = None,
        error: Exception | None = None,
        *,
        is_waiting: bool = False,
    ) -> Result:
        """Make the result of the job."""
        return Result(
            name=self.manifest.name,
            label=self.label,
            source=self.source,
            outcome=handle.outcome if handle is not None else None,
            error=error,
            is_typed=self.output_type is not None,
            is_waiting=is_waiting,
        )
