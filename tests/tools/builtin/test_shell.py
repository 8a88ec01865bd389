"""Running programs that were granted."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio

from agentpool import Capability, UsageError
from agentpool.abc import Tool
from agentpool.tools import find_isolation, shell_tools
from agentpool.tools.builtin import _shell
from agentpool.tools.builtin._shell import MAX_SHOWN_BYTES, search_path
from tests.support.keys import KEY, MARK, make_key
from tests.support.tool_helpers import all_gone, fail, names_in, processes_with, result_of, use

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="the programs are POSIX")


def shell_for(
    folder: Path,
    *commands: str,
    environ: Mapping[str, str] | None = None,
    seconds: float = 30,
    without_network: tuple[str, ...] = (),
) -> Tool:
    """Return the tool for *commands*, in *folder*."""
    (made,) = shell_tools(
        [Capability.shell(*commands)],
        environ=os.environ if environ is None else environ,
        folder=folder,
        seconds=seconds,
        without_network=without_network,
    )
    return made


# --- what may run


async def test_a_granted_program_runs_in_the_folder(tmp_path: Path) -> None:
    """With its output, its errors, and its exit code."""
    (tmp_path / "a.txt").write_text("hello\n")
    shell = shell_for(tmp_path, "cat", "ls", "true")
    assert await use(shell, command="cat a.txt") == "hello\n"
    assert await use(shell, command="true") == "exit code 0, without any output"
    assert await use(shell, command=f"{_which('cat')} a.txt") == "hello\n"
    told = await fail(shell, command="cat a.txt none")
    assert told.startswith("exit code 1:\nhello\ncat: none: ")


def _which(name: str) -> str:
    return next(
        f"{folder}/{name}"
        for folder in os.environ["PATH"].split(os.pathsep)
        if Path(folder, name).exists()
    )


async def test_errors_of_a_program_that_succeeds_are_shown_apart(tmp_path: Path) -> None:
    """As the original shows them."""
    told = await use(shell_for(tmp_path, "sh"), command="sh -c 'echo out; echo err >&2'")
    assert told == "out\n\nstderr:\nerr\n"


async def test_what_is_not_granted_is_not_run(tmp_path: Path) -> None:
    """By no name, and by no way to write it."""
    shell = shell_for(tmp_path, "ls")
    (tmp_path / "ls").write_text("#!/bin/sh\ntouch evil\n")
    (tmp_path / "ls").chmod(0o755)
    for command in ("id", "./ls", f"{tmp_path}/ls", "LS", "ls/../id", "'ls '", "X=1 ls", "''"):
        told = await fail(shell, command=command)
        assert told.endswith("is not granted; granted are: ls")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "command",
    ["echo a\ntouch evil", "echo a & touch evil", "echo a > evil", "echo a >> evil",
     "echo a; touch evil", "echo $(touch evil)", "echo `touch evil`", "cat < evil"],
)  # fmt: skip
async def test_no_second_command_and_no_redirection(tmp_path: Path, command: str) -> None:
    """In the original a newline, a single ``&`` and ``>`` get through."""
    told = await fail(shell_for(tmp_path, "echo", "cat", "touch"), command=command)
    assert "there is no shell" in told
    assert not names_in(tmp_path)


async def test_a_newline_in_an_argument_is_a_newline(tmp_path: Path) -> None:
    """Nobody reads it as a command."""
    told = await use(shell_for(tmp_path, "echo"), command="echo 'a\ntouch evil'")
    assert told == "a\ntouch evil\n"
    assert not names_in(tmp_path)


async def test_find_neither_executes_nor_deletes(tmp_path: Path) -> None:
    """Unless everything is granted. A link with another name does not help either."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "look").symlink_to(_which("find"))
    (tmp_path / "work").mkdir()
    environ = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    shell = shell_for(tmp_path / "work", "find", "look", environ=environ)
    for command in ("find . -exec touch evil {} +", r"find . -exec touch evil \;", "find . -delete",
                    "look . -exec touch evil {} +", "find . -fprint evil"):  # fmt: skip
        assert "may not be run with '-" in await fail(shell, command=command)
    assert not names_in(tmp_path / "work")
    assert await use(shell, command="find . -name '*'") == ".\n"
    await use(shell_for(tmp_path / "work", "*"), command="find . -exec touch evil {} +")
    assert (tmp_path / "work" / "evil").exists()


