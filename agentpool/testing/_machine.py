"""A state machine that drives a pool with everything that can happen to one."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

import trio

from agentpool._errors import MessageError, PoolClosedError, PoolFullError
from agentpool._messages import AgentId, Completion, FinishReason, ToolCall
from agentpool._outcome import ENDED, AgentOutcome
from agentpool.testing._contract import promise
from agentpool.testing._hypothesis import Strategy, st, stateful
from agentpool.testing._simulation.orders import order_of
from agentpool.testing._stage import PoolStage
from agentpool.testing._strategies import driver_errors

_ANY: Final[Strategy[int]] = st.integers(min_value=0, max_value=20)
"""Which of those that there are: counted around."""

_LIMIT: Final[Strategy[float]] = st.sampled_from([math.inf, 0.0, 0.5, 2.0])
"""For how many seconds a caller waits before it gives up."""

Action: TypeAlias = Literal["spawn", "answer", "cancel", "send", "interrupt", "resize"]
"""What may happen between two steps."""

ACTIONS: Final[tuple[Action, ...]] = (
    "spawn",
    "answer",
    "cancel",
    "send",
    "interrupt",
    "resize",
)


class PoolMachine(PoolStage):
    """Drives a pool by rules, and compares it with a model after each.

    ``TestMyPool = PoolMachine.TestCase`` is a test. A subclass may replace what the agents
    are made of (``make_driver``, ``make_tools``, ``make_config``, ``open_pool``), and add
    rules and invariants of its own.
    """

    # --- rules: the order

    @stateful.initialize(seed=st.integers(min_value=0, max_value=99))
    def choose_order(self, seed: int) -> None:
        """Choose who of those who can run does so first."""
        self.run.order.now = order_of(seed, late_clock=False)

    @stateful.rule(
        actions=st.lists(
            st.tuples(st.integers(min_value=0, max_value=4), st.sampled_from(ACTIONS), _ANY),
            min_size=2,
            max_size=4,
        )
    )
    def between_steps(self, actions: list[tuple[int, Action, int]]) -> None:
        """Do several things while everybody goes on, each some steps after the one before."""

        async def job() -> None:  # noqa: ASYNC910  # zero steps are allowed
            for steps, action, number in actions:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                self._act(action, number)

        # It ends after so many steps, and everybody settles before it is looked at.
        self.run.run(job)

    def _act(self, action: Action, number: int) -> None:
        handle = self.pick(number)
        try:
            match action:
                case "spawn":
                    self._fan_out_now(1)
                case "answer":
                    if pending := self.puppet.pending:
                        pending[number % len(pending)].answer(Completion("done"))
                case "resize":
                    self.pool.max_concurrent = 1 + number % 3
                case "cancel" if handle is not None:
                    handle.cancel("by the machine")
                case "interrupt" if handle is not None:
                    handle.interrupt()
                case "send" if handle is not None:
                    handle.send_nowait(self.content())
                case _:
                    pass  # there is no agent yet
        except (MessageError, PoolFullError, PoolClosedError) as error:
            self.refusals[type(error).__name__] += 1

    # --- rules: the owner

    @stateful.rule()
    def spawn(self) -> None:
        """Spawn, waiting for room."""

        async def job() -> None:
            self.handles.append(await self.pool.spawn(*self.configs(1)))

        self.start("spawn", job)

    @stateful.rule(count=st.integers(min_value=1, max_value=4))
    def fan_out_nowait(self, count: int) -> None:
        """Spawn all of them or none."""
        before = self.pool.statistics()
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
            promise(not self.closed, "a closed pool took an agent")
            first = before.spawned + 1
            promise(found == list(range(first, first + count)), f"ids {found} after {before}")

    def _fan_out_now(self, count: int) -> list[AgentId]:
        handles = self.pool.fan_out_nowait(self.configs(count))
        self.handles.extend(handles)
        return [handle.agent_id for handle in handles]

    @stateful.rule(number=_ANY)
    def cancel(self, number: int) -> None:
        """Cancel one agent."""
        if handle := self.pick(number):
            self.run.call(lambda: handle.cancel("by the machine"))
            promise(handle.status in ENDED, f"{handle} goes on after its cancellation")

    @stateful.rule()
    def abort_all(self) -> None:
        """Cancel all agents: none of those that there were goes on."""
        before = list(self.handles)
        self.run.call(self.pool.abort_all)
        left = [handle for handle in before if not handle.has_ended]
        promise(not left, f"agents are left after abort_all(): {left}")

    @stateful.rule(number=_ANY)
    def interrupt(self, number: int) -> None:
        """Ask one agent to stop after its turn."""
        if handle := self.pick(number):
            self.run.call(handle.interrupt)

    @stateful.rule(number=_ANY)
    def send_nowait(self, number: int) -> None:
        """Write to one agent; a refusal changes nothing."""
        if (handle := self.pick(number)) is None:
            return
        before, text = self.pool.statistics(), self.content()
        try:
            self.run.call(lambda: handle.send_nowait(text))
        except MessageError:
            promise(self.pool.statistics().messages == before.messages, "a refusal was counted")

    @stateful.rule(number=_ANY, seconds=_LIMIT)
    def ask(self, number: int, seconds: float = math.inf) -> None:
        """Ask one agent, and perhaps give up."""
        if handle := self.pick(number):

            async def job() -> None:
                with trio.move_on_after(seconds):
                    self.received.append(await handle.ask(self.content()))

            self.start("ask", job)

    @stateful.rule(seconds=_LIMIT)
    def receive(self, seconds: float = math.inf) -> None:
        """Read the owner's post, and perhaps give up."""

        async def job() -> None:
            with trio.move_on_after(seconds):
                self.received.extend(await self.pool.receive_many())

        self.start("receive", job)

    @stateful.rule(seconds=_LIMIT)
    def join_next(self, seconds: float = math.inf) -> None:
        """Wait for the next end, and perhaps give up."""

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
        """Wait for everybody."""

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
        """Let time pass."""
        self.run.jump(seconds)

    @stateful.rule(grace_seconds=st.sampled_from([0.0, 5.0]))
    def shutdown(self, grace_seconds: float) -> None:
        """Shut the pool down."""

        async def job() -> None:
            await self.pool.shutdown(grace_seconds=grace_seconds)

        self.closed = True
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
        """Let a model write, ask, wait, or have a child, perhaps side by side."""
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
