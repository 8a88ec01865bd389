"""Leases, timers, barriers and what is opened early: what ends while somebody still needs it.

Written after the others, from other reports, to see what the kit finds of faults of a kind
that it was not built on; the times in them are those that a user would write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio
import trio.testing

from agentpool.testing import dice, latency, operation


async def key_is_gone(*, repaired: bool) -> None:
    """A host is being looked up; after a trace was sent, its entry is not there any more.

    Promise: whoever asks for a host gets its address.
    Source: https://github.com/aio-libs/aiohttp/pull/4014
    """
    cache: dict[str, str] = {}
    under_way: dict[str, trio.Event] = {}

    async def trace() -> None:
        await trio.sleep(latency(0.01))

    async def resolve(host: str) -> str:
        if host in cache:
            return cache[host]
        if host in under_way:
            event = under_way[host]
            await trace()
            await (event if repaired else under_way[host]).wait()
            return cache[host]
        event = under_way[host] = trio.Event()
        await trio.sleep(latency(0.05))
        cache[host] = "10.0.0.1"
        event.set()
        del under_way[host]
        return cache[host]

    async def ask() -> None:
        await trio.sleep(latency(0.05))
        assert await resolve("example.org") == "10.0.0.1"

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)


async def same_index_twice(*, repaired: bool) -> None:
    """One of those who wait at a barrier leaves, and the next one gets the number of another.

    Promise: all who pass together have different numbers, from 0 on.
    Source: https://github.com/python/cpython/issues/155233
    """
    parties, waiting, opened = 3, list[object](), trio.Event()
    indices: list[int] = []

    async def wait() -> int:
        me, index = object(), len(waiting)
        waiting.append(me)
        try:
            if len(waiting) == parties:
                opened.set()
            await opened.wait()
        except trio.Cancelled:
            waiting.remove(me)
            raise
        return waiting.index(me) if repaired else index

    async def party(patience: float) -> None:
        await trio.sleep(latency(1))
        with trio.move_on_after(patience):
            indices.append(await wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(party, 1)
        for _ in range(4):
            nursery.start_soon(party, 100)
        await opened.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    first = indices[:parties]
    assert len(set(first)) == len(first), f"the same number twice: {first}"


@attrs.define(eq=False)
class ReadWriteLock:
    """A lock for some readers or one writer."""

    readers: int = 0
    writers: int = 0
    changed: trio.Event = attrs.field(factory=trio.Event)

    def wake(self) -> None:
        """Let everyone who waits look again."""
        self.changed.set()
        self.changed = trio.Event()


async def less_than_no_writer(*, repaired: bool) -> None:
    """A writer that gives up waiting is subtracted, and had never been added.

    Promise: in the end anyone can take the lock.
    Source: https://github.com/aio-libs/aiorwlock/issues/400
    """
    lock = ReadWriteLock()

    async def read() -> None:
        await trio.sleep(latency(1))
        while lock.writers:
            await lock.changed.wait()
        lock.readers += 1
        await trio.sleep(latency(1))
        lock.readers -= 1
        lock.wake()

    async def write() -> None:
        is_mine = False
        try:
            while lock.readers or lock.writers:
                await lock.changed.wait()
            lock.writers += 1
            is_mine = True
            await trio.sleep(latency(1))
        finally:
            if is_mine or not repaired:
                lock.writers -= 1
            lock.wake()

    async def try_to_write() -> None:
        await trio.sleep(latency(1))
        with trio.move_on_after(0.5), operation():
            await write()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        nursery.start_soon(try_to_write)
    assert (lock.readers, lock.writers) == (0, 0)


@attrs.define(eq=False)
class Connection:
    """A connection of a pool."""

    idle: bool = True
    closed: bool = False
    wanted: bool = False


async def closed_while_it_was_given(*, repaired: bool) -> None:
    """A request is given an idle connection, and before it wakes up another pass closes that.

    Promise: the connection that a request was given is open.
    Source: https://github.com/encode/httpcore/issues/1110
    """
    connections = [Connection()]
    given: dict[int, Connection] = {}
    ready = [trio.Event() for _ in range(2)]

    def give(number: int) -> None:
        for connection in connections:
            if connection.idle and not connection.wanted:
                connection.wanted = True
                given[number] = connection
                ready[number].set()
                return
        given[number] = Connection(wanted=True)
        connections.append(given[number])
        ready[number].set()

    def close_surplus() -> None:
        for connection in connections:
            if connection.idle and not (repaired and connection.wanted):
                connection.closed = True
        connections[:] = [one for one in connections if not one.closed]

    async def request(number: int) -> None:
        await trio.sleep(latency(0.1))
        give(number)
        await ready[number].wait()
        await trio.lowlevel.checkpoint()
        connection = given[number]
        connection.idle = False
        assert not connection.closed, f"request {number} has a connection that is closed"
        await trio.sleep(latency(0.1))
        connection.idle, connection.wanted = True, False
        close_surplus()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(request, 0)
        nursery.start_soon(request, 1)


async def timer_of_an_idle_connection(*, repaired: bool) -> None:
    """The keep-alive timer goes off in the moment in which the next request has arrived.

    Promise: a request that was accepted is answered.
    Source: https://github.com/aio-libs/aiohttp/issues/9138
    """
    keep_alive_seconds = 5.0
    send, receive = trio.open_memory_channel[int](1)
    accepted, answered = list[int](), list[int]()

    async def handle(request: int) -> None:
        accepted.append(request)
        await trio.sleep(latency(0.1))
        answered.append(request)

    async def serve() -> None:
        async with receive:
            while True:
                request: int | None = None
                with trio.move_on_after(keep_alive_seconds) as idle:
                    request = await receive.receive()
                    if not repaired:
                        await handle(request)
                if request is None or (idle.cancelled_caught and not repaired):
                    return
                if repaired:
                    await handle(request)

    async def ask() -> None:
        for number in range(3):
            await trio.sleep(dice().uniform(4.5, 5.5))
            try:
                await send.send(number)
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(ask)
    assert set(accepted) == set(answered), f"accepted {accepted}, answered {answered}"


async def unlocked_for_another(*, repaired: bool) -> None:
    """A holder whose lease has run out unlocks what is the lease of its successor by then.

    Promise: nobody gets the lock while the lease of another one runs.
    Source: https://github.com/agentscope-ai/agentscope/issues/2728
    """
    lease_seconds = 10.0
    lock: tuple[int, float] | None = None
    leases: dict[int, float] = {}

    def try_lock(owner: int) -> bool:
        nonlocal lock
        now = trio.current_time()
        if lock is not None and now < lock[1]:
            return False
        assert all(end <= now for end in leases.values()), f"{owner} gets it; {leases} at {now}"
        leases[owner] = now + lease_seconds
        lock = owner, leases[owner]
        return True

    async def work(owner: int, seconds: float) -> None:
        nonlocal lock
        await trio.sleep(latency(1))
        while not try_lock(owner):  # noqa: ASYNC110  # as clients of a lock server do
            await trio.sleep(1)
        await trio.sleep(latency(seconds))
        del leases[owner]
        if not repaired or (lock is not None and lock[0] == owner):
            lock = None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, 1, 9.0)
        nursery.start_soon(work, 2, 4.0)
        nursery.start_soon(work, 3, 4.0)


async def older_answer_wins(*, repaired: bool) -> None:
    """Two refreshes are under way, and the older one is answered last.

    Promise: what is shown is what the latest refresh asked for.
    Source: https://github.com/home-assistant/core/pull/180598
    """
    server, shown, asked = 0, 0, 0

    async def fetch() -> int:
        await trio.sleep(latency(0.2))
        value = server
        await trio.sleep(latency(0.2))
        return value

    async def refresh() -> None:
        nonlocal shown, asked
        asked += 1
        mine = asked
        value = await fetch()
        if not repaired or mine == asked:
            shown = value

    async def write() -> None:
        nonlocal server
        await trio.sleep(latency(1))
        server += 1
        await refresh()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(write)
    assert shown == server, f"{shown} is shown, {server} is there"


async def opened_for_a_task_that_never_ran(*, repaired: bool) -> None:
    """A connection is opened for a task, whose group is cancelled before its first step.

    Promise: what was opened is closed.
    Source: https://github.com/python/cpython/issues/116048
    """
    opened, closed = 0, 0

    def connect() -> None:
        nonlocal opened
        opened += 1

    async def use() -> None:
        nonlocal closed
        if repaired:
            connect()
        else:
            await trio.lowlevel.checkpoint()  # such as a slot that is waited for
        try:
            await trio.sleep(latency(1))
        finally:
            closed += 1

    async def process() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                if not repaired:
                    connect()
                nursery.start_soon(use)
                await trio.sleep(latency(1))

    with trio.move_on_after(2), operation():
        await process()
    assert opened == closed, f"{opened} opened, {closed} closed"


async def snapshot_before_the_subscription(*, repaired: bool) -> None:
    """A change comes between the snapshot and the subscription, and is in neither.

    Promise: a follower ends with what the source has.
    Source: https://github.com/booksbyus/zguide/issues/818
    """
    source = 0
    followers: list[Callable[[int], None]] = []

    async def publish() -> None:
        nonlocal source
        for _ in range(2):
            await trio.sleep(latency(1))
            source += 1
            for tell in followers:
                tell(source)

    async def follow() -> None:
        mine = 0

        def note(value: int) -> None:
            nonlocal mine
            mine = max(mine, value)

        async def subscribe() -> None:
            await trio.sleep(latency(0.02))
            followers.append(note)

        async def copy() -> None:
            note(source)
            await trio.sleep(latency(0.02))

        steps: list[Callable[[], Awaitable[None]]] = [copy, subscribe]
        await trio.sleep(latency(1))
        for step in reversed(steps) if repaired else steps:
            await step()
        await trio.sleep(20)
        assert mine == source, f"the follower has {mine}, the source {source}"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        nursery.start_soon(follow)


async def half_a_message(*, repaired: bool) -> None:
    """A sender gives up between the head and the body of a message.

    Promise: what is on the wire are whole messages.
    Source: https://github.com/richardsheridan/trio-parallel/pull/15
    """
    wire: list[str] = []

    async def write(part: str) -> None:
        await trio.sleep(latency(0.05))
        wire.append(part)

    async def send(number: int) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=repaired):
            await write(f"head {number}")
            await write(f"body {number}")

    for number in range(3):
        with trio.move_on_after(1), operation():
            await send(number)
    heads, bodies = wire[::2], wire[1::2]
    assert [one.replace("head", "body") for one in heads] == bodies, wire


async def two_winners(*, repaired: bool) -> None:
    """Two attempts to connect succeed at the same time, and only one of them is kept.

    Promise: of all sockets that were opened, one is open in the end.
    Source: https://github.com/python-trio/trio/pull/809
    """
    open_sockets: set[str] = set()
    winner: str | None = None

    async def shake_hands(done: trio.Event) -> None:
        await trio.sleep(latency(0.25))
        done.set()

    async def attempt(host: str, nursery: trio.Nursery, network: trio.Nursery) -> None:
        nonlocal winner
        done = trio.Event()
        open_sockets.add(host)
        network.start_soon(shake_hands, done)
        try:
            await done.wait()
        except trio.Cancelled:
            open_sockets.discard(host)
            raise
        if repaired and winner is not None:
            open_sockets.discard(host)
        else:
            winner = host
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as network:
        async with trio.open_nursery() as nursery:
            for host in ("::1", "127.0.0.1", "10.0.0.1"):
                nursery.start_soon(attempt, host, nursery, network)
                await trio.sleep(0.1)
        assert len(open_sockets) == 1, f"open in the end: {sorted(open_sockets)}"


async def forgotten_in_closing(*, repaired: bool) -> None:
    """A pool takes a connection out of its list, and is cancelled while it closes that.

    Promise: a pool whose closing was given up can be closed again, and all is closed then.
    Source: https://github.com/long2ice/asyncmy/issues/156
    """
    free, closed = ["a", "b", "c"], list[str]()

    async def close_one(name: str) -> None:
        await trio.sleep(latency(0.1))  # says good-bye
        closed.append(name)

    async def close_all() -> None:
        while free:
            name = free[-1] if repaired else free.pop()
            await close_one(name)
            if repaired:
                free.pop()

    with trio.move_on_after(1), operation():
        await close_all()
    await close_all()
    assert sorted(closed) == ["a", "b", "c"], closed


LIFETIMES = (
    key_is_gone,
    same_index_twice,
    less_than_no_writer,
    closed_while_it_was_given,
    timer_of_an_idle_connection,
    unlocked_for_another,
    older_answer_wins,
    opened_for_a_task_that_never_ran,
    snapshot_before_the_subscription,
    half_a_message,
    two_winners,
    forgotten_in_closing,
)
