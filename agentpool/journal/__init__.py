"""Journals: records in a file, so that a killed program resumes and repeats nothing.

``open_journal`` opens a journal in an SQLite file. SQLite is loaded when that function is first
used. An ``InMemoryJournal`` is for tests, and is gone when the process ends.
"""

from typing import TYPE_CHECKING

from agentpool._errors import JournalError as JournalError
from agentpool._errors import LeaseLostError as LeaseLostError
from agentpool._errors import ResumeMismatchError as ResumeMismatchError
from agentpool._errors import RunBusyError as RunBusyError
from agentpool._errors import SessionBusyError as SessionBusyError
from agentpool._journal_records import JournalRecord as JournalRecord
from agentpool._journal_records import Lease as Lease
from agentpool._journal_records import LeaseHolder as LeaseHolder
from agentpool._journal_records import PoolSummary as PoolSummary
from agentpool._journal_records import RecordKind as RecordKind
from agentpool._public import publish as _publish
from agentpool.abc import Journal as Journal

if TYPE_CHECKING:
    from agentpool.journal._in_memory import InMemoryJournal as InMemoryJournal
    from agentpool.journal._questions import OpenQuestion as OpenQuestion
    from agentpool.journal._questions import answer_question as answer_question
    from agentpool.journal._questions import open_questions as open_questions
    from agentpool.journal._shared_work import EndedItem as EndedItem
    from agentpool.journal._shared_work import ItemState as ItemState
    from agentpool.journal._shared_work import SharedWork as SharedWork
    from agentpool.journal._shared_work import WorkItem as WorkItem
    from agentpool.journal._shared_work import WorkShare as WorkShare
    from agentpool.journal._sqlite import SqliteJournal as SqliteJournal
    from agentpool.journal._sqlite import open_journal as open_journal

# Most programs do not need these.
_publish(
    globals(),
    {
        "_in_memory": ("InMemoryJournal",),
        "_questions": ("OpenQuestion", "answer_question", "open_questions"),
        "_shared_work": ("EndedItem", "ItemState", "SharedWork", "WorkItem", "WorkShare"),
        "_sqlite": ("SqliteJournal", "open_journal"),
    },
)
