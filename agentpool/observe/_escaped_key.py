r"""Finds a key in text that another program has escaped, encoded or broken into lines.

Rules:

1. Each character may be plain, or escaped for a URL, JSON or HTML, independently of its neighbours:
   programs differ in what they escape, and may escape several times.
2. Base64 may be broken into lines, as `base64` and MIME do. A line is longer than two neighbouring
   pieces of a key, so at least one piece is not broken. Only text that has an unbroken piece is
   searched.
3. Escaped text is first searched in a copy without escapes, where one fast search finds a key.
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
"""How often text is unescaped: a URL inside a URL takes two rounds."""

_ALIKE: Final = bytes.maketrans(b"\n\r\t\b\f+", b"nrtbf ")
"""Maps a character to the letter of its escape, so that the two are equal once backslashes are
removed."""

_PIECE: Final = 12
"""How many characters of base64 are looked for before lines are joined."""

_SEARCHED_CHARS: Final = 4096
"""How many characters of a long key, such as a file of credentials, are looked for in these
forms."""

_PATTERN_CHARS: Final = 64
"""How many characters of a key one pattern finds. A part of this length is as secret as the whole
key."""

_NAMED: Final = {"&": b"amp", "<": b"lt", ">": b"gt", '"': b"quot", "'": b"apos"}
_VALUES: Final = {name: char.encode() for char, name in _NAMED.items()}
_LETTERS: Final = {"\n": b"n", "\r": b"r", "\t": b"t", "\b": b"b", "\f": b"f"}
_SLASH: Final = rb"(?:\\|%(?:25){0,3}5[cC])"
_BREAK: Final = rb"(?:\\{1,31}+[nrt]|\s){0,64}+"
"""Matches the end of a line and the indent of the next line, even inside JSON."""


def base64_of(data: bytes) -> Iterator[str]:
    """Yield the base64 forms of *data* for every position in an encoded text.

    Three forms are possible, depending on the number of bytes before *data*. The first and last
    characters of a form also encode neighbouring bytes, so these characters are left out.
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
        """Return the forms of *secret* that may be broken into lines.

        Short forms fit into one line.
        """
        forms = set(base64_of(secret.encode("utf-8", "surrogatepass")[:_SEARCHED_CHARS]))
        return [cls(form.encode()) for form in sorted(forms) if len(form) >= 2 * _PIECE]

    def pattern_for(self, data: bytes) -> re.Pattern[bytes] | None:
        """Return a pattern that finds the key in *data*. ``None``: the key cannot be in *data*."""
        if self.form[:_PIECE] in data or self.form[_PIECE : 2 * _PIECE] in data:
            return _wrapped(self.form)
        return None


@final
class EscapedKey(Live):
    """A part of a key whose characters may be escaped."""

    chars: str
    needle: bytes
    """A text that any unescaped text with the key must contain. Empty: there is no such text."""

    @classmethod
    def all_of(cls, secret: str) -> list[EscapedKey]:
        """Return the parts of *secret*."""
        chars = secret[:_SEARCHED_CHARS]
        parts = [chars[at : at + _PATTERN_CHARS] for at in range(0, len(chars), _PATTERN_CHARS)]
        if len(parts) > 1:
            parts[-1] = chars[-_PATTERN_CHARS:]
        return [cls(part, _needle_of(part)) for part in parts]

    def pattern_for(self, unescaped: bytes) -> re.Pattern[bytes] | None:
        """Return a pattern for the key in a text with this *unescaped* form.

        ``None``: the key is not in it.
        """
        return _escaped(self.chars) if self.needle in unescaped else None


def _needle_of(chars: str) -> bytes:
    data = chars.encode("utf-8", "surrogatepass")
    is_plain = chars.isascii() and _ESCAPE.search(data) is None
    return _alike(data) if is_plain else b""


def _alike(data: bytes) -> bytes:
    return data.translate(_ALIKE, b"\\")


def unescaped(data: bytes) -> bytes:
    """Return *data* without escapes, for `EscapedKey.pattern_for`. Empty: *data* has no escapes."""
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
    """Yield a pattern for each of *chars*, but only one for a run of backslashes."""
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
