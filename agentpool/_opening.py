"""``async with`` blocks that, if they are not entered, raise an error that says what to write."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import Any, Generic, Never, ParamSpec, TypeVar, final

from agentpool._errors import UsageError
from agentpool._numbers import plain_number
from agentpool._public import advised, call_name

P = ParamSpec("P")
T = TypeVar("T")


@final
class Opening(AbstractAsyncContextManager[T]):
    """An ``async with`` block. Any other use of it raises an error that says how to enter it."""

    def __init__(self, block: AbstractAsyncContextManager[T], call: str, name: str) -> None:
        """Make the block that *call* opens. *name*: the name of its target."""
        self._block = block
        self._call = call
        self._name = name
        self._is_entered = False

    @property
    def advice(self) -> str:
        """What the block is, and how to enter it."""
        call, name = self._call, self._name
        return f"what {call}() returns; enter it: async with {call}(...) as {name}"

    async def __aenter__(self) -> T:
        """Open it.

        Raises:
            UsageError: If the block has already been entered.
        """
        if self._is_entered:
            raise _used_up(self._call)
        self._is_entered = True
        return await self._block.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Close it."""
        return await self._block.__aexit__(kind, error, traceback)  # noqa: ASYNC102  # the block shields its own end

    def __getattr__(self, name: str) -> Never:
        """Raise an error: the object that the block opens has the attribute, not the block."""
        raise AttributeError(f"this is {self.advice}, and use {self._name}.{name} in the block")

    def _refuse(self, *_: object) -> Never:
        raise UsageError(f"this is {self.advice}, and use {self._name} in the block")

    __await__ = __aiter__ = __iter__ = __enter__ = __exit__ = _refuse


def opening(
    name: str,
) -> Callable[
    [Callable[P, AbstractAsyncContextManager[T]]], Callable[P, AbstractAsyncContextManager[T]]
]:
    """Make a function that opens a block return an ``Opening``. *name*: the block's target."""

    def wrap(
        function: Callable[P, AbstractAsyncContextManager[T]],
    ) -> Callable[P, AbstractAsyncContextManager[T]]:
        call = call_name(function)
        checked: Callable[..., AbstractAsyncContextManager[T]] = advised(function)

        @wraps(function)
        def open_block(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
            # What a block keeps of them is written to journals and traces.
            named = {key: plain_number(one) for key, one in kwargs.items()}
            return Opening(checked(*map(plain_number, args), **named), call, name)

        return open_block

    return wrap


def _used_up(call: str) -> UsageError:
    return UsageError(
        f"this block of {call}() has already been entered; call {call}(...) again for each block"
    )


@final
class Once(Generic[T]):
    """A ``with`` block. Entering it a second time raises an error that says what to write."""

    __slots__ = ("_block", "_call", "_is_entered")

    def __init__(self, block: AbstractContextManager[T], call: str) -> None:
        """Make the block that *call* returns."""
        self._block = block
        self._call = call
        self._is_entered = False

    def __enter__(self) -> T:
        """Enter it.

        Raises:
            UsageError: If the block has already been entered.
        """
        if self._is_entered:
            raise _used_up(self._call)
        self._is_entered = True
        return self._block.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Leave it."""
        return self._block.__exit__(kind, error, traceback)


@final
class AsyncOnce(Generic[T]):
    """An ``async with`` block. Entering it a second time raises an error, as with `Once`."""

    __slots__ = ("_block", "_call", "_is_entered")

    def __init__(self, block: AbstractAsyncContextManager[T], call: str) -> None:
        """Make the block that *call* returns."""
        self._block = block
        self._call = call
        self._is_entered = False

    # Not async: one more coroutine for each request at a gate would take longer than the check.

    def __aenter__(self) -> Coroutine[Any, Any, T]:
        """Enter it.

        Raises:
            UsageError: If the block has already been entered.
        """
        if self._is_entered:
            raise _used_up(self._call)
        self._is_entered = True
        return self._block.__aenter__()

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Coroutine[Any, Any, bool | None]:
        """Leave it."""
        return self._block.__aexit__(kind, error, traceback)


def once(
    function: Callable[P, AbstractContextManager[T]],
) -> Callable[P, AbstractContextManager[T]]:
    """Make a function that returns a ``with`` block return one that can be entered once."""
    call = function.__name__

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[T]:
        return Once(function(*args, **kwargs), call)

    return make


def once_async(
    function: Callable[P, AbstractAsyncContextManager[T]],
) -> Callable[P, AbstractAsyncContextManager[T]]:
    """Make a function that returns an ``async with`` block return one that can be entered once."""
    call = function.__name__

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return AsyncOnce(function(*args, **kwargs), call)  # pyright: ignore[reportReturnType]  # no `async def`, see above

    return make
