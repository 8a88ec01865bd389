"""A nursery for tasks that only serve a block."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background() -> AsyncGenerator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled at the end of the block.

    An error of the block is raised as it is, in no group.
    """
    raised: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except Exception as error:  # noqa: BLE001  # raised below
            raised = error
        nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised
