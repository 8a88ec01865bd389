"""The programs in ``examples/`` with the packaged model. Run by ``nox -s live``.

The model has 135 million parameters: it fits the form that it is held to, and is often wrong. So
this shows that each program runs to its end with a model, says something, and has the exit code
that belongs to what it said. That they are right with right answers is in ``tests/examples``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.live

EXAMPLES = Path(__file__).parents[2] / "examples"

PATIENCE = 600.0
"""Seconds for a program to end, however busy the machine is."""


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run an example as one would."""
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip


def test_each_row_gets_a_class(tmp_path: Path) -> None:
    """One of the three that there are."""
    path = tmp_path / "mails.csv"
    path.write_text('text\n"How do I open it?"\n"Wonderful, thank you!"\n"It came broken."\n')
    done = run("classify_csv.py", str(path))
    first, *rows = done.stdout.split()
    assert (done.returncode, first, len(rows)) == (0, "row,kind,fault", 3), done.stderr
    for number, row in enumerate(rows, start=1):
        place, kind, fault = row.split(",")
        assert (place, fault) == (str(number), "")
        assert kind in {"question", "praise", "complaint"}


def test_each_file_is_reviewed_or_said_to_be_not(tmp_path: Path) -> None:
    """What was not read fails the job."""
    (tmp_path / "a.py").write_text("def read(path):\n    return open(path).read()\n")
    done = run("review_repository.py", str(tmp_path))
    assert "1 of 1: a.py" in done.stderr
    assert ("not reviewed" in done.stdout) is (done.returncode == 2), done.stdout
    assert ("high" in done.stdout) is (done.returncode == 1) or done.returncode == 2


def test_the_team_ends_at_its_deadline() -> None:
    """With an answer, or with why there is none."""
    done = run("research_team.py", "How do bees find their way?", "--seconds", "30")
    assert done.returncode in {0, 1}, done.stderr
    assert done.stdout.startswith("no answer: ") is (done.returncode == 1)
    assert len(done.stdout) > 10


def test_the_service_streams_an_answer() -> None:
    """From a process of its own, until it is told to end."""
    port = 8477
    command = [sys.executable, str(EXAMPLES / "web_service.py"), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr is not None
            while "Running on" not in (line := service.stderr.readline()):
                assert line, "the service ended"
            url = f"http://127.0.0.1:{port}/ask"
            answer = httpx.post(url, json={"query": "Say hello."}, timeout=PATIENCE)
        finally:
            service.terminate()
    *pieces, last = answer.text.strip().split("\n\n")
    assert len(pieces) > 1, answer.text  # it came in more than one
    kind, _, ended = last.partition("\ndata: ")
    said = "".join(json.loads(piece.partition("data: ")[2])["text"] for piece in pieces)
    if kind == "event: done":
        assert json.loads(ended)["text"] == said
    else:  # such a model may talk until it is cut off
        assert "was cut off at max_tokens" in ended
        assert said
