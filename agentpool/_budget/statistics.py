"""Snapshots of a pool and of a budget, in numbers."""

from __future__ import annotations

from typing import final

import msgspec


@final
class BudgetMeter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One kind of amount in a budget, at one moment."""

    limit: float | None
    """How much is allowed. ``None``: no limit."""
    committed: float
    """The used amount. Where that is unknown, the reserved amount counts."""
    reserved: float
    """The amount reserved for requests in progress."""

    @property
    def left(self) -> float | None:
        """How much is neither used nor reserved, at least 0. ``None``: no limit."""
        if self.limit is None:
            return None
        return max(0, self.limit - self.committed - self.reserved)


@final
class BudgetStatistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A budget at one moment, including everything spent below it."""

    name: str
    """The budget's name."""
    tokens: BudgetMeter
    """Tokens in plus tokens out."""
    cost: BudgetMeter
    """US dollars, as far as prices are known."""
    requests: BudgetMeter
    """Requests to a model, retries included."""
    tool_calls: BudgetMeter
    """Tool calls that ran."""
    unmeasured: int
    """Requests of unknown usage or cost: charged as reserved."""
    unpriced: int
    """Requests without any known price: they add nothing to ``cost``."""
    refused: int
    """How often whoever draws on it was refused something, by it or by one above or below it."""

    @property
    def cost_usd(self) -> float | None:
        """US dollars spent. ``None``: part of it has no known price; 0.0 is free."""
        return None if self.unpriced else self.cost.committed


@final
class PoolStatistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A pool at one moment."""

    running: int
    """Agents that hold a slot."""
    parked: int
    """Agents that gave their slots back while they wait."""
    at_gate: int
    """The part of ``parked`` that waits for a provider. New agents do not get the slots of
    these."""
    queued: int
    """Agents that wait for their first slot."""
    spawned: int
    """Agents that were accepted so far."""
    max_concurrent: float
    """The number of slots."""
    messages: int
    """Messages that were accepted so far."""
    dead_letters: int
    """Accepted messages that will never be received."""
    warnings: int
    """Things that were near a limit, or that went wrong and were tolerated."""
    observer_failures: int
    """How often an observer raised."""
    observer_failure: str = ""
    """Which observer raised first, and its error. A full disk under a recording shows up here.
    Empty: none raised."""
    budget: BudgetStatistics | None = None
    """The budget that the pool was opened with. ``None``: it was opened without a budget."""
