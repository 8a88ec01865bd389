"""The examples in docstrings say what happens."""

import ast
import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import agentpool

ROOMS = [
    "agentpool",
    *sorted(
        info.name
        for info in pkgutil.walk_packages(agentpool.__path__, "agentpool.")
        if not info.name.endswith("__main__")  # importing it runs the command line
    ),
]


@pytest.mark.parametrize("room", ROOMS)
def test_doctests(room: str) -> None:
    """Each example in the docstrings of *room* prints what it says."""
    module = importlib.import_module(room)
    assert module.__file__ is not None
    defined = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    source = ast.parse(Path(module.__file__).read_text())
    names = [node.name for node in source.body if isinstance(node, defined)]
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    examples = doctest.DocTestParser().get_doctest(
        module.__doc__ or "", dict(vars(module)), room, module.__file__, 0
    )
    runner.run(examples)
    for name in names:
        # module=False: public classes say that they are from the face that shows
        # them, and by that doctest would take them for somebody else's.
        found = finder.find(getattr(module, name), name, module=False, globs=dict(vars(module)))
        for test in found:
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
