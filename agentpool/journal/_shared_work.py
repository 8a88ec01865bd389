"""Work shared by several processes: items in a journal, each done by one of them.

Rules:

1. A *share* is a pool of the journal, with its lease. An item belongs to no share, or to one share
   for good. When a process has ended, or was silent for longer than its lease, another process
   continues its share: its items and everything recorded about them.
2. The transaction that claims an item also checks the share's lease. So no item is in two shares,
   and a process whose share was taken over gets no more items.
3. An item's outcome is among the records of its share, which are written only under the share's
   fence: one outcome for each item, never overwritten.
4. An item for which no agent can be made has a fault instead of an outcome. Such an item is tried
   again when the work is started again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar, final

import attrs
import msgspec

from agentpool._base import Shown, Unique
from agentpool._checks import Checked, CheckedStruct
from agentpool._database.database import Database
from agentpool._database.transaction import Row, Transaction, Value
from agentpool._errors import UsageError
from agentpool._file_lock import lock_holder
from agentpool._journal_records import Lease, LeaseHolder, RecordKind, read_body
from agentpool.journal._holder import live_holder
from agentpool.journal._lease_rows import begin, hold, state_of
from agentpool.journal._rows import damaged, number_of, text_of

T = TypeVar("T")

MIGRATION: Final = """\
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    work TEXT NOT NULL,
    key TEXT NOT NULL,
    text TEXT,
    pool TEXT,
    fault TEXT NOT NULL,
    UNIQUE (work, key)
);

CREATE INDEX items_of_work ON items (work, pool, id);

"""

_DIGEST_OF: Final = "digest of "
"""The beginning of the fact's name. The name of the work follows."""

_NEXT: Final = "SELECT id, key, text FROM items WHERE work = ? AND pool IS NULL ORDER BY id LIMIT ?"

_ENDED: Final = (
    "SELECT records.id, records.pool, agent, kind, body FROM records "
    "JOIN pools ON pools.id = records.pool WHERE records.id > ? AND agent > 0 "
    "AND kind IN ('accepted', 'ended') "
    "AND pools.name IN (SELECT DISTINCT pool FROM items WHERE work = ?) ORDER BY records.id"
)


@final
class WorkItem(CheckedStruct, frozen=True):
    """One piece of shared work."""

    key: str
    """Its name. No other item of the work has it."""
    text: str | None = None
    """The question. ``None``: the key says everything that the agent is asked."""


@final
class ItemState(msgspec.Struct, frozen=True):
    """The progress of an item."""

    key: str
    """Its name."""
    share: str | None
    """The pool that does the item. ``None``: no pool has claimed it."""
    fault: str
    """Why no agent can be made for the item. Empty: no reason is known."""


@final
class EndedItem(msgspec.Struct, frozen=True):
    """An item with its outcome."""

    key: str
    """Its name."""
    asked: str
    """The SHA-256 of what was asked, in hexadecimal digits."""
    outcome: bytes
    """Its outcome, which ``agentpool.observe.outcome_from_json`` reads."""


@final
class WorkShare(msgspec.Struct, frozen=True):
    """The part of the work that one process does."""

    pool: str
    """The pool in the journal."""
    owner: LeaseHolder | None
    """The process that does this share now, judged by the clock. ``None``: no process does."""
    seconds: float
    """How long that process may be silent before another process may take over."""
    renewed_at: float
    """When that process last renewed its lease, in seconds since 1970."""


@final
class _Asked(msgspec.Struct, frozen=True):
    """The required part of an agent's spawn record."""

    key: str
    query: str


