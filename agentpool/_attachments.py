"""Images and documents that are sent with a text.

Rules:

1. An attachment is of a kind that models read: PNG, JPEG, GIF and WebP images, and PDF
   documents. Its first bytes must be those of its kind, whatever the name of its file.
2. It is not larger than the highest limit of all providers. Each provider's own limit is checked
   before anything is sent to it.
3. Drivers estimate how many tokens an attachment takes, since providers count differently. For an
   unknown provider, the estimate is the highest of all: OpenAI's newest models for large images,
   Gemini for small ones. An image that does not state its size counts as large.

Sources: https://platform.claude.com/docs/en/build-with-claude/vision and pdf-support,
https://platform.openai.com/docs/guides/images-vision and
https://ai.google.dev/gemini-api/docs/media-resolution; measured by
https://huggingface.co/datasets/JOHNISKING/image-token-cost (2026-11).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from errno import EINVAL
from pathlib import Path, PurePath
from stat import S_ISREG
from typing import Final, Literal, Self, TypeAlias, final

import msgspec

from agentpool._base import Shown
from agentpool._checks import expect, expect_fields
from agentpool._errors import UsageError

AttachmentKind: TypeAlias = Literal["image", "pdf"]
"""The name that models use for inputs of this kind."""

PDF_TYPE: Final = "application/pdf"

MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp", PDF_TYPE)
"""The supported media types."""

MAX_ATTACHMENT_BYTES: Final = 32 * 1024 * 1024
"""No provider accepts a request large enough for a larger attachment."""

LEAST_IMAGE_TOKENS: Final = 1_120
"""Gemini 3's count for an image of any size."""

MOST_IMAGE_TOKENS: Final = 15_000
"""OpenAI's count for a photo of twelve megapixels, which it does not shrink. Anthropic counts
4,784 at most."""

PATCH_PIXELS: Final = 32
"""The side of the squares that OpenAI counts."""

TOKENS_PER_PATCH: Final = 1.31
"""Anthropic's count, with patches of 28 pixels. OpenAI's newest models count 1.2 per patch."""

OWN_TOKENS: Final = 120
"""A fixed amount that providers add, which matters for small images."""

PDF_PAGE_TOKENS: Final = 4_000
"""Up to 3,000 for the text of a page, and the rest for its picture."""

MOST_PAGES: Final = 1_000
"""More than any provider reads."""


