"""Interprets a provider's refusal: an HTTP status, or an error in a stream.

Rules:

1. Only a request that may succeed later is retryable: never one with a wrong key, or an invalid
   one. The header ``x-should-retry`` overrides this.
2. A conversation that is too long has its own error, with any status and any words of the server.
3. An error that is only a word is judged by that word, then by the status that it names. An unknown
   word is retryable unless it sounds like a bad request.
4. A call, or JSON, that the model failed to write is the model's fault, not the request's.
5. The provider's text is shown, shortened, with the key redacted, followed by what a person has to
   change.
6. A router's error is also judged by the error of the provider behind it.

Source: https://platform.openai.com/docs/guides/error-codes,
https://openrouter.ai/docs/api-reference/errors,
https://platform.claude.com/docs/en/api/errors, https://ai.google.dev/gemini-api/docs,
https://console.groq.com/docs/errors and llama.cpp's server README (2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import attrs
import msgspec

from agentpool._errors import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    DriverError,
    FailedAttemptError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    UnknownModelError,
)
from agentpool._secrets import redacted
from agentpool.drivers.wire._error_body import (
    ErrorBody,
    delay_of,
    headers_of,
    read_envelope,
    upstream_of,
)
from agentpool.drivers.wire._retry_after import retry_after_seconds

MAX_SHOWN_CHARS: Final = 500
"""The most characters of a foreign text in an error message."""


@attrs.frozen
class Reason:
    """Why a provider refused, in its own words."""

    text: str
    """The text for people."""
    words: frozenset[str] = frozenset()
    """Its types and codes, such as ``invalid_request_error``, in lower case."""
    status: int | None = None
    """The HTTP status named in the body. ``None``: none is named."""
    wait: str = ""
    """Text that may say how long to wait."""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Headers that are in the body, with names in lower case."""


def shown(text: str, *, secret: str = "") -> str:
    """Return *text* on one line, shortened, without *secret*, for an error message."""
    text = redacted(text, (secret,))
    text = " ".join(text.split())
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    return f"{text[:MAX_SHOWN_CHARS]}… ({len(text)} characters)"


def failure_from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, secret: str = ""
) -> DriverError:
    """Return the error for an HTTP answer other than 200.

    Args:
        status: The HTTP status.
        headers: Its headers, with names in lower case.
        body: Its body, or the beginning of it.
        secret: The text to redact wherever it appears.
    """
    reason = _reason_of(body, secret=secret)
    kind, retryable = _kind_of_status(status, reason)
    wish = headers.get("x-should-retry")
    if wish in {"true", "false"}:
        retryable = wish == "true"
    text = reason.text or "no explanation"
    if status in range(300, 400):
        text = "this is neither an answer nor a redirect to a location; correct base_url"
        if place := shown(headers.get("location", ""), secret=secret):
            text = f"redirects are not followed, and this one leads to {place!r}; correct base_url"
    return kind(
        f"the provider answered {status}: {text}{_advice(kind, status, reason)}",
        retryable=retryable,
        retry_after_seconds=retry_after_seconds({**reason.headers, **headers}, reason.wait),
        status_code=status,
    )


def failure_in_stream(error: ErrorBody | str, *, secret: str = "") -> DriverError:
    """Return the error for an ``error`` object inside a stream."""
    reason = _reason_of_error(error, secret=secret)
    verdict = _kind_of_words(reason)
    if verdict is None and reason.status is not None:
        verdict = _kind_of_status(reason.status, reason)
    if verdict is None:
        # An unknown word: what sounds like a bad request is not paid for again.
        is_bad = any(sign in word for word in reason.words for sign in _BAD_SIGNS)
        verdict = (BadRequestError, False) if is_bad else (OverloadedError, True)
    kind, retryable = verdict
    advice = _advice(kind, reason.status, reason)
    if not advice and retryable:
        advice = "; ask again later"
    elif not advice and kind is BadRequestError:
        advice = "; change the request"
    return kind(
        f"the provider broke off its answer: {reason.text or 'no explanation'}{advice}",
        retryable=retryable,
        retry_after_seconds=retry_after_seconds({}, reason.wait),
    )


def _advice(kind: Callable[..., DriverError], status: int | None, reason: Reason) -> str:
    """Return advice about an error that a retry does not fix. Empty: there is none."""
    is_unpaid = status == _PAYMENT_REQUIRED or not reason.words.isdisjoint(_UNPAID)
    is_unpaid = is_unpaid or _LOW_BALANCE in reason.text.lower()
    if kind in {AuthenticationError, RateLimitError} and is_unpaid:
        return "; look at the balance and the limits of the account"
    if kind is AuthenticationError:
        return "; check that the key is one of this provider, and that it may use the model"
    if kind is UnknownModelError:
        return "; check the name in model.remote_model, and that the key may use the model"
    if _NO_PROVIDER in reason.text.lower():
        return "; choose another model in model.remote_model, or ask for less"
    return "; check the path of model.base_url, and model.api" if status == _NOT_FOUND else ""


