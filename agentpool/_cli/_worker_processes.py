"""The worker processes of ``agentpool map … --workers N``: started, watched, replaced, ended.

Rules:

1. At most as many workers as requested are at work. A worker that is silent for longer than its
   lease does not count: another worker continues its share. If the silent worker wakes up, its
   results are refused.
2. An unfinished share without a living process is continued before a new one is begun, even if its
   worker was killed together with its command.
3. A worker that is stopped while it writes has locked the file, and all other workers wait for it.
   When its lease has passed, the stopped worker is ended, and its unfinished write has no effect.
4. Each worker has a separate process group, so Ctrl-C reaches only the command, which informs the
   workers. When the command is gone, the workers end because their input ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, final

import attrs
import msgspec
import trio

from agentpool import AgentOutcome, UsageError
from agentpool._cli._report import Report
from agentpool._cli._worker_messages import (
    Broke,
    Cut,
    End,
    Ended,
    FromWorker,
    LineReader,
    Order,
    Ready,
    Seen,
    Stop,
    ToWorker,
    Warned,
    encode,
)
from agentpool.journal import ItemState, SharedWork, WorkShare
from agentpool.live import Board
from agentpool.observe import outcome_from_json

END_SECONDS: Final = 15.0
"""Seconds for a worker to end in good order, with its model and its tools. After that, it is
killed."""

LOOK_SECONDS: Final = 1.0
"""Seconds between two checks of which process has locked the file."""

MAX_CRASHES: Final = 5
"""How many workers may end in a row without an answer in between."""

_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from agentpool._cli._worker import main; main()"
)
_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
_SIGNAL_GROUP: Final = getattr(os, "killpg", os.kill)
_OWN_GROUP: Final = 0 if hasattr(os, "killpg") else None
_LAST_WORDS: Final = 5


@final
@attrs.define(eq=False)
class Member:
    """One worker process, as the command sees it."""

    number: int
    """Its place in the crew, from 0."""
    order: Order
    """Its order."""
    process: trio.Process | None = None
    """The process. ``None``: the process has not been started yet."""
    is_ready: bool = False
    """Whether it owns its share."""
    is_idle: bool = False
    """Whether it has nothing to do."""
    is_silent: bool = False
    """Whether the worker has said nothing for longer than its lease."""
    broke: Broke | None = None
    """Why the worker cannot go on. ``None``: it goes on, or has given no reason."""
    seen: Seen | None = None
    """Its latest report."""
    last_words: deque[str] = attrs.field(factory=lambda: deque[str](maxlen=_LAST_WORDS))
    """The last lines that it wrote to standard error."""
    said: trio.Lock = attrs.field(factory=trio.Lock)
    """Held while a message is sent to it."""

    async def say(self, message: Order | ToWorker) -> None:
        """Send *message* to the worker, unless it has ended. A stopped worker gets one second."""
        if self.process is not None and self.process.stdin is not None:
            with (
                trio.move_on_after(1),
                suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            ):
                async with self.said:
                    await self.process.stdin.send_all(encode(message))
        await trio.lowlevel.checkpoint()

    def is_process(self, pid: int | None) -> bool:
        """Return whether *pid* is the worker's process."""
        return self.process is not None and self.process.pid == pid

    def kill(self) -> None:
        """Kill the worker and its process group immediately."""
        if self.process is not None and self.process.returncode is None:
            _SIGNAL_GROUP(self.process.pid, _KILL)


