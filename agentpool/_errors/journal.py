"""Errors of a journal: the records of runs."""

from __future__ import annotations

from typing import Self

from agentpool._errors.errors import AgentPoolError


class JournalError(AgentPoolError):
    """The journal cannot be read or written. Records written earlier are not lost."""


class RunBusyError(JournalError):
    """Another process owns the records of this pool."""

    def __init__(self, message: str, *, host: str, pid: int, until: float) -> None:
        """Make the error.

        Args:
            message: What went wrong, and what to do.
            host: The machine of the owner.
            pid: The process id of the owner on that machine.
            until: When its lease ends, unless it writes again; in seconds since 1970.
        """
        super().__init__(message)
        self.host = host
        """The machine of the owner."""
        self.pid = pid
        """The process id of the owner on that machine."""
        self.until = until
        """When its lease ends, unless it writes again; in seconds since 1970."""


class SessionBusyError(JournalError):
    """The session has an unfinished turn, in this process or in another."""

    def __init__(self, message: str, *, session: str) -> None:
        """Make the error.

        Args:
            message: What went wrong, and what to do.
            session: The session's name.
        """
        super().__init__(message)
        self.session = session
        """The session's name."""


class LeaseLostError(JournalError):
    """Another process took over the records of a pool, so this process may no longer write."""

    def __init__(self, message: str, *, pool: str, fence: int) -> None:
        """Make the error.

        Args:
            message: What went wrong, and what to do.
            pool: The pool of the records.
            fence: The fence that is no longer the newest.
        """
        super().__init__(message)
        self.pool = pool
        """The pool of the records."""
        self.fence = fence
        """The fence that is no longer the newest."""

    @classmethod
    def of(cls, pool: str, fence: int) -> Self:
        """Make the error for a write under an old fence."""
        return cls(
            f"another process took over pool {pool!r} of the journal (this one had fence "
            f"{fence}); end this process, and check the other one",
            pool=pool,
            fence=fence,
        )


class ResumeMismatchError(JournalError):
    """A resumed run no longer does what it did before the crash."""

    def __init__(self, message: str, *, agent_id: int, place: int, differs: str) -> None:
        """Make the error.

        Args:
            message: What went wrong, and what to do.
            agent_id: The agent of the run.
            place: The number of the effect in the run. -1: the spawn itself.
            differs: The difference, in words.
        """
        super().__init__(message)
        self.agent_id = agent_id
        """The agent of the run."""
        self.place = place
        """Which effect of the run; -1 is what the agent was spawned with."""
        self.differs = differs
        """The difference, in words."""
