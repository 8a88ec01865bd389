"""How a worker of a shared map says why it cannot go on."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing

from agentpool import AgentManifest, PoolError
from agentpool._cli._arguments import parse
from agentpool._cli._command import MapCommand
from agentpool._cli._worker import Worker, _broke, _Share
from agentpool._cli._worker_messages import Broke, LineReader, Mouth, Order, Seen, Task, Warned
from agentpool.journal import (
    JournalError,
    LeaseLostError,
    ResumeMismatchError,
    RunBusyError,
    WorkItem,
)
from agentpool.testing import simulate


def order(*words: str) -> Order:
    """Return an order to do what *words* say."""
    return Order(words, "j.db", "map", "map 1", 1, 5.0, None, None)


def lost() -> LeaseLostError:
    """Return the error of a worker that woke up too late."""
    return LeaseLostError("late", pool="map 1", fence=1)


def caused(error: Exception, cause: Exception) -> Exception:
    """Return *error*, raised because of *cause*."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (lost(), "lost"),
        (ExceptionGroup("both", [JournalError("x"), lost()]), "lost"),
        (caused(JournalError("x"), lost()), "lost"),
        (RunBusyError("busy", host="h", pid=1, until=0.0), "busy"),
        (PoolError("all", [ValueError("x"), JournalError("y")]), "wrong"),
        (ValueError("a defect"), None),
    ],
    ids=["lost", "group", "cause", "busy", "wrong", "defect"],
)
def test_the_reason_is_looked_for_in_all_of_an_error(error: Exception, why: str | None) -> None:
    """The loss of a lease first: it explains all others. A defect is none."""
    found = _broke(error)
    assert (found.why if found is not None else None) == why


async def test_a_defect_is_raised_and_a_warning_is_said() -> None:
    """The command sees the end of the process, and its last words."""
    send, receive = trio.testing.memory_stream_one_way_pair()
    worker = Worker(order("run", "x.toml", "Do it."), Mouth(send))
    await worker._warn("odd")
    with pytest.raises(AssertionError):
        await worker.run()
    lines = LineReader(receive)
    first, second = [await lines.next_line() for _ in range(2)]
    assert msgspec.json.decode(first or b"", type=Warned) == Warned("odd")
    assert msgspec.json.decode(second or b"", type=Seen).deadlocks == 0


async def test_a_text_that_changed_after_it_was_shared_is_told() -> None:
    """Between the look of the command and that of the worker."""
    send, _ = trio.testing.memory_stream_one_way_pair()
    words = order("map", "r.toml", "--each", "a.txt", "--journal", "j.db", "--workers", "2")
    command = parse(words.words)
    assert isinstance(command, MapCommand)

    async def spawn(_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ResumeMismatchError("other", agent_id=1, place=-1, differs="the query")

    share = _Share(
        Worker(words, Mouth(send)),
        command,
        command.options,
        [AgentManifest(name="r")],
        cast("Any", SimpleNamespace(spawn=spawn)),
        cast("Any", None),
        cast("Any", None),
    )
    text = msgspec.json.encode(Task(query="Edit.")).decode()
    with pytest.raises(
        Exception, match=r"editor: journal 'j\.db' already has an input with this"
    ) as raised:
        await share._ask(WorkItem("editor", text), None)
    assert isinstance(_broke(raised.value), Broke)


def test_a_worker_whose_command_is_gone_ends_whatever_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its agents are told first, and have five seconds."""
    ended = list[int]()
    monkeypatch.setattr("os._exit", ended.append)

    async def main() -> None:
        send, receive = trio.testing.memory_stream_one_way_pair()
        worker = Worker(order("map"), Mouth(send))
        await send.aclose()
        began = trio.current_time()
        await worker.listen(LineReader(receive))
        assert worker.interruption.reason == "the command has ended"
        assert (ended, trio.current_time() - began) == ([1], 5.0)

    simulate(main)


def test_a_worker_that_is_told_nothing_ends() -> None:
    """Its command was killed before it said what to do."""
    done = subprocess.run(
        [sys.executable, "-c", "from agentpool._cli._worker import main; main()"],
        input=b"", capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, b"")
