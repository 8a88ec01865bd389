"""Estimates the tokens of images and documents, by provider.

Rules:

1. Each provider's own way of counting is followed, as its page on images describes it; estimates
   err on the high side.
2. The way is chosen by the host, by the rules that the manifest sets for a gateway, or by the
   vendor in a model's name as routers write it: ``anthropic/claude-opus-4.7``.
3. For a model that is not in a table, its provider's newest way is assumed. For an unknown
   provider, the highest estimate of all counts.
4. An image of unknown size counts as a large one.

Sources (2026-11): OpenAI: https://platform.openai.com/docs/guides/images-vision, with tiles of
512 pixels for older models, squares of 32 for newer ones. Anthropic:
https://platform.claude.com/docs/en/build-with-claude/vision, width x height / 750, as squares of
28 pixels, at most 1,568 pixels a side before Opus 4.7 and 2,576 since. Gemini:
https://ai.google.dev/gemini-api/docs/image-understanding and media-resolution, 258 for each tile
before Gemini 3 and 1,120 for each image since. Mistral:
https://docs.mistral.ai/capabilities/vision, squares of 28 pixels, or of 16 at Pixtral. xAI:
https://docs.x.ai/docs/guides/image-understanding, 256 for each tile of 448 pixels and once more.
OpenAI's newest, Anthropic's and Gemini's were measured by
https://huggingface.co/datasets/JOHNISKING/image-token-cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Final, TypeAlias, final

import attrs

from agentpool._attachments import (
    MOST_IMAGE_TOKENS,
    PDF_PAGE_TOKENS,
    Attachment,
    pages_of,
    pixels_of,
)
from agentpool._manifest.providers import Rules
from agentpool._manifest.wires import is_openai

Count: TypeAlias = Callable[[int, int], int]
"""Returns the tokens of an image from its width and height."""

_LARGE: Final = (4_032, 3_024)
"""The size assumed for an image of unknown size: a photo of twelve megapixels."""


@final
@attrs.frozen
class Counting:
    """A provider's way to count."""

    image: Count
    """Returns the tokens of an image."""
    page_tokens: int = PDF_PAGE_TOKENS
    """The tokens of a page of a PDF document: its text and its picture."""

    def tokens(self, one: Attachment) -> int:
        """Estimate how many tokens of a window the attachment *one* takes."""
        if one.kind == "pdf":
            return pages_of(one) * self.page_tokens
        width, height = pixels_of(one) or _LARGE
        return self.image(max(width, 1), max(height, 1))


def counting_of(host: str, model: str, rules: Rules | None = None) -> Counting | None:
    """Return how the provider of *model* counts the tokens of an image. ``None``: unknown.

    Args:
        host: The host that is asked.
        model: The provider's name of the model.
        rules: The set of rules for a gateway. ``None``: they follow from the host.
    """
    vendor, slash, name = model.lower().rpartition("/")
    by_vendor = _VENDORS.get(vendor.rpartition("/")[2]) if slash else None
    by_host = next((way for is_at, way in _HOSTS if is_at(host)), None)
    by_rules = _VENDORS.get(rules) if rules is not None else None
    found = by_host or by_rules or by_vendor
    return None if found is None else found(name)


# --- OpenAI


def _tiles(base: int, tile: int, width: int, height: int) -> int:
    wide, high = _within(2_048, width, height)
    scale = min(1.0, 768 / min(wide, high))
    return base + tile * _grid(512, wide * scale, high * scale)


def _squares(factor: float, most: int, width: int, height: int) -> int:
    return min(ceil(min(_grid(32, width, height), most) * factor), MOST_IMAGE_TOKENS)


_OLD_SQUARES: Final = 1_536
"""The most squares of an image for the smaller models, which shrank larger images."""

_MINI: Final = Counting(partial(_tiles, 2_833, 5_667), page_tokens=3_000 + 2_833 + 4 * 5_667)
"""A tile takes 33 times as many tokens as with the larger model, each at a 33rd of the price."""

