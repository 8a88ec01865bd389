"""Whatever an MCP server says, what is made of it fits."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from agentpool import ToolError
from agentpool.tools.mcp._message_lines import LineSplitter
from agentpool.tools.mcp._tool_views import (
    MAX_HINT_CHARS,
    MAX_RESULT_CHARS,
    one_line,
    read_result,
    shown_schema,
    tool_names,
)

SERVERS = st.text("ab_-", min_size=1, max_size=4)
TOOLS = st.one_of(st.text("ab_-", max_size=6), st.text(max_size=80))
KEYS = st.lists(st.tuples(SERVERS, TOOLS), max_size=8, unique=True)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
BLOCKS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": JSON}),
    st.fixed_dictionaries({"type": st.sampled_from(["image", "audio"]), "data": JSON}),
    st.fixed_dictionaries({"type": st.just("resource"), "resource": JSON}),
    st.fixed_dictionaries({"type": JSON}),
)


@given(KEYS)
def test_names_are_legal_and_no_two_are_alike(keys: list[tuple[str, str]]) -> None:
    """Also of servers and tools that were named to be confused."""
    names = tool_names(keys)
    assert list(names) == keys
    assert len(set(names.values())) == len(keys)
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in names.values())


@given(KEYS, KEYS)
def test_a_name_depends_on_nothing_but_its_own_tool(
    some: list[tuple[str, str]], others: list[tuple[str, str]]
) -> None:
    """A prompt that names a tool goes on naming it, but where `-` meets `_`."""
    some = [(server.replace("-", "_"), tool) for server, tool in some]
    others = [(server.replace("-", "_"), tool) for server, tool in others]
    alone, together = tool_names(some), tool_names([*some, *others])
    assert all(together[key] == name for key, name in alone.items())


@given(st.lists(BLOCKS, max_size=5), JSON, JSON)
def test_every_result_is_some_text(
    blocks: list[object], structured: object, failed: object
) -> None:
    """Never empty, and never longer than a model can use."""
    result = read_result({"content": blocks, "structuredContent": structured, "isError": failed})
    assert 0 < len(result.content) <= MAX_RESULT_CHARS + 40


@given(st.dictionaries(st.text(), JSON))
def test_every_schema_is_one_of_an_object(schema: dict[str, object]) -> None:
    """Cleaned once, it stays as it is."""
    shown = shown_schema(schema)
    assert shown["type"] == "object"
    assert shown_schema(shown) == shown


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    """Without anything that nobody sees; done twice, it is the same."""
    line = one_line(text, MAX_HINT_CHARS)
    assert line.isprintable()
    assert one_line(line, MAX_HINT_CHARS) == line


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b" "))), st.data())
def test_lines_do_not_depend_on_the_pieces(lines: list[bytes], data: st.DataObject) -> None:
    """However a pipe cuts them, but for blank ones, which mean nothing."""
    rest = b"".join(line + b"\n" for line in lines) + b"half"
    splitter, found = LineSplitter(limit=100), list[bytes]()
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += splitter.feed(rest[:size])
        rest = rest[size:]
    assert [line for line in found if line.strip()] == [line for line in lines if line.strip()]


@given(st.integers(1, 50), st.lists(st.binary(min_size=1, max_size=9), max_size=20))
def test_no_line_is_longer_than_the_limit(limit: int, pieces: list[bytes]) -> None:
    """Wherever it ends; what is kept is no more than that and one piece."""
    splitter = LineSplitter(limit=limit)
    try:
        lines = [line for piece in pieces for line in splitter.feed(piece)]
    except ToolError:
        assert max(map(len, b"".join(pieces).split(b"\n"))) > limit
    else:
        assert all(len(line) <= limit for line in lines)
        assert len(b"".join(pieces).rpartition(b"\n")[2]) <= limit
