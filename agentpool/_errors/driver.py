"""Errors of a model, its provider, or the connection to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from agentpool._errors.errors import AgentPoolError
from agentpool._numbers import plain_number


class DriverError(AgentPoolError):
    """The model, its provider or the connection failed."""

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
        self.retry_after_seconds: float | None = plain_number(retry_after_seconds)
        """The wait that the provider asked for. ``None``: it asked for none."""
        self.status_code: int | None = plain_number(status_code)
        """The HTTP status. ``None``: the failure was not an HTTP answer."""
        self.has_begun: bool = False
        """Whether an answer had begun, which the provider may charge for."""
        self.tokens: tuple[int, int] | None = None
        """Tokens sent and written, if the answer came to its end. ``None``: unknown."""
        self.cost_usd: float | None = None
        """The cost in US dollars. ``None``: unknown."""
        self.attempts: int = 1
        """How often the request had been made when it was given up."""


class RateLimitError(DriverError):
    """Too many requests or tokens in the provider's period."""

    default_retryable = True


class OverloadedError(DriverError):
    """The provider is overloaded and serves no requests right now."""

    default_retryable = True


class NetworkError(DriverError):
    """There is no connection, or it broke."""

    default_retryable = True


class AuthenticationError(DriverError):
    """The key is missing, wrong, or not allowed to do this."""


class BadRequestError(DriverError):
    """The provider does not accept the request as it is."""


class ContextOverflowError(DriverError):
    """The conversation does not fit the model's window."""


class UnknownModelError(DriverError):
    """The model does not exist where it was looked for."""


class FailedAttemptError(DriverError):
    """The model's output was unusable, such as a tool call that cannot be parsed.

    A second attempt usually succeeds. A third would only cost the same again.
    """

    default_retryable = True


class AllDriversFailedError(DriverError):
    """All drivers of a fallback failed. ``errors`` has the error of each."""

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
        """The errors of the drivers, in the order in which they were asked. Empty: no driver was
        asked, since all of them had failed too often before."""


class InvalidOutputError(DriverError):
    """The model gave no answer of the requested form, even though it was told what was wrong."""

    def __init__(self, message: str, *, answers: int) -> None:
        super().__init__(message)
        self.answers: int = answers
        """The number of answers that were tried."""


class EmptyAnswerError(DriverError):
    """The model's answer was empty. If this error ended a run, two answers in a row were empty."""


class ProtocolError(DriverError):
    """The answer does not follow the wire format. Quotes what was received."""


class RecordingMissError(DriverError):
    """A recording has no answer for a request. Quotes the request and the nearest recorded one."""
