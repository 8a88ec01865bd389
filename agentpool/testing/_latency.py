"""Random delays like those of real models and tools, drawn from the scenario's seed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar, final

import attrs
import trio

from agentpool._checks import expect_arguments, expect_fields
from agentpool._errors import UsageError
from agentpool._manifest.capability import PrivacyTier
from agentpool._messages import Completion, CompletionRequest, Usage
from agentpool.abc import Driver, OnDelta
from agentpool.testing._simulation.chance import dice

P = ParamSpec("P")
T = TypeVar("T")


def latency(seconds: float) -> float:
    """Return a random delay of about *seconds*, drawn from ``dice("latency")``.

    As with real servers, most delays are near *seconds*, and one in a few hundred is ten times as
    long.

    Args:
        seconds: The median delay.
    """
    expect_arguments(latency, locals())
    return seconds * dice("latency").lognormvariate(0.0, 1.0)


def slow(async_fn: Callable[P, Awaitable[T]], seconds: float) -> Callable[P, Awaitable[T]]:
    """Wrap *async_fn* so that each call begins with a random delay.

    Args:
        async_fn: The function to slow down.
        seconds: The median delay. Each call draws its own.
    """
    expect_arguments(slow, locals())

    @wraps(async_fn)
    async def slowly(*args: P.args, **kwargs: P.kwargs) -> T:
        await trio.sleep(latency(seconds))
        return await async_fn(*args, **kwargs)

    return slowly


@final
@attrs.frozen(eq=False, repr=False)
class LatencyDriver(Driver):
    """Delays each request to another driver at random, as a server does.

    >>> from agentpool.drivers import ScriptedDriver
    >>> driver = LatencyDriver(ScriptedDriver(["It is noon."]), seconds=0.8)
    """

    driver: Driver
    """The inner driver."""
    seconds: float = attrs.field(default=1.0, kw_only=True)
    """The median duration of a request."""

    def __attrs_post_init__(self) -> None:
        """Refuse fields of the wrong type."""
        expect_fields(self)
        if self.seconds < 0:
            raise UsageError(f"seconds must be >= 0, got {self.seconds!r}")

    @property
    def context_window(self) -> int | None:
        """The window of the inner driver."""
        return self.driver.context_window

    @property
    def privacy(self) -> PrivacyTier:
        """The tier of the inner driver."""
        return self.driver.privacy

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Return the price of the inner driver."""
        return self.driver.price(usage, model=model)

    def highest_price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Return the highest price of the inner driver."""
        return self.driver.highest_price(usage, model=model)

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Wait, then ask the inner driver.

        Raises:
            Exception: What the inner driver raises.

        Cancellation:
            If the call was still waiting, the inner driver was not asked.
        """
        await trio.sleep(latency(self.seconds))
        return await self.driver.complete(request, on_delta=on_delta)
