"""What to run: one agent's manifest, query and terms."""

from __future__ import annotations

from typing import final

import attrs

from agentpool._errors import UsageError
from agentpool._manifest import AgentManifest
from agentpool._messages import ChatMessage


@final
@attrs.frozen
class SpawnConfig:
    """One agent to run."""

    manifest: AgentManifest
    """What kind of agent."""
    query: str
    """What it is asked. Not empty."""
    name: str | None = attrs.field(default=None, kw_only=True)
    """How it is called in this run. ``None``: by its manifest's name."""
    history: tuple[ChatMessage, ...] = attrs.field(default=(), kw_only=True)
    """A conversation that goes on, such as the ``messages`` of an earlier outcome."""
    deadline_seconds: float | None = attrs.field(default=None, kw_only=True)
    """The longest that the run may take, from its first slot. ``None``: as the manifest says."""
    memory_scope: str | None = attrs.field(default=None, kw_only=True)
    """Whose memory it shares: agents with the same scope read each other's fragments.
    ``None``: its own alone."""

    def __attrs_post_init__(self) -> None:
        """Refuse what has no meaning."""
        if not self.query.strip():
            raise UsageError(f"query must not be empty, got {self.query!r}; say what to do")
        if self.deadline_seconds is not None and not self.deadline_seconds > 0:
            raise UsageError(
                f"deadline_seconds must be > 0, got {self.deadline_seconds!r}; "
                "leave it out for no deadline"
            )

    @property
    def agent_name(self) -> str:
        """The name that the agent goes by."""
        return self.name or self.manifest.name
