"""Things of which every agent has its own."""

from __future__ import annotations

from agentpool._base import Live


class Drawer(Live):
    """A live thing with something in it."""

    inside: str


def test_a_live_thing_says_what_it_is_and_not_what_is_in_it() -> None:
    """What is in it may be large, and may be secret: it ends up in logs and tracebacks."""
    drawer = Drawer("the diary")
    assert repr(drawer) == "<Drawer>"
    assert "diary" not in repr(drawer)


def test_a_live_thing_is_equal_to_itself_alone() -> None:
    """Two agents with the same inside are two agents, and may be keys."""
    one, other = Drawer("a"), Drawer("a")
    assert one != other
    assert len({one, other}) == 2
