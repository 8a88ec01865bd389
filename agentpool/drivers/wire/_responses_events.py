"""Defines the events of a stream in the Responses API, and their contents.

Only the fields that an answer needs are here; all others are ignored.

Source: https://platform.openai.com/docs/api-reference/responses-streaming (2026-11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from agentpool.drivers.wire._error_body import ErrorBody


class InputDetails(msgspec.Struct):
    cached_tokens: float | None = None
    cache_write_tokens: float | None = None


class OutputDetails(msgspec.Struct):
    reasoning_tokens: float | None = None


class ResponseUsage(msgspec.Struct):
    input_tokens: float | None = None
    output_tokens: float | None = None
    total_tokens: float | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class ItemText(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class Item(msgspec.Struct):
    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()
    content: list[ItemText | None] | None = None
    summary: list[ItemText | None] | None = None
    encrypted_content: str | None = None
    phase: str | None = None
    result: msgspec.Raw = msgspec.Raw()


class Why(msgspec.Struct):
    reason: str | None = None


class Response(msgspec.Struct):
    model: str | None = None
    status: str | None = None
    usage: ResponseUsage | None = None
    error: ErrorBody | str | None = None
    incomplete_details: Why | str | None = None
    output: list[msgspec.Raw] | None = None


class Event(msgspec.Struct):
    type: str = ""
    object: str | None = None
    output_index: int | None = None
    item_id: str | None = None
    delta: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    refusal: msgspec.Raw = msgspec.Raw()
    part: ItemText | None = None
    arguments: msgspec.Raw = msgspec.Raw()
    item: msgspec.Raw = msgspec.Raw()
    response: Response | None = None
    error: ErrorBody | str | None = None


EVENTS: Final = msgspec.json.Decoder(Event)
RESPONSES: Final = msgspec.json.Decoder(Response)
ITEMS: Final = msgspec.json.Decoder(Item)
FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parts_of(content: Sequence[ItemText | None] | None) -> Sequence[ItemText]:
    return [part for part in content or () if part is not None]


def string_in(raw: msgspec.Raw) -> str:
    """Return a piece of text; empty if it is something else, such as audio."""
    data = bytes(raw)
    return msgspec.json.decode(data, type=str) if data.startswith(b'"') else ""


def arguments_in(raw: msgspec.Raw) -> str:
    """Return arguments as text; a few servers send them as an object."""
    data = bytes(raw)
    return data.decode() if data.startswith(b"{") else string_in(raw)
