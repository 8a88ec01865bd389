"""Answers and requests take time in proportion to their size, whatever a server makes of them.

The plain streams are in ``tests/test_growth.py``. These are what would be hard: names that are
told with each piece, ids that are always the same, thoughts in a thousand pieces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeAlias

import pytest

from agentpool import AgentPoolError, AssistantMessage, ToolMessage, UserMessage
from agentpool._messages import CompletionRequest, ProviderPart, ToolCall, ToolDefinition
from agentpool.drivers import ProtocolError
from agentpool.drivers.wire import _chat_request, _messages_request, _responses_request
from agentpool.drivers.wire._call_ids import CHAT_IDS, CallIds
from agentpool.drivers.wire._chat_answer import ChatAccumulator
from agentpool.drivers.wire._lenient_json import read_leniently
from agentpool.drivers.wire._messages_answer import MessageAccumulator
from agentpool.drivers.wire._open_json import OpenJson, is_json
from agentpool.drivers.wire._partial_answer import MAX_BLOCKS, MAX_TOOL_CALLS, GrowingAnswer
from agentpool.drivers.wire._responses_answer import ResponseAccumulator
from agentpool.drivers.wire._responses_events import RESPONSES
from agentpool.drivers.wire._split_characters import Halves
from tests.support.growth import assert_linear, lines_run
from tests.test_growth import Texts, block, chat, item, read_stream


def call(rest: str, name: str = "f") -> str:
    """Return an event of Chat Completions with a piece of a call."""
    return chat(f'{{"tool_calls":[{{{rest}"function":{{"name":"{name}","arguments":"%s"}}}}]}}')


def completed(*items: str) -> str:
    """Return the last event of Responses."""
    return f'data: {{"type":"response.completed","response":{{"output":[{",".join(items)}]}}}}\n\n'


CHAT: Texts = {
    "names with each piece": lambda n: (
        call('"index":0,') % '{\\"a\\":\\"' + call('"index":0,') % "1111111" * n
    ),
    "names without an index": lambda n: call("") % '{\\"a\\":[' + call("") % "1," * n,
    "arguments that end again and again": lambda n: call('"index":0,') % "[]" + call("") % "]" * n,
    "ids without an index": lambda n: "".join(call(f'"id":"{at}",') % "{}" for at in range(n)),
    "thoughts in details": lambda n: (
        chat('{"reasoning_details":[{"type":"a","data":"xxxxxxxxxxxxxxxxxxxxxxxx"}]}') * n
    ),
    "details": lambda n: "".join(
        chat(f'{{"reasoning_details":[{{"type":"a","index":{at}}}]}}') for at in range(n)
    ),
    "lists in lists": lambda n: "data: " + "[" * 200 + '"' + "x" * n + '"' + "]" * 200 + "\n\n",
    "data in data": lambda n: "data: " + "data:" * n + "\n\n",
    "several events in one": lambda n: (
        "data: [" + ",".join(['{"choices":[]}'] * n) + "]\n\n" + "data: {}\n" * n + "\n"
    ),
    "halves of characters": lambda n: chat(r'{"content":"\ud83d"}') * n,
    "numbers in quotes": lambda n: chat('{"content":[{"type":"text","text":"a"}],"x":"1"}') * n,
}
MESSAGES: Texts = {
    "blocks of thoughts": lambda n: "".join(
        block("start", '"content_block":{"type":"thinking","thinking":"a"}', at) for at in range(n)
    ),
    "signatures": lambda n: (
        block("start", '"content_block":{"type":"thinking","thinking":""}')
        + block("delta", '"delta":{"type":"signature_delta","signature":"a"}') * n
    ),
    "arguments": lambda n: (
        block("start", '"content_block":{"type":"tool_use","id":"a","name":"f","input":{}}')
        + block("delta", '"delta":{"type":"input_json_delta","partial_json":"1"}') * n
    ),
}


def begun(at: int, more: str, place: int | None = None) -> str:
    """Return the event with which an item of Responses begins."""
    return item(
        "output_item.added", f'"item":{{"id":"{at}",{more}}}', at if place is None else place
    )


def comment(at: int) -> str:
    """Return a message of Responses that is no answer, and its text."""
    said = item("output_text.delta", f'"item_id":"{at}","delta":"a"', at)
    return begun(at, '"type":"message","phase":"commentary"') + said


def kept(at: int) -> str:
    """Return a thought of Responses that goes back to it."""
    thought = f'{{"type":"reasoning","id":"{at}","encrypted_content":"a"}}'
    return item("output_item.done", f'"item":{thought}', at)


def many(make: Callable[[int], str]) -> Callable[[int], str]:
    """Return a function that joins what *make* makes of each number."""
    return lambda n: "".join(map(make, range(n)))


CALL = '"type":"function_call","name":"f"'
RESPONSES_STREAM: Texts = {
    "thoughts that are kept": many(kept),
    "comments": lambda n: many(comment)(n) + completed(),
    "comments and calls": many(lambda at: comment(at) + begun(at, f'{CALL},"call_id":"{at}"', -at)),
    "items at the end, the last one first": lambda n: (
        many(lambda at: begun(at, '"type":"message"'))(n)
        + completed(*(f'{{"type":"message","id":"{at}"}}' for at in reversed(range(n))))
    ),
    "items of many kinds": lambda n: many(lambda at: begun(at, f'"type":"a{at}"'))(n) + completed(),
    "arguments": lambda n: (
        begun(0, f'{CALL},"call_id":"a"')
        + item("function_call_arguments.delta", '"item_id":"0","delta":"1"') * n
    ),
}
Accumulator: TypeAlias = ChatAccumulator | MessageAccumulator | ResponseAccumulator
STREAMS: dict[str, tuple[Callable[[], Accumulator], Texts]] = {
    "Chat Completions, hard": (ChatAccumulator, CHAT),
    "Messages, hard": (MessageAccumulator, MESSAGES),
    "Responses, hard": (ResponseAccumulator, RESPONSES_STREAM),
}


def turns(n: int) -> CompletionRequest:
    """Return a conversation of *n* calls that all have one id, as some servers name them."""
    messages: list[AssistantMessage | ToolMessage | UserMessage] = [UserMessage("a")]
    for _ in range(n):
        messages.append(AssistantMessage("", (ToolCall("call_0", "f", "{}"),)))
        messages.append(ToolMessage("call_0", "f", "done"))
    return CompletionRequest(messages=tuple(messages))


def answers(kind: str, n: int, at: Callable[[int], int]) -> CompletionRequest:
    """Return a conversation with one answer of *n* calls and *n* parts of its provider."""
    calls = tuple(ToolCall(str(place), "f", "{}") for place in range(n))
    parts = tuple(ProviderPart("", "m", kind, '"a"', "a", 0, at(place)) for place in range(n))
    return CompletionRequest(messages=(AssistantMessage("said", calls, parts),))


def offered(n: int) -> CompletionRequest:
    """Return a request whose tool has *n* arguments that Claude's API refuses for their names."""
    properties = {f"a {place}": {"type": "string"} for place in range(n)}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return CompletionRequest(
        messages=(UserMessage("a"),), tools=(ToolDefinition("t", "d", schema),)
    )


