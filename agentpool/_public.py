"""Names of a face that bring something heavy along, loaded when they are first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module


def load(face: str, homes: Mapping[str, str], name: str) -> object:
    """Return what *face* calls *name*, from the module that *homes* names (PEP 562).

    Raises:
        AttributeError: If the face has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {face!r} has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)
