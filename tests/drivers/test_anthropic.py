"""The driver for the Messages API, against a server on this machine.

What it shares with the other driver over HTTP is tested there, and in test_hostile.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentpool import DriverError, PrivacyTier, Usage, UsageError
from agentpool.abc import Completion, CompletionRequest
from agentpool.drivers import (
    AuthenticationError,
    FinishReason,
    OverloadedError,
    UserMessage,
    open_anthropic,
)
from tests.support.http_servers import always, head, open_loopback, whole
from tests.support.keys import KEY

ASK = CompletionRequest([UserMessage("Hi")])
STREAMS = Path(__file__).parent / "wire" / "anthropic"
HELLO = (STREAMS / "text.sse").read_bytes()
HELLO_ANSWER = Completion(
    "Hello!", (), FinishReason.END_TURN, Usage(25, 15), "claude-sonnet-4-5-20250929"
)


async def test_an_answer() -> None:
    """The pieces as they come; key and version in the request; one connection for both."""
    async with (
        open_loopback(always(whole(HELLO))) as server,
        open_anthropic("claude", base_url=server.url, api_key=KEY) as driver,
    ):
        heard: list[str] = []
        assert await driver.complete(ASK, on_delta=heard.append) == HELLO_ANSWER
        assert heard == ["Hello", "!"]
        assert await driver.complete(ASK) == HELLO_ANSWER
        assert KEY not in repr(driver)
    assert len(server.lines) == 1
    top, _, body = server.requests[0].partition(b"\r\n\r\n")
    line, *fields = top.decode().lower().split("\r\n")
    assert line == "post /v1/messages http/1.1"
    assert f"x-api-key: {KEY}" in fields
    assert "anthropic-version: 2023-06-01" in fields
    assert json.loads(body)["stream"] is True


async def test_an_error_after_200_is_an_error() -> None:
    """And no answer, although text had come."""
    stream = (STREAMS / "error_overloaded.sse").read_bytes()
    async with (
        open_loopback(always(whole(stream))) as server,
        open_anthropic("claude", base_url=server.url) as driver,
    ):
        heard: list[str] = []
        with pytest.raises(OverloadedError, match="Overloaded"):
            await driver.complete(ASK, on_delta=heard.append)
        assert heard == ["Hel"]


@pytest.mark.parametrize(
    ("status", "kind", "name"),
    [
        (400, "invalid_request_error", "BadRequestError"),
        (401, "authentication_error", "AuthenticationError"),
        (402, "billing_error", "AuthenticationError"),
        (403, "permission_error", "AuthenticationError"),
        (404, "not_found_error", "BadRequestError"),
        (413, "request_too_large", "ContextOverflowError"),
        (429, "rate_limit_error", "RateLimitError"),
        (500, "api_error", "OverloadedError"),
        (504, "timeout_error", "NetworkError"),
        (529, "overloaded_error", "OverloadedError"),
    ],
)
async def test_every_error_of_its_page(status: int, kind: str, name: str) -> None:
    """Source: https://docs.claude.com/en/api/errors (2026-11)."""
    error = {"type": "error", "error": {"type": kind, "message": f"no, {KEY}"}, "request_id": "r"}
    body = json.dumps(error).encode()
    answer = (
        head(status, {"content-type": "application/json", "content-length": str(len(body))}) + body
    )
    async with (
        open_loopback(always(answer)) as server,
        open_anthropic("claude", base_url=server.url, api_key=KEY) as driver,
    ):
        with pytest.raises(DriverError) as caught:
            await driver.complete(ASK)
    assert type(caught.value).__name__ == name
    assert kind in str(caught.value)
    assert KEY not in str(caught.value)


async def test_headers_are_added_and_facts_are_what_was_said() -> None:
    """A beta is asked for by a header."""
    async with (
        open_loopback(always(whole(HELLO))) as server,
        open_anthropic(
            "claude",
            base_url=server.url,
            context_window=200_000,
            privacy=PrivacyTier.PRIVATE,
            price=lambda usage, model: usage.output_tokens * 0.5 if model == "claude" else None,
            headers={"anthropic-beta": "tomorrow", "anthropic-version": "2099-01-01"},
        ) as driver,
    ):
        await driver.complete(ASK)
        assert driver.context_window == 200_000
        assert driver.privacy is PrivacyTier.PRIVATE
        assert driver.price(Usage(0, 4)) == 2.0
        assert driver.price(Usage(0, 4), model="other") is None
    assert b"anthropic-beta: tomorrow" in server.requests[0].lower()
    assert b"anthropic-version: 2099-01-01" in server.requests[0].lower()


async def test_a_key_with_a_newline_is_named_and_not_shown() -> None:
    """It would be a header of its own."""
    async with open_anthropic("claude", api_key=f"{KEY}\nx: y") as driver:
        with pytest.raises((UsageError, AuthenticationError)) as caught:
            await driver.complete(ASK)
    assert KEY not in str(caught.value)
