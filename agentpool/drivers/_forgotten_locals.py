"""Empties the frames of a failed request, which may hold parts of a key that a provider quoted."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Final

from agentpool._errors import DriverError

_OURS: Final = __name__.rpartition(".")[0]


def forget_locals(error: DriverError, *, outside: BaseException | None) -> None:
    """Clear the local variables of frames that raised *error*, since a traceback may show them.

    Only frames of drivers that have ended are emptied, never those of the caller.

    Args:
        error: The error, and with it those that led to it.
        outside: The exception that was being handled before. It is left alone.
    """
    seen = {id(outside)}
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        _empty_frames(one.__traceback__)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _empty_frames(traceback: TracebackType | None) -> None:
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
        if f"{frame.f_globals.get('__name__')}".startswith(f"{_OURS}."):
            with contextlib.suppress(RuntimeError):  # it still runs: it is the one that asks
                frame.clear()
