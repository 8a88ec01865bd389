"""A loop of tools with every strict fake, by the manifest that a user would write."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Self, get_args

import attrs
import httpx
import pytest
import trio

from agentpool import (
    AgentHandle,
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    ModelConfig,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.abc import ToolContext, ToolResult
from agentpool.drivers import (
    AnswerForm,
    AssistantMessage,
    Attachment,
    BadRequestError,
    ChatMessage,
    CompletionRequest,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    open_anthropic,
    open_driver,
    open_openai,
)
from agentpool.testing import FakeTurn, StrictFake, open_strict_server, strict_fake
from agentpool.testing._strict import StrictName
from agentpool.tools import Tool, ToolRegistry, tool
from tests.support.sdk_types import check_request

KEYS: Final = {
    "openai": "OPENAI_API_KEY",
    "openai-chat": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "moonshot": "MOONSHOT_API_KEY",
}

ENVIRON: Final = dict.fromkeys(KEYS.values(), "a-key-of-nobody")

TURNS: Final = (
    FakeTurn(calls=[("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})]),
    FakeTurn(text="Now both.", calls=[("add", {"a": 3, "b": 7}), ("add", {"a": 10, "b": 0})]),
    FakeTurn(text="Now slowly.", calls=[("slow", {})]),
    FakeTurn(calls=[("slow", {})]),  # by whoever has half of the answer before
    FakeTurn(text='{"points": 10, "words": ["ten"]}'),
)


@attrs.frozen
class Score:
    """What the model has to answer with."""

    points: int
    words: list[str]
    remark: str = ""


@tool
async def add(a: int, b: int = 0) -> int:
    """Add two numbers.

    Args:
        a: One.
        b: The other.
    """
    await trio.lowlevel.checkpoint()
    return a + b


def slow(started: trio.Event) -> Tool:
    """Return a tool that waits the first time that it is called."""

    @tool(name="slow")
    async def wait() -> str:
        """Wait."""
        if not started.is_set():
            started.set()
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return "done"

    return wait


def manifest_of(name: str, *more: str) -> AgentManifest:
    """Return what a user would write: where the model is, and what it is called."""
    provider, _, api = name.partition("-")
    lines = [f'api = "{api}"', *more] if api else [*more]
    lines += [f'provider = "{provider}"', 'remote_model = "a-model"']
    return AgentManifest.parse("\n".join(['privacy = "Standard"', "[model]", *lines]))


@attrs.define(eq=False)
class Halting(httpx.AsyncBaseTransport, httpx.AsyncByteStream, AsyncIterator[bytes]):
    """Stops in the middle of one answer of a fake, and waits for ever."""

    fake: StrictFake
    answer: int
    """Which one, from 1."""
    pieces: int
    """How many pieces of it come."""
    halted: trio.Event = attrs.field(factory=trio.Event)
    _coming: list[bytes] = attrs.field(factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as the fake does, or the half of it."""
        response = await self.fake.handle_async_request(request)
        if len(self.fake.requests) != self.answer:
            return response
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._coming = [piece async for piece in response.stream][: self.pieces]
        return httpx.Response(response.status_code, headers=response.headers, stream=self)

    def __aiter__(self) -> Self:
        """Yield some of it."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece, and never one after the last."""
        if self._coming:
            return self._coming.pop(0)
        self.halted.set()
        await trio.sleep_forever()
        raise AssertionError


async def tell_of_end(handle: AgentHandle, happens: trio.Event) -> None:
    """Let nobody wait for what does not happen: the agent was refused."""
    await handle.wait()
    happens.set()


async def loop_with(manifest: AgentManifest, fake: StrictFake, pieces: int) -> AgentOutcome:
    """Run the loop; cancel its third request, then a tool, and go on with what was said."""
    started = trio.Event()
    halting = Halting(fake, 3, pieces)
    async with open_driver(manifest.model, environ=ENVIRON, transport=halting) as driver:
        tools = ToolRegistry([add, slow(started)])
        async with open_pool(driver, tools=tools) as pool:
            said: tuple[ChatMessage, ...] = ()
            for query, happens in (("Add up.", halting.halted), ("Go on.", started)):
                config = SpawnConfig(manifest, query, output_type=Score, history=said)
                handle = await pool.spawn(config)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(tell_of_end, handle, happens)
                    await happens.wait()
                    handle.cancel("enough")
                said = (await handle.wait()).messages
            config = SpawnConfig(manifest, "Go on.", output_type=Score, history=said)
            return await (await pool.spawn(config)).wait()


