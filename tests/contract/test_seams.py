"""The same check for every implementation of a seam that is here, fakes included.

An implementation that is added joins its list; nothing else here changes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

from agentpool import Capability
from agentpool.abc import Completion, Driver, Memory, Observer, Tool
from agentpool.drivers import (
    FallbackDriver,
    FunctionDriver,
    OverloadedError,
    ScriptedDriver,
    call,
    calls,
    open_openai,
)
from agentpool.memory import InMemoryMemory
from agentpool.testing import (
    EventLog,
    FaultyDriver,
    Stall,
    check_driver,
    check_memory,
    check_observer,
    check_tool,
)
from agentpool.testing._puppet import BoundWatch
from agentpool.tools import TEAM_TOOLS, file_tools, memory_tools, shell_tools, tool
from tests.support.fakes import Recorder, echo_tool, sleepy_driver

DriverOpener: TypeAlias = Callable[[], Driver | AbstractAsyncContextManager[Driver]]

ANSWER = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"hel"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


async def serve(stream: trio.SocketStream) -> None:
    """Answer every request of a connection with a streamed chat completion."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Content-Length: %d\r\n\r\n" % len(ANSWER)
    )
    async with stream:
        try:
            while request := await stream.receive_some():
                wanted = int(request.lower().partition(b"content-length: ")[2].split(b"\r")[0])
                body = request.partition(b"\r\n\r\n")[2]
                while len(body) < wanted:
                    body += await stream.receive_some()
                await stream.send_all(head + ANSWER)
        except trio.BrokenResourceError:
            return


@asynccontextmanager
async def open_real_openai() -> AsyncGenerator[Driver, None]:
    """Open the driver for OpenAI's wire format, and a server for it on this machine."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        async with open_openai("some-model", base_url=f"http://127.0.0.1:{port}/v1") as driver:
            yield driver  # noqa: ASYNC119  # a context manager
        nursery.cancel_scope.cancel()


DRIVERS: dict[str, DriverOpener] = {
    "scripted": lambda: ScriptedDriver(["one", "two", "three", "four", "five"]),
    "scripted, in pieces": lambda: ScriptedDriver(["one two three"] * 5, pieces=3),
    "scripted, with calls": lambda: ScriptedDriver(
        [calls(call("add", a=1), call("add", a=2), text="adding")] * 5
    ),
    "function": lambda: FunctionDriver(lambda _: "hello"),
    "fallback": lambda: FallbackDriver(
        ScriptedDriver([OverloadedError("busy")] * 5), ScriptedDriver(["hello"] * 5)
    ),
    "faulty": lambda: FaultyDriver([Stall(0.01, Completion("late"))] * 5),
    "live": sleepy_driver,
    "openai": open_real_openai,
}


@pytest.mark.parametrize("name", DRIVERS)
async def test_driver(name: str) -> None:
    """Facts, an answer, streaming, cancellation, two at once."""
    await check_driver(DRIVERS[name])


@pytest.mark.parametrize(
    "opener",
    [
        lambda: ScriptedDriver([]),
        lambda: open_openai("some-model", base_url="http://127.0.0.1:9/v1"),
    ],
    ids=["a script without steps", "a server that is not there"],
)
async def test_driver_fails_in_our_words(opener: DriverOpener) -> None:
    """Whatever is wrong is a DriverError."""
    await check_driver(opener, is_answered=False)


@tool
async def add(a: int, b: int) -> int:  # noqa: ASYNC124  # an opener is async
    """Add."""
    return a + b


@tool(in_thread=True)
def slow_add(a: int, b: int) -> int:
    """Add, in a thread."""
    return a + b


NOTES = memory_tools(InMemoryMemory(), "scope")
HERE = {
    one.definition.name: one
    for one in file_tools([Capability.file_read(".")], folder=Path(__file__).parent)
}
(SHELL,) = shell_tools([Capability.shell(sys.executable)], environ=os.environ)
TOOLS: dict[str, tuple[Tool, str]] = {
    "function": (add, '{"a": 1, "b": 2}'),
    "function in a thread": (slow_add, '{"a": 1, "b": 2}'),
    "remember": (NOTES[0], '{"content": "the sea"}'),
    "recall": (NOTES[1], '{"query": "sea"}'),
    "echo": (echo_tool(), "{}"),
    "send_message": (TEAM_TOOLS[0], '{"to": 2, "content": "hi"}'),
    "ask_agent": (TEAM_TOOLS[1], '{"to": 2, "question": "well?"}'),
    "wait_for_message": (TEAM_TOOLS[2], "{}"),
    "list_agents": (TEAM_TOOLS[3], "{}"),
    "file_read": (HERE["file_read"], '{"path": "test_seams.py", "limit": 1}'),
    "glob": (HERE["glob"], '{"pattern": "*.py"}'),
    "grep": (HERE["grep"], '{"pattern": "def test_"}'),
    "shell": (SHELL, json.dumps({"command": f"'{sys.executable}' --version"})),
}


@pytest.mark.parametrize("name", TOOLS)
async def test_tool(name: str) -> None:
    """Its definition, a good call, bad calls, a cancelled one."""
    made, arguments = TOOLS[name]
    await check_tool(lambda: made, arguments=arguments)


@pytest.mark.parametrize("name", ["file_write", "file_edit"])
async def test_tool_that_writes(name: str, tmp_path: Path) -> None:
    """The same, with a folder that is thrown away."""
    (tmp_path / "a").write_text("one two three")
    tools = file_tools([Capability.file_write(".")], folder=tmp_path)
    (made,) = (one for one in tools if one.definition.name == name)
    edit = {"path": "a", "old_string": "two", "new_string": "2"}
    arguments = {"path": "b", "content": "x"} if name == "file_write" else edit
    await check_tool(lambda: made, arguments=json.dumps(arguments))


MEMORIES: dict[str, Callable[[], Memory]] = {
    "in memory": InMemoryMemory,
    "in memory, bounded": lambda: InMemoryMemory(max_fragments_per_scope=100),
}


@pytest.mark.parametrize("name", MEMORIES)
async def test_memory(name: str) -> None:
    """What it keeps, finds and forgets, and that scopes stay apart."""
    await check_memory(MEMORIES[name])


OBSERVERS: list[Callable[[], Observer]] = [EventLog, Recorder, BoundWatch]


@pytest.mark.parametrize("opener", OBSERVERS)
async def test_observer(opener: Callable[[], Observer]) -> None:
    """Every kind of event, at once."""
    await check_observer(opener)
