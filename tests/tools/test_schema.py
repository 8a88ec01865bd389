"""A Python signature as JSON Schema."""

from __future__ import annotations

import dataclasses
import enum
import functools
import gc
import json
import math
import os
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NewType,
    TypedDict,
    cast,
)

import attrs
import msgspec
import pytest
import trio
from msgspec import Meta

from agentpool import UsageError
from agentpool._messages import Json
from agentpool.abc import ToolContext
from agentpool.tools._schema import build_signature

if TYPE_CHECKING:
    from decimal import Decimal


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    GREEN = "green"


@attrs.define
class Point:
    """A point in the plane."""

    x: int
    y: int = 0


@dataclasses.dataclass
class Line:
    """Two points."""

    start: Point
    end: Point | None = None


class Options(TypedDict, total=False):
    """Options."""

    deep: bool


class Pair(NamedTuple):
    """A pair."""

    left: int
    right: str


@attrs.define
class Node:
    """A tree."""

    label: str
    children: list[Node] = attrs.field(factory=list)


@attrs.define
class Even:
    """One half of two types that contain each other."""

    next: Odd | None = None


@attrs.define
class Odd:
    """The other half."""

    next: Even | None = None


class Cat(msgspec.Struct, tag="cat"):
    """Told from a dog by its tag."""

    lives: int


class Dog(msgspec.Struct, tag="dog"):
    """Told from a cat by its tag."""

    tricks: int


@dataclasses.dataclass
class Marked:
    """A class with a constraint that msgspec does not know."""

    size: Annotated[int, "at least 1"]


@dataclasses.dataclass
class Unshowable:
    """A class whose default is not JSON."""

    size: int = cast("int", 1j)


Count = NewType("Count", int)
MarkedCount = NewType("MarkedCount", Annotated[int, "at least 1"])


def shown(function: Callable[..., object]) -> dict[str, Any]:
    """Return the properties of *function*'s schema."""
    return cast("dict[str, Any]", build_signature(function).input_schema["properties"])


def test_a_signature_becomes_a_closed_object() -> None:
    """A provider wants an object at the top, and strict modes want it closed."""

    def add(x: int, y: float = 0.5) -> str:
        """Add two numbers."""
        return str(x + y)

    assert build_signature(add).input_schema == {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "number", "default": 0.5}},
        "required": ["x"],
        "additionalProperties": False,
    }


def test_no_parameters_are_an_empty_object() -> None:
    """Several providers refuse a schema without ``properties``."""

    def now() -> str:
        """Say what time it is."""
        return "late"

    assert build_signature(now).input_schema == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


def google(city: str, days: int = 3) -> str:
    """Forecast the
    weather.

    It asks the sky.

    Args:
        city: Where, such as
            ``Oslo``.
        days: How far ahead.
    """  # noqa: D205  # a first paragraph of two lines is the point
    return f"{city} {days}"


def numpy(city: str, days: int = 3) -> str:
    """Forecast the weather.

    Parameters
    ----------
    city : str
        Where, such as ``Oslo``.
    days : int
        How far ahead.
    """
    return f"{city} {days}"


def sphinx(city: str, days: int = 3) -> str:
    """Forecast the weather.

    :param city: Where, such as ``Oslo``.
    :param days: How far ahead.
    """
    return f"{city} {days}"


@pytest.mark.parametrize("function", [google, numpy, sphinx])
def test_the_docstring_tells_what_parameters_mean(function: Callable[..., object]) -> None:
    """A model that knows only names guesses; and people write three styles."""
    signature = build_signature(function)
    assert signature.description == "Forecast the weather."
    assert shown(function)["city"]["description"] == "Where, such as ``Oslo``."
    assert shown(function)["days"]["description"] == "How far ahead."


