"""The tool that asks web servers, on real sockets of this machine."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import json
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from agentpool import Capability, PrivacyTier
from agentpool.abc import ToolContext, ToolResult
from agentpool.testing import check_tool, lone_context
from agentpool.tools import ToolRegistry, http_tools
from agentpool.tools.builtin._http_request import CHARSETS, MAX_READ_BYTES
from tests.support.processes import open_files

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Answer = bytes | Callable[[Stream], Awaitable[None]]


class Site:
    """A server that gives its answers in turn, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        """Take the answers."""
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.port = 0
        self.names: list[str | None] = []
        """What TLS clients said whom they mean."""

    async def serve(self, stream: Stream) -> None:
        """Answer one request."""
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                piece = await stream.receive_some()
                if not piece:
                    return
                data += piece
            self.requests.append(data)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            try:
                if isinstance(answer, bytes):
                    await stream.send_all(answer)
                else:
                    await answer(stream)
            except trio.BrokenResourceError:
                pass


@asynccontextmanager
async def site(*answers: Answer) -> AsyncGenerator[Site]:
    """Open a site on this machine."""
    here = Site(*answers)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, here.serve, 0, host="127.0.0.1"))
        here.port = listener.socket.getsockname()[1]
        yield here
        nursery.cancel_scope.cancel()


def page(body: bytes, kind: str = "text/plain", status: int = 200, more: str = "") -> bytes:
    """Return an answer."""
    return (
        f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    ).encode() + body


def to(url: str, status: int = 302) -> bytes:
    """Return a redirect."""
    return page(b"", status=status, more=f"location: {url}\r\n")


async def ask(*hosts: str, also: tuple[str, ...] = (), **arguments: object) -> ToolResult:
    """Call the tool."""
    (http,) = http_tools(*hosts, also_headers=also)
    return await http.run(json.dumps(arguments), lone_context())


class Names(trio.abc.HostnameResolver):
    """A name server that gives its answers in turn, the last one for ever; or knows none."""

    def __init__(self, *answers: list[str]) -> None:
        """Take the answers."""
        self.answers = list(answers)
        self.asked = 0

    async def getaddrinfo(self, _: object, port: object, *__: object) -> Any:  # noqa: ANN401  # as in trio
        """Return the next answer."""
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if not self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "nobody has that name")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "", (a, port)) for a in answer]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        """Say nothing: nobody asks."""
        raise NotImplementedError


def names_are_no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trio see that a name is none, before it asks its resolver."""
    guarded = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as in socket
        if str(host).endswith("example"):  # trio asks first whether it is an address
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return guarded(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@asynccontextmanager
async def tls_site(answer: bytes, *names: str) -> AsyncGenerator[tuple[Site, ssl.SSLContext]]:
    """Open a site whose certificate has these names; yield what trusts it as well."""
    authority = trustme.CA()
    context, trust = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    authority.issue_cert(*names).configure_cert(context)
    authority.configure_trust(trust)
    here = Site(answer)
    context.sni_callback = lambda _, name, __: here.names.append(name)

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        with contextlib.suppress(trio.BrokenResourceError):
            await here.serve(tls)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        here.port = listener.socket.getsockname()[1]
        yield here, trust
        nursery.cancel_scope.cancel()


async def ask_tls(trust: ssl.SSLContext, url: str, *hosts: str) -> ToolResult:
    """Call the tool, which trusts nobody else."""
    (http,) = http_tools(*hosts, tls=trust)
    return await http.run(json.dumps({"url": url}), lone_context())


async def test_a_page_is_read() -> None:
    """Status, type and text; what is sent is what was asked for and no more."""
    async with site(page("h\u00e9llo".encode())) as web:
        host = f"127.0.0.1:{web.port}"
        result = await ask(host, url=f"http://{host}/a?b=c", headers={"Accept": "text/plain"})
    assert result == ToolResult("HTTP 200\ncontent-type: text/plain\n\nh\u00e9llo")
    lines = web.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /a?b=c HTTP/1.1"
    names = sorted(line.partition(":")[0].lower() for line in lines[1:] if line)
    assert names == [
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "host",
        "user-agent",
    ]


async def test_a_user_name_in_the_url_is_refused() -> None:
    """``https://allowed.com:x@evil.com/`` was taken for allowed.com."""
    for url in ("https://allowed.com:secret@evil.com/", "https://allowed.com:443@169.254.169.254/"):
        result = await ask("allowed.com", url=url)
        assert result.is_error
        assert "user name" in result.content
        assert "secret" not in result.content


