"""The data of one agent in its pool, from its spawn on."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Final, Protocol, TypeAlias, final

import msgspec
import trio

from agentpool._agent.agent import Agent
from agentpool._agent.early_outcome import early_outcome
from agentpool._base import Live, Unique
from agentpool._errors import AgentCancelledError, UsageError
from agentpool._messages import AgentId
from agentpool._outcome import FAILED, AgentOutcome, AgentStatus
from agentpool._pool.origin import Origin
from agentpool._pool.voice import Voice
from agentpool._scheduling.fair_queue import Share
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import Slot, current_slot, parked
from agentpool._scheduling.waits import Wait
from agentpool._spawn import SpawnConfig
from agentpool.abc import Driver
from agentpool.observe._hub import EventHub

OnEnd: TypeAlias = Callable[["AgentRecord"], object]
"""Called at an agent's end, in the same step in which it gets its outcome. Must not block."""


class Books(Protocol):
    """The agents of a pool, and their outcomes."""

    def given_out(self, record: AgentRecord) -> None:
        """Record that the agent's outcome was retrieved."""

    def forget(self, record: AgentRecord) -> None:
        """Forget an agent that has ended."""


class Caretaker(Protocol):
    """The part of a pool that an agent's record needs."""

    @property
    def by_owner(self) -> Origin[Caretaker]:
        """The origin of agents that the owner spawned."""
        ...

    @property
    def voice(self) -> Voice:
        """Names the caller."""
        ...

    @property
    def fan_in(self) -> Books:
        """All of the pool's agents."""
        ...

    @property
    def hub(self) -> EventHub:
        """Receives its events."""
        ...

    def cancel_agent(self, record: AgentRecord, cancelled_by: str, reason: str) -> None:
        """Cancel the agent, queued or running."""


@final
class Rare(Live):
    """What only few agents have. As a separate object, it takes no memory of the other agents."""

    children: dict[AgentId, AgentRecord] = msgspec.field(default_factory=dict["int", "AgentRecord"])
    """Its children that have not ended."""
    interrupted: bool = False
    """Whether it was asked to end after its turn."""
    ended: Lot = msgspec.field(default_factory=Lot)
    """Where calls wait for its end."""
    is_left_open: bool = False
    """Whether it is ended only because its process ends, so that the next process continues it."""
    is_forgotten: bool = False
    """Whether it is to be forgotten at its end."""
    is_guarded: bool = False
    """Whether its only deadline is the one that a manifest sets for the tool that started it."""


