"""How many agents at once: the pool that applications open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Literal, Self, TypeAlias, final

import attrs
import trio

from agentpool._agent import room_tokens
from agentpool._errors import (
    Fault,
    ManifestError,
    PoolClosedError,
    PoolError,
    PoolFullError,
    PrivacyError,
    UsageError,
)
from agentpool._events import MessageDropped, MessageSent
from agentpool._handle import AgentHandle
from agentpool._manifest import AgentManifest
from agentpool._messages import OWNER_ID, AgentId, AgentMessage
from agentpool._nursery import OUTSIDE, AgentNursery, ToolBuilder
from agentpool._outcome import AgentOutcome
from agentpool._router import MessageRouter
from agentpool._slot import current_slot, parked
from agentpool._spawn import SpawnConfig
from agentpool._statistics import PoolStatistics
from agentpool._waits import Wait
from agentpool.abc import Driver, Memory, Observer
from agentpool.memory._in_memory import InMemoryMemory
from agentpool.observe._hub import EventHub, EventReader
from agentpool.tools._registry import EMPTY_REGISTRY, ToolRegistry

DriverFactory: TypeAlias = Callable[[AgentManifest], Driver]
"""Chooses the driver of an agent by its manifest. Called at spawn; must not block."""


@final
@attrs.define(eq=False)
class Completions:
    """Outcomes in the order of the ends: an async iterator."""

    _pool: AgentPool

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> AgentOutcome:
        """Return the next outcome.

        Cancellation:
            No outcome is lost.
        """
        outcome = await self._pool.join_next()
        if outcome is None:
            raise StopAsyncIteration
        return outcome


@final
@attrs.define(eq=False)
class AgentPool:
    """A nursery of agents. ``open_pool`` makes it."""

    _agents: AgentNursery
    _driver: Driver | DriverFactory
    _closed: bool = False

    # --- spawn

    async def spawn(self, config: SpawnConfig) -> AgentHandle:
        """Accept an agent, waiting while the queue is full.

        Raises:
            PoolClosedError: If the pool is closing.
            ManifestError: If the manifest cannot work with its driver.
            PrivacyError: If the manifest's tier forbids its driver.

        Cancellation:
            If cancelled, nothing was accepted.
        """
        (handle,) = await self.fan_out((config,))
        return handle

    def spawn_nowait(self, config: SpawnConfig) -> AgentHandle:
        """Accept an agent now.

        Raises:
            PoolFullError: If there is no room. Nothing has changed.
            PoolClosedError: If the pool is closing.
            ManifestError: If the manifest cannot work with its driver.
            PrivacyError: If the manifest's tier forbids its driver.
        """
        (handle,) = self.fan_out_nowait((config,))
        return handle

    async def fan_out(self, configs: Iterable[SpawnConfig]) -> list[AgentHandle]:
        """Accept agents in order, waiting while the queue is full.

        Raises:
            PoolClosedError: If the pool is closing.
            ManifestError: If a manifest cannot work with its driver.
            PrivacyError: If a manifest's tier forbids its driver.

        Cancellation:
            Agents accepted before stay accepted; ``join_all`` has them.
        """
        handles: list[AgentHandle] = []
        admission = self._agents.admission
        for config in configs:
            driver = self._driver_for(config)
            await trio.lowlevel.checkpoint_if_cancelled()
            while not admission.room_for(1):
                async with parked(Wait.other("a place in the queue")):
                    await admission.wait_room()
            self._check_open()
            handles.append(self._agents.accept(config, driver))
        await trio.lowlevel.cancel_shielded_checkpoint()
        return handles

    def fan_out_nowait(self, configs: Iterable[SpawnConfig]) -> list[AgentHandle]:
        """Accept all of these agents, or none of them.

        Raises:
            PoolFullError: If there is not room for all. Nothing has changed.
            PoolClosedError: If the pool is closing.
            ManifestError: If a manifest cannot work with its driver.
            PrivacyError: If a manifest's tier forbids its driver.
        """
        wanted = [(config, self._driver_for(config)) for config in configs]
        admission = self._agents.admission
        # No await between the test and the change, so no other task can slip in.
        if not admission.room_for(len(wanted)):
            running, queued = admission.running_count, admission.queued_count
            raise PoolFullError(
                f"no room for {len(wanted)} more: {running} of "
                f"{admission.limiter.total_tokens:g} slots are taken and {queued} of "
                f"{admission.max_queued} places in the queue; wait with spawn(), or raise "
                "max_queued",
                running=running,
                queued=queued,
            )
        return [self._agents.accept(config, driver) for config, driver in wanted]

    def _driver_for(self, config: SpawnConfig) -> Driver:
        """Return the agent's driver, after everything that can be checked beforehand."""
        self._check_open()
        manifest = config.manifest
        driver = self._driver if isinstance(self._driver, Driver) else self._driver(manifest)
        if not manifest.privacy.allows(driver.privacy):
            raise PrivacyError(
                f"manifest {manifest.name!r} is {manifest.privacy.value}, its driver is "
                f"{driver.privacy.value}; use a local model, or a laxer privacy in the manifest"
            )
        registry = self._agents.tools
        known = registry if isinstance(registry, ToolRegistry) else EMPTY_REGISTRY
        room = room_tokens(driver, config, known)
        if room is not None and room <= 0:
            fault = Fault(
                "model.max_tokens",
                f"{manifest.model.max_tokens} leaves no room for the query in a window of "
                f"{driver.context_window or manifest.model.context_window} tokens (system "
                "prompt and tools taken off); write a smaller one",
            )
            raise ManifestError([fault], source=manifest.name)
        return driver

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosedError("the pool has closed; spawn inside its block")

    # --- join

    async def join_all(self) -> dict[AgentId, AgentOutcome]:
        """Wait for every agent spawned so far; return their outcomes in spawn order.

        Nobody is missing, whatever happened to them; agents whose outcome was given out
        before are in it again.

        Raises:
            UsageError: If an agent of this pool calls it: it would wait for itself.

        Cancellation:
            No outcome is lost.
        """
        self._not_from_inside("join_all")
        with self._agents.owner_waiting():
            return await self._agents.fan_in.join_all()

    async def join_next(self) -> AgentOutcome | None:
        """Return the next agent to end, each once; ``None`` when no agent is left.

        Raises:
            UsageError: If an agent of this pool calls it: it would wait for itself.

        Cancellation:
            No outcome is lost.
        """
        self._not_from_inside("join_next")
        with self._agents.owner_waiting():
            return await self._agents.fan_in.join_next()

    def as_completed(self) -> Completions:
        """Return the outcomes in the order of the ends, as an async iterator."""
        return Completions(self)

    def _not_from_inside(self, what: str) -> None:
        slot = current_slot.get()
        if slot is not None and slot.keeper is self._agents.admission:
            raise UsageError(
                f"agent {slot.agent_id} called {what}() of its own pool and would wait for "
                "itself; wait for the handles of its children instead"
            )

    # --- end

    def abort_all(self, reason: str = "no reason given") -> None:
        """Cancel every agent, queued ones too. Each still gets an outcome with what it had.

        Does not wait: ``join_all`` does. The pool takes new agents as before.
        """
        speaker = self._agents.speaker_id()
        self._agents.abort(f"agent {speaker}" if speaker else "owner", reason)

    # --- messages of the owner

    async def receive_many(self) -> tuple[AgentMessage, ...]:
        """Take all messages for the owner, waiting for one.

        Cancellation:
            If cancelled, nothing was taken.
        """
        return await self._agents.router.receive_many(OWNER_ID)

    async def broadcast(self, content: str) -> tuple[AgentMessage, ...]:
        """Send *content* to every live agent, waiting for room; return what was accepted.

        Cancellation:
            Those sent before stay sent; the others were not.
        """
        return await self._agents.router.broadcast(self._agents.speaker_id(), content)

    # --- look

    def __getitem__(self, agent_id: AgentId) -> AgentHandle:
        """Return the handle of an agent, running or ended.

        Raises:
            UsageError: If there never was such an agent.
        """
        handle = self._agents.fan_in.handles.get(agent_id)
        if handle is None:
            raise UsageError(
                f"there is no agent {agent_id!r} in this pool; the last one is "
                f"{self._agents.last_id}"
            )
        return handle

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._agents.name

    @property
    def router(self) -> MessageRouter:
        """Who delivers the messages."""
        return self._agents.router

    @property
    def active_count(self) -> int:
        """Agents that have a slot or gave it back for a while; ended ones do not count."""
        return len(self._agents.running)

    @property
    def queued_count(self) -> int:
        """Agents that wait for their first slot."""
        return self._agents.admission.queued_count

    @property
    def max_concurrent(self) -> float:
        """Slots. Setting it takes effect at once; who runs, runs on."""
        return self._agents.admission.limiter.total_tokens

    @max_concurrent.setter
    def max_concurrent(self, slots: int) -> None:
        self._agents.admission.resize(_at_least(1, "max_concurrent", slots))

    def statistics(self) -> PoolStatistics:
        """Return the pool as it is at this moment."""
        agents = self._agents
        running = agents.admission.running_count
        return PoolStatistics(
            running=running,
            parked=len(agents.running) - running,
            queued=agents.admission.queued_count,
            spawned=agents.last_id,
            max_concurrent=self.max_concurrent,
            messages=agents.router.message_count,
            dead_letters=agents.router.dead_letter_count,
            warnings=agents.hub.warnings,
            observer_failures=agents.hub.observer_failures,
        )

    def events(self) -> EventReader:
        """Return a reader of everything that happens from now on."""
        return self._agents.hub.open_reader()

    def close(self) -> None:
        """Take no more agents. Leaving the pool's block does it."""
        self._closed = True


