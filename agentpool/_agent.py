"""One running agent: who it is, what it works with, and what it has done so far."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import final

import attrs

from agentpool._capability import CapabilityKind
from agentpool._context import fixed_tokens
from agentpool._events import Phase, PhaseChanged, TextDelta
from agentpool._guard import Stop, Warn
from agentpool._messages import NO_USAGE, AgentId, Usage, UserMessage
from agentpool._outcome import AgentOutcome, AgentStatus, StopReason
from agentpool._purse import Purse
from agentpool._run import Receive, Run
from agentpool._slot import Slot
from agentpool._spawn import SpawnConfig
from agentpool.abc import AgentContext, Driver, Memory
from agentpool.observe._hub import EventHub
from agentpool.tools._registry import ToolRegistry


def room_tokens(driver: Driver, config: SpawnConfig, registry: ToolRegistry) -> int | None:
    """Return the tokens that the conversation may have; ``None``: no window is known.

    The narrower window counts, the driver's or the manifest's; the answer's own
    ``max_tokens``, the system prompt and the tools' schemas come off it.
    """
    manifest = config.manifest
    window, own = driver.context_window, manifest.model.context_window
    if window is None or (own is not None and own < window):
        window = own
    if window is None:
        return None
    tools = registry.definitions_for(manifest.capabilities, manifest.privacy)
    fixed = fixed_tokens(manifest.model.system_prompt, tools)
    return window - manifest.model.max_tokens - fixed


@final
@attrs.define(eq=False, repr=False)
class Agent:
    """One running agent."""

    agent_id: AgentId
    name: str
    make_context: Callable[[Agent], AgentContext]
    """Makes what its tools see of it. Most agents have no tools, so it is made when asked."""
    config: SpawnConfig
    driver: Driver
    slot: Slot
    hub: EventHub
    memory: Memory | None
    """``None``: it neither recalls nor remembers."""
    pool_memory: str
    """The part of the pool's memory that its agents' own scopes are in."""
    random: Random
    """Where the jitter of retries comes from."""
    receive: Callable[[Receive], None]
    """Fills in what waits in the inbox, and whether the agent was asked to stop."""
    purse: Purse | None
    """How it spends of what others spend as well. ``None``: it shares no budget."""
    _context: AgentContext | None = attrs.field(init=False, default=None)
    registry: ToolRegistry = attrs.field(init=False)
    run: Run | None = attrs.field(init=False, default=None)
    tools_run: int = attrs.field(init=False, default=0)
    """Tool calls that began, whatever came of them."""

    def __attrs_post_init__(self) -> None:
        """Take the memory away from an agent without the grant."""
        if self.memory is not None:
            grants = self.config.manifest.capabilities
            if not any(grant.kind is CapabilityKind.MEMORY for grant in grants):
                self.memory = None

    @property
    def context(self) -> AgentContext:
        """What its tools see of it."""
        if self._context is None:
            self._context = self.make_context(self)
        return self._context

    def close(self) -> None:
        """Let go of what its tools saw: each holds the other, and both the whole run."""
        self._context = None

    @property
    def memory_scope(self) -> str:
        """The scope in which it recalls and remembers: its own, unless it shares one."""
        return self.config.memory_scope or f"{self.pool_memory}/{self.agent_id}"

    @property
    def used(self) -> Usage:
        """What the agent and its children have used so far."""
        return NO_USAGE if self.run is None else self.run.guard.usage

    def charge(self, usage: Usage | None, cost_usd: float | None) -> None:
        """Count what a child or a tool used. If that breaks a limit, there is no next turn."""
        assert self.run is not None  # noqa: S101  # only its tools have children
        guard = self.run.guard
        for verdict in (guard.record_usage(usage), guard.record_cost(cost_usd)):
            if isinstance(verdict, Stop):
                self.run.exhausted = self.run.exhausted or verdict
            elif isinstance(verdict, Warn):
                self.hub.warned(self.agent_id, self.name, verdict.text)

    def _left_behind(self) -> tuple[str, ...]:
        return tuple(
            f"{name} ({call.call_id})"
            for name, tool in zip(self.registry.names, self.registry, strict=True)
            for call in tool.left_behind
            if call.agent is self.context
        )

    def phase(self, phase: Phase, tool_name: str = "") -> None:
        """Tell who listens what the agent is doing now."""
        if self.hub.listening:
            stamp = self.hub.stamp(self.agent_id, self.name)
            self.hub.publish(PhaseChanged(*stamp, phase, tool_name))

    def arrived(self, piece: str) -> None:
        """Take note of a piece of the answer."""
        assert self.run is not None  # noqa: S101  # only a run asks the driver
        self.run.arriving.append(piece)
        if self.hub.listening:
            self.hub.publish(TextDelta(*self.hub.stamp(self.agent_id, self.name), piece))

    def outcome(
        self,
        status: AgentStatus,
        finished_at: float,
        started_at: float | None,
        *,
        error: Exception | None = None,
        stop_reason: StopReason | None = None,
    ) -> AgentOutcome:
        """Return what became of the agent, with everything that it had."""
        run = self.run
        if run is None:
            return AgentOutcome(
                agent_id=self.agent_id,
                name=self.name,
                status=status,
                error=error,
                stop_reason=stop_reason,
                messages=(*self.config.history, UserMessage(self.config.query)),
                started_at=started_at,
                finished_at=finished_at,
            )
        guard = run.guard
        why = f"not run: the agent was {status.value} before it ended"
        return AgentOutcome(
            agent_id=self.agent_id,
            name=self.name,
            status=status,
            messages=run.settled_messages(why),
            text=run.text,
            error=error,
            stop_reason=stop_reason,
            over_budget=run.over_budget,
            usage=guard.usage,
            unmeasured_requests=guard.unmeasured_requests,
            cost_usd=guard.cost_usd,
            iterations=guard.turns,
            tool_calls=guard.tool_calls,
            tool_calls_run=self.tools_run,
            left_behind=self._left_behind() if self.tools_run else (),
            started_at=started_at,
            finished_at=finished_at,
        )
