"""Images and audio are left out, and nobody is left in doubt about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import pytest

from agentpool.abc import CompletionRequest
from agentpool.drivers import BadRequestError, ChatMessage, ProtocolError, ToolMessage, UserMessage
from agentpool.drivers.wire import _chat_request, _messages_request
from agentpool.drivers.wire._chat_answer import ChatAccumulator
from agentpool.drivers.wire._chat_request import ChatOptions
from agentpool.drivers.wire._messages_request import MessageOptions
from agentpool.drivers.wire._sse import SseEvent
from agentpool.drivers.wire._text_only import refuse_media

PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]

ENCODERS: Final[Mapping[str, Callable[[CompletionRequest], bytes]]] = {
    "openai": lambda request: _chat_request.encode_request(request, ChatOptions(model="m")),
    "anthropic": lambda request: _messages_request.encode_request(
        request, MessageOptions(model="m")
    ),
}


@pytest.mark.parametrize(
    "message",
    [
        UserMessage(PICTURE),  # type: ignore[arg-type]  # that is the mistake
        ToolMessage("1", "draw", PICTURE),  # type: ignore[arg-type]  # that is the mistake
        UserMessage(b"\x89PNG"),  # type: ignore[arg-type]  # that is the mistake
        UserMessage(None),  # type: ignore[arg-type]  # that is the mistake
    ],
)
@pytest.mark.parametrize("wire", ENCODERS)
def test_a_request_with_an_image_is_refused(message: ChatMessage, wire: str) -> None:
    """Before anything is sent, and with what to do instead."""
    request = CompletionRequest([UserMessage("Look:"), message])
    with pytest.raises(BadRequestError, match="only text is supported, no images") as caught:
        ENCODERS[wire](request)
    assert not caught.value.retryable


@pytest.mark.parametrize("value", [None, [], {}, ""])
def test_a_place_for_media_that_is_empty_is_no_media(value: object) -> None:
    """Servers write it with every piece."""
    delta = {"content": "a", "audio": value, "images": value}
    accumulator = ChatAccumulator()
    chunk = {"choices": [{"delta": delta, "finish_reason": "stop"}]}
    assert accumulator.feed(SseEvent(json.dumps(chunk))) == ["a"]
    assert accumulator.finish().text == "a"


def test_what_is_refused_is_named_and_not_shown() -> None:
    """A picture in an error would be megabytes."""
    with pytest.raises(ProtocolError, match="has images") as caught:
        refuse_media("images", msgspec.Raw(b'"' + b"A" * 9999 + b'"'))
    assert "AAA" not in str(caught.value)
