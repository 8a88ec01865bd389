"""What the strictest provider refuses in a schema, said apart from the code that avoids it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_KEYS = {
    "string": {"enum", "format", "minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "boolean": set[str](),
    "null": set[str](),
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
}


def refusals(schema: dict[str, Any], path: str = "$") -> Iterator[str]:
    """Yield what a strict server would refuse in *schema*, with its place."""
    shared = {"type", "description", "default"}
    if "anyOf" in schema:
        if path == "$":
            yield f"{path}: a choice at the top"
        if extra := set(schema) - {"anyOf", "description", "default"}:
            yield f"{path}: {extra} beside a choice"
        if len(schema["anyOf"]) < 2:
            yield f"{path}: a choice of one"
        for place, one in enumerate(schema["anyOf"]):
            yield from refusals(one, f"{path}|{place}")
        return
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _KEYS:
        yield f"{path}: no type but {kind!r}"
        return
    if extra := set(schema) - shared - _KEYS[kind]:
        yield f"{path}: unknown {extra}"
    yield from _refusals_of(kind, schema, path)


def _refusals_of(kind: str, schema: dict[str, Any], path: str) -> Iterator[str]:
    if not all(isinstance(one, str) and one for one in schema.get("enum", ["x"])):
        yield f"{path}: an enumeration of other than texts"
    if schema.get("format", "date-time") != "date-time":
        yield f"{path}: an unknown format"
    if kind == "array":
        items = schema.get("items")
        yield from refusals(items, f"{path}[]") if isinstance(items, dict) else (f"{path}: items",)
    if kind == "object":
        yield from _refusals_of_object(schema, path)


def _refusals_of_object(schema: dict[str, Any], path: str) -> Iterator[str]:
    fields = schema.get("properties")
    if not isinstance(fields, dict):
        yield f"{path}: no properties"
        return
    if missing := set(schema.get("required", ())) - set(fields):
        yield f"{path}: requires {missing}, which it does not have"
    for name, inner in fields.items():
        yield from refusals(inner, f"{path}.{name}")
    others = schema.get("additionalProperties", False)
    if isinstance(others, dict):
        yield from refusals(others, f"{path}.*")
    elif others is not False:
        yield f"{path}: additionalProperties is {others!r}"
