"""The door to MCP servers over HTTP, with the SDK's own server and with ones that lie."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import logging
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import attrs
import mcp_types as types
import pytest
import trio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from pydantic import ValidationError

from agentpool import AgentManifest, Capability, ToolError
from agentpool._cli._mcp_server import serve_http
from agentpool._manifest.parts import McpServerConfig, McpTransport
from agentpool.abc import Tool, ToolContext, ToolResult
from agentpool.testing._check_tool import LoneContext
from agentpool.tools import open_mcp_servers
from agentpool.tools.mcp._session import tell
from tests.support.keys import KEY

CONTEXT = ToolContext(LoneContext(), "call-1")


@attrs.define
class Desk:
    """A server over HTTP: what it was called with, and what became of it."""

    authorization: list[str | None] = attrs.field(factory=list[str | None])
    begun: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)
    closed: trio.Event = attrs.field(factory=trio.Event)
    pages: int = 1
    """How many pages of tools it says it has."""

    def build(self) -> Server[Any]:
        """Return the SDK's server."""

        async def list_tools(  # noqa: ASYNC124  # as the SDK calls it
            context: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
        ) -> types.ListToolsResult:
            names = ["echo", "hang", "huge", "many"]
            page = int((params and params.cursor) or 0)
            if self.pages > 1:
                names += [f"other-{page}-{n}" for n in range(200)]
            # A pattern that takes for ever on what `echo` returns.
            schema = {"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}}
            return types.ListToolsResult(
                tools=[
                    types.Tool(name=n, input_schema={"type": "object"}, output_schema=schema)
                    for n in names
                ],
                next_cursor=str(page + 1) if page + 1 < self.pages else None,
            )

        async def call_tool(
            context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
        ) -> types.CallToolResult:
            request = context.request
            assert request is not None
            self.authorization.append(request.headers.get("authorization"))
            if params.name == "hang":
                self.begun.set()
                try:
                    await trio.sleep_forever()
                finally:
                    self.ended.set()
            if params.name == "many":
                blocks = [types.TextContent(text="a")] * 20_000
                return types.CallToolResult(content=[*blocks])
            text = "x" * 17_000_000 if params.name == "huge" else json.dumps(params.arguments)
            return types.CallToolResult(
                content=[types.TextContent(text=text)], structured_content={"a": "a" * 40 + "!"}
            )

        return Server("desk", version="1", on_list_tools=list_tools, on_call_tool=call_tool)


@contextlib.asynccontextmanager
async def serving(desk: Desk, port: int = 0) -> AsyncGenerator[tuple[int, Callable[[], None]]]:
    """Serve *desk*; yield the port and what ends the serving."""
    listener = socket.create_server(("127.0.0.1", port))
    end = trio.Event()
    async with trio.open_nursery() as nursery:
        port = listener.getsockname()[1]

        async def serve() -> None:
            await serve_http(desk.build(), listener, wait_end=end.wait)
            desk.closed.set()

        nursery.start_soon(serve)  # noqa: ASYNC113  # the listener is open already
        yield port, end.set
        end.set()


def config(port: int, path: str = "/mcp", **more: Any) -> McpServerConfig:  # noqa: ANN401  # any of its fields
    """Return a server on this machine."""
    return McpServerConfig(
        name="desk",
        transport=McpTransport.HTTP,
        url=f"http://127.0.0.1:{port}{path}",
        capabilities=("*",),
        **more,
    )


@contextlib.asynccontextmanager
async def opened(
    server: McpServerConfig,
    **settings: Any,  # noqa: ANN401  # any of the opener's
) -> AsyncGenerator[Callable[..., Awaitable[ToolResult]]]:
    """Yield what calls the tools of *server* by their names there."""
    manifest = AgentManifest(capabilities=(Capability.mcp("desk", "*"),), mcp_servers=(server,))
    async with open_mcp_servers(**settings) as servers:
        tools: dict[str, Tool] = {
            tool.definition.name.removeprefix("mcp_desk_"): tool
            for tool in await servers.tools_for(manifest)
        }

        async def call(name: str, **arguments: object) -> ToolResult:
            return await tools[name].run(json.dumps(arguments), CONTEXT)

        yield call


async def test_calls_over_http(caplog: pytest.LogCaptureFixture) -> None:
    """With the token that the manifest names; and the server's own pattern is not tried."""
    # The SDK writes down what it is told to send, and here that is a key.
    caplog.set_level(logging.INFO, "mcp.client.streamable_http")
    caplog.set_level(logging.DEBUG, "httpcore2")  # but no header of ours
    desk = Desk()
    async with serving(desk) as (port, _):
        async with opened(config(port)) as call:
            with trio.fail_after(10):
                assert await call("echo", a=1) == ToolResult('{"a": 1}')
        environ = {**os.environ, "DESK_KEY": f" {KEY} "}
        async with opened(config(port, api_key_env="DESK_KEY"), environ=environ) as call:
            assert (await call("echo", a=KEY)).content == '{"a": "[secret]"}'
        with pytest.raises(ToolError, match="DESK_KEY is not set"):
            async with opened(config(port, api_key_env="DESK_KEY"), environ={}):
                pass
    assert desk.authorization == [None, f"Bearer {KEY}"]


async def test_a_server_that_has_tools_without_end_is_asked_for_some() -> None:
    """Their descriptions are read by a model with each request."""
    server = config
    async with serving(Desk(pages=1_000)) as (port, _), opened(server(port)) as call:
        assert (await call("other-0-0")).content == "{}"
        assert (await call("other-2-95")).content == "{}"
        with pytest.raises(KeyError):
            await call("other-2-96")


async def test_a_cancelled_call_ends_at_the_http_server() -> None:
    """And the session goes on."""
    desk = Desk()
    async with serving(desk) as (port, _), opened(config(port)) as call:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "hang")
            with trio.fail_after(10):
                await desk.begun.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(10):
            await desk.ended.wait()
        assert await call("echo") == ToolResult("{}")


