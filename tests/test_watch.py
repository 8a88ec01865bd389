"""What watches for keys finds them, wherever they are written."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.keys import KEY, MARK, VARIABLE, find_key, make_key

LEAKS = """
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agentpool import AgentPoolError, UsageError
from agentpool.observe import AgentWarned
from agentpool.observe._hub import EventHub
from tests.support.keys import KEY, MARK

def test_log():
    logging.getLogger("agentpool").debug("the key is %s", KEY)

def test_log_of_an_error():
    logging.getLogger("other").error("no", exc_info=ValueError(KEY))

def test_error():
    with pytest.raises(UsageError):
        raise UsageError(f"{KEY!r} is wrong")

def test_note():
    try:
        raise UsageError("wrong")
    except UsageError as exc:
        exc.add_note(KEY)

def test_field():
    error = UsageError("wrong")
    error.headers = {"x-api-key": KEY}

def test_cause():
    with pytest.raises(UsageError):
        raise UsageError("wrong") from ValueError(KEY)

def test_context_of_a_group():
    with pytest.raises(AgentPoolError):
        try:
            raise ExceptionGroup("several", [ValueError(KEY)])
        except ExceptionGroup:
            raise AgentPoolError("wrong")

def test_event():
    EventHub((), 0.0, lambda: 0.0).publish(AgentWarned(1, 0.0, 1, "a", KEY))

def test_output():
    print(KEY)

def test_output_that_is_read(capsys):
    print(KEY, file=sys.stderr)
    capsys.readouterr()

def test_program():
    code = "from tests.support.keys import KEY; print(KEY)"
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE)

def test_assertion():
    assert KEY == "no", KEY

def test_half():
    print(KEY[:-8])

def fine(capsys):
    try:
        raise ValueError(KEY)
    except ValueError:
        error = UsageError("wrong")
        error.__suppress_context__ = True
    print(os.environ)
    assert MARK not in capsys.readouterr().out

class TestFine:
    def test_what_nobody_is_shown(self, capsys):
        fine(capsys)
"""

FILES = """
import base64
from tests.support.keys import KEY

def test_text(tmp_path):
    (tmp_path / "a.txt").write_text(f"x{KEY}y")

def test_after_a_hole(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(1 << 36)
        file.write(b"x" * ((1 << 20) - 10) + KEY.encode())

def test_bytes(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.bin").write_bytes(base64.b64encode(b"Bearer " + KEY.encode()))
"""


def run(folder: Path, source: str) -> tuple[int, str]:
    """Run *source* under the watch, with a mark of its own; return the code and the report."""
    (folder / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environ = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a third of the time
    environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    words = (
        "-m",
        "pytest",
        "-p",
        "tests.support.secret_watch",
        "-p",
        "no:cacheprovider",
        "-rA",
        "--basetemp=t",
    )
    done = subprocess.run(
        [sys.executable, *words, "test_it.py"],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        check=False,
    )
    return done.returncode, done.stdout.decode()


def test_each_way_to_write_a_key_fails(tmp_path: Path) -> None:
    """Or a test that looks right would say nothing about keys. The report has none either."""
    code, report = run(tmp_path, LEAKS)
    assert code == 1, report
    names = [line[4:].rstrip("():") for line in LEAKS.splitlines() if line.startswith("def test_")]
    names = [name.partition("(")[0] for name in names]
    assert len(names) == 13
    assert [name for name in names if f"FAILED test_it.py::{name}" not in report] == [], report
    assert "PASSED test_it.py::TestFine" in report
    assert "[key]" in report
    for line in report.splitlines():
        assert "sk-" not in line.replace("sk-[key]", ""), line


def test_a_key_in_a_file_fails_the_session(tmp_path: Path) -> None:
    """And names the file. The tests themselves have passed by then."""
    code, report = run(tmp_path, FILES)
    assert code == 1, report
    assert "3 passed" in report
    assert "a.txt: 'xsk-[key]" in report
    assert "c.bin: " in report
    assert "sparse: " in report


@pytest.mark.parametrize("before", range(4))
def test_a_key_is_found_in_base64(before: int) -> None:
    """Wherever its bytes fall; a recording writes half characters so."""
    data = base64.b64encode(b"x" * before + KEY.encode() + b"tail")
    found = find_key(data)
    assert found is not None
    assert MARK[:8] not in found + str(find_key(KEY))
    assert find_key(make_key("")[4:12]) is None  # a quarter of each half is not a key
