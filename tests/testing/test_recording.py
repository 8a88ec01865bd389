"""What a recording is: the lines, the stars, and the nearest of what was recorded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import UsageError
from agentpool.testing._recording import (
    Asked,
    Exchange,
    build_pieces,
    explain_miss,
    masked,
    read_asked,
    read_exchanges,
    write_exchange,
)
from tests.support.keys import KEY


def asked(body: object, path: bytes = b"/v1/x") -> Asked:
    """Return what a request with *body* is known by."""
    return read_asked("POST", "api.test", path, json.dumps(body).encode(), ())


def recorded(body: object) -> Exchange:
    """Return an exchange about *body*."""
    return Exchange(asked(body), 200, {}, 0.1, (), is_whole=True)


def test_the_order_of_keys_and_the_query_are_no_matter() -> None:
    """And a number is not its text."""
    one = asked({"a": 1, "b": [2]}, b"/v1/x?api-version=1")
    assert one.identity == asked({"b": [2], "a": 1}).identity
    assert one.identity != asked({"a": "1", "b": [2]}).identity
    assert read_asked("GET", "h", b"/", b"", ()).body is None
    assert read_asked("POST", "h", b"/", b"\xffno json", ()).body == "\\xffno json"


def test_a_secret_is_stars_in_path_and_body() -> None:
    """Longest first, and placeholders are left alone."""
    found = read_asked("POST", "h", f"/{KEY}".encode(), f'["{KEY}"]'.encode(), (KEY, "no"))
    assert found.path == "/" + "*" * len(KEY)
    assert found.body == ["*" * len(KEY)]
    assert masked(f"Bearer {KEY} none".encode(), (KEY, f"Bearer {KEY}", "none")).count(b"*") == len(
        f"Bearer {KEY}"
    )


@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_a_secret_across_pieces_is_stars(cuts: list[int]) -> None:
    """Wherever the stream was cut; the pieces keep their lengths, half characters too."""
    stream = f"Grüße, {KEY} and {KEY}!".encode()
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parts = [(0.1, stream[a:b]) for a, b in itertools.pairwise(places)]
    pieces = build_pieces(parts, (KEY,))
    assert [len(one.content) for one in pieces] == [len(data) for _, data in parts]
    whole = b"".join(one.content for one in pieces)
    assert whole.decode() == f"Grüße, {'*' * len(KEY)} and {'*' * len(KEY)}!"
    exchange = Exchange(asked({}), 200, {}, 0.0, pieces, is_whole=True)
    (read,) = read_exchanges(write_exchange(exchange), name="r")
    assert [one.content for one in read.pieces] == [one.content for one in pieces]


def test_a_torn_line_is_no_exchange_and_a_bad_one_is_named() -> None:
    """A crash leaves the first kind, an editor the second."""
    line = write_exchange(recorded({}))
    assert len(read_exchanges(line + line[:-9], name="r")) == 1
    assert len(read_exchanges(line + line[:-1], name="r")) == 1
    with pytest.raises(UsageError, match=r"line 2 of 'r\.jsonl' is not an exchange"):
        read_exchanges(line + b"{}\n", name="r.jsonl")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"m": "a", "t": [1, 2]}, "body.t[1]: asked 2, recorded nothing"),
        ({"m": "a"}, "body.t: asked nothing, recorded [1]"),
        ({"m": "b", "t": [1]}, 'body.m: asked "b", recorded "a"'),
        ("text", 'body: asked "text", recorded {"m":"'),
        ({"m": "a" * 999, "t": [1]}, "…, recorded"),
        ({"m": "b", "t": [2, 3, 4, 5]}, "; and 2 more"),
    ],
)
def test_a_miss_names_what_differs_from_the_nearest(body: object, says: str) -> None:
    """The fewest differences are the nearest."""
    far = recorded({"m": "z", "t": [9, 9, 9, 9, 9, 9, 9], "u": 1, "v": 2})
    text = explain_miss(asked(body), [far, recorded({"m": "a", "t": [1]})], name="r.jsonl")
    assert text.startswith("'r.jsonl' has no answer to POST api.test/v1/x; the nearest of 2")
    assert says in text
    assert len(text) < 600


def test_a_miss_where_nothing_can_be_near() -> None:
    """Nothing was recorded, or all of it has been given."""
    assert "nothing is recorded there" in explain_miss(asked({}), [], name="r")
    text = explain_miss(asked({}), [recorded({})] * 2, name="r")
    assert "left: all 2 recorded ones are used" in text


def deeper(frames: int, call: Callable[[], str]) -> str:
    """Call it from *frames* further calls, which have less room."""
    return deeper(frames - 1, call) if frames else call()


@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_what_differs_at_any_depth_is_told(start: str, end: str) -> None:
    """What can just be decoded may be too deep for what compares it level by level."""
    for depth in (*range(0, 1100, 20), 5000, 9990):
        one, other = (
            read_asked(
                "POST", "api.test", b"/v1/x", f"{start * depth}{n}{end * depth}".encode(), ()
            )
            for n in "12"
        )
        known = Exchange(one, 200, {}, 0.1, (), is_whole=True)
        told = deeper(60, lambda: explain_miss(other, [known], name="r"))  # noqa: B023  # at once
        assert "the nearest of 1 differs in body" in told


@pytest.mark.parametrize("depth", [100, 900, 990, 995, 1000, 1005, 2000, 100_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_a_body_may_be_nested_as_deeply_as_it_likes(depth: int, start: str, end: str) -> None:
    """It is known by its text then; a line of a file that is nested so is no exchange."""
    body = (start * depth + "1" + end * depth).encode()
    one = read_asked("POST", "api.test", b"/v1/x", body, ())
    assert one.identity == read_asked("POST", "api.test", b"/v1/x", body, ()).identity
    line = write_exchange(Exchange(one, 200, {}, 0.1, (), is_whole=True))
    (again,) = read_exchanges(line, name="r")
    assert again.asked.identity == one.identity
    with pytest.raises(UsageError, match="is not an exchange"):
        read_exchanges(body + b"\n", name="r")