@final
class AgentRecord(Unique):
    """One agent, as the modules of its pool see it. Users get an ``AgentHandle``."""

    __slots__ = (
        "_config",
        "_driver",
        "_seen",
        "_stage",
        "agent_id",
        "cancelled",
        "name",
        "on_end",
        "origin",
        "rare",
        "slot",
    )

    agent_id: AgentId
    """Its number."""
    name: str
    """Its name."""
    origin: Origin[Caretaker]
    """Its pool, its parent and its budget."""
    on_end: OnEnd | None
    """Called at its end instead of the pool's fan-in. ``None``: the fan-in is called."""
    rare: Rare | None
    """What only few agents have. ``None``: this agent has none of it."""
    slot: Slot | None
    """The agent's slot. ``None``: it has not started, or has ended."""
    cancelled: tuple[str, str] | None
    """Who cancelled the agent first, and why."""
    _config: SpawnConfig | None
    _driver: Driver | None
    _stage: Context | Agent | AgentOutcome | float | None
    """What a queued agent begins in, the running agent from its first step on, then its outcome. A
    number: it was cancelled at that time without a slot, and its outcome is made on first use."""
    _seen: bool

    def __init__(
        self, origin: Origin[Caretaker], agent_id: AgentId, name: str, config: SpawnConfig | None,
        driver: Driver | None, *, on_end: OnEnd | None = None, outcome: AgentOutcome | None = None,
    ) -> None:  # fmt: skip
        self.agent_id = agent_id
        self.name = name
        self.origin = origin
        self.on_end = on_end
        self.rare = None
        self._config = config
        self._driver = driver
        self.slot = None
        self._stage = outcome
        self._seen = False
        self.cancelled = None

    @property
    def parent_id(self) -> AgentId:
        """The agent that spawned it. 0: the pool's owner."""
        return self.origin.parent_id

    @property
    def depth(self) -> int:
        """Generations above it: 0 for an agent that the owner spawned."""
        return self.origin.depth

    @property
    def share(self) -> Share:
        """The agent's group, weight and priority in the queue, until it has ended."""
        assert self._config is not None  # noqa: S101
        return self._config.share

    @property
    def voice(self) -> Voice:
        """Names the caller."""
        return self.origin.pool.voice

    @property
    def status(self) -> AgentStatus:
        """The stage of the agent's life."""
        if self.has_ended:
            outcome = self._stage
            return outcome.status if isinstance(outcome, AgentOutcome) else AgentStatus.CANCELLED
        if self.slot is None:
            return AgentStatus.QUEUED
        return AgentStatus.RUNNING if self.slot.held else AgentStatus.PARKED

    @property
    def waits_for(self) -> str:
        """What the agent waits for without a slot, in words. Empty: nothing."""
        if self.slot is None or self.slot.held:
            return ""
        return ", ".join(dict.fromkeys(one.wait.text for one in self.slot.waits.values()))

    @property
    def outcome(self) -> AgentOutcome | None:
        """The outcome, which counts as retrieved from now on. ``None``: the agent has not ended."""
        return self.collect() if self.has_ended else None

    async def wait(self) -> AgentOutcome:
        """Wait until the agent has ended, and return its outcome.

        An agent that waits for another gives its slot back meanwhile.

        Raises:
            UsageError: If the agent waits for itself.

        Cancellation:
            The agent goes on, and its outcome is not lost.
        """
        self.refuse_itself()
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.has_ended:
            async with self.parked_for_end():
                if not self.has_ended:
                    await self.noted().ended.park()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return self.collect()

    def refuse_itself(self) -> None:
        """Refuse the wait if the agent would wait for itself.

        Raises:
            UsageError: If the agent would wait for itself.
        """
        slot = current_slot.get()
        while slot is not None:  # an agent, and those in which its pool runs
            if slot is self.slot:
                raise UsageError(
                    f"agent {self.agent_id} cannot wait for itself; return from its tool instead"
                )
            slot = slot.keeper.outer

    def cancel(self, reason: str = "no reason given") -> None:
        """Cancel the agent, queued or running. It still gets an outcome with what it produced.

        Cancelling an agent that has ended does nothing.
        """
        self.origin.pool.cancel_agent(self, self.voice.name(), reason)

    def interrupt(self) -> None:
        """Stop the agent after its current turn, with the reason ``INTERRUPTED``."""
        self.noted().interrupted = True
        if (agent := self.agent) is not None:
            agent.interrupted = True

    @property
    def has_ended(self) -> bool:
        """Whether the agent has ended. Unlike ``outcome``, this does not retrieve the outcome."""
        return type(self._stage) not in _BEFORE_THE_END

    @property
    def ended_with(self) -> AgentOutcome | None:
        """The outcome, without counting it as retrieved. ``None``: the agent has not ended."""
        stage = self._stage
        if isinstance(stage, AgentOutcome):
            return stage
        if stage is None or isinstance(stage, Context | Agent):
            return None
        self._stage = made = self.unstarted_outcome(stage)
        self._config = self._driver = None
        return made

    @property
    def unseen_failure(self) -> Exception | None:
        """The agent's error, if its outcome was never retrieved."""
        outcome = self._stage
        if self._seen or not isinstance(outcome, AgentOutcome):
            return None
        return outcome.error if outcome.status is FAILED else None

    @property
    def remains(self) -> AgentRecord | AgentOutcome:
        """What is to be kept of an ended agent: only the outcome, if a record can be made from it.

        A record takes as much memory again, and the garbage collector looks at it.
        """
        outcome = self._stage
        if (
            isinstance(outcome, AgentOutcome)
            and outcome.status is not FAILED  # whether that was seen is in the record
            and outcome.name == self.name  # an earlier process may have called it otherwise
            and not self.origin.depth
        ):
            return outcome
        return self

    @property
    def agent(self) -> Agent | None:
        """The running agent. ``None``: it has not taken its first step, or has ended."""
        return self._stage if isinstance(self._stage, Agent) else None

    @property
    def begins_in(self) -> Context:
        """The context variables of the spawn of a queued agent."""
        assert isinstance(self._stage, Context)  # noqa: S101  # until it has a slot
        return self._stage

    def reach(self, stage: Context | Agent) -> None:
        """Record the running agent; of one that is queued, what it begins in."""
        self._stage = stage

    @property
    def hub(self) -> EventHub:
        """Receives its events."""
        return self.origin.pool.hub

    @property
    def children(self) -> tuple[AgentRecord, ...]:
        """Children that have not ended and are cancelled when this agent ends."""
        return () if self.rare is None else tuple(self.rare.children.values())

    def adopt(self, child: AgentRecord) -> None:
        """Add *child* to those that are cancelled when this agent ends."""
        self.noted().children[child.agent_id] = child

    def let_go(self, child: AgentRecord) -> None:
        """Remove *child*, which has ended."""
        if self.rare is not None:
            self.rare.children.pop(child.agent_id, None)

    def noted(self) -> Rare:
        """Return the agent's ``Rare``, to write into it."""
        if self.rare is None:
            self.rare = Rare()
        return self.rare

    def mark_cancelled(self, why: tuple[str, str], *, is_left_open: bool = False) -> None:
        """Record who cancelled the agent and why, unless it was cancelled before."""
        if self.cancelled is None:
            self.cancelled = why
            if is_left_open:
                self.noted().is_left_open = True

    def cancellation(self, more: str = "") -> AgentCancelledError:
        """Make the error of a cancelled agent: who cancelled it, why, and *more*."""
        cancelled_by, reason = self.cancelled or ("unknown", "unknown")
        return AgentCancelledError(
            f"agent {self.agent_id} ({self.name}) was cancelled by {cancelled_by}: {reason}{more}",
            cancelled_by=cancelled_by,
            reason=reason,
        )

    def take_work(self) -> tuple[SpawnConfig, Driver]:
        """Return the config and the driver to run."""
        assert self._config is not None and self._driver is not None  # noqa: S101, PT018
        return self._config, self._driver

    def end(self, outcome: AgentOutcome) -> None:
        """Store the outcome, and drop the rest of the run."""
        self._stage = outcome
        self._config = self._driver = self.slot = None
        if self.rare is not None:
            self.rare.ended.unpark_all()

    def unstarted_outcome(self, ended_at: float) -> AgentOutcome:
        """Make the outcome of a cancelled agent that never had a slot."""
        error, (config, _) = self.cancellation(), self.take_work()
        return early_outcome(config, self.agent_id, AgentStatus.CANCELLED, ended_at, error=error)

    def end_unstarted(self, ended_at: float) -> None:
        """End a cancelled agent that never had a slot. Its outcome is made on first use.

        So an abort of ten thousand such agents takes no longer than taking them out of the queue.
        """
        self._stage = ended_at
        if self.rare is not None:
            self.rare.ended.unpark_all()

    def parked_for_end(self) -> parked:
        """Return a block that waits without a slot until the agent ends."""
        return parked(self.wait_for_end(), self.noted().ended, self.voice.owner)

    def wait_for_end(self) -> Wait:
        """Return the wait of a call that cannot go on before the agent ends."""
        return Wait.end_of(self.agent_id, self.name)

    def collect(self) -> AgentOutcome:
        """Return the outcome of an ended agent. It counts as retrieved."""
        outcome = self.ended_with
        assert outcome is not None  # noqa: S101
        if not self._seen:
            self._seen = True
            self.origin.pool.fan_in.given_out(self)
        return outcome

    def forget(self) -> None:
        """Make the pool forget an agent that has ended, or one that was cancelled, at its end.

        Raises:
            UsageError: If it goes on.
        """
        if self.has_ended:
            self.origin.pool.fan_in.forget(self)
        elif self.cancelled is not None:
            self.noted().is_forgotten = True
        else:
            raise UsageError(
                f"agent {self.agent_id} ({self.name}) goes on and cannot be forgotten; "
                "wait for it, or cancel it first"
            )
        self._seen = True


_BEFORE_THE_END: Final = frozenset({type(None), Context, Agent})
Kept: TypeAlias = AgentRecord | AgentOutcome
"""What is kept of an agent: see ``AgentRecord.remains``."""


def as_record(pool: Caretaker, kept: Kept) -> AgentRecord:
    """Return the record of an agent, made anew if only the outcome was kept."""
    if isinstance(kept, AgentRecord):
        return kept
    return AgentRecord(pool.by_owner, kept.agent_id, kept.name, None, None, outcome=kept)
