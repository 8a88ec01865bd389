"""``agentpool map``: one agent for each file, and then perhaps one agent for all answers."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from glob import has_magic

import trio

from agentpool import AgentManifest, UsageError
from agentpool._amounts import counted
from agentpool._cli._answers import AnswerFolder
from agentpool._cli._command import MapCommand
from agentpool._cli._inputs import (
    FROM_STANDARD_INPUT,
    files_of,
    joined,
    may_wait,
    read_standard_input,
    read_text,
    short_names,
)
from agentpool._cli._job import Job
from agentpool._cli._manifests import load_all
from agentpool._cli._reduce import editor_job
from agentpool._cli._result import Result
from agentpool._cli._schema import free_keys, load_schema
from agentpool._cli._session import Session, conduct
from agentpool._cli._shared_map import share_map
from agentpool.tools import printable


def map_files(command: MapCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        UsageError: If the options do not fit a manifest.
        ManifestError: If a manifest is wrong.
    """
    paths = [command.manifest] + ([command.reduce] if command.reduce is not None else [])
    manifests = load_all(paths, command.options.override)
    reader = manifests[0]
    turns = _once(_turns_of(command.sources), quiet=command.options.quiet)
    inputs = [path for _, path in turns]
    names = short_names(inputs)
    schema = command.options.schema
    output_type = None if schema is None else load_schema(schema)
    answers = None if command.output_dir is None else AnswerFolder.open(command.output_dir, inputs)
    jobs = [
        Job(
            manifest=reader,
            label=path,
            key=key,
            name=f"{reader.name} {name}",
            read=_reader(path, command.prompt),
            output_type=output_type,
            source=path,
            turn=turn,
            may_wait=may_wait(path),
        )
        for (turn, path), name, key in zip(turns, names, keys_of(inputs), strict=True)
    ]

    looked_up = None if output_type is None else free_keys(output_type)
    if command.workers is not None:
        return trio.run(share_map, command, manifests, jobs, answers, looked_up)

    async def work(session: Session) -> None:
        results = await session.run_jobs(jobs, ordered=command.ordered, answers=answers)
        for editor in manifests[1:]:
            await _reduce(session, editor, results, command.reduce_prompt)

    async def main() -> int:
        count = len(jobs) + len(manifests) - 1
        return await conduct(
            manifests,
            command.options,
            job_count=count,
            headings=True,
            kept_as="map",
            looked_up=looked_up,
            keys=FROM_STANDARD_INPUT not in inputs,
            work=work,
        )

    return trio.run(main)


def _turns_of(sources: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Yield each input of *sources* with its position in its source.

    Raises:
        UsageError: If a path is a pattern that no file matches.
    """
    turns = [
        (turn, path)
        for source in sources
        for turn, path in enumerate(path for word in source for path in files_of(word))
    ]
    for _, path in turns:
        if has_magic(path) and not os.path.lexists(path):
            raise UsageError(f"--each {path}: no file matches this pattern; check folder and name")
    return turns


def _once(turns: Sequence[tuple[int, str]], *, quiet: bool) -> list[tuple[int, str]]:
    """Return each input of *turns* once, and warn of those that are named more often."""
    kept: dict[str, tuple[int, str]] = {}
    for turn, path in turns:
        kept.setdefault(os.path.normpath(path), (turn, path))
    if len(kept) < len(turns) and not quiet:
        times = Counter(os.path.normpath(path) for _, path in turns)
        first, *others = (printable(repr(kept[name][1])) for name in kept if times[name] > 1)
        rest = f" and {counted(len(others), 'more input')}" if others else ""
        told = "each of them is asked once" if others else "it is asked once"
        sys.stderr.write(f"agentpool: warning: --each names {first}{rest} more than once; {told}\n")
    return list(kept.values())


def _reader(path: str, prompt: str | None) -> Callable[[], str]:
    if path == FROM_STANDARD_INPUT:
        return lambda: joined(prompt, read_standard_input())
    return lambda: joined(prompt, read_text(path))


async def _reduce(
    session: Session, editor: AgentManifest, results: Sequence[Result], prompt: str | None
) -> None:
    await session.run_jobs([editor_job(editor, results, prompt)])


def keys_of(inputs: Sequence[str]) -> list[str]:
    """Return the journal key of each input's agent: its path.

    Two paths that are the same as text get two keys.

    >>> keys_of(["a.txt", "#1.txt", "a.txt"])
    ['a.txt', './#1.txt', 'a.txt (2)']
    """
    keys = dict[str, None]()
    for path in inputs:
        # Not all names of files are text, which a journal keeps.
        words = os.fsencode(path).decode(errors="backslashreplace")
        words = f"./{words}" if words[:1] in {"#", "="} else words
        key, times = words, 1
        while key in keys:
            times += 1
            key = f"{words} ({times})"
        keys[key] = None
    return list(keys)
