"""Lazy loading of public names whose modules are heavy to import."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module


def load(face: str, homes: Mapping[str, str], name: str) -> object:
    """Return *name* of the public module *face*, from the module in *homes* (PEP 562).

    Raises:
        AttributeError: If the face has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {face!r} has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)
