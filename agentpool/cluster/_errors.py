"""The errors of clusters and their nodes."""

from __future__ import annotations

from agentpool._errors import AgentPoolError, DriverError


class ClusterError(AgentPoolError):
    """The cluster cannot be reached, or has no usable node."""


class NodeCheckError(ClusterError):
    """A node cannot do this work, because something is missing or different there."""

    def __init__(self, message: str, *, node: str) -> None:
        super().__init__(message)
        self.node: str = node
        """The node's name."""


class NodeLostError(DriverError):
    """A node was lost while it worked, so it is unknown whether the work was done.

    ``retry_after_seconds`` is the length of the lease: until then, the lost node may still be
    working. Work that had not been sent to the node was not done, and is given to another node
    automatically. The error is not ``retryable`` if no node is left and no node can join.
    """

    default_retryable = True

    def __init__(
        self,
        message: str,
        *,
        node: str,
        retry_after_seconds: float | None = None,
        was_sent: bool = True,
        retryable: bool = True,
    ) -> None:
        super().__init__(message, retryable=retryable, retry_after_seconds=retry_after_seconds)
        self.node: str = node
        """The node's name. Empty: there was no node to ask."""
        self.was_sent: bool = was_sent
        """Whether the work may have reached the node. If not, the work was not done."""


class RemoteError(AgentPoolError):
    """Stands for an error that cannot be sent: it has the type name, text and traceback."""

    def __init__(self, message: str, *, type_name: str, traceback: str) -> None:
        super().__init__(message)
        self.type_name: str = type_name
        """The name of the error's type."""
        self.traceback: str = traceback
        """The traceback, as Python prints it."""
