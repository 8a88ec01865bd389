"""What a prompt, a log and `rich` show of the objects that users hold."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import msgspec
import pytest
from rich.pretty import pretty_repr

from agentpool import AgentOutcome
from agentpool.abc import (
    Observer,
)
from agentpool.drivers import (
    Attachment,
)
from tests.support.live_objects import KEY, live_objects
from tests.test_exports import NAMES

LONGEST = 200


def public_classes() -> Iterator[type]:
    """Yield each class of the package that has a public name, once."""
    seen = dict[type, None]()
    for module, names in NAMES.items():
        for name in names:
            found: object = getattr(importlib.import_module(module), name)
            if inspect.isclass(found) and found.__module__.startswith("agentpool"):
                seen[found] = None
    for kind in seen:
        if not issubclass(kind, (BaseException, enum.Enum, dict)):
            yield kind


def is_value(kind: type) -> bool:
    """Whether objects of *kind* are compared, and so shown, by their fields."""
    if kind is AgentOutcome:  # it compares its fields by itself
        return True
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_config__.frozen and kind.__eq__ is msgspec.Struct.__eq__
    return attrs.has(kind) and kind.__eq__ is not object.__eq__


ODD = {
    "HearsThoughts",  # a protocol: nothing is an object of it
    "PoolMachine",  # Hypothesis shows what it did
}


@pytest.mark.parametrize("kind", list(public_classes()), ids=lambda kind: kind.__name__)
def test_no_public_class_has_the_repr_of_python_or_of_msgspec(kind: type) -> None:
    """The one shows a private module and an address, the other all insides."""
    if kind.__name__ in ODD or is_value(kind):
        return
    assert getattr(kind, "__repr__") is not getattr(object, "__repr__")  # noqa: B009  # for mypy
    if not issubclass(kind, Exception):
        shows = getattr(kind, "__rich_repr__", None)
        assert shows is not None
        assert shows is not getattr(msgspec.Struct, "__rich_repr__", None)


async def test_live_objects_are_one_short_line_with_public_words(tmp_path: Path) -> None:
    """By ``repr`` and by ``rich``, and with no key."""
    async with live_objects(tmp_path) as objects:
        for name, thing in objects.items():
            line = repr(thing)
            assert re.fullmatch(rf"<{type(thing).__name__}( .+)?>", line), name
            assert not re.search(r" at 0x|agentpool\.|\b_[a-z]+=", line), name
            assert len(line) < LONGEST + len(str(tmp_path)), name
            assert KEY not in line
            assert pretty_repr(thing, max_width=1_000) == line, name
        assert repr(objects["pool"]) == "<AgentPool 'house' 2/2 running, 1 queued>"
        assert repr(objects["outcomes"]) == "<OutcomeStream 2 spawned>"
        assert repr(objects["reservation"]) == "<Reservation of 3 tokens>"
        assert repr(objects["ticket"]) == "<GateTicket of 5 tokens>"
        assert repr(objects["gated"]) == "<GatedDriver of ScriptedDriver at gate 'mine'>"
        assert repr(objects["gates"]) == "<ProviderGates of 0 providers>"
        assert repr(objects["script"]) == "<ScriptedDriver 0 steps taken>"
        assert repr(objects["openai"]) == "<OpenAIDriver 'gpt'>"
        assert repr(objects["tool"]) == "<FunctionTool 'now'>"
        assert repr(objects["own observer"]) == "<_OwnObserver>"


def test_an_attachment_shows_none_of_its_bytes() -> None:
    """A photograph has millions."""
    photograph = Attachment("image/png", b"\x89PNG\r\n\x1a\n" + bytes(40_000))
    assert len(pretty_repr(photograph)) < LONGEST
    assert pretty_repr(photograph) == repr(photograph)


def test_a_class_of_a_user_with_a_form_of_its_own_keeps_it() -> None:
    """Such as that of attrs, or one that was written."""

    @attrs.frozen
    class Counting(Observer):
        count: int = 3

        def on_event(self, event: object) -> None: ...

    class Loud(Observer):
        def on_event(self, event: object) -> None: ...

        def __repr__(self) -> str:
            return "LOUD"

    assert pretty_repr(Counting()) == repr(Counting()).split(".")[-1] == "Counting(count=3)"
    assert pretty_repr(Loud()) == "LOUD"
