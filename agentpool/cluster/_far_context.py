"""Lets a tool on a node use its agent, which runs in the program."""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from itertools import count
from typing import Final, cast, final

import attrs
import msgspec
import trio

from agentpool._base import Live
from agentpool._budget.budget import Budget
from agentpool._checks import expect_arguments, expect_fields
from agentpool._errors import UsageError
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import AgentId, AgentMessage, Completion, CompletionRequest
from agentpool._opening import once_async
from agentpool._outcome import AgentOutcome
from agentpool._spawn import SpawnConfig
from agentpool.abc import AgentContext, AgentInfo, Driver, OnDelta
from agentpool.cluster._node_messages import AgentFacts, News, Question, Withdraw

NO_BUDGET: Final = (
    "a budget is in the program, not on its nodes; use context.agent.complete(driver, request), "
    "which pays from the budget, or give the tool to the pool as an object, so that the tool "
    "runs in the program"
)


@final
class Caller(Live):
    """One piece of work on a node."""

    call: int
    """The number of the call."""
    put: Callable[[News], None]
    """Sends news to the program."""
    scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    task: trio.lowlevel.Task | None = None
    """The task that does the work. ``None``: the work has not begun."""

    def waits_alone(self) -> bool:
        """Return whether the current task does all of the work and has set no time limit."""
        task = trio.lowlevel.current_task()
        return (
            task is self.task
            and not any(nursery.child_tasks for nursery in task.child_nurseries)
            and trio.current_effective_deadline() >= self.scope.deadline
        )


@final
class _Open(Live):
    """A question without an answer yet."""

    answered: trio.Event = msgspec.field(default_factory=trio.Event)
    value: object = None
    error: Exception | None = None


@final
@attrs.define(eq=False)
class Questions:
    """The open questions from the tools of one node to their agents."""

    _open: dict[int, _Open] = attrs.field(factory=dict[int, _Open])
    _numbers: count[int] = attrs.field(factory=lambda: count(1))

    async def ask(self, caller: Caller, method: str, *arguments: object) -> object:
        """Ask the agent of *caller* for something, and wait for the answer.

        Raises:
            UsageError: If the arguments cannot be pickled.
            Exception: Whatever the agent's method raised in the program.

        Cancellation:
            The agent's method is cancelled in the program as well.
        """
        # Now, while the tool can be told: in a batch it could only be left out.
        try:
            pickle.dumps(arguments)
        except Exception as error:
            raise UsageError(
                f"what a tool on a node passes to {method} must be picklable: "
                f"{type(error).__name__}: {error}; define its classes at the top of a module"
            ) from error
        number = next(self._numbers)
        self._open[number] = waiting = _Open()
        alone = caller.waits_alone()
        caller.put(Question(caller.call, number, method, arguments, alone))
        try:
            await waiting.answered.wait()
        except BaseException:
            caller.put(Withdraw(caller.call, number))
            raise
        finally:
            del self._open[number]
        if waiting.error is not None:
            raise waiting.error
        return waiting.value

    def answered(self, number: int, value: object, error: Exception | None) -> None:
        """Pass an answer to the call that waits for it, or drop the answer if no call does."""
        waiting = self._open.get(number)
        if waiting is not None:
            waiting.value, waiting.error = value, error
            waiting.answered.set()


@final
@attrs.define(eq=False, repr=False)
class FarContext(AgentContext):
    """An agent, as seen by a tool on a node."""

    _facts: AgentFacts
    _caller: Caller
    _questions: Questions
    _lend: Callable[[Driver], AbstractContextManager[int]]
    """Gives a tool's driver a number for the length of a block, by which the program can ask the
    driver."""
    _began_at: float = attrs.field(factory=trio.current_time)

    @property
    def agent_id(self) -> AgentId:
        """The agent's id."""
        return self._facts.agent_id

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._facts.name

    @property
    def manifest(self) -> AgentManifest:
        """The agent's manifest."""
        return self._facts.manifest

    @property
    def depth(self) -> int:
        """The number of generations above the agent."""
        return self._facts.depth

    @property
    def parent_id(self) -> AgentId:
        """The id of the agent that spawned this agent. 0: the owner."""
        return self._facts.parent_id

    @property
    def memory_scope(self) -> str:
        """The memory scope that the agent uses."""
        return self._facts.memory_scope

    def seconds(self) -> float:
        """Seconds since the pool opened."""
        return self._facts.seconds + trio.current_time() - self._began_at

    @property
    def budget(self) -> Budget | None:
        """Not available on a node.

        Raises:
            UsageError: Always.
        """
        raise UsageError(NO_BUDGET)

    async def complete(
        self, driver: Driver, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Ask a model of this node, paid by the agent. All pieces arrive together at the end.

        Raises:
            LimitExceededError: If a budget does not allow it. The driver was not asked.
            PrivacyError: If the agent's tier forbids the driver. The driver was not asked.
            DriverError: What the last attempt failed with.

        Cancellation:
            The request ends at the provider as well.
        """
        expect_arguments(AgentContext.complete, locals())
        expect_fields(request)
        with self._lend(driver) as number:
            answer = cast("Completion", await self._ask("complete", number, request))
        if on_delta is not None and answer.text:
            on_delta(answer.text)
        return answer

    async def send(
        self, recipient: AgentId, content: str, *, reply_to: int | None = None
    ) -> AgentMessage:
        """Send a message, waiting while the inbox is full, without a slot."""
        return cast("AgentMessage", await self._ask("send", recipient, content, reply_to))

    async def ask(self, recipient: AgentId, content: str) -> AgentMessage:
        """Send a question and wait for its reply, without a slot."""
        return cast("AgentMessage", await self._ask("ask", recipient, content))

    async def receive_many(self) -> tuple[AgentMessage, ...]:
        """Take all waiting messages. If there are none, wait for one without a slot."""
        return cast("tuple[AgentMessage, ...]", await self._ask("receive_many"))

    @once_async
    @asynccontextmanager
    async def without_slot(self, what: str) -> AsyncGenerator[None, None]:
        """Wait inside the block while other agents run instead of this one.

        Cancellation:
            The block ends. If the whole agent is cancelled, the block ends without taking the slot
            back.
        """
        number = await self._ask("leave_slot", what)
        try:
            yield
        finally:
            await self._ask("take_slot", number)  # noqa: ASYNC102  # cancelled, the call ends there too

    def list_agents(self) -> tuple[AgentInfo, ...]:
        """Return every other agent that ran when the call began.

        Raises:
            UsageError: If there were too many to list.
        """
        if self._facts.others is None:
            raise UsageError("too many agents are running to list them for a tool on a node")
        return self._facts.others

    async def run_child(self, query: str | SpawnConfig, *, name: str | None = None) -> AgentOutcome:
        """Run a child to its end, without holding a slot, and return its outcome.

        Raises:
            CapabilityDeniedError: If this agent may not have children with its own manifest.
            PrivacyError: If the child's tier is laxer than this agent's.

        Cancellation:
            The child is cancelled and has ended.
        """
        return cast("AgentOutcome", await self._ask("run_child", query, name))

    async def _ask(self, method: str, *arguments: object) -> object:
        return await self._questions.ask(self._caller, method, *arguments)
