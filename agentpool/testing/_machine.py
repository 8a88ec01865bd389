"""A Hypothesis state machine that uses every operation of a pool."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias, assert_never

import trio

from agentpool._errors import MessageError, PoolClosedError, PoolFullError, UsageError
from agentpool._events import (
    AgentFinished,
    AgentParked,
    AgentSpawned,
    AgentStarted,
    Event,
    MessageSent,
)
from agentpool._messages import AgentId, Completion, FinishReason, ToolCall
from agentpool._outcome import ENDED, AgentOutcome
from agentpool._pool.handle import AgentHandle
from agentpool.testing._contract import promise
from agentpool.testing._hypothesis import Strategy, st, stateful
from agentpool.testing._simulation.orders import order_of
from agentpool.testing._stage import PoolStage
from agentpool.testing._strategies import driver_errors

_ANY: Final[Strategy[int]] = st.integers(min_value=0, max_value=20)
"""The index of an existing thing, modulo the number of such things."""

_LIMIT: Final[Strategy[float]] = st.sampled_from([math.inf, 0.0, 0.5, 2.0])
"""How many seconds a caller waits before it gives up."""

Action: TypeAlias = Literal[
    "spawn", "answer", "cancel", "send", "interrupt", "resize", "abort", "close"
]
"""An operation that may happen between two steps, or in the middle of one."""

ACTIONS: Final[tuple[Action, ...]] = ("spawn", "answer", "cancel", "send", "interrupt", "resize")
"""The operations that may happen between two steps."""

REACTIONS: Final[tuple[Action, ...]] = (
    *(action for action in ACTIONS if action != "resize"),
    "abort",
    "close",
)
"""The operations that an observer may do. An observer may not resize the pool: it sees starts that
were decided earlier, with more slots, so the bound could not be checked."""

OCCASIONS: Final[tuple[type[Event], ...]] = (
    AgentSpawned,
    AgentStarted,
    AgentParked,
    AgentFinished,
    MessageSent,
)
"""The events at which an observer may do something."""

MAX_PLANNED: Final = 3
"""The most operations that wait for an event."""


class PoolMachine(PoolStage):
    """Drives a pool by rules, and compares it with a model after each rule.

    ``TestMyPool = PoolMachine.TestCase`` is a test. A subclass may override how the agents are made
    (``make_driver``, ``make_tools``, ``make_config``, ``open_pool``), and may add its own rules and
    invariants.
    """

    agents: Final = stateful.Bundle[AgentHandle]("agents")
    """The agents that a rule may choose from."""

    def __init__(self) -> None:
        """Open the pool."""
        self._met = 0
        self.reactions: list[tuple[type[Event], Action, int]] = []
        super().__init__()

    def _new(self) -> stateful.MultipleResults[AgentHandle]:
        """Return the new agents, to which no rule can refer yet."""
        new = self.handles[self._met :]
        self._met = len(self.handles)
        return stateful.multiple(*new)

    def teardown(self) -> None:
        """End everything, and check that nothing is left and nothing was lost."""
        # Or an observer would start an agent that would never be answered.
        self.reactions.clear()
        super().teardown()

    # --- rules: the order

    @stateful.initialize(seed=st.integers(min_value=0, max_value=99))
    def choose_order(self, seed: int) -> None:
        """Choose another order for runnable tasks."""
        self.run.order.now = order_of(seed, late_clock=False)

    @stateful.rule(
        target=agents,
        actions=st.lists(
            st.tuples(st.integers(min_value=0, max_value=4), st.sampled_from(ACTIONS), _ANY),
            min_size=2,
            max_size=4,
        ),
    )
    def between_steps(
        self, actions: list[tuple[int, Action, int]]
    ) -> stateful.MultipleResults[AgentHandle]:
        """Perform several operations while tasks run, with some steps between them."""

        async def job() -> None:  # noqa: ASYNC910  # zero steps are allowed
            for steps, action, number in actions:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                self._act(action, number)

        # It ends after so many steps, and everybody settles before it is looked at.
        self.run.run(job)
        return self._new()

    @stateful.rule(kind=st.sampled_from(OCCASIONS), action=st.sampled_from(REACTIONS), number=_ANY)
    def react(self, kind: type[Event], action: Action, number: int) -> None:
        """Plan an operation for the next event of a kind."""
        if len(self.reactions) < MAX_PLANNED:
            self.reactions.append((kind, action, number))

    def note_event(self, event: Event) -> None:
        """Run the first operation planned for this kind of event."""
        for planned in self.reactions:
            kind, action, number = planned
            if isinstance(event, kind):
                self.reactions.remove(planned)
                self._act(action, number)
                return

    def _act(self, action: Action, number: int) -> None:
        try:
            match action:
                case "spawn":
                    self._fan_out_now(1)
                case "answer":
                    if pending := self.puppet.pending:
                        pending[number % len(pending)].answer(Completion("done"))
                case "resize":
                    self.pool.max_concurrent = 1 + number % 3
                case "abort":
                    self.pool.abort_all("by an observer")
                case "close":
                    self._note_closed()
                    self.pool.close()
                case "cancel" | "interrupt" | "send":
                    if handle := self.pick(number):
                        self._act_on(handle, action)
                case _:
                    assert_never(action)
        except (MessageError, PoolFullError, PoolClosedError) as error:
            self.refusals[type(error).__name__] += 1

    def _act_on(self, handle: AgentHandle, action: Literal["cancel", "interrupt", "send"]) -> None:
        match action:
            case "cancel":
                handle.cancel("by the machine")
            case "interrupt":
                handle.interrupt()
            case "send":
                try:
                    handle.send_nowait(self.content())
                except UsageError:
                    # An observer that is told in an agent's own task speaks for that agent,
                    # which cannot send to itself.
                    self.refusals["UsageError"] += 1
            case _:
                assert_never(action)

    # --- rules: the owner

    @stateful.rule(target=agents)
    def spawn(self) -> stateful.MultipleResults[AgentHandle]:
        """Spawn an agent, waiting for room."""

        async def job() -> None:
            self.handles.append(await self.pool.spawn(*self.configs(1)))

        self.start("spawn", job)
        return self._new()

    @stateful.precondition(lambda self: self._met < len(self.handles))
    @stateful.rule(target=agents)
    def meet(self) -> stateful.MultipleResults[AgentHandle]:
        """Add agents that were spawned meanwhile to the model, even those spawned by observers."""
        return self._new()

    @stateful.rule(target=agents, count=st.integers(min_value=1, max_value=4))
    def fan_out_nowait(self, count: int) -> stateful.MultipleResults[AgentHandle]:
        """Spawn several agents, all or none."""
        before, was_closed = self.pool.statistics(), self.closed
        try:
            found = self.run.call(lambda: self._fan_out_now(count))
        except PoolClosedError:
            promise(self.closed, "an open pool said that it is closed")
        except PoolFullError:
            after = self.pool.statistics()
            promise(after == before, f"a refused fan-out changed {before} to {after}")
            taken = before.running + before.at_gate + before.queued
            room = self.max_queued + self.pool.max_concurrent - taken
            promise(count > room, f"{count} agents were refused with room for {room}")
        else:
            promise(not was_closed, "a closed pool took an agent")
            first = before.spawned + 1
            promise(
                found == list(range(first, first + count)),
                f"new ids must follow on, got {found} after {before}",
            )
        return self._new()

    def _fan_out_now(self, count: int) -> list[AgentId]:
        handles = self.pool.fan_out_nowait(self.configs(count))
        self.handles.extend(handles)
        return [handle.agent_id for handle in handles]

    @stateful.rule(handle=agents)
    def cancel(self, handle: AgentHandle) -> None:
        """Cancel one agent."""
        self.run.call(lambda: handle.cancel("by the machine"))
        promise(handle.status in ENDED, f"{handle} goes on after its cancellation")

    @stateful.rule()
    def abort_all(self) -> None:
        """Cancel all agents; each of them must end."""
        before = list(self.handles)
        self.run.call(self.pool.abort_all)
        left = [handle for handle in before if not handle.has_ended]
        promise(not left, f"agents are left after abort_all(): {left}")

    @stateful.rule(handle=agents)
    def interrupt(self, handle: AgentHandle) -> None:
        """Ask one agent to stop after its turn."""
        self.run.call(handle.interrupt)

    @stateful.rule(handle=agents)
    def send_nowait(self, handle: AgentHandle) -> None:
        """Send to one agent. A refusal changes nothing."""
        before, text = self.pool.statistics(), self.content()
        try:
            self.run.call(lambda: handle.send_nowait(text))
        except MessageError:
            promise(self.pool.statistics().messages == before.messages, "a refusal was counted")

    @stateful.rule(handle=agents, seconds=_LIMIT)
    def ask(self, handle: AgentHandle, seconds: float = math.inf) -> None:
        """Ask one agent, perhaps with a timeout."""

        async def job() -> None:
            with trio.move_on_after(seconds):
                self.received.append(await handle.ask(self.content()))

        self.start("ask", job)

    @stateful.rule(seconds=_LIMIT)
    def receive(self, seconds: float = math.inf) -> None:
        """Receive the owner's messages, perhaps with a timeout."""

        async def job() -> None:
            with trio.move_on_after(seconds):
                self.received.extend(await self.pool.receive_many())

        self.start("receive", job)

    @stateful.rule(seconds=_LIMIT)
    def join_next(self, seconds: float = math.inf) -> None:
        """Wait for the next agent to end, perhaps with a timeout."""

        async def job() -> None:
            with trio.move_on_after(seconds):
                outcome = await self.pool.join_next()
                if outcome is not None:
                    self._note_given(outcome)

        if "join_all" not in self._busy:
            self.start("join_next", job)

    def _note_given(self, outcome: AgentOutcome) -> None:
        promise(outcome.agent_id not in self.given, f"agent {outcome.agent_id} was given twice")
        self.given.append(outcome.agent_id)
        self.given_next.append(outcome.agent_id)

    @stateful.rule()
    def join_all(self) -> None:
        """Wait for all agents."""

        async def job() -> None:
            outcomes = await self.pool.join_all()
            promise(list(outcomes) == sorted(outcomes), "join_all() is not in spawn order")
            self.given.extend(agent_id for agent_id in outcomes if agent_id not in self.given)

        if "join_next" not in self._busy:
            self.start("join_all", job)

    @stateful.rule(slots=st.integers(min_value=1, max_value=3))
    def resize(self, slots: int) -> None:
        """Change the number of slots."""

        def change() -> None:
            self.pool.max_concurrent = slots

        self.run.call(change)

    @stateful.rule(seconds=st.sampled_from([0.5, 1.0, 30.0, 1000.0]))
    def jump(self, seconds: float) -> None:
        """Advance the clock."""
        self.run.jump(seconds)

    @stateful.rule(grace_seconds=st.sampled_from([0.0, 5.0]))
    def shutdown(self, grace_seconds: float) -> None:
        """Shut the pool down."""

        async def job() -> None:
            await self.pool.shutdown(grace_seconds=grace_seconds)

        self._note_closed()
        self.start("shutdown", job)

    # --- rules: the model behind the agents

    def _decide(self, number: int, completion: Completion) -> None:
        if pending := self.puppet.pending:
            request = pending[number % len(pending)]
            self.run.call(lambda: request.answer(completion))

    @stateful.rule(number=_ANY, text=st.sampled_from(["", "yes", "no"]))
    def answer(self, number: int, text: str) -> None:
        """Let a model answer."""
        self._decide(number, Completion(text))

    @stateful.rule(number=_ANY, error=driver_errors() | st.just(ValueError("broken")))
    def fail(self, number: int, error: Exception) -> None:
        """Let a request fail."""
        if pending := self.puppet.pending:
            request = pending[number % len(pending)]
            self.run.call(lambda: request.fail(error))

    @stateful.rule(
        number=_ANY,
        to=st.lists(st.integers(min_value=0, max_value=9), min_size=1, max_size=2),
        name=st.sampled_from(["ask_agent", "send_message", "wait_for_message", "spawn_agent"]),
    )
    def call_tools(self, number: int, to: list[int], name: str) -> None:
        """Let a model send, ask, wait or run a child, perhaps in parallel."""
        calls = tuple(
            ToolCall(f"call-{place}", name, self._arguments(name, agent_id))
            for place, agent_id in enumerate(to)
        )
        self._decide(number, Completion("", calls, FinishReason.TOOL_USE))

    def _arguments(self, name: str, to: int) -> str:
        match name:
            case "ask_agent":
                return f'{{"to": {to}, "question": "{self.content()}"}}'
            case "send_message":
                return f'{{"to": {to}, "content": "{self.content()}"}}'
            case "spawn_agent":
                return '{"query": "help"}'
            case _:
                return "{}"

    @stateful.rule(number=_ANY)
    def nap(self, number: int) -> None:
        """Let a model sleep in a tool."""
        call = ToolCall("call-0", "nap", '{"seconds": 2.0}')
        self._decide(number, Completion("", (call,), FinishReason.TOOL_USE))