@pytest.mark.parametrize("pieces", [1, 2, 4])
@pytest.mark.parametrize("name", get_args(StrictName))
async def test_a_loop_of_tools_gets_through(name: StrictName, pieces: int) -> None:
    """Parallel calls, a request and a tool that are cancelled, and structured output.

    The request is cancelled before a thought, before a word, and in the middle of a word.
    """
    fake = strict_fake(name, TURNS)
    with trio.fail_after(30):
        outcome = await loop_with(manifest_of(name), fake, pieces)
    assert fake.refusals == ()
    assert outcome.status is AgentStatus.COMPLETED, outcome.error
    assert outcome.value == Score(10, ["ten"])
    assert len(fake.requests) in {5, 6}
    api = {"openai": "responses", "anthropic": "messages"}.get(name, "chat")
    for body in fake.requests:
        check_request(api, body)
    assert outcome.usage.input_tokens in {100, 200}


@pytest.mark.parametrize("name", ["deepseek", "gemini", "groq", "mistral", "moonshot"])
async def test_a_loop_gets_through_behind_a_gateway(name: StrictName) -> None:
    """The manifest names the provider: its rules hold at any address."""
    elsewhere = ('base_url = "https://gateway.example/v1"', 'api_key_env = "MISTRAL_API_KEY"')
    fake = strict_fake(name, TURNS)
    with trio.fail_after(30):
        outcome = await loop_with(manifest_of(name, *elsewhere), fake, 4)
    assert fake.refusals == ()
    assert outcome.value == Score(10, ["ten"]), outcome.error


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "google/gemini-2.0-flash"])
async def test_an_older_gemini_is_told_the_form_beside_tools(model: str) -> None:
    """It takes the one or the other; without tools it gets the form itself."""
    config = ModelConfig(remote_model=model, provider="gemini")
    fake = strict_fake("gemini", TURNS[-1:])
    form = AnswerForm("Score", {"type": "object", "properties": {}})
    tools = (ODATA,)
    async with open_driver(config, environ=ENVIRON, transport=fake) as driver:
        for given in (tools, ()):
            await driver.complete(
                CompletionRequest([UserMessage("Hi")], "", given, answer_form=form)
            )
    assert fake.refusals == ()
    beside, alone = fake.requests
    assert "JSON of this schema" in str(beside["messages"])
    assert "response_format" in alone


OLDER_CLAUDES: Final = ("opus-4-5-20251101", "sonnet-4-5", "opus-4-1", "sonnet-4-20250514")


@pytest.mark.parametrize("model", OLDER_CLAUDES)
@pytest.mark.parametrize("options", ["", "thinking = {type = 'enabled', budget_tokens = 4096}"])
async def test_an_effort_is_a_budget_at_an_older_claude(model: str, options: str) -> None:
    """It refuses what newer ones want; the agent that was to think much gets its answer."""
    text = f"""
        privacy = "Standard"
        [model]
        provider = "anthropic"
        remote_model = "claude-{model}"
        reasoning_effort = "high"
        max_tokens = 20000
        [model.options]
        {options}
    """
    manifest = AgentManifest.parse(text)
    fake = strict_fake("anthropic", [FakeTurn(text="Yes.")])
    async with (
        open_driver(manifest.model, environ=ENVIRON, transport=fake) as driver,
        open_pool(driver) as pool,
    ):
        outcome = await (await pool.spawn(SpawnConfig(manifest, "Hello?"))).wait()
    assert (outcome.text, fake.refusals) == ("Yes.", ()), outcome.error
    budget = 4096 if options else 10_000
    assert fake.requests[0]["thinking"] == {"type": "enabled", "budget_tokens": budget}


ODD: Final = AssistantMessage(
    "",
    (
        ToolCall("x" * 70, "add", '{"a": tr'),
        ToolCall("functions.add:0", "add", '{"a": 1}'),
        ToolCall("functions.add:0", "add", '{"a": 2}'),
        ToolCall("add-0", "add", '{"a": 3}'),
        ToolCall("add-0", "add", '{"a": 4}'),
    ),
)
"""What some model might have said: ids that few take or that are there twice, and arguments that
are none."""


async def said_by(first: StrictName) -> tuple[StrictFake, list[ChatMessage]]:
    """Return a fake, and a conversation with it."""
    fake = strict_fake(first, TURNS)
    said: list[ChatMessage] = [UserMessage("Add up.")]
    async with open_driver(manifest_of(first).model, environ=ENVIRON, transport=fake) as driver:
        for _ in range(2):
            answer = await driver.complete(CompletionRequest(said))
            said.append(AssistantMessage(answer.text, answer.tool_calls, answer.parts))
            said += [ToolMessage(call.call_id, call.name, "3") for call in answer.tool_calls]
    return fake, said


