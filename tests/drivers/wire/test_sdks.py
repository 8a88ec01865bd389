"""The providers' own clients read the same recorded streams, and come to the same."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import anthropic
import openai
import pytest
import trio
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import CompletionUsage
from pydantic import ValidationError

from agentpool import Usage
from agentpool.testing import Quirk, open_quirk_server, quirks
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

READ_OTHERWISE: Final[Mapping[str, frozenset[str]]] = {
    "other calls": frozenset({
    "another-id-in-later-pieces", "another-id-with-each-piece",
    "arguments-once-more-at-the-end", "arguments-quoted-twice",
    "arguments-so-far-with-each-piece", "blocks-share-an-index",
    "empty-object-as-object-first", "empty-object-first",
    "half-a-character-in-arguments", "half-an-escape-in-arguments",
    "id-and-index-on-each-piece", "id-of-a-call-as-a-number", "input-as-text",
    "older-form-of-a-call",
    "response-item-done-empty", "response-items-without-a-place",
    "second-call-at-index-0-in-pieces", "shared-index",
    "shared-index-without-arguments", "shared-index-without-ids",
    }),
    "other text": frozenset({
    "call-and-text-share-an-index",
    "content-as-a-list-of-texts", "content-as-a-number", "content-as-an-object",
    "delta-without-a-type",
    "half-a-character", "half-a-character-at-a-cut", "half-a-character-before-another",
    "half-a-character-before-done", "half-a-character-ends-a-block",
    "half-a-character-in-messages", "half-a-character-in-the-last-piece",
    "half-behind-a-backslash", "null-among-the-pieces", "piece-of-type-null",
    "response-comment-not-streamed", "second-half-of-a-character-alone",
    }),
    "other usage": frozenset({
    "cached-only-in-the-total", "cached-tokens-counted-apart", "null-usage", "partial-usage",
    "reasoning-beside-completion", "reasoning-beside-without-a-total",
    "thoughts-beside-nothing", "thoughts-only-in-the-total",
    "usage-by-other-names", "usage-in-quotes", "usage-in-the-choice", "usage-in-words", "usage-nan",
    "usage-of-groq", "usage-out-of-the-world", "usage-total-alone",
    "usage-with-a-total", "usage-zero", "usage-zero-last",
    "usage-zero-last-in-messages", "zero-tokens-of-a-text",
    }),
    "an answer that is none": frozenset({
    "a-name-without-end", "a-piece-of-another-kind", "an-ending-that-nobody-knows",
    "content-filter",
    "error-in-the-choice", "finish-as-a-number", "finish-cancelled",
    "finish-content-filtered", "finish-error", "finish-insufficient-resource",
    "finish-malformed-call", "finish-null-as-a-word", "finish-safety",
    "no-finish-text", "no-stop-reason", "pause-turn", "refusal-as-an-object",
    "refusal-of-the-model", "refusal-of-the-provider", "refusal-with-its-category",
    "refusal-without-words",
    "response-completed-that-is-cancelled", "response-completed-that-is-running",
    "response-completed-that-is-unknown",
    "response-image", "response-refusal-done-alone", "response-refused",
    "response-refused-at-the-end", "silent-end-in-a-call", "stop-reason-compaction",
    "tool-calls-without",
    }),
}  # fmt: skip
"""Quirks of which the official clients make something else, without a word."""

PAGE: Final = Path(__file__).parents[3] / "docs/how-to/hold-a-client-against-servers.md"

ANSWERS = [
    golden
    for golden in GOLDEN
    if "error" not in expected_of(golden) and name_of(golden) not in OURS_ALONE
]


async def asked_openai(
    client: openai.AsyncOpenAI,
) -> tuple[str, list[tuple[str, str, str]], Usage | None]:
    """Return what OpenAI's client makes of the answer in Chat Completions."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    usage = None
    async for chunk in stream:
        if chunk.usage is not None:
            usage = chunk.usage
        state.handle_chunk(chunk)
    message = state.current_completion_snapshot.choices[0].message
    calls = [
        (call.id or "", call.function.name or "", call.function.arguments or "")
        for call in message.tool_calls or ()
    ]
    text = message.content or ""
    return text, calls, None if usage is None else usage_of(usage)


async def asked_responses(
    client: openai.AsyncOpenAI,
) -> tuple[str, list[tuple[str, str, str]], Usage | None]:
    """Return what OpenAI's client makes of the answer in Responses."""
    async with client.responses.stream(model="m", input="Hi") as stream:
        async for _ in stream:
            pass
        response = await stream.get_final_response()
    calls = [
        (one.call_id, one.name, one.arguments)
        for one in response.output
        if one.type == "function_call"
    ]
    usage = response.usage
    return (
        response.output_text,
        calls,
        None if usage is None else Usage(usage.input_tokens, usage.output_tokens),
    )


def usage_of(usage: CompletionUsage) -> Usage:
    """Return the same in our words."""
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    thought = usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens
    return Usage(usage.prompt_tokens, usage.completion_tokens, cached or 0, thought or 0)


