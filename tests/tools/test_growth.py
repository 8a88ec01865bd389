"""What reads foreign text or structures takes time in proportion to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest

from agentpool import ToolError
from agentpool._loop.output import Misfit
from agentpool._loop.thoughts import without_thoughts
from agentpool.drivers import Attachment
from agentpool.tools._arguments import ArgumentsDecoder
from agentpool.tools._output import build_output
from agentpool.tools._schema import build_signature
from agentpool.tools.mcp._repaired_messages import mend_tools
from agentpool.tools.mcp._tool_views import (
    hidden_sign,
    read_arguments,
    read_result,
    shown_schema,
    tool_names,
)
from agentpool.tools.mcp._trimmed import trimmed
from tests.support.growth import assert_linear


@attrs.frozen
class Rows:
    """What an answer must be."""

    rows: list[int]
    headers: dict[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen
class Chain:
    """One that contains itself."""

    value: int
    rest: list[Chain] = attrs.field(factory=list["Chain"])


def ask(headers: dict[str, str], rows: list[int], chain: Chain | None = None) -> str:
    """Ask."""
    return f"{headers}{rows}{chain}"


READ = build_output(Rows).read
DECODER = ArgumentsDecoder.of(build_signature(ask))


def decode(text: str) -> None:
    """Decode arguments; whether they are right does not matter here."""
    try:
        DECODER.decode(text)
    except ToolError:
        return


def read_for_server(text: str) -> None:
    """Decode arguments for an MCP server."""
    try:
        read_arguments(text)
    except ToolError:
        return


def repeated_keys(n: int) -> str:
    """Return arguments of which every key stands there twice."""
    keys = ", ".join(f'"k{place}": ""' for place in range(n))
    return f'{{"headers": {{{keys}, {keys}}}, "rows": []}}'


def chained(n: int) -> str:
    """Return arguments that are nested as deeply as they may be."""
    inner = ", ".join('{"value": "x"}' for _ in range(n))
    return f'{{"headers": {{}}, "rows": [1.0], "chain": {{"value": 1.0, "rest": [{inner}]}}}}'


OBJECT: dict[str, object] = {"type": "object"}

WRONG: dict[str, Callable[[int], str]] = {
    "twice": repeated_keys,
    "unknown": lambda n: json.dumps({f"k{place}": 1 for place in range(n)}),
    "wrong": lambda n: json.dumps({"headers": {}, "rows": ["x"] * n}),
    "floats": lambda n: json.dumps({"headers": {}, "rows": [1.0] * n}),
    "halves": lambda n: '{"headers": {"a": "' + r"\ud83d\\ud83d" * n + '"}, "rows": []}',
    "chained": chained,
}
TEXTS: dict[str, Callable[[int], str]] = {
    "fence": lambda n: "```" + "\n" * n,
    "braces": lambda n: "{" * n,
    "spaced braces": lambda n: "{ " * n,
    "open": lambda n: '{"a": [' * n,
    "open texts": lambda n: '{"a" ' * n,
    "objects": lambda n: '{"rows": ["x"]} ' * n,
    "equal": lambda n: '{"rows": [1]} ' * n,
    "wrong": lambda n: json.dumps({"rows": ["x"] * n}),
    "floats": lambda n: json.dumps({"rows": [1.0] * n}),
    "twice": lambda n: '{"rows": [], ' + ", ".join(['"rows": []'] * n) + "}",
}
THOUGHTS: dict[str, Callable[[int], str]] = {
    "blocks": lambda n: "<think></think>" * n,
    "begins": lambda n: "<think>" * n,
    "ends": lambda n: "</think>" * n,
    "lines": lambda n: "\n</think" * n,
    "spaces": lambda n: " " * n,
}
SCHEMAS: dict[str, Callable[[int], dict[str, Any]]] = {
    "branches": lambda n: {
        "properties": {"x": {"anyOf": [{"type": "string", "maxLength": k} for k in range(n)]}}
    },
    "allOf": lambda n: {"properties": {"x": {"allOf": [{"title": "x"}] * n}}},
    "values": lambda n: {"properties": {"x": {"enum": list(range(n))}}},
    "fields": lambda n: {"properties": {f"k{k}": {"enum": ["a"]} for k in range(n)}},
    "references": lambda n: {
        "properties": {f"k{k}": {"$ref": "#/$defs/A"} for k in range(n)},
        "$defs": {"A": {"properties": {"b": {"$ref": "#/$defs/A"}}}},
    },
}


@pytest.mark.parametrize("kind", WRONG)
def test_arguments_are_read_in_proportion(kind: str) -> None:
    """A model, or who speaks through it, may write a megabyte of them."""
    assert_linear(decode, WRONG[kind])
    assert_linear(read_for_server, WRONG[kind])


@pytest.mark.parametrize("kind", TEXTS)
def test_answers_are_read_in_proportion(kind: str) -> None:
    """An answer may be as long as the model can write."""
    assert_linear(READ, TEXTS[kind])
    assert isinstance(READ(TEXTS[kind](3)), Misfit | Rows)


def test_of_a_long_answer_one_fault_is_told() -> None:
    """To look for all of them takes fifty times as long as to read it."""
    few, many = READ(TEXTS["wrong"](3)), READ(TEXTS["wrong"](100_000))
    assert isinstance(few, Misfit)
    assert isinstance(many, Misfit)
    assert (few.text.count("\n- "), many.text.count("\n- ")) == (2, 0)


@pytest.mark.parametrize("kind", THOUGHTS)
def test_thoughts_are_found_in_proportion(kind: str) -> None:
    """They are the longest texts that models write."""
    assert_linear(without_thoughts, THOUGHTS[kind])


def tool_of(number: int, schema: object) -> dict[str, object]:
    """Return a tool as a server describes it."""
    return {"name": f"a{number}", "inputSchema": schema}


ARRIVALS: dict[str, Callable[[int], dict[str, object]]] = {
    "tools of one name": lambda n: {"tools": [{"name": "a", "inputSchema": OBJECT}] * n},
    "tools of no form": lambda n: {"tools": [tool_of(at, 1) for at in range(n)]},
    "a tool of no form": lambda n: {
        "tools": [tool_of(0, OBJECT | {"properties": {str(at): 1 for at in range(n)}})]
    },
    "blocks": lambda n: {"content": [{"type": "text", "text": "a"}] * n},
    "what is none": lambda n: {"tools": [1] * n, "content": [[]] * n},
}  # fmt: skip


@pytest.mark.parametrize("kind", ARRIVALS)
def test_arrivals_are_mended_in_proportion(kind: str) -> None:
    """Before the SDK reads them."""

    def mend(line: bytes) -> None:
        message = msgspec.json.decode(trimmed(line), type=dict[str, Any])
        mend_tools(message["result"], {})

    assert_linear(mend, lambda n: msgspec.json.encode({"result": ARRIVALS[kind](n)}))


def test_tools_are_named_in_proportion() -> None:
    """Those of many servers, and those that are called as another one's name would be."""
    assert_linear(tool_names, lambda n: [(f"s{at}", "t") for at in range(n)])
    assert_linear(tool_names, lambda n: [("s_" * 9, f"{at}-_{at:08x}") for at in range(n)])


