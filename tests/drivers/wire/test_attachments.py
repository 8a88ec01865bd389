"""Attachments as providers want them; held against the types of their own clients."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from anthropic.types import MessageParam
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseInputParam
from pydantic import TypeAdapter

from agentpool.drivers import (
    AssistantMessage,
    Attachment,
    BadRequestError,
    CompletionRequest,
    ToolCall,
    ToolMessage,
    UserMessage,
    open_anthropic,
    open_openai,
)
from agentpool.drivers.wire._attachments import check_attachments, within_request
from agentpool.drivers.wire._chat_request import ChatOptions
from agentpool.drivers.wire._chat_request import encode_request as encode_chat
from agentpool.drivers.wire._messages_request import MessageOptions
from agentpool.drivers.wire._messages_request import encode_request as encode_messages
from agentpool.drivers.wire._responses_request import ResponsesOptions
from agentpool.drivers.wire._responses_request import encode_request as encode_responses
from agentpool.testing import FakeTurn, strict_fake

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08"
PDF = b"%PDF-1.7 /Type /Page"
PHOTO, PAPER = Attachment("image/png", PNG, "a.png"), Attachment("application/pdf", PDF)
B64_PNG, B64_PDF = base64.b64encode(PNG).decode(), base64.b64encode(PDF).decode()
CALLS = (ToolCall("call_0001", "look", "{}"), ToolCall("call_0002", "read", "{}"))
REQUEST = CompletionRequest(
    [
        UserMessage("What is it?", (PHOTO, PAPER)),
        AssistantMessage("", CALLS),
        ToolMessage("call_0001", "look", "[image]", attachments=(PHOTO,)),
        ToolMessage("call_0002", "read", "text"),
        AssistantMessage("A cat."),
        UserMessage("And this?"),
        AssistantMessage("", CALLS[:1]),
        ToolMessage("call_0001", "look", "[pdf]", attachments=(PAPER,)),
    ]
)


def test_chat_completions() -> None:
    """The results are texts there; what is beside them follows the last one."""
    body = json.loads(encode_chat(REQUEST, ChatOptions(model="m")))
    messages = body["messages"]
    assert [one["role"] for one in messages] == [
        "user", "assistant", "tool", "tool", "user", "assistant", "user", "assistant", "tool",
        "user",
    ]  # fmt: skip
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{B64_PNG}"}}
    data = f"data:application/pdf;base64,{B64_PDF}"
    file = {"type": "file", "file": {"filename": "document.pdf", "file_data": data}}
    assert messages[0]["content"] == [{"type": "text", "text": "What is it?"}, image, file]
    told = {"type": "text", "text": "What the tools returned as files: look"}
    assert messages[4]["content"] == [told, image]
    assert messages[6]["content"] == "And this?"
    assert messages[9]["content"] == [told, file]
    adapter: TypeAdapter[Any] = TypeAdapter(list[ChatCompletionMessageParam])
    adapter.validate_python(messages)


async def test_a_gateway_with_the_rules_of_mistral_is_sent_documents() -> None:
    """It knows no files, and refuses what it does not know."""
    bodies: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(400, json={"message": "seen"})

    opened = open_openai(
        "m", base_url="https://gate.example/v1", api_key="sk-x", rules="mistral",
        transport=httpx.MockTransport(answer),
    )  # fmt: skip
    async with opened as driver:
        with pytest.raises(BadRequestError, match="seen"):
            await driver.complete(REQUEST)
    messages = bodies[0]["messages"]
    document = {
        "type": "document_url",
        "document_url": f"data:application/pdf;base64,{B64_PDF}",
        "document_name": "document.pdf",
    }
    assert [messages[0]["content"][-1], messages[-1]["content"][-1]] == [document, document]
    assert messages[0]["content"][1]["type"] == "image_url"


def test_responses() -> None:
    """In the query and in the results alike."""
    body = json.loads(encode_responses(REQUEST, ResponsesOptions(model="m")))
    items = body["input"]
    url = f"data:image/png;base64,{B64_PNG}"
    image = {"type": "input_image", "image_url": url, "detail": "auto"}
    data = f"data:application/pdf;base64,{B64_PDF}"
    file = {"type": "input_file", "filename": "document.pdf", "file_data": data}
    assert items[0]["content"] == [{"type": "input_text", "text": "What is it?"}, image, file]
    outputs = [one["output"] for one in items if one["type"] == "function_call_output"]
    assert outputs == [
        [{"type": "input_text", "text": "[image]"}, image],
        "text",
        [{"type": "input_text", "text": "[pdf]"}, file],
    ]
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseInputParam)
    adapter.validate_python(items)


def test_messages() -> None:
    """First what is shown, then what is asked; the mark of the cache is behind the text."""
    body = json.loads(encode_messages(REQUEST, MessageOptions(model="m")))
    messages = body["messages"]
    source = {"type": "base64", "media_type": "image/png", "data": B64_PNG}
    image = {"type": "image", "source": source}
    source = {"type": "base64", "media_type": "application/pdf", "data": B64_PDF}
    document = {"type": "document", "source": source}
    assert messages[0]["content"] == [image, document, {"type": "text", "text": "What is it?"}]
    result, plain = messages[2]["content"]
    assert result["content"] == [{"type": "text", "text": "[image]"}, image]
    assert plain["content"] == "text"
    assert messages[-1]["content"][0]["content"][1] == document
    assert messages[-1]["content"][0]["cache_control"] == {"type": "ephemeral"}
    adapter: TypeAdapter[Any] = TypeAdapter(list[MessageParam])
    adapter.validate_python(messages)


def test_what_a_model_does_not_take_is_refused() -> None:
    """With the name, and what to do. What is unknown is tried."""
    check_attachments(REQUEST, None)
    check_attachments(REQUEST, frozenset({"image", "pdf"}), most_image_bytes=len(PNG))
    with pytest.raises(BadRequestError, match=r"cannot read images, such as a\.png"):
        check_attachments(REQUEST, frozenset({"pdf"}))
    with pytest.raises(BadRequestError, match="cannot read PDF documents, such as an attachment"):
        check_attachments(REQUEST, frozenset({"image"}))
    with pytest.raises(BadRequestError, match=r"a\.png has 24 bytes.*at most 5; make it smaller"):
        check_attachments(REQUEST, None, most_image_bytes=5)


async def test_a_driver_sends_nothing_that_is_refused() -> None:
    """Neither what its model does not read, nor what is too large for its provider."""
    nowhere = "http://127.0.0.1:9/v1"
    text = frozenset({"text"})
    async with open_openai("m", base_url=nowhere, inputs=text) as driver:
        assert driver.inputs == text
        with pytest.raises(BadRequestError, match="cannot read images"):
            await driver.complete(REQUEST)
    wide = Attachment("image/png", PNG[:-4] + (8001).to_bytes(4, "big"), "wide.png")
    large = Attachment("image/png", PNG + b"\0" * 4_000_000, "large.png")
    async with open_anthropic("m", base_url=nowhere) as other:
        assert other.inputs is None
        with pytest.raises(BadRequestError, match=r"large\.png has 4,000,024 bytes"):
            await other.complete(CompletionRequest([UserMessage("?", (large,))]))
        with pytest.raises(BadRequestError, match=r"wide\.png has 8 x 8,001 pixels"):
            await other.complete(CompletionRequest([UserMessage("?", (wide,))]))


SAID = "left out: with those after it the request is larger than the provider takes"


def shots(count: int) -> CompletionRequest:
    """Return a question with two images, and a result with one for each of *count* calls."""
    messages: list[Any] = [UserMessage("Look.", (PHOTO, PHOTO))]
    for number in range(count):
        call = ToolCall(f"call_{number:04}", "look", "{}")
        result = ToolMessage(call.call_id, "look", "[image]", attachments=(PHOTO,))
        messages += [AssistantMessage("", (call,)), result]
    return CompletionRequest(messages)


def test_the_oldest_attachments_go_where_all_are_more_than_a_request() -> None:
    """A quarter at once, so that its beginning stays the same; each is told of."""
    most = 8 * len(B64_PNG)
    for count in range(16):
        request = shots(count)
        fitted = within_request(request, most)
        gone = max(0, -(-(count - 6) // 2) * 2)
        notes = [str(one).count(SAID) for one in fitted.messages]
        kept = [len(getattr(one, "attachments", ())) for one in fitted.messages]
        results = [int(number < gone - 2) for number in range(count)]
        assert (notes[0], notes[2::2]) == (min(gone, 2), results)
        assert (kept[0], kept[2::2]) == (2 - min(gone, 2), [1 - one for one in results])
        assert (fitted is request) == (gone == 0)
        assert within_request(request, None) is request
    (alone,) = within_request(CompletionRequest([UserMessage("?", (PHOTO,))]), 8).messages
    assert (alone.attachments, alone.text.count(SAID)) == ((), 1)  # type: ignore[union-attr]  # as asked


async def test_images_that_add_up_end_no_agent() -> None:
    """Claude's API takes 32 MB in all: a long run with a screenshot in each turn reached them."""
    fake = strict_fake("anthropic", [FakeTurn(text="Seen.")])
    image = Attachment("image/png", PNG + bytes(3_800_000), "shot.png")
    messages = [UserMessage(f"{number}", (image,)) for number in range(9)]
    async with open_anthropic("m", transport=fake) as driver:
        assert (await driver.complete(CompletionRequest(messages))).text == "Seen."
    (body,) = fake.requests
    assert 15_000_000 < len(str(body)) < 32_000_000
    async with httpx.AsyncClient(transport=fake) as client:
        answer = await client.post("https://x.example/v1/messages", content=bytes(32_000_001))
    assert answer.status_code == 413
    assert fake.refusals == ("Request exceeds the maximum size",)


