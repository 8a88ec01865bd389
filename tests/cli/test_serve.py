"""``agentpool serve``, driven by the official SDK's client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import httpx
import pytest
import trio
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError

from agentpool import AgentManifest, AgentOutcome, AgentStatus, UsageError, open_pool
from agentpool._cli._arguments import parse
from agentpool._cli._command import NOTHING_HELD_BACK, ServeCommand
from agentpool._cli._mcp_server import IDLE_SESSION_SECONDS, MAX_SESSIONS, PoolServer
from agentpool._cli._mcp_tools import Offer, ProgressDesk, build_offers, read_outcome
from agentpool._cli._serve import ServeLog
from agentpool._install import as_installed
from agentpool.abc import AgentId
from agentpool.drivers import BadRequestError, ScriptedDriver, ToolCall
from agentpool.observe import (
    AgentParked,
    AgentSpawned,
    AgentStarted,
    AgentWarned,
    Phase,
    PhaseChanged,
    RequestRetried,
    TextDelta,
    ToolStarted,
)
from tests.support.cli_runner import Desk, make_desk
from tests.support.keys import KEY
from tests.support.mcp_stub import command
from tests.support.processes import open_files

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ended by signals")

SCRIPT = """
[[answers]]
when = "broken"
text = "Half of"
error = "the key KEY is wrong"
[[answers]]
when = "endless"
text = "It goes on and on"
seconds = 3600
[[answers]]
when = "write it"
tool = "file_write"
arguments = { path = "a.txt", content = "one" }
[[answers]]
when = "no one here to ask"
text = "Nobody was there."
[[answers]]
when = "use it"
tool = "mcp_stub_pid"
[[answers]]
text = "A note."
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Generator[Desk]:
    """Yield a folder with manifests, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(script_toml=SCRIPT.replace("KEY", KEY))
    yield desk
    (tmp_path / "script.toml").unlink()  # it has the key on purpose


WORDS = ("serve", "reader.toml", "editor.toml", "--driver", "script:script.toml")


@contextlib.asynccontextmanager
async def connected(desk: Desk, *words: str) -> AsyncGenerator[Client]:
    """Yield the SDK's client of a server that is started by it; what it logs is in ``log``."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "agentpool", *WORDS, *words],
        env={**os.environ, "OPENAI_API_KEY": KEY},
    )
    with (desk.folder / "log").open("w", encoding="utf-8") as log:
        async with Client(stdio_client(parameters, errlog=log)) as client:
            yield client


def text_of(result: object) -> str:
    """Return the text of a result."""
    (block,) = result.content  # type: ignore[attr-defined]  # a CallToolResult
    text: str = block.text
    return text


