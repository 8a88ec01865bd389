"""What a traceback shows that prints the locals of every frame, as rich and pytest can."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final

import pytest

from agentpool import DriverError
from agentpool.abc import CompletionRequest, Driver
from agentpool.drivers import BadRequestError, UserMessage, open_anthropic, open_openai
from agentpool.drivers._http import open_http
from tests.support.hostile_server import answering, open_watched, resetting
from tests.support.http_servers import head, whole
from tests.support.keys import KEY, find_key

WIRES: Final[dict[str, Callable[..., AbstractAsyncContextManager[Driver]]]] = {
    "openai": open_openai,
    "anthropic": open_anthropic,
}
ESCAPED: Final = KEY.replace("-", "\\u002d")
"""As JSON may have it; whoever reads it has the key."""


def stream(data: str) -> bytes:
    """Return an answer with one event, and no end."""
    return whole(f"data: {data}\n\n".encode(), content_type="text/event-stream")


ANSWERS: Final = {
    "refuses the key": answering(whole(b"{}", status=401, content_type="application/json")),
    "speaks no HTTP": answering(b"220 ready\r\n\r\n"),
    "packs its answer": answering(whole(b"", content_encoding="br")),
    "cuts its answer": answering(head(200, {"content-length": "100"})),
    "hangs up": resetting(b""),
    "quotes the key": answering(
        whole(f'{{"error":{{"message":"{KEY} is wrong"}}}}'.encode(), status=401)
    ),
    "quotes it in a place": answering(head(302, {"location": f"/{KEY}", "content-length": "0"})),
    "quotes it in escapes": answering(
        whole(f'{{"error":{{"message":"{ESCAPED}"}}}}'.encode(), status=400)
    ),
    "quotes it in an encoding": answering(whole(b"{}", content_encoding=KEY)),
    "quotes it in an error event": answering(stream(f'{{"error":{{"message":"{ESCAPED}"}}}}')),
    "quotes it in an event": answering(stream(KEY)),
    "quotes it in a chunk": answering(
        stream(f'{{"choices":[{{"delta":{{"tool_calls":"{KEY}"}}}}]}}')
    ),
    "quotes it in its type of event": answering(stream(f'{{"type":"error","error":"{KEY}"}}')),
    "quotes it in no stream": answering(
        whole(f'{{"id":"{KEY}","choices":5}}'.encode(), content_type="application/json")
    ),
    "quotes it in a type": answering(whole(b"no", content_type=f"text/{KEY}")),
}
ASK: Final = CompletionRequest([UserMessage("Hi")])


def format_with_locals(error: BaseException, below: TracebackType | None) -> str:
    """Return what is shown of *error* from the frame *below*."""
    shown = traceback.TracebackException.from_exception(
        error.with_traceback(below), capture_locals=True
    )
    return "".join(shown.format())


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("answer", ANSWERS)
async def test_no_local_of_a_failed_request_shows_the_key(wire: str, answer: str) -> None:
    """Nor one of a frame between the caller and the connection."""
    async with (
        open_watched(ANSWERS[answer]) as watched,
        WIRES[wire]("m", api_key=KEY, base_url=watched.server.url) as driver,
    ):
        with pytest.raises(DriverError) as caught:
            await driver.complete(ASK)
    below = caught.tb.tb_next  # the test itself holds what the server was sent
    told = format_with_locals(caught.value, below)
    assert "stream_completion" in told
    assert find_key(told) is None


async def test_what_the_caller_was_at_is_left_to_look_at() -> None:
    """Only frames of the request are emptied: also if it is made while an error is handled."""

    def fail(found: str) -> None:
        raise ValueError(found[:5])

    async def ask(driver: Driver) -> None:
        try:
            fail("what I look for")
        except ValueError:
            await driver.complete(ASK)

    async with (
        open_watched(ANSWERS["quotes it in an event"]) as watched,
        open_openai("m", api_key=KEY, base_url=watched.server.url) as driver,
    ):
        with pytest.raises(DriverError) as caught:
            await ask(driver)
    told = format_with_locals(caught.value, caught.tb)
    assert "found = 'what I look for'" in told
    assert "request = CompletionRequest(" in told


async def test_no_local_of_a_request_that_cannot_be_sent_shows_the_key() -> None:
    """It fails where its head is built, with all headers at hand."""
    key = {"authorization": f"Bearer {KEY}"}
    async with open_http("http://127.0.0.1:9", headers=key) as client:
        with pytest.raises(BadRequestError) as caught:
            async with client.post_stream("/a b", b""):
                pass
    told = format_with_locals(caught.value, caught.tb.tb_next)
    assert "headers = [(b'host', " in told
    assert find_key(told) is None
