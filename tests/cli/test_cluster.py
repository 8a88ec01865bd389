"""``agentpool map … --cluster`` and ``agentpool cluster status``, with nodes in threads."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from agentpool._install import as_installed
from agentpool.cluster import _node_loop
from tests.support.cli_runner import Desk, make_desk

ECHO = ("--cluster-driver", "agentpool.cluster:open_echo")
MAP = ("map", "reader.toml", "--each", "a.txt", "b.txt")
LOCAL = ("--cluster", "local:2")

SLOW = """
import trio
from agentpool.drivers import FunctionDriver

async def answer(request):
    if request.messages[-1].text.startswith("slow"):
        await trio.sleep(3600)
    return "done"

def open_slow(manifest):
    return FunctionDriver(answer)
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and texts, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="two", slow_txt="slow", slow_py=SLOW)
    return desk


def error(text: str) -> str:
    """Return the one line of *text* that says what is wrong."""
    (line,) = [line for line in text.splitlines() if line.startswith("agentpool: error: ")]
    return line.removeprefix("agentpool: error: ")


# --- map


def test_nodes_answer_as_this_machine_does(desk: Desk) -> None:
    """In order, with the editor, and a journal goes on; what cannot be read costs no other."""
    words = (*MAP, "missing.txt", *LOCAL, *ECHO, "--reduce", "editor.toml", "--journal", "j.db")
    done = desk.call(*words)
    assert done.code == 1
    assert done.out.startswith("## a.txt\n\none\n\n## b.txt\n\ntwo\n\n## missing.txt (failed)")
    assert "## editor" in done.out
    assert "loads the models on the nodes of local:2" in done.err
    assert "reader a.txt started" in done.err
    again = desk.call("runs", "resume", "j.db")
    assert (again.code, again.out) == (1, done.out)


def test_lines_of_json_are_the_same(desk: Desk) -> None:
    """With the summary at the end."""
    done = desk.call(*MAP, *LOCAL, *ECHO, "--json", "--quiet")
    assert (done.code, done.err) == (0, "")
    assert {line.get("text", "").strip() for line in done.lines[:2]} == {"one", "two"}
    assert done.lines[2]["completed"] == 2


def test_limits_hold_over_all_nodes(desk: Desk) -> None:
    """There is one budget, in the command."""
    done = desk.call(*MAP, *LOCAL, *ECHO, "--max-requests", "1", "--json")
    assert done.code == 3
    assert done.lines[-1]["budget"]["requests"]["committed"] == 1


@pytest.mark.parametrize("model", [(), ("--model", "ollama/tiny")])
def test_the_gate_of_a_provider_is_here(desk: Desk, model: tuple[str, ...]) -> None:
    """Whatever node is asked; a model of its own passes none."""
    done = desk.call(*MAP, *LOCAL, *ECHO, *model, "--rpm", "100", "--json")
    assert done.code == 0
    gates = done.lines[-1]["gates"]
    assert len(gates) == (1 if model else 0)


