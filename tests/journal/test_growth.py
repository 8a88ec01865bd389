"""What is read of a journal takes time in proportion to it: a file may be somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest

from agentpool import AgentManifest, SpawnConfig
from agentpool._journal_records import JournalRecord, RecordKind
from agentpool._pool.past import Past, Spawned, copy_turns, encode, first_record, last_runs
from agentpool.journal._questions import open_questions
from tests.support.growth import assert_linear

CALL = b'{"call_id":"a","name":"b","arguments":"{}"}'
MANIFEST = AgentManifest.parse('[model]\nmodel_path = "a.gguf"\n')
SPAWNED = encode(Spawned.of(SpawnConfig(MANIFEST, "q"), "k", 0, 0))


def asked_and_ended(n: int) -> Sequence[JournalRecord]:
    """Return *n* questions of as many agents, and as many other agents that end."""
    asked = [JournalRecord(at, RecordKind.ASKED, 1, 0, "d", CALL) for at in range(1, n + 1)]
    return [*asked, *(JournalRecord(n + at, RecordKind.ENDED) for at in range(1, n + 1))]


def branched(n: int) -> Sequence[JournalRecord]:
    """Return an agent that was branched *n* times."""
    again = [JournalRecord(1, RecordKind.ACCEPTED, body=SPAWNED)] * n
    return [first_record("ab"), *again]


def accepted(n: int) -> Sequence[JournalRecord]:
    """Return *n* agents that were accepted."""
    return [
        first_record("ab"),
        *(JournalRecord(at, RecordKind.ACCEPTED, body=SPAWNED) for at in range(1, n + 1)),
    ]


Records: TypeAlias = Sequence[JournalRecord]
READERS: dict[
    str, tuple[Callable[[Records], object], dict[str, Callable[[int], Records]]]
] = {
    "open questions": (open_questions, {"many, beside ends": asked_and_ended}),
    "past": (Past.read, {"branches of one agent": branched, "agents": accepted}),
    "last runs": (last_runs, {"branches of one agent": branched}),
    "turns that are copied": (
        lambda records: copy_turns(records, [one.agent_id for one in records], "ab"),
        {"agents": accepted},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("reader", "kind"), [(reader, kind) for reader, (_, kinds) in READERS.items() for kind in kinds]
)
def test_a_journal_is_read_in_proportion(reader: str, kind: str) -> None:
    """Each end looked through all open questions, each branch copied all before it."""
    read, kinds = READERS[reader]
    assert_linear(read, kinds[kind])


def test_questions_stay_in_the_order_in_which_they_were_asked() -> None:
    """Also where some were answered, asked anew, or went with their agents."""
    told = [
        JournalRecord(agent, kind, place, 0, "d", CALL)
        for agent, kind, place in (
            (2, RecordKind.ASKED, 1), (1, RecordKind.ASKED, 1), (2, RecordKind.ASKED, 2),
            (3, RecordKind.ASKED, 1), (2, RecordKind.ANSWERED, 1), (3, RecordKind.ENDED, 0),
            (3, RecordKind.ENDED, 0), (1, RecordKind.ASKED, 1),
        )
    ]  # fmt: skip
    assert [one.question_id for one in open_questions(told)] == ["1.1.0", "2.2.0"]


def test_the_runs_of_a_branched_agent_are_kept_apart() -> None:
    """The oldest first."""
    results = [JournalRecord(1, RecordKind.RESULT, at, body=b"[]") for at in range(3)]
    accept = JournalRecord(1, RecordKind.ACCEPTED, body=SPAWNED)
    told = [first_record("ab"), accept, results[0], accept, accept, *results[1:]]
    runs = [list(run) for run in Past.read(told).agents[1].runs]
    assert runs == [results[:1], [], results[1:]]
