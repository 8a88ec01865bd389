"""How a command deals with its workers, which are shell scripts here: a line each in no time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import msgspec
import pytest
import trio
import trio.testing

from agentpool import UsageError
from agentpool._cli import _worker_processes
from agentpool._cli._worker_messages import Broke, End, Order, Ready, Seen, Stop, Warned, encode
from agentpool._cli._worker_processes import MAX_CRASHES, Crew, Member
from agentpool.journal import ItemState, LeaseHolder, WorkShare
from agentpool.live import Board

ORDER = Order(("map",), "j.db", "map", "map 1", 1, 5.0, None, None)


@attrs.define(eq=False)
class Told:
    """What the command said."""

    warnings: list[str] = attrs.field(factory=list[str])
    errors: list[str] = attrs.field(factory=list[str])
    stops: list[str] = attrs.field(factory=list[str])
    board: Board = attrs.field(factory=lambda: Board(0))

    async def warn(self, text: str) -> None:
        """Keep a warning."""
        await trio.lowlevel.checkpoint()
        self.warnings.append(text)

    async def refuse(self, error: UsageError) -> None:
        """Keep an error."""
        await trio.lowlevel.checkpoint()
        self.errors.append(str(error))

    @property
    def lines(self) -> list[str]:
        """What stands on the board, without the time."""
        return [line.text.partition("] ")[2] for line in self.board.take_lines()]


@attrs.define(eq=False)
class Shares:
    """The work, as far as a crew looks at it: shares with or without an owner."""

    known: list[WorkShare] = attrs.field(factory=list[WorkShare])

    async def shares(self) -> Sequence[WorkShare]:
        """Return all shares."""
        await trio.lowlevel.checkpoint()
        return self.known

    async def begin_share(self) -> str:
        """Return the name of a new one."""
        await trio.lowlevel.checkpoint()
        return f"new {len(self.known)}"


def new_crew(told: Told, nursery: trio.Nursery, size: int = 1, *known: WorkShare) -> Crew:
    """Return a crew without workers."""
    return Crew(
        size,
        lambda _, share: Order(("map",), "j.db", "map", share, 1, 5.0, None, None),
        cast("Any", Shares(list(known))),
        told.board,
        cast("Any", told),
        nursery,
        told.stops.append,
    )


@pytest.fixture
def workers_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401  # a function
    """Return a function that says what every worker runs from now on."""

    def use(script: str) -> None:
        file = tmp_path / "worker"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(file))

    return use


UNDONE = [ItemState("a.txt", None, "")]


async def gone(crew: Crew) -> None:
    """Wait until no worker is left."""
    with trio.fail_after(60):
        while crew.members:
            crew.changed = trio.Event()
            await crew.changed.wait()


async def test_workers_that_end_one_after_the_other_end_the_command(workers_are: Any) -> None:  # noqa: ANN401  # see above
    """With the last words of the last one."""
    workers_are("read order; echo 'no such thing' >&2; exit 7")
    told = Told()
    async with trio.open_nursery() as nursery:
        crew = new_crew(told, nursery)
        for _ in range(MAX_CRASHES):
            await crew.staff(UNDONE)
            await gone(crew)
    how = "exit code 7; no such thing"
    assert told.lines == [f"worker 1 ended ({how}); another one continues"] * MAX_CRASHES
    (error,) = told.errors
    assert error.startswith(f"{MAX_CRASHES} workers ended one after the other without an answer")
    assert f"by {how}; run the command without --workers" in error
    assert told.stops == ["no worker stays"]


async def test_what_workers_say_waits_until_it_is_counted(workers_are: Any) -> None:  # noqa: ANN401  # see above
    """Or a line would have the count of before its own item, or of long after it."""
    seen = Seen(Board(0).look(), [("reader a.txt completed", False)], is_idle=True)
    workers_are(f"read order; cat <<'END'\n{encode(seen).decode()}END")
    told = Told()
    async with trio.open_nursery() as nursery:
        crew = new_crew(told, nursery)
        await crew.staff(UNDONE)
        await gone(crew)
    assert not told.lines
    assert crew.take_lines() == [("reader a.txt completed", False)]
    assert not crew.take_lines()


def test_an_agent_is_called_as_in_a_map_of_one_process() -> None:
    """By the file alone, unless another file has the same name."""
    order = msgspec.structs.replace(ORDER, whole_paths=frozenset({"b/x.txt", "c/x.txt"}))
    paths = ("a/y.txt", "b/x.txt", "z.txt", "..", "")
    names = [order.name_of("reader", path) for path in paths]
    assert names == ["reader y.txt", "reader b/x.txt", "reader z.txt", "reader ..", "reader"]


async def test_what_every_worker_warns_of_is_told_once(workers_are: Any) -> None:  # noqa: ANN401  # see above
    """And a worker that lost its share says so, and is not missed."""
    said = "\n".join(
        encode(one).decode().strip() for one in (Ready(), Warned("odd"), Broke("lost", "x"))
    )
    workers_are(f"read order; cat <<'END'\n{said}\nEND")
    told = Told()
    async with trio.open_nursery() as nursery:
        crew = new_crew(told, nursery, 2)
        await crew.staff([*UNDONE, ItemState("b.txt", None, "")])
        assert len(crew.members) == 2
        await gone(crew)
    assert told.warnings == ["odd"]
    assert sorted(told.lines) == [
        f"worker {n} woke up after its lease; its results were refused" for n in (1, 2)
    ]
    assert not told.stops


async def test_one_that_ends_well_is_not_missed(workers_are: Any) -> None:  # noqa: ANN401  # see above
    """It has said nothing of an end, and was not broken."""
    workers_are("read order")
    told = Told()
    async with trio.open_nursery() as nursery:
        crew = new_crew(told, nursery)
        await crew.staff(UNDONE)
        await gone(crew)
    assert (told.lines, told.errors, crew.views()) == ([], [], [])


async def test_a_worker_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """No place is taken by it."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    crews = list[Crew]()

    async def staff() -> None:
        async with trio.open_nursery() as nursery:
            crews.append(new_crew(Told(), nursery))
            await crews[0].staff(UNDONE)

    with pytest.RaisesGroup(FileNotFoundError, flatten_subgroups=True):
        await staff()
    assert crews[0].members == []


