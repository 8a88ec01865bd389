"""The memory's file on the command line: kept by runs, looked over and cleaned by a person."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from agentpool.abc import Fragment
from agentpool.memory import open_sqlite_memory
from tests.support.cli_runner import Desk, make_desk

NOTER = """
name = "noter"
[[capabilities]]
type = "memory"
[model]
system_prompt = "You note."
max_tokens = 100
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Give a folder to work in."""
    return make_desk(tmp_path, capsys, monkeypatch)


def fill(path: Path) -> None:
    """Write three fragments into two scopes."""

    async def main() -> None:
        async with open_sqlite_memory(path) as memory:
            for scope, content, at in (
                ("team", "the north\nsea is cold " + "x" * 200, 1_700_000_000.0),
                ("team", "bread is warm", 1_700_000_060.0),
                ("other", "the sea of tranquility", 1e300),
            ):
                await memory.remember(Fragment(content=content, scope=scope, created_at=at))

    trio.run(main)


def test_runs_of_one_scope_remember_each_other(desk: Desk) -> None:
    """Two commands, one file: the second recalls what the first one kept."""
    desk.write(noter_toml=NOTER)
    shared = ("--memory", "notes.db", "--memory-scope", "team")
    assert desk.scripted("run", "noter.toml", "Where is the key?", *shared).code == 0
    assert desk.scripted("run", "noter.toml", "Where is the key?", *shared).code == 0
    assert desk.scripted("run", "noter.toml", "Alone", "--memory", "notes.db").code == 0
    listed = desk.call("memory", "list", "notes.db", "--json").lines
    assert [(line["type"], line["fragments"]) for line in listed] == [("scope", 1), ("scope", 2)]
    assert [line["scope"] for line in listed][1] == "team"
    found = desk.call("memory", "search", "notes.db", "key", "--json").lines
    assert [line["content"] for line in found] == ["Q: Where is the key?\nA: A note."] * 2


def test_scopes_are_listed_with_their_size_and_age(desk: Desk) -> None:
    """What a person asks first: whose is it, and how much."""
    fill(desk.folder / "notes.db")
    done = desk.call("memory", "list", "notes.db")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "      1  1e+300 s  other",
        "      2  2023-11-14 22:14  team",
    ]


def test_a_scope_is_listed_newest_first(desk: Desk) -> None:
    """One line each, whatever is in it."""
    fill(desk.folder / "notes.db")
    done = desk.call("memory", "list", "notes.db", "--scope", "team")
    first, second = done.out.splitlines()
    assert first == "    mem-2  1.00  2023-11-14 22:14  team: bread is warm"
    assert second.startswith("    mem-1  1.00  2023-11-14 22:13  team: the north sea is cold xxx")
    assert second.endswith("x…")
    limited = desk.call("memory", "list", "notes.db", "--scope", "team", "--limit", "1")
    assert limited.out.splitlines() == [first]


def test_words_are_searched_in_every_scope_or_in_one(desk: Desk) -> None:
    """The person whose file it is sees all of it."""
    fill(desk.folder / "notes.db")
    everywhere = desk.call("memory", "search", "notes.db", "the", "sea", "--json").lines
    assert {line["scope"] for line in everywhere} == {"team", "other"}
    (one,) = desk.call("memory", "search", "notes.db", "sea", "--scope", "other", "--json").lines
    assert (one["id"], one["source"], one["score"]) == ("mem-3", "conversation", 1.0)
    assert desk.call("memory", "search", "notes.db", "whale").out == "no fragments\n"


def test_what_is_deleted_is_gone_from_the_file(desk: Desk) -> None:
    """By id, or a whole scope; what was not there is said."""
    path = desk.folder / "notes.db"
    fill(path)
    done = desk.call("memory", "delete", "notes.db", "mem-3", "mem-77")
    assert (done.code, done.out) == (1, "deleted 1 fragment; not there: mem-77\n")
    assert b"tranquility" not in path.read_bytes()
    done = desk.call("memory", "delete", "notes.db", "--scope", "team", "--json")
    assert (done.code, done.lines) == (0, [{"type": "deleted", "count": 2, "missing": []}])
    assert desk.call("memory", "list", "notes.db").out == "no fragments\n"
    done = desk.call("memory", "delete", "notes.db", "--scope", "team")
    assert (done.code, done.out) == (1, "deleted 0 fragments; not there: scope 'team'\n")


def test_a_slip_in_the_name_makes_no_file(desk: Desk) -> None:
    """One clear line, and the folder is as it was."""
    done = desk.call("memory", "list", "nots.db")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("agentpool: error: there is no memory file 'nots.db'")
    assert not (desk.folder / "nots.db").exists()


def test_a_file_that_is_no_memory_is_said(desk: Desk) -> None:
    """By the command that looks, and by the one that would write into it."""
    desk.write(noter_toml=NOTER, notes_db="this is a text " * 100)
    for words in (
        ("memory", "list", "notes.db"),
        ("run", "noter.toml", "Why?", "--memory", "notes.db", "--driver", "script:script.toml"),
    ):
        done = desk.call(*words)
        assert done.code == 2
        assert "notes.db" in done.err
        assert "it is not a memory" in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "a.db", "sea"), "did you mean search?"),
        (("search", "a.db"), "search needs words"),
        (("delete", "a.db"), "delete needs either ids or --scope"),
        (("delete", "a.db", "mem-1", "--scope", "x"), "delete needs either ids or --scope"),
        (("lost", "a.db"), "there is no 'lost'; did you mean 'list'?"),
        (("list",), "FILE"),
        (("list", "a.db", "--limit", "0"), "must be a whole number"),
    ],
)
def test_words_that_make_no_sense_are_said(desk: Desk, words: tuple[str, ...], said: str) -> None:
    """Before any file is opened."""
    done = desk.call("memory", *words)
    assert done.code == 2
    assert said in done.err
