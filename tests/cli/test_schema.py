"""``--schema``: answers of a form that a file says, read as the pool reads any type."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from agentpool import UsageError
from agentpool._cli._report import ExitCode
from agentpool._cli._schema import load_schema
from agentpool.tools._output import build_output
from tests.support.cli_runner import Desk, make_desk
from tests.support.growth import lines_run

FACT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Fact",
    "type": "object",
    "required": ["who", "year"],
    "additionalProperties": False,
    "properties": {
        "who": {"type": "string", "minLength": 1, "description": "the person"},
        "year": {"type": ["integer", "null"], "minimum": 1},
        "kind": {"enum": ["war", "peace", 3, None]},
        "class": {"const": "fact"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "where": {"$ref": "#/$defs/Place"},
        "sure": {"anyOf": [{"type": "boolean"}, {"type": "number", "maximum": 1}]},
    },
    "$defs": {"Place": {"type": "object", "properties": {"town name": {"type": "string"}}}},
}

ANSWERS = """
[[answers]]
when = "nonsense"
text = "I do not know."
[[answers]]
when = "That is not the form"
text = "I still do not know."
[[answers]]
text = 'Here you are: {"year": 1825, "who": "Adams"}'
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with a schema and a script that mostly fits it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(fact_json=json.dumps(FACT), script_toml=ANSWERS)
    return desk


def written(folder: Path, schema: object) -> str:
    """Return the path of a file with *schema*."""
    path = folder / "s.json"
    path.write_text(schema if isinstance(schema, str) else json.dumps(schema))
    return str(path)


@pytest.mark.parametrize(
    "answer",
    [
        '{"who":"Adams","year":1825}',
        '{"who":"Adams","year":null,"kind":"war","class":"fact","tags":["a","b"]}',
        '{"who":"A","year":1,"kind":3,"where":{"town name":"Quincy"},"sure":true}',
        '{"who":"A","year":1,"kind":null,"where":{},"sure":0.5}',
    ],
)
def test_what_fits_comes_back_as_it_was(tmp_path: Path, answer: str) -> None:
    """With the names of the schema, and nothing added that was left out."""
    made = load_schema(written(tmp_path, FACT))
    value = build_output(made).read(answer)
    assert json.loads(msgspec.json.encode(value)) == json.loads(answer)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ('{"who":"Adams"}', "year"),
        ('{"who":"","year":1}', "who"),
        ('{"who":"A","year":0}', "year"),
        ('{"who":"A","year":1,"kind":"truce"}', "kind"),
        ('{"who":"A","year":1,"class":"lie"}', "class"),
        ('{"who":"A","year":1,"tags":["a","b","c"]}', "tags"),
        ('{"who":"A","year":1,"where":{"town":"x"}}', "town"),
        ('{"who":"A","year":1,"sure":2}', "sure"),
        ('{"who":"A","year":1,"more":2}', "more"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, answer: str, fault: str) -> None:
    """By the name of the property, for the model."""
    misfit = build_output(load_schema(written(tmp_path, FACT))).read(answer)
    assert fault in str(misfit)


def prop(**schema: object) -> dict[str, object]:
    """Return an object with one property."""
    return {"type": "object", "properties": {"x": schema}}


