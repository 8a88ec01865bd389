"""What a provider's refusal means: an HTTP answer, or an error inside a stream.

Rules:

1. Only what may succeed later is retryable: a wrong key or a bad request never is
   (D-04). ``x-should-retry`` has the last word.
2. A conversation that is too long is its own error, whatever the status says.
3. ``retry-after-ms`` goes before ``retry-after``, which is seconds or a date; a date is
   compared with the answer's own ``date``, so no clock is needed here.
4. What came is shown, shortened, with the key redacted.

Source: https://platform.openai.com/docs/guides/error-codes,
https://docs.claude.com/en/api/errors, llama.cpp's server README, RFC 9110 section
10.2.3 (2026-11).
"""

from __future__ import annotations

import email.utils
from collections.abc import Callable, Collection, Mapping
from typing import Final

import attrs
import msgspec

from agentpool._errors import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    DriverError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    UnknownModelError,
)

MAX_SHOWN_CHARS: Final = 500
"""As much of a foreign text as fits a message that a person reads."""

# Shorter ones are placeholders for servers without keys ("none", "EMPTY"); to redact
# them would make holes in ordinary words.
_MIN_SECRET_CHARS: Final = 8

# A provider that asks for more has lost its clock; a day is as good as never.
_MAX_RETRY_AFTER_SECONDS: Final = 86_400.0


class ErrorBody(msgspec.Struct):
    """The ``error`` object as OpenAI, Anthropic and llama.cpp write it."""

    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class _Envelope(msgspec.Struct):
    error: ErrorBody | str | None = None
    message: str | None = None
    detail: str | None = None


@attrs.frozen
class Reason:
    """Why a provider refused, in its own words."""

    text: str
    """For people."""
    words: frozenset[str] = frozenset()
    """Its types and codes, such as ``invalid_request_error``."""


def redacted(text: str, secrets: Collection[str]) -> str:
    """Return *text* with *secrets* redacted; those of a few characters are none."""
    # Longest first: "Bearer KEY" has KEY in it.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET_CHARS:
            text = text.replace(secret, "***")
    return text


def shown(text: str, *, secret: str = "") -> str:
    """Return *text* fit for a message: on one line, shortened, without *secret*."""
    text = redacted(text, (secret,))
    text = " ".join(text.split())
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    return f"{text[:MAX_SHOWN_CHARS]}… ({len(text)} characters)"


def failure_from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, secret: str = ""
) -> DriverError:
    """Return the error that an HTTP answer other than 200 stands for.

    Args:
        status: The HTTP status.
        headers: Its headers, names in lower case.
        body: Its body, or the beginning of it.
        secret: Redacted wherever it appears.
    """
    reason = _reason_of(body, secret=secret)
    kind, retryable = _kind_of_status(status, reason)
    wish = headers.get("x-should-retry")
    if wish in {"true", "false"}:
        retryable = wish == "true"
    text = reason.text or "no explanation"
    if status in range(300, 400):
        place = shown(headers.get("location", "nowhere"), secret=secret)
        text = f"redirects are not followed, and this leads to {place!r}; set base_url"
    return kind(
        f"the provider answered {status}: {text}",
        retryable=retryable,
        retry_after_seconds=retry_after_seconds(headers),
        status_code=status,
    )


def failure_in_stream(error: ErrorBody | str, *, secret: str = "") -> DriverError:
    """Return the error that an ``error`` object inside a stream stands for."""
    reason = _reason_of_error(error, secret=secret)
    if isinstance(error, ErrorBody) and isinstance(error.code, int):
        kind, retryable = _kind_of_status(error.code, reason)
    else:
        kind, retryable = _kind_of_words(reason) or (OverloadedError, True)
    text = reason.text or "no explanation"
    return kind(f"the provider broke off its answer: {text}", retryable=retryable)