@final
@attrs.define(eq=False)
class Crew:
    """The workers of one command."""

    _size: int
    _new_order: Callable[[int, str], Order]
    """Makes the order of the worker at a place for a share."""
    _work: SharedWork
    _board: Board
    _report: Report
    _nursery: trio.Nursery
    _stop: Callable[[str], None]
    """Ends the command."""
    members: list[Member] = attrs.field(init=False, factory=list[Member])
    """The workers whose processes have not ended."""
    gone: list[Seen] = attrs.field(init=False, factory=list[Seen])
    """The last reports of workers whose processes have ended."""
    cut: dict[str, AgentOutcome] = attrs.field(init=False, factory=dict[str, AgentOutcome])
    """The partial results of interrupted items, by key."""
    changed: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Set when there may be something new in the journal."""
    is_ending: bool = attrs.field(init=False, default=False)
    """Whether no more workers are started."""
    _lines: list[tuple[str, bool]] = attrs.field(init=False, factory=list[tuple[str, bool]])
    """What the workers said, and whether it is notable."""
    _crashes: int = attrs.field(init=False, default=0)
    _warned: set[str] = attrs.field(init=False, factory=set[str])
    _silences: dict[str, tuple[float, float]] = attrs.field(
        init=False, factory=dict[str, tuple[float, float]]
    )

    def is_over(self, share: WorkShare) -> bool:
        """Return whether the owner of *share* is gone or was silent for its whole lease.

        The age of a lease is measured with the clock, or if the clock was set back, with one that
        never goes back.
        """
        now = trio.current_time()
        heard, since = self._silences.get(share.pool, (-1.0, now))
        if heard != share.renewed_at:
            heard, since = self._silences[share.pool] = (share.renewed_at, now)
        return share.owner is None or now - since > share.seconds

    async def free_file(self) -> None:
        """End a stopped worker that has locked the file for the whole length of its lease."""
        seen: int | None = None
        since = trio.current_time()
        while True:
            await trio.sleep(LOOK_SECONDS)
            now, found = trio.current_time(), self._work.stopped_writer()
            if found != seen:
                seen, since = found, now
            for member in self.members:
                if member.is_process(seen) and now - since >= member.order.lease_seconds:
                    self._board.say(
                        f"worker {member.number + 1} is stopped and blocks the journal for all "
                        "others, so it is ended",
                        notable=True,
                    )
                    member.kill()

    async def staff(self, undone: Sequence[ItemState]) -> None:
        """Start workers until enough of them work on *undone*."""
        shares = {share.pool: share for share in await self._work.shares()}
        over = {name for name, share in shares.items() if self.is_over(share)}
        for member in self.members:
            is_silent = member.is_ready and member.order.share in over
            if is_silent and not member.is_silent:
                self._board.say(
                    f"worker {member.number + 1} has been silent for {member.order.lease_seconds:g}"
                    " seconds; another one takes over its inputs",
                    notable=True,
                )
            member.is_silent = is_silent
        if self.is_ending:
            return
        at_work = [one for one in self.members if not (one.is_silent or one.broke)]
        taken = {one.order.share for one in at_work}
        left = list(dict.fromkeys(one.share for one in undone if one.share))
        left = [name for name in left if name in over and name not in taken]
        unclaimed = sum(one.share is None for one in undone)
        for _ in range(min(self._size - len(at_work), len(left) + unclaimed)):
            share = left.pop(0) if left else await self._work.begin_share()
            at_work.append(self._start(share, {one.number for one in at_work}))
        idle = [one for one in at_work if one.is_ready and one.is_idle]
        if left and idle and len(at_work) >= self._size:
            await idle[0].say(End())

    def _start(self, share: str, taken: set[int]) -> Member:
        number = min(set(range(self._size)) - taken)
        member = Member(number, self._new_order(number, share))
        self.members.append(member)
        self._nursery.start_soon(self._run, member, name=f"worker {number + 1}")
        return member

    async def _run(self, member: Member) -> None:
        try:
            member.process = process = await trio.lowlevel.open_process(
                [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=_OWN_GROUP,
            )
            assert process.stdin is not None  # noqa: S101  # it was asked for, as the others
            assert process.stdout is not None  # noqa: S101
            assert process.stderr is not None  # noqa: S101
            async with process.stdin, process.stdout, process.stderr, trio.open_nursery() as n:
                n.start_soon(self._hear_errors, member, LineReader(process.stderr))
                await member.say(member.order)
                lines = LineReader(process.stdout)
                while (line := await lines.next_line()) is not None:
                    await self._hear(member, msgspec.json.decode(line, type=FromWorker))
                with trio.move_on_after(END_SECONDS):
                    await process.wait()
                # What it started may still hold its standard error.
                n.cancel_scope.cancel()
        finally:
            if member.process is not None:
                with trio.CancelScope(shield=True):
                    member.kill()
                    await member.process.wait()
            self._leave(member)
        await self._explain(member)

    def _leave(self, member: Member) -> None:
        self.members.remove(member)
        self._board.elsewhere.pop(id(member), None)
        if member.seen is not None:
            self.gone.append(member.seen)
        self.changed.set()

    async def _hear(self, member: Member, message: FromWorker) -> None:
        await trio.lowlevel.checkpoint()
        match message:
            case Ready():
                member.is_ready = True
            case Seen(view=view, lines=lines, is_idle=is_idle):
                member.is_idle, member.seen = is_idle, message
                self._board.elsewhere[id(member)] = view
                self._lines += lines
            case Warned(text=text):
                # Each of them has read the same manifests.
                if text not in self._warned:
                    self._warned.add(text)
                    await self._report.warn(text)
            case Ended():
                self._crashes = 0
                self.changed.set()
            case Cut(key=key, outcome=outcome):
                self.cut[key] = outcome_from_json(outcome)
            case _:
                member.broke = message
                await self._tell_break(member, message)

    @staticmethod
    async def _hear_errors(member: Member, lines: LineReader) -> None:
        while (line := await lines.next_line()) is not None:
            member.last_words.append(line.decode(errors="replace"))

    async def _tell_break(self, member: Member, broke: Broke) -> None:
        await trio.lowlevel.checkpoint()
        if broke.why == "lost":
            self._board.say(
                f"worker {member.number + 1} woke up after its lease; its results were refused",
                notable=True,
            )
        elif broke.why == "wrong" and not self.is_ending:
            self.is_ending = True
            await self._report.refuse(UsageError(broke.text))
            self._stop("a worker cannot go on")

    async def _explain(self, member: Member) -> None:
        """Explain how a worker's process ended, unless it ended normally."""
        await trio.lowlevel.checkpoint()
        process, who = member.process, f"worker {member.number + 1}"
        if member.broke is not None or self.is_ending:
            return
        if process is not None and process.returncode:
            code = process.returncode
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            words = "".join(f"; {line}" for line in list(member.last_words)[-1:])
            self._board.say(f"{who} ended ({how}{words}); another one continues", notable=True)
            self._crashes += 1
            if self._crashes >= MAX_CRASHES:
                await self._report.refuse(
                    UsageError(
                        f"{self._crashes} workers ended one after the other without an answer, "
                        f"the last one by {how}{words}; run the command without --workers to see "
                        "why"
                    )
                )
                self._stop("no worker stays")

    async def tell_all(self, message: Stop | End) -> None:  # noqa: ASYNC910  # without members there is nothing to wait for
        """Tell all workers to end, and kill those that do not."""
        self.is_ending = True
        for member in tuple(self.members):
            if member.is_silent:
                member.kill()
            else:
                await member.say(message)
        with trio.move_on_after(END_SECONDS):  # noqa: ASYNC912  # the same
            while self.members:
                self.changed = trio.Event()
                await self.changed.wait()
        for member in tuple(self.members):
            member.kill()
        while self.members:
            self.changed = trio.Event()
            await self.changed.wait()

    def take_lines(self) -> list[tuple[str, bool]]:
        """Return what the workers said since the last call, to be said after the next count."""
        lines, self._lines = self._lines, []
        return lines

    def views(self) -> list[Seen]:
        """Return the latest report of each worker."""
        return [*self.gone, *(one.seen for one in self.members if one.seen is not None)]
