"""Connections and pools of them: opened once, given back once, and never with an old answer."""

from __future__ import annotations

import attrs
import trio

from agentpool.testing import latency, operation

TICK = 0.001
"""About as long as anything takes here, in seconds."""


async def acquired_and_timed_out(*, repaired: bool) -> None:
    """The connection was there when the time was up, and nobody gave it back.

    Promise: the pool is full again in the end.
    Source: https://github.com/MagicStack/asyncpg/issues/467
    """
    send, receive = trio.open_memory_channel[str](2)
    for name in ("a", "b"):
        send.send_nowait(name)

    async def acquire() -> str:
        connection = await receive.receive()
        try:
            await trio.sleep(latency(TICK))  # is it still alive?
        except trio.Cancelled:
            if repaired:
                send.send_nowait(connection)
            raise
        return connection

    async def query() -> None:
        with trio.move_on_after(latency(3 * TICK)), operation():
            connection = await acquire()
            try:
                await trio.sleep(latency(TICK))
            finally:
                send.send_nowait(connection)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(query)
    assert send.statistics().current_buffer_used == 2, "a connection is gone"


async def pool_that_never_closes(*, repaired: bool) -> None:
    """Who was cancelled while it waited still counts as somebody who uses the pool.

    Promise: close() ends when nobody uses the pool.
    Source: https://github.com/MagicStack/asyncpg/issues/547
    """
    users, idle = 0, trio.Event()
    slots = trio.Semaphore(1)

    async def use() -> None:
        nonlocal users
        users += 1
        waiting = True
        try:
            async with slots:
                waiting = False
                await trio.sleep(latency(TICK))
        finally:
            if repaired or not waiting:
                users -= 1
            if not users:
                idle.set()

    async def give_up() -> None:
        with trio.move_on_after(latency(TICK)), operation():
            await use()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        for _ in range(2):
            nursery.start_soon(give_up)
    if users:
        await idle.wait()


async def answer_of_another(*, repaired: bool) -> None:
    """A command is cancelled before its answer is read; the next one reads it.

    Promise: each command gets its own answer.
    Source: https://github.com/redis/redis-py/issues/2624
    """
    to_server, requests = trio.open_memory_channel[str](10)
    from_server, answers = trio.open_memory_channel[str](10)
    lock, unread = trio.Lock(), 0

    async def serve() -> None:
        async for name in requests:
            await trio.sleep(latency(TICK))
            await from_server.send(f"answer to {name}")

    async def command(name: str) -> str:
        nonlocal unread
        async with lock:
            while repaired and unread:
                await answers.receive()
                unread -= 1
            await to_server.send(name)
            unread += 1
            answer = await answers.receive()
            unread -= 1
            return answer

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.move_on_after(latency(2 * TICK)), operation():
            await command("first")
        assert await command("second") == "answer to second"
        nursery.cancel_scope.cancel()


async def connected_twice(*, repaired: bool) -> None:
    """Five calls find no connection, and each opens one.

    Promise: one connection.
    Source: https://github.com/vmagamedov/grpclib/issues/44
    """
    connection: str | None = None
    opened, lock = 0, trio.Lock()

    async def connect() -> None:
        nonlocal connection, opened
        if connection is None:
            await trio.sleep(latency(TICK))
            opened += 1
            connection = "open"

    async def call() -> None:
        await trio.sleep(latency(5 * TICK))
        if repaired:
            async with lock:
                await connect()
        else:
            await connect()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call)
    assert opened == 1, f"{opened} connections were opened"


async def closed_twice(*, repaired: bool) -> None:
    """Two ways lead to the end, and both find the connection open.

    Promise: it is closed once.
    Source: https://github.com/mcp-use/mcp-use/pull/1226
    """
    connected, closed = True, 0

    async def disconnect() -> None:
        nonlocal connected, closed
        await trio.sleep(latency(5 * TICK))
        if not connected:
            return
        if repaired:
            connected = False
        await trio.lowlevel.checkpoint()  # cleanup
        closed += 1
        connected = False

    async with trio.open_nursery() as nursery:
        nursery.start_soon(disconnect)
        nursery.start_soon(disconnect)
    assert closed == 1, f"closed {closed} times"


