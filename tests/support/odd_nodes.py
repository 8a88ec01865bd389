"""Nodes without threads or processes: a test says when each is stopped or killed.

They keep to the clock of the test, so every run of a schedule is the same one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import msgspec
import trio

from agentpool import PrivacyTier, Usage
from agentpool.cluster import Cluster
from agentpool.cluster._far_driver import FarDrivers
from agentpool.cluster._node_checks import Terms
from agentpool.cluster._node_link import Wire
from agentpool.cluster._node_messages import (
    Ask,
    Begin,
    Done,
    DriverFacts,
    End,
    Greeting,
    News,
    Order,
    Prepare,
)
from agentpool.cluster._open import _running
from agentpool.cluster._portable import pack, unpack
from agentpool.cluster._source import FoundNode, Source
from agentpool.drivers import Completion, UserMessage

FACTS = DriverFacts(None, None, None, PrivacyTier.SOVEREIGN, 0.0, 0.0)
USED = Usage(3, 4)
"""What each answer took."""


@attrs.define
class Books:
    """What truly happened, whatever the program was told."""

    sent: Counter[str] = attrs.field(factory=Counter[str])
    """How often the request of each agent was handed to the way to a node."""
    begun: Counter[str] = attrs.field(factory=Counter[str])
    """How often a model began to answer it."""
    answered: Counter[str] = attrs.field(factory=Counter[str])
    """How often a model had answered it."""
    under_way: Counter[str] = attrs.field(factory=Counter[str])
    """How many models answer it now."""
    at_once: int = 0
    """The most of these that there ever were of one agent."""

    def begin(self, who: str) -> None:
        """Note that a model begins."""
        self.begun[who] += 1
        self.under_way[who] += 1
        self.at_once = max(self.at_once, self.under_way[who])


class OddNode(Wire):
    """One node. What it does while it is stopped it does when it goes on, or never."""

    def __init__(self, books: Books, nursery: trio.Nursery, seconds: float) -> None:
        """Work, and take so long for each answer."""
        self._books = books
        self._nursery = nursery
        self._seconds = seconds
        self._goes_on = trio.Event()
        self._goes_on.set()
        self._news: list[News] = []
        self._stirred = trio.Event()
        self._calls: dict[int, trio.CancelScope] = {}
        self._is_cut_off = False
        self._is_dead = False

    def stop(self) -> None:
        """Do nothing from now on."""
        self._goes_on = trio.Event()

    def go_on(self, *, in_time: bool) -> None:
        """Do what was left, unless the lease is over."""
        if not in_time:
            self.die()
        self._goes_on.set()

    def cut_off(self) -> None:
        """Reach nobody any more, and work on."""
        self._is_cut_off = True

    def kill(self) -> None:
        """End all work at once, if the program reaches it."""
        if not self._is_cut_off:
            self.die()

    def die(self) -> None:
        """End all work at once."""
        self._is_dead = True
        for scope in self._calls.values():
            scope.cancel()
        self._goes_on.set()
        self._stirred.set()

    async def hello(self) -> Greeting:
        """Lack nothing."""
        await trio.lowlevel.checkpoint()
        return Greeting((), None)

    async def push(self, batch: bytes) -> bool:
        """Take orders, as soon as it is not stopped."""
        orders = [one for one in unpack(batch) if isinstance(one, Begin | End)]
        for order in orders:
            if isinstance(order, Begin) and isinstance(order.work, Ask):
                self._books.sent[_who(order.work)] += 1
        await self._arrive()
        if self._is_dead:
            return False
        for order in orders:
            self._take(order)
        return True

    async def _arrive(self) -> None:
        await trio.sleep(0.01)
        if self._is_cut_off:
            await trio.sleep_forever()
        await self._goes_on.wait()

    def _take(self, order: Order) -> None:
        if isinstance(order, End):
            if (scope := self._calls.get(order.call)) is not None:
                scope.cancel()
            return
        assert isinstance(order, Begin)
        if isinstance(order.work, Prepare):
            self._put(Done(order.call, FACTS, None))
            return
        assert isinstance(order.work, Ask)
        self._nursery.start_soon(self._answer, order.call, _who(order.work))

    async def _answer(self, call: int, who: str) -> None:
        self._calls[call] = scope = trio.CancelScope()
        self._books.begin(who)
        try:
            with scope:
                await trio.sleep(self._seconds)
                await self._goes_on.wait()
                self._books.answered[who] += 1
                self._put(Done(call, Completion(who, usage=USED), None))
                return
            self._put(Done(call, None, None, was_cancelled=True))
        finally:
            self._books.under_way[who] -= 1
            del self._calls[call]

    def _put(self, news: News) -> None:
        self._news.append(news)
        self._stirred.set()

    async def poll(self, heard: int, seconds: float) -> bytes | None:  # noqa: ARG002  # as a Wire
        """Return news, waiting for some."""
        with trio.move_on_after(seconds):
            while not (self._news or self._is_dead):
                await self._stirred.wait()
                self._stirred = trio.Event()
        await self._arrive()
        if self._is_dead:
            return None
        news, self._news = self._news, []
        return pack(news, _same)


def _who(work: Ask) -> str:
    last = work.request.messages[-1]
    assert isinstance(last, UserMessage)
    return last.text


def _same(item: News, error: Exception) -> News:
    raise AssertionError(item, error)


class OddSource(Source):
    """So many of these nodes."""

    def __init__(self, count: int, nursery: trio.Nursery, seconds: float) -> None:
        """Have none that is started yet."""
        self.books = Books()
        self.nodes: dict[str, OddNode] = {}
        self._names = [f"n{number}" for number in range(count)]
        self._make = partial(OddNode, self.books, nursery, seconds)

    @property
    def privacy(self) -> PrivacyTier:
        """All is here."""
        return PrivacyTier.SOVEREIGN

    @property
    def ray(self) -> str:
        """There is none."""
        return ""

    async def look(self) -> list[FoundNode]:
        """Return the nodes, which are always there."""
        await trio.lowlevel.checkpoint()
        return [FoundNode(name, name, {"name": name}) for name in self._names]

    async def start(self, node: FoundNode, terms: Terms) -> Wire:  # noqa: ARG002  # as a Source
        """Start one anew."""
        await trio.lowlevel.checkpoint()
        self.nodes[node.name] = found = self._make()
        return found


@asynccontextmanager
async def odd_cluster(
    terms: Terms, count: int, seconds: float
) -> AsyncGenerator[tuple[Cluster, OddSource], None]:
    """Open a cluster of such nodes: without tools, each takes so long for an answer."""
    async with trio.open_nursery() as nursery:
        source = OddSource(count, nursery, seconds)
        needs = msgspec.structs.replace(terms, tools=None)
        async with _running(source, needs, PrivacyTier.SOVEREIGN) as nodes:
            yield Cluster(nodes, FarDrivers(nodes, None), None), source
        nursery.cancel_scope.cancel()
