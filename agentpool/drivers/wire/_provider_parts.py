"""Stores parts of an answer that only their provider understands, and returns them unchanged.

Rules:

1. A part is sent back only to the same model at the same provider. A different model would refuse
   its signature, and could not use its thoughts.
2. Its place among the text and the calls is kept: a thought stays before the text or call that it
   led to.
3. Arguments that are not a JSON object are not sent back unchanged: servers that parse them would
   refuse the whole conversation forever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, TypeAlias, final

import attrs
import msgspec

from agentpool._messages import AssistantMessage, ProviderPart, ToolCall
from agentpool._surrogates import escapes_without_halves

INVALID_ARGUMENTS: Final = "arguments_that_are_no_object"
"""The key under which arguments that are not a JSON object are sent back."""

UNSIGNED: Final = "thinking.unsigned"
"""The kind of a thought whose signature was announced but never came."""

Piece: TypeAlias = str | ToolCall | ProviderPart
"""A piece of an answer: text, a call, or a part that the provider wants back."""


@final
@attrs.frozen
class Origin:
    """The provider and model that an answer comes from."""

    provider: str
    """The host, with its port if that is unusual."""
    model: str
    """The model that the request asked for."""

    def parts_of(self, message: AssistantMessage) -> tuple[ProviderPart, ...]:
        """Return the parts of *message* that came from this origin."""
        return tuple(
            part
            for part in message.parts
            if part.provider == self.provider and part.model == self.model
        )

    def part(
        self, kind: str, data: bytes, text: str = "", *, text_at: int = 0, call_at: int = 0
    ) -> ProviderPart:
        """Make a part that came from this origin."""
        return ProviderPart(self.provider, self.model, kind, data.decode(), text, text_at, call_at)


NOWHERE: Final = Origin("", "")
"""An origin to which nothing is sent back."""


def in_order(message: AssistantMessage, parts: tuple[ProviderPart, ...]) -> Iterator[Piece]:
    """Yield the text, the calls and the *parts* of *message* in the order in which they arrived."""
    text_at = 0
    # Text comes before calls: a part after the first call stands behind all of it.
    for part in sorted(parts, key=lambda part: (part.call_at > 0, part.text_at)):
        if part.call_at:
            break
        if part.text_at > text_at:
            yield message.text[text_at : part.text_at]
            text_at = part.text_at
        yield part
    if text_at < len(message.text):
        yield message.text[text_at:]
    before: defaultdict[int, list[ProviderPart]] = defaultdict(list)
    for part in parts:
        before[min(part.call_at, len(message.tool_calls))].append(part)
    for index, call in enumerate(message.tool_calls):
        if index:
            yield from before[index]
        yield call
    yield from (part for part in before[len(message.tool_calls)] if part.call_at)


def valid_arguments(call: ToolCall) -> str:
    """Return the arguments of *call* if they are a JSON object, otherwise wrapped in one.

    Apart from halves of characters, which are replaced, they are unchanged.
    """
    arguments = escapes_without_halves(call.arguments)
    try:
        _OBJECT.decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return msgspec.json.encode({INVALID_ARGUMENTS: call.arguments}).decode()
    return arguments


_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
