"""Reads a request to a fake server: untrusted JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias, cast, final

import attrs

Fields: TypeAlias = Mapping[str, object]
"""A JSON object."""

NOTHING: Final[Fields] = {}


def fields(value: object) -> Fields:
    """Return *value* if it is an object, otherwise an empty object."""
    return cast("Fields", value) if isinstance(value, Mapping) else NOTHING


def items(value: object) -> list[Fields]:
    """Return the objects in *value* if it is an array, otherwise nothing."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [fields(one) for one in cast("Sequence[object]", value)]


def text(value: object) -> str:
    """Return *value* if it is a string, otherwise an empty string."""
    return value if isinstance(value, str) else ""


@final
@attrs.define(eq=False)
class StrictAsked:
    """A client's request, and the ids and signatures that the fake has given out."""

    body: Fields
    """The body, as JSON."""
    headers: Mapping[str, str]
    """The headers, with names in lower case."""
    issued: frozenset[str]
    """The signatures, encrypted thoughts and call ids that this fake made."""

    @property
    def messages(self) -> list[Fields]:
        """The messages or items of the conversation."""
        return items(self.body.get("messages", self.body.get("input")))

    @property
    def turn(self) -> int:
        """The number of answers in the conversation."""
        roles = [self._is_answer(one) for one in self.messages]
        return sum(now and not before for before, now in zip([False, *roles], roles, strict=False))

    def calls(self) -> Iterator[tuple[Fields, Fields]]:
        """Yield each Chat Completions call with its message."""
        for message in self.messages:
            for call in items(message.get("tool_calls")):
                yield message, call

    def every_call(self) -> Iterator[Fields]:
        """Yield each call: those of Chat Completions, of Responses, and of Anthropic."""
        for _, call in self.calls():
            yield call
        for message in self.messages:
            if message.get("type") == "function_call":
                yield message
        for block in self.blocks("assistant"):
            if block.get("type") == "tool_use":
                yield block

    def blocks(self, role: str) -> Iterator[Fields]:
        """Yield each Anthropic block in the messages of *role*."""
        for message in self.messages:
            if message.get("role") == role:
                yield from items(message.get("content"))

    def _is_answer(self, message: Fields) -> bool:
        kinds = {"function_call", "reasoning"}
        return message.get("role") == "assistant" or message.get("type") in kinds
