"""The nodes of a cluster: found, started, checked, and chosen for work."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import count
from typing import Final, final

import attrs
import msgspec
import trio

from agentpool._errors import UsageError
from agentpool._manifest.capability import PrivacyTier
from agentpool._scheduling.owner import as_bystander
from agentpool._scheduling.request_clock import waiting_for_turn
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait, WaitKind
from agentpool.cluster._checks import Terms
from agentpool.cluster._errors import ClusterError, NodeCheckError, NodeLostError
from agentpool.cluster._link import Link, Wire
from agentpool.cluster._placement import choose

_log: Final = logging.getLogger("agentpool")

LOOK_SECONDS: Final = 1.0
"""Between two looks for nodes that have joined."""

MOST_LOOK_SECONDS: Final = 8.0
"""For the cluster to say which nodes it has."""

FAILED_LOOK_SECONDS: Final = 8.0
"""Between two looks if it did not."""

MOST_FAILED_LOOKS: Final = 3
"""In a row; then the cluster is lost. Ray itself ends the program soon after, without a word."""


@final
@attrs.frozen
class FoundNode:
    """A node that the cluster has."""

    key: str
    """What tells it from every other node there ever was."""
    name: str
    """How people call it."""
    labels: Mapping[str, str]


class Source(ABC):
    """A source of nodes."""

    __slots__ = ()

    @property
    @abstractmethod
    def privacy(self) -> PrivacyTier:
        """The privacy tier of the nodes, if all their drivers are Sovereign."""

    @property
    @abstractmethod
    def ray(self) -> str:
        """The local version of Ray. Empty: Ray is not used."""

    @abstractmethod
    async def look(self) -> list[FoundNode]:
        """Return the nodes that are there now.

        Raises:
            ClusterError: If that cannot be found out.
        """

    @abstractmethod
    async def start(self, node: FoundNode, terms: Terms) -> Wire:
        """Start the node's process.

        Raises:
            Exception: If it cannot be started.
        """


class NodeState(Enum):
    """Whether a node gets work, and why not."""

    STARTING = "starting"
    """It gets work as soon as it has been looked at."""
    WORKING = "working"
    """It gets work."""
    DRAINING = "draining"
    """It ends what it has, and gets nothing new."""
    LOST = "lost"
    """It was lost; a new start is tried as long as the cluster has it."""
    REFUSED = "refused"
    """It lacks something, and gets no work."""


@final
class NodeStatus(msgspec.Struct, frozen=True, gc=False):
    """One node at one moment."""

    name: str
    """Its name."""
    state: NodeState
    """What becomes of work for it."""
    labels: Mapping[str, str]
    """Its labels."""
    load: int
    """Requests and tool calls that it has."""
    reason: str = ""
    """Why it is lost or refused. Empty: it is neither."""


@final
@attrs.define(eq=False, repr=False)
class Nodes:
    """The nodes that work for one program."""

    _source: Source
    terms: Terms
    privacy: PrivacyTier
    """The strictest tier of what is sent to them."""
    nursery: trio.Nursery
    links: dict[str, Link] = attrs.field(factory=dict[str, Link])
    """By key, the last one of each node."""
    _found: dict[str, FoundNode] = attrs.field(factory=dict[str, FoundNode])
    _refused: dict[str, NodeCheckError] = attrs.field(factory=dict[str, NodeCheckError])
    _drained: set[str] = attrs.field(factory=set[str])
    _again_at: dict[str, float] = attrs.field(factory=dict[str, float])
    _present: frozenset[str] = frozenset()
    """Those that the cluster had when it was last looked."""
    _joining: set[str] = attrs.field(factory=set[str])
    _changed: trio.Event = attrs.field(factory=trio.Event)
    """Set when a node works, or does not any more, or never will."""
    failure: ClusterError | None = None
    """Why no node can be had any more. ``None``: they can."""
    numbers: count[int] = attrs.field(factory=lambda: count(1))
    """Of drivers and of agents' tools."""

    async def open(self, *, every_node: bool) -> None:
        """Start the present nodes, and check each.

        Args:
            every_node: Whether one that lacks something is an error.

        Raises:
            ClusterError: If there is none.
            NodeCheckError: If one lacks something.
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
        """Start nodes that join later, and lost ones that are back."""
        failed = 0
        while True:
            await trio.sleep(FAILED_LOOK_SECONDS if failed else LOOK_SECONDS)
            try:
                with trio.fail_after(MOST_LOOK_SECONDS):
                    found = await self._look()
            except (ClusterError, trio.TooSlowError) as error:
                failed += 1
                why = str(error) or f"no answer within {MOST_LOOK_SECONDS:g} seconds"
                _log.warning("the cluster does not say which nodes it has: %s", why)
                if failed == MOST_FAILED_LOOKS:
                    self.failure = ClusterError(
                        f"the head of the cluster is lost ({why}); start the cluster again, and "
                        "go on from a journal"
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
        """Return the nodes that are there now."""
        found = await self._source.look()
        self._found.update({node.key: node for node in found})
        self._present = frozenset(node.key for node in found)
        self._stir()
        return found

    async def _join_later(self, node: FoundNode) -> None:
        await self._join(node)
        self._joining.remove(node.key)
        if (refused := self._refused.get(node.key)) is not None:
            _log.warning("a node that joined gets no work: %s", refused)

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
        if greeting.faults:
            wire.kill()
            text = f"node {node.name} cannot do this work: {'; '.join(greeting.faults)}"
            self._refuse(node, text, for_now=False)
            return
        self._refused.pop(node.key, None)
        self._again_at.pop(node.key, None)  # of the one before
        link = Link(node.name, node.key, node.labels, wire, self.terms.lease_seconds)
        link.tools = greeting.tools
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

        So equals are told apart in the same way each time.
        """
        for key in self._found:
            if (link := self.links.get(key)) is not None:
                yield link

    def choose(self, wanted: Mapping[str, str], model: int | None = None) -> Link | None:
        """Return the node for a piece of work. ``None``: no suitable node works now.

        Args:
            wanted: The labels that it must have.
            model: The driver that it asks. ``None``: it asks none.
        """
        return choose((link for link in self.in_order() if link.is_open), wanted, model)

    async def wait_for_one(  # noqa: ASYNC910  # one may work by now
        self, wanted: Mapping[str, str], model: int | None = None
    ) -> Link:
        """Return the node for a piece of work as soon as a suitable one works.

        Nodes that were lost are started again, and that takes a while. An agent that waits for
        it has no slot, and the time of its request does not run.

        Raises:
            NodeLostError: If none does, and none is to come.
            UsageError: If none ever had those labels.
        """
        right = [k for k, one in self._found.items() if wanted.items() <= one.labels.items()]
        if not right:
            labels = ", ".join(f"{name}={value}" for name, value in wanted.items())
            names = ", ".join(sorted({one.name for one in self._found.values()}))
            raise UsageError(f"no node has the labels {labels}; there are {names}")
        # A newcomer that may go anywhere would have to wait as well.
        wait = Wait(WaitKind.OTHER, None, "a node", lends=not wanted)
        until = trio.current_time() + self.terms.lease_seconds + self.terms.start_seconds
        with waiting_for_turn():
            while (link := self.choose(wanted, model)) is None:
                if trio.current_time() >= until or not any(map(self._may_come, right)):
                    raise NodeLostError(
                        "no node works at the moment", node="",
                        retry_after_seconds=self.terms.lease_seconds, was_sent=False,
                    )  # fmt: skip
                async with parked(wait):
                    with trio.CancelScope(deadline=until):
                        await self._changed.wait()
                await trio.lowlevel.checkpoint_if_cancelled()
        return link  # noqa: ASYNC910  # the work follows

    def _may_come(self, key: str) -> bool:
        """Return whether a node is to be started."""
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
        if link.lost is not None:
            return NodeStatus(node.name, NodeState.LOST, node.labels, 0, str(link.lost))
        state = NodeState.DRAINING if link.draining else NodeState.WORKING
        return NodeStatus(node.name, state, node.labels, link.load)

    async def drain(self, name: str) -> None:  # noqa: ASYNC910  # a node without work is drained
        """Give a node no new work, wait until it has none, and end it.

        Raises:
            UsageError: If no node of that name works.
        """
        links = [one for one in self.links.values() if one.node == name and one.lost is None]
        if not links:
            known = ", ".join(sorted({one.node for one in self.links.values()}))
            raise UsageError(f"no node {name!r} works; there are {known}")
        for link in links:
            self._drained.add(link.key)
            link.drain()
            self._stir()
            await link.idle.wait()
            link.lose("it was drained")
