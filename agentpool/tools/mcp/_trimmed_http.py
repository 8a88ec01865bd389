"""Cuts large messages in answers over HTTP, as ``_trimmed`` does: whole bodies, and events."""

from __future__ import annotations

import re
from typing import Final, final

import attrs

from agentpool.tools.mcp._message_lines import MAX_MESSAGE_BYTES
from agentpool.tools.mcp._trimmed import SMALL_BYTES, trimmed

# Between two events is an empty line.
_EMPTY_LINE: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


@final
@attrs.define(eq=False)
class BodyTrimmer:
    """Trims an answer that consists of one message."""

    _pieces: list[bytes] = attrs.field(factory=list[bytes])

    def feed(self, data: bytes) -> bytes:
        """Keep the next piece for the end."""
        self._pieces.append(data)
        return b""

    def end(self) -> bytes:
        """Return the used parts of the answer, once."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        try:
            return trimmed(body)
        except ValueError:
            return body[:SMALL_BYTES]  # it is no message, and its beginning is none either


@final
@attrs.define(eq=False)
class EventTrimmer:
    """Trims the events of a stream, each when it is complete."""

    _rest: bytearray = attrs.field(factory=bytearray)

    def feed(self, data: bytes) -> bytes:
        """Return the events that *data* completes, or any data that is too long for a message."""
        looked_at = max(len(self._rest) - 3, 0)
        self._rest += data
        whole: list[bytes] = []
        begin = 0
        for end in _EMPTY_LINE.finditer(self._rest, looked_at):
            whole.append(_trimmed_event(bytes(self._rest[begin : end.end()])))
            begin = end.end()
        del self._rest[:begin]
        # The reader has a bound of its own, and ends the stream.
        return b"".join(whole) + (self.end() if len(self._rest) > MAX_MESSAGE_BYTES else b"")

    def end(self) -> bytes:
        """Return the rest, which is not a whole event."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest


def _trimmed_event(event: bytes) -> bytes:
    """Return *event*, with only the used parts of its message."""
    if len(event) <= SMALL_BYTES:
        return event
    others: list[bytes] = []
    data: list[bytes] = []
    for line in _LINE_END.split(event):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif line:
            others.append(line)
    try:
        message = trimmed(b"\n".join(data))
    except ValueError:
        message = b""  # it is none
    lines = message.split(b"\n") if message else []
    return b"\n".join([*others, *(b"data: " + line for line in lines), b"", b""])