_PAYMENT_REQUIRED: Final = 402
_NOT_FOUND: Final = 404
_UNPAID: Final = frozenset({"insufficient_quota", "billing_error"})


def failure_in_body(body: bytes, *, secret: str = "", is_bare: bool = False) -> DriverError | None:
    """Return the error for a body with an ``error`` object. ``None``: it has no such object.

    Some servers refuse a request with status 200, and say so only in the body.

    Args:
        body: The body, JSON or anything else.
        secret: The text to redact wherever it appears.
        is_bare: Whether a body with nothing but a message counts as an error.
    """
    envelope = read_envelope(body)
    if envelope is None:
        return None
    error = envelope.found()
    if error is None and (is_bare or envelope.type == "error"):
        error = envelope.bare()
    return None if error is None else failure_in_stream(error, secret=secret)


def _reason_of(body: bytes, *, secret: str) -> Reason:
    envelope = read_envelope(body)
    error = None if envelope is None else envelope.found() or envelope.bare()
    if error is None and envelope is not None and envelope.error is not None:
        error = ErrorBody()
    if error is None:
        text = body.decode(errors="replace")
        return Reason(shown(text, secret=secret), wait=text)
    return _reason_of_error(error, secret=secret)


def _reason_of_error(error: ErrorBody | str, *, secret: str) -> Reason:
    if isinstance(error, str):
        return Reason(shown(error, secret=secret), wait=error)
    own = _own_reason(error, secret=secret)
    upstream = upstream_of(error)
    if upstream is None:
        return own
    behind = _own_reason(upstream, secret=secret)
    return Reason(
        ": ".join(filter(None, (own.text, behind.text))),
        own.words | behind.words,
        behind.status if own.status is None else own.status,
        f"{own.wait} {behind.wait}",
        own.headers,
    )


def _own_reason(error: ErrorBody, *, secret: str) -> Reason:
    named = {word for word in (error.type, error.code, error.status) if isinstance(word, str)}
    said = error.message
    if said is not None and not isinstance(said, str):
        said = msgspec.json.encode(said).decode()
    text = shown(said or "", secret=secret)
    words = shown(", ".join(sorted(filter(None, named))), secret=secret)
    if not text and not words and error.code is not None:
        text = shown(str(error.code), secret=secret)
    return Reason(
        f"{text} ({words})" if text and words else text or words,
        frozenset(word.lower() for word in named if word),
        _status_of(error.code),
        f"{delay_of(error)} {said or ''}",
        headers_of(error),
    )


def _status_of(code: object) -> int | None:
    try:
        status = int(code) if isinstance(code, int | str) else 0
    except ValueError:
        return None
    return status if status in range(300, 600) else None


_Verdict = tuple[Callable[..., DriverError], bool]

_BY_WORD: Final[Mapping[str, _Verdict]] = {
    "exceed_context_size_error": (ContextOverflowError, False),
    "context_length_exceeded": (ContextOverflowError, False),
    "request_too_large": (ContextOverflowError, False),
    "model_not_found": (UnknownModelError, False),
    "unknown_model": (UnknownModelError, False),
    "invalid_model": (UnknownModelError, False),
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
    # OpenAI's for a response that failed, of what is wrong with the request.
    "empty_image_file": (BadRequestError, False),
    "failed_to_download_image": (BadRequestError, False),
    "image_file_not_found": (BadRequestError, False),
    "data_residency_mismatch": (BadRequestError, False),
    # Groq's, with the status of a bad request: the model wrote a call, or JSON, that is none.
    "tool_use_failed": (FailedAttemptError, True),
    "json_validate_failed": (FailedAttemptError, True),
    # Google's.
    "resource_exhausted": (RateLimitError, True),
    "unavailable": (OverloadedError, True),
    "internal": (OverloadedError, True),
    "deadline_exceeded": (NetworkError, True),
    "invalid_argument": (BadRequestError, False),
    "failed_precondition": (BadRequestError, False),
    "unauthenticated": (AuthenticationError, False),
    "permission_denied": (AuthenticationError, False),
    "not_found": (UnknownModelError, False),
    # The names of classes, as vLLM and LiteLLM write them.
    "badrequesterror": (BadRequestError, False),
    "unprocessableentityerror": (BadRequestError, False),
    "notfounderror": (UnknownModelError, False),
    "authenticationerror": (AuthenticationError, False),
    "permissiondeniederror": (AuthenticationError, False),
    "ratelimiterror": (RateLimitError, True),
    "internalservererror": (OverloadedError, True),
    "serviceunavailableerror": (OverloadedError, True),
    "timeout": (NetworkError, True),
    "contextwindowexceedederror": (ContextOverflowError, False),
}

