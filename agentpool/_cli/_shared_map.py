"""``agentpool map … --workers N``: several processes share the inputs through one journal.

Rules:

1. This process asks no model. It adds the inputs to the journal, keeps the workers running, and
   prints the results in the journal: in order, each result once, whichever worker made it. So a
   second command with the same inputs in another terminal shares the work, and also prints all
   results.
2. Limits of the whole command are counted in the journal, for all workers together. The number of
   agents and the number of requests in a minute are divided among the workers.
3. If the text of an input has changed since an earlier run, the input is refused, as in a map of a
   single process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Final, final

import attrs
import msgspec
import trio

from agentpool import AgentManifest, AgentOutcome, AgentPoolError, AgentStatus, UsageError
from agentpool import journal as journals
from agentpool._cli._answers import AnswerFolder
from agentpool._cli._command import BUDGET_NAME, MapCommand, Options
from agentpool._cli._inputs import short_names
from agentpool._cli._interrupt import Interruption, interruptible
from agentpool._cli._job import Job
from agentpool._cli._progress import close_screen, open_screen, show
from agentpool._cli._reduce import editor_job
from agentpool._cli._report import ExitCode, Report
from agentpool._cli._result import Result
from agentpool._cli._stored_command import CommandKeeper
from agentpool._cli._worker_messages import End, Order, Stop, Task, share_of
from agentpool._cli._worker_processes import Crew
from agentpool.abc import StoredUse
from agentpool.journal import EndedItem, ItemState, SharedWork, SqliteJournal, WorkItem
from agentpool.live import Board
from agentpool.observe import BudgetMeter, BudgetStatistics, outcome_from_json

WORK: Final = "map"
"""The name of the work in the journal, and of the pool of a map without workers."""

POLL_SECONDS: Final = 0.25
"""Seconds between two reads of the journal, in which other processes may have written."""

_NOTHING: Final = (0, 0, 0, 0)
_PICO: Final = 10**12


async def share_map(
    command: MapCommand,
    manifests: Sequence[AgentManifest],
    jobs: Sequence[Job],
    answers: AnswerFolder | None,
    looked_up: frozenset[str] | None,
) -> ExitCode:
    """Let workers do *jobs*, print the results and return the exit code."""
    options, opened_at = command.options, trio.current_time()
    interruption, board = Interruption(), Board(len(jobs) + len(manifests) - 1)
    # Nothing is asked here, so nothing listens to keys.
    screen, prompter = open_screen(options, keys=False)
    report = Report(
        screen, options.json, options.quiet, True, looked_up, interruption.call  # noqa: FBT003  # as in conduct()
    )  # fmt: skip
    spent, written_tokens = None, 0
    async with interruptible(interruption, report.refuse) as nursery:
        nursery.start_soon(show, board, screen, interruption, options.quiet, prompter)
        assert options.journal is not None  # noqa: S101  # the parser wants one
        async with journals.open_journal(options.journal) as journal:
            shared = _SharedMap(command, journal, board, report, interruption, answers)
            spent = await shared.run(manifests, jobs)
            written_tokens = shared.written_tokens
    await close_screen(screen, prompter, board, options)
    return await report.end(
        interrupted=interruption.reason,
        seconds=trio.current_time() - opened_at,
        written_tokens=written_tokens,
        spent=spent,
    )


@final
@attrs.define(eq=False)
class _SharedMap:
    """One map that workers share, on the side of the command."""

    _command: MapCommand
    _journal: SqliteJournal
    _board: Board
    _report: Report
    _interruption: Interruption
    _answers: AnswerFolder | None
    _work: SharedWork = attrs.field(init=False)
    _digest: str = attrs.field(init=False)
    _is_stopped: bool = attrs.field(init=False, default=False)
    _reason: str = attrs.field(init=False, default="")
    _is_first_look: bool = attrs.field(init=False, default=True)
    _ended: dict[str, AgentOutcome | UsageError] = attrs.field(
        init=False, factory=dict[str, AgentOutcome | UsageError]
    )
    """The results of items, until they are printed."""
    _old: set[str] = attrs.field(init=False, factory=set[str])
    """The items whose results were there when this command began."""
    _whole_paths: frozenset[str] = attrs.field(init=False, default=frozenset[str]())
    """The inputs that are called by their paths."""
    written_tokens: int = attrs.field(init=False, default=0)
    """The tokens written since this command began."""

    async def run(
        self, manifests: Sequence[AgentManifest], jobs: Sequence[Job]
    ) -> BudgetStatistics | None:
        """Run the map, and return what was spent."""
        self._work = work = self._journal.shared_work(WORK)
        if any(one.pool == WORK and one.agents for one in await self._journal.pools()):
            raise UsageError(
                f"journal {self._options.journal!r} has a map that one process runs; leave out "
                "--workers, or name another --journal file"
            )
        self._digest = _digest_of(manifests, self._command)
        folder = os.getcwd()  # noqa: PTH109  # beside paths that are not taken apart
        # The command has chosen the names: see short_names().
        paths = [job.source for job in jobs if job.source]
        names = zip(paths, short_names(paths), strict=True)
        self._whole_paths = frozenset(path for path, name in names if path == name)
        tasks = [(job, Task(path=job.source or "", folder=folder)) for job in jobs]
        await self._add([WorkItem(job.key, _text(task)) for job, task in tasks])
        await CommandKeeper(self._journal, WORK, self._options.words).keep()
        async with trio.open_nursery() as nursery:
            crew = Crew(
                self._command.workers or 1, self._new_order, work, self._board, self._report,
                nursery, self._stop,
            )  # fmt: skip

            def stop(reason: str) -> None:
                line = f"{reason}: ending the agents; interrupt again to end the program at once"
                self._board.say(line, notable=True)
                self._stop(reason)
                crew.changed.set()

            self._interruption.stop_with(stop)
            nursery.start_soon(crew.free_file)
            try:
                results = await self._gather(crew, jobs)
                for editor in manifests[1:]:
                    await self._reduce(
                        crew, editor_job(editor, results, self._command.reduce_prompt)
                    )
                await crew.tell_all(End())
            except AgentPoolError as error:
                await self._report.refuse(error)
            finally:
                self._say(crew.take_lines())
                nursery.cancel_scope.cancel()
        self._report.deadlocks = sum(view.deadlocks for view in crew.views())
        return await self._spent(crew)

    @property
    def _options(self) -> Options:
        return self._command.options

    def _say(self, lines: Sequence[tuple[str, bool]]) -> None:
        """Show what workers said. What they had done before is counted."""
        for text, notable in lines:
            self._board.say(text, notable=notable)

    def _stop(self, reason: str) -> None:
        self._is_stopped, self._reason = True, reason

    def _new_order(self, number: int, share: str) -> Order:
        options, size = self._options, self._command.workers or 1
        rpm, tpm = options.requests_per_minute, options.tokens_per_minute
        assert options.journal is not None  # noqa: S101  # see share_map
        return Order(
            options.words, options.journal, WORK, share,
            share_of(options.max_concurrent, size, number), self._command.lease_seconds,
            None if rpm is None else share_of(rpm, size, number),
            None if tpm is None else share_of(tpm, size, number), self._whole_paths,
        )  # fmt: skip

    async def _add(self, items: Sequence[WorkItem]) -> None:
        try:
            await self._work.add(self._digest, items)
        except UsageError as error:
            raise UsageError(f"journal {self._options.journal!r}: {error}") from error

    async def _reduce(self, crew: Crew, job: Job) -> None:
        await trio.lowlevel.checkpoint()
        if not self._is_stopped:
            try:
                await self._add([WorkItem(job.key, _text(Task(query=job.read())))])
            except UsageError as error:  # there is no answer
                self._ended[job.key] = error
        await self._gather(crew, [job])

    async def _gather(self, crew: Crew, jobs: Sequence[Job]) -> list[Result]:
        """Wait for the results of *jobs*, which must not be empty, and print them in order."""
        results: dict[str, Result] = {}
        by_key = {job.key: job for job in jobs}
        pending = [job.key for job in jobs]
        while True:
            crew.changed = trio.Event()
            said = crew.take_lines()
            undone = await self._look(by_key, results)
            self._say(said)
            is_cut = self._is_stopped and not crew.members
            for key in (
                list(pending)
                if self._command.ordered
                else sorted(pending, key=lambda key: key not in self._ended)
            ):
                if key not in self._ended and not is_cut:
                    break
                pending.remove(key)
                results[key] = await self._finish(by_key[key], self._ended.pop(key, None), crew)
            if not pending:
                return [results[job.key] for job in jobs]
            if self._is_stopped:
                await crew.tell_all(Stop(self._reason))
                continue
            await crew.staff(undone)
            with trio.move_on_after(POLL_SECONDS):
                await crew.changed.wait()

    async def _look(self, by_key: dict[str, Job], results: dict[str, Result]) -> list[ItemState]:
        """Find out which items have ended, and return the others."""
        is_old, self._is_first_look = self._is_first_look, False
        for one in await self._work.take_ended():
            if is_old:
                self._old.add(one.key)
            if is_old and one.key in by_key:
                self._ended[one.key] = await _checked(by_key[one.key], one, self._options.journal)
            else:
                self._ended[one.key] = outcome_from_json(one.outcome)
            if one.key in by_key:
                self._count(one.key)
        undone = list[ItemState]()
        for state in await self._work.states():
            is_done = state.key in self._ended or state.key in results
            if state.fault and not is_done:
                self._ended[state.key] = UsageError(state.fault)
                self._count(state.key)
            elif not is_done and state.key in by_key:
                undone.append(state)
        return undone

    def _count(self, key: str) -> None:
        ended = self._ended[key]
        if isinstance(ended, UsageError):
            self._board.count(AgentStatus.FAILED)
        else:
            self._board.count(ended.status, ended.usage.output_tokens)

    async def _finish(
        self, job: Job, ended: AgentOutcome | UsageError | None, crew: Crew
    ) -> Result:
        """Print the result of *job*."""
        ended = ended or crew.cut.get(job.key)
        result = job.result()
        if isinstance(ended, UsageError):
            result = job.result(error=ended)
        elif ended is not None:
            is_old = job.key in self._old
            is_answer = ended.status is AgentStatus.COMPLETED
            result = attrs.evolve(result, outcome=ended, is_from_journal=is_old and is_answer)
            self.written_tokens += 0 if is_old else ended.usage.output_tokens
        if self._answers is None or job.source is None:
            await self._report.add(result)
        else:
            await self._report.add_to(self._answers, result, self._stop)
        return result

    async def _spent(self, crew: Crew) -> BudgetStatistics | None:
        per = self._options.per or "ever"
        if self._options.new_budget(self._journal, is_shared=True) is None:
            await trio.lowlevel.checkpoint()
            return None
        none = (None, None, None, None)
        use = await self._journal.spend(BUDGET_NAME, per, none, _NOTHING, ())
        return _statistics(use, self._options, crew)


def _statistics(use: StoredUse, options: Options, crew: Crew) -> BudgetStatistics:
    tokens, picodollars, requests, tool_calls = use.used
    views = crew.views()

    def meter(committed: float, limit: float | None) -> BudgetMeter:
        return BudgetMeter(limit=limit, committed=committed, reserved=0)

    return BudgetStatistics(
        name=BUDGET_NAME,
        tokens=meter(tokens, options.max_total_tokens),
        cost=meter(picodollars / _PICO, options.max_cost_usd),
        requests=meter(requests, options.max_requests),
        tool_calls=meter(tool_calls, None),
        unmeasured=sum(view.unmeasured for view in views),
        unpriced=sum(view.unpriced for view in views),
        refused=sum(view.refused for view in views),
    )


async def _checked(job: Job, ended: EndedItem, file: str | None) -> AgentOutcome | UsageError:
    """Return the outcome of an earlier run, if its question has not changed.

    Raises:
        UsageError: If the question has changed.
    """
    try:
        query = await trio.to_thread.run_sync(job.read, abandon_on_cancel=True)
    except UsageError as error:
        return error  # noqa: ASYNC910  # it was waited for
    if hashlib.sha256(query.encode()).hexdigest() != ended.asked:
        raise UsageError(
            f"{job.label}: journal {file!r} already has an input with this key, but with a "
            "different manifest or text; undo the change, or name another --journal file"
        )
    return outcome_from_json(ended.outcome)


def _text(task: Task) -> str:
    """Return *task* as the text of an item.

    Raises:
        UsageError: If the name of its file is not valid text.
    """
    try:
        return msgspec.json.encode(task).decode()
    except UnicodeEncodeError:
        raise UsageError(
            f"workers cannot share {task.path!r}, whose name is not UTF-8; rename it"
        ) from None


def _digest_of(manifests: Sequence[AgentManifest], command: MapCommand) -> str:
    """Return a short hash of all settings that the inputs share."""
    words = (manifests, command.prompt, command.reduce_prompt, command.options.schema)
    data = msgspec.json.encode(words, order="deterministic")
    return hashlib.sha256(data).hexdigest()[:32]
