"""Collects thoughts in OpenRouter's form: a list of details, each of which may come in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final

import attrs

_SAME: Final = ("type", "index", "id")
"""The fields that two pieces of one detail share, if the second piece has them."""

_TEXTS: Final = frozenset({"text", "summary", "data"})
"""The fields that grow with each piece. Of all others, the last value counts."""


@final
@attrs.define(eq=False, repr=False)
class _Detail:
    """One detail so far."""

    fields: dict[str, object]
    pieces: dict[str, list[str]] = attrs.field(factory=lambda: {})
    """The pieces of each field that grows: joining them each time would take quadratic time."""

    def __attrs_post_init__(self) -> None:
        """Start with the first piece."""
        self._grow(self.fields)

    def goes_on_with(self, more: Mapping[str, object]) -> bool:
        """Return whether *more* is a piece of this detail."""
        return all(more.get(key) in (None, self.fields.get(key)) for key in _SAME)

    def take(self, more: Mapping[str, object]) -> None:
        """Append a piece."""
        self.fields |= {
            key: value
            for key, value in more.items()
            if key not in self.pieces and value is not None
        }
        self._grow(more)

    def _grow(self, more: Mapping[str, object]) -> None:
        for key in _TEXTS:
            if isinstance(said := more.get(key), str):
                self.pieces.setdefault(key, []).append(said)

    def whole(self) -> dict[str, object]:
        """Return the detail with all its fields."""
        return self.fields | {key: "".join(pieces) for key, pieces in self.pieces.items()}


@final
@attrs.define(eq=False, repr=False)
class ThoughtDetails:
    """All details of one answer."""

    _details: list[_Detail] = attrs.field(init=False, factory=lambda: [])

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._details)

    def take(self, detail: Mapping[str, object]) -> bool:
        """Append *detail* to the one that it continues. Return whether it begins a new one."""
        begins = not (self._details and self._details[-1].goes_on_with(detail))
        if begins:
            self._details.append(_Detail(dict(detail)))
        else:
            self._details[-1].take(detail)
        return begins

    def whole(self) -> list[dict[str, object]]:
        """Return all details."""
        return [one.whole() for one in self._details]


def said_in(details: Iterable[Mapping[str, object]]) -> str:
    """Return the text in *details*."""
    return "".join(str(one.get("text") or one.get("summary") or "") for one in details)
