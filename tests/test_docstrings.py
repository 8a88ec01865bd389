"""The examples in docstrings say what happens."""

import doctest
import importlib
import pkgutil

import pytest

import agentpool

ROOMS = sorted(
    info.name
    for info in pkgutil.walk_packages(agentpool.__path__, "agentpool.")
    if not info.name.endswith("__main__")  # importing it runs the command line
)


@pytest.mark.parametrize("room", ROOMS)
def test_doctests(room: str) -> None:
    """Each example in the docstrings of *room* prints what it says."""
    module = importlib.import_module(room)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0
