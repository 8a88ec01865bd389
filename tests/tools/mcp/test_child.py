"""The process of an MCP server, as far as it is one of any program."""

from __future__ import annotations

import os
import signal
import sys
from typing import cast

import pytest
import trio
from trio.testing import memory_stream_one_way_pair, wait_all_tasks_blocked

from agentpool._secrets import REDACTED
from agentpool.tools.mcp._child import TAIL_BYTES, Child, open_child
from agentpool.tools.mcp._secrets import Secrets, SecretsInStream
from tests.support.keys import KEY
from tests.support.processes import wait_gone

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the programs are POSIX")


async def test_nothing_comes_from_a_server_that_was_ended() -> None:
    """Whoever still reads when the block ends sees the end, and no error of pipes."""
    async with open_child(["cat"], os.environ, Secrets()) as child:
        await child.send(b"hello")
        assert await child.receive() == b"hello"
    assert await child.receive() == b""


async def test_the_beginning_of_a_secret_is_not_the_end_of_the_output() -> None:
    """It is held back, and nothing at all would mean that no more comes."""
    output, stdout = memory_stream_one_way_pair()
    nobody = cast("trio.Process", None)  # it is only read
    secrets = Secrets.of([KEY])
    child = Child(
        nobody, output, stdout, stdout, SecretsInStream(secrets), SecretsInStream(secrets)
    )
    said: list[bytes] = []

    async def read() -> None:
        said.append(await child.receive())

    async with trio.open_nursery() as nursery:
        await output.send_all(KEY[:9].encode())
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert said == []
        await output.send_all(KEY[9:].encode() + b"!")
    assert said == [f"{REDACTED}!".encode()]


async def test_without_sessions_the_server_itself_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are platforms that have none."""
    monkeypatch.delattr(os, "killpg")
    with trio.fail_after(20):
        async with open_child(
            ["sh", "-c", "exec 0<&-; exec sleep 60"], os.environ, Secrets()
        ) as child:
            pass
        assert await child.say_how() == "SIGKILL; it wrote nothing to standard error"


async def test_last_words_are_cut_behind_no_half_of_a_secret() -> None:
    """What is cut off takes a part of the key with it, and nobody knows the rest for one."""
    said = KEY + "x" * (TAIL_BYTES - len(KEY) // 2)
    async with open_child(["sh", "-c", f"echo {said} >&2"], os.environ, Secrets.of([KEY])) as child:
        await child.drain()
        assert KEY[-8:] not in child.last_words()
        assert "xxx" in child.last_words()


@pytest.mark.skipif(sys.platform != "linux", reason="found by its environment on Linux only")
@pytest.mark.parametrize(
    "daemon",
    [
        "setsid sh -c '{}' &",
        "setsid -f sh -c '{}'",
        "setsid -f setsid -f sh -c '{}'",
        "cd / && exec setsid -f sh -c '{}' <&- 2>&-",
    ],
)
async def test_a_daemon_of_a_server_ends_with_its_block(daemon: str) -> None:
    """It left the server's group, and outlived the pool."""
    script = daemon.format("echo $$; exec sleep 600")
    with trio.fail_after(60):
        async with open_child(["sh", "-c", f"{script}\nexec cat"], os.environ, Secrets()) as child:
            said = b""
            while not said.endswith(b"\n"):
                said += await child.receive()
    try:
        await wait_gone(int(said))
    except trio.TooSlowError:
        os.kill(int(said), signal.SIGKILL)
        raise
