"""``agentpool map``: one agent per file, then perhaps one for all answers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

import trio

from agentpool import AgentManifest, AgentStatus, UsageError
from agentpool._cli._answers import AnswerFolder
from agentpool._cli._command import MapCommand
from agentpool._cli._inputs import (
    FROM_STANDARD_INPUT,
    files_of,
    may_wait,
    read_standard_input,
    read_text,
    short_names,
)
from agentpool._cli._job import Job
from agentpool._cli._manifests import load_all
from agentpool._cli._report import Result
from agentpool._cli._schema import free_keys, load_schema
from agentpool._cli._session import Session, conduct
from agentpool.tools import printable


def map_files(command: MapCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        UsageError: If the options have no meaning for a manifest.
        ManifestError: If a manifest is wrong.
    """
    paths = [command.manifest] + ([command.reduce] if command.reduce is not None else [])
    manifests = load_all(paths, command.options.override)
    reader = manifests[0]
    turns = [
        (turn, path)
        for source in command.sources
        for turn, path in enumerate(path for word in source for path in files_of(word))
    ]
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
            looked_up=None if output_type is None else free_keys(output_type),
            keys=FROM_STANDARD_INPUT not in inputs,
            work=work,
        )

    return trio.run(main)


def _reader(path: str, prompt: str | None) -> Callable[[], str]:
    if path == FROM_STANDARD_INPUT:
        return lambda: _joined(prompt, read_standard_input())
    return lambda: _joined(prompt, read_text(path))


def _joined(prompt: str | None, text: str) -> str:
    return text if prompt is None else f"{prompt}\n\n{text}"


async def _reduce(
    session: Session, editor: AgentManifest, results: Sequence[Result], prompt: str | None
) -> None:
    notes = notes_of(results)

    def read() -> str:
        if not notes:
            raise UsageError("there is no answer to reduce; see the errors above")
        return _joined(prompt, notes)

    # Other answers are another question, to which nothing was answered yet.
    digest = hashlib.sha256(_joined(prompt, notes).encode(errors="backslashreplace"))
    name = editor.name
    key = f"reduce {digest.hexdigest()[:16]}"
    await session.run_jobs([Job(manifest=editor, label=name, key=key, name=name, read=read)])


def keys_of(inputs: Sequence[str]) -> list[str]:
    """Return the journal key of each input's agent: its path.

    The same path again is another agent.

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


def notes_of(results: Sequence[Result]) -> str:
    """Return all answers in order, each under the name of its file.

    What a stopped agent had is in it: half a note is better than none. A failed one has no
    answer, and a cancelled one ends the whole command.
    """
    kept = [
        result
        for result in results
        if result.status in {AgentStatus.COMPLETED, AgentStatus.STOPPED} and result.text.strip()
    ]
    names = short_names([result.source or result.name for result in kept])
    # A file's name may have line breaks in it, or be no text at all, which cannot be sent.
    return "\n\n".join(
        f"{printable(name)}:\n{result.text.strip()}"
        for name, result in zip(names, kept, strict=True)
    )
