"""The door to httpx, against a server on this machine that behaves, and one that does not."""

from __future__ import annotations

import contextlib
import itertools
import ssl
from pathlib import Path

import attrs
import httpcore
import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from agentpool import DriverError, UsageError
from agentpool.drivers import BadRequestError, NetworkError, ProtocolError, _http_stack
from agentpool.drivers._http import HttpClient, open_http
from agentpool.drivers._http_failure import raise_as_driver_error
from agentpool.drivers._http_stack import StackTransport
from tests.support.http_servers import (
    CHUNKED,
    Line,
    always,
    chunk,
    head,
    once,
    open_loopback,
    whole,
)
from tests.support.keys import KEY

EMPTY = whole(b"")


async def post(client: HttpClient, body: bytes = b"{}") -> bytes:
    """Return the whole body of an answer."""
    async with client.post_stream("/x", body) as answer:
        data = b""
        while piece := await answer.receive():
            data += piece
        return data


def stack_of(client: HttpClient) -> StackTransport:
    """Return the stack of connections below *client*."""
    transport = client._transport
    assert isinstance(transport, StackTransport)
    return transport


async def test_a_connection_is_used_again() -> None:
    """The last one put aside is the first one taken."""
    async with open_loopback(always(whole(b"hi"))) as server:
        async with open_http(server.url) as client:
            assert [await post(client) for _ in range(3)] == [b"hi"] * 3
            assert len(server.lines) == 1
            assert (stack_of(client).idle_count, stack_of(client).open_count) == (1, 1)
        assert stack_of(client).open_count == 0


async def test_requests_at_once_have_a_connection_each() -> None:
    """And they are all there afterwards for the next ones."""
    async with open_loopback(always(whole(b"hi"))) as server, open_http(server.url) as client:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(post, client)
        assert len(server.lines) == 5
        assert stack_of(client).idle_count == 5


async def test_the_request_is_what_was_asked_for() -> None:
    """Path below the base, its query kept, the headers, the length."""
    async with open_loopback(always(EMPTY)) as server:
        url = f"{server.url}/?api-version=1"
        async with open_http(url, headers={"x-key": KEY}) as client:
            client.set_headers({"authorization": f"Bearer {KEY}"})
            await post(client, b"body")
            assert KEY not in repr(client)
    (request,) = server.requests
    top, body = request.split(b"\r\n\r\n")
    assert top.startswith(b"POST /v1/x?api-version=1 HTTP/1.1\r\n")
    assert body == b"body"
    lines = set(top.lower().split(b"\r\n")[1:])
    assert {
        b"x-key: " + KEY.encode(),
        b"authorization: bearer " + KEY.encode(),
        b"content-length: 4",
        b"accept-encoding: identity",
        b"host: 127.0.0.1:%d" % server.port,
    } <= lines


BROKEN = [
    (CHUNKED + chunk(b"one"), b"zz\r\n"),
    (CHUNKED + chunk(b"one"), b"0\n\n"),
    (CHUNKED + chunk(b"one"), b"0\r\nno colon\r\n\r\n"),
]


@pytest.mark.parametrize(("good", "bad"), BROKEN)
async def test_what_came_before_broken_bytes_is_given_out(good: bytes, bad: bytes) -> None:
    """Wherever they are cut; who has enough and leaves never hears of them."""
    answer = good + bad
    for at in range(len(CHUNKED), len(answer) + 1):
        serve = always(answer[:at], answer[at:])
        async with open_loopback(serve) as server, open_http(server.url) as client:
            async with client.post_stream("/x", b"") as heard:
                whole_piece = b""
                while whole_piece != b"one":
                    whole_piece += await heard.receive()
                assert not heard.has_ended
                with pytest.raises(ProtocolError):
                    await heard.receive()
            assert stack_of(client).open_count == 0


async def test_a_status_is_heard_though_its_body_is_broken() -> None:
    """They may arrive together."""
    answer = head(400, {"transfer-encoding": "chunked"}) + b"zz\r\n"
    async with (
        open_loopback(always(answer)) as server,
        open_http(server.url) as client,
        client.post_stream("/x", b"") as heard,
    ):
        assert heard.status == 400
        assert await heard.receive_explanation() == b""


