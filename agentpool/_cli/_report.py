"""Prints results to standard output and everything else to standard error; sets the exit code."""

from __future__ import annotations

import enum
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast, final

import attrs
import msgspec
import trio

from agentpool import (
    AgentCancelledError,
    AgentStatus,
    DriverError,
    ManifestError,
    Usage,
    UsageError,
    UserMessage,
)
from agentpool._amounts import counted
from agentpool._cli._answers import AnswerFolder
from agentpool._cli._budget_words import budget_words, gate_words, named_by_option
from agentpool._cli._hidden_keys import hide_keys
from agentpool._cli._inputs import file_beside, short_names
from agentpool._cli._override import named_by_variable
from agentpool._cli._result import WAITING, Result
from agentpool._cli._screen import Screen, drop_output
from agentpool._cli._table import Answer, Row, lines_of, missing_in
from agentpool._install import as_installed
from agentpool.drivers import NO_USAGE, GateStatistics, Json
from agentpool.observe import BudgetStatistics, RecordedError
from agentpool.tools import printable

MESSAGE_CHARACTERS: Final = 1000
"""The most characters of an error, since a provider's answer may be a whole page."""


NAMED_ALIKE: Final = 10
"""The most agents that are named in a line of those that were stopped for the same reason."""


class ExitCode(enum.IntEnum):
    """The meaning of the exit code."""

    COMPLETED = 0
    """Every agent completed."""
    FAILED = 1
    """An agent failed or was cancelled, or an input could not be read."""
    WRONG = 2
    """The command or a manifest is wrong, or a model could not be opened."""
    STOPPED = 3
    """No agent failed, but a guard, a budget or a deadline stopped one."""
    WAITING = 4
    """All agents that are left wait for approvals. The journal stores their questions."""
    UNWRITTEN = 5
    """The results, a trace or a report could not be written."""
    INTERRUPTED = 130
    """The command was interrupted."""


