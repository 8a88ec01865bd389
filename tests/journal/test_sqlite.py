"""What a journal in a file does beyond the contract: it lasts, and has one owner."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from agentpool import AgentManifest, SpawnConfig, UsageError, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver
from agentpool.journal import (
    JournalError,
    JournalRecord,
    Lease,
    LeaseLostError,
    RecordKind,
    RunBusyError,
    open_journal,
)
from agentpool.journal._holder import start_of
from agentpool.testing import simulate

QUICK_SECONDS = "agentpool._database.database.QUICK_SECONDS"

ACCEPTED = JournalRecord(1, RecordKind.ACCEPTED, body=b"{}")
ENDED = JournalRecord(1, RecordKind.ENDED, body=b"{}")
RESULT = JournalRecord(1, RecordKind.RESULT, 0, body=b"x" * 1000)

WRITER = """
import sys, trio
from agentpool.journal import JournalRecord, LeaseLostError, RecordKind, open_journal

async def main():
    async with open_journal(sys.argv[1]) as journal:
        lease = await journal.claim("shared", lease_seconds=float(sys.argv[2]))
        number = 0
        while True:
            number += 1
            record = JournalRecord(number, RecordKind.RESULT, body=b"%d" % number)
            try:
                await journal.append(lease, [record])
            except LeaseLostError:
                print("lost", flush=True)
                return
            print(number, flush=True)
            await trio.sleep(0.001)

trio.run(main)
"""


def start_writer(path: Path, lease_seconds: float = 30.0) -> subprocess.Popen[str]:
    """Start a process that owns the pool ``shared`` and writes numbers into it."""
    command = [sys.executable, "-c", WRITER, str(path), str(lease_seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_records_outlast_a_kill(tmp_path: Path) -> None:
    """Every number that the writer was told is kept is there after kill -9."""
    path = tmp_path / "j"
    with start_writer(path) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(20)]
        writer.kill()
        told += [int(line) for line in writer.stdout if line.endswith("\n")]
    async with open_journal(path) as journal:
        found = [record.agent_id for record in await journal.read("shared")]
        assert found[: len(told)] == told
        assert len(found) - len(told) in {0, 1}
        # Its process is gone, so nobody has to wait for the end of its lease.
        assert (await journal.claim("shared")).fence == 2


async def test_a_killed_process_is_dead_before_its_parent_waits_for_it(tmp_path: Path) -> None:
    """The parent may never do so, as in a container whose first process is a program."""
    path = tmp_path / "j"
    with start_writer(path) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.kill()
        how = os.WEXITED | os.WNOWAIT
        await trio.to_thread.run_sync(os.waitid, os.P_PID, writer.pid, how)
        async with open_journal(path) as journal:
            (summary,) = await journal.pools()
            assert summary.owner is None
            assert (await journal.claim("shared")).fence == 2
        assert writer.returncode is None  # nobody has waited


def test_a_process_whose_first_thread_has_ended_goes_on() -> None:
    """As a program may end it that was embedded."""
    program = (
        "import ctypes, sys, threading;"
        "threading.Thread(target=sys.stdin.read).start();"
        "print('ready', flush=True);"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stat = Path(f"/proc/{process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            os.sched_yield()  # until the thread has ended
        started = start_of(process.pid)
        process.kill()
    assert started.isdigit()


async def test_one_process_writes_a_pool(tmp_path: Path) -> None:
    """The other is told who does, where, and until when."""
    path = tmp_path / "j"
    with start_writer(path) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        async with open_journal(path) as journal:
            with pytest.raises(RunBusyError, match=f"process {writer.pid} on ") as caught:
                await journal.claim("shared")
            assert caught.value.pid == writer.pid
            assert 0 < caught.value.until - time.time() <= 30
            (summary,) = await journal.pools()
            assert summary.owner is not None
            assert summary.owner.pid == writer.pid
            await journal.claim("another")
        writer.kill()


async def test_a_stalled_owner_loses_its_lease_and_writes_no_more(tmp_path: Path) -> None:
    """Stopped, taken over, continued: not one row of it after that."""
    path = tmp_path / "j"
    with start_writer(path, lease_seconds=0.05) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGSTOP)
        async with open_journal(path) as journal:
            lease = None
            while lease is None:
                try:
                    lease = await journal.claim("shared")
                except RunBusyError:
                    await trio.sleep(0.01)
            before = len(await journal.read("shared"))
            writer.send_signal(signal.SIGCONT)
            assert [line for line in writer.stdout if line == "lost\n"] == ["lost\n"]
            assert len(await journal.read("shared")) == before
            await journal.append(lease, [ACCEPTED])


async def test_a_second_opening_in_one_process_waits_like_another_process(tmp_path: Path) -> None:
    """A server may open the file for each request: the healthy holder keeps its lease."""
    path = tmp_path / "j"
    async with open_journal(path) as second:
        async with open_journal(path) as first:
            lease = await first.claim("p")
            with pytest.raises(RunBusyError, match="open in this process already, by a second"):
                await second.claim("p")
            await first.append(lease, [ACCEPTED])
            assert (await first.claim("p")).fence == 2  # its own, after a cancelled claim
        assert (await second.claim("p")).fence == 3  # never given back, and its holder is gone


@pytest.mark.parametrize("gone", ["moved", "deleted", "replaced"])
async def test_a_file_that_was_taken_away_is_not_written_any_more(
    tmp_path: Path, gone: str
) -> None:
    """What is written then would be lost, so it is told; what stood there is kept."""
    path, other = tmp_path / "j", tmp_path / "other"
    async with open_journal(path) as journal:
        lease = await journal.claim("p")
        await journal.append(lease, [ACCEPTED])
        path.rename(other)
        if gone == "replaced":
            path.write_bytes(b"")
        elif gone == "deleted":
            other.unlink()
        assert [one.agent_id for one in await journal.read("p")] == [ACCEPTED.agent_id]
        with pytest.raises(JournalError, match="was moved, deleted or replaced while it was open"):
            await journal.append(lease, [ACCEPTED])
        with pytest.raises(JournalError, match="put it back"):
            journal.append_at_once(lease, [ACCEPTED])
        if gone == "moved":
            other.rename(path)
            await journal.append(lease, [ACCEPTED])


async def test_a_file_is_written_after_the_working_directory_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name may be relative."""
    monkeypatch.chdir(tmp_path)
    async with open_journal("j") as journal:
        monkeypatch.chdir(tmp_path.parent)
        await journal.append(await journal.claim("p"), [ACCEPTED])


