"""Reduces a server's large messages to the parts that are used, before they become objects.

Making objects of a million parts blocks the program for seconds, even in a thread. Unused parts are
skipped as bytes, at a hundred megabytes a second. Rules:

1. Small messages are passed on unchanged. Of a large message, only the fields that are used are
   kept, and no more of their content than a model could be shown.
2. A result says what was left out of it.
3. Of a large request, only the id and the method are kept, so that the request is answered. A large
   notification is dropped, since no notification is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw

from agentpool.tools._failure import clip
from agentpool.tools.mcp._tool_views import MAX_RESULT_CHARS, MAX_SCHEMA_BYTES

SMALL_BYTES: Final = 16 * 1024
"""The largest message that is passed on unchanged. A message of this size has fewer than
``MAX_BLOCKS`` text blocks."""

MAX_TOOLS: Final = 500
"""The most tools of one server. No model can choose among more, and an endless list must end."""

MAX_BLOCKS: Final = 1_000
"""The most blocks of one result. A model would not be shown more."""

MAX_RAW_SCHEMA_BYTES: Final = 10 * MAX_SCHEMA_BYTES
"""The largest schema of one tool's arguments, before its descriptions are cut."""

_MAX_SCHEMAS_BYTES: Final = 10 * MAX_RAW_SCHEMA_BYTES
"""The largest schemas of all tools of a page together."""

_MAX_FIELD_BYTES: Final = 64 * 1024
"""The largest part that is not text: one field of a result, or all of its contents that are not
text."""

_SMALL_PART_BYTES: Final = 4 * 1024
"""The largest block or tool that is kept as it is."""

_MAX_DATA_CHARS: Final = MAX_RESULT_CHARS - 64
"""The most characters of data that replace a text. Together with the note about the rest, this is
short enough not to be cut again."""

_ANYTHING: Final = Raw(b'{"type":"object"}')


class _Message(msgspec.Struct, gc=False):
    id: Raw = Raw()
    method: Raw = Raw()
    result: Raw = Raw()
    error: Raw = Raw()


class _Result(msgspec.Struct, gc=False):
    protocolVersion: Raw = Raw()  # noqa: N815  # as on the wire
    capabilities: Raw = Raw()
    serverInfo: Raw = Raw()  # noqa: N815
    tools: Raw = Raw()
    nextCursor: Raw = Raw()  # noqa: N815
    content: Raw = Raw()
    structuredContent: Raw = Raw()  # noqa: N815
    isError: Raw = Raw()  # noqa: N815
    resultType: Raw = Raw()  # noqa: N815
    supportedVersions: Raw = Raw()  # noqa: N815
    ttlMs: Raw = Raw()  # noqa: N815
    cacheScope: Raw = Raw()  # noqa: N815
    meta: Raw = msgspec.field(name="_meta", default=Raw())


class _Error(msgspec.Struct, gc=False):
    code: Raw = Raw()
    message: Raw = Raw()


class _Tool(msgspec.Struct, gc=False):
    name: Raw = Raw()
    description: Raw = Raw()
    inputSchema: Raw = Raw()  # noqa: N815


class _Block(msgspec.Struct, gc=False):
    type: Raw = Raw()
    text: Raw = Raw()
    data: Raw = Raw()
    blob: Raw = Raw()
    mimeType: Raw = Raw()  # noqa: N815
    uri: Raw = Raw()
    name: Raw = Raw()
    resource: Raw = Raw()


def trimmed(message: bytes) -> bytes:
    """Return the parts of *message* that are used. Empty: no part is used.

    Raises:
        ValueError: If *message* is large but is not a message.
    """
    if len(message) <= SMALL_BYTES:
        return message
    try:
        found = msgspec.json.decode(message, type=_Message)
        if _is(found.result, b"{"):
            found.result = _trimmed_result(msgspec.json.decode(found.result, type=_Result))
        elif _size(found.result):
            found.result = Raw(b"{}")  # somebody waits for an answer: that it is none
        elif _size(found.error):
            found.error = _trimmed_part(found.error, _Error)
        elif not _size(found.id):
            return b""
    except RecursionError as exc:
        raise ValueError("it is nested too deep") from exc
    return b'{"jsonrpc":"2.0",' + _written(found)[1:]


