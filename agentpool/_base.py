"""The base classes of mutable objects, compared by identity, and of values with many fields."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, NoReturn, SupportsIndex, final

import attrs
import msgspec


class Shown:
    """Base class of objects that are shown in one line: ``<RequestGate 'gate' 2/4 in flight>``.

    Fields are not shown: they may be large or secret. ``rich`` shows the same line as ``repr``.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Return class and state."""
        state = self._repr_words()
        return f"<{type(self).__name__}{' ' * bool(state)}{state}>"

    def _repr_words(self) -> str:
        """Return what to show besides the class. Empty: nothing."""
        return ""

    if not TYPE_CHECKING:  # msgspec declares another result

        def __rich_repr__(self) -> tuple[_Words, ...] | None:
            """Return the state, for ``rich``, which would look at each field without this method.

            Returns ``None`` if a subclass has a ``repr`` of a different form, which ``rich`` finds.
            """
            words, begin = repr(self), f"<{type(self).__name__}"
            state = words.removeprefix(begin).removesuffix(">").lstrip()
            return (_Words(state),) * bool(state) if words.startswith(begin) else None

        __rich_repr__.angular = True


class _Words(str):
    """A text whose ``repr`` has no quotes."""

    __slots__ = ()

    __repr__ = str.__str__


class Unique:
    """Base class of objects whose state must not exist twice: they refuse to be copied.

    A copy would share a part of the state and have the rest for itself. So the object and its copy
    could each do what may be done only once: settle a reservation, let a request in.
    """

    __slots__ = ()

    def __copy__(self) -> NoReturn:
        """Refuse to be copied.

        Raises:
            TypeError: Always.
        """
        self._refuse_a_second_one()

    def __deepcopy__(self, _: object) -> NoReturn:
        """Refuse to be copied as a part of something."""
        self._refuse_a_second_one()

    def __replace__(self, **_: object) -> NoReturn:
        """Refuse to be copied with other fields."""
        self._refuse_a_second_one()

    def __reduce_ex__(self, _: SupportsIndex) -> NoReturn:
        """Refuse to be pickled."""
        self._refuse_a_second_one()

    def _refuse_a_second_one(self) -> NoReturn:
        # TypeError, as for a lock or a generator: it is what programs that try to copy expect.
        kind = type(self).__name__
        raise TypeError(
            f"{kind} cannot be copied or pickled, since both would share its state; pass on the "
            f"{kind} itself, or make a new one"
        )


class Record(Shown, msgspec.Struct, eq=False):
    """Base class of mutable collections of data, compared by identity. They may be copied.

    Creating a struct takes a third of the time of an attrs object, and its class a twentieth.
    """


class Live(Unique, Record, eq=False):
    """Base class of mutable objects, compared by identity, which cannot be copied.

    Each agent has six such objects, and each import of agentpool makes all the classes.
    """


class Value:
    """Base class of frozen classes of attrs, compared by their fields.

    attrs would compile these three methods for each class in each process, which is half of
    the import time of such a class. A class that inherits them sets ``eq=False`` and
    ``repr=False``.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        """Return whether *other* is of the same class and has equal fields."""
        if type(other) is not type(self):
            return NotImplemented
        values = _fields_of(self).values
        return values(self) == values(other)

    def __hash__(self) -> int:
        """Return the hash of the fields, except for those that are left out of it."""
        return hash(_fields_of(self).hashed(self))

    def __repr__(self) -> str:
        """Return class and fields, as attrs would."""
        fields = (f"{name}={getattr(self, name)!r}" for name in _fields_of(self).names)
        return f"{type(self).__qualname__}({', '.join(fields)})"


@final
class _Fields(msgspec.Struct, frozen=True):
    names: tuple[str, ...]
    values: Callable[[object], object]
    hashed: Callable[[object], object]


def _fields_of(value: Value) -> _Fields:
    return _read_fields(type(value))  # type: ignore[arg-type]  # mypy takes no class for hashable


@cache
def _read_fields(kind: type[attrs.AttrsInstance]) -> _Fields:
    names = tuple(field.name for field in attrs.fields(kind))
    hashed = (field.name for field in attrs.fields(kind) if field.hash is not False)
    return _Fields(names, attrgetter(*names), attrgetter(*hashed))
