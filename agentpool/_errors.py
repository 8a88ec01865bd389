"""Every error that agentpool raises on purpose.

The branches say who must act::

    AgentPoolError
    ├── UsageError                 fix the calling code
    ├── ManifestError              fix the manifest; carries every fault
    ├── PoolFullError              wait, or raise max_queued
    ├── PoolClosedError            the pool takes no more work
    ├── MessageError               nothing was sent
    │   ├── UnknownAgentError      there never was such an agent
    │   ├── AgentGoneError         it was there and has ended
    │   └── InboxFullError         it is there and has no room
    ├── DeadlockError              every one of a circle of agents waits for the next
    ├── DriverError                the model's side; retryable or not
    │   ├── RateLimitError
    │   ├── OverloadedError
    │   ├── NetworkError
    │   ├── AuthenticationError
    │   ├── BadRequestError
    │   ├── ContextOverflowError
    │   ├── UnknownModelError
    │   ├── FailedAttemptError     the model failed to write what it wanted to
    │   ├── AllDriversFailedError
    │   ├── InvalidOutputError     no answer had the form that was asked for
    │   ├── EmptyAnswerError       the model answered, and said nothing
    │   ├── ProtocolError
    │   └── RecordingMissError
    ├── ToolError                  told to the model, which may try again
    │   └── CapabilityDeniedError
    ├── LimitExceededError         a guard or a budget said stop
    ├── MemoryStoreError           the file of a memory is locked, damaged or newer
    ├── JournalError               the journal cannot be read or written
    │   ├── RunBusyError           another process owns the pool's records
    │   ├── LeaseLostError         another process took the pool's records over
    │   └── ResumeMismatchError    the program asks for something else than before
    ├── PrivacyError               the data may not go there
    ├── AgentCancelledError        somebody cancelled the agent; says who and why
    ├── TraceError                 the file of a trace cannot be read or written
    ├── RecordedError              what an agent ended with, as a trace has it
    └── PoolError                  the group raised at the pool's exit

A message has three parts: what went wrong, with which value, and what to do about it.
Errors are data: their fields are public, and every one of them survives pickle.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final, Self, cast

import attrs


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

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from args and fields, so that keyword-only fields survive pickle."""
        return _rebuild, (type(self), self.args, self.__dict__)


MAX_TRACEBACK_CHARACTERS: Final = 20_000
"""Of a traceback: its end says more than its beginning."""


def traceback_text(error: BaseException) -> str:
    """Return the traceback of *error* as Python prints it, the end of a very long one."""
    return "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARACTERS:]


class UsageError(AgentPoolError):
    """The calling code asked for something that has no meaning. Nothing has changed."""


@attrs.frozen
class Fault:
    """One thing that is wrong with a manifest."""

    path: str
    """Where it stands, such as ``resources.max_iterations``. Empty for the whole file."""
    text: str
    """What is wrong, with the value, and what to write instead."""

    def __str__(self) -> str:
        """Return ``path: text``."""
        return f"{self.path}: {self.text}" if self.path else self.text


class ManifestError(AgentPoolError):
    """A manifest is wrong. Carries every fault, not only the first one."""

    def __init__(self, faults: Sequence[Fault], *, source: str = "manifest") -> None:
        super().__init__(f"{source}: " + "; ".join(str(fault) for fault in faults))
        self.faults: tuple[Fault, ...] = tuple(faults)
        """What is wrong, in the order in which it stands in the manifest."""
        self.source: str = source
        """The file's name, or ``manifest`` for one made in code."""


class PoolFullError(AgentPoolError):
    """The pool has no room for another agent. No id was used, nothing was started."""

    def __init__(self, message: str, *, running: int, queued: int) -> None:
        super().__init__(message)
        self.running: int = running
        """Agents that held a slot at that moment."""
        self.queued: int = queued
        """Agents that waited for one."""


class PoolClosedError(AgentPoolError):
    """The pool is closing or closed and takes no more work."""


class MessageError(AgentPoolError):
    """A message was not accepted. Nothing was sent."""

    def __init__(self, message: str, *, recipient: int) -> None:
        super().__init__(message)
        self.recipient: int = recipient
        """The agent that the message was for."""


class UnknownAgentError(MessageError):
    """There never was an agent with that id in this pool."""


class AgentGoneError(MessageError):
    """The agent has ended, or ended while the sender waited."""


class InboxFullError(MessageError):
    """The agent is there, and its inbox has no room now."""


