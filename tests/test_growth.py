"""What reads text from outside takes time in proportion to it: every room but the tools.

The tools' own are in ``tests/tools/test_growth.py``, the memory's in ``tests/memory``. Each is
given the texts that would be hard for it, at n and at 2n.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from typing import TypeAlias

import pytest

from agentpool import AgentManifest, AgentPoolError, UserMessage
from agentpool._chat_markers import Cleaner, as_data
from agentpool._cli._screen import visible
from agentpool._manifest.hosts import HttpUrl, parse_host
from agentpool._message_json import messages_from_json, messages_to_json
from agentpool._messages import FinishReason
from agentpool._one_line import one_line
from agentpool._secrets import redacted
from agentpool.abc import Completion
from agentpool.drivers import ProtocolError
from agentpool.drivers.wire._chat_answer import ChatAccumulator
from agentpool.drivers.wire._failure import failure_from_response, failure_in_stream
from agentpool.drivers.wire._local_chat import read_answer
from agentpool.drivers.wire._messages_answer import MessageAccumulator
from agentpool.drivers.wire._partial_answer import GrowingAnswer
from agentpool.drivers.wire._responses_answer import ResponseAccumulator
from agentpool.drivers.wire._sse import SseParser
from agentpool.drivers.wire._stream_answer import GrowingCompletion
from agentpool.observe._redact import Redactor, forms_of
from agentpool.observe._trace import parse_trace
from agentpool.testing._recording import read_exchanges
from agentpool.testing._simulation.token import parse_token
from agentpool.tools.builtin._files import replace_once
from agentpool.tools.builtin._team import has_heading
from agentpool.tools.mcp._message_lines import LineSplitter
from agentpool.tools.mcp._secrets import Secrets, SecretsInStream
from agentpool.tools.system._command_rules import refused_argument, split_command
from agentpool.tools.system._page import Page
from tests.support.growth import assert_linear

Texts: TypeAlias = dict[str, Callable[[int], str]]

HEADER = (
    '{"format":"agentpool-trace","run_id":"ab","pool":"p","opened_at":1.0,"max_concurrent":2}\n'
)

EXCHANGE = (
    '{"asked":{"method":"GET","host":"a","path":"/","body":null},"status":200,"headers":{},'
    '"after_seconds":0.0,"pieces":[],"is_whole":true}\n'
)

REDACTOR = Redactor.of(["a" * 40, "sk-" + "ab" * 20, "x\\\"'" * 8])
BASE64_OF_KEY = base64.b64encode(("sk-" + "ab" * 20).encode()).decode()
SECRETS = Secrets.of(["a" * 40, "ab" * 20])


def feed(take: Callable[[bytes], object], text: str, step: int = 7) -> None:
    """Give *text* in small pieces, as a network does."""
    data = text.encode()
    for at in range(0, len(data), step):
        take(data[at : at + step])


def read_local(text: str) -> None:
    """Read the answer of a local model that was cut."""
    read_answer(Completion(text=text, finish_reason=FinishReason.MAX_TOKENS), call_id="1")


def grow_a_call(text: str) -> None:
    """Put a call together whose name comes in pieces."""
    answer = GrowingAnswer("call")
    for sign in text:
        answer.add_call(0, name=sign, arguments=sign)


def read_stream(answer: GrowingCompletion, text: str) -> None:
    """Read a whole stream of a provider, and what came of it."""
    for event in SseParser().feed(text.encode()):
        answer.feed(event)
    answer.finish()


def chat(delta: str) -> str:
    """Return an event of Chat Completions."""
    return f'data: {{"choices":[{{"index":0,"delta":{delta}}}]}}\n\n'


def block(kind: str, rest: str, index: int = 0) -> str:
    """Return an event of Messages."""
    return f'data: {{"type":"content_block_{kind}","index":{index},{rest}}}\n\n'


def item(kind: str, rest: str, index: int = 0) -> str:
    """Return an event of Responses."""
    return f'data: {{"type":"response.{kind}","output_index":{index},{rest}}}\n\n'


def read_page(text: str) -> None:
    """Read a file as its tool does: the first lines, in small pieces."""
    page = Page(offset=2, limit=50, column=1)
    for at in range(0, len(text), 7):
        page.add(text[at : at + 7])
    page.finish(is_end=True)


def known(text: str) -> object:
    """Return the error of a provider that limits requests, and says so in these words."""
    return failure_from_response(429, {"retry-after": text}, text.encode())


READERS: dict[str, tuple[Callable[[str], object], Texts]] = {
    "manifest": (
        AgentManifest.parse,
        {
            "a dotted key": lambda n: "a." * n + "b=1",
            "a dotted key in quotes": lambda n: '"\\"" . ' * n + "b=1",
            "a dotted table": lambda n: "[b" + " .b" * n + "]",
            "what is nearly a dotted key": lambda n: "a" * n + ".'",
            "quotes": lambda n: "\"'" * n,
            "arrays": lambda n: "a=" + "[" * n + "]" * n,
            "digits": lambda n: "a=" + "9" * n,
            "hex": lambda n: "a=0x" + "f" * n,
            "tables": lambda n: "\n".join(f"[t{i}]" for i in range(n)),
            "grants": lambda n: (
                "capabilities = [" + '{type="shell",allowed_commands=["git"]},' * n + "]"
            ),
        },
    ),
    "cleaner": (
        Cleaner().clean,
        {
            "signs": lambda n: "<" * n,
            "words": lambda n: "ignore " * n,
            "blanks": lambda n: "ignore" + " " * n,
            "markers": lambda n: "<|im_start|>" * n,
            "markers beside a letter that is two": lambda n: "ß<|im_start|>" * n,
        },
    ),
    "one line": (
        one_line,
        {
            "blanks": lambda n: "    x" * n,
            "what is not seen": lambda n: "\u3164" * n,
        },
    ),
    "data": (
        lambda text: as_data("heading", text),
        {"fences": lambda n: "~" * n, "short fences": lambda n: "~ " * n},
    ),
    "waits": (
        known,
        {
            "asks": lambda n: "try again " * n,
            "asks for words": lambda n: "wait" + " a" * n,
            "digits": lambda n: "retry after " + "1" * n,
            "spans": lambda n: "retry in " + "1s " * n,
            "asks for nothing": lambda n: "retry in " * n,
            "numbers left": lambda n: "1." * n + " left",
            "blanks": lambda n: "try again in" + " " * n + "try again in",
        },
    ),
    "errors in a stream": (
        failure_in_stream,
        {"asks": lambda n: "retry " * n, "sizes": lambda n: "input token count " * n},
    ),
    "local answers": (
        read_local,
        {
            "blanks": lambda n: " " * n,
            "a name": lambda n: '{"name":"' + "a" * n,
            "blanks after a name": lambda n: '{"name":"a"' + " " * n,
            "escapes": lambda n: '{"answer":"' + "\\u" * n,
        },
    ),
    "calls": (grow_a_call, {"names": lambda n: "ab" * n}),
    "events": (
        lambda text: feed(SseParser().feed, text),
        {
            "data": lambda n: "data\n" * n,
            "lines": lambda n: "\r\n" * n,
            "one line": lambda n: "data: " + "x" * n,
            "events": lambda n: "event: x\ndata: x\n\n" * n,
        },
    ),
    "trace": (
        lambda text: parse_trace([HEADER.encode(), *text.encode().splitlines(keepends=True)]),
        {
            "prompts": lambda n: '{"prompt":1,"text":"a"}\n' * n,
            "rubbish": lambda n: '{"event":"?"}\n' * n,
            "one line": lambda n: '{"event":' + "[" * n + "\n",
        },
    ),
    "recording": (
        lambda text: read_exchanges(text.encode(), name="a"),
        {"lines": lambda n: EXCHANGE * n, "nested": lambda n: "[" * n + "\n"},
    ),
    "keys in a text that is shown": (
        lambda text: redacted(text, ["a" * 40, "ab" * 20, "ß" * 10]),
        {
            "nearly": lambda n: ("a" * 39 + "b") * n,
            "one": lambda n: "a" * n,
            "other letters": lambda n: "aA" * n,
            "letters that are two": lambda n: "ß" * n,
        },
    ),
    "many keys": (
        lambda text: redacted("a text", text.split()),
        {"keys": lambda n: "".join(f"key-{place:08} " for place in range(n))},
    ),
    "headings": (
        has_heading,
        {
            "nearly": lambda n: "messages\n" * n,
            "ends of lines": lambda n: "\r\n\x85\u2028" * n,
            "blanks": lambda n: " " * n + "\n" + "message" * n,
        },
    ),
    "bodies of errors": (
        lambda text: failure_from_response(400, {}, text.encode()),
        {
            "a list": lambda n: '[{"error":"no"}' + ',{"error":"no"}' * n + "]",
            "details": lambda n: '{"error":{"details":[' + '{"a":1},' * n + "{}]}}",
            "texts in texts": lambda n: '{"error":{"message":"' + '{\\"error\\":' * n + '"}}',
        },
    ),
    "Chat Completions": (
        lambda text: read_stream(ChatAccumulator(), text),
        {
            "texts": lambda n: chat('{"content":"a"}') * n,
            "thoughts": lambda n: chat('{"reasoning_content":"a"}') * n,
            "arguments": lambda n: (
                chat('{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{"}}]}') * n
            ),
            "calls": lambda n: "".join(
                chat(f'{{"tool_calls":[{{"index":{at},"id":"{at}","function":{{"name":"f"}}}}]}}')
                for at in range(n)
            ),
            "what is no text": lambda n: chat('{"content":7}') * n,
        },
    ),
    "Messages": (
        lambda text: read_stream(MessageAccumulator(), text),
        {
            "texts": lambda n: (
                block("start", '"content_block":{"type":"text","text":""}')
                + block("delta", '"delta":{"type":"text_delta","text":"a"}') * n
            ),
            "blocks": lambda n: "".join(
                block("start", '"content_block":{"type":"text","text":"a"}', at) for at in range(n)
            ),
            "thoughts": lambda n: (
                block("start", '"content_block":{"type":"thinking","thinking":""}')
                + block("delta", '"delta":{"type":"thinking_delta","thinking":"a"}') * n
            ),
        },
    ),
    "Responses": (
        lambda text: read_stream(ResponseAccumulator(), text),
        {
            "texts": lambda n: (
                item("output_item.added", '"item":{"type":"message","id":"a","content":[]}')
                + item("output_text.delta", '"item_id":"a","delta":"a"') * n
            ),
            "items": lambda n: "".join(
                item("output_item.added", f'"item":{{"type":"message","id":"{at}"}}', at)
                for at in range(n)
            ),
        },
    ),
    "keys": (
        lambda text: REDACTOR.clean(text.encode()),
        {
            "nearly": lambda n: ("a" * 39 + "b") * n,
            "one": lambda n: "a" * n,
            "escapes": lambda n: "\\" * n,
            "percent": lambda n: "%25" * n,
            "slashes of a URL": lambda n: "%5C" * n + "%20",
            "HTML": lambda n: "&amp;" * n,
            "numbers of HTML": lambda n: "&#97;" * n,
            "units of JSON": lambda n: "\\u0061" * n,
            "lines of base64": lambda n: BASE64_OF_KEY[:12] * n,
            "breaks in base64": lambda n: (BASE64_OF_KEY[:20] + "\n" * 70) * n,
        },
    ),
    "forms of a key": (forms_of, {"quotes": lambda n: '"\\' * (n // 30 + 1)}),
    "keys that may go on": (REDACTOR.open_end, {"one": lambda n: "a" * n}),
    "keys of a server": (
        lambda text: feed(SecretsInStream(SECRETS).feed, text, 64),
        {"one": lambda n: "a" * n, "two": lambda n: "ab" * n},
    ),
    "lines of a server": (
        lambda text: feed(LineSplitter().feed, text),
        {"lines": lambda n: "\n" * n, "one line": lambda n: "x" * n},
    ),
    "commands": (
        lambda text: split_command(text[:32_000]),
        {
            "blanks": lambda n: "a " * n,
            "quotes": lambda n: '"' + '\\"' * n,
            "dollars": lambda n: '"' + "$" * n,
            "words": lambda n: "a'b'" * n,
        },
    ),
    "arguments": (
        lambda text: refused_argument("tar", text.split()),
        {"many": lambda n: "--x " * n},
    ),
    "edits of a file": (
        lambda text: replace_once(text, "ab" * 99, "b"),
        {"ends of lines": lambda n: "a\r\n" * n, "nearly": lambda n: "ab" * 98 + "a" + "ab" * n},
    ),
    "page of a file": (
        read_page,
        {"lines": lambda n: "a\n" * n, "one line": lambda n: "a" * n, "late": lambda n: " \n" * n},
    ),
    "terminal": (visible, {"control signs": lambda n: "\x1b" * n}),
    "conversation as JSON": (
        messages_from_json,
        {
            "messages": lambda n: messages_to_json([UserMessage("a")] * n),
            "keys": lambda n: '[{"role":"user",' + '"text":"a",' * n + '"x":1}]',
        },
    ),
    "token of a finding": (parse_token, {"parts": lambda n: "s1." * n}),
    "URLs": (
        lambda text: HttpUrl.parse(f"http://{text}"),
        {"dots": lambda n: "a." * n, "path": lambda n: "a/" + "../" * n},
    ),
    "hosts": (
        parse_host,
        {
            "dots": lambda n: "a." * n + "-",
            "dashes": lambda n: "a-" * n,
            "letters": lambda n: "é" * n,
            "marks": lambda n: "\u0300\u0323" * n + "a",
        },
    ),
}


@pytest.mark.parametrize(
    ("reader", "kind"), [(reader, kind) for reader, (_, texts) in READERS.items() for kind in texts]
)
def test_text_from_outside_is_read_in_proportion(reader: str, kind: str) -> None:
    """Twice as much takes twice as long: a text of some kilobytes stood still for minutes."""
    read, texts = READERS[reader]

    def read_or_refuse(text: str) -> None:
        with contextlib.suppress(AgentPoolError):
            read(text)

    assert_linear(read_or_refuse, texts[kind])


def test_the_page_lists_what_is_read() -> None:
    """It is made from what is given here and in the other folders."""
    from tests import growth_page  # it imports this

    page = growth_page.PAGE.read_text()
    assert growth_page.written(page) == page


def test_a_name_that_comes_in_pieces_has_a_bound() -> None:
    """Each piece makes a new text of all of them: a million took hours."""
    with pytest.raises(ProtocolError, match="the name of tool call 0 is longer than 1000"):
        grow_a_call("ab" * 500 + "a")
    grow_a_call("ab" * 500)
