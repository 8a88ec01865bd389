"""What tools can do for their agent: send, ask, look around, run children.

Rules for children:

1. A child may do nothing that its parent may not: grants, privacy, depth, tokens and time only
   shrink from parent to child.
2. A child ends before the call that started it, however that call ends.
3. What a child used counts for its parent as well.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias, final

import msgspec
import trio
from trio.lowlevel import current_task

from agentpool._agent.agent import Agent
from agentpool._agent.tool_request import complete_aside
from agentpool._base import Unique
from agentpool._budget.budget import Budget
from agentpool._checks import expect, expect_arguments, expect_fields
from agentpool._errors import PARENT_LEFT, LimitExceededError, PrivacyError
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import AgentId, AgentMessage, Completion, CompletionRequest
from agentpool._messaging.post_office import PostOffice
from agentpool._one_line import MAX_NAME_CHARS, one_line
from agentpool._opening import once_async
from agentpool._outcome import AgentOutcome
from agentpool._pool.admission import Admission
from agentpool._pool.caller import PoolVoice
from agentpool._pool.record import AgentRecord, OnEnd
from agentpool._pool.spawn_checks import check_child_tier
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait
from agentpool._served_call import note_taken
from agentpool._spawn import SpawnConfig, child_of
from agentpool.abc import AgentContext, AgentInfo, Driver, OnDelta

Accept: TypeAlias = Callable[[AgentRecord, None, SpawnConfig, Driver, OnEnd], AgentRecord]
"""Accepts the child of an agent. The child's end is reported only to the function passed in."""


