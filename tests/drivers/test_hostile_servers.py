"""Both hosted drivers, against servers on this machine that do everything wrong.

Three things hold, whatever the server does: nobody hangs, no part of an answer passes for
an answer, and no connection is left: the driver counts them, and so does the server.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agentpool import DriverError
from agentpool.abc import Completion, CompletionRequest, Driver
from agentpool.drivers import (
    BadRequestError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    UserMessage,
    open_anthropic,
    open_openai,
)
from agentpool.drivers._hosted import HostedDriver
from agentpool.drivers._http_stack import StackTransport
from agentpool.drivers.wire._failure import failure_from_response
from tests.drivers.wire.golden import GOLDEN, completion_of, expected_of, name_of
from tests.support.hostile_server import (
    Fault,
    Watched,
    answering,
    bodies,
    faults,
    open_watched,
    resetting,
    silent,
    trickling,
)
from tests.support.http_servers import (
    CHUNKED,
    EVENT_STREAM,
    HELLO,
    Line,
    always,
    chunk,
    event,
    head,
    whole,
)
from tests.support.keys import KEY

ASK: Final = CompletionRequest([UserMessage("Hi")])
HERE: Final = Path(__file__).parent / "wire"

HANG_SECONDS: Final = 20.0
"""Real seconds: long enough for a busy machine. Nothing here waits for it."""


@attrs.frozen
class Wire:
    """One of the two, with a whole answer and an error in its own words."""

    name: str
    open: Callable[..., contextlib.AbstractAsyncContextManager[Driver]]
    answer: bytes
    text: str
    error: bytes


WIRES: Final = [
    Wire(
        "openai",
        open_openai,
        HELLO,
        "Hello",
        event({"error": {"message": "no", "type": "overloaded_error"}}),
    ),
    Wire(
        "anthropic",
        open_anthropic,
        (HERE / "anthropic" / "text.sse").read_bytes(),
        "Hello!",
        b"event: error\n" + event({"type": "error", "error": {"type": "overloaded_error"}}),
    ),
]
each_wire = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)


def connections_of(driver: Driver) -> StackTransport:
    """Return the connections that a driver holds."""
    assert isinstance(driver, HostedDriver)
    stack = driver._client._transport
    assert isinstance(stack, StackTransport)
    return stack


@contextlib.asynccontextmanager
async def open_driver(wire: Wire, watched: Watched) -> AsyncGenerator[Driver]:
    """Open a driver; at the end neither it nor the server knows of a connection."""
    with trio.fail_after(HANG_SECONDS):
        async with wire.open("m", base_url=watched.server.url, api_key=KEY) as driver:
            yield driver
            stack = connections_of(driver)
            assert stack.open_count == stack.idle_count, "a connection is still busy"
        assert stack.open_count == 0
        await watched.wait_nobody()


def table() -> Iterator[object]:
    """Yield every fault of both wires."""
    for wire in WIRES:
        for name, fault in faults(wire.answer, wire.error).items():
            yield pytest.param(wire, fault, id=f"{wire.name}-{name}")


@pytest.mark.parametrize(("wire", "fault"), list(table()))
async def test_whatever_a_server_does_wrong_has_its_error(wire: Wire, fault: Fault) -> None:
    """Or it takes its time; then whoever asked leaves when he likes."""
    async with open_watched(fault.serve) as watched, open_driver(wire, watched) as driver:
        if fault.becomes is None:
            with trio.move_on_after(0.03) as scope:
                await driver.complete(ASK)
            assert scope.cancelled_caught
        else:
            with pytest.raises(fault.becomes) as caught:
                await driver.complete(ASK)
            assert type(caught.value) is fault.becomes
            assert len(str(caught.value)) < 1_500


@each_wire
async def test_a_slow_answer_is_an_answer(wire: Wire) -> None:
    """Byte by byte, however the body's length is told."""
    for frame in ("chunked", "length", "until_closed"):
        served = trickling(bodies(wire.answer)[frame](wire.answer))
        async with open_watched(served) as watched, open_driver(wire, watched) as driver:
            assert (await driver.complete(ASK)).text == wire.text


@each_wire
@pytest.mark.parametrize("frame", bodies(b""))
@pytest.mark.parametrize("end", [answering, resetting])
async def test_an_answer_cut_at_any_byte_is_none(
    wire: Wire, frame: str, end: Callable[[bytes], Callable[[Line], object]]
) -> None:
    """Of all bytes that are sent, HTTP's own among them; some of them for rarer cases.

    Where the body lasts until the connection is closed, nothing tells a cut from the end
    but the stream itself: cut after the reason why it ended, the whole text is there.
    """
    answer = bodies(wire.answer)[frame](wire.answer)
    step = 1 if (frame, end) == ("chunked", answering) else 13
    cuts = iter(range(0, len(answer) - 1, step))
    heard = 0

    async def serve(line: Line) -> None:
        await end(answer[: next(cuts)])(line)  # type: ignore[misc]  # they are async functions

    async with open_watched(serve) as watched, open_driver(wire, watched) as driver:
        for _ in range(0, len(answer) - 1, step):
            try:
                completion = await driver.complete(ASK)
            except NetworkError:
                continue
            heard += 1
            assert completion.text == wire.text
        assert next(cuts, None) is None
    assert heard < len(wire.answer) / step / 2


