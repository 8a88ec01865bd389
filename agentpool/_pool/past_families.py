"""The agents of earlier processes, by the agents that spawned them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self, final

import msgspec

from agentpool._base import Live
from agentpool._messages import OWNER_ID, AgentId
from agentpool._pool.past import PastAgent


@final
class PastFamilies(Live):
    """Finds the children of an agent without a look at all agents of earlier processes."""

    _taken: Mapping[str, AgentId]
    """The keys of this process's agents."""
    _children: dict[AgentId, list[PastAgent]] = msgspec.field(
        default_factory=dict[AgentId, list[PastAgent]]
    )
    """By parent, in the order in which they were accepted."""
    _free: dict[AgentId, list[PastAgent]] = msgspec.field(
        default_factory=dict[AgentId, list[PastAgent]]
    )
    """Those of them that may go on without the call that spawned them, in spawn order."""

    @classmethod
    def of(cls, agents: Iterable[PastAgent], taken: Mapping[str, AgentId]) -> Self:
        """Sort those of *agents* that other agents spawned by their parents.

        Args:
            agents: The agents of earlier processes, in the order in which they were accepted.
            taken: The keys of this process's agents, as it spawns them.
        """
        made = cls(taken)
        children = [one for one in agents if one.parent_id != OWNER_ID]
        for one in children:
            made._children.setdefault(one.parent_id, []).append(one)
        for one in sorted(children, key=lambda one: one.agent_id):
            if one.is_free:
                made._free.setdefault(one.parent_id, []).append(one)
        return made

    def below(self, past: PastAgent) -> Sequence[PastAgent]:
        """Return the children of an agent."""
        return self._children.get(past.agent_id, ())

    def bound_to(self, past: PastAgent) -> list[PastAgent]:
        """Return the children that end with the call that spawned them.

        This process continues the others, even though their calls have ended.
        """
        taken = self._taken
        return [one for one in self.below(past) if not (one.is_free and one.key in taken)]

    def free_of(self, agent_id: AgentId) -> Sequence[PastAgent]:
        """Return the children that may go on without the call that spawned them, in spawn order."""
        return self._free.get(agent_id, ())

    def everybody(self, past: PastAgent) -> Iterator[PastAgent]:
        """Yield an agent and all agents below it."""
        ahead = [past]
        while ahead:
            yield (one := ahead.pop())
            ahead += self.below(one)
