"""A tool to run granted programs, without a shell.

Rules:

1. Names are looked up on the path once, when the tool is made. Relative entries of the path are
   skipped, since their meaning depends on the current folder.
2. A program starts in one folder, with empty input, and with an environment of a few known
   variables, none of which holds keys or tokens.
3. The program, and everything it started, ends with the call, however the call ends.
4. A Sovereign agent's programs run without a network, or not at all.
5. If git is granted by name, it runs no hooks, and it does not run at all where the settings of a
   repository may run a program. From this check until git ends, no other program of the agent runs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, final

import attrs
import trio

from agentpool._checks import expect_arguments
from agentpool._environ import build_environ
from agentpool._errors import ToolError, UsageError
from agentpool._manifest.capability import ANYTHING, Capability, CapabilityKind
from agentpool.abc import Tool, ToolContext, ToolResult
from agentpool.tools._function import tool
from agentpool.tools.system._command_rules import (
    Programs,
    moves_files,
    refused_argument,
    split_command,
    steps_of,
    writes_by_name,
)
from agentpool.tools.system._exclusion import Exclusion
from agentpool.tools.system._links_before_programs import (
    misleading_target,
    other_repository,
    outward_link,
)
from agentpool.tools.system._process import Group, open_group
from agentpool.tools.system._repository_check import RUNS_NOTHING, check_repositories
from agentpool.tools.system._repository_settings import reads_repositories

MAX_SHOWN_BYTES: Final = 16 * 1024
"""The most bytes shown of each of the two outputs: some 4,000 tokens. Half of them come from the
beginning of the output, half from its end."""

MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
"""A program that writes more bytes is ended: the rest would not be read, and the program might
write forever."""

SHELL_SECONDS: Final = 60.0
"""How long a program may take, unless the tool is made with another limit."""

_OUR_SHARE: Final = 0.9
"""The program's share of the call's remaining time. The rest is for ending the program and
reporting its output. If the call's own time limit came first, the output would be lost."""

_SET: Final[Mapping[str, str]] = {
    "TERM": "dumb",
    "NO_COLOR": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    # A folder that only looks like a repository is none: files can be written to it. Nor is
    # it fetched from or pushed to, which runs what its hooks and its configuration say.
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.bareRepository",
    "GIT_CONFIG_VALUE_0": "explicit",
    "GIT_CONFIG_KEY_1": "protocol.file.allow",
    "GIT_CONFIG_VALUE_1": "never",
}
"""Variables that keep programs from waiting for a key press, and from drawing on a terminal."""

_NO_NETWORK: Final = ("--user", "--map-current-user", "--net", "--")
"""The arguments of ``unshare`` for an empty network, for which users other than root need a user
namespace. Access to files does not change."""


def shell_tools(
    grants: Iterable[Capability],
    *,
    environ: Mapping[str, str],
    folder: str | Path = ".",
    seconds: float = SHELL_SECONDS,
    without_network: tuple[str, ...] = (),
) -> tuple[Tool, ...]:
    """Return the tool ``shell`` for the programs that *grants* allow, or no tool without grants.

    Args:
        grants: An agent's grants, of which only those of ``shell`` matter. The programs are looked
            up now, and never again.
        environ: The environment. Its ``PATH`` is searched for programs. The programs get a few of
            its variables, none of which is a secret.
        folder: The folder in which programs start. They can leave it.
        seconds: How long a program may take.
        without_network: The command to put before every program: see ``find_isolation``. ``()``: no
            command is put before programs, so they may use the network.

    Raises:
        UsageError: If *seconds* is not above 0.
    """
    expect_arguments(shell_tools, locals())
    if not seconds > 0:
        raise UsageError(f"seconds must be > 0, got {seconds!r}")
    scope = tuple(
        text for grant in grants if grant.kind is CapabilityKind.SHELL for text in grant.scope
    )
    if not scope:
        return ()
    path = search_path(environ)
    found = {name: shutil.which(name, path=path) for name in scope if _is_plain(name)}
    programs = Programs(
        granted=scope, paths={name: where for name, where in found.items() if where is not None}
    )
    runner = _Shell(
        programs,
        path,
        str(Path(folder).absolute()),
        _program_environ(environ, path),
        seconds,
        without_network,
        _gits_among(programs),
    )

    async def shell(context: ToolContext, command: str) -> ToolResult:
        return await runner.run(command, context)

    # A model must know what it may run before it tries; so the text is made here.
    which = "Any program may be run" if ANYTHING in scope else f"Programs: {', '.join(scope)}"
    shell.__doc__ = f"""Run one program and read what it writes. {which}.
    There is no shell: no pipes, redirections, variables or wildcards.

    Args:
        context: The call.
        command: The program and its arguments; quotes keep words together.
    """
    return (tool(capability=Capability(CapabilityKind.SHELL, scope))(shell),)