@pytest.mark.parametrize("name", get_args(StrictName))
async def test_a_session_goes_on_at(name: StrictName) -> None:
    """Calls, results and thoughts of every other model are told to it as it takes them."""
    for first in get_args(StrictName):
        fake, said = await said_by(first)
        if first != name:
            fake = strict_fake(name, [FakeTurn(text="Yes.")])
        said.append(ODD)
        said += [ToolMessage(call.call_id, call.name, "3") for call in ODD.tool_calls]
        said += [AssistantMessage(" "), AssistantMessage("Well,"), UserMessage("Go on.")]
        async with open_driver(manifest_of(name).model, environ=ENVIRON, transport=fake) as driver:
            await driver.complete(CompletionRequest(said))
        assert fake.refusals == ()


ODATA: Final = ToolDefinition(
    "list",
    "List.",
    {
        "type": "object",
        "properties": {"$filter": {"type": "string"}, "a[b]": {}, "path": {}},
        "required": ["$filter", "path"],
        "additionalProperties": False,
    },
)


@pytest.mark.parametrize("name", ["anthropic", "openai"])
async def test_arguments_may_have_any_name(name: StrictName) -> None:
    """Those of an MCP server for OData begin with a dollar sign: the agent lives, and calls it."""
    given: list[str] = []

    class Listing(Tool):
        @property
        def definition(self) -> ToolDefinition:
            return ODATA

        async def run(self, arguments: str, context: ToolContext) -> ToolResult:  # noqa: ARG002  # as declared
            await trio.lowlevel.checkpoint()
            given.append(arguments)
            return ToolResult("none")

    turns = [FakeTurn(calls=[("list", {"$filter": "x", "path": "y"})]), FakeTurn(text="Done.")]
    fake = strict_fake(name, turns)
    manifest = manifest_of(name)
    async with (
        open_driver(manifest.model, environ=ENVIRON, transport=fake) as driver,
        open_pool(driver, tools=ToolRegistry([Listing()])) as pool,
    ):
        outcome = await (await pool.spawn(SpawnConfig(manifest, "List."))).wait()
    assert (outcome.text, fake.refusals) == ("Done.", ()), outcome.error
    assert [json.loads(one) for one in given] == [{"$filter": "x", "path": "y"}]
    assert all(word in str(fake.requests[0]) for word in ("$filter", "a[b]"))


@pytest.mark.parametrize("cache", ["true", "false"])
async def test_a_users_cache_mark_is_none_too_many(cache: str) -> None:
    """Four marks are all that the API takes; the user's says how long they hold."""
    options = 'options = {cache_control = {type = "ephemeral", ttl = "1h"}}'
    manifest = manifest_of("anthropic", f"cache = {cache}", options)
    fake = strict_fake("anthropic", TURNS[:2] + TURNS[-1:])
    async with (
        open_driver(manifest.model, environ=ENVIRON, transport=fake) as driver,
        open_pool(driver, tools=ToolRegistry([add])) as pool,
    ):
        outcome = await (await pool.spawn(SpawnConfig(manifest, "Add."))).wait()
    assert (outcome.status, fake.refusals) == (AgentStatus.COMPLETED, ()), outcome.error
    marks = re.findall(r"'cache_control': ({.*?})", str(fake.requests[-1]))
    assert marks == ["{'type': 'ephemeral', 'ttl': '1h'}"] * (4 if cache == "true" else 1)


async def test_an_image_is_not_sent_to_a_model_without_eyes() -> None:
    """Where it is known that it has none."""
    fake = strict_fake("deepseek", [FakeTurn(text="Yes.")])
    image = Attachment("image/png", b"\x89PNG\r\n\x1a\n" + bytes(20))
    model = ModelConfig(remote_model="deepseek-chat", provider="deepseek")
    async with open_driver(model, environ=ENVIRON, transport=fake) as driver:
        with pytest.raises(BadRequestError, match="cannot read images"):
            await driver.complete(CompletionRequest([UserMessage("Look.", (image,))]))
    assert fake.requests == ()


# --- the rules, one by one


def anthropic_said(*blocks: object, then: object = None) -> list[object]:
    """Return a conversation in which the model said *blocks*."""
    said: list[object] = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": blocks},
    ]
    return [*said, {"role": "user", "content": then}] if then is not None else said