async def test_a_message_that_is_too_long_is_refused() -> None:
    """Over HTTP as well; the next call is answered."""
    desk = Desk()
    async with serving(desk) as (port, _), opened(config(port)) as call:
        with pytest.raises(ToolError, match="the MCP server 'desk' "):
            await call("huge")
        assert await call("echo") == ToolResult("{}")


async def test_of_20_000_blocks_over_http_as_many_are_read_as_are_shown() -> None:
    """As over pipes; a large answer with one text is read as a whole."""
    server = config
    async with serving(Desk()) as (port, _), opened(server(port)) as call:
        with trio.fail_after(20):
            assert (await call("many")).content == "a\n" * 1_000 + (
                "[19,000 more blocks are left out]"
            )
            assert json.loads((await call("echo", a="x" * 20_000)).content) == {"a": "x" * 20_000}


async def test_an_http_server_that_goes_and_comes_back() -> None:
    """A call in between fails, and says so; the next one finds it again."""
    desk = Desk()
    async with contextlib.AsyncExitStack() as stack:
        port, end = await stack.enter_async_context(serving(desk))
        call = await stack.enter_async_context(opened(config(port)))
        assert await call("echo") == ToolResult("{}")
        end()
        with trio.fail_after(10):
            await desk.closed.wait()
        said: list[str] = []
        for _ in range(2):
            with pytest.raises(ToolError, match="the MCP server 'desk' ") as caught:
                await call("echo")
            said.append(str(caught.value))
        assert "the connection failed: ConnectError" in said[1]
        async with serving(desk, port):
            assert await call("echo") == ToolResult("{}")


@contextlib.asynccontextmanager
async def lying(answer: bytes) -> AsyncGenerator[int]:
    """Give *answer* to every request; yield the port."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, handle, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def response(status: str, body: bytes = b"", *headers: str) -> bytes:
    """Return an answer."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


