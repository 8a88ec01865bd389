"""Answers are read the same wherever they are cut, as h11 reads them, and never past their end."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, TypeAlias

import h11
import httptools
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from agentpool._answer_parser import AnswerHead, AnswerParser, BadAnswerError
from tests.support.http_servers import CHUNKED, chunk, head, whole
from tests.support.keys import KEY, find_key

OK: Final = b"HTTP/1.1 200 OK\r\n"
TWO: Final = b"content-length: 2\r\n\r\nok"

Heard: TypeAlias = tuple[AnswerHead | None, bytes, bool, str]
"""The head, the body so far, whether that is all of it, and why it was refused."""


def expecting(*, has_body: bool = True) -> AnswerParser:
    """Return a parser that expects an answer."""
    parser = AnswerParser()
    parser.begin(has_body=has_body)
    return parser


def heard(parser: AnswerParser, pieces: Sequence[bytes], *, is_end: bool = False) -> Heard:
    """Return what is known after *pieces*, and after the end of the connection if *is_end*."""
    body, why = b"", ""
    try:
        for piece in pieces:
            parser.refuse_broken()
            parser.feed(piece)
            body += parser.take()
        parser.refuse_broken()
    except BadAnswerError as error:
        body += parser.take()
        why = str(error)
    if is_end and not why and not parser.end():
        why = "cut"
    return parser.head, body, parser.has_ended, why


def cut(data: bytes, at: Sequence[float]) -> list[bytes]:
    """Return *data* in pieces, as it may arrive."""
    places = [0, *sorted(int(place * len(data)) for place in at), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


CUTS: Final = st.lists(st.floats(0, 1), max_size=12)


@pytest.mark.parametrize(
    ("answer", "headers", "body"),
    [
        (OK + TWO, 0, b"ok"),
        (b"HTTP/1.1 200\r\n" + TWO, 0, b"ok"),
        (OK + b"X-Name:  a b \t\r\n" + TWO, {b"x-name": b"a b"}, b"ok"),
        (OK + b"x:\r\n" + TWO, {b"x": b""}, b"ok"),
        (OK + b"x: \xff\r\n" + TWO, {b"x": b"\xff"}, b"ok"),
        (OK + b"x: a\r\n\tb\r\n  c\r\n" + TWO, {b"x": b"a\tb  c"}, b"ok"),
        ((OK + b"x: a\r\n" + TWO).replace(b"\r\n", b"\n"), {b"x": b"a"}, b"ok"),
        (OK + b"connection: upgrade\r\nupgrade: h2c\r\n" + TWO, {b"upgrade": b"h2c"}, b"ok"),
        (b"HTTP/1.1 103 Hints\r\nlink: a\r\n\r\n" + OK + TWO, 0, b"ok"),
        (b"HTTP/1.1 102 Wait\r\nconnection: close\r\n\r\n" + OK + TWO, 0, b"ok"),
        (head(204, {}), 0, b""),
        (head(304, {"content-length": "2"}), {b"content-length": b"2"}, b""),
        (CHUNKED + chunk(b"o") + chunk(b"k") + chunk(b""), 0, b"ok"),
        (CHUNKED + b"02 \r\nok\r\n0\r\n\r\n", 0, b"ok"),
        (CHUNKED + b'2;a="b"\r\nok\r\n0;c\r\n\r\n', 0, b"ok"),
        (CHUNKED + b"2\r\nok\r\n0\r\nx-name: v\r\n\r\n", 0, b"ok"),
        (OK + b"Transfer-Encoding:\r\n Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 0, b"ok"),
    ],
)
def test_whole_answers(answer: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
    """Whole at any cut, with what follows untouched; and another may come behind them."""
    for at in range(len(answer) + 1):
        parser = expecting()
        found, came, has_ended, why = heard(parser, [answer[:at], answer[at:]])
        assert (came, has_ended, why) == (body, True, "")
        assert found is not None
        assert (headers or {}).items() <= dict(found.headers).items()
        assert b"x-name" in dict(found.headers) or b"x-name" not in (headers or {})
        assert parser.can_go_on
        parser.begin(has_body=True)
        assert heard(parser, [whole(b"next")])[1:] == (b"next", True, "")


@pytest.mark.parametrize(
    ("answer", "body", "is_whole"),
    [
        (OK + b"\r\n", b"", True),
        (OK + b"\r\nok", b"ok", True),
        (OK + b"connection: keep-alive\r\n\r\nok", b"ok", True),
        (b"HTTP/1.0 200 OK\r\n\r\nok", b"ok", True),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n" + TWO, b"ok", True),
        (OK + b"connection: Keep-Alive, Close\r\n" + TWO, b"ok", True),
        (b"", b"", False),
        (OK, b"", False),
        (head(103, {}), b"", False),
        (head(200, {"content-length": "3"}) + b"ok", b"ok", False),
        (CHUNKED + chunk(b"ok"), b"ok", False),
        (CHUNKED + chunk(b"ok") + b"0\r\n", b"ok", False),
        (CHUNKED + b"3\r\nok", b"ok", False),
    ],
)
def test_the_end_of_the_connection(answer: bytes, body: bytes, *, is_whole: bool) -> None:
    """It ends an answer that says no length, and cuts any other; nothing can follow."""
    for at in range(len(answer) + 1):
        parser = expecting()
        _, came, has_ended, why = heard(parser, [answer[:at], answer[at:]], is_end=True)
        assert (came, has_ended, bool(why)) == (body, is_whole, not is_whole)
        assert not parser.can_go_on or not has_ended


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"http/1.1 200 OK\r\n" + TWO,
        b"HTTP/1.1 99 OK\r\n" + TWO,
        b"HTTP/1.1 099 OK\r\n" + TWO,
        b"HTTP/1.1 1000 OK\r\n" + TWO,
        b"HTTP/1.7 200 OK\r\n" + TWO,
        head(101, {"connection": "upgrade", "upgrade": "x"}),
        head(101, {}),
        head(103, {}) * 17 + OK + TWO,
        # How long they are can be read in two ways.
        head(104, {"content-length": "9"}) + OK + TWO,
        head(100, {"transfer-encoding": "chunked"}) + OK + TWO,
        OK + b"content-length: 2\r\n" + TWO,
        OK + b"content-length: 3\r\n" + TWO,
        OK + b"content-length : 2\r\n\r\nok",
        OK + b"content-length: 2, 2\r\n\r\nok",
        OK + b"content-length: 1\r\n 2\r\n\r\nok",
        OK + b"content-length: +2\r\n\r\nok",
        OK + b"content-length: 0x2\r\n\r\nok",
        OK + b"content-length:\r\n\r\nok",
        OK + b"content-length: 99999999999999999999\r\n\r\nok",
        OK + b"transfer-encoding: chunked\r\n" + TWO,
        OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        *(
            OK + b"transfer-encoding: %b\r\n\r\n0\r\n\r\n" % coding
            for coding in (
                b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"identity", b"gzip",
                b"xchunked", b"chunked;q=1", b"", b"chunked\r\n ", b"chun\r\n ked", b"\x0bchunked",
            )
        ),
        CHUNKED + b"2\nok\r\n0\r\n\r\n",
        CHUNKED + b"2;a\nok\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nok\n0\r\n\r\n",
        CHUNKED + b"2\r\nok0\r\n\r\n",
        CHUNKED + b"2\r\nokk\r\n0\r\n\r\n",
        CHUNKED + b"-2\r\nok\r\n",
        CHUNKED + b"0x2\r\nok\r\n",
        CHUNKED + b"fffffffffffffffff\r\n",
        CHUNKED + b"0\r\nx: y\n\r\n",
        CHUNKED + b"0\r\nbad\r\n\r\n",
        OK + b"bad\r\n" + TWO,
        OK + b": x\r\n" + TWO,
        OK + b"x : y\r\n" + TWO,
        OK + b"x\0: y\r\n" + TWO,
        OK + b"x: y\0z\r\n" + TWO,
        OK + b"x: y\rz\r\n" + TWO,
    ],
)  # fmt: skip
def test_what_is_refused(answer: bytes) -> None:
    """Wherever it is cut. Where two readers could disagree on its end, neither is believed."""
    for at in range(len(answer) + 1):
        _, body, has_ended, why = heard(expecting(), [answer[:at], answer[at:]])
        assert why
        assert not has_ended
        assert body in {b"", b"ok"}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/2 200 OK\r\n" + TWO, "its version is neither HTTP/1.1 nor HTTP/1.0"),
        (b"HTTP/3.0 200 OK\r\n" + TWO, "its version is neither HTTP/1.1 nor HTTP/1.0"),
        (b"HTTP/x", "its version is neither HTTP/1.1 nor HTTP/1.0"),
        (b"HTTP/1.x", "its version is neither HTTP/1.1 nor HTTP/1.0"),
        (b"HTTP/1.1 OK\r\n" + TWO, "its status is not a number"),
        (b"HTTP/1.1 2000 OK\r\n" + TWO, "its status is not a number"),
        (OK + b"content-length: 2\r\n" + TWO, "it has two Content-Length headers"),
        (OK + b"content-length: +2\r\n\r\nok", "its Content-Length is not a number"),
        (OK + b"content-length:\r\n\r\nok", "its Content-Length is not a number"),
        (
            OK + b"content-length: 99999999999999999999\r\n\r\n",
            "its Content-Length is not a number",
        ),
        (OK + b"transfer-encoding: chunked\r\n" + TWO, "both Content-Length and Transfer-Encoding"),
        (CHUNKED.replace(b"\r\n\r\n", b"\r\n") + TWO, "both Content-Length and Transfer-Encoding"),
        (
            OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
            "both Content-Length and Transfer-Encoding",
        ),
        (OK + b"bad\r\n" + TWO, "one of its headers is not a name, a colon and a value"),
        (CHUNKED + b"0x2\r\nok\r\n", "the size of a chunk is not a hexadecimal number"),
        (CHUNKED + b"2\r\nokk\r\n", "it is not valid HTTP/1.1: Expected LF after chunk data"),
    ],
)
def test_a_refusal_says_what_is_wrong(answer: bytes, says: str) -> None:
    """And not what a state of the parser below expects."""
    assert says in heard(expecting(), [answer])[3]


@pytest.mark.parametrize("unit", [b"x", b"x: y\r\n", b" "])
@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 ", OK, OK + b"x: ", CHUNKED + b"2;a", CHUNKED + b"0\r\n"]
)
@pytest.mark.parametrize("size", [7, 4_000, 64 * 1024])
def test_nothing_grows_without_end(start: bytes, unit: bytes, size: int) -> None:
    """Reasons, headers, extensions, trailers: by small and by large pieces."""
    piece = unit * (size // len(unit) + 1)
    pieces = [start, *[piece] * (2 * 64 * 1024 // len(piece) + 1)]
    _, body, has_ended, why = heard(expecting(), pieces)
    assert (body, has_ended) == (b"", False)
    assert why


@pytest.mark.parametrize("size", [1, 1_000, 64 * 1024])
def test_headers_are_limited_alike_in_all_pieces(size: int) -> None:
    """Whether the last of them come with the end of the head, and a body, or alone."""
    for length, is_good in ((65_000, True), (66_000, False), (120_000, False)):
        answer = OK + b"x: " + b"y" * length + b"\r\n" + TWO
        pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
        found, body, has_ended, why = heard(expecting(), pieces)
        assert (found is not None, body, has_ended) == (is_good, b"ok" * is_good, is_good)
        assert bool(why) is not is_good


def test_empty_lines_are_counted() -> None:
    """A server could send them in place of an answer."""
    why = heard(expecting(), [b"\r\n" * 1_000] * 100)[3]
    assert why == "more than 65536 bytes without any content"


def test_a_long_answer_is_not_counted() -> None:
    """Only what says nothing is."""
    parser = expecting()
    parser.feed(CHUNKED)
    for _ in range(100):
        parser.feed(chunk(b"x" * 10_000))
        assert parser.take() == b"x" * 10_000
    parser.feed(chunk(b""))
    assert parser.has_ended


@pytest.mark.parametrize(
    "answer", [whole(b"body"), CHUNKED + chunk(b"body"), OK + b"\r\nbody", head(200, {})]
)
def test_an_answer_to_head_has_no_body(answer: bytes) -> None:
    """Whatever its headers say; and it is the last one, since a body may still come."""
    for at in range(len(answer) + 1):
        parser = expecting(has_body=False)
        found, body, has_ended, why = heard(parser, [answer[:at], answer[at:]])
        assert (body, has_ended, why, parser.can_go_on) == (b"", True, "", False)
        assert found is not None


@pytest.mark.parametrize("end", [whole(b"ok"), CHUNKED + chunk(b"ok") + chunk(b"")])
@pytest.mark.parametrize("extra", [b"H", whole(b"forged"), b"\0", b"0\r\n", b" ", b"\r\nH"])
def test_what_follows_an_answer_is_not_read(end: bytes, extra: bytes) -> None:
    """And nothing is sent after it: whoever can add it could answer the next request."""
    for at in range(len(end) + len(extra)):
        parser, data = expecting(), end + extra
        assert heard(parser, [data[:at], data[at:]])[1:] == (b"ok", True, "")
        assert not parser.can_go_on


def test_an_empty_line_behind_an_answer_is_harmless() -> None:
    """It cannot be the beginning of one."""
    parser = expecting()
    assert heard(parser, [whole(b"ok") + b"\r\n"])[1:] == (b"ok", True, "")
    parser.begin(has_body=True)
    assert heard(parser, [whole(b"next")])[1:] == (b"next", True, "")


# --- beside an independent reader ------------------------------------------


def h11_heard(data: bytes) -> Heard:
    """Return what h11 makes of *data*, after the end of the connection."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    http.send(h11.EndOfMessage())
    for piece in (data, b""):
        http.receive_data(piece)
    found: AnswerHead | None = None
    body = b""
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            names = [(name.lower(), value) for name, value in event.headers.raw_items()]
            found = AnswerHead(event.status_code, names)
        elif isinstance(event, h11.Data):
            body += event.data
    return found, body, True, ""


