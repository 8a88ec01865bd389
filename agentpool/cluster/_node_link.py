"""The program's connection to one node: the work given to it, and its results.

Rules:

1. Only one batch of orders and one request for news are on their way at a time. So orders arrive in
   the order in which they were given, and orders that many tasks give at the same time travel
   together.
2. After any error on the way, the link is lost for good, since nobody knows what was done. The link
   is also lost when the node sends nothing for the length of the lease.
3. A call ends when the node reports that the call has ended completely, or when the link is lost. A
   cancelled call waits for one of these as well.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import final

import attrs
import msgspec
import trio

from agentpool._base import Live
from agentpool.abc import HearsThoughts, OnDelta
from agentpool.cluster._errors import NodeLostError
from agentpool.cluster._lease import POLL_PART
from agentpool.cluster._node_messages import (
    Begin,
    CloseKit,
    Done,
    DriverFacts,
    End,
    Greeting,
    Order,
    Piece,
    Question,
    Reply,
    ToolFacts,
    Withdraw,
    Work,
)
from agentpool.cluster._portable import pack, unpack

_LATE_SECONDS = 1.0
"""How much the clocks of program and node may differ about a deadline."""


class Wire(ABC):
    """Reaches a node. Any error means that the node is lost."""

    __slots__ = ()

    @abstractmethod
    async def hello(self) -> Greeting:
        """Return the node's greeting once it is ready."""

    @abstractmethod
    async def push(self, batch: bytes) -> bool:
        """Send orders. Return whether the node will carry them out."""

    @abstractmethod
    async def poll(self, heard: int, seconds: float) -> bytes | None:
        """Return news, waiting at most *seconds*. ``None``: the node has ended."""

    @abstractmethod
    def kill(self) -> None:
        """End the node's process if it is still there, without waiting for its end."""


class Questioned(ABC):
    """Answers the tools of one call."""

    __slots__ = ()

    @abstractmethod
    def asked(self, question: Question) -> None:
        """Start answering a question."""

    @abstractmethod
    def withdrawn(self, number: int) -> None:
        """Stop answering a question."""

    @abstractmethod
    def ended(self) -> None:
        """Stop answering for good: the call has ended."""

    @abstractmethod
    async def attend(self, over: trio.Event) -> None:
        """Answer the questions that the call's own task must answer, until the call ends."""


@final
class FarCall(Live):
    """A piece of work given to a node."""

    number: int
    hear: OnDelta | None
    on_sent: Callable[[], None] | None
    questioned: Questioned | None
    done: Done | None = None
    sent: bool = False
    over: trio.Event = msgspec.field(default_factory=trio.Event)

    def hear_piece(self, piece: Piece) -> None:
        """Pass on a piece of the answer."""
        assert self.hear is not None  # noqa: S101  # or none would come
        if not piece.is_thought:
            self.hear(piece.text)
        elif isinstance(self.hear, HearsThoughts):
            self.hear.thought(piece.text)

    def leave(self) -> None:
        """Treat the request as sent from now on. One that cannot be packed is not sent."""
        if self.done is None:
            self.sent = True
            if self.on_sent is not None:
                self.on_sent()

    def end(self, done: Done) -> None:
        """Record the end of the call."""
        if self.done is None:
            self.done = done
            self.over.set()
            if self.questioned is not None:
                self.questioned.ended()


