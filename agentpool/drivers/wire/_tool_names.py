"""Converts names of called tools into a form that servers accept.

A model may call what there is not, under any name: ``functions.add``, or ``add numbers``. It is
told so by the result of the call, but the call goes back with every later request, and servers
refuse a name of another form than their own. Names of tools that there are have that form.

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
    """Return *name* if servers accept it, otherwise the most similar one that they do.

    >>> legal_name("add"), legal_name("functions.add"), legal_name(" ")
    ('add', 'functions_add', 'unnamed')
    """
    if _LEGAL.fullmatch(name):
        return name
    return _ILLEGAL_CHARS.sub("_", name.strip())[:MOST_CHARS].strip("_") or "unnamed"
