"""What stands between a server and the SDK, as the SDK uses it."""

from __future__ import annotations

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, JSONRPCResponse

from agentpool.tools.mcp._message_lines import Incoming
from agentpool.tools.mcp._repaired_messages import (
    MAX_UNANSWERED,
    Faults,
    mend_streams,
    mend_tools,
)
from agentpool.tools.mcp._trimmed import MAX_TOOLS


async def test_errors_of_a_line_are_handed_on_and_both_ends_close() -> None:
    """The SDK may receive one by one, and closes what it was given."""
    into, arriving = anyio.create_memory_object_stream[Incoming](4)
    leaving, sent = anyio.create_memory_object_stream[SessionMessage](4)
    error = ValueError("no message")
    into.send_nowait(error)
    into.send_nowait(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=1, result={"tools": 5})))
    faults: Faults = {}
    reader, writer = mend_streams((arriving, leaving), faults, print)
    assert await reader.receive() is error
    answer = await reader.receive()
    assert isinstance(answer, SessionMessage)
    assert isinstance(answer.message, JSONRPCResponse)
    # What is no list of tools is for the SDK to refuse.
    assert (answer.message.result, faults) == ({"tools": 5}, {})
    await reader.aclose()
    await writer.aclose()
    assert into.statistics().open_receive_streams == leaving.statistics().open_send_streams == 0
    for end in (into, sent):
        await end.aclose()


async def test_questions_are_answered_for_ever_one_by_one() -> None:
    """Those that were answered do not count."""
    into, arriving = anyio.create_memory_object_stream[Incoming](1)
    leaving, sent = anyio.create_memory_object_stream[SessionMessage](1)
    said: list[str] = []
    reader, writer = mend_streams((arriving, leaving), {}, said.append)
    async with into, sent, reader, writer:
        for number in range(2 * MAX_UNANSWERED):
            ask = JSONRPCRequest(jsonrpc="2.0", id=number, method="ping")
            into.send_nowait(SessionMessage(ask))
            await reader.receive()
            answer = JSONRPCResponse(jsonrpc="2.0", id=number, result={})
            await writer.send(SessionMessage(answer))
            sent.receive_nowait()
    assert not said


def test_of_20_000_tools_as_many_are_looked_at_as_are_kept() -> None:
    """Each is checked by the SDK's own rules, and 20,000 of them stood still for seconds."""
    faulty: dict[str, object] = {"name": 5}
    good: dict[str, object] = {"name": "look", "inputSchema": {"type": "object"}}
    faults: Faults = {}
    result: dict[str, object] = {"tools": [good] * (MAX_TOOLS - 1) + [faulty] * 20_000}
    mend_tools(result, faults)
    assert result["tools"] == [good] * (MAX_TOOLS - 1)
    assert list(faults) == [f"number {MAX_TOOLS}"]


def test_a_schema_of_megabytes_is_not_looked_at() -> None:
    """It is left out in the end: 200,000 values of an enumeration stood still for a second."""
    values = [[place] for place in range(100_000)]
    schema: dict[str, object] = {"type": "object", "properties": {"x": {"enum": values}}}
    result: dict[str, object] = {"tools": [{"name": "a", "inputSchema": schema}]}
    mend_tools(result, {})
    assert result["tools"] == [{"name": "a", "inputSchema": {"type": "object"}}]
