"""The pool that applications use: many agents, a few running at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, NoReturn, final

import trio

from agentpool._base import Live
from agentpool._budget.statistics import PoolStatistics
from agentpool._checks import at_least, expect_arguments
from agentpool._errors import UsageError
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import OWNER_ID, AgentId, AgentMessage
from agentpool._needs_trio import check_trio
from agentpool._opening import opening
from agentpool._outcome import AgentOutcome
from agentpool._pool.fan_in import Completions
from agentpool._pool.handle import AgentHandle, handles_of, unknown_agent
from agentpool._pool.nursery import AgentNursery
from agentpool._pool.record import AgentRecord, OnEnd
from agentpool._pool.router import MessageRouter
from agentpool._pool.shutdown import ShutdownStep
from agentpool._pool.snapshot import ADVICE, refuse_iteration, shown, statistics_of
from agentpool._pool.spawn_checks import Queries, Wanted, check_map
from agentpool._public import advised, refuse_attribute
from agentpool._scheduling.ctrl_c import interruptible, unbroken
from agentpool._spawn import SpawnConfig, emptying, listed
from agentpool.observe._event_reader import EventReader

if TYPE_CHECKING:
    from agentpool._pool.map import OutcomeStream
    from agentpool._pool.restart_policy import RestartPolicy


@unbroken
@final
class AgentPool(Live, weakref=True):
    """A bounded nursery of agents. Opened by ``open_pool``.

    >>> import trio
    >>> from agentpool import AgentManifest, SpawnConfig, open_pool
    >>> from agentpool.drivers import ScriptedDriver
    >>> async def main() -> None:
    ...     async with open_pool(ScriptedDriver(["Hello!"]), max_concurrent=4) as pool:
    ...         handle = await pool.spawn(SpawnConfig(AgentManifest(), "Say hello"))
    ...         print((await handle.wait()).text)
    >>> trio.run(main)
    Hello!
    """

    _agents: AgentNursery

    def __repr__(self) -> str:
        """Return name and load: ``<AgentPool 'pool' 2/8 running>``."""
        return shown(self._agents)

    if not TYPE_CHECKING:  # a type checker shall know that there is nothing else

        def __getattr__(self, name: str) -> NoReturn:
            """Refuse a missing attribute, with advice."""
            refuse_attribute(self, name, ADVICE)

        # Or Python would ask for agents 0, 1, 2 and so on.
        __iter__ = __contains__ = refuse_iteration

    @advised
    async def spawn(self, config: SpawnConfig) -> AgentHandle:
        """Accept an agent, waiting while the queue is full.

        Raises:
            PoolClosedError: If the pool is closing.
            ManifestError: If the manifest cannot work with its driver.
            PrivacyError: If its tier forbids its driver, or is laxer than a calling agent's.

        Cancellation:
            If cancelled, nothing was accepted.
        """
        check_trio("pool.spawn")
        parent, driver = self._agents.look_at_one(config)
        accept, enter = self._agents.accept, self._agents.entrance.enter
        return AgentHandle(self._agents, await enter(accept, parent, None, config, driver))

    @advised
    def spawn_nowait(self, config: SpawnConfig) -> AgentHandle:
        """Accept an agent now, or raise.

        Raises:
            PoolFullError: If there is no room. Nothing has changed.
            PoolClosedError: If the pool is closing.
            ManifestError: If the manifest cannot work with its driver.
            PrivacyError: If its tier forbids its driver, or is laxer than a calling agent's.
        """
        check_trio("pool.spawn_nowait")
        return self.fan_out_nowait((config,))[0]

    async def fan_out(self, configs: Iterable[SpawnConfig]) -> list[AgentHandle]:
        """Accept agents in order, waiting while the queue is full.

        All configs are taken before the first agent is accepted, and each handle keeps its outcome,
        whatever ``keep_outcomes`` says. For constant memory, use ``map``.

        Raises:
            PoolClosedError: If the pool is closing.
            ManifestError: If a manifest cannot work with its driver.
            PrivacyError: If a tier forbids its driver, or is laxer than a calling agent's.

        Cancellation:
            Agents accepted before stay accepted; ``join_all`` returns their outcomes.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        parent, wanted, drivers = self._wanted(configs)
        # Each config is let go as its agent is accepted: the agent drops it at its end.
        pairs = zip(emptying(wanted), emptying(drivers), strict=True)
        accept, fan_in = partial(self._agents.accept, parent, copy_context()), self._agents.fan_in
        with fan_in.batch(is_rising=self._agents.journal is None) as batch:
            await self._agents.entrance.enter_each(accept, pairs, batch.add)
            return handles_of(self._agents, fan_in.all_of(batch))

    def fan_out_nowait(self, configs: Iterable[SpawnConfig]) -> list[AgentHandle]:
        """Accept all of these agents, or none.

        Raises:
            UsageError: If the pool's journal has one of their keys for another agent.
            PoolFullError: If there is not room for all. Nothing has changed.
            PoolClosedError: If the pool is closing.
            ManifestError: If a manifest cannot work with its driver.
            PrivacyError: If a tier forbids its driver, or is laxer than a calling agent's.
        """
        check_trio("pool.fan_out_nowait")
        return handles_of(self._agents, self._agents.accept_all(self._wanted(configs)))

    async def join_all(self, *, children: bool = False) -> dict[AgentId, AgentOutcome]:
        """Wait for every agent spawned so far, and return their outcomes in spawn order.

        The result has every agent of ``spawn`` and ``fan_out``, called by the owner or by a tool,
        however the agent ended, and even if its outcome has been returned before. Only agents that
        are no longer kept (``keep_outcomes``) are missing.

        Args:
            children: Whether to include the agents of ``run_child``, ``map``, ``race`` and
                ``supervise``. Their outcomes otherwise only go to the caller that started them;
                ``pool[id]`` finds them too.

        Raises:
            UsageError: If an agent of this pool calls it: it would wait for itself.

        Cancellation:
            No outcome is lost.
        """
        expect_arguments(AgentPool.join_all, locals())
        self._agents.voice.refuse_agents("join_all")
        return await self._agents.fan_in.join_all(children=children)

    async def join_next(self) -> AgentOutcome | None:
        """Wait for the next agent to end, and return its outcome. ``None``: no agent is left.

        It returns only agents of ``spawn`` and ``fan_out``. The outcomes of other agents go to the
        caller that started them.

        Raises:
            UsageError: If an agent of this pool calls it: it would wait for itself.

        Cancellation:
            No outcome is lost.
        """
        self._agents.voice.refuse_agents("join_next")
        return await self._agents.fan_in.join_next()

    def as_completed(self) -> AsyncIterator[AgentOutcome]:
        """Iterate asynchronously over outcomes, in the order in which agents end.

        It returns the same agents as ``join_next``, and ends as soon as no agent is left, even if a
        task is about to spawn more: spawn all agents before, or use ``map``.
        """
        return Completions(self.join_next)

    @opening("outcomes")
    @asynccontextmanager
    async def map(
        self,
        manifest: AgentManifest,
        *sources: Queries,
        ordered: bool = False,
        retries: int = 0,
        output_type: type | None = None,
        group: str = "",
        weight: int = 1,
        priority: int = 0,
    ) -> AsyncGenerator[OutcomeStream, None]:
        """Run one agent per query, for any number of queries, in constant memory.

        ``async with pool.map(manifest, queries) as outcomes: async for outcome in
        outcomes``. These agents are the map's own: ``join_all`` and ``join_next`` do not
        know them. Leaving the block cancels the agents that are left and waits for them.

        Args:
            manifest: The manifest of all its agents.
            sources: The queries, one agent for each. Sync or async iterables, of any length.
                Several sources take turns, and a slow one does not make others wait. An async
                generator is closed at the end of the block.
            ordered: Whether the outcomes come in the order in which the queries were taken.
            retries: How often a query whose agent failed is asked again, by a new agent, after 1,
                2, 4, … seconds, at most 60. The last outcome counts.
            output_type: As in ``SpawnConfig``, for all of the agents.
            group: As in ``SpawnConfig``.
            weight: As in ``SpawnConfig``.
            priority: As in ``SpawnConfig``.

        Raises:
            PoolClosedError: If the pool is closing.
            PrivacyError: If an agent calls this and its tier is stricter than the manifest's.
            UsageError: If there is no source, or an argument is invalid.
        """
        from agentpool._pool.map import OutcomeStream, QueryMap  # noqa: PLC0415

        config_of = partial(SpawnConfig, manifest, output_type=output_type, group=group,
                            weight=weight, priority=priority)  # fmt: skip
        config = check_map(manifest, sources, retries, ordered, config_of)
        (agents := self._agents).entrance.check_open()
        deadlocks, (parent, above) = agents.deadlocks, agents.voice.above_all(manifest)

        def accept(config: SpawnConfig, end: OnEnd) -> AgentRecord:
            return agents.accept(parent, None, config, agents.entry.driver_for(config, above), end)

        asker = OWNER_ID if parent is None else parent.agent_id
        run = QueryMap(
            config, sources, ordered, agents.admission, accept, deadlocks.owner,
            partial(deadlocks.suspect, asker), asker, retries,
        )  # fmt: skip
        deadlocks.sources.append(run.may_start)
        agents.nursery.start_soon(run.feed, parent and parent.slot, name="map")
        try:
            yield OutcomeStream(run)
            run.is_left = True
        finally:
            with trio.CancelScope(shield=True):
                await run.aclose()
            deadlocks.sources.remove(run.may_start)

    async def race(self, configs: Iterable[SpawnConfig]) -> AgentOutcome:
        """Run several agents and return the first that completes; cancel the others.

        The losers are cancelled and have ended before this returns. A racer waits until there is
        room for it. If another racer wins before that, it is not started at all.

        Raises:
            PoolError: If none completed. It has the error of each racer.
            PrivacyError: As in ``spawn``.
            UsageError: If there are no configs.

        Cancellation:
            All of them are cancelled, and awaited.
        """
        from agentpool._pool.race import race  # noqa: PLC0415  # on first use

        parent, wanted, drivers = self._wanted(configs)
        return await race(self._agents, parent, list(zip(wanted, drivers, strict=True)))

    async def supervise(
        self, configs: Iterable[SpawnConfig], policy: RestartPolicy | None = None
    ) -> list[AgentOutcome]:
        """Run agents, restart them by *policy*, and return their last outcomes in order.

        Each restart is a new agent, with a new number. ``join_all`` and ``join_next`` do not know
        supervised agents; ``pool[id]`` does.

        Args:
            configs: The agents to run.
            policy: When to restart which agents. ``None``: restart failed ones, with at most
                three restarts a minute in total.

        Raises:
            RestartLimitError: If they were restarted too often. All have ended, and the error has
                their outcomes.
            PrivacyError: As in ``spawn``.

        Cancellation:
            All of them are cancelled, and awaited.
        """
        from agentpool._pool.supervisor import supervise  # noqa: PLC0415  # on first use

        agents, (parent, *each) = self._agents, self._wanted(configs)
        starters = [partial(agents.accept, parent, None, *one) for one in zip(*each, strict=True)]
        return await supervise(starters, policy, agents.entrance, agents.deadlocks.owner)

    @interruptible  # the configs may be made as they are taken
    def _wanted(self, configs: Iterable[SpawnConfig]) -> Wanted:
        # Two lists: a pair for each agent would be one more object for the garbage collector.
        return self._agents.look_at(listed(configs))

    async def shutdown(self, *, grace_seconds: float) -> ShutdownStep:
        """End all agents in three steps: ask, wait, cancel. Return the step that was needed.

        Queued agents are cancelled immediately. Running ones are asked to stop after their turn;
        those that have not ended after *grace_seconds* are cancelled. No new agents are accepted.

        Raises:
            UsageError: If an agent of this pool calls it: it would wait for itself.

        Cancellation:
            The agents were asked to stop, but are not cancelled.
        """
        expect_arguments(AgentPool.shutdown, locals())
        if not grace_seconds >= 0:
            raise UsageError(f"grace_seconds must be >= 0, got {grace_seconds!r}")
        self._agents.voice.refuse_agents("shutdown")
        self._agents.close()
        return await self._agents.shutdown(grace_seconds)

    def abort_all(self, reason: str = "no reason given") -> None:
        """Cancel all agents, including queued ones. Each gets an outcome, which no journal records.

        ``join_all`` waits for them. The pool still accepts new agents, and a ``map`` goes on with
        its next queries: leave its block to end it. If the pool is resumed from a journal, the
        cancelled agents go on.
        """
        expect_arguments(AgentPool.abort_all, locals())
        self._agents.abort("", reason)

    async def receive_many(self) -> tuple[AgentMessage, ...]:
        """Take all waiting messages for the owner. If there are none, wait for one.

        Raises:
            DeadlockError: If no agent is left that could send one, and all tasks of the owner wait
                for the pool.
            AgentGoneError: If the pool has closed.

        Cancellation:
            If cancelled, nothing was taken.
        """
        return await self._agents.voice.receive_many()

    async def broadcast(self, content: str) -> tuple[AgentMessage, ...]:
        """Send *content* to every live agent, waiting for room. Return the accepted messages.

        Cancellation:
            Messages sent before stay sent; the others were not sent.
        """
        return await self._agents.voice.broadcast(content)

    def __getitem__(self, agent_id: AgentId) -> AgentHandle:
        """Return the handle of an agent, running or ended, whichever task spawned it.

        Raises:
            UsageError: If there never was such an agent, it is no longer kept, or it is one of an
                earlier process that has not been spawned again.
        """
        agents = self._agents
        if (record := agents.fan_in.find(agent_id)) is None:
            is_absent = agent_id in agents.deadlocks.absent
            raise unknown_agent(agent_id, agents.last_id, is_absent=is_absent)
        return AgentHandle(agents, record)

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._agents.name

    @property
    def router(self) -> MessageRouter:
        """Sends messages for the caller, and shows those already sent."""
        return MessageRouter(self._agents.router, self._agents.voice)

    @property
    def active_count(self) -> int:
        """Agents that have started and not ended, with a slot or parked."""
        return len(self._agents.running)

    @property
    def queued_count(self) -> int:
        """Agents that wait for their first slot."""
        return self._agents.admission.queued_count

    @property
    def max_concurrent(self) -> float:
        """The number of slots. Can be set at any time; running agents go on."""
        return self._agents.admission.slots

    @max_concurrent.setter
    def max_concurrent(self, slots: int) -> None:
        self._agents.voice.owner.check_thread("")
        self._agents.admission.resize(at_least(1, "max_concurrent", slots))

    def statistics(self) -> PoolStatistics:
        """Return a snapshot of the pool."""
        return statistics_of(self._agents)

    def events(self) -> EventReader:
        """Open a reader of all events from now on."""
        return self._agents.hub.open_reader(self._agents.deadlocks.owner)

    def close(self) -> None:
        """Accept no more agents. Leaving the pool's block does this too."""
        self._agents.close()
