"""A file that another process has locked: who has it is said, and a stopped one waited for."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from agentpool import AgentManifest, AgentStatus, SpawnConfig, open_pool
from agentpool._file_lock import lock_holder
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver
from agentpool.journal import JournalError, JournalRecord, RecordKind, open_journal
from agentpool.testing import simulate

MANIFEST = AgentManifest(capabilities=())

RECORD = JournalRecord(1, RecordKind.RESULT)

HOLDER = """
import os, signal, sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
holder = '{"host":"here","pid":%d,"started":""}' % os.getpid()
file.execute("INSERT INTO pools VALUES (9, 'night', 0, 1, ?, 30, 0)", (holder,))
file.executescript(sys.argv[2])
print("held", flush=True)
if sys.argv[3] == "stopped":
    os.kill(os.getpid(), signal.SIGSTOP)
sys.stdin.read()
"""

IN_LOG = "BEGIN IMMEDIATE"

WHOLE = "PRAGMA locking_mode = EXCLUSIVE; DELETE FROM facts"
"""So that not even a reader comes in."""


@contextmanager
def holder(path: Path, state: str, script: str = IN_LOG) -> Iterator[subprocess.Popen[str]]:
    """Have a process that owns the pool ``night`` lock the file *path* in the block."""
    command = [sys.executable, "-ISc", HOLDER, str(path), script, state]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            wanted = {"stopped": "T", "waiting": "S"}[state]
            until = time.monotonic() + 60
            while state_of(process.pid) != wanted:
                assert time.monotonic() < until
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def state_of(pid: int) -> str:
    """Return the letter that the system has for a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_stopped_process_is_waited_for_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However long: none fails for it, and the record is kept once it lets go."""
    path = tmp_path / "j.db"

    async def main() -> None:
        async with open_journal(path) as journal:
            lease = await journal.claim("mine")
            with holder(path, "stopped") as process:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(journal.append, lease, [RECORD])
                    await trio.sleep(120)
                    assert nursery.child_tasks
                    process.kill()
                    process.wait()
                (said,) = caplog.messages
                assert said == (
                    f"waiting for journal file {str(path)!r}: process {process.pid} "
                    f"({process_name()}), which runs 'night', is stopped and has it locked; let "
                    f"it go on (kill -CONT {process.pid}), or end it (kill -KILL {process.pid})"
                )
            assert list(await journal.read("mine")) == [RECORD]

    caplog.set_level(logging.WARNING, "agentpool")
    simulate(main)


def process_name() -> str:
    """Return what the system calls this program."""
    return Path(f"/proc/{os.getpid()}/comm").read_text().strip()


def test_a_process_that_keeps_a_file_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It could let go, and does not: half a minute is enough."""
    path = tmp_path / "j.db"

    async def main() -> None:
        async with open_journal(path) as journal:
            lease = await journal.claim("mine")
            with holder(path, "waiting") as process:
                who = rf"process {process.pid} \(.*\)"
                with pytest.raises(JournalError, match=rf"locked; {who} has held it for 30 sec"):
                    await journal.append(lease, [RECORD])
                assert trio.current_time() == pytest.approx(30, abs=0.5)
                (said,) = caplog.messages
                assert said.endswith("which runs 'night', has it locked")
            assert await journal.read("mine") == ()

    caplog.set_level(logging.WARNING, "agentpool")
    simulate(main)


def test_whoever_has_the_whole_file_is_named_without_its_pools(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They cannot be read."""

    async def main() -> None:
        async with open_journal(tmp_path / "j.db") as journal:
            await journal.claim("mine")
        named = r"process \d+ \(.*\) has held it for 30 sec"
        with holder(tmp_path / "j.db", "waiting", WHOLE), pytest.raises(JournalError, match=named):
            async with open_journal(tmp_path / "j.db"):
                raise AssertionError
        (said,) = caplog.messages
        assert said.endswith(") has it locked")

    caplog.set_level(logging.WARNING, "agentpool")
    simulate(main)


def test_what_the_system_does_not_tell_is_not_guessed(tmp_path: Path) -> None:
    """A file that is not there has no writer, and one that is free has none."""
    assert lock_holder(tmp_path / "none.db") is None
    (tmp_path / "free.db").touch()
    assert lock_holder(tmp_path / "free.db") is None


def test_a_file_of_the_same_number_on_another_disk_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless who has it locked has this one open: some file systems name two disks."""
    path = tmp_path / "j.db"
    path.touch()
    found = path.stat()
    monkeypatch.setattr("agentpool._file_lock._LOCKS", tmp_path / "locks")
    here = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    line = "1: POSIX  ADVISORY  WRITE {pid} {disk}:{number} 1073741824 1073741825\n"

    def holder_by(pid: int, disk: str) -> int | None:
        (tmp_path / "locks").write_text(line.format(pid=pid, disk=disk, number=found.st_ino))
        holder = lock_holder(path)
        return None if holder is None else holder.pid

    me = os.getpid()
    assert holder_by(me, here) == me
    assert holder_by(me, "ff:fe") is None
    with path.open():
        assert holder_by(me, "ff:fe") == me
    assert holder_by(2**22 + 1, "ff:fe") is None  # a process that is gone


@pytest.mark.parametrize("how", ["cancelled", "aborted"])
def test_a_pool_that_ends_does_not_wait_for_ever(tmp_path: Path, how: str) -> None:
    """What it could not keep is done again by the next process."""
    path = tmp_path / "j.db"

    async def main() -> None:
        heard = trio.Event()

        async def answer(_: CompletionRequest) -> str:
            await heard.wait()
            return "done"

        async with open_journal(path) as journal:
            with trio.CancelScope() as scope, suppress(JournalError):
                async with open_pool(FunctionDriver(answer), journal=journal) as pool:
                    handle = await pool.spawn(SpawnConfig(MANIFEST, "go", key="one"))
                    await trio.testing.wait_all_tasks_blocked()
                    with holder(path, "stopped") as process:
                        heard.set()
                        await trio.sleep(120)
                        assert handle.outcome is None
                        if how == "cancelled":
                            scope.cancel()
                        else:
                            pool.abort_all()
                        with trio.CancelScope(shield=True):
                            await trio.sleep(31)
                        assert handle.outcome is not None
                        assert handle.outcome.status is AgentStatus.CANCELLED  # type: ignore[unreachable]  # it has ended since
                        assert process.poll() is None

    simulate(main)
