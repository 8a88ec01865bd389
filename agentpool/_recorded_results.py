"""The results of a run's effects, as stored in the records of a journal."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, Self, final

import msgspec

from agentpool._base import Live
from agentpool._budget.account import PICO
from agentpool._budget.spent import Spent, spent_on, spent_on_answer
from agentpool._journal_records import JournalRecord, RecordKind, begins_call, read_body
from agentpool._loop.guard import Stop
from agentpool._loop.run import Complete, Effect, Recall, Run, Summarize
from agentpool._messages import (
    AgentMessage,
    Completion,
    CompletionRequest,
    ToolCall,
    ToolMessage,
)
from agentpool._served_call import Charge, Loss, ServedCall
from agentpool._surrogates import whole_json

DIGEST_BYTES: Final = 12
"""The length of a hash. It is enough to tell apart two requests at one place of one run."""


@final
class Received(msgspec.Struct, frozen=True, gc=False):
    """The result of a turn's beginning: recalled fragments and received messages."""

    messages: tuple[AgentMessage, ...]
    interrupted: bool


@final
class Answered(msgspec.Struct, frozen=True, gc=False):
    """The result of a request."""

    completion: Completion | None
    passed_shared: bool
    exhausted: Stop | None
    reserved: Loss | None = None
    """See ``Complete``."""

    @classmethod
    def of(cls, effect: Complete, run: Run) -> Self:
        """Return the result of *effect*."""
        return cls(effect.completion, run.passed_shared, run.exhausted, effect.reserved)


@final
class Called(msgspec.Struct, frozen=True, gc=False):
    """The result of a call."""

    result: ToolMessage
    changed: ToolCall | None
    exhausted: Stop | None
    charges: tuple[Charge, ...]
    taken: tuple[int, ...] = ()
    losses: tuple[Loss, ...] = ()
    asked: int = 0
    """The requests to models that its tool made: so many records of them are settled by this."""

    @classmethod
    def of(
        cls,
        mark: ServedCall | None,
        result: ToolMessage,
        changed: ToolCall | None,
        exhausted: Stop | None,
    ) -> Self:
        """Return the result of a call with its *mark*. ``None``: its tool did not run."""
        if mark is None:
            return cls(result, changed, exhausted, ())
        done = tuple(mark.charges), tuple(mark.taken), tuple(mark.losses)
        return cls(result, changed, exhausted, *done, mark.asked)


