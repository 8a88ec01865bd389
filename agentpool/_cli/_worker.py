"""One worker of ``agentpool map … --workers N``: a process that does part of the work.

Rules:

1. A worker ends when the command ends, however the command ends: the worker's input is a pipe whose
   other end only the command holds. If a worker is stopped (as by Ctrl-Z) at that time, the system
   continues the worker and ends it, since no process is left that could continue its process group.
2. A worker claims no more inputs than it has room for, and first continues the unfinished inputs of
   its share.
3. A worker writes outcomes only into the journal, under the fence of its share. If another worker
   has taken over the share, it stores nothing more, reports this to the command, and ends.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, cast, final

import attrs
import msgspec
import trio

from agentpool import (
    AgentManifest,
    AgentPool,
    AgentPoolError,
    AgentStatus,
    Budget,
    SpawnConfig,
    UsageError,
    as_bystander,
)
from agentpool import journal as journals
from agentpool._cli._arguments import parse
from agentpool._cli._board_log import BoardLog
from agentpool._cli._budget_file import BudgetFile
from agentpool._cli._command import MapCommand, Options
from agentpool._cli._inputs import joined, read_text
from agentpool._cli._interrupt import Interruption
from agentpool._cli._manifests import load_all
from agentpool._cli._pool import open_command_pool
from agentpool._cli._schema import load_schema
from agentpool._cli._screen import Screen
from agentpool._cli._terminal_approver import choose_approver
from agentpool._cli._worker_messages import (
    Broke,
    Cut,
    End,
    Ended,
    LineReader,
    Mouth,
    Order,
    Ready,
    Seen,
    Task,
    ToWorker,
    Warned,
)
from agentpool.abc import Journal
from agentpool.journal import (
    JournalRecord,
    Lease,
    LeaseLostError,
    ResumeMismatchError,
    RunBusyError,
    SharedWork,
    WorkItem,
)
from agentpool.live import Board
from agentpool.observe import outcome_to_json

VIEWS_PER_SECOND: Final = 4
"""How often per second a worker reports what it does."""

IDLE_SECONDS: Final = 0.25
"""Seconds between two searches for more work, since another worker may have ended meanwhile."""

END_SECONDS: Final = 5.0
"""Seconds for ending in good order once the command has ended. The journal has everything that
matters."""


@final
@attrs.define(eq=False)
class _ShareJournal(Journal):
    """A journal whose leases have the length that the command demands."""

    _journal: Journal
    _seconds: float
    lease: Lease | None = None
    """The lease of the share. ``None``: the share has not been claimed yet."""

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:  # noqa: ARG002  # see above
        """Claim *pool* for as long as the command demands."""
        self.lease = await self._journal.claim(pool, lease_seconds=self._seconds)
        return self.lease

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Store *records*."""
        await self._journal.append(lease, records)

    def append_at_once(self, lease: Lease, records: Sequence[JournalRecord]) -> bool:
        """Store *records* if that needs no waiting."""
        return self._journal.append_at_once(lease, records)

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return the records of *pool*."""
        return await self._journal.read(pool)

    async def release(self, lease: Lease) -> None:
        """Give up the right to write."""
        await self._journal.release(lease)


@final
@attrs.define(eq=False)
class Worker:
    """A share of the work, and the pool that does it."""

    order: Order
    """The command's order."""
    mouth: Mouth
    """Sends messages to the command."""
    board: Board = attrs.field(factory=lambda: Board(0))
    """Receives the events."""
    interruption: Interruption = attrs.field(factory=Interruption)
    """Whether the command wants the worker to end."""
    budget: Budget | None = None
    """The budget that all workers share. ``None``: nothing is limited."""
    is_ending: bool = False
    """Whether nothing is left to claim."""
    changed: trio.Event = attrs.field(factory=trio.Event)
    """Set when there may be new work."""
    running: int = 0
    """The number of items in progress."""

    async def listen(self, lines: LineReader) -> None:
        """Follow the command's messages, and end when it ends."""
        while (line := await lines.next_line()) is not None:
            told: ToWorker = msgspec.json.decode(line, type=ToWorker)
            match told:
                case End():
                    self.is_ending = True
                    self.changed.set()
                case _:
                    self.interruption.call(told.reason)
        self.interruption.call("the command has ended")
        await trio.sleep(END_SECONDS)
        os._exit(1)

    async def show(self) -> None:
        """Report the state of the agents a few times per second."""
        last: Seen | None = None
        while True:
            seen = self.look()
            if seen != last:
                await self.mouth.say(seen)
                last = msgspec.structs.replace(seen, lines=[])
            await trio.sleep(1 / VIEWS_PER_SECOND)

    def look(self) -> Seen:
        """Return what happened since the last call."""
        lines = [(line.text.partition("] ")[2], line.notable) for line in self.board.take_lines()]
        seen = Seen(self.board.look(), lines, not self.running, deadlocks=self.board.deadlocks)
        if self.budget is None:
            return seen
        spent = self.budget.statistics()
        return msgspec.structs.replace(
            seen, unmeasured=spent.unmeasured, unpriced=spent.unpriced, refused=spent.refused
        )

    async def run(self) -> bool:
        """Do the work. Return whether all went well."""
        try:
            with self.interruption.scope:
                await self._open()
        except Exception as error:
            broke = _broke(error)
            if broke is None:
                raise
            await self.mouth.say(broke)
            return False
        finally:
            await self.mouth.say(self.look())  # noqa: ASYNC102  # if the worker is ended, nothing need be said
        return True

    async def _open(self) -> None:
        command = parse(self.order.words)
        assert isinstance(command, MapCommand)  # noqa: S101  # the command has read it as well
        options = attrs.evolve(
            command.options,
            max_concurrent=self.order.max_concurrent,
            requests_per_minute=self.order.requests_per_minute,
            tokens_per_minute=self.order.tokens_per_minute,
            journal=None,
        )
        paths = [command.manifest] + ([command.reduce] if command.reduce is not None else [])
        manifests = load_all(paths, options.override)
        screen = Screen(sys.stderr, sys.stderr, None)
        async with journals.open_journal(self.order.journal) as journal:
            kept = _ShareJournal(journal, self.order.lease_seconds)
            spending = BudgetFile(options, journal, is_shared=True)
            self.budget = spending.budget
            async with open_command_pool(
                manifests,
                options,
                budget_file=spending,
                gates=options.new_gates(),
                observers=(self.board,),
                warn=self._warn,
                approve=choose_approver(options.approve, screen, self.board),
                kept_as=self.order.share,
                journal=kept,
                say=self.board.note,
            ) as pool:
                assert kept.lease is not None  # noqa: S101  # the pool has claimed it
                await self.mouth.say(Ready())
                work = journal.shared_work(self.order.work)
                ended = {one.key for one in await work.take_ended()}
                mine = [one for one in await work.items_of(kept.lease.pool) if one.key not in ended]
                share = _Share(self, command, options, manifests, pool, work, kept.lease)
                self.interruption.stop_with(share.stop)
                await share.do_all(mine)

    async def _warn(self, text: str) -> None:
        await self.mouth.say(Warned(text))


