"""A driver whose requests wait at a gate."""

from __future__ import annotations

from typing import final

from agentpool._capability import PrivacyTier
from agentpool._context import request_tokens
from agentpool._gate import RequestGate
from agentpool._messages import Completion, CompletionRequest, Usage
from agentpool.abc import Driver, OnDelta


@final
class GatedDriver(Driver):
    """Asks another driver, through a gate.

    An agent that waits at the gate has no slot, and the time that its manifest gives one
    request does not run meanwhile.
    """

    __slots__ = ("_driver", "_gate")

    def __init__(self, driver: Driver, gate: RequestGate) -> None:
        """Ask *driver* through *gate*.

        Args:
            driver: Who answers. It stays its opener's to close.
            gate: Where requests wait. Several drivers, and so several pools, may share it.
        """
        self._driver = driver
        self._gate = gate

    @property
    def gate(self) -> RequestGate:
        """Where its requests wait."""
        return self._gate

    @property
    def context_window(self) -> int | None:
        """As the driver's."""
        return self._driver.context_window

    @property
    def privacy(self) -> PrivacyTier:
        """As the driver's."""
        return self._driver.privacy

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Return the driver's price."""
        return self._driver.price(usage, model=model)

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Wait until the gate lets the request in, and ask the driver.

        Raises:
            DriverError: As the driver raises it. A rate limit or overload closes the gate.

        Cancellation:
            Nobody else's turn is lost, and the request ends at the provider as well.
        """
        tokens = request_tokens(request) if self._gate.counts_tokens else 0
        async with self._gate.request(tokens) as ticket:
            completion = await self._driver.complete(request, on_delta=on_delta)
            if completion.usage is not None:
                ticket.used_tokens = completion.usage.total_tokens
            return completion
