"""Asks git for the settings of the repositories that git may enter, before it runs there.

The settings are not read from files, since only git knows where a repository begins, what it
includes, and how its files are read.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from agentpool._errors import ToolError
from agentpool.tools.system._process import open_group
from agentpool.tools.system._repository_folder import is_inside_another
from agentpool.tools.system._repository_settings import harmful_setting, repositories_below

RUNS_NOTHING: Final[Mapping[str, str]] = {
    "GIT_EDITOR": ":",
    "GIT_SEQUENCE_EDITOR": ":",
    "GIT_CONFIG_COUNT": "4",  # the first two are set for every program
    "GIT_CONFIG_KEY_2": "core.hooksPath",
    "GIT_CONFIG_VALUE_2": os.devnull,
    "GIT_CONFIG_KEY_3": "core.fsmonitor",
    "GIT_CONFIG_VALUE_3": "false",
}
"""Additional variables, with which git runs no hook, no editor and no watcher of the file system.
The children of git get them too, in whatever repository they run."""

_LIST_SETTINGS: Final = ("config", "--list", "-z", "--show-scope")

_MAX_SETTINGS_BYTES: Final = 1024 * 1024
"""The most that is read of a list of settings."""

_LIST_SECONDS: Final = 10.0
"""How long git may take to list its settings: it takes milliseconds, unless a disk hangs."""

_MAX_KEY_CHARS: Final = 100
"""How much is shown of the name of a setting, which may be of any length."""


async def check_repositories(
    git: str, folder: str, steps: Sequence[str], environ: Mapping[str, str]
) -> None:
    """Raise if a repository around *folder* or in it has settings that may run programs.

    Args:
        git: The full path of git.
        folder: The folder in which it will run.
        steps: The folders that it changes into first.
        environ: The environment in which it will run.

    Raises:
        ToolError: If a repository has such settings, or if git cannot say.
    """
    at = str(Path(folder, *steps))
    await _check(git, at, folder, environ)
    below = await trio.to_thread.run_sync(
        lambda: tuple(repositories_below(folder)), abandon_on_cancel=True
    )
    for one in below:
        # What git cannot read as a repository is none for it, and runs nothing.
        with contextlib.suppress(_NoRepositoryError):
            await _check(git, one, folder, environ)


class _NoRepositoryError(ToolError):
    """Git itself refuses to read its settings in this folder."""


async def _check(git: str, at: str, folder: str, environ: Mapping[str, str]) -> None:
    # Without its work tree, git reads no repository; the file is read all the same once it is back.
    source = ("--file", "config") if is_inside_another(at) else ()
    listed = await _list_settings(git, at, environ, source)
    key = await trio.to_thread.run_sync(harmful_setting, listed, at, abandon_on_cancel=True)
    if key is not None:
        place = await trio.to_thread.run_sync(os.path.relpath, at, folder)
        raise ToolError(
            f"git may not be run here: the configuration of the repository at {place!r} sets "
            f"{key[:_MAX_KEY_CHARS]!r}, which may run a program; move the setting to the user's "
            "own configuration (git config --global), or remove it"
        )


async def _list_settings(
    git: str, folder: str, environ: Mapping[str, str], source: Sequence[str]
) -> str:
    """Return git's list of its settings in *folder*.

    Raises:
        ToolError: If git writes too much, or does not answer in time.
        _NoRepositoryError: If git refuses to read its settings there.
    """
    failed = "git cannot be asked for its configuration here:"
    try:
        async with open_group(
            [git, *_LIST_SETTINGS, *source],
            folder=folder,
            environ=environ,
            keep_bytes=_MAX_SETTINGS_BYTES,
            max_bytes=_MAX_SETTINGS_BYTES,
            mark=secrets.token_hex(16),
        ) as group:
            with trio.move_on_after(_LIST_SECONDS) as limit:
                await group.run()
    except OSError as exc:
        raise ToolError(f"{failed} {exc}") from exc
    if group.is_flooded:
        raise ToolError(f"{failed} it is longer than {_MAX_SETTINGS_BYTES} bytes")
    if limit.cancelled_caught:
        raise ToolError(f"{failed} it did not answer in {_LIST_SECONDS:g} seconds")
    if group.returncode != 0:
        raise _NoRepositoryError(f"{failed} {group.stderr.text().strip()}")
    return group.stdout.text()
