"""Recognizes texts long enough to be secrets, and redacts them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

REDACTED: Final = "[secret]"
"""The text that replaces a secret."""

SHORTEST_SECRET_CHARS: Final = 8
"""A shorter value is not a key but a placeholder, such as ``none``. Redacting it would damage
ordinary words."""

_SHAPES: Final = (
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_-]{16,}|(?:gsk|hf|gh[opsu]|npm)_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}|"
    r"(?:xai|glpat|xox[abps])-[A-Za-z0-9-]{16,}|AIza[A-Za-z0-9_-]{30,}|AKIA[A-Z0-9]{16}|"
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+"
    r")"
)
"""Patterns for keys of well-known services. None of them may match ordinary texts: file names and
words with a hyphen do not begin like this, or are shorter."""


def long_enough(values: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct *values* that are long enough to be secrets.

    Returns:
        The values, longest first: ``Bearer KEY`` contains ``KEY``.
    """
    found = {value for value in values if len(value) >= SHORTEST_SECRET_CHARS}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


_given = dict[str, None]()
"""The secrets that drivers and MCP servers were given in this process, oldest first."""

_GIVEN_AT_MOST: Final = 64
"""How many are kept. A token that is renewed each minute adds one each time."""


def remember_secrets(values: Iterable[str]) -> None:
    """Remember *values* as secrets, to be removed from what this process writes about agents."""
    for value in long_enough(values):
        _given.pop(value, None)
        _given[value] = None
        while len(_given) > _GIVEN_AT_MOST:
            del _given[next(iter(_given))]


def given_secrets() -> tuple[str, ...]:
    """Return the secrets that this process has handed to drivers and MCP servers."""
    return tuple(_given)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return *text* without the *secrets* in it. Secrets that are too short stay in it.

    Upper and lower case make no difference, since a quoted secret may be in either.

    >>> redacted("the key is sk-12345", ["sk-12345", "key"])
    'the key is [secret]'
    >>> redacted("SK-12345 is wrong", ["sk-12345"])
    '[secret] is wrong'
    """
    for secret in long_enough(secrets):
        if secret.casefold() in text.casefold():
            text = re.sub(re.escape(secret), REDACTED, text, flags=re.IGNORECASE)
    return text


def without_key_shapes(text: str) -> str:
    """Return *text* without what looks like a key of a well-known service.

    For errors, which a person reads: the key may not be one of the known secrets.

    >>> without_key_shapes("the key sk-ant-api03-1234567890abcdef is wrong")
    'the key [secret] is wrong'
    >>> without_key_shapes("see risk-management-of-our-agents and sk-learn")
    'see risk-management-of-our-agents and sk-learn'
    """
    return re.sub(_SHAPES, REDACTED, text)
