"""Writes the answers of fake servers, streamed or whole, each with its server's peculiarities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, cast, final

import attrs
import msgspec

from agentpool._checks import expect_each, expect_fields

SIGNATURES: Final = "S+/="
"""The end of every signature. It has characters that clients often change, but must send back
unchanged."""


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
        expect_each(
            self.calls,
            dict,
            "calls must be a sequence of names with arguments",
            "write [(name, {})]",
        )


@final
@attrs.frozen(kw_only=True)
class Ways:
    """The peculiarities of one server in Chat Completions."""

    id_form: str = "call_{}"
    """The format of its call ids, with a place for the number."""
    thoughts: str = ""
    """Where the server puts the thoughts: ``reasoning``, ``reasoning_content``, ``content``,
    ``signature``, or nowhere."""
    shares_index: bool = False
    """Whether all calls of an answer have the index 0."""


@final
@attrs.define(eq=False)
class Writing:
    """One answer while it is written."""

    turn: FakeTurn
    ways: Ways
    model: str
    """The model that was asked for, and that answers."""
    number: int
    """How many answers the fake has already given. The number makes the answer's ids unique."""
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


@final
@attrs.frozen
class Answering:
    """How a server answers in one interface."""

    stream: Callable[[Writing], Iterator[bytes]]
    """Yields the events of an answer."""
    whole: Callable[[Writing], object]
    """Returns the body of an answer that is not streamed."""


def sse(value: object, event: str = "") -> bytes:
    """Encode one server-sent event."""
    head = f"event: {event}\n".encode() if event else b""
    data = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
    return head + b"data: " + data + b"\n\n"


def _chat_calls(writing: Writing) -> list[dict[str, object]]:
    calls: list[dict[str, object]] = []
    for index, (name, arguments) in enumerate(writing.turn.calls):
        call: dict[str, object] = {
            "id": writing.call_id(index),
            "type": "function",
            "function": {"name": name, "arguments": msgspec.json.encode(arguments).decode()},
        }
        if writing.ways.thoughts == "signature" and not index:
            call["extra_content"] = {"google": {"thought_signature": writing.sign()}}
        calls.append(call)
    return calls


def _chat_thoughts(writing: Writing) -> dict[str, object]:
    """Return the fields of a message with the thoughts in them."""
    turn, where = writing.turn, writing.ways.thoughts
    if where in {"reasoning", "reasoning_content"}:
        writing.issued.append(f"{turn.thoughts} {writing.number}")
        return {where: writing.issued[-1]}
    if where == "content":
        return {
            "content": [{"type": "thinking", "thinking": [{"type": "text", "text": turn.thoughts}]}]
        }
    return {}


_CHAT_USAGE: Final = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


def _chat_stream(writing: Writing) -> Iterator[bytes]:
    turn = writing.turn
    head = {"id": f"chat-{writing.number}", "object": "chat.completion.chunk", "created": 0}
    head["model"] = writing.model

    def delta(fields: Mapping[str, object], finish: str | None = None) -> bytes:
        return sse({**head, "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})

    yield delta({"role": "assistant", "content": ""})
    if thoughts := _chat_thoughts(writing):
        yield delta(thoughts)
    if turn.text:
        yield delta({"content": turn.text[:3]})
        yield delta({"content": turn.text[3:]})
    for index, call in enumerate(_chat_calls(writing)):
        place = 0 if writing.ways.shares_index else index
        yield delta({"tool_calls": [{"index": place, **call}]})
    yield delta({}, "tool_calls" if turn.calls else "stop")
    if writing.has_usage:
        yield sse({**head, "choices": [], "usage": _CHAT_USAGE})
    yield sse("[DONE]")


def _chat_whole(writing: Writing) -> object:
    turn = writing.turn
    message: dict[str, object] = {"role": "assistant", "content": turn.text or None}
    message |= _chat_thoughts(writing)
    if turn.text and isinstance(said := message["content"], list):
        cast("list[object]", said).append({"type": "text", "text": turn.text})
    if calls := _chat_calls(writing):
        message["tool_calls"] = calls
    finish = "tool_calls" if calls else "stop"
    return {
        "id": f"chat-{writing.number}",
        "object": "chat.completion",
        "created": 0,
        "model": writing.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _CHAT_USAGE,
    }


CHAT: Final = Answering(_chat_stream, _chat_whole)
"""Chat Completions."""


def _message_blocks(writing: Writing) -> list[dict[str, object]]:
    turn = writing.turn
    blocks: list[dict[str, object]] = [
        {"type": "thinking", "thinking": turn.thoughts, "signature": writing.sign()}
    ]
    if turn.text:
        blocks.append({"type": "text", "text": turn.text})
    for index, (name, arguments) in enumerate(turn.calls):
        use: dict[str, object] = {"type": "tool_use", "name": name, "input": arguments}
        blocks.append({**use, "id": writing.call_id(index)})
    return blocks


def _pieces_of(block: Mapping[str, object]) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Return the beginning of a block, and the pieces that follow it."""
    match block["type"]:
        case "thinking":
            pieces: list[dict[str, object]] = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
            return {**block, "thinking": "", "signature": ""}, pieces
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]
        case _:
            said = msgspec.json.encode(block["input"]).decode()
            pieces = [{"type": "input_json_delta", "partial_json": one} for one in ("", said)]
            return {**block, "input": {}}, pieces


def _message_head(writing: Writing, **more: object) -> dict[str, object]:
    usage = {"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 1}
    head: dict[str, object] = {"id": f"msg_{writing.number}", "type": "message"}
    head |= {"role": "assistant", "model": writing.model, "content": [], "usage": usage}
    return {**head, "stop_reason": None, "stop_sequence": None, **more}


def _stop_reason(writing: Writing) -> str:
    return "tool_use" if writing.turn.calls else "end_turn"


def _message_stream(writing: Writing) -> Iterator[bytes]:
    def event(kind: str, **fields: object) -> bytes:
        return sse({"type": kind, **fields}, kind)

    yield event("message_start", message=_message_head(writing))
    yield event("ping")
    for index, block in enumerate(_message_blocks(writing)):
        begun, pieces = _pieces_of(block)
        yield event("content_block_start", index=index, content_block=begun)
        for piece in pieces:
            yield event("content_block_delta", index=index, delta=piece)
        yield event("content_block_stop", index=index)
    ending = {"stop_reason": _stop_reason(writing), "stop_sequence": None}
    yield event("message_delta", delta=ending, usage={"output_tokens": 10})
    yield event("message_stop")


def _message_whole(writing: Writing) -> object:
    usage = {"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 10}
    blocks, reason = _message_blocks(writing), _stop_reason(writing)
    return _message_head(writing, content=blocks, stop_reason=reason, usage=usage)


MESSAGES: Final = Answering(_message_stream, _message_whole)
"""Messages."""
