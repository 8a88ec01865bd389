"""What can go wrong with a model, its provider, or the way there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from agentpool._errors.errors import AgentPoolError


class DriverError(AgentPoolError):
    """The model, its provider or the way there failed."""

    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        retry_after_seconds: float | None = None,
        status_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable: bool = self.default_retryable if retryable is None else retryable
        """Whether the same request may succeed later."""
        self.retry_after_seconds: float | None = retry_after_seconds
        """What the provider asked to wait. ``None``: it did not say."""
        self.status_code: int | None = status_code
        """The HTTP status. ``None``: the failure was not an HTTP answer."""


class RateLimitError(DriverError):
    """Too many requests or tokens in the provider's period."""

    default_retryable = True


class OverloadedError(DriverError):
    """The provider cannot serve anybody right now."""

    default_retryable = True


class NetworkError(DriverError):
    """No connection, or one that broke."""

    default_retryable = True


class AuthenticationError(DriverError):
    """The key is missing, wrong, or not allowed to do this."""


class BadRequestError(DriverError):
    """The provider does not accept the request as it is."""


class ContextOverflowError(DriverError):
    """The conversation does not fit the model's window."""


class UnknownModelError(DriverError):
    """There is no such model where it was looked for."""


class FailedAttemptError(DriverError):
    """The model failed to write what it wanted to, such as a call that nothing can read.

    Asked once more, it mostly succeeds; a third time it would be paid for the same again.
    """

    default_retryable = True


class AllDriversFailedError(DriverError):
    """Several drivers were asked, and none answered. Has what each of them failed with."""

    def __init__(
        self,
        message: str,
        *,
        errors: Sequence[DriverError],
        retryable: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable, retry_after_seconds=retry_after_seconds)
        self.errors: tuple[DriverError, ...] = tuple(errors)
        """What they failed with, in the order in which they were asked. Empty: nobody was
        asked, since all of them had failed too often before."""


class InvalidOutputError(DriverError):
    """No answer had the form that was asked for, though the model was told what was wrong."""

    def __init__(self, message: str, *, answers: int) -> None:
        super().__init__(message)
        self.answers: int = answers
        """How many answers were tried."""


class EmptyAnswerError(DriverError):
    """The model answered with no text and no tool call, also when it was asked again."""


class ProtocolError(DriverError):
    """The answer does not follow the wire format. Says what came."""


class RecordingMissError(DriverError):
    """A recording has no answer to a request. Says what was asked, and what is nearest."""
