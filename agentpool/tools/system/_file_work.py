"""File operations in threads, limited in number, with readable errors.

Rules:

1. A slow disk stops the agents that wait for it and no others.
2. A thread cannot be stopped from outside, and none is left behind: a call that is cancelled
   ends when its thread does. Long reads look between two pieces whether anybody still waits.
3. Writes happen one at a time, so that no edit is lost to another agent's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, final

import attrs
import trio

from agentpool._errors import ToolError

T = TypeVar("T")


@final
@attrs.frozen(eq=False)
class FileWork:
    """Limits how many file operations run at once. One for all agents of a pool."""

    readers: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(8))
    """Reads. More than 8 would only wait for the same disk."""
    searchers: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(4))
    """Searches, each a process that keeps a core busy."""
    writer: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    """Writes and edits: one, so that an edit sees what the previous edit has written."""

    async def read(self, path: str, function: Callable[[], T]) -> T:
        """Call *function* in a thread.

        Args:
            path: What an error is about.
            function: It may call ``trio.from_thread.check_cancelled``.

        Raises:
            ToolError: If the system refuses.

        Cancellation:
            The call ends when *function* does.
        """
        return await _in_thread(path, function, self.readers)

    async def write(self, path: str, function: Callable[[], T]) -> T:
        """Call *function* in a thread when no other write is running.

        Args:
            path: What an error is about.
            function: It does everything or nothing.

        Raises:
            ToolError: If the system refuses.

        Cancellation:
            Before *function* has begun, nothing was done; after that, everything.
        """
        return await _in_thread(path, function, self.writer)


async def _in_thread(path: str, function: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
    try:
        return await trio.to_thread.run_sync(function, thread_name="tool file", limiter=limiter)
    except OSError as exc:
        raise refused(path, exc) from exc


def refused(path: str, error: OSError) -> ToolError:
    """Return the text for a model when the system refuses access to *path*."""
    return ToolError(f"{path!r}: {error.strerror or type(error).__name__}")
