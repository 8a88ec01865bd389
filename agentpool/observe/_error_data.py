"""Errors as data, for traces and saved outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from agentpool._errors import RecordedError, traceback_text


class ErrorData(msgspec.Struct, frozen=True):
    """An error as plain data, as in a trace or a saved outcome."""

    kind: str
    message: str
    details: dict[str, str] = {}
    traceback: str = ""


def error_to_data(error: BaseException) -> ErrorData:
    """Convert *error* to data: type name, text, public fields and traceback."""
    if isinstance(error, RecordedError):
        return ErrorData(error.kind, str(error), dict(error.details), error.traceback)
    fields = cast("Mapping[str, object]", vars(error))
    details = {name: text_of(one) for name, one in fields.items() if not name.startswith("_")}
    return ErrorData(type(error).__name__, text_of(error), details, traceback_text(error))


def error_from_data(value: object) -> RecordedError:
    """Convert *value*, which consists of builtins, back to an error.

    Raises:
        msgspec.ValidationError: If it stands for none.
    """
    data = msgspec.convert(value, ErrorData)
    return RecordedError(
        data.message, kind=data.kind, traceback=data.traceback, details=data.details
    )


def text_of(value: object) -> str:
    """Return *value* as text, whatever its own method does."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # an error that cannot be printed is still an error
        return ""