@final
class Summed(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The result of a request for a summary."""

    text: str
    failure: str
    completion: Completion | None = None
    """``None``: the file is of the earliest version, which did not store the completion."""
    reserved: Loss | None = None
    """See ``Complete``."""

    @classmethod
    def of(cls, effect: Summarize) -> Self:
        """Return the result of *effect*."""
        return cls(effect.text, effect.failure, effect.completion, effect.reserved)


encode: Final = whole_json


@final
class RequestDigests(Live):
    """Hashes the requests of one run."""

    _tools: object = None
    """The tools that were hashed last: they are the same in each turn."""
    _hash: str = ""

    def of(self, request: CompletionRequest) -> str:
        """Return a short hash of *request*.

        The conversation so far follows from earlier results; hashing all of it in each turn would
        cost the square of the turns.
        """
        if self._tools is not request.tools or not self._hash:
            self._tools, self._hash = request.tools, digest_of(request.tools)
        terms = msgspec.structs.replace(request, tools=(), messages=request.messages[-1:])
        return digest_of(self._hash, terms, len(request.messages))


def digest_of(*parts: object) -> str:
    """Return a short hash of *parts*, which must be values that JSON can represent."""
    return hashlib.blake2b(encode(parts), digest_size=DIGEST_BYTES).hexdigest()


def calls_in(body: bytes) -> Sequence[ToolCall]:
    """Return the calls of the answer in *body*, the result of a request. Summaries have none."""
    completion = None if body.startswith(b"[") else read_body(body, Answered).completion
    return () if completion is None else completion.tool_calls


def spending(records: Iterable[JournalRecord]) -> Iterator[Spent]:
    """Yield the spending recorded in *records*."""
    known = list(records)
    yield from map(spent_on, chain.from_iterable(cut_asides(known).values()))
    started = [one for one in known if one.kind is RecordKind.STARTED]
    begun = {(one.place, one.part) for one in started}
    # A call that had begun was spent, whether or not it ended, and once if it ran again.
    if calls := {(one.place, one.part) for one in started if begins_call(one)}:
        yield Spent(tool_calls=len(calls))
    for record in known:
        if record.kind is RecordKind.LOST:
            yield spent_on(read_body(record.body, Loss))
        elif record.kind is RecordKind.SPENT:
            yield from read_body(record.body, tuple[Spent, ...])
        elif record.kind is not RecordKind.RESULT or (record.place, record.part) not in begun:
            continue
        elif record.digest:
            called = read_body(record.body, Called)
            for one in called.charges:
                if one.requests:
                    yield spent_on_answer(
                        one.usage, one.cost_usd, one.reserved, requests=one.requests
                    )
            yield from map(spent_on, called.losses)
        elif (found := _answer_in(record.body)) is not None:
            answer, reserved = found
            yield spent_on_answer(answer.usage, answer.cost_usd, reserved)


def cut_asides(records: Iterable[JournalRecord]) -> dict[int, list[Loss]]:
    """Return what tools have asked of models in calls that were cut, by the places of the calls.

    The result of a call has what the call asked. If it was cut and ran again, it has only what was
    asked since.
    """
    cut: dict[int, list[Loss]] = {}
    known: dict[tuple[int, int], dict[str, Loss]] = {}
    for record in records:
        spot = record.place, record.part
        if record.kind is RecordKind.ASIDE:
            known.setdefault(spot, {})[record.digest] = read_body(record.body, Loss)
        elif record.kind is RecordKind.STARTED and spot in known:
            cut.setdefault(record.place, []).extend(known.pop(spot).values())
        elif (
            record.kind is RecordKind.RESULT
            and spot in known
            # A call that was refused because it may have run settles nothing.
            and read_body(record.body, Called).asked
        ):
            del known[spot]
    for (place, _), losses in known.items():
        cut.setdefault(place, []).extend(losses.values())
    return cut


def totals_of(runs: Iterable[Iterable[JournalRecord]]) -> tuple[Spent, ...]:
    """Return the total spending of *runs*, with unpriced and unknown parts apart."""
    sums: dict[tuple[bool, bool], list[int]] = {}
    for spent in (one for run in runs for one in spending(run)):
        known = sums.setdefault((spent.cost_usd is not None, spent.is_lost), [0] * 6)
        known[:] = map(operator.add, known, (*spent.amounts, *spent.unknown))
    return tuple(
        Spent(tokens, cost / PICO if is_priced else None, requests, calls, is_lost, *unknown)
        for (is_priced, is_lost), (tokens, cost, requests, calls, *unknown) in sums.items()
    )


def received_ids(records: Iterable[JournalRecord]) -> Iterator[int]:
    """Yield the ids of the messages that a run has received, according to the journal."""
    for record in records:
        if record.kind is not RecordKind.RESULT:
            continue
        if record.digest:
            yield from read_body(record.body, Called).taken
        elif record.body.startswith(b'{"messages"'):
            yield from (one.message_id for one in read_body(record.body, Received).messages)


def answers_left(records: Iterable[JournalRecord]) -> dict[tuple[int, int], JournalRecord]:
    """Return the unused answers to approval questions, by place and part.

    An answer that let a call begin again is used up when the call has begun: from then on, nobody
    knows again whether the call was done.
    """
    answers: dict[tuple[int, int], JournalRecord] = {}
    begun, again = set[tuple[int, int]](), set[tuple[int, int]]()
    for record in records:
        spot = record.place, record.part
        if record.kind is RecordKind.ANSWERED:
            answers[spot] = record
            again |= begun & {spot}
        elif record.kind is RecordKind.STARTED:
            begun.add(spot)
            if spot in again:
                answers.pop(spot, None)
    return answers


def settled_keys(records: Iterable[JournalRecord]) -> set[str]:
    """Return the keys of the calls in *records* that have ended."""
    known = list(records)
    ended = {(one.place, one.part) for one in known if one.kind is RecordKind.RESULT}
    return {
        one.body.decode(errors="replace")
        for one in known
        if one.kind is RecordKind.STARTED and begins_call(one) and (one.place, one.part) in ended
    }


def begun_keys(records: Iterable[JournalRecord]) -> set[str]:
    """Return the keys of the calls in *records* that have begun."""
    return {
        one.body.decode(errors="replace")
        for one in records
        if one.kind is RecordKind.STARTED and begins_call(one)
    }


def _answer_in(body: bytes) -> tuple[Completion, Loss | None] | None:
    """Return the answer in the result of a turn or a summary, and what was reserved for it."""
    is_summary = body.startswith(b"[")
    result = read_body(body, Summed) if is_summary else read_body(body, Answered)
    return None if result.completion is None else (result.completion, result.reserved)


def fill_in(effect: Effect, body: bytes, run: Run) -> None:
    """Store the recorded result in *effect*."""
    if isinstance(effect, Recall):
        recalled = read_body(body, tuple[str, ...])
        effect.fragments = recalled
    elif isinstance(effect, Complete):
        answered = read_body(body, Answered)
        effect.completion = answered.completion
        effect.reserved = answered.reserved
        run.passed_shared, run.exhausted = answered.passed_shared, answered.exhausted
    elif isinstance(effect, Summarize):
        summed = read_body(body, Summed)
        effect.text, effect.failure = summed.text, summed.failure
        effect.completion, effect.reserved = summed.completion, summed.reserved
