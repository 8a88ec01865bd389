"""``agentpool run``: answers, exit codes, JSON, and what goes wrong."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from agentpool import RetryPolicy
from agentpool._pool import open as open_module
from agentpool.drivers import PROVIDERS
from tests.support.cli_runner import READER, Desk, make_desk
from tests.support.http_servers import HELLO, Line, always, loopback_thread, whole


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests, and the command line in it."""
    return make_desk(tmp_path, capsys, monkeypatch)


# --- answers


def test_one_answer_is_printed_as_it_is(desk: Desk) -> None:
    """So that it can go into a pipe or a file; everything else is on standard error."""
    done = desk.scripted("run", "reader.toml", "Why?")
    assert (done.code, done.out) == (0, "A note.\n")
    lines = done.err.splitlines()
    assert lines[0] == "[0/1] reader started"
    assert re.fullmatch(r"\[1/1\] reader completed after \d\.\d s, 3 tokens", lines[1])
    assert re.fullmatch(
        r"agentpool: 1 completed in \d+\.\d s, 3 tokens written \(\d+ per second\)", lines[2]
    )


def test_several_answers_are_headed(desk: Desk) -> None:
    """In the order of the manifests, and namesakes are numbered."""
    done = desk.scripted("run", "reader.toml", "editor.toml", "reader.toml", "Why?")
    assert done.code == 0
    assert done.out == (
        "## reader 1\n\nA note.\n\n## editor\n\nAll of it is fine.\n\n## reader 2\n\nA note.\n\n"
    )


def test_any_max_concurrent_works(desk: Desk) -> None:
    """Three manifests and two slots are three answers."""
    for slots in ("1", "2", "5"):
        manifests = ["reader.toml", "editor.toml", "reader.toml"]
        done = desk.scripted("run", *manifests, "Why?", "--max-concurrent", slots, "--json")
        assert done.code == 0
        assert done.lines[-1]["completed"] == 3


def test_quiet_says_nothing_but_results(desk: Desk) -> None:
    """Nothing went wrong, so there is nothing to say."""
    done = desk.scripted("run", "reader.toml", "Why?", "--quiet")
    assert (done.out, done.err) == ("A note.\n", "")


