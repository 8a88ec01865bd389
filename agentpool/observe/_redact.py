"""Removes keys from what is written, in every encoding that they may have.

A key can be in a prompt, in a tool's result, in an error or in the arguments of a call; as
it is, as a part of a URL, within JSON within JSON, or in base64 with something before it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Final, final
from urllib.parse import quote, quote_plus

from agentpool._base import Live

REDACTED: Final = "[secret]"
"""What stands for a key."""

SHORTEST_SECRET: Final = 8
"""A shorter value is not a key, and to look for it would garble ordinary text."""

_NESTED: Final = 5
"""How deep within texts of JSON a key is found."""

_NAME_ENDS: Final = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS", "_PASSPHRASE")
"""How environment variables end that hold keys."""


def secrets_of_environment(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the values in *environ* whose names look like those of keys.

    Args:
        environ: ``None``: that of this process.
    """
    variables = os.environ if environ is None else environ
    return tuple(
        value
        for name, value in variables.items()
        if name.upper().endswith(_NAME_ENDS) and len(value) >= SHORTEST_SECRET
    )


def forms_of(secret: str) -> tuple[str, ...]:
    """Return every encoded form of *secret* to look for, longest first."""
    data = secret.encode("utf-8", "surrogatepass")
    forms = {secret, quote(data, safe=""), quote_plus(data), quote(data), data.hex()}
    # Within JSON, within the text of JSON that is in JSON, and so on: calls have arguments
    # that hold documents.
    escaped = {secret}
    for _ in range(_NESTED):
        escaped |= {
            json.dumps(text, ensure_ascii=e)[1:-1] for text in escaped for e in (True, False)
        }
    forms |= escaped
    for before in range(3):
        # Depending on what stands before it, base64 cuts it into sixes in three ways. The
        # characters at its ends hold something of its neighbours as well.
        start = (0, 2, 3)[before]
        whole = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        inner = whole[start : len(whole) - (1 if (before + len(data)) % 3 else 0)]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    long_enough = (form for form in forms if len(form) >= SHORTEST_SECRET)
    return tuple(sorted(long_enough, key=len, reverse=True))


@final
class Redactor(Live):
    """Removes keys from bytes."""

    _forms: tuple[bytes, ...]
    _plain: tuple[bytes, ...]
    """The keys themselves, as they stand in JSON: of those, halves are looked for as well."""

    @classmethod
    def of(cls, secrets: Iterable[str]) -> Redactor:
        """Make a redactor for each of *secrets* that is long enough to be a key."""
        known = tuple(secrets)
        forms = {form for secret in known for form in forms_of(secret)}
        plain = {one for key in known for one in (key, json.dumps(key)[1:-1])} & forms
        return cls(_as_bytes(forms), _as_bytes(plain))

    def clean(self, data: bytes) -> bytes:
        """Return *data* without any key, and without half of one.

        Tools, errors and pages cut texts before anybody knows of keys: what is left of one
        may be its beginning or its end.
        """
        for form in self._forms:
            if form in data:
                data = data.replace(form, REDACTED.encode())
        for key in self._plain:
            half = max(SHORTEST_SECRET, (len(key) + 1) // 2)
            if key[:half] in data:
                data = _without_begun(data, key, half)
            if key[-half:] in data:
                data = _without_begun(data[::-1], key[::-1], half, REDACTED[::-1].encode())[::-1]
        return data

    def open_end(self, text: str) -> int:
        """Return how many characters at the end of *text* could be the beginning of a key.

        They must wait for what follows.
        """
        end = text[-self._longest :] if self._forms else ""
        data = end.encode("utf-8", "surrogatepass")
        for start in range(len(data)):
            rest = data[start:]
            if any(form.startswith(rest) for form in self._forms):
                return len(rest.decode("utf-8", "ignore"))
        return 0

    @property
    def _longest(self) -> int:
        return len(self._forms[0]) - 1


def _as_bytes(forms: Iterable[str]) -> tuple[bytes, ...]:
    """Return *forms* as they stand in a file, longest first."""
    ordered = sorted(forms, key=len, reverse=True)
    return tuple(form.encode("utf-8", "surrogatepass") for form in ordered)


def _without_begun(data: bytes, key: bytes, half: int, instead: bytes = REDACTED.encode()) -> bytes:
    """Return *data* without each beginning of *key* that is at least *half* of it."""
    first, *rest = data.split(key[:half])
    tail = key[half:]
    parts = [first]
    for part in rest:
        same = takewhile(lambda pair: pair[0] == pair[1], zip(part, tail, strict=False))
        parts.append(part[sum(1 for _ in same) :])
    return instead.join(parts)
