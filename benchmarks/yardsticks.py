"""Bare trio: what the same work costs with nothing of agentpool in it.

``W1:naive`` is what most people write first. ``W1:reference`` and ``W3:full`` do by hand
what a pool and a loop cannot do without, and no more; they are the honest yardsticks.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from typing import Final, Literal, TypeAlias, final

import attrs
import trio
from meter import Meter, Workload, load_settled, main

SLOTS = 100
"""Agents at once in W1."""
SLEEPERS = 1_000
"""Agents at once in W2."""
SLEEP_SECONDS = 0.05
"""How long a model of W2 takes."""
WARM_UP = 200
"""Operations before the measured ones: code is loaded, caches are filled."""
INBOX = 32
"""Messages that a channel of W4 holds."""
MESH = 100
"""Agents of W4 that send to each other."""
MIN_TURNS = 2000
"""Turns that W3 measures at least; shorter runs are repeated."""


# --- Many agents that do nothing


async def no_op_agent() -> None:
    """Be an agent whose model answers at once."""
    await trio.lowlevel.checkpoint()


async def naive(count: int) -> None:
    """Start a task per agent; each waits for its turn at a limiter."""
    limiter = trio.CapacityLimiter(SLOTS)

    async def limited() -> None:
        async with limiter:
            await no_op_agent()

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(limited)


State: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]


@final
@attrs.define(eq=False)
class Handle:
    """One agent of the reference pool: what to run, and what became of it."""

    ident: int
    async_fn: Callable[[], Awaitable[object]] | None
    state: State = "queued"
    result: object = None
    error: Exception | None = None
    scope: trio.CancelScope | None = None


@final
@attrs.define(eq=False)
class ReferencePool:
    """The least that a pool can be: handles, slots, a queue, a scope each, one join."""

    nursery: trio.Nursery
    limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(SLOTS))
    queue: deque[Handle] = attrs.field(factory=deque)
    ended: deque[Handle] = attrs.field(factory=deque)
    live: int = 0
    joiners: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def submit(self, ident: int, async_fn: Callable[[], Awaitable[object]]) -> Handle:
        """Take an agent in; it starts as soon as there is a slot."""
        handle = Handle(ident, async_fn)
        self.live += 1
        self.queue.append(handle)
        self.start_next()
        return handle

    def start_next(self) -> None:
        """Start queued agents while there are slots."""
        while self.queue:
            try:
                self.limiter.acquire_on_behalf_of_nowait(self.queue[0])
            except trio.WouldBlock:
                return
            self.nursery.start_soon(self.run, self.queue.popleft())

    async def run(self, handle: Handle) -> None:
        """Run one agent in a scope of its own, and pass its slot on."""
        handle.state = "running"
        assert handle.async_fn is not None
        try:
            with trio.CancelScope() as handle.scope:
                handle.result = await handle.async_fn()
            handle.state = "cancelled" if handle.scope.cancelled_caught else "done"
        except Exception as error:  # noqa: BLE001  # it belongs to the handle
            handle.error, handle.state = error, "failed"
        except trio.Cancelled:
            handle.state = "cancelled"
            raise
        finally:
            handle.async_fn = handle.scope = None
            self.limiter.release_on_behalf_of(handle)
            self.live -= 1
            self.ended.append(handle)
            self.joiners.unpark_all()
            if trio.current_effective_deadline() != -math.inf:
                self.start_next()

    async def join_all(self) -> list[Handle]:
        """Wait for everybody."""
        while self.live:
            await self.joiners.park()
        ended = list(self.ended)
        self.ended.clear()
        return ended


async def sleeping_agent() -> None:
    """Be an agent whose model takes its time."""
    await trio.sleep(SLEEP_SECONDS)


async def reference(
    count: int, agent: Callable[[], Awaitable[object]] = no_op_agent, slots: int = SLOTS
) -> None:
    """Run the agents in a reference pool."""
    async with trio.open_nursery() as nursery:
        pool = ReferencePool(nursery, trio.CapacityLimiter(slots))
        for ident in range(count):
            pool.submit(ident, agent)
        assert len(await pool.join_all()) == count


async def w1_naive(n: int, meter: Meter) -> None:
    """Measure the naive pool."""
    await naive(WARM_UP)
    with meter.running():
        await naive(n)


async def w1_reference(n: int, meter: Meter) -> None:
    """Measure the reference pool."""
    await reference(WARM_UP)
    with meter.running():
        await reference(n)


async def w2_reference(n: int, meter: Meter) -> None:
    """Measure the reference pool with models that take their time."""
    await reference(WARM_UP)
    with meter.running():
        await reference(n, sleeping_agent, SLEEPERS)


# --- One agent, many turns


@final
@attrs.define
class Said:
    """One message of a conversation."""

    role: str
    content: str | None
    calls: list[dict[str, str]] | None = None


@final
@attrs.define
class Happened:
    """One event."""

    kind: str
    agent: int
    turn: int
    about: object


async def model(turns_left: int) -> dict[str, object]:
    """Be a model that calls a tool on every turn but the last."""
    await trio.lowlevel.checkpoint()
    if not turns_left:
        return {"role": "assistant", "content": "done"}
    call = {"id": f"c{turns_left}", "name": "noop", "arguments": f'{{"x": {turns_left}}}'}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


async def noop(x: int) -> str:  # noqa: ARG001  # a model has something to write
    """Be a tool that has nothing to do."""
    await trio.lowlevel.checkpoint()
    return "ok"


async def full_loop(turns: int) -> list[Said]:
    """Do what every loop does: messages with types, four events a turn, two deadlines."""
    tools = {"noop": noop}
    events: list[Happened] = []
    conversation = [Said("user", "go")]
    for turn in range(1, turns + 1):
        events.append(Happened("reason", 1, turn, None))
        with trio.fail_after(60):
            raw = await model(turns - turn)
        reply = Said(str(raw["role"]), None, raw.get("tool_calls"))  # type: ignore[arg-type]  # as JSON comes
        conversation.append(reply)
        events.append(Happened("replied", 1, turn, reply))
        for call in reply.calls or ():
            events.append(Happened("tool", 1, turn, call))
            with trio.fail_after(60):
                result = await tools[call["name"]](**json.loads(call["arguments"]))
            conversation.append(Said("tool", result))
            events.append(Happened("tool done", 1, turn, result))
    return conversation


async def w3_full(n: int, meter: Meter) -> None:
    """Measure the loop."""
    await full_loop(50)
    runs = meter.times(MIN_TURNS, n)
    meter.operations = n * runs
    with meter.running():
        for _ in range(runs):
            assert len(await full_loop(n)) == 2 * n


# --- Messages


async def w4_stream(n: int, meter: Meter) -> None:
    """Measure one sender, one receiver."""
    send, receive = trio.open_memory_channel[int](INBOX)

    async def consume() -> None:
        for _ in range(n):
            await receive.receive()

    with meter.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            for number in range(n):
                await send.send(number)


async def w4_ping_pong(n: int, meter: Meter) -> None:
    """Measure two who answer each other."""
    meter.operations = n // 2 * 2
    to_b, at_b = trio.open_memory_channel[int](INBOX)
    to_a, at_a = trio.open_memory_channel[int](INBOX)

    async def answer() -> None:
        for _ in range(n // 2):
            await to_a.send(await at_b.receive())

    with meter.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            for number in range(n // 2):
                await to_b.send(number)
                await at_a.receive()


async def w4_mesh(n: int, meter: Meter) -> None:
    """Measure many, of whom everyone sends to everyone."""
    ends = [trio.open_memory_channel[int](INBOX) for _ in range(MESH)]
    count = n // MESH
    meter.operations = count * MESH

    async def talk(me: int) -> None:
        for number in range(count):
            await ends[(me + 1 + number % (MESH - 1)) % MESH][0].send(number)

    async def listen(me: int) -> None:
        for _ in range(count):
            await ends[me][1].receive()

    with meter.running():
        async with trio.open_nursery() as nursery:
            for me in range(MESH):
                nursery.start_soon(listen, me)
                nursery.start_soon(talk, me)


# --- The end of many agents that wait


async def w5_scoped(n: int, meter: Meter) -> None:
    """Measure the cancellation of tasks, each asleep in a scope of its own."""

    async def sleep() -> None:
        with trio.CancelScope():
            await trio.sleep_forever()

    settled = load_settled()
    # Measured until the nursery's block is left, which waits for the last of them.
    with ExitStack() as measured:
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(sleep)
            await settled()
            measured.enter_context(meter.running())
            nursery.cancel_scope.cancel()


WORKLOADS: Final[Mapping[str, Workload]] = {
    "W1:naive": w1_naive,
    "W1:reference": w1_reference,
    "W2:reference": w2_reference,
    "W3:full": w3_full,
    "W4:channel-stream": w4_stream,
    "W4:channel-ping-pong": w4_ping_pong,
    "W4:channel-mesh": w4_mesh,
    "W5:scoped": w5_scoped,
}

if __name__ == "__main__":
    main(WORKLOADS)
