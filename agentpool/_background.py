"""A nursery for tasks that only serve a block."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from agentpool._block_errors import raise_unless_cancelled


@asynccontextmanager
async def background() -> AsyncGenerator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled at the end of the block.

    An error of the block is raised unchanged, not in a group.
    """
    failed: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except Exception as raised:  # noqa: BLE001  # raised again below
                failed = raised
            nursery.cancel_scope.cancel()
    except BaseException as outside:  # noqa: ASYNC103, BLE001  # see there
        raise_unless_cancelled(failed, outside)
    if failed is not None:
        raise failed
