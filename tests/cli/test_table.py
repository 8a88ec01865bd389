"""Answers in JSON as a table: what is not in the text is marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentpool._cli._report import ExitCode
from agentpool._cli._schema import free_keys, load_schema
from agentpool._cli._table import FOOTNOTE, Row, lines_of, missing_in
from agentpool.drivers import Json
from tests.support.cli_runner import Desk, make_desk

BOOK = {
    "type": "object",
    "required": ["title", "year"],
    "properties": {
        "title": {"type": "string"},
        "year": {"type": ["integer", "null"]},
        "kind": {"enum": ["novel", "diary"]},
    },
}

ANSWERS = """
[[answers]]
when = "Walden"
text = '{"title": "WALDEN", "year": 1854, "kind": "diary"}'
[[answers]]
when = "Emma"
text = '{"title": "Emma", "year": 1816}'
[[answers]]
when = "broken"
error = "the model is out of order"
[[answers]]
text = '{"title": "The Way of Babel", "year": null}'
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with texts about books, and the form of a book."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(book_json=json.dumps(BOOK), script_toml=ANSWERS)
    (tmp_path / "books").mkdir()
    for name, text in {
        "a": "Walden is of 1854.",
        "b": "Emma is of 1815.",
        "c": "Nothing is said.",
        "d": "broken",
    }.items():
        (tmp_path / "books" / f"{name}.txt").write_text(text)
    return desk


def test_a_map_ends_in_a_table(desk: Desk) -> None:
    """Each answer as it comes, then all of them; choices are not looked up."""
    done = desk.scripted(
        "map", "reader.toml", "--each", "books", "--schema", "book.json", "--quiet"
    )
    assert done.code == ExitCode.FAILED
    assert done.out.splitlines() == [
        'books/a.txt: {"title":"WALDEN","year":1854,"kind":"diary"}',
        'books/b.txt: {"title":"Emma","year":1816}',
        'books/c.txt: {"title":"The Way of Babel","year":null}',
        "books/d.txt: failed",
        "",
        "       title                 year      kind",
        "a.txt  WALDEN                1854      diary",
        "b.txt  Emma                  1816 (?)",
        "c.txt  The Way of Babel (?)",
        "d.txt  failed",
        FOOTNOTE,
    ]


UNFIT = """
[[answers]]
when = "Walden"
text = '{"title": "Walden", "year": 1854}'
[[answers]]
text = "It looks fine to me."
"""


def test_an_agent_without_an_object_prints_no_prose(desk: Desk) -> None:
    """A status says that there is none; the error, JSON lines and the trace say why."""
    stop = desk.folder.joinpath("reader.toml").read_text() + "[resources]\nmax_iterations = 2"
    desk.write(script_toml=UNFIT, reader_toml=stop)
    words = ("--schema", "book.json", "--trace", "t.jsonl", "--max-concurrent", "1")
    done = desk.scripted("map", "reader.toml", "--each", "books/b.txt", "books/c.txt", *words)
    assert done.code == ExitCode.STOPPED
    assert done.out.splitlines() == ["books/b.txt: stopped", "books/c.txt: stopped"]
    why = "and none of 2 answers fits 'answer'; the last one begins with 'It looks fine to me.'"
    assert done.err.count(why) == 1
    assert "agentpool: stopped for the same reason as books/b.txt: books/c.txt\n" in done.err
    assert "[resources] max_iterations" in done.err
    assert "of budget" not in done.err
    assert why in desk.call("show", "t.jsonl").out
    one = desk.scripted("run", "reader.toml", "Who?", "--schema", "book.json")
    assert (one.code, one.out) == (ExitCode.STOPPED, "")
    (line, _) = desk.scripted("run", "reader.toml", "Who?", "--schema", "book.json", "--json").lines
    assert why in line["error"]["message"]
    assert (line["text"], line["value"]) == ("It looks fine to me.", None)


def test_the_table_has_a_row_for_agents_without_an_object(desk: Desk) -> None:
    """As long as there is one with an object; the editor of all answers is no row."""
    desk.write(script_toml=UNFIT.replace("It looks", "Notes: it looks"))
    words = ("map", "reader.toml", "--each", "books/a.txt", "books/b.txt", "--quiet")
    done = desk.scripted(*words, "--schema", "book.json", "--reduce", "editor.toml")
    assert done.code == ExitCode.FAILED
    assert done.out.splitlines() == [
        'books/a.txt: {"title":"Walden","year":1854}',
        "books/b.txt: failed",
        "## editor",
        "",
        '{"title": "Walden", "year": 1854}',
        "",
        "",
        "       title   year",
        "a.txt  Walden  1854",
        "b.txt  failed",
    ]


def test_lines_are_no_table(desk: Desk) -> None:
    """Other programs read them."""
    words = ("map", "reader.toml", "--each", "books", "--schema", "book.json", "--json")
    assert len(desk.scripted(*words).lines) == 5


@pytest.mark.parametrize(
    ("text", "value", "is_missing"),
    [
        ("by H. G. Wells", "H.G. WELLS", False),
        ("in 1895", 1895, False),
        ("in 1895", 1896, True),
        ("2.5 grams", 2.5, False),
        ("a, b", ["a", "b"], False),
        ("a, b", ["a", {"x": "c"}], True),
        ("anything", True, False),
        ("anything", None, False),
        ("anything", "", False),
    ],
)
def test_what_is_in_the_text(text: str, value: Json, *, is_missing: bool) -> None:
    """By letters and digits; what is neither text nor number cannot be looked up."""
    assert bool(missing_in(text, {"x": value})) == is_missing


def test_all_of_a_value_is_looked_up() -> None:
    """Each value of an object and of a list, however they are nested."""
    answer: dict[str, Json] = {"x": {"a": "Walden", "b": [1854, {"c": None}]}}
    assert not missing_in("Walden; or, 1854", answer)
    assert missing_in("Walden", answer) == {"x"}


def test_a_cell_is_one_short_line() -> None:
    """Whatever a model wrote."""
    answer: dict[str, Json] = {"x": "a\nb\x1b[31m" + "c" * 100, "y": {"z": [1]}}
    header, line = lines_of([Row("l", answer)], names=["n\n"])
    assert header.split() == ["x", "y"]
    assert "\x1b" not in line
    assert "…" in line
    assert line.endswith('{"z": [1]}')
    assert len(line) < 80


def test_a_table_without_an_answer_has_names_alone() -> None:
    """Why there is none was said before."""
    assert lines_of([Row("a", None, note="failed")], names=["a"]) == ["", "a"]


def test_choices_are_known_wherever_they_are(tmp_path: Path) -> None:
    """In lists, in objects, beside null."""
    choice = {"enum": ["a", "b"]}
    schema = {
        "type": "object",
        "properties": {
            "free": {"type": "string", "maxLength": 3},
            "list": {"type": "array", "items": choice},
            "object": {"type": "object", "properties": {"x": choice}},
            "maybe": {"anyOf": [choice, {"type": "null"}]},
            "said": {**choice, "description": "which"},
        },
    }
    path = tmp_path / "s.json"
    path.write_text(json.dumps(schema))
    assert free_keys(load_schema(str(path))) == {"free"}
