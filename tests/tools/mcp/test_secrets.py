"""What a server was given is in nothing that it says, however it comes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool._secrets import REDACTED
from agentpool.tools.mcp._secrets import Secrets, SecretsInStream
from tests.support.keys import KEY, make_key

BOTH = Secrets.of([KEY, KEY + "-long", " ", "short", make_key("é\"'")])


def said(secrets: Secrets, pieces: list[bytes]) -> list[bytes]:
    """Return what is said of each piece, and at the end."""
    stream = SecretsInStream(secrets)
    return [*map(stream.feed, pieces), stream.end()]


def test_short_values_are_no_secrets() -> None:
    """To take out a word of five letters would garble what is said."""
    assert Secrets.of(["short", "", " 1234567 "]).redact("short 1234567") == "short 1234567"
    assert said(Secrets.of(["short"]), [b"short"]) == [b"short", b""]


def test_the_longest_goes_first() -> None:
    """What follows the shorter one would be left, and is a part of the longer."""
    assert BOTH.redact(f"a {KEY}-long, a {KEY}") == f"a {REDACTED}, a {REDACTED}"
    assert (
        BOTH.redact_bytes(f"a {KEY}-long, a {KEY}".encode())
        == f"a {REDACTED}, a {REDACTED}".encode()
    )


def test_what_json_escapes_is_found() -> None:
    """The bytes are JSON, in which a secret may look different."""
    for text in (make_key("é\"'"), json.dumps(make_key("é\"'"))[1:-1]):
        assert BOTH.redact_bytes(f'{{"a": "{text}"}}'.encode()) == f'{{"a": "{REDACTED}"}}'.encode()


def test_numbers_are_left_in_json() -> None:
    """Without its id, a message would be none. In a text they are taken out."""
    number = Secrets.of(["1234567890"])
    assert number.redact_bytes(b'{"id": 1234567890}') == b'{"id": 1234567890}'
    assert number.redact("it is 1234567890") == f"it is {REDACTED}"


def test_only_what_may_be_a_secret_is_held_back() -> None:
    """An event must not wait for the next one."""
    assert said(Secrets.of([KEY]), [b"event\n\n", b"x" + KEY[:3].encode(), b"\n\n"]) == [
        b"event\n\n",
        b"x",
        KEY[:3].encode() + b"\n\n",
        b"",
    ]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_it_is_found_across_pieces(size: int) -> None:
    """A network cuts where it likes."""
    data = f"a{KEY}{KEY[:5]}{KEY}-long{KEY}".encode()
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    expected = f"a{REDACTED}{KEY[:5]}{REDACTED}{REDACTED}".encode()
    assert b"".join(said(BOTH, pieces)) == expected


@given(
    st.lists(st.sampled_from([b"abcabcab", b"a", b"b", b"c", b"abc", b"cab"]), max_size=20),
)
def test_pieces_make_no_difference(pieces: list[bytes]) -> None:
    """What is said in the end is what would be said of the whole, and has no secret."""
    secrets = Secrets.of(["abcabcab"])
    whole = b"".join(said(secrets, pieces))
    assert whole == secrets.redact(b"".join(pieces).decode()).encode()
