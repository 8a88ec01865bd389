"""What answers a completion request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from agentpool._manifest.capability import PrivacyTier
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import Completion, CompletionRequest, Usage

OnDelta = Callable[[str], None]
"""Called with each piece of text as it arrives. It must not block."""


class Driver(ABC):
    """The thing that answers a completion request: a model, near or far, or a script."""

    __slots__ = ()

    @abstractmethod
    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Answer *request*.

        Args:
            request: The conversation and its settings. Read it now, do not keep it.
            on_delta: Where pieces of the text go as they arrive. Together they are the
                completion's text. A driver that does not stream may ignore it. One with a
                method ``thought`` is told of thoughts as well.

        Raises:
            DriverError: In one of its subclasses, whatever went wrong.

        Cancellation:
            The request ends at the provider as well, and holds no connection.
        """

    @property
    @abstractmethod
    def context_window(self) -> int | None:
        """Tokens that request and answer may have together. ``None``: nobody knows."""

    @property
    def max_output_tokens(self) -> int | None:
        """The most tokens that the model can write in one answer. ``None``: nobody knows."""
        return None

    @property
    def inputs(self) -> frozenset[str] | None:
        """What the model reads besides text: ``image``, ``pdf``. ``None``: nobody knows."""
        return None

    @property
    @abstractmethod
    def privacy(self) -> PrivacyTier:
        """The tier of the place where the request ends up."""

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002
        """Return what *usage* costs in US dollars. ``None``: nobody knows; 0.0 is free."""
        return None


DriverFactory: TypeAlias = Callable[[AgentManifest], Driver]
"""Chooses the driver of an agent by its manifest. Called at spawn; must not block."""
