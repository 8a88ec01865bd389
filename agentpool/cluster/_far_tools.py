"""Tools that run on a node for an agent in the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast, final

import attrs
import trio

from agentpool._errors import ToolError
from agentpool._loop.run import UNSURE
from agentpool._manifest.capability import Capability
from agentpool._messages import ToolDefinition
from agentpool._pool.agent_context import pay_for_another_run
from agentpool._scheduling.request_clock import waiting_for_turn
from agentpool.abc import AgentContext, OnUnknown, Tool, ToolContext, ToolResult
from agentpool.cluster._agent_tools import Kit, Kits, Labels, keep_tools
from agentpool.cluster._errors import NodeLostError
from agentpool.cluster._node_link import Link
from agentpool.cluster._node_messages import RunTool, ToolFacts
from agentpool.cluster._nodes import Nodes
from agentpool.cluster._tool_questions import answer_for, facts_of
from agentpool.tools._registry import ToolRegistry

MOST_OFFERS: Final = 8
"""How many different sets of tools are kept for one node. Most pools need only a handful."""


@final
@attrs.frozen(eq=False, repr=False)
class FarTool(Tool):
    """One tool on a node."""

    _kits: Kits
    _facts: ToolFacts

    @property
    def definition(self) -> ToolDefinition:
        """The tool as the model sees it."""
        return self._facts.definition

    @property
    def capability(self) -> Capability | None:
        """The grant that the agent needs. ``None``: it needs none."""
        return self._facts.capability

    @property
    def timeout_seconds(self) -> float | None:
        """The time limit of one call. ``None``: as the manifest says."""
        return self._facts.timeout_seconds

    @property
    def needs_approval(self) -> bool:
        """Whether each call needs approval."""
        return self._facts.needs_approval

    @property
    def waits(self) -> bool:
        """Whether it waits for other agents."""
        return self._facts.waits

    @property
    def on_unknown(self) -> OnUnknown:
        """What to do if it is unknown whether a call was done."""
        return self._facts.on_unknown

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Run a call on the node.

        If the node is lost, repeat the call only if the tool may run twice.

        Raises:
            ToolError: What the tool raised, or an error that its node was lost during the call.

        Cancellation:
            The call has ended completely, as far as this program can know.
        """
        lost: NodeLostError | None = None
        while True:
            try:
                link, number = await self._kits.open(context.agent)
            except NodeLostError as error:
                raise ToolError(f"{error}; the tool was not run") from error
            if lost is not None:
                await _pay_again(context.agent, lost)
                lost = None
            work = RunTool(
                number, self.definition.name, arguments, context.call_id,
                context.idempotency_key, context.fence, facts_of(context.agent),
            )  # fmt: skip
            try:
                return cast("ToolResult", await answer_for(context.agent, link, work))
            except NodeLostError as error:
                if not error.was_sent:
                    continue  # it was not run, and begins elsewhere
                if self.on_unknown != "rerun":
                    raise ToolError(f"{error}; {UNSURE}") from error
                # Until then the lost node may still be at it.
                with waiting_for_turn():
                    await trio.sleep(error.retry_after_seconds or 0.0)
                lost = error


async def _pay_again(agent: AgentContext, lost: NodeLostError) -> None:  # noqa: ASYNC910  # without a budget there is nothing to wait for
    """Charge a repeated call once more, since the call may already have run once.

    Raises:
        ToolError: If a budget does not allow the charge.
    """
    if (refusal := await pay_for_another_run(agent)) is not None:
        raise ToolError(f"{lost}; it was not run again: {refusal}") from refusal


@final
@attrs.frozen(eq=False, repr=False)
class _Offer:
    """The tools of several agents on one node."""

    facts: tuple[ToolFacts, ...]
    kits: Kits
    registry: ToolRegistry


@final
@attrs.define(eq=False, repr=False)
class FarTools:
    """Makes the tools of each agent on the node chosen for it."""

    _nodes: Nodes
    _labels: Labels | None
    _offers: dict[str, list[_Offer]] = attrs.field(factory=dict[str, list[_Offer]])
    """The offers of each node, the newest first."""

    async def __call__(self, context: AgentContext) -> ToolRegistry:  # noqa: ASYNC910  # the run that follows has checkpoints
        """Make the tools of one agent.

        Raises:
            NodeLostError: If no node works, or too many were lost during the attempt.
            Exception: What the tool builder on the node raised.
        """
        asked = self._labels
        labels: Mapping[str, str] = {} if asked is None else asked(context.manifest)
        link = self._nodes.choose(labels)
        if link is not None and link.tools is not None:
            keep_tools(link, context)
            return self._offer(link, link.tools).registry  # noqa: ASYNC910  # the same
        kit = Kit(self._nodes, labels)
        link, _ = await kit.open(context)
        offer = self._offer(link, kit.facts)
        offer.kits.add(context, kit)
        return offer.registry

    def _offer(self, link: Link, facts: tuple[ToolFacts, ...]) -> _Offer:
        """Return the offer that all agents with equal tools on that node share.

        So the grants are checked once, and the common parts of the agents' requests are sent once
        for many requests.
        """
        old = [one for one in self._offers.get(link.key, ()) if one.kits.link is link]
        for offer in old:
            if offer.facts is facts or offer.facts == facts:
                return offer
        kits = Kits(self._nodes, self._labels, link)
        offer = _Offer(facts, kits, ToolRegistry([FarTool(kits, one) for one in facts]))
        self._offers[link.key] = [offer, *old[: MOST_OFFERS - 1]]
        return offer