@final
@attrs.define(eq=False)
class _Share:
    """Runs an agent for each item of a worker."""

    _worker: Worker
    _command: MapCommand
    _options: Options
    _manifests: Sequence[AgentManifest]
    _pool: AgentPool
    _work: SharedWork
    _lease: Lease
    _is_stopped: bool = False

    def stop(self, reason: str) -> None:
        """End all agents, and claim no more items."""
        self._is_stopped = True
        self._worker.changed.set()
        self._pool.abort_all(reason)

    async def do_all(self, mine: Sequence[WorkItem]) -> None:
        """Do the items *mine* and all that can be claimed, until no work is left."""
        worker, waiting = self._worker, deque(mine)
        schema = self._options.schema
        output_type = None if schema is None else load_schema(schema)
        async with trio.open_nursery() as nursery:
            while not self._is_over:
                # This task waits for nothing but a bystander: an agent that waits for what
                # it could send is told that nothing will come.
                async with trio.open_nursery() as looking:
                    with as_bystander():
                        looking.start_soon(self._look_for_more, waiting)
                for _ in range(min(self._room, len(waiting))):
                    worker.running += 1
                    nursery.start_soon(self._do, waiting.popleft(), output_type)

    @property
    def _room(self) -> int:
        return self._options.max_concurrent - self._worker.running

    @property
    def _is_over(self) -> bool:
        worker = self._worker
        is_cut = self._is_stopped or worker.interruption.reason is not None
        return is_cut or (worker.is_ending and not worker.running)

    async def _look_for_more(self, waiting: deque[WorkItem]) -> None:
        """Return when one of the items in *waiting* can be done, or when no work is left."""
        worker = self._worker
        await trio.lowlevel.checkpoint()
        while not self._is_over:
            if self._room and not waiting and not worker.is_ending:
                waiting += await self._work.claim(self._lease, self._room)
            if self._room and waiting:
                return
            with trio.move_on_after(IDLE_SECONDS):
                await worker.changed.wait()
            worker.changed = trio.Event()

    async def _do(self, item: WorkItem, output_type: type | None) -> None:
        worker = self._worker
        try:
            cut = await self._ask(item, output_type)
            await worker.mouth.say(worker.look())  # before others have ended
            await worker.mouth.say(cut or Ended())
        finally:
            worker.running -= 1
            worker.changed.set()

    async def _ask(self, item: WorkItem, output_type: type | None) -> Cut | None:
        """Ask an agent, and return its partial result if it was interrupted."""
        task = msgspec.json.decode(item.text or "", type=Task)
        is_editor = not task.path
        manifest = self._manifests[-1 if is_editor else 0]
        try:
            query = (
                task.query
                if is_editor
                else await trio.to_thread.run_sync(
                    _read, task, self._command.prompt, abandon_on_cancel=True
                )
            )
            handle = await self._pool.spawn(
                SpawnConfig(
                    manifest,
                    query,
                    name=self._worker.order.name_of(manifest.name, task.path),
                    output_type=None if is_editor else output_type,
                    deadline_seconds=self._options.deadline_seconds,
                    memory_scope=self._options.memory_scope,
                    key=item.key,
                )
            )
        except ResumeMismatchError:
            raise UsageError(
                f"{item.key}: journal {self.order_journal!r} already has an input with this key, "
                "but with a different manifest or text; undo the change, or name another "
                "--journal file"
            ) from None
        except UsageError as error:
            await self._work.refuse(self._lease, item.key, str(error))
            return None
        await handle.wait()
        outcome = handle.outcome
        if self._is_stopped and outcome is not None and outcome.status is AgentStatus.CANCELLED:
            return Cut(item.key, outcome_to_json(outcome))
        return None

    @property
    def order_journal(self) -> str:
        """The path of the journal."""
        return self._worker.order.journal