async def test_a_stream_left_before_its_end_closes_the_connection() -> None:
    """That tells the provider to stop; the rest would answer the next request."""
    async with (
        open_loopback(always(CHUNKED, chunk(b"one"))) as server,
        open_http(server.url) as client,
    ):
        async with client.post_stream("/x", b"") as answer:
            assert await answer.receive() == b"one"
            assert not answer.has_ended
        assert stack_of(client).open_count == 0


async def test_what_arrived_together_comes_together() -> None:
    """A token per piece costs a round through all floors; and the end is known."""
    pieces = CHUNKED + chunk(b"a") + chunk(b"b") + chunk(b"")
    async with open_loopback(always(pieces)) as server, open_http(server.url) as client:
        async with client.post_stream("/x", b"") as answer:
            assert await answer.receive() == b"ab"
            assert answer.has_ended
            assert await answer.receive() == b""
        assert stack_of(client).idle_count == 1


async def test_a_cancelled_request_closes_its_connection() -> None:
    """At once, also while it waits for the first byte."""
    gone = trio.Event()

    async def serve(line: Line) -> None:
        await line.read_request()
        await line.wait_gone()
        gone.set()

    async with open_loopback(serve) as server, open_http(server.url) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, client)
            while not server.requests:
                await wait_all_tasks_blocked(0.001)
            nursery.cancel_scope.cancel()
        assert stack_of(client).open_count == 0
        with trio.fail_after(5):
            await gone.wait()


async def test_a_connection_that_went_stale_is_noticed() -> None:
    """The server closed it while it was idle: one look at the socket says so."""
    async with open_loopback(once(whole(b"hi"))) as server, open_http(server.url) as client:
        for _ in range(3):
            assert await post(client) == b"hi"
            await wait_all_tasks_blocked(0.01)  # the end of the line is on its way
        assert len(server.lines) == 3


async def test_a_connection_that_goes_stale_under_a_request_is_replaced() -> None:
    """5 of 60 requests to llama.cpp failed so. Nothing came back: nothing was begun."""

    async def serve(line: Line) -> None:
        if await line.read_request() is not None:
            await line.send(whole(b"hi"))
        if await line.read_request() is not None:
            line.reset()

    async with open_loopback(serve) as server, open_http(server.url) as client:
        assert [await post(client) for _ in range(3)] == [b"hi"] * 3
        assert len(server.lines) == 3


async def test_a_new_connection_is_not_tried_twice() -> None:
    """Whoever hangs up on each request would be asked for ever."""

    async def serve(line: Line) -> None:
        await line.read_request()

    async with open_loopback(serve) as server, open_http(server.url) as client:
        with pytest.raises(NetworkError, match="ended without an answer"):
            await post(client)
        assert len(server.lines) == 1


async def test_once_a_byte_came_back_nothing_is_sent_again() -> None:
    """The provider may have begun, and billed."""
    answers = iter([whole(b"hi"), b"HTTP/1.1 2"])

    async def serve(line: Line) -> None:
        for answer in answers:
            if await line.read_request() is not None:
                await line.send(answer)

    async with open_loopback(serve) as server, open_http(server.url) as client:
        await post(client)
        with pytest.raises(NetworkError, match="ended before the answer did"):
            await post(client)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        CHUNKED + chunk(b"a") + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: yyyyyyy\r\n" * 10_000,
        head(103, {}) * 17,
        head(101, {"connection": "upgrade", "upgrade": "websocket"}),
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        whole(b"x", content_encoding="gzip"),
    ],
)
async def test_what_is_not_http_is_a_protocol_error(answer: bytes) -> None:
    """Headers without end, and codings that nobody asked for, are none either."""
    async with open_loopback(always(answer)) as server, open_http(server.url) as client:
        with pytest.raises(ProtocolError) as caught:
            await post(client)
        assert len(str(caught.value)) < 1000
        assert stack_of(client).idle_count == 0


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + chunk(b"abc"),
        CHUNKED + b"5\r\nab",
        head(200, {"content-length": "5"}) + b"abc",
        head(200, {"content-length": "5"}),
        b"HTTP/1.1 200",
    ],
)
async def test_a_cut_answer_is_a_network_error(answer: bytes) -> None:
    """Which may be retried; it is never the end of the answer."""
    async with open_loopback(once(answer)) as server, open_http(server.url) as client:
        with pytest.raises(NetworkError) as caught:
            await post(client)
        assert caught.value.retryable
        assert stack_of(client).open_count == 0


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        (whole(b"hi"), 1),
        (whole(b"hi", connection="close"), 3),
        (whole(b"hi").replace(b"HTTP/1.1", b"HTTP/1.0"), 3),
        (whole(b"hi", connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"), 3),
        (head(103, {"link": "</a>"}) + whole(b"hi"), 1),
    ],
)
async def test_a_connection_is_kept_if_the_server_keeps_it(answer: bytes, lines: int) -> None:
    """As it says, or as its version of HTTP means."""
    async with open_loopback(always(answer)) as server, open_http(server.url) as client:
        assert [await post(client) for _ in range(3)] == [b"hi"] * 3
        assert len(server.lines) == lines


