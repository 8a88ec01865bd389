"""The process of an MCP server, as far as it is one of any program."""

from __future__ import annotations

import os

import pytest
import trio

from agentpool.tools.mcp._child import open_child
from agentpool.tools.mcp._secrets import Secrets

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the programs are POSIX")


async def test_nothing_comes_from_a_server_that_was_ended() -> None:
    """Whoever still reads when the block ends sees the end, and no error of pipes."""
    async with open_child(["cat"], os.environ, Secrets()) as child:
        await child.send(b"hello")
        assert await child.receive() == b"hello"
    assert await child.receive() == b""


async def test_without_sessions_the_server_itself_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are platforms that have none."""
    monkeypatch.delattr(os, "killpg")
    with trio.fail_after(20):
        async with open_child(
            ["sh", "-c", "exec 0<&-; exec sleep 60"], os.environ, Secrets()
        ) as child:
            pass
        assert await child.say_how() == "SIGKILL; it wrote nothing to standard error"