@asynccontextmanager
async def open_pool(  # noqa: PLR0917
    driver: Driver | DriverFactory,
    *,
    max_concurrent: int = 8,
    max_queued: int = 10_000,
    inbox_capacity: int = 32,
    memory: Memory | None = None,
    tools: ToolRegistry | ToolBuilder | None = None,
    observers: Sequence[Observer] = (),
    on_failure: Literal["collect", "abort"] = "collect",
    name: str = "pool",
    random_seed: int | None = None,
) -> AsyncGenerator[AgentPool, None]:
    """Open a pool of agents; leaving the block waits for all of them.

    If the block raises, the agents are aborted and awaited first.

    Args:
        driver: Answers the agents' requests, or chooses who does, by manifest.
        max_concurrent: Agents that run at the same time.
        max_queued: Agents that may wait for their first slot. 0: refuse instead.
        inbox_capacity: Messages that wait for one agent before its senders wait.
        memory: Where agents keep fragments. ``None``: one in memory, for this pool.
        tools: The agents' tools, or a builder that makes each agent its own.
        observers: Called with every event, at once; they must not block.
        on_failure: ``collect`` goes on after a failure; ``abort`` cancels the others.
        name: What the pool is called in events and in memory scopes.
        random_seed: Seed of the jitter in retries. ``None``: from the system.

    Yields:
        The pool.

    Raises:
        PoolError: At the exit, if agents failed and nobody looked at their outcomes.
        UsageError: If an argument has no meaning.
    """
    limiter = trio.CapacityLimiter(_at_least(1, "max_concurrent", max_concurrent))
    hub = EventHub(tuple(observers), trio.current_time())
    router = MessageRouter(_at_least(1, "inbox_capacity", inbox_capacity), _watch(hub))
    router.register(OWNER_ID)
    if on_failure not in {"collect", "abort"}:
        raise UsageError(f"on_failure must be 'collect' or 'abort', got {on_failure!r}")
    agents = AgentNursery(
        name, router, hub, memory or InMemoryMemory(), tools or EMPTY_REGISTRY,
        on_failure == "abort", Random(random_seed),
    )
    pool = AgentPool(agents, driver)
    failed: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            agents.open(nursery, limiter, _at_least(0, "max_queued", max_queued))
            try:
                yield pool
                agents.deadlocks.owner_left()
            except trio.Cancelled:
                agents.abort(*OUTSIDE)
                raise
            except Exception as error:  # noqa: BLE001  # raised again below
                # After the nursery, so that it comes out as itself and in no group.
                failed = error
                agents.abort("pool", f"its block raised {type(error).__name__}")
    except BaseException as outside:
        if failed is not None:
            raise BaseExceptionGroup("the pool's block failed", [failed, outside]) from None
        if isinstance(outside, BaseExceptionGroup) and len(outside.exceptions) == 1:
            raise outside.exceptions[0] from None
        raise
    finally:
        pool.close()
        agents.abort(*OUTSIDE)
        router.unregister(OWNER_ID, reason="the pool closed")
        hub.close()
    unseen = agents.fan_in.unseen_failures()
    if failed is not None:
        for agent_id, error in unseen.items():
            failed.add_note(f"agent {agent_id} failed as well: {type(error).__name__}: {error}")
        raise failed
    if unseen:
        raise PoolError(
            f"{len(unseen)} of {agents.last_id} agents failed, and nobody looked at it",
            list(unseen.values()),
            tuple(unseen),
        )


def _watch(hub: EventHub) -> Callable[[AgentMessage, str | None], None]:
    """Return what tells *hub* of messages."""

    def watch(message: AgentMessage, reason: str | None) -> None:
        if not hub.listening:
            return
        if reason is None:
            hub.publish(MessageSent(*hub.stamp(message.sender, ""), message))
        else:
            hub.publish(MessageDropped(*hub.stamp(message.recipient, ""), message, reason))

    return watch


def _at_least(least: int, name: str, number: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < least:
        raise UsageError(f"{name} must be a whole number >= {least}, got {number!r}")
    return number