@final
@attrs.define(eq=False, repr=False)
class SharedWork(Checked, Unique, Shown):
    """Work in a journal, shared by several processes. Made by ``SqliteJournal.shared_work``."""

    _database: Database
    name: str
    """Its name in the journal."""
    _seen: int = attrs.field(init=False, default=0)
    """The number of the last record that ``take_ended`` has read."""
    _asked: dict[tuple[Value, Value], tuple[str, str]] = attrs.field(
        init=False, factory=dict[tuple[Value, Value], tuple[str, str]]
    )
    """Agents by pool and number, with their keys and what they were asked."""

    async def _do(
        self,
        how: Callable[[Callable[[Transaction], T]], Awaitable[T]],
        job: Callable[[Transaction], T],
    ) -> T:
        try:
            return await how(job)
        except (TypeError, ValueError) as exc:
            raise damaged(self._database.path, exc) from exc

    def share_name(self, number: int) -> str:
        """Return the name of a share's pool."""
        return f"{self.name} worker {number}"

    async def add(self, digest: str, items: Sequence[WorkItem]) -> None:
        """Add those *items* that are missing. Items with a fault are tried again.

        Args:
            digest: A short hash of all settings that the items share.
            items: The items of the work.

        Raises:
            UsageError: If the work was begun with a different digest. Nothing was added.
            JournalError: If the file cannot be written. Nothing was added.

        Cancellation:
            Either all items were added or none.
        """

        def insert(transaction: Transaction) -> None:
            fact = _DIGEST_OF + self.name
            transaction.change("INSERT OR IGNORE INTO facts VALUES (?, ?)", fact, digest)
            if transaction.rows("SELECT value FROM facts WHERE name = ?", fact) != [(digest,)]:
                raise UsageError(
                    f"the journal began {self.name!r} with manifests or options that differ from "
                    "these; use the same ones again, or name a different file"
                )
            transaction.change(
                "UPDATE items SET pool = NULL, fault = '' WHERE work = ? AND fault != ''", self.name
            )
            transaction.insert_many(
                "INSERT OR IGNORE INTO items (work, key, text, fault) VALUES (?, ?, ?, '')",
                ((self.name, item.key, item.text) for item in items),
            )

        await self._do(self._database.write, insert)

    async def begin_share(self) -> str:
        """Add a new share for this process, and return its name.

        Raises:
            JournalError: If the file cannot be written.

        Cancellation:
            The share may have been added. If it was, it has no items.
        """

        def add(transaction: Transaction) -> str:
            number = 1
            while transaction.rows("SELECT 1 FROM pools WHERE name = ?", self.share_name(number)):
                number += 1
            begin(transaction, self.share_name(number))
            return self.share_name(number)

        return await self._do(self._database.write, add)

    async def claim(self, lease: Lease, most: int) -> tuple[WorkItem, ...]:
        """Claim the next items for the share of *lease*, and renew the lease.

        Args:
            lease: The right to write the share's pool.
            most: The most items to claim.

        Raises:
            LeaseLostError: If another process continues the share. Nothing was claimed.
            JournalError: If the file cannot be written. Nothing was claimed.

        Cancellation:
            Items may have been claimed; ``items_of`` then lists them.
        """
        # Only a look, most of the time: writers wait for each other, and readers do not.
        if not await self._do(self._database.read, lambda t: t.rows(_NEXT, self.name, 1)):
            return ()

        def take(transaction: Transaction) -> tuple[WorkItem, ...]:
            hold(transaction, lease)
            rows = transaction.rows(_NEXT, self.name, most)
            for number, *_ in rows:
                transaction.change("UPDATE items SET pool = ? WHERE id = ?", lease.pool, number)
            return tuple(_item(row[1:]) for row in rows)

        return await self._do(self._database.write, take)

    async def items_of(self, share: str) -> tuple[WorkItem, ...]:
        """Return the items of a share, in the order in which they were added."""

        def select(transaction: Transaction) -> tuple[WorkItem, ...]:
            rows = transaction.rows(
                "SELECT key, text FROM items WHERE work = ? AND pool = ? ORDER BY id",
                self.name, share,
            )  # fmt: skip
            return tuple(map(_item, rows))

        return await self._do(self._database.read, select)

    async def refuse(self, lease: Lease, key: str, fault: str) -> None:
        """Record why no agent can be made for an item of the share of *lease*.

        Raises:
            LeaseLostError: If another process continues the share. Nothing was kept.
            JournalError: If the file cannot be written. Nothing was kept.
        """

        def keep(transaction: Transaction) -> None:
            hold(transaction, lease)
            transaction.change(
                "UPDATE items SET fault = ? WHERE work = ? AND key = ? AND pool = ?",
                fault, self.name, key, lease.pool,
            )  # fmt: skip

        await self._do(self._database.write, keep)

    async def states(self) -> tuple[ItemState, ...]:
        """Return the progress of each item, in the order in which they were added."""

        def select(transaction: Transaction) -> tuple[ItemState, ...]:
            rows = transaction.rows(
                "SELECT key, pool, fault FROM items WHERE work = ? ORDER BY id", self.name
            )
            return tuple(map(_state, rows))

        return await self._do(self._database.read, select)

    async def shares(self) -> tuple[WorkShare, ...]:
        """Return all shares, oldest first."""
        before = self.share_name(0)[:-1]

        def select(transaction: Transaction) -> tuple[WorkShare, ...]:
            rows = transaction.rows(
                "SELECT name, fence, holder, lease_seconds, renewed_at FROM pools "
                "WHERE substr(name, 1, ?) = ? ORDER BY id",
                len(before), before,
            )  # fmt: skip
            return tuple(map(_share, rows))

        return await self._do(self._database.read, select)

    def stopped_writer(self) -> int | None:
        """Return the stopped process that has locked the file for all others.

        ``None``: no stopped process has locked it, or the system cannot tell.
        """
        holder = lock_holder(self._database.path)
        return holder.pid if holder is not None and holder.is_stopped else None

    async def take_ended(self) -> tuple[EndedItem, ...]:
        """Return the items that got their outcomes since the last call.

        Raises:
            JournalError: If an item's records cannot be read.
        """
        rows = await self._do(self._database.read, lambda t: t.rows(_ENDED, self._seen, self.name))
        ended: list[EndedItem] = []
        for number, pool, agent, kind, body in rows:
            self._seen = number_of(number, "number")
            data = body if isinstance(body, bytes) else b""
            if kind == RecordKind.ACCEPTED.value:
                asked = read_body(data, _Asked)
                digest = hashlib.sha256(asked.query.encode()).hexdigest()
                self._asked[pool, agent] = asked.key, digest
            elif (known := self._asked.pop((pool, agent), None)) is not None:
                ended.append(EndedItem(*known, data))
        return tuple(ended)


def _item(row: Row) -> WorkItem:
    key, text = row
    return WorkItem(text_of(key, "key"), None if text is None else text_of(text, "text"))


def _state(row: Row) -> ItemState:
    key, pool, fault = row
    share = None if pool is None else text_of(pool, "pool")
    return ItemState(text_of(key, "key"), share, text_of(fault, "fault"))


def _share(row: Row) -> WorkShare:
    name, *lease = row
    state = state_of(tuple(lease))
    return WorkShare(text_of(name, "name"), live_holder(state), state.seconds, state.renewed_at)
