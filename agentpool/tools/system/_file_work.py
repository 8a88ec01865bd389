"""File operations in threads, limited in number, with readable errors.

Rules:

1. A slow disk stops the agents that wait for it and no others.
2. A thread cannot be stopped from outside. No thread is left behind: a cancelled call ends when its
   thread does. Long reads check between two pieces whether the call was cancelled.
3. Writes happen one at a time, so that no agent's edit overwrites the edit of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, final

import attrs
import trio

from agentpool._base import Shown
from agentpool._checks import Checked, expect_arguments
from agentpool._errors import ToolError

T = TypeVar("T")


@final
@attrs.frozen(eq=False, repr=False)
class FileWork(Shown, Checked):
    """Limits how many file operations run in parallel. Make one for all agents of a pool."""

    readers: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(8))
    """Limits reads. More than 8 would only wait for the same disk."""
    searchers: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(4))
    """Limits searches, each of which is a process that keeps a core busy."""
    writer: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    """Limits writes and edits to one, so that an edit sees what the previous one has written."""

    async def read(self, path: str, function: Callable[[], T]) -> T:
        """Call *function* in a thread.

        Args:
            path: The path to name in errors.
            function: What to call. It may call ``trio.from_thread.check_cancelled``.

        Raises:
            ToolError: If the system refuses.

        Cancellation:
            The call ends when *function* does.
        """
        expect_arguments(FileWork.read, locals())
        return await _in_thread(path, function, self.readers)

    async def write(self, path: str, function: Callable[[], T]) -> T:
        """Call *function* in a thread when no other write is running.

        Args:
            path: The path to name in errors.
            function: What to call. It must do everything or nothing.

        Raises:
            ToolError: If the system refuses.

        Cancellation:
            If *function* has not begun, nothing was done; otherwise everything was.
        """
        expect_arguments(FileWork.write, locals())
        return await _in_thread(path, function, self.writer)


async def _in_thread(path: str, function: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
    try:
        return await trio.to_thread.run_sync(function, thread_name="tool file", limiter=limiter)
    except OSError as exc:
        raise refused(path, exc) from exc


def refused(path: str, error: OSError) -> ToolError:
    """Return the text for a model when the system refuses access to *path*."""
    return ToolError(f"{path!r}: {error.strerror or type(error).__name__}")
