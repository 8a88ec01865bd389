"""Refuses a command that would overwrite a file it reads, or write one file twice.

Rules:

1. Two paths lead to the same file if the system says so, even if the paths are spelled differently
   or are links. For files that do not exist yet, their places are compared.
2. Nothing is written here, so a command that is refused has changed nothing.
3. A journal or a memory is never overwritten, whether or not the command uses it.
4. Things that are not files, such as pipes, are refused by the code that writes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Iterator
from typing import TypeAlias, assert_never

from agentpool import UsageError
from agentpool._cli._answers import answer_paths
from agentpool._cli._command import (
    ChatCommand,
    Command,
    MapCommand,
    Options,
    RunCommand,
    ServeCommand,
    ShowCommand,
)
from agentpool._cli._inputs import FROM_STANDARD_INPUT, files_of
from agentpool._disk_file import is_database

_Named: TypeAlias = tuple[str, str]
"""A word for the role of a file in the command, and the file's path."""

_Writer: TypeAlias = RunCommand | ChatCommand | MapCommand | ServeCommand | ShowCommand
"""A command that may write a file which its user has named."""


def refuse_clashes(command: Command) -> None:
    """Raise if *command* would overwrite one of its own files.

    Raises:
        UsageError: If the command would do that. The error says with which option, and over which
            file.
    """
    if not isinstance(command, _Writer):
        return
    written, answers = list(_written(command)), list(_answers(command))
    if not written and not answers:
        return
    owners: dict[Hashable, _Named] = {}
    for what, path in _kept(command):
        if (file := _identity(path)) is not None:
            owners.setdefault(file, (f"the {what}", path))
    for option, path in written:
        _refuse_owned(owners, path, f"{option} {path!r}", "file")
        if is_database(path):
            raise UsageError(
                f"{option} {path!r} would write over an SQLite file, such as a journal or a "
                "memory; name another file"
            )
        if (file := _identity(path)) is not None:
            owners[file] = (f"the file of {option}", path)
    for folder, path in answers:
        _refuse_owned(owners, path, f"--output-dir {folder!r}", "folder")


def _refuse_owned(owners: dict[Hashable, _Named], path: str, writer: str, other: str) -> None:
    owner = owners.get(_identity(path))
    if owner is not None:
        what, there = owner
        raise UsageError(f"{writer} would write over {what}, {there!r}; name another {other}")


def _identity(path: str) -> Hashable:
    """Return an identity that all paths to the same file share. ``None``: this is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116  # a path that is not taken apart
    except OSError:
        return os.path.normcase(os.path.realpath(path))
    except ValueError:  # a path that no system has
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _written(command: _Writer) -> Iterator[_Named]:
    """Yield the files that are overwritten, each with its option."""
    named: list[tuple[str, str | None]] = []
    match command:
        case RunCommand() | ChatCommand() | MapCommand() | ServeCommand():
            named += [("--trace", command.options.trace), ("--report", command.options.report)]
        case ShowCommand():
            named += [("--html", command.html)]
        case _:
            assert_never(command)
    yield from ((option, path) for option, path in named if path is not None)


def _answers(command: _Writer) -> Iterator[_Named]:
    """Yield the answer files that may be written, each with its folder."""
    if isinstance(command, MapCommand) and command.output_dir is not None:
        inputs = [path for what, path in _inputs(command) if what == "input"]
        for path in answer_paths(command.output_dir, inputs):
            yield command.output_dir, path
            yield command.output_dir, f"{path}.partial"


def _kept(command: _Writer) -> Iterator[_Named]:
    """Yield the files that must not change, each with a word for it."""
    match command:
        case RunCommand():
            yield from (("manifest", path) for path in command.manifests)
            yield from (("attachment", path) for path in command.attachments)
            yield from _shared(command.options)
        case ChatCommand():
            yield from () if command.manifest is None else (("manifest", command.manifest),)
            yield from _shared(command.options)
        case MapCommand():
            yield "manifest", command.manifest
            yield from () if command.reduce is None else (("manifest", command.reduce),)
            yield from _inputs(command)
            yield from _shared(command.options)
        case ServeCommand():
            yield from (("manifest", path) for path in command.manifests)
            yield from _shared(command.options)
        case ShowCommand():
            yield "trace", command.file
        case _:
            assert_never(command)


def _inputs(command: MapCommand) -> Iterator[_Named]:
    for source in command.sources:
        for word in source:
            if word != FROM_STANDARD_INPUT:
                try:
                    found = files_of(word)
                except UsageError:  # said again when the inputs are collected
                    continue
                yield from (("input", path) for path in found)


def _shared(options: Options) -> Iterator[_Named]:
    named = (
        ("memory", options.memory),
        ("journal", options.journal),
        ("schema", options.schema),
        ("script", options.script),
        ("model", options.override.model),
    )
    yield from ((what, path) for what, path in named if path is not None)
