"""The local driver with llama.cpp and the weights of SmolLM2. Run by ``nox -s live``."""

from __future__ import annotations

import contextlib
import json
import re
import statistics
from collections.abc import AsyncGenerator, Callable

import attrs
import msgspec
import pytest
import trio

from agentpool.abc import Completion, CompletionRequest, Driver, ToolDefinition
from agentpool.drivers import (
    AssistantMessage,
    ChatMessage,
    ContextOverflowError,
    FinishReason,
    LocalDriver,
    ToolMessage,
    UserMessage,
    open_anthropic,
    open_local,
    open_openai,
)

Opener = Callable[..., contextlib.AbstractAsyncContextManager[Driver]]

pytestmark = pytest.mark.live


def schema(**properties: str) -> dict[str, object]:
    """Return the schema of an object with these properties."""
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }


def tool(name: str, description: str, **properties: str) -> ToolDefinition:
    """Return the definition of a tool."""
    return ToolDefinition(name, description, schema(**properties))


TOOLS = (
    tool("get_weather", "Get the current weather in a city.", city="string"),
    tool("add", "Add two numbers.", a="integer", b="integer"),
    tool("read_file", "Read a text file.", path="string"),
)


def ask(text: str, **settings: object) -> CompletionRequest:
    """Return a request that says *text*."""
    return CompletionRequest([UserMessage(text)], **settings)  # type: ignore[arg-type]  # any of them


async def busy_slots(driver: LocalDriver) -> int:
    """Return how many slots the server says are at work."""
    status, body = await driver._client.get("/slots")
    assert status == 200
    return sum(slot["is_processing"] for slot in json.loads(body))


async def test_it_answers_in_words() -> None:
    """With its window, its tokens, and the pieces as they come."""
    heard: list[str] = []
    async with open_local() as driver:
        assert driver.context_window == 8192
        answer = await driver.complete(
            ask("Write one sentence about the sea.", max_tokens=60), on_delta=heard.append
        )
    assert "sea" in answer.text.lower()
    assert "".join(heard) == answer.text
    assert len(heard) > 3
    assert answer.usage is not None
    assert 20 < answer.usage.input_tokens < 60
    assert 3 < answer.usage.output_tokens <= 60


async def test_a_cut_answer_says_so() -> None:
    """By its reason."""
    async with open_local() as driver:
        answer = await driver.complete(ask("Write a long story.", max_tokens=5))
    assert answer.finish_reason is FinishReason.MAX_TOKENS
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5


async def test_an_agent_calls_a_tool_and_says_what_it_returned() -> None:
    """Valid arguments, and an answer that has the result in it."""
    history: list[ChatMessage] = [UserMessage("What is 17 plus 25?")]
    async with open_local(seed=1) as driver:
        request = CompletionRequest(history, tools=TOOLS, max_tokens=100, temperature=0.0)
        called = await driver.complete(request)
        assert called.finish_reason is FinishReason.TOOL_USE
        (call,) = called.tool_calls
        assert (call.name, json.loads(call.arguments)) == ("add", {"a": 17, "b": 25})
        history.append(AssistantMessage(called.text, called.tool_calls))
        history.append(ToolMessage(call.call_id, call.name, "42"))
        answer = await driver.complete(request)
    assert answer.tool_calls == ()
    assert "42" in answer.text


@pytest.mark.parametrize(
    "text",
    [
        "What is the weather in Paris?",
        "What is 17 plus 25?",
        "Read the file notes.txt",
        "Hello! Who are you?",
        "Tell me the weather in Berlin right now.",
    ],
)
async def test_whatever_is_asked_calls_are_valid(text: str) -> None:
    """The grammar sees to that, at any temperature. Or the answer was cut, or is words."""
    by_name = {one.name: one.input_schema for one in TOOLS}
    async with open_local(seed=3) as driver:
        answer = await driver.complete(ask(text, tools=TOOLS, max_tokens=150, temperature=0.8))
    for call in answer.tool_calls:
        wanted = by_name[call.name]["required"]
        if answer.finish_reason is FinishReason.TOOL_USE:
            assert list(json.loads(call.arguments)) == wanted


async def test_the_same_seed_gives_the_same_answer() -> None:
    """Alone, and also in another process."""
    request = ask("Tell me a short story.", max_tokens=40, temperature=1.0)
    texts: list[str] = []
    for _ in range(2):
        async with open_local(seed=42) as driver:
            texts += [(await driver.complete(request)).text for _ in range(2)]
    assert len(set(texts)) == 1


async def test_what_does_not_fit_is_its_own_error() -> None:
    """With the numbers of the server."""
    async with open_local(context_window=512, parallel=1) as driver:
        assert driver.context_window == 512
        with pytest.raises(ContextOverflowError, match="512 tokens"):
            await driver.complete(ask("word " * 1000))


