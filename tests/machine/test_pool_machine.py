"""The real pool under everything that can happen to one, in orders that nobody thought of."""

from __future__ import annotations

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


TestPool = PoolMachine.TestCase
TestWidePool = WidePool.TestCase
TestNarrowPool = NarrowPool.TestCase