@final
@attrs.define(eq=False)
class Report:
    """Prints results as they arrive."""

    screen: Screen
    as_json: bool
    quiet: bool
    headings: bool
    """Whether each result has a heading. A single result has none."""
    looked_up: frozenset[str] | None = None
    """If answers are rows of a table, the keys whose values are looked up in the input. ``None``:
    answers are texts."""
    when_unread: Callable[[str], None] = lambda _: None
    """Called once when standard output is no longer read."""
    waiting: int = attrs.field(init=False, default=0)
    """Agents that wait for approvals that are given later."""
    deadlocks: int = attrs.field(init=False, default=0)
    """How often an agent got a deadlock error."""
    is_lost: bool = attrs.field(init=False, default=False)
    """Whether a requested trace or report is missing, or not complete."""
    spent: BudgetStatistics | None = attrs.field(init=False, default=None)
    """What was spent from the budgets that outlive the command. ``None``: there are none."""
    _ended: Counter[AgentStatus] = attrs.field(init=False, factory=Counter[AgentStatus])
    _from_journal: int = attrs.field(init=False, default=0)
    """Answers of earlier runs."""
    _stopped: dict[str, list[str]] = attrs.field(init=False, factory=dict[str, list[str]])
    """Who was stopped, by the reason. The first of each has its line."""
    _usage: Usage = attrs.field(init=False, default=NO_USAGE)
    _cost_usd: float | None = attrs.field(init=False, default=0.0)
    _rows: list[Row] = attrs.field(init=False, factory=list[Row])
    _wrong: bool = attrs.field(init=False, default=False)
    _unread: ExitCode | None = attrs.field(init=False, default=None)
    """The exit code if standard output can no longer be written. ``None``: it can be written."""

    # --- as it comes

    async def add(self, result: Result, *, printed: bool = True) -> None:
        """Count *result* and print it, with its error if it has one.

        Args:
            result: The result.
            printed: Whether its text goes to standard output.
        """
        await trio.lowlevel.checkpoint()
        if result.is_waiting:
            self.waiting += 1
        else:
            self._ended[result.status] += 1
        self._from_journal += result.is_from_journal
        if result.outcome is not None:
            self._usage += result.outcome.usage
            cost = result.outcome.cost_usd
            known = self._cost_usd is not None and cost is not None
            self._cost_usd = (self._cost_usd or 0.0) + (cost or 0.0) if known else None
        if printed and self.as_json:
            await self._print(self._line(self._object(result)))
        elif printed and result.is_typed and self.looked_up is not None:
            self._rows.append(self._row(result, self.looked_up))
            await self._print(f"{printable(result.label)}: {result.text or result.status.value}\n")
        elif printed and (self.headings or result.text):
            await self._print(self._page(result))
        fault = result.fault
        if fault is not None and not isinstance(fault, AgentCancelledError):
            await self._tell(result, fault)
        if result.outcome is not None and (count := result.outcome.messages_left_out):
            about = f"{self.clean(result.label)}: " if self.headings else ""
            await self.warn(f"{about}{left_out(count)}")

    async def add_to(
        self, answers: AnswerFolder, result: Result, stop: Callable[[str], object]
    ) -> None:
        """Write the answer of *result* into its file, and count it.

        Args:
            answers: The folder with the files.
            result: The result.
            stop: Called with the reason if the file cannot be written.
        """
        try:
            await answers.write(result)
        except UsageError as error:
            await self.refuse(error)
            stop("an answer cannot be written")
        await self.add(result, printed=False)

    async def _tell(self, result: Result, fault: Exception) -> None:
        await trio.lowlevel.checkpoint()
        text = self.clean(
            _told(fault) if result.outcome is not None else f"{fault}{file_beside(fault)}"
        )
        about = f"{result.label}: " if self.headings and result.outcome is not None else ""
        if result.status is AgentStatus.FAILED:
            await self.screen.write_lines([f"agentpool: error: {about}{text}"])
            return
        alike = self._stopped.setdefault(text, [])
        alike.append(self.clean(result.label))
        if len(alike) == 1:
            await self.screen.write_lines([f"agentpool: {about}stopped: {text}"])

    def _alike_lines(self) -> list[str]:
        """Say who was stopped for the same reason as another one, which has its line."""
        lines: list[str] = []
        for first, *others in self._stopped.values():
            rest = len(others) - NAMED_ALIKE
            more = [f"{rest:,} more"] if rest > 0 else []
            names = ", ".join([*others[:NAMED_ALIKE], *more])
            if others:
                lines.append(f"agentpool: stopped for the same reason as {first}: {names}")
        return lines

    async def refuse(self, error: Exception) -> None:
        """Print why the command cannot start or continue."""
        self._wrong = True
        await self.screen.write_lines(error_lines(error, self.clean))

    async def warn(self, text: str) -> None:
        """Print a warning."""
        lines = [] if self.quiet else [f"agentpool: warning: {self.clean(text)}"]
        await self.screen.write_lines(lines)

    async def lose(self, text: str) -> None:
        """Print that a requested trace or report is missing. Results are not affected."""
        self.is_lost = True
        await self.screen.write_lines([f"agentpool: error: {self.clean(text)}"])

    # --- at the end

    async def end(
        self,
        *,
        interrupted: str | None,
        seconds: float,
        written_tokens: int = 0,
        spent: BudgetStatistics | None = None,
        gates: Sequence[GateStatistics] = (),
    ) -> ExitCode:
        """Print the summary and return the exit code.

        Args:
            interrupted: Why the command ended early. ``None``: it ended normally.
            seconds: How long it took.
            written_tokens: The tokens that models wrote in this time.
            spent: What was spent from the budget of all agents. ``None``: nothing was limited.
            gates: The gates at which requests waited.
        """
        await trio.lowlevel.checkpoint()
        code = self._exit_code(interrupted)
        counts = {status.value: self._ended[status] for status in _ENDS}
        counts[WAITING] = self.waiting
        if self.as_json:
            summary: dict[str, Json] = {
                "type": "summary",
                **counts,
                "from_journal": self._from_journal,
                "interrupted": interrupted is not None,
                "usage": _usage(self._usage),
                "cost_usd": self._cost_usd,
                "budget": None if spent is None else msgspec.to_builtins(spent),
                "deadlocks": self.deadlocks,
                "gates": [msgspec.to_builtins(gate) for gate in gates],
                "seconds": round(seconds, 3),
                "exit_code": int(code),
            }
            await self._print(self._line(summary))
        if any(row.answer is not None for row in self._rows):
            table = lines_of(self._rows, names=short_names([row.label for row in self._rows]))
            await self._print("".join(f"{line}\n" for line in ("", *table)))
        await self.screen.write_lines(self._alike_lines())
        if not self.quiet and (interrupted is not None or any(counts.values())):
            line = self._summary(counts, interrupted, seconds, written_tokens)
            budget = [] if spent is None else [f"agentpool: {budget_words(spent)}"]
            held_back = [f"agentpool: {gate_words(gate)}" for gate in gates]
            await self.screen.write_lines([line, *budget, *held_back])
        # The last line may be the one that is not read.
        return self._unread or code

    def _summary(
        self, counts: Mapping[str, int], interrupted: str | None, seconds: float, tokens: int
    ) -> str:
        """Return the line with what became of all agents."""
        words = [f"{count} {status}" for status, count in counts.items() if count]
        if self._from_journal:  # they are of the first status
            words[0] += f" ({self._from_journal} from the journal)"
        told = f"{self.deadlocks} deadlocks were" if self.deadlocks > 1 else "1 deadlock was"
        end = f"; {told} told" if self.deadlocks else ""
        end += f"; interrupted: {interrupted}" if interrupted is not None else ""
        rate = tokens / seconds if seconds > 0 else 0.0
        return (
            f"agentpool: {', '.join(words) or 'nothing done'} in {seconds:.1f} s, "
            f"{counted(tokens, 'token')} written ({rate:.0f} per second){end}"
        )

    def _exit_code(self, interrupted: str | None) -> ExitCode:
        if self._unread is not None:
            return self._unread
        ended = self._ended
        # The first that applies.
        codes = (
            (interrupted is not None, ExitCode.INTERRUPTED),
            (self._wrong, ExitCode.WRONG),
            (ended[AgentStatus.FAILED] or ended[AgentStatus.CANCELLED], ExitCode.FAILED),
            (ended[AgentStatus.STOPPED], ExitCode.STOPPED),
            (self.waiting, ExitCode.WAITING),
            (self.is_lost, ExitCode.UNWRITTEN),
        )
        return next((code for applies, code in codes if applies), ExitCode.COMPLETED)

    # --- how it is written

    async def _print(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        if self._unread is not None:
            return
        try:
            await self.screen.write_result(text)
        except BrokenPipeError:
            self._unread = ExitCode.INTERRUPTED
            drop_output()
            self.when_unread("the output is no longer read")
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._unread = ExitCode.UNWRITTEN
            drop_output()
            line = f"agentpool: error: cannot write the results: {error}"
            await self.screen.write_lines([line])
            self.when_unread("the output cannot be written")

    def _page(self, result: Result) -> str:
        text = result.text.strip("\n")
        body = f"{text}\n" if text else ""
        if not self.headings:
            return body
        ended = "" if result.status is AgentStatus.COMPLETED else f" ({result.word})"
        return (
            f"## {printable(result.label)}{ended}\n\n{body}\n"
            if body
            else (f"## {printable(result.label)}{ended}\n\n")
        )

    def _row(self, result: Result, looked_up: frozenset[str]) -> Row:
        outcome = result.outcome
        if outcome is None or outcome.value is None:
            return Row(result.label, None, note=result.status.value)
        answer = cast("Answer", msgspec.to_builtins(outcome.value))
        question = outcome.messages[0]
        text = question.text if isinstance(question, UserMessage) else ""
        return Row(result.label, answer, missing=missing_in(text, answer) & looked_up)

    def _object(self, result: Result) -> dict[str, Json]:
        outcome, fault = result.outcome, result.fault
        seconds, reason, usage = None, None, None
        if outcome is not None:
            usage = _usage(outcome.usage)
            reason = outcome.stop_reason.value if outcome.stop_reason is not None else None
            if outcome.started_at is not None:
                seconds = round(outcome.finished_at - outcome.started_at, 3)
        error: Json = None
        if fault is not None:
            error = {"type": _kind(fault), "message": self.clean(str(fault))}
        return {
            "type": "outcome",
            "agent_id": outcome.agent_id if outcome is not None else None,
            "name": result.name,
            "input": result.source,
            "status": result.word,
            "text": result.said,
            "value": None if outcome is None else msgspec.to_builtins(outcome.value),
            "stop_reason": reason,
            "error": error,
            "iterations": outcome.iterations if outcome is not None else 0,
            "tool_calls": outcome.tool_calls if outcome is not None else 0,
            "messages_left_out": outcome.messages_left_out if outcome is not None else 0,
            "usage": usage,
            "cost_usd": outcome.cost_usd if outcome is not None else None,
            "seconds": seconds,
        }

    def _line(self, value: Json) -> str:
        # ASCII, so that a line can be written whatever the terminal's encoding is.
        return json.dumps(value) + "\n"

    def clean(self, text: str) -> str:
        """Return *text* on one line, shortened, without keys."""
        text = printable(hide_keys(text))
        return text if len(text) <= MESSAGE_CHARACTERS else text[:MESSAGE_CHARACTERS] + " …"


def left_out(messages: int) -> str:
    """Return a note that *messages* messages did not fit the model's window."""
    return f"{counted(messages, 'message')} of the conversation had no room in the model's window"


_ENDS: Final = (
    AgentStatus.COMPLETED,
    AgentStatus.STOPPED,
    AgentStatus.FAILED,
    AgentStatus.CANCELLED,
)


def error_lines(error: Exception, clean: Callable[[str], str] = printable) -> list[str]:
    """Return an error as lines, one per fault."""
    if isinstance(error, ManifestError):
        where = f"{error.source}: " if error.source else ""
        return [f"agentpool: error: {clean(f'{where}{fault}')}" for fault in error.faults]
    return [f"agentpool: error: {clean(as_installed(str(error)) + file_beside(error))}"]


def _told(error: Exception) -> str:
    """Return the type and text of an error, since the text alone may say nothing."""
    attempts = error.attempts if isinstance(error, DriverError) else 1
    text = f"{_kind(error)}: {error}" + (f" (asked {attempts} times)" if attempts > 1 else "")
    if _kind(error) == "NetworkError":
        return named_by_variable(text, os.environ)
    return named_by_option(text)


def _kind(error: Exception) -> str:
    """Return the name of an error's type, even if the error was read from a journal."""
    return error.kind if isinstance(error, RecordedError) else type(error).__name__


def _usage(usage: Usage) -> dict[str, Json]:
    return msgspec.structs.asdict(usage)
