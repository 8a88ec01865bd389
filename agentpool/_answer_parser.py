"""Reads answers of HTTP/1.1 from bytes in any pieces: the one door to httptools.

Rules:

1. An answer ends by its length, by its last chunk, or with its connection. Whoever reads it need
   not know by which: ``has_ended`` says whether it has, and ``end`` whether it may end here.
2. Where two readers could disagree on the end of an answer, it is refused: a length said twice, or
   said beside chunks; chunks inside another coding; lines of chunks that end in LF alone. Of heads
   only those are read generously whose meaning is clear: lines may end in LF alone, or be folded.
3. What comes after the end of an answer is not read, and the connection serves no other request.
4. What brings neither a head nor a part of a body is limited, whatever it is.
5. What came before the bytes that are refused is given out first, so that it does not matter
   whether they arrived together.
6. No error quotes what came, since it may have a key in it.

Source: https://www.rfc-editor.org/rfc/rfc9112 (2026-11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn, final

import attrs
import httptools
import trio

# More than any provider sends; a server that sends headers without end is refused here.
_MAX_HEADER_BYTES: Final = 64 * 1024

# "100 Continue" and its like, before the answer proper.
_MAX_INFORMATIONAL: Final = 16

_CONTINUE: Final = 100
_SWITCHING_PROTOCOLS: Final = 101
_OK: Final = 200

# Numbers, since to look for bytes in bytes raises an error first, below the surface.
_SPACE: Final = ord(" ")
_NUL: Final = 0

_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


_BAD_VERSION: Final = "its version is neither HTTP/1.1 nor HTTP/1.0; use an address that speaks one"
_BAD_STATUS: Final = "its status is not a number of three digits"
_BAD_LENGTH: Final = "its Content-Length is not a number of bytes"
_TWO_ENDS: Final = "it has both Content-Length and Transfer-Encoding, so its end is not certain"

# Said by the parser below, in words that only those know who have read its source.
_MEANINGS: Final[Mapping[str, str]] = {
    "Expected dot": _BAD_VERSION,
    "Invalid HTTP version": _BAD_VERSION,
    "Invalid major version": _BAD_VERSION,
    "Invalid minor version": _BAD_VERSION,
    "Invalid status code": _BAD_STATUS,
    "Invalid response status": _BAD_STATUS,
    "Duplicate Content-Length": "it has two Content-Length headers, so its end is not certain",
    "Content-Length can't be present with Transfer-Encoding": _TWO_ENDS,
    "Transfer-Encoding can't be present with Content-Length": _TWO_ENDS,
    "Invalid character in Content-Length": _BAD_LENGTH,
    "Content-Length overflow": _BAD_LENGTH,
    "Empty Content-Length": _BAD_LENGTH,
    "Invalid header token": "one of its headers is not a name, a colon and a value",
    "Invalid character in chunk size": "the size of a chunk is not a hexadecimal number",
}


class BadAnswerError(Exception):
    """The answer is refused: it is not HTTP/1.1, or not clear. Says why."""


class _StopError(Exception):
    """Tells the parser below to read no more."""


@final
@attrs.frozen
class AnswerHead:
    """Status and headers of an answer."""

    status: int
    """The HTTP status."""
    headers: Sequence[tuple[bytes, bytes]]
    """Its headers, names in lower case."""


@final
@attrs.define(eq=False, repr=False)
class AnswerParser:
    """Reads the answers on one connection, one after the other."""

    head: AnswerHead | None = attrs.field(init=False, default=None)
    """The head of the answer. ``None``: it has not come yet."""
    has_ended: bool = attrs.field(init=False, default=False)
    """Whether the whole answer has come."""
    can_go_on: bool = attrs.field(init=False, default=False)
    """Whether another answer may follow on this connection, once this one has ended."""
    _pieces: list[bytes] = attrs.field(init=False, factory=list[bytes])
    _headers: list[tuple[bytes, bytes]] = attrs.field(init=False, factory=list[tuple[bytes, bytes]])
    _has_body: bool = attrs.field(init=False, default=True)
    _ends_with_connection: bool = attrs.field(init=False, default=False)
    _informational: int = attrs.field(init=False, default=0)
    _idle_bytes: int = attrs.field(init=False, default=0)
    """Bytes since a head or a part of a body came."""
    _refusal: str = attrs.field(init=False, default="")
    """Why we do not read on. Empty: the parser below has its own reasons."""
    _broken: str = attrs.field(init=False, default="")
    """Why the bytes after what was given out cannot be read. Empty: they can."""
    on_body: Callable[[bytes], None] = attrs.field(
        init=False, default=attrs.Factory(lambda self: self._pieces.append, takes_self=True)
    )
    """Takes a part of the body, for the parser below."""
    _parser: httptools.HttpResponseParser = attrs.field(
        init=False, default=attrs.Factory(httptools.HttpResponseParser, takes_self=True)
    )

    def __attrs_post_init__(self) -> None:
        """Read what is harmless to a client: we look ourselves at what follows an answer."""
        self._parser.set_dangerous_leniencies(
            lenient_keep_alive=True, lenient_spaces_after_chunk_size=True
        )

    @property
    def has_pieces(self) -> bool:
        """Whether parts of the body have come that were not taken."""
        return bool(self._pieces)

    def begin(self, *, has_body: bool) -> None:
        """Expect the next answer. Without *has_body* it ends with its head, whatever that says."""
        self.head = None
        self.has_ended = self.can_go_on = self._ends_with_connection = False
        self._pieces.clear()
        self._headers = []
        self._has_body = has_body
        self._informational = self._idle_bytes = 0

    @trio.lowlevel.enable_ki_protection  # the parser below would make an error of its own of it
    def feed(self, data: bytes | bytearray) -> None:
        """Read the next bytes of the connection.

        Raises:
            BadAnswerError: If they cannot be a part of an answer.
        """
        self._idle_bytes += len(data)
        had_head = self.head is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            if self.has_ended:
                self.can_go_on = False  # what comes after the end is nobody's
            elif isinstance(exc, httptools.HttpParserCallbackError) and not self._refusal:
                raise  # a fault of ours
            else:
                self._broken = self._refusal or _meaning_of(exc)
        if not self._pieces and had_head is (self.head is not None):
            self.refuse_broken()  # or else what came before is given out first
        if self._pieces:
            self._idle_bytes = 0
        elif self._idle_bytes > _MAX_HEADER_BYTES and not self.has_ended:
            raise BadAnswerError(f"more than {_MAX_HEADER_BYTES} bytes without any content")

    def refuse_broken(self) -> None:
        """Raise if nothing more can be read. Called before more is waited for.

        Raises:
            BadAnswerError: If what came last cannot be a part of an answer.
        """
        if self._broken:
            raise BadAnswerError(self._broken)

    def end(self) -> bool:
        """Note that the connection has ended. Return whether the answer is whole."""
        if self._ends_with_connection:
            self.has_ended = True
        return self.has_ended

    def take(self) -> bytes:
        """Return what has come of the body since the last call."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    # What the parser below calls.

    def on_message_begin(self) -> None:
        """Begin to read a head, if an answer is expected."""
        if self.has_ended:
            raise _StopError
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True
        )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header. Those after the body mean nothing to us."""
        if self.head is None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Judge a head: how its answer will end, and whether another may follow."""
        parser, raw = self._parser, self._headers
        parser.set_dangerous_leniencies(lenient_headers=False, lenient_optional_cr_before_lf=False)
        status = parser.get_status_code()
        framing = [header for header in raw if header[0] in _FRAMING]
        if any(_SPACE in name or _NUL in value for name, value in raw):
            self._refuse("a header has bytes that no header may have")
        if self._idle_bytes > _MAX_HEADER_BYTES and _size_of(raw) > _MAX_HEADER_BYTES:
            self._refuse(f"more than {_MAX_HEADER_BYTES} bytes of headers")
        if status < _OK:
            self._pass_over(status, framing)
            return
        # Compared as it came: if it is folded, the parser below does not see what it says.
        codings = [value.lower() for name, value in framing if name == b"transfer-encoding"]
        if codings and codings != [b"chunked"]:
            self._refuse("only the transfer encoding 'chunked' can be read")
        headers = [(name, value.strip(b" \t")) for name, value in raw]
        self.head = AnswerHead(status, headers)
        self._idle_bytes = 0
        if not self._has_body:
            self.has_ended = True
            raise _StopError
        self._ends_with_connection = not framing
        # In HTTP/1.0, who keeps a connection open may not be who answers.
        self.can_go_on = parser.should_keep_alive() and parser.get_http_version() == "1.1"

    def on_message_complete(self) -> None:
        """Note the end, unless it is that of a head that only says to wait."""
        self.has_ended = self.head is not None

    def _pass_over(self, status: int, framing: Sequence[object]) -> None:
        """Go on to the answer proper."""
        if framing or status < _CONTINUE or status == _SWITCHING_PROTOCOLS:
            self._refuse(f"status {status} is no answer to what was asked")
        self._informational += 1
        if self._informational > _MAX_INFORMATIONAL:
            self._refuse(
                f"more than {_MAX_INFORMATIONAL} informational answers, and no final answer"
            )
        self._headers = []

    def _refuse(self, why: str) -> NoReturn:
        self._refusal = why
        raise _StopError


def _meaning_of(error: httptools.HttpParserError) -> str:
    """Return why the parser below refused an answer."""
    return _MEANINGS.get(str(error)) or f"it is not valid HTTP/1.1: {error}"


def _size_of(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Return how many bytes *headers* take, each with its colon, space and line end."""
    return sum(len(name) + len(value) + 4 for name, value in headers)