async def test_the_sdks_client_asks_agents(desk: Desk) -> None:
    """Tools, results, failures, progress and a cancelled call, over one connection."""
    files = open_files()
    seen: list[tuple[float, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:  # noqa: ASYNC124  # as the SDK calls it
        seen.append((progress, message))

    async with connected(desk) as client:
        listed = (await client.list_tools()).tools
        assert [tool.name for tool in listed] == ["reader", "editor"]
        assert listed[0].description == "Asks the agent reader."
        assert listed[0].input_schema["required"] == ["query"]

        done = await client.call_tool("reader", {"query": "Why?"}, progress_callback=note)
        assert (text_of(done), done.is_error) == ("A note.", False)
        assert done.structured_content is not None
        assert done.structured_content["status"] == "completed"
        assert done.structured_content["usage"]["output_tokens"] == 3

        failed = await client.call_tool("reader", {"query": "broken"})
        assert failed.is_error
        assert text_of(failed) == (
            "the agent reader 2 failed: BadRequestError: the key [secret] is wrong\n\n"
            "Until then it wrote:\nHalf of"
        )

        for arguments in ({}, {"query": " "}, {"query": "x", "shell": "ls"}):
            assert (await client.call_tool("reader", arguments)).is_error
        with pytest.raises(MCPError, match="there is no agent 'nobody'; there are reader, editor"):
            await client.call_tool("nobody", {"query": "x"})

        with trio.move_on_after(30) as scope:
            async with trio.open_nursery() as nursery:

                async def stop_when_it_thinks(  # noqa: ASYNC124  # as the SDK calls it
                    progress: float, total: float | None, message: str | None
                ) -> None:
                    seen.append((progress, message))
                    nursery.cancel_scope.cancel()

                await client.call_tool(
                    "editor", {"query": "endless"}, progress_callback=stop_when_it_thinks
                )
        assert not scope.cancelled_caught
        assert text_of(await client.call_tool("editor", {"query": "x"})) == "A note."
    assert {message for _, message in seen} <= {"started", "thinks"}
    assert seen
    log = (desk.folder / "log").read_text(encoding="utf-8")
    assert "agentpool: serving reader, editor over standard input and output\n" in log
    assert re.search(r"agentpool: editor \d+ cancelled after", log)
    assert "Traceback" not in log
    assert open_files() == files


async def test_what_must_be_approved_does_not_run(desk: Desk) -> None:
    """Whoever asks over a pipe is a program, and nobody sits at a terminal."""
    desk.write(
        editor_toml='name = "editor"\n[[capabilities]]\ntype = "file_write"\n'
        'allowed_paths = ["."]\nask_first = true\n'
    )
    with trio.fail_after(60):
        async with connected(desk) as client:
            asked = await client.call_tool("editor", {"query": "write it"})
    assert text_of(asked) == "Nobody was there."
    assert not (desk.folder / "a.txt").exists()


async def test_a_limit_of_the_server_holds_for_all_its_clients_calls(desk: Desk) -> None:
    """A server that answers for ever is the place where a limit matters most."""
    async with connected(desk, "--max-requests", "1") as client:
        assert text_of(await client.call_tool("reader", {"query": "x"})) == "A note."
        refused = await client.call_tool("reader", {"query": "x"})
        assert refused.is_error
        assert "request" in text_of(refused)


async def test_what_will_not_do_what_was_asked_is_said(desk: Desk) -> None:
    """A grant without a tool, and a limit on requests that go to no provider."""
    desk.write(editor_toml='name = "editor"\n[[capabilities]]\ntype = "compute"\n')
    async with connected(desk, "--rpm", "9") as client:
        assert text_of(await client.call_tool("editor", {"query": "x"})) == "A note."
    log = (desk.folder / "log").read_text(encoding="utf-8")
    assert "agentpool: warning: manifest 'editor' grants 'compute'" in log
    assert f"agentpool: warning: {NOTHING_HELD_BACK}\n" in log


async def test_a_pool_that_takes_no_agents_is_told_to_the_client() -> None:
    """As a failed call with the reason, not as an error of the protocol."""
    command = parse(["serve", "reader.toml"])
    assert isinstance(command, ServeCommand)
    async with open_pool(ScriptedDriver([])) as pool:
        pass
    offers = build_offers([AgentManifest(name="reader")])
    server = PoolServer(pool, offers, ProgressDesk(), command.options).build("1")
    async with Client(server) as client:
        result = await client.call_tool("reader", {"query": "x"})
    assert result.is_error
    assert "closed" in text_of(result)


async def test_no_more_agents_run_than_were_allowed(desk: Desk) -> None:
    """The others wait for a slot, and are answered after all."""
    desk.write(script_toml='[[answers]]\ntext = "Slow."\nseconds = 0.2')
    async with connected(desk, "--max-concurrent", "1") as client:
        answers: list[str] = []

        async def ask() -> None:
            answers.append(text_of(await client.call_tool("reader", {"query": "x"})))

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert answers == ["Slow."] * 3
        assert trio.current_time() - started > 0.59


async def test_agents_have_their_grants_and_clients_have_agents(desk: Desk) -> None:
    """No tool is offered, and what a client says cannot add to what a manifest grants."""
    desk.write(
        editor_toml='name = "editor"\n[[capabilities]]\ntype = "mcp"\nserver = "stub"\n'
        'tool = "args"\n[[mcp_servers]]\nname = "stub"\ntransport = "stdio"\n'
        f'command = {json.dumps(command())}\ncapabilities = ["*"]\n'
    )
    async with connected(desk, "--deadline", "30") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["reader", "editor"]
        # The script has it call a tool that its server has, and that is not granted.
        asked = await client.call_tool("editor", {"query": "use it"})
        assert text_of(asked) == "A note."
        assert asked.structured_content is not None
        assert asked.structured_content["tool_calls"] == 1


# --- its end


def initialized() -> bytes:
    """Return what a client says first."""
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def ask(number: int, query: str) -> bytes:
    """Return the call of the reader."""
    params = {"name": "reader", "arguments": {"query": query}}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return json.dumps(message).encode() + b"\n"


def test_the_end_of_input_ends_it_in_good_order(desk: Desk) -> None:
    """Exit code 0, agents ended, and nothing but messages on standard output."""
    process = desk.start(*WORDS, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(initialized() + b"what?\n\n" + ask(2, "endless") + ask(3, "Why?"))
    process.stdin.flush()
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [line["id"] for line in lines] == [1, 3]
    assert lines[1]["result"]["content"] == [{"type": "text", "text": "A note."}]
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert [json.loads(line)["id"] for line in out.splitlines()] in ([], [2])
    assert b"a line that is not an MCP message was ignored: 'what?" in err
    assert b"Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_also_while_nobody_speaks(desk: Desk, number: signal.Signals) -> None:
    """Exit code 130, as of the others; the agents are cancelled."""
    process = desk.start(*WORDS, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(initialized() + ask(2, "endless"))
    process.stdin.flush()
    said = b""
    while b"reader 1 started" not in said:
        said += process.stderr.readline()
    process.send_signal(number)
    # Its input stays open: nothing may wait for that.
    assert process.wait(timeout=30) == 130
    _, err = process.communicate()
    assert f"agentpool: ended: {number.name}\n".encode() in err
    assert b"Traceback" not in err


def test_a_client_that_reads_no_more_ends_it(desk: Desk) -> None:
    """Its answers go nowhere."""
    process = desk.start(*WORDS, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(initialized())
    process.stdin.flush()
    assert process.stdout.readline()
    process.stdout.close()
    process.stdin.write(ask(2, "Why?"))
    process.stdin.flush()
    assert process.wait(timeout=30) == 0
    process.stdin.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


# --- over HTTP


async def test_agents_over_http(desk: Desk) -> None:
    """Several clients, and a signal as its end."""
    process = desk.start(*WORDS, "--http", "localhost:0")
    assert process.stderr is not None
    line = (await trio.to_thread.run_sync(process.stderr.readline)).decode()
    found = re.fullmatch(r"agentpool: serving reader, editor at (http://127.0.0.1:\d+/mcp)\n", line)
    assert found is not None
    async with Client(found[1]) as one, Client(found[1]) as other:
        assert text_of(await one.call_tool("reader", {"query": "Why?"})) == "A note."
        assert text_of(await other.call_tool("editor", {"query": "Why?"})) == "A note."
    process.send_signal(signal.SIGTERM)
    out, err = await trio.to_thread.run_sync(process.communicate)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "[::1]"])
async def test_pages_of_other_sites_are_refused(desk: Desk, address: str) -> None:
    """A name that leads here does not, whichever of this machine's addresses is chosen."""
    process = desk.start(*WORDS, "--http", f"{address}:0")
    assert process.stderr is not None
    line = (await trio.to_thread.run_sync(process.stderr.readline)).decode()
    found = re.search(r"http://(.*):(\d+)/mcp", line)
    assert found is not None
    place = f"{found[1]}:{found[2]}"
    evil = f"evil.example:{found[2]}"
    async with httpx.AsyncClient() as client:

        async def ask_as(**headers: str) -> int:
            headers = {"accept": "application/json, text/event-stream", **headers}
            content = json.loads(initialized().splitlines()[0])
            url = f"http://{place}/mcp"
            return (await client.post(url, json=content, headers=headers)).status_code

        assert await ask_as() == 200
        assert await ask_as(host=f"localhost:{found[2]}") == 200
        assert await ask_as(origin=f"http://{place}") == 200
        assert await ask_as(host=evil, origin=f"http://{evil}") == 421
        assert await ask_as(host=evil) == 421
        assert await ask_as(host=f"{place}.evil.example:{found[2]}") == 421
        assert await ask_as(host=f"{found[1]}:1.evil.example") == 421
        assert await ask_as(host=f"{found[1]}:1") == 421
        assert await ask_as(origin=f"http://{evil}") == 403
        assert await ask_as(origin=f"https://{place}") == 403
        assert await ask_as(origin="null") == 403
    process.send_signal(signal.SIGTERM)
    await trio.to_thread.run_sync(process.communicate)


async def test_clients_that_hang_up_do_not_keep_others_out(desk: Desk) -> None:
    """Sessions are few, and one that nobody uses makes room: a bound, and a quick end."""
    process = desk.start(*WORDS, "--http", "127.0.0.1:0")
    assert process.stderr is not None
    line = (await trio.to_thread.run_sync(process.stderr.readline)).decode()
    url = line.rpartition(" ")[2].strip()
    headers = {"accept": "application/json, text/event-stream"}
    codes: list[int] = []
    async with httpx.AsyncClient() as client:
        content = json.loads(initialized().splitlines()[0])
        for _ in range(MAX_SESSIONS + 3):
            answer = await client.post(url, json=content, headers=headers)
            codes.append(answer.status_code)
    assert codes == [200] * (MAX_SESSIONS + 3)
    assert IDLE_SESSION_SECONDS <= 60
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    await trio.to_thread.run_sync(process.communicate)
    assert time.monotonic() - begin < 10


def test_only_this_machines_address_is_listened_on(desk: Desk) -> None:
    """Whoever reaches it makes agents work, and no password is asked for."""
    done = desk.scripted("serve", "reader.toml", "--http", "0.0.0.0:0")
    assert done.code == 2
    assert "must be a loopback address such as 127.0.0.1:0, got '0.0.0.0'" in done.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = desk.scripted("serve", "reader.toml", "--http", f"127.0.0.1:{port}")
    assert (done.code, done.out) == (2, "")
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; try another" in done.err


@pytest.mark.parametrize("word", ["8000", "here:1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_is_a_host_and_a_port(word: str) -> None:
    """By number, so that nothing is looked up."""
    with pytest.raises(UsageError, match=r"must be an address such as 127.0.0.1:8000, got "):
        parse(["serve", "a", "--http", word])
    command = parse(["serve", "a", "b", "--http", "[::1]:0", "--quiet"])
    assert isinstance(command, ServeCommand)
    assert (command.manifests, command.http) == (("a", "b"), ("::1", 0))
    assert command.options.quiet


# --- what is wrong before


def test_without_the_extra_it_says_what_to_install(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before anything is opened."""
    for name in [name for name in sys.modules if name.startswith("agentpool._cli._mcp_server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp_types", None)
    done = desk.scripted("serve", "reader.toml")
    assert (done.code, done.out) == (2, "")
    assert "serve needs the packages mcp and hypercorn (" in done.err
    assert as_installed("run: pip install 'trio-agentpool[mcp]'") in done.err


def test_a_model_that_cannot_be_opened_is_exit_code_2(desk: Desk) -> None:
    """Nobody waits for a server that will never answer."""
    process = desk.start("serve", "reader.toml", "--model", "none.gguf", stdin=subprocess.PIPE)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, b"")
    assert err.startswith(b"agentpool: error: ")
    # Whatever is missing first: llama.cpp, or the file.
    assert b"none.gguf" in err or b"[local]" in err


# --- rules


def test_namesakes_and_odd_names_become_tools() -> None:
    """Each is legal, and no other one's."""
    manifests = [AgentManifest(name=n) for n in ("a b", "a b", "a/b", "äöü", "x" * 90, "x" * 90)]
    offers = build_offers(manifests)
    assert list(offers) == ["a_b", "a_b_2", "a_b_3", "agent", "x" * 64, "x" * 62 + "_2"]
    described = AgentManifest(name="a", description="Reads.")
    assert build_offers([described])["a"].description == "Reads."


def test_an_outcome_without_an_error_is_told_as_well() -> None:
    """Half a surrogate in a text does not end the connection."""
    outcome = AgentOutcome(
        agent_id=1, name="a", status=AgentStatus.COMPLETED, text="x\ud800", finished_at=1.0
    )
    answer = read_outcome(outcome)
    assert (answer.text, answer.is_error, answer.data["error"]) == ("x?", False, None)
    failed = AgentOutcome(
        agent_id=1,
        name="a",
        status=AgentStatus.FAILED,
        error=BadRequestError("no"),
        finished_at=1.0,
    )
    assert read_outcome(failed).text == "the agent a failed: BadRequestError: no"


@pytest.mark.parametrize("quiet", [False, True])
async def test_the_log_tells_what_went_wrong(
    capsys: pytest.CaptureFixture[str], *, quiet: bool
) -> None:
    """Retries and warnings of agents; and nothing of it to whoever wants no such lines."""
    log = ServeLog(quiet)
    log.on_event(RequestRetried(1, 2.0, AgentId(1), "reader", 1, 0.5, "no network"))
    log.on_event(AgentWarned(2, 2.0, AgentId(1), "reader", "iteration 8/10"))
    log.on_event(TextDelta(3, 2.0, AgentId(1), "reader", "word by word"))
    log.say("important", notable=True)
    log.end()
    await log.write()
    lines = ["agentpool: reader asks again in 0.5 s", "agentpool: reader: iteration 8/10"]
    assert capsys.readouterr().err.splitlines() == ([] if quiet else lines) + [
        "agentpool: important"
    ]


@pytest.mark.parametrize("steps", range(4))
async def test_the_log_writes_its_last_line_before_it_ends(
    capsys: pytest.CaptureFixture[str], steps: int
) -> None:
    """Whether its writer waits, has just been woken or has not begun."""
    log = ServeLog(quiet=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.write)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        log.say("first")
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        log.say("last")
        log.end()
    assert capsys.readouterr().err.splitlines() == ["agentpool: first", "agentpool: last"]


async def test_progress_is_what_an_agent_does_now() -> None:
    """What it did before is not kept for a reader who is slow."""
    desk = ProgressDesk()
    name, progress = desk.open(Offer("a", "", AgentManifest(name="a")))
    assert name == "a 1"
    stamp = (1, 0.0, 1, name)
    desk.on_event(AgentSpawned(*stamp, 0))
    desk.on_event(AgentStarted(*stamp))
    # A child of another client's agent, whose model chose that name for it.
    desk.on_event(AgentSpawned(2, 0.0, 9, name, 5))
    desk.on_event(AgentSpawned(2, 0.0, 8, "somebody else", 0))
    desk.on_event(ToolStarted(2, 0.0, 9, name, ToolCall("1", "spoof", "{}")))
    desk.on_event(PhaseChanged(*stamp, Phase.REASON, ""))
    desk.on_event(PhaseChanged(*stamp, Phase.ACT, "clock"))
    desk.on_event(ToolStarted(*stamp, ToolCall("1", "clock\n", "{}")))
    await progress.wait_news()
    assert (progress.steps, progress.text) == (3, "uses clock")
    desk.on_event(AgentParked(*stamp, "a message"))
    assert progress.text == "waits for a message"
    desk.close(name)
    desk.on_event(AgentStarted(*stamp))
    assert progress.steps == 4