def deep(levels: int) -> dict[str, object]:
    """Return objects in objects."""
    schema: dict[str, object] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"x": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("{", "is not JSON: line 1"),
        ("[" * 100_000, "is too deep"),
        ([1], r"must be a JSON object, got \[1\]"),
        ({"type": "string"}, "must have type 'object' and properties at its top"),
        ({"type": "object"}, "properties must have a schema for each property"),
        (prop(), r"x\.type must be one of string, .*, got null"),
        (prop(type="date"), r"x\.type must be one of .*, got \"date\""),
        (
            prop(type="string", pattern="a+"),
            "has the unsupported key 'pattern'; supported here: type, ",
        ),
        (prop(type="string", minLength="1"), r"x: .*min_length"),
        (prop(type="array"), r"x\.items must be a JSON object, got null"),
        (prop(enum=[]), r"x\.enum must be a list of values"),
        (prop(enum=[1.5]), r"x\.enum may have text, whole numbers and null, got 1\.5"),
        (prop(anyOf=[]), r"x\.anyOf must be a list of schemas"),
        (
            prop(anyOf=[prop(type="string"), prop(type="number")]),
            r"x has types that JSON cannot tell apart",
        ),
        ({**prop(type="string"), "required": ["y"]}, "required has 'y', which is not a property"),
        ({**prop(type="string"), "required": "x"}, "required must be a list"),
        ({**prop(type="string"), "required": [{}]}, "required has '{}', which is not a property"),
        (prop(type=["null", "null"]), r"x\.type has one kind twice: \[\"null\", \"null\"\]"),
        (
            {**prop(type="string"), "additionalProperties": True},
            "additionalProperties must be false",
        ),
        (prop(**{"$ref": "#/$defs/No"}), r"x refers to \"#/\$defs/No\", which is not in the file"),
        (prop(**{"$ref": "#/properties/x"}), "levels deep; write it flatter"),
        (deep(40), "levels deep; write it flatter"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, schema: object, says: str) -> None:
    """Before anybody is asked, with the place in the schema."""
    with pytest.raises(UsageError, match=says) as caught:
        load_schema(written(tmp_path, schema))
    assert "s.json" in str(caught.value)


def test_what_is_named_often_is_read_once(tmp_path: Path) -> None:
    """Of thirty that name the next one twice, a schema of 3 KB was never read to its end."""
    twice = {
        f"A{at}": {
            "type": "object",
            "properties": {key: {"$ref": f"#/$defs/A{at + 1}"} for key in "ab"},
        }
        for at in range(14)
    }
    schema = prop(**{"$ref": "#/$defs/A0"}) | {"$defs": {**twice, "A14": {"type": "string"}}}
    found = load_schema(written(tmp_path, schema))
    assert issubclass(found, msgspec.Struct)
    assert found.__struct_fields__ == ("field_0",)
    lines = lines_run(lambda: load_schema(written(tmp_path, schema)), "_cli/_schema.py")
    assert lines < 2_000


def test_a_run_prints_the_json_alone(desk: Desk) -> None:
    """Not the sentence around it, and not what was left out."""
    done = desk.scripted("run", "reader.toml", "Who?", "--schema", "fact.json")
    assert (done.code, done.out) == (ExitCode.COMPLETED, '{"who":"Adams","year":1825}\n')
    assert not done.err.startswith("agentpool: error")


def test_lines_have_the_value(desk: Desk) -> None:
    """As JSON and not as text in JSON; an agent whose answer does not fit has none."""
    desk.write(a_txt="a fine text", b_txt="nonsense")
    words = ("map", "reader.toml", "--each", "a.txt", "b.txt", "--schema", "fact.json", "--json")
    done = desk.scripted(*words)
    assert done.code == ExitCode.FAILED
    found = {line["input"]: line["value"] for line in done.lines[:-1]}
    assert found == {"a.txt": {"who": "Adams", "year": 1825}, "b.txt": None}


def test_a_killed_map_has_the_values_of_its_journal(desk: Desk) -> None:
    """What was answered before comes out as the same JSON."""
    words = ("run", "reader.toml", "Who?", "--schema", "fact.json", "--journal", "j.db")
    first, second = desk.scripted(*words), desk.scripted(*words)
    assert (second.code, second.out) == (first.code, first.out)


def test_a_schema_that_is_not_there_is_said(desk: Desk) -> None:
    """As any other input."""
    done = desk.scripted("run", "reader.toml", "Who?", "--schema", "no.json")
    assert done.code == ExitCode.WRONG
    assert "no.json' cannot be read: No such file" in done.err