async def test_a_connection_is_not_kept_if_the_request_says_so() -> None:
    """A server that was told may close it under the next request."""
    headers = {"connection": "close"}
    async with (
        open_loopback(always(whole(b"hi"))) as server,
        open_http(server.url, headers=headers) as client,
    ):
        assert [await post(client) for _ in range(3)] == [b"hi"] * 3
        assert len(server.lines) == 3


async def test_an_answer_may_end_with_its_connection() -> None:
    """If it says no length, there is no other end."""
    answer = head(200, {}) + b"all of it"
    async with open_loopback(once(answer)) as server, open_http(server.url) as client:
        assert [await post(client) for _ in range(3)] == [b"all of it"] * 3
        assert len(server.lines) == 3


@attrs.frozen
class Asked:
    """One of several requests at once."""

    words: bytes
    """What it says, and what the answer must be."""
    form: int
    """How the answer tells its length."""
    cuts: list[float]
    """Where the answer is cut on its way."""
    patience: int | None
    """After how many pieces whoever asks leaves. ``None``: never."""


ASKED = st.builds(
    Asked,
    words=st.binary(min_size=1, max_size=60).map(bytes.hex).map(str.encode),
    form=st.integers(0, 2),
    cuts=st.lists(st.floats(0, 1), max_size=5),
    patience=st.none() | st.integers(0, 3),
)


@given(rounds=st.lists(st.lists(ASKED, min_size=1, max_size=6), min_size=1, max_size=3))
async def test_everybody_at_once_gets_their_own_answer(rounds: list[list[Asked]]) -> None:
    """Whatever its form and its cuts, beside others who leave in the middle of theirs."""
    served: dict[bytes, tuple[Asked, trio.CancelScope]] = {}

    async def serve(line: Line) -> None:
        while (request := await line.read_request()) is not None:
            asked, scope = served[request.partition(b"\r\n\r\n")[2]]
            words = asked.words
            forms = whole(words), CHUNKED + chunk(words) + chunk(b""), head(200, {}) + words
            answer = forms[asked.form]
            places = [0, *sorted(int(at * len(answer)) for at in asked.cuts), len(answer)]
            for number, (a, b) in enumerate(itertools.pairwise(places)):
                if number == asked.patience:
                    scope.cancel()
                await line.send(answer[a:b])
                await wait_all_tasks_blocked()
            if asked.form == 2:
                return

    async def ask(number: int, asked: Asked) -> None:
        with trio.CancelScope() as scope:
            words = b"%d:%b" % (number, asked.words)
            served[words] = attrs.evolve(asked, words=words), scope
            assert await post(client, words) == words

    async with open_loopback(serve) as server, open_http(server.url) as client:
        for together in rounds:
            async with trio.open_nursery() as nursery:
                for number, asked in enumerate(together):
                    nursery.start_soon(ask, number, asked)
            served.clear()
            assert stack_of(client).open_count == stack_of(client).idle_count


async def test_a_reset_is_a_network_error() -> None:
    """In the middle of an answer."""
    heard = trio.Event()

    async def serve(line: Line) -> None:
        await line.read_request()
        await line.send(CHUNKED + chunk(b"a"))
        await heard.wait()
        line.reset()

    async with open_loopback(serve) as server, open_http(server.url) as client:
        async with client.post_stream("/x", b"") as answer:
            assert await answer.receive() == b"a"
            heard.set()
            with pytest.raises(NetworkError, match="ended before the answer did"):
                await answer.receive()
        assert stack_of(client).open_count == 0