async def test_a_star_allows_names_and_full_paths(tmp_path: Path) -> None:
    """And nothing relative."""
    shell = shell_for(tmp_path, "*")
    assert await use(shell, command="echo a") == "a\n"
    assert await use(shell, command=f"{_which('echo')} a") == "a\n"
    for command in ("./echo", "no-such-program", "/no/such/program"):
        assert "there is no program" in await fail(shell, command=command)


async def test_programs_are_looked_up_once_and_never_by_a_relative_path(tmp_path: Path) -> None:
    """What an agent writes later, into a folder on the path, does not become a program."""
    (tmp_path / "bin").mkdir()
    environ = {"PATH": f"{tmp_path}/bin:.::bin:/usr/bin:/bin"}
    shell = shell_for(tmp_path, "ls", "later", environ=environ)
    for name in ("bin/ls", "bin/later", "later"):
        (tmp_path / name).write_text("#!/bin/sh\necho evil\n")
        (tmp_path / name).chmod(0o755)
    assert "evil" not in await use(shell, command="ls")
    assert await fail(shell, command="later") == (
        "there is no program 'later' on this machine; use another one"
    )
    assert search_path({"PATH": f".:{tmp_path}::x"}) == str(tmp_path)
    assert search_path({})


def test_without_a_grant_there_is_no_tool(tmp_path: Path) -> None:
    """And a limit that is none is refused."""
    assert shell_tools([Capability.file_read("*")], environ={}, folder=tmp_path) == ()
    with pytest.raises(UsageError, match="seconds must be > 0, got 0"):
        shell_for(tmp_path, "ls", seconds=0)


def test_a_model_is_told_which_programs_there_are(tmp_path: Path) -> None:
    """So that it does not have to guess; and the tool asks for just these."""
    shell = shell_for(tmp_path, "ls", "git")
    assert "Programs: ls, git." in shell.definition.description
    assert "There is no shell" in shell.definition.description
    assert shell.capability == Capability.shell("ls", "git")
    assert "Any program may be run." in shell_for(tmp_path, "*").definition.description


async def test_a_program_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    """With the system's reason."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "broken").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "bin" / "broken").chmod(0o755)
    shell = shell_for(tmp_path, "broken", environ={"PATH": f"{tmp_path}/bin"})
    assert "cannot be started: " in await fail(shell, command="broken")


# --- what it knows


async def test_keys_are_not_in_its_environment(tmp_path: Path) -> None:
    """It gets what programs need, by name, and not what is left after a search for keys."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": "/home/u",
        "LC_ALL": "C.UTF-8",
        "LC_TOKEN": KEY,
        "LC_API_KEY": KEY,
        "LANG_SECRET": KEY,
        "OPENAI_API_KEY": KEY,
        "MY_TOKEN": make_key("token-"),
        "LD_PRELOAD": "/evil.so",
        "GIT_SSH_COMMAND": "evil",
        "PAGER": "evil",
    }
    told = await use(shell_for(tmp_path, "env", environ=environ), command="env")
    names = {line.partition("=")[0] for line in told.splitlines()}
    assert names == {"PATH", "HOME", "LC_ALL", "TERM", "NO_COLOR", "PAGER", "GIT_PAGER",
                     "GIT_CONFIG_COUNT",
                     "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0",
                     "GIT_CONFIG_KEY_1", "GIT_CONFIG_VALUE_1",
                     "GIT_TERMINAL_PROMPT", "GIT_OPTIONAL_LOCKS", "AGENTPOOL_CALL"}  # fmt: skip
    assert MARK not in told
    assert "evil" not in told


