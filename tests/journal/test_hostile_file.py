"""A journal that was damaged, or made to harm: it is refused in words, and nothing of it runs."""

from __future__ import annotations

import pickle
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.cli_runner import Desk, make_desk

RUN = ("run", "reader.toml", "hello", "--journal", "j.db")
LOOKS = (("runs", "list", "j.db"), ("runs", "show", "j.db"), ("runs", "prune", "j.db"))


def update(table: str, change: str) -> str:
    """Return what changes all of a table."""
    return f"UPDATE {table} SET {change}"  # noqa: S608  # that is the point


class Evil:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        """Have a file made."""
        return (Path("PWNED").touch, ())


POOLS = {
    "no JSON in the holder": "holder = 'zzz'",
    "a blob as the holder": "holder = x'ff'",
    "a nested holder": "holder = replace(hex(zeroblob(5000)), '00', '{\"host\":')",
    "a text as the fence": "fence = 'abc'",
    "a fence at the end": "fence = 9223372036854775807",
    "a text as a time": "created_at = 'abc', renewed_at = 'abc'",
    "a time without end": "created_at = 9e999",
    "a time before all": "created_at = -1",
    "a blob as the name": "name = x'ff'",
    "SQL in the name": "name = 'x''; DROP TABLE pools; --'",
    "a name that steers the terminal": "name = char(27) || '[2J' || char(8238)",
}
RECORDS = {
    "a text as the body": "body = 'abc'",
    "no body": "body = x''",
    "a nested body": "body = CAST(replace(hex(zeroblob(50000)), '00', '[') AS BLOB)",
    "a pickle": f"body = x'{pickle.dumps(Evil()).hex()}'",
    "another body": "body = CAST('{}' AS BLOB)",
    "large numbers": "body = CAST(replace(body, '1', '99999999999999999999') AS BLOB)",
    "half a character": "body = CAST(replace(CAST(body AS TEXT), 'hello', '\\ud800') AS BLOB)",
    "an unknown kind": "kind = 'zzz'",
    "all accepted": "kind = 'accepted'",
    "all ended": "kind = 'ended'",
    "all results": "kind = 'result'",
    "all started": "kind = 'started'",
    "a negative agent": "agent = -5",
    "a large agent": "agent = 9000000000000000000",
    "another agent": "agent = agent * 7",
    "half an agent": "agent = 1.5",
    "a negative place": "place = -2",
    "a digest that is none": "digest = x'ff'",
    "a digest of another": "digest = 'zzz'",
}
ATTACKS = {
    **{name: update("pools", change) for name, change in POOLS.items()},
    **{name: update("records", change) for name, change in RECORDS.items()},
    "no first record": "DELETE FROM records WHERE agent = 0",
    "everything twice": (
        "INSERT INTO records (pool, agent, kind, place, part, digest, body) "
        "SELECT pool, agent, kind, place, part, digest, body FROM records"
    ),
    "a trigger": "CREATE TRIGGER t AFTER UPDATE ON pools BEGIN DELETE FROM records; END",
    "a view": "CREATE VIEW v AS SELECT * FROM records",
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a journal of one agent is kept for all tests."""
    return tmp_path_factory.mktemp("good") / "j.db"


@pytest.fixture
def desk(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    good: Path,
) -> Desk:
    """Return a folder with a copy of that journal, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    if not good.exists():
        assert desk.scripted(*RUN).code == 0
        shutil.copy("j.db", good)
    shutil.copy(good, "j.db")
    return desk


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_journal_is_refused_in_words(desk: Desk, attack: str) -> None:
    """With no traceback, nothing that steers the terminal, and nothing that runs."""
    with closing(sqlite3.connect("j.db", isolation_level=None)) as file:
        file.execute(ATTACKS[attack])
    for words in LOOKS:
        done = desk.call(*words)
        assert done.code in {0, 1, 2}, done.err
        assert "Traceback" not in done.err
        assert "\x1b" not in done.out + done.err
        assert "\u202e" not in done.out + done.err
    done = desk.scripted(*RUN)
    assert done.code in {0, 1, 2}
    assert "Traceback" not in done.err
    assert not Path("PWNED").exists()
    with closing(sqlite3.connect("j.db")) as file:
        assert file.execute("SELECT COUNT(*) FROM pools").fetchone()[0] in {1, 2}


@pytest.mark.parametrize("change", ["agent = -5", "agent = 9000000000000000000", "place = -9"])
def test_numbers_of_no_journal_are_refused(desk: Desk, change: str) -> None:
    """No pool counts so far, and whoever goes on with them might."""
    with closing(sqlite3.connect("j.db", isolation_level=None)) as file:
        file.execute(update("records", f"{change} WHERE kind = 'result'"))
    done = desk.call("runs", "show", "j.db")
    assert (done.code, "does not know: " in done.err) == (2, True), done
