"""Nodes in threads of this program, for trying out a cluster program without a cluster."""

from __future__ import annotations

import os
from functools import partial
from typing import final

import trio

from agentpool._manifest.capability import PrivacyTier
from agentpool.cluster._node_checks import Terms
from agentpool.cluster._node_link import Wire
from agentpool.cluster._node_loop import NodeHost
from agentpool.cluster._node_messages import Greeting
from agentpool.cluster._source import FoundNode, Source


@final
class LocalWire(Wire):
    """Reaches a node in a thread."""

    __slots__ = ("_host", "_limiter")

    def __init__(self, host: NodeHost) -> None:
        self._host = host
        self._limiter = trio.CapacityLimiter(2)

    async def hello(self) -> Greeting:
        """Return what the node reports about itself."""
        return await trio.to_thread.run_sync(self._host.hello, limiter=self._limiter)

    async def push(self, batch: bytes) -> bool:
        """Pass orders to the node."""
        await trio.lowlevel.checkpoint()
        return self._host.push(batch)

    async def poll(self, heard: int, seconds: float) -> bytes | None:
        """Return the node's news. If there is no news, wait for it."""
        take = partial(self._host.poll, heard, seconds)
        return await trio.to_thread.run_sync(take, limiter=self._limiter, abandon_on_cancel=True)

    def kill(self) -> None:
        """End the node's loop."""
        self._host.stop()


@final
class LocalSource(Source):
    """A fixed number of nodes in threads of this process."""

    __slots__ = ("_names",)

    def __init__(self, count: int) -> None:
        self._names = [f"local-{number}" for number in range(1, count + 1)]

    @property
    def privacy(self) -> PrivacyTier:
        """Sovereign: data stays in this process."""
        return PrivacyTier.SOVEREIGN

    @property
    def ray(self) -> str:
        """Empty: Ray is not used."""
        return ""

    async def look(self) -> list[FoundNode]:
        """Return the nodes, which are always there."""
        await trio.lowlevel.checkpoint()
        return [FoundNode(name, name, {"name": name}) for name in self._names]

    async def start(self, node: FoundNode, terms: Terms) -> Wire:
        """Start the thread of a node."""
        await trio.lowlevel.checkpoint()
        return LocalWire(NodeHost(node.name, terms, ray="", environ=os.environ))
