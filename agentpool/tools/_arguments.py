"""Parses the JSON that a model wrote into the arguments of a call.

Rules:

1. The whole text is checked before anything runs: no coercion, no unknown key, no key written twice
   (one reader would take the first value, another the last). As in JSON Schema, ``20.0`` is an
   integer.
2. Faults are described so that a model can correct them: where the fault is, what came, and what is
   expected. With jsonschema installed several faults are listed, otherwise only the first.
3. An empty text, or ``null``, counts as no arguments, since some models send one of these when they
   have nothing to pass.
4. The escape of half a character is read as U+FFFD, the replacement character. Refusing the escape
   would not help: a model that is asked again only repeats it.
5. Any text gives either arguments or a ``ToolError``, in time proportional to the length of the
   text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Never, Protocol, Self, TypeAlias, TypeVar, cast, final

import attrs
import msgspec

from agentpool._errors import ToolError
from agentpool._messages import Json
from agentpool._surrogates import escapes_without_halves
from agentpool.tools._schema import Signature

MAX_ARGUMENTS_CHARS = 1_048_576
"""The most characters of arguments: more than models can write in one answer, yet checked in
milliseconds, during which no other agent can run."""

MAX_FAULTS: Final = 10
"""The most faults listed: a model that made more has misunderstood everything."""

_MAX_FAULT_CHARS = 300
"""The most characters of one fault. The beginning and the end of a longer fault are kept:
jsonschema writes the place first, then the value, which may be long, and then the fault."""

_MAX_LISTED_CHARS: Final = 65_536
"""The longest text whose faults are all listed. Of a longer text, only the first fault is listed:
jsonschema needs a second for a megabyte of faults, and blocks all other agents meanwhile."""

_MAX_EXACT: Final = 2.0**53
"""Up to this value a float is exactly one whole number."""

T = TypeVar("T")

_Node: TypeAlias = Mapping[str, Json]
"""A JSON Schema, or a part of one."""

_KEYS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _SchemaFault(Protocol):
    """The part of jsonschema's errors used here; jsonschema itself has no types."""

    message: str
    json_path: str


class _Validator(Protocol):
    def iter_errors(self, instance: object) -> Iterator[_SchemaFault]: ...


@final
@attrs.define(eq=False, repr=False)
class ArgumentsDecoder:
    """Parses the arguments of one tool."""

    _decoder: msgspec.json.Decoder[msgspec.Struct]
    _schema: _Node
    _is_flat: bool

    @classmethod
    def of(cls, signature: Signature) -> Self:
        """Make the decoder for *signature*."""
        decoder = msgspec.json.Decoder(signature.arguments_type)
        return cls(decoder, signature.checked_schema, signature.is_flat)

    def decode(self, text: str) -> dict[str, object]:
        """Return the arguments in *text* by name, with defaults filled in.

        Raises:
            ToolError: If the arguments are invalid. The error's text is for the model.
        """
        if len(text) > MAX_ARGUMENTS_CHARS:
            raise ToolError(
                f"the arguments are {len(text)} characters long, and no more than "
                f"{MAX_ARGUMENTS_CHARS} are taken; send less at once"
            )
        if text[:1] != "{" and is_nothing(text) and not (self._schema["required"] and text.strip()):
            text = "{}"
        if "\\" in text:
            text = escapes_without_halves(text)
        try:
            arguments = decode(self._decoder, text)
        except msgspec.ValidationError as exc:
            raise self._error(all_faults(self._schema, text) or [str(exc)]) from exc
        except msgspec.DecodeError as exc:
            raise self._error([f"not valid JSON: {exc}"]) from exc
        except (UnicodeEncodeError, RecursionError) as exc:
            raise self._error([f"cannot be read: {exc}"]) from exc
        # One colon is one key at most. With more, texts may hold some of them.
        colons = text.count(":")
        if colons > 1 and not (self._is_flat and colons == len(_KEYS.decode(text))):
            self._check_keys(text)
        return msgspec.structs.asdict(arguments)

    def _check_keys(self, text: str) -> None:
        faults: list[str] = []
        try:
            value, repeated = read_keys(text)
            if not self._is_flat:
                kept = cast("_Node", self._schema.get("$defs", {}))
                unknown = unknown_keys(self._schema, value, "$", kept)
                faults += islice(unknown, MAX_FAULTS + 1)
        except (ValueError, RecursionError) as exc:
            raise self._error([f"cannot be read: {exc}"]) from exc
        faults += repeated
        if faults:
            raise self._error(faults)

    def _error(self, faults: Sequence[str]) -> ToolError:
        told = listed(faults)
        return ToolError(f"invalid arguments, nothing was run:\n{told}\n{self._usage()}")

    def _usage(self) -> str:
        properties = cast("Mapping[str, _Node]", self._schema["properties"])
        required = cast("Sequence[str]", self._schema["required"])
        if not properties:
            return "expected: no arguments, {}"
        shown = ", ".join(
            f"{name}: {_kind(schema)}" + ("" if name in required else " (optional)")
            for name, schema in properties.items()
        )
        return f"expected: an object with {shown}"


