"""The headers that every request has, and which others can be sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentpool._errors import UsageError

# An encoded stream arrives in lumps, and may unpack to any size.
FIXED_HEADERS: Final[Mapping[str, str]] = {
    "accept": "text/event-stream, application/json",
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": "agentpool",
}


def checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return *headers* if they can be sent.

    Raises:
        UsageError: If one cannot. It is named; its value, perhaps a key, is not.
    """
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable() and value == value.strip()):
            msg = f"the value of header {name!r} is not printable ASCII; check where it is from"
            raise UsageError(msg)
    return headers