async def test_its_input_is_empty(tmp_path: Path) -> None:
    """Nothing waits for a person."""
    with trio.fail_after(10):
        assert "without any output" in await use(shell_for(tmp_path, "cat"), command="cat")


# --- how it ends


async def test_a_program_that_takes_too_long_is_ended_with_what_it_wrote(
    tmp_path: Path,
) -> None:
    """And with all that it started."""
    word = f"{2000 + os.getpid()}.25"
    shell = shell_for(tmp_path, "sh", seconds=0.3)
    with trio.fail_after(10):
        told = await fail(shell, command=f"sh -c 'sleep {word} & echo begun; wait'")
    assert told == "ended after 0.3 seconds, before it was done:\nbegun\n"
    assert await all_gone(word)


async def test_it_ends_before_the_calls_own_limit_would_take_its_output(
    tmp_path: Path,
) -> None:
    """The manifest's limit would end the call and tell nothing of what was written."""
    shell = shell_for(tmp_path, "sh")
    with trio.fail_after(1):
        told = await fail(shell, command="sh -c 'echo begun; sleep 100'")
    assert told.startswith("ended after 0.")
    assert told.endswith("\nbegun\n")


async def test_a_cancelled_call_leaves_no_process(tmp_path: Path) -> None:
    """Wherever its agent was."""
    word = f"{3000 + os.getpid()}.25"
    shell = shell_for(tmp_path, "sh")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(result_of, shell, command=f"sh -c 'sleep {word} & sleep {word}'")
        )
        await trio.sleep(0.2)
        assert processes_with(word)
        nursery.cancel_scope.cancel()
    assert await all_gone(word)


async def test_a_giant_output_is_cut_between_characters(tmp_path: Path) -> None:
    """In the original the process ends at a cut within a character."""
    (tmp_path / "big").write_text("漢" * 1_000_000)
    told = await use(shell_for(tmp_path, "cat"), command="cat big")
    assert "\ufffd" not in told
    assert "bytes left out] …" in told
    assert len(told.encode()) < MAX_SHOWN_BYTES + 100


async def test_an_endless_output_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before its time is over."""
    monkeypatch.setattr(_shell, "MAX_OUTPUT_BYTES", 1_000_000)
    with trio.fail_after(20):
        told = await fail(shell_for(tmp_path, "yes"), command="yes")
    assert told.startswith("ended: it wrote more than 1000000 bytes:\ny\ny\n")


async def test_a_program_that_dies_of_a_signal_says_so(tmp_path: Path) -> None:
    """By its name."""
    told = await fail(shell_for(tmp_path, "sh"), command="sh -c 'kill -9 $$'")
    assert told == "ended by SIGKILL:\n"


# --- without a network


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has such networks")
async def test_a_sovereign_agents_program_has_no_network(tmp_path: Path) -> None:
    """In the original ``curl`` sends what it likes to whom it likes."""
    isolation = await find_isolation(os.environ)
    if isolation is None:
        pytest.skip("this system forbids it")
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('sent')"
    (tmp_path / "call.py").write_text(script)
    command = f"{sys.executable} call.py"
    free = shell_for(tmp_path, sys.executable)
    assert await use(free, command=command) == "sent\n"
    bound = shell_for(tmp_path, sys.executable, without_network=isolation)
    assert "Network is unreachable" in await fail(bound, command=command)
    for listener in listeners:
        await listener.aclose()


async def test_a_system_without_such_networks_says_so(tmp_path: Path) -> None:
    """Then the programs of Sovereign agents do not run at all."""
    assert await find_isolation({"PATH": str(tmp_path)}) is None
    (tmp_path / "true").write_text("#!/bin/sh\n")
    for script in ("#!/bin/sh\nexit 1\n", "#!/no/such/interpreter\n"):
        (tmp_path / "unshare").write_text(script)
        for name in ("true", "unshare"):
            (tmp_path / name).chmod(0o755)
        assert await find_isolation({"PATH": str(tmp_path)}) is None
