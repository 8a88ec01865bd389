"""Tools called by hand, on real folders, and a look at what they leave behind."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import trio

from agentpool import Capability, ToolError
from agentpool._messages import Json
from agentpool.abc import Tool, ToolResult
from agentpool.testing import lone_context
from agentpool.tools import FileWork, file_tools


def file_kit(
    folder: Path,
    *,
    read: Iterable[str] = (".",),
    write: Iterable[str] = (".",),
    work: FileWork | None = None,
) -> dict[str, Tool]:
    """Return the tools on files in *folder*, by name."""
    grants = [Capability.file_read(*read), Capability.file_write(*write)]
    return {one.definition.name: one for one in file_tools(grants, folder=folder, work=work)}


def names_in(folder: Path) -> list[str]:
    """Return the names of what is in *folder*."""
    return sorted(one.name for one in folder.iterdir())


async def use(tool: Tool, **arguments: Json) -> str:
    """Call *tool* and return what a model is told; it must have gone well."""
    result = await result_of(tool, **arguments)
    assert not result.is_error, result.content
    return result.content


async def fail(tool: Tool, **arguments: Json) -> str:
    """Call *tool* and return what a model is told; it must have failed."""
    result = await result_of(tool, **arguments)
    assert result.is_error, result.content
    return result.content


async def result_of(tool: Tool, **arguments: Json) -> ToolResult:
    """Call *tool* and return the result."""
    try:
        return await tool.run(json.dumps(arguments), lone_context())
    except ToolError as error:
        return ToolResult(str(error), is_error=True)


def open_fds() -> list[str]:
    """Return what this process has open, where the system says so."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return []
    found: list[str] = []
    for one in os.listdir(folder):  # noqa: PTH208  # a list: it is closed again
        try:
            found.append(str((folder / one).readlink()))
        except OSError:
            continue  # the listing itself
    return sorted(found)


def processes_with(word: str) -> list[int]:
    """Return the processes that have *word* in their command lines, but for this one."""
    found: list[int] = []
    for one in Path("/proc").iterdir():
        if one.name.isdecimal() and int(one.name) != os.getpid():
            try:
                if word.encode() in (one / "cmdline").read_bytes():
                    found.append(int(one.name))
            except OSError:
                continue
    return found


async def all_gone(word: str) -> bool:
    """Whether the processes that have *word* in their command lines end at once.

    Who was killed is there for some instants more.
    """
    with trio.move_on_after(5):
        while processes_with(word):  # noqa: ASYNC110  # others' processes have no events
            await trio.sleep(0.001)
        return True
    return False


def tool_threads() -> list[str]:
    """Return the threads that work for a tool."""
    return [one.name for one in threading.enumerate() if one.name.startswith("tool ")]


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the *step*-th step of any task since it began."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        """Begin at none."""
        self._scope = scope
        self._step = step
        self.seen = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # trio's own
        """Count, and cancel when it is time."""
        self.seen += 1
        if self.seen == self._step:
            self._scope.cancel()