async def test_a_redirect_to_a_private_address_is_refused() -> None:
    """Every hop is judged; the second server is not even connected to."""
    async with site(page(b"secret")) as inside:
        for url in (f"http://127.0.0.1:{inside.port}/", f"http://localhost:{inside.port}/",
                    "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd",
                    f"http://[::ffff:127.0.0.1]:{inside.port}/"):  # fmt: skip
            async with site(to(url)) as web:
                host = f"127.0.0.1:{web.port}"
                result = await ask("*", host, url=f"http://{host}/")
            assert result.is_error, result.content
    assert inside.requests == []


async def test_a_host_that_is_not_named_is_not_even_looked_up() -> None:
    """Neither as the first one nor after a redirect: a lookup tells somebody as well."""
    names = Names(["8.8.8.8"])
    trio.socket.set_custom_hostname_resolver(names)
    async with site(to("http://evil.example/?secret")) as web:
        host = f"127.0.0.1:{web.port}"
        for url in ("http://evil.example/", f"http://{host}/"):
            result = await ask(host, "good.example", url=url)
            assert result.is_error
            assert "host 'evil.example' is not in allowed_hosts" in result.content
    assert names.asked == 0


async def test_a_redirect_within_what_is_allowed_is_followed() -> None:
    """A POST becomes a GET without its body; the page says where it came from."""
    async with site(to("/there"), page(b"here I am")) as web:
        host = f"127.0.0.1:{web.port}"
        result = await ask(host, url=f"http://{host}/", method="POST", body="x")
    assert result.content.startswith(f"HTTP 200\nfrom http://{host}/there\n")
    assert web.requests[1].startswith(b"GET /there ")
    assert b"content-length: 0" in web.requests[1]


async def test_a_deed_has_the_name_of_its_call_if_there_is_a_journal() -> None:
    """Without one another process would have the same names for other calls."""
    agent = lone_context().agent
    kept, loose = ToolContext(agent, "c", "key-7", 3), ToolContext(agent, "c", "key-7")
    async with site(to("/b"), page(b"done")) as there:
        (http,) = http_tools(f"127.0.0.1:{there.port}")
        url = f"http://127.0.0.1:{there.port}/a"
        for method, context in (("POST", kept), ("GET", kept), ("POST", loose)):
            arguments = json.dumps({"url": url, "method": method, "body": ""})
            assert not (await http.run(arguments, context)).is_error
    named = [b"\r\nidempotency-key: key-7\r\n" in one.lower() for one in there.requests]
    # The redirect asks for a page, and does nothing.
    assert named == [True, False, False, False]


async def test_the_name_of_a_call_is_not_the_model_s_to_choose() -> None:
    """Also where its manifest lets it send that header: a second deed would pass for the first."""
    kept = ToolContext(lone_context().agent, "c", "key-7", 3)
    async with site(page(b"done")) as there:
        host = f"127.0.0.1:{there.port}"
        (http,) = http_tools(host, also_headers=["Idempotency-Key"])
        headers = {"Idempotency-Key": "mine"}
        arguments = json.dumps({"url": f"http://{host}/", "method": "POST", "headers": headers})
        assert not (await http.run(arguments, kept)).is_error
    (asked,) = there.requests
    assert b"\r\nidempotency-key: key-7\r\n" in asked
    assert b"mine" not in asked


async def test_a_redirect_from_tls_to_plain_http_is_refused() -> None:
    """What was kept from everybody on the way would be open from there on."""
    async with site(page(b"open")) as plain:
        there = f"127.0.0.1:{plain.port}"
        async with tls_site(to(f"http://{there}/"), "127.0.0.1") as (web, trust):
            here = f"127.0.0.1:{web.port}"
            result = await ask_tls(trust, f"https://{here}/", here, there)
    assert "redirects to http, which is not encrypted" in result.content
    assert plain.requests == []


async def test_redirects_have_an_end() -> None:
    """A circle of them is an error."""
    async with site(to("/", 307)) as web:
        host = f"127.0.0.1:{web.port}"
        result = await ask(host, url=f"http://{host}/")
    assert result.is_error
    assert "more than 5 redirects" in result.content
    assert len(web.requests) == 6


