"""The waits of agents for each other, and which agents can never go on.

Rules:

1. An agent that runs, is queued, or has its own deadline can go on. The owner can go on while one
   of the tasks on its side does something other than waiting in a call of the pool.
2. An agent that waits in several strands can go on when one of them can. The tasks on the owner's
   side are the strands of the owner, and the sources of the maps of an agent are the agent's.
3. A wait for one of several agents ends if any of them can go on, a wait for all of them if
   each can. A wait for a message, or for an event, ends if any other agent or the owner can go on.
4. A wait for anything else (a timer, a person) ends by itself, and so does the wait for a place in
   the queue: if there is no place, every slot is held, and an agent with a slot can go on.
5. Apply these rules until nothing changes: the agents that still cannot go on are deadlocked.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, Self, final

import msgspec

from agentpool._base import Live
from agentpool._messages import OWNER_ID, AgentId


class WaitKind(enum.Enum):
    """The kinds of wait, by what ends them. The values read as verbs between two agents."""

    END = "joins"
    ANSWER = "asks"
    ROOM = "waits for room in the inbox of"
    ANY = "waits for the end of"
    ALL = "waits until all have ended, among them"
    SPAWN = "waits to be spawned again by"
    MESSAGE = "waits for a message"
    EVENT = "waits for an event"
    OTHER = "waits"


class WaitReason(enum.Enum):
    """What an agent waits for, as events report it."""

    AGENT = "agent"
    """The end of another agent."""
    ANSWER = "answer"
    """An answer of another agent."""
    ROOM = "room"
    """Room in another agent's inbox."""
    MESSAGE = "message"
    """A message of any agent."""
    QUEUE = "queue"
    """A place in the queue for a new agent."""
    APPROVAL = "approval"
    """A decision whether a tool call may run."""
    RETRY = "retry"
    """The time to make a failed request again."""
    GATE = "gate"
    """A gate that lets no more requests through."""
    BUDGET = "budget"
    """An amount that others have reserved in a budget."""
    OTHER = "other"
    """Something else that ends by itself."""


@final
class Wait(msgspec.Struct, frozen=True):
    """What an agent waits for while it has no slot."""

    kind: WaitKind
    """What ends the wait."""
    target: AgentId | None = None
    """The agent that must end the wait. ``None``: no particular agent."""
    text: str = ""
    """What the agent waits for, in words."""
    lends: bool = False
    """Whether the slot is only lent meanwhile, to agents that come back: a new agent would have to
    wait for the same thing."""
    reason: WaitReason = WaitReason.OTHER
    """The kind of wait, for observers."""
    group: Collection[AgentId] = ()
    """The agents of which one, or all, must end the wait. This is a view, which changes as they
    end."""
    is_fed: Callable[[], bool] | None = None
    """Returns whether something other than the group may end the wait now. ``None``: nothing else
    may."""
    fed_by: Callable[[], AgentId | None] | None = None
    """Returns who may end the wait as well now, by a source of a map that waits on their behalf.
    ``None``: nobody ever may."""

    @property
    def agent_ids(self) -> Collection[AgentId]:
        """The agents that can end the wait."""
        if self.target is not None:
            return (self.target,)
        feeder = None if self.fed_by is None else self.fed_by()
        return self.group if feeder is None else (*self.group, feeder)

    def may_be_ended_by(self, agent_id: AgentId) -> bool:
        """Return whether that agent can end a wait for several."""
        if agent_id == OWNER_ID:
            return OWNER_ID in self.agent_ids
        return agent_id in self.group

    def verb(self, agent_id: AgentId) -> str:
        """Return a verb for the wait of one agent for another."""
        if self.target is None and agent_id == OWNER_ID:
            return "reads a map that is fed by"
        return self.kind.value

    @property
    def ends_by_itself(self) -> bool:
        """Whether something other than an agent may end the wait."""
        return self.kind is WaitKind.OTHER or (self.is_fed is not None and self.is_fed())

    @classmethod
    def end_of(cls, agent_id: AgentId, name: str) -> Self:
        """Make a wait until an agent has ended."""
        text = f"the end of agent {agent_id} ({name})"
        return cls(WaitKind.END, agent_id, text, reason=WaitReason.AGENT)

    @classmethod
    def answer_of(cls, agent_id: AgentId) -> Self:
        """Make a wait until an agent answers a question."""
        text = f"an answer of agent {agent_id}"
        return cls(WaitKind.ANSWER, agent_id, text, reason=WaitReason.ANSWER)

    @classmethod
    def room_of(cls, agent_id: AgentId) -> Self:
        """Make a wait until an agent takes a message out of its inbox."""
        text = f"room in the inbox of agent {agent_id}"
        return cls(WaitKind.ROOM, agent_id, text, reason=WaitReason.ROOM)

    @classmethod
    def spawn_by(cls, agent_id: AgentId) -> Self:
        """Make the wait of an agent of an earlier process until its parent spawns it again."""
        return cls(WaitKind.SPAWN, agent_id, "its spawn", reason=WaitReason.QUEUE)

    @classmethod
    def any_of(
        cls,
        group: Collection[AgentId],
        text: str,
        is_fed: Callable[[], bool] | None = None,
        fed_by: Callable[[], AgentId | None] | None = None,
    ) -> Self:
        """Make a wait until one of several agents ends, or until something else feeds the wait."""
        return cls(
            WaitKind.ANY, text=text, reason=WaitReason.AGENT, group=group,
            is_fed=is_fed, fed_by=fed_by,
        )  # fmt: skip

    @classmethod
    def all_of(cls, group: Collection[AgentId], text: str) -> Self:
        """Make a wait until each of several agents has ended."""
        return cls(WaitKind.ALL, text=text, reason=WaitReason.AGENT, group=group)

    @staticmethod
    def message() -> Wait:
        """Make a wait until any agent sends a message."""
        return FOR_A_MESSAGE

    @classmethod
    def other(cls, text: str, reason: WaitReason = WaitReason.OTHER) -> Self:
        """Make a wait for something that ends by itself."""
        return cls(WaitKind.OTHER, None, text, reason=reason)

    @classmethod
    def gate(cls, name: str) -> Self:
        """Make a wait until a provider accepts one more request."""
        return cls(WaitKind.OTHER, None, f"gate {name!r}", lends=True, reason=WaitReason.GATE)