def _trimmed_result(result: _Result) -> Raw:
    if _is(result.tools, b"["):
        result.tools = _trimmed_tools(msgspec.json.decode(result.tools, type=list[Raw]))
    # What is shown of both, if both are there, is the text.
    data, result.structuredContent = result.structuredContent, Raw()
    if _size(data) <= _MAX_FIELD_BYTES:
        result.structuredContent = data
    elif not _size(result.content):
        result.content = Raw(b"[]")
    if _is(result.content, b"["):
        blocks = msgspec.json.decode(result.content, type=list[Raw])
        kept = [_trimmed_part(one, _Block) for one in blocks[:MAX_BLOCKS]]
        if len(blocks) > MAX_BLOCKS:
            kept.append(_text(f"[{len(blocks) - MAX_BLOCKS:,} more blocks are left out]"))
        if _size(data) > _MAX_FIELD_BYTES and not any(map(_is_text, kept)):
            kept.append(_text(clip(bytes(data).decode(errors="replace"), _MAX_DATA_CHARS)))
        result.content = _joined(kept)
    for name in set(_Result.__struct_fields__) - {"tools", "content"}:
        if _size(getattr(result, name)) > _MAX_FIELD_BYTES:
            setattr(result, name, Raw())
    return Raw(_written(result))


def _trimmed_tools(tools: list[Raw]) -> Raw:
    kept: list[Raw] = []
    room = _MAX_SCHEMAS_BYTES
    for tool in tools[:MAX_TOOLS]:
        if _size(tool) <= _SMALL_PART_BYTES or not _is(tool, b"{"):
            kept.append(_trimmed_part(tool, _Error))
            continue
        found = msgspec.json.decode(tool, type=_Tool)
        # It would be left out in the end.
        if _size(found.inputSchema) > min(MAX_RAW_SCHEMA_BYTES, room):
            found.inputSchema = _ANYTHING
        room -= _size(found.inputSchema)
        kept.append(Raw(_written(found)))
    return _joined(kept)


def _trimmed_part(part: Raw, kind: type[_Block | _Error]) -> Raw:
    if _size(part) <= _SMALL_PART_BYTES or not _is(part, b"{"):
        return part if _size(part) <= _SMALL_PART_BYTES else Raw(b"null")
    found = msgspec.json.decode(part, type=kind)
    for name in kind.__struct_fields__:
        value: Raw = getattr(found, name)
        if name == "resource" and _is(value, b"{"):
            value = _trimmed_part(value, kind)
        if _size(value) > _SMALL_PART_BYTES and not (_is(value, b'"') or name == "resource"):
            value = Raw()  # a field for a text, and it is none
        setattr(found, name, value)
    return Raw(_written(found))


def _written(found: msgspec.Struct) -> bytes:
    names = zip(found.__struct_encode_fields__, found.__struct_fields__, strict=True)
    fields = {name: getattr(found, own) for name, own in names}
    return msgspec.json.encode({name: raw for name, raw in fields.items() if _size(raw)})


def _joined(parts: Iterable[Raw]) -> Raw:
    return Raw(b"[" + b",".join(bytes(part) for part in parts) + b"]")


def _text(text: str) -> Raw:
    return Raw(msgspec.json.encode({"type": "text", "text": text}))


def _is_text(block: Raw) -> bool:
    is_block = _is(block, b"{")
    return is_block and bytes(msgspec.json.decode(block, type=_Block).type) == b'"text"'


def _is(part: Raw, beginning: bytes) -> bool:
    return bytes(memoryview(part)[:1]) == beginning


def _size(part: Raw) -> int:
    return memoryview(part).nbytes
