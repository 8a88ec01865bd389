"""Lets the error of a block come out as itself, whatever becomes of the tasks beside it."""

from __future__ import annotations

from typing import cast

import trio


def is_cancellation(error: BaseException) -> bool:
    """Return whether *error* is a cancellation, or a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def raise_unless_cancelled(failed: Exception | None, outside: BaseException) -> None:
    """Raise what a nursery raised around a block, unless the block failed and it was cancelled.

    The error of the block is enough to leave a scope that was cancelled meanwhile: what goes on
    inside that scope is cancelled again at its next checkpoint.

    Args:
        failed: The error of the block, which the caller raises next. ``None``: it raised none.
        outside: What the nursery raised.

    Raises:
        BaseException: *outside*, or the single error in it, or a group of *failed* and that.
    """
    match outside:
        case BaseExceptionGroup(exceptions=(BaseException() as only,)):
            pass
        case only:
            pass
    if failed is None:
        if only is outside:
            raise outside
        raise only from None
    if not is_cancellation(only):
        raise BaseExceptionGroup("the block failed, and a task beside it", [failed, only]) from None
