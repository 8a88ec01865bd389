"""The trace that a command writes of its pool."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from agentpool import UsageError
from agentpool._cli._command import Options
from agentpool.abc import Observer
from agentpool.observe import TraceError, TraceWriter, secrets_of_environment


@asynccontextmanager
async def open_recording(
    secrets: Sequence[str],
    options: Options,
    warn: Callable[[str], Awaitable[None]],
) -> AsyncGenerator[tuple[Observer, ...], None]:
    """Write what happens in a pool to where *options* say, if they do.

    Args:
        secrets: Keys that must not be in the trace, besides those of the environment.
        options: Where, and how much of what is said.
        warn: Told if the trace is not whole.

    Yields:
        The observers that do it.

    Raises:
        UsageError: If the file cannot be written.
    """
    if options.trace is None:
        yield ()
        return
    hidden = {*secrets, *secrets_of_environment()}
    writer = TraceWriter(options.trace, content=options.trace_content, secrets=hidden)
    try:
        await writer.__aenter__()
    except TraceError as error:
        raise UsageError(str(error)) from error
    try:
        yield (writer,)
    finally:
        await writer.__aexit__()  # noqa: ASYNC102  # it shields itself, and is bounded
    if writer.problem is not None:
        await warn(f"the trace {options.trace!r} is not whole: {writer.problem}")
