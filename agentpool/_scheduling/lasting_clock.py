"""A clock that goes on from one run of trio to the next, for what lasts longer than a run."""

from __future__ import annotations

import time  # noqa: TID251  # between two runs there is no clock of trio
from typing import final

import trio

from agentpool._base import Live


@final
class LastingClock(Live):
    """Tells the time of trio, in seconds, without the jump between two runs.

    Each run of trio has a clock that begins anywhere, so times of an earlier run may lie hours
    ahead. Between two runs, the system's clock counts.
    """

    _run: trio.lowlevel.TrioToken | None = None
    _offset: float = 0.0
    """What this clock is ahead of that of the current run."""
    _last: float = 0.0
    _last_outside: float = 0.0
    """The system's clock at ``_last``."""

    def now(self) -> float:
        """Return the time. Outside of a run, it is that of the last call in one."""
        if not trio.lowlevel.in_trio_run():
            return self._last
        run, here = trio.lowlevel.current_trio_token(), trio.current_time()
        if run is not self._run:
            if self._run is not None:
                passed = time.monotonic() - self._last_outside
                self._offset = self._last + passed - here
            self._run = run
        self._last, self._last_outside = here + self._offset, time.monotonic()
        return self._last

    def in_trio(self, at: float) -> float:
        """Return *at*, a time of this clock, as one of trio's clock in the current run."""
        return at - self._offset
