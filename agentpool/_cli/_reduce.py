"""The agent of ``--reduce``, which reads all answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from agentpool import AgentManifest, AgentStatus, UsageError
from agentpool._cli._inputs import joined, short_names
from agentpool._cli._job import Job
from agentpool._cli._result import Result
from agentpool.tools import printable


def editor_job(editor: AgentManifest, results: Sequence[Result], prompt: str | None) -> Job:
    """Make the job of the editor: *prompt*, followed by all answers in *results*."""
    notes = notes_of(results)

    def read() -> str:
        if not notes:
            raise UsageError("there is no answer to reduce; see the errors above")
        return joined(prompt, notes)

    # Other answers are another question, to which nothing was answered yet.
    digest = hashlib.sha256(joined(prompt, notes).encode(errors="backslashreplace"))
    name = editor.name
    key = f"reduce {digest.hexdigest()[:16]}"
    return Job(manifest=editor, label=name, key=key, name=name, read=read)


def notes_of(results: Sequence[Result]) -> str:
    """Return all answers in order, each under the name of its file.

    The partial answers of stopped agents are included, since half a note is better than none. A
    failed agent has no answer, and a cancelled agent ends the whole command.
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
