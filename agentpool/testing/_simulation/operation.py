"""Marks one operation of a scenario whose caller may cancel it and then go on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, final

import attrs
import trio


@final
@attrs.frozen(eq=False)
class Operation:
    """An operation in progress."""

    scope: trio.CancelScope
    """The cancel scope around the operation."""
    task: trio.lowlevel.Task
    """The task that does it."""
    outer: frozenset[trio.Nursery]
    """Nurseries that the task had already opened. The tasks in them are not part of the
    operation."""


open_operations: Final[trio.lowlevel.RunVar[list[Operation] | None]] = trio.lowlevel.RunVar(
    "agentpool_operations", default=None
)
"""The open operations of this run. ``None``: the testing kit did not start this run."""


@contextmanager
def operation() -> Generator[trio.CancelScope]:
    """Mark the block as one operation, which its caller may cancel.

    ``cancel_everywhere(scenario, target="scope")`` cancels the operation at each of its points, and
    lets the scenario go on. In all other runs, the block is an ordinary cancel scope.

    >>> async def scenario():
    ...     send, receive = trio.open_memory_channel(1)
    ...     with operation() as given_up:
    ...         await send.send("job")
    ...     assert given_up.cancelled_caught or receive.receive_nowait() == "job"
    """
    running = open_operations.get()
    with trio.CancelScope() as scope:
        if running is None:
            yield scope
            return
        task = trio.lowlevel.current_task()
        one = Operation(scope, task, frozenset(task.child_nurseries))
        running.append(one)
        try:
            yield scope
        finally:
            running.remove(one)
