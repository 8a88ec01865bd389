"""``--schema FILE``: a JSON Schema as the type that every answer must have.

Rules:

1. The type is made from the schema, so that the pool reads answers as it does for a type in a
   program.
2. If a schema says something that a type cannot express, it is refused before any agent is asked.
   Nothing is left out silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal, TypeAlias, Union, cast, final

import attrs
import msgspec

from agentpool import UsageError
from agentpool._cli._inputs import read_text

_MAX_DEPTH: Final = 32
"""The most levels of a schema. A deeper schema makes no sense for an answer, and would reach
Python's own limit."""

_Schema: TypeAlias = dict[str, object]

_SAYS_NOTHING: Final = frozenset(
    {
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
        "title",
        "description",
        "examples",
        "default",
    }
)
"""Keys that do not restrict what an answer may be."""

_PLAIN: Final[Mapping[str, type | None]] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "null": None,
}  # fmt: skip

_LIMITS: Final[Mapping[str, Mapping[str, str]]] = {
    "string": {"minLength": "min_length", "maxLength": "max_length"},
    "integer": {
        "minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt",
    },
    "number": {
        "minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt",
    },
    "array": {"minItems": "min_length", "maxItems": "max_length"},
}  # fmt: skip


def load_schema(path: str) -> type:
    """Load the JSON Schema in the file *path* as a type.

    Raises:
        UsageError: If the file cannot be read, is not the JSON Schema of an object, or has an
            unsupported key. The error says what is wrong, and where in the schema.
    """
    where = f"schema {path!r}"
    text = read_text(
        path, what=f"--schema {path!r}", if_empty="write the JSON Schema of an object into it"
    )
    try:
        schema: object = json.loads(text)
    except RecursionError:
        raise UsageError(f"{where} is too deep; write it flatter") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{where} is not JSON: line {error.lineno}: {error.msg}") from error
    if not isinstance(schema, dict):
        raise UsageError(f"{where} must be a JSON object, got {_short(schema)}")
    root = cast("_Schema", schema)
    made = _Reader(root).read(root, where, "answer")
    if not isinstance(made, type) or not issubclass(made, msgspec.Struct):
        raise UsageError(f"{where} must have type 'object' and properties at its top")
    return made


@final
@attrs.frozen
class _Reader:
    """Converts the parts of one schema into types. *where* names the part in errors."""

    _root: _Schema
    _named_before: dict[str, object] = attrs.field(init=False, factory=dict[str, object])
    """The type of each reference that has been read, so that each is read only once. Otherwise,
    thirty references that each name the next one twice would be read a thousand million times."""

    def read(  # noqa: PLR0911  # one for each kind of schema
        self, schema: object, where: str, name: str, depth: int = 0
    ) -> object:
        """Convert one part. *name* is the name for a class made from it."""
        if depth > _MAX_DEPTH:
            raise UsageError(f"{where} is more than {_MAX_DEPTH} levels deep; write it flatter")
        if not isinstance(schema, dict):
            raise UsageError(f"{where} must be a JSON object, got {_short(schema)}")
        said = cast("_Schema", schema)
        if "$ref" in said:
            return self._named(said, where, depth)
        if "enum" in said or "const" in said:
            return _choice(said, where)
        if "anyOf" in said:
            return self._either(said, where, name, depth)
        kind = said.get("type")
        if isinstance(kind, list):
            parts = _by_kind(said, cast("list[object]", kind), where)
            return _union([self.read(part, where, name, depth + 1) for part in parts], where)
        if kind == "object":
            return self._object(said, where, name, depth)
        if kind == "array":
            item = self.read(said.get("items"), f"{where}.items", f"{name}_item", depth + 1)
            return _limited(list[item], said, "array", where)  # type: ignore[valid-type]  # made of a file
        if not isinstance(kind, str) or kind not in _PLAIN:
            kinds = ", ".join((*_PLAIN, "array", "object"))
            raise UsageError(f"{where}.type must be one of {kinds}, got {_short(kind)}")
        return _limited(_PLAIN[kind], said, kind, where)

    def _named(self, schema: _Schema, where: str, depth: int) -> object:
        _refuse_unknown(schema, where, ("$ref",))
        found: object = self._root
        path = str(schema["$ref"])
        if (made := self._named_before.get(path)) is not None:
            return made
        for step in path.removeprefix("#/").split("/"):
            found = _part(found, step)
        if found is None:
            raise UsageError(f"{where} refers to {_short(path)}, which is not in the file")
        made = self.read(found, where, path.rpartition("/")[2], depth + 1)
        self._named_before[path] = made
        return made

    def _object(self, schema: _Schema, where: str, name: str, depth: int) -> type:
        _refuse_unknown(schema, where, ("type", "properties", "required", "additionalProperties"))
        properties, required = schema.get("properties"), schema.get("required", [])
        if not isinstance(properties, dict) or not properties:
            raise UsageError(f"{where}.properties must have a schema for each property")
        if not isinstance(required, list):
            raise UsageError(f"{where}.required must be a list, got {_short(required)}")
        if schema.get("additionalProperties", False) is not False:
            raise UsageError(f"{where}.additionalProperties must be false: name all properties")
        needed = frozenset(map(str, cast("list[object]", required)))
        if missing := [one for one in needed if one not in properties]:
            raise UsageError(f"{where}.required has {min(missing)!r}, which is not a property")
        fields = list[tuple[str, object, object]]()
        names = dict[str, str]()
        for number, (key, part) in enumerate(cast("_Schema", properties).items()):
            made = self.read(part, f"{where}.{key}", key, depth + 1)
            if isinstance(about := cast("_Schema", part).get("description"), str):
                made = Annotated[made, msgspec.Meta(description=about)]
            names[f"field_{number}"] = key
            if key in needed:
                fields.append((f"field_{number}", made, msgspec.NODEFAULT))
            else:
                fields.append((f"field_{number}", _union([made, msgspec.UnsetType], where),
                               msgspec.UNSET))  # fmt: skip
        title = schema.get("title")
        return msgspec.defstruct(
            title if isinstance(title, str) and title else name,
            cast("Iterable[tuple[str, type, object]]", fields),
            kw_only=True,
            rename=names,
        )

    def _either(self, schema: _Schema, where: str, name: str, depth: int) -> object:
        _refuse_unknown(schema, where, ("anyOf",))
        parts = schema["anyOf"]
        if not isinstance(parts, list) or not parts:
            raise UsageError(
                f"{where}.anyOf must be a list of schemas, got {_short(schema['anyOf'])}"
            )
        made = [
            self.read(part, f"{where}.anyOf[{number}]", f"{name}_{number}", depth + 1)
            for number, part in enumerate(cast("list[object]", parts))
        ]
        return _union(made, where)


