"""Errors as data, for traces and saved outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from agentpool._errors import AllDriversFailedError, RecordedError, traceback_text


class ErrorData(msgspec.Struct, frozen=True):
    """An error as plain data, as in a trace or a saved outcome."""

    kind: str
    message: str
    details: dict[str, str] = {}
    traceback: str = ""
    errors: tuple[ErrorData, ...] | msgspec.UnsetType = msgspec.UNSET
    """The errors of a group. Unset: the error is not a group."""


def error_to_data(error: BaseException) -> ErrorData:
    """Convert *error* to data: type name, text, public fields and traceback."""
    recorded = error if isinstance(error, RecordedError) else getattr(error, "_recorded", None)
    if isinstance(recorded, RecordedError):
        return ErrorData(
            recorded.kind, str(recorded), dict(recorded.details), recorded.traceback,
            tuple(map(error_to_data, recorded.errors)) or msgspec.UNSET,
        )  # fmt: skip
    fields = cast("Mapping[str, object]", vars(error))
    details = {name: text_of(one) for name, one in fields.items() if not name.startswith("_")}
    errors = error.errors if isinstance(error, AllDriversFailedError) else ()
    return ErrorData(
        type(error).__name__, text_of(error), details, traceback_text(error),
        tuple(map(error_to_data, errors)) or msgspec.UNSET,
    )  # fmt: skip


def error_from_data(value: object) -> RecordedError:
    """Convert *value*, which consists of builtins, back to an error.

    Raises:
        msgspec.ValidationError: If *value* does not describe an error.
    """
    return _from_data(msgspec.convert(value, ErrorData))


def _from_data(data: ErrorData) -> RecordedError:
    errors = () if isinstance(data.errors, msgspec.UnsetType) else data.errors
    return RecordedError(
        data.message, kind=data.kind, traceback=data.traceback, details=data.details,
        errors=tuple(map(_from_data, errors)),
    )  # fmt: skip


def text_of(value: object) -> str:
    """Return *value* as text, even if its own ``__str__`` fails."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # an error that cannot be printed is still an error
        return ""
