"""Drivers that say when a request leaves: one that never left costs nothing.

A connection that was refused, or a wait at a gate that was cancelled, is no request. Of a
driver that does not say it, nobody can know, so whatever it was asked counts as sent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, runtime_checkable

from agentpool._messages import Completion, CompletionRequest
from agentpool.abc import Driver, OnDelta

OnSent: TypeAlias = Callable[[], None]
"""Called as soon as some of a request may have left. It must not block."""


@runtime_checkable
class HearsThoughts(Protocol):
    """An `OnDelta` that is told what the model thinks as well, apart from its text."""

    def __call__(self, text: str, /) -> None:
        """Take a piece of text."""

    def thought(self, text: str, /) -> None:
        """Take a piece of what the model thinks. It must not block."""


class SayingDriver(Driver):
    """A driver that says when a request leaves."""

    __slots__ = ()

    @abstractmethod
    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Answer *request*.

        Args:
            request: What to answer.
            on_delta: As in ``Driver``.
            on_sent: Called before anything leaves, perhaps more than once. If it was not
                called when this ends, however it ends, nobody was asked.

        Raises:
            DriverError: In one of its subclasses.

        Cancellation:
            As in ``Driver``.
        """


def ask(
    driver: Driver, request: CompletionRequest, on_delta: OnDelta | None, on_sent: OnSent | None
) -> Awaitable[Completion]:
    """Ask *driver*, and have it said when the request leaves. To be awaited at once.

    Raises:
        DriverError: As the driver raises it.

    Cancellation:
        As in ``Driver``.
    """
    if on_sent is None:
        return driver.complete(request, on_delta=on_delta)
    if isinstance(driver, SayingDriver):
        return driver.complete(request, on_delta=on_delta, on_sent=on_sent)
    on_sent()
    return driver.complete(request, on_delta=on_delta)
