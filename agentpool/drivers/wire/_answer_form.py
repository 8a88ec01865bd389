"""Asks each provider for an answer in a given form.

Rules:

1. OpenAI enforces a form exactly (``strict``) if every object in it is closed and requires all of
   its keys. Any other form is only shown to the model.
2. Anthropic enforces a form of closed objects, lists and unions. Keywords that it does not know
   (how large, how long) are left out: the caller checks the answer.
3. A form that cannot be enforced at all, such as an object with any keys, is described in words.
   For Anthropic that is also a form that contains itself.
4. A form is also described in words if there are tools and the model accepts only one of the two
   (Groq, and Gemini before 3), or if any other server has refused the form in similar words. The
   tools are kept, since the agent needs them.

Source of rule 4: vercel/ai#16540, agno#1065, openai-agents-python#656 and python-genai#867
(seen 2026-11); of the others https://platform.openai.com/docs/guides/structured-outputs and
https://platform.claude.com/docs/en/build-with-claude/structured-outputs (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias, cast, get_args

import msgspec

from agentpool._messages import AnswerForm, Json

Told: TypeAlias = Literal["never", "beside_tools", "always"]
"""When to describe a form in words only."""

_PLACES: Final[tuple[Told, ...]] = get_args(Told)
"""The values of ``Told``, from never to always."""

_REFUSED: Final[Mapping[str, Told]] = {
    "json mode cannot be combined with tool": "beside_tools",  # Groq
    "function calling with a response mime type": "beside_tools",  # Gemini before 3
    "cannot use json response type with tools": "beside_tools",  # Mistral
    "does not support response format": "always",  # Groq, of most of its models
}
"""The words in which servers refuse a form, in lower case (2026-11)."""

_ANTHROPIC_KEYS: Final = frozenset(
    {"$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "items"}
    | {"properties", "required", "type"}
)


def openai_format(form: AnswerForm, *, is_openai: bool) -> Mapping[str, Json]:
    """Return the ``response_format`` that asks for *form*."""
    schema = cast("Json", form.schema)
    named: dict[str, Json] = {"name": form.name, "schema": schema}
    if is_openai and is_strict_schema(schema):
        named["strict"] = True
    return {"type": "json_schema", "json_schema": named}


def is_strict_schema(schema: Json) -> bool:
    """Return whether OpenAI can enforce *schema* exactly."""
    return all(map(_is_strict, _objects(schema)))


def anthropic_format(form: AnswerForm) -> Mapping[str, Json] | None:
    """Return the ``output_config`` that asks for *form*. ``None``: it cannot be enforced."""
    schema = cast("Mapping[str, Json]", form.schema)
    if not all(map(_is_closed, _objects(schema))) or _has_itself(schema):
        return None
    return {"format": {"type": "json_schema", "schema": _known(schema)}}


def told_form(form: AnswerForm) -> str:
    """Describe *form* in words for the model."""
    schema = msgspec.json.encode(form.schema).decode()
    return f"Unless you call a tool, answer with JSON of this schema and nothing else:\n{schema}"


def told_after(refusal: str) -> Told:
    """Return when to describe forms in words from now on, after a server's *refusal*."""
    said = refusal.lower()
    for words, told in _REFUSED.items():
        if words in said:
            return told
    return "never"


def more_told(one: Told, other: Told) -> Told:
    """Return the value that describes forms in words more often."""
    return one if _PLACES.index(one) >= _PLACES.index(other) else other


def _objects(schema: Json) -> Iterator[Mapping[str, Json]]:
    """Yield every schema in *schema* that describes an object or a tuple, itself included."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "object" or "prefixItems" in schema:
            yield schema
        for key, inner in schema.items():
            if key in {"properties", "$defs"}:
                for one in cast("Mapping[str, Json]", inner).values():
                    yield from _objects(one)
            elif key in {"items", "anyOf", "additionalProperties"}:
                yield from _objects(inner)
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for one in schema:
            yield from _objects(one)


def _has_itself(schema: Mapping[str, Json]) -> bool:
    """Return whether *schema* refers to itself, directly or through its definitions."""
    definitions = cast("Mapping[str, Json]", schema.get("$defs", {}))
    left = {f"#/$defs/{name}": set(_references(one)) for name, one in definitions.items()}
    left["#"] = set(_references({key: one for key, one in schema.items() if key != "$defs"}))
    # Those that refer to none of the others are taken away, until there are no more such.
    while ended := [name for name, names in left.items() if left.keys().isdisjoint(names)]:
        for name in ended:
            del left[name]
    return bool(left)


def _references(schema: Json) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, inner in schema.items():
            if key == "$ref" and isinstance(inner, str):
                yield inner
            yield from _references(inner)
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for one in schema:
            yield from _references(one)


def _is_closed(schema: Mapping[str, Json]) -> bool:
    return schema.get("additionalProperties") is False and "prefixItems" not in schema


def _is_strict(schema: Mapping[str, Json]) -> bool:
    properties = cast("Mapping[str, Json]", schema.get("properties", {}))
    required = cast("Sequence[str]", schema.get("required", ()))
    return _is_closed(schema) and set(required) == set(properties)


def _known(schema: Json) -> Json:
    if isinstance(schema, Mapping):
        return {
            key: _known_below(key, inner) for key, inner in schema.items() if key in _ANTHROPIC_KEYS
        }
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_known(one) for one in schema]
    return schema


def _known_below(key: str, inner: Json) -> Json:
    if key in {"properties", "$defs"}:
        return {name: _known(one) for name, one in cast("Mapping[str, Json]", inner).items()}
    return _known(inner) if key in {"items", "anyOf"} else inner
