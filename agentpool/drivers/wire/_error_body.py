"""Reads errors as providers write them: an object, a list, a number, or a body without JSON.

Rules:

1. Nothing in a body can be relied on: each field may be anything.
2. An empty error field means that there is no error: some servers always send the field.
3. A number that says how long to wait is read like a text that says so, even if it is in a string.

Source: https://platform.openai.com/docs/guides/error-codes, google.rpc.RetryInfo in
https://cloud.google.com/apis/design/errors,
https://developers.cloudflare.com/fundamentals/api/reference/responses and
https://openrouter.ai/docs/api-reference/errors (2026-11).
"""

from __future__ import annotations

from typing import Final, cast

import msgspec


class ErrorBody(msgspec.Struct):
    """The ``error`` object of a provider. Each field may be anything."""

    message: object = None
    type: object = None
    code: object = None
    # Google's word for what went wrong, and where it says how long to wait.
    status: object = None
    details: object = None
    # Where servers say how long to wait.
    retry_after: object = None
    retry_after_seconds: object = None
    retry_after_ms: object = None
    resets_in_seconds: object = None
    retry_after_camel: object = msgspec.field(default=None, name="retryAfter")
    metadata: object = None


_NO_ERROR: Final = ErrorBody()


class Envelope(msgspec.Struct):
    """A body that may contain an error. Each field may be anything."""

    error: object = None
    # Cloudflare's, and the gateways' behind it.
    errors: object = None
    message: object = None
    detail: object = None
    type: object = None
    code: object = None
    status: object = None
    # Where servers say how long to wait.
    retry_after: object = None
    retry_after_seconds: object = None
    retry_after_ms: object = None
    retry_after_camel: object = msgspec.field(default=None, name="retryAfter")
    choices: object = None

    def found(self) -> ErrorBody | None:
        """Return the error in the body. ``None``: there is none."""
        if self.error is True:
            return self.bare() or ErrorBody()
        for one in (self.error, self.errors):
            if (body := _body_of(one)) is not None:
                codes = (body.code, self.code, self.status)
                code = next((one for one in codes if one is not None), None)
                return self._with_wait(msgspec.structs.replace(body, code=code))
        return None

    def bare(self) -> ErrorBody | None:
        """Return an error that the body has without an error object. ``None``: there is none."""
        said = self.message or self.detail
        if not said or self.choices:
            return None
        return self._with_wait(ErrorBody(said, self.type, self.code, self.status))

    def _with_wait(self, body: ErrorBody) -> ErrorBody:
        """Return *body* with a wait named beside its error, if the error itself names none."""
        waits = {name: getattr(self, name) for name in _WAITS}
        if any(getattr(body, name) is not None for name in _WAITS):
            return body
        return msgspec.structs.replace(body, **waits)


_WAITS: Final = ("retry_after", "retry_after_seconds", "retry_after_ms", "retry_after_camel")


def _body_of(error: object) -> ErrorBody | None:
    """Return an error in any form as an ErrorBody. ``None``: it is not an error."""
    if isinstance(error, list):
        several = cast("list[object]", error)
        return _body_of(several[0]) if several else None
    if not error or error is True:
        return None
    if isinstance(error, dict):
        return msgspec.convert(cast("dict[str, object]", error), ErrorBody)
    return ErrorBody(code=error) if isinstance(error, int) else ErrorBody(message=error)


def is_no_error(error: ErrorBody | str) -> bool:
    """Return whether an error field is empty: some servers always send one."""
    return not error if isinstance(error, str) else error == _NO_ERROR


def read_envelope(body: bytes) -> Envelope | None:
    """Parse *body*. ``None``: it is not JSON that could contain an error."""
    try:
        # Google's compatible endpoint puts its error into a list.
        found: Envelope | list[Envelope] = _ENVELOPE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(found, list):
        return found[0] if found else None
    return found


_ENVELOPE: Final = msgspec.json.Decoder(Envelope | list[Envelope])


def delay_of(error: ErrorBody) -> str:
    """Return the wait that a field names, in words. Empty: no field does."""
    fields = {
        "s": (
            *(error.retry_after, error.retry_after_camel),
            *(error.retry_after_seconds, error.resets_in_seconds),
        ),
        "ms": (error.retry_after_ms,),
    }
    for unit, waits in fields.items():
        if named := next((text for one in waits if (text := _number_in(one))), None):
            return f"retry after {named}{'' if named[-1].isalpha() else unit}"
    try:
        found = msgspec.convert(error.details, list[_Detail])
    except msgspec.ValidationError:
        found = []
    delays = [one.delay for one in found if one.delay]
    if delays:
        return f"retry after {delays[0]}"
    try:
        metadata = msgspec.convert(error.metadata, _Metadata)
    except msgspec.ValidationError:
        return ""
    seconds = metadata.retry_after_seconds
    return "" if seconds is None else f"retry after {seconds}s"


def _number_in(value: object) -> str:
    """Return a number, or a span such as ``1m30s``, in words, or an empty text."""
    is_one = isinstance(value, int | float | str) and not isinstance(value, bool)
    word = str(value).strip() if is_one else ""
    return word if word[:1].isdigit() else ""


class _Metadata(msgspec.Struct):
    retry_after_seconds: float | None = None


class _Forwarded(msgspec.Struct):
    raw: str = ""
    headers: dict[str, str | int | float] = {}


def upstream_of(error: ErrorBody) -> ErrorBody | None:
    """Return the error of the provider behind a router, which only forwards it.

    OpenRouter's own message is "Provider returned error"; the provider's own words are in
    ``metadata.raw``. ``None``: nothing was forwarded.
    """
    raw = _forwarded(error).raw
    envelope = read_envelope(raw.encode(errors="replace"))
    found = None if envelope is None else envelope.found() or envelope.bare()
    return found or (ErrorBody(message=raw) if raw else None)


def headers_of(error: ErrorBody) -> dict[str, str]:
    """Return the headers that a router puts into the body, with names in lower case."""
    return {name.lower(): str(value) for name, value in _forwarded(error).headers.items()}


def _forwarded(error: ErrorBody) -> _Forwarded:
    try:
        return msgspec.convert(error.metadata, _Forwarded)
    except msgspec.ValidationError:
        return _Forwarded()


class _Detail(msgspec.Struct):
    delay: str | None = msgspec.field(default=None, name="retryDelay")
