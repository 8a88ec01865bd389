"""The answers of a fake server in Responses, streamed or whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, cast

import msgspec

from agentpool.testing._strict_answers import Answering, Writing, sse

_Item = Mapping[str, object]

_USAGE: Final = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 110,
}


def _items(writing: Writing) -> list[_Item]:
    turn, number = writing.turn, writing.number
    thought: dict[str, object] = {"id": f"rs_{number}", "type": "reasoning"}
    thought["summary"] = [{"type": "summary_text", "text": turn.thoughts}]
    if writing.is_encrypted:
        thought["encrypted_content"] = writing.sign()
    items: list[_Item] = [thought]
    if turn.text:
        part: dict[str, object] = {"type": "output_text", "text": turn.text, "annotations": []}
        said = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [part]}
        items.append({**said, "status": "completed"})
    for index, (name, arguments) in enumerate(turn.calls):
        call = {"type": "function_call", "id": f"fc_{number}_{index}", "name": name}
        call |= {"call_id": writing.call_id(index), "status": "completed"}
        items.append({**call, "arguments": msgspec.json.encode(arguments).decode()})
    return items


def _response(writing: Writing, status: str, **more: object) -> dict[str, object]:
    response: dict[str, object] = {"id": f"resp_{writing.number}", "object": "response"}
    response |= {"created_at": 0, "model": writing.model, "status": status, "output": []}
    response |= {"error": None, "incomplete_details": None, "tools": [], "tool_choice": "auto"}
    return {**response, "parallel_tool_calls": True, **more}


def _stream(writing: Writing) -> Iterator[bytes]:
    number = 0

    def event(kind: str, **fields: object) -> bytes:
        nonlocal number
        number += 1
        name = f"response.{kind}"
        return sse({"type": name, "sequence_number": number, **fields}, name)

    yield event("created", response=_response(writing, "in_progress"))
    items = _items(writing)
    for index, item in enumerate(items):
        place = {"output_index": index, "item_id": item["id"]}
        match item["type"]:
            case "reasoning":
                (told,) = cast("list[_Item]", item["summary"])
                yield event("output_item.added", output_index=index, item={**item, "summary": []})
                at = {**place, "summary_index": 0}
                yield event("reasoning_summary_part.added", **at, part={**told, "text": ""})
                yield event("reasoning_summary_text.delta", **at, delta=told["text"])
            case "message":
                (part,) = cast("list[_Item]", item["content"])
                yield event("output_item.added", output_index=index, item={**item, "content": []})
                at = {**place, "content_index": 0}
                yield event("content_part.added", **at, part={**part, "text": ""})
                yield event("output_text.delta", **at, delta=part["text"], logprobs=[])
                yield event("output_text.done", **at, text=part["text"], logprobs=[])
                yield event("content_part.done", **at, part=part)
            case _:
                begun = {**item, "arguments": "", "status": "in_progress"}
                yield event("output_item.added", output_index=index, item=begun)
                yield event("function_call_arguments.delta", **place, delta=item["arguments"])
        yield event("output_item.done", output_index=index, item=item)
    done = _response(writing, "completed", output=items, usage=_USAGE)
    yield event("completed", response=done)


def _whole(writing: Writing) -> object:
    return _response(writing, "completed", output=_items(writing), usage=_USAGE)


RESPONSES: Final = Answering(_stream, _whole)
"""Responses."""