def test_ctrl_c_ends_what_nodes_do(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered is printed, and the exit code is that of any map."""
    # The driver's module must be found there, however this Python looks for modules.
    monkeypatch.setenv("PYTHONPATH", str(desk.folder))
    process = desk.start(
        "map", "reader.toml", "--each", "a.txt", "slow.txt", *LOCAL,
        "--cluster-driver", "slow:open_slow",
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if b"completed after" in line:
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out.decode().startswith("## a.txt\n\ndone\n\n## slow.txt (cancelled)")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("--cluster here", "must be auto, HOST:PORT or local:N with N >= 1, got 'here'"),
        ("--cluster local:0", "must be auto, HOST:PORT or local:N with N >= 1, got 'local:0'"),
        ("--cluster-driver a:b", "--cluster-driver has no effect without --cluster"),
        ("--cluster-privacy private", "--cluster-privacy has no effect without --cluster"),
        ("--cluster auto --cluster-driver a", "must be an import path such as my_package.models"),
        ("--cluster auto --workers 2 --journal j", "--workers are processes of this machine, but"),
        ("--cluster auto --driver script:s", "--driver script:s answers here, but with --cluster"),
    ],
)
def test_what_cannot_be_meant_is_refused(desk: Desk, words: str, wrong: str) -> None:
    """Before anything is opened."""
    done = desk.call(*MAP, *words.split())
    assert done.code == 2
    assert wrong in error(done.err)


def test_data_of_this_machine_stays_here(desk: Desk) -> None:
    """Unless its user says what the nodes are; the error says how."""
    done = desk.call(*MAP, "--cluster", "127.0.0.1:1")
    assert done.code == 2
    assert error(done.err).startswith("manifest 'reader' is Sovereign, so its data stays on this")
    assert 'write privacy = "Private" into the manifest, or add --cluster-privacy sov' in done.err
    private = (*MAP, *LOCAL, *ECHO, "--cluster-privacy", "private")
    assert "'reader' is Sovereign" in error(desk.call(*private).err)
    Path("private.toml").write_text('privacy = "Private"\n' + Path("reader.toml").read_text())
    assert desk.call("map", "private.toml", *private[2:]).code == 0
    assert desk.call(*MAP, *LOCAL, *ECHO, "--cluster-privacy", "sovereign").code == 0


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("--model /nowhere.gguf", " cannot open the model of manifest 'reader': "),
        ("--model openai/gpt-5", "OPENAI_API_KEY"),
        ("--cluster-driver tests.support.node_work:open_by_turns", "a Driver, got 42"),
        ("--cluster-driver nowhere:open", "'nowhere:open' cannot be imported: ModuleNotFound"),
        (
            "--cluster-driver tests.support.node_work:open_only_here",
            "node local-1 cannot do this work: ",
        ),
    ],
)
def test_what_a_node_lacks_is_told_before_the_first_agent(
    desk: Desk, words: str, wrong: str
) -> None:
    """With the node's name, once."""
    Path("reader.toml").write_text('privacy = "Standard"\n' + Path("reader.toml").read_text())
    done = desk.call(*MAP, *LOCAL, *words.split())
    assert (done.code, done.out) == (2, "")
    assert wrong in error(done.err)
    assert "started" not in done.err


# --- status


def test_status_names_the_nodes(desk: Desk) -> None:
    """For people, and for programs."""
    done = desk.call("cluster", "status", "local:2")
    assert (done.code, done.out) == (0, "local-1  working\nlocal-2  working\n")
    (first, _) = desk.call("cluster", "status", "local:2", "--json").lines
    assert first == {
        "type": "node", "name": "local-1", "state": "working", "load": 0,
        "labels": {"name": "local-1"}, "reason": None,
    }  # fmt: skip


def test_status_says_what_a_node_lacks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here another version; all nodes are told, and a map is refused."""
    monkeypatch.setattr(_node_loop, "__version__", "0.0")
    done = desk.call("cluster", "status", "local:2")
    assert done.code == 1
    assert [line.split()[:2] for line in done.out.splitlines()] == [
        ["local-1", "refused"], ["local-2", "refused"],
    ]  # fmt: skip
    assert "it has agentpool 0.0, but the program" in done.out
    (node, _) = (
        json.loads(x) for x in desk.call("cluster", "status", "local:2", "--json").out.splitlines()
    )
    assert node["reason"].startswith("node local-1 cannot do this work")
    refused = desk.call(*MAP, *LOCAL, *ECHO)
    assert refused.code == 2
    assert "node local-1 cannot do this work: it has agentpool 0.0" in error(refused.err)


@pytest.mark.parametrize(
    "words", [("cluster", "status"), (*MAP, "--cluster", "auto", "--cluster-privacy", "sovereign")]
)
def test_without_ray_it_is_said_how_to_get_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """And how to try it without."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "agentpool.cluster._ray", raising=False)
    done = desk.call(*words)
    assert done.code == 2
    assert as_installed("pip install 'trio-agentpool[ray]'") in error(done.err)


@pytest.mark.parametrize("words", ["", "stop", "status a"])
def test_status_is_all_that_there_is(desk: Desk, words: str) -> None:
    """Anything else is refused."""
    assert desk.call("cluster", *words.split()).code == 2
