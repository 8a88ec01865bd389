"""What is long enough for a secret, and what stands in its place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

REDACTED: Final = "[secret]"
"""What stands in the place of a secret."""

SHORTEST_SECRET_CHARS: Final = 8
"""A shorter value is no key but a placeholder, such as ``none``; to redact it would make holes in
ordinary words."""


def long_enough(values: Iterable[str]) -> tuple[str, ...]:
    """Return those of *values* that may be secrets, each once.

    Returns:
        The longest first: ``Bearer KEY`` has ``KEY`` in it.
    """
    found = {value for value in values if len(value) >= SHORTEST_SECRET_CHARS}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return *text* without *secrets*, except for those too short to be any.

    Whoever quotes one may have written it in small or capital letters.

    >>> redacted("the key is sk-12345", ["sk-12345", "key"])
    'the key is [secret]'
    >>> redacted("SK-12345 is wrong", ["sk-12345"])
    '[secret] is wrong'
    """
    for secret in long_enough(secrets):
        if secret.casefold() in text.casefold():
            text = re.sub(re.escape(secret), REDACTED, text, flags=re.IGNORECASE)
    return text
