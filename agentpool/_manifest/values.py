"""How faults show values of a manifest."""

from __future__ import annotations

from typing import Final

SHOWN_CHARACTERS: Final = 60
"""The most characters of a value that a fault quotes, so that they fit on a line."""


def shown(value: object) -> str:
    """Return *value* as faults show it: in TOML, shortened.

    >>> shown(True), shown("a"), shown({})
    ('true', "'a'", 'a table')
    """
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "a table"
        case list():
            return "an array"
        case str() if len(value) > SHOWN_CHARACTERS:
            return repr(value[:SHOWN_CHARACTERS] + "…")
        # repr() refuses to write an integer of more than 4,300 digits.
        case int() if value.bit_length() > SHOWN_CHARACTERS * 3:
            return "a number of more than 50 digits"
        case _:
            return repr(value)