async def test_an_answer_to_a_request_that_was_not_read_is_heard() -> None:
    """A server that refuses a body closes before it has read it."""

    async def serve(line: Line) -> None:
        await line.stream.receive_some(100)
        await line.send(whole(b"too large", status=413))
        await line.stream.send_eof()
        await line.wait_gone()

    async with (
        open_loopback(serve) as server,
        open_http(server.url) as client,
        client.post_stream("/x", b"x" * 4_000_000) as answer,
    ):
        assert answer.status == 413
        assert await answer.receive_all() == b"too large"


async def test_the_explanation_of_an_error_is_bounded() -> None:
    """A server may explain itself without end."""

    async def serve(line: Line) -> None:
        await line.read_request()
        await line.send(head(500, {"transfer-encoding": "chunked"}))
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await line.stream.send_all(chunk(b"x" * 50_000))

    async with open_loopback(serve) as server, open_http(server.url) as client:
        status, body = await client.get("/props")
    assert (status, len(body)) == (500, 64 * 1024)


async def test_get_has_no_body() -> None:
    """And goes through the same door."""
    async with open_loopback(always(whole(b"facts"))) as server, open_http(server.url) as client:
        assert await client.get("/props") == (200, b"facts")
    assert server.requests[0].startswith(b"GET /v1/props HTTP/1.1")


async def test_nobody_listens() -> None:
    """The place is named."""
    async with open_loopback(always(EMPTY)) as server:
        pass
    async with open_http(server.url) as client:
        says = rf"cannot connect to 127.0.0.1:{server.port}: .*; start the server there: `agentpool"
        with pytest.raises(NetworkError, match=says):
            await post(client)


async def test_nobody_listens_at_another_address_of_this_machine() -> None:
    """There is no advice about a server that the reader has not named as such."""
    async with open_loopback(always(EMPTY)) as server:
        pass
    async with open_http(f"http://127.0.0.9:{server.port}") as client:
        with pytest.raises(NetworkError, match=r"cannot connect to 127\.0\.0\.9:\d+: [^;]*$"):
            await post(client)


async def test_connecting_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS to a server that says nothing would hang for ever."""
    monkeypatch.setattr(_http_stack, "CONNECT_SECONDS", 0.05)

    async def serve(line: Line) -> None:
        await line.wait_gone()

    async with (
        open_loopback(serve) as server,
        open_http(f"https://127.0.0.1:{server.port}") as client,
    ):
        with pytest.raises(NetworkError, match=r"no connection to .* within 0\.05 seconds"):
            await post(client)


async def test_tls_with_somebody_who_has_none() -> None:
    """The reason is said."""
    context = ssl.create_default_context()

    async def serve(line: Line) -> None:
        await line.send(b"HTTP/1.1 400 Plain\r\n\r\n")
        await line.wait_gone()

    async with (
        open_loopback(serve) as server,
        open_http(f"https://127.0.0.1:{server.port}", verify=context) as client,
    ):
        with pytest.raises(NetworkError, match="TLS handshake with"):
            await post(client)


async def test_tls() -> None:
    """Checked against the authority that was given, and kept for the next request."""
    pem = Path(__file__).parent / "wire" / "tls" / "loopback.pem"
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(pem)

    async def serve(line: Line) -> None:
        tls = trio.SSLStream(line.stream, there, server_side=True)
        with contextlib.suppress(trio.BrokenResourceError):
            while await tls.receive_some():
                await tls.send_all(whole(b"hi"))

    async with open_loopback(serve) as server:
        url = f"https://127.0.0.1:{server.port}"
        async with open_http(url, verify=ssl.create_default_context(cafile=pem)) as client:
            assert [await post(client) for _ in range(3)] == [b"hi"] * 3
            assert stack_of(client).idle_count == 1
        assert len(server.lines) == 1
        async with open_http(url) as strict:
            with pytest.raises(NetworkError, match="CERTIFICATE_VERIFY_FAILED"):
                await post(strict)


@attrs.define(eq=False)
class HeldBack(trio.abc.Stream):
    """A stream that sends what it was given when it is told to, all at once."""

    inner: trio.SocketStream
    held: bytearray | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*, or keep it."""
        if self.held is None:
            await self.inner.send_all(data)
        else:
            await trio.lowlevel.checkpoint()
            self.held += data

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return what came."""
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close it."""
        await self.inner.aclose()

    async def let_go(self) -> None:
        """Send what was kept."""
        held, self.held = self.held or bytearray(), None
        await self.inner.send_all(held)


