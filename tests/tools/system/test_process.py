"""A program and everything that it starts, begun and ended as one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agentpool.tools.system import _process
from agentpool.tools.system._process import Group, Kept, open_group
from tests.support.tool_helpers import all_gone, open_fds, processes_with

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="sessions are POSIX")

SH = "/bin/sh"


@asynccontextmanager
async def shell(
    script: str, *, max_bytes: float = 10**6, keep_bytes: int = 1000, mark: str | None = None
) -> AsyncGenerator[Group, None]:
    """Run *script* in a shell."""
    async with open_group(
        [SH, "-c", script],
        environ={"PATH": os.environ["PATH"]},
        keep_bytes=keep_bytes,
        max_bytes=max_bytes,
        mark=mark,
    ) as group:
        yield group  # noqa: ASYNC119  # a context manager


def unique(name: str) -> str:
    """Return a number of seconds that no other process sleeps, to be found by."""
    return f"{1000 + os.getpid()}.{abs(hash(name)) % 10**9:09}"


async def read_line(group: Group, wanted: bytes) -> None:
    """Wait until the group has written *wanted*."""
    with trio.fail_after(10):
        while wanted not in group.stdout.text().encode():  # noqa: ASYNC110  # what was kept has no event
            await trio.sleep(0.005)


# --- what is kept


def test_an_output_is_cut_between_characters() -> None:
    """In the original a cut within a character ends the process."""
    text = "aé漢🙂" * 100
    for limit in range(8, 60):
        kept = Kept(limit)
        for byte in text.encode():
            kept.add(bytes([byte]))
        shown = kept.text()
        head, _, tail = shown.partition("\n… [")
        count, _, tail = tail.partition(" bytes left out] …\n")
        assert "\ufffd" not in shown
        assert text.startswith(head)
        assert text.endswith(tail)
        assert int(count) == len(text.encode()) - len(head.encode()) - len(tail.encode())
        assert len(head.encode()) + len(tail.encode()) <= limit


def test_an_output_that_fits_is_kept_whole() -> None:
    """And what is not UTF-8 is shown as well as it can be."""
    kept = Kept(10)
    kept.add(b"hel")
    kept.add(b"lo\xff")
    assert (kept.text(), kept.total) == ("hello\ufffd", 6)


def test_memory_is_bounded_whatever_is_written() -> None:
    """The original holds all of the output before it cuts it."""
    kept = Kept(1000)
    for _ in range(1000):
        kept.add(b"x" * 65536)
    assert kept.total == 65_536_000
    assert len(kept._head) + len(kept._tail) <= 2000  # pyright: ignore[reportPrivateUsage]


# --- how it ends


async def test_a_program_runs_to_its_end() -> None:
    """Its outputs apart, its input empty, its environment as given."""
    async with shell("cat; echo out; echo err >&2; env; exit 3") as group:
        await group.run()
    assert group.returncode == 3
    assert group.stdout.text().startswith("out\n")
    assert group.stderr.text() == "err\n"
    assert "HOME" not in group.stdout.text()


async def test_input_is_given_and_not_insisted_on() -> None:
    """A program that does not read all of it is fine."""
    for script, output in (("cat", "x" * 1000), ("exec true", "")):
        async with open_group(
            [SH, "-c", script], stdin=b"x" * 1000 if output else b"x" * 10**6,
            keep_bytes=2000, max_bytes=10**6,
        ) as group:  # fmt: skip
            await group.run()
        assert group.stdout.text() == output
        assert group.returncode == 0


async def test_leaving_the_block_ends_all_of_it() -> None:
    """In the original what a tool started outlives the tool."""
    word = unique("leave")
    await cancelled_run(f"sleep {word} & sleep {word} & echo go; wait")
    assert await all_gone(word)


async def cancelled_run(script: str, *, mark: str | None = None) -> Group:
    """Run *script*, and cancel that when it has said that it goes."""
    groups: list[Group] = []
    with trio.fail_after(20), trio.CancelScope() as scope:
        async with shell(script, mark=mark) as group, trio.open_nursery() as nursery:
            groups.append(group)
            nursery.start_soon(group.run)
            await read_line(group, b"go")
            scope.cancel()
    assert scope.cancelled_caught
    return groups[0]


async def test_a_block_that_raises_ends_it_too() -> None:
    """Whatever happens to whoever started it."""
    word = unique("raise")

    async def start() -> None:
        async with shell(f"sleep {word}"):
            raise RuntimeError("oops")

    with pytest.raises(RuntimeError, match="oops"):
        await start()
    assert await all_gone(word)


async def test_a_program_is_asked_before_it_is_killed() -> None:
    """So that it can put its things in order; but it has a moment for that, not more."""
    group = await cancelled_run(
        "trap 'echo bye; exit 0' TERM; echo go; while :; do sleep 0.01; done"
    )
    assert group.returncode == 0


async def test_a_program_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment later."""
    monkeypatch.setattr(_process, "_GRACE_SECONDS", 0.05)
    word = unique("deaf")
    group = await cancelled_run(f"trap '' TERM; echo go; sleep {word}; sleep {word}")
    assert group.returncode == -signal.SIGKILL
    assert await all_gone(word)


