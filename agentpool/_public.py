"""Lazy loading of public names, and advice about names that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import NoReturn, cast


def load(face: str, homes: Mapping[str, str], name: str) -> object:
    """Return *name* of the public module *face*, from the module in *homes* (PEP 562).

    Raises:
        AttributeError: If the face has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {face!r} has no attribute {name!r}")
    found: object = getattr(import_module(homes[name]), name)
    show_fields({name: found})
    return found


def show_fields(names: Mapping[str, object]) -> None:
    """Let ``help`` show what the fields of the classes in *names* mean.

    Their docstrings are made when they are looked at: reading the source takes a while.
    """
    for thing in tuple(names.values()):
        if isinstance(thing, type) and thing.__module__.startswith("agentpool"):
            words = vars(thing).get("__doc__")
            if isinstance(words, str):
                thing.__doc__ = cast("str", _Docstring(words))


class _Docstring:
    """The docstring of a class with that of its fields."""

    __slots__ = ("_words",)

    def __init__(self, words: str) -> None:
        self._words = words

    def __get__(self, _: object, owner: type) -> str:
        """Return it."""
        made: str = import_module("agentpool._field_docs").with_fields(owner, self._words)
        return made


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
