"""Half of a character, which text of other programs may have: nothing breaks at it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import SpawnConfig, open_pool
from agentpool.abc import Driver
from agentpool.drivers import (
    AssistantMessage,
    CompletionRequest,
    ProviderPart,
    ScriptedDriver,
    ToolCall,
    ToolMessage,
    UserMessage,
    messages_from_json,
    messages_to_json,
    open_anthropic,
    open_openai,
)
from agentpool.drivers.wire._chat_answer import ChatAccumulator
from agentpool.drivers.wire._sse import SseParser
from agentpool.journal import open_journal
from agentpool.testing import Quirk, open_quirk_server, quirks
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import calling, manifest, results_of, tool_call
from tests.support.http_servers import DONE, always, event, open_loopback, text_event, whole

HALF, REST, WHOLE, MARK = "\ud83d", "\ude00", "\U0001f600", "\ufffd"

SAID = (
    UserMessage(f"a{HALF}"),
    AssistantMessage(
        f"b{HALF}{REST}",
        (ToolCall(f"c{HALF}", "look", f'{{"d": "{REST}"}}'),),
        (ProviderPart("p", "m", "k", f'"{HALF}"', HALF),),
    ),
    ToolMessage(f"c{HALF}", "look", f"e{HALF}f"),
)
MENDED = (
    UserMessage(f"a{MARK}"),
    AssistantMessage(
        f"b{WHOLE}",
        (ToolCall(f"c{MARK}", "look", f'{{"d": "{MARK}"}}'),),
        (ProviderPart("p", "m", "k", f'"{MARK}"', MARK),),
    ),
    ToolMessage(f"c{MARK}", "look", f"e{MARK}f"),
)


def test_a_conversation_with_one_is_written_as_json() -> None:
    """Two that belong together are the character; each other one is the mark."""
    assert messages_from_json(messages_to_json(SAID)) == MENDED
    assert messages_from_json(messages_to_json(MENDED)) == MENDED


async def test_a_request_with_one_is_sent() -> None:
    """In every wire: it raised an error of the encoder."""
    quirk: Quirk = next(one for one in quirks() if one.name == "response-text")
    asked = CompletionRequest(SAID, system=f"Be brief.{HALF}")
    async with (
        open_quirk_server([quirk]) as server,
        open_openai("m", base_url=server.url(quirk.name), api="responses") as driver,
    ):
        await driver.complete(asked)
    body = json.loads(server.requests[-1].body)
    assert body["instructions"] == f"Be brief.{MARK}"
    assert [one.get("content") or one.get("output") for one in body["input"]] == [
        f"a{MARK}", f"b{WHOLE}", None, f"e{MARK}f",
    ]  # fmt: skip


async def test_other_wires_send_it_as_well() -> None:
    """Their texts are encoded in other places."""
    by_name = {one.name: one for one in quirks()}
    chosen = [by_name["half-a-character"], by_name["half-a-character-in-messages"]]

    async def ask(driver: Driver) -> str:
        return (await driver.complete(CompletionRequest([SAID[0]]))).text

    async with open_quirk_server(chosen) as server:
        async with open_openai("m", base_url=server.url(chosen[0].name)) as chat:
            assert await ask(chat) == WHOLE
        async with open_anthropic("m", base_url=server.url(chosen[1].name)) as messages:
            assert await ask(messages) == f"a{WHOLE}"
    sent = [json.loads(one.body)["messages"][0]["content"] for one in server.requests]
    assert f"a{MARK}" in json.dumps(sent[0], ensure_ascii=False)
    assert f"a{MARK}" in json.dumps(sent[1], ensure_ascii=False)


@tool
async def look() -> str:  # noqa: ASYNC124  # as tools are
    """Return what was cut in the middle."""
    return f"page{HALF}"


async def test_a_run_with_a_journal_goes_on(tmp_path: Path) -> None:
    """What is asked, told or returned is whole before it is written down."""
    driver = ScriptedDriver([calling(tool_call("look")), "ok"])
    async with (
        open_journal(tmp_path / "journal.db") as journal,
        open_pool(driver, tools=ToolRegistry([look]), journal=journal) as pool,
    ):
        handle = await pool.spawn(SpawnConfig(manifest(), f"what?{HALF}"))
        message = await handle.send(f"now{HALF}")
        outcome = await handle.wait()
    assert outcome.text == "ok"
    assert outcome.messages[0] == UserMessage(f"what?{MARK}")
    assert message.content == f"now{MARK}"
    (result,) = results_of(driver.requests[1])
    assert result.content == f"page{MARK}"


@attrs.frozen
class Said:
    """What an answer must be."""

    text: str


@tool
async def echo(text: str) -> str:  # noqa: ASYNC124  # as tools are
    """Return *text*."""
    return text


WRITTEN = [
    (r"a\ud83d b", f"a{MARK} b"),
    (r"\uDE00", MARK),
    (r"\ud83d\ude00", WHOLE),
    (r"\ud83d\ud83d\ude00", MARK + WHOLE),
    (r"C:\\ud83d", r"C:\ud83d"),
    (r"C:\\ud83d\ude00", rf"C:\ud83d{MARK}"),
    (r"\\\ud83d", "\\" + MARK),
]
"""Texts as they are written in JSON, and what each of them means."""


@pytest.mark.parametrize(("written", "meant"), WRITTEN)
async def test_an_escape_of_one_in_an_answer_costs_one_request(written: str, meant: str) -> None:
    """It is the mark; to ask again three times brought the same three times."""
    driver = ScriptedDriver([f'{{"text": "{written}"}}'])
    async with open_pool(driver) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "q", output_type=Said))).wait()
    assert outcome.unwrap_as(Said) == Said(meant)
    assert len(driver.requests) == 1


@pytest.mark.parametrize(("written", "meant"), WRITTEN)
async def test_an_escape_of_one_in_arguments_is_the_mark(written: str, meant: str) -> None:
    """The tool runs; what goes back to the server is JSON that it can read."""
    arguments = f'{{"text": "{written}"}}'
    call = ToolCall("c1", "echo", arguments)
    driver = ScriptedDriver([calling(call), "ok"])
    async with open_pool(driver, tools=ToolRegistry([echo])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "q"))).wait()
    (result,) = results_of(driver.requests[1])
    assert (result.content, result.is_error) == (meant, False)
    async with (
        open_loopback(always(whole(text_event("ok", "stop") + DONE))) as server,
        open_openai("m", base_url=server.url) as hosted,
    ):
        await hosted.complete(CompletionRequest(outcome.messages))
    body = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
    sent = body["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(sent) == {"text": meant}


async def test_a_call_from_a_server_has_no_escape_of_one() -> None:
    """Whoever reads its arguments after that: tools, people, other servers, a journal."""
    function = {"name": "echo", "arguments": r'{"text": "\ud83d"}'}
    told = event({"choices": [{"delta": {"tool_calls": [{"id": "c", "function": function}]}}]})
    end = event({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    async with (
        open_loopback(always(whole(told + end + DONE))) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        answer = await driver.complete(CompletionRequest([UserMessage("q")]))
    assert answer.tool_calls == (ToolCall("c", "echo", r'{"text": "\ufffd"}'),)


def streamed(*pieces: bytes) -> list[str]:
    """Return the texts of a stream whose events have *pieces* as they are."""
    parser, answer = SseParser(), ChatAccumulator()
    events = [b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % piece for piece in pieces]
    ends = [text_event("", "stop"), DONE]
    texts = [text for one in [*events, *ends] for found in parser.feed(one)
             for text in answer.feed(found)]  # fmt: skip
    assert answer.finish().text == "".join(texts)
    return texts


@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        ((b"a\xf0\x9f", b"\x98\x80b"), ["a", f"{WHOLE}b"]),
        ((b"\xf0", b"\x9f", b"\x98", b"\x80"), [WHOLE]),
        ((b"\xc3", b"\xa9\xe2\x82", b"\xac"), ["é", "€"]),
        ((b"caf\xe9", b" au lait"), ["caf", f"{MARK} au lait"]),
        ((b"caf\xe9",), ["caf", MARK]),
        ((b"\x98\x80b", b"c"), [MARK * 2 + "b", "c"]),
        ((rb"\ud83d", rb"\udc80"), ["💀"]),
    ],
)
def test_a_character_whose_bytes_are_cut_is_put_together(
    pieces: tuple[bytes, ...], texts: list[str]
) -> None:
    """An answer of a thousand words was thrown away for one of them; the rest is the mark."""
    assert streamed(*pieces) == texts


@given(st.text(st.sampled_from(f"aé€{WHOLE}"), min_size=1), st.data())
def test_a_text_is_whole_wherever_its_bytes_are_cut(text: str, data: st.DataObject) -> None:
    """However many pieces there are."""
    said = text.encode()
    places = data.draw(st.sets(st.integers(0, len(said))))
    cuts = [0, *sorted(places), len(said)]
    pieces = [said[start:stop] for start, stop in pairwise(cuts)]
    assert "".join(streamed(*pieces)) == text


async def test_bytes_of_a_cut_character_by_http() -> None:
    """A whole answer arrives, also where a name of a field has half of a character."""
    stream = (
        b'data: {"choices":[{"delta":{"content":"a\xf0\x9f"}}]}\n\n'
        b'data: {"choices":[{"delta":{"content":"\x98\x80"}}]}\n\n'
        rb'data: {"\ud83d":1,"choices":[{"delta":{"content":"\\ud83d\ude00"}}]}'
        b"\n\n" + text_event("", "stop") + DONE
    )
    async with (
        open_loopback(always(whole(stream))) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        answer = await driver.complete(CompletionRequest([UserMessage("q")]))
    assert answer.text == rf"a{WHOLE}\ud83d{MARK}"