def search_path(environ: Mapping[str, str]) -> str:
    """Return the ``PATH`` of *environ* without relative folders."""
    entries = environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if Path(entry).is_absolute())


def _gits_among(programs: Programs) -> frozenset[str]:
    """Return the full paths of the granted programs that obey the settings of a repository."""
    return frozenset(
        one
        for one in programs.paths.values()
        if any(map(reads_repositories, (one, os.path.realpath(one))))
    )


def _program_environ(environ: Mapping[str, str], path: str) -> dict[str, str]:
    return {**build_environ(environ, also=("VIRTUAL_ENV",)), **_SET, "PATH": path}


async def find_isolation(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return a command prefix that cuts a program off the network. ``None``: impossible here.

    The command is tried out, since a container may forbid what its kernel offers.

    Args:
        environ: The environment whose ``PATH`` is searched for ``unshare``.
    """
    expect_arguments(find_isolation, locals())
    await trio.lowlevel.checkpoint()
    path = search_path(environ)
    unshare, trial = (shutil.which(name, path=path) for name in ("unshare", "true"))
    if unshare is None or trial is None:
        return None
    argv = (unshare, *_NO_NETWORK)
    try:
        async with open_group(
            [*argv, trial],
            environ=_program_environ(environ, path),
            keep_bytes=0,
            max_bytes=MAX_SHOWN_BYTES,
        ) as group:
            await group.run()
    except OSError:
        return None
    return argv if group.returncode == 0 else None


@final
@attrs.frozen(eq=False)
class _Shell:
    _programs: Programs
    _path: str
    _folder: str
    _environ: Mapping[str, str]
    _seconds: float
    _prefix: tuple[str, ...]
    _gits: frozenset[str]
    _exclusion: Exclusion = attrs.field(init=False, factory=Exclusion)

    async def run(self, command: str, context: ToolContext) -> ToolResult:
        """Run *command* and return the text for the model.

        Raises:
            ToolError: If the program is not granted, or cannot be started.

        Cancellation:
            The program and everything it started have ended.
        """
        name, *arguments = split_command(command)
        where = self._find(name)
        self._check(name, where, arguments)
        if self._programs.allows_all:
            return await self._run(name, where, arguments, context, self._environ)
        is_git = where in self._gits
        async with self._exclusion.take(kind=is_git):
            await trio.to_thread.run_sync(
                partial(self._check_folder, name, where, arguments), abandon_on_cancel=True
            )
            if not is_git:
                return await self._run(name, where, arguments, context, self._environ)
            environ = {**self._environ, **RUNS_NOTHING}
            steps = steps_of(name, arguments)
            await check_repositories(where, self._folder, steps, environ)
            return await self._run(name, where, arguments, context, environ)

    async def _run(
        self,
        name: str,
        where: str,
        arguments: Sequence[str],
        context: ToolContext,
        environ: Mapping[str, str],
    ) -> ToolResult:
        seconds = min(self._seconds, context.remaining_seconds() * _OUR_SHARE)
        # Under its own name, so that it does not tell where it lies.
        argv = (*self._prefix, where, *arguments) if self._prefix else (name, *arguments)
        path = None if self._prefix else where
        try:
            async with open_group(
                argv,
                path=path,
                folder=self._folder,
                environ=environ,
                keep_bytes=MAX_SHOWN_BYTES,
                max_bytes=MAX_OUTPUT_BYTES,
                mark=secrets.token_hex(16),
            ) as group:
                with trio.move_on_after(seconds) as limit:
                    await group.run()
        except (OSError, ValueError) as exc:
            raise ToolError(f"{name} cannot be started: {exc}") from exc
        return _told(group, seconds if limit.cancelled_caught else None)

    def _check(self, name: str, where: str, arguments: Sequence[str]) -> None:
        """Raise if *arguments* would let the program *name* exceed its grant.

        Raises:
            ToolError: If the arguments would let it.
        """
        if self._programs.allows_all:
            return
        for known_as in (name, os.path.realpath(where)):
            if door := refused_argument(known_as, arguments):
                raise ToolError(
                    f"{name} may not be run with {door!r}, which could run another program, or "
                    "write elsewhere; leave it out, or have all programs granted ('*')"
                )

    def _check_folder(self, name: str, where: str, arguments: Sequence[str]) -> None:
        """Raise if the folder's contents would make the program *name* exceed its grant. Blocks.

        Raises:
            ToolError: If a link, a target or another repository would do that.
        """
        for known_as in (name, os.path.realpath(where)):
            if writes_by_name(known_as, arguments) and (
                link := outward_link(self._folder, arguments)
            ):
                raise ToolError(
                    f"{name} may not be run here: {link!r} is a link out of the folder, and "
                    f"{name} would write through it; remove the link"
                )
            if moves_files(known_as, arguments) and (
                target := misleading_target(self._folder, steps_of(known_as, arguments), arguments)
            ):
                raise ToolError(
                    f"{name} may not move anything to or from {target!r}, which leads out of the "
                    "folder or into the repository's own files; use a path inside the work tree"
                )
            if step := other_repository(self._folder, steps_of(known_as, arguments)):
                raise ToolError(
                    f"{name} may not be directed to {step!r}: this is another repository or work "
                    "tree, whose configuration may run programs; to work there, make it the "
                    "agent's folder"
                )

    def _find(self, name: str) -> str:
        """Return the full path of the program *name*.

        Raises:
            ToolError: If the program is not granted, or not on this machine.
        """
        programs = self._programs
        where = programs.paths.get(name)
        if where is None and name in programs.paths.values():
            where = name
        if where is None and programs.allows_all and _is_plain(name):
            where = shutil.which(name, path=self._path)
        if where is not None:
            return where
        if programs.allows_all or name in programs.granted:
            raise ToolError(f"there is no program {name!r} on this machine; use another one")
        granted = ", ".join(programs.granted)
        raise ToolError(f"program {name!r} is not granted; granted are: {granted}")


def _is_plain(name: str) -> bool:
    """Return whether *name* is a bare name or a full path, not a relative path."""
    return name != ANYTHING and (Path(name).is_absolute() or Path(name).name == name)


def _told(group: Group, seconds: float | None) -> ToolResult:
    output, errors, code = group.stdout.text(), group.stderr.text(), group.returncode
    if group.is_flooded:
        how = f"ended: it wrote more than {MAX_OUTPUT_BYTES} bytes"
    elif seconds is not None:
        how = f"ended after {seconds:.3g} seconds, before it was done"
    elif code == 0:
        text = f"{output}\nstderr:\n{errors}" if errors else output
        return ToolResult(text or "exit code 0, without any output")
    elif code is not None and code < 0:
        how = f"ended by {signal.Signals(-code).name}"
    else:
        how = f"exit code {code}"
    return ToolResult(f"{how}:\n{output}{errors}", is_error=True)