FOR_A_MESSAGE: Final = Wait(WaitKind.MESSAGE, None, "a message", reason=WaitReason.MESSAGE)

FOR_AN_EVENT: Final = Wait(WaitKind.EVENT, None, "an event")

LISTENING: Final = frozenset({WaitKind.MESSAGE, WaitKind.EVENT})
"""Waits that can be ended by the owner, or by any agent that can go on."""


@final
class WaitBook(Live):
    """Counts the waits of one pool, so that most checks for a deadlock cost nothing.

    A circle can only close at an agent that another one waits for. A whole pool can only stand
    still if one agent waits for a message and none waits for anything that ends by itself.
    """

    listeners: int = 0
    """Waits for a message, or for an event, that have no deadline."""
    woken: int = 0
    """Tasks that have a message and have not run yet. While there are any, the pool does not stand
    still: two agents that write to each other are always in this state. When such a task waits
    again, or ends, there is a new check."""
    _by_themselves: int = 0
    """Waits that end by themselves, or at a deadline."""
    _single: dict[AgentId, int] = msgspec.field(default_factory=dict[AgentId, int])
    """Waits for one agent each, by that agent."""
    _groups: dict[int, Wait] = msgspec.field(default_factory=dict[int, Wait])
    """Waits of agents for several agents."""
    _owners: dict[int, Wait] = msgspec.field(default_factory=dict[int, Wait])
    """The owner's waits for several agents. The owner often waits for all agents, and agents seldom
    wait for the owner."""

    def add(self, wait: Wait, *, has_deadline: bool, by_owner: bool = False) -> None:
        """Count a new wait of an agent or the owner."""
        if has_deadline or wait.kind is WaitKind.OTHER:
            self._by_themselves += 1
        elif wait.kind in LISTENING:
            self.listeners += 1
        if wait.target is not None:
            self._single[wait.target] = self._single.get(wait.target, 0) + 1
        elif wait.kind in GROUP_KINDS:
            (self._owners if by_owner else self._groups)[id(wait)] = wait

    def remove(self, wait: Wait, *, has_deadline: bool, by_owner: bool = False) -> None:
        """Stop counting a wait."""
        if has_deadline or wait.kind is WaitKind.OTHER:
            self._by_themselves -= 1
        elif wait.kind in LISTENING:
            self.listeners -= 1
        if wait.target is not None:
            left = self._single.pop(wait.target) - 1
            if left:
                self._single[wait.target] = left
        elif wait.kind in GROUP_KINDS:
            del (self._owners if by_owner else self._groups)[id(wait)]

    def is_awaited(self, agent_id: AgentId) -> bool:
        """Return whether any task waits for that agent."""
        if agent_id in self._single:
            return True
        if self._groups and any(one.may_be_ended_by(agent_id) for one in self._groups.values()):
            return True
        # A circle through the owner has one who waits for the owner.
        return OWNER_ID in self._single and any(
            agent_id in one.group for one in self._owners.values()
        )

    @property
    def has_awaited(self) -> bool:
        """Whether a task waits for an agent. The owner's waits for several do not count."""
        return bool(self._single or self._groups)

    @property
    def has_groups(self) -> bool:
        """Whether an agent waits for several agents."""
        return bool(self._groups)

    @property
    def may_stand_still(self) -> bool:
        """Return whether the pool could be stuck without a circle while no agent runs."""
        return self.listeners > 0 and not (self._by_themselves or self.woken)


GROUP_KINDS: Final = frozenset({WaitKind.ANY, WaitKind.ALL})
"""Waits for several agents."""


