"""The states of nodes, for users."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import final

import msgspec


class NodeState(Enum):
    """Whether a node gets work, and why not."""

    STARTING = "starting"
    """It gets work once it has passed the checks."""
    WORKING = "working"
    """It gets work."""
    DRAINING = "draining"
    """It finishes the work that it has, and gets no new work."""
    LOST = "lost"
    """It was lost. If it is still in the cluster, it is started again."""
    DRAINED = "drained"
    """It was drained: it has finished its work, and gets no more work."""
    REFUSED = "refused"
    """It lacks something that the work needs, and gets no work."""


@final
class NodeStatus(msgspec.Struct, frozen=True, gc=False):
    """One node at one moment."""

    name: str
    """Its name."""
    state: NodeState
    """Whether the node gets work, and why not."""
    labels: Mapping[str, str]
    """Its labels."""
    load: int
    """How many requests and tool calls the node has to do."""
    reason: str = ""
    """Why the node is lost or refused. Empty: it is neither lost nor refused."""
