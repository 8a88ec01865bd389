"""Writes the streams that fake servers send, with the peculiarities of each server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, final

import attrs
import msgspec

from agentpool._checks import expect_fields

SIGNATURES: Final = "S+/="
"""The end of every signature: characters that a client must send back unchanged."""


@final
@attrs.frozen(kw_only=True)
class FakeTurn:
    """One answer of a fake server."""

    text: str = ""
    """The text of the answer."""
    calls: Sequence[tuple[str, Mapping[str, object]]] = ()
    """The tools that it calls, with their arguments."""
    thoughts: str = "hm"
    """The model's thoughts before the answer."""

    def __attrs_post_init__(self) -> None:
        """Refuse fields of the wrong type."""
        expect_fields(self, but=("calls",))


@final
@attrs.frozen(kw_only=True)
class Ways:
    """The peculiarities of one server in Chat Completions."""

    id_form: str = "call_{}"
    """The format of its call ids, with a place for the number."""
    thoughts: str = ""
    """Where it puts the thoughts: ``reasoning``, ``reasoning_content``, ``content``, ``signature``,
    or nowhere."""
    shares_index: bool = False
    """Whether all calls of an answer have the index 0."""


@final
@attrs.define(eq=False)
class Writing:
    """One answer while it is written."""

    turn: FakeTurn
    ways: Ways
    number: int
    """How many answers the fake gave before, which makes its ids unique."""
    has_usage: bool = True
    """Whether the request asks for usage."""
    is_encrypted: bool = True
    """Whether the request asks for encrypted reasoning."""
    issued: list[str] = attrs.field(init=False, factory=list[str])
    """The signatures that the client must send back, and the ids of calls."""

    def call_id(self, index: int) -> str:
        """Return a new id for a call."""
        self.issued.append(self.ways.id_form.format(self.number * 10 + index))
        return self.issued[-1]

    def sign(self) -> str:
        """Return a new signature."""
        self.issued.append(f"sig-{self.number}-{SIGNATURES}")
        return self.issued[-1]


def sse(value: object, event: str = "") -> bytes:
    """Encode one server-sent event."""
    head = f"event: {event}\n".encode() if event else b""
    data = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
    return head + b"data: " + data + b"\n\n"


def chat_stream(writing: Writing) -> Iterator[bytes]:
    """Yield the events of an answer in Chat Completions."""
    turn, ways = writing.turn, writing.ways

    def delta(finish: str | None = None, **fields: object) -> bytes:
        return sse(
            {"model": "m", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}
        )

    yield delta(role="assistant", content="")
    if ways.thoughts in {"reasoning", "reasoning_content"}:
        thought = f"{turn.thoughts} {writing.number}"
        writing.issued.append(thought)
        yield delta(**{ways.thoughts: thought})
    elif ways.thoughts == "content":
        said = [{"type": "thinking", "thinking": [{"type": "text", "text": turn.thoughts}]}]
        yield delta(content=said)
    if turn.text:
        yield delta(content=turn.text[:3])
        yield delta(content=turn.text[3:])
    for index, (name, arguments) in enumerate(turn.calls):
        call: dict[str, object] = {
            "index": 0 if ways.shares_index else index,
            "id": writing.call_id(index),
            "type": "function",
            "function": {"name": name, "arguments": msgspec.json.encode(arguments).decode()},
        }
        if ways.thoughts == "signature" and not index:
            call["extra_content"] = {"google": {"thought_signature": writing.sign()}}
        yield delta(tool_calls=[call])
    yield delta("tool_calls" if turn.calls else "stop")
    if writing.has_usage:
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        yield sse({"model": "m", "choices": [], "usage": usage})
    yield sse("[DONE]")


def message_stream(writing: Writing) -> Iterator[bytes]:
    """Yield the events of an answer in Messages."""
    turn = writing.turn

    def event(kind: str, **fields: object) -> bytes:
        return sse({"type": kind, **fields}, kind)

    blocks: list[tuple[dict[str, object], list[dict[str, object]]]] = [
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [
                {"type": "thinking_delta", "thinking": turn.thoughts},
                {"type": "signature_delta", "signature": writing.sign()},
            ],
        )
    ]
    if turn.text:
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": turn.text}]))
    for index, (name, arguments) in enumerate(turn.calls):
        use: dict[str, object] = {"type": "tool_use", "name": name, "input": {}}
        use["id"] = writing.call_id(index)
        said = msgspec.json.encode(arguments).decode()
        pieces = [{"type": "input_json_delta", "partial_json": one} for one in ("", said)]
        blocks.append((use, [dict(piece) for piece in pieces]))
    usage = {"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 1}
    start: dict[str, object] = {"id": "msg", "type": "message", "role": "assistant", "model": "m"}
    start["content"] = []
    yield event("message_start", message={**start, "usage": usage})
    yield event("ping")
    for index, (block, deltas) in enumerate(blocks):
        yield event("content_block_start", index=index, content_block=block)
        for piece in deltas:
            yield event("content_block_delta", index=index, delta=piece)
        yield event("content_block_stop", index=index)
    reason = "tool_use" if turn.calls else "end_turn"
    yield event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 10})
    yield event("message_stop")


def response_stream(writing: Writing) -> Iterator[bytes]:
    """Yield the events of an answer in Responses."""
    turn = writing.turn

    def event(kind: str, **fields: object) -> bytes:
        return sse({"type": f"response.{kind}", **fields}, f"response.{kind}")

    response = {"id": "resp", "object": "response", "model": "m"}
    yield event("created", response={**response, "status": "in_progress", "output": []})
    summary = [{"type": "summary_text", "text": turn.thoughts}]
    reasoning: dict[str, object] = {"id": f"rs_{writing.number}", "type": "reasoning"}
    yield event("output_item.added", output_index=0, item={**reasoning, "summary": []})
    yield event("reasoning_summary_text.delta", output_index=0, delta=turn.thoughts)
    reasoning["summary"] = summary
    if writing.is_encrypted:
        reasoning["encrypted_content"] = writing.sign()
    yield event("output_item.done", output_index=0, item=reasoning)
    if turn.text:
        said = {"type": "message", "id": f"msg_{writing.number}", "role": "assistant"}
        yield event("output_item.added", output_index=1, item={**said, "content": []})
        yield event("output_text.delta", output_index=1, content_index=0, delta=turn.text)
        said_part: dict[str, object] = {"type": "output_text", "text": turn.text, "annotations": []}
        content = [said_part]
        yield event("output_item.done", output_index=1, item={**said, "content": content})
    for index, (name, arguments) in enumerate(turn.calls):
        made = msgspec.json.encode(arguments).decode()
        call = {"type": "function_call", "id": f"fc_{writing.number}_{index}", "name": name}
        call |= {"call_id": writing.call_id(index), "arguments": ""}
        place = index + 2
        yield event("output_item.added", output_index=place, item=call)
        yield event("function_call_arguments.delta", output_index=place, delta=made)
        yield event("output_item.done", output_index=place, item={**call, "arguments": made})
    usage = {"input_tokens": 100, "output_tokens": 10}
    yield event("completed", response={**response, "status": "completed", "usage": usage})
