"""Keys for tests, known wherever they turn up.

Every key carries one mark. It is made at random for each session, so no source and no
bytecode has it, and what has it was written by something that was given a key. A child
process finds it in its environment, backwards: to list one's environment is not a leak.
"""

from __future__ import annotations

import base64
import os
import secrets
from typing import Final

VARIABLE: Final = "AGENTPOOL_TESTS_KRAM"
"""Where a child process finds the mark of its session."""

# No vowel, so that it is not a word, and no digit of a hash.
_LETTERS: Final = "ghjkmnpqrtvwxyz"

MARK: Final = os.environ.setdefault(VARIABLE, "".join(secrets.choice(_LETTERS) for _ in range(16)))[
    ::-1
]
"""What is in every key of this session."""


def make_key(start: str = "sk-") -> str:
    """Return a key that begins with *start*."""
    return f"{start}{MARK}"


KEY: Final = make_key()
"""For whoever needs only one."""


def _encoded() -> list[bytes]:
    """Return the mark in base64, as it is when 0, 1 or 2 bytes come before it."""
    shapes: list[bytes] = []
    for before in range(3):
        data = base64.b64encode(bytes(before) + MARK.encode())
        whole = data[(before * 8 + 5) // 6 : (before + len(MARK)) * 8 // 6]
        shapes += [whole[:10], whole[-10:]]
    return shapes


# Halves, as a cut key is a leak too.
_SHAPES: Final = (MARK[:8].encode(), MARK[8:].encode(), *_encoded())


def find_key(written: str | bytes) -> str | None:
    """Return what is around a key in *written*, without the key; ``None``: there is none."""
    data = written.encode(errors="replace") if isinstance(written, str) else written
    for shape in _SHAPES:
        at = data.find(shape)
        if at >= 0:
            near = data[max(0, at - 60) : at] + b"[key]" + data[at + len(shape) :][:60]
            return mask(near.decode(errors="replace"))
    return None


def mask(text: str) -> str:
    """Return *text* with something else in the place of the mark and its halves."""
    for shape in _SHAPES:
        text = text.replace(shape.decode(), "[key]")
    return text
