"""What becomes of the work for a node, as a user reads it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import final

import msgspec


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
    DRAINED = "drained"
    """It was drained: it has ended what it had, and gets nothing any more."""
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
