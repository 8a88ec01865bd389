"""What to run: one agent's manifest, query and terms."""

from __future__ import annotations

import math
from typing import final

import attrs

from agentpool._capability import Capability, CapabilityKind
from agentpool._errors import CapabilityDeniedError, UsageError
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


CHILD_MAX_ITERATIONS = 10
"""Turns that a child has at most: it was given a part of its parent's work, not all."""


def child_of(
    parent: SpawnConfig, query: str, *, name: str, used_tokens: int, seconds_left: float
) -> SpawnConfig:
    """Return the config of a child: its parent's, with fewer rights and less to spend.

    Args:
        parent: The config of the agent that wants a child.
        query: What the child is asked.
        name: How it is called.
        used_tokens: What the parent has used of its own token budget.
        seconds_left: What the parent has left of its time; ``inf``: no limit.

    Raises:
        CapabilityDeniedError: If the parent may have no children, or has nothing left.
    """
    manifest = parent.manifest
    depth = max(
        (g.max_depth for g in manifest.capabilities if g.kind is CapabilityKind.SPAWN), default=0
    )
    if depth < 1:
        raise CapabilityDeniedError(
            "spawn depth limit reached: this agent may have no children; do the work yourself"
        )
    grants = tuple(g for g in manifest.capabilities if g.kind is not CapabilityKind.SPAWN)
    if depth > 1:
        grants = (*grants, Capability.spawn(depth - 1))
    resources = manifest.resources
    budget = resources.max_tokens_budget
    if budget is not None:
        budget -= used_tokens
        if budget < 1:
            raise CapabilityDeniedError("no tokens are left for a child; give your answer now")
    narrowed = attrs.evolve(
        resources,
        max_iterations=min(resources.max_iterations, CHILD_MAX_ITERATIONS),
        max_tokens_budget=budget,
    )
    return SpawnConfig(
        attrs.evolve(manifest, name=name, capabilities=grants, resources=narrowed),
        query,
        deadline_seconds=seconds_left if seconds_left < math.inf else None,
    )