async def test_a_name_server_that_changes_its_answer_wins_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: it is asked once, and what it said is what is connected to."""
    names_are_no_addresses(monkeypatch)
    async with site(page(b"secret")) as inside:
        names = Names(["127.0.0.1"])
        trio.socket.set_custom_hostname_resolver(names)
        result = await ask("rebind.example", "*", url=f"http://rebind.example:{inside.port}/")
        assert result.is_error
        assert "not a public address" in result.content
        both = Names(["8.8.8.8", "127.0.0.1"])
        trio.socket.set_custom_hostname_resolver(both)
        result = await ask("*", url=f"http://rebind.example:{inside.port}/")
        assert "not a public address" in result.content
        # The first answer is allowed, a second one would not be.
        names = Names(["127.0.0.1"], ["8.8.8.8"])
        trio.socket.set_custom_hostname_resolver(names)
        port = inside.port
        result = await ask(
            f"a.example:{port}", f"127.0.0.1:{port}", url=f"http://a.example:{port}/"
        )
        assert result.content.endswith("secret")
        assert names.asked == 1
    assert len(inside.requests) == 1
    assert f"host: a.example:{port}".encode() in inside.requests[0].lower()


async def test_loopback_is_refused_unless_named() -> None:
    """In every way of writing it."""
    async with site(page(b"secret")) as web:
        for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1",  # noqa: S104
                     "[::ffff:127.0.0.1]", "[::]", "127.1"):  # fmt: skip
            assert (await ask("*", url=f"http://{host}:{web.port}/")).is_error
        assert web.requests == []
        host = f"localhost:{web.port}"
        assert (await ask(host, url=f"http://{host}/")).content.endswith("secret")


async def test_an_endless_body_is_left() -> None:
    """It is read as far as anybody needs it, and the connection closed."""

    async def endless(stream: Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 X\r\ncontent-type: text/plain\r\n\r\n")
        while True:
            await stream.send_all("\u00e9".encode() * 10_001)

    async with site(endless) as web:
        host = f"127.0.0.1:{web.port}"
        result = await ask(host, url=f"http://{host}/")
    assert result.content.count("\u00e9") == 16_000
    assert result.content.endswith("or more more characters]")
    assert "\ufffd" not in result.content


@pytest.mark.parametrize("size", [16_000, 16_001, 300_000])
async def test_a_giant_body_is_cut_between_characters(size: int) -> None:
    """Of whatever width; the original cut at a byte, and fell over."""
    async with site(page(b"a" + "\u20ac".encode() * (size - 1))) as web:
        host = f"127.0.0.1:{web.port}"
        result = await ask(host, url=f"http://{host}/")
    assert "\ufffd" not in result.content
    assert ("[cut:" in result.content) == (size > 16_000)


async def test_a_gzip_bomb_is_not_unpacked() -> None:
    """Nobody asked for an encoding."""
    bomb = gzip.compress(b"\0" * 1_000_000)
    async with site(page(bomb, more="content-encoding: gzip\r\n")) as web:
        host = f"127.0.0.1:{web.port}"
        result = await ask(host, url=f"http://{host}/")
    assert result.is_error
    assert "encoded as 'gzip'" in result.content


@pytest.mark.parametrize(
    ("kind", "body", "shown"),
    [
        ("image/png", b"\x89PNG\0\xff", '[no text: 6 bytes of "image/png", not shown]'),
        ("text/plain; charset=latin-1", b"\xe9", "\u00e9"),
        ("text/plain; charset=nonsense", "\u00e9".encode(), "\u00e9"),
        ("text/plain", b"a\xff", "a\ufffd"),
        ("application/problem+json", b"{}", "{}"),
        ("text/plain; charset=utf-16", b"plain", "plain"),
        ("", b"plain", "plain"),
        ("", b"\xff\xfe", '[no text: 2 bytes of "unknown", not shown]'),
        ("text/plain", b"a\0b", '[no text: 3 bytes of "text/plain", not shown]'),
    ],
)
async def test_what_is_no_text_is_described(kind: str, body: bytes, shown: str) -> None:
    """A picture in the conversation helps nobody."""
    async with site(page(body, kind)) as web:
        host = f"127.0.0.1:{web.port}"
        result = await ask(host, url=f"http://{host}/")
    assert result.content.endswith(f"\n\n{shown}")


@pytest.mark.parametrize(
    "charset",
    ["bz2", "zlib", "zip", "hex", "uu", "quopri", "base64", "rot13", "punycode", "idna", "utf-7",
     "unicode_escape", "raw_unicode_escape", "undefined", "utf_8_sig", "mbcs", "oem", "../x",
     "a\tb", "x" * 50_000, "bz2_codec", "PUNYCODE", '"zlib_codec"'],
)  # fmt: skip
@pytest.mark.parametrize("media", ["text/plain", "application/x", ""])
async def test_a_server_does_not_choose_among_pythons_codecs(charset: str, media: str) -> None:
    """177 bytes unpacked to a gigabyte, and 255 KB of punycode took half a minute."""
    bomb = bz2.compress(b"\0" * 1_000_000)
    async with site(page(bomb, f"{media}; charset={charset}")) as web:
        host = f"127.0.0.1:{web.port}"
        result = await ask(host, url=f"http://{host}/")
    assert not result.is_error
    assert len(result.content) < 600
    async with site(page(b"plain -a", f"text/plain; charset={charset}")) as web:
        host = f"127.0.0.1:{web.port}"
        result = await ask(host, url=f"http://{host}/")
    assert result.content.endswith("\n\nplain -a")


@pytest.mark.parametrize("charset", sorted(CHARSETS))
def test_the_most_that_is_read_is_decoded_at_once(charset: str) -> None:
    """Whatever the bytes are: it is done in the loop, where nothing else happens meanwhile."""
    decoder = codecs.getincrementaldecoder(charset)
    for piece in (b"a", b"-", b"\xff", b"\x1b", b"\xd8\x00", bytes(range(256))):
        data = (piece * MAX_READ_BYTES)[:MAX_READ_BYTES]
        begin = time.thread_time()
        with contextlib.suppress(UnicodeError):  # no mark of its order at the beginning
            decoder("replace").decode(data, final=True)
        assert time.thread_time() - begin < 0.2


@pytest.mark.parametrize(
    ("name", "text"), [("Shift-JIS", "\u732b"), ("windows-1251", "\u0436"), ("GB18030", "\u732b"),
                       ("KOI8-R", "\u0436"), ("euc-kr", "\uac00"), ("ISO-8859-2", "\u0151"),
                       ("utf-16", "\u732b"), ("Big5", "\u8c93"), ("UTF8", "\u732b")],
)  # fmt: skip
async def test_the_charsets_of_the_web_are_read(name: str, text: str) -> None:
    """By any of their usual names."""
    async with site(page(text.encode(name), f"text/html; charset={name}")) as web:
        host = f"127.0.0.1:{web.port}"
        result = await ask(host, url=f"http://{host}/")
    assert result.content.endswith(f"\n\n{text}")


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"authorization": "x"}, {"Cookie": "a=b"}, {"X-Forwarded-For": "1"},
     {"accept": "a\r\nhost: b"}, {"accept": "\u00e9"}, {f"h{n}": "x" for n in range(21)}],
)  # fmt: skip
async def test_headers_are_few(headers: dict[str, str]) -> None:
    """Those that speak for somebody else, or lie about the request, are refused."""
    result = await ask("127.0.0.1", url="http://127.0.0.1/", headers=headers)
    assert result.is_error
    assert "header" in result.content


async def test_more_headers_can_be_allowed_but_not_for_another_host() -> None:
    """A key that was meant for one server is not carried to the next; Host never."""
    async with site(page(b"x")) as second:  # noqa: SIM117  # the one needs the other's port
        async with site(to(f"http://127.0.0.1:{second.port}/")) as first:
            a, b = f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"
            result = await ask(a, b, also=("Authorization", "Host"), url=f"http://{a}/",
                               headers={"authorization": "k"})  # fmt: skip
            assert not result.is_error
            host = await ask(a, also=("Host",), url=f"http://{a}/", headers={"host": "b"})
    assert host.is_error
    assert b"authorization: k" in first.requests[0]
    assert b"authorization" not in second.requests[0]


async def test_what_is_not_http_is_an_error_and_so_is_nobody() -> None:
    """Both are told to the model."""

    async def hang_up(stream: Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhalf")

    async with site(b"220 ftp ready\r\n\r\n", hang_up) as web:
        host = f"127.0.0.1:{web.port}"
        assert "is not HTTP" in (await ask(host, url=f"http://{host}/")).content
        assert "broke" in (await ask(host, url=f"http://{host}/")).content
    assert "cannot connect" in (await ask(host, url=f"http://{host}/")).content


async def test_tls_is_about_the_name_and_the_connection_about_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server is told the name, its certificate is checked for it, and DNS is asked once."""
    names_are_no_addresses(monkeypatch)
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    async with tls_site(page(b"secret"), "api.example") as (web, trust):
        trio.socket.set_custom_hostname_resolver(names)
        url = f"https://api.example:{web.port}/"
        result = await ask_tls(trust, url, f"api.example:{web.port}", f"127.0.0.1:{web.port}")
    assert result.content.endswith("secret"), result
    assert web.names == ["api.example"]
    assert names.asked == 1