def find_deadlocked(
    waits: Mapping[AgentId, Sequence[Wait]], *, others_can_send: bool
) -> frozenset[AgentId]:
    """Return the agents that can never go on. Takes time proportional to the waits.

    Args:
        waits: The waits of the agents that cannot go on by themselves, one for each strand, and
            those of the owner. All other agents can go on.
        others_can_send: Whether an agent or owner that is not in *waits* can send a message.
    """
    stuck = dict.fromkeys(waits)
    free: deque[AgentId] = deque()
    listeners: list[AgentId] = []
    hopes: dict[AgentId, list[_Hope]] = {}
    for agent_id, strands in waits.items():
        for wait in strands:
            if wait.ends_by_itself or (wait.kind in LISTENING and others_can_send):
                free.append(agent_id)
            elif wait.kind in LISTENING:
                listeners.append(agent_id)
            else:
                _hope(agent_id, wait, waits, hopes, free)
    while free:
        agent_id = free.popleft()
        if agent_id not in stuck:
            continue
        del stuck[agent_id]
        # It goes on, so it can send as well.
        free.extend(listeners)
        listeners.clear()
        for hope in hopes.pop(agent_id, ()):
            hope.missing -= 1
            if not hope.missing:
                free.append(hope.agent_id)
    return frozenset(stuck)


@final
class _Hope(Live):
    """A wait that ends when enough of some agents can go on."""

    agent_id: AgentId
    """The id of the agent."""
    missing: int
    """How many more of these agents must be able to go on."""


def _hope(
    agent_id: AgentId,
    wait: Wait,
    waits: Mapping[AgentId, Sequence[Wait]],
    hopes: dict[AgentId, list[_Hope]],
    free: deque[AgentId],
) -> None:
    """Register the agents that can end *wait*, or free its agent if enough of them can go on."""
    missing = [target for target in wait.agent_ids if target in waits]
    if not missing or (wait.kind is not WaitKind.ALL and len(missing) < len(wait.agent_ids)):
        free.append(agent_id)
        return
    hope = _Hope(agent_id, len(missing) if wait.kind is WaitKind.ALL else 1)
    for target in missing:
        hopes.setdefault(target, []).append(hope)


def deadlock_cycle(
    first: AgentId, waits: Mapping[AgentId, Sequence[Wait]], stuck: frozenset[AgentId]
) -> tuple[AgentId, ...]:
    """Return a circle of waits reachable from *first*. Empty: there is no such circle."""
    path: dict[AgentId, Iterator[AgentId]] = {}
    done: set[AgentId] = set()
    agent_id: AgentId | None = first
    while agent_id is not None:
        if agent_id in path:
            ids = list(path)
            return tuple(ids[ids.index(agent_id) :])
        if agent_id not in done:
            done.add(agent_id)
            path[agent_id] = _targets(agent_id, waits.get(agent_id, ()), stuck)
        agent_id = None
        while path and agent_id is None:
            last, targets = next(reversed(path.items()))
            agent_id = next(targets, None)
            if agent_id is None:
                del path[last]
    return ()


def _targets(
    agent_id: AgentId, strands: Sequence[Wait], stuck: frozenset[AgentId]
) -> Iterator[AgentId]:
    # The owner's side may feed a map that it reads itself: that is no circle.
    return (
        target
        for wait in strands
        for target in wait.agent_ids
        if target in stuck and (target != agent_id or wait.target is not None)
    )


NAMED_AT_MOST: Final = 10
"""Agents that a deadlock without a circle names; a pool may have thousands."""


def describe_deadlock(
    agent_ids: Sequence[AgentId],
    waits: Mapping[AgentId, Sequence[Wait]],
    names: Mapping[AgentId, str],
    *,
    cycle: bool,
) -> str:
    """Return the circle in words: ``1 (planner) asks 2 (critic), which joins …``."""
    if not cycle:
        parts = [_alone(agent_id, waits, names) for agent_id in agent_ids[:NAMED_AT_MOST]]
        if len(agent_ids) > NAMED_AT_MOST:
            parts.append(f"{len(agent_ids) - NAMED_AT_MOST} more wait as well")
        them = "it" if len(agent_ids) == 1 else "them"
        return f"{', '.join(parts)}, and no running agent can unblock {them}"
    parts = [_who(agent_ids[0], names)]
    for place, agent_id in enumerate(agent_ids):
        after = agent_ids[(place + 1) % len(agent_ids)]
        verb = next(wait.verb(after) for wait in waits[agent_id] if after in wait.agent_ids)
        which = "" if place == 0 else ", which"
        parts.append(f"{which} {verb} {_who(after, names)}")
    return "".join(parts)


def _alone(
    agent_id: AgentId, waits: Mapping[AgentId, Sequence[Wait]], names: Mapping[AgentId, str]
) -> str:
    own = waits[agent_id]
    # Who reads a map that its own source feeds waits for what the source waits for.
    wait = next((one for one in own if agent_id not in one.agent_ids), own[0])
    whom = "".join(f" {_who(target, names)}" for target in tuple(wait.agent_ids)[:1])
    return f"{_who(agent_id, names)} {wait.kind.value}{whom}"


def _who(agent_id: AgentId, names: Mapping[AgentId, str]) -> str:
    return "the owner" if agent_id == OWNER_ID else f"{agent_id} ({names.get(agent_id, '?')})"
