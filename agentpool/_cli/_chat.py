"""``agentpool chat``: a conversation in the terminal, turn by turn.

Rules:

1. Answers go to standard output as they are written, everything else to standard error.
2. Ctrl-C ends the turn, which then does not count, and the chat goes on. At the prompt, a second
   Ctrl-C ends the chat. SIGTERM, or closing the terminal, ends the chat immediately. A turn that
   was cut off in this way goes on if its question is asked again.
3. A line that begins with a slash is a command for the chat. A space before the slash makes it a
   question.
4. A different model or a different branch needs a new pool, in which the model is opened again.
"""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final, cast, final

import attrs
import trio

from agentpool import (
    AgentHandle,
    AgentManifest,
    AgentPoolError,
    AgentStatus,
    Session,
    SpawnConfig,
    UsageError,
    session_names,
    session_pool_name,
)
from agentpool._amounts import counted
from agentpool._cli._budget_file import BudgetFile
from agentpool._cli._command import ChatCommand
from agentpool._cli._interrupt import heeded_signals
from agentpool._cli._manifests import load_all, without_manifest
from agentpool._cli._override import Override
from agentpool._cli._pool import open_command_pool
from agentpool._cli._report import ExitCode, Report, error_lines
from agentpool._cli._screen import Screen
from agentpool._cli._terminal_approver import choose_approver
from agentpool.abc import AgentId, Event, Observer
from agentpool.drivers import ProviderGates
from agentpool.journal import InMemoryJournal, SessionBusyError, open_journal
from agentpool.live import Board
from agentpool.observe import TextDelta, ToolStarted
from agentpool.tools import printable

HELP: Final = (
    "/history      what was said so far",
    "/undo [N]     take the last turn back, or the last N",
    "/branch NAME  go on in another session with what was said; this one stays as it is",
    "/again        go on with a turn that was cut off",
    "/model NAME   let another model answer from now on, as --model does",
    "/sessions     the sessions of this file",
    "/quit         end the chat; so does the end of the input",
)

PROMPT: Final = "> "

SHOWN_CHARS: Final = 60
"""The most characters that are shown of a turn that was cut off."""

WHOLE: Final = frozenset({AgentStatus.COMPLETED, AgentStatus.STOPPED})
"""The ways in which a turn may end so that its text counts as an answer."""

TWICE: Final = "press it again to end the chat, or type /quit"


@final
@attrs.define(eq=False)
class _Stream(Observer):
    """The text of one agent on its way to standard output."""

    agent_id: AgentId | None = None
    """The id of the agent. ``None``: no agent."""
    written: str = ""
    """The text that has come since the last line of other output."""
    _pieces: deque[str | ToolStarted] = attrs.field(factory=deque[str | ToolStarted])
    _is_over: bool = False
    _news: trio.Event = attrs.field(factory=trio.Event)

    def on_event(self, event: Event) -> None:
        """Handle the agent's text and the names of the tools that it calls."""
        if isinstance(event, TextDelta | ToolStarted) and event.agent_id == self.agent_id:
            self._pieces.append(event.text if isinstance(event, TextDelta) else event)
            self._news.set()

    def begin(self, agent_id: AgentId) -> None:
        """Begin to print this agent's output."""
        self.agent_id, self.written, self._is_over = agent_id, "", False

    def end(self) -> None:
        """End ``write`` once everything is written."""
        self.agent_id, self._is_over = None, True
        self._news.set()

    async def write(self, screen: Screen) -> None:
        """Write the output until ``end``."""
        await trio.lowlevel.checkpoint()
        while self._pieces or not self._is_over:
            if not self._pieces:
                await self._news.wait()
                self._news = trio.Event()
                continue
            piece = self._pieces.popleft()
            if isinstance(piece, str):
                self.written += piece
                await screen.write_result(piece)
            else:
                await self.end_line(screen)
                await screen.write_lines([f"(calls {piece.call.name})"])

    async def end_line(self, screen: Screen) -> None:  # noqa: ASYNC910  # nothing may be there to write
        """Start a new line, unless the last one is empty."""
        if self.written and not self.written.endswith("\n"):
            await screen.write_result("\n")
        self.written = ""


