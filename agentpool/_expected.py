"""What the annotation of a field or a parameter allows, in words and as classes.

Read once for each class and function. An annotation that cannot be read at run time, such as a
protocol or a type of an optional package, allows anything.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path, PurePath
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Final, Literal, Union, cast, final, get_args, get_origin, get_type_hints

import msgspec

from agentpool._errors import UsageError
from agentpool._numbers import is_whole, quoted
from agentpool._opening import Opening

_MOST_ITEMS: Final = 1_000


@final
class Expected(msgspec.Struct, frozen=True):
    """The values that an annotation allows."""

    words: tuple[str, ...]
    """The allowed kinds in words, such as ``a str`` and ``None``. Empty: anything is allowed."""
    kinds: tuple[type, ...] = ()
    """The classes that a value may belong to."""
    choices: tuple[object, ...] = ()
    """Single values that are allowed, from a ``Literal``."""
    items: Expected | None = None
    """The values allowed as items of a tuple or a list. ``None``: items of any kind."""
    takes_functions: bool = False
    """Whether any callable is allowed."""

    @property
    def usual(self) -> tuple[type, ...]:
        """The allowed classes whose values need no further check. The items of tuples need one."""
        return () if self.choices else tuple(kind for kind in self.kinds if kind is not tuple)

    def check(
        self, value: object, what: str, *, of: str, others: Mapping[str, Expected] = {}
    ) -> None:
        """Raise unless *value* is allowed.

        Args:
            value: What the user passed.
            what: Its name, for the error.
            of: The class or function whose help says more.
            others: Other arguments that the value may have been meant for, by name.

        Raises:
            UsageError: If *value* is not allowed.
        """
        if not self._allows(value):
            raise UsageError(
                f"{what} must be {_either(self.words)}, got {self._shown(value)}; "
                f"{self._advice(value, others)}see help({of})"
            )
        if self.items is not None and isinstance(value, tuple | list):
            # A thousand events are looked at in a millisecond; the rest is of their kind.
            for item in cast("Sequence[object]", value)[:_MOST_ITEMS]:
                self.items.check(item, f"each item in {what}", of=of)

    def _shown(self, value: object) -> str:
        from agentpool._secrets import SHORTEST_SECRET_CHARS  # noqa: PLC0415  # for errors alone

        # What was given in place of a few fixed words or a number is not a key.
        is_plain = self.choices or {int, float} & {*self.kinds}
        if is_plain and isinstance(value, str) and len(value) < SHORTEST_SECRET_CHARS:
            return repr(value)
        if isinstance(value, int) and not is_whole(value) and not isinstance(value, bool):
            return quoted(value)
        return kind_of(value)

    def _advice(self, value: object, others: Mapping[str, Expected]) -> str:
        """Return what to write in place of *value*, with a semicolon. Empty: there is no advice."""
        if isinstance(value, str | PurePath):
            for kind in self.kinds:
                if kind.__name__ in _WRITTEN:
                    return f"write {_WRITTEN[kind.__name__]}; "
                if issubclass(kind, Enum):
                    names = {str(one.value).lower(): str(one) for one in kind}
                    name = names.get(str(value).lower(), "")
                    return f"write {name}; " if name else f"it has {', '.join(names.values())}; "
        if str in self.kinds and isinstance(value, list | tuple):
            return "write the texts one by one, without brackets; "
        if type(value).__module__.startswith("agentpool."):
            meant = [name for name, other in others.items() if isinstance(value, other.kinds)]
            return f"did you mean {meant[0]}=?; " if meant else ""
        return ""

    def _allows(self, value: object) -> bool:
        if isinstance(value, str) and self.choices:
            return value in self.choices
        if isinstance(value, int) and not is_whole(value):
            # Python counts True as an int, and no reader does; other integers are too long.
            return isinstance(value, bool) and bool in self.kinds
        if isinstance(value, str | bytes) and not {str, bytes} & {*self.kinds}:
            return False  # a text is a sequence of characters, which is never what is meant
        return isinstance(value, self.kinds) or (
            self.takes_functions and is_function(value, self.kinds)
        )


@cache
def fields_of(kind: type) -> tuple[tuple[str, tuple[type, ...], Expected], ...]:
    """Return each field of *kind*, with the classes that need no further look and all it allows."""
    found = _read_all(kind, kind.__annotations__)
    return tuple((name, expected.usual, expected) for name, expected in found)


@cache
def parameters_of(function: Callable[..., object]) -> Mapping[str, Expected]:
    """Return what each parameter of *function* allows."""
    function = inspect.unwrap(function)
    hints = {**function.__annotations__}
    hints.pop("return", None)
    if (many := inspect.getfullargspec(function).varargs) is not None:
        hints[many] = f"tuple[{hints[many]}, ...]"
    return dict(_read_all(function, hints))


def _read_all(
    owner: Callable[..., object], hints: Mapping[str, object]
) -> Iterator[tuple[str, Expected]]:
    space = vars(sys.modules[owner.__module__])
    for name, hint in hints.items():
        try:
            found = get_type_hints(SimpleNamespace(__annotations__={name: hint}), space)[name]
        except NameError:
            continue  # imported for type checkers alone
        if (expected := _read(found)).words:
            yield name, expected


def _read(hint: object) -> Expected:
    """Return the values that *hint* allows. A hint that cannot be checked has no ``words``."""
    origin = get_origin(hint)
    if origin in {Union, UnionType}:
        return _join([_read(part) for part in get_args(hint)])
    if origin is Literal:
        choices = get_args(hint)
        return Expected(tuple(repr(choice) for choice in choices), choices=choices)
    if origin in {tuple, Sequence, Iterable, Collection}:
        items = _read(get_args(hint)[0])
        return Expected((_words_of(origin),), (origin,), items=items if items.words else None)
    if origin is Callable:
        return Expected(("a function",), takes_functions=True)
    kind = origin or hint
    if kind in {object, Any} or not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return Expected(())
    kinds = _ALSO.get(kind, (kind,))
    return Expected((_words_of(kind),), kinds)


def _join(parts: Sequence[Expected]) -> Expected:
    # With a part that cannot be checked, anything may be right.
    known = all(part.words for part in parts)
    return Expected(
        tuple(word for part in parts for word in part.words if known),
        tuple(kind for part in parts for kind in part.kinds),
        tuple(choice for part in parts for choice in part.choices),
        next((part.items for part in parts if part.items), None),
        takes_functions=any(part.takes_functions for part in parts),
    )


# What stands for a type besides its own instances.
_ALSO: Final[Mapping[type, tuple[type, ...]]] = {float: (float, int), Path: (PurePath,)}


_WRITTEN: Final[Mapping[str, str]] = {
    "Journal": "async with open_journal(path) as journal, and give the journal",
    "BudgetStore": "async with open_journal(path) as journal, and give the journal",
    "ModelConfig": "ModelConfig(remote_model=...)",
    "AgentManifest": "AgentManifest.load(path)",
    "Capability": "a Capability, such as Capability(CapabilityKind.RAG) or Capability.shell('git')",
}
"""How to make an object if only its name or its file was given."""


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1])] * (len(words) > 1) + [words[-1]])


def _words_of(kind: type) -> str:
    if kind is NoneType:
        return "None"
    return f"{'an' if kind.__name__[0] in 'AEIOaeio' else 'a'} {kind.__name__}"


def kind_of(value: object) -> str:
    """Return what *value* is, in words that do not quote it."""
    if isinstance(value, Opening):
        return value.advice
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"a value of type {type(value).__name__}"


def is_function(value: object, made: tuple[type, ...]) -> bool:
    """Return whether *value* can be called, and is neither a tool nor one of the classes *made*.

    Only models call tools: a tool in place of another function would run without being asked for.
    """
    is_class_of = isinstance(value, type) and issubclass(value, made)
    return callable(value) and not is_class_of and not hasattr(type(value), "_is_tool")
