"""How large images and documents are said to be, by their bytes alone."""

from __future__ import annotations

import base64
import random
import struct
import time
import zlib

import pytest

from agentpool._attachments import MOST_PAGES, PDF_PAGE_TOKENS, pixels_of
from agentpool.drivers import Attachment

PAGES = 100
LOSSY = base64.b64decode("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA")
LOSSLESS = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")


def packed(data: bytes, *, is_object: bool = True) -> bytes:
    """Return a stream of a document, as LaTeX, Word and Acrobat write them."""
    kind = b"/Type /ObjStm /N 1 /First 4 " if is_object else b""
    body = zlib.compress(data)
    head = b"<< " + kind + b"/Filter /FlateDecode /Length %d >>" % len(body)
    return b"1 0 obj\n" + head + b"\nstream\r\n" + body + b"\nendstream\nendobj\n"


def pdf(*parts: bytes) -> Attachment:
    """Return a document."""
    return Attachment("application/pdf", b"%PDF-1.5\n" + b"".join(parts) + b"%%EOF")


@pytest.mark.parametrize("end", [b"", b"\n", b" "])
def test_pages_in_object_streams_are_counted(end: bytes) -> None:
    """A document of 360 kB with a hundred pages was counted as one of eight."""
    text = packed(random.Random(1).randbytes(3500), is_object=False)  # noqa: S311  # no secret
    page = b"<< /Type" + end + b"/Page /Parent 2 0 R >> "
    lists = [packed(page * 10) for _ in range(PAGES // 10)]
    document = pdf(packed(b"<< /Type /Pages /Count 100 >>"), *lists, *[text] * PAGES)
    assert document.tokens == PAGES * PDF_PAGE_TOKENS


def test_a_document_that_is_made_for_the_web_says_how_many_pages_it_has() -> None:
    """At its beginning, also if all else is encrypted."""
    document = pdf(b"1 0 obj << /Linearized 1 /L 9000 /H [ 1 2 ] /O 3 /E 4 /N 100 /T 5 >>")
    assert document.tokens == PAGES * PDF_PAGE_TOKENS


@pytest.mark.parametrize(
    "part",
    [
        b"/ObjStm",
        b"/ObjStm stream",
        b"/ObjStm stream\r\nthis is not packed",
        packed(b"<< /Type /Page >>")[:-30],
        b"/ObjStm stream\n" * 2000,
        packed(b"<< /Type /PageLabel >>"),
    ],
)
def test_what_is_broken_is_estimated(part: bytes) -> None:
    """By its bytes."""
    assert pdf(part).tokens == PDF_PAGE_TOKENS


def test_a_bomb_takes_neither_time_nor_memory() -> None:
    """Of a gigabyte no more than some megabytes are unpacked, once."""
    bomb = zlib.compressobj(9)
    data = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(256)) + bomb.flush()
    document = pdf(*(b"/ObjStm stream\n" + data + b"\n" for _ in range(50)))
    begun = time.process_time()
    assert document.tokens <= MOST_PAGES * PDF_PAGE_TOKENS
    assert time.process_time() - begun < 5.0


def lossless(width: int, height: int) -> bytes:
    """Return the beginning of a WebP image without losses."""
    size = (width - 1) | (height - 1) << 14
    return b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", size) + bytes(9)


def lossy(width: int, height: int) -> bytes:
    """Return the beginning of a WebP image with losses."""
    return b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\x30\x01\0\x9d\x01\x2a" + struct.pack("<HH", width, height)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (LOSSY, (1, 1)),
        (LOSSLESS, (1, 1)),
        (lossy(10, 20), (10, 20)),
        (lossy(9000, 16383), (9000, 16383)),
        (lossless(10, 20), (10, 20)),
        (lossless(9000, 16384), (9000, 16384)),
        (lossless(9, 9)[:24], None),
        (lossy(9, 9).replace(b"\x9d", b"\0"), None),
        (lossless(9, 9).replace(b"\x2f", b"\0"), None),
    ],
)
def test_each_form_of_webp_says_its_size(data: bytes, size: tuple[int, int] | None) -> None:
    """Only the least usual one was read, and all others counted as photos."""
    image = Attachment("image/webp", data)
    assert pixels_of(image) == size