def _read(task: Task, prompt: str | None) -> str:
    return joined(prompt, read_text(task.file))


def _broke(error: Exception) -> Broke | None:
    """Return the message about *error* for the command. ``None``: *error* is a defect."""
    leaves = list(_leaves(error))
    for why, kind in (("lost", LeaseLostError), ("busy", RunBusyError), ("wrong", AgentPoolError)):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return Broke(why, str(leaf))
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield *error*, its cause, and the errors inside it if it is a group."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for one in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(one)
    if error.__cause__ is not None:
        yield from _leaves(error.__cause__)


async def _work() -> bool:
    # Whatever libraries print must not come between the lines.
    out = os.dup(1)
    os.dup2(2, 1)
    async with (
        trio.lowlevel.FdStream(os.dup(0)) as input_pipe,
        trio.lowlevel.FdStream(out) as output_pipe,
        trio.open_nursery() as nursery,
    ):
        lines = LineReader(input_pipe)
        first = await lines.next_line()
        if first is None:
            return False  # noqa: ASYNC121  # nothing was started in it
        worker = Worker(msgspec.json.decode(first, type=Order), Mouth(output_pipe))
        logging.getLogger("agentpool").addHandler(BoardLog(worker.board))
        with as_bystander():
            nursery.start_soon(worker.listen, lines)
            nursery.start_soon(worker.show)
        is_good = await worker.run()
        nursery.cancel_scope.cancel()
    return is_good


def main() -> None:
    """Run a worker that talks to its command over standard input and output."""
    sys.exit(0 if trio.run(_work) else 1)
