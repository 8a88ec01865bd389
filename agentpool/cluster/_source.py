"""Sources of nodes: Ray, threads of this process, or a test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import final

import attrs

from agentpool._manifest.capability import PrivacyTier
from agentpool.cluster._node_checks import Terms
from agentpool.cluster._node_link import Wire


@final
@attrs.frozen
class FoundNode:
    """A node that the cluster has."""

    key: str
    """The node's unique key, which no earlier node had."""
    name: str
    """The node's name for people."""
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
        """Return the nodes that exist now.

        Raises:
            ClusterError: If the source cannot find out which nodes exist.
        """

    @abstractmethod
    async def start(self, node: FoundNode, terms: Terms) -> Wire:
        """Start the node's process.

        Raises:
            Exception: If the node's process cannot be started.
        """
