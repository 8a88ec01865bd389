"""What users can call by public names, and calls of it with arguments of wrong types."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import trio

from agentpool import UsageError
from agentpool.observe import Event
from tests.test_exports import NAMES


class WrongThing:
    """What no parameter takes."""


WRONG: Final[tuple[object, ...]] = (WrongThing(), 3, "hi", None, [])
"""What is passed in place of an argument, unless its annotation allows it."""


@attrs.frozen
class Face:
    """Something that users call, with the public name that leads there."""

    label: str
    function: Callable[..., Any]

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """What it takes."""
        return inspect.signature(self.function).parameters

    @property
    def hints(self) -> Mapping[str, object]:
        """The annotations of what it takes, as far as they can be read at run time."""
        made = inspect.unwrap(self.function)
        if not isinstance(made, type):
            return _read(made, made.__module__)
        found = dict[str, object]()
        for base in reversed(made.__mro__):
            found |= _read(base, base.__module__)
        init = inspect.unwrap(vars(made).get("__init__", made))
        return found | _read(init, made.__module__)


def _read(owner: object, module: str) -> dict[str, object]:
    found = dict[str, object]()
    for name, hint in getattr(owner, "__annotations__", {}).items():
        space = SimpleNamespace(__annotations__={name: hint})
        try:
            found[name] = get_type_hints(space, vars(sys.modules[module]))[name]
        except (NameError, TypeError):
            continue  # imported later, or of the class alone
    return found


def public_things() -> Iterator[tuple[str, Any]]:
    """Yield each public function and class of the package, by its name."""
    seen = set[int]()
    for module, names in NAMES.items():
        for name in names:
            found: Any = getattr(importlib.import_module(module), name)
            is_ours = str(getattr(found, "__module__", "")).startswith("agentpool.")
            if is_ours and callable(found) and not get_origin(found) and id(found) not in seen:
                seen.add(id(found))
                yield name, found


def _is_seam(kind: object) -> bool:
    return inspect.isclass(kind) and inspect.isabstract(kind)


def _is_made_by_users(kind: object) -> bool:
    """Whether it is a function, or a class of other things than errors, events and seams."""
    return not isinstance(kind, type) or not (
        issubclass(kind, (BaseException, enum.Enum, dict))
        or _is_seam(kind)
        or kind in get_args(Event)
        or getattr(kind, "_is_protocol", False)
    )


def functions(exempt: Collection[str]) -> Iterator[Face]:
    """Yield the public functions, and the classes that users make objects of."""
    for label, thing in public_things():
        if _is_made_by_users(thing) and label not in exempt:
            yield Face(label, thing)


def methods(objects: Iterable[object], exempt: Collection[str]) -> Iterator[Face]:
    """Yield the public methods that take arguments, each bound to one of *objects*.

    Without those that carry out a seam: the pool calls them, with what was checked before.
    """
    by_kind = {type(one): one for one in objects}
    seams = [kind for _, kind in public_things() if _is_seam(kind)]
    for label, kind in public_things():
        if not isinstance(kind, type) or not _is_made_by_users(kind):
            continue
        of_seams = {name for seam in seams if issubclass(kind, seam) for name in vars(seam)}
        for name in sorted({*dir(kind)} - of_seams):
            home = next(base for base in kind.__mro__ if name in vars(base) or base is object)
            made = inspect.getattr_static(kind, name)
            if name[0] == "_" or not home.__module__.startswith("agentpool."):
                continue
            if not inspect.isroutine(made) or f"{label}.{name}" in exempt:
                continue
            is_bound = kind in by_kind or isinstance(made, classmethod | staticmethod)
            face = Face(f"{label}.{name}", getattr(by_kind.get(kind, kind), name))
            if len(face.parameters) > (not is_bound) and (is_bound or label not in exempt):
                assert is_bound, f"there is no {label} to call {face.label} of"
                yield face


def allows(hint: object, value: object) -> bool:
    """Return whether *value* may be passed for *hint*. Yes, if that cannot be known."""
    origin = get_origin(hint) or hint
    if origin in {Union, UnionType}:
        return any(allows(part, value) for part in get_args(hint))
    if origin is Literal or origin is Callable:
        return value in get_args(hint) if origin is Literal else callable(value)
    if not isinstance(origin, type) or origin is object or getattr(origin, "_is_protocol", False):
        return True
    if isinstance(value, str):
        return origin is str  # which is no sequence of texts
    # A list is what most people write for a tuple.
    return isinstance(value, {float: (float, int), tuple: (tuple, list)}.get(origin, origin))


async def _takes_anything(*_: object, **__: object) -> None: ...


def sample(hint: object, objects: Iterable[object]) -> object:
    """Return something that may be passed for *hint*: one of *objects*, or something empty."""
    parts = get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
    if NoneType in parts:
        return None
    for part in parts:
        origin = get_origin(part) or part
        if origin is Literal:
            return get_args(part)[0]
        if origin is Callable or not isinstance(origin, type):
            return _takes_anything
        if issubclass(origin, enum.Enum):
            return next(iter(origin))
        for one in ((), {}, *objects):
            if isinstance(one, origin):
                return one
    raise AssertionError(f"there is no sample of {hint}")


@attrs.frozen
class Caller:
    """Calls functions with each argument wrong in turn."""

    objects: Collection[object]
    """What may be passed for the other arguments."""
    said_as: Mapping[str, str]
    """Words that stand for parameters in errors, besides their names."""
    also: Mapping[str, object]
    """Arguments that could be left out by their form, but not by what they mean."""
    hints: Mapping[str, object]
    """Annotations that cannot be read, by parameter."""

    async def faults_of(self, face: Face, exempt: Collection[str]) -> list[str]:
        """Return the wrong arguments of *face* that are not named by a ``UsageError``."""
        faults, read = list[str](), {**self.hints, **face.hints}
        for name, parameter in face.parameters.items():
            is_exempt = f"{face.label}({name})" in exempt or parameter.kind is parameter.VAR_KEYWORD
            if not is_exempt and name not in read:
                faults.append(f"{face.label}: the annotation of {name} cannot be read")
            for wrong in WRONG:
                if not is_exempt and name in read and not allows(read[name], wrong):
                    said = await self._said(face, name, wrong, read)
                    words = f"{name.removesuffix('s')}s?|{self.said_as.get(name, name)}"
                    if not re.match(
                        rf"(UsageError|ManifestError): .*\b({words})\b", said, re.DOTALL
                    ):
                        faults.append(f"{face.label}({name}={wrong!r:.30}): {said:.120}")
        return faults

    async def _said(self, face: Face, name: str, wrong: object, read: Mapping[str, object]) -> str:
        """Call *face* with *wrong* for *name*. Return how that ended, in words."""
        given, named = list[object](), dict[str, object]()
        parameters = face.parameters.items()
        passed = {
            other: one
            for other, one in parameters
            if other in {name, *self.also}
            or (one.default is one.empty and one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD})
        }
        has_many = any(one.kind is one.VAR_POSITIONAL for one in passed.values())
        for other, one in passed.items():
            value = wrong
            if other != name:
                value = self.also.get(other) or sample(read.get(other, object), self.objects)
            if one.kind in {one.POSITIONAL_ONLY, one.VAR_POSITIONAL} or (
                has_many and one.kind is one.POSITIONAL_OR_KEYWORD
            ):
                given.append(value)
            else:
                named[other] = value
        return await _ended(lambda: face.function(*given, **named))


async def _ended(call: Callable[[], Any]) -> str:
    said = "still waits"
    with trio.move_on_after(1):
        try:
            said = await _entered(call())
        except UsageError as error:
            said = f"UsageError: {error}"
            if "starts trio by itself" in said:  # the testing kit
                said = await trio.to_thread.run_sync(_ended_outside, call)
        except Exception as error:  # noqa: BLE001  # which one it is, is the question
            said = f"{type(error).__name__}: {error}"
    return said


async def _entered(made: object) -> str:
    if isinstance(made, AbstractAsyncContextManager):
        async with made:
            pass
    elif isinstance(made, AbstractContextManager):
        with made:
            pass
    elif inspect.isawaitable(made):
        await made
    return "accepted"


def _ended_outside(call: Callable[[], Any]) -> str:
    try:
        call()
    except UsageError as error:
        return f"UsageError: {error}"
    return "accepted"