@pytest.mark.parametrize("kind", SCHEMAS)
def test_schemas_are_written_in_proportion(kind: str) -> None:
    """An MCP server's schema is somebody else's."""
    assert_linear(shown_schema, SCHEMAS[kind])
    assert_linear(hidden_sign, SCHEMAS[kind])


def test_hidden_signs_are_looked_for_in_proportion() -> None:
    """None is there, and each sign might be one."""
    assert_linear(hidden_sign, lambda n: {"enum": ["\u26a0\ufe0f\n\u3000" * n]})
    assert_linear(hidden_sign, lambda n: {"enum": [f"{at}\u00a0" for at in range(n)]})


def test_results_are_read_in_proportion() -> None:
    """An MCP server's result as well."""
    assert_linear(read_result, lambda n: {"content": [{"type": "text", "text": "x" * 99}] * n})
    assert_linear(read_result, lambda n: {"content": [{"type": "image", "data": "x" * n}]})


def test_attachments_are_measured_in_proportion() -> None:
    """Somebody else's files: a page by page document, and a JPEG of many parts."""

    def measure(attachment: Attachment) -> int:
        return attachment.tokens

    def pages(n: int) -> Attachment:
        return Attachment("application/pdf", b"%PDF-" + b"/Type/Page /Type /Pages" * n)

    def segments(n: int) -> Attachment:
        return Attachment("image/jpeg", b"\xff\xd8" + b"\xff\xe0\0\x02" * n)

    assert_linear(measure, pages)
    assert_linear(measure, segments)
    image = "iVBORw0KGgo" + "A" * 33
    one = {"type": "image", "data": image, "mimeType": "image/png"}
    assert_linear(read_result, lambda n: {"content": [one] * n})