NAMES: Final = st.sampled_from([b"x-a", b"X-Request-Id", b"date", b"server", b"set-cookie"])
VALUES: Final = st.from_regex(
    rb"([!-~\x80-\xff]([ -~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True
)
PIECES: Final = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Return a valid answer, its body in any of the three forms."""
    hints = draw(st.lists(st.sampled_from([100, 102, 103]), max_size=3))
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 429, 503]))
    fields = draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))
    pieces = draw(PIECES)
    body = b"".join(pieces)
    if status in {204, 304}:
        body = b""
    elif draw(st.booleans()):
        ext = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
        body = b"".join(b"%x%b\r\n%b\r\n" % (len(one), ext, one) for one in pieces)
        body += draw(st.sampled_from([b"0\r\n\r\n", b"000\r\n\r\n", b"0\r\nx-t: v\r\n\r\n"]))
        fields.append((b"Transfer-Encoding", b"chunked"))
    elif draw(st.booleans()):
        fields.append((b"content-length", b"%d" % len(body)))
    fields = draw(st.permutations(fields))
    lines = [b"HTTP/1.1 %d Reason" % status, *(b"%b: %b" % field for field in fields), b"", b""]
    line_end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    first = b"".join(head(hint, {"link": "</a>"}) for hint in hints)
    return first + line_end.join(lines) + body


@given(answer=answers(), cuts=CUTS)
def test_valid_answers_are_read_as_h11_reads_them(answer: bytes, cuts: list[float]) -> None:
    """Two readers that share no line agree, wherever the answer is cut."""
    assert heard(expecting(), cut(answer, cuts), is_end=True) == h11_heard(answer)


@given(run=st.lists(answers(), min_size=1, max_size=4), cuts=CUTS)
def test_answers_one_after_the_other(run: list[bytes], cuts: list[float]) -> None:
    """On one connection, as long as the parser says that another may follow."""
    parser = AnswerParser()
    for answer in run:
        parser.begin(has_body=True)
        found = heard(parser, cut(answer, cuts))
        if not parser.has_ended:
            assert parser.end()
            return
        assert found == h11_heard(answer)
        assert parser.can_go_on


PARTS: Final = st.lists(
    st.one_of(
        st.sampled_from(
            [
                OK, CHUNKED, b"HTTP/1.1 ", b"HTTP/1.0 200 OK\r\n", b"content-length: 3\r\n",
                b"\r\n",
                b"transfer-encoding: chunked\r\n", b"\n", b" ", b"x: y\r\n", b"\r", b"0\r\n\r\n",
                b"3\r\nabc\r\n", head(103, {}), whole(b"hi"), b"connection: close\r\n", b";a=b",
            ]
        ),
        st.binary(max_size=8),
    ),
    max_size=10,
).map(b"".join)  # fmt: skip


@given(data=PARTS, cuts=CUTS)
@example(data=OK + b"x: y\n z\r\n\r\n", cuts=[0.9])
def test_any_bytes_mean_the_same_wherever_they_are_cut(data: bytes, cuts: list[float]) -> None:
    """What is refused as well: the head, the body before the fault, and that it is refused."""
    one, other = expecting(), expecting()
    first = heard(one, [data], is_end=True)
    second = heard(other, cut(data, cuts), is_end=True)
    assert first[:3] == second[:3]
    assert bool(first[3]) == bool(second[3])
    assert one.can_go_on == other.can_go_on


@given(before=st.sampled_from([b"", OK, OK + b"x: ", CHUNKED, CHUNKED + b"0\r\n"]), cuts=CUTS)
def test_no_refusal_quotes_what_came(before: bytes, cuts: list[float]) -> None:
    """A server may send our key back."""
    for end in (b"\0\r\n\r\n", b"\r\n\0", b"\r\n" + KEY.encode() + b"\r\n"):
        why = heard(expecting(), cut(before + KEY.encode() + end, cuts))[3]
        assert why
        assert find_key(why) is None


# --- what is not the server's fault ----------------------------------------


def test_ctrl_c_in_the_middle_of_a_head_is_ctrl_c() -> None:
    """The parser below would take it for a fault of the answer, and it would be lost."""
    pressed = False

    def press(frame: FrameType, event: str, _: object) -> None:
        nonlocal pressed
        if event == "call" and frame.f_code is AnswerParser.on_headers_complete.__code__:
            pressed = True
            signal.raise_signal(signal.SIGINT)

    async def read() -> None:
        parser = expecting()
        sys.setprofile(press)
        try:
            parser.feed(whole(b"hi"))
        finally:
            sys.setprofile(None)
        assert (parser.take(), parser.has_ended) == (b"hi", True)
        await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(read)
    assert pressed


def test_a_fault_of_ours_is_shown_as_one() -> None:
    """And not as an answer that is not HTTP."""
    parser = expecting()
    parser._headers = None  # type: ignore[assignment]  # that is the fault
    with pytest.raises(httptools.HttpParserCallbackError):
        parser.feed(whole(b"hi"))
