"""Drivers: they answer requests to a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar, Protocol, TypeAlias, final, runtime_checkable

from agentpool._attachments import Attachment
from agentpool._base import Shown
from agentpool._manifest.capability import PrivacyTier
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import Completion, CompletionRequest, Usage

OnDelta = Callable[[str], None]
"""Called with each piece of text as it arrives. It must not block."""

OnSent: TypeAlias = Callable[[], None]
"""Called as soon as a part of a request may have been sent. It must not block."""


@runtime_checkable
class HearsThoughts(Protocol):
    """An `OnDelta` that also receives the model's thoughts, separately from its text."""

    def __call__(self, text: str, /) -> None:
        """Receive a piece of text."""

    def thought(self, text: str, /) -> None:
        """Receive a piece of the model's thoughts. Must not block."""


class Driver(Shown, ABC):
    """Answers requests: a hosted model, a local model, or a script."""

    __slots__ = ()

    tells_sent: ClassVar[bool] = False
    """Whether it is a `SendingDriver`."""

    @abstractmethod
    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Answer *request*.

        Args:
            request: The conversation and its settings. Read it now, do not keep it.
            on_delta: Called with each piece of the text as it arrives. All pieces together are the
                completion's text. A driver that does not stream may ignore it. If *on_delta* has a
                method ``thought``, that method gets the model's thoughts.

        Raises:
            DriverError: One of its subclasses, whatever went wrong.

        Cancellation:
            The request ends at the provider as well, and holds no connection.
        """

    def complete_telling(
        self, request: CompletionRequest, on_delta: OnDelta | None, on_sent: OnSent | None
    ) -> Awaitable[Completion]:
        """Answer *request*, and report when it is sent. Await it immediately.

        Pools call this method. If a driver does not report when it sends, each request counts as
        sent. See `SendingDriver`.

        Args:
            request: As in ``complete``.
            on_delta: As in ``complete``.
            on_sent: Called before any part of the request is sent. ``None``: nothing is called.
        """
        if on_sent is not None:
            on_sent()
        return self.complete(request, on_delta=on_delta)

    @property
    @abstractmethod
    def context_window(self) -> int | None:
        """The maximum tokens of request and answer together. ``None``: unknown."""

    @property
    def max_output_tokens(self) -> int | None:
        """The maximum tokens of one answer. ``None``: unknown."""
        return None

    @property
    def inputs(self) -> frozenset[str] | None:
        """The inputs that the model reads besides text: ``image``, ``pdf``. ``None``: unknown."""
        return None

    @property
    def most_image_bytes(self) -> int | None:
        """The size of the largest accepted image. ``None``: no known limit."""
        return None

    @property
    def most_input_tokens(self) -> int | None:
        """The most tokens of a request alone. ``None``: as many as the window has room for."""
        return None

    @property
    def most_image_pixels(self) -> int | None:
        """The longest side of an accepted image. ``None``: no known limit."""
        return None

    def attachment_tokens(self, attachment: Attachment) -> int:
        """Estimate the tokens that *attachment* takes of the window.

        By default, this is the highest count of any provider.
        """
        return attachment.tokens

    @property
    @abstractmethod
    def privacy(self) -> PrivacyTier:
        """The privacy tier of the place where requests are answered."""

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002
        """Return the cost of *usage* in US dollars. ``None``: unknown; 0.0 is free."""
        return None

    def highest_price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Return the most that *usage* may cost, in US dollars: what a budget reserves.

        It differs from ``price`` only in a driver that asks others. ``None``: unknown.
        """
        return self.price(usage, model=model)


class SendingDriver(Driver):
    """A driver that reports when a request is sent: an unsent request costs nothing.

    If the connection was refused, or a wait at a gate was cancelled, no request was made.
    """

    __slots__ = ()

    tells_sent: ClassVar[bool] = True

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
            on_sent: Called before anything is sent, perhaps more than once. If this ends, in
                whatever way, before *on_sent* was called, no request was made.

        Raises:
            DriverError: One of its subclasses.

        Cancellation:
            As in ``Driver``.
        """

    @final
    def complete_telling(
        self, request: CompletionRequest, on_delta: OnDelta | None, on_sent: OnSent | None
    ) -> Awaitable[Completion]:
        """Answer *request*; ``complete`` itself reports when it is sent."""
        return self.complete(request, on_delta=on_delta, on_sent=on_sent)


DriverFactory: TypeAlias = Callable[[AgentManifest], Driver]
"""Chooses the driver of an agent by its manifest. Called at spawn; must not block."""
