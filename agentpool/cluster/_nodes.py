"""Finds, starts and checks the nodes of a cluster, and chooses one for each piece of work."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count
from typing import Final, final

import attrs
import trio

from agentpool._errors import UsageError
from agentpool._manifest.capability import PrivacyTier
from agentpool._scheduling.owner import as_bystander
from agentpool._scheduling.request_clock import waiting_for_turn
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait, WaitKind
from agentpool.cluster._errors import ClusterError, NodeCheckError, NodeLostError
from agentpool.cluster._node_checks import Terms
from agentpool.cluster._node_link import Link, Wire
from agentpool.cluster._node_messages import ToolFacts
from agentpool.cluster._node_status import NodeState, NodeStatus
from agentpool.cluster._placement import choose
from agentpool.cluster._same_tools import tool_faults
from agentpool.cluster._source import FoundNode, Source

_log: Final = logging.getLogger("agentpool")

LOOK_SECONDS: Final = 1.0
"""The time between two looks for nodes that have joined."""

MOST_LOOK_SECONDS: Final = 8.0
"""The time for the cluster to report its nodes."""

FAILED_LOOK_SECONDS: Final = 8.0
"""The time until the next look after a failed one."""

MOST_FAILED_LOOKS: Final = 3
"""After this many failed looks in a row, the cluster counts as lost. Soon after that, Ray would end
the program without saying why."""

MOST_OPENINGS: Final = 3
"""A node that is lost this many times while it opens models gets no more work."""


@final
@attrs.define(eq=False, repr=False)
class Nodes:
    """The nodes that work for one program."""

    _source: Source
    terms: Terms
    privacy: PrivacyTier
    """The strictest tier of data that may be sent to the nodes."""
    nursery: trio.Nursery
    tools: tuple[ToolFacts, ...] | None = None
    """The tools that all agents share, as imported in the program. Each node must have the same
    tools. ``None``: each agent gets tools of its own, or no tools run on nodes."""
    model_seconds: float = 600.0
    """How long a node may take to open a model."""
    prepare: Callable[[Link], Awaitable[None]] | None = None
    """Opens on a node everything that must be open before the node gets work. ``None``: nothing
    must."""
    is_closed: bool = False
    """Whether the program has closed its links to all nodes."""
    links: dict[str, Link] = attrs.field(factory=dict[str, Link])
    """The newest link to each node, by the node's key."""
    _found: dict[str, FoundNode] = attrs.field(factory=dict[str, FoundNode])
    _refused: dict[str, NodeCheckError] = attrs.field(factory=dict[str, NodeCheckError])
    _drained: set[str] = attrs.field(factory=set[str])
    _again_at: dict[str, float] = attrs.field(factory=dict[str, float])
    _present: frozenset[str] = frozenset()
    """The keys of the nodes found at the last look."""
    _lost_openings: Counter[str] = attrs.field(factory=Counter[str])
    """How often each node was lost while it opened models."""
    _joining: set[str] = attrs.field(factory=set[str])
    _changed: trio.Event = attrs.field(factory=trio.Event)
    """Set when a node begins or stops working, or is refused."""
    failure: ClusterError | None = None
    """Why no node can be used any more. ``None``: nodes can be used."""
    numbers: count[int] = attrs.field(factory=lambda: count(1))
    """The next numbers for drivers and for agents' tools."""

    async def open(self, *, every_node: bool) -> None:
        """Start the nodes that are present, and check each of them.

        Args:
            every_node: Whether it is an error if a node lacks something.

        Raises:
            ClusterError: If there is no node.
            NodeCheckError: If a node lacks something.
        """
        found = await self._look()
        if not found:
            raise ClusterError("the cluster has no node; start one, and try again")
        async with trio.open_nursery() as nursery:
            for node in found:
                nursery.start_soon(self._join, node)
        if every_node:
            for node in found:
                if node.key in self._refused:
                    raise self._refused[node.key]
        with as_bystander():
            self.nursery.start_soon(self._look_again)

    async def _look_again(self) -> None:
        """Start nodes that join later, and lost nodes that have come back."""
        failed = 0
        while True:
            await trio.sleep(FAILED_LOOK_SECONDS if failed else LOOK_SECONDS)
            try:
                with trio.fail_after(MOST_LOOK_SECONDS):
                    found = await self._look()
            except (ClusterError, trio.TooSlowError) as error:
                failed += 1
                why = str(error) or f"no answer within {MOST_LOOK_SECONDS:g} seconds"
                _log.warning("the cluster does not report its nodes: %s", why)
                if failed == MOST_FAILED_LOOKS:
                    self.failure = ClusterError(
                        f"the head of the cluster is lost ({why}); start the cluster again, and "
                        "resume from a journal"
                    )
                    self.nursery.cancel_scope.cancel()
                    return
                continue
            failed = 0
            for node in found:
                if self._is_wanted(node):
                    # Side by side: one that takes long keeps no other one waiting.
                    self._joining.add(node.key)
                    self.nursery.start_soon(self._join_later, node)

    async def _look(self) -> list[FoundNode]:
        """Return the nodes that are in the cluster now."""
        found = await self._source.look()
        self._found.update({node.key: node for node in found})
        self._present = frozenset(node.key for node in found)
        self._stir()
        return found

    async def _join_later(self, node: FoundNode) -> None:
        await self._join(node)
        link = self.links.get(node.key)
        if link is not None and link.lost is None and not link.is_ready:
            await self.make_ready(link, is_needed=False)
        self._joining.remove(node.key)
        if (refused := self._refused.get(node.key)) is not None:
            _log.warning("a node that joined gets no work: %s", refused)

    async def make_ready(self, link: Link, *, is_needed: bool) -> None:
        """Open on a node everything that must be open before the node gets work.

        Args:
            link: The node.
            is_needed: Whether a failure is an error. ``False``: the node gets no work. A node that
                was lost meanwhile, perhaps for a different reason, is started again.

        Raises:
            NodeCheckError: If opening fails and is needed. The error says why.
        """
        assert self.prepare is not None  # noqa: S101  # or it would be ready
        try:
            await self.prepare(link)
        except NodeCheckError as error:
            if is_needed:
                raise
            self._lost_openings[link.key] += link.lost is not None
            if link.lost is None or self._lost_openings[link.key] == MOST_OPENINGS:
                self.refuse(link, error)
            return  # noqa: ASYNC910  # what is there already needs no wait
        self._lost_openings.pop(link.key, None)
        link.is_ready = True
        self._stir()

    def _is_wanted(self, node: FoundNode) -> bool:
        if node.key in self._drained or node.key in self._joining:
            return False
        if node.key in self._refused:
            # What it lacks it does not get by itself; but it may have been too busy to start.
            return trio.current_time() >= self._again_at.get(node.key, math.inf)
        link = self.links.get(node.key)
        if link is None:
            return True
        # What it had may go on for as long as its lease; a new start waits for that. Since when
        # is known once the link has ended, a moment after it is lost.
        again_at = self._again_at.get(node.key, math.inf)
        return link.lost is not None and trio.current_time() >= again_at

    async def _join(self, node: FoundNode) -> None:
        wire: Wire | None = None
        try:
            with trio.fail_after(self.terms.start_seconds):
                wire = await self._source.start(node, self.terms)
                greeting = await wire.hello()
        except Exception as error:  # noqa: BLE001  # whatever it is, it gets no work
            if wire is not None:
                wire.kill()
            why = f"cannot be started: {type(error).__name__}: {error}"
            if isinstance(error, trio.TooSlowError):
                why = f"did not answer within {self.terms.start_seconds:g} seconds"
            self._refuse(node, f"node {node.name} {why}", for_now=True)
            return  # noqa: ASYNC910  # it was waited for
        # One that cannot import its tools has none to compare.
        if wrong := greeting.faults or tuple(tool_faults(self.tools, greeting.tools)):
            wire.kill()
            text = f"node {node.name} cannot do this work: {'; '.join(wrong)}"
            self._refuse(node, text, for_now=False)
            return
        self._refused.pop(node.key, None)
        self._again_at.pop(node.key, None)  # of the previous one
        link = Link(node.name, node.key, node.labels, wire, self.terms.lease_seconds)
        link.tools = greeting.tools
        link.is_ready = self.prepare is None
        self.links[node.key] = link
        with as_bystander():
            self.nursery.start_soon(self._run, link, name=f"node {node.name}")
        self._stir()

    def _refuse(self, node: FoundNode, text: str, *, for_now: bool) -> None:
        self._refused[node.key] = NodeCheckError(text, node=node.name)
        if for_now:
            self._again_at[node.key] = trio.current_time() + self.terms.start_seconds
        else:
            self._again_at.pop(node.key, None)
        self._stir()

    def refuse(self, link: Link, error: NodeCheckError) -> None:
        """Give no work to a node that has started."""
        self._refused[link.key] = error
        self._again_at.pop(link.key, None)
        link.lose("it cannot do this work")
        self._stir()

    async def _run(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            link.lose("the program has left it")
            if is_wanted := link.key not in self._refused:
                self._again_at[link.key] = trio.current_time() + self.terms.lease_seconds
        if is_wanted and not link.draining:
            _log.warning("%s", link.lost)

    # --- work

    def in_order(self) -> Iterator[Link]:
        """Yield the links in the order in which their nodes were found.

        With this order, the choice among equal nodes is the same each time.
        """
        for key in self._found:
            if (link := self.links.get(key)) is not None:
                yield link

    def choose(self, wanted: Mapping[str, str], model: int | None = None) -> Link | None:
        """Return the node for a piece of work. ``None``: no suitable node works now.

        Args:
            wanted: The labels that the node must have.
            model: The driver that the work asks. ``None``: it asks no driver.
        """
        return choose((link for link in self.in_order() if link.is_open), wanted, model)

    async def wait_for_one(  # noqa: ASYNC910  # one may work by now
        self, wanted: Mapping[str, str], model: int | None = None
    ) -> Link:
        """Return the node for a piece of work as soon as a suitable node works.

        Lost nodes are started again, which takes a while. An agent that waits for this has no slot,
        and the waiting does not count towards the time of its request.

        Raises:
            NodeLostError: If no suitable node works in time. If no such node can join, the error is
                raised immediately and is not retryable.
            UsageError: If no node has ever had those labels.
        """
        right = self.right_ones(wanted)
        # A newcomer that may go anywhere would have to wait as well.
        wait = Wait(WaitKind.OTHER, None, "a node", lends=not wanted)
        until = trio.current_time() + self.terms.lease_seconds + self.terms.start_seconds
        with waiting_for_turn():
            while (link := self.choose(wanted, model)) is None:
                if self.is_closed or not any(map(self._may_come, right)):
                    raise NodeLostError(
                        self._why_none(right), node="", was_sent=False, retryable=False
                    )
                if trio.current_time() >= until:
                    raise NodeLostError(
                        "no node works at the moment", node="",
                        retry_after_seconds=self.terms.lease_seconds, was_sent=False,
                    )  # fmt: skip
                changed = self._changed  # which may be set while observers hear of the wait
                async with parked(wait):
                    with trio.CancelScope(deadline=until):
                        await changed.wait()
                await trio.lowlevel.checkpoint_if_cancelled()
        return link  # noqa: ASYNC910  # the work follows

    def right_ones(self, wanted: Mapping[str, str]) -> list[FoundNode]:
        """Return the nodes that have the labels, in whatever state the nodes are.

        Raises:
            UsageError: If no node has ever had these labels.
        """
        known = self._found.values()
        right = [one for one in known if wanted.items() <= one.labels.items()]
        if not right:
            labels = ", ".join(f"{name}={value}" for name, value in wanted.items())
            names = ", ".join(sorted({one.name for one in known}))
            raise UsageError(f"no node has the labels {labels}; the nodes are {names}")
        return right

    def close(self) -> None:
        """Record that the program leaves all nodes."""
        self.is_closed = True
        self._stir()

    def _why_none(self, right: list[FoundNode]) -> str:
        """Say why none of these nodes will work again."""
        if self.is_closed:
            return "no node works any more: the block of open_cluster() has ended"
        states = (self._status_of(node) for node in right)
        words = (one.reason or f"node {one.name} is {one.state.value}" for one in states)
        return f"no node works any more for this work: {'; '.join(words)}"

    def _may_come(self, node: FoundNode) -> bool:
        """Return whether a node should be started."""
        key = node.key
        is_refused = key in self._refused and key not in self._again_at
        return key in self._present and key not in self._drained and not is_refused

    def _stir(self) -> None:
        """Wake the tasks that wait for a node."""
        self._changed.set()
        self._changed = trio.Event()

    def status(self) -> tuple[NodeStatus, ...]:
        """Return every node ever seen, in the order of discovery."""
        return tuple(map(self._status_of, self._found.values()))

    def _status_of(self, node: FoundNode) -> NodeStatus:
        if (refused := self._refused.get(node.key)) is not None:
            return NodeStatus(node.name, NodeState.REFUSED, node.labels, 0, str(refused))
        link = self.links.get(node.key)
        if link is None:
            return NodeStatus(node.name, NodeState.STARTING, node.labels, 0)
        if node.key in self._drained and link.lost is not None:
            return NodeStatus(node.name, NodeState.DRAINED, node.labels, 0)
        if link.lost is not None:
            return NodeStatus(node.name, NodeState.LOST, node.labels, 0, str(link.lost))
        state = NodeState.WORKING if link.is_ready else NodeState.STARTING
        state = NodeState.DRAINING if link.draining else state
        return NodeStatus(node.name, state, node.labels, link.load)

    async def drain(self, name: str) -> None:  # noqa: ASYNC910  # a node without work is drained
        """Give a node no new work, wait until it has finished its work, and end the node.

        Raises:
            UsageError: If no node of that name works.
        """
        links = [one for one in self.links.values() if one.node == name and one.lost is None]
        if not links:
            known = ", ".join(sorted({one.node for one in self.links.values()}))
            raise UsageError(f"no node {name!r} works; the nodes are {known}")
        for link in links:
            self._drained.add(link.key)
            link.drain()
            self._stir()
            await link.idle.wait()
            link.lose("it was drained")
