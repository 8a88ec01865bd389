"""Keys that a program has escaped, encoded or broken into lines are in no trace."""

from __future__ import annotations

import base64
import html
import json
import struct
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import SpawnConfig, open_pool
from agentpool.drivers import Attachment, ScriptedDriver, UserMessage
from agentpool.observe import (
    AgentSpawned,
    MessagesAdded,
    TextDelta,
    ThoughtDelta,
    TraceWriter,
    read_trace,
)
from agentpool.observe._redact import Redactor
from tests.support.fakes import manifest

LONG_KEY = "sk-proj-Zq8vR2mN5tYwX1cB7dF4gH9jK3lP6sA0uE8iO2nM5qW7rT1yV"
KEY = "Tr0ub4dor&<3>\"horse'+battery/staple%= \\ü"


def _for_scripts(text: str) -> str:
    """Escape as Go, Django and Rails do, so that JSON may stand in a page."""
    quoted = json.dumps(text)
    return quoted.replace("<", "\\u003c").replace(">", "\\u003E").replace("&", "\\u0026")


def _mime(text: str) -> str:
    return base64.encodebytes(b"A=1\nHOME=/root\nKEY=" + text.encode() + b"\nLANG=C\n").decode()


ESCAPED: dict[str, Callable[[str], str]] = {
    "for scripts": _for_scripts,
    "every letter of JSON": lambda key: "".join(f"\\u{ord(one):04X}" for one in key),
    "JavaScript's encodeURI": lambda key: quote(key, safe=";,/?:@&=+$-_.!~*'()#"),
    "every byte of a URL": lambda key: "".join(f"%{one:02x}" for one in key.encode()),
    "a URL in a URL": lambda key: quote(quote(key, safe=""), safe=""),
    "a URL in a URL in a URL": lambda key: quote(quote(quote(key, safe=""), safe=""), safe=""),
    "JSON in a URL": lambda key: quote(json.dumps({"a": key}, ensure_ascii=False)),
    "escaped JSON in a URL": lambda key: quote(_for_scripts(key)),
    "a form": lambda key: quote(key, safe=" ").replace(" ", "+"),
    "HTML": html.escape,
    "HTML twice": lambda key: html.escape(html.escape(key)),
    "HTML by numbers": lambda key: "".join(f"&#{ord(one)};" for one in key),
    "HTML by hex numbers": lambda key: "".join(f"&#x{ord(one):X};" for one in key),
    "MIME": _mime,
    "base64 with an indent": lambda key: textwrap.indent(_mime(key), "    "),
    "base64 for Windows": lambda key: _mime(key).replace("\n", "\r\n"),
    "base64 within JSON within JSON": lambda key: json.dumps(json.dumps({"a": _mime(key)})),
}


@pytest.mark.parametrize("secret", [KEY, LONG_KEY])
@pytest.mark.parametrize("name", ESCAPED)
async def test_an_escaped_key_is_not_in_the_trace(tmp_path: Path, name: str, secret: str) -> None:
    """Whatever a program escapes, and however often."""
    escaped = ESCAPED[name](secret)
    path = tmp_path / "a.trace"
    async with (
        TraceWriter(path, secrets=[secret]) as trace,
        open_pool(ScriptedDriver(["hi"]), observers=[trace]) as pool,
    ):
        await (await pool.spawn(SpawnConfig(manifest(), f"see {escaped} there"))).wait()
    (spawned,) = [one for one in read_trace(path).events if isinstance(one, AgentSpawned)]
    assert "[secret]" in spawned.query
    assert escaped not in spawned.query
    assert spawned.query.startswith("see ")
    assert spawned.query.endswith(" there")


FORMS: tuple[Callable[[str], str], ...] = (
    str,
    lambda one: "".join(f"%{byte:02X}" for byte in one.encode()),
    lambda one: "".join(f"%25{byte:02x}" for byte in one.encode()),
    lambda one: f"\\u{ord(one):04x}",
    lambda one: f"\\\\u{ord(one):04X}",
    lambda one: f"&#{ord(one)};",
    lambda one: f"&#x{ord(one):x};",
)


@given(st.lists(st.sampled_from(FORMS), min_size=len(KEY), max_size=len(KEY)))
def test_each_character_may_be_escaped_in_another_way(
    forms: list[Callable[[str], str]],
) -> None:
    """The key goes, and nothing else."""
    escaped = "".join(form(one) for form, one in zip(forms, KEY, strict=True))
    cleaned = Redactor.of([KEY]).clean_text(f"see {escaped} there")
    assert cleaned == "see [secret] there"


@given(st.text(alphabet="%&#;u0123456789abcdefx\\ampltq\n", max_size=60))
def test_a_text_without_the_key_stays_as_it_is(text: str) -> None:
    """Also if it is full of what escapes look like."""
    assert Redactor.of([KEY]).clean_text(text) == text


def test_a_key_of_many_lines_is_found_in_json() -> None:
    """Such as the file of a private key."""
    lines = "\n".join(f"{number}+/{'Ab9' * 20}" for number in range(30))
    redactor = Redactor.of([lines])
    for text in (json.dumps(lines), json.dumps(json.dumps(lines)).replace("/", "\\u002f")):
        cleaned = redactor.clean_text(f"see {text} there")
        assert "Ab9Ab9" not in cleaned


@pytest.mark.parametrize("width", [60, 64, 76])
def test_a_key_is_found_in_base64_of_any_width(width: int) -> None:
    """As PEM, MIME and base64(1) write it, wherever it begins in a line."""
    redactor = Redactor.of([LONG_KEY])
    for before in range(80):
        whole = base64.b64encode(b"x" * before + LONG_KEY.encode() + b"\n" * 9).decode()
        cleaned = redactor.clean_text("\n".join(textwrap.wrap(whole, width)))
        assert "[secret]" in cleaned, before


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


async def test_a_picture_with_the_key_is_left_out_and_the_question_is_not(tmp_path: Path) -> None:
    """Without the key it would be no picture, and its event could not be read."""
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    png = head + chunk(b"tEXt", b"Comment\0" + LONG_KEY.encode()) + chunk(b"IEND", b"")
    path = tmp_path / "a.trace"
    config = SpawnConfig(manifest(), "hi", attachments=(Attachment("image/png", png, "a.png"),))
    async with (
        TraceWriter(path, secrets=[LONG_KEY]) as trace,
        open_pool(ScriptedDriver(["hi"]), observers=[trace]) as pool,
    ):
        await (await pool.spawn(config)).wait()
    read = read_trace(path)
    assert read.problems == ()
    (asked,) = [one.messages for one in read.events if isinstance(one, MessagesAdded)]
    (message,) = asked
    assert isinstance(message, UserMessage)
    assert message.text == "hi"
    (left,) = message.attachments
    assert (left.media_type, left.data, left.name) == ("image/png", png[:18], "[secret]")


async def test_a_key_between_whose_pieces_a_model_thinks_is_found(tmp_path: Path) -> None:
    """Texts and thoughts may take turns, letter by letter."""
    path = tmp_path / "a.trace"
    async with TraceWriter(path, secrets=[LONG_KEY]) as trace:
        for number, piece in enumerate(("it is ", *LONG_KEY, " there")):
            trace.on_event(TextDelta(2 * number + 1, 0.0, 1, "a", piece))
            trace.on_event(ThoughtDelta(2 * number + 2, 0.0, 1, "a", "so "))
    events = read_trace(path).events
    said = "".join(one.text for one in events if isinstance(one, TextDelta))
    assert said == "it is [secret] there"