async def test_a_process_number_that_came_again_holds_nothing(tmp_path: Path) -> None:
    """The lease of a process that ended is free, whoever has its number now."""
    path = tmp_path / "j"
    async with open_journal(path) as journal:
        await journal.claim("p")
        edit(path, 'UPDATE pools SET holder = replace(holder, \'"started":"\', \'"started":"9\')')
        assert (await journal.claim("p")).fence == 2


@pytest.mark.parametrize(
    ("host", "pid"), [("elsewhere.example", 1), (None, 1)], ids=["another machine", "pid 1"]
)
async def test_a_live_holder_is_waited_for(tmp_path: Path, host: str | None, pid: int) -> None:
    """One elsewhere cannot be looked at, and one that cannot be signalled is alive."""
    path = tmp_path / "j"
    holder = f'{{"host":"{host or os.uname().nodename}","pid":{pid},"started":""}}'
    async with open_journal(path) as journal:
        await journal.claim("p", lease_seconds=1000.0)
        edit(path, "UPDATE pools SET holder = ?", holder)
        with pytest.raises(RunBusyError, match="until it has written nothing for"):
            await journal.claim("p")
        edit(path, "UPDATE pools SET renewed_at = renewed_at - 1000")
        assert (await journal.claim("p")).fence == 2


async def test_a_process_of_somebody_else_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be signalled, and where there is no /proc nobody knows when it started."""

    def refuse(pid: int, number: int) -> None:
        raise PermissionError(1, "not permitted", str((pid, number)))

    monkeypatch.setattr(os, "kill", refuse)
    path = tmp_path / "j"
    assert start_of(0) == ""
    async with open_journal(path) as journal:
        await journal.claim("p")
        holder = f'{{"host":"{os.uname().nodename}","pid":2,"started":"9"}}'
        edit(path, "UPDATE pools SET holder = ?", holder)
        with pytest.raises(RunBusyError, match="process 2 on"):
            await journal.claim("p")


def edit(path: Path, sql: str, *values: object) -> None:
    """Change the file behind the journal's back."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(sql, values)
    connection.close()