async def asked_anthropic(
    client: anthropic.AsyncAnthropic,
) -> tuple[str, list[tuple[str, str, str]], Usage | None]:
    """Return what Anthropic's client makes of the answer."""
    async with client.messages.stream(
        model="m", max_tokens=99, messages=[{"role": "user", "content": "Hi"}]
    ) as stream:
        message = await stream.get_final_message()
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [
        (block.id, block.name, json.dumps(block.input))
        for block in message.content
        if block.type == "tool_use"
    ]
    usage = message.usage
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    an_hour = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation else 0
    return (
        text,
        calls,
        Usage(
            usage.input_tokens + cached + written,
            usage.output_tokens,
            cached,
            cache_write_tokens=written,
            cache_write_hour_tokens=an_hour,
        ),
    )


Client: TypeAlias = openai.AsyncOpenAI | anthropic.AsyncAnthropic

ASKED: Final[Mapping[str, Any]] = {
    "openai": asked_openai,
    "anthropic": asked_anthropic,
    "chat": asked_openai,
    "messages": asked_anthropic,
    "responses": asked_responses,
}


def open_theirs(api: str) -> Client:
    """Open the official client; to make one takes as long as twenty requests."""
    if api in {"anthropic", "messages"}:
        return anthropic.AsyncAnthropic(api_key="none", max_retries=0)
    return openai.AsyncOpenAI(api_key="none", max_retries=0)


def aimed(client: Client, url: str) -> Client:
    """Return *client* for another address."""
    if isinstance(client, anthropic.AsyncAnthropic):
        return client.with_options(base_url=url.removesuffix("/v1"))
    return client.with_options(base_url=url)


def meant(arguments: Any) -> Any:  # noqa: ANN401  # any JSON
    """Return what *arguments* mean; themselves if they were cut off, or are no text at all."""
    try:
        return json.loads(arguments or "{}")
    except (TypeError, ValueError):
        return arguments


@pytest.mark.parametrize("golden", ANSWERS, ids=name_of)
async def test_their_clients_come_to_the_same(golden: Path) -> None:
    """Text, calls and usage."""
    wanted = completion_of(expected_of(golden))
    stream = await trio.Path(golden).read_bytes()
    with trio.fail_after(60):
        async with open_loopback(always(whole(stream))) as server:
            client = open_theirs(golden.parent.name)
            text, calls, usage = await ASKED[golden.parent.name](aimed(client, server.url))
            await client.close()
    assert text == wanted.text
    assert [(i, n, meant(a)) for i, n, a in calls] == [
        (call.call_id, call.name, meant(call.arguments)) for call in wanted.tool_calls
    ]
    assert usage == wanted.usage


async def read_by_theirs(quirk: Quirk, client: Client) -> str:
    """Return how the official client reads *quirk*: ``right``, or ``raises``, or what is other."""
    wanted = quirk.result
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they warn of types, and go on
            text, calls, usage = await ASKED[quirk.api](client)
    except Exception:  # noqa: BLE001  # whatever it raises, it has read nothing
        return "raises"
    if wanted.error is not None:
        return "an answer that is none"
    if text != wanted.text:
        return "other text"
    ours = [(call_id, name, meant(arguments)) for call_id, name, arguments in wanted.tool_calls]
    theirs = [(call_id, name, meant(arguments)) for call_id, name, arguments in calls]
    if len(ours) != len(theirs) or any(
        one[1:] != other[1:] or (one[0] is not None and one[0] != other[0])
        for one, other in zip(ours, theirs, strict=True)
    ):
        return "other calls"
    counts = None if usage is None else (usage.input_tokens, usage.output_tokens)
    return "right" if counts == (wanted.usage and wanted.usage[:2]) else "other usage"


async def test_quirks_are_read_by_their_clients_where_they_can() -> None:
    """As we read them: where they come to something else, it is known to what."""
    found: dict[str, set[str]] = {how: set() for how in ("right", "raises", *READ_OTHERWISE)}
    clients = {api: open_theirs(api) for api in ("chat", "messages", "responses")}
    with trio.fail_after(300):
        async with open_quirk_server() as server:
            for quirk in quirks():
                client = aimed(clients[quirk.api], server.url(quirk.name))
                found[await read_by_theirs(quirk, client)].add(quirk.name)
            for client in clients.values():
                await client.close()
    right, raises = found.pop("right"), found.pop("raises")
    assert found == READ_OTHERWISE
    errors = {quirk.name for quirk in quirks() if quirk.result.error is not None}
    page = await trio.Path(PAGE).read_text()
    said = (
        f"Of {len(quirks())} quirks those of OpenAI and Anthropic read {len(right)} as they "
        f"should be read and raise at {len(raises)}, {len(raises & errors)} of which are errors; "
        f"of the other {sum(map(len, found.values()))} they make something else without a word"
    )
    assert said in page


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
