"""The format of a recording: one line of JSON per exchange, without secrets.

Rules:

1. A request is identified by its method, its host without the port, its path without the query, and
   its body. Headers, and so API keys, do not matter; a server on another port counts as the same.
2. Of the headers of an answer, only those that a driver uses are kept.
3. An API key that a server quotes, or that a prompt contains, is replaced by stars. The number of
   stars is the length of the key, so that the pieces of the stream keep their lengths.
4. An exchange is a single line, which is written in one go when the exchange ends. A last line
   without a line end was left by a crash, and is ignored.
5. An answer that the client abandoned, or that broke off, is recorded as an answer that breaks off.
   It can never pass for a complete answer.
6. Equal requests get their answers in the order of the recording, and each answer is used once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, cast, final

import msgspec

from agentpool._errors import UsageError
from agentpool._secrets import long_enough
from agentpool.drivers.wire._failure import shown

KEPT_HEADERS: Final = frozenset(
    {"content-type", "date", "retry-after", "retry-after-ms", "x-should-retry"}
)
"""The headers that a driver uses. The cookie of a session, or the name of an account, is not
kept."""

# Of a body that is known by its values: two of them are compared level by level.
_MAX_LEVELS: Final = 200

_SHOWN_DIFFERENCES: Final = 3

# Of a value, for a person who compares two.
_SHOWN_CHARS: Final = 120


@final
class Asked(msgspec.Struct, frozen=True):
    """The parts of a request that identify it."""

    method: str
    host: str
    path: str
    body: object
    """The body: JSON, or text that is not JSON."""

    @property
    def identity(self) -> bytes:
        """A text that is the same for equal requests, whatever the order of the keys in them."""
        return msgspec.json.encode(self, order="deterministic")


@final
class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes that arrived together."""

    after_seconds: float
    """When the piece came, in seconds since the request."""
    text: str | None = None
    """The piece as text. ``None``: the piece is not valid UTF-8, as when it has half a
    character."""
    data: bytes = b""
    """The bytes of a piece that has no text."""

    @property
    def content(self) -> bytes:
        """The bytes."""
        return self.data if self.text is None else self.text.encode()


@final
class Exchange(msgspec.Struct, frozen=True):
    """A request and its answer."""

    asked: Asked
    status: int
    headers: Mapping[str, str]
    after_seconds: float
    """When the answer began, in seconds since the request."""
    pieces: Sequence[Piece]
    is_whole: bool
    """Whether the answer was complete."""


def read_asked(
    method: str, host: str, path: bytes, content: bytes, secrets: Sequence[str]
) -> Asked:
    """Return the identifying parts of a request, without *secrets*."""
    content = masked(content, secrets)
    start = masked(path.partition(b"?")[0], secrets).decode("latin-1")
    try:
        body = _decoded(content) if content else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = content.decode(errors="backslashreplace")
    return Asked(method, host, start, body)


def _decoded(content: bytes) -> object:
    """Decode JSON to values that can be compared and encoded again.

    Raises:
        msgspec.DecodeError: If *data* is not JSON.
        RecursionError: If the text is nested too deeply.
    """
    value: object = msgspec.json.decode(content)
    level = [value]
    for _ in range(_MAX_LEVELS):
        level = [inner for one in level for inner in _inner(one)]
    if level:
        raise RecursionError(f"it has more than {_MAX_LEVELS} levels")
    return value


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def masked(data: bytes, secrets: Sequence[str]) -> bytes:
    """Return *data* with stars in place of *secrets*."""
    for secret in map(str.encode, long_enough(secrets)):
        data = data.replace(secret, b"*" * len(secret))
    return data


def build_pieces(pieces: Sequence[tuple[float, bytes]], secrets: Sequence[str]) -> list[Piece]:
    """Return the pieces of a stream without *secrets*, even those split across two pieces."""
    whole = masked(b"".join(data for _, data in pieces), secrets)
    ends = itertools.accumulate(len(data) for _, data in pieces)
    parts = [whole[end - len(data) : end] for end, (_, data) in zip(ends, pieces, strict=True)]
    return [_build_piece(after, part) for (after, _), part in zip(pieces, parts, strict=True)]


def _build_piece(after: float, data: bytes) -> Piece:
    try:
        return Piece(round(after, 6), data.decode())
    except UnicodeDecodeError:
        return Piece(round(after, 6), None, data)


def write_exchange(exchange: Exchange) -> bytes:
    """Encode *exchange* as one line."""
    return msgspec.json.encode(exchange) + b"\n"


def read_exchanges(recording: bytes, *, name: str) -> list[Exchange]:
    """Decode the exchanges of a recording.

    Raises:
        UsageError: If a line is not an exchange. The error has *name* and the number of the line.
    """
    *lines, _ = recording.split(b"\n")  # what follows the last end of a line is torn
    found: list[Exchange] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(msgspec.json.decode(line, type=Exchange))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            msg = f"line {number} of {name!r} is not an exchange ({exc}); make the recording again"
            raise UsageError(msg) from exc
    return found


def explain_miss(asked: Asked, recorded: Sequence[Exchange], *, name: str) -> str:
    """Say in words how *asked* differs from the most similar one of *recorded*."""
    what = f"{name!r} has no answer to {asked.method} {asked.host}{asked.path}"
    others = [one.asked for one in recorded]
    times = sum(one.identity == asked.identity for one in others)
    if times:
        return f"{what} left: all {times} recorded ones are used"
    if not others:
        return f"{what}: nothing is recorded there; use open_recording"
    apart = min((list(_differences("", asked, one)) for one in others), key=len)
    more = len(apart) - _SHOWN_DIFFERENCES
    listed = "; ".join(apart[:_SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
    return f"{what}; the nearest of {len(others)} differs in {listed}"


_MISSING: Final = object()


def _differences(path: str, asked: object, recorded: object) -> Iterator[str]:
    """Yield the differences between two values, in words."""
    match asked, recorded:
        case Asked(), Asked():
            for name in Asked.__struct_fields__:
                yield from _differences(name, getattr(asked, name), getattr(recorded, name))
        case dict(), dict():
            ours = cast("dict[str, object]", asked)
            theirs = cast("dict[str, object]", recorded)
            for key in {**ours, **theirs}:
                yield from _differences(
                    f"{path}.{key}", ours.get(key, _MISSING), theirs.get(key, _MISSING)
                )
        case list(), list():
            pairs = itertools.zip_longest(
                cast("list[object]", asked), cast("list[object]", recorded), fillvalue=_MISSING
            )
            for index, (one, other) in enumerate(pairs):
                yield from _differences(f"{path}[{index}]", one, other)
        case _ if asked != recorded:
            yield f"{path}: asked {_shown(asked)}, recorded {_shown(recorded)}"
        case _:
            return


def _shown(value: object) -> str:
    if value is _MISSING:
        return "nothing"
    text = shown(msgspec.json.encode(value).decode())
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