async def test_without_sessions_the_program_itself_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There are platforms that have none; what it started is not found there."""
    monkeypatch.delattr(os, "killpg")
    group = await cancelled_run("echo go; exec sleep 60")
    assert group.returncode == -signal.SIGKILL


async def test_a_grandchild_does_not_outlive_its_parent() -> None:
    """Nor keep the call from ending by holding its output."""
    word = unique("grandchild")
    with trio.fail_after(10):
        async with shell(f"sleep {word} & echo done") as group:
            await group.run()
    assert (group.returncode, group.stdout.text()) == (0, "done\n")
    assert await all_gone(word)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says who has ended")
async def test_a_grandchild_of_a_program_that_has_ended_unseen_is_ended() -> None:
    """The call was cancelled after the program's end, and before anybody took note of it."""
    word = unique("unseen")
    async with shell(f"sleep {word} & echo go") as group:
        with trio.fail_after(10):
            while not _is_zombie(group._process.pid):  # noqa: ASYNC110  # pyright: ignore[reportPrivateUsage]
                await trio.sleep(0.001)
            # One that is being replaced by another program has no command line for a moment.
            while not processes_with(word):  # noqa: ASYNC110  # the system tells no event
                await trio.sleep(0.001)
    assert await all_gone(word)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="found by its environment on Linux only")
@pytest.mark.parametrize("how", ["exits", "is cancelled"])
async def test_who_leaves_the_session_is_found(how: str) -> None:
    """A daemon is in a session of its own, and still carries the mark."""
    word = unique(how)
    script = f"setsid sleep {word} & setsid -f sleep {word}; echo go"
    if how == "exits":
        async with shell(script, mark="m" + word) as group:
            await group.run()
    else:
        group = await cancelled_run(script + f"; sleep {word}", mark="m" + word)
    assert "go" in group.stdout.text()
    assert await all_gone(word)


@pytest.mark.skipif(sys.platform != "linux", reason="found by its environment on Linux only")
async def test_who_leaves_without_the_mark_does_not_keep_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It holds the output open; after a moment nobody waits for that any more."""
    monkeypatch.setattr(_process, "_DRAIN_SECONDS", 0.05)
    word = unique("runaway")
    # It says on 3 that it has left, and holds the output open on 1. Until then it would be
    # ended with its session.
    runaway = f"env -i setsid -f sh -c 'echo left >&3; exec 3>&-; exec sleep {word}'"
    script = f"{{ {runaway} 3>&1 >&4 | read left; }} 4>&1; echo go"
    with trio.fail_after(10):
        async with shell(script, mark="m" + word) as group:
            await group.run()
    assert group.stdout.text() == "go\n"
    (left,) = processes_with(word)
    os.kill(left, signal.SIGKILL)


async def test_without_descriptors_for_processes_it_works_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on macOS, where trio waits in another way."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    word = unique("mac")
    async with shell(f"sleep {word} & echo go") as group:
        await group.run()
    assert group.stdout.text() == "go\n"
    await cancelled_run(f"sleep {word} & echo go; wait")
    assert await all_gone(word)


async def test_an_endless_output_ends_the_program() -> None:
    """Nobody will read it; and of what there was the beginning and the end are kept."""
    with trio.fail_after(20):
        async with shell("yes", max_bytes=500_000) as group:
            await group.run()
    assert group.is_flooded
    assert 500_000 < group.stdout.total < 600_000
    assert len(group.stdout.text()) < 1100


async def test_a_program_that_cannot_be_started_is_an_error() -> None:
    """And leaves nothing open."""
    fds = open_fds()
    with pytest.raises(FileNotFoundError):
        async with open_group(["/no/such/program"], keep_bytes=10, max_bytes=10):
            pytest.fail("it was started")
    assert open_fds() == fds


async def test_nothing_is_left_open() -> None:
    """Neither pipes nor descriptors of processes."""
    fds = open_fds()
    for _ in range(3):
        async with shell("echo x") as group:
            await group.run()
        async with shell("sleep 60"):
            pass
    assert open_fds() == fds
