"""The journal of one run: results to replay, and results to record.

Rules:

1. A resumed run takes the same path, because the loop decides only by the results of its effects,
   and the recorded results are given back until none is left.
2. What was asked for is compared by its digest. Any difference is an error, unless the caller
   accepts it: with another prompt or tool, the old results would answer something that was never
   asked. Another *kind* of effect is never accepted: see ``resume_mismatch``.
3. A request or a call that had begun and has no result may or may not have been done. A request is
   made again, and counted. For a call, the tool decides: see `OnUnknown`.
4. An action begins only when the record of its beginning is stored. The next request, the next call
   and the outcome wait until its result is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, TypeAlias, final

import msgspec
import trio

from agentpool._agent.aside import Aside
from agentpool._agent.past_attempts import Attempts
from agentpool._agent.resume_mismatch import calls_of, early_end, mismatch, other_call, other_thing
from agentpool._approval import Decision
from agentpool._base import Live
from agentpool._journal_records import JournalRecord, RecordKind, begins_call, read_body
from agentpool._loop.guard import Stop, Warn
from agentpool._loop.run import (
    Complete,
    Effect,
    LeftOut,
    Recall,
    Receive,
    Remember,
    Run,
    RunTools,
    Summarize,
)
from agentpool._messages import AgentId, ChatMessage, CompletionRequest, ToolCall, ToolMessage
from agentpool._recorded_results import (
    Answered,
    Called,
    Received,
    RequestDigests,
    Summed,
    answers_left,
    cut_asides,
    digest_of,
    encode,
    fill_in,
)
from agentpool._served_call import UNSENT, Charge, Loss, ServedCall, current_call
from agentpool._spawn import SpawnConfig
from agentpool.journal._joint import Together
from agentpool.journal._questions import decision_in, said_of
from agentpool.journal._writer import JournalWriter

OnMismatch: TypeAlias = Literal["refuse", "accept", "branch"]
"""How to react when a resumed run asks for something other than before."""

AGAIN: Final = "~"
"""Added to a run's key each time that the run begins again with a different history."""

OnBranch: TypeAlias = Callable[
    [SpawnConfig, tuple[ChatMessage, ...], Sequence[JournalRecord]], SpawnConfig
]
"""Takes the config of a new run, and the messages and last records of the old run. Records that the
old run is over and the new one begins with these messages. Returns the config of the new one."""


