"""Checks request headers, and hides their secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from agentpool._errors import UsageError

# An encoded stream arrives in lumps, and may unpack to any size.
FIXED_HEADERS: Final[Mapping[str, str]] = {
    "accept": "text/event-stream, application/json",
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": "agentpool",
}

# Parts of the names of headers whose values open something.
_SECRET_NAMES: Final = ("auth", "key", "token", "secret", "cookie", "password")

_KEY_SHAPE: Final = re.compile(r"(?=\S*[A-Za-z])(?=\S*[0-9])\S{20,}")
"""Matches values that look like a secret in a header ``x-…`` of any name."""


def checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return *headers* if all of them may be sent.

    Raises:
        UsageError: If a header cannot be sent. The error shows its name, but not its value, which
            may be a key.
    """
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable() and value == value.strip()):
            msg = f"the value of header {name!r} is not printable ASCII; check where it comes from"
            raise UsageError(msg)
    return headers


class HiddenText(str):
    """A text that a traceback with locals does not show: its repr is three stars."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class HiddenBytes(bytes):
    """Bytes that a traceback with locals does not show: their repr is three stars."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"


def hidden(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return *headers* as they are sent. The repr of a secret value is three stars."""
    return [
        (name, HiddenBytes(value) if _is_secret(name.decode(), value.decode()) else value)
        for name, value in headers
    ]


def secrets_in(headers: Mapping[str, str]) -> frozenset[str]:
    """Return the header values that must not appear in any text.

    A value such as ``Bearer KEY`` counts as two: the whole value, and the key alone.
    """
    found: set[str] = set()
    for name, value in headers.items():
        if _is_secret(name, value):
            found |= {HiddenText(value), HiddenText(value.rpartition(" ")[2])}
    return frozenset(found)


def _is_secret(name: str, value: str) -> bool:
    lower = name.lower()
    if any(part in lower for part in _SECRET_NAMES):
        return True
    return lower.startswith("x-") and _KEY_SHAPE.fullmatch(value) is not None