def use(name: str = "a") -> dict[str, object]:
    """Return a call in Anthropic's form."""
    return {"type": "tool_use", "id": name, "name": "add", "input": {}}


def result(name: str = "a") -> dict[str, object]:
    """Return a result in Anthropic's form."""
    return {"type": "tool_result", "tool_use_id": name, "content": "3"}


def called(*ids: str, name: str = "add", **more: object) -> dict[str, object]:
    """Return calls in Chat Completions."""
    calls = [
        {"id": one, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for one in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls, **more}


def returned(name: str = "a") -> dict[str, object]:
    """Return a result in Chat Completions."""
    return {"role": "tool", "tool_call_id": name, "content": "3"}


HI: Final[dict[str, object]] = {"role": "user", "content": "Hi"}
CALL: Final[dict[str, object]] = {
    "type": "function_call",
    "call_id": "a",
    "name": "add",
    "arguments": "{}",
}
OUTPUT: Final = {"type": "function_call_output", "call_id": "a", "output": "3"}
TOOLS: Final = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
MANUAL: Final = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 2048,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
}
LOOSE: Final = {"type": "object", "properties": {"a": {"type": "integer"}}}
OPEN_LIST: Final = {
    "type": "object",
    "properties": {"a": {"type": "array", "items": {"type": "object"}}},
    "required": ["a"],
    "additionalProperties": False,
}
BROKEN: Final = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "a", "function": {"name": "add", "arguments": '{"a": tr'}}],
}

