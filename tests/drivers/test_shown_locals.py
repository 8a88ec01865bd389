"""What a traceback shows that prints the locals of every frame, as rich and pytest can."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import pytest

from agentpool import DriverError
from agentpool.abc import CompletionRequest, Driver
from agentpool.drivers import UserMessage, open_anthropic, open_openai
from tests.support.hostile_server import answering, open_watched, resetting
from tests.support.http_servers import head, whole
from tests.support.keys import KEY, find_key

WIRES: Final[dict[str, Callable[..., AbstractAsyncContextManager[Driver]]]] = {
    "openai": open_openai,
    "anthropic": open_anthropic,
}
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
    "quotes it in a type": answering(whole(b"no", content_type=f"text/{KEY}")),
}
ASK: Final = CompletionRequest([UserMessage("Hi")])


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
    shown = traceback.TracebackException.from_exception(
        caught.value.with_traceback(below), capture_locals=True
    )
    told = "".join(shown.format())
    assert "stream_completion" in told
    assert find_key(told) is None