_OPENAI: Final = (
    (re.compile(r"gpt-4o-mini"), _MINI),
    (re.compile(r"gpt-(?:4\.1|5)-mini"), Counting(partial(_squares, 1.62, _OLD_SQUARES))),
    (re.compile(r"gpt-(?:4\.1|5)-nano"), Counting(partial(_squares, 2.46, _OLD_SQUARES))),
    (re.compile(r"o4-mini"), Counting(partial(_squares, 1.72, _OLD_SQUARES))),
    (re.compile(r"(?:chat)?gpt-4"), Counting(partial(_tiles, 85, 170))),
    (re.compile(r"gpt-5(?:-|\Z)"), Counting(partial(_tiles, 70, 140))),
    (re.compile(r"o[13]"), Counting(partial(_tiles, 75, 150))),
)
"""The older models. From GPT-5.1 on, all models count squares, and do not shrink large images."""

_NEWEST_OPENAI: Final = Counting(partial(_squares, 1.2, 1_000_000))


def _openai(name: str) -> Counting:
    return next((way for older, way in _OPENAI if older.match(name)), _NEWEST_OPENAI)


# --- Anthropic

_OLDER_CLAUDE: Final = re.compile(
    r"claude-(?:[123]|instant|(?:opus|sonnet|haiku)-4(?:[-.][0-6])?(?!\d)(?![-.][7-9]))"
)
"""Models before Opus 4.7, which was the first for large images."""

_CLAUDE_MARKS: Final = 80
"""The tokens around an image."""


def _claude(most_pixels: int, most_tokens: int, width: int, height: int) -> int:
    squares = _grid(28, *_within(most_pixels, width, height))
    return min(squares, most_tokens) + _CLAUDE_MARKS


def _anthropic(name: str) -> Counting:
    is_older = _OLDER_CLAUDE.search(name) is not None
    return Counting(partial(_claude, *((1_568, 1_600) if is_older else (2_576, 4_784))))


# --- Gemini


def _gemini_tiles(width: int, height: int) -> int:
    if max(width, height) <= 384:  # noqa: PLR2004  # as its page says
        return 258
    unit = min(max(int(min(width, height) / 1.5), 256), 768)
    return 258 * ceil(width / unit) * ceil(height / unit)


def _gemini_image(width: int, height: int) -> int:  # noqa: ARG001  # of any size
    return 1_120


def _gemini(name: str) -> Counting:
    if re.match(r"gemini-[12]", name):
        return Counting(_gemini_tiles, page_tokens=258)
    return Counting(_gemini_image, page_tokens=1_120)


# --- Mistral and xAI


def _mistral_image(width: int, height: int) -> int:
    """Count the tokens with squares of both sizes, and return the higher count.

    Each row of squares ends with a mark, which counts as well.
    """
    found: list[int] = []
    for pixels, most in ((16, 1_024), (28, 1_540)):
        wide, high = _within(most, width, height)
        found.append((ceil(wide / pixels) + 1) * ceil(high / pixels))
    return max(found)


def _grok_image(width: int, height: int) -> int:
    return 256 * (min(_grid(448, width, height), 6) + 1)


def _mistral(name: str) -> Counting:  # noqa: ARG001  # all of its models
    return Counting(_mistral_image)


def _grok(name: str) -> Counting:  # noqa: ARG001  # all of its models
    return Counting(_grok_image)


# --- whose way it is

_HOSTS: Final[tuple[tuple[Callable[[str], bool], Callable[[str], Counting]], ...]] = (
    (is_openai, _openai),
    (lambda host: host.endswith(".openai.azure.com"), _openai),
    (lambda host: host.endswith(".anthropic.com"), _anthropic),
    (lambda host: host == "generativelanguage.googleapis.com", _gemini),
    (lambda host: host == "api.mistral.ai", _mistral),
    (lambda host: host == "api.x.ai", _grok),
)

_VENDORS: Final[dict[str, Callable[[str], Counting]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "google": _gemini,
    "gemini": _gemini,
    "mistral": _mistral,
    "mistralai": _mistral,
    "x-ai": _grok,
    "xai": _grok,
}


def _within(most: int, width: int, height: int) -> tuple[float, float]:
    """Return a size reduced so that its longer side is at most *most*."""
    scale = min(1.0, most / max(width, height))
    return width * scale, height * scale


def _grid(pixels: int, width: float, height: float) -> int:
    """Return how many squares cover an image."""
    return ceil(width / pixels) * ceil(height / pixels)