def test_a_clock_that_went_back_keeps_nobody_waiting_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is silent for the length of the lease has lost it; who writes has not. It is told."""
    caplog.set_level(logging.WARNING, "agentpool")
    simulate(outwait_a_lease, tmp_path / "j", caplog)


async def outwait_a_lease(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Claim what another holds whose clock is a day ahead, and who writes once."""
    holder = '{"host":"elsewhere.example","pid":1,"started":""}'
    async with open_journal(path) as journal:
        await journal.claim("p", lease_seconds=60.0)
        ahead = "UPDATE pools SET holder = ?, renewed_at = ?"
        edit(path, ahead, holder, time.time() + 86_400)
        async with trio.open_nursery() as nursery:

            async def write_in_between() -> None:
                await trio.sleep(30)
                edit(path, ahead, holder, time.time() + 86_430)

            nursery.start_soon(write_in_between)
            with pytest.raises(RunBusyError, match=r"last write is 86,\d+ seconds ahead of the"):
                await journal.claim("p")
        assert trio.current_time() == 60
        (told,) = caplog.messages
        assert "process 1 on elsewhere.example; its last write is 86,400 seconds ahead of " in told
        assert told.endswith("; waiting 60 seconds to see whether it writes")
        (summary,) = await journal.pools()
        assert 86_000 < summary.ahead_seconds <= 86_430
        assert (await journal.claim("p")).fence == 2
        assert [one.ahead_seconds for one in await journal.pools()] == [0.0]


async def test_a_lease_that_is_given_back_is_free(tmp_path: Path) -> None:
    """For any process, at once."""
    async with open_journal(tmp_path / "j") as journal:
        await journal.release(await journal.claim("p", lease_seconds=1e6))
        assert [one.owner for one in await journal.pools()] == [None]
        with pytest.raises(UsageError, match="lease_seconds must be > 0, got 0"):
            await journal.claim("p", lease_seconds=0)


async def test_a_pool_is_summed_up_and_pruned(tmp_path: Path) -> None:
    """An open one is left alone; of an ended one the questions and answers stay."""
    path = tmp_path / "j"
    async with open_journal(path) as journal:
        assert journal.path == path
        lease = await journal.claim("p")
        await journal.append(lease, [ACCEPTED, *[RESULT] * 500])
        (summary,) = await journal.pools()
        assert (summary.agents, summary.ended, summary.is_open) == (1, 0, True)
        assert summary.bytes == 500_002
        assert abs(summary.created_at - time.time()) < 60
        with pytest.raises(JournalError, match="in use by process"):
            await journal.prune("p")
        await journal.release(lease)
        with pytest.raises(JournalError, match="not over: 0 of 1 agents"):
            await journal.prune("p")
        lease = await journal.claim("p")
        await journal.append(lease, [ENDED])
        with pytest.raises(JournalError, match="in use by process"):  # somebody may still write it
            await journal.prune("p")
        await journal.release(lease)
        assert await journal.prune("p") == 500
        assert path.stat().st_size < 50_000
        assert path.with_name("j-wal").stat().st_size == 0
        assert list(await journal.read("p")) == [ACCEPTED, ENDED]
        with pytest.raises(JournalError, match=r"no pool 'q'; it has \['p'\]"):
            await journal.prune("q")