async def test_a_certificate_for_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one for the address to which the connection went; nothing is sent."""
    names_are_no_addresses(monkeypatch)
    async with tls_site(page(b"secret"), "other.example", "127.0.0.1") as (web, trust):
        trio.socket.set_custom_hostname_resolver(Names(["127.0.0.1"]))
        url = f"https://api.example:{web.port}/"
        result = await ask_tls(trust, url, f"api.example:{web.port}", f"127.0.0.1:{web.port}")
    assert result.is_error
    assert "certificate verify failed" in result.content
    assert web.requests == []


async def test_a_certificate_nobody_vouches_for_is_refused() -> None:
    """The name alone is not a proof."""
    async with tls_site(page(b"secret"), "127.0.0.1") as (web, _):
        result = await ask(f"127.0.0.1:{web.port}", url=f"https://127.0.0.1:{web.port}/")
    assert "certificate verify failed" in result.content
    assert web.requests == []


async def test_a_host_that_nobody_knows_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model can correct a name; an error of sockets it could not."""
    names_are_no_addresses(monkeypatch)
    trio.socket.set_custom_hostname_resolver(Names())
    result = await ask("api.example", url="http://api.example/")
    assert result.is_error
    assert "the host 'api.example' cannot be found" in result.content


async def test_an_address_that_leads_to_another_one_is_refused() -> None:
    """The system takes 0.0.0.0 for this machine: who is really there is looked at as well."""
    async with site(page(b"secret")) as web:
        host = f"0.0.0.0:{web.port}"
        result = await ask(host, url=f"http://{host}/")
    assert result.is_error
    assert "127.0.0.1" in result.content
    assert web.requests == []


