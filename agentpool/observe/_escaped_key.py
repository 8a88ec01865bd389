r"""Finds a key in text that was escaped, encoded or broken into lines by other code.

Rules:

1. Each character may be as it is, or escaped for a URL, JSON or HTML, whatever its
   neighbours are: programs differ in what they escape, and may do it several times over.
2. Base64 may be broken into lines, as `base64` and MIME do. A line is longer than two pieces
   that are next to each other, so one of them is whole: only text that has one is searched.
3. Escaped text is first searched in a copy without escapes, where a key is one fast search.
4. Every repetition is bounded, so that hostile text takes linear time.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import Final, final

from agentpool._base import Live

_ESCAPE: Final = re.compile(
    rb"%([0-9A-Fa-f]{2})|\\u([0-9A-Fa-f]{4})"
    rb"|&(?:#([0-9]{1,6})|#[xX]([0-9A-Fa-f]{1,5})|(amp|lt|gt|quot|apos));"
)
_ROUNDS: Final = 4
"""How often text is unescaped: a URL within a URL takes two."""

_ALIKE: Final = bytes.maketrans(b"\n\r\t\b\f+", b"nrtbf ")
"""Makes an escaped character and what it stands for the same, once backslashes are gone."""

_PIECE: Final = 12
"""Characters of base64 that are looked for before its lines are joined."""

_SEARCHED_CHARS: Final = 4096
"""How much of a long key, such as a file of credentials, is looked for in these forms."""

_PATTERN_CHARS: Final = 64
"""How much of a key one pattern finds. A part of such length is as secret as the whole."""

_NAMED: Final = {"&": b"amp", "<": b"lt", ">": b"gt", '"': b"quot", "'": b"apos"}
_VALUES: Final = {name: char.encode() for char, name in _NAMED.items()}
_LETTERS: Final = {"\n": b"n", "\r": b"r", "\t": b"t", "\b": b"b", "\f": b"f"}
_SLASH: Final = rb"(?:\\|%(?:25){0,3}5[cC])"
_BREAK: Final = rb"(?:\\{1,31}+[nrt]|\s){0,64}+"
"""The end of a line, also within JSON, with the indent of the next."""


def base64_of(data: bytes) -> Iterator[str]:
    """Yield what base64 makes of *data*, wherever it stands in the encoded text.

    Depending on what stands before it, base64 cuts it into sixes in three ways. The characters
    at its ends hold a part of its neighbours as well, so they are left out.
    """
    for before in range(3):
        start = (0, 2, 3)[before]
        whole = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        inner = whole[start : len(whole) - (1 if (before + len(data)) % 3 else 0)]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")


@final
class WrappedKey(Live):
    """A key in base64 whose lines may be broken anywhere."""

    form: bytes

    @classmethod
    def all_of(cls, secret: str) -> list[WrappedKey]:
        """Return the forms of *secret* that can be broken: short ones fit a line."""
        forms = set(base64_of(secret.encode("utf-8", "surrogatepass")[:_SEARCHED_CHARS]))
        return [cls(form.encode()) for form in sorted(forms) if len(form) >= 2 * _PIECE]

    def pattern_for(self, data: bytes) -> re.Pattern[bytes] | None:
        """Return what finds the key in *data*. ``None``: it cannot be there."""
        if self.form[:_PIECE] in data or self.form[_PIECE : 2 * _PIECE] in data:
            return _wrapped(self.form)
        return None


@final
class EscapedKey(Live):
    """A part of a key whose characters may be escaped."""

    chars: str
    needle: bytes
    """What is in text with the key, once that is unescaped. Empty: this cannot be told."""

    @classmethod
    def all_of(cls, secret: str) -> list[EscapedKey]:
        """Return the parts of *secret*."""
        chars = secret[:_SEARCHED_CHARS]
        parts = [chars[at : at + _PATTERN_CHARS] for at in range(0, len(chars), _PATTERN_CHARS)]
        if len(parts) > 1:
            parts[-1] = chars[-_PATTERN_CHARS:]
        return [cls(part, _needle_of(part)) for part in parts]

    def pattern_for(self, unescaped: bytes) -> re.Pattern[bytes] | None:
        """Return what finds the key in a text that was *unescaped*. ``None``: it is not there."""
        return _escaped(self.chars) if self.needle in unescaped else None


def _needle_of(chars: str) -> bytes:
    data = chars.encode("utf-8", "surrogatepass")
    is_plain = chars.isascii() and _ESCAPE.search(data) is None
    return _alike(data) if is_plain else b""


def _alike(data: bytes) -> bytes:
    return data.translate(_ALIKE, b"\\")


def unescaped(data: bytes) -> bytes:
    """Return *data* without escapes, for `EscapedKey.pattern_for`. Empty: it has none."""
    plain = _ESCAPE.sub(_value_of, data)
    if plain is data or plain == data:
        return b""
    for _ in range(_ROUNDS - 1):
        plain = _ESCAPE.sub(_value_of, plain)
    return _alike(plain)


def _value_of(found: re.Match[bytes]) -> bytes:
    percent, unit, decimal, digits, name = found.groups()
    if percent:
        return bytes.fromhex(percent.decode())
    if name:
        return _VALUES[name]
    code = int(decimal) if decimal else int(unit or digits, 16)
    return chr(code).encode("utf-8", "surrogatepass")


@lru_cache(maxsize=64)
def _wrapped(form: bytes) -> re.Pattern[bytes]:
    return re.compile(_BREAK.join(re.escape(form[at : at + 1]) for at in range(len(form))))


@lru_cache(maxsize=64)
def _escaped(chars: str) -> re.Pattern[bytes]:
    return re.compile(b"".join(_parts_of(chars)))


def _parts_of(chars: str) -> Iterator[bytes]:
    """Yield a pattern for each of *chars*; one for a run of backslashes, which double."""
    for char, run in groupby(chars):
        count = len(list(run))
        if char == "\\":
            forms = [b"(?:%s){%d}" % (form, count) for form in _hex_forms(char)]
            yield b"(?:%s)" % b"|".join([_SLASH + b"{%d,64}" % count, *forms])
        else:
            yield from [b"(?:%s)" % b"|".join(_forms_of(char))] * count


def _forms_of(char: str) -> Iterator[bytes]:
    slashes = _SLASH + b"{0,31}+" if char in "\"'/" else b""
    yield slashes + re.escape(char.encode("utf-8", "surrogatepass"))
    if char in _LETTERS:
        yield _SLASH + b"{1,31}+" + _LETTERS[char]
    if char == " ":
        yield rb"\+"
    if char in _NAMED:
        yield b"&(?:amp;){0,3}%s;" % _NAMED[char]
    percent, *others = _hex_forms(char)
    yield slashes + percent
    yield from others


def _hex_forms(char: str) -> Iterator[bytes]:
    data = char.encode("utf-8", "surrogatepass")
    yield b"".join(rb"%%(?:25){0,3}%s" % _either_case(f"{byte:02x}") for byte in data)
    units = char.encode("utf-16-be", "surrogatepass")
    yield b"".join(
        _SLASH + b"{1,31}+u%s" % _either_case(f"{high:02x}{low:02x}")
        for high, low in zip(units[::2], units[1::2], strict=True)
    )
    yield b"&(?:amp;){0,3}#0{0,4}%d;" % ord(char)
    yield b"&(?:amp;){0,3}#[xX]0{0,4}%s;" % _either_case(f"{ord(char):x}")


def _either_case(digits: str) -> bytes:
    return "".join(f"[{one}{one.upper()}]" if one.isalpha() else one for one in digits).encode()
