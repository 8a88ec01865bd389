"""Raises the error of a block unchanged, whatever happens to the tasks beside it."""

from __future__ import annotations

from typing import cast

import trio


def is_cancellation(error: BaseException) -> bool:
    """Return whether *error* is a cancellation, or a group of nothing else."""
    return _besides_cancellations(error) is None


def raise_unless_cancelled(failed: BaseException | None, outside: BaseException) -> None:
    """Raise *outside*, unless the block failed and *outside* is a cancellation.

    The block's error is enough to leave a scope that was cancelled meanwhile, so the cancellations
    are dropped: whatever continues in that scope is cancelled again at its next checkpoint.

    Args:
        failed: The error of the block, which the caller raises next. ``None``: it raised none.
        outside: The error of the nursery around the block.

    Raises:
        BaseException: If *failed* is ``None``: *outside*, or the only error in it. Otherwise a
            group of *failed* and the errors in *outside* that are no cancellations.
    """
    rest = _besides_cancellations(outside)
    if failed is None:
        only = _single(outside if rest is None else rest)
        if only is outside:
            raise outside
        raise only from None
    if rest is not None:
        both = [failed, _single(rest)]
        raise BaseExceptionGroup("the block failed, and a task beside it", both) from None


def _besides_cancellations(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error


def _single(error: BaseException) -> BaseException:
    """Return the only exception of a nursery's group, or *error* itself."""
    match error:
        case BaseExceptionGroup(exceptions=(BaseException() as only,)):
            return only
        case _:
            return error
