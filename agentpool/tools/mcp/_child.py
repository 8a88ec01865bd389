"""The process of an MCP server: its pipes, last output, and process group.

The server starts in its own process group. The whole group is ended with the server, so that
neither a wrapper such as ``npx`` nor processes that the server started are left behind. On Linux,
processes that left the group are found by a mark in their environment; a program that wants to
escape can remove the mark.
"""

from __future__ import annotations

import contextlib
import os
import secrets as randomness
import shutil
import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final, final

import attrs
import trio

from agentpool._child_process import KILL, end_group, ending, signal_group
from agentpool._errors import ToolError
from agentpool.tools.mcp._secrets import Secrets, SecretsInStream
from agentpool.tools.system._process import MARK, end_marked

_PACKAGES: Final = frozenset({"mcp-server-fetch", "mcp-server-git", "mcp-server-time"})
"""The servers that come in Python packages of their own names: those of the protocol's authors."""

GRACE_SECONDS: Final = 1.0
"""The time that the server gets to end after its input is closed, and again after SIGTERM. Servers
in Python need 0.2 s."""

DYING_SECONDS: Final = 0.2
"""The time to read the last output of a dead process, and to notice its death."""

TAIL_BYTES: Final = 2_000
"""The most bytes that are kept of the server's standard error. Older output is dropped."""

_SWEEP_SECONDS: Final = 5.0
"""The time to find and end processes that left the server's group. This takes milliseconds."""

_PIECE_BYTES: Final = 65_536


@final
@attrs.define(eq=False, repr=False)
class Child:
    """A server's process."""

    _process: trio.Process
    _stdin: trio.abc.SendStream
    _stdout: trio.abc.ReceiveStream
    _stderr: trio.abc.ReceiveStream
    _output: SecretsInStream
    _errors: SecretsInStream
    _mark: str = ""
    _tail: bytearray = attrs.field(factory=bytearray)

    async def receive(self) -> bytes:
        """Return the next piece of the server's output, without secrets.

        Empty: the output has ended.
        """
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self._stdout.receive_some(_PIECE_BYTES):
                if known := self._output.feed(bytes(data)):
                    return known
        return self._output.end()  # noqa: ASYNC910  # it has tried to receive

    async def send(self, data: bytes) -> None:
        """Write *data* to its input.

        Raises:
            trio.BrokenResourceError: If the server no longer reads its input.
        """
        await self._stdin.send_all(data)

    def note(self, output: bytes) -> None:
        """Add *output* to the last output that is kept."""
        self._tail += output[-TAIL_BYTES:]
        del self._tail[:-TAIL_BYTES]

    async def drain(self) -> None:  # noqa: ASYNC910  # it has tried to receive
        """Read the server's standard error to the end, and keep the last part of it."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for piece in self._stderr:
                # Before it is cut: half a secret is not recognised as one.
                self.note(self._errors.feed(bytes(piece)))
        self.note(self._errors.end())

    async def wait_died(self) -> None:
        """Wait until the process has ended, then end the rest of its group."""
        await self._process.wait()
        signal_group(self._process, KILL)

    async def say_how(self) -> str:
        """Say how the server ended, or that it still runs, and what it wrote last."""
        with trio.move_on_after(DYING_SECONDS):
            await self._process.wait()
        code = self._process.returncode
        how = "it closed its output" if code is None else ending(code)
        return f"{how}; {self.last_words()}"  # noqa: ASYNC910  # it has waited

    def last_words(self) -> str:
        """Return the last part of the server's standard error."""
        text = " ".join(self._tail.decode(errors="replace").split())
        return f"its last output: {text!r}" if text else "it wrote nothing to standard error"

    async def stop(self) -> None:
        """End the process and everything it started: close its input, terminate, kill."""
        with trio.CancelScope(shield=True):
            # An MCP server ends when its input does.
            await trio.aclose_forcefully(self._stdin)
            with trio.move_on_after(GRACE_SECONDS):
                await self._process.wait()
            await end_group(self._process, GRACE_SECONDS)
            with trio.move_on_after(_SWEEP_SECONDS):
                await end_marked(self._mark)
            await trio.aclose_forcefully(self._stdout)
            await trio.aclose_forcefully(self._stderr)


@contextlib.asynccontextmanager
async def open_child(
    command: Sequence[str], environment: Mapping[str, str], secrets: Secrets
) -> AsyncGenerator[Child]:
    """Start a server. At the end of the block, end the server and everything that it started.

    Args:
        command: The program and its arguments.
        environment: The server's environment variables.
        secrets: Removed from its output.

    Raises:
        ToolError: If there is no such program, or it cannot be started.
    """
    program = shutil.which(command[0], path=environment.get("PATH", os.defpath))
    if program is None:
        how = f": pip install {command[0]}" if command[0] in _PACKAGES else ""
        raise ToolError(
            f"there is no program {command[0]!r} on the PATH; install it{how}, or correct 'command'"
        )
    mark = randomness.token_hex(16)
    try:
        process = await trio.lowlevel.open_process(
            [program, *command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment, MARK: mark},
            start_new_session=True,
        )
    except (OSError, ValueError) as exc:  # ValueError: a NUL in a word
        raise ToolError(f"the program {command[0]!r} cannot be started: {exc}") from exc
    # No await up to here: a cancellation in between would leave it running.
    assert process.stdin is not None  # noqa: S101  # all three are pipes
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    child = Child(
        process,
        process.stdin,
        process.stdout,
        process.stderr,
        SecretsInStream(secrets),
        SecretsInStream(secrets),
        mark,
    )
    try:
        yield child
    finally:
        await child.stop()  # noqa: ASYNC102  # it shields itself, and each of its steps is short
