"""Removes a server's secrets from its output.

Secrets are removed before any other code reads the output: the SDK logs text that it cannot parse,
some of it as a warning. A secret in a different form (in base64, or with other escapes) is not
found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final, Self, final

import attrs

from agentpool._secrets import REDACTED, long_enough, redacted

# In JSON it may stand outside of a text, and what is put in its place would be no JSON.
_NUMBER: Final = re.compile(r"[0-9.eE+-]+")


@final
@attrs.frozen(repr=False)
class Secrets:
    """The values of the variables that a server was given."""

    values: tuple[str, ...] = ()
    """The values that are long enough. The longest value comes first, since one value may be the
    beginning of another."""

    @classmethod
    def of(cls, values: Iterable[str]) -> Self:
        """Collect those of *values* that are long enough to be secrets."""
        return cls(long_enough(value.strip() for value in values))

    def redact(self, text: str) -> str:
        """Return *text* without the secrets."""
        return redacted(text, self.values)

    def redact_bytes(self, data: bytes) -> bytes:
        """Return the complete *data* without the secrets."""
        stream = SecretsInStream(self)
        return stream.feed(data) + stream.end()


@final
class SecretsInStream:
    """Removes secrets from bytes that arrive in pieces, with the least delay.

    Bytes are held back, until more bytes have come, only if they may be the beginning of a secret.
    """

    __slots__ = ("_forms", "_held", "_pattern")

    def __init__(self, secrets: Secrets) -> None:
        """Start with an empty stream."""
        values = [value for value in secrets.values if not _NUMBER.fullmatch(value)]
        plain = (value.encode() for value in values)
        escaped = (json.dumps(value)[1:-1].encode() for value in values)
        self._forms = sorted({*plain, *escaped}, key=lambda form: (-len(form), form))
        # Of nothing it would be found everywhere.
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms)) or b"(?!)")
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Add *data*, and return the part that is certainly free of secrets."""
        data = self._held + data
        at = self._last_beginning(data)
        self._held = data[at:]
        return self._pattern.sub(REDACTED.encode(), data[:at])

    def end(self) -> bytes:
        """Return what was held back, at the end of the stream."""
        held, self._held = self._held, b""
        return self._pattern.sub(REDACTED.encode(), held)

    def _last_beginning(self, data: bytes) -> int:
        """Return where a secret may begin at the end of *data*, or the length of *data*."""
        longest = max(map(len, self._forms), default=0)
        found = [match.span() for match in self._pattern.finditer(data)]
        for at in range(max(0, len(data) - longest + 1), len(data)):
            rest = data[at:]
            is_begun = any(form != rest and form.startswith(rest) for form in self._forms)
            # Not inside of one that is there as a whole. That one may begin a longer one.
            if is_begun and not any(start < at < end for start, end in found):
                return at
        return len(data)
