"""The command that installs an extra from the source of this installation.

An installation from PyPI leaves no record of its origin. An installation from a folder, a file or a
repository leaves ``direct_url.json`` (PEP 610). To install an extra, pip then needs that place,
since the name alone may find nothing.
"""

from __future__ import annotations

import re
import shlex
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec

NAME: Final = "trio-agentpool"

_PIP: Final = re.compile(rf"pip install '{NAME}\[(?P<extra>[a-z,]+)\]'")
"""The form of the command in all errors."""


class _Origin(msgspec.Struct):
    url: str
    vcs_info: dict[str, object] | None = None
    dir_info: dict[str, object] = msgspec.field(default_factory=dict[str, object])


def as_installed(text: str) -> str:
    """Return *text* with each ``pip install`` command adapted to this installation."""
    return _PIP.sub(lambda found: f"pip install {_requirement(found['extra'])}", text)


def place() -> str | None:
    """Return the source of this installation, as pip reads it. ``None``: a package index."""
    origin = _origin()
    if origin is None:
        return None
    if origin.vcs_info is not None:
        return f"{origin.vcs_info.get('vcs')}+{origin.url}"
    parts = urlsplit(origin.url)
    return url2pathname(parts.path) if parts.scheme == "file" else origin.url


def _requirement(extra: str) -> str:
    origin, where, named = _origin(), place(), f"{NAME}[{extra}]"
    if origin is None or where is None:
        return f"'{named}'"
    if "://" in where:
        return shlex.quote(f"{named} @ {where}")
    flag = "-e " if origin.dir_info.get("editable") else ""
    return flag + shlex.quote(f"{where}[{extra}]")


def _origin() -> _Origin | None:
    """Return the source of this installation. ``None``: a package index, or unknown."""
    import importlib.metadata  # noqa: PLC0415  # slow to load, and for errors alone

    try:
        text = importlib.metadata.distribution(NAME).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:  # a source tree on the path
        return None
    return None if text is None else msgspec.json.decode(text, type=_Origin)
