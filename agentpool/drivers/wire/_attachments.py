"""Attachments in the form that each provider wants, and what each refuses.

Source: https://platform.openai.com/docs/guides/images-vision and pdf-files,
https://platform.claude.com/docs/en/build-with-claude/vision and pdf-support (2026-11).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from agentpool._attachments import Attachment, size_trouble
from agentpool._errors import BadRequestError
from agentpool._messages import AssistantMessage, CompletionRequest, Json

ANTHROPIC_IMAGE_BYTES: Final = 5 * 1024 * 1024 // 4 * 3
"""5 MiB of base64."""

READS: Final[Mapping[str, str]] = {"image": "images", "pdf": "PDF documents"}
"""The kinds in words."""


def check_attachments(
    request: CompletionRequest,
    inputs: frozenset[str] | None,
    *,
    most_image_bytes: int | None = None,
) -> None:
    """Raise if the model does not take an attachment, before anything is sent.

    Args:
        request: What would be sent.
        inputs: What the model reads besides text. ``None``: unknown.
        most_image_bytes: The largest image that the provider takes. ``None``: any.

    Raises:
        BadRequestError: If it would be refused. Says what to do.
    """
    for one in attachments_of(request):
        name = one.name or "an attachment"
        if inputs is not None and one.kind not in inputs:
            raise BadRequestError(
                f"the model reads no {READS[one.kind]}, and {name} is one of them; leave it "
                "out, or choose a model that reads them"
            )
        if trouble := size_trouble(one, most_image_bytes):
            raise BadRequestError(f"{name} {trouble}; make it smaller")


def attachments_of(request: CompletionRequest) -> Iterator[Attachment]:
    """Yield all attachments in *request*."""
    for message in request.messages:
        if not isinstance(message, AssistantMessage):
            yield from message.attachments


def chat_parts(text: str, attachments: Iterable[Attachment]) -> list[msgspec.Raw]:
    """Return *text* and *attachments* as parts of a Chat Completions message."""
    parts: list[Json] = [{"type": "text", "text": text}]
    for one in attachments:
        if one.kind == "image":
            parts.append({"type": "image_url", "image_url": {"url": _url(one)}})
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


def messages_blocks(attachments: Iterable[Attachment]) -> list[msgspec.Raw]:
    """Return *attachments* as Messages blocks."""
    return [
        msgspec.Raw(
            msgspec.json.encode(
                {
                    "type": "image" if one.kind == "image" else "document",
                    "source": {"type": "base64", "media_type": one.media_type, "data": _text(one)},
                }
            )
        )
        for one in attachments
    ]


def _url(one: Attachment) -> str:
    return f"data:{one.media_type};base64,{_text(one)}"


def _text(one: Attachment) -> str:
    return base64.b64encode(one.data).decode()
