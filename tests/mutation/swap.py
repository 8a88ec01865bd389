"""Gives the functions of a room that is loaded the code that they have in a mutant of it."""

from __future__ import annotations

import ast
import gc
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import TypeAlias

Place: TypeAlias = tuple[str, int]
"""A function's name with those it is in, and its first line."""


def functions_of(path: Path) -> list[FunctionType]:
    """Return every function that was loaded from *path*."""
    return [
        one
        for one in gc.get_objects()
        if type(one) is FunctionType and one.__code__.co_filename == str(path)
    ]


def swap(functions: Iterable[FunctionType], path: Path, before: str, after: ast.Module) -> bool:
    """Give *functions* their code in *after*; ``False``: it differs in what runs on loading."""
    old, new = _compile(ast.parse(before), path), _compile(after, path)
    if _skeleton(old) != _skeleton(new):
        return False
    known, broken = list(_codes(old)), list(_codes(new))
    if len({_place(code) for code in known}) < len(known):
        known, broken = _unique(known), _unique(broken)
    were = {_place(code): code for code in known}
    changed = {_place(code): code for code in broken if were.get(_place(code)) != code}
    found = [one for one in functions if _place(one.__code__) in changed]
    if not found or any(
        one.__code__.co_freevars != changed[_place(one.__code__)].co_freevars for one in found
    ):
        return False
    for one in found:
        one.__code__ = changed[_place(one.__code__)]
    return True


def _compile(tree: ast.Module, path: Path) -> CodeType:
    return compile(tree, str(path), "exec", dont_inherit=True)


def _place(code: CodeType) -> Place:
    return code.co_qualname, code.co_firstlineno


def _is_function(code: CodeType) -> bool:
    return bool(code.co_flags & inspect.CO_OPTIMIZED)


def _inner(code: CodeType) -> Iterator[CodeType]:
    yield from (one for one in code.co_consts if isinstance(one, CodeType))


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of each function in *code*."""
    for inner in _inner(code):
        if _is_function(inner):
            yield inner
        yield from _codes(inner)


def _unique(codes: list[CodeType]) -> list[CodeType]:
    """Leave out those of which no one can say which it is: several lambdas on a line."""
    places = [_place(code) for code in codes]
    return [code for code in codes if places.count(_place(code)) == 1]


def _skeleton(code: CodeType) -> tuple[object, ...]:
    """Return what of a module or a class runs when it is loaded."""
    rest = [one for one in code.co_consts if not isinstance(one, CodeType)]
    inner = [_skeleton(one) for one in _inner(code) if not _is_function(one)]
    return code.co_code, code.co_names, repr(rest), inner