async def test_a_server_that_is_silent_at_the_handshake_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The connection is there and nothing comes; each address has its time."""

    async def keep_silent(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass

    async with trio.open_nursery() as nursery:
        opening = partial(trio.serve_tcp, keep_silent, 0, host="127.0.0.1")
        (listener,) = await nursery.start(opening)
        host = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        result = await ask(host, url=f"https://{host}/")
        nursery.cancel_scope.cancel()
    assert f"cannot connect to {host}: 127.0.0.1: no connection in 10 seconds" in result.content


class CancelBefore(trio.abc.Instrument):
    """Cancels a scope before the so-many-th step of the task that made this."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        """Take both."""
        self.steps, self.scope = steps, scope
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count."""
        if task is self.task:
            self.steps -= 1
            if not self.steps:
                self.scope.cancel()


async def test_a_request_that_is_given_up_leaves_no_socket() -> None:
    """At whichever step: the connection, the handshake, the head, the body."""
    points = 0
    async with tls_site(page(b"secret"), "127.0.0.1") as (web, trust):
        host, done = f"127.0.0.1:{web.port}", False
        while not done:
            await wait_all_tasks_blocked()
            before = open_files()
            with trio.CancelScope() as scope:
                instrument = CancelBefore(points + 1, scope)
                trio.lowlevel.add_instrument(instrument)
                await ask_tls(trust, f"https://{host}/", host)
                done = instrument.steps > 0
            trio.lowlevel.remove_instrument(instrument)
            points += 1
            # The server's end goes when it has seen that ours is gone.
            with trio.fail_after(10):
                while open_files() != before:
                    await wait_all_tasks_blocked(0.001)
    assert points > 5


async def test_the_tool_keeps_its_contract() -> None:
    """A good call, bad ones, and a cancelled one."""
    async with site(page(b"x")) as web:
        host = f"127.0.0.1:{web.port}"
        (http,) = http_tools(host)
        await check_tool(lambda: http, arguments=json.dumps({"url": f"http://{host}/"}))
        assert http.timeout_seconds == 30


def test_sovereign_agents_never_get_it() -> None:
    """Whatever was granted; and others only what was."""
    registry = ToolRegistry(http_tools("a.example"))
    grants = (Capability.network("a.example"),)
    assert registry.refusal("http_request", grants, PrivacyTier.SOVEREIGN)
    assert registry.refusal("http_request", grants, PrivacyTier.PRIVATE) is None
    assert registry.refusal("http_request", (Capability.network("b"),), PrivacyTier.PRIVATE)
