"""One running agent: its parts and its state so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING, Protocol, final

import trio

from agentpool._agent.early_outcome import early_outcome
from agentpool._agent.retry_policy import RetryPolicy
from agentpool._agent.spending import Purse
from agentpool._approval import Approver
from agentpool._base import Live
from agentpool._budget.budget import Budget, family_budget
from agentpool._chat_markers import Cleaner
from agentpool._checks import expect_piece
from agentpool._errors import CapabilityDeniedError
from agentpool._events import Phase, PhaseChanged, TextDelta, ThoughtDelta
from agentpool._loop.conversation import fixed_tokens
from agentpool._loop.guard import Stop, Warn
from agentpool._loop.output import Output
from agentpool._loop.run import Run
from agentpool._loop.thoughts import StreamedText, begins_silently
from agentpool._messages import (
    NO_USAGE,
    AgentId,
    Completion,
    Usage,
    answer_tokens,
)
from agentpool._messaging.post_office import PostOffice
from agentpool._outcome import COMPLETED, PLAIN, AgentOutcome, AgentStatus, StopReason
from agentpool._scheduling.slot import Slot
from agentpool._served_call import Charge, Loss, current_call
from agentpool._spawn import CHILD_MAX_ITERATIONS, SpawnConfig
from agentpool.abc import AgentContext, Driver, Memory
from agentpool.observe._hub import EventHub
from agentpool.tools._registry import EMPTY_REGISTRY, ToolRegistry

if TYPE_CHECKING:
    from agentpool._agent.run_journal import RunJournal


def output_of(config: SpawnConfig) -> Output | None:
    """Return the type that the agent's answer must have. ``None``: any text.

    Raises:
        UsageError: If the type cannot be represented in JSON.
    """
    if config.output_type is None:
        return None
    # What makes schemas is loaded by whoever wants one.
    from agentpool.tools._output import build_output  # noqa: PLC0415

    return build_output(config.output_type)


def room_tokens(driver: Driver, config: SpawnConfig, registry: ToolRegistry) -> int | None:
    """Return how many tokens the conversation may take. ``None``: the window's size is unknown.

    This is the smaller of the driver's window and the manifest's, minus the answer's
    ``max_tokens``, the system prompt and the tools' schemas. It is never more than the model can
    read.
    """
    manifest = config.manifest
    window, own = driver.context_window, manifest.model.context_window
    if window is None or (own is not None and own < window):
        window = own
    if window is None:
        return None
    tools = registry.definitions_for(manifest.capabilities, manifest.privacy)
    output = output_of(config)
    form = None if output is None else output.form
    fixed = fixed_tokens(manifest.model.system_prompt, tools, form)
    room = window - answer_tokens(manifest.model.max_tokens, window)
    most = driver.most_input_tokens
    return (room if most is None else min(room, most)) - fixed


class Home(ABC):
    """The part of a pool that an agent needs.

    All agents share one: separate functions for each agent would be six more objects for the
    garbage collector.
    """

    __slots__ = ()

    random: Random
    """The source of the jitter of retries."""
    cleaner: Cleaner
    """Removes markers from tool results and recalled fragments."""
    approve: Approver | None
    """Asked before calls that need approval. ``None``: such calls are refused."""
    retries: RetryPolicy
    """When a failed request is made again."""
    memory_scope: str
    """The part of the pool's memory that contains the scopes of its agents."""

    @abstractmethod
    def make_context(self, agent: Agent) -> AgentContext:
        """Make the context that the tools of *agent* get."""


class PieceTeller(Protocol):
    """Reports the first piece of an answer."""

    def arrived(self) -> None:
        """Report a piece, if it is the first one."""


