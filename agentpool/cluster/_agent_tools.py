"""Keeps the tools of an agent on one node, where the tools may keep state.

When that node is lost, the tools are made again on another node.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TypeAlias, cast, final

import trio

from agentpool._manifest.manifest import AgentManifest
from agentpool._pool.agent_context import call_at_end
from agentpool._scheduling.request_clock import waiting_for_turn
from agentpool.abc import AgentContext
from agentpool.cluster._errors import NodeLostError
from agentpool.cluster._node_link import Link
from agentpool.cluster._node_messages import SHARED, OpenKit, ToolFacts
from agentpool.cluster._nodes import Nodes
from agentpool.cluster._tool_questions import answer_for, facts_of

Labels: TypeAlias = Callable[[AgentManifest], Mapping[str, str]]
"""Returns the labels that a node must have to work for a manifest."""

MOST_NODES: Final = 3
"""How many nodes in a row may be lost while they make the tools of an agent."""


@final
class Kit:
    """The tools of one agent."""

    def __init__(self, nodes: Nodes, labels: Mapping[str, str]) -> None:
        self._nodes = nodes
        self._labels = labels
        self._opening = trio.Lock()
        self._link: Link | None = None
        self._number = SHARED
        self.facts: tuple[ToolFacts, ...] = ()
        """The facts about the tools, once they have been made."""

    async def open(self, agent: AgentContext) -> tuple[Link, int]:
        """Return the node and the number of the tools there. Make the tools if needed.

        Raises:
            NodeLostError: If no node works, or too many were lost during the attempt.
            Exception: What the tool builder on the node raised.

        Cancellation:
            No tools are left on the node.
        """
        async with self._opening:
            lost = 0
            while self._link is None or self._link.lost is not None:
                try:
                    await self._make(agent)
                except NodeLostError as error:
                    lost += 1
                    if lost == MOST_NODES or not error.retryable:
                        raise
                    # Until then the lost node may still be at it.
                    with waiting_for_turn():
                        await trio.sleep(error.retry_after_seconds or 0.0)
            return self._link, self._number

    async def _make(self, agent: AgentContext) -> None:  # noqa: ASYNC910  # what all have is there
        link = self._nodes.choose(self._labels)
        if link is None:
            link = await self._nodes.wait_for_one(self._labels)
        if link.tools is not None:
            keep_tools(link, agent)
            self._link, self._number, self.facts = link, SHARED, link.tools
            return  # noqa: ASYNC910  # the same
        number = next(self._nodes.numbers)
        link.agents += 1
        try:
            found = await answer_for(agent, link, OpenKit(number, facts_of(agent)))
        except BaseException:
            link.close_kit(number)
            raise
        self._link, self._number = link, number
        self.facts = cast("tuple[ToolFacts, ...]", found)
        call_at_end(agent, partial(link.close_kit, number))


def keep_tools(link: Link, agent: AgentContext) -> None:
    """Record that an agent uses a node's shared tools until it ends."""
    link.agents += 1
    call_at_end(agent, link.let_go)


@final
class Kits:
    """The kits of agents with equal tools on one node."""

    def __init__(self, nodes: Nodes, labels: Labels | None, link: Link) -> None:
        self.link = link
        """The node."""
        self._nodes = nodes
        self._labels = labels
        self._of: weakref.WeakKeyDictionary[AgentContext, Kit] = weakref.WeakKeyDictionary()

    def add(self, agent: AgentContext, kit: Kit) -> None:
        """Keep the tools made for *agent* while it runs."""
        self._of[agent] = kit

    async def open(self, agent: AgentContext) -> tuple[Link, int]:  # noqa: ASYNC910  # they are there
        """Return the node of *agent*'s tools and their number there.

        Raises:
            NodeLostError: If no node works, or too many were lost during the attempt.
            Exception: What the tool builder on the node raised.

        Cancellation:
            No tools are left on the node.
        """
        kit = self._of.get(agent)
        if kit is None:
            if self.link.tools is not None and self.link.lost is None:
                return self.link, SHARED  # noqa: ASYNC910  # they are there
            asked = self._labels
            labels: Mapping[str, str] = {} if asked is None else asked(agent.manifest)
            kit = self._of[agent] = Kit(self._nodes, labels)
        return await kit.open(agent)
