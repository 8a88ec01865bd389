"""Each tool, cancelled at every step: no process, thread, descriptor or file is left."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from agentpool import Capability
from agentpool._messages import Json
from agentpool.abc import Tool
from agentpool.tools import shell_tools
from agentpool.tools.system import _search_child
from tests.support.tool_helpers import (
    CancelAt,
    all_gone,
    file_kit,
    names_in,
    open_fds,
    result_of,
    tool_threads,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc says what is left")

WORD = f"{4000 + os.getpid()}.125"
MAX_STEPS = 200


def shell_in(folder: Path) -> Tool:
    """Return a tool that may run a shell."""
    (made,) = shell_tools([Capability.shell("sh")], environ=os.environ, folder=folder)
    return made


CALLS: dict[str, tuple[Callable[[Path], Tool], dict[str, Json]]] = {
    "file_read": (lambda f: file_kit(f)["file_read"], {"path": "a.txt", "limit": 1}),
    "file_write": (lambda f: file_kit(f)["file_write"], {"path": "new", "content": "x" * 10_000}),
    "file_edit": (
        lambda f: file_kit(f)["file_edit"],
        {"path": "a.txt", "old_string": "one", "new_string": "1"},
    ),
    "glob": (lambda f: file_kit(f)["glob"], {"pattern": "**"}),
    "grep": (lambda f: file_kit(f)["grep"], {"pattern": "o+"}),
    "shell": (shell_in, {"command": f"sh -c 'sleep {WORD} & cat a.txt; echo done'"}),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_tool_that_is_cancelled_leaves_nothing(name: str, tmp_path: Path) -> None:
    """At its 1st, 2nd, 3rd … step, until a run comes through."""
    make, arguments = CALLS[name]
    before = ["a.txt"]
    for step in range(1, MAX_STEPS):
        (tmp_path / "a.txt").write_text("one\n" * (2 if name != "file_edit" else 1))
        (tmp_path / "new").unlink(missing_ok=True)
        tool = make(tmp_path)
        fds = open_fds()
        with trio.CancelScope() as scope:
            watch = CancelAt(scope, step)
            trio.lowlevel.add_instrument(watch)
            try:
                await result_of(tool, **arguments)
            finally:
                trio.lowlevel.remove_instrument(watch)
        assert open_fds() == fds, step
        assert tool_threads() == [], step
        assert set(names_in(tmp_path)) <= {*before, "new"}, step
        if (tmp_path / "new").exists():
            assert (tmp_path / "new").stat().st_size == 10_000, step
        if not scope.cancel_called:
            break
    else:
        pytest.fail("it has no end")
    assert step > 2
    assert await all_gone(WORD)
    assert await all_gone(_search_child.__file__)
