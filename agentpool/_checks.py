"""Checks of arguments from users. Each error says what was expected and what was given.

Type checkers find the same mistakes earlier, but are optional. The value itself is
not quoted, since it may be a key. What may be passed is read from the annotations, once for
each class and function, so that a parameter and its check cannot differ. An annotation that
cannot be read at run time, such as a protocol or a type of an optional package, is not
checked.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from operator import attrgetter
from types import NoneType
from typing import Any, Final, TypeAlias, cast, get_origin, is_typeddict

import msgspec

from agentpool._errors import UsageError
from agentpool._expected import Expected, fields_of, is_function, kind_of, parameters_of
from agentpool._numbers import is_whole, plain_number, quoted

Names: TypeAlias = tuple[str, ...] | frozenset[str]
"""Some of the names of the fields or arguments."""

MOST_KNOWN: Final = 1024
"""How many lists of types are remembered: a program may make classes without end."""

_NO_DEFAULT: Final = object()
_PLAIN: Final = frozenset({str, int, float, bool})
"""The types of plain texts and numbers."""


def expect(value: object, kind: type | tuple[type, ...], what: str, advice: str) -> None:
    """Raise unless *value* is an instance of *kind*.

    Args:
        value: What the user passed.
        kind: What it must be.
        what: The argument and what it must be: ``config must be a SpawnConfig``.
        advice: What to write instead.

    Raises:
        UsageError: If *value* is not of this kind.
    """
    if not isinstance(value, kind):
        raise UsageError(f"{what}, got {kind_of(value)}; {advice}")


def plain_text(text: str) -> str:
    """Return *text* as a plain ``str``, since encoders do not accept subclasses of it."""
    return str.__str__(text)


def expect_message(content: str, reply_to: int | None = None) -> str:
    """Return *content* as a plain ``str``. Raise unless it is text and *reply_to* is a number.

    Raises:
        UsageError: If one of them is of the wrong type.
    """
    expect(content, str, "content must be a str", "write the message as text")
    if not (reply_to is None or type(reply_to) is int):
        expect(reply_to, (), "reply_to must be an int or None", "write message.message_id")
    return plain_text(content)


def expect_piece(piece: object, driver: object) -> str:
    """Return a *piece* of an answer as a plain ``str``. Raise if the piece is not text.

    Called where a piece arrives: the check must not depend on whether the answer is watched.

    Raises:
        UsageError: If the piece is not text. Names the *driver* that passed it on.
    """
    if isinstance(piece, str):
        return plain_text(piece)
    raise UsageError(
        f"driver {type(driver).__name__} passed {kind_of(piece)} to on_delta; each piece of an "
        "answer must be a str"
    )


def expect_each(values: object, kind: type, what: str, advice: str) -> None:
    """Raise unless *values* is an iterable that is neither text nor a single *kind*.

    Raises:
        UsageError: If it is something else.
    """
    if isinstance(values, str | bytes | kind) or not isinstance(values, Iterable):
        raise UsageError(f"{what}, got {kind_of(values)}; {advice}")


def expect_function(value: object, what: str, advice: str, instead_of: type = NoneType) -> None:
    """Raise unless *value* is a function. The class *instead_of* and its subclasses are refused.

    Raises:
        UsageError: If *value* is not a function. A coroutine that was passed instead is closed.
    """
    if not is_function(value, (instead_of,)):
        if inspect.iscoroutine(value):
            value.close()  # or Python warns that it was never awaited
        raise UsageError(f"{what}, got {kind_of(value)}; {advice}")


def has_fields(kind: type) -> bool:
    """Return whether objects of *kind* have named fields."""
    return any(
        hasattr(kind, name)
        for name in ("__attrs_attrs__", "__dataclass_fields__", "__struct_fields__", "_fields")
    ) or is_typeddict(kind)


def expect_output_type(kind: object) -> None:
    """Raise unless *kind* is a class whose objects have named fields.

    Raises:
        UsageError: If *kind* is not such a class. Says what to write instead.
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


def expect_name(name: str) -> None:
    """Raise unless *name* is one line of printable text, which a terminal shows as it is.

    Raises:
        UsageError: If it is empty, or has a line break or another control character.
    """
    if not name.strip() or not name.isprintable():
        raise UsageError(f"name must be one line of printable text, got {name!r}")


