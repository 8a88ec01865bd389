"""Helpers that the contract checks share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeAlias, TypeVar, cast

T = TypeVar("T")

Opener: TypeAlias = Callable[[], T | AbstractAsyncContextManager[T]]
"""Returns a fresh object, or an async context manager that opens and closes one."""


def promise(kept: object, text: object) -> None:
    """Raise with a message if a promise is not *kept*.

    Raises:
        AssertionError: With *text*, which states the contract.
    """
    if not kept:
        raise AssertionError(text)


async def open_one(opener: Opener[T], stack: AsyncExitStack) -> T:  # noqa: ASYNC910  # every check has checkpoints
    """Make or open a fresh object, which *stack* closes."""
    made = opener()
    if isinstance(made, AbstractAsyncContextManager):
        opened = cast("AbstractAsyncContextManager[T]", made)
        return await stack.enter_async_context(opened)
    return made  # noqa: ASYNC910  # every check has checkpoints


def is_a(value: object, kind: type) -> bool:
    """Return whether *value* is an instance of *kind*, even where type checkers think they know."""
    return isinstance(value, kind)
