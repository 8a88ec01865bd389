"""Rebuilds the package's own errors from their records.

Rules:

1. An error of the package gets its class and its fields back, since ``except`` clauses and retries
   depend on them.
2. Every other error stays a `RecordedError`, and so does an error whose fields cannot be read.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from typing import Final, get_type_hints

import msgspec

from agentpool import _errors
from agentpool._errors import AgentPoolError, DriverError, ManifestError, RecordedError

_LATER: Final[Mapping[str, object]] = {
    "status_code": int | None,
    "has_begun": bool,
    "tokens": tuple[int, int] | None,
    "cost_usd": float | None,
    "attempts": int,
}
"""Fields of a `DriverError` that may be set after it was made."""

_UNREADABLE: Final = (
    msgspec.ValidationError, ValueError, TypeError, SyntaxError, MemoryError, RecursionError,
)  # fmt: skip


def own_error(recorded: RecordedError) -> Exception:
    """Return *recorded* as an error of the package, or unchanged if there is no such error."""
    kind = _kinds().get(recorded.kind)
    if kind is None:
        return recorded
    try:
        fields = {name: _read(recorded, name, hint) for name, hint in _fields_of(kind).items()}
        error = kind(str(recorded), **fields)
        if isinstance(error, DriverError):
            for name in _LATER.keys() & recorded.details.keys():
                setattr(error, name, _read(recorded, name, _LATER[name]))
    except _UNREADABLE:
        return recorded
    error._recorded = recorded  # pyright: ignore[reportPrivateUsage]  # who raises it is another process
    return error


@cache
def _kinds() -> Mapping[str, type[AgentPoolError]]:
    """Return the classes of errors that consist of a message and fields, by name."""
    return {
        name: kind
        for name, kind in vars(_errors).items()
        if isinstance(kind, type)
        and issubclass(kind, AgentPoolError)
        and not issubclass(kind, BaseExceptionGroup | ManifestError | RecordedError)
    }


def _fields_of(kind: type[AgentPoolError]) -> Mapping[str, object]:
    """Return the fields of an error besides its message, with their types."""
    hints = get_type_hints(kind.__init__)
    return {name: hint for name, hint in hints.items() if name not in {"message", "return"}}


def _read(recorded: RecordedError, name: str, hint: object) -> object:
    if name == "errors":
        found = tuple(map(own_error, recorded.errors))
        if not all(isinstance(one, DriverError) for one in found):
            raise TypeError("an error of another kind is among them")
        return found
    text = recorded.details[name]
    if hint is str:
        return text
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text  # such as inf
    return msgspec.convert(value, hint, strict=False)