def test_a_query_from_standard_input(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash stands for it."""
    desk.write(script_toml='[[answers]]\nwhen = "from the pipe"\ntext = "yes"')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from the pipe")))
    assert desk.scripted("run", "reader.toml", "-").out == "yes\n"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "standard input is empty; there is nothing to ask"),
        (b"a\nb\xff", "standard input is not UTF-8: line 2; save it as UTF-8"),
        (None, "there is no standard input; write a query or a file instead of '-'"),
    ],
)
def test_standard_input_that_says_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, data: bytes | None, says: str
) -> None:
    """One line and exit code 2."""
    stdin = None if data is None else io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr(sys, "stdin", stdin)
    done = desk.scripted("run", "reader.toml", "-")
    assert (done.code, done.out, done.err) == (2, "", f"agentpool: error: {says}\n")


# --- exit codes


def test_a_failed_agent_is_exit_code_1(desk: Desk) -> None:
    """A script that goes on after a failure does harm; the others are still printed."""
    desk.write(
        broken_toml=READER.replace("You read.", "You are broken.").replace("reader", "broken")
    )
    done = desk.scripted("run", "reader.toml", "broken.toml", "editor.toml", "Why?")
    assert done.code == 1
    headings = re.findall("^## .*$", done.out, re.MULTILINE)
    assert headings == ["## reader", "## broken (failed)", "## editor"]
    assert "agentpool: error: broken: BadRequestError: the model is out of order" in done.err
    assert "2 completed, 1 failed" in done.err


def test_a_failure_that_had_words_keeps_them(desk: Desk) -> None:
    """What was paid for is printed, also when it breaks off."""
    desk.write(script_toml='[[answers]]\ntext = "Half of"\nerror = "gone"')
    done = desk.scripted("run", "reader.toml", "Why?", "--quiet")
    assert (done.code, done.out) == (1, "Half of\n")
    assert done.err == "agentpool: error: BadRequestError: gone\n"


def test_a_guard_is_exit_code_3(desk: Desk) -> None:
    """It did what it was told to do: that is not a failure, and no success."""
    desk.write(
        reader_toml=READER + "[resources]\nmax_iterations = 2",
        script_toml='[[answers]]\ntool = "nothing"\narguments = {a = 1}\ntext = "Let me see. "',
    )
    done = desk.scripted("run", "reader.toml", "Why?")
    assert done.code == 3
    assert "agentpool: stopped: LimitExceededError: max iterations reached (2)" in done.err
    assert "reader stopped (max_iterations) after" in done.err
    assert "1 stopped" in done.err
    (line,) = desk.scripted("run", "reader.toml", "Why?", "--quiet").err.splitlines()
    assert line.startswith("agentpool: stopped: LimitExceededError: max iterations")


def test_a_deadline_is_exit_code_3(desk: Desk) -> None:
    """The option holds for every agent, and the words so far are kept."""
    done = desk.scripted(
        "run", "reader.toml", "editor.toml", "endless", "--deadline", "0.05", "--json"
    )
    assert done.code == 3
    reader, editor, summary = done.lines
    assert (reader["status"], reader["stop_reason"]) == ("stopped", "deadline")
    assert editor["status"] == "completed"
    assert summary["exit_code"] == 3


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (("--max-requests", "2"), "2 of 2 requests; 1 refused"),
        (("--max-total-tokens", "125"), " of 125 tokens, 0.0000 US dollars, 2 requests; 1"),
    ],
)
def test_a_budget_is_exit_code_3(desk: Desk, limit: tuple[str, str], says: str) -> None:
    """What was answered is printed, and the summary says what was spent and refused."""
    words = ["run", "reader.toml", "reader.toml", "reader.toml", "Why?", "--max-concurrent", "1"]
    done = desk.scripted(*words, *limit)
    assert done.code == 3
    assert done.out.count("A note.") == 2
    option = f"reader 3: stopped: LimitExceededError: {limit[0]} has too little left: "
    assert option in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("agentpool: spent ")
    assert says in last
    asked = desk.scripted(*words, *limit, "--json")
    assert asked.code == asked.lines[-1]["exit_code"] == 3
    assert asked.lines[-1]["budget"]["refused"] == 1
    assert asked.lines[-2]["stop_reason"] in {"request_budget", "token_budget"}


def test_who_is_stopped_for_the_same_reason_shares_a_line(desk: Desk) -> None:
    """A thousand equal lines would hide the others; with --quiet they are said as well."""
    readers = ["reader.toml"] * 14
    words = ("Why?", "--max-requests", "1", "--max-concurrent", "1", "--quiet")
    done = desk.scripted("run", *readers, *words)
    assert done.code == 3
    first, others = done.err.splitlines()
    assert first.startswith("agentpool: reader 2: stopped: LimitExceededError: --max-requests has")
    named = ", ".join(f"reader {number}" for number in range(3, 13))
    assert others == f"agentpool: stopped for the same reason as reader 2: {named}, 2 more"
    two = desk.scripted("run", *readers[:3], *words)
    assert two.err.splitlines()[1].endswith("as reader 2: reader 3")


def test_a_budget_that_holds_is_exit_code_0(desk: Desk) -> None:
    """A script costs nothing, so its prices are known."""
    done = desk.scripted("run", "reader.toml", "Why?", "--max-cost", "0.5")
    assert done.code == 0
    assert done.err.splitlines()[-1].endswith(
        "tokens, 0.0000 of 0.5000 US dollars, 1 request; 0 refused"
    )


def test_a_limit_on_cost_needs_prices(desk: Desk) -> None:
    """A model without a price cost nothing, and the limit never held."""
    remote = """
    name = "remote"
    privacy = "Standard"
    capabilities = []
    [model]
    remote_model = "m"
    base_url = "http://127.0.0.1:9/v1"
    """
    desk.write(remote_toml=remote)
    done = desk.call("run", "remote.toml", "Why?", "--max-cost", "1")
    assert done.code == 2
    assert "the model of 'remote' has no known price; limit the tokens" in done.err


REMOTE = """
name = "%s"
capabilities = []
[model]
remote_model = "m"
base_url = "%s"
"""


def test_requests_wait_for_the_minute_of_their_provider(desk: Desk) -> None:
    """Those of all manifests that ask it, and who waits is still stopped by its deadline."""
    with loopback_thread(always(whole(HELLO))) as server:
        desk.write(one_toml=REMOTE % ("one", server.url), two_toml=REMOTE % ("two", server.url))
        words = ["run", "one.toml", "two.toml", "Why?", "--rpm", "1", "--deadline", "0.5"]
        done = desk.call(*words, "--max-concurrent", "1")
        assert (done.code, len(server.requests)) == (3, 1)
        assert done.out == "## one\n\nHello\n\n## two (stopped)\n\n"
        gate = f"agentpool: gate '127.0.0.1:{server.port}'"
        said = f"{gate}: 1 request answered, 1 held back, 0 refused"
        assert done.err.splitlines()[-1] == said
        # With nine of a hundred tokens gone there is no room for the longest answer.
        words = ["run", "one.toml", "two.toml", "Why?", "--tpm", "100", "--deadline", "0.5"]
        done = desk.call(*words, "--max-concurrent", "1", "--json")
        assert (done.code, len(server.requests)) == (3, 2)
        (counted,) = done.lines[-1]["gates"]
        assert (counted["name"], counted["held_back"]) == (f"127.0.0.1:{server.port}", 1)


def test_holds_the_others_back(desk: Desk) -> None:
    """One agent is refused, and nobody asks before the time is over."""
    times: list[float] = []
    busy = whole(b'{"error": {"message": "slow down"}}', status=429, retry_after_ms="300")

    async def serve(line: Line) -> None:
        while await line.read_request() is not None:
            times.append(trio.current_time())
            await line.send(busy if len(times) == 1 else whole(HELLO))

    with loopback_thread(serve) as server:
        desk.write(one_toml=REMOTE % ("one", server.url))
        manifests = ["one.toml"] * 3
        done = desk.call("run", *manifests, "Why?", "--rpm", "6000", "--max-concurrent", "1")
        assert done.code == 0
        assert done.out.count("Hello") == 3
        assert "3 requests answered, 1 held back, 1 refused" in done.err
    assert times[1] - times[0] >= 0.3


def test_a_gate_that_has_nothing_to_hold_back_is_said(desk: Desk) -> None:
    """Whoever limits something wants it limited."""
    done = desk.scripted("run", "reader.toml", "Why?", "--rpm", "60")
    assert done.code == 0
    assert "agentpool: warning: --rpm and --tpm limit requests to providers" in done.err


def test_a_failure_outranks_a_guard(desk: Desk) -> None:
    """Who sees 3 may trust that nothing failed."""
    desk.write(
        broken_toml=READER.replace("You read.", "You are broken."),
        script_toml='[[answers]]\nwhen="broken"\nerror="no"\n[[answers]]\nseconds=3600',
    )
    done = desk.scripted("run", "reader.toml", "broken.toml", "Why?", "--deadline", "0.05")
    assert done.code == 1


# --- JSON


def test_json_has_an_object_per_agent_and_a_summary(desk: Desk) -> None:
    """The fields that scripts are written against."""
    done = desk.scripted("run", "reader.toml", "Why?", "--json")
    outcome, summary = done.lines
    assert outcome.pop("seconds") >= 0
    assert summary.pop("seconds") >= 0
    usage = {
        "input_tokens": 6, "output_tokens": 3, "cached_tokens": 0, "reasoning_tokens": 0,
        "cache_write_tokens": 0, "cache_write_hour_tokens": 0,
    }  # fmt: skip
    assert outcome == {
        "type": "outcome",
        "agent_id": 1,
        "name": "reader",
        "input": None,
        "status": "completed",
        "value": None,
        "text": "A note.",
        "stop_reason": "end_turn",
        "error": None,
        "iterations": 1,
        "tool_calls": 0,
        "messages_left_out": 0,
        "usage": usage,
        "cost_usd": 0.0,
    }
    assert summary == {
        "type": "summary",
        "completed": 1,
        "stopped": 0,
        "failed": 0,
        "cancelled": 0,
        "waiting": 0,
        "from_journal": 0,
        "interrupted": False,
        "usage": usage,
        "cost_usd": 0.0,
        "budget": None,
        "deadlocks": 0,
        "gates": [],
        "exit_code": 0,
    }


def test_json_has_the_error_by_type_and_text(desk: Desk) -> None:
    """Errors are data."""
    failed, summary = desk.scripted("run", "reader.toml", "broken", "--json").lines
    assert failed["error"] == {
        "type": "BadRequestError", "message": "the model is out of order",
    }  # fmt: skip
    assert (summary["failed"], summary["exit_code"]) == (1, 1)


def test_a_query_needs_no_manifest(desk: Desk) -> None:
    """An agent without tools answers it."""
    desk.write(answers_toml='[[answers]]\ntext = "Rayleigh."')
    done = desk.call("run", "Why is the sky blue?", "--driver", "script:answers.toml")
    assert (done.code, done.out) == (0, "Rayleigh.\n")


def test_a_file_goes_beside_the_query(desk: Desk) -> None:
    """Several of them, by what they are and not by what they are called."""
    (desk.folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    (desk.folder / "b").write_bytes(b"%PDF-1.7 /Type /Page")
    desk.write(answers_toml='[[answers]]\ntext = "A cat."')
    words = ["What?", "--attach", "a.png", "--attach", "b", "--driver", "script:answers.toml"]
    done = desk.call("run", *words)
    assert (done.code, done.out) == (0, "A cat.\n")


def test_a_file_that_the_model_does_not_read_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sent, and paid."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    (desk.folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    done = desk.call("run", "What?", "--attach", "a.png", "--model", "openai/gpt-4")
    assert (done.code, done.out) == (1, "")
    assert "kind 'image', got Attachment('image/png', 28 bytes, 'a.png')" in done.err


# --- what a person did wrong


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["reader.toml", " "], "the query must not be empty, got ' '; say what to do"),
        (["reader.toml", "\udcff"], r"the query must be UTF-8, got '\udcff'"),
        (["gone.toml", "q"], "gone.toml: cannot be read: No such file or directory"),
        ([".", "q"], ".: cannot be read: Is a directory"),
        (["bad.toml", "q"], "bad.toml: model.nmae: unknown key"),
        (["latin.toml", "q"], "latin.toml: is not UTF-8: line 1; save it as UTF-8"),
        (
            ["reader.toml", "editor.toml"],
            "the query is missing: 'editor.toml', the last word, is a file; add a query",
        ),
        (["reader.toml", "q", "--model", "smal"], "--model must be a GGUF file"),
        (["reader.toml", "q", "--driver", "openai"], "add --model NAME"),
        (
            ["reader.toml", "q", "--driver", "openai", "--model", "big"],
            "reader.toml, changed by options: model.remote_model: sovereign privacy tier",
        ),
        (
            ["reader.toml", "q", "--driver", "script:gone"],
            "the script of --driver 'script:gone' cannot be read",
        ),
        (["cloud.toml", "q"], "OPENAI_API_KEY is not set"),
        (["q", "--model", "deepseek/deepseek-chat"], "DEEPSEEK_API_KEY is not set"),
        (["sr"], "the query is missing: 'sr' is a file or folder; add a query"),
        (["q", "--model", "claude-opus-4-5"], "such as anthropic/claude-opus-4-5, got"),
        (
            ["q", "--model", "nosuch/gpt"],
            f"openai/gpt-5, got 'nosuch/gpt'; the providers are {', '.join(PROVIDERS)}",
        ),
        (["q", "--model", "openai/"], "such as openai/gpt-5, got 'openai/'"),
        (["q", "--model", "opnai/gpt-5"], "'opnai/gpt-5'; did you mean openai/gpt-5?"),
        (
            ["q", "--model", "openai/gpt-5", "--driver", "ollama"],
            "--model openai/gpt-5 is served by openai, but --driver says ollama; leave one",
        ),
        (["q", "--model", "gpt-5"], "a provider and its model such as openai/gpt-5"),
        (["q", "--attach", "gone.png"], "attachment 'gone.png' cannot be read: No such file"),
        (["q", "--attach", "bad.toml"], "'bad.toml' must be a PNG, JPEG, GIF or WebP image, or"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(desk: Desk, words: list[str], says: str) -> None:
    """It names the thing, and nothing has run."""
    desk.write(
        bad_toml='[model]\nnmae = "x"',
        latin_toml='name = "caf\xe9"'.encode("latin-1"),
        cloud_toml='privacy = "Standard"\n[model]\nremote_model = "big"',
    )
    (desk.folder / "sr").mkdir()
    done = desk.call("run", *words)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("agentpool: error: ")
    assert says in line


def test_all_faults_of_all_manifests_are_said(desk: Desk) -> None:
    """Nobody wants to learn of them one run at a time."""
    desk.write(one_toml="nmae = 1\nprivcy = 2", two_toml="[model]\nmax_tokens = 0")
    done = desk.call("run", "one.toml", "reader.toml", "gone.toml", "two.toml", "Why?")
    assert (done.code, done.out) == (2, "")
    starts = [line.split(": ")[2:4] for line in done.err.splitlines()]
    assert starts == [
        ["one.toml", "nmae"],
        ["one.toml", "privcy"],
        ["gone.toml", "cannot be read"],
        ["two.toml", "model.max_tokens"],
    ]


def test_missing_weights_are_said_with_what_to_do(desk: Desk) -> None:
    """A path that leads nowhere, and a file that is not a model."""
    for path in ("gone.gguf", "reader.toml"):
        done = desk.call("run", "reader.toml", "Why?", "--driver", "local", "--model", path)
        assert (done.code, done.out) == (2, "")
        assert re.search(r"cannot be read.*check|not a GGUF model.*give", done.err)
    assert "gone.gguf" in desk.call("run", "Why?", "--model", "gone.gguf").err


def test_a_manifest_that_cannot_run_costs_no_other_one_its_work(desk: Desk) -> None:
    """What cannot work is refused before anything runs."""
    desk.write(tight_toml="[model]\nmax_tokens = 10\ncontext_window = 11\nsystem_prompt = 'Long.'")
    done = desk.scripted("run", "reader.toml", "tight.toml", "Why?")
    assert (done.code, done.out) == (2, "")
    assert "max_tokens: 10 leaves no room" in done.err
    assert "started" not in done.err


def test_what_left_the_window_is_said(desk: Desk, tmp_path: Path) -> None:
    """As a warning, in the outcome's line, and in what is shown of the trace."""
    desk.write(
        small_toml=(
            'name = "small"\n[model]\nmax_tokens = 50\ncontext_window = 1200\n'
            f'[[capabilities]]\ntype = "file_read"\nallowed_paths = ["{tmp_path}"]\n'
        ),
        long_toml="".join(
            '[[answers]]\ntool = "file_read"\ntimes = 1\n'
            f'arguments = {{path = "{tmp_path}/{number}.txt"}}\n'
            for number in range(4)
        )
        + '[[answers]]\ntext = "read"\n',
    )
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(f"page {number} " * 200)
    words = ("run", "small.toml", "Read.", "--driver", "script:long.toml", "--trace", "t.jsonl")
    done = desk.call(*words, "--json")
    outcome, _ = done.lines
    count = outcome["messages_left_out"]
    assert (done.code, count > 0) == (0, True)
    says = f"{count} messages of the conversation had no room in the model's window"
    assert f"agentpool: warning: {says}" in done.err
    assert f"{count} messages of the conversation left it" in desk.call("show", "t.jsonl").out


def test_a_grant_without_a_tool_is_a_warning(desk: Desk) -> None:
    """Once for each manifest, however often it is used."""
    desk.write(reader_toml='name="reader"\n[[capabilities]]\ntype="browser"')
    done = desk.scripted("run", "reader.toml", "reader.toml", "Why?")
    assert done.code == 0
    says = "agentpool: warning: manifest 'reader' grants 'browser', for which"
    assert done.err.count(says) == 1
    assert "warning" not in desk.scripted("run", "reader.toml", "Why?", "--quiet").err


def test_no_model_is_an_error_and_no_greeting(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers in place of a model that is not there."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    done = desk.call("run", "reader.toml", "Why?")
    assert (done.code, done.out) == (2, "")
    assert "pip install" in done.err


def test_a_server_that_is_not_there_is_a_failed_agent(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    """The address is said."""
    url = f"http://127.0.0.1:{unused_port}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setattr(open_module, "_usual_retries", lambda: RetryPolicy(max_attempts=1))
    desk.write(reader_toml=READER)
    done = desk.call("run", "reader.toml", "Why?", "--driver", "openai", "--model", "m")
    assert done.code == 1
    assert str(unused_port) in done.err
    assert "Traceback" not in done.err


@pytest.fixture
def unused_port() -> int:
    """Return a port on which nobody listens."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def test_secrets_are_never_printed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers quote keys in their errors."""
    # The script stands for a provider that quotes it, and is read here: no key of the session.
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    desk.write(script_toml='[[answers]]\nerror = "wrong key sk-very-secret!"')
    for also in ([], ["--json"]):
        done = desk.scripted("run", "reader.toml", "Why?", *also)
        assert "sk-very-secret" not in done.out + done.err
        assert "wrong key [secret]!" in done.err


def test_a_long_error_is_cut_and_on_one_line(desk: Desk) -> None:
    """A provider may answer with a page of HTML."""
    desk.write(script_toml=f'[[answers]]\nerror = "<p>\\n\\u001b[2J{"x" * 5000}"')
    done = desk.scripted("run", "reader.toml", "Why?", "--quiet")
    (line,) = done.err.splitlines()
    assert "<p> [2Jxxx" in line
    assert len(line) < 1100


# --- the process


def test_python_m_and_the_exit_code(desk: Desk) -> None:
    """The exit code reaches the shell, and the output its pipe."""
    process = desk.start("run", "reader.toml", "broken", "--driver", "script:script.toml")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert b"the model is out of order" in err


def test_output_that_nobody_reads_is_no_traceback(desk: Desk) -> None:
    """As in ``agentpool run … | head -0``: the command ends early."""
    reading, writing = os.pipe()
    os.close(reading)
    words = ["run", "reader.toml", "reader.toml", "Why?", "--driver", "script:script.toml"]
    process = desk.start(*words, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"the output is no longer read" in err
    assert b"Traceback" not in err
    assert b"BrokenPipeError" not in err


@pytest.mark.parametrize("words", [["--help"], ["check", "reader.toml"]])
def test_help_that_nobody_reads_is_no_traceback(desk: Desk, words: list[str]) -> None:
    """As in ``agentpool --help | head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    process = desk.start(*words, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said(desk: Desk) -> None:
    """Results that could not be written are not success."""
    with Path("/dev/full").open("wb") as full:
        words = ["run", "reader.toml", "Why?", "--driver", "script:script.toml"]
        process = desk.start(*words, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 5
    assert b"the output cannot be written: ending the agents" in err
    assert b"cannot write the results: [Errno 28] No space left on device" in err
    assert b"Traceback" not in err


def test_answers_are_written_whatever_the_encoding_is(desk: Desk) -> None:
    """A terminal without umlauts is no reason to lose an answer."""
    desk.write(script_toml='[[answers]]\ntext = "Käse 🧀"')
    code = "import sys; from agentpool._cli import main; sys.exit(main())"
    words = ["run", "reader.toml", "Why?", "--driver", "script:script.toml", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=desk.folder,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == rb"K\xe4se \U0001f9c0" + b"\n"


@pytest.mark.parametrize("also", [(), ("--quiet",), ("--journal", "j.db"), ("--json",)])
def test_an_agent_that_waits_for_nothing_is_told(desk: Desk, also: tuple[str, ...]) -> None:
    """What the command does beside its agents writes to none of them."""
    desk.write(
        waiter_toml='name = "waiter"\n[[capabilities]]\ntype = "message"\n',
        script_toml='[[answers]]\ntool = "wait_for_message"\ntimes = 1\n\n'
        '[[answers]]\ntext = "Gone on."\n',
    )
    done = desk.scripted("run", "waiter.toml", "hello", *also)
    assert done.code == 0
    assert "Traceback" not in done.err
    if "--json" in also:
        assert json.loads(done.out.splitlines()[-1])["deadlocks"] == 1
    elif "--quiet" not in also:
        assert "; 1 deadlock was told\n" in done.err
    assert "Gone on." in done.out


def test_a_query_that_is_a_file_is_warned_of(desk: Desk) -> None:
    """It is asked as it stands, and whoever meant the file's text learns how to give it."""
    desk.write(a_txt="hello")
    done = desk.scripted("run", "reader.toml", "a.txt")
    assert (done.code, done.out) == (0, "A note.\n")
    assert (
        "agentpool: warning: the query 'a.txt' is the name of a file, and the model gets only "
        "the name; to send its text, write - instead and append < a.txt; for several" in done.err
    )
