"""Rewrites a JSON Schema so that every provider accepts it.

A single schema that a provider refuses ends the whole request, and with it the agent. So models are
shown only what the strictest provider accepts, and everything else in a schema is put into words.
Arguments are still checked against the whole schema.

Rules:

1. Every node has one type, or is a choice of such nodes: a list of types, ``oneOf`` and an
   enumeration of mixed values become a choice. A node without a type allows any value.
2. An array has ``items``; those of a tuple allow the types of all its positions. An object has
   ``properties``, and requires only those.
3. An enumeration has only texts, none of them empty. Other values are put into words.
4. ``allOf`` is merged, and the top of a tool's schema is an object, never a choice.
5. References are written out. A type that contains itself is written out once; inside it, words say
   that the type repeats. With ``keep_references``, such a type stays a reference, as in
   ``written_out``.

Sources, all 2025-03 to 2026-08: google-gemini/gemini-cli#3178 (formats),
Draculabo/AntigravityManager#260 and decolua/9router#380 (enumerations), thClaws/thClaws#172
(unknown keywords), langgenius/dify#33137 (``items``), openai/openai-agents-python#454
(``properties``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast, final

from agentpool._base import Live
from agentpool._errors import UsageError
from agentpool._messages import Json

_Node: TypeAlias = Mapping[str, object]
_Written: TypeAlias = dict[str, Json]

MAX_PARTS: Final = 50_000
"""The most parts of a schema with its references written out. This is far more than a model can
use, yet few enough that a schema made to explode is refused quickly."""

MAX_TOLD_CHARS: Final = 500
"""The most characters of an enumeration that is put into words."""

MAX_MERGED: Final = 100
"""The most members of ``allOf`` that are merged into one node, nested ones included."""

_ANY: Final[Sequence[_Written]] = (
    {"type": "string"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
    {"type": "array", "items": {"type": "string"}},
    {"type": "object", "properties": {}},
)
"""The types of a value without a schema."""

_KEPT: Final[Mapping[str, Sequence[str]]] = {
    "string": ("minLength", "maxLength", "pattern"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "boolean": (),
    "null": (),
    "array": ("minItems", "maxItems"),
    "object": (),
}
"""The types, and the keywords of each that are kept unchanged."""

_TOLD: Final[Mapping[str, str]] = {
    "exclusiveMinimum": "greater than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "format": "format {}",
    "contentEncoding": "in {}",
}
"""Keywords that are replaced by words in the description, since not every provider knows them."""

_CHOICES: Final = ("anyOf", "oneOf")
_OUTER: Final = frozenset({*_CHOICES, "type", "title", "description", "default"})
"""Keywords that describe a choice as a whole, not each of its branches."""


def common_schema(schema: Mapping[str, object], *, keep_references: bool = False) -> _Written:
    """Return the object *schema* in a form that every provider accepts.

    Args:
        schema: A JSON Schema. Invalid parts of it are left out.
        keep_references: Whether a type that contains itself stays a reference. Providers accept
            that in the form of an answer, but not in a tool.

    Raises:
        UsageError: If the schema is too large once its references are written out.
    """
    writer = _Writer(schema, keep_references)
    written = writer.write_object(writer.merged(schema), ())
    if keep_references and "$defs" in schema:
        definitions = cast("Mapping[str, object]", schema["$defs"])
        written["$defs"] = {name: writer.write(one, ()) for name, one in definitions.items()}
    return written


@final
class _Writer(Live):
    """Rewrites the nodes of one schema."""

    root: _Node
    keep_references: bool
    parts: int = 0

    def write(self, node: object, inside: tuple[str, ...]) -> _Written:
        """Rewrite *node* by rule 1. *inside* are the references that led to *node*."""
        if not isinstance(node, Mapping):
            return {"anyOf": list(_ANY)}
        node = cast("_Node", node)
        reference = node.get("$ref")
        if isinstance(reference, str):
            if self.keep_references:
                return {"$ref": reference, **_words(node, ())}
            if reference in inside:
                name = reference.rsplit("/", 1)[-1]
                again: _Written = {"type": "object", "properties": {}}
                return again | _words(node, (f"again {name}, with the same fields",))
            inside = (*inside, reference)
        return self._write_plain(self.merged(node), inside)

    def _write_plain(self, node: _Node, inside: tuple[str, ...]) -> _Written:
        if "enum" in node or "const" in node:
            return _write_values(node)
        kind = node.get("type")
        if isinstance(kind, list | tuple):
            rest = {key: value for key, value in node.items() if key not in _OUTER}
            kinds = cast("Sequence[object]", kind)
            return self._choice([rest | {"type": one} for one in kinds], node, inside)
        if not isinstance(kind, str):
            branches = _branches(node)
            if branches is not None:
                return self._choice(branches, node, inside)
            kind = _guessed(node)
        if kind == "object":
            return self.write_object(node, inside)
        if kind not in _KEPT:
            return {"anyOf": list(_ANY)} | _words(node, ())
        return self._write_value(kind, node, inside)

    def _write_value(self, kind: str, node: _Node, inside: tuple[str, ...]) -> _Written:
        written: _Written = {"type": kind}
        told: list[str] = []
        if kind == "array":
            told += self._fill_array(written, node, inside)
        if kind == "string" and node.get("format") == "date-time":
            written["format"] = "date-time"
        else:
            told += _told(node)
        for key in _KEPT[kind]:
            if key in node:
                written[key] = cast("Json", node[key])
        return written | _words(node, told)

    def write_object(self, node: _Node, inside: tuple[str, ...]) -> _Written:
        """Rewrite *node* as an object, even if it describes another type."""
        given = node.get("properties")
        fields: _Node = cast("_Node", given) if isinstance(given, Mapping) else {}
        required = node.get("required")
        if not fields:
            # Different sets of fields are told as one, of which those are required that are
            # required in each.
            branches = _branches(node)
            if branches:
                fields, required = _joined([self.merged(one) for one in branches])
        written: _Written = {
            "type": "object",
            "properties": {name: self.write(one, inside) for name, one in fields.items()},
        }
        if isinstance(required, list | tuple):
            names = cast("Sequence[object]", required)
            written["required"] = [n for n in names if isinstance(n, str) and n in fields]
        others = node.get("additionalProperties")
        if others is False:
            written["additionalProperties"] = False
        elif isinstance(others, Mapping) and others:
            written["additionalProperties"] = self.write(cast("_Node", others), inside)
        return written | _words(node, ())

    def _fill_array(self, written: _Written, node: _Node, inside: tuple[str, ...]) -> Sequence[str]:
        """Give *written* its items, and return a description of their positions."""
        first = node.get("prefixItems", node.get("items"))
        if not isinstance(first, list | tuple):
            written["items"] = self.write(node.get("items"), inside)
            return ()
        places = [self.write(one, inside) for one in cast("Sequence[object]", first)]
        rest = node.get("items", False) if "prefixItems" in node else False
        if isinstance(rest, Mapping):
            places.append(self.write(cast("_Node", rest), inside))
        different = _distinct(places)
        written["items"] = _one_of(different)
        if len(different) <= 1:
            return ()
        return ("in this order: " + ", ".join(map(_kind_of, places)),)

    def _choice(self, branches: Sequence[object], node: _Node, inside: tuple[str, ...]) -> _Written:
        written = _distinct([self.write(one, inside) for one in branches])
        return _one_of(written) | _words(node, ())

    def merged(self, node: object) -> _Node:
        """Return *node* merged with the target of its reference and with its ``allOf``."""
        whole: dict[str, object] = {}
        waiting = [node]
        for _ in range(MAX_MERGED):
            if not waiting:
                break
            one = waiting.pop()
            if not isinstance(one, Mapping):
                continue
            one = cast("_Node", one)
            self._count(one)
            _merge(whole, one)
            reference, members = one.get("$ref"), one.get("allOf")
            if isinstance(reference, str) and not self.keep_references:
                waiting.append(self._behind(reference))
            if isinstance(members, list | tuple):
                waiting += reversed(cast("Sequence[object]", members))
        return whole

    def _count(self, node: _Node) -> None:
        given = node.get("properties")
        named = len(cast("_Node", given)) if isinstance(given, Mapping) else 0
        self.parts += 1 + len(node) + named
        if self.parts > MAX_PARTS:
            raise UsageError(
                f"the schema has more than {MAX_PARTS} parts with its references written out; "
                "make it smaller"
            )

    def _behind(self, reference: str) -> object:
        """Return the node that *reference* points to. ``None``: the reference points to nothing."""
        found = cast("object", self.root)
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = cast("_Node", found).get(name) if isinstance(found, Mapping) else None
        return found


def _merge(whole: dict[str, object], node: _Node) -> None:
    """Add the keys of *node* to *whole*. Keys already there win."""
    for key, value in node.items():
        known = whole.get(key)
        if key in {"$ref", "allOf"}:
            continue
        if key == "properties" and isinstance(known, dict) and isinstance(value, Mapping):
            for name, one in cast("_Node", value).items():
                cast("dict[str, object]", known).setdefault(name, one)
        elif key == "required" and isinstance(known, list) and isinstance(value, list | tuple):
            cast("list[object]", known).extend(cast("Sequence[object]", value))
        elif key not in whole:
            whole[key] = _copy(value) if key in {"properties", "required"} else value


def _copy(value: object) -> object:
    """Return a copy of *value* that can be changed."""
    if isinstance(value, Mapping):
        return dict(cast("_Node", value))
    return list(cast("Sequence[object]", value)) if isinstance(value, list | tuple) else value


def _joined(branches: Sequence[_Node]) -> tuple[dict[str, object], list[str]]:
    """Return the fields of all *branches*, and the names that every branch requires."""
    fields: dict[str, object] = {}
    times: dict[str, int] = {}
    for branch in branches:
        given, required = branch.get("properties"), branch.get("required")
        for name, one in cast("_Node", given if isinstance(given, Mapping) else {}).items():
            fields.setdefault(name, one)
        if isinstance(required, list | tuple):
            names = cast("Sequence[object]", required)
            for field in dict.fromkeys(one for one in names if isinstance(one, str)):
                times[field] = times.get(field, 0) + 1
    return fields, [name for name, count in times.items() if count == len(branches)]


def _branches(node: _Node) -> Sequence[object] | None:
    """Return the alternatives of *node*. ``None``: *node* has no alternatives."""
    for key in _CHOICES:
        branches = node.get(key)
        if isinstance(branches, list | tuple):
            return cast("Sequence[object]", branches)
    return None


def _guessed(node: _Node) -> str:
    """Return the type that *node* implies but does not name. Empty: *node* allows any type."""
    if "properties" in node or "additionalProperties" in node:
        return "object"
    return "array" if "items" in node or "prefixItems" in node else ""


def _write_values(node: _Node) -> _Written:
    """Rewrite an enumeration or a constant as a type or a choice of types."""
    given = node["enum"] if "enum" in node else (node["const"],)
    if not isinstance(given, list | tuple) or not given:
        return {"anyOf": list(_ANY)} | _words(node, ())
    values = cast("Sequence[object]", given)
    texts = [value for value in values if isinstance(value, str)]
    branches: list[_Written] = []
    if texts:
        branches.append({"type": "string", "enum": [*texts]} if all(texts) else {"type": "string"})
    branches += [_type_of(value) for value in values if not isinstance(value, str)]
    # Texts that stand in the enumeration, and null, need no words.
    plain = all(texts) and all(value is None or isinstance(value, str) for value in values)
    told = () if plain else (_values_told(values),)
    return _one_of(_distinct(branches)) | _words(node, told)


def _type_of(value: object) -> _Written:
    match value:
        case None:
            return {"type": "null"}
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case list() | tuple():
            return dict(_ANY[-2])
        case _:
            return dict(_ANY[-1])


def _values_told(values: Sequence[object]) -> str:
    text = "one of " + ", ".join(json.dumps(value) for value in values)
    return text if len(text) <= MAX_TOLD_CHARS else f"{text[:MAX_TOLD_CHARS]}…"


def _told(node: _Node) -> list[str]:
    return [words.format(node[key]) for key, words in _TOLD.items() if key in node]


def _words(node: _Node, told: Sequence[str]) -> _Written:
    """Return the description of *node*, with *told* added."""
    found: _Written = {}
    said = [
        one for key in ("description", "title") if isinstance(one := node.get(key), str) and one
    ]
    if said or told:
        text = " ".join((*said[:1], f"({'; '.join(told)})" if told else ""))
        found["description"] = text.strip()
    if "default" in node:
        found["default"] = cast("Json", node["default"])
    return found


def _distinct(branches: Sequence[_Written]) -> list[_Written]:
    """Return each of *branches* once, with nested choices flattened."""
    flat: dict[str, _Written] = {}
    for branch in branches:
        inner = branch.get("anyOf")
        many = cast("Sequence[_Written]", inner) if len(branch) == 1 and inner else (branch,)
        for one in many:
            flat.setdefault(json.dumps(one, sort_keys=True, default=str), one)
    return list(flat.values())


def _one_of(branches: Sequence[_Written]) -> _Written:
    return dict(branches[0]) if len(branches) == 1 else {"anyOf": list(branches) or list(_ANY)}


def _kind_of(written: _Written) -> str:
    inner = written.get("anyOf")
    if isinstance(inner, list):
        return " or ".join(map(_kind_of, cast("Sequence[_Written]", inner)))
    return str(written.get("type", "object"))