DISCOVERED = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}}).encode()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (response("500 Oh", b"no"), "it answered the handshake with an error: "),
        (response("200 OK", b"{", "content-type: application/json"), "Failed to parse JSON"),
        (response("200 OK", b"hi", "content-type: text/plain"), "Unexpected content type"),
        (
            response(
                "200 OK",
                gzip.compress(DISCOVERED),
                "content-type: application/json",
                "content-encoding: gzip",
            ),
            "the connection failed: DecodingError: it packed its answer as 'gzip'",
        ),
        (
            response("200 OK", b" " * 16_777_217, "content-type: application/json"),
            "the connection failed: ReadError: it sent a message of more than 16,777,216 bytes",
        ),
        (
            response("200 OK", b"[" * 1_000_001, "content-type: application/json"),
            "ReadError: it sent a message of more than 1,000,000 objects and lists",
        ),
        pytest.param(
            response(
                "200 OK", b"data: " + b"{" * 1_200_000 + b"\n\n", "content-type: text/event-stream"
            ),
            "SSE stream ended without a response",
            marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
        ),
        pytest.param(
            response("200 OK", b"data: {oops\n\n", "content-type: text/event-stream"),
            "Failed to parse SSE message",
            # The SDK leaves its reader of events to the garbage collector.
            marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
        ),
    ],
    ids=["500", "no json", "text", "packed", "long", "many", "many in a stream", "stream"],
)
async def test_a_server_that_is_none_says_why(answer: bytes, says: str) -> None:
    """What came, in words."""
    async with lying(answer) as port:
        with trio.fail_after(20), pytest.raises(ToolError) as caught:
            async with opened(config(port)):
                pass
    assert says in str(caught.value)
    assert str(caught.value).startswith("the MCP server 'desk' could not be started: ")


def test_whatever_else_goes_wrong_is_said_as_well() -> None:
    """Also what the SDK raises of its own accord; on one line, for a model reads it."""
    with pytest.raises(ValidationError) as caught:
        types.ListToolsResult.model_validate({"tools": "none"})
    group = ExceptionGroup("", [ExceptionGroup("", [caught.value])])
    assert tell(group) == "it answered the handshake with something that is not an MCP"
    assert tell(RuntimeError("over\nand out")) == "RuntimeError: over and out"


async def test_a_redirect_to_another_host_is_not_followed() -> None:
    """A server on this machine could otherwise send a Sovereign agent's data anywhere."""
    desk = Desk()
    async with serving(desk) as (port, _):
        elsewhere = response("307 Gone", b"", f"location: http://127.0.0.1:{port}/mcp")
        async with lying(elsewhere) as first:
            with pytest.raises(ToolError, match=r"Redirect to .* not followed"):
                async with opened(config(first)):
                    pass
    assert not desk.authorization


async def test_no_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is meant for this machine would leave it."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(Desk()) as (port, _), opened(config(port)) as call:
        assert await call("echo") == ToolResult("{}")


def _quoting(key: str) -> list[bytes]:
    """Return answers that quote the key, each in another place."""
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": key}}
    events = f"event: message\ndata: {json.dumps(note)}\n\nevent: {key}\ndata: {key}\n\n".encode()
    return [
        response("200 OK", f'{{"{key}'.encode(), "content-type: application/json"),
        response("200 OK", b"", f"content-type: {key}"),
        response("307 Gone", b"", f"location: http://127.0.0.2/{key}"),
        response("200 OK", b"", "content-type: text/event-stream", f"content-encoding: {key}"),
        response("200 OK", events, "content-type: text/event-stream"),
        response("500 Oh", key.encode(), "content-type: application/json"),
    ]


@pytest.mark.parametrize("answer", _quoting(KEY), ids=map(str, itertools.count()))
async def test_a_key_that_the_server_quotes_is_in_no_log_of_the_sdk(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK writes down what it cannot read, some of it as a warning."""
    async with lying(answer) as port:
        with trio.fail_after(20), pytest.raises(ToolError):
            async with opened(config(port, api_key_env="DESK_KEY"), environ={"DESK_KEY": KEY}):
                pass
    assert KEY not in caplog.text