@each_wire
async def test_every_status_has_its_error(wire: Wire) -> None:
    """All on one connection: a refusal that was read to its end keeps it."""
    statuses = [status for status in range(200, 600) if status not in {200, 204, 304}]
    left = iter(statuses)

    async def serve(line: Line) -> None:
        while await line.read_request() is not None:
            await line.send(whole(b'{"error":{"message":"why"}}', status=next(left)))

    async with open_watched(serve) as watched, open_driver(wire, watched) as driver:
        for status in statuses:
            with pytest.raises(DriverError, match=f"answered {status}") as caught:
                await driver.complete(ASK)
            wanted = failure_from_response(status, {}, b"")
            assert type(caught.value) is type(wanted)
            assert caught.value.status_code == status
            assert caught.value.retryable is wanted.retryable
    assert len(watched.server.lines) == 1


@each_wire
@pytest.mark.parametrize("how", [answering, resetting, silent])
async def test_a_status_stands_though_its_explanation_does_not_come(
    wire: Wire,
    how: Callable[[bytes], Callable[[Line], object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key that was refused is not tried again because the connection broke as well."""
    monkeypatch.setattr("agentpool.drivers._http._EXPLANATION_SECONDS", 0.02)
    refusal = head(401, {"content-length": "99"}) + b"you shall"
    async with open_watched(how(refusal)) as watched, open_driver(wire, watched) as driver:  # type: ignore[arg-type]  # they are async functions
        with pytest.raises(DriverError, match="answered 401") as caught:
            await driver.complete(ASK)
        assert not caught.value.retryable


@each_wire
@pytest.mark.parametrize("how", ["held", "dribbled"])
@pytest.mark.parametrize("beginning", [b"x", b"<html>", b"<html><body>"])
@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", None])
async def test_what_is_no_answer_is_not_waited_for(
    wire: Wire, how: str, beginning: bytes, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that does not end is shown as far as it came."""
    monkeypatch.setattr("agentpool.drivers._http._EXPLANATION_SECONDS", 0.05)
    page = head(200, {} if kind is None else {"content-type": kind}) + beginning
    serve = silent(page)
    if how == "dribbled":

        async def serve(line: Line) -> None:
            await line.read_request()
            await line.send(page)
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await trio.sleep(0.01)
                    await line.stream.send_all(b".")

    async with open_watched(serve) as watched, open_driver(wire, watched) as driver:
        with pytest.raises(ProtocolError, match="expected an event stream"):
            await driver.complete(ASK)


@each_wire
async def test_an_answer_without_its_type_is_waited_for(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream is known by how it begins, and what else begins like JSON may take its time."""
    monkeypatch.setattr("agentpool.drivers._http._EXPLANATION_SECONDS", 0.01)

    async def serve(line: Line) -> None:
        await line.read_request()
        await line.send(head(200, {"content-type": "text/plain"}))
        for piece in pieces:
            await trio.sleep(0.05)
            await line.send(piece)

    pieces = [wire.answer[:40], wire.answer[40:]]
    async with open_watched(serve) as watched, open_driver(wire, watched) as driver:
        assert (await driver.complete(ASK)).text == wire.text
        pieces = [b'{"error":{"mess', b'age":"why"}}']
        with pytest.raises(DriverError, match="why"):
            await driver.complete(ASK)


@each_wire
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_to_another_host_is_not_followed(wire: Wire, status: int) -> None:
    """The key would go there."""
    async with open_watched(always(whole(wire.answer))) as thief:
        place = f"{thief.server.url}/chat/completions"
        redirect = always(whole(b"", status=status, location=place))
        async with open_watched(redirect) as watched, open_driver(wire, watched) as driver:
            with pytest.raises(BadRequestError, match=r"not followed.*correct base_url"):
                await driver.complete(ASK)
        assert thief.server.lines == []


@each_wire
@pytest.mark.parametrize("when", ["while idle", "under the next request"])
async def test_a_reset_between_requests_is_not_felt(wire: Wire, when: str) -> None:
    """Nothing had come back, so nothing was begun: a new connection, once."""

    async def serve(line: Line) -> None:
        if await line.read_request() is None:
            return
        await line.send(whole(wire.answer))
        if when == "while idle" or await line.read_request() is not None:
            line.reset()

    async with open_watched(serve) as watched, open_driver(wire, watched) as driver:
        for _ in range(5):
            assert (await driver.complete(ASK)).text == wire.text
        assert len(watched.server.lines) >= 3


@each_wire
async def test_a_whole_answer_is_not_lost_with_its_connection(wire: Wire) -> None:
    """The stream has said that it is at its end; what the server does then is its own affair."""

    async def serve(line: Line) -> None:
        await line.read_request()
        await line.send(CHUNKED + chunk(wire.answer))
        await trio.sleep(0.002)  # less than the driver waits for the end of the body
        await line.send(b"zz\r\n")

    async with open_watched(serve) as watched, open_driver(wire, watched) as driver:
        assert (await driver.complete(ASK)).text == wire.text


@each_wire
async def test_one_bad_answer_harms_no_other(wire: Wire) -> None:
    """Of forty at once every second one fails, and only those."""
    bad = {b'"Hi 1"': CHUNKED + chunk(wire.answer[:40]) + b"zz\r\n"}

    async def serve(line: Line) -> None:
        while (request := await line.read_request()) is not None:
            answers = [answer for part, answer in bad.items() if part in request]
            await line.send(answers[0] if answers else whole(wire.answer))
            if answers:
                return

    good: list[str] = []
    failed: list[DriverError] = []

    async def ask(driver: Driver, number: int) -> None:
        request = CompletionRequest([UserMessage(f"Hi {number % 2}")])
        try:
            good.append((await driver.complete(request)).text)
        except DriverError as exc:
            failed.append(exc)

    async with open_watched(serve) as watched, open_driver(wire, watched) as driver:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, driver, number)
        assert good == [wire.text] * 20
        assert len(failed) == 20


SAYS: Final = f"bad key {KEY}".encode()
REFUSAL: Final = b'{"error":{"message":"%s","type":"%s"}}' % (SAYS, KEY.encode())


@each_wire
@pytest.mark.parametrize(
    "answer",
    [
        whole(REFUSAL, status=401),
        whole(REFUSAL, content_type="application/json"),
        whole(SAYS, status=500, content_type="text/html"),
        whole(SAYS, content_type="text/html"),
        whole(b"hi", content_type=KEY),
        whole(b"hi", content_encoding=KEY),
        whole(b"", status=307, location=f"http://127.0.0.1/{KEY}"),
        whole(event({"error": SAYS.decode()})),
        whole(b"event: error\ndata: " + REFUSAL + b"\n\n"),
        whole(b"data: " + SAYS + b"\n\n"),
        whole(b'data: {"model": ["%s"]}\n\n' % SAYS),
        whole(b"data: " + SAYS + b"\xff\n\n"),
        whole(b"data: " + b"x" * 70 + KEY.encode() + b"\xff\n\n"),
        b"HTTP/1.1 " + SAYS + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + SAYS + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + KEY.encode() + b"\x00: 1\r\n\r\n",
        CHUNKED + KEY.encode() + b"\r\n",
    ],
    ids=map(str, itertools.count()),  # no key in a name
)
@pytest.mark.parametrize("own", [True, False], ids=["our transport", "httpx's"])
async def test_a_key_that_the_server_quotes_is_in_no_error(
    wire: Wire, answer: bytes, *, own: bool
) -> None:
    """Nor in what a traceback shows of its causes; half of a key is one too."""
    transport = None if own else httpx.AsyncHTTPTransport()
    with trio.fail_after(HANG_SECONDS):
        async with (
            open_watched(answering(answer)) as watched,
            wire.open("m", base_url=watched.server.url, api_key=KEY, transport=transport) as driver,
        ):
            with pytest.raises(DriverError) as caught:
                await driver.complete(ASK)
            if transport is not None:
                await transport.aclose()
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY[:10] not in shown.replace(__file__, "")


CAPITAL: Final = KEY.upper()


@each_wire
@pytest.mark.parametrize(
    "answer",
    [
        whole(b"hi", content_encoding=CAPITAL),
        whole(b"hi", content_type=f"text/{CAPITAL}"),
        whole(b"hi", content_type=f"text/plain; charset={CAPITAL}"),
        whole(b"", status=307, location=f"http://{CAPITAL}.example/"),
        whole(b"no", status=429, retry_after=CAPITAL),
        whole(b'{"error":{"message":"no","code":"%s"}}' % CAPITAL.encode(), status=400),
        b"HTTP/1.1 400 " + CAPITAL.encode() + b"\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: " + CAPITAL.encode() + b"\r\n\r\n",
    ],
    ids=map(str, itertools.count()),  # no key in a name
)
async def test_a_key_with_capitals_is_not_shown_in_small_letters(wire: Wire, answer: bytes) -> None:
    """Names of hosts, codecs and headers are made small, and then no key is found in them."""
    with trio.fail_after(HANG_SECONDS):
        async with (
            open_watched(answering(answer)) as watched,
            wire.open("m", base_url=watched.server.url, api_key=CAPITAL) as driver,
        ):
            with pytest.raises(DriverError) as caught:
                await driver.complete(ASK)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY[:10] not in shown.replace(__file__, "").lower()


@each_wire
@pytest.mark.parametrize("name", ["content-encoding", "content-type", "location"])
async def test_a_key_is_not_shown_in_other_letters(wire: Wire, name: str) -> None:
    """A server that quotes it in small ones, or in capitals, had it shown."""
    for quoted in (CAPITAL.lower(), CAPITAL.upper(), CAPITAL.swapcase()):
        fields = {"content-type": "text/event-stream", "content-length": "0", name: quoted}
        answer = head(302 if name == "location" else 200, fields)
        with trio.fail_after(HANG_SECONDS):
            async with (
                open_watched(answering(answer)) as watched,
                wire.open("m", base_url=watched.server.url, api_key=CAPITAL) as driver,
            ):
                with pytest.raises(DriverError) as caught:
                    await driver.complete(ASK)
        assert KEY[-8:].lower() not in str(caught.value).lower()


@each_wire
async def test_a_key_that_is_sent_is_in_no_log(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    """With httpx's own transport httpcore writes a log, and has no header of the request."""
    caplog.set_level(logging.DEBUG, "httpcore")
    transport = httpx.AsyncHTTPTransport()
    async with (
        open_watched(answering(whole(b"no", status=500))) as watched,
        wire.open("m", base_url=watched.server.url, api_key=KEY, transport=transport) as driver,
    ):
        with pytest.raises(DriverError):
            await driver.complete(ASK)
        await transport.aclose()
    assert "send_request_headers" in caplog.text
    assert KEY not in caplog.text


ANSWERS: Final = [golden for golden in GOLDEN if "error" not in expected_of(golden)]
OPEN: Final = {wire.name: wire for wire in WIRES}


@given(
    golden=st.sampled_from(ANSWERS).map(name_of),
    frame=st.sampled_from(sorted(bodies(b""))),
    splits=st.lists(st.floats(0, 1), max_size=8),
    cut=st.none() | st.floats(0, 1),
)
async def test_streams_split_and_cut_anywhere_on_the_way(
    golden: str, frame: str, splits: list[float], cut: float | None
) -> None:
    """Every recorded answer, through a socket: whole it is itself, cut it is an error."""
    path = next(one for one in ANSWERS if name_of(one) == golden)
    stream, wanted = path.read_bytes(), completion_of(expected_of(path))
    sent = bodies(stream)[frame](stream)
    if cut is not None:
        sent = sent[: int(cut * len(sent))]
    places = [0, *sorted(int(at * len(sent)) for at in splits), len(sent)]
    pieces = [sent[a:b] for a, b in itertools.pairwise(places)]
    wire = OPEN[path.parent.name]
    completion: Completion | None = None
    async with open_watched(answering(*pieces)) as watched, open_driver(wire, watched) as driver:
        try:
            completion = await driver.complete(ASK)
        except NetworkError:
            assert cut is not None
    if completion is None:
        return
    assert completion.text == wanted.text
    assert completion.finish_reason is wanted.finish_reason
    assert [part.data for part in completion.parts] == [part.data for part in wanted.parts]
    # An id that the server did not give is ours, and its own in each answer.
    assert [(one.name, one.arguments) for one in completion.tool_calls] == [
        (one.name, one.arguments) for one in wanted.tool_calls
    ]


@given(
    rubbish=st.binary(max_size=400), after=st.sampled_from([b"", CHUNKED, head(200, EVENT_STREAM)])
)
async def test_rubbish_is_an_error(rubbish: bytes, after: bytes) -> None:
    """Any bytes at all: in place of an answer, of its body, of its stream."""
    for wire in WIRES:
        served = answering(after + rubbish)
        async with open_watched(served) as watched, open_driver(wire, watched) as driver:
            with pytest.raises(DriverError):
                await driver.complete(ASK)


async def test_an_overloaded_server_is_told_from_a_broken_one() -> None:
    """What the faults' table says, said once by name: the first may be well again soon."""
    wire = WIRES[0]
    fault = faults(wire.answer, wire.error)["an error after 200"]
    async with open_watched(fault.serve) as watched, open_driver(wire, watched) as driver:
        with pytest.raises(OverloadedError) as caught:
            await driver.complete(ASK)
        assert caught.value.retryable
