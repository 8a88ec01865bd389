"""What a face does at its end: its names say that they are from there.

``repr``, tracebacks and pickles then show ``agentpool.AgentPool`` and not the room in which
it lives today.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from types import FunctionType

import msgspec


def publish(face: str, names: Mapping[str, object]) -> None:
    """Let the classes and functions among *names* that live in private rooms name *face*."""
    for thing in names.values():
        if isinstance(thing, type | FunctionType):
            home = thing.__module__
            if home.startswith("agentpool.") and "._" in home:
                if isinstance(thing, type) and issubclass(thing, msgspec.Struct):
                    _resolve(thing, home)
                thing.__module__ = face


def _resolve(struct: type[msgspec.Struct], home: str) -> None:
    """Let the types of its fields be found, by Hypothesis and msgspec, from another module."""
    names = vars(sys.modules[home])
    struct.__annotations__ = inspect.get_annotations(struct, globals=names, eval_str=True)


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