@unbroken
@final
class PoolAgentContext(Unique, AgentContext):
    """One agent, as its tools see it."""

    __slots__ = (
        "__weakref__", "_accept", "_admission", "_agent", "_look_at", "_record", "_router",
        "_running", "_voice",
    )  # fmt: skip

    def __init__(
        self,
        record: AgentRecord,
        agent: Agent,
        *,
        router: PostOffice,
        admission: Admission,
        running: Mapping[AgentId, AgentRecord],
        accept: Accept,
        look_at: Callable[[SpawnConfig], tuple[AgentRecord | None, Driver]],
        voice: PoolVoice,
    ) -> None:
        self._record = record
        self._agent = agent
        self._router = router
        self._admission = admission
        self._running = running
        self._accept = accept
        self._look_at = look_at
        self._voice = voice

    @property
    def agent_id(self) -> AgentId:
        """The agent's id."""
        return self._record.agent_id

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._record.name

    @property
    def manifest(self) -> AgentManifest:
        """The agent's manifest."""
        return self._agent.config.manifest

    @property
    def depth(self) -> int:
        """The agent's number of ancestors."""
        return self._record.depth

    @property
    def parent_id(self) -> AgentId:
        """The id of the agent that spawned it. 0: the owner."""
        return self._record.parent_id

    @property
    def memory_scope(self) -> str:
        """The memory scope that the agent uses."""
        return self._agent.memory_scope

    def seconds(self) -> float:
        """Seconds since the pool opened."""
        return self._agent.hub.seconds()

    @property
    def budget(self) -> Budget | None:
        """The budget that the agent spends from.

        Raises:
            UsageError: If the agent has ended.
        """
        if self._record.has_ended:
            self._check_user()
        purse = self._agent.purse
        return None if purse is None else purse.budget

    async def complete(
        self, driver: Driver, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Ask a model at the agent's expense.

        Raises:
            LimitExceededError: If a budget does not allow it. The driver was not asked.
            PrivacyError: If the agent's tier forbids the driver. The driver was not asked.
            UsageError: If the agent has ended. The driver was not asked.
            DriverError: The error of the last attempt.

        Cancellation:
            The request ends at the provider as well.
        """
        expect_arguments(AgentContext.complete, locals())
        expect_fields(request)
        self._check_user()
        manifest = self.manifest
        if not manifest.privacy.allows(driver.privacy):
            raise PrivacyError(
                f"manifest {manifest.name!r} is {manifest.privacy.value}, and the driver of a "
                f"tool is {driver.privacy.value}; give the tool a driver of the manifest's tier"
            )
        answer, _ = await complete_aside(self._agent, driver, request, on_delta)
        return answer

    async def send(
        self, recipient: AgentId, content: str, *, reply_to: int | None = None
    ) -> AgentMessage:
        """Send a message, waiting while the inbox is full, without a slot.

        Raises:
            UsageError: If the agent has ended, or the task is not the agent's. Nothing was sent.
        """
        return await self._router.send(self._check_user(), recipient, content, reply_to)

    async def ask(self, recipient: AgentId, content: str) -> AgentMessage:
        """Send a question and wait for its reply, without a slot.

        Raises:
            UsageError: If the agent has ended, or the task is not the agent's. Nothing was sent.
        """
        reply = await self._router.ask(self._check_user(), recipient, content)
        note_taken(reply)
        return reply

    async def receive_many(self) -> tuple[AgentMessage, ...]:
        """Take all waiting messages. If there are none, wait for one without a slot."""
        messages = await self._router.receive_many(self._check_user())
        note_taken(*messages)
        return messages

    def _check_user(self) -> AgentId:
        """Return the agent's id. Raise unless the current task may act as the agent.

        Raises:
            UsageError: If the agent has ended, or the task is not the agent's.
        """
        slot, hub = self._agent.slot, self._agent.hub
        if slot.task is not current_task() or (hub.listening and hub.is_telling):
            self._voice.refuse_others(slot)
        return slot.agent_id

    @once_async
    @asynccontextmanager
    async def without_slot(self, what: str) -> AsyncGenerator[None, None]:
        """Let other agents run instead of this one while the block waits.

        Cancellation:
            The block ends. If the whole agent is cancelled, the block ends without taking the slot
            back.
        """
        expect(what, str, "what must be a str", "say what is waited for")
        await trio.lowlevel.checkpoint()  # also if nothing is waited for in the block
        async with parked(Wait.other(what)):
            yield

    def list_agents(self) -> tuple[AgentInfo, ...]:
        """Return every other agent that has started and has not ended."""
        return tuple(
            AgentInfo(record.agent_id, record.name, record.status)
            for record in self._running.values()
            if record is not self._record
        )

    async def run_child(self, query: str | SpawnConfig, *, name: str | None = None) -> AgentOutcome:
        """Run a child to its end, without a slot, and return its outcome.

        Raises:
            CapabilityDeniedError: If this agent may not have children with its own manifest.
            PrivacyError: If the child's tier is laxer than this agent's.
            PoolClosedError: If the pool takes no more agents.
            UsageError: If this agent has ended.

        Cancellation:
            The child is cancelled and has ended.
        """
        expect_arguments(AgentContext.run_child, locals())
        if self._agent.slot.task is not None:  # otherwise that error says which child was wanted
            self._check_user()
        await trio.lowlevel.checkpoint_if_cancelled()
        deadline = trio.current_effective_deadline()
        seconds_left = deadline - trio.current_time()
        if seconds_left <= 0:
            # A deadline has come, and its scope is about to hear of it.
            await trio.sleep_forever()
        if deadline >= self._admission.outer_deadline:
            # It is that of a scope around the pool, which ends the child as well. As a limit of
            # the child's own it would end it for good.
            seconds_left = math.inf
        if isinstance(query, SpawnConfig):
            config = self._config_of_other(query, name, seconds_left)
            _, driver = self._look_at(config)
        else:
            config = child_of(
                self._agent.config,
                query,
                # A model may have chosen it, and people are shown it beside what they decide.
                name=one_line(name or "", MAX_NAME_CHARS)
                or one_line(f"{self.name}-sub", MAX_NAME_CHARS),
                used_tokens=self._agent.used.total_tokens,
                seconds_left=seconds_left,
                used_usd=self._agent.used_usd,
                budget=self._agent.share_limits(),
            )
            driver = self._agent.driver
        child = await self._admission.entrance.enter(self._accept_child, config, driver)
        # Without a slot until it has ended: to be ended, it may need that very slot.
        async with child.parked_for_end():
            try:
                return await child.wait()
            finally:
                child.cancel(PARENT_LEFT)
                with trio.CancelScope(shield=True):
                    outcome = await child.wait()
                    unmeasured = outcome.unmeasured_requests
                    self._agent.charge(outcome.usage, outcome.cost_usd, unmeasured=unmeasured)

    def _accept_child(self, config: SpawnConfig, driver: Driver) -> AgentRecord:
        child = self._accept(self._record, None, config, driver, AgentRecord.collect)
        slot = self._record.slot
        own = config.manifest.resources.run_seconds or math.inf
        if (
            slot is not None
            and slot.is_guard(trio.current_effective_deadline())
            and (config.deadline_seconds or math.inf) < own
        ):
            child.noted().is_guarded = True
        return child

    def _config_of_other(
        self, config: SpawnConfig, name: str | None, seconds_left: float
    ) -> SpawnConfig:
        """Return the config of a child with a different manifest, within this agent's limits."""
        check_child_tier(self.manifest, config.manifest)
        own = config.deadline_seconds or config.manifest.resources.run_seconds or math.inf
        least = min(own, seconds_left)
        return msgspec.structs.replace(
            config,
            name=one_line(name or "", MAX_NAME_CHARS) or config.name,
            deadline_seconds=least if least < math.inf else None,
            budget=config.budget or self._agent.share_limits(),
        )


# --- for the tools of other machines, and not for tools: these have what ``AgentContext`` has


def _inside(context: AgentContext) -> PoolAgentContext:
    assert isinstance(context, PoolAgentContext)  # noqa: S101  # its tools were made in a pool
    return context


def call_at_end(context: AgentContext, call: Callable[[], object]) -> None:
    """Call *call* when the agent has ended, however it ended. *call* must not block or raise."""
    agent = _inside(context)._agent  # pyright: ignore[reportPrivateUsage]  # the package's own way in
    if agent.at_end is None:
        agent.at_end = []
    agent.at_end.append(call)


async def pay_for_another_run(context: AgentContext) -> LimitExceededError | None:  # noqa: ASYNC910  # without a budget there is nothing to wait for
    """Charge a repeated tool call. Return why it is not allowed. ``None``: it is allowed."""
    purse = _inside(context)._agent.purse  # pyright: ignore[reportPrivateUsage]  # the same
    return None if purse is None else await purse.take_tool_call()  # noqa: ASYNC910  # without a budget there is nothing to wait for


def count_others(context: AgentContext) -> int | None:
    """Return how many agents ``list_agents`` would return. ``None``: only a list can tell."""
    if not isinstance(context, PoolAgentContext):
        return None
    running = context._running  # pyright: ignore[reportPrivateUsage]  # the same
    return len(running) - (context.agent_id in running)