@final
class RunJournal(Live):
    """The part of a journal that belongs to one run."""

    writer: JournalWriter
    agent_id: AgentId
    key: str
    """Names the run. The key is the same at every resume, and no other run has it."""
    on_mismatch: OnMismatch = "refuse"
    results: dict[tuple[int, int], JournalRecord] = {}  # noqa: RUF012  # each has its own
    """The recorded results, by place and part."""
    begun: dict[tuple[int, int], JournalRecord] = {}  # noqa: RUF012  # each has its own
    """The recorded beginnings, with or without an end."""
    called: dict[int, JournalRecord] = {}  # noqa: RUF012  # each has its own
    """The known facts about calls, by place."""
    answers: dict[tuple[int, int], JournalRecord] = {}  # noqa: RUF012  # each has its own
    """The answers to approval questions."""
    last_place: int = -1
    """The last place with a record."""
    place: int = -1
    """Which effect of the run it is at."""
    repeated_requests: int = 0
    """Requests that were sent before a crash and were made again."""
    charges: list[Charge] = []  # noqa: RUF012  # each has its own
    """The charges of calls with recorded results, until they are counted again."""
    losses: list[Loss] = []  # noqa: RUF012  # each has its own
    """The usage of the effect's broken requests, until it is counted again."""
    left_before: int = 0
    """Requests of the effect that were sent before their process ended."""
    attempts: dict[int, Attempts] = {}  # noqa: RUF012  # each has its own
    """The earlier attempts of requests, by place."""
    cut: dict[int, list[Loss]] = {}  # noqa: RUF012  # each has its own
    """What tools asked of models in calls that were cut, by place."""
    records: tuple[JournalRecord, ...] = ()
    """What the run did before, until a new run begins."""
    history: tuple[ChatMessage, ...] | None = None
    """The history of a branched run. ``None``: the one in its config."""
    changed_from: SpawnConfig | None = None
    """The run's config before it changed. ``None``: it has not changed."""
    ended_with: tuple[ChatMessage, ...] | None = None
    """The messages of a changed run that had ended. ``None``: the run had not ended."""
    on_branch: OnBranch | None = None
    """Records that a new run begins. ``None``: a changed run is not branched."""
    on_settled: Callable[[str], object] = str
    """Called with the key of a call that had begun before and now has its result."""
    owed: Callable[[], Together | None] = lambda: None
    """Returns the corrections to budgets in the same file, to be written with the next result."""
    _due: JournalRecord | None = None
    """The record that a request begins, until a budget in the same file can be charged with it."""
    _marks: dict[int, ServedCall] = {}  # noqa: RUF012  # each has its own
    """The calls that run, by their part."""
    _digests: RequestDigests = msgspec.field(default_factory=RequestDigests)

    def recall_past(self, records: Iterable[JournalRecord]) -> None:
        """Load what the run did before the crash."""
        self.records = tuple(records)
        self.answers.update(answers_left(self.records))
        self.called.update(calls_of(self.records))
        self.cut.update(cut_asides(self.records))
        for record in self.records:
            if record.kind is RecordKind.RESULT:
                self.results[record.place, record.part] = record
                if (answered := self.attempts.get(record.place)) is not None:
                    answered.open -= 1
            elif record.kind is RecordKind.STARTED:
                self.begun[record.place, record.part] = record
                if not begins_call(record):
                    self.attempts.setdefault(record.place, Attempts()).begin()
            elif record.kind is RecordKind.LOST:
                loss = read_body(record.body, Loss)
                self.attempts.setdefault(record.place, Attempts()).lose(loss)
            self.last_place = max(self.last_place, record.place)

    def begin_again(self) -> None:
        """Forget what the run did before: a new run begins."""
        own = self.results, self.begun, self.called, self.answers, self.attempts, self.cut
        for known in own:
            known.clear()
        self.key += AGAIN
        self.records, self.last_place = (), -1

    @property
    def is_in_the_past(self) -> bool:
        """Whether an earlier process may have performed the current effect."""
        return self.place <= self.last_place

    # --- before an effect

    def give_back(self, effect: Effect, run: Run) -> bool:
        """Move on to *effect*, the next one, and fill in its result if it is recorded.

        Returns whether nothing is left to do.

        Raises:
            ResumeMismatchError: If the recorded run asked for something else at this place.
        """
        # An instance check of another struct takes ten times as long as a look at its type.
        if type(effect) is Warn or type(effect) is LeftOut:
            return False  # has no result, and so no place
        self.place += 1
        self.left_before = 0
        if self.place > self.last_place:
            return False
        if isinstance(effect, RunTools):
            return self._give_calls(effect, run)
        record = self.results.get((self.place, 0))
        self._compare(effect, self.begun.get((self.place, 0)), record)
        if isinstance(effect, Receive):
            # Nothing is written where nothing was received.
            effect.messages, effect.interrupted = (), False
            if record is not None:
                found = read_body(record.body, Received)
                effect.messages, effect.interrupted = found.messages, found.interrupted
            return True
        if isinstance(effect, Complete | Summarize):
            self._recall_attempts(is_answered=record is not None)
        if record is None:
            return False
        fill_in(effect, record.body, run)
        return True

    def _give_calls(self, effect: RunTools, run: Run) -> bool:
        is_last = self.place >= self.last_place
        self.losses.extend(self.cut.get(self.place, ()))
        for part, call in enumerate(effect.calls):
            spot, is_refused = (self.place, part), effect.results[part] is not None
            begun, record = self.begun.get(spot), self.results.get(spot)
            other = other_call(call, begun, record, is_refused=is_refused, is_last=is_last)
            if other is not None:
                raise mismatch(self.agent_id, self.place, other)
            if is_refused or record is None:
                continue
            if record.digest != digest_of(call.name, call.arguments):
                self._refuse(f"call {call.name!r} has different arguments")
            called = read_body(record.body, Called)
            effect.results[part] = called.result
            if called.changed is not None:
                effect.changed = {**effect.changed, part: called.changed}
            run.exhausted = run.exhausted or called.exhausted
            self.charges.extend(called.charges)
            self.losses.extend(called.losses)
        return None not in effect.results

    def _recall_attempts(self, *, is_answered: bool) -> None:
        attempts = self.attempts.get(self.place) or Attempts()
        if not is_answered:
            attempts.leave_to_us()
        self.left_before, self.losses = attempts.open, attempts.losses
        self.repeated_requests += sum(loss.is_repeated for loss in attempts.losses)

    def _compare(
        self, effect: Effect, begun: JournalRecord | None, ended: JournalRecord | None
    ) -> None:
        called, is_last = self.called.get(self.place), self.place >= self.last_place
        other = other_thing(effect, called, begun, ended, is_last=is_last)
        if other is not None:
            raise mismatch(self.agent_id, self.place, other)
        if (
            isinstance(effect, Complete | Summarize)
            and begun is not None
            and begun.digest != self._digests.of(effect.request)
        ):
            self._refuse("the request has a different prompt, or different tools or settings")

    def refuse_early_end(self) -> None:
        """Raise ``ResumeMismatchError`` if the run ends before an effect that it once performed."""
        differs = early_end(self.place, self.last_place, self.called)
        if differs is not None:
            raise mismatch(self.agent_id, self.place, differs)

    def _refuse(self, differs: str) -> None:
        if self.on_mismatch != "accept":
            raise mismatch(self.agent_id, self.place, differs, " or resume='accept'")

    # --- what begins

    def begin_request(
        self, request: CompletionRequest, reserved: Loss | None, *, is_joint: bool = False
    ) -> bool:
        """Record that a request is about to be sent. Return whether to wait for ``flush``.

        Args:
            request: The request.
            reserved: What a budget reserves for it. ``None``: there is no budget.
            is_joint: Whether a budget in the same file is asked first. Then the caller takes the
                record with ``take_due``, and writes both in one step.
        """
        body = b"" if reserved is None else encode(reserved)
        begun = self._record(RecordKind.STARTED, digest=self._digests.of(request), body=body)
        if is_joint:
            self._due = begun
            return False
        self.writer.note(begun, wakes=False)
        return not self.writer.flush_at_once()

    def take_due(self) -> JournalRecord | None:
        """Return the record of a request's start if it is to be written together with a budget."""
        due, self._due = self._due, None
        return due

    def begin_call(self, part: int, call: ToolCall) -> JournalRecord:
        """Record that a tool runs as soon as this record is flushed. Return the record.

        The body of the record is the key of the call.
        """
        started = self.start_of(part, call)
        self.writer.note(started, wakes=False)
        return started

    def start_of(self, part: int, call: ToolCall) -> JournalRecord:
        """Return the record that a tool is about to run. Later charges belong to this call."""
        # Not the provider's id of the call, which some repeat.
        key = digest_of(self.key, self.place, part, call.name, call.arguments)
        digest = digest_of(call.name, call.arguments)
        self._marks[part] = mark = ServedCall(part, key, digest)
        current_call.set(mark)
        return self._record(RecordKind.STARTED, part, digest, key.encode())

    def aside(self) -> Aside | None:
        """Return the records of a request that the current call makes. ``None``: there is none."""
        mark = current_call.get()
        return None if mark is None else Aside(self.writer, self.agent_id, self.place, mark)

    def is_unknown(self, part: int) -> bool:
        """Return whether the call began before a crash: without a result, its fate is unknown."""
        return (self.place, part) in self.begun

    async def ask(self, part: int, call: ToolCall, *, again: bool) -> Decision | None:
        """Record that a call waits for approval. Return the earlier answer, if there is one.

        Args:
            part: Its place among the calls of its answer.
            call: The call.
            again: Whether the call had begun before. That makes it another question.
        """
        digest = digest_of(call.name, call.arguments, again)
        known = self.answers.get((self.place, part))
        if known is not None and known.digest == digest:
            await trio.lowlevel.checkpoint()
            return decision_in(known.body)
        self._note(RecordKind.ASKED, part, digest, encode(call))
        await self.flush()
        return None

    def keep_answer(self, part: int, call: ToolCall, decision: Decision, *, again: bool) -> None:
        """Record the answer about a call."""
        digest = digest_of(call.name, call.arguments, again)
        self._note(RecordKind.ANSWERED, part, digest, said_of(decision))

    def begun_count(self, effect: RunTools) -> tuple[int, int]:
        """Return how many calls of *effect* began before, and how many of them ended."""
        begun = {(self.place, part) for part in range(len(effect.calls))} & self.begun.keys()
        return len(begun), len(begun & self.results.keys())

    async def flush(self) -> None:
        """Wait until everything noted is written, or raise ``JournalError``."""
        await self.writer.flush()

    # --- what came of it

    def keep(self, effect: Effect, run: Run) -> None:
        """Record the result of *effect*, which was just performed. Calls are kept one by one."""
        if type(effect) is Receive:
            if effect.messages or effect.interrupted:
                received = Received(tuple(effect.messages), effect.interrupted)
                self._note(RecordKind.RESULT, body=encode(received))
        elif type(effect) is Complete:
            # Its calls, its end and the next request flush at once; else the writer is woken.
            self._note(RecordKind.RESULT, body=encode(Answered.of(effect, run)), wakes=False)
        elif isinstance(effect, Recall):
            self._note(RecordKind.RESULT, body=encode(tuple(effect.fragments)))
        elif isinstance(effect, Summarize):
            self._note(RecordKind.RESULT, body=encode(Summed.of(effect)))
        elif isinstance(effect, Remember):
            self._note(RecordKind.RESULT)

    def keep_unsent(self) -> None:
        """Record that the request that began last was not sent, if its beginning is recorded."""
        if self.take_due() is None:  # or it was to be written together with a budget
            self.keep_loss(UNSENT)

    def keep_loss(self, loss: Loss) -> None:
        """Record what an unanswered request of the effect used."""
        self._note(RecordKind.LOST, body=encode(loss))

    def keep_call(
        self,
        part: int,
        asked: ToolCall,
        result: ToolMessage,
        changed: ToolCall | None,
        exhausted: Stop | None,
        *,
        wakes: bool = True,
    ) -> None:
        """Record the result of one call, which just ended.

        Args:
            part: Its place among the calls of its answer.
            asked: The call.
            result: The result.
            changed: The call that ran in its place. ``None``: the call itself ran.
            exhausted: Why the run ends with it. ``None``: the run goes on.
            wakes: Whether the run waits for other calls before it goes on and flushes.
        """
        mark = self._marks.pop(part, None)
        digest = digest_of(asked.name, asked.arguments) if mark is None else mark.digest
        current_call.set(None)  # what its task does next is not for the call
        called = Called.of(mark, result, changed, exhausted)
        self._note(RecordKind.RESULT, part, digest, encode(called), wakes=wakes)
        begun = self.begun.get((self.place, part))
        if begun is not None:
            self.on_settled(begun.body.decode())

    def _note(
        self, kind: RecordKind, part: int = 0, digest: str = "", body: bytes = b"",
        *, wakes: bool = True,
    ) -> None:  # fmt: skip
        is_result = kind is RecordKind.RESULT or kind is RecordKind.LOST
        together = self.owed() if is_result else None
        record = self._record(kind, part, digest, body)
        self.writer.note(record, wakes=wakes, together=together)

    def _record(
        self, kind: RecordKind, part: int = 0, digest: str = "", body: bytes = b""
    ) -> JournalRecord:
        return JournalRecord(self.agent_id, kind, self.place, part, digest, body)
