"""Requests, held against the types of the providers' own clients.

Pieces that Mistral alone knows have the types of its client: thoughts and documents
(mistralai 3.7, ``ThinkChunk`` and ``DocumentURLChunk``, 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, Literal, NotRequired

from anthropic.types import message_create_params
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

KINDS: Final[Mapping[str, Any]] = {
    "chat": completion_create_params.CompletionCreateParamsStreaming,
    "responses": response_create_params.ResponseCreateParamsStreaming,
    "messages": message_create_params.MessageCreateParamsStreaming,
}


class Thinking(TypedDict):
    """A thought among the pieces of an answer, as Mistral's client has it."""

    type: Literal["thinking"]
    thinking: list[dict[str, Any]]
    signature: NotRequired[str | None]
    closed: NotRequired[bool]


class Document(TypedDict):
    """A document among the pieces of a message, as Mistral's client has it."""

    type: Literal["document_url"]
    document_url: str
    document_name: NotRequired[str | None]


OF_MISTRAL: Final[Mapping[str, TypeAdapter[Any]]] = {
    "thinking": TypeAdapter(Thinking),
    "document_url": TypeAdapter(Document),
}


@cache
def adapter_of(api: str) -> TypeAdapter[Any]:
    """Return what validates a request of *api*. It takes a second to make."""
    return TypeAdapter(KINDS[api])


def check_request(api: str, body: Any) -> None:  # noqa: ANN401  # JSON
    """Check that *body* is what the official client of *api* would send.

    Raises:
        ValidationError: If it is not.
    """
    if api == "responses":
        # Items go back without the ids that the server gave them, which their type wants.
        items = [
            {"id": "rs", **item} if item.get("type") == "reasoning" else item
            for item in body["input"]
        ]
        body = {**body, "input": items}
    if api == "chat":
        body = {**body, "messages": list(map(without_mistrals, body["messages"]))}
    consume(adapter_of(api).validate_python(body))


def without_mistrals(message: Any) -> Any:  # noqa: ANN401  # JSON
    """Return *message* without the pieces that are Mistral's alone, which are checked.

    Raises:
        ValidationError: If they are not as its client has them.
    """
    pieces = message.get("content") if isinstance(message, dict) else None
    if not isinstance(pieces, list):
        return message
    rest = []
    for piece in pieces:
        kind = piece.get("type") if isinstance(piece, dict) else None
        adapter = OF_MISTRAL.get(kind) if isinstance(kind, str) else None
        if adapter is None:
            rest.append(piece)
        else:
            adapter.validate_python(piece)
    return {**message, "content": rest}


def consume(value: Any) -> None:  # noqa: ANN401  # JSON
    """Look at all of *value*: what is an Iterable there is validated only then."""
    if isinstance(value, dict):
        for one in value.values():
            consume(one)
    elif isinstance(value, list | tuple | Iterator) or type(value).__name__ == "ValidatorIterator":
        for one in value:
            consume(one)