REFUSED: Final[list[tuple[StrictName, dict[str, object], str]]] = [
    ("openai", {"temperature": 1}, "'temperature' is not supported"),
    ("openai", {"stop": ["x"]}, "stop: Extra inputs"),
    ("openai", {"store": True}, "store must be false"),
    ("openai", {"previous_response_id": "r"}, "Previous response not found"),
    ("openai", {"input": [{"type": "reasoning", "id": "rs"}, HI]}, "Item with id 'rs' not found"),
    ("openai", {"input": [{"type": "item_reference", "id": "x"}]}, "Item with id 'x' not found"),
    ("openai", {"input": []}, "must be provided"),
    ("openai", {"input": [{"type": "call"}]}, "Invalid value: 'call'"),
    ("openai", {"input": [{"role": "tool", "content": "x"}]}, "Invalid value: 'tool'"),
    (
        "openai",
        {"input": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "Invalid value: 'image_url'",
    ),
    (
        "openai",
        {"input": [{"role": "assistant", "content": [{"type": "input_image"}]}]},
        "Supported values are: 'output_text', 'refusal'",
    ),
    ("openai", {"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "invalid_encrypted"),
    # The fake itself has made a call of that id.
    (
        "openai",
        {"input": [HI, {**CALL, "call_id": "call_10"}, {**OUTPUT, "call_id": "call_10"}]},
        "without its required 'reasoning' item",
    ),
    ("openai", {"input": [{"type": "reasoning"}, HI]}, "without its required following item"),
    ("openai", {"input": [{"role": "assistant", "type": "message"}, CALL]}, "No tool output found"),
    ("openai", {"input": [OUTPUT]}, "No tool call found"),
    ("openai", {"input": [{**CALL, "call_id": "x" * 65}]}, "must be 1 to 64 characters"),
    ("openai", {"input": [CALL, CALL]}, "found 'a' twice"),
    ("openai", {"tools": [{"name": "add", "parameters": LOOSE}]}, "additionalProperties"),
    (
        "openai",
        {"text": {"format": {"strict": True, "schema": {**LOOSE, "additionalProperties": False}}}},
        "include every key",
    ),
    ("openai", {"text": {"format": {"strict": True, "schema": OPEN_LIST}}}, "additionalProperties"),
    ("openai", {"input": [HI, {**CALL, "name": "a.b"}, OUTPUT]}, "Invalid name of a tool: 'a.b'"),
    ("openai-chat", {"tools": [{"function": {"name": "x" * 65}}]}, "Invalid name of a tool"),
    ("mistral", {"messages": [HI, called("a" * 9, name="a b"), returned("a" * 9)]}, "'a b'"),
    ("anthropic", {"tools": [{"name": "", "input_schema": {}}]}, "Invalid name of a tool: ''"),
    ("openai-chat", {"max_tokens": 9}, "Use 'max_completion_tokens'"),
    ("openai-chat", {"tools": TOOLS, "reasoning_effort": "low"}, "use /v1/responses"),
    ("openai-chat", {"top_p": 1}, "'top_p' is not supported"),
    ("openai-chat", {"model": "gpt-5-mini", "stop": ["x"]}, "'stop' is not supported"),
    ("openai-chat", {"stream": False, "stream_options": {}}, "when `stream=True`"),
    ("openai-chat", {"messages": []}, "empty array"),
    ("openai-chat", {"messages": [{"role": "robot", "content": "x"}]}, "Invalid value: 'robot'"),
    (
        "openai-chat",
        {"messages": [HI, called("a"), {**returned(), "content": [{"type": "image_url"}]}]},
        "only allowed for messages with role 'user'",
    ),
    (
        "openai-chat",
        {"tools": [{"function": {"name": "add", "strict": True, "parameters": LOOSE}}]},
        "additionalProperties",
    ),
    ("openai-chat", {"messages": [called("x" * 41), returned("x" * 41)]}, "1 to 40 characters"),
    ("openai-chat", {"messages": [called("a")]}, "did not have response messages"),
    ("openai-chat", {"messages": [called("a"), HI]}, "did not have response messages: a"),
    ("openai-chat", {"messages": [returned()]}, "'a' was not called"),
    ("openai-chat", {"messages": [HI, {"role": "system", "content": "x"}]}, "at the beginning"),
    ("anthropic", {"max_tokens": None}, "max_tokens: Field required"),
    ("anthropic", {"top_k": 1}, "'top_k' is not supported"),
    ("anthropic", {"seed": 1}, "seed: Extra inputs"),
    ("anthropic", {"messages": []}, "must use the user role"),
    ("anthropic", {"messages": [{"role": "user", "content": []}]}, "non-empty content"),
    (
        "anthropic",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]},
        "non-whitespace",
    ),
    ("anthropic", {"messages": anthropic_said(use())}, "without `tool_result`"),
    ("anthropic", {"messages": anthropic_said(use(), then=[result("b")])}, "without `tool_result`"),
    (
        "anthropic",
        {"messages": anthropic_said(use(), then=[{"type": "text", "text": "x"}, result()])},
        "must come first",
    ),
    (
        "anthropic",
        {"messages": anthropic_said({"type": "thinking", "signature": "x"})},
        "Invalid `signature`",
    ),
    (
        "anthropic",
        {"messages": anthropic_said(use(), then=[result()]), **MANUAL},
        "Expected `thinking`",
    ),
    # The fake itself has made a call of that id, and has thought before it.
    (
        "anthropic",
        {"messages": anthropic_said(use("toolu_10"), then=[result("toolu_10")])},
        "Expected `thinking`",
    ),
    (
        "anthropic",
        {"messages": anthropic_said(use("a"), use("a"), then=[result("a")])},
        "found 'a' twice",
    ),
    (
        "anthropic",
        {"messages": anthropic_said(use("a.b"), then=[result("a.b")])},
        "must be letters",
    ),
    (
        "anthropic",
        {"messages": anthropic_said({"type": "text", "text": "{"})},
        "does not support assistant message prefill",
    ),
    ("anthropic", {"system": [{"cache_control": 1}] * 5}, "A maximum of 4 blocks"),
    ("anthropic", {"thinking": {"type": "disabled"}}, "thinking.type.disabled"),
    (
        "anthropic",
        {"tools": [{"name": "add", "input_schema": {"properties": {"$filter": {}}}}]},
        "tools.0.custom.input_schema.properties: Property keys should match",
    ),
    (
        "anthropic",
        {"model": "claude-haiku-4-5-20251001", "thinking": {"type": "adaptive"}},
        "adaptive thinking is not supported",
    ),
    (
        "anthropic",
        {"model": "claude-sonnet-4-20250514", "output_config": {"effort": "low"}},
        "does not support the effort",
    ),
    ("anthropic", {"tool_choice": {"type": "any"}}, "forces tool use"),
    (
        "anthropic",
        {"tools": [{"name": "a", "input_schema": {"type": "object"}}] * 2},
        "must be unique",
    ),
    ("anthropic", {"tools": [{"name": "a", "input_schema": {}}]}, "input_schema.type"),
    ("anthropic", {"output_config": {"effort": "much"}}, "output_config.effort"),
    ("anthropic", {"messages": [HI, {"role": "tool", "content": "x"}]}, "messages.1.role"),
    (
        "anthropic",
        {"messages": [HI, {"role": "assistant", "content": [{"type": "image"}]}, HI]},
        "only allowed in user messages",
    ),
    (
        "anthropic",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/bmp"}}
                    ],
                }
            ]
        },
        "source.media_type",
    ),
    ("gemini", {"messages": [called("a"), returned()]}, "missing a thought_signature: add"),
    (
        "gemini",
        {"model": "gemini-2.5-pro", "tools": TOOLS, "response_format": {"type": "json_object"}},
        "with a response mime type: 'application/json' is unsupported",
    ),
    (
        "groq",
        {"tools": TOOLS, "response_format": {"type": "json_schema"}},
        "json mode cannot be combined with tool/function calling",
    ),
    (
        "groq",
        {"messages": [HI, called("a", reasoning_content="x"), returned()]},
        "messages.1.reasoning_content: Extra inputs",
    ),
    ("deepseek", {"messages": [HI, called("a"), returned()]}, "must be passed back"),
    ("deepseek", {"response_format": {"type": "json_schema"}}, "unavailable now"),
    ("deepseek", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
    ("deepseek", {"tool_choice": "required"}, "forces tool use"),
    (
        "anthropic",
        {
            "messages": [
                HI,
                {"role": "assistant", "content": [{**use("a"), "input": "{}"}]},
                {"role": "user", "content": [result("a")]},
                {"role": "assistant", "content": "3"},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            ]
        },
        "tool_use.input: Input should be a valid dictionary",
    ),
    ("mistral", {"stream_options": {}}, "stream_options: Extra inputs"),
    ("mistral", {"messages": [called("a", reasoning_content="x")]}, "reasoning_content: Extra"),
    ("mistral", {"messages": [called("a"), returned()]}, "with a length of 9"),
    (
        "mistral",
        {"messages": [called("a" * 9), returned("a" * 9), HI]},
        "Unexpected role 'user' after role 'tool'",
    ),
    ("mistral", {"messages": [HI, {"role": "assistant", "content": ""}]}, "but not none"),
    ("mistral", {"messages": [HI, {"role": "assistant", "content": "x"}]}, "Expected last role"),
    ("vllm", {"messages": []}, "empty array"),
    ("vllm", {"stream": False, "stream_options": {}}, "when `stream=True`"),
    ("moonshot", {"temperature": 0.6}, "'temperature' is not supported"),
    ("moonshot", {"messages": [HI, called("a"), returned()]}, "missing in assistant tool call"),
    (
        "moonshot",
        {"messages": [HI, called("a", reasoning_content=""), returned()]},
        "reasoning_content is missing in assistant tool call message at index 1",
    ),
    # The fake itself has made a call of that id, and has thought before it.
    (
        "moonshot",
        {"messages": [called("call_10", reasoning_content=" "), returned("call_10")]},
        "message at index 0",
    ),
    ("moonshot", {"messages": [HI, {"role": "assistant", "content": ""}]}, "but not none"),
    ("moonshot", {"tool_choice": "required"}, "forces tool use"),
    ("vllm", {"messages": [BROKEN, returned()]}, "failed to parse tool call arguments"),
    ("ollama", {"messages": [{"role": "user"}]}, "missing field 'content'"),
    (
        "llamacpp",
        {"messages": [{"role": "user", "content": [{"type": "text"}, {"type": "image_url"}]}]},
        "image_url",
    ),
]
"""What each server refuses, and its words for it."""