@final
class Agent(Live):
    """One running agent."""

    agent_id: AgentId
    name: str
    home: Home
    config: SpawnConfig
    driver: Driver
    slot: Slot
    hub: EventHub
    post: PostOffice
    """The inbox of the agent."""
    memory: Memory | None
    """``None``: it neither recalls nor remembers."""
    purse: Purse | None
    """Its access to a budget that others share. ``None``: it shares no budget."""
    registry: ToolRegistry = EMPTY_REGISTRY
    """Its tools, once they have been made."""
    run: Run | None = None
    asked: int = 0
    """Requests that it has made or begun, those of its tools included."""
    interrupted: bool = False
    """Whether it was asked to end after its turn."""
    tools_run: int = 0
    """Tool calls that began, whatever their results."""
    shares: bool = False
    """Whether its children spend from its limits."""
    journal: RunJournal | None = None
    """The journal of its run. ``None``: the run is not recorded."""
    step_scope: trio.CancelScope | None = None
    """Cancels a step that takes too long. ``None``: no step has a limit."""
    told: int = 0
    """How many messages of its conversation were reported to observers."""
    stream: StreamedText | None = None
    """Separates text and thoughts in the arriving answer. ``None``: the answer is not watched."""
    scope: str = ""
    """Its memory scope, once it has been needed: see ``memory_scope``."""
    _context: AgentContext | None = None
    at_end: list[Callable[[], object]] | None = None
    """Called when the agent has ended, however it ended. ``None``: nothing is called."""

    @property
    def context(self) -> AgentContext:
        """The context for its tools. Made on first use, since most agents have no tools."""
        if self._context is None:
            self._context = self.home.make_context(self)
        return self._context

    def close(self) -> None:
        """Drop the references that form circles, so that the run is freed immediately.

        Also calls the functions in ``at_end``.
        """
        if self._context is not None:
            self._context = None
        if self.at_end is not None:
            for call in self.at_end:
                call()
            self.at_end = None
        if self.purse is not None:
            self.purse.close()

    @property
    def memory_scope(self) -> str:
        """The memory scope that the agent uses."""
        if not self.scope:
            own = f"{self.home.memory_scope}/{self.agent_id}"
            self.scope = self.config.memory_scope or own
        return self.scope

    @property
    def turn(self) -> int:
        """The current turn, from 1. 0: no turn has begun."""
        return 0 if self.run is None else self.run.guard.turns

    @property
    def used(self) -> Usage:
        """Tokens that the agent and its children have used so far."""
        return NO_USAGE if self.run is None else self.run.guard.usage

    @property
    def used_usd(self) -> float:
        """US dollars that the agent and its children have spent, as far as is known."""
        return 0.0 if self.run is None else self.run.guard.known_cost_usd

    def share_limits(self) -> Budget | None:
        """Return the budget that the agent shares with its children; the first call makes it.

        The guard learns what a child used only when the child has ended. So what is left of the
        limits becomes a shared budget: several children at a time cannot each use all of it. It
        limits requests and tool calls as well.

        Raises:
            CapabilityDeniedError: If nothing is left for a child.
        """
        assert self.run is not None  # noqa: S101  # only its tools have children
        shared = None if self.purse is None else self.purse.budget
        if self.shares:
            return shared
        quota, guard = self.run.manifest.resources, self.run.guard
        tokens, cost_usd = quota.max_tokens_budget, quota.max_cost_usd
        left_tokens = None if tokens is None else tokens - guard.usage.total_tokens
        left_usd = cost_usd - guard.known_cost_usd if cost_usd else None
        # The turns of a child that was given no limit of its own are few, and are its own: its
        # children ask within what its parent has left.
        is_given = shared is None or quota.max_iterations != CHILD_MAX_ITERATIONS
        left_requests = quota.max_iterations - guard.turns if is_given else None
        left = {"tokens are": left_tokens, "money is": left_usd, "requests are": left_requests}
        for what, rest in left.items():
            if rest is not None and rest <= 0:
                raise CapabilityDeniedError(f"no {what} left for a child; give your answer now")
        family = family_budget(
            tokens=left_tokens,
            cost_usd=left_usd,
            requests=left_requests,
            tool_calls=quota.max_tool_calls - guard.tool_calls,
            parent=shared,
            name=f"{self.name} and its children",
        )
        before = self.purse
        self.purse = Purse(family, self.slot, self.hub, self.agent_id, self.name)
        if before is not None:
            before.close()
        self.shares = True
        return family

    def charge(
        self,
        usage: Usage | None,
        cost_usd: float | None,
        *,
        requests: int = 0,
        unmeasured: int = 0,
        reserved: Loss | None = None,
    ) -> None:
        """Count what a child or a tool used. If a limit is exceeded, the run ends after this turn.

        Args:
            usage: Tokens. ``None``: unknown.
            cost_usd: US dollars. ``None``: unknown.
            requests: Requests that a tool made. Those of a child are in the child's own records.
            unmeasured: Requests of a child whose usage is unknown.
            reserved: What budgets are charged for what is unknown of a tool's request.
        """
        assert self.run is not None  # noqa: S101  # only its tools have children
        if self.journal is not None and (mark := current_call.get()) is not None:
            mark.charges.append(Charge(usage, cost_usd, requests, unmeasured, reserved))
        self._count(usage, cost_usd)
        self.run.guard.record_unmeasured(unmeasured)

    def _count(self, usage: Usage | None, cost_usd: float | None) -> None:
        assert self.run is not None  # noqa: S101  # who charges has seen to it
        guard = self.run.guard
        for verdict in (guard.record_usage(usage), guard.record_cost(cost_usd)):
            if isinstance(verdict, Stop):
                self.run.exhausted = self.run.exhausted or verdict
            elif isinstance(verdict, Warn):
                self.hub.warned(self.agent_id, self.name, verdict.text)

    def lose(self, loss: Loss) -> None:
        """Count a request that broke off after it was sent, as far as its usage is known."""
        assert self.run is not None  # noqa: S101  # only a run asks the driver
        if loss.usage is not None:
            self._count(loss.usage, loss.cost_usd)
        if loss.written is None:
            return
        verdict = self.run.guard.record_lost(loss.written, loss.price)
        if type(verdict) is Warn:
            self.hub.warned(self.agent_id, self.name, verdict.text)

    def _left_behind(self) -> tuple[str, ...]:
        left: list[str] = []
        for name, tool in zip(self.registry.names, self.registry, strict=True):
            try:
                calls = [call for call in tool.left_behind if call.agent is self.context]
            except Exception as error:  # noqa: BLE001  # foreign code, and the outcome must come
                text = (
                    f"tool {name!r} cannot say what it left behind: {type(error).__name__}: {error}"
                )
                self.hub.warned(self.agent_id, self.name, text)
                continue
            left.extend(f"{name} ({call.call_id})" for call in calls)
        return tuple(left)

    def phase(self, phase: Phase, turn: int, tool_name: str = "") -> None:
        """Report that the agent enters a phase in *turn*."""
        hub = self.hub
        if hub.listening:
            # As hub.tell(), without its call and a star: every turn has two or three phases.
            sequence, at_seconds, agent_id, name = hub.stamp(self.agent_id, self.name)
            hub.publish(PhaseChanged(sequence, at_seconds, agent_id, name, phase, tool_name, turn))

    def arrived(self, piece: str, teller: PieceTeller | None = None) -> None:
        """Record a piece of the answer, and pass it to the request's *teller*, if there is one."""
        assert self.run is not None  # noqa: S101  # only a run asks the driver
        if type(piece) is not str:
            piece = expect_piece(piece, self.driver)
        self.run.arrive(piece)
        if teller is not None:
            teller.arrived()
        if self.hub.listening:
            self._tell_piece(piece)

    def _tell_piece(self, piece: str) -> None:
        """Report a piece of the answer, as thoughts and text separately."""
        assert self.run is not None  # noqa: S101  # only a run asks the driver
        stream = self.stream
        if stream is None:
            holds_back = id(self.driver) in self.hub.silent_thinkers
            self.stream = stream = StreamedText(holds_back)
            # Whoever listens from now on is told nothing of what came before.
            for earlier in self.run.arriving[:-1]:
                for _ in stream.feed(earlier):
                    pass
        self._tell(stream.feed(piece))

    def end_stream(self, stream: StreamedText, answer: Completion) -> None:
        """Report the end of *answer*, which *stream* held back while the rest arrived."""
        self.stream = None
        if self.hub.listening:
            self._tell(stream.end())
        # The next answer of such a model is held back until its thoughts have ended.
        if begins_silently(answer.text):
            self.hub.silent_thinkers.add(id(self.driver))
        else:
            self.hub.silent_thinkers.discard(id(self.driver))

    def _tell(self, pieces: Iterable[tuple[str, bool]]) -> None:
        for text, is_thought in pieces:
            kind = ThoughtDelta if is_thought else TextDelta
            self.hub.tell(kind, self.agent_id, self.name, text)

    def thought(self, piece: str) -> None:
        """Report a piece of the model's thoughts."""
        if type(piece) is not str:
            # Not raised: thoughts are only for those who watch, and watching changes nothing.
            kind = type(piece).__name__
            text = f"driver {type(self.driver).__name__} passed a thought of type {kind}, not str"
            self.hub.warned(self.agent_id, self.name, text)
            return
        self.hub.tell(ThoughtDelta, self.agent_id, self.name, piece)

    def outcome(
        self,
        status: AgentStatus,
        error: Exception | None,
        stop_reason: StopReason | None,
        started_at: float,
        finished_at: float,
    ) -> AgentOutcome:
        """Make the outcome of the agent, with everything it produced."""
        run = self.run
        if run is None:
            return early_outcome(
                self.config, self.agent_id, status, finished_at,
                error=error, stop_reason=stop_reason, started_at=started_at,
            )  # fmt: skip
        guard = run.guard
        # Most runs end between two answers, and the text takes longer than the rest of this.
        why = "" if run.acting is None else f"the agent was {status.value}"
        messages = run.settled_messages(why)  # first: it completes the last text
        conversation = run.conversation
        # By place, in the order of the fields: with their names it takes seven times as long.
        value = run.value if status is COMPLETED else None
        make = PLAIN if error is None and value is None else AgentOutcome
        return make(
            self.agent_id, self.name, status, run.last_text, value, error, stop_reason,
            run.over_budget,
            guard.usage, 0 if self.journal is None else self.journal.repeated_requests,
            guard.unmeasured_requests, guard.cost_usd, guard.turns, guard.tool_calls,
            self.tools_run, self._left_behind() if self.tools_run else (), messages,
            0 if conversation is None else conversation.left_out, started_at, finished_at,
        )  # fmt: skip
