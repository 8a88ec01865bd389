"""What lives: a thing with a state of its own, equal to itself alone."""

from __future__ import annotations

import msgspec


class Live(msgspec.Struct, eq=False):
    """Base of what every agent has of its own, and every pool.

    A struct is made in a third of the time that attrs takes, and its class in a twentieth:
    an agent has six of them, and whoever imports agentpool pays for all the classes.
    """

    def __repr__(self) -> str:
        """Return what it is and where. What is in it may be large, and may be secret."""
        return object.__repr__(self)
