"""Server-sent events out of bytes."""

from __future__ import annotations

import pytest

from agentpool.drivers import ProtocolError
from agentpool.drivers.wire._sse import SseEvent, SseParser


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [SseEvent("a")]),
        (b"data:a\n\n", [SseEvent("a")]),
        (b"data:  a\n\n", [SseEvent(" a")]),
        (b"data: a\r\n\r\n", [SseEvent("a")]),
        (b"data: a\r\rdata: b\r\r", [SseEvent("a"), SseEvent("b")]),
        (b"data: a\r\n\ndata: b\n\r\n", [SseEvent("a"), SseEvent("b")]),
        (b"data: a\ndata: b\n\n", [SseEvent("a\nb")]),
        (b"data: a\r\ndata: b\r\n\r\n", [SseEvent("a\nb")]),
        (b"data\n\n", [SseEvent("")]),
        (b"data:\ndata\n\n", [SseEvent("\n")]),
        (b"\xef\xbb\xbfdata: a\n\n", [SseEvent("a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: \xef\xbb\xbf\n\n", [SseEvent("\ufeff")]),
        (b": comment\ndata: a\n:\n\n", [SseEvent("a")]),
        (b"event: error\ndata: a\n\n", [SseEvent("a", "error")]),
        (b"event: lost\n\ndata: a\n\n", [SseEvent("a")]),
        (b"id: 1\nretry: 5\nnovel: x\nnovel\ndata: a\n\n", [SseEvent("a")]),
        (b"DATA: a\n\n", []),
        (b"data: unfinished\n", []),
        (b"data: unfinished", []),
        (b"\n\n\n", []),
        (b"", []),
        ("data: Grüße 👋\n\n".encode(), [SseEvent("Grüße 👋")]),
    ],
)
def test_events(stream: bytes, expected: list[SseEvent]) -> None:
    """As the standard says, in one piece and byte by byte."""
    assert SseParser().feed(stream) == expected
    parser = SseParser()
    one_by_one = [event for byte in stream for event in parser.feed(bytes([byte]))]
    assert one_by_one == expected


def test_a_character_in_two_pieces_is_one_character() -> None:
    """Decoding each piece by itself would make two replacement characters of it."""
    parser = SseParser()
    first, second = "data: ü\n\n".encode()[:7], "data: ü\n\n".encode()[7:]
    assert parser.feed(first) == []
    assert parser.feed(second) == [SseEvent("ü")]


def test_data_without_a_space_counts() -> None:
    """The space after the colon is a habit, not a rule."""
    assert SseParser().feed(b"data:[DONE]\n\n") == [SseEvent("[DONE]")]


def test_bytes_of_no_character_are_kept_apart_from_characters() -> None:
    """The next event may have the rest of theirs; what an event is called is a word."""
    assert SseParser().feed(b"event: a\xff\ndata: a\xff\n\n") == [SseEvent("a\udcff", "a\ufffd")]


@pytest.mark.parametrize("piece", [b"x" * 11, b"data: 12345\n"])
def test_a_line_has_a_largest_size(piece: bytes) -> None:
    """Ended or not: a line without end must not fill the memory."""
    with pytest.raises(ProtocolError, match="longer than 10 bytes"):
        SseParser(10).feed(piece)


def test_a_line_that_comes_in_pieces_has_the_same_largest_size() -> None:
    """Slowly is no way around it."""
    parser = SseParser(10)
    parser.feed(b"data: ")
    with pytest.raises(ProtocolError, match="longer than 10 bytes"):
        parser.feed(b"12345\n")


def test_an_event_has_a_largest_size() -> None:
    """Of many lines that are each short enough. The next event counts anew."""
    parser = SseParser(100, 12)
    parser.feed(b"data: 12345\ndata: 12345\n\ndata: 12345\n")
    with pytest.raises(ProtocolError, match="larger than 12 bytes"):
        parser.feed(b"data: 123456\n")


def test_lines_without_a_value_count_as_well() -> None:
    """60 MB of them were held in 107 MiB, without an end."""
    parser = SseParser(100, 10)
    parser.feed(b"data\n" * 10)
    with pytest.raises(ProtocolError, match="larger than 10 bytes"):
        parser.feed(b"data\n")


@pytest.mark.parametrize("cut", range(12))
@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: 1\ndata: 2\n\n", SseEvent("1\n2")),
        (b"event: a\ndata: 1\n\n", SseEvent("1", "a")),
        (b"event: a\n: b\ndata: 1\n\n", SseEvent("1", "a")),
        (b"event: a\nid: 1\ndata: 1\n\n", SseEvent("1", "a")),
        (b": event: a\ndata: 1\n\n", SseEvent("1")),
        (b"data: 1\nevent: a\n\n", SseEvent("1", "a")),
        (b"data: 1\nevent: a\ndata: 2\n\n", SseEvent("1\n2", "a")),
        (b"\ndata: 1\n\n", SseEvent("1")),
    ],
)
def test_an_event_after_others_is_the_same_in_one_piece_and_in_two(
    stream: bytes, expected: SseEvent, cut: int
) -> None:
    """Those of one line are read at once, and only those."""
    parser = SseParser()
    assert parser.feed(b"event: z\ndata: 0\n\n") == [SseEvent("0", "z")]
    assert [*parser.feed(stream[:cut]), *parser.feed(stream[cut:])] == [expected]


@pytest.mark.parametrize(
    ("line", "event", "what"), [(8, 100, "line"), (100, 3, "event"), (100, 5, "event")]
)
def test_a_later_event_has_the_same_largest_size(line: int, event: int, what: str) -> None:
    """Its size is its data with the end of the line."""
    parser = SseParser(line, event)
    assert parser.feed(b"data: 1\n\n") == [SseEvent("1")]
    with pytest.raises(ProtocolError, match=f"an? {what} of the stream"):
        parser.feed(b"data: 12345\n\n")
    larger = SseParser(11, 6)
    assert larger.feed(b"data: 1\n\ndata: 12345\n\n") == [SseEvent("1"), SseEvent("12345")]
