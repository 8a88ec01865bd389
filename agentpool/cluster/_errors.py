"""Errors between the program and the nodes that work for it."""

from __future__ import annotations

from agentpool._errors import AgentPoolError, DriverError


class ClusterError(AgentPoolError):
    """The cluster cannot be reached, or has no usable node."""


class NodeCheckError(ClusterError):
    """A node cannot do this work: something is missing or different there. Names the node."""

    def __init__(self, message: str, *, node: str) -> None:
        super().__init__(message)
        self.node: str = node
        """The node's name."""


class NodeLostError(DriverError):
    """A node was lost while it worked, so the work may or may not have been done.

    ``retry_after_seconds`` is the lease: until then the lost node may still be at it.
    Work that had not been sent to it was not done, and goes to other nodes by itself.
    If no node is left, and none is to come, it is not ``retryable``.
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
        """The node's name. Empty: there was none to ask."""
        self.was_sent: bool = was_sent
        """Whether the node may have been told of it. If not, it was not done."""


class RemoteError(AgentPoolError):
    """An error of a type that cannot be sent here, as type name, text and traceback."""

    def __init__(self, message: str, *, type_name: str, traceback: str) -> None:
        super().__init__(message)
        self.type_name: str = type_name
        """The name of its type."""
        self.traceback: str = traceback
        """Where it was raised, as Python prints it."""
