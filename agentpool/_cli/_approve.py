"""Asks a person at the terminal before a tool call runs: ``--approve``.

Rules:

1. Without a terminal nobody can be asked, and then nothing runs that must be asked for.
2. One question stands at a time, and nothing else is written to the terminal meanwhile.
3. What was typed before a question was there is no answer to it.
4. Who asks comes first, with the numbers that the pool gave. What a model wrote is one line
   each, cut, with what cannot be seen written out: it can neither pass for another line nor
   push one off the screen. After all has been shown, who asks is said again.
5. The terminal keeps its settings and no thread reads, so that whoever waits no longer, for
   a Ctrl-C or a deadline, leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TextIO, TypeAlias, final

import attrs
import trio

from agentpool import Capability
from agentpool._cli._board import Board
from agentpool._cli._command import ApproveMode
from agentpool._cli._screen import Screen
from agentpool.live import ApprovalDesk, first_decision
from agentpool.tools import (
    ApprovalRequest,
    Approved,
    Approver,
    Changed,
    Decision,
    Denied,
    one_line,
)

Write: TypeAlias = Callable[[str], Awaitable[None]]
"""Writes to the terminal."""

_SHOWN_CHARACTERS: Final = 1000
"""Of the arguments, at first. Otherwise long ones push all else off the screen."""

MAX_NAME_CHARS: Final = 60
"""Of a name that a model may have chosen."""

_READ_BYTES: Final = 4096
"""A terminal gives a line at a time, and none that is longer."""

_NEVER: Final = "whoever runs this refuses every call that needs approval; go on without it"

_NO_TERMINAL: Final = "this needs approval, and there is no terminal to ask at; go on without it"

_NO_ANSWER: Final = "nobody answered"


def choose_approver(
    mode: ApproveMode, screen: Screen, board: Board, desk: ApprovalDesk | None = None
) -> Approver:
    """Return the approver for calls that need approval.

    Args:
        mode: What the command line says.
        screen: Where questions are put.
        board: Where it is said that a call was refused unasked.
        desk: Where calls wait for a person at the live page. ``None``: there is none.
    """
    if mode == "later":
        return _wait_for_another_process
    if mode == "always":
        return lambda _: Approved("--approve always")
    input_fd = _terminal(sys.stdin) if mode == "ask" else None
    if input_fd is not None and screen.is_terminal:
        ask = Prompter(screen, input_fd).ask
        return ask if desk is None else first_decision(desk.ask, ask)
    if mode == "ask" and desk is not None:
        return desk.ask
    if mode == "never":
        reason, why = _NEVER, "--approve never"
    else:
        reason, why = _NO_TERMINAL, "nobody can be asked without a terminal; see --approve"

    def deny(request: ApprovalRequest) -> Decision:
        name = one_line(request.agent_name, MAX_NAME_CHARS)
        line = f"{name} may not call {one_line(request.call.name, MAX_NAME_CHARS)}: {why}"
        board.say(line, notable=mode == "ask")
        return Denied(reason)

    return deny


async def _wait_for_another_process(_request: ApprovalRequest) -> Decision:
    """Wait until the command ends: the journal has the question."""
    await trio.sleep_forever()


def _terminal(stream: TextIO | None) -> int | None:
    """Return the descriptor of *stream*. ``None``: it is not a terminal."""
    if sys.platform == "win32" or stream is None or stream.closed or not stream.isatty():
        return None
    return stream.fileno()


@final
@attrs.define(eq=False)
class Prompter:
    """Asks questions at a terminal, one after the other."""

    _screen: Screen
    _input_fd: int
    _always: set[tuple[str, Capability | None]] = attrs.field(
        factory=set[tuple[str, Capability | None]]
    )
    _turn: trio.Lock = attrs.field(factory=trio.Lock)

    async def ask(self, request: ApprovalRequest) -> Decision:
        """Return the person's decision about *request*.

        Raises:
            OSError: If the terminal is gone.

        Cancellation:
            The question is over, the display is back; a line that was begun is lost.
        """
        # With what the tool may do: the same name may stand for more in another manifest.
        tool = (request.call.name, request.capability)
        async with self._turn:
            if tool in self._always:
                return Approved()
            async with self._screen.suspended() as write:
                _forget_typed(self._input_fd)
                try:
                    decision, always = await self._decide(request, write)
                except trio.Cancelled:
                    with trio.move_on_after(1, shield=True):
                        await write("\n")
                    raise
            if always:
                self._always.add(tool)
            return decision

    async def _decide(self, request: ApprovalRequest, write: Write) -> tuple[Decision, bool]:
        name = one_line(request.call.name, MAX_NAME_CHARS)
        arguments = one_line(request.call.arguments)
        more = len(arguments) - _SHOWN_CHARACTERS
        cut = f"{arguments[:_SHOWN_CHARACTERS]} … and {more} more characters"
        shown = cut if more > 0 else arguments
        who = _who(request)
        again = " again, which may have been done already," if request.may_have_run else ""
        await write(f"{who} asks to call {name}{again} with this:\n  {shown}\n")
        letters = f"y yes, n no, e edit, a always for {name}{', s show all' if more > 0 else ''}: "
        while True:
            line = await self._answer(letters, write)
            match None if line is None else line.strip().casefold():
                case None:
                    return Denied(_NO_ANSWER), False
                case "y" | "yes":
                    return Approved(), False
                case "a" | "always":
                    return Approved(), True
                case "n" | "no":
                    return Denied((await self._answer("why not? ", write) or "").strip()), False
                case "e" | "edit":
                    changed = await self._edited(write)
                    if changed is not None:
                        return Changed(changed), False
                case "s" if more > 0:
                    await write(f"  {arguments}\nthat is what {who} asks to call {name} with\n")
                case _:
                    await write("answer with one of these letters\n")

    async def _edited(self, write: Write) -> str | None:
        """Return changed arguments. ``None``: there are none, so ask again."""
        line = (await self._answer("arguments, as JSON on one line: ", write) or "").strip()
        if not line:
            return None
        try:
            value: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            await write(f"this is not valid JSON: {error}\n")
            return None
        if not isinstance(value, dict):
            await write('arguments are a JSON object, such as {"name": "a.txt"}\n')
            return None
        return line

    async def _answer(self, question: str, write: Write) -> str | None:
        """Return the next line. ``None``: the input has ended."""
        await write(question)
        line = b""
        while not line.endswith(b"\n"):
            await trio.lowlevel.wait_readable(self._input_fd)
            piece = os.read(self._input_fd, _READ_BYTES)
            if not piece:
                await write("\n")
                return None
            line += piece
        return line.decode(errors="replace")


def _who(request: ApprovalRequest) -> str:
    """Return which agent asks, in words that no model chose except its name."""
    child = f", child of agent {request.parent_id}" if request.parent_id else ""
    return f"agent {request.agent_id}{child}, {one_line(request.agent_name, MAX_NAME_CHARS)},"


def _forget_typed(input_fd: int) -> None:
    assert sys.platform != "win32"  # noqa: S101  # there nobody is asked, see _terminal
    import termios  # noqa: PLC0415  # not everywhere

    termios.tcflush(input_fd, termios.TCIFLUSH)