def body_for(name: str, changes: Mapping[str, object]) -> dict[str, object]:
    """Return a request that is right but for *changes*."""
    conversation = "input" if name == "openai" else "messages"
    body: dict[str, object] = {"model": "m", "stream": True, conversation: [HI]}
    if name == "openai":
        body["store"] = False
    if name == "anthropic":
        body["max_tokens"] = 9
    return {**body, **changes}


ENDS: Final = {"openai": "/responses", "anthropic": "/messages"}
HEADERS: Final = {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(("name", "changes", "says"), REFUSED)
async def test_each_rule_refuses_what_breaks_it(
    name: StrictName, changes: dict[str, object], says: str
) -> None:
    """In the server's own words; without the change it is taken."""
    fake = strict_fake(name, TURNS)
    async with httpx.AsyncClient(transport=fake, headers=HEADERS) as client:
        url = f"https://api.example/v1{ENDS.get(name, '/chat/completions')}"
        good = await client.post(url, json=body_for(name, {}))
        assert (good.status_code, fake.refusals) == (200, ())
        bad = await client.post(url, json=body_for(name, changes))
    assert bad.status_code == 400
    (why,) = fake.refusals
    assert says in why
    assert json.dumps(why)[1:-1] in bad.text


async def test_mistral_thinks_in_pieces_of_an_answer_that_is_not_streamed() -> None:
    """As in its streams; its own client reads them, which is none of OpenAI's."""
    fake = strict_fake("mistral", [FakeTurn(text="Hello", calls=(("look", {"at": 1}),))])
    async with httpx.AsyncClient(transport=fake) as client:
        url = "https://api.example/v1/chat/completions"
        answer = await client.post(url, json=body_for("mistral", {"stream": False}))
    (choice,) = answer.json()["choices"]
    thought, text = choice["message"]["content"]
    assert (thought["type"], text) == ("thinking", {"type": "text", "text": "Hello"})
    (made,) = choice["message"]["tool_calls"]
    assert (made["function"]["name"], choice["finish_reason"]) == ("look", "tool_calls")


async def test_headers_paths_and_bodies_are_looked_at() -> None:
    """As every server does."""
    fake = strict_fake("anthropic", TURNS)
    async with httpx.AsyncClient(transport=fake) as client:
        url = "https://api.example/v1/messages"
        await client.post(url, json=body_for("anthropic", {}))
        await client.post(url, content=b"{oops", headers=HEADERS)
        missing = await client.post("https://api.example/v1/other", headers=HEADERS)
    assert missing.status_code == 404
    first, second, third = fake.refusals
    assert first == "anthropic-version: is required"
    assert second.startswith("the body is not JSON")
    assert third == "there is nothing at /v1/other"


async def test_a_fake_is_served_to_other_clients() -> None:
    """Over HTTP on this machine."""
    fake = strict_fake("vllm", [FakeTurn(text="Hello")])
    async with (
        open_strict_server(fake) as url,
        open_openai("m", base_url=url) as driver,
    ):
        answer = await driver.complete(CompletionRequest([UserMessage("Hi")]))
    assert (answer.text, fake.refusals) == ("Hello", ())


@pytest.mark.parametrize("given", [("other", TURNS), ("vllm", [])])
def test_a_fake_that_nobody_knows(given: Any) -> None:  # noqa: ANN401  # tested
    """Or one that has nothing to answer."""
    with pytest.raises(UsageError):
        strict_fake(*given)


async def test_reasoning_that_can_no_longer_be_read_is_dropped_once() -> None:
    """And the request made again without it; the next one leaves it out at once."""
    fake = strict_fake("openai", [FakeTurn(text="one"), FakeTurn(text="two")])
    request = CompletionRequest([UserMessage("Hi")])
    async with open_openai("m", api_key="k", transport=fake) as driver:
        answer = await driver.complete(request)
        first = AssistantMessage(answer.text, answer.tool_calls, answer.parts)
        said: list[ChatMessage] = [UserMessage("Hi"), first, UserMessage("and?")]
        fake.forget()
        again = await driver.complete(CompletionRequest(said))
        assert again.text == "two"
        assert fake.refusals == ("invalid_encrypted_content",)
        await driver.complete(CompletionRequest(said))
        assert len(fake.refusals) == 1
        # Another refusal is no reason to ask again.
        with pytest.raises(BadRequestError, match="temperature"):
            await driver.complete(CompletionRequest(said, temperature=1.0))
    assert len(fake.requests) in {5, 6}


class Together(httpx.AsyncBaseTransport):
    """Hands requests on, and those of a group only when all of it have come."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        """Hand them on to *inner*."""
        self.inner = inner
        self.missing = 0
        self.all_here = trio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Hand on *request*."""
        if self.missing:
            self.missing -= 1
            if not self.missing:
                self.all_here.set()
            await self.all_here.wait()
        return await self.inner.handle_async_request(request)


async def test_reasoning_that_went_stale_for_several_agents_is_dropped_by_each() -> None:
    """Only the first one whose refusal came asked again, and all others failed."""
    fake = strict_fake("openai", [FakeTurn(text="one"), FakeTurn(text="two")])
    transport = Together(fake)
    async with open_openai("m", api_key="k", transport=transport) as driver:
        answer = await driver.complete(CompletionRequest([UserMessage("Hi")]))
        first = AssistantMessage(answer.text, answer.tool_calls, answer.parts)
        fake.forget()
        transport.missing = 4
        request = CompletionRequest([UserMessage("Hi"), first, UserMessage("and?")])
        texts: list[str] = []

        async def ask() -> None:
            texts.append((await driver.complete(request)).text)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(ask)
    assert texts == ["two"] * 4
    assert fake.refusals == ("invalid_encrypted_content",) * 4


async def test_what_responses_does_not_know_goes_over_chat() -> None:
    """Unless Responses was asked for by name."""
    fake = strict_fake("openai-chat", [FakeTurn(text="one")])
    request = CompletionRequest([UserMessage("Hi")], seed=1)
    async with open_openai("m", api_key="k", transport=fake) as driver:
        assert (await driver.complete(request)).text == "one"
    async with open_openai("m", api_key="k", transport=fake, api="responses") as driver:
        with pytest.raises(BadRequestError, match="has no seed; leave"):
            await driver.complete(request)
        with pytest.raises(BadRequestError, match="has no stop"):
            await driver.complete(CompletionRequest([UserMessage("Hi")], stop=("x",)))
    assert len(fake.requests) == 1


async def test_mistral_is_spoken_to_in_its_own_words() -> None:
    """Its name for a seed, and an answer between results and what the user says next."""
    fake = strict_fake("mistral", TURNS)
    model = ModelConfig(remote_model="m", provider="mistral", seed=3)
    assert model.place is not None
    async with open_driver(model, environ={"MISTRAL_API_KEY": "k"}, transport=fake) as driver:
        request = CompletionRequest([UserMessage("Hi")], seed=3)
        await driver.complete(request)
        async with open_openai("m", base_url=model.place.base_url, transport=fake) as by_host:
            await by_host.complete(request)
    assert [one["random_seed"] for one in fake.requests] == [3, 3]
    assert fake.refusals == ()


def test_a_fake_with_nothing_to_answer_is_refused() -> None:
    """A test would find out with its first request, and not say why."""
    with pytest.raises(UsageError, match="turns must not be empty"):
        strict_fake("openai", [])


@pytest.mark.parametrize("setting", [{"stop": ("END",)}, {"seed": 1}])
async def test_an_effort_stays_with_responses(setting: dict[str, Any]) -> None:
    """Whoever sets a stop beside it is told, and not moved to where tools are refused."""
    fake = strict_fake("openai", [FakeTurn(text="Yes.")])
    request = CompletionRequest([UserMessage("Hi")], reasoning_effort="high", **setting)
    async with open_openai("m", api_key="k", transport=fake) as driver:
        with pytest.raises(BadRequestError, match="the Responses API has no"):
            await driver.complete(request)
    assert fake.requests == ()


@pytest.mark.parametrize("opener", [open_openai, open_anthropic])
async def test_an_option_of_another_type_opens_no_driver(opener: Any) -> None:  # noqa: ANN401  # either
    """It would be left out, or refused with each request."""
    key = "reasoning" if opener is open_openai else "thinking"
    with pytest.raises(UsageError, match=f"options.{key}: must be a table, got 'on'"):
        async with opener("m", api_key="k", options={key: "on"}):
            pass


@pytest.mark.parametrize("name", ["openai", "openai-chat", "anthropic"])
async def test_a_fake_answers_as_the_model_that_was_asked_for(name: StrictName) -> None:
    """So that a cost is known of it, and a limit on cost can be tried without a key."""
    provider, _, chat = name.partition("-")
    model = "claude-opus-4-5" if provider == "anthropic" else "gpt-5"
    api = 'api = "chat"' if chat else ""
    manifest = AgentManifest.parse(
        f'privacy = "Standard"\ncapabilities = []\n[model]\nprovider = "{provider}"\n'
        f'remote_model = "{model}"\n{api}'
    )
    environ = {f"{provider.upper()}_API_KEY": "of nobody"}
    fake = strict_fake(name, [FakeTurn(text="Hello")])
    async with (
        open_driver(manifest.model, environ=environ, transport=fake) as driver,
        open_pool(driver) as pool,
    ):
        outcome = await (await pool.spawn(SpawnConfig(manifest, "Hi"))).wait()
    assert outcome.unwrap() == "Hello"
    assert outcome.cost_usd is not None
    assert outcome.cost_usd > 0


async def test_a_wrong_path_may_be_a_wrong_api() -> None:
    """The fake of Responses, asked by Chat Completions, said that the right path was wrong."""
    fake = strict_fake("openai", [FakeTurn(text="Hello")])
    async with open_strict_server(fake) as url, open_openai("gpt-5", base_url=url) as driver:
        with pytest.raises(BadRequestError, match=r"model\.base_url, and model\.api"):
            await driver.complete(CompletionRequest([UserMessage("Hi")]))
