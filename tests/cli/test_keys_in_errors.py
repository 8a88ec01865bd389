"""Whatever goes wrong, no error shows a key: on no stream, in no form, from no command."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from agentpool import AgentOutcome, AgentStatus
from agentpool._cli._mcp_tools import read_outcome
from agentpool.drivers import BadRequestError
from tests.support.cli_runner import Desk, make_desk

NAMED = "of/the+reader=told"
"""In a variable whose name looks like no key's."""
FOUND = "q7Zk-of-the-environment"
"""In a variable whose name looks like a key's."""
SHAPED = "sk-ant-api03-1234567890abcdefXYZ"
"""In no variable."""
KEYS = (NAMED, FOUND, SHAPED)
FORMS = (
    *KEYS, FOUND.upper(), quote(NAMED, safe=""), base64.b64encode(NAMED.encode()).decode(),
)  # fmt: skip
WHOLE = " ".join(FORMS)

READER = """
name = "reader"
capabilities = []
[model]
remote_model = "m"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "READERS_WORD"
"""

MODELS = f"""
import sys

WHOLE = {WHOLE!r}

def open_broken(manifest):
    raise RuntimeError("refused: " + WHOLE)

def open_warned(manifest):
    from agentpool.cluster import open_echo
    sys.stderr.writelines(["careful: ", WHOLE])
    return open_echo(manifest)

def open_logged(manifest):
    import logging
    logging.getLogger("theirs").warning("refused: " + WHOLE)
    raise SystemExit("refused: " + WHOLE)
"""

LEAVES = f"raise SystemExit('refused: ' + {WHOLE!r})"
BREAKS = f"class Broken(BaseException): pass\nraise Broken('refused: ' + {WHOLE!r})"


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with a manifest that names a key, and models that quote it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("READERS_WORD", NAMED)
    monkeypatch.setenv("THEIR_SERVICE_TOKEN", FOUND)
    script = f"[[answers]]\nerror = {json.dumps('refused: ' + WHOLE)}"
    desk.write(reader_toml=READER, a_txt="one", script_toml=script)
    for name, text in (("keys_models", MODELS), ("keys_leave", LEAVES), ("keys_break", BREAKS)):
        (tmp_path / f"{name}.py").write_text(text)
    return desk


def shown(text: str) -> list[str]:
    """Return the forms of keys that *text* has."""
    return [form for form in FORMS if form.casefold() in text.casefold()]


MAP = ("map", "reader.toml", "--each", "a.txt")
ON_NODES = ("--cluster", "local:1", "--cluster-driver")

WAYS = {
    "a model that no node can open": (*MAP, *ON_NODES, "keys_models:open_broken"),
    "the same as JSON": (*MAP, "--json", *ON_NODES, "keys_models:open_broken"),
    "a warning of a library": (*MAP, *ON_NODES, "keys_models:open_warned"),
    "a driver that is no path": (*MAP, *ON_NODES, f"{FOUND} {SHAPED}"),
    "a model's answer": ("run", "reader.toml", "Why?", "--driver", "script:script.toml"),
    "the same answer as JSON": (
        "run", "reader.toml", "Why?", "--json", "--driver", "script:script.toml"
    ),
    "a script that is missing": ("run", "reader.toml", "Why?", "--driver", f"script:{FOUND}"),
    "an option that there is not": ("run", f"--key={SHAPED}", "reader.toml", "Why?"),
    "too many words": ("check", "reader.toml", f"--{FOUND}"),
    "a choice that there is not": ("run", "reader.toml", "Why?", "--approve", FOUND),
    "a manifest that is missing": ("run", FOUND + ".toml", "Why?"),
    "a manifest that is wrong": ("check", "wrong.toml"),
    "the same manifest as JSON": ("check", "wrong.toml", "--json"),
    "a schema that is missing": ("run", "reader.toml", "Why?", "--schema", f"{SHAPED}.json"),
    "a trace that is none": ("show", f"{SHAPED}.jsonl"),
    "a journal that is missing": ("runs", "list", f"{FOUND}.db"),
    "a chat": ("chat", "reader.toml", "--session", f"{SHAPED}/..", "--journal", f"/{FOUND}/j"),
    "a memory": ("memory", "list", f"{SHAPED}.db"),
    "a server": ("serve", f"{SHAPED}.toml"),
    "a cluster": ("cluster", "status", f"local:{SHAPED}"),
    "a workers' journal": (*MAP, "--journal", f"/{FOUND}/j.db", "--workers", "2"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_no_error_shows_a_key(desk: Desk, way: str) -> None:
    """Each tells what is wrong, and has a mark in place of the key."""
    wrong = READER + "".join(f"api_key_{i} = {json.dumps(key)}\n" for i, key in enumerate(KEYS))
    desk.write(wrong_toml=wrong + f"{FOUND} = 1\n")
    done = desk.call(*WAYS[way])
    assert shown(done.out + done.err) == []
    assert "[secret]" in done.out + done.err


@pytest.mark.parametrize(
    ("module", "code"), [("keys_leave", 1), ("keys_break", 1), ("keys_models", 2)]
)
def test_a_program_that_ends_shows_no_key(desk: Desk, module: str, code: int) -> None:
    """A module of the user's may end the program, fail with what nothing catches, or log."""
    process = subprocess.run(
        [sys.executable, "-m", "agentpool", *MAP, *ON_NODES, f"{module}:open_logged"],
        cwd=desk.folder, env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(desk.folder)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert process.returncode == code
    assert shown(process.stdout + process.stderr) == []
    assert "refused: [secret]" in process.stderr


def test_the_end_of_a_program_is_told_as_python_does(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """In full, but for keys."""
    with pytest.raises(SystemExit) as caught:
        desk.call(*MAP, *ON_NODES, "keys_break:open")
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert "keys_break.Broken: refused: [secret]" in told
    assert shown(told) == []


def test_no_client_of_a_server_is_shown_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the error of an agent, and not what is in it."""
    monkeypatch.setenv("THEIR_SERVICE_TOKEN", FOUND)
    error = BadRequestError(f"refused: {FOUND} {SHAPED}")
    answer = read_outcome(
        AgentOutcome(agent_id=1, name="a", status=AgentStatus.FAILED, error=error, finished_at=1.0)
    )
    assert shown(answer.text + json.dumps(dict(answer.data))) == []
