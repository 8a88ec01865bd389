"""Reads JSON with wrong types, from careless servers, by its most likely meaning.

Only data that could not be read strictly comes here, so correct servers cost nothing extra.

Rules:

1. A number in quotes is read as a number, and a whole number may have a point. Where text is
   expected, a number is read as its digits, and an object or a list with one text as that text.
   Where an object with a text is expected, a text alone is read as that object.
2. Where a list is expected, a single thing is read as a list of it. Entries that are ``null`` are
   left out.
3. Unreadable facts about an answer are left out: counts, names of models, places, ids. Anything
   else that cannot be understood is an error: half an answer must not pass for a whole one.
4. ``NaN`` and ``Infinity``, and control characters in texts, are read as Python reads them, since
   Python writes them by default. ``NaN`` and ``Infinity`` do not count as numbers.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Final, TypeAlias, TypeVar, cast

import msgspec
from msgspec import inspect

T = TypeVar("T")

Node: TypeAlias = Mapping[str, object]
"""A JSON object."""

BESIDE: Final = frozenset(
    (
        *("usage", "model", "index", "output_index", "id", "cost", "object", "status"),
        *("x_groq", "error"),  # an error that is one was seen before
    )
)
"""Fields with facts about an answer, not its content."""

_TEXT_KEYS: Final = ("text", "content", "message")
"""The keys under which objects have their text."""


class _MisfitError(Exception):
    """A value that makes no sense in its place."""


def read_leniently(data: str | bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the most likely meaning of *data*, which *decoder* could not read.

    Raises:
        DecodeError: If it cannot be understood.
        RecursionError: If it is nested too deeply.
    """
    value = loads(data)
    try:
        fitted = _fit(value, _shape_of(decoder))
    except _MisfitError as exc:
        raise msgspec.DecodeError(str(exc)) from None
    return decoder.decode(msgspec.json.encode(fitted))


def loads(data: str | bytes) -> object:
    """Return the JSON value in *data*, as leniently as Python reads it.

    Raises:
        DecodeError: If *data* is not JSON.
        RecursionError: If it is nested too deeply.
    """
    try:
        value: object = json.loads(data, strict=False)
    except ValueError as exc:
        raise msgspec.DecodeError(str(exc)) from None
    return value


def _shape_of(decoder: msgspec.json.Decoder[T]) -> inspect.Type:
    return _type_info(cast("Hashable", decoder.type))


@cache
def _type_info(kind: Hashable) -> inspect.Type:
    return inspect.type_info(kind)


def _fit(value: object, kind: inspect.Type) -> object:
    """Return *value* converted to *kind*."""
    match kind:
        case inspect.UnionType(types=kinds):
            return _fit_any(value, kinds)
        case inspect.StructType():
            return _fit_fields(_object(value, kind), kind)
        case inspect.ListType():
            several = cast("list[object]", value) if isinstance(value, list) else [value]
            return [_fit(one, kind.item_type) for one in several if one is not None]
        case inspect.IntType() | inspect.FloatType():
            return _number(value, is_whole=isinstance(kind, inspect.IntType))
        case inspect.StrType():
            return _text(value)
        case _ if _is_free(value, kind):
            return value
        case _:
            raise _MisfitError(f"{_word(value)} is not expected here")


def _is_free(value: object, kind: inspect.Type) -> bool:
    """Return whether *kind* allows any content, or *value* has the right type."""
    match kind:
        case inspect.DictType():
            return isinstance(value, dict)
        case inspect.NoneType():
            return value is None
        case _:
            return isinstance(kind, inspect.RawType | inspect.AnyType | inspect.CustomType)


def _object(value: object, kind: inspect.StructType) -> Node:
    if isinstance(value, dict):
        return cast("Node", value)
    if isinstance(value, str):
        # A text in the place of what has one.
        names = {field.encode_name for field in kind.fields}
        key = next((key for key in _TEXT_KEYS if key in names), None)
        if key is not None:
            return {key: value}
    raise _MisfitError(f"{_word(value)} is not an object")


def _fit_any(value: object, kinds: tuple[inspect.Type, ...]) -> object:
    # What needs no change goes first: a text is a text before it is a list of one.
    exact = [kind for kind in kinds if _is_of(value, kind)]
    for kind in (*exact, *(kind for kind in kinds if kind not in exact)):
        try:
            return _fit(value, kind)
        except _MisfitError:
            continue
    raise _MisfitError(f"{_word(value)} is not expected here")


def _is_of(value: object, kind: inspect.Type) -> bool:
    match kind:
        case inspect.StructType():
            return isinstance(value, dict)
        case inspect.ListType():
            return isinstance(value, list)
        case inspect.StrType():
            return isinstance(value, str)
        case _:
            return False


def _fit_fields(value: Node, kind: inspect.StructType) -> Node:
    fitted: dict[str, object] = {}
    for field in kind.fields:
        name = field.encode_name
        if name not in value or (value[name] is None and isinstance(field.type, inspect.StrType)):
            continue  # it has a default
        try:
            fitted[name] = _fit(value[name], field.type)
        except _MisfitError as exc:
            if name not in BESIDE and not name.endswith(("_tokens", "_details")):
                raise _MisfitError(f"{name}: {exc}") from None
    return fitted


def _number(value: object, *, is_whole: bool) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) else float("nan")
    except (ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or number != number or number - number:  # noqa: PLR0124  # nan, inf
        raise _MisfitError(f"{_word(value)} is not a number")
    if not is_whole:
        return number
    if number != int(number):
        raise _MisfitError(f"{number} is not a whole number")
    return int(number)


def _text(value: object) -> str:
    match value:
        case str():
            return value
        case int() | float() if not isinstance(value, bool):
            return str(value)
        case list():
            return "".join(_text(one) for one in cast("list[object]", value) if one is not None)
        case dict():
            said = (cast("Node", value)[key] for key in _TEXT_KEYS if key in value)
            return _text(next(said, None))
        case _:
            raise _MisfitError(f"{_word(value)} is not text")


def _word(value: object) -> str:
    return json.dumps(value)[:40]