@pytest.mark.parametrize("extra", [whole(b"SMUGGLED"), b"x", whole(b"SMUGGLED") * 900])
async def test_a_second_answer_over_tls_is_no_answer_to_the_next_request(extra: bytes) -> None:
    """Two records in one segment: the second waits between TLS and us, and not in the socket."""
    pem = Path(__file__).parent / "wire" / "tls" / "loopback.pem"
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(pem)

    async def serve(line: Line) -> None:
        below = HeldBack(line.stream)
        tls = trio.SSLStream(below, there, server_side=True)
        with contextlib.suppress(trio.BrokenResourceError):
            while await tls.receive_some():
                below.held = bytearray()
                await tls.send_all(whole(b"hi"))
                await tls.send_all(extra)
                await below.let_go()

    async with open_loopback(serve) as server:
        url = f"https://127.0.0.1:{server.port}"
        async with open_http(url, verify=ssl.create_default_context(cafile=pem)) as client:
            assert [await post(client) for _ in range(3)] == [b"hi"] * 3
        assert len(server.lines) == 3


IN_CHUNKS = CHUNKED + chunk(b"mi") + chunk(b"ne") + chunk(b"")


@pytest.mark.parametrize(
    ("answer", "said"), [(whole(b"mine"), b"mine"), (EMPTY, b""), (IN_CHUNKS, b"mine")]
)
@pytest.mark.parametrize("forged", [whole(b"forged"), chunk(b"forged")])
async def test_bytes_after_the_end_are_no_answer_to_the_next_request(
    answer: bytes, said: bytes, forged: bytes
) -> None:
    """Whoever can add them could answer for the provider."""
    async with (
        open_loopback(always(answer + forged)) as server,
        open_http(server.url) as client,
    ):
        assert [await post(client) for _ in range(3)] == [said] * 3
        assert len(server.lines) == 3


@pytest.mark.parametrize("cut", range(0, len(IN_CHUNKS) + 1, 3))
async def test_an_answer_in_chunks_is_whole_wherever_it_is_cut(cut: int) -> None:
    """Within its head, between head and body, within a chunk; behind a head that says to wait."""

    async def serve(line: Line) -> None:
        while await line.read_request():
            await line.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + IN_CHUNKS[:cut])
            await wait_all_tasks_blocked(0.001)
            await line.send(IN_CHUNKS[cut:])

    async with open_loopback(serve) as server, open_http(server.url) as client:
        assert [await post(client) for _ in range(2)] == [b"mine"] * 2
        assert len(server.lines) == 1


async def test_bytes_while_idle_are_no_answer_to_the_next_request() -> None:
    """The same, a little later."""

    async def serve(line: Line) -> None:
        await line.read_request()
        await line.send(whole(b"mine"))
        await wait_all_tasks_blocked()
        await line.send(whole(b"forged"))
        await line.wait_gone()

    async with open_loopback(serve) as server, open_http(server.url) as client:
        for _ in range(3):
            assert await post(client) == b"mine"
            await wait_all_tasks_blocked(0.01)
        assert len(server.lines) == 3


async def test_old_idle_connections_are_closed() -> None:
    """From the bottom of the stack, when one is put on top."""
    async with open_loopback(always(EMPTY)) as server, open_http(server.url) as client:
        stack = stack_of(client)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(post, client)
        for connection in stack._open:
            connection.idle_since -= 61
        await post(client)
        assert (stack.idle_count, stack.open_count) == (1, 1)


async def test_an_answer_may_outlive_the_client_but_not_its_connection() -> None:
    """Closed with the client, busy or not."""
    async with open_loopback(always(CHUNKED, chunk(b"a"))) as server:
        async with open_http(server.url) as client:
            context = client.post_stream("/x", b"")
            answer = await context.__aenter__()
            await answer.receive()
        assert stack_of(client).open_count == 0
        await context.__aexit__(None, None, None)
        assert (stack_of(client).open_count, stack_of(client).idle_count) == (0, 0)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:80", "ftp://host/", "http://", "http://[::1", "http://user:hunter22@host/"],
)
async def test_a_url_that_cannot_be_used(url: str) -> None:
    """Said when it is opened, and without the password."""
    with pytest.raises(UsageError) as caught:
        async with open_http(url):
            pass
    assert "hunter22" not in str(caught.value)
    assert "base_url" in str(caught.value)


