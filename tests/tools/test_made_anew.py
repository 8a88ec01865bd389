"""Tools that a builder makes anew for each agent: read once, and never taken for others."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import UsageError
from agentpool.abc import ToolContext
from agentpool.tools import FunctionTool, tool
from agentpool.tools import _schema as schemas


def made(closed_over: object = None, **terms: object) -> FunctionTool[..., Any]:
    """Make a tool, with other annotations, defaults or words if *terms* say so."""

    def look(at: int, again: bool = False, *, where: str = "here") -> str:  # noqa: FBT001, FBT002
        """Look at it."""
        return f"{closed_over}{at}{again}{where}"

    for name, value in terms.items():
        setattr(look, name, value)
    return tool(look)


def test_it_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read it takes ten times as long as the rest."""
    read: list[object] = []
    build = schemas._build

    def counted(function: Any, *, skip: int) -> schemas.Signature:  # noqa: ANN401
        read.append(function.__name__)
        return build(function, skip=skip)

    monkeypatch.setattr(schemas, "_build", counted)
    monkeypatch.setattr(schemas, "_KNOWN", {})
    definitions = [made(number).definition for number in range(5)]
    assert read == ["look"]
    assert all(one == definitions[0] for one in definitions)
    assert definitions[0].input_schema["required"] == ["at"]


def test_nothing_that_it_has_closed_over_is_kept() -> None:
    """An agent's database, for example."""

    class Thing:
        """Something large."""

    thing = Thing()
    gone = weakref.ref(thing)
    one = made(thing)
    assert one.definition.name == "look"
    del thing, one
    gc.collect()
    assert gone() is None


DEFAULTS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, -0.0]),
    st.sampled_from(["", "1", "here"]), st.sampled_from([(), (1,), ("where", "here")]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"__defaults__": (True,)}, {"__defaults__": (1,)}),
        ({"__defaults__": (0,)}, {"__defaults__": (0.0,)}),
        ({"__defaults__": (0.0,)}, {"__defaults__": (-0.0,)}),
        ({"__kwdefaults__": {"where": 1}}, {"__kwdefaults__": {"where": True}}),
        ({"__kwdefaults__": {"where": "x"}}, {"__kwdefaults__": {"where": "y"}}),
        ({"__kwdefaults__": None}, {}),
        ({"__doc__": "Look away."}, {}),
        ({"__name__": "gaze"}, {}),
        ({"__annotations__": {"at": int, "again": bool, "where": int}}, {}),
    ],
)  # fmt: skip
def test_of_two_made_of_the_same_code_each_is_itself(
    first: dict[str, object], second: dict[str, object]
) -> None:
    """True equals 1 and 0 equals 0.0, and no model reads them alike."""
    schemas._KNOWN.clear()
    one, other = made(**first).definition, made(**second).definition
    assert repr(one) != repr(other)
    schemas._KNOWN.clear()
    assert repr(made(**second).definition) == repr(other)


@given(
    many=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "__defaults__": st.one_of(st.none(), st.tuples(DEFAULTS)),
                "__kwdefaults__": st.one_of(st.none(), st.fixed_dictionaries({"where": DEFAULTS})),
                "__doc__": st.sampled_from(["Look at it.", "Look away.\n\nArgs:\n    at: What."]),
                "__name__": st.sampled_from(["look", "gaze"]),
                "__annotations__": st.sampled_from([
                    {"at": int, "again": bool, "where": str},
                    {"at": "int", "again": "bool", "where": "str | None"},
                    {"at": float, "again": int, "where": str, "return": "str"},
                    {"at": ToolContext, "again": "bool", "where": list[str]},
                ]),
            },
        ),
        min_size=2, max_size=6,
    )
)  # fmt: skip
def test_it_is_what_it_would_be_if_it_were_the_first(many: list[dict[str, Any]]) -> None:
    """Whatever else was made of the same code before."""
    together = [made(**terms) for terms in many]
    for terms, one in zip(many, together, strict=True):
        schemas._KNOWN.clear()
        alone = made(**terms)
        assert repr(alone.definition) == repr(one.definition)
        for arguments in ('{"at": 1}', '{"at": 1.5, "again": 2, "where": "x"}', "{}"):
            first, second = _decoded(alone, arguments), _decoded(one, arguments)
            assert (repr(first), type(first)) == (repr(second), type(second))


def _decoded(one: FunctionTool[..., Any], arguments: str) -> object:
    try:
        return one._decoder.decode(arguments)
    except Exception as error:  # noqa: BLE001  # compared by the test
        return str(error)


def test_a_function_that_wraps_another_is_read_each_time() -> None:
    """Its parameters are those of the other one, with their defaults."""

    def wrapped(function: Callable[..., str]) -> FunctionTool[..., Any]:
        @functools.wraps(function)
        def around(*args: Any, **more: Any) -> str:  # noqa: ANN401
            return function(*args, **more)

        return tool(around)

    def one() -> FunctionTool[..., Any]:
        def act(x: int = 1) -> str:
            """Do it."""
            return str(x)

        return wrapped(act)

    def other() -> FunctionTool[..., Any]:
        def act(x: int = 2) -> str:
            """Do it."""
            return str(x)

        return wrapped(act)

    assert "'default': 1" in repr(one().definition)
    assert "'default': 2" in repr(other().definition)


def test_what_cannot_be_a_tool_is_refused_each_time() -> None:
    """Also the second time."""
    for _ in range(2):
        with pytest.raises(UsageError, match="has no docstring"):
            made(__doc__="")


def test_what_is_known_has_a_bound() -> None:
    """A program may make code itself."""
    for number in range(schemas._MOST_KNOWN + 10):
        made(__doc__=f"Look at {number}.")
    assert len(schemas._KNOWN) <= schemas._MOST_KNOWN
