"""Helpers that the contract checks share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeAlias, TypeVar, cast

T = TypeVar("T")

Opener: TypeAlias = Callable[[], T | AbstractAsyncContextManager[T]]
"""Returns a fresh one, or what opens and closes it."""


def promise(kept: object, text: object) -> None:
    """Raise with a message unless *kept*.

    Raises:
        AssertionError: With *text*, in which the contract stands.
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
    """Return whether *value* is an instance of *kind*, even if type checkers are sure."""
    return isinstance(value, kind)
