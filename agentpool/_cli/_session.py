"""Runs the agents of one command: from opening the models to the exit code.

Rules:

1. Results are printed in the order of the jobs, each result as soon as all earlier ones are
   printed. Jobs begin in the order of their turns, so that several sources take turns.
2. An input is read when its agent is about to be spawned, so a thousand files are not in memory at
   once. An input that cannot be read does not stop the others, and no job waits for an input that
   may never come.
3. An interruption ends the agents; their partial answers are still printed, marked as cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias, final

import attrs
import trio

from agentpool import (
    OWNER_ID,
    AgentHandle,
    AgentManifest,
    AgentPool,
    AgentStatus,
    SpawnConfig,
    UsageError,
    as_bystander,
)
from agentpool._cli._answers import AnswerFolder
from agentpool._cli._approve_later import Later, how_to_answer
from agentpool._cli._budget_file import BudgetFile
from agentpool._cli._command import Options
from agentpool._cli._interrupt import Interruption, interruptible
from agentpool._cli._job import Job
from agentpool._cli._pool import only_here, open_command_pool, open_options_journal
from agentpool._cli._progress import close_screen, open_screen, show
from agentpool._cli._report import ExitCode, Report
from agentpool._cli._result import Result
from agentpool._cli._stored_command import CommandKeeper
from agentpool._cli._terminal_approver import Prompter, choose_approver
from agentpool._cli._this_run import ThisRun
from agentpool.drivers import ProviderGates
from agentpool.journal import ResumeMismatchError
from agentpool.live import ApprovalDesk, Board
from agentpool.tools import Approver

# As many as trio has itself: more pipes than a person types.
_WAITING_THREADS: Final = 40


Spawned: TypeAlias = AgentHandle | UsageError
"""The agent of a job, or the error for an input that could not be read."""


@final
@attrs.define(eq=False)
class Session:
    """A pool, with everything else that a command needs."""

    pool: AgentPool
    """The pool in which its agents run."""
    _options: Options
    _report: Report
    _board: Board
    _interruption: Interruption
    _keeper: CommandKeeper
    _later: Later
    _this_run: ThisRun
    _feeding: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _answers: AnswerFolder | None = None
    _is_stopped: bool = attrs.field(init=False, default=False)
    _is_refused: bool = attrs.field(init=False, default=False)
    """Whether the journal belongs to a different command."""
    # Not trio's own: inputs that never come must leave threads for those that do.
    _for_waiting: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(_WAITING_THREADS)
    )

    def stop(self, reason: str) -> None:
        """End all agents, and start no new ones."""
        self._is_stopped = True
        self._feeding.cancel()
        self.pool.abort_all(reason)

    async def run_jobs(
        self, jobs: Sequence[Job], *, ordered: bool = True, answers: AnswerFolder | None = None
    ) -> list[Result]:
        """Run one agent per job. Return the results in the order of the jobs.

        Args:
            jobs: The jobs.
            ordered: Whether results are printed in the order of *jobs*, rather than in the order in
                which they come.
            answers: The folder for answers. ``None``: they are printed.
        """
        self._feeding = trio.CancelScope()
        self._answers = answers
        if self._is_stopped or self._interruption.reason is not None:
            self._feeding.cancel()
        return await (self._run_in_order(jobs) if ordered else self._run_as_they_come(jobs))

    async def _run_as_they_come(self, jobs: Sequence[Job]) -> list[Result]:
        results: dict[Job, Result] = {}

        async def finish(job: Job, spawned: Spawned) -> None:
            results[job] = await self._result(job, spawned)

        send, receive = trio.open_memory_channel[tuple[Job, Spawned]](len(jobs))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed, jobs, send)
            async for begun, spawned in receive:
                nursery.start_soon(finish, begun, spawned)
        for job in jobs:
            if job not in results:  # an interruption came first
                results[job] = await self._result(job, None)
        return [results[job] for job in jobs]

    async def _run_in_order(self, jobs: Sequence[Job]) -> list[Result]:
        results: list[Result] = []
        early: dict[Job, Spawned] = {}
        # There are never more than there are jobs, so none waits for room.
        send, receive = trio.open_memory_channel[tuple[Job, Spawned]](len(jobs))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed, jobs, send)
            async for begun, spawned in receive:
                early[begun] = spawned
                while len(results) < len(jobs) and (job := jobs[len(results)]) in early:
                    results.append(await self._result(job, early.pop(job)))
        for job in jobs[len(results) :]:  # an interruption came first
            result = await self._result(job, early.pop(job, None))
            results.append(result)
        return results

    async def _result(self, job: Job, spawned: Spawned | None) -> Result:
        """Wait for the result of *job* and print it. A refused job prints nothing."""
        if spawned is None and self._is_refused:
            await trio.lowlevel.checkpoint()
            return job.result()
        if isinstance(spawned, AgentHandle):
            outcome = await spawned.wait()
            waits = self._later.is_waiting and outcome.status is AgentStatus.CANCELLED
            result = attrs.evolve(
                job.result(spawned, is_waiting=waits),
                is_from_journal=self._this_run.is_from_journal(outcome),
            )
        else:
            result = job.result(
                error=spawned, is_waiting=self._later.is_waiting and spawned is None
            )
        if self._answers is None:
            await self._report.add(result)
        else:
            await self._report.add_to(self._answers, result, self.stop)
        return result

    async def _feed(
        self, jobs: Sequence[Job], send: trio.MemorySendChannel[tuple[Job, Spawned]]
    ) -> None:
        await trio.lowlevel.checkpoint()
        self._later.begin_feeding()
        with send, self._feeding:
            async with trio.open_nursery() as nursery:
                for job in sorted(jobs, key=lambda job: job.turn):
                    if job.may_wait:
                        # Otherwise it is a riddle why the command does not end.
                        self._board.say(f"{job.name} waits for its input")
                        nursery.start_soon(self._begin, job, self._for_waiting, send)
                    else:
                        await self._begin(job, None, send)
            self._later.end_feeding()

    async def _begin(
        self,
        job: Job,
        limiter: trio.CapacityLimiter | None,
        send: trio.MemorySendChannel[tuple[Job, Spawned]],
    ) -> None:
        """Read the input of *job* and spawn its agent."""
        try:
            query = await trio.to_thread.run_sync(job.read, abandon_on_cancel=True, limiter=limiter)
        except UsageError as error:
            self._board.unreadable(f"{job.name} cannot be read")
            await send.send((job, error))
            return
        config = SpawnConfig(
            job.manifest,
            query,
            name=job.name,
            attachments=job.attachments,
            output_type=job.output_type,
            deadline_seconds=self._options.deadline_seconds,
            memory_scope=self._options.memory_scope,
            key=job.key if job.begin is None else None,
        )
        try:
            handle = await (job.begin or self.pool.spawn)(config)
        except ResumeMismatchError:
            self._is_refused = True
            await self._report.refuse(
                UsageError(
                    f"{job.label}: journal {self._options.journal!r} already has an input with "
                    "this key, but with a different manifest or text; undo the change, or name "
                    "another --journal file"
                )
            )
            self.stop("the journal belongs to a different command")
            return
        except UsageError as error:  # such as an image for a model that reads none
            self._board.unreadable(f"{job.name} cannot be asked")
            await send.send((job, error))
            return
        # No checkpoint after the spawn: an interruption here would lose what it answers.
        send.send_nowait((job, handle))
        await self._keeper.keep()


async def conduct(
    manifests: Sequence[AgentManifest],
    options: Options,
    *,
    job_count: int,
    headings: bool,
    kept_as: str,
    looked_up: frozenset[str] | None = None,
    keys: bool = True,
    work: Callable[[Session], Awaitable[None]],
) -> ExitCode:
    """Open models and a pool, call *work*, and return the exit code.

    Args:
        manifests: The manifests of all agents that will run.
        options: How to run them.
        job_count: How many jobs there will be.
        headings: Whether each result has its label as a heading.
        kept_as: The pool's name in a journal.
        looked_up: Keys of answers whose values are looked up in the text. ``None``: answers are
            texts.
        keys: Whether keys at the terminal may end agents. Standard input must then have no other
            use.
        work: What to do in the pool.
    """
    opened_at = trio.current_time()
    spending, gates, this_run = BudgetFile(options), options.new_gates(), ThisRun()
    interruption, board, desk = Interruption(), Board(job_count), options.new_desk()
    screen, prompter = open_screen(options, keys=keys)
    report = Report(screen, options.json, options.quiet, headings, looked_up, interruption.call)
    async with interruptible(interruption, report.refuse) as nursery:
        nursery.start_soon(show, board, screen, interruption, options.quiet, prompter)
        await _run(
            manifests,
            options,
            spending,
            gates,
            board=board,
            this_run=this_run,
            report=report,
            interruption=interruption,
            approve=choose_approver(options.approve, screen, board, desk, prompter),
            prompter=prompter,
            desk=desk,
            kept_as=kept_as,
            work=work,
        )
    await close_screen(screen, prompter, board, options)
    return await report.end(
        interrupted=interruption.reason,
        seconds=trio.current_time() - opened_at,
        written_tokens=this_run.written_tokens,
        spent=report.spent if spending.budget is None else spending.budget.statistics(),
        gates=() if gates is None else gates.statistics(),
    )


async def _run(
    manifests: Sequence[AgentManifest],
    options: Options,
    spending: BudgetFile,
    gates: ProviderGates | None,
    *,
    board: Board,
    this_run: ThisRun,
    report: Report,
    interruption: Interruption,
    approve: Approver,
    prompter: Prompter | None,
    desk: ApprovalDesk | None,
    kept_as: str,
    work: Callable[[Session], Awaitable[None]],
) -> None:
    async with (
        open_options_journal(options.journal) as journal,
        only_here(journal, kept_as),
        open_command_pool(
            manifests,
            options,
            budget_file=spending,
            gates=gates,
            observers=(board, this_run),
            warn=report.warn,
            lost=report.lose,
            approve=approve,
            kept_as=kept_as,
            journal=journal,
            desk=desk,
            say=board.note,
            loading=board.load,
        ) as pool,
    ):
        keeper = CommandKeeper(journal, kept_as, options.words)
        await keeper.keep(is_first=True)
        later = Later()
        session = Session(pool, options, report, board, interruption, keeper, later, this_run)

        def stop(reason: str) -> None:
            line = f"{reason}: ending the agents; interrupt again to end the program at once"
            board.say(line, notable=True)
            session.stop(reason)

        interruption.stop_with(stop)
        async with trio.open_nursery() as nursery:
            with as_bystander():
                if prompter is not None:
                    nursery.start_soon(_heed, prompter, board, pool, interruption)
                if options.approve == "later":
                    nursery.start_soon(later.watch, pool, session.stop)
            await work(session)
            nursery.cancel_scope.cancel()
        report.spent, report.deadlocks = pool.statistics().budget, board.deadlocks
        if later.is_waiting and options.journal is not None:
            board.say(how_to_answer(options.journal), notable=True)


async def _heed(
    prompter: Prompter, board: Board, pool: AgentPool, interruption: Interruption
) -> None:
    """React to keys until the terminal is closed."""
    await trio.lowlevel.checkpoint()
    while prompter.keyboard is not None and (key := await prompter.keyboard.key()):
        if key == "a":
            prompter.answer()
        elif key == "c":
            agent_id = await prompter.choose_agent(board)
            if agent_id == OWNER_ID:
                interruption.call("ended at the terminal")
            elif agent_id is not None:
                pool[agent_id].cancel("cancelled at the terminal")