async def test_what_is_no_journal_is_left_as_it_is(tmp_path: Path) -> None:
    """Another file, a later format, a folder, a record of a later version: each is named."""
    other = tmp_path / "other"
    other.write_text("not a database, but a text that is long enough to be taken for one" * 100)
    with pytest.raises(JournalError, match="it is not a journal"):
        async with open_journal(other):
            raise AssertionError
    assert other.read_text().startswith("not a database")
    newer = tmp_path / "newer"
    async with open_journal(newer) as journal:
        await journal.append(await journal.claim("p"), [ACCEPTED])
    edit(newer, "UPDATE records SET kind = 'dreamt'")
    async with open_journal(newer) as journal:
        with pytest.raises(JournalError, match="does not know: 'dreamt' is not a valid RecordKind"):
            await journal.read("p")
    edit(newer, "PRAGMA user_version = 99")
    before = newer.read_bytes()
    with pytest.raises(JournalError, match="format 99"):
        async with open_journal(newer):
            raise AssertionError
    assert newer.read_bytes() == before
    with pytest.raises(JournalError, match="its folder must exist"):
        async with open_journal(tmp_path / "none" / "j"):
            raise AssertionError
    with pytest.raises(JournalError, match="there is no such file, and whoever only reads"):
        async with open_journal(tmp_path / "none", read_only=True):
            raise AssertionError
    async with open_journal(tmp_path / "j"):
        pass
    with pytest.raises(JournalError, match="open it without read_only=True"):
        async with open_journal(tmp_path / "j", read_only=True) as journal:
            await journal.claim("p")
    with pytest.raises(UsageError, match="durability must be 'process', 'power' or None, got"):
        async with open_journal(newer, durability="both"):  # type: ignore[arg-type]  # on purpose
            raise AssertionError


async def test_the_file_says_what_it_survives(tmp_path: Path) -> None:
    """It is the owner's alone, too."""
    path = tmp_path / "j"
    told = [(None, "process"), ("power", "power"), (None, "power"), ("process", "process")]
    for durability, said in told:
        async with open_journal(path, durability=durability):  # type: ignore[arg-type]  # words
            pass
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT value FROM facts").fetchall() == [(said,)]
        connection.close()


async def test_an_old_lease_is_told_apart_by_its_pool(tmp_path: Path) -> None:
    """The error has what somebody needs who looks for the other process."""
    async with open_journal(tmp_path / "j") as journal:
        with pytest.raises(LeaseLostError, match="took over pool 'p'") as caught:
            await journal.append(Lease("p", 7, 30.0), [ACCEPTED])
    assert (caught.value.pool, caught.value.fence) == ("p", 7)


async def test_a_lease_that_was_damaged_meanwhile_is_told(tmp_path: Path) -> None:
    """Nothing is kept with it."""
    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p")
        with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as file:
            file.execute("UPDATE pools SET fence = 'many'")
        with pytest.raises(
            JournalError,
            match=r"fence is 'many', not a whole number from 0 to \d+; rest",
        ):
            await journal.append(lease, [JournalRecord(1, RecordKind.ACCEPTED)])
        assert await journal.read("p") == ()
        # The file is quick by now.
        with pytest.raises(
            JournalError,
            match=r"fence is 'many', not a whole number from 0 to \d+; rest",
        ):
            journal.append_at_once(lease, [JournalRecord(1, RecordKind.ACCEPTED)])
        with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as file:
            deep = '{"x":' + "[" * 1_000_000
            file.execute("UPDATE pools SET fence = 1, holder = ?", (deep,))
        with pytest.raises(JournalError, match="is damaged: a holder is nested too deeply"):
            await journal.pools()


async def test_a_write_renews_a_lease_that_is_not_new(tmp_path: Path) -> None:
    """And leaves one alone that is, which saves a page of the file."""

    def renewed_at() -> float:
        with closing(sqlite3.connect(tmp_path / "j.db")) as file:
            (found,) = file.execute("SELECT renewed_at FROM pools").fetchone()
            return float(found)

    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p", lease_seconds=1e9)
        claimed_at = renewed_at()
        await journal.append(lease, [JournalRecord(1, RecordKind.RESULT)])
        assert renewed_at() == claimed_at
        lease = await journal.claim("p", lease_seconds=1e-9)
        claimed_at = renewed_at()
        await journal.append(lease, [JournalRecord(1, RecordKind.RESULT)])
        assert renewed_at() > claimed_at


