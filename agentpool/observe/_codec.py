"""Converts events to JSON and back, for traces.

An event that is read back equals the event that was written, with two exceptions: an error comes
back as a ``RecordedError``, and the value of an outcome comes back as the JSON that was written for
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final, TypeAlias, cast

import msgspec

from agentpool._checks import expect_arguments
from agentpool._errors import TraceError, UsageError
from agentpool._events import AgentFinished, Event
from agentpool._events.base import EventBase
from agentpool._messages import Json
from agentpool.observe._error_data import error_from_data, error_to_data

SHOWN_CHARACTERS: Final = 1000
"""The most characters of the ``repr`` that replaces a value without a form in JSON."""

Line: TypeAlias = Event | msgspec.Struct
"""A line of a trace."""

LARGEST_INTEGER: Final = 2**63 - 1
"""The largest integer that every JSON reader can be expected to read, at least roughly."""


def event_to_json(event: Event) -> bytes:
    """Encode *event* as one line of JSON, without the newline."""
    expect_arguments(event_to_json, locals())
    try:
        return _ENCODER.encode(event)
    except Exception:  # noqa: BLE001  # whatever a user's value does
        # Text that is not Unicode, numbers that are too large, values that hold themselves.
        if isinstance(event, AgentFinished):
            outcome = msgspec.structs.replace(event.outcome, value=_shown(event.outcome.value))
            event = msgspec.structs.replace(event, outcome=outcome)
        return _ENCODER.encode(_plain(msgspec.to_builtins(event, enc_hook=_encode)))


def lines_to_json(lines: Sequence[Line]) -> bytes:
    """Encode *lines* of a trace, each with its newline; faster than line by line."""
    try:
        return _ENCODER.encode_lines(lines)
    except Exception:  # noqa: BLE001  # as in event_to_json()
        return b"".join([_one(line) + b"\n" for line in lines])


def _one(line: Line) -> bytes:
    # Every event has this base, and nothing else of a trace does.
    if isinstance(line, EventBase):
        return event_to_json(cast("Event", line))
    return _ENCODER.encode(line)


def event_from_json(line: bytes | str) -> Event:
    """Decode the event in *line*.

    Raises:
        TraceError: If *line* holds no event.
    """
    expect_arguments(event_from_json, locals())
    try:
        return _decoder().decode(line)
    except (msgspec.MsgspecError, UsageError, UnicodeError, RecursionError) as error:
        # An attachment that is damaged says so itself.
        raise TraceError(f"this is not an event: {error}") from error


def events_to_json(events: Iterable[Event]) -> str:
    """Encode *events* as lines of JSON."""
    expect_arguments(events_to_json, locals())
    return "".join(f"{event_to_json(event).decode()}\n" for event in events)


def events_from_json(text: str) -> tuple[Event, ...]:
    """Decode the events in the lines of *text*.

    Raises:
        TraceError: If a line holds no event.
    """
    expect_arguments(events_from_json, locals())
    return tuple(event_from_json(line) for line in text.splitlines() if line)


def _encode(value: object) -> object:
    """Return a replacement for a *value* that JSON cannot represent."""
    if not isinstance(value, BaseException):
        return _shown(value)
    return error_to_data(value)


def _shown(value: object) -> str | None:
    try:
        return None if value is None else repr(value)[:SHOWN_CHARACTERS]
    except Exception:  # noqa: BLE001  # foreign code
        return object.__repr__(value)


def _plain(value: object) -> Json:
    """Return *value*, made of builtins, with its read-only parts replaced by writable ones."""
    match value:
        case dict():
            pairs = cast("dict[object, object]", value)
            return {unicode_text(str(name)): _plain(of) for name, of in pairs.items()}
        case list() | tuple():
            return [_plain(of) for of in cast("list[object]", value)]
        case str():
            return unicode_text(value)
        case int() if abs(value) > LARGEST_INTEGER:
            return str(value)
        case _:
            return cast("Json", value)


def unicode_text(text: str) -> str:
    r"""Return *text* with lone surrogates written out as ``\\ud800``."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _decode(kind: type, value: object) -> object:
    """Decode an error from *value*, or return the value of an outcome unchanged."""
    if value is None or kind is object:
        return value
    if kind is not Exception or not isinstance(value, dict):
        raise msgspec.ValidationError(f"expected an error, got {value!r}")
    return error_from_data(cast("object", value))


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_encode)


@cache
def _decoder() -> msgspec.json.Decoder[Event]:
    # Made for the first event: it reads the annotations of all events.
    return msgspec.json.Decoder(Event, dec_hook=_decode)