_BAD_SIGNS: Final = (
    *("bad", "invalid", "unsupported", "unprocessable", "validation", "missing"),
    *("policy", "violation", "too_large", "too_small", "parse_error"),
)
"""Words in the name of an error that show that the request itself is wrong."""

_LOW_BALANCE: Final = "credit balance is too low"
"""Anthropic's text for an empty account, sent with the status and the word of a bad request."""

_NO_PROVIDER: Final = "no endpoints found"
"""OpenRouter's text for a model that no provider serves, with the status of a wrong path."""

# Of models: OpenRouter's, DeepSeek's, Z.AI's and NVIDIA's. Source: LangBot#1643, cline#6099,
# KohakuTerrarium#73, goose#11667 and free-claude-code#1021 on GitHub (2026-11).
_BY_TEXT: Final[tuple[tuple[str, type[DriverError]], ...]] = (
    *(
        (words, UnknownModelError)
        for words in (
            "not a valid model id",
            f"{_NO_PROVIDER} for",
            "model not exist",
            "unknown model,",
            "unknown model:",
            "模型不存在",
            "modelcode: does not exist",
            "not found for account",
        )
    ),
    ("api key not valid", AuthenticationError),  # Google's
    (_LOW_BALANCE, AuthenticationError),
)
"""Sentences that say more than the status and the type of the error."""

# The words of OpenAI, vLLM (five) and SGLang (two), Gemini, Anthropic (two), llama.cpp (four),
# Mistral, Groq, xAI, Bedrock, Z.AI, Alibaba, Cohere, TGI (two, Together has one of them), LM
# Studio (four) and GitHub Copilot. Source: openai-agents-python#1093, text-generation-inference#628
# and #695, lmstudio-bug-tracker#237 and #2339, opencode-ai/opencode#305, and the servers' own
# texts (2026-11).
_OVERFLOW: Final = re.compile(
    r"prompt is too long|maximum context length|context length exceeded"
    r"|input token count.{0,80}exceeds|exceed(?:s|ed)?.{0,40}(?:context|window|token limit)"
    r"|input is too long|prompt is too large|maximum prompt length"
    r"|reduce the length of the (?:messages|input|prompt)|too large for model with"
    r"|context (?:size|window|limit).{0,40}exceed"
    r"|(?:longer|greater) than the (?:model's )?context length|prompt exceeds max length"
    r"|range of input length|too many tokens|`?max_new_tokens`? must be <="
    r"|`?inputs`? must have less than \d+ tokens|context length (?:of|is) only"
    r"|reached context length|longer than the maximum model length|too long to fit into the model"
    r"|context shift is disabled|too big compared to kv size"
    r"|prompt token count.{0,40}exceeds the limit"
)
"""Matches the texts for a conversation that is too long."""

# The words that say more than their status does.
_STRONG_WORDS: Final = (
    "exceed_context_size_error",
    "context_length_exceeded",
    "contextwindowexceedederror",
    "model_not_found",
    "unknown_model",
    "invalid_model",
    "insufficient_quota",
    "tool_use_failed",
    "json_validate_failed",
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
    498: (OverloadedError, True),  # Groq's: no capacity at the flexible tier
    501: (BadRequestError, False),
    502: (NetworkError, True),
    504: (NetworkError, True),
    505: (BadRequestError, False),
}


def _kind_of_text(text: str) -> type[DriverError] | None:
    if _OVERFLOW.search(text):
        return ContextOverflowError
    return next((kind for sign, kind in _BY_TEXT if sign in text), None)


def _kind_of_words(reason: Reason) -> _Verdict | None:
    if kind := _kind_of_text(reason.text.lower()):
        return kind, False
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
        case 400 | 404 | 413 | 422 | 500 if kind := _kind_of_text(text):
            return kind, False
        case 404 | 410:
            # Without the word it is the path that is wrong, so base_url.
            return (UnknownModelError if "model" in text else BadRequestError), False
        case _ if status in _BY_STATUS:
            return _BY_STATUS[status]
        case _ if status in range(500, 600):
            return OverloadedError, True
        case _:
            in_range = status in range(300, 500)
            return (BadRequestError if in_range else ProtocolError), False
