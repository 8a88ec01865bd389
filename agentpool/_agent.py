"""How an agent is driven: the effects of its loop, performed for real.

Time limits stand where they are set and nowhere else: a cancel scope costs a quarter of a
turn. Tools of one answer run side by side, each a branch of the agent's slot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import final

import attrs
import trio

from agentpool._capability import CapabilityKind
from agentpool._context import fixed_tokens
from agentpool._errors import (
    DriverError,
    NetworkError,
    UsageError,
)
from agentpool._events import (
    CompletionReceived,
    Phase,
    PhaseChanged,
    RequestRetried,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from agentpool._guard import Stop
from agentpool._loop import Complete, Recall, Receive, Remember, Run, RunTools, run_loop
from agentpool._messages import (
    NO_USAGE,
    AgentId,
    Completion,
    CompletionRequest,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentpool._outcome import AgentOutcome, AgentStatus, StopReason
from agentpool._retry import RetrySchedule
from agentpool._slot import Branch, Slot, current_branch, parked
from agentpool._spawn import SpawnConfig
from agentpool._waits import Wait
from agentpool.abc import (
    AgentContext,
    Driver,
    Fragment,
    Memory,
    MemoryQuery,
    ToolContext,
    ToolResult,
)
from agentpool.observe._hub import EventHub
from agentpool.tools._failure import failed_result
from agentpool.tools._registry import ToolRegistry

RETRIES = RetrySchedule()


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

    async def drive(self, registry: ToolRegistry) -> None:  # noqa: ASYNC910  # every run asks its driver
        """Take the run to its end. ``outcome`` says how it ended.

        Raises:
            Exception: Whatever the driver failed with.

        Cancellation:
            The run keeps what it had; nothing of it goes on.
        """
        self.registry = registry
        self.run = run = self._new_run(registry)
        self._phase(Phase.PERCEIVE)
        for effect in run_loop(run):
            if isinstance(effect, Receive):
                self.receive(effect)
            elif isinstance(effect, Complete):
                effect.completion = await self._complete(effect.request, run)
            elif isinstance(effect, RunTools):
                await self._run_tools(effect)
            elif isinstance(effect, Recall):
                await self._recall(effect)
            elif isinstance(effect, Remember):
                await self._remember(effect)
            else:
                self.hub.warned(self.agent_id, self.name, effect.text)
        if run.stop is None:
            self._phase(Phase.DONE)

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

    def charge(self, usage: Usage) -> None:
        """Count what a child used. If that breaks a budget, there is no next turn."""
        assert self.run is not None  # noqa: S101  # only its tools have children
        verdict = self.run.guard.record_usage(usage)
        if isinstance(verdict, Stop):
            self.run.exhausted = verdict

    # --- the effects

    async def _recall(self, effect: Recall) -> None:  # noqa: ASYNC910  # a broken memory need not have one
        assert self.memory is not None  # noqa: S101  # only then the run asks
        query = MemoryQuery(text=effect.query, scope=self.memory_scope, limit=effect.limit)
        try:
            hits = await self.memory.recall(query)
            effect.fragments = [hit.fragment.content for hit in hits]
        except Exception as error:  # noqa: BLE001  # somebody else's code: told and counted
            self._tolerate("recall", error)

    async def _remember(self, effect: Remember) -> None:  # noqa: ASYNC910  # a broken memory need not have one
        assert self.memory is not None  # noqa: S101  # only then the run asks
        fragment = Fragment(
            content=effect.content, scope=self.memory_scope, created_at=self.hub.seconds()
        )
        try:
            await self.memory.remember(fragment)
        except Exception as error:  # noqa: BLE001  # somebody else's code: told and counted
            self._tolerate("remember", error)

    def _tolerate(self, what: str, error: Exception) -> None:
        text = f"memory failed to {what}: {type(error).__name__}: {error}; the run goes on"
        self.hub.warned(self.agent_id, self.name, text)

    async def _complete(self, request: CompletionRequest, run: Run) -> Completion:
        """Ask the driver, within the time that the manifest gives one request."""
        self._phase(Phase.REASON)
        hub = self.hub
        asked_at = hub.seconds() if hub.listening else 0.0
        seconds = self.config.manifest.resources.request_seconds
        if seconds is None:
            completion = await self._request(request, run)
        else:
            answered: list[Completion] = []
            with trio.move_on_after(seconds):
                answered.append(await self._request(request, run))
            if not answered:
                raise NetworkError(
                    f"no whole answer within {seconds:g} seconds; "
                    "raise resources.request_seconds if the model is slow"
                )
            (completion,) = answered
        if hub.listening:
            reason, usage = completion.finish_reason, completion.usage
            stamp = hub.stamp(self.agent_id, self.name)
            hub.publish(CompletionReceived(*stamp, reason, usage, hub.seconds() - asked_at))
        return completion

    async def _request(self, request: CompletionRequest, run: Run) -> Completion:
        """Ask again where that makes sense and nothing has arrived yet."""
        attempt, waited_seconds = 1, 0.0
        while True:
            try:
                return await self.driver.complete(request, on_delta=self._arrived)
            except DriverError as error:
                delay_seconds = (
                    RETRIES.next_delay_seconds(
                        attempt, waited_seconds, error.retry_after_seconds, self.random.random()
                    )
                    if error.retryable and not run.arriving
                    else None
                )
                if delay_seconds is None:
                    raise
                if self.hub.listening:
                    stamp = self.hub.stamp(self.agent_id, self.name)
                    self.hub.publish(RequestRetried(*stamp, attempt, delay_seconds, str(error)))
            async with parked(Wait.other("a retry")):
                await trio.sleep(delay_seconds)
            attempt, waited_seconds = attempt + 1, waited_seconds + delay_seconds

    def _arrived(self, piece: str) -> None:
        assert self.run is not None  # noqa: S101  # only a run asks the driver
        self.run.arriving.append(piece)
        if self.hub.listening:
            self.hub.publish(TextDelta(*self.hub.stamp(self.agent_id, self.name), piece))

    async def _run_tools(self, effect: RunTools) -> None:
        wanted = [index for index, result in enumerate(effect.results) if result is None]
        if len(wanted) == 1:
            # Most answers have one call; a nursery would cost as much as the rest of it.
            await self._run_tool(effect, wanted[0])
            return

        async def run(index: int, branch: Branch) -> None:
            current_branch.set(branch)
            try:
                await self._run_tool(effect, index)
            finally:
                self.slot.branch_ended(branch)

        branches = self.slot.fork(len(wanted))
        async with trio.open_nursery() as nursery:
            for index, branch in zip(wanted, branches, strict=True):
                nursery.start_soon(run, index, branch)

    async def _run_tool(self, effect: RunTools, index: int) -> None:
        call = effect.calls[index]
        hub = self.hub
        if hub.listening:
            self._phase(Phase.ACT, call.name)
            hub.publish(ToolStarted(*hub.stamp(self.agent_id, self.name), call))
        self.tools_run += 1
        result = await self._call(call)
        # Written before anybody is told, so that a cancellation finds it in its place.
        effect.results[index] = result
        if hub.listening:
            stamp = hub.stamp(self.agent_id, self.name)
            hub.publish(ToolFinished(*stamp, call, result.content, result.is_error))

    async def _call(self, call: ToolCall) -> ToolMessage:
        tool = self.registry.get(call.name)
        # The loop has refused calls of unknown tools already.
        assert tool is not None  # noqa: S101
        context = ToolContext(self.context, call.call_id)
        seconds = tool.timeout_seconds
        if seconds is None:
            seconds = self.config.manifest.resources.tool_seconds
        result: ToolResult | None = None
        try:
            if seconds is None or seconds == math.inf:
                result = await tool.run(call.arguments, context)
            else:
                with trio.move_on_after(seconds) as scope:
                    result = await tool.run(call.arguments, context)
                if scope.cancelled_caught:
                    text = f"tool {call.name!r} timed out after {seconds:g} seconds"
                    return ToolMessage(call.call_id, call.name, text, is_error=True)
        except Exception as error:  # noqa: BLE001  # a tool's failure is told to the model
            result = failed_result(call.name, error)
        if not isinstance(result, ToolResult):
            got = UsageError(f"a tool must return a ToolResult, got {result!r}")
            result = failed_result(call.name, got)
        return ToolMessage(call.call_id, call.name, result.content, result.is_error)  # noqa: ASYNC910  # a tool without one is its own fault

    # --- what it is made of

    def _new_run(self, registry: ToolRegistry) -> Run:
        manifest = self.config.manifest
        grants, privacy = manifest.capabilities, manifest.privacy
        tools = registry.definitions_for(grants, privacy)
        return Run(
            manifest,
            self.config.query,
            self.config.history,
            tools,
            lambda name: registry.refusal(name, grants, privacy),
            self.driver.price,
            room_tokens(self.driver, self.config, registry),
            self.memory is not None,
        )

    def _left_behind(self) -> tuple[str, ...]:
        return tuple(
            f"{name} ({call.call_id})"
            for name, tool in zip(self.registry.names, self.registry, strict=True)
            for call in tool.left_behind
            if call.agent is self.context
        )

    def _phase(self, phase: Phase, tool_name: str = "") -> None:
        if self.hub.listening:
            stamp = self.hub.stamp(self.agent_id, self.name)
            self.hub.publish(PhaseChanged(*stamp, phase, tool_name))

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