def test_every_kind_of_type_has_its_schema() -> None:
    """What people annotate with is what a model must be able to send."""

    def draw(  # noqa: PLR0917  # one of each
        colour: Colour,
        mode: Literal["fast", "slow"],
        count: Annotated[int, Meta(ge=1, le=9)],
        points: list[Point],
        names: dict[str, int],
        pair: Pair,
        options: Options,
        number: Count,
        extra: Any,  # noqa: ANN401  # a tool may take any JSON
        label: str | None = None,
    ) -> None:
        """Draw."""

    properties = shown(draw)
    assert properties["colour"] == {
        "type": "string",
        "enum": ["green", "red"],
        "description": "A colour.",
    }
    assert properties["mode"] == {"type": "string", "enum": ["fast", "slow"]}
    assert properties["count"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
    }
    assert properties["points"]["items"]["properties"]["y"] == {"type": "integer", "default": 0}
    assert properties["names"] == {
        "type": "object",
        "properties": {},
        "additionalProperties": {"type": "integer"},
    }
    assert properties["pair"]["items"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert (properties["pair"]["minItems"], properties["pair"]["maxItems"]) == (2, 2)
    assert "(in this order: integer, string)" in properties["pair"]["description"]
    assert properties["options"]["properties"] == {"deep": {"type": "boolean"}}
    assert properties["number"] == {"type": "integer"}
    assert {one["type"] for one in properties["extra"]["anyOf"]} > {"string", "object", "array"}
    assert properties["label"] == {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "default": None,
    }


def test_nested_objects_are_written_out_and_closed() -> None:
    """Small models and some providers do not follow references; strict modes want closed."""

    def draw(line: Line) -> None:
        """Draw.

        Args:
            line: From where to where.
        """

    schema = build_signature(draw).input_schema
    assert "$ref" not in json.dumps(schema)
    assert "$defs" not in schema
    line = shown(draw)["line"]
    assert line["description"] == "From where to where."
    assert line["additionalProperties"] is False
    assert line["properties"]["start"]["additionalProperties"] is False
    assert line["properties"]["end"]["anyOf"][0]["additionalProperties"] is False


def test_a_type_that_contains_itself_is_written_out_once() -> None:
    """It cannot be written out for ever, and a provider that takes no reference takes none."""

    def plant(first: Node, second: Node, even: Even, odd: Odd, point: Point) -> None:
        """Plant."""

    signature = build_signature(plant)
    assert "$" not in json.dumps(signature.input_schema)
    properties = cast("dict[str, Any]", signature.input_schema)["properties"]
    children = properties["first"]["properties"]["children"]
    again = {
        "type": "object",
        "properties": {},
        "description": "(again Node, with the same fields)",
    }
    assert children["items"] == again
    assert properties["second"] == properties["first"]
    assert properties["even"]["properties"]["next"]["anyOf"][0]["properties"]
    assert properties["point"]["type"] == "object"
    checked = cast("dict[str, Any]", signature.checked_schema)
    assert set(checked["$defs"]) == {"Node", "Even"}
    assert checked["properties"]["first"] == {"$ref": "#/$defs/Node"}


def test_a_tagged_union_keeps_its_tags_and_no_dangling_mapping() -> None:
    """The mapping names definitions that are no longer there."""

    def feed(pet: Cat | Dog) -> None:
        """Feed."""

    pet = shown(feed)["pet"]
    assert set(pet) == {"anyOf"}
    assert [one["properties"]["type"] for one in pet["anyOf"]] == [
        {"type": "string", "enum": ["cat"]},
        {"type": "string", "enum": ["dog"]},
    ]


def test_defaults_are_shown_where_json_has_a_form_for_them() -> None:
    """A model that knows the default leaves the argument out."""
    marker = object()

    def paint(  # noqa: PLR0917  # one of each
        colour: Colour = Colour.GREEN,
        sizes: tuple[int, ...] = (1, 2),
        tags: frozenset[str] = frozenset({"b", "a", "c"}),
        place: Point | None = Point(1),  # noqa: B008  # a default that is an object
        depth: int = cast("int", marker),
        wait: float = math.inf,
    ) -> None:
        """Paint."""

    properties = shown(paint)
    assert properties["colour"]["default"] == "green"
    assert properties["sizes"]["default"] == [1, 2]
    assert properties["tags"]["default"] == ["a", "b", "c"]
    assert properties["place"]["default"] == {"x": 1, "y": 0}
    assert "default" not in properties["depth"]
    assert "default" not in properties["wait"]
    assert build_signature(paint).input_schema["required"] == []


def test_the_same_function_gives_the_same_bytes_in_every_process() -> None:
    """A provider's prompt cache and a replay compare bytes; sets and hashes must not show."""
    code = (
        "import json\n"
        "from agentpool.tools._schema import build_signature\n"
        "from typing import Literal\n"
        "def f(a: Literal['x', 'y', 'z'], b: frozenset[str] = frozenset('abcdef')) -> None:\n"
        "    'Do it.'\n"
        "print(json.dumps(build_signature(f).input_schema))\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_the_tool_context_is_not_shown() -> None:
    """The agent fills it in; a model that saw it would make one up."""

    def look(at: str, *, who: ToolContext) -> str:
        """Look.

        Args:
            at: At what.
            who: Who looks.
        """
        return f"{who.agent_name} looks {at}"

    signature = build_signature(look)
    assert signature.context_parameter == "who"
    assert list(shown(look)) == ["at"]


def test_a_method_of_an_object_is_read_once_for_its_class() -> None:
    """A tool builder that makes an object per agent must not pay for docstrings each time."""

    class Desk:
        def look(self, at: str) -> str:
            """Look."""
            return at

    assert build_signature(Desk().look) is build_signature(Desk().look)
    assert list(shown(Desk().look)) == ["at"]


def test_a_function_is_not_kept_alive_by_its_signature() -> None:
    """What an agent's tools have closed over must go when the agent goes."""

    def make() -> weakref.ref[Callable[..., object]]:
        def look(at: str) -> str:
            """Look."""
            return at

        build_signature(look)
        return weakref.ref(look)

    reference = make()
    gc.collect()
    assert reference() is None


def test_a_wrapped_function_shows_what_it_wraps() -> None:
    """functools.wraps is how decorators stay out of sight."""

    def add(x: int) -> str:
        """Add."""
        return str(x)

    @functools.wraps(add)
    def wrapper(*args: object, **kwargs: object) -> object:
        return cast("Any", add)(*args, **kwargs)

    assert list(shown(wrapper)) == ["x"]


def any_number(*xs: int) -> None:
    """Take any number."""


def any_name(**xs: int) -> None:
    """Take any name."""


def nameless(x: int, /) -> None:
    """Take something without a name."""


def bare(x) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  # on purpose
    """Take something of unknown type."""


def undocumented(x: int) -> None:  # noqa: D103  # on purpose
    pass


def blank(x: int) -> None:
    """ """  # noqa: D419  # on purpose


def only_sections(x: int) -> None:
    """:param x: The x."""


def unknown_type(x: NoSuchType) -> None:  # type: ignore[name-defined]  # noqa: F821  # on purpose
    """Take what there is not."""


def type_checking_only(x: Decimal) -> None:
    """Take what exists for type checkers alone."""


def no_json(x: Callable[[], int]) -> None:
    """Take a function."""


def any_object(x: object) -> None:
    """Take anything at all."""


def bad_union(x: Line | Point) -> None:
    """Take one of two objects that nobody can tell apart."""


def bad_default(x: Unshowable) -> None:
    """Take an object whose default has no JSON."""


def marked(x: Annotated[int, "at least 1"]) -> None:
    """Take a number with a note."""


def marked_within(x: list[dict[str, Marked]]) -> None:
    """Take a number with a note, far down."""


def marked_behind(x: MarkedCount) -> None:
    """Take a number with a note behind a name."""


def two_contexts(a: ToolContext, b: ToolContext) -> None:
    """Take two contexts."""


def generator(x: int) -> Iterator[int]:
    """Yield."""
    yield x


async def async_generator(x: int) -> AsyncIterator[int]:  # noqa: ASYNC900  # as users write them
    """Yield."""
    await trio.lowlevel.checkpoint()
    yield x


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (any_number, "parameter 'xs' of any_number takes any number of arguments"),
        (any_name, "parameter 'xs' of any_name takes any number of arguments"),
        (nameless, "parameter 'x' of nameless is positional-only"),
        (bare, "parameter 'x' of bare has no annotation; say which type it takes"),
        (undocumented, "undocumented has no docstring"),
        (blank, "blank has no docstring"),
        (only_sections, "only_sections says nothing before its sections"),
        (unknown_type, "unknown_type cannot be read: name 'NoSuchType' is not defined"),
        (type_checking_only, "import them outside `if TYPE_CHECKING`"),
        (no_json, "no_json takes a type that cannot be read from JSON: type"),
        (any_object, "type <class 'object'> is not supported; use JSON's own types"),
        (bad_union, "Type unions may not contain more than one"),
        (bad_default, "Encoding objects of type complex is unsupported"),
        (marked, "parameter 'x' of marked has 'at least 1' in Annotated"),
        (marked_within, "field 'size' of Marked, has 'at least 1' in Annotated"),
        (marked_behind, "has 'at least 1' in Annotated, which would be ignored"),
        (two_contexts, "parameter 'b' of two_contexts is a second ToolContext"),
        (generator, "generator is a generator; a tool returns once"),
        (async_generator, "async_generator is a generator"),
        (functools.partial(google, "Oslo"), "a tool must be a function or a method"),
        (Point, "a tool must be a function or a method"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_when_it_is_made(
    function: Callable[..., object], text: str
) -> None:
    """Later it would fail in the middle of a run, at the first call of a model."""
    with pytest.raises(UsageError) as caught:
        build_signature(function)
    assert text in str(caught.value)


def test_a_type_that_is_local_to_a_function_is_refused_with_the_way_out() -> None:
    """Its name, written as text, leads nowhere."""

    @attrs.define
    class Local:
        x: int

    def take(it: Local) -> None:
        """Take it."""

    with pytest.raises(UsageError, match="define them outside functions"):
        build_signature(take)


def test_constraints_of_annotated_types_are_refused() -> None:
    """A limit that msgspec ignores without a word is worse than none."""

    @attrs.frozen
    class Ge:  # as annotated_types has it, which is not a requirement of ours
        ge: int

    def take(count: int) -> None:
        """Take some."""

    take.__annotations__["count"] = Annotated[int, Ge(1)]
    with pytest.raises(UsageError, match=r"Ge\(ge=1\) in Annotated.*msgspec\.Meta\(ge=1\)"):
        build_signature(take)


def test_a_schema_is_plain_json() -> None:
    """Drivers write it into their requests as it is."""

    def draw(line: Line, colour: Colour = Colour.RED, tree: Node | None = None) -> None:
        """Draw."""

    schema = build_signature(draw).input_schema
    assert cast("Json", json.loads(json.dumps(schema))) == schema
