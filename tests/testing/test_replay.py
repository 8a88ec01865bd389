"""Recording through the real drivers, and replaying what was recorded."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio

from agentpool import DriverError, ModelConfig, UsageError
from agentpool.abc import CompletionRequest, Driver
from agentpool.drivers import (
    NetworkError,
    RateLimitError,
    UserMessage,
    open_anthropic,
    open_driver,
    open_openai,
)
from agentpool.testing import RecordingMissError, open_recording, open_replay, simulate
from tests.drivers.wire.golden import GOLDEN, completion_of, expected_of, name_of
from tests.support.http_servers import (
    CHUNKED,
    HELLO,
    Line,
    Loopback,
    always,
    chunk,
    event,
    head,
    open_loopback,
    text_event,
    whole,
)
from tests.support.keys import KEY

Opener = Callable[..., contextlib.AbstractAsyncContextManager[Driver]]

ANSWERS = [golden for golden in GOLDEN if "error" not in expected_of(golden)]


def ask(text: str = "Hi") -> CompletionRequest:
    """Return a request that says *text*."""
    return CompletionRequest([UserMessage(text)])


async def record(server: Loopback, path: Path, *texts: str) -> list[str]:
    """Ask *server* and record it; return the answers, or the names of the errors."""
    found: list[str] = []
    async with (
        open_recording(path) as transport,
        open_openai("m", base_url=server.url, api_key=KEY, transport=transport) as driver,
    ):
        for text in texts:
            try:
                found.append((await driver.complete(ask(text))).text)
            except DriverError as exc:
                found.append(type(exc).__name__)
    return found


async def replay(path: Path, *texts: str, paced: bool = False) -> list[str]:
    """Ask the recording; return the answers, or the names of the errors."""
    found: list[str] = []
    async with (
        open_replay(path, paced=paced) as transport,
        open_openai("m", base_url="http://127.0.0.1/v1", transport=transport) as driver,
    ):
        for text in texts:
            try:
                found.append((await driver.complete(ask(text))).text)
            except DriverError as exc:
                found.append(type(exc).__name__)
    return found


@pytest.mark.parametrize("golden", ANSWERS, ids=name_of)
async def test_every_recorded_stream_is_the_same_again(golden: Path, tmp_path: Path) -> None:
    """Both wires, pieces that end inside a character, the same pieces of text on the way."""
    stream, path = await trio.Path(golden).read_bytes(), tmp_path / "r.jsonl"
    wires: dict[str, Opener] = {"openai": open_openai, "anthropic": open_anthropic}
    opened = wires[golden.parent.name]
    pieces = [chunk(stream[i : i + 61]) for i in range(0, len(stream), 61)]
    heard: tuple[list[str], list[str]] = ([], [])
    async with (
        open_loopback(always(CHUNKED, *pieces, chunk(b""))) as server,
        open_recording(path) as recording,
        opened("m", base_url=server.url, transport=recording) as driver,
    ):
        first = await driver.complete(ask(), on_delta=heard[0].append)
    async with (
        open_replay(path) as replayed,
        # The same address, where no server is any more: opaque parts are of one server.
        opened("m", base_url=server.url, transport=replayed) as driver,
    ):
        assert await driver.complete(ask(), on_delta=heard[1].append) == first
        assert replayed.left_count == 0
    assert first.text == completion_of(expected_of(golden)).text
    assert "".join(heard[0]) == "".join(heard[1])


async def test_no_secret_is_written(tmp_path: Path) -> None:
    """Whoever quotes it: the server in two pieces, a header, the prompt."""
    path = tmp_path / "r.jsonl"
    quoted = text_event(f"your key is {KEY}", "stop")
    at = quoted.index(KEY.encode()) + 5
    fields = {"content-type": f"text/event-stream; k={KEY}", "set-cookie": "session=1"}
    top = head(200, {**fields, "transfer-encoding": "chunked"})

    async def serve(line: Line) -> None:
        while await line.read_request() is not None:
            await line.send(top + chunk(quoted[:at]))
            await trio.sleep(0.001)
            await line.send(chunk(quoted[at:]) + chunk(b""))

    async with open_loopback(serve) as server:
        await record(server, path, f"I am {KEY}")
        async with (
            open_recording(path, secrets=["Jane Public", KEY]) as transport,
            open_openai("m", base_url=server.url, transport=transport) as driver,
        ):
            await driver.complete(ask("I am Jane Public"))
    written = await trio.Path(path).read_text()
    assert KEY not in written
    assert not {"Jane", "authorization", "session", "user-agent"} & set(written.split('"'))
    assert "Jane Public" not in written
    assert "your key is " + "*" * len(KEY) in "".join(
        piece["text"] for piece in json.loads(written.splitlines()[0])["pieces"]
    ).replace("\\", "")


async def test_refusals_and_repeats_come_in_their_order(tmp_path: Path) -> None:
    """A retry is tested so: first the 429 with its wait, then the answer."""
    answers = iter([whole(b"slow", status=429, retry_after="7"), whole(HELLO)])
    path = tmp_path / "r.jsonl"

    async def serve(line: Line) -> None:
        while await line.read_request() is not None:
            await line.send(next(answers))

    async with open_loopback(serve) as server:
        assert await record(server, path, "Hi", "Hi") == ["RateLimitError", "Hello"]
    async with (
        open_replay(path) as transport,
        open_openai("m", base_url="http://127.0.0.1/v1", transport=transport) as driver,
    ):
        assert transport.left_count == 2
        with pytest.raises(RateLimitError) as caught:
            await driver.complete(ask())
        assert caught.value.retry_after_seconds == 7.0
        assert (await driver.complete(ask())).text == "Hello"
        with pytest.raises(RecordingMissError, match="all 2 recorded ones are used") as missed:
            await driver.complete(ask())
        assert not missed.value.retryable


async def test_a_miss_says_what_was_asked_and_what_is_nearest(tmp_path: Path) -> None:
    """With its place; the key of whoever asks is in none of it."""
    path = tmp_path / "r.jsonl"
    async with open_loopback(always(whole(HELLO))) as server:
        await record(server, path, "Hi", "Good morning")
    async with (
        open_replay(path) as transport,
        open_openai("m", base_url="http://127.0.0.1/v1", api_key=KEY, transport=transport) as own,
    ):
        with pytest.raises(RecordingMissError) as caught:
            await own.complete(ask(f"Good evening {KEY}"))
    text = str(caught.value)
    assert "'r.jsonl' has no answer to POST 127.0.0.1/v1/chat/completions" in text
    assert 'messages[0].content: asked "Good evening *****' in text
    assert KEY not in text


@pytest.mark.parametrize("when", ["before the answer", "in the answer", "broken off"])
async def test_a_cancelled_exchange_never_replays_as_a_success(when: str, tmp_path: Path) -> None:
    """What came before is there, and it breaks off."""
    path = tmp_path / "r.jsonl"
    scope = trio.CancelScope()

    async def serve(line: Line) -> None:
        await line.read_request()
        if when == "before the answer":
            scope.cancel()
        else:
            await line.send(CHUNKED + chunk(text_event("Hel")))
        if when != "broken off":
            await line.wait_gone()

    async with (
        open_loopback(serve) as server,
        open_recording(path) as transport,
        open_openai("m", base_url=server.url, transport=transport) as driver,
    ):
        with scope:
            try:
                await driver.complete(ask(), on_delta=lambda _: scope.cancel())
            except NetworkError:
                assert when == "broken off"
    wanted = "RecordingMissError" if when == "before the answer" else "NetworkError"
    assert await replay(path, "Hi") == [wanted]


@pytest.mark.parametrize("end", ["broken off", "cancelled", "whole"])
async def test_a_client_without_a_wire_sees_where_it_breaks_off(end: str, tmp_path: Path) -> None:
    """A driver knows by its wire that an answer is cut; who reads bytes is only told here."""
    path = tmp_path / "r.jsonl"

    async def serve(line: Line) -> None:
        await line.read_request()
        await line.send(CHUNKED + chunk(b"one"))
        if end == "whole":
            await line.send(chunk(b"two") + chunk(b""))
        if end == "cancelled":
            await line.wait_gone()

    async def read(transport: httpx.AsyncBaseTransport, url: str) -> bytes:
        found = b""
        client = httpx.AsyncClient(transport=transport)
        async with client.stream("GET", f"{url}/x") as response:
            async for piece in response.aiter_raw():
                found += piece
                if end == "cancelled":
                    scope.cancel()
        return found

    lost = pytest.raises(httpx.ReadError) if end == "broken off" else contextlib.nullcontext()
    async with open_loopback(serve) as server, open_recording(path) as recording:
        with trio.CancelScope() as scope, lost:
            await read(recording, server.url)
    (line,) = (await trio.Path(path).read_bytes()).splitlines()
    assert json.loads(line)["is_whole"] is (end == "whole")
    async with open_replay(path) as replayed, httpx.AsyncClient(transport=replayed) as client:
        if end == "whole":
            assert (await client.get("http://127.0.0.1/v1/x")).content == b"onetwo"
        else:
            with pytest.raises(httpx.ReadError, match="breaks off here"):
                await client.get("http://127.0.0.1/v1/x")


async def test_a_crash_leaves_whole_lines(tmp_path: Path) -> None:
    """A torn one is taken away when the recording goes on."""
    path = tmp_path / "r.jsonl"
    async with open_loopback(always(whole(HELLO))) as server:
        await record(server, path, "one")
        written = await trio.Path(path).read_bytes()
        await trio.Path(path).write_bytes(written + written[:50])
        assert await replay(path, "one") == ["Hello"]
        await record(server, path, "two")
    assert await replay(path, "one", "two") == ["Hello", "Hello"]


async def test_an_exchange_that_is_closed_twice_is_written_once(tmp_path: Path) -> None:
    """Clients close what they have read to its end, and close it again on the way out."""
    path = tmp_path / "r.jsonl"
    async with open_loopback(always(whole(b"hi"))) as server, open_recording(path) as transport:
        response = await transport.handle_async_request(httpx.Request("GET", server.url))
        assert await response.aread() == b"hi"
        assert isinstance(response.stream, httpx.AsyncByteStream)
        await response.stream.aclose()
        await response.stream.aclose()
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1


async def test_an_exchange_is_written_at_its_end(tmp_path: Path) -> None:
    """Not when the recording is closed, which a crash never does."""
    path = tmp_path / "r.jsonl"
    async with (
        open_loopback(always(whole(HELLO))) as server,
        open_recording(path) as transport,
        open_openai("m", base_url=server.url, transport=transport) as driver,
    ):
        await driver.complete(ask())
        assert await replay(path, "Hi") == ["Hello"]


async def test_many_at_once_are_whole_lines(tmp_path: Path) -> None:
    """Each in its own, and each finds its own again."""
    path = tmp_path / "r.jsonl"

    async def serve(line: Line) -> None:
        while (request := await line.read_request()) is not None:
            said = json.loads(request.partition(b"\r\n\r\n")[2])["messages"][0]["content"]
            await line.send(whole(text_event(said, "stop")))

    async with (
        open_loopback(serve) as server,
        open_recording(path) as transport,
        open_openai("m", base_url=server.url, transport=transport) as driver,
        trio.open_nursery() as nursery,
    ):
        for number in range(20):
            nursery.start_soon(driver.complete, ask(f"say {number}"))
    texts = [f"say {number}" for number in range(20)]
    assert await replay(path, *reversed(texts)) == [*reversed(texts)]


def test_paced_it_takes_as_long_as_it_took(tmp_path: Path) -> None:
    """Under simulate, whose clock jumps, no time at all."""
    path = tmp_path / "r.jsonl"

    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self) -> object:  # type: ignore[override]  # a generator is one  # noqa: ASYNC900  # it is not left early
            for piece in (text_event("Hel"), text_event("lo", "stop")):
                await trio.sleep(30)
                yield piece

    async def provider(_: httpx.Request) -> httpx.Response:
        await trio.sleep(5)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Slow())

    async def make() -> float:
        async with (
            open_recording(path, transport=httpx.MockTransport(provider)) as transport,
            open_openai("m", transport=transport, api="chat") as driver,
        ):
            await driver.complete(ask())
        return trio.current_time()

    async def again(*, paced: bool) -> float:
        start = trio.current_time()
        async with (
            open_replay(path, paced=paced) as transport,
            open_openai("m", transport=transport, api="chat") as driver,
        ):
            assert (await driver.complete(ask())).text == "Hello"
        return trio.current_time() - start

    simulate(make)
    # A thread that writes the file may let the clock go on a little, on a busy machine.
    assert simulate(lambda: again(paced=True)) > 64.9
    assert simulate(lambda: again(paced=False)) < 60


async def test_a_model_that_a_manifest_names_is_replayed(tmp_path: Path) -> None:
    """No address is looked up, so a remote one will do."""
    path = tmp_path / "r.jsonl"

    def provider(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=HELLO)

    model = ModelConfig(remote_model="gpt-9", api="chat")
    environ = {"OPENAI_API_KEY": KEY}
    transport = httpx.MockTransport(provider)
    async with (
        open_recording(path, transport=transport) as recording,
        open_driver(model, environ=environ, transport=recording) as driver,
    ):
        assert (await driver.complete(ask())).text == "Hello"
    async with (
        open_replay(path) as replayed,
        open_driver(model, environ=environ, transport=replayed) as driver,
    ):
        assert (await driver.complete(ask())).text == "Hello"


async def test_what_is_no_recording(tmp_path: Path) -> None:
    """Said with what to do."""
    with pytest.raises(UsageError, match="make it with open_recording"):
        async with open_replay(tmp_path / "none.jsonl"):
            pass
    await trio.Path(tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"line 1 of 'bad\.jsonl'"):
        async with open_replay(tmp_path / "bad.jsonl"):
            pass


async def test_an_error_event_is_replayed_as_the_error(tmp_path: Path) -> None:
    """What went wrong goes wrong again."""
    path = tmp_path / "r.jsonl"
    stream = text_event("Hel") + event({"error": {"message": "oops", "type": "server_error"}})
    async with open_loopback(always(whole(stream))) as server:
        assert await record(server, path, "Hi") == ["OverloadedError"]
    assert await replay(path, "Hi") == ["OverloadedError"]


async def test_a_new_recording_is_its_owners_alone(tmp_path: Path) -> None:
    """Conversations are in it."""
    path = tmp_path / "r.jsonl"
    previous = os.umask(0o022)
    try:
        async with open_recording(
            path, transport=httpx.MockTransport(lambda _: httpx.Response(200))
        ):
            assert stat.S_IMODE((await trio.Path(path).stat()).st_mode) == 0o600
    finally:
        os.umask(previous)
