"""Converts names of called tools into a form that servers accept.

A model may call a tool that does not exist, under any name: ``functions.add``, or ``add numbers``.
The result of the call says that there is no such tool, but the call is sent back with every later
request, and servers refuse names that do not have their form. Names of existing tools have it.

Source: OpenAI's ``^[a-zA-Z0-9_-]+$``, at most 64 characters, and Anthropic's
``^[a-zA-Z0-9_-]{1,128}$``; mcp-use#90, mastra#13632 and opencode#48750 (2026-11).
"""

from __future__ import annotations

import re
from typing import Final

MOST_CHARS: Final = 64

_LEGAL: Final = re.compile(rf"[a-zA-Z0-9_-]{{1,{MOST_CHARS}}}")
_ILLEGAL_CHARS: Final = re.compile(r"[^a-zA-Z0-9_-]+")


def legal_name(name: str) -> str:
    """Return *name* if servers accept it, otherwise the most similar name that they accept.

    >>> legal_name("add"), legal_name("functions.add"), legal_name(" ")
    ('add', 'functions_add', 'unnamed')
    """
    if _LEGAL.fullmatch(name):
        return name
    return _ILLEGAL_CHARS.sub("_", name.strip())[:MOST_CHARS].strip("_") or "unnamed"