def is_nothing(text: str) -> bool:
    """Return whether *text* is one of the ways in which models write "no arguments"."""
    return not text or text.isspace() or text.strip() == "null"


def decode(decoder: msgspec.json.Decoder[T], text: str) -> T:
    """Decode *text* with *decoder*; ``20.0`` is accepted for an integer.

    Raises:
        msgspec.DecodeError: If the decoder does not accept it.
        UnicodeEncodeError: If *text* is not valid Unicode.
        RecursionError: If the text is nested too deeply.
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        whole = _with_whole_numbers(text)
        if whole is None:
            raise
        return decoder.decode(whole)


def _with_whole_numbers(text: str) -> bytes | None:
    """Return *text* with ``20`` for each ``20.0``. ``None``: no ``20.0``, or not JSON."""
    changed = False

    def read_number(written: str) -> float:
        nonlocal changed
        number = float(written)
        if not (number.is_integer() and abs(number) <= _MAX_EXACT):
            return number
        changed = True
        return int(number)

    def refuse(word: str) -> Never:
        raise ValueError(f"{word} is not JSON")

    try:
        value: object = json.loads(text, parse_float=read_number, parse_constant=refuse)
        return msgspec.json.encode(value) if changed else None
    except (ValueError, RecursionError, OverflowError):
        return None


def read_keys(text: str) -> tuple[Json, list[str]]:
    """Parse *text*, and return a fault for each duplicate key in an object.

    Raises:
        ValueError: If *text* is not JSON.
        RecursionError: If the text is nested too deeply.
    """
    repeated: dict[str, None] = {}

    def note_repeated(pairs: Sequence[tuple[str, Json]]) -> dict[str, Json]:
        known = dict(pairs)
        if len(known) < len(pairs):
            times = Counter(name for name, _ in pairs)
            repeated.update(dict.fromkeys(name for name, count in times.items() if count > 1))
        return known

    value = cast("Json", json.loads(text, object_pairs_hook=note_repeated))
    some = islice(repeated, MAX_FAULTS + 1)
    return value, [f"key {shortened(repr(name))} is written twice; write it once" for name in some]


def listed(faults: Sequence[str]) -> str:
    """Return *faults*, or only the first ones, as a list for the model."""
    lines = [f"- {shortened(fault)}" for fault in faults[:MAX_FAULTS]]
    if len(faults) > MAX_FAULTS:
        lines.append("- and more")
    return "\n".join(lines)


def shortened(fault: str) -> str:
    """Return *fault*, shortened for a model."""
    half = _MAX_FAULT_CHARS // 2
    return fault if len(fault) <= 2 * half else f"{fault[:half]}…{fault[-half:]}"


def _kind(schema: _Node) -> str:
    """Describe the values that *schema* allows in a word or two."""
    if "enum" in schema:
        return " or ".join(json.dumps(one) for one in cast("Sequence[Json]", schema["enum"]))
    if "anyOf" in schema:
        branches = cast("Sequence[_Node]", schema["anyOf"])
        return " or ".join(_kind(one) for one in branches)
    return str(schema.get("type", "object" if "$ref" in schema else "any value"))


def all_faults(schema: _Node, text: str) -> list[str]:
    """Return the first faults that jsonschema finds, or nothing if jsonschema is not installed.

    Nothing is returned for a long text either, or when only msgspec finds a fault, as in dates.
    """
    if len(text) > _MAX_LISTED_CHARS:
        return []
    try:
        # Here and not above: it takes 70 ms to load, and most models make no mistakes.
        # It ships no types.
        from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # noqa: PLC0415
        from jsonschema.exceptions import (  # type: ignore[import-untyped]  # noqa: PLC0415
            best_match,  # pyright: ignore[reportUnknownVariableType]
        )
    except ImportError:
        return []
    try:
        validator = cast("_Validator", Draft202012Validator(schema))
        found = list(islice(validator.iter_errors(json.loads(text)), MAX_FAULTS + 1))
    except (ValueError, RecursionError):
        return []
    # Of "none of these types fits" it takes the one that was nearly right.
    nearest = cast("Callable[[Sequence[_SchemaFault]], _SchemaFault]", best_match)
    faults = [nearest([error]) for error in found]
    return [f"at {f.json_path}: {f.message}" for f in sorted(faults, key=_place)]


def _place(fault: _SchemaFault) -> tuple[str, str]:
    return fault.json_path, fault.message


def unknown_keys(schema: _Node, value: Json, path: str, kept: _Node) -> Iterator[str]:
    """Report the keys of *value* that no field of *schema* has.

    msgspec checks this for the arguments themselves, but not for attrs classes, dataclasses and
    TypedDicts inside them. *kept* are the schema's definitions.
    """
    schema = _resolved(schema, value, kept)
    if isinstance(value, dict):
        fields = cast("_Node", schema.get("properties", {}))
        others = schema.get("additionalProperties")
        for key, inner in value.items():
            below = fields.get(key, others)
            if below is False:
                yield f"at {path}: there is no key {key!r}; it has {', '.join(fields)}"
            elif isinstance(below, dict):
                yield from unknown_keys(below, inner, f"{path}.{key}", kept)
    elif isinstance(value, list):
        first = cast("Sequence[Json]", schema.get("prefixItems", []))
        for index, inner in enumerate(value):
            below = first[index] if index < len(first) else schema.get("items")
            if isinstance(below, dict):
                yield from unknown_keys(below, inner, f"{path}[{index}]", kept)


def _resolved(schema: _Node, value: Json, kept: _Node) -> _Node:
    """Follow references, and choose the member of a union that *value* matches.

    Exactly one member matches: msgspec has accepted the value, and msgspec accepts a union with two
    object members only if a tag tells them apart.
    """
    reference = schema.get("$ref")
    if isinstance(reference, str):
        schema = cast("_Node", kept[reference.removeprefix("#/$defs/")])
    if "anyOf" not in schema:
        return schema
    wanted = "object" if isinstance(value, dict) else "array"
    for one in cast("Sequence[_Node]", schema["anyOf"]):
        member = _resolved(one, value, kept)
        if member.get("type") == wanted and _tag_fits(member, value):
            return member
    return {}


def _tag_fits(schema: _Node, value: Json) -> bool:
    if not isinstance(value, dict):
        return True
    fields = cast("Mapping[str, _Node]", schema.get("properties", {}))
    return all(
        value.get(name, only[0]) == only[0]
        for name, field in fields.items()
        if len(only := cast("Sequence[Json]", field.get("enum", ()))) == 1
    )
