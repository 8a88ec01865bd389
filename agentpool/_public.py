"""Loads public names lazily, and gives advice about names that do not exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from types import FunctionType
from typing import NoReturn, cast


def load(face: str, homes: Mapping[str, str], name: str) -> object:
    """Return *name* of the public module *face*, from the module in *homes* (PEP 562).

    Raises:
        AttributeError: If the face has no such name.
    """
    if name not in homes:
        where: str = import_module("agentpool._call_advice").home_of(face, name)
        raise AttributeError(f"module {face!r} has no attribute {name!r}{where}")
    found: object = getattr(import_module(homes[name]), name)
    show_fields({name: found})
    if face == "agentpool":
        advise_calls({name: found})
    return found


def advise_calls(names: Mapping[str, object]) -> None:
    """Make classes in *names* explain which keyword arguments they take.

    What a call costs stays the same but for one frame.
    """
    for thing in [one for one in names.values() if isinstance(one, type)]:
        init = thing.__dict__.get("__init__")
        if (
            type(init) is FunctionType
            and init.__code__.co_argcount == 1
            and init.__code__.co_kwonlyargcount > 0
            and not hasattr(init, "__wrapped__")
        ):
            type.__setattr__(thing, "__init__", _advising(thing, init))


def _advising(kind: type, init: FunctionType) -> Callable[..., None]:
    @wraps(init)
    def init_with_advice(self: object, *given: object, **named: object) -> None:
        try:
            init(self, *given, **named)
        except TypeError as error:
            advice = import_module("agentpool._call_advice").call_advice(kind, init, given, named)
            if advice is None:
                raise
            raise TypeError(advice) from error

    return init_with_advice


def show_fields(names: Mapping[str, object]) -> None:
    """Make ``help`` show the meaning of the fields of the classes in *names*.

    Their docstrings are made when they are looked at: reading the source takes a while.
    """
    for thing in [one for one in names.values() if isinstance(one, type)]:
        words = thing.__dict__.get("__doc__")
        if type(words) is str and thing.__module__.startswith("agentpool"):
            thing.__doc__ = cast("str", _Docstring(words))


class _Docstring:
    """A class docstring that includes the meaning of the fields."""

    __slots__ = ("_words",)

    def __init__(self, words: str) -> None:
        self._words = words

    def __get__(self, _: object, owner: type) -> str:
        """Return the docstring."""
        made: str = import_module("agentpool._field_docs").with_fields(owner, self._words)
        return made


def refuse_attribute(thing: object, name: str, advice: Mapping[str, str]) -> NoReturn:
    """Raise the error for an attribute that *thing* does not have.

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
