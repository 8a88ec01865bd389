"""Runs a program, and ends it together with everything it started.

Rules:

1. A program gets its own session. Leaving the block ends every process in that session, first by
   asking, then by killing, whatever the program did with its children.
2. When the program itself ends, processes that it left running are ended too.
3. The group is killed before the program is reaped, so that no other process can have got the
   group's number. (Where the system has no descriptor for a process, the group is killed right
   after.)
4. On Linux, processes that leave the session are found by a mark in their environment. Processes
   that also remove the mark are not found; only a program that wants to escape does that. Orphans
   are not adopted (``PR_SET_CHILD_SUBREAPER``). That setting concerns the whole process: the
   process would also adopt the orphans of its other children, and could not tell to which of two
   calls an orphan belongs.
5. The beginning and the end of each output are kept, and the rest is only counted, so a program
   that writes forever takes no more memory than one that writes a page.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, final

import attrs
import trio

from agentpool._child_process import KILL, signal_group

MARK: Final = "AGENTPOOL_CALL"
"""The environment variable that marks processes, so that those that have left the session are
found."""

_GRACE_SECONDS: Final = 1.0
"""The time between asking and killing: git removes its locks in less."""

_DYING_SECONDS: Final = 5.0
"""The time for the kernel to end killed processes. It takes milliseconds, unless a disk hangs."""

_DRAIN_SECONDS: Final = 1.0
"""The time for the last output, if a process that left the session still holds the pipe."""

_SWEEPS: Final = 5
"""How often processes outside the session are searched for. Several searches are needed, since
these processes can start others during a search."""

_PIECE_BYTES: Final = 64 * 1024


@final
class Kept:
    """The beginning and the end of an output, and its size."""

    def __init__(self, limit: int) -> None:
        """Keep at most *limit* bytes."""
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0
        """The number of bytes written in total."""

    def add(self, data: bytes | bytearray) -> None:
        """Add the next piece."""
        self.total += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def text(self) -> str:
        """Return the kept output as text, cut between characters."""
        if self.total <= 2 * self._half:
            return (self._head + self._tail).decode(errors="replace")
        head = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(self._head))
        tail = self._tail[-self._half :]
        while tail and tail[0] & 0xC0 == 0x80:  # noqa: PLR2004  # inside of a character in UTF-8
            del tail[0]
        left_out = self.total - len(head.encode()) - len(tail)
        return f"{head}\n… [{left_out} bytes left out] …\n{tail.decode(errors='replace')}"


@final
@attrs.define(eq=False, repr=False)
class Group:
    """A running program and everything that it started."""

    stdout: Kept
    """The program's standard output."""
    stderr: Kept
    """The program's standard error."""
    _process: trio.Process
    _input: bytes
    _max_bytes: float
    _mark: str | None
    is_flooded: bool = attrs.field(init=False, default=False)
    """Whether the program is being ended because it wrote more than it may."""
    _is_over: bool = attrs.field(init=False, default=False)

    @property
    def returncode(self) -> int | None:
        """The exit code, which is negative for a signal.

        ``None``: the program has not ended by itself.
        """
        return self._process.returncode

    async def run(self) -> None:
        """Run the program to its end, or until it has written too much.

        Cancellation:
            The program runs on until its block is left.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed)
            for stream, kept in (
                (self._process.stdout, self.stdout),
                (self._process.stderr, self.stderr),
            ):
                nursery.start_soon(self._read, stream, kept, nursery.cancel_scope)
            await self._wait_exited()
            signal_group(self._process, KILL)
            await self._process.wait()
            await self._sweep()
            self._is_over = True
            nursery.cancel_scope.deadline = trio.current_time() + _DRAIN_SECONDS

    async def end(self) -> None:
        """End everything that runs. Shielded, and limited in time."""
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            try:
                # Not whether the program has ended: to ask that reaps it, and what it left
                # running may go on in its group.
                if not self._is_over:
                    signal_group(self._process, signal.SIGTERM)
                    with trio.move_on_after(_GRACE_SECONDS):
                        await self._wait_exited()
                    signal_group(self._process, KILL)
                    with trio.move_on_after(_DYING_SECONDS):
                        await self._process.wait()
                        await self._sweep()
            finally:
                for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                    if stream is not None:
                        await trio.aclose_forcefully(stream)

    async def _feed(self) -> None:
        stdin = self._process.stdin
        if stdin is None:
            await trio.lowlevel.checkpoint()
            return
        async with stdin:
            with contextlib.suppress(trio.BrokenResourceError):
                await stdin.send_all(self._input)

    async def _read(
        self, stream: trio.abc.ReceiveStream | None, kept: Kept, scope: trio.CancelScope
    ) -> None:
        assert stream is not None  # noqa: S101  # it was opened with pipes
        while data := await stream.receive_some(_PIECE_BYTES):
            kept.add(data)
            if kept.total > self._max_bytes:
                self.is_flooded = True
                scope.cancel()

    async def _wait_exited(self) -> None:
        """Wait until the program has exited, without reaping it where possible."""
        try:
            fd = os.pidfd_open(self._process.pid)
        except (AttributeError, OSError):
            # Not on this platform, or it has been reaped.
            await self._process.wait()
            return
        try:
            await trio.lowlevel.wait_readable(fd)
        finally:
            os.close(fd)

    async def _sweep(self) -> None:
        """End processes that have left the session, on systems where they can be found."""
        if self._mark is None:
            await trio.lowlevel.checkpoint()
        else:
            await end_marked(self._mark)


async def end_marked(mark: str) -> None:
    """End every process whose environment has *mark* as ``MARK``, where systems show it."""
    wanted = f"{MARK}={mark}".encode()
    rounds = 1
    while await trio.to_thread.run_sync(_kill_marked, wanted) and rounds < _SWEEPS:
        rounds += 1


def _kill_marked(mark: bytes) -> int:
    """Kill every process with *mark* in its environment. Return how many."""
    killed = 0
    for pid in _processes():
        with contextlib.suppress(OSError, AttributeError):  # not all systems have descriptors
            # By a descriptor from before the look: by now its number may be another's.
            fd = os.pidfd_open(pid)
            try:
                if _is_marked(pid, mark):
                    signal.pidfd_send_signal(fd, KILL)
                    killed += 1
            finally:
                os.close(fd)
    return killed


def _processes() -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):  # none where there is no such folder
        yield int(process.name)


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False  # it has ended, or is another user's


@asynccontextmanager
async def open_group(
    argv: Sequence[str],
    *,
    path: str | None = None,
    folder: str | None = None,
    environ: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    pass_fds: Sequence[int] = (),
    keep_bytes: int,
    max_bytes: float,
    mark: str | None = None,
) -> AsyncGenerator[Group, None]:
    """Start a program without a shell, and end it with everything it started.

    Args:
        argv: The program's name and its arguments.
        path: The program's full path. ``None``: *argv* begins with the full path.
        folder: The folder in which the program runs. ``None``: the folder of this process.
        environ: The whole environment of the program. ``None``: the environment of this process.
        stdin: The program's input. ``None``: the input is empty.
        pass_fds: The descriptors that the program inherits. It inherits no others.
        keep_bytes: How much of each output is kept.
        max_bytes: The program is ended if one of its outputs is longer than this.
        mark: The value of ``MARK`` in *environ*. No other process may ever have the same value.

    Yields:
        The program, already started. Call ``run`` to wait for its end.

    Raises:
        OSError: If the program cannot be started.

    Cancellation:
        The program and everything it started have ended.
    """
    if environ is not None and mark is not None:
        environ = {**environ, MARK: mark}
    process = await trio.lowlevel.open_process(
        list(argv),
        executable=path,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environ,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )
    group = Group(Kept(keep_bytes), Kept(keep_bytes), process, stdin or b"", max_bytes, mark)
    try:
        yield group
    finally:
        await group.end()  # noqa: ASYNC102  # it has its own shield and bounds