REQUESTS: dict[str, Callable[[int], CompletionRequest]] = {
    "calls of one id": turns,
    "parts of calls": lambda n: answers("call.extra_content", n, lambda place: place),
    "parts before calls": lambda n: answers("item", n, lambda place: place),
    "parts before one call": lambda n: answers("item", n, lambda _: 1),
    "thoughts in parts": lambda n: answers("reasoning_content", n, lambda _: 0),
    "names of arguments": offered,
}
BUILDERS: dict[str, Callable[[CompletionRequest], object]] = {
    "Chat Completions request": lambda request: _chat_request.encode_request(
        request, _chat_request.ChatOptions(model="m", no_thought="", needs_signatures=True)
    ),
    "Messages request": lambda request: _messages_request.encode_request(
        request, _messages_request.MessageOptions(model="m")
    ),
    "Responses request": lambda request: _responses_request.encode_request(
        request, _responses_request.ResponsesOptions(model="m")
    ),
}


@pytest.mark.parametrize(
    ("wire", "kind"), [(wire, kind) for wire, (_, texts) in STREAMS.items() for kind in texts]
)
def test_an_answer_is_read_in_proportion(wire: str, kind: str) -> None:
    """Some took time with the square: 20,000 calls without an index stood still for a minute."""
    accumulator, texts = STREAMS[wire]

    def read(text: str) -> None:
        with contextlib.suppress(AgentPoolError):
            read_stream(accumulator(), text)

    assert_linear(read, texts[kind])


@pytest.mark.parametrize(
    ("builder", "kind"),
    [
        *((builder, "calls of one id") for builder in BUILDERS),
        ("Chat Completions request", "parts of calls"),
        ("Chat Completions request", "thoughts in parts"),
        ("Responses request", "parts before calls"),
        ("Messages request", "parts before one call"),
        ("Messages request", "names of arguments"),
    ],
)
def test_a_request_is_written_in_proportion(builder: str, kind: str) -> None:
    """Of 300 calls that a server had given one id, each request took a third of a second."""
    assert_linear(BUILDERS[builder], REQUESTS[kind])