@pytest.mark.parametrize("is_silent", [False, True])
async def test_workers_that_do_not_end_are_killed(
    workers_are: Any,  # noqa: ANN401  # see above
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_silent: bool,
) -> None:
    """A silent one at once, and another when it was told and has had its time."""
    workers_are("trap '' TERM; echo '{\"type\": \"Ready\"}'; while :; do sleep 1000; done")
    monkeypatch.setattr(_worker_processes, "END_SECONDS", 60.0 if is_silent else 0.01)
    told = Told()
    async with trio.open_nursery() as nursery:
        crew = new_crew(told, nursery)
        await crew.staff(UNDONE)
        (member,) = crew.members
        with trio.fail_after(60):
            while member.process is None:  # noqa: ASYNC110  # it tells nobody when it starts
                await trio.lowlevel.checkpoint()
        member.is_silent = is_silent
        await crew.tell_all(Stop("enough"))
        assert crew.members == []
        await crew.staff(UNDONE)  # it is ending, and so starts none
        assert crew.members == []
    assert told.lines == []


async def test_a_share_without_an_owner_is_worth_an_idle_worker() -> None:
    """Which ends, so that another one can continue that share."""
    told = Told()
    mine, left = (
        WorkShare("map 1", LeaseHolder("here", 1, "now"), 30.0, 1.0),
        WorkShare("map 2", None, 30.0, 1.0),
    )
    async with trio.open_nursery() as nursery:
        crew = new_crew(told, nursery, 1, mine, left)
        member = Member(0, ORDER, is_ready=True, is_idle=True)
        await member.say(End())  # it has no process yet: nothing is said, and nothing is wrong
        end, receive = trio.testing.memory_stream_one_way_pair()
        member.process = cast("Any", SimpleNamespace(stdin=end, pid=1, returncode=0))
        crew.members.append(member)
        await crew.staff([ItemState("b.txt", "map 2", "")])
        assert await receive.receive_some() == encode(End())
        await receive.aclose()
        await member.say(End())  # it is gone
        assert crew.members == [member]
