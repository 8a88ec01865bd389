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
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Final, Protocol, TypeVar

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

T = TypeVar("T")


class _HasCode(Protocol):
    """A function."""

    __code__: CodeType


F = TypeVar("F", bound=_HasCode)

_LET_IN: Final = dict[int, CodeType]()
"""The code of what is interruptible in a class that is not, by id: to hash code takes longer."""

_WRAPPERS: Final = (staticmethod, classmethod)


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
    code = function.__code__
    _LET_IN[id(code)] = code
    return disable_ki_protection(function)


def unbroken(target: T) -> T:
    """Let Ctrl-C come after every call of *target*, a function or a class, and not inside."""
    for one in vars(target).values() if isinstance(target, type) else (target,):
        _protect(one)
    return target


def let_in(call: Callable[..., object]) -> None:
    """Let Ctrl-C into foreign code: the function, or the method, *call*."""
    function = getattr(call, "__func__", call)
    if not isinstance(function, FunctionType):
        return
    where: object = getattr(function, "__module__", None)  # None: it was made by exec()
    if not (isinstance(where, str) and where.startswith("agentpool.")):
        disable_ki_protection(function)


class _Code:
    """Code without a function of its own yet."""

    def __init__(self, code: CodeType) -> None:
        self.__code__ = code


def _protect(member: object) -> None:
    """Keep Ctrl-C out of *member* of a class, if it is a function, a method or a property."""
    if isinstance(member, FunctionType):
        # What wraps it is shared with others.
        _protect_function(inspect.unwrap(member) if hasattr(member, "__wrapped__") else member)
    elif isinstance(member, property):
        _protect(member.fget)
        _protect(member.fset)
    elif type(member) in _WRAPPERS:
        _protect(getattr(member, "__func__", None))


def _protect_function(function: _HasCode) -> None:
    """Keep Ctrl-C out of *function* and those made inside, but not of what is interruptible."""
    code = function.__code__
    if id(code) in _LET_IN:
        return
    enable_ki_protection(function)
    for one in code.co_consts:
        if type(one) is CodeType:
            _protect_function(_Code(one))
