"""Keeps a request to the number of images that Claude accepts.

Rules:

1. A request has at most 100 images. If it has more than 20, each may have at most 2,000 pixels a
   side.
2. A single message of the user with more images is refused before anything is sent.
3. In a longer conversation the oldest images are left out, several together, so that the beginning
   of a request stays the same for some turns, and in the provider's cache. A note tells the model
   about each.

Source: https://platform.claude.com/docs/en/build-with-claude/vision (2026-11),
anthropics/claude-code#49720 and openclaude#520.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from agentpool._attachments import Attachment, pixels_of
from agentpool._errors import BadRequestError
from agentpool._messages import CompletionRequest, UserMessage
from agentpool.drivers.wire._attachments import attachments_of, without_oldest

MOST_IMAGES: Final = 100
"""The most images in one request."""

_FEW_IMAGES: Final = 20
"""Up to this many images may be larger."""

_MANY_PIXELS: Final = 2_000
"""The longest side of each image if there are more."""

_STEPS: Final = 4
"""The limit is divided by this to get the number of images that are left out together."""

_WHY: Final = (
    f"with those after it there are more than the provider takes, {_FEW_IMAGES} of more than "
    f"{_MANY_PIXELS:,} pixels a side or {MOST_IMAGES} smaller ones; get it again if you need it"
)


def within_image_count(request: CompletionRequest) -> CompletionRequest:
    """Return *request* without its oldest images, if it has more images than are accepted.

    Raises:
        BadRequestError: If one message of the user has too many. The error says what to do.
    """
    for message in request.messages:
        if isinstance(message, UserMessage) and message.attachments:
            _check(_images(message.attachments))
    left = _excess(_images(attachments_of(request)))
    if not left:
        return request

    def goes(one: Attachment) -> bool:
        nonlocal left
        is_one = left > 0 and one.kind == "image"
        left -= is_one
        return is_one

    return without_oldest(request, goes, _WHY)


def _check(images: Sequence[Attachment]) -> None:
    count = len(images)
    if count > MOST_IMAGES:
        raise BadRequestError(
            f"a message has {count} images, but the provider accepts at most {MOST_IMAGES} in one "
            "request; send fewer"
        )
    if (wide := _last_wide(images)) and count > _FEW_IMAGES:
        one = images[wide - 1]
        width, height = pixels_of(one) or (0, 0)
        raise BadRequestError(
            f"a message has {count} images, and {one.name or 'one of them'} has {width:,} x "
            f"{height:,} pixels; in a request with more than {_FEW_IMAGES} images no side may be "
            f"longer than {_MANY_PIXELS:,}: make the image smaller, or send fewer"
        )


def _images(attachments: Iterable[Attachment]) -> Sequence[Attachment]:
    return [one for one in attachments if one.kind == "image"]


def _last_wide(images: Sequence[Attachment]) -> int:
    """Return the number of the last image that is too large among many; 0 if there is none."""
    sides = (max(pixels_of(one) or (0, 0)) for one in images)
    wide = [number for number, side in enumerate(sides, 1) if side > _MANY_PIXELS]
    return max(wide, default=0)


def _excess(images: Sequence[Attachment]) -> int:
    """Return how many of the oldest images must be left out."""
    left = _in_steps(len(images) - MOST_IMAGES, MOST_IMAGES)
    rest = images[left:]
    if len(rest) <= _FEW_IMAGES:
        return left
    # Where the large ones are old, all others may stay.
    return left + min(_in_steps(len(rest) - _FEW_IMAGES, _FEW_IMAGES), _last_wide(rest))


def _in_steps(excess: int, most: int) -> int:
    step = most // _STEPS
    return max(0, -(-excess // step) * step)
