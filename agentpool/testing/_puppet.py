"""A driver whose answers are decided by the test, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import attrs
import trio

from agentpool._events import AgentResumed, AgentStarted, Event
from agentpool._manifest.capability import PrivacyTier
from agentpool._messages import Completion, CompletionRequest
from agentpool._pool.pool import AgentPool
from agentpool.abc import Driver, Observer, OnDelta


@final
@attrs.define(eq=False)
class PendingRequest:
    """A request that waits for its answer."""

    request: CompletionRequest
    """The request. Its conversation is a live view, which still grows."""
    _on_delta: OnDelta | None
    _answered: trio.Event = attrs.field(factory=trio.Event)
    _completion: Completion | None = None
    _error: Exception | None = None

    def answer(self, completion: Completion) -> None:
        """Answer the request."""
        if completion.text and self._on_delta is not None:
            self._on_delta(completion.text)
        self._completion = completion
        self._answered.set()

    def fail(self, error: Exception) -> None:
        """Fail the request."""
        self._error = error
        self._answered.set()

    async def wait(self) -> Completion:
        """Wait for the test's decision.

        Raises:
            Exception: If the test lets the request fail.
        """
        await self._answered.wait()
        if self._completion is None:
            raise self._error or AssertionError("answered with nothing")
        return self._completion


@final
@attrs.define(eq=False)
class PuppetDriver(Driver):
    """Holds each request until the test answers it."""

    pending: list[PendingRequest] = attrs.field(factory=list[PendingRequest])
    """The requests that wait, oldest first."""

    @property
    def context_window(self) -> int | None:
        """Always ``None``: unknown, so nothing is ever cut."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """Sovereign: the driver sends nothing anywhere."""
        return PrivacyTier.SOVEREIGN

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Wait until the test answers.

        Raises:
            Exception: If the test lets the request fail.

        Cancellation:
            The request no longer waits.
        """
        await trio.lowlevel.checkpoint()
        pending = PendingRequest(request, on_delta)
        self.pending.append(pending)
        try:
            return await pending.wait()
        finally:
            self.pending.remove(pending)


@final
@attrs.define(eq=False)
class BoundWatch(Observer):
    """An observer that checks that there are never more running agents than slots."""

    pool: AgentPool | None = None
    """The pool. ``None``: the pool is not open yet."""
    faults: list[str] = attrs.field(factory=list[str])
    """One line for each moment with too many running agents."""

    def on_event(self, event: Event) -> None:
        """Check the number of running agents when one gets a slot."""
        if self.pool is None or not isinstance(event, AgentStarted | AgentResumed):
            return
        running, slots = self.pool.statistics().running, self.pool.max_concurrent
        if running > slots:
            self.faults.append(f"{running} agents run with {slots:g} slots at {event}")


@final
@attrs.define(eq=False)
class ActingObserver(Observer):
    """Uses the pool from its callback, in the middle of the operation that caused the event."""

    act: Callable[[Event], None]
    """Called with each event."""
    failures: list[Exception] = attrs.field(factory=list[Exception])
    """The errors that ``act`` raised, which the pool only counts."""

    def on_event(self, event: Event) -> None:
        """Perform the action."""
        try:
            self.act(event)
        except Exception as error:  # noqa: BLE001  # told by the machine's invariant
            self.failures.append(error)
