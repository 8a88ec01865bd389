"""Work that several processes share: each item in one share, and one process at a share."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from agentpool import AgentManifest, SpawnConfig, UsageError, open_pool
from agentpool.drivers import FunctionDriver
from agentpool.journal import (
    ItemState,
    JournalError,
    JournalRecord,
    Lease,
    LeaseLostError,
    RecordKind,
    SharedWork,
    SqliteJournal,
    WorkItem,
    open_journal,
)
from agentpool.observe import outcome_from_json

READER = AgentManifest(name="reader", capabilities=())
ITEMS = [WorkItem(f"item {number}") for number in range(12)]

steps = st.lists(
    st.tuples(
        st.sampled_from(["claim", "take over", "refuse", "end"]),
        st.integers(1, 3),
        st.booleans(),
        st.integers(1, 5),
    ),
    max_size=25,
)


class Crew:
    """Three shares, each with the process that has it and one that had it before."""

    def __init__(self, journal: SqliteJournal, work: SharedWork) -> None:
        """Begin with no share."""
        self.journal, self.work = journal, work
        self.leases: dict[int, list[Lease]] = {}
        self.given: dict[str, int] = {}
        """Items with the share that got them."""
        self.ended: dict[str, int] = {}

    async def do(self, name: str, number: int, is_old: bool, most: int) -> None:  # noqa: FBT001  # drawn
        """Do one thing in the name of the process that has a share, or had it before."""
        known = self.leases.setdefault(number, [])
        share = self.work.share_name(number)
        if name == "take over" or not known:
            known.append(await self.journal.claim(share))
            return
        is_old = is_old and len(known) > 1
        lease = known[-2] if is_old else known[-1]
        mine = [key for key, of in self.given.items() if of == number and key not in self.ended]
        try:
            if name == "claim":
                items = await self.work.claim(lease, most)
                assert not is_old or not items
                for item in items:
                    assert item.key not in self.given
                    self.given[item.key] = number
            elif name == "refuse" and mine:
                await self.work.refuse(lease, mine[0], "unreadable")
                assert not is_old
            elif name == "end" and mine:
                await self.journal.append(lease, [JournalRecord(1, RecordKind.RESULT, body=b"1")])
                assert not is_old
                self.ended[mine[0]] = number
        except LeaseLostError:
            assert is_old


@given(steps)
@settings(max_examples=30, deadline=None)
def test_an_item_is_in_one_share_and_an_old_process_gets_none(
    todo: list[tuple[str, int, bool, int]],
) -> None:
    """Whoever was replaced claims nothing, keeps nothing and refuses nothing."""

    async def main(folder: Path) -> None:
        async with open_journal(folder / "j.db") as journal:
            work = journal.shared_work("map")
            await work.add("digest", ITEMS)
            crew = Crew(journal, work)
            for step in todo:
                await crew.do(*step)
            found = {one.key: one.share for one in await work.states() if one.share}
            assert found == {key: work.share_name(of) for key, of in crew.given.items()}
            for number in crew.leases:
                keys = [item.key for item in await work.items_of(work.share_name(number))]
                assert sorted(keys) == sorted(k for k, of in crew.given.items() if of == number)
            shares = [one.pool for one in await work.shares()]
            assert sorted(shares) == [work.share_name(number) for number in sorted(crew.leases)]

    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, Path(folder))


async def test_work_that_is_added_again_is_the_same(tmp_path: Path) -> None:
    """New items come on top; with other manifests nothing changes."""
    async with open_journal(tmp_path / "j.db") as journal:
        work = journal.shared_work("map")
        await work.add("d", ITEMS[:2])
        lease = await journal.claim(work.share_name(1))
        assert await work.claim(lease, 1) == (ITEMS[0],)
        await work.add("d", [*ITEMS[:2], WorkItem("editor", "all notes")])
        assert await work.claim(lease, 9) == (ITEMS[1], WorkItem("editor", "all notes"))
        assert await work.claim(lease, 9) == ()
        with pytest.raises(UsageError, match="'map' with manifests or options that differ"):
            await work.add("other", [WorkItem("more")])
        assert [one.key for one in await work.states()] == ["item 0", "item 1", "editor"]
        other = journal.shared_work("run")
        await other.add("other", ITEMS[:1])
        assert await other.states() == (ItemState("item 0", None, ""),)


async def test_a_new_share_is_nobody_elses(tmp_path: Path) -> None:
    """Also if two commands begin at once."""
    names = list[str]()
    async with (
        open_journal(tmp_path / "j.db") as one,
        open_journal(tmp_path / "j.db") as other,
        trio.open_nursery() as nursery,
    ):

        async def begin(work: SharedWork) -> None:
            names.extend([await work.begin_share(), await work.begin_share()])

        nursery.start_soon(begin, one.shared_work("map"))
        nursery.start_soon(begin, other.shared_work("map"))
    assert sorted(names) == [f"map worker {number}" for number in (1, 2, 3, 4)]


async def test_a_fault_is_tried_again_with_the_next_beginning(tmp_path: Path) -> None:
    """Maybe the file is there by then."""
    async with open_journal(tmp_path / "j.db") as journal:
        work = journal.shared_work("map")
        await work.add("d", ITEMS[:1])
        lease = await journal.claim(work.share_name(1))
        await work.claim(lease, 1)
        await work.refuse(lease, "item 0", "no such file")
        assert await work.states() == (ItemState("item 0", "map worker 1", "no such file"),)
        await work.add("d", ITEMS[:1])
        assert await work.states() == (ItemState("item 0", None, ""),)


async def test_what_ended_is_read(tmp_path: Path) -> None:
    """Once, with the outcome as its process had it, and what was asked."""
    async with open_journal(tmp_path / "j.db") as journal:
        work = journal.shared_work("map")
        await work.add("d", ITEMS[:2])
        share = work.share_name(1)
        lease = await journal.claim(share)
        await work.claim(lease, 2)
        await journal.release(lease)

        async def ask(query: str, key: str) -> None:
            driver = FunctionDriver(lambda _: "done")
            async with open_pool(driver, name=share, journal=journal, resume=True) as pool:
                await (await pool.spawn(SpawnConfig(READER, query, key=key))).wait()
                (running,) = await work.shares()
                assert (running.owner is not None, running.seconds) == (True, 30)

        await ask("hello", "item 0")
        (ended,) = await work.take_ended()
        assert (ended.key, ended.asked) == ("item 0", hashlib.sha256(b"hello").hexdigest())
        assert outcome_from_json(ended.outcome).text == "done"
        assert await work.take_ended() == ()
        await ask("you", "item 1")
        assert [one.key for one in await work.take_ended()] == ["item 1"]
        assert len(await journal.shared_work("map").take_ended()) == 2
        assert (await work.shares())[0].owner is None


async def test_a_damaged_record_of_an_item_is_told(tmp_path: Path) -> None:
    """And not taken for what it is not."""
    async with open_journal(tmp_path / "j.db") as journal:
        work = journal.shared_work("map")
        await work.add("d", ITEMS[:1])
        lease = await journal.claim(work.share_name(1))
        await work.claim(lease, 1)
        # An end of an agent that none has asked anything of is no item's.
        await journal.append(lease, [JournalRecord(1, RecordKind.ENDED, body=b"{}")])
        assert await work.take_ended() == ()
        await journal.append(lease, [JournalRecord(1, RecordKind.ACCEPTED, body=b"{}")])
        with pytest.raises(JournalError, match="a record that cannot be read"):
            await work.take_ended()
        with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as file:
            file.execute("UPDATE pools SET fence = 'many'")
        with pytest.raises(JournalError, match="is damaged: fence is 'many'"):
            await work.shares()