def failure_in_body(body: bytes, *, secret: str = "") -> DriverError | None:
    """Return the error that a body with an ``error`` object stands for, if it has one.

    Some servers refuse a request with 200, and say so in the body alone.
    """
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return None if envelope.error is None else failure_in_stream(envelope.error, secret=secret)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider asks to wait. ``None``: it does not say."""
    found = _number(headers.get("retry-after-ms"))
    if found is not None:
        return _bounded(found / 1000)
    text = headers.get("retry-after")
    found = _number(text)
    if found is not None:
        return _bounded(found)
    try:
        then = email.utils.parsedate_to_datetime(text or "")
        now = email.utils.parsedate_to_datetime(headers.get("date", ""))
        return _bounded((then - now).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone next to one with
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number == number else None  # noqa: PLR0124  # "nan" is a float


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS)


def _reason_of(body: bytes, *, secret: str) -> Reason:
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Reason(shown(body.decode(errors="replace"), secret=secret))
    if envelope.error is not None:
        return _reason_of_error(envelope.error, secret=secret)
    text = envelope.message or envelope.detail or body.decode(errors="replace")
    return Reason(shown(text, secret=secret))


def _reason_of_error(error: ErrorBody | str, *, secret: str) -> Reason:
    if isinstance(error, str):
        return Reason(shown(error, secret=secret))
    words = {word for word in (error.type, error.code) if isinstance(word, str) and word}
    text = shown(error.message or "", secret=secret)
    named = shown(", ".join(sorted(words)), secret=secret)
    return Reason(f"{text} ({named})" if text and named else text or named, frozenset(words))


_Verdict = tuple[Callable[..., DriverError], bool]

_BY_WORD: Final[Mapping[str, _Verdict]] = {
    "exceed_context_size_error": (ContextOverflowError, False),
    "context_length_exceeded": (ContextOverflowError, False),
    "request_too_large": (ContextOverflowError, False),
    "model_not_found": (UnknownModelError, False),
    # A quota that is used up does not come back within any wait of ours.
    "insufficient_quota": (RateLimitError, False),
    "rate_limit_exceeded": (RateLimitError, True),
    "rate_limit_error": (RateLimitError, True),
    "overloaded_error": (OverloadedError, True),
    "unavailable_error": (OverloadedError, True),
    "server_error": (OverloadedError, True),
    "api_error": (OverloadedError, True),
    "timeout_error": (NetworkError, True),
    "invalid_api_key": (AuthenticationError, False),
    "authentication_error": (AuthenticationError, False),
    "permission_error": (AuthenticationError, False),
    "billing_error": (AuthenticationError, False),
    "not_found_error": (UnknownModelError, False),
    "not_supported_error": (BadRequestError, False),
    "invalid_request_error": (BadRequestError, False),
}

# The words that say more than their status does.
_STRONG_WORDS: Final = (
    "exceed_context_size_error",
    "context_length_exceeded",
    "model_not_found",
    "insufficient_quota",
)

_BY_STATUS: Final[Mapping[int, _Verdict]] = {
    401: (AuthenticationError, False),
    402: (AuthenticationError, False),
    403: (AuthenticationError, False),
    407: (AuthenticationError, False),
    408: (NetworkError, True),
    409: (OverloadedError, True),
    413: (ContextOverflowError, False),
    425: (OverloadedError, True),
    429: (RateLimitError, True),
    501: (BadRequestError, False),
    502: (NetworkError, True),
    504: (NetworkError, True),
    505: (BadRequestError, False),
}


def _kind_of_words(reason: Reason) -> _Verdict | None:
    # Strong words first: "context_length_exceeded" comes with "invalid_request_error".
    strong = [word for word in _STRONG_WORDS if word in reason.words]
    for word in [*strong, *_BY_WORD]:
        if word in reason.words:
            return _BY_WORD[word]
    return None


def _kind_of_status(status: int, reason: Reason) -> _Verdict:
    strong = [word for word in _STRONG_WORDS if word in reason.words]
    if strong:
        return _BY_WORD[strong[0]]
    text = reason.text.lower()
    match status:
        case 400 | 422 if "prompt is too long" in text:
            return ContextOverflowError, False
        case 404:
            # Without the word it is the path that is wrong, so base_url.
            return (UnknownModelError if "model" in text else BadRequestError), False
        case _ if status in _BY_STATUS:
            return _BY_STATUS[status]
        case _ if status in range(500, 600):
            return OverloadedError, True
        case _:
            in_range = status in range(300, 500)
            return (BadRequestError if in_range else ProtocolError), False
