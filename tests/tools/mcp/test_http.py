"""What an MCP server says over HTTP, as the SDK gets it."""

from __future__ import annotations

import traceback

import httpx2
import pytest
import trio
from trio.testing import MockClock

from agentpool._secrets import REDACTED
from agentpool.tools.mcp._http import Bounded, open_http_client
from agentpool.tools.mcp._secrets import Secrets
from tests.support.hostile_server import answering, open_watched
from tests.support.http_servers import CHUNKED, chunk, head, whole
from tests.support.keys import KEY

SECRETS = Secrets.of([KEY])
HALF = KEY[:4].encode()


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.1 {KEY}\r\n\r\n".encode(),
        head(200, {f"{KEY}\x00": "1"}),
        CHUNKED + chunk(b"one") + f"{KEY}\r\n".encode(),
    ],
    ids=["status", "header", "chunk"],
)
async def test_a_key_that_is_no_http_is_in_no_error(answer: bytes) -> None:
    """The parser quotes what it refuses, and the SDK writes errors with their tracebacks."""
    async with open_watched(answering(answer)) as watched, open_http_client(KEY, SECRETS) as client:
        with (
            trio.fail_after(20),
            pytest.raises(httpx2.RemoteProtocolError, match=r"\[secret\]") as c,
        ):
            await client.get(watched.server.url)
    assert KEY not in "".join(traceback.format_exception(c.value))


async def test_pieces_are_given_on_and_the_last_one_too() -> None:
    """A half of a key waits for the other half, and at the end for nothing."""
    pieces = [chunk(HALF), chunk(KEY[4:].encode()), chunk(b", " + HALF), chunk(b"")]
    answer = answering(CHUNKED, *pieces)
    async with open_watched(answer) as watched, open_http_client(None, SECRETS) as client:
        with trio.fail_after(20):
            found = await client.get(watched.server.url)
    assert found.content == REDACTED.encode() + b", " + HALF


async def test_headers_have_no_key() -> None:
    """The SDK writes some of them down: the type, the place of a redirect, the session."""
    answer = answering(whole(b"", location=f"http://{KEY}/"))
    async with open_watched(answer) as watched, open_http_client(None, SECRETS) as client:
        with trio.fail_after(20):
            found = await client.get(watched.server.url)
    assert found.headers["location"] == f"http://{REDACTED}/"
    assert found.headers["content-length"] == "0"


async def test_a_session_that_is_gone_is_told_by_its_status_alone() -> None:
    """A server that was started anew may say so in JSON, which would pass for an answer."""
    body = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"Session not found"}}'
    gone = head(404, {"content-length": str(len(body))}) + body
    for headers, text in (({"mcp-session-id": "7"}, b""), ({}, body)):
        async with (
            open_watched(answering(gone)) as watched,
            open_http_client(None, SECRETS) as client,
        ):
            with trio.fail_after(20):
                found = await client.post(watched.server.url, headers=headers)
        assert (found.status_code, found.content) == (404, text)


class _Counting(httpx2.AsyncBaseTransport):
    """Answers at once, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer."""
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return httpx2.Response(204, request=request)


async def test_streams_without_end_are_opened_with_gaps(autojump_clock: MockClock) -> None:
    """A server that ends each of them and says ``retry: 0`` was asked 350 times a second."""
    counting = _Counting()
    async with httpx2.AsyncClient(transport=Bounded(counting, SECRETS)) as client:
        for _ in range(10):
            await client.get("http://server/")
        assert trio.current_time() == 0
        with trio.move_on_after(100):
            while True:
                await client.get("http://server/")
        assert 200 < counting.asked <= 210
        # A pause makes up for it, and calls never wait.
        await trio.sleep(100)
        for _ in range(10):
            await client.get("http://server/")
            await client.post("http://server/")
        assert trio.current_time() == 200
