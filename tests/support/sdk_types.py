"""Requests, held against the types of the providers' own clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from anthropic.types import message_create_params
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from pydantic import TypeAdapter

KINDS: Final[Mapping[str, Any]] = {
    "chat": completion_create_params.CompletionCreateParamsStreaming,
    "responses": response_create_params.ResponseCreateParamsStreaming,
    "messages": message_create_params.MessageCreateParamsStreaming,
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
    consume(adapter_of(api).validate_python(body))


def consume(value: Any) -> None:  # noqa: ANN401  # JSON
    """Look at all of *value*: what is an Iterable there is validated only then."""
    if isinstance(value, dict):
        for one in value.values():
            consume(one)
    elif isinstance(value, list | tuple | Iterator) or type(value).__name__ == "ValidatorIterator":
        for one in value:
            consume(one)
