"""The providers' own clients read the same recorded streams, and come to the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import anthropic
import openai
import pytest
import trio
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import CompletionUsage
from pydantic import ValidationError

from agentpool import Usage
from tests.drivers.wire.golden import GOLDEN, completion_of, expected_of, name_of
from tests.support.http_servers import always, open_loopback, whole
from tests.support.sdk_types import check_request

pytestmark = [
    # Their streams are generators that they do not close.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*async_generator:pytest.PytestUnraisableExceptionWarning"),
]

OURS_ALONE: Final = {
    "anthropic-cut_call": "their client drops arguments that were cut off",
    "anthropic-no_usage": "their client cannot read a message without content",
    "openai-no_index_no_id": "their client cannot read a call without an index",
    "openai-second_choice_and_unknown_fields": "their client cannot read a chunk without choices",
}
"""Streams of servers that differ from the provider's own."""

ANSWERS = [
    golden
    for golden in GOLDEN
    if "error" not in expected_of(golden) and name_of(golden) not in OURS_ALONE
]


async def asked_openai(url: str) -> tuple[str, list[tuple[str, str, str]], Usage | None]:
    """Return what OpenAI's client makes of the answer at *url*."""
    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    usage = None
    async for chunk in stream:
        if chunk.usage is not None:
            usage = chunk.usage
        state.handle_chunk(chunk)
    await client.close()
    message = state.current_completion_snapshot.choices[0].message
    calls = [
        (call.id or "", call.function.name or "", call.function.arguments or "")
        for call in message.tool_calls or ()
    ]
    text = message.content or ""
    return text, calls, None if usage is None else usage_of(usage)


def usage_of(usage: CompletionUsage) -> Usage:
    """Return the same in our words."""
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    thought = usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens
    return Usage(usage.prompt_tokens, usage.completion_tokens, cached or 0, thought or 0)


async def asked_anthropic(url: str) -> tuple[str, list[tuple[str, str, str]], Usage | None]:
    """Return what Anthropic's client makes of the answer at *url*."""
    client = anthropic.AsyncAnthropic(
        base_url=url.removesuffix("/v1"), api_key="none", max_retries=0
    )
    async with client.messages.stream(
        model="m", max_tokens=99, messages=[{"role": "user", "content": "Hi"}]
    ) as stream:
        message = await stream.get_final_message()
    await client.close()
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [
        (block.id, block.name, json.dumps(block.input))
        for block in message.content
        if block.type == "tool_use"
    ]
    usage = message.usage
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    return (
        text,
        calls,
        Usage(
            usage.input_tokens + cached + written,
            usage.output_tokens,
            cached,
            cache_write_tokens=written,
        ),
    )


ASKED: Final = {"openai": asked_openai, "anthropic": asked_anthropic}


def meant(arguments: str) -> Any:  # noqa: ANN401  # any JSON
    """Return what *arguments* mean; their text if they were cut off."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


@pytest.mark.parametrize("golden", ANSWERS, ids=name_of)
async def test_their_clients_come_to_the_same(golden: Path) -> None:
    """Text, calls and usage."""
    wanted = completion_of(expected_of(golden))
    stream = await trio.Path(golden).read_bytes()
    with trio.fail_after(60):
        async with open_loopback(always(whole(stream))) as server:
            text, calls, usage = await ASKED[golden.parent.name](server.url)
    assert text == wanted.text
    assert [(i, n, meant(a)) for i, n, a in calls] == [
        (call.call_id, call.name, meant(call.arguments)) for call in wanted.tool_calls
    ]
    assert usage == wanted.usage


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("chat", {"model": "m", "stream": True, "messages": [{"role": "tool", "content": "x"}]}),
        ("responses", {"model": "m", "stream": True, "input": [{"type": "function_call"}]}),
        ("messages", {"model": "m", "stream": True, "messages": [], "max_tokens": None}),
        (
            "messages",
            {
                "model": "m",
                "stream": True,
                "max_tokens": 1,
                "messages": [{"role": "user", "content": [{"type": "tool_result"}]}],
            },
        ),
    ],
)
def test_a_request_that_their_clients_would_not_send_is_seen(
    api: str, body: dict[str, object]
) -> None:
    """Or to hold requests against their types would prove nothing."""
    with pytest.raises(ValidationError):
        check_request(api, body)
