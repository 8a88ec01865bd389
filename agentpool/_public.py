"""What a face does at its end: its names say that they are from there.

``repr``, tracebacks and pickles then show ``agentpool.AgentPool`` and not the room in which
it lives today.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import FunctionType


def publish(face: str, names: Mapping[str, object]) -> None:
    """Let the classes and functions among *names* that live in private rooms name *face*."""
    for thing in names.values():
        if isinstance(thing, type | FunctionType):
            home = thing.__module__
            if home.startswith("agentpool.") and "._" in home:
                thing.__module__ = face


def load(face: str, homes: Mapping[str, str], name: str) -> object:
    """Return what *face* calls *name*, from the room that ``homes`` names, loading it now.

    For names that bring something heavy along (PEP 562).

    Raises:
        AttributeError: If the face has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {face!r} has no attribute {name!r}")
    thing = getattr(import_module(homes[name]), name)
    publish(face, {name: thing})
    return thing