@final
class Attachment(Shown, msgspec.Struct, frozen=True, gc=False):
    """An image or a PDF document."""

    media_type: str
    """``image/png``, ``image/jpeg``, ``image/gif``, ``image/webp`` or ``application/pdf``."""
    data: bytes
    """The complete contents."""
    name: str = ""
    """The name of the file. Empty: it has no name."""

    def __post_init__(self) -> None:
        """Reject data that no model can read."""
        expect_fields(self)
        name = self.name or "the attachment"
        if self.media_type not in MEDIA_TYPES:
            words = ", ".join(MEDIA_TYPES)
            raise UsageError(f"{name} must be one of {words}, got {self.media_type!r}")
        size = len(self.data)
        if size > MAX_ATTACHMENT_BYTES:
            raise UsageError(
                f"{name} has {size:,} bytes, and no provider takes more than "
                f"{MAX_ATTACHMENT_BYTES:,}; make it smaller"
            )
        if media_type_of(self.data) != self.media_type:
            raise UsageError(
                f"{name} has the media type {self.media_type}, but its first bytes are of another "
                "type; check the type, and that the data is complete"
            )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load the attachment in the file *path*. Its first bytes tell its type.

        Raises:
            UsageError: If the file cannot be read, is too large, or is not of a supported type.
        """
        expect(
            path,
            (str, PurePath),
            "path must be a str or a Path",
            "write Attachment.load('photo.png')",
        )
        try:
            # A file that is named once, like a manifest; it waits for nothing else.
            if not S_ISREG(Path(path).stat().st_mode):
                # A pipe would be waited for, and every agent with it.
                reason = "it must be a regular file, not a folder, a pipe or a device"
                raise OSError(EINVAL, reason)  # noqa: TRY301  # as open would
            with open(path, "rb") as file:  # noqa: PTH123  # takes what is not a Path as well
                data = file.read(MAX_ATTACHMENT_BYTES + 1)
        except (OSError, ValueError) as exc:  # ValueError: a path that no system has
            reason = getattr(exc, "strerror", None) or str(exc)
            text = f"attachment {str(path)!r} cannot be read: {reason}; check the path"
            raise UsageError(text) from exc
        if len(data) > MAX_ATTACHMENT_BYTES:  # and how large it is was not looked at
            raise UsageError(
                f"attachment {str(path)!r} has more than {MAX_ATTACHMENT_BYTES:,} bytes, and no "
                "provider takes that many; make it smaller"
            )
        kind = media_type_of(data)
        if kind is None:
            raise UsageError(
                f"attachment {str(path)!r} must be a PNG, JPEG, GIF or WebP image, or a PDF; "
                "convert it, or put its text into the query"
            )
        return cls(kind, data, PurePath(path).name)

    def __repr__(self) -> str:
        """Return type, size and name. The data may be large or secret."""
        name = f", {self.name!r}" if self.name else ""
        return f"Attachment({self.media_type!r}, {len(self.data):,} bytes{name})"

    @property
    def kind(self) -> AttachmentKind:
        """``"image"`` or ``"pdf"``."""
        return "pdf" if self.media_type == PDF_TYPE else "image"

    @property
    def tokens(self) -> int:
        """A high estimate of the tokens that the attachment takes up in a context window."""
        if self.kind == "pdf":
            return pages_of(self) * PDF_PAGE_TOKENS
        size = pixels_of(self)
        if size is None:
            return MOST_IMAGE_TOKENS
        patches = -(-size[0] // PATCH_PIXELS) * -(-size[1] // PATCH_PIXELS)
        tokens = math.ceil(patches * TOKENS_PER_PATCH) + OWN_TOKENS
        return max(LEAST_IMAGE_TOKENS, min(tokens, MOST_IMAGE_TOKENS))


CountAttachment: TypeAlias = Callable[[Attachment], int]
"""Estimates how many tokens of a window an attachment takes."""


def highest_tokens(one: Attachment) -> int:
    """Return the highest estimate of all providers."""
    return one.tokens


def pixels_of(image: Attachment) -> tuple[int, int] | None:
    """Return the width and height of an image. ``None``: unknown."""
    from agentpool._media_size import size_in  # noqa: PLC0415  # on first use

    return size_in(image.data, image.media_type)


def pages_of(document: Attachment) -> int:
    """Return the number of pages of a PDF document, estimated if it is not stated."""
    from agentpool._media_size import pages_in  # noqa: PLC0415  # on first use

    return min(pages_in(document.data), MOST_PAGES)


def size_trouble(
    one: Attachment, most_image_bytes: int | None, most_image_pixels: int | None = None
) -> str:
    """Return why a provider would refuse *one* for its size. Empty: it would accept it.

    Args:
        one: The attachment to send.
        most_image_bytes: The largest image that the provider accepts. ``None``: any size.
        most_image_pixels: The longest side of an image that the provider accepts. ``None``: any
            length.
    """
    if one.kind != "image":
        return ""
    size = len(one.data)
    if most_image_bytes is not None and size > most_image_bytes:
        return f"has {size:,} bytes, and the provider takes images of at most {most_image_bytes:,}"
    width, height = pixels_of(one) or (0, 0)
    if most_image_pixels is None or max(width, height) <= most_image_pixels:
        return ""
    most = f"{most_image_pixels:,} x {most_image_pixels:,}"
    return f"has {width:,} x {height:,} pixels, and the provider takes images of at most {most}"


def media_type_of(data: bytes) -> str | None:
    """Return the media type that the first bytes of *data* show. ``None``: not supported."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return PDF_TYPE if data.startswith(b"%PDF-") else None
