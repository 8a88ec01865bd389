"""``agentpool run``: puts one query to an agent for each manifest."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

from agentpool import AgentManifest, UsageError, session_pool_name
from agentpool import Session as Conversation
from agentpool._cli._command import RunCommand
from agentpool._cli._inputs import FROM_STANDARD_INPUT, read_standard_input
from agentpool._cli._job import Job
from agentpool._cli._manifests import load_all, without_manifest
from agentpool._cli._schema import load_schema
from agentpool._cli._session import Session, conduct
from agentpool.drivers import Attachment
from agentpool.tools import printable


def run(command: RunCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        UsageError: If the query cannot be read, or is missing.
        ManifestError: If a manifest is wrong.
    """
    _refuse_parts_of_query(command)
    override = command.options.override
    manifests = load_all(command.manifests, override) or [without_manifest(override)]
    query = _query_of(command)
    schema = command.options.schema
    output_type = None if schema is None else load_schema(schema)
    attachments = tuple(map(Attachment.load, command.attachments))
    if command.options.script is None:
        _refuse_unread(command.attachments, manifests)
    jobs = [
        Job(
            manifest=manifest,
            label=label,
            key=_key(label, attachments),
            name=label,
            read=lambda: query,
            output_type=output_type,
            attachments=attachments,
        )
        for manifest, label in zip(manifests, _labels(manifests), strict=True)
    ]

    async def work(session: Session) -> None:
        if command.session is None:
            await session.run_jobs(jobs)
        else:
            begin = Conversation.of(session.pool).begin
            await session.run_jobs([attrs.evolve(job, begin=begin) for job in jobs])

    async def main() -> int:
        return await conduct(
            manifests,
            command.options,
            job_count=len(jobs),
            headings=len(jobs) > 1,
            kept_as="run" if command.session is None else session_pool_name(command.session),
            work=work,
        )

    return trio.run(main)


def _query_of(command: RunCommand) -> str:
    """Return the query for the agents.

    Raises:
        UsageError: If the query cannot be read, or is missing.
    """
    query = command.query
    if query == FROM_STANDARD_INPUT:
        query = read_standard_input()
    elif not query.strip():
        raise UsageError(f"the query must not be empty, got {query!r}; say what to do")
    elif not command.manifests and os.path.exists(query):  # noqa: PTH110  # a word, not yet a path
        raise UsageError(f"the query is missing: {query!r} is a file or folder; add a query")
    elif query.endswith(".toml") and Path(query).is_file():
        # Whoever forgets the query would otherwise ask the first agents "b.toml".
        raise UsageError(f"the query is missing: {query!r}, the last word, is a file; add a query")
    elif os.path.isfile(query) and not command.options.quiet:  # noqa: PTH113  # a long query is no path, and no error
        file = printable(shlex.quote(query))
        sys.stderr.write(
            f"agentpool: warning: the query {printable(repr(query))} is the name of a file, and "
            f"the model gets only the name; to send its text, write - instead and append < {file}; "
            f"for several files: agentpool map MANIFEST --each {file}\n"
        )
    return query


def _refuse_parts_of_query(command: RunCommand) -> None:
    """Raise if the words before the last one look like a question, or parts of one."""
    words = (*command.manifests, command.query)
    manifests = [word for word in words if word.endswith(".toml")]
    strangers = [
        word
        for word in command.manifests
        if word not in manifests and not os.path.exists(word)  # noqa: PTH110  # a word, not yet a path
    ]
    if strangers and command.query in manifests:
        query = shlex.quote(" ".join(strangers))
        begun = shlex.join(("agentpool", "run", *manifests))
        raise UsageError(
            f"{strangers[0]!r} is not a manifest; the query comes last: {begun} {query}"
        )
    for place, word in enumerate(command.manifests):
        if not os.path.exists(word) and re.fullmatch(r"[^./\\]+[.,:;?!]?", word):  # noqa: PTH110  # a word, not yet a path
            query = shlex.quote(" ".join(words[place:]))
            begun = shlex.join(("agentpool", "run", *words[:place]))
            raise UsageError(
                f"{word!r} is not a manifest; put the query into quotes: {begun} {query}"
            )


def _refuse_unread(attachments: Sequence[str], manifests: Sequence[AgentManifest]) -> None:
    """Raise if a model on this machine cannot read *attachments*, before the model is loaded."""
    models = [manifest.model for manifest in manifests]
    models += [model.fallback for model in models if model.fallback is not None]
    for model in models:
        if attachments and model.remote_model is None:
            raise UsageError(
                f"{model.words} reads only text, got --attach {attachments[0]}; name a model "
                "that reads images and documents, such as --model gemini/gemini-2.5-flash"
            )


def _key(label: str, attachments: Sequence[Attachment]) -> str:
    """Return the journal key of an agent, which includes its attachments."""
    if not attachments:
        return label
    content = hashlib.sha256()
    for one in attachments:
        content.update(f"{one.media_type} {len(one.data)} ".encode() + one.data)
    return f"{label} with {content.hexdigest()[:16]}"


def _labels(manifests: Sequence[AgentManifest]) -> list[str]:
    """Return a label for each agent: its manifest's name, numbered if needed."""
    names = [manifest.name for manifest in manifests]
    return [
        name if names.count(name) == 1 else f"{name} {names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]
