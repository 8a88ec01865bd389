"""Checks of arguments from users. Each error says what was expected and what was given.

Type checkers find the same mistakes earlier, but are optional. The value itself is
not quoted, since it may be a key. What may be passed is read from the annotations, once for
each class and function, so that a parameter and its check cannot differ. An annotation that
cannot be read at run time, such as a protocol or a type of an optional package, is not
checked.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path, PurePath
from types import NoneType, SimpleNamespace, UnionType
from typing import (
    Any,
    Final,
    Literal,
    Union,
    cast,
    final,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from agentpool._errors import UsageError
from agentpool._numbers import is_whole, quoted
from agentpool._opening import Opening
from agentpool._secrets import SHORTEST_SECRET_CHARS


def expect(value: object, kind: type | tuple[type, ...], what: str, advice: str) -> None:
    """Raise unless *value* is an instance of *kind*.

    Args:
        value: What the user passed.
        kind: What it must be.
        what: The argument and what it must be: ``config must be a SpawnConfig``.
        advice: What to write instead.

    Raises:
        UsageError: If it is of another kind.
    """
    if not isinstance(value, kind):
        raise UsageError(f"{what}, got {_kind_of(value)}; {advice}")


def plain_text(text: str) -> str:
    """Return *text* as a plain ``str``, since encoders do not accept subclasses of it."""
    return str.__str__(text)


def expect_message(content: str, reply_to: int | None = None) -> str:
    """Return *content* as a plain ``str``, or raise if it is no text, or *reply_to* no number.

    Raises:
        UsageError: If one of them is of another type.
    """
    expect(content, str, "content must be a str", "write the message as text")
    if not (reply_to is None or type(reply_to) is int):
        expect(reply_to, (), "reply_to must be an int or None", "write message.message_id")
    return plain_text(content)


def expect_piece(piece: object, driver: object) -> str:
    """Return a *piece* of an answer as a plain ``str``, or raise if it is no text.

    Called where a piece arrives, so that it does not depend on who watches what happens then.

    Raises:
        UsageError: If it is no text. Names the *driver* that passed it on.
    """
    if isinstance(piece, str):
        return plain_text(piece)
    raise UsageError(
        f"driver {type(driver).__name__} passed {_kind_of(piece)} to on_delta; each piece of an "
        "answer must be a str"
    )


def expect_each(values: object, kind: type, what: str, advice: str) -> None:
    """Raise unless *values* is an iterable that is neither text nor a single *kind*.

    Raises:
        UsageError: If it is something else.
    """
    if isinstance(values, str | bytes | kind) or not isinstance(values, Iterable):
        raise UsageError(f"{what}, got {_kind_of(values)}; {advice}")


def expect_function(value: object, what: str, advice: str, instead_of: type = NoneType) -> None:
    """Raise unless *value* is a function. The class *instead_of* and classes below it are none.

    Raises:
        UsageError: If it is not. A coroutine that was passed in its place is closed.
    """
    if not _is_function(value, (instead_of,)):
        if inspect.iscoroutine(value):
            value.close()  # or Python warns that it was never awaited
        raise UsageError(f"{what}, got {_kind_of(value)}; {advice}")


def _is_function(value: object, made: tuple[type, ...]) -> bool:
    """Return whether *value* is called to make one of *made*, and is not the class of one.

    Tools are called by models alone: a tool in place of another function would run unasked.
    """
    is_class_of = isinstance(value, type) and issubclass(value, made)
    return callable(value) and not is_class_of and not hasattr(type(value), "_is_tool")


def has_fields(kind: type) -> bool:
    """Return whether objects of *kind* have named fields."""
    return any(
        hasattr(kind, name)
        for name in ("__attrs_attrs__", "__dataclass_fields__", "__struct_fields__", "_fields")
    ) or is_typeddict(kind)


def expect_output_type(kind: object) -> None:
    """Raise unless *kind* is a class whose objects have named fields.

    Raises:
        UsageError: If it is not. Says what to write instead.
    """
    if isinstance(kind, type) and has_fields(kind):
        return
    advice = "write a class with a field for each thing that you want to know"
    got = repr(kind)
    if isinstance(kind, str):
        advice = "give the class itself, without quotes"
    elif getattr(get_origin(kind) or kind, "__name__", "") in {"list", "tuple", "set", "Sequence"}:
        advice = "write a class with one field, which is the list"
    elif hasattr(kind, "model_fields"):
        advice = "write it as a dataclass or a msgspec struct: pydantic models are not supported"
    raise UsageError(
        "output_type must be an attrs class, a dataclass, a TypedDict or a msgspec struct, "
        f"got {got}; {advice}"
    )


def at_least(least: int, name: str, number: object) -> int:
    """Return *number* if it is an integer and at least *least*.

    Raises:
        UsageError: If it is not.
    """
    if not is_whole(number) or number < least:
        raise UsageError(f"{name} must be a whole number >= {least}, got {quoted(number)}")
    return number


def expect_fields(value: object, *, but: Collection[str] = ()) -> None:
    """Raise unless each field of *value* is of its annotated type.

    A list in a field for a tuple becomes a tuple.

    Args:
        value: An instance of a frozen class, from its ``__attrs_post_init__`` or
            ``__post_init__``.
        but: The fields that are checked separately.

    Raises:
        UsageError: If a field is not. Names the field and says what was expected.
    """
    kind = type(value)
    fields = _fields_of(kind)  # type: ignore[arg-type]  # mypy takes no class for hashable
    for name, usual, expected in fields:
        found: object = getattr(value, name)
        given = type(found)
        if name in but or (given in usual and (given is not int or is_whole(found))):
            continue
        if given is list and tuple in expected.kinds:
            found = tuple(cast("list[object]", found))
            _set_field(value, name, found)
        others = {other: allowed for other, _, allowed in fields}
        expected.check(found, name, of=kind.__name__, others=others)
        if isinstance(found, str) and str in expected.kinds and given not in expected.kinds:
            _set_field(value, name, plain_text(found))


def _set_field(value: object, name: str, content: object) -> None:
    if isinstance(value, msgspec.Struct):
        msgspec.structs.force_setattr(value, name, content)
    else:
        object.__setattr__(value, name, content)


def expect_arguments(
    function: Callable[..., object], arguments: Mapping[str, object], *, but: Collection[str] = ()
) -> None:
    """Raise unless each of *arguments* has the type in the annotations of *function*.

    Called first in a function, as ``expect_arguments(open_journal, locals())``.

    Raises:
        UsageError: If an argument does not. Names the argument and says what was expected.
    """
    for name, expected in _parameters_of(function):
        if name in arguments and name not in but:
            of = function.__qualname__.removesuffix(".__init__")
            others = dict(_parameters_of(function))
            expected.check(arguments[name], name, of=of, others=others)


class Checked:
    """Base class of frozen classes of attrs whose fields must be of their annotated types."""

    __slots__ = ()

    def __attrs_post_init__(self) -> None:
        """Refuse fields of the wrong type."""
        expect_fields(self)


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
    """The values allowed as items of a tuple or a list. ``None``: any."""
    takes_functions: bool = False
    """Whether any callable is allowed."""

    @property
    def usual(self) -> tuple[type, ...]:
        """The allowed classes that need no further check; tuples need one for their items."""
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
            UsageError: If it is not.
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
        # What was given in place of a few fixed words or a number is not a key.
        is_plain = self.choices or {int, float} & {*self.kinds}
        if is_plain and isinstance(value, str) and len(value) < SHORTEST_SECRET_CHARS:
            return repr(value)
        if isinstance(value, int) and not is_whole(value) and not isinstance(value, bool):
            return quoted(value)
        return _kind_of(value)

    def _advice(self, value: object, others: Mapping[str, Expected]) -> str:
        """Return what to write in place of *value*, with a semicolon. Empty: it is not known."""
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
            self.takes_functions and _is_function(value, self.kinds)
        )


@cache
def _fields_of(kind: type) -> tuple[tuple[str, tuple[type, ...], Expected], ...]:
    found = _read_all(kind, kind.__annotations__)
    return tuple((name, expected.usual, expected) for name, expected in found)


@cache
def _parameters_of(function: Callable[..., object]) -> tuple[tuple[str, Expected], ...]:
    function = inspect.unwrap(function)
    hints = {**function.__annotations__}
    hints.pop("return", None)
    if (many := inspect.getfullargspec(function).varargs) is not None:
        hints[many] = f"tuple[{hints[many]}, ...]"
    return tuple(_read_all(function, hints))


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


def _kind_of(value: object) -> str:
    if isinstance(value, Opening):
        return value.advice
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"a value of type {type(value).__name__}"