async def test_who_finds_the_file_locked_waits_without_a_thread(tmp_path: Path) -> None:
    """Others of the program go on, and the record is kept once the file is free."""
    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p")
        await journal.append(lease, [JournalRecord(1, RecordKind.RESULT)])
        with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.append, lease, [JournalRecord(1, RecordKind.RESULT)])
                await trio.testing.wait_all_tasks_blocked()
                other.execute("ROLLBACK")
        assert len(await journal.read("p")) == 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no file be slow, however busy the machine is."""
    monkeypatch.setattr(QUICK_SECONDS, 1000.0)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 9, 50])
async def test_what_is_written_at_once_is_in_its_order(tmp_path: Path, count: int) -> None:
    """However many records come together, after a write that has seen the lease."""
    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p")
        await journal.append(lease, [ACCEPTED])
        records = [JournalRecord(number, RecordKind.RESULT, number) for number in range(count)]
        assert journal.append_at_once(lease, records)
        assert await journal.read("p") == (ACCEPTED, *records)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "change", ["fence = fence + 1", "holder = ''", "fence = fence + 1, renewed_at = 0"]
)
async def test_what_is_written_at_once_needs_the_lease(tmp_path: Path, change: str) -> None:
    """Also where the lease was seen a moment ago: nothing is kept once it is another's."""
    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p")
        await journal.append(lease, [ACCEPTED])
        assert journal.append_at_once(lease, [ACCEPTED])
        edit(tmp_path / "j.db", f"UPDATE pools SET {change}")  # noqa: S608  # our own words
        with pytest.raises(LeaseLostError):
            journal.append_at_once(lease, [ACCEPTED])
        assert await journal.read("p") == (ACCEPTED, ACCEPTED)


@pytest.mark.usefixtures("quick")
def test_a_pool_that_is_idle_for_long_keeps_its_lease(tmp_path: Path) -> None:
    """Though the wall clock has hardly moved: there is nothing to write, and nothing breaks."""

    async def think(_: CompletionRequest) -> str:
        await trio.sleep(100)
        return "done"

    async def scenario() -> str:
        async with (
            open_journal(tmp_path / "idle.db") as journal,
            open_pool(FunctionDriver(think), journal=journal) as pool,
        ):
            config = SpawnConfig(AgentManifest(), "go", key="a")
            return (await (await pool.spawn(config)).wait()).text

    assert simulate(scenario) == "done"


@pytest.mark.usefixtures("quick")
async def test_a_lease_that_grew_old_is_renewed_by_what_is_written_at_once(tmp_path: Path) -> None:
    """A write of another connection to the same lease is no loss of it either."""
    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p", lease_seconds=600)
        await journal.append(lease, [ACCEPTED])
        edit(tmp_path / "j.db", "UPDATE pools SET renewed_at = renewed_at - 300")
        before = time.time()
        assert journal.append_at_once(lease, [ACCEPTED])
        with closing(sqlite3.connect(tmp_path / "j.db")) as file:
            ((renewed_at,),) = file.execute("SELECT renewed_at FROM pools")
        assert renewed_at >= before - 1
        assert len(await journal.read("p")) == 2


@pytest.mark.usefixtures("quick")
async def test_what_finds_the_file_locked_is_not_written_at_once(tmp_path: Path) -> None:
    """Whoever asked waits for it, as for any other write."""
    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p")
        await journal.append(lease, [ACCEPTED])
        with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert not journal.append_at_once(lease, [ACCEPTED])
        await journal.append(lease, [ACCEPTED])
        assert len(await journal.read("p")) == 2


async def test_a_file_that_is_slow_is_written_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a write was quick again: no task waits for a disk."""
    monkeypatch.setattr(QUICK_SECONDS, 1000.0)
    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p")
        await journal.append(lease, [ACCEPTED])
        monkeypatch.setattr(QUICK_SECONDS, 0.0)
        assert journal.append_at_once(lease, [ACCEPTED])
        assert journal.append_at_once(lease, [ACCEPTED])
        assert not journal.append_at_once(lease, [ACCEPTED])
        monkeypatch.setattr(QUICK_SECONDS, 1000.0)
        await journal.append(lease, [ACCEPTED])
        assert journal.append_at_once(lease, [ACCEPTED])


@pytest.mark.usefixtures("quick")
async def test_a_write_at_once_that_fails_says_so(tmp_path: Path) -> None:
    """With the file's name, and nothing is kept."""
    async with open_journal(tmp_path / "j.db") as journal:
        lease = await journal.claim("p")
        await journal.append(lease, [ACCEPTED])
        edit(
            tmp_path / "j.db",
            "CREATE TRIGGER no BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        with pytest.raises(JournalError, match=r"j\.db': no; look at the file"):
            journal.append_at_once(lease, [ACCEPTED])
        assert await journal.read("p") == (ACCEPTED,)
