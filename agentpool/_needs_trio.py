"""The check that trio is running: other event loops are not supported."""

from __future__ import annotations

import trio

from agentpool._errors import UsageError


def check_trio(name: str) -> None:
    """Raise unless the caller of *name* runs on trio.

    Raises:
        UsageError: If it runs on asyncio or on nothing.
    """
    if not trio.lowlevel.in_trio_task():
        raise UsageError(
            f"{name}() needs trio; run the program with trio.run(main), not with "
            "asyncio.run(main()); a server that must stay on asyncio keeps its pool in a thread: "
            "await asyncio.to_thread(trio.run, main), as in examples/asyncio_service.py and on "
            "the page 'Use it beside asyncio'"
        )
