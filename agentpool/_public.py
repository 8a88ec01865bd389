"""Loads public names lazily, and gives advice about names that do not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import wraps
from importlib import import_module
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, NoReturn, ParamSpec, SupportsIndex, TypeVar

from msgspec import StructMeta

if TYPE_CHECKING:
    from inspect import Signature

P = ParamSpec("P")
T = TypeVar("T")


def publish(names: MutableMapping[str, object], homes: Mapping[str, tuple[str, ...]] = {}) -> None:
    """Make a module public: it loads names on first use, and ``help`` shows fields (PEP 562).

    Its ``__all__`` lists the names that it has or can load. Names whose extra is not installed are
    left out, so that ``from ... import *`` works without the extra.

    Args:
        names: The ``globals()`` of the module.
        homes: The modules below it, each with those of its names that are loaded on first use.
            Where the name is that of the module, the module itself is loaded.
    """
    face = str(names["__name__"])

    def load(name: str) -> object:
        if name == "__all__":
            return public([home for home in homes if _is_there(f"{face}.{home}")])
        for home, kept in homes.items():
            if name in kept:
                module = import_module(f"{face}.{home}")
                found: object = module if name == home else getattr(module, name)
                show_fields({name: found})
                if face == "agentpool":
                    advise_calls({name: found})
                return found
        raise _MissingError(f"module {face!r} has no attribute {name!r}", face, name)

    def public(below: Iterable[str]) -> list[str]:
        here = {name for name, value in names.items() if type(value) is not ModuleType}
        shown = {name for name in here - {"TYPE_CHECKING"} if not name.startswith("_")}
        return sorted(shown.union(*(homes[home] for home in below)))

    def known() -> list[str]:
        return sorted({*names, "__all__", *public(homes)})

    show_fields(names)
    names.update(__getattr__=load, __dir__=known)


class _MissingError(AttributeError):
    """A module has no such name. The text says which module has it.

    To find that out, every module is imported, so only whoever reads the text pays for it, and not
    ``hasattr``.
    """

    def __str__(self) -> str:
        """Return the text."""
        text, face, name = self.args
        where: str = import_module("agentpool._call_advice").home_of(face, name)
        return f"{text}{where}"

    def __reduce__(self) -> tuple[type[AttributeError], tuple[str]]:
        """Rebuild as what it is shown as."""
        return AttributeError, (str(self),)


# As which it is shown in a traceback.
_MissingError.__name__ = _MissingError.__qualname__ = AttributeError.__name__
_MissingError.__module__ = AttributeError.__module__


def _is_there(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def advise_calls(names: Mapping[str, object]) -> None:
    """Make classes in *names* say, after a wrong call, which arguments they take.

    A call costs one stack frame more.
    """
    for thing in [one for one in names.values() if isinstance(one, type)]:
        init = thing.__dict__.get("__init__")
        if (
            type(init) is FunctionType
            and init.__code__.co_kwonlyargcount > 0
            and not hasattr(init, "__wrapped__")
        ):
            type.__setattr__(thing, "__init__", advised(init, name=thing.__name__))


def advised(function: Callable[P, T], *, name: str = "") -> Callable[P, T]:
    """Return *function* with better errors: a wrong call says which arguments it takes.

    Args:
        function: A public function, or the ``__init__`` of a public class.
        name: Its name in errors. Empty: as in a call.
    """
    name = name or call_name(function)

    @wraps(function)
    def with_advice(*given: P.args, **named: P.kwargs) -> T:
        try:
            return function(*given, **named)
        except TypeError as error:
            advice = import_module("agentpool._call_advice").call_advice(
                name, function, given, named
            )
            if advice is None:
                raise
            raise TypeError(advice) from error

    return with_advice


class AdvisedStruct(StructMeta):
    """Metaclass of structs with better errors: a wrong call says which arguments it takes."""

    if not TYPE_CHECKING:  # a type checker shall see the fields
        # `help` asks the metaclass first, and would take the text above for that of the class.
        __doc__ = vars(type)["__doc__"]

        def __call__(cls, *given: object, **named: object) -> object:  # noqa: N805  # as in type
            """Make a struct."""
            try:
                return super().__call__(*given, **named)
            except TypeError as error:
                advice = import_module("agentpool._call_advice").call_advice(
                    cls.__name__, cls, given, named
                )
                if advice is None:
                    raise
                raise TypeError(advice) from error

        @property
        def __signature__(cls) -> Signature:  # noqa: N805  # as in StructMeta
            """The signature, with types as in the source: msgspec would add their modules."""
            signature = super().__signature__
            return import_module("agentpool._field_docs").with_short_types(cls, signature)


def call_name(function: Callable[..., object]) -> str:
    """Return the name of *function* in a call. A method has the usual name of its object in front.

    >>> from agentpool import AgentPool, open_pool
    >>> call_name(open_pool), call_name(AgentPool.spawn)
    ('open_pool', 'pool.spawn')
    """
    owner, _, name = function.__qualname__.rpartition(".")
    return f"{owner.removeprefix('Agent').lower()}.{name}" if owner else name


def show_fields(names: Mapping[str, object]) -> None:
    """Make ``help`` show the meaning of the fields of the classes in *names*.

    The docstrings are made on first use, since reading the source takes a while.
    """
    for thing in [one for one in names.values() if isinstance(one, type)]:
        words = thing.__dict__.get("__doc__")
        if type(words) is str and thing.__module__.startswith("agentpool"):
            thing.__doc__ = doc = _Docstring(words)
            doc.kind = thing


class _Docstring(str):  # help() takes nothing but a str
    """A class docstring that includes the meaning of the fields."""

    __slots__ = ("kind",)

    kind: type

    def __get__(self, _: object, owner: type) -> str:
        """Return the docstring."""
        made: str = import_module("agentpool._field_docs").with_fields(owner, str(self))
        return made

    def expandtabs(self, tabsize: SupportsIndex = 8) -> str:
        """Return the docstring, as ``help`` asks for that of a struct."""
        return self.__get__(None, self.kind).expandtabs(tabsize)


def refuse_attribute(thing: object, name: str, advice: Mapping[str, str]) -> NoReturn:
    """Raise the error for an attribute that *thing* does not have.

    Args:
        thing: The object without the attribute.
        name: The name of the attribute.
        advice: What to write instead of names that other libraries have.

    Raises:
        AttributeError: Always.
    """
    words = f"{type(thing).__name__!r} object has no attribute {name!r}"
    if name in advice:
        words = f"{words}; {advice[name]}"
    raise AttributeError(words, name=name, obj=thing)
