"""Splits URLs, and refuses any that could be read in two ways."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urlsplit

_ODD: Final = frozenset("%!$&'()*+,;=")
"""Characters that no host name has. A client that decodes them, or stops at them, would read a
different host."""


def split_url(text: str) -> SplitResult | None:
    """Return the parts of a URL. ``None``: *text* is not one, or could be read in two ways.

    >>> split_url("https://api.example.org/v1").netloc
    'api.example.org'
    """
    # urlsplit() drops some of these in silence, and clients disagree about what a
    # backslash means, so the host that is judged might not be the one that is asked.
    if any(sign.isspace() or not sign.isprintable() or sign == "\\" for sign in text):
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    # Of "name[::1]" urlsplit() takes the one and a client perhaps the other.
    host = parts.netloc.rpartition("@")[2]
    if "[" in host:
        is_one_host = host.startswith("[") and host.rpartition("]")[2][:1] in {"", ":"}
    else:
        is_one_host = _ODD.isdisjoint(host)
    return parts if is_one_host and port != 0 else None


def place_of(url: str) -> str:
    """Return the host of *url*, with its port if given; never a user name or password.

    >>> place_of("http://me:secret@gpu.example.org:8080/v1")
    'gpu.example.org:8080'
    """
    parts = split_url(url)
    return "" if parts is None else parts.netloc.rpartition("@")[2]
