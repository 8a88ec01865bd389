"""Who waits for whom, and who therefore waits for ever.

Rules:

1. An agent that runs, is queued, or has a deadline of its own can go on.
2. An agent that waits in several branches can go on when one of them can.
3. A wait for an agent, or for the owner, ends only if that one can go on. A wait for a
   message ends if anybody else can go on: another agent, or the owner.
4. A wait for anything else (a timer, a person, a place in the queue) ends by itself.
5. Whoever is left when these rules have been applied as often as they change anything
   is deadlocked.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Self, final

import msgspec

from agentpool._messages import OWNER_ID, AgentId


class WaitKind(enum.Enum):
    """What a wait ends with. The values read as verbs between two agents."""

    END = "joins"
    ANSWER = "asks"
    ROOM = "waits for room in the inbox of"
    MESSAGE = "waits for a message"
    OTHER = "waits"


class WaitReason(enum.Enum):
    """What an agent waits for, for those who watch."""

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
    """What others have set aside of a budget."""
    OTHER = "other"
    """Something else that ends by itself."""


@final
class Wait(msgspec.Struct, frozen=True, gc=False):
    """What an agent waits for while it holds no slot."""

    kind: WaitKind
    """What ends the wait."""
    target: AgentId | None = None
    """The agent that must do it. ``None``: nobody in particular."""
    text: str = ""
    """For people: what is waited for."""
    lends: bool = False
    """Whether the slot is only lent meanwhile, to agents that come back: a newcomer would
    have to wait for the same."""
    reason: WaitReason = WaitReason.OTHER
    """What kind of thing it is, for those who watch."""

    @classmethod
    def end_of(cls, agent_id: AgentId, name: str) -> Self:
        """Wait until an agent has ended."""
        text = f"the end of agent {agent_id} ({name})"
        return cls(WaitKind.END, agent_id, text, reason=WaitReason.AGENT)

    @classmethod
    def answer_of(cls, agent_id: AgentId) -> Self:
        """Wait until an agent answers a question."""
        text = f"an answer of agent {agent_id}"
        return cls(WaitKind.ANSWER, agent_id, text, reason=WaitReason.ANSWER)

    @classmethod
    def room_of(cls, agent_id: AgentId) -> Self:
        """Wait until an agent takes something out of its inbox."""
        text = f"room in the inbox of agent {agent_id}"
        return cls(WaitKind.ROOM, agent_id, text, reason=WaitReason.ROOM)

    @staticmethod
    def message() -> Wait:
        """Wait until anybody sends something."""
        return FOR_A_MESSAGE

    @classmethod
    def other(cls, text: str, reason: WaitReason = WaitReason.OTHER) -> Self:
        """Wait for something that ends by itself."""
        return cls(WaitKind.OTHER, None, text, reason=reason)

    @classmethod
    def gate(cls, name: str) -> Self:
        """Wait until a provider takes one more request."""
        return cls(WaitKind.OTHER, None, f"gate {name!r}", lends=True, reason=WaitReason.GATE)


FOR_A_MESSAGE: Final = Wait(WaitKind.MESSAGE, None, "a message", reason=WaitReason.MESSAGE)


def find_deadlocked(
    waits: Mapping[AgentId, Sequence[Wait]], *, others_can_send: bool, owner_can_act: bool = True
) -> frozenset[AgentId]:
    """Return the agents that wait for ever.

    Args:
        waits: What each branch of each agent waits for, for those agents that cannot go
            on by themselves. Everybody else can.
        others_can_send: Whether anybody who is not in *waits* can send a message.
        owner_can_act: Whether the owner can answer, or read what it was sent.
    """
    stuck = dict(waits)
    gone = set[AgentId]() if owner_can_act else {OWNER_ID}
    changed = True
    while changed and stuck:
        changed = False
        for agent_id, branches in tuple(stuck.items()):
            if any(
                _can_end(wait, stuck.keys() | gone, others_can_send=others_can_send)
                for wait in branches
            ):
                del stuck[agent_id]
                # It goes on, so it can send as well.
                others_can_send = changed = True
    return frozenset(stuck)


def _can_end(wait: Wait, stuck: AbstractSet[AgentId], *, others_can_send: bool) -> bool:
    match wait.kind:
        case WaitKind.OTHER:
            return True
        case WaitKind.MESSAGE:
            return others_can_send
        case _:
            return wait.target not in stuck


def deadlock_cycle(
    first: AgentId, waits: Mapping[AgentId, Sequence[Wait]], stuck: frozenset[AgentId]
) -> tuple[AgentId, ...]:
    """Return a circle of waits that is reached from *first*; empty if there is none."""
    path: list[AgentId] = []
    agent_id: AgentId | None = first
    while agent_id is not None and agent_id not in path:
        path.append(agent_id)
        agent_id = next(
            (wait.target for wait in waits.get(agent_id, ()) if wait.target in stuck), None
        )
    return () if agent_id is None else tuple(path[path.index(agent_id) :])


def describe_deadlock(
    agent_ids: Sequence[AgentId],
    waits: Mapping[AgentId, Sequence[Wait]],
    names: Mapping[AgentId, str],
    *,
    cycle: bool,
) -> str:
    """Return who waits for whom: ``1 (planner) asks 2 (critic), which joins …``."""
    if not cycle:
        parts = [_alone(agent_id, waits, names) for agent_id in agent_ids]
        return f"{', '.join(parts)}, and nobody is left who could end that"
    text = _who(agent_ids[0], names)
    for place, agent_id in enumerate(agent_ids):
        after = agent_ids[(place + 1) % len(agent_ids)]
        verb = next(wait.kind.value for wait in waits[agent_id] if wait.target == after)
        which = "" if place == 0 else ", which"
        text += f"{which} {verb} {_who(after, names)}"
    return text


def _alone(
    agent_id: AgentId, waits: Mapping[AgentId, Sequence[Wait]], names: Mapping[AgentId, str]
) -> str:
    wait = waits[agent_id][0]
    whom = "" if wait.target is None else f" {_who(wait.target, names)}"
    return f"{_who(agent_id, names)} {wait.kind.value}{whom}"


def _who(agent_id: AgentId, names: Mapping[AgentId, str]) -> str:
    return "the owner" if agent_id == OWNER_ID else f"{agent_id} ({names.get(agent_id, '?')})"
