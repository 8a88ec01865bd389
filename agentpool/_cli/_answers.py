"""A folder with one file per answer, each written as soon as the answer is complete."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import final

import attrs
import trio

from agentpool import AgentStatus, UsageError
from agentpool._cli._inputs import short_names
from agentpool._cli._result import Result
from agentpool._disk_file import write_whole


@final
@attrs.frozen(eq=False)
class AnswerFolder:
    """Writes each answer to a file that is named after its input."""

    _folder: Path
    _names: dict[str, str]

    @classmethod
    def open(cls, folder: str, inputs: Sequence[str]) -> AnswerFolder:
        """Create *folder* if it is missing.

        Raises:
            UsageError: If *folder* cannot be created, or is not a folder.
        """
        path = Path(folder)
        try:
            path.mkdir(0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise UsageError(
                f"--output-dir {folder!r} cannot be used: {exc.strerror}; name a folder"
            ) from exc
        return cls(path, dict(zip(inputs, _file_names(inputs), strict=True)))

    async def write(self, result: Result) -> None:
        """Write the answer of *result*. The file of an incomplete answer ends in ``.partial``.

        The file appears under its name only when it is complete.

        Raises:
            UsageError: If the file cannot be written.

        Cancellation:
            The file was written.
        """
        if not result.said:
            await trio.lowlevel.checkpoint()
            return
        name = self._names.get(result.source or "", _file_name(result.name))
        if result.status is not AgentStatus.COMPLETED:
            name += ".partial"
        await trio.to_thread.run_sync(_write, self._folder / name, result.said)


def answer_paths(folder: str, inputs: Sequence[str]) -> list[str]:
    """Return the file in *folder* for the complete answer to each of *inputs*."""
    return [str(Path(folder) / name) for name in _file_names(inputs)]


def _file_names(inputs: Sequence[str]) -> list[str]:
    return [_file_name(name) for name in short_names(inputs)]


def _file_name(name: str) -> str:
    """Return *name* as a file name: ``texts/a.txt`` becomes ``texts_a.txt``.

    >>> _file_name("../texts/a.txt"), _file_name("-")
    ('.._texts_a.txt', 'standard-input')
    """
    return "standard-input" if name == "-" else name.replace(os.sep, "_")


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, f"{text.rstrip()}\n".encode(errors="backslashreplace"))
    except OSError as exc:
        raise UsageError(
            f"answer {str(path)!r} cannot be written: {exc.strerror}; choose another --output-dir"
        ) from exc
