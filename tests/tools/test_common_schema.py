"""Schemas in the words that every provider takes."""

from __future__ import annotations

import datetime as dt
import enum
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import Capability, UsageError
from agentpool.drivers import ScriptedDriver
from agentpool.memory import InMemoryMemory
from agentpool.tools import (
    TEAM_TOOLS,
    file_tools,
    http_tools,
    inference_tools,
    memory_tools,
    shell_tools,
    tool,
)
from agentpool.tools._common_schema import MAX_PARTS, common_schema
from agentpool.tools._output import build_output
from agentpool.tools.mcp._tool_views import shown_schema
from tests.support.strict_schema import refusals


class Level(enum.IntEnum):
    """Numbers."""

    LOW = 1
    HIGH = 2


class Mode(enum.Enum):
    """Words."""

    FAST = "fast"
    SLOW = "slow"


@attrs.frozen
class Point:
    """A place."""

    x: int
    y: float = 0.0
    tags: list = attrs.field(factory=list)  # type: ignore[type-arg]  # as people write it


class Pair(NamedTuple):
    """Two things."""

    first: int
    second: str


@attrs.frozen
class Node:
    """One that contains itself."""

    label: str
    children: list[Node] = attrs.field(factory=list["Node"])


def one(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what becomes of *schema* as the schema of a parameter."""
    shown = cast("dict[str, Any]", common_schema({"properties": {"x": schema}}))
    assert list(refusals(shown)) == []
    return cast("dict[str, Any]", shown["properties"]["x"])


ANY_TYPES = {"string", "number", "boolean", "null", "array", "object"}


@pytest.mark.parametrize(
    ("schema", "becomes"),
    [
        ({"type": "array"}, {"type": "array", "items": one({})}),
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({"enum": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"enum": []}, one({})),
        ({"enum": [1, 2]}, {"type": "integer", "description": "(one of 1, 2)"}),
        (
            {"enum": ["", "a"], "description": "Which."},
            {"type": "string", "description": 'Which. (one of "", "a")'},
        ),
        ({"enum": [None, "a"]}, {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]}),
        (
            {"enum": [True, 1.5, [1], {"a": 1}]},
            {
                "anyOf": [
                    {"type": "boolean"},
                    {"type": "number"},
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "object", "properties": {}},
                ],
                "description": '(one of true, 1.5, [1], {"a": 1})',
            },
        ),
        (
            {"type": ["string", "null"], "description": "A name.", "maxLength": 3},
            {
                "anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}],
                "description": "A name.",
            },
        ),
        ({"type": ["string"], "default": "x"}, {"type": "string", "default": "x"}),
        (
            {"oneOf": [{"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}]},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
        ),
        ({"anyOf": [], "title": "Any"}, one({}) | {"description": "Any"}),
        ({"type": "string", "format": "uri"}, {"type": "string", "description": "(format uri)"}),
        ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}),
        (
            {"type": "integer", "exclusiveMinimum": 0, "multipleOf": 5, "maximum": 50},
            {
                "type": "integer",
                "maximum": 50,
                "description": "(greater than 0; a multiple of 5)",
            },
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "required": ["a", "b", 3],
                "patternProperties": {"^x": {}},
                "additionalProperties": True,
            },
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        ),
        (
            {"additionalProperties": {"enum": [1]}},
            {
                "type": "object",
                "properties": {},
                "additionalProperties": {"type": "integer", "description": "(one of 1)"},
            },
        ),
        ({"items": [{"type": "string"}]}, {"type": "array", "items": {"type": "string"}}),
        (
            {"prefixItems": [{"type": "string"}], "items": {"type": "integer"}},
            {
                "type": "array",
                "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                "description": "(in this order: string, integer)",
            },
        ),
        (
            {"prefixItems": [{"type": ["string", "null"]}, {"type": "integer"}]},
            {
                "type": "array",
                "items": {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "integer"}]},
                "description": "(in this order: string or null, integer)",
            },
        ),
        (
            {
                "allOf": [
                    {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                    {"properties": {"b": {"type": "string"}}, "required": ["b"]},
                    7,
                ],
                "type": "object",
            },
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
                "required": ["a", "b"],
            },
        ),
        (
            {
                "type": "object",
                "oneOf": [
                    {"properties": {"a": {"type": "integer"}, "k": {}}, "required": ["k", "a"]},
                    {"properties": {"b": {"type": "string"}}, "required": ["k", "b"]},
                    {},
                ],
            },
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "k": one({}), "b": {"type": "string"}},
                "required": [],
            },
        ),
        ({"type": "strange", "description": "?"}, one({}) | {"description": "?"}),
        ({"type": "string", "description": 7}, {"type": "string"}),
        ({"properties": 3, "required": 4}, {"type": "object", "properties": {}}),
    ],
)
def test_a_node_becomes_what_every_provider_takes(
    schema: dict[str, Any], becomes: dict[str, Any]
) -> None:
    """What one of them does not know ends the whole request."""
    assert one(schema) == becomes


@pytest.mark.parametrize("schema", [True, None, 3, [], {}, {"description": ""}])
def test_what_says_nothing_may_be_any_value(schema: Any) -> None:  # noqa: ANN401  # foreign JSON
    """With a type in each branch, since a node without a type is refused."""
    assert {branch["type"] for branch in one(schema)["anyOf"]} == ANY_TYPES


def test_many_values_are_not_all_told() -> None:
    """A description is sent with every request."""
    assert len(one({"enum": list(range(10_000))})["description"]) < 600


def test_references_are_written_out_wherever_they_point() -> None:
    """Generators of schemas point to definitions, or to other places of the schema."""
    schema = {
        "properties": {
            "a/b": {
                "type": "object",
                "properties": {"x": {"$ref": "#/definitions/N"}},
                "description": "The first.",
            },
            "same": {"$ref": "#/properties/a~1b", "description": "The same."},
            "gone": {"$ref": "#/definitions/M/x"},
            "self": {"$ref": "#/definitions/Self"},
            "loop": {"allOf": [{"$ref": "#/properties/loop"}]},
        },
        "definitions": {
            "N": {"type": "integer"},
            "Self": {"type": "object", "properties": {"next": {"$ref": "#/definitions/Self"}}},
        },
    }
    shown = cast("dict[str, Any]", common_schema(schema))
    assert list(refusals(shown)) == []
    fields = shown["properties"]
    assert fields["same"] == {**fields["a/b"], "description": "The same."}
    assert fields["same"]["properties"]["x"] == {"type": "integer"}
    assert {branch["type"] for branch in fields["gone"]["anyOf"]} == ANY_TYPES
    assert "again Self" in fields["self"]["properties"]["next"]["description"]


def test_a_schema_that_grows_without_end_is_refused() -> None:
    """References to references double it at each level; it is given up early."""
    levels = {
        f"l{n}": {"properties": {k: {"$ref": f"#/$defs/l{n + 1}"} for k in "ab"}} for n in range(40)
    }
    with pytest.raises(UsageError, match=f"more than {MAX_PARTS} parts"):
        common_schema({"properties": {"x": {"$ref": "#/$defs/l0"}}, "$defs": levels})


def test_the_form_of_an_answer_keeps_its_references() -> None:
    """Providers take them there, and keep to the letter only what is said to the end."""
    form = build_output(Holder).form
    schema = cast("dict[str, Any]", form.schema)
    assert schema["properties"]["root"] == {"$ref": "#/$defs/Node"}
    assert schema["properties"]["pair"]["items"]["anyOf"]
    assert schema["$defs"]["Node"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}


@attrs.frozen
class Holder:
    """A tree and a pair."""

    root: Node
    pair: Pair


def test_every_built_in_tool_is_taken(tmp_path: Path) -> None:
    """One that is not would end every agent that is granted it."""
    grants = [Capability.file_read("."), Capability.file_write("."), Capability.shell("ls")]
    tools = [
        *file_tools(grants, folder=tmp_path),
        *shell_tools(grants, environ=os.environ, folder=tmp_path),
        *http_tools("*"),
        *inference_tools(ScriptedDriver([])),
        *memory_tools(InMemoryMemory(), "one"),
        *TEAM_TOOLS,
    ]
    assert len(tools) > 10
    for one_tool in tools:
        schema = cast("dict[str, Any]", one_tool.definition.input_schema)
        assert list(refusals(schema)) == [], one_tool.definition.name


SIMPLE: list[Any] = [
    bool, int, float, str, None, bytes, list, dict, tuple, set, Any, Level, Mode, Point, Pair,
    Node, dt.datetime, dt.date, uuid.UUID, dt.timedelta,
    Literal["a", "b"], Literal[1, 2], Literal["a", 1], Literal["", "x"], Literal["a"] | None,
]  # fmt: skip


def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return types made of others."""
    return st.one_of(
        inner.map(list.__class_getitem__),
        inner.map(lambda one: dict.__class_getitem__((str, one))),
        inner.map(lambda one: tuple.__class_getitem__((one, ...))),
        st.tuples(inner, inner).map(tuple.__class_getitem__),
        inner.filter(lambda one: one is not None).map(lambda one: one | None),
    )


TYPES = st.recursive(st.sampled_from(SIMPLE), around, max_leaves=4)


@given(st.dictionaries(st.sampled_from("abcd"), TYPES, min_size=1))
def test_every_signature_becomes_a_schema_that_is_taken(hints: dict[str, Any]) -> None:
    """Whatever people annotate with."""

    def take(a: object = 0, b: object = 0, c: object = 0, d: object = 0) -> None:
        """Take it."""

    hints = {name: hints.get(name, int) for name in "abcd"}
    take.__annotations__ = {**hints, "return": None}
    try:
        made = tool(cast("Callable[..., None]", take))
    except UsageError:
        return  # a choice of two that cannot be told apart
    schema = cast("dict[str, Any]", made.definition.input_schema)
    assert list(refusals(schema)) == []
    assert common_schema(schema) == schema


WORDS = st.sampled_from(
    ["type", "properties", "items", "prefixItems", "anyOf", "oneOf", "allOf", "enum", "const",
     "required", "$ref", "$defs", "additionalProperties", "description", "title", "default",
     "format", "a", "exclusiveMinimum", "multipleOf"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["object", "array", "string", "integer", "null", "#/properties/a", "#/$defs/a", "#", "", "uri"]
)
FOREIGN = st.recursive(
    st.none() | st.booleans() | st.integers() | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(WORDS, FOREIGN, max_size=5))
def test_whatever_a_server_says_is_taken(schema: dict[str, Any]) -> None:
    """Also what is not a schema at all; and done twice, it stays as it is."""
    shown = shown_schema(schema)
    assert list(refusals(shown)) == []
    assert shown_schema(shown) == shown
