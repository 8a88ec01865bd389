"""The trace that a command records, and the report made from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from agentpool import UsageError
from agentpool._cli._command import Options
from agentpool._disk_file import check_file, write_whole
from agentpool.abc import Observer
from agentpool.observe import (
    Trace,
    TraceError,
    TraceWriter,
    read_trace,
    render_report,
    secrets_of_environment,
)

_DOCTYPE: Final = b"<!doctype html>"
"""The beginning of a page, in upper or lower case."""


@asynccontextmanager
async def open_recording(
    secrets: Sequence[str], options: Options, lost: Callable[[str], Awaitable[None]]
) -> AsyncGenerator[tuple[Observer, ...], None]:
    """Record the events of a pool, if *options* name a file.

    Args:
        secrets: Keys that must not be in the recording, in addition to those of the environment.
        options: The files, and how much of the texts to record.
        lost: Called if the trace is not complete, or the page cannot be made.

    Yields:
        The observers that record.

    Raises:
        UsageError: If a file cannot be written.
    """
    with ExitStack() as stack:
        file = options.trace
        if options.report is not None:
            await trio.to_thread.run_sync(check_page, options.report)
            if file is None:
                # A page is made of a trace, which is not to be kept.
                folder = stack.enter_context(TemporaryDirectory(prefix="agentpool-"))
                file = f"{folder}/trace"
        if file is None:
            yield ()
            return
        hidden = {*secrets, *secrets_of_environment()}
        writer = TraceWriter(
            file, content=options.trace_content, secrets=hidden, command=options.command_words
        )
        try:
            await writer.__aenter__()
        except TraceError as error:
            raise UsageError(str(error)) from error
        try:
            yield (writer,)
        finally:
            await writer.__aexit__()  # noqa: ASYNC102  # it shields itself, and is bounded
            if options.report is not None:
                # An interruption is no reason to have no page: it tells what was cancelled.
                with trio.CancelScope(shield=True):
                    await _make_page(file, options.report, lost)
        if writer.problem is not None:
            await lost(f"the trace {file!r} is not complete: {writer.problem}")


async def _make_page(file: str, page: str, lost: Callable[[str], Awaitable[None]]) -> None:
    try:
        await trio.to_thread.run_sync(lambda: write_page(page, read_trace(file)))
    except (TraceError, UsageError) as error:
        await lost(f"there is no report: {error}")


def check_page(page: str) -> None:
    """Raise if *page* cannot be written, before anything is spent.

    Raises:
        UsageError: If the page cannot be written.
    """
    if not Path(page).parent.is_dir():
        raise UsageError(
            f"the report {page!r} cannot be written: {str(Path(page).parent)!r} is not a folder; "
            "create it, or name another file"
        )
    try:
        check_file(Path(page))
        is_other = Path(page).exists() and not _is_page(Path(page))
    except OSError as error:
        raise _not_written(page, error) from error
    if is_other:
        raise UsageError(
            f"the report {page!r} cannot be written: the file there is not a page; name another "
            "file, or delete it"
        )


def _is_page(page: Path) -> bool:
    """Return whether the file is empty, or a page of HTML."""
    with page.open("rb") as file:
        begins = file.read(len(_DOCTYPE))
    return not begins or begins.lower() == _DOCTYPE


def write_page(page: str, trace: Trace) -> None:
    """Write the report of *trace* atomically, readable by its owner only.

    Raises:
        UsageError: If the page cannot be written.
    """
    html = render_report(trace)
    try:
        write_whole(Path(page), html.encode())
    except OSError as error:
        raise _not_written(page, error) from error


def _not_written(page: str, error: OSError) -> UsageError:
    reason = error.strerror or type(error).__name__
    return UsageError(f"the report {page!r} cannot be written: {reason}")
