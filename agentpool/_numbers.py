"""Which numbers may be counts, seconds and amounts of money.

Python has integers of any size, and calculations with seconds and money use floats: an integer that
no float can hold would break one of them long after it was passed.
"""

from __future__ import annotations

from typing import Final, TypeGuard, TypeVar, cast

T = TypeVar("T")

_MOST_BITS: Final = 1023
"""An integer of that many bits fits into a float; the largest float has 1,024."""

_SHOWN_BITS: Final = 200
"""About 60 digits. Longer numbers are not quoted, and Python refuses to write those of 4,300."""


def is_number(value: object) -> bool:
    """Return whether *value* is a number that a float can hold. ``True`` and ``False`` are not.

    >>> is_number(3), is_number(0.5), is_number(True), is_number(10**400)
    (True, True, False, False)
    """
    return isinstance(value, float) or is_whole(value)


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether *value* is an integer that a float can hold. ``True`` and ``False`` are not.

    >>> is_whole(3), is_whole(3.0), is_whole(True), is_whole(10**400)
    (True, False, False, False)
    """
    return (
        isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= _MOST_BITS
    )


def plain_number(value: T) -> T:
    """Return *value*, and a number of a subclass, such as numpy's, as an ``int`` or ``float``.

    Encoders do not accept subclasses. ``True`` and ``False`` stay as they are, as does whatever is
    not a number.

    >>> class Count(int): ...
    >>> type(plain_number(Count(3))) is int, plain_number(True), plain_number("a")
    (True, True, 'a')
    """
    if isinstance(value, float):
        return cast("T", float.__float__(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return cast("T", int.__int__(value))
    return value


def quoted(value: object) -> str:
    """Return the ``repr`` of *value*, or words for a number that is too long to be read.

    >>> quoted("a"), quoted(3), quoted(-(10**400))
    ("'a'", '3', 'a number of more than 50 digits')
    """
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return "a number of more than 50 digits"
    return repr(value)