class DeadlockError(AgentPoolError):
    """Agents wait for each other in a circle, or all wait and nobody can send."""

    def __init__(self, message: str, *, agent_ids: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.agent_ids: tuple[int, ...] = tuple(agent_ids)
        """Who waits for whom: each for the next, the last for the first."""


class DriverError(AgentPoolError):
    """The model, its provider or the way there failed."""

    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        retry_after_seconds: float | None = None,
        status_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable: bool = self.default_retryable if retryable is None else retryable
        """Whether the same request may succeed later."""
        self.retry_after_seconds: float | None = retry_after_seconds
        """What the provider asked to wait. ``None``: it did not say."""
        self.status_code: int | None = status_code
        """The HTTP status. ``None``: the failure was not an HTTP answer."""


class RateLimitError(DriverError):
    """Too many requests or tokens in the provider's period."""

    default_retryable = True


class OverloadedError(DriverError):
    """The provider cannot serve anybody right now."""

    default_retryable = True


class NetworkError(DriverError):
    """No connection, or one that broke."""

    default_retryable = True


class AuthenticationError(DriverError):
    """The key is missing, wrong, or not allowed to do this."""


class BadRequestError(DriverError):
    """The provider does not accept the request as it is."""


class ContextOverflowError(DriverError):
    """The conversation does not fit the model's window."""


class UnknownModelError(DriverError):
    """There is no such model where it was looked for."""


class FailedAttemptError(DriverError):
    """The model failed to write what it wanted to, such as a call that nothing can read.

    Asked once more, it mostly succeeds; a third time it would be paid for the same again.
    """

    default_retryable = True


class AllDriversFailedError(DriverError):
    """Several drivers were asked, and none answered. Has what each of them failed with."""

    def __init__(
        self,
        message: str,
        *,
        errors: Sequence[DriverError],
        retryable: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable, retry_after_seconds=retry_after_seconds)
        self.errors: tuple[DriverError, ...] = tuple(errors)
        """What they failed with, in the order in which they were asked. Empty: nobody was
        asked, since all of them had failed too often before."""


class InvalidOutputError(DriverError):
    """No answer had the form that was asked for, though the model was told what was wrong."""

    def __init__(self, message: str, *, answers: int) -> None:
        super().__init__(message)
        self.answers: int = answers
        """How many answers were tried."""


class EmptyAnswerError(DriverError):
    """The model answered with no text and no tool call, also when it was asked again."""


class ProtocolError(DriverError):
    """The answer does not follow the wire format. Says what came."""


class RecordingMissError(DriverError):
    """A recording has no answer to a request. Says what was asked, and what is nearest."""


class ToolError(AgentPoolError):
    """A tool cannot do what the model asked. The text is told to the model."""


class CapabilityDeniedError(ToolError):
    """The agent's manifest does not grant what the tool needs."""


class LimitExceededError(AgentPoolError):
    """A guard or a budget stopped the run."""

    def __init__(
        self, message: str, *, kind: str, used: float, limit: float, source: str = "guard"
    ) -> None:
        super().__init__(message)
        self.kind: str = kind
        """What ran out, in the words of ``StopReason``: ``max_iterations``, …"""
        self.used: float = used
        """How much of it was used, in its own unit."""
        self.limit: float = limit
        """How much was allowed, in the same unit."""
        self.source: str = source
        """Who set the limit: the run's guard, or a budget by its name."""


class MemoryStoreError(AgentPoolError):
    """The file in which a memory keeps its fragments cannot be used. Says what is wrong."""


class JournalError(AgentPoolError):
    """The journal cannot be read or written. Nothing that was written before is lost."""


class RunBusyError(JournalError):
    """Another process owns the records of this pool."""

    def __init__(self, message: str, *, host: str, pid: int, until: float) -> None:
        """Make the error.

        Args:
            message: What went wrong, and what to do.
            host: The machine of the owner.
            pid: Its process there.
            until: When its lease ends, unless it writes again; in seconds since 1970.
        """
        super().__init__(message)
        self.host = host
        """The machine of the owner."""
        self.pid = pid
        """Its process on that machine."""
        self.until = until
        """When its lease ends, unless it writes again; in seconds since 1970."""


class LeaseLostError(JournalError):
    """Another process took over the records of a pool: this one must write no more."""

    def __init__(self, message: str, *, pool: str, fence: int) -> None:
        """Make the error.

        Args:
            message: What went wrong, and what to do.
            pool: Whose records.
            fence: The fence that is no longer the newest.
        """
        super().__init__(message)
        self.pool = pool
        """Whose records."""
        self.fence = fence
        """The fence that is no longer the newest."""

    @classmethod
    def of(cls, pool: str, fence: int) -> Self:
        """Return the error of a write under an old fence."""
        return cls(
            f"another process took over pool {pool!r} of the journal (this one had fence "
            f"{fence}); end this one, and look at the other",
            pool=pool,
            fence=fence,
        )


class ResumeMismatchError(JournalError):
    """A resumed run asks for something else than it did before the crash."""

    def __init__(self, message: str, *, agent_id: int, place: int, differs: str) -> None:
        """Make the error.

        Args:
            message: What went wrong, and what to do.
            agent_id: Whose run.
            place: Which effect of the run; -1 is what the agent was spawned with.
            differs: What is not as it was.
        """
        super().__init__(message)
        self.agent_id = agent_id
        """Whose run."""
        self.place = place
        """Which effect of the run; -1 is what the agent was spawned with."""
        self.differs = differs
        """What is not as it was."""


class PrivacyError(AgentPoolError):
    """The manifest's privacy tier forbids that place. Nothing was sent there."""


class AgentCancelledError(AgentPoolError):
    """An agent was cancelled before it could end."""

    def __init__(self, message: str, *, cancelled_by: str, reason: str) -> None:
        super().__init__(message)
        self.cancelled_by: str = cancelled_by
        """Who did it: ``owner``, ``pool``, ``agent 3``, …"""
        self.reason: str = reason
        """Why, in the words of whoever did it."""


class TraceError(AgentPoolError):
    """The file of a trace is not there, is no trace, or cannot be written."""


class RecordedError(AgentPoolError):
    """What an agent ended with, as a trace has it: no longer the exception itself."""

    def __init__(
        self, message: str, *, kind: str, traceback: str = "", details: Mapping[str, str] = {}
    ) -> None:
        super().__init__(message)
        self.kind: str = kind
        """The name of the exception's type."""
        self.traceback: str = traceback
        """Where it was raised, as Python prints it. Empty: it was raised nowhere."""
        self.details: Mapping[str, str] = details
        """Its fields, such as ``cancelled_by``."""


def _leaves(error: BaseException) -> Iterator[int]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield id(error)


def _is_part(error: BaseException, whole: BaseException) -> bool:
    """Whether *error* is *whole*, or a group of some of what is in it."""
    if error is whole:
        return True
    is_inside = set(_leaves(error)) <= set(_leaves(whole))
    groups = isinstance(error, BaseExceptionGroup) and isinstance(whole, BaseExceptionGroup)
    return groups and is_inside


class PoolError(AgentPoolError, ExceptionGroup[Exception]):
    """Agents failed, and nobody looked at their outcomes.

    An ``ExceptionGroup``, so ``except*`` takes it apart; it also knows which agent each
    error came from.
    """

    by_agent: Mapping[int, Exception]
    """The error of each failed agent, by agent id, in spawn order."""

    def __new__(
        cls,
        message: str,
        errors: Sequence[Exception],
        agent_ids: Sequence[int] = (),  # noqa: ARG004  # for __init__; groups are built in two
    ) -> Self:
        """Make the group; ``__init__`` adds the agents."""
        return super().__new__(cls, message, errors)

    def __init__(
        self, message: str, errors: Sequence[Exception], agent_ids: Sequence[int] = ()
    ) -> None:
        super().__init__(message, errors)
        self.by_agent = dict(zip(agent_ids, errors, strict=False))

    @property
    def first(self) -> Exception:
        """The error of the agent that was spawned first."""
        return self.exceptions[0]

    def derive(self, excs: Sequence[Exception]) -> PoolError:  # type: ignore[override]  # a group of Exceptions stays one
        """Make the group that ``split`` and ``except*`` hand out, agents kept."""
        # In the order of the whole, so that agents with one and the same error keep it each.
        left = iter(self.by_agent.items())
        ids: list[int] = []
        for error in excs:
            found = next((agent_id for agent_id, whole in left if _is_part(error, whole)), None)
            if found is None:  # not a part of ours: a wrong name would be worse than none
                return PoolError(self.message, excs)
            ids.append(found)
        return PoolError(self.message, excs, ids)

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from message, errors and agent ids."""
        return PoolError, (
            self.message,
            list(self.exceptions),
            tuple(self.by_agent),
        )
