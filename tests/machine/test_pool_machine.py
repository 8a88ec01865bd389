"""The real pool under everything that can happen to one, in orders that nobody thought of."""

from __future__ import annotations

import msgspec
import pytest

from agentpool import SpawnConfig
from agentpool._pool import admission
from agentpool.abc import Driver
from agentpool.drivers import GatedDriver, RequestGate
from agentpool.testing import PoolMachine


class WidePool(PoolMachine):
    """A pool with more room than agents."""

    max_concurrent = 3
    max_queued = 20
    inbox_capacity = 8


class NarrowPool(PoolMachine):
    """A pool of one, that refuses where others queue."""

    max_concurrent = 1
    max_queued = 0
    inbox_capacity = 1


class GatedPool(PoolMachine):
    """A pool before a gate, in groups: who waits has no slot, and nobody is forgotten."""

    max_concurrent = 2

    def make_driver(self) -> Driver:
        """Let two requests through, and four a minute."""
        gate = RequestGate(max_in_flight=2, requests_per_minute=4, random_seed=0)
        return GatedDriver(self.puppet, gate)

    def make_config(self, number: int) -> SpawnConfig:
        """Return an agent of one of three groups, some of them urgent."""
        config = super().make_config(number)
        return msgspec.structs.replace(
            config, group="ab"[: number % 3], weight=1 + number % 2, priority=number % 5 // 4
        )


class HandingPool(PoolMachine):
    """A pool in which slots are handed on in the next step, as where many agents run."""

    def __init__(self) -> None:
        """Count every agent as many."""
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(admission, "MANY", 1)
        super().__init__()

    def teardown(self) -> None:
        """Count as usual."""
        try:
            super().teardown()
        finally:
            self._patch.undo()


TestPool = PoolMachine.TestCase
TestWidePool = WidePool.TestCase
TestNarrowPool = NarrowPool.TestCase
TestGatedPool = GatedPool.TestCase
TestHandingPool = HandingPool.TestCase
