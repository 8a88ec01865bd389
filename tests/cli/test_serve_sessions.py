"""The sessions of ``agentpool serve --http``: few, and no client keeps another out."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

import attrs
import httpx
import pytest
import trio

from agentpool import AgentManifest, open_pool
from agentpool._cli import _mcp_server
from agentpool._cli._arguments import parse
from agentpool._cli._command import ServeCommand
from agentpool._cli._mcp_server import PoolServer, serve_http
from agentpool._cli._mcp_tools import ProgressDesk, build_offers
from agentpool.abc import Completion, CompletionRequest, Driver
from agentpool.drivers import FunctionDriver, ScriptedDriver

pytestmark = pytest.mark.skipif(os.name != "posix", reason="served on a socket of its own")

HELLO: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}
PING: Final = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
CALL: Final = {
    "jsonrpc": "2.0",
    "id": 3,
    "method": "tools/call",
    "params": {"name": "a", "arguments": {"query": "Why?"}},
}
BOTH: Final = {"accept": "application/json, text/event-stream"}


@attrs.frozen
class Clients:
    """Clients of one server."""

    url: str
    http: httpx.AsyncClient

    async def begin(self, **headers: str) -> tuple[int, str]:
        """Begin a session; return the status and its name."""
        answer = await self.http.post(self.url, json=HELLO, headers={**BOTH, **headers})
        return answer.status_code, answer.headers.get("mcp-session-id", "")

    async def ask(self, session: str, message: object) -> tuple[int, str]:
        """Ask something in *session*; return the status and the answer."""
        headers = {**BOTH, "mcp-session-id": session}
        answer = await self.http.post(self.url, json=message, headers=headers)
        return answer.status_code, answer.text

    @contextlib.asynccontextmanager
    async def listening(self, session: str) -> AsyncGenerator[None]:
        """Hold a stream of events open."""
        headers = {"accept": "text/event-stream", "mcp-session-id": session}
        async with self.http.stream("GET", self.url, headers=headers) as answer:
            assert answer.status_code == 200
            yield


@contextlib.asynccontextmanager
async def served(
    monkeypatch: pytest.MonkeyPatch, most: int, *, idle_seconds: float = 60.0, driver: Driver
) -> AsyncGenerator[Clients]:
    """Serve agents to *most* sessions."""
    command = parse(["serve", "reader.toml"])
    assert isinstance(command, ServeCommand)
    monkeypatch.setattr(_mcp_server, "MAX_SESSIONS", most)
    monkeypatch.setattr(_mcp_server, "IDLE_SESSION_SECONDS", idle_seconds)
    ended, listener = trio.Event(), socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    async with open_pool(driver) as pool:
        offers = build_offers([AgentManifest(name="a")])
        server = PoolServer(pool, offers, ProgressDesk(), command.options)
        serve = partial(serve_http, server.build("1"), listener, wait_end=ended.wait)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery, httpx.AsyncClient(timeout=60) as client:
                nursery.start_soon(serve)  # noqa: ASYNC113  # the listener is open already
                yield Clients(url, client)
                ended.set()


async def test_streams_that_are_held_open_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session that has asked for nothing the longest makes room, and its client is told."""
    async with served(monkeypatch, 2, driver=ScriptedDriver([])) as clients:
        _, first = await clients.begin()
        _, second = await clients.begin()
        async with clients.listening(first), clients.listening(second):
            assert (await clients.ask(first, PING))[0] == 200
            status, third = await clients.begin()
            assert status == 200
            assert (await clients.ask(second, PING))[0] == 404
            assert (await clients.ask(first, PING))[0] == 200
            # One that nobody listens to goes first.
            assert (await clients.begin())[0] == 200
            assert (await clients.ask(third, PING))[0] == 404
            assert (await clients.ask(first, PING))[0] == 200


async def test_a_session_with_a_call_under_way_is_not_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is paid for is told; a session that its client has ended makes room as well."""
    asked, may_answer = trio.Event(), trio.Event()

    async def answer(_: CompletionRequest) -> Completion:
        asked.set()
        await may_answer.wait()
        return Completion("Because.")

    async with served(monkeypatch, 1, driver=FunctionDriver(answer)) as clients:
        _, first = await clients.begin()
        got: list[str] = []

        async def call() -> None:
            got.append((await clients.ask(first, CALL))[1])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await asked.wait()
            assert (await clients.begin())[0] == 503
            may_answer.set()
        assert "Because." in got[0]
        headers = {"mcp-session-id": first}
        assert (await clients.http.delete(clients.url, headers=headers)).status_code == 200
        while (await clients.begin())[0] != 200:  # noqa: ASYNC110  # nothing tells of its end
            await trio.sleep(0.05)


@pytest.mark.parametrize("header", ["origin", "host"])
async def test_a_page_of_another_site_ends_no_session(
    monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    """It is refused before anything is ended for it."""
    async with served(monkeypatch, 1, driver=ScriptedDriver([])) as clients:
        _, first = await clients.begin()
        assert (await clients.begin(**{header: "http://evil.example"}))[0] >= 400
        assert (await clients.ask(first, PING))[0] == 200


async def test_a_session_that_is_not_used_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client has hung up, and nothing else tells."""
    async with served(monkeypatch, 9, idle_seconds=0.2, driver=ScriptedDriver([])) as clients:
        _, first = await clients.begin()
        # Asking keeps it, so each look waits longer than the last one.
        wait = 0.3
        while (await clients.ask(first, PING))[0] != 404:
            await trio.sleep(wait)  # the server tells of no session's end
            wait *= 2
