"""Checks of arguments that a user passes: each says what was expected, and what came.

Type checkers find the same faults earlier, and are optional. The value itself is not
quoted: it may be a key.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import iscoroutine

from agentpool._errors import UsageError


def expect(value: object, kind: type | tuple[type, ...], what: str, advice: str) -> None:
    """Raise unless *value* is of a *kind*.

    Args:
        value: What the user passed.
        kind: What it must be.
        what: The argument and what it must be: ``config must be a SpawnConfig``.
        advice: What to write instead.

    Raises:
        UsageError: If it is of another kind.
    """
    if not isinstance(value, kind):
        raise UsageError(f"{what}, got {_kind_of(value)}; {advice}")


def expect_each(values: object, kind: type, what: str, advice: str) -> None:
    """Raise unless *values* can be iterated over, and is no *kind* or text itself.

    Raises:
        UsageError: If it is something else.
    """
    if isinstance(values, str | bytes | kind) or not isinstance(values, Iterable):
        raise UsageError(f"{what}, got {_kind_of(values)}; {advice}")


def expect_function(value: object, what: str, advice: str) -> None:
    """Raise unless *value* can be called.

    Raises:
        UsageError: If it cannot. A coroutine that was passed in its place is closed.
    """
    if not callable(value):
        if iscoroutine(value):
            value.close()  # or Python warns that it was never awaited
        raise UsageError(f"{what}, got {_kind_of(value)}; {advice}")


def at_least(least: int, name: str, number: object) -> int:
    """Return *number*, a whole one and not below *least*, or raise.

    Raises:
        UsageError: If it is not.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < least:
        raise UsageError(f"{name} must be a whole number >= {least}, got {number!r}")
    return number


def _kind_of(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"a value of type {type(value).__name__}"