def sized(width: int, name: str = "s.png") -> Attachment:
    """Return an image of *width*."""
    return Attachment("image/png", PNG[:-8] + width.to_bytes(4, "big") + PNG[-4:], name)


async def asked_claude(messages: list[Any]) -> list[Any]:
    """Return what Claude gets in the place of *messages*."""
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        said = {"content": [{"type": "text", "text": "Seen."}], "stop_reason": "end_turn"}
        return httpx.Response(200, json={"type": "message", "role": "assistant", **said})

    async with open_anthropic("m", transport=httpx.MockTransport(answer)) as driver:
        assert (await driver.complete(CompletionRequest(messages))).text == "Seen."
    (body,) = bodies
    return [one["content"] for one in json.loads(body)["messages"]]


def seen(*widths: int) -> list[Any]:
    """Return a run with a screenshot of each of *widths*, each beside a paper."""
    messages: list[Any] = [UserMessage("Click.")]
    for number, width in enumerate(widths):
        call = ToolCall(f"call_{number:04}", "look", "{}")
        shot = ToolMessage(call.call_id, "look", "[shot]", attachments=(PAPER, sized(width)))
        messages += [AssistantMessage("", (call,)), shot]
    return messages


@pytest.mark.parametrize(
    ("widths", "gone"),
    [
        ([2001] * 20, 0),
        ([2001] * 21, 5),
        ([2001] * 25, 5),
        ([2001] * 26, 10),
        ([2000] * 100, 0),
        ([2000] * 101, 25),
        ([2001] * 2 + [8] * 30, 2),
        ([8] * 30 + [2001], 15),
        ([8] * 130 + [2001], 115),
        ([2001] + [8] * 100, 25),
    ],
)
async def test_claude_takes_twenty_large_images_or_a_hundred(widths: list[int], gone: int) -> None:
    """A loop of screenshots of a large screen died at its 21st. The oldest go, and are told of."""
    sent = await asked_claude(seen(*widths))
    results = [one[0]["content"] for one in sent[2::2]]
    kept = [sum(part["type"] == "image" for part in one) for one in results]
    assert kept == [0] * gone + [1] * (len(widths) - gone)
    told = ["image 's.png' left out: with those after it" in str(one) for one in results]
    assert told == [not one for one in kept]
    assert all("document" in {part["type"] for part in one} for one in results)


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ([8] * 20 + [2001], r"21 images, and s\.png has 2,001 x 8 pixels; in a request with more"),
        ([8] * 101, "101 images, but the provider accepts at most 100 in one request; send fewer"),
    ],
)
async def test_a_query_with_more_images_is_not_sent(widths: list[int], says: str) -> None:
    """It was said by the user, so nothing of it is left out."""
    query = UserMessage("What is on them?", tuple(map(sized, widths)))
    with pytest.raises(BadRequestError, match=says):
        await asked_claude([query])
    assert await asked_claude([UserMessage("?", (*query.attachments[:20], PAPER))])


@pytest.mark.parametrize("said", ["", " \n"])
def test_nothing_said_beside_an_attachment_is_no_block(said: str) -> None:
    """The API refuses a text of white space. The mark for its cache stands behind the image."""
    request = CompletionRequest(
        [
            UserMessage(said, (PHOTO,)),
            AssistantMessage("", CALLS[:1]),
            ToolMessage("call_0001", "look", said, attachments=(PHOTO,)),
        ],
    )
    body = json.loads(encode_messages(request, MessageOptions(model="m", max_output_tokens=9)))
    TypeAdapter(list[MessageParam]).validate_python(body["messages"])
    asked, _, told = (one["content"] for one in body["messages"])
    assert [(one["type"], one.get("cache_control")) for one in asked] == [
        ("image", {"type": "ephemeral"})
    ]
    assert [one["type"] for one in told[0]["content"]] == ["image"]