def test_ids_are_found_in_steps_of_their_number() -> None:
    """The thousandth call of one id is as soon named as the second."""

    def name(count: int) -> list[str]:
        ids = CallIds(CHAT_IDS)
        return [ids.of_call("call_0") for _ in range(count)]

    room = "drivers/wire/_call_ids.py"
    assert lines_run(lambda: name(400), room) <= 2.1 * lines_run(lambda: name(200), room)
    assert len(set(name(400))) == 400
    assert name(400)[:200] == name(200)


def test_an_answer_has_a_number_of_calls() -> None:
    """With an index and without one."""
    answer = GrowingAnswer("call")
    for at in range(MAX_TOOL_CALLS):
        answer.add_call(None, call_id=str(at), name="f")
    with pytest.raises(ProtocolError, match="the answer has more than 128 tool calls"):
        answer.add_call(None, call_id="one more", name="f")


def test_an_answer_has_a_number_of_blocks() -> None:
    """Those without a text have no size: a stream of them filled the memory."""
    answer = GrowingAnswer("call")
    for _ in range(MAX_BLOCKS):
        answer.begin_block()
    with pytest.raises(ProtocolError, match="the answer has more than 100000 blocks"):
        answer.begin_block()


def test_what_is_nested_in_an_event_is_no_event() -> None:
    """Neither a list in a list nor an event in an event: each was read anew at each depth."""
    for data in ("[[{}]]", "data:data:{}", "data: data: data: {}"):
        with pytest.raises(ProtocolError, match="not a chat completion chunk"):
            read_stream(ChatAccumulator(), f"data: {data}\n\n")


@pytest.mark.parametrize(
    "pieces",
    [
        ["{", "}"], ["{}"], ["{}", " ", "\n"], ["{}", "{}"], ["{}", "1"], ["[", "]", "]"],
        ["}", "{"], ["1", "1"], ["1", "e", "5"], ["tr", "ue"], ["1" * 1_000], ["1" * 1_001], [" "],
        ['"a', '"'], ['"a\\', '""'], ['"a\\', '"', '"'], ['{"a":"}"', "}"], ['{"a":"\\\\"', "}"],
        ['{"a"', ":[1,", "2]}", " "], ["[" * 3, "]" * 2, "]"], ["{" + '"a":' + "1" * 2_000, "}"],
        ['["\\ud83d"]'], ["[1,]"], ["[1", "]", "", " "], ["x", "[]"],
    ],
    ids=ascii,
)  # fmt: skip
def test_arguments_are_whole_when_they_are_json(pieces: list[str]) -> None:
    """As if all of them were read again with each piece."""
    known = OpenJson()
    for count in range(1, len(pieces) + 1):
        whole = "".join(pieces[:count])
        is_long = len(whole) > 1_000 and whole.strip("1") == ""
        assert known.read(pieces[:count]) == (is_json(whole) and not is_long)


def test_a_detail_keeps_its_fields() -> None:
    """In pieces: texts grow, the last of the others counts, and what is null says nothing."""
    stream = chat(
        '{"reasoning_details":[{"type":"t","id":"a","text":"on","format":"x","signature":null}]}'
    )
    stream += chat('{"reasoning_details":[{"type":"t","text":"e","signature":"s","format":null}]}')
    stream += chat('{"reasoning_details":[{"type":"t","id":"b","summary":"two","data":7}]}')
    stream += chat('{"reasoning_details":[{"type":"t","data":"x","text":null}]}')
    accumulator = ChatAccumulator()
    read = (
        stream
        + 'data: {"choices":[{"index":0,"finish_reason":"stop","delta":{"content":"a"}}]}\n\n'
    )
    read_stream(accumulator, read)
    (part,) = accumulator.finish().parts
    assert part.text == "onetwo"
    assert part.data == (
        '[{"type":"t","id":"a","text":"one","format":"x","signature":"s"},'
        '{"type":"t","id":"b","summary":"two","data":"x"}]'
    )


def test_events_of_careless_servers_are_read_in_proportion() -> None:
    """Numbers in quotes, one thing for several, nothing at all."""
    assert_linear(
        lambda data: read_leniently(data, RESPONSES),
        lambda n: '{"output":[' + ",".join(["null", '{"type":"message"}'] * n) + '],"model":5}',
    )
    halves = Halves().mend
    assert_linear(halves, lambda n: '{"delta":{"a":[' + ",".join([r'"\ud83d"'] * n) + "]}}")
