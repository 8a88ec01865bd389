"""Finds JSON objects in text that has fences, sentences or end tokens around them.

The search takes time in proportion to the text: it ends at text that begins like an object but is
not an object. It does not look for objects inside a broken object, since one of these would be
mistaken for the whole answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

_SPACES: Final = 256
"""The most blanks between a brace and the first key: more than any indentation."""

_DECODER: Final = json.JSONDecoder()


def find_objects(text: str) -> Iterator[str]:
    """Yield each outermost JSON object in *text* as it is written.

    >>> list(find_objects('Sure, {x} is: ```json {"a": {"b": 1}} ``` </s>'))
    ['{"a": {"b": 1}}']
    """
    at = text.find("{")
    while at >= 0:
        end = at + 1
        if text[end : end + _SPACES].lstrip().startswith(('"', "}")):
            try:
                _, end = _DECODER.raw_decode(text, at)
            except (ValueError, RecursionError):
                return
            yield text[at:end]
        at = text.find("{", end)