@contextlib.asynccontextmanager
async def open_wire(wire: str, server: LocalDriver) -> AsyncGenerator[Driver]:
    """Open a driver that speaks *wire* to the server that runs already."""
    client = server._client
    key = client._headers["authorization"].removeprefix("Bearer ")
    wires: dict[str, Opener] = {"openai": open_openai, "anthropic": open_anthropic}
    opened = wires[wire]
    async with opened("local", base_url=f"{client._base_url}/v1", api_key=key) as driver:
        yield driver


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_each_wire_of_the_server(wire: str) -> None:
    """200 requests, 50 at once: each streamed to its end, with its usage."""
    heard: list[str] = []
    answers: list[Completion] = []
    limiter = trio.CapacityLimiter(50)

    async def one(driver: Driver, number: int) -> None:
        async with limiter:
            request = ask(f"Say the number {number}.", max_tokens=4)
            answers.append(await driver.complete(request, on_delta=heard.append))

    async with open_local() as server, open_wire(wire, server) as driver:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(one, driver, number)
        assert await busy_slots(server) == 0
    assert len(answers) == 200
    assert sum(len(answer.text) for answer in answers) == sum(map(len, heard))
    assert all(answer.text and answer.usage and answer.usage.output_tokens for answer in answers)


@attrs.define
class Slots:
    """Counts the slots at work, and costs the model next to nothing: no JSON, one connection."""

    _port: int
    _request: bytes
    _stream: trio.SocketStream | None = None

    async def busy(self) -> int:
        """Return how many slots the server says are at work."""
        if self._stream is None:
            self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        await self._stream.send_all(self._request)
        answer = b""
        while not self._is_whole(answer):
            piece = await self._stream.receive_some()
            assert piece, answer
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        if b"connection: close" in answer.lower():  # a server bounds what one connection asks
            await self._stream.aclose()
            self._stream = None
        return len(re.findall(rb'"is_processing": ?true', answer))

    async def wait_idle(self, *, since: float) -> float:
        """Return the seconds from *since* until no slot was at work, as the server says."""
        while await self.busy():  # noqa: ASYNC110  # the server has no event
            await trio.sleep(0.01)
        return trio.current_time() - since

    async def aclose(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            await self._stream.aclose()

    @staticmethod
    def _is_whole(answer: bytes) -> bool:
        top, found, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", top.lower())
        return bool(found and length and len(body) >= int(length[1]))


def slots_of(server: LocalDriver) -> Slots:
    """Return what counts the slots of *server*."""
    client = server._client
    key = client._headers["authorization"]
    head = f"GET /slots HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: {key}\r\n\r\n"
    return Slots(client._target.port, head.encode())


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_a_cancelled_request_frees_its_slot(
    wire: str, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """Within 0.2 s, as the server itself says; the median of eleven rounds of four.

    From the moment of the cancel until an answer of ``/slots`` is here in which none is at
    work: the asking and the next step of the model are counted in.
    """
    waits: list[float] = []
    async with (
        open_local() as server,
        open_wire(wire, server) as driver,
        contextlib.aclosing(slots_of(server)) as slots,
    ):
        for _ in range(11):
            with trio.CancelScope() as scope:
                heard: list[str] = []
                cancelled: list[float] = []

                def stop(
                    text: str,
                    scope: trio.CancelScope = scope,
                    heard: list[str] = heard,
                    cancelled: list[float] = cancelled,
                ) -> None:
                    heard.append(text)
                    if len(heard) > 20:
                        cancelled.append(trio.current_time())
                        scope.cancel()

                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(
                            complete, driver, ask("Write a very long story.", max_tokens=2000), stop
                        )
            waits.append(await slots.wait_idle(since=cancelled[0]))
    quick = sum(wait < 0.2 for wait in waits)
    listed = ", ".join(f"{wait:.3f}" for wait in sorted(waits))
    says = f"{quick} of {len(waits)} were free within 0.2 s; seconds: {listed}"
    record_testsuite_property(f"slots freed, {wire}", says)
    assert statistics.median(waits) < 0.2, says


async def complete(driver: Driver, request: CompletionRequest, stop: object) -> None:
    """Ask, and have the pieces go to *stop*."""
    assert callable(stop)
    await driver.complete(request, on_delta=stop)


async def test_many_at_once() -> None:
    """More than there are slots, again and again, on connections that are used again."""
    async with open_local() as driver:
        answers: list[str] = []

        async def one(number: int) -> None:
            for _ in range(5):
                answer = await driver.complete(ask(f"Say the number {number}.", max_tokens=4))
                answers.append(answer.text)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
        assert await busy_slots(driver) == 0
    assert len(answers) == 100
    assert all(answers)


async def test_the_server_answers_nobody_else() -> None:
    """Its key is known to the driver alone."""
    async with open_local() as driver:
        driver._client.set_headers({"authorization": "Bearer guessed"})
        status, body = await driver._client.get("/props")
    assert status == 401
    assert msgspec.json.decode(body)["error"]["type"] == "authentication_error"