@final
@attrs.define(eq=False)
class _Chat:
    """One chat, from its first prompt to its last."""

    command: ChatCommand
    override: Override
    """The settings that replace those of the manifest."""
    name: str
    """The session's name."""
    memory: InMemoryJournal | None
    """The journal of a session that is not stored. ``None``: the session is stored in a file."""
    screen: Screen = attrs.field(factory=lambda: Screen(sys.stdout, sys.stderr))
    code: ExitCode = ExitCode.COMPLETED
    """The exit code so far."""
    _board: Board = attrs.field(factory=lambda: Board(0))
    _stream: _Stream = attrs.field(factory=_Stream)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _turn: AgentHandle | None = None
    """The turn that is under way."""
    _at_prompt: bool = False
    _was_warned: bool = False
    """Whether Ctrl-C has been pressed once at this prompt."""
    _goes_on: bool = True
    _good: Override | None = None
    """The override that worked last. ``None``: no override has worked yet."""

    async def run(self) -> ExitCode:
        """Chat until the person or the input ends it. Return the exit code."""
        with trio.open_signal_receiver(*heeded_signals()) as signals:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, signals)
                    with self._scope:
                        await self._talk()
                    nursery.cancel_scope.cancel()
            except ExceptionGroup as group:
                raise _itself(group) from None
        return ExitCode.INTERRUPTED if self._scope.cancelled_caught else self.code

    async def _watch(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGINT and self._turn is not None:
                self._turn.cancel("Ctrl-C")
            elif number == signal.SIGINT and self._at_prompt and not self._was_warned:
                self._was_warned = True
                await self.screen.write_lines(["", TWICE])
            else:
                self._scope.cancel()

    async def _talk(self) -> None:  # noqa: ASYNC910  # there is one pool at least
        """Chat in one pool after another."""
        options = self.command.options
        spending, gates = BudgetFile(options), options.new_gates()
        while self._goes_on:
            try:
                await self._talk_in_pool(spending, gates)
            except AgentPoolError as error:
                # Whoever tries another model does not want to lose the chat by a slip.
                if self._good in {None, self.override}:
                    raise
                assert self._good is not None  # noqa: S101  # see above
                self.override = self._good
                await self.screen.write_lines(error_lines(error))

    async def _talk_in_pool(self, spending: BudgetFile, gates: ProviderGates | None) -> None:
        options = self.command.options
        manifest = _manifest_of(self.command, self.override)
        report = Report(self.screen, as_json=False, quiet=options.quiet, headings=False)
        desk = options.new_desk()
        async with open_command_pool(
            (manifest,),
            options,
            budget_file=spending,
            gates=gates,
            observers=(self._board, self._stream),
            warn=report.warn,
            lost=report.lose,
            approve=choose_approver(options.approve, self.screen, self._board, desk),
            desk=desk,
            say=self._say,
            kept_as=session_pool_name(self.name),
            journal=self.memory,
        ) as pool:
            self._good = self.override
            await self._talk_in(Session.of(pool), manifest, report)
        if report.is_lost:
            self.code = self.code or ExitCode.UNWRITTEN

    async def _talk_in(self, session: Session, manifest: AgentManifest, report: Report) -> None:
        """Take turns until the chat ends or needs another pool."""
        options, unfinished = self.command.options, session.unfinished
        await self._say(
            f"session {self.name}: {counted(len(session.turns), 'turn')}; /help says more"
        )
        if unfinished is not None:
            query = printable(unfinished.query)[:SHOWN_CHARS]
            await self._say(f"the last turn was cut off; /again goes on with it: {query}")
        while (line := await self._read()) is not None:
            if not line.strip():
                continue
            config = SpawnConfig(
                manifest,
                line.strip(),
                deadline_seconds=options.deadline_seconds,
                memory_scope=options.memory_scope,
            )
            if line.startswith("/"):
                word, _, rest = line.strip().partition(" ")
                if word == "/again" and session.unfinished is not None:
                    config = session.unfinished
                else:
                    if await self._obey(session, word, rest.strip()):
                        return
                    continue
            await self._take_turn(session, config, report)
        self._goes_on = False

    async def _read(self) -> str | None:
        """Return the next line. ``None``: the input has ended."""
        self._at_prompt, self._was_warned = True, False
        if sys.stdin.isatty():
            await self.screen.write_prompt(PROMPT)
        # Not cut off by anything but the end of the chat: a thread that reads is left behind.
        line = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        self._at_prompt = False
        return line or None

    async def _take_turn(self, session: Session, config: SpawnConfig, report: Report) -> None:
        stream, screen = self._stream, self.screen
        handle = self._turn = await session.begin(config)
        stream.begin(handle.agent_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, screen)
            outcome = await handle.wait()
            stream.end()
        self._turn = None
        if outcome.status in WHOLE:
            await session.flush()
        text = outcome.text.strip("\n")
        # What was known, or came at once, was not streamed.
        if outcome.status in WHOLE and stream.written.strip("\n") != text:
            await stream.end_line(screen)
            await screen.write_result(text)
            stream.written = text
        await stream.end_line(screen)
        notable = [line.text for line in self._board.take_lines() if line.notable]
        await screen.write_lines(notable)
        if outcome.status is AgentStatus.CANCELLED:
            await self._say("the turn was ended, and is not part of the conversation")
        elif outcome.status is not AgentStatus.COMPLETED:
            if outcome.status is AgentStatus.FAILED:
                self.code = ExitCode.FAILED
            error = outcome.error
            await self._say(f"{outcome.status.value}: {report.clean(str(error))}")

    async def _obey(self, session: Session, word: str, rest: str) -> bool:
        """Run a command that begins with a slash. Return whether this pool must close."""
        try:
            match word:
                case "/quit" | "/exit":
                    self._goes_on = False
                    return True  # noqa: ASYNC910  # the line before it was waited for
                case "/history":
                    await self._show(session)
                case "/undo":
                    turns = int(rest) if rest.isdecimal() else 0 if rest else 1
                    await session.go_back(turns)
                    await self._say(f"turns left: {len(session.turns)}")
                case "/branch":
                    await session.branch(rest)
                    self.name = rest
                    return True
                case "/model" if rest:
                    self.override = attrs.evolve(self.override, model=rest, driver=None)
                    return True  # noqa: ASYNC910  # as above
                case "/sessions":
                    await self.screen.write_lines(list(await self._sessions()))
                case "/again":
                    await self._say("no turn was cut off, so /again has nothing to go on with")
                case "/help":
                    await self.screen.write_lines(list(HELP))
                case _:
                    await self._say(f"there is no command {word}; see /help")
        except (UsageError, SessionBusyError) as error:
            await self._say(str(error))
        return False

    async def _show(self, session: Session) -> None:
        turns = session.turns
        text = "".join(f"> {turn.query}\n{turn.outcome.text.strip()}\n" for turn in turns)
        await self.screen.write_result(text or "nothing was said yet\n")

    async def _sessions(self) -> Sequence[str]:
        if self.memory is not None:
            return session_names([one.pool for one in await self.memory.pools()])
        assert self.command.options.journal is not None  # noqa: S101  # or it would be in memory
        async with open_journal(self.command.options.journal, read_only=True) as journal:
            return session_names([one.pool for one in await journal.pools()])

    async def _say(self, text: str) -> None:
        await self.screen.write_lines([] if self.command.options.quiet else [f"({text})"])


def chat(command: ChatCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        AgentPoolError: If the manifest is wrong, or the model or the journal cannot be opened.
    """
    memory = InMemoryJournal() if command.session is None else None
    name = command.session or "chat"
    return trio.run(_Chat(command, command.options.override, name, memory).run)


def _itself(error: Exception) -> Exception:
    """Return the single error inside the exception groups of trio's nurseries."""
    if not isinstance(error, ExceptionGroup):
        return error
    return _itself(cast("ExceptionGroup[Exception]", error).exceptions[0])


def _manifest_of(command: ChatCommand, override: Override) -> AgentManifest:
    if command.manifest is None:
        return without_manifest(override)
    (manifest,) = load_all([command.manifest], override)
    return manifest
