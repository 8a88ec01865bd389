"""Labels the messages of a Responses answer: commentary, or the answer itself.

Newer models label their messages ``commentary`` or ``final_answer``. Rules:

1. Comments are held back until it is known what follows. Before an answer, they are not a part of
   it, and are passed on as thoughts. Before a call, or alone, they are the text, since the model
   said nothing else.
2. Labels are sent back with their texts, but only to the same model. Without them a model mistakes
   its own comments for answers, and stops too early.
3. A text without a label gets none. A label that comes after its text was handed out only changes
   what is sent back.

Source: the field ``phase`` in https://platform.openai.com/docs/api-reference/responses and in
the official client's types (3.57), https://developers.openai.com/api/docs/guides/prompt-guidance;
koog#1976, vercel/ai#12860, stippi/code-assistant#195 and cartesia-ai/line#245 on GitHub for
comments that no answer follows (2026-11).
"""

from __future__ import annotations

from typing import Final

import attrs
import msgspec

from agentpool._messages import ProviderPart
from agentpool.drivers.wire._provider_parts import Origin

COMMENTARY: Final = "commentary"
"""The label of a message that is not the answer, and the kind of a part with such a message."""

PHASE: Final = "phase"
"""The kind of a part that labels the text after it."""


@attrs.define(eq=False, repr=False)
class Phases:
    """The labels of one answer's messages, and the comments held back."""

    parts: list[ProviderPart]
    """The parts that the provider wants back, to which labels and comments are added."""
    origin: Origin
    said: int = 0
    """The number of characters of text handed out so far."""
    _held: list[ProviderPart] = attrs.field(init=False, factory=lambda: [])
    _last: str = attrs.field(init=False, default="")

    def say(self, text: str) -> str:
        """Count *text*, which is handed out now, and return the comments that come before it."""
        self.said += len(text)
        return self._let_go() if text else ""

    def label(self, phase: str, at: int) -> None:
        """Record that the text from the character *at* on has the label *phase*."""
        if phase != self._last:
            self._last = phase
            self.parts.append(self.origin.part(PHASE, msgspec.json.encode(phase), text_at=at))

    def hold(self, text: str, call_at: int) -> None:
        """Keep a complete comment that came after *call_at* calls."""
        message = {"type": "message", "role": "assistant", "content": text, "phase": COMMENTARY}
        data = msgspec.json.encode(message)
        part = self.origin.part(COMMENTARY, data, text, text_at=self.said, call_at=call_at)
        self.parts.append(part)
        self._held.append(part)

    def _let_go(self) -> str:
        thoughts = "".join(part.text for part in self._held)
        self._held.clear()
        return thoughts

    def as_text(self) -> list[str]:
        """Return the comments held back, which count as text from now on."""
        held, offset = {id(one) for one in self._held}, 0
        texts: list[str] = []
        if not held:
            return texts
        self._held, parts = [], self.parts.copy()
        self.parts.clear()
        for part in parts:
            if id(part) in held:
                self.label(COMMENTARY, part.text_at + offset)
                texts.append(part.text)
                offset += len(part.text)
            else:
                self.parts.append(msgspec.structs.replace(part, text_at=part.text_at + offset))
        self.said += offset
        return texts


def label_in(part: ProviderPart) -> str | None:
    """Return the label in *part*. ``None``: it has none."""
    return msgspec.json.decode(part.data, type=str) if part.kind == PHASE else None