def at_least(least: int, name: str, number: object) -> int:
    """Return *number* as a plain ``int`` if it is an integer and at least *least*.

    Raises:
        UsageError: If it is not.
    """
    if not is_whole(number) or number < least:
        raise UsageError(f"{name} must be a whole number >= {least}, got {quoted(number)}")
    return plain_number(number)


def expect_fields(value: object, *, but: Names = (), of: str = "") -> None:
    """Raise unless each field of *value* is of its annotated type.

    A list in a field for a tuple becomes a tuple. A text or number of a subclass becomes a plain
    one, since encoders do not accept subclasses.

    Args:
        value: An instance of a frozen class, from its ``__attrs_post_init__`` or
            ``__post_init__``.
        but: The fields that are checked separately. They become plain as well.
        of: The class whose help says more. Empty: the class of *value*.

    Raises:
        UsageError: If a field is of the wrong type. Names the field and says what was expected.
    """
    kind: Any = type(value)  # mypy takes no class for hashable
    types = tuple(map(type, _values_of(kind)(value)))
    for name, usual, expected, plain_items in _unsure_fields(kind, types, but):
        found: object = getattr(value, name)
        given = type(found)
        if given in usual and (given is not int or name in but or is_whole(found)):
            continue
        if (
            plain_items is not None
            and issubclass(given, tuple)
            and plain_items.issuperset(map(type, cast("tuple[object, ...]", found)))
        ):
            continue  # most are empty, or the types of their items say all
        if name not in but:
            if given is list and tuple in expected.kinds:
                found = tuple(cast("list[object]", found))
                _set_field(value, name, found)
            expected.check(found, name, of=of or kind.__name__, others=_others_of(kind))
        if given not in usual and (plain := _plain(found, expected)) is not found:
            _set_field(value, name, plain)


@cache
def _values_of(kind: type) -> Callable[[object], tuple[object, ...]]:
    """Return what reads the values of all fields of *kind* that are checked."""
    names = [name for name, *_ in fields_of(kind)]
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple([getattr(value, name) for name in names])


@lru_cache(MOST_KNOWN)
def _unsure_fields(
    kind: type, types: tuple[type, ...], but: Names
) -> tuple[tuple[str, tuple[type, ...], Expected, frozenset[type] | None], ...]:
    """Return the fields of *kind* to look at if their values have these *types*.

    Most types say all about a value, and most objects have values of the same types as others.
    With each field come the types of items that a tuple may have without a look at each item.
    ``None``: it may be no tuple.
    """
    return tuple(
        (*field, _plain_items(field[2]))
        for field, given in zip(fields_of(kind), types, strict=True)
        if not (_stays(given) if field[0] in but else _is_enough(given, field[2]))
    )


def _plain_items(expected: Expected) -> frozenset[type] | None:
    if tuple not in expected.kinds:
        return None
    items = expected.items
    return frozenset(one for one in items.usual if _is_enough(one, items)) if items else frozenset()


def _stays(given: type) -> bool:
    """Return whether a value of this type is plain, whatever it is."""
    return given in _PLAIN or not issubclass(given, (str, int, float, tuple))


def _is_enough(given: type, expected: Expected) -> bool:
    """Return whether each value of this type is plain, and is what is *expected*."""
    if given in expected.usual:
        return given is not int  # it may be too long
    in_parts = (str, bytes, int, float, tuple, list)
    return not issubclass(given, in_parts) and issubclass(given, expected.kinds)


@cache
def _others_of(kind: type) -> Mapping[str, Expected]:
    return {name: expected for name, _, expected in fields_of(kind)}


def plain_fields(value: object) -> None:
    """Make texts and numbers of subclasses in the fields of *value* plain, as `expect_fields` does.

    For a frozen class that checks its own fields.
    """
    for name, usual, expected in fields_of(type(value)):  # type: ignore[arg-type]  # see above
        found: object = getattr(value, name)
        if type(found) not in usual and (plain := _plain(found, expected)) is not found:
            _set_field(value, name, plain)


def _plain(value: object, expected: Expected) -> object:
    """Return *value*, with plain texts and numbers if *expected* allows texts and numbers."""
    kinds = expected.kinds
    kind: type = type(value)
    if kind is tuple and expected.items is not None:
        items, known = cast("tuple[object, ...]", value), expected.items.usual
        if all(type(item) in known for item in items):
            return items
        return tuple(_plain(item, expected.items) for item in items)
    if isinstance(value, str):
        return plain_text(value) if str in kinds else value
    return plain_number(value) if int in kinds or float in kinds else value


