"""A fault that was mended, and how to have it again."""

from __future__ import annotations

import attrs


@attrs.frozen
class Fault:
    """What was wrong, and how to have it again."""

    row: str
    """Of which finding it is an example: those with one letter are kinds, such as ``D1``."""
    what: str
    """In words."""
    room: str
    line: str
    """What stands there; once."""
    broken: str
    """What stood there, or does the same."""
    tests: str
    """Where the tests are."""
    chosen: str
    """Which of them, as ``-k`` takes it."""
