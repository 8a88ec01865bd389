"""Attachments in each provider's format, and their limits.

Source: https://platform.openai.com/docs/guides/images-vision and pdf-files,
https://platform.claude.com/docs/en/build-with-claude/vision and pdf-support,
https://docs.mistral.ai/capabilities/document_ai/document_qna and ``DocumentURLChunk`` in
Mistral's OpenAPI document (``document_url`` a text, ``document_name`` optional), and
https://platform.claude.com/docs/en/api/overview for the size of a request (2026-11).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from agentpool._attachments import Attachment, size_trouble
from agentpool._errors import BadRequestError
from agentpool._messages import (
    AssistantMessage,
    ChatMessage,
    CompletionRequest,
    Json,
    ToolMessage,
    UserMessage,
)

ANTHROPIC_IMAGE_BYTES: Final = 5 * 1024 * 1024 // 4 * 3
"""The largest image: 5 MiB of base64."""

ANTHROPIC_IMAGE_PIXELS: Final = 8_000
"""The longest side of an image."""

ANTHROPIC_ATTACHED_BYTES: Final = 24 * 1024 * 1024
"""The most base64 in one request, whose limit is 32 MB; the rest is for text."""

_STEPS: Final = 4
"""A quarter of the limit is left out together, so that the beginning of a request stays the same
for many turns, and in the provider's cache."""

_TOO_LARGE: Final = (
    "with those after it the request is larger than the provider takes; get it again if you need "
    "it, or smaller ones"
)

READS: Final[Mapping[str, str]] = {"image": "images", "pdf": "PDF documents"}
"""The kinds of attachments in words."""


def check_attachments(
    request: CompletionRequest,
    inputs: frozenset[str] | None,
    *,
    most_image_bytes: int | None = None,
    most_image_pixels: int | None = None,
) -> None:
    """Raise, before anything is sent, if the model does not accept an attachment.

    Args:
        request: The request to check.
        inputs: What the model reads besides text. ``None``: unknown.
        most_image_bytes: The largest image that the provider accepts. ``None``: no limit.
        most_image_pixels: The longest side of an image that the provider accepts. ``None``: no
            limit.

    Raises:
        BadRequestError: If the provider would refuse an attachment. The error says what to do.
    """
    for one in attachments_of(request):
        name = one.name or "an attachment"
        if inputs is not None and one.kind not in inputs:
            raise BadRequestError(
                f"the model cannot read {READS[one.kind]}, such as {name}; leave it "
                "out, or choose a model that reads them"
            )
        if trouble := size_trouble(one, most_image_bytes, most_image_pixels):
            raise BadRequestError(f"{name} {trouble}; make it smaller")


def within_request(request: CompletionRequest, most_bytes: int | None) -> CompletionRequest:
    """Return *request* without its oldest attachments, if together they exceed the limit.

    A note tells the model about each missing one.

    Args:
        request: The request to check.
        most_bytes: The most base64 that may be attached. ``None``: no limit.
    """
    if most_bytes is None:
        return request
    excess = sum(map(_base64_bytes, attachments_of(request))) - most_bytes
    if excess <= 0:
        return request
    step = most_bytes // _STEPS
    left = -(-excess // step) * step

    def goes(one: Attachment) -> bool:
        nonlocal left
        is_one = left > 0
        left -= _base64_bytes(one)
        return is_one

    return without_oldest(request, goes, _TOO_LARGE)


def without_oldest(
    request: CompletionRequest, goes: Callable[[Attachment], bool], why: str
) -> CompletionRequest:
    """Return *request* with a note in place of each attachment that *goes* picks.

    Args:
        request: The request to check.
        goes: Returns whether to leave out an attachment. Called for each, the oldest first.
        why: The reason in the note.
    """
    messages = list(request.messages)
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage) or not message.attachments:
            continue
        kept: list[Attachment] = []  # each has its own
        notes = ""
        for one in message.attachments:
            if goes(one):
                notes += f"\n[{one.kind} {one.name!r} left out: {why}]"
            else:
                kept.append(one)
        if notes:
            messages[index] = _noted(message, tuple(kept), notes)
    return msgspec.structs.replace(request, messages=messages)


def _noted(
    message: UserMessage | ToolMessage, kept: tuple[Attachment, ...], notes: str
) -> ChatMessage:
    if isinstance(message, UserMessage):
        return msgspec.structs.replace(message, text=message.text + notes, attachments=kept)
    return msgspec.structs.replace(message, content=message.content + notes, attachments=kept)


def _base64_bytes(one: Attachment) -> int:
    return -(-len(one.data) // 3) * 4


def attachments_of(request: CompletionRequest) -> Iterator[Attachment]:
    """Yield all attachments in *request*."""
    for message in request.messages:
        if not isinstance(message, AssistantMessage):
            yield from message.attachments


def chat_parts(
    text: str, attachments: Iterable[Attachment], *, has_files: bool = True
) -> list[msgspec.Raw]:
    """Return *text* and *attachments* as parts of a Chat Completions message.

    Args:
        text: The text of the message.
        attachments: The attachments of the message.
        has_files: Whether the server accepts files. Mistral has documents instead.
    """
    parts: list[Json] = [{"type": "text", "text": text}]
    for one in attachments:
        if one.kind == "image":
            parts.append({"type": "image_url", "image_url": {"url": _url(one)}})
        elif not has_files:
            name = one.name or "document.pdf"
            document = {"type": "document_url", "document_url": _url(one), "document_name": name}
            parts.append(document)
        else:
            file: Json = {"filename": one.name or "document.pdf", "file_data": _url(one)}
            parts.append({"type": "file", "file": file})
    return [msgspec.Raw(msgspec.json.encode(part)) for part in parts]


def responses_parts(text: str, attachments: Iterable[Attachment]) -> list[Mapping[str, Json]]:
    """Return *text* and *attachments* as parts of a Responses item."""
    parts: list[Mapping[str, Json]] = [{"type": "input_text", "text": text}]
    for one in attachments:
        if one.kind == "image":
            parts.append({"type": "input_image", "image_url": _url(one), "detail": "auto"})
        else:
            name = one.name or "document.pdf"
            parts.append({"type": "input_file", "filename": name, "file_data": _url(one)})
    return parts


class MessagesFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attachment as a Messages block."""

    type: str
    """``image`` or ``document``."""
    source: Mapping[str, str]
    """Its media type and its data."""
    cache_control: Mapping[str, Json] | None = None
    """The cache mark after it. ``None``: there is none."""


def messages_blocks(attachments: Iterable[Attachment]) -> list[MessagesFile]:
    """Return *attachments* as Messages blocks."""
    return [
        MessagesFile(
            "image" if one.kind == "image" else "document",
            {"type": "base64", "media_type": one.media_type, "data": _text(one)},
        )
        for one in attachments
    ]


def _url(one: Attachment) -> str:
    return f"data:{one.media_type};base64,{_text(one)}"


def _text(one: Attachment) -> str:
    return base64.b64encode(one.data).decode()