async def reconnect_leaks(*, repaired: bool) -> None:
    """The heartbeat and a failed call reconnect at once; the loser's connection is lost.

    Promise: as many connections are open as are known.
    Source: https://github.com/NorthlandPositronics/Cogtrix/pull/443
    """
    connections: dict[str, int] = {"server": 0}
    is_open, number, lock = {0}, 0, trio.Lock()

    async def reconnect() -> None:
        nonlocal number
        old = connections.pop("server", None)
        if old is not None:
            is_open.discard(old)
        await trio.lowlevel.checkpoint()  # the handshake
        number += 1
        is_open.add(number)
        connections["server"] = number

    async def notice() -> None:
        await trio.sleep(latency(5 * TICK))
        if repaired:
            async with lock:
                await reconnect()
        else:
            await reconnect()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(notice)
        nursery.start_soon(notice)
    assert is_open == set(connections.values()), f"{len(is_open)} are open"


async def lock_kept_after_a_timeout(*, repaired: bool) -> None:
    """The lock is taken by hand, and a timeout comes before the line that gives it back.

    Promise: after a timeout the next request goes through.
    Source: https://github.com/Fatal1ty/aioapns/issues/42
    """
    lock = trio.Lock()
    limit = latency(8 * TICK)

    async def send() -> None:
        if repaired:
            async with lock:
                await trio.sleep(latency(TICK))
        else:
            await lock.acquire()
            await trio.sleep(latency(TICK))
            lock.release()

    with trio.move_on_after(limit), operation():
        await send()
    assert not lock.locked(), "the lock is kept for ever"


async def accepted_after_close(*, repaired: bool) -> None:
    """A connection that was accepted is registered after the server has closed them all.

    Promise: a closed server has no connection.
    Source: https://github.com/python/cpython/issues/109564
    """
    closing = False
    connections: set[str] = set()

    async def accept() -> None:
        await trio.sleep(latency(5 * TICK))
        if closing:
            return
        await trio.lowlevel.checkpoint()  # make a transport
        if repaired and closing:  # pyright: ignore[reportUnnecessaryComparison]  # it may have closed meanwhile
            return  # type: ignore[unreachable]  # the same
        connections.add("client")

    async def close() -> None:
        nonlocal closing
        await trio.sleep(latency(5 * TICK))
        closing = True
        connections.clear()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        nursery.start_soon(close)
    assert not connections, "a connection is open in a closed server"


@attrs.define(eq=False)
class _Cached:
    value: str | None = None
    loads: int = 0
    loading: trio.Event | None = None


async def stampede(*, repaired: bool) -> None:
    """All find the cache empty, and all ask the database.

    Promise: one load.
    Source: https://github.com/starpig1129/ai-discord-bot-PigPig/pull/100
    """
    entry = _Cached()

    async def get() -> None:
        await trio.sleep(latency(5 * TICK))
        while entry.value is None:
            if repaired and entry.loading is not None:
                await entry.loading.wait()
                continue
            entry.loading = trio.Event()
            await trio.sleep(latency(TICK))
            entry.loads += 1
            entry.value = "loaded"
            entry.loading.set()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(get)
    assert entry.loads == 1, f"{entry.loads} loads"


async def first_caller_gives_up(*, repaired: bool) -> None:
    """The caller that loads for all is cancelled, and the others wait for ever.

    Promise: who does not give up gets the value.
    Source: https://github.com/aio-libs/async-lru/pull/697
    """
    entry = _Cached()

    async def get() -> str:
        while entry.value is None:
            if entry.loading is not None:
                await entry.loading.wait()
                continue
            entry.loading = trio.Event()
            try:
                await trio.sleep(latency(TICK))
                entry.value = "loaded"
                entry.loading.set()
            except trio.Cancelled:
                if repaired:
                    entry.loading.set()
                    entry.loading = None
                raise
        return entry.value

    async def give_up() -> None:
        with trio.move_on_after(latency(4 * TICK)), operation():
            await get()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        nursery.start_soon(give_up)


CONNECTIONS = (
    acquired_and_timed_out,
    pool_that_never_closes,
    answer_of_another,
    connected_twice,
    closed_twice,
    reconnect_leaks,
    lock_kept_after_a_timeout,
    accepted_after_close,
    stampede,
    first_caller_gives_up,
)
