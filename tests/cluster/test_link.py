"""The program's side of a node: what crosses late, twice or not at all. The way is a test's."""

from __future__ import annotations

import math
import sys

import pytest
import trio

from agentpool import AgentManifest
from agentpool.cluster import NodeLostError
from agentpool.cluster._node_link import Link, Wire
from agentpool.cluster._node_messages import Done, Greeting, News, Prepare, Question
from agentpool.cluster._portable import pack, unpack

WORK = Prepare(1, AgentManifest())


class Scripted(Wire):
    """A way on which a test says what arrives."""

    def __init__(self, *, takes: bool = True) -> None:
        """Begin with nothing."""
        self.takes = takes
        self.orders: list[object] = []
        self.pushed = trio.Event()
        self.send, self.receive = trio.open_memory_channel[list[News]](math.inf)

    async def hello(self) -> Greeting:
        """Lack nothing."""
        await trio.lowlevel.checkpoint()
        return Greeting((), None)

    async def push(self, batch: bytes) -> bool:
        """Keep what was ordered."""
        await trio.lowlevel.checkpoint()
        self.orders += unpack(batch)
        self.pushed.set()
        return self.takes

    async def poll(self, heard: int, seconds: float) -> bytes | None:  # noqa: ARG002  # as a Wire
        """Return what the test says."""
        return pack(await self.receive.receive(), _same)

    def kill(self) -> None:
        """Reach nobody."""


def _same(item: News, error: Exception) -> News:
    raise AssertionError(item, error)


def linked(wire: Wire) -> Link:
    """Return a link with a lease that no test outlives."""
    return Link("n", "n", {}, wire, 600.0)


async def test_news_that_mean_nothing_any_more_go_nowhere() -> None:
    """A second end, an end of what was withdrawn, and a question to what answers none."""
    wire = Scripted()
    link = linked(wire)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        wire.send.send_nowait([
            Done(99, None, None), Question(1, 1, "send", (), is_sole=True),
            Done(1, "first", None), Done(1, "second", None),
        ])  # fmt: skip
        assert await link.do(WORK) == "first"
        nursery.cancel_scope.cancel()


async def test_what_is_cancelled_before_it_is_sent_never_is() -> None:
    """Nobody need be told of it."""
    wire = Scripted()
    link = linked(wire)
    with trio.move_on_after(0):
        await link.do(WORK)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await wire.pushed.wait()
        nursery.cancel_scope.cancel()
    assert wire.orders == []
    assert link.load == 0


async def test_a_node_that_takes_no_orders_is_lost() -> None:
    """So is what it is asked later, at once."""
    link = linked(Scripted(takes=False))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        for _ in range(2):
            with pytest.raises(NodeLostError, match="node n was lost: it has ended"):
                await link.do(WORK)
        link.lose("something else")
    assert "it has ended" in str(link.lost)


class Broken(Scripted):
    """A way that breaks when it is used."""

    async def push(self, batch: bytes) -> bool:
        """Break, as whatever reaches a node may."""
        await trio.lowlevel.checkpoint()
        raise OSError(f"no way for {len(batch) > 0}\nand more of it")


async def test_a_way_that_breaks_is_told_in_one_line() -> None:
    """What had been sent may have been done; what is asked later was not."""
    link = linked(Broken())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        with pytest.raises(NodeLostError, match="OSError: no way for True; what it was") as first:
            await link.do(WORK)
        with pytest.raises(NodeLostError, match="not yet sent to it was not done") as second:
            await link.do(WORK)
    assert (first.value.was_sent, second.value.was_sent) == (True, False)
    assert second.value.retry_after_seconds is None


@pytest.mark.parametrize("seconds", [math.inf, 0.5])
async def test_work_that_a_node_ended_itself_is_lost_or_late(seconds: float) -> None:
    """Late, if its deadline is about now: then the program's own clock says so."""
    wire = Scripted()
    link = linked(wire)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        wire.send.send_nowait([Done(1, None, None, was_cancelled=True)])
        with trio.move_on_after(min(seconds, sys.maxsize)) as scope:
            if seconds == math.inf:
                with pytest.raises(NodeLostError, match="heard nothing from this program in time"):
                    await link.do(WORK)
            else:
                await link.do(WORK)
        assert scope.cancelled_caught == (seconds < math.inf)
        nursery.cancel_scope.cancel()
