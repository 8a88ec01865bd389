"""Of a server's large messages as much is read as is used, whatever they are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import pytest
import trio
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter

from agentpool.tools.mcp._http import open_http_client
from agentpool.tools.mcp._message_lines import MAX_MESSAGE_BYTES
from agentpool.tools.mcp._secrets import Secrets
from agentpool.tools.mcp._tool_views import MAX_RESULT_CHARS, read_result
from agentpool.tools.mcp._trimmed import MAX_BLOCKS, MAX_TOOLS, SMALL_BYTES, trimmed
from agentpool.tools.mcp._trimmed_http import BodyTrimmer, EventTrimmer
from tests.support.growth import assert_linear
from tests.support.hostile_server import answering, open_watched
from tests.support.http_servers import head

A: Final = {"type": "text", "text": "a"}


def result(**fields: object) -> dict[str, object]:
    """Return a message with a result."""
    return {"jsonrpc": "2.0", "id": 7, "result": fields}


def numbers(n: int) -> dict[str, int]:
    """Return a structure of *n* parts."""
    return {str(place): place for place in range(n)}


def form(n: int) -> dict[str, object]:
    """Return the schema of a form with *n* fields."""
    return {"type": "object", "properties": {f"p{at}": {"type": "string"} for at in range(n)}}


SHAPES: Final[dict[str, Callable[[int], object]]] = {
    "blocks": lambda n: result(content=[A] * n),
    "empty blocks": lambda n: result(content=[{}] * 20 * n),
    "structured": lambda n: result(content=[], structuredContent=numbers(n)),
    "structured alone": lambda n: result(structuredContent=[numbers(1)] * n),
    "beside a text": lambda n: result(content=[A], structuredContent=numbers(n)),
    "meta": lambda n: result(content=[A], _meta=numbers(n)),
    "meta of a block": lambda n: result(content=[{**A, "_meta": numbers(n)}]),
    "text that is none": lambda n: result(content=[{**A, "text": list(range(n))}]),
    "resource": lambda n: result(
        content=[{"type": "resource", "resource": {"uri": "a:b", "text": "a", "x": numbers(n)}}]
    ),
    "block that is none": lambda n: result(content=[list(range(n))]),
    "other fields": lambda n: result(content=[A], **{f"k{at}": at for at in range(n)}),
    "error": lambda n: result(content=[A], isError=list(range(n))),
    "tools": lambda n: result(tools=[{"name": "x", "inputSchema": {"type": "object"}}] * n),
    "schema": lambda n: result(tools=[{"name": "x", "inputSchema": form(10 * n)}]),
    "tool that is none": lambda n: result(tools=["x"] * n),
    "resources": lambda n: result(resources=[{"uri": f"a:{at}", "name": "x"} for at in range(n)]),
    "prompts": lambda n: result(prompts=[{"name": f"p{at}"} for at in range(n)]),
    "capabilities": lambda n: result(capabilities={"experimental": numbers(n)}),
    "no object": lambda n: {"jsonrpc": "2.0", "id": 7, "result": list(range(n))},
    "data of an error": lambda n: {
        "jsonrpc": "2.0", "id": 7, "error": {"code": 1, "message": "no", "data": numbers(n)}
    },
    "elicitation": lambda n: {
        "jsonrpc": "2.0", "id": 7, "method": "elicitation/create",
        "params": {"message": "m", "requestedSchema": form(n)},
    },
    "sampling": lambda n: {
        "jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage",
        "params": {"messages": [{"role": "user", "content": A}] * n},
    },
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_read_does_not_grow_with_what_is_sent(shape: str) -> None:
    """Each part became an object: 350,000 blocks stood still for a second, others for five."""
    sent = json.dumps(SHAPES[shape](20_000)).encode()
    assert len(sent) > 5 * SMALL_BYTES
    used = trimmed(sent)
    assert len(used) < 4 * SMALL_BYTES
    message = jsonrpc_message_adapter.validate_json(used, by_name=False)
    assert isinstance(message, JSONRPCResponse | JSONRPCError | JSONRPCRequest)
    assert message.id == 7


@pytest.mark.parametrize("shape", ["blocks", "structured", "meta of a block", "tools"])
def test_and_takes_time_in_proportion_to_it(shape: str) -> None:
    """Bytes are passed over one after the other."""
    assert_linear(trimmed, lambda n: json.dumps(SHAPES[shape](n)).encode())


def told(shape: str, n: int = 20_000) -> tuple[str, bool]:
    """Return what a model is told of a message, and whether it is an error."""
    used: Any = json.loads(trimmed(json.dumps(SHAPES[shape](n)).encode()))
    found = read_result(used["result"])
    return found.content, found.is_error


def test_a_model_is_told_what_was_left_out() -> None:
    """In the result itself, as for one that was not too large to be read."""
    assert told("blocks")[0] == "a\n" * MAX_BLOCKS + "[19,000 more blocks are left out]"
    data = json.dumps(numbers(20_000))
    for text, _ in (told("structured"), read_clipped(data)):
        assert text.startswith(data[: MAX_RESULT_CHARS - 100])
        assert text.endswith(" more characters]")
        shown, _, left_out = text.rpartition("… [")
        assert len(shown) + int(left_out.split()[0]) == len(data)
    for shape in ("beside a text", "meta", "meta of a block", "other fields"):
        assert told(shape) == ("a", False)
    assert told("no object") == ("ok", False)


def read_clipped(data: str) -> tuple[str, bool]:
    """Return what a model is told of a text of the same length."""
    found = read_result({"content": [{"type": "text", "text": data}]})
    return found.content, found.is_error


def test_what_is_used_stays_as_it_was() -> None:
    """A picture of megabytes, a file with its address, a link, a long text, all tools there are."""
    picture = {"type": "image", "data": "A" * 100_000, "mimeType": "image/png"}
    inner = {"uri": "a:b", "mimeType": "text/x", "text": "t" * 100_000}
    blob = {"uri": "a:c", "mimeType": "x/y", "blob": "A" * 100_000}
    blocks = [
        picture, {"type": "resource", "resource": inner}, {"type": "resource", "resource": blob},
        {"type": "resource_link", "uri": "u" * 5_000, "name": "n"}, {**A, "text": "é" * 50_000},
    ]  # fmt: skip
    message = result(content=blocks, structuredContent={"a": [1]}, isError=True)
    assert json.loads(trimmed(json.dumps(message).encode())) == message
    tools = [
        {"name": f"t{at}", "description": "d" * 3_000, "inputSchema": form(100)}
        for at in range(MAX_TOOLS)
    ]
    page = result(tools=tools, nextCursor="c" * 100)
    assert json.loads(trimmed(json.dumps(page).encode())) == page
    begun = result(protocolVersion="1", capabilities={"x": {}}, serverInfo={"name": "s" * 20_000})
    assert json.loads(trimmed(json.dumps(begun).encode())) == begun


def test_the_schemas_of_a_page_have_room_together() -> None:
    """Those that come too late take anything, as one does that is too large by itself."""
    tools = [{"name": f"t{at}", "inputSchema": form(6_000)} for at in range(20)]
    used: Any = json.loads(trimmed(json.dumps(result(tools=tools)).encode()))
    sizes = [len(one["inputSchema"].get("properties", ())) for one in used["result"]["tools"]]
    assert sizes == [6_000] * 11 + [0] * 9


def test_what_is_large_and_no_message_is_left_out() -> None:
    """A notification says nothing that is used; the rest is named, or ends with its beginning."""
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": numbers(9_000)}
    assert trimmed(json.dumps(note).encode()) == b""
    deep = b'{"id": ' + b"[" * 90_000 + b"]" * 90_000 + b"}"
    for line in (b"x" * 90_000, b"[" + b"1," * 90_000 + b"1]", deep):
        with pytest.raises(ValueError, match=r"."):
            trimmed(line)
        body = BodyTrimmer()
        assert body.feed(line) == b""
        assert (body.end(), body.end()) == (line[:SMALL_BYTES], b"")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_events_are_cut_one_by_one(end: bytes, size: int) -> None:
    """However they come in pieces. What is small, or has no end, stays as it was."""
    small = b"event: message" + end + b"id: 1" + end + b'data: {"a": 1}' + end + end
    large = json.dumps(SHAPES["meta"](6_000), indent=1).encode().splitlines()
    event = b"id: 2" + end + end.join(b"data: " + line for line in large) + end + end
    none = b"id: 3" + end + b"data: " + b"x" * 20_000 + end + end
    sent = small + event + none + small + b"data: open"
    trimmer = EventTrimmer()
    pieces = [trimmer.feed(sent[at : at + size]) for at in range(0, len(sent), size)]
    came = b"".join(pieces) + trimmer.end()
    assert came.startswith(small + b"id: 2\ndata: ")
    assert came.endswith(b"\n\nid: 3\n\n" + small + b"data: open")
    data = came.removeprefix(small + b"id: 2\n").partition(b"\n\n")[0]
    parts = [line.removeprefix(b"data: ") for line in data.splitlines()]
    assert json.loads(b"\n".join(parts)) == result(content=[A])


def test_an_event_without_end_is_handed_on() -> None:
    """Whoever reads it has a bound, and ends the stream."""
    trimmer = EventTrimmer()
    assert trimmer.feed(b"data: " + b"x" * (MAX_MESSAGE_BYTES - 6)) == b""
    assert len(trimmer.feed(b"x")) == MAX_MESSAGE_BYTES + 1
    assert trimmer.end() == b""


async def test_answers_over_http_are_cut_as_well() -> None:
    """Of one that is no message every byte stays."""
    body = json.dumps(SHAPES["structured"](9_000)).encode()
    for kind, is_cut in (("application/json; charset=utf-8", True), ("text/plain", False)):
        size = str(len(body))
        answer = answering(head(200, {"content-type": kind, "content-length": size}) + body)
        async with (
            open_watched(answer) as watched,
            open_http_client(None, Secrets.of([])) as client,
        ):
            with trio.fail_after(20):
                found = await client.get(watched.server.url)
        assert found.content == (trimmed(body) if is_cut else body)
