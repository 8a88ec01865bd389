"""Half of a character, which text of other programs may have: nothing breaks at it."""

from __future__ import annotations

import json
from pathlib import Path

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
from agentpool.journal import open_journal
from agentpool.testing import Quirk, open_quirk_server, quirks
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import calling, manifest, results_of, tool_call

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
