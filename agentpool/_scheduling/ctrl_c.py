"""Where Ctrl-C may come in the middle of a call of the package, and where it comes afterwards.

Rules:

1. What keeps books is ``unbroken``: Ctrl-C in one of its calls, and in all that these call, comes
   when the program's first task next waits. So nothing is left half done, and no task is left that
   nobody wakes.
2. Foreign code is not: Ctrl-C in a driver, a tool, an observer or a source of queries is raised
   there, even if a call of the package runs it. What runs it is ``interruptible``, or the function
   itself is made so by ``let_in``.

Both are facts about functions that trio looks up when Ctrl-C comes. They cost nothing before.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Final, Protocol, TypeVar, cast

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

T = TypeVar("T")
F = TypeVar("F", bound="_HasCode")

_LET_IN: Final = set[CodeType]()
"""The code of what is interruptible in a class that is not."""


def ends_the_program(error: BaseException | None) -> bool:
    """Return whether *error* is or contains an error that must end the program."""
    match error:
        case None | Exception() | trio.Cancelled():
            return False
        case BaseExceptionGroup():
            return any(map(ends_the_program, error.exceptions))
        case _:
            return True


def interruptible(function: F) -> F:
    """Let Ctrl-C into a function that runs foreign code."""
    _LET_IN.add(function.__code__)
    return disable_ki_protection(function)


def unbroken(target: T) -> T:
    """Let Ctrl-C come after every call of *target*, a function or a class, and not inside."""
    for function in _functions_of(target):
        for code in _codes_in(function.__code__):
            enable_ki_protection(_Code(code))
    return target


def let_in(call: Callable[..., object]) -> None:
    """Let Ctrl-C into foreign code: the function, or the method, *call*."""
    function = getattr(call, "__func__", call)
    if not isinstance(function, FunctionType):
        return
    where: object = getattr(function, "__module__", None)  # None: it was made by exec()
    if not (isinstance(where, str) and where.startswith("agentpool.")):
        disable_ki_protection(function)


class _HasCode(Protocol):
    """A function."""

    __code__: CodeType


class _Wrapper(Protocol):
    """What makes a function a static method, or one of its class."""

    __func__: object


class _Code:
    """Code without a function of its own yet."""

    def __init__(self, code: CodeType) -> None:
        self.__code__ = code


def _functions_of(target: object) -> Iterator[FunctionType]:
    """Yield the function behind *target*; of a class, those of all its methods and properties."""
    if isinstance(target, type):
        for one in vars(target).values():
            yield from _functions_of(None if isinstance(one, type) else one)
    elif isinstance(target, property):
        for one in (target.fget, target.fset):
            yield from _functions_of(one)
    elif isinstance(target, staticmethod | classmethod):
        yield from _functions_of(cast("_Wrapper", target).__func__)
    elif isinstance(target, FunctionType):
        yield inspect.unwrap(target)  # what wraps it is shared with others


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    """Yield *code* and that of functions made inside, without what is interruptible."""
    if code not in _LET_IN:
        yield code
        for one in code.co_consts:
            if isinstance(one, CodeType):
                yield from _codes_in(one)
