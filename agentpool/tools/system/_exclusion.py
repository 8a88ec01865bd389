"""Keeps two kinds of programs from running at the same time.

Programs of one kind check what programs of the other kind may change: a check is worth nothing if
the other kind runs meanwhile. Programs of the same kind run side by side. All programs start in the
order in which they came, whatever their kind.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

import attrs
import trio


@final
@attrs.define(eq=False)
class Exclusion:
    """Lets programs of only one of two kinds run at the same time."""

    _door: trio.Lock = attrs.field(init=False, factory=trio.Lock)
    _running: int = attrs.field(init=False, default=0)
    _kind: bool = attrs.field(init=False, default=False)
    _empty: trio.Event = attrs.field(init=False, factory=trio.Event)

    @asynccontextmanager
    async def take(self, *, kind: bool) -> AsyncGenerator[None, None]:
        """Wait until no program of the other kind runs, and keep that kind out during the block.

        Args:
            kind: Which of the two kinds the caller's program is.
        """
        async with self._door:  # who comes later waits here, so nobody is passed
            if self._running and self._kind is not kind:
                self._empty = trio.Event()
                await self._empty.wait()
            self._kind = kind
            self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._empty.set()
