"""The size of images and documents, read from their bytes: pixels and pages.

Rules:

1. Of an image, only a few numbers at its beginning are decoded. Of a document, the compressed lists
   of its objects are unpacked, up to the limits below.
2. The size of broken or unknown data is unknown. That is not an error.
3. A document that does not state its number of pages is estimated by its size.

Sources: https://www.rfc-editor.org/rfc/rfc9649 (WebP), ITU-T T.81 (JPEG) and ISO 32000-1, 7.5.7
(object streams) and annex F (linearized files); read in November 2026.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final

BYTES_PER_PAGE: Final = 50_000
"""An average page, for a document that does not state its number of pages."""

MAX_UNPACKED_BYTES: Final = 16 * 1024 * 1024
"""The most bytes to unpack to count pages: a page takes some hundred of them."""

MAX_PACKED_BYTES: Final = 4 * 1024 * 1024
"""The bound for each object stream."""

_MAX_FAILURES: Final = 20
"""After this many object streams that cannot be unpacked, the search ends: in an encrypted
document, none of them can be."""

_MAX_SEGMENTS: Final = 500
"""The most segments of a JPEG that are read to find the one that states its size."""

_PAGE: Final = re.compile(rb"/Type\s{0,8}/Page(?![A-Za-z])")
_LINEARIZED: Final = re.compile(rb"/Linearized\b[^>]{0,200}?/N\s+(\d{1,9})\b")
_HEAD_BYTES: Final = 2048
"""The part of a document in which it says that it is linearized."""


def size_in(data: bytes, media_type: str) -> tuple[int, int] | None:
    """Return the width and height of an image. ``None``: unknown."""
    match media_type:
        case "image/png":
            return _numbers(data[16:20], data[20:24])
        case "image/gif":
            return _numbers(data[7:5:-1], data[9:7:-1])
        case "image/jpeg":
            return _jpeg_size(data)
        case _:
            return _webp_size(data)


def pages_in(data: bytes) -> int:
    """Return the number of pages of a PDF document, estimated if it is not stated."""
    stated = _LINEARIZED.search(data, 0, _HEAD_BYTES)
    counted = sum(len(_PAGE.findall(part)) for part in (data, *_packed_objects(data)))
    # They may be packed in another way, or encrypted; a page with a picture is about so large.
    return max(counted, int(stated[1]) if stated else 0) or -(-len(data) // BYTES_PER_PAGE)


def _packed_objects(data: bytes) -> Iterator[bytes]:
    """Yield the unpacked object streams of a document."""
    at, left, failures = 0, MAX_UNPACKED_BYTES, 0
    view = memoryview(data)
    while left > 0 and failures < _MAX_FAILURES and (named := data.find(b"/ObjStm", at)) >= 0:
        begins = data.find(b"stream", named)
        if begins < 0:
            return
        at = begins + len(b"stream")
        at += {b"\r\n": 2}.get(data[at : at + 2], 1)
        unpacker = zlib.decompressobj()
        try:
            packed = view[at : at + MAX_PACKED_BYTES]
            unpacked = unpacker.decompress(packed, left)
        except zlib.error:
            failures += 1
            continue
        # What was read once is not looked through again, or a bomb would be unpacked many times.
        at += len(packed) - len(unpacker.unused_data) - len(unpacker.unconsumed_tail)
        left -= len(unpacked)
        yield unpacked


def _numbers(width: bytes, height: bytes) -> tuple[int, int] | None:
    if not width or not height:
        return None
    return int.from_bytes(width, "big"), int.from_bytes(height, "big")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the size in the first frame of one of the three forms of WebP."""
    kind, head = data[12:16], data[20:30]
    little = int.from_bytes(head, "little")
    if len(head) < 10:  # noqa: PLR2004  # the longest of the three
        return None
    if kind == b"VP8X":
        return (little >> 32 & 0xFFFFFF) + 1, (little >> 56 & 0xFFFFFF) + 1
    if kind == b"VP8L" and head[0] == 0x2F:  # noqa: PLR2004  # its signature
        return (little >> 8 & 0x3FFF) + 1, (little >> 22 & 0x3FFF) + 1
    if kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        return little >> 48 & 0x3FFF, little >> 64 & 0x3FFF
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        marker, rest = data[at : at + 2], data[at + 2 : at + 9]
        if len(rest) < 7 or marker[0] != 0xFF:  # noqa: PLR2004  # the size of what is read
            return None
        # The frames SOF0 to SOF15, without the three that are tables.
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in {0xC4, 0xC8, 0xCC}:  # noqa: PLR2004
            return _numbers(rest[5:7], rest[3:5])
        at += 2 + int.from_bytes(rest[:2], "big")
    return None