def _set_field(value: object, name: str, content: object) -> None:
    if isinstance(value, msgspec.Struct):
        msgspec.structs.force_setattr(value, name, content)
    else:
        object.__setattr__(value, name, content)


def expect_arguments(
    function: Callable[..., object], arguments: Mapping[str, object], *, but: Names = ()
) -> None:
    """Raise unless each of *arguments* has the type in the annotations of *function*.

    Called first in a function, as ``expect_arguments(open_journal, locals())``.

    Raises:
        UsageError: If an argument is of the wrong type. Names the argument and says what was
            expected.
    """
    types = tuple(map(type, arguments.values()))
    for name, default in _unsure_arguments(function, tuple(arguments), types, but):
        if arguments[name] is default:
            continue
        parameters, of = parameters_of(function), function.__qualname__.removesuffix(".__init__")
        parameters[name].check(arguments[name], name, of=of, others=parameters)


@lru_cache(MOST_KNOWN)
def _unsure_arguments(
    function: Callable[..., object], given: tuple[str, ...], types: tuple[type, ...], but: Names
) -> tuple[tuple[str, object], ...]:
    """Return the arguments of *function* to look at if what is *given* has these *types*.

    Each comes with its default, which needs no look. ``_NO_DEFAULT``: it has none.
    """
    found = dict(zip(given, types, strict=True))
    every: object = getattr(inspect.unwrap(function), "__kwdefaults__", None)
    defaults = cast("Mapping[str, object]", every or {})
    return tuple(
        (name, defaults.get(name, _NO_DEFAULT))
        for name, expected in parameters_of(function).items()
        if name in found and name not in but and not _is_enough(found[name], expected)
    )


def expect_whole(value: msgspec.Struct, *, of: str = "") -> None:
    """Raise unless each field of *value*, and of the structs in its fields, is of its type.

    Messages and answers are made too often for a check of each one, so they are checked only where
    one comes from a user. Most have fields of types that were seen before: then one look-up is
    enough.

    Args:
        value: A struct that does not check its own fields.
        of: Where the value came from, for the error. Empty: the error names only its class.

    Raises:
        UsageError: If a field is of the wrong type.
    """
    fields = msgspec.structs.astuple(value)
    inner = _inner_fields(type(value), tuple(map(type, fields)))
    if inner is None:
        try:
            expect_fields(value)
        except UsageError as error:
            raise UsageError(f"{of}{error}") from None
        inner = tuple((place, ()) for place in range(len(fields)))
    for place, kinds in inner:
        if not (found := fields[place]):
            continue
        each: tuple[Any, ...] = (found,)
        if type(found) is tuple:
            each = cast("tuple[object, ...]", found)
        for one in each:
            if kinds and type(one) not in kinds:
                expect_fields(value)
            if hasattr(one, "__struct_fields__"):  # isinstance() takes five times as long
                expect_whole(one, of=of)


class CheckedStruct(msgspec.Struct, frozen=True):
    """Base class of frozen structs whose fields must be of their annotated types."""

    def __post_init__(self) -> None:
        """Refuse fields of the wrong type."""
        expect_fields(self)


def expect_method(value: object, method: str, what: str, advice: str) -> None:
    """Raise unless *value* has a method of that name: for kinds that are known by what they can do.

    Raises:
        UsageError: If *value* has no such method, or is a class.
    """
    if not callable(getattr(value, method, None)) or isinstance(value, type):
        raise UsageError(f"{what}, got {kind_of(value)}; {advice}")


class Checked:
    """Base class of frozen classes of attrs whose fields must be of their annotated types."""

    __slots__ = ()

    def __attrs_post_init__(self) -> None:
        """Refuse fields of the wrong type."""
        expect_fields(self)


@lru_cache(MOST_KNOWN)
def _inner_fields(
    kind: type[msgspec.Struct], types: tuple[type, ...]
) -> tuple[tuple[int, tuple[type, ...]], ...] | None:
    """Return the fields of *kind* to look into if their values have these *types*.

    Each field comes with the classes of its items. ``None``: the types are not enough, so the
    values themselves must be checked.
    """
    inner = list[tuple[int, tuple[type, ...]]]()
    for name, usual, expected in fields_of(kind):
        place = kind.__struct_fields__.index(name)
        if types[place] is tuple and tuple in expected.kinds:
            inner.append((place, expected.items.kinds if expected.items else ()))
        elif types[place] not in usual:
            return None
        elif issubclass(types[place], msgspec.Struct):
            inner.append((place, ()))
    return tuple(inner)