def _by_kind(schema: _Schema, kinds: Sequence[object], where: str) -> list[_Schema]:
    if len(kinds) != len(set(map(str, kinds))):
        raise UsageError(f"{where}.type has one kind twice: {_short(kinds)}")
    # Limits are about what is not null.
    return [{"type": one} if one == "null" else {**schema, "type": one} for one in kinds]


def _part(schema: object, key: str) -> object:
    return cast("_Schema", schema).get(key) if isinstance(schema, dict) else None


def _choice(schema: _Schema, where: str) -> object:
    _refuse_unknown(schema, where, ("enum", "const", "type"))
    choices = [schema["const"]] if "const" in schema else schema["enum"]
    if not isinstance(choices, list) or not choices:
        raise UsageError(f"{where}.enum must be a list of values, got {_short(schema['enum'])}")
    values = cast("list[object]", choices)
    for one in values:
        if one is not None and type(one) not in {str, int}:
            text = f"{where}.enum may have text, whole numbers and null, got {_short(one)}"
            raise UsageError(text)
    return Literal[tuple(values)]


def _union(parts: Sequence[object], where: str) -> object:
    made = Union[tuple(parts)]  # type: ignore[valid-type]  # noqa: UP007  # made of a file
    try:
        msgspec.json.Decoder(msgspec.defstruct("_", [("x", cast("type", made), None)]))
    except TypeError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{where} has types that JSON cannot tell apart: {reason}") from error
    return made


def _limited(plain: object, schema: _Schema, kind: str, where: str) -> object:
    limits = _LIMITS.get(kind, {})
    _refuse_unknown(schema, where, ("type", *(("items",) if kind == "array" else ()), *limits))
    said = {word: schema[key] for key, word in limits.items() if key in schema}
    try:
        meta = msgspec.Meta(**said)  # type: ignore[call-overload]  # it says what is wrong with them
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error
    return Annotated[plain, meta] if said else plain


def _refuse_unknown(schema: _Schema, where: str, known: Sequence[str]) -> None:
    for key in schema:
        if key not in known and key not in _SAYS_NOTHING:
            raise UsageError(
                f"{where} has the unsupported key {key!r}; supported here: {', '.join(known)}"
            )


def _short(value: object) -> str:
    return json.dumps(value)[:80]


def free_keys(output_type: type) -> frozenset[str]:
    """Return the keys of an answer whose values are free, rather than one of several choices."""
    found = msgspec.inspect.type_info(output_type)
    assert isinstance(found, msgspec.inspect.StructType)  # noqa: S101  # load_schema made it
    return frozenset(one.encode_name for one in found.fields if not _has_choice(one.type))


def _has_choice(kind: msgspec.inspect.Type) -> bool:
    match kind:
        case msgspec.inspect.LiteralType():
            return True
        case msgspec.inspect.UnionType(types=kinds):
            return any(map(_has_choice, kinds))
        case msgspec.inspect.ListType(item_type=item):
            return _has_choice(item)
        case msgspec.inspect.StructType(fields=fields):
            return any(_has_choice(one.type) for one in fields)
        case msgspec.inspect.Metadata(type=inner):
            return _has_choice(inner)
        case _:
            return False
