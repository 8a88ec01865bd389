"""``agentpool memory``: shows and cleans the file of a memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs
import trio

from agentpool import UsageError
from agentpool import memory as memories
from agentpool._cli._command import MemoryCommand
from agentpool._cli._report import ExitCode
from agentpool._cli._screen import write_out
from agentpool.abc import MemoryHit
from agentpool.drivers import Json

SHOWN_CHARS: Final = 100
"""The most characters shown of a fragment, on one line. ``--json`` shows all of it."""


def look_after_memory(command: MemoryCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        UsageError: If there is no such file.
        MemoryStoreError: If the file cannot be used.
    """
    # Opening makes a file where there is none, which is not an answer to a slip in its name.
    if not Path(command.file).is_file():
        raise UsageError(f"there is no memory file {command.file!r}; see --memory of agentpool run")

    async def main() -> tuple[int, str]:
        # Whose file it is, who looks at it changes nothing.
        looks = command.action != "delete"
        async with memories.open_sqlite_memory(command.file, read_only=looks) as memory:
            return await _do(memory, command)

    code, text = trio.run(main)
    write_out(sys.stdout, text)
    return code


async def _do(memory: memories.SqliteMemory, command: MemoryCommand) -> tuple[int, str]:
    if command.action == "delete":
        return await _delete(memory, command)
    if command.action == "list" and command.scope is None:
        found = await memory.scopes()
        lines = map(_scope_object, found) if command.json else _scope_lines(found)
    else:
        hits = await memory.search(command.words, scope=command.scope, limit=command.limit)
        lines = map(_hit_object, hits) if command.json else _hit_lines(hits)
    return ExitCode.COMPLETED, "".join(f"{line}\n" for line in lines)


async def _delete(memory: memories.SqliteMemory, command: MemoryCommand) -> tuple[int, str]:
    missing: list[str] = []
    if command.scope is not None:
        count = await memory.forget_scope(command.scope)
        if not count:
            missing.append(f"scope {command.scope!r}")
    else:
        count = 0
        for fragment_id in command.ids:
            if await memory.forget(fragment_id):
                count += 1
            else:
                missing.append(fragment_id)
    # Also when there was nothing: what was forgotten earlier leaves the file as well.
    await memory.compact()
    if command.json:
        told: Json = {"type": "deleted", "count": count, "missing": missing}
        text = json.dumps(told)
    else:
        text = f"deleted {count} fragment{'' if count == 1 else 's'}"
        text += f"; not there: {', '.join(missing)}" if missing else ""
    return ExitCode.FAILED if missing else ExitCode.COMPLETED, f"{text}\n"


def _scope_lines(found: Sequence[memories.ScopeSummary]) -> Iterator[str]:
    if not found:
        yield "no fragments"
    for summary in found:
        yield f"{summary.fragments:>7,}  {_when(summary.newest_at)}  {summary.scope}"


def _hit_lines(hits: Sequence[MemoryHit]) -> Iterator[str]:
    if not hits:
        yield "no fragments"
    for hit in hits:
        fragment = hit.fragment
        text = " ".join(fragment.content.split())
        if len(text) > SHOWN_CHARS:
            text = f"{text[:SHOWN_CHARS]}…"
        yield (
            f"{fragment.fragment_id:>9}  {hit.score:4.2f}  {_when(fragment.created_at)}  "
            f"{fragment.scope}: {text}"
        )


def _when(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s"  # another clock than Unix time


def _scope_object(summary: memories.ScopeSummary) -> str:
    return json.dumps({"type": "scope", **attrs.asdict(summary)})


def _hit_object(hit: MemoryHit) -> str:
    fragment = hit.fragment
    told: Json = {
        "type": "fragment",
        "id": fragment.fragment_id,
        "scope": fragment.scope,
        "source": fragment.source,
        "created_at": fragment.created_at,
        "score": hit.score,
        "content": fragment.content,
    }
    return json.dumps(told)
