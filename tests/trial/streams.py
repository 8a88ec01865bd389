"""Writers, readers and broadcasts: whole messages, to everybody, and none lost at the end."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from agentpool.testing import latency, operation

TICK = 0.001
"""About as long as anything takes here, in seconds."""


async def sent_and_not_sent(*, repaired: bool) -> None:
    """A second message comes while the writer sends the first, and its flag is cleared.

    Promise: what send() returned for has been sent.
    Source: https://github.com/python-trio/trio-websocket/issues/12
    """
    buffer: list[str] = []
    wire: list[str] = []
    pending, sent = trio.Event(), trio.Event()

    async def write() -> None:
        nonlocal pending, sent
        while True:
            await pending.wait()
            while buffer:
                taken = buffer[:]
                buffer.clear()
                await trio.sleep(latency(TICK))
                wire.extend(taken)
                if not repaired:
                    break
            pending = trio.Event()
            sent.set()
            sent = trio.Event()

    async def send(text: str) -> None:
        await trio.sleep(latency(TICK))
        buffer.append(text)
        pending.set()
        await sent.wait()
        assert text in wire, f"{text} was not sent"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        async with trio.open_nursery() as senders:
            senders.start_soon(send, "a")
            senders.start_soon(send, "b")
        nursery.cancel_scope.cancel()


async def left_while_told(*, repaired: bool) -> None:
    """A client leaves while the others are told, and the loop over them breaks.

    Promise: everybody who stays is told.
    Source: https://github.com/aio-libs/sockjs/issues/218
    """
    clients = {name: list[str]() for name in ("a", "b", "c")}

    async def broadcast() -> None:
        await trio.sleep(latency(5 * TICK))
        told: Iterable[list[str]] = clients.values()
        for client in list(told) if repaired else told:
            client.append("news")
            await trio.lowlevel.checkpoint()

    async def leave() -> None:
        await trio.sleep(latency(5 * TICK))
        del clients["b"]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(broadcast)
        nursery.start_soon(leave)
    assert all(clients.values())


async def interleaved(*, repaired: bool) -> None:
    """A long message goes out in parts, and another one comes between them.

    Promise: the parts of a message are next to each other.
    Source: https://github.com/lexiforest/curl_cffi/issues/604
    """
    wire, lock = list[str](), trio.Lock()

    async def parts(name: str) -> None:
        for _ in range(2):
            wire.append(name)
            await trio.lowlevel.checkpoint()

    async def send(name: str) -> None:
        await trio.sleep(latency(5 * TICK))
        if repaired:
            async with lock:
                await parts(name)
        else:
            await parts(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, "a")
        nursery.start_soon(send, "b")
    assert wire in (["a", "a", "b", "b"], ["b", "b", "a", "a"])


async def farewell_first(*, repaired: bool) -> None:
    """The farewell goes around the queue, and what is still in there is lost.

    Promise: what was logged before the end arrives.
    Source: https://github.com/antonioterpin/goggles/issues/158
    """
    send, receive = trio.open_memory_channel[str](10)
    arrived: list[str] = []
    drained = trio.Event()

    async def work() -> None:
        async for line in receive:
            await trio.sleep(latency(TICK))
            arrived.append(line)
        drained.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        for line in ("a", "b"):
            await send.send(line)
        await trio.sleep(latency(20 * TICK))
        send.close()
        if repaired:
            await drained.wait()
        nursery.cancel_scope.cancel()
    assert arrived == ["a", "b"]


async def flushed_but_for_the_batch(*, repaired: bool) -> None:
    """flush() waits until the queue is empty, and the batch that was taken is not sent yet.

    Promise: after flush() everything is sent.
    Source: https://github.com/atlanhq/application-sdk/pull/1723
    """
    queue, sent = ["a", "b"], list[str]()
    busy, idle = False, trio.Event()

    async def work() -> None:
        nonlocal busy
        await trio.sleep(latency(5 * TICK))
        busy = True
        batch = queue[:]
        queue.clear()
        await trio.lowlevel.checkpoint()  # the request
        sent.extend(batch)
        busy = False
        idle.set()

    async def flush() -> None:
        await trio.sleep(latency(5 * TICK))
        while queue or (repaired and busy):
            await idle.wait()
        assert sent == ["a", "b"], "flush() came back too early"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        nursery.start_soon(flush)


async def swallowed(*, repaired: bool) -> None:
    """The loop that tries again takes a cancellation for a failure, and goes on.

    Promise: who gives up is back at once.
    Source: https://github.com/psycopg/psycopg/issues/1401
    """
    tries = 0

    async def connect() -> None:
        nonlocal tries
        for _ in range(3):
            tries += 1
            try:
                await trio.sleep(latency(TICK))
            except trio.Cancelled:  # noqa: ASYNC103  # the fault
                if repaired:
                    raise
            else:
                return

    limit = latency(8 * TICK)
    with trio.move_on_after(limit) as scope, operation() as given_up:
        await connect()
    assert tries == 1, f"{tries} tries, given up {scope.cancelled_caught or given_up}"


STREAMS = (
    sent_and_not_sent,
    left_while_told,
    interleaved,
    farewell_first,
    flushed_but_for_the_batch,
    swallowed,
)
