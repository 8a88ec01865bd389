"""What a completion over HTTP costs: our driver, stock httpx, and h11 by hand.

``--n`` is how many ask at once. All of them send the same request to the same model, which
takes 50 ms, and read its stream to the last event. Connections are made before the measured
part: an agent that works for an hour makes one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, final

import attrs
import h11
import httpx
import trio
from meter import Meter, main

from agentpool.drivers import CompletionRequest, UserMessage, open_openai

MIN_COMPLETIONS = 2_000
"""Measured at least; more where more ask at once."""
EACH_AT_LEAST = 3
"""Completions of everybody who asks."""

SYSTEM = "You review code. " * 20
QUESTION = "Is this function correct? " * 10
SAID = "The quick brown fox jumps"

Ask: TypeAlias = Callable[[], Awaitable[str]]
"""Asks once and returns the text of the answer."""


@contextmanager
def open_model() -> Generator[int, None, None]:
    """Run the model in a process of its own; yield its port."""
    command = [sys.executable, str(Path(__file__).with_name("slow_model.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def text_of(lines: Iterable[str]) -> str:
    """Return the text in these events, as somebody reads it who needs nothing else."""
    texts: list[str] = []
    for line in lines:
        if line.startswith("data: {"):
            choices = json.loads(line.removeprefix("data: "))["choices"]
            texts += (choice["delta"].get("content", "") for choice in choices)
    return "".join(texts)


def body() -> bytes:
    """Return the request that the driver sends, for the others to send as well."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    settings = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    return json.dumps({**settings, "messages": messages}).encode()


async def measure(ask: Ask, n: int, meter: Meter) -> None:
    """Have *n* tasks ask at once, again and again."""
    each = max(EACH_AT_LEAST, MIN_COMPLETIONS // n)
    meter.operations = n * each

    async def repeat(times: int) -> None:
        for _ in range(times):
            assert await ask() == SAID

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(repeat, 1)
    with meter.running():
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(repeat, each)


async def driver(n: int, meter: Meter) -> None:
    """Measure our driver."""
    request = CompletionRequest([UserMessage(QUESTION)], system=SYSTEM)
    with open_model() as port:
        url = f"http://127.0.0.1:{port}/v1"
        async with open_openai("m", base_url=url, api_key="sk-bench") as opened:

            async def ask() -> str:
                return (await opened.complete(request)).text

            await measure(ask, n, meter)


async def stock_httpx(n: int, meter: Meter) -> None:
    """Measure httpx as it comes, with room for everybody."""
    limits = httpx.Limits(max_connections=n, max_keepalive_connections=n)
    content = body()
    headers = {"authorization": "Bearer sk-bench", "content-type": "application/json"}
    # It has seconds of its own, which ours leaves to the caller.
    open_client = httpx.AsyncClient(timeout=60, limits=limits, headers=headers)
    with open_model() as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with open_client as client:

            async def ask() -> str:
                async with client.stream("POST", url, content=content) as response:
                    lines = [line async for line in response.aiter_lines()]
                return text_of(lines)

            await measure(ask, n, meter)


@final
@attrs.define(eq=False)
class HandMade:
    """The least that a client can be: h11, a trio stream, a stack of idle connections."""

    port: int
    idle: list[tuple[trio.SocketStream, h11.Connection]] = attrs.field(factory=list)

    async def ask(self, content: bytes) -> str:
        """Ask once, on a connection that nobody uses."""
        if self.idle:
            stream, http = self.idle.pop()
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            http = h11.Connection(h11.CLIENT)
        headers = [
            ("host", "127.0.0.1"),
            ("authorization", "Bearer sk-bench"),
            ("content-type", "application/json"),
            ("content-length", str(len(content))),
        ]
        head = h11.Request(method="POST", target="/v1/chat/completions", headers=headers)
        data = (http.send(head) or b"") + (http.send(h11.Data(data=content)) or b"")
        http.send(h11.EndOfMessage())
        await stream.send_all(data)
        answer = b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Data):
                answer += event.data
        http.start_next_cycle()
        self.idle.append((stream, http))
        return text_of(answer.decode().split("\n\n"))


async def hand_made(n: int, meter: Meter) -> None:
    """Measure h11 on trio, with nothing around it."""
    content = body()
    with open_model() as port:
        client = HandMade(port)

        async def ask() -> str:
            return await client.ask(content)

        await measure(ask, n, meter)
        for stream, _ in client.idle:
            stream.socket.close()


if __name__ == "__main__":
    main({"W9:driver": driver, "W9:httpx": stock_httpx, "W9:handmade": hand_made})