@pytest.mark.parametrize("shape", ["{}\n", "{}ä", " {}", "sk-\x00{}"])
async def test_a_header_that_cannot_be_sent(shape: str) -> None:
    """A key with a newline, from a file: the header is named, its value is not."""
    with pytest.raises(UsageError, match="'authorization'") as caught:
        async with open_http("http://127.0.0.1:1", headers={"authorization": shape.format(KEY)}):
            pass
    assert KEY not in str(caught.value)


async def test_a_header_name_that_cannot_be_sent() -> None:
    """h11 quotes what it refuses; we do not."""
    async with open_http("http://127.0.0.1:1", headers={"bad name": KEY}) as client:
        with pytest.raises(BadRequestError) as caught:
            await post(client)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_the_stack_is_an_httpx_transport() -> None:
    """Whoever wants it elsewhere gives it to a client of httpx."""
    transport = StackTransport()
    async with (
        open_loopback(always(whole(b"hi"))) as server,
        httpx.AsyncClient(transport=transport) as client,
    ):
        for _ in range(2):
            assert (await client.post(f"{server.url}/x", content=b"")).text == "hi"
        assert transport.open_count == 1
        with pytest.raises(httpx.ConnectError):
            await client.post("http://127.0.0.1:1/x")
    assert transport.open_count == 0


async def test_any_httpx_transport_can_take_its_place() -> None:
    """It is the caller's, and stays open."""

    class Counting(httpx.MockTransport):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    transport = Counting(lambda request: httpx.Response(201, content=request.content))
    async with (
        open_http("https://nowhere.example", transport=transport) as client,
        client.post_stream("/x", b"echo") as answer,
    ):
        assert answer.status == 201
        assert not answer.has_ended
        assert await answer.receive_all() == b"echo"
    assert transport.closed == 0


async def test_a_proxy_is_left_to_httpx() -> None:
    """It knows them; ours does not."""
    async with (
        open_loopback(always(whole(b"by proxy"))) as server,
        open_http("http://nowhere.example/v1", proxy=f"http://127.0.0.1:{server.port}") as client,
    ):
        assert await post(client) == b"by proxy"
    assert server.requests[0].startswith(b"POST http://nowhere.example/v1/x HTTP/1.1\r\n")


def errors_of(module: object) -> list[type[Exception]]:
    """Return the exception classes in *module*."""
    return [
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Exception)
    ]


@pytest.mark.parametrize(
    "kind",
    errors_of(httpx) + errors_of(httpcore),
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
def test_every_foreign_error_has_one_of_ours(kind: type[Exception]) -> None:
    """None of httpx's or httpcore's gets past the door."""
    error = kind.__new__(kind)
    error.args = ("said so",)
    with pytest.raises(DriverError) as caught:
        raise_as_driver_error(error)
    if issubclass(kind, httpx.TimeoutException | httpx.NetworkError):
        assert caught.value.retryable


def test_errors_of_nobody_we_know_are_left_alone() -> None:
    """A bug in a transport of the user's own is shown as what it is."""
    with pytest.raises(ZeroDivisionError):
        raise_as_driver_error(ZeroDivisionError())
    with pytest.raises(NetworkError, match="Server disconnected"):
        raise_as_driver_error(httpx.RemoteProtocolError("Server disconnected"))


# --- the stack below a client of httpx's -----------------------------------


async def test_what_goes_wrong_below_a_client_of_httpx_is_an_error_of_httpx() -> None:
    """Whoever brings a client has written handlers for its errors."""
    stack = StackTransport(ssl.create_default_context())
    async with (
        open_loopback(always(b"220 ftp ready\r\n\r\n")) as server,
        httpx.AsyncClient(transport=stack) as client,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(server.url)
        with pytest.raises(httpx.LocalProtocolError) as caught:
            await client.get(server.url, headers={"x-key": f"{KEY}\n"})
        assert KEY not in str(caught.value)
    assert len(server.lines) == 1
