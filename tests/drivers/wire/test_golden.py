"""Recorded streams: each comes to the answer, or the error, that is written next to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentpool import DriverError, _errors
from agentpool.abc import Completion
from agentpool.drivers.wire._sse import SseParser
from tests.drivers.wire.golden import GOLDEN, accumulator_of, completion_of, expected_of, name_of

each = pytest.mark.parametrize("golden", GOLDEN, ids=name_of)


def read(golden: Path, *pieces: bytes) -> tuple[Completion, list[str]]:
    """Return what a stream in these pieces comes to, and the pieces of text on the way."""
    accumulator, parser = accumulator_of(golden), SseParser()
    texts = [
        text for piece in pieces for event in parser.feed(piece) for text in accumulator.feed(event)
    ]
    return accumulator.finish(), texts


@each
def test_golden_streams(golden: Path) -> None:
    """Whole, in one piece."""
    expected = expected_of(golden)
    if "error" in expected:
        with pytest.raises(DriverError) as caught:
            read(golden, golden.read_bytes())
        assert type(caught.value) is getattr(_errors, expected["error"])
        assert caught.value.retryable is expected["retryable"]
        assert expected["says"] in str(caught.value)
        return
    completion, texts = read(golden, golden.read_bytes())
    assert completion == completion_of(expected)
    assert "".join(texts) == expected["text"]
    assert all(texts)


@each
def test_golden_streams_split_at_every_byte(golden: Path) -> None:
    """Also inside a character and inside a line's end."""
    expected = expected_of(golden)
    if "error" in expected:
        return
    stream, wanted = golden.read_bytes(), completion_of(expected)
    assert read(golden, *(stream[i : i + 1] for i in range(len(stream))))[0] == wanted


@each
def test_a_stream_that_is_cut_is_never_a_whole_answer(golden: Path) -> None:
    """Cut anywhere: an error, or everything that the model said."""
    expected, stream = expected_of(golden), golden.read_bytes()
    for cut in range(0, len(stream), 7):
        try:
            completion, _ = read(golden, stream[:cut])
        except DriverError:
            continue
        wanted = completion_of(expected)
        assert (completion.text, completion.tool_calls) == (wanted.text, wanted.tool_calls)