@final
@attrs.define(eq=False, repr=False)
class Link:
    """One node that works for this program."""

    node: str
    """The node's name."""
    key: str
    """The node's unique key, which no earlier node had."""
    labels: Mapping[str, str]
    _wire: Wire
    _lease_seconds: float
    models: dict[int, DriverFacts] = attrs.field(factory=dict[int, DriverFacts])
    """Drivers that are open on the node, by their numbers."""
    opening: dict[int, trio.Lock] = attrs.field(factory=dict[int, trio.Lock])
    """One lock for each driver, held while it is being opened."""
    waiting: int = 0
    """How many requests wait until their driver is open on the node."""
    tools: tuple[ToolFacts, ...] | None = None
    """The tools that all agents on the node share. ``None``: each agent gets tools of its own."""
    agents: int = 0
    """How many agents with tools on the node have not ended."""
    is_ready: bool = True
    """Whether everything that the node needs before it gets work is open there."""
    draining: bool = False
    """Whether the node gets no new work."""
    lost: NodeLostError | None = None
    """Why the node is lost. ``None``: the node is not lost."""
    _why: str = ""
    """The reason in a few words."""
    idle: trio.Event = attrs.field(factory=trio.Event)
    """Set when a draining node has no work left."""
    _calls: dict[int, FarCall] = attrs.field(factory=dict[int, FarCall])
    _numbers: count[int] = attrs.field(factory=lambda: count(1))
    _orders: list[Order] = attrs.field(factory=list[Order])
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _heard: int = 0

    @property
    def load(self) -> int:
        """The number of pieces of work that the node has."""
        return len(self._calls) + self.waiting

    @property
    def is_open(self) -> bool:
        """Whether the node accepts new work."""
        return self.lost is None and self.is_ready and not self.draining

    def has_model(self, model: int) -> bool:
        """Return whether a driver is open on the node."""
        return model in self.models

    # --- work

    async def do(
        self,
        work: Work,
        *,
        hear: OnDelta | None = None,
        on_sent: Callable[[], None] | None = None,
        questioned: Questioned | None = None,
    ) -> object:
        """Have the node do *work*, and return the result.

        Raises:
            NodeLostError: If the node is lost before it answers. ``was_sent`` says whether the node
                may have got the work.
            Exception: What the work raised.

        Cancellation:
            The work has ended completely, as far as this program can know.
        """
        if self.lost is not None:
            raise self._lost_error(was_sent=False)
        deadline = trio.current_effective_deadline()
        left = None if deadline == math.inf else deadline - trio.current_time()
        call = FarCall(next(self._numbers), hear, on_sent, questioned)
        self._calls[call.number] = call
        self.order(Begin(call.number, work, left))
        try:
            if questioned is None:
                await call.over.wait()
            else:
                await questioned.attend(call.over)
        except BaseException:
            self._end(call)
            with trio.CancelScope(shield=True):
                await call.over.wait()
            raise
        finally:
            del self._calls[call.number]
            self.look_idle()
        done = call.done
        assert done is not None  # noqa: S101  # it is over
        if done.was_cancelled:
            if deadline - trio.current_time() <= _LATE_SECONDS:
                await trio.sleep_until(deadline + _LATE_SECONDS)  # our own clock decides
            raise NodeLostError(
                f"node {self.node} ended its work: it heard nothing from this program in time",
                node=self.node,
                retry_after_seconds=self._lease_seconds,
            )
        if done.error is not None:
            raise done.error
        return done.value

    def order(self, order: Order) -> None:
        """Send an order. Orders to a lost node are dropped."""
        if self.lost is None:
            self._orders.append(order)
            self._wake.set()

    def let_go(self) -> None:
        """Record that an agent with the shared tools has ended."""
        self.agents -= 1
        self.look_idle()

    def close_kit(self, kit: int) -> None:
        """Drop the tools that were made for an agent."""
        self.order(CloseKit(kit))
        self.let_go()

    def drain(self) -> None:
        """Accept no new work, and set ``idle`` when the node has no work left."""
        self.draining = True
        self.look_idle()

    def look_idle(self) -> None:
        """Wake the tasks that wait until the node is idle."""
        if self.draining and not (self._calls or self.agents):
            self.idle.set()

    def _end(self, call: FarCall) -> None:
        if call.sent:
            self.order(End(call.number))
        else:
            call.end(Done(call.number, None, None, was_cancelled=True))

    # --- the way there and back

    async def run(self) -> None:
        """Send orders and fetch news until the link is lost."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_lost, self._push_all, nursery.cancel_scope)
            nursery.start_soon(self._until_lost, self._poll_all, nursery.cancel_scope)

    async def _until_lost(  # noqa: ASYNC910  # the work waits
        self, work: Callable[[], Awaitable[str]], scope: trio.CancelScope
    ) -> None:
        try:
            why = await work()
        except trio.TooSlowError:
            why = f"it sent nothing for {self._lease_seconds:g} seconds"
        except Exception as error:  # noqa: BLE001  # whatever it is, what was done is unknown
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
        self.lose(why)
        scope.cancel()

    async def _push_all(self) -> str:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            orders, self._orders = self._orders, []
            batch = [one for one in orders if self._is_wanted(one)]
            data = pack(batch, self._instead)
            for one in batch:
                if isinstance(one, Begin):
                    self._calls[one.call].leave()
            with trio.fail_after(self._lease_seconds):
                if not await self._wire.push(data):
                    return "it has ended"

    def _is_wanted(self, order: Order) -> bool:
        """Return whether an order must still be sent."""
        if not isinstance(order, Begin):
            return True
        call = self._calls.get(order.call)
        return call is not None and call.done is None

    def _instead(self, order: Order, error: Exception) -> Order:
        if isinstance(order, Reply):
            return Reply(
                order.question, None, TypeError(f"the answer cannot be sent back: {error}")
            )
        assert isinstance(order, Begin)  # noqa: S101  # the others are numbers
        self._calls[order.call].end(Done(order.call, None, error))
        return End(order.call)

    async def _poll_all(self) -> str:
        while True:
            with trio.fail_after(self._lease_seconds):
                news = await self._wire.poll(self._heard, POLL_PART * self._lease_seconds)
            if news is None:
                return "it has ended"
            self._heard += 1
            for one in unpack(news):
                self._heed(one)

    def _heed(self, news: object) -> None:
        assert isinstance(news, Done | Piece | Question | Withdraw)  # noqa: S101
        call = self._calls.get(news.call)
        if call is None:
            return  # it was withdrawn
        if isinstance(news, Done):
            call.end(news)
        elif isinstance(news, Piece):
            call.hear_piece(news)
        elif call.questioned is not None:
            if isinstance(news, Question):
                call.questioned.asked(news)
            else:
                call.questioned.withdrawn(news.question)

    # --- its end

    def lose(self, why: str) -> None:
        """Give up the node. All work given to it ends with an error now."""
        if self.lost is not None:
            return
        self._why = why
        self.lost = self._lost_error(was_sent=True)
        self._orders.clear()
        for call in self._calls.values():
            call.end(Done(call.number, None, self._lost_error(was_sent=call.sent)))
        self.idle.set()
        self._wire.kill()

    def _lost_error(self, *, was_sent: bool) -> NodeLostError:
        """Return a new error each time, since each error that is raised gets its own traceback."""
        done = "may or may not have been done" if was_sent else "was not done"
        what = "what it was doing" if was_sent else "what was not yet sent to it"
        return NodeLostError(
            f"node {self.node} was lost: {self._why}; {what} {done}",
            node=self.node,
            retry_after_seconds=self._lease_seconds if was_sent else None,
            was_sent=was_sent,
        )
