"""Asks a person at the terminal before a tool call runs: ``--approve``.

Rules:

1. Without a terminal there is no person to ask, so no call that needs approval runs.
2. Only one question is shown at a time, and nothing else is written to the terminal meanwhile.
3. Text that was typed before a question was shown does not count as an answer.
4. The question begins with the agent that asks and with the numbers that the pool gave. Each text
   that a model wrote is cut to one line, with invisible characters written out, so that the text
   can neither look like a separate line nor push a line off the screen. After the whole of a long
   text has been shown, the agent is named again.
5. While a question is shown, the terminal has its usual settings and no thread reads from it, so a
   wait that is ended by Ctrl-C or a deadline leaves nothing behind.
6. A question can be put off if a key can bring it back. Meanwhile, its agent waits without a slot.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Final, TextIO, TypeAlias, final

import attrs
import trio

from agentpool import OWNER_ID, Capability
from agentpool._cli._command import ApproveMode
from agentpool._cli._keyboard import Keyboard
from agentpool._cli._screen import Screen
from agentpool.abc import AgentId
from agentpool.live import ApprovalDesk, Board, first_decision
from agentpool.tools import ApprovalRequest, Approved, Approver, Changed, Decision, Denied, one_line

Write: TypeAlias = Callable[[str], Awaitable[None]]
"""Writes to the terminal."""

_SHOWN_CHARACTERS: Final = 1000
"""The most characters of the arguments that are shown at first. Longer arguments would push
everything else off the screen."""

MAX_NAME_CHARS: Final = 60
"""The most characters shown of a name, which a model may have chosen."""

MAX_CHOICES: Final = 20
"""The most agents that are listed for a choice."""

_WHICH: Final = 'end which agent? its number, "all", or nothing for none: '

_READ_BYTES: Final = 4096
"""The most bytes that are read at once. A terminal delivers one line at a time, which is never
longer."""

_NEVER: Final = (
    "whoever runs this program refuses every call that needs approval; go on without this call"
)

_NO_TERMINAL: Final = (
    "this call needs approval, but there is no terminal at which to ask; go on without it"
)

_NO_ANSWER: Final = "no answer was given"


def choose_approver(
    mode: ApproveMode,
    screen: Screen,
    board: Board,
    desk: ApprovalDesk | None = None,
    prompter: Prompter | None = None,
) -> Approver:
    """Return the approver for calls that need approval.

    Args:
        mode: The command line's ``--approve``.
        screen: The screen for the questions.
        board: The board that shows calls that were refused without a question.
        desk: The desk where calls wait for a person at the live page. ``None``: there is no live
            page.
        prompter: Asks at the terminal. ``None``: a prompter is made here if there is a terminal.
    """
    if mode == "later":
        # Whoever is at the page may answer while others work; the journal has the question.
        return _wait_for_another_process if desk is None else desk.ask
    if mode == "always":
        return lambda _: Approved("--approve always")
    prompter = prompter or open_prompter(screen)
    if mode == "ask" and prompter is not None:
        ask = prompter.ask
        return ask if desk is None else first_decision(desk.ask, ask)
    if mode == "ask" and desk is not None:
        return desk.ask
    if mode == "never":
        reason, why = _NEVER, "--approve never"
    else:
        reason, why = _NO_TERMINAL, "without a terminal there is no way to ask; see --approve"

    def deny(request: ApprovalRequest) -> Decision:
        name = one_line(request.agent_name, MAX_NAME_CHARS)
        line = f"{name} may not call {one_line(request.call.name, MAX_NAME_CHARS)}: {why}"
        board.say(line, notable=mode == "ask")
        return Denied(reason)

    return deny


async def _wait_for_another_process(_request: ApprovalRequest) -> Decision:
    """Wait until the command ends, since the question is in the journal."""
    await trio.sleep_forever()


def open_prompter(screen: Screen, keyboard: Keyboard | None = None) -> Prompter | None:
    """Return a prompter for the terminal. ``None``: there is no terminal."""
    input_fd = _terminal(sys.stdin) if screen.is_terminal else None
    return None if input_fd is None else Prompter(screen, input_fd, keyboard)


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
    keyboard: Keyboard | None = None
    """The keyboard that reads single keys from the same terminal. ``None``: no keys are read."""
    put_off: int = attrs.field(init=False, default=0)
    """Questions that wait for ``answer``."""
    _again: trio.Event = attrs.field(init=False, factory=trio.Event)
    _always: set[tuple[str, Capability | None]] = attrs.field(
        factory=set[tuple[str, Capability | None]]
    )
    _turn: trio.Lock = attrs.field(factory=trio.Lock)

    async def ask(self, request: ApprovalRequest) -> Decision:
        """Return the person's decision about *request*.

        Raises:
            OSError: If the terminal is gone.

        Cancellation:
            The question has ended, and the display is shown again. A line that was only begun is
            lost.
        """
        # With what the tool may do: the same name may stand for more in another manifest.
        tool = (request.call.name, request.capability)
        while True:
            async with self._turn:
                if tool in self._always:
                    return Approved()
                async with self._asking() as write:
                    decision, always = await self._decide(request, write)
                if always:
                    self._always.add(tool)
            if decision is not None:
                return decision
            self.put_off += 1
            try:
                await self._again.wait()
            finally:
                self.put_off -= 1

    @property
    def keys(self) -> str:
        """The current meaning of the keys, in words. Empty: the keys do nothing."""
        if self.keyboard is None:
            return ""
        return "c ends an agent" + (
            f" · a answers {self.put_off} that wait" if self.put_off else ""
        )

    def close(self) -> None:
        """Restore the terminal's settings for good."""
        if self.keyboard is not None:
            self.keyboard.close()

    def answer(self) -> None:
        """Ask again all questions that were put off."""
        self._again.set()
        self._again = trio.Event()

    async def choose_agent(self, board: Board) -> AgentId | None:
        """Return the running agent that the person wants to end. 0: all agents. ``None``: no agent.

        Raises:
            OSError: If the terminal is gone.

        Cancellation:
            The question has ended, and the display is shown again.
        """
        async with self._turn, self._asking() as write:
            agents = {str(agent.agent_id): agent for agent in board.look().agents}
            for number, agent in list(agents.items())[:MAX_CHOICES]:
                name = one_line(agent.name, MAX_NAME_CHARS)
                await write(f"  {number} {name}, {one_line(agent.phase, MAX_NAME_CHARS)}\n")
            if len(agents) > MAX_CHOICES:
                await write(f"  and {len(agents) - MAX_CHOICES} more\n")
            line = await self._answer(_WHICH, write)
            word = (line or "").strip().casefold()
            if word == "all":
                return OWNER_ID
            if word and word not in agents:
                await write(f"no agent {one_line(word, MAX_NAME_CHARS)} runs\n")
            return agents[word].agent_id if word in agents else None

    @asynccontextmanager
    async def _asking(self) -> AsyncGenerator[Write]:
        """Reserve the terminal for a question inside the block."""
        async with self._screen.suspended() as write:
            with nullcontext() if self.keyboard is None else self.keyboard.lent():
                _forget_typed(self._input_fd)
                try:
                    yield write
                except trio.Cancelled:
                    with trio.move_on_after(1, shield=True):
                        await write("\n")
                    raise

    async def _decide(self, request: ApprovalRequest, write: Write) -> tuple[Decision | None, bool]:
        """Return the decision, and whether it holds for all calls of the tool.

        ``None``: it was put off.
        """
        name = one_line(request.call.name, MAX_NAME_CHARS)
        arguments = one_line(request.call.arguments)
        more = len(arguments) - _SHOWN_CHARACTERS
        cut = f"{arguments[:_SHOWN_CHARACTERS]} … and {more} more characters"
        shown = cut if more > 0 else arguments
        who = _who(request)
        again = " again, which may have been done already," if request.may_have_run else ""
        await write(f"{who} asks to call {name}{again} with this:\n  {shown}\n")
        later = ", l later" if self.keyboard is not None else ""
        more_of_it = ", s show all" if more > 0 else ""
        letters = f"y yes, n no, e edit, a always for {name}{later}{more_of_it}: "
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
                case "l" | "later" if later:
                    return None, False
                case "s" if more > 0:
                    await write(f"  {arguments}\nthat is what {who} asks to call {name} with\n")
                case _:
                    await write("answer with one of these letters\n")

    async def _edited(self, write: Write) -> str | None:
        """Return the changed arguments. ``None``: nothing was changed, so ask again."""
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
    """Return who is asking. The pool gives the numbers; only the name may come from a model."""
    child = f", child of agent {request.parent_id}" if request.parent_id else ""
    return f"agent {request.agent_id}{child}, {one_line(request.agent_name, MAX_NAME_CHARS)},"


def _forget_typed(input_fd: int) -> None:
    assert sys.platform != "win32"  # noqa: S101  # there is no prompt there, see _terminal
    import termios  # noqa: PLC0415  # not everywhere

    termios.tcflush(input_fd, termios.TCIFLUSH)
