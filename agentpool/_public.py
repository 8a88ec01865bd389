"""Lazy loading of public names, and advice about names that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import NoReturn


def load(face: str, homes: Mapping[str, str], name: str) -> object:
    """Return *name* of the public module *face*, from the module in *homes* (PEP 562).

    Raises:
        AttributeError: If the face has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {face!r} has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)


def refuse_attribute(thing: object, name: str, advice: Mapping[str, str]) -> NoReturn:
    """Raise the error of an attribute that *thing* does not have.

    Args:
        thing: What was asked for it.
        name: What it was asked for.
        advice: What to write instead of names that other libraries have.

    Raises:
        AttributeError: Always.
    """
    words = f"{type(thing).__name__!r} object has no attribute {name!r}"
    if name in advice:
        words = f"{words}; {advice[name]}"
    raise AttributeError(words, name=name, obj=thing)
