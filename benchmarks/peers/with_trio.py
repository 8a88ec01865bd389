"""The loop of an agent on bare trio: a task each, and a `CapacityLimiter`."""

from __future__ import annotations

import math

import trio
from one import AT_ONCE, WARM_UP, Meter

PACKAGE, IMPORT = "trio", "import trio"


def add(x: int) -> int:
    """Add one."""
    return x + 1


async def run(calls: int) -> str:
    """Ask, call a tool, and ask again."""
    messages = ["go"]
    for called in range(calls):
        await trio.lowlevel.checkpoint()
        messages.append(str(add(called)))
    await trio.lowlevel.checkpoint()
    return "done"


def agents(n: int, meter: Meter) -> None:
    """Run *n* agents that ask once."""

    async def all_of_them() -> None:
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def one() -> None:
            async with limiter:
                await run(0)

        async def several(count: int) -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(one)

        await several(WARM_UP)
        with meter.running():
            await several(n)

    trio.run(all_of_them)


def turns(n: int, meter: Meter) -> None:
    """Run one agent that calls a tool *n* times."""

    async def one() -> None:
        await run(2)
        with meter.running():
            await run(n)

    trio.run(one)


async def wait(scopes: list[trio.CancelScope]) -> None:
    """Wait for ever, in a scope of one's own, as an agent that can be ended alone."""
    with trio.CancelScope() as scope:
        scopes.append(scope)
        await trio.sleep_forever()


def abort(n: int, meter: Meter) -> None:
    """End *n* agents that wait."""

    async def all_of_them() -> None:
        scopes: list[trio.CancelScope] = []
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(wait, scopes)
            await trio.testing.wait_all_tasks_blocked()
            with meter.running():
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True, deadline=math.inf):
                    while len(nursery.child_tasks):  # noqa: ASYNC110  # there is no event when the last child has gone
                        await trio.lowlevel.checkpoint()
        meter.found["left"] = 0

    import trio.testing  # noqa: PLC0415 - not for the other workloads to pay

    trio.run(all_of_them)


def memory(n: int, meter: Meter) -> None:
    """Hold *n* agents that wait."""
    import trio.testing  # noqa: PLC0415 - not for the other workloads to pay

    async def all_of_them() -> None:
        scopes: list[trio.CancelScope] = []
        async with trio.open_nursery() as nursery:
            with meter.growing():
                for _ in range(n):
                    nursery.start_soon(wait, scopes)
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(all_of_them)
