"""The root of all errors, and the errors that fit no other module."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Final, cast

import msgspec


def _rebuild(
    cls: type[AgentPoolError], args: tuple[object, ...], state: dict[str, object]
) -> AgentPoolError:
    # Not cls(*args): keyword-only fields are not in args, they are in the state.
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class AgentPoolError(Exception):
    """The root of all errors that agentpool raises on purpose."""

    _recorded: AgentPoolError | None = None
    """The recorded error that this one was rebuilt from, if it was raised in an earlier process."""

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from args and fields, so that keyword-only fields survive pickle."""
        return _rebuild, (type(self), self.args, self.__dict__)


MAX_TRACEBACK_CHARACTERS: Final = 20_000
"""The limit for a traceback; its end is more useful than its beginning."""


def traceback_text(error: BaseException) -> str:
    """Return the traceback of *error* as Python prints it; only the end of a very long one."""
    return "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARACTERS:]


def leaves(error: BaseException) -> list[BaseException]:
    """Return the errors in a group and its subgroups, or the error itself."""
    # A loop and not a recursion: groups can be nested deeper than Python calls can.
    found: list[BaseException] = []
    rest = [error]
    while rest:
        one = rest.pop()
        if isinstance(one, BaseExceptionGroup):
            rest.extend(reversed(cast("BaseExceptionGroup[BaseException]", one).exceptions))
        else:
            found.append(one)
    return found


class UsageError(AgentPoolError):
    """The calling code passed something wrong. Nothing has changed."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong in a manifest."""

    path: str
    """The path of the value, such as ``resources.max_iterations``. Empty for the whole file."""
    text: str
    """The problem, the value, and a correct form."""

    def __str__(self) -> str:
        """Return ``path: text``."""
        return f"{self.path}: {self.text}" if self.path else self.text


class ManifestError(AgentPoolError):
    """A manifest is wrong. ``faults`` has every fault, not only the first."""

    def __init__(self, faults: Sequence[Fault], *, source: str = "manifest") -> None:
        super().__init__(f"{source}: " + "; ".join(str(fault) for fault in faults))
        self.faults: tuple[Fault, ...] = tuple(faults)
        """All faults, in the order of the manifest."""
        self.source: str = source
        """The file's name, or ``manifest`` for one made in code."""


class PoolFullError(AgentPoolError):
    """The pool has no room for another agent. Nothing was started, and no id was used."""

    def __init__(self, message: str, *, running: int, queued: int) -> None:
        super().__init__(message)
        self.running: int = running
        """Agents that held a slot at that moment."""
        self.queued: int = queued
        """Agents that waited for a slot."""


class PoolClosedError(AgentPoolError):
    """The pool is closing or closed, and accepts no more work."""


class MessageError(AgentPoolError):
    """A message was not accepted. Nothing was sent."""

    def __init__(self, message: str, *, recipient: int) -> None:
        super().__init__(message)
        self.recipient: int = recipient
        """The agent that the message was for."""


class UnknownAgentError(MessageError):
    """No agent with that id was ever in this pool."""


class AgentGoneError(MessageError):
    """The agent has ended, possibly while the sender waited."""


class InboxFullError(MessageError):
    """The agent's inbox has no room now."""


class DeadlockError(AgentPoolError):
    """Agents wait for each other in a circle, or all wait and none can send."""

    def __init__(self, message: str, *, agent_ids: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.agent_ids: tuple[int, ...] = tuple(agent_ids)
        """The agents in the circle: each waits for the next one, the last for the first."""


class ToolError(AgentPoolError):
    """A tool cannot do what the model asked. The model gets the text."""


class CapabilityDeniedError(ToolError):
    """The agent's manifest does not grant what the tool needs."""


class LimitExceededError(AgentPoolError):
    """A guard or a budget stopped the run."""

    def __init__(
        self, message: str, *, kind: str, used: float, limit: float, source: str = "guard"
    ) -> None:
        super().__init__(message)
        self.kind: str = kind
        """The exceeded limit, in the words of ``StopReason``: ``max_iterations``, …"""
        self.used: float = used
        """How much of the limit was used, in its own unit."""
        self.limit: float = limit
        """How much was allowed, in the same unit."""
        self.source: str = source
        """The owner of the limit: the run's guard, or a budget by its name."""


class MemoryStoreError(AgentPoolError):
    """The file of a memory cannot be used. The text says what is wrong."""


class PrivacyError(AgentPoolError):
    """The manifest's privacy tier forbids that place. Nothing was sent there."""


PARENT_LEFT: Final = "its parent no longer waits for it"
"""Why an agent is cancelled when nothing waits for it any longer."""


class AgentCancelledError(AgentPoolError):
    """An agent was cancelled before it could end."""

    def __init__(self, message: str, *, cancelled_by: str, reason: str) -> None:
        super().__init__(message)
        self.cancelled_by: str = cancelled_by
        """Who cancelled the agent: ``owner``, ``pool``, ``agent 3``, …"""
        self.reason: str = reason
        """The reason that was given."""


class TraceError(AgentPoolError):
    """The file of a trace is missing, is not a trace, or cannot be written."""


class RecordedError(AgentPoolError):
    """An agent's error as read from a trace, in place of the exception itself.

    An error from a journal is of this type as well, unless it is one of agentpool's own errors,
    which keep their class.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        traceback: str = "",
        details: Mapping[str, str] = {},
        errors: Sequence[RecordedError] = (),
    ) -> None:
        super().__init__(message)
        self.kind: str = kind
        """The name of the exception's type."""
        self.traceback: str = traceback
        """The traceback as Python prints it. Empty: the error was never raised."""
        self.details: Mapping[str, str] = details
        """The error's fields, such as ``cancelled_by``."""
        self.errors: tuple[RecordedError, ...] = tuple(errors)
        """The parts of an error that consists of several, such as the error of each driver."""
