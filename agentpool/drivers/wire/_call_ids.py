"""Converts ids of tool calls into a form that the server accepts.

Rules:

1. An id that the server accepts, and that no other call of the conversation has, is sent back
   unchanged.
2. Any other id is replaced: one with characters or a length that the server refuses, since the
   conversation may have begun with another provider; and the second of two equal ids, since some
   servers count from the beginning in each answer.
3. A result follows its call, so it gets the new id of the oldest call with the same original id
   that has no result yet.
4. The same conversation gets the same ids each time; otherwise no cache would recognise it.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from typing import Final, final

import attrs

_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


@final
@attrs.frozen
class IdForm:
    """The form of ids that a server accepts."""

    pattern: re.Pattern[str]
    """The pattern that a whole id must match."""
    length: int
    """The length of a replacement."""


# Longer ones are refused. Source: "string too long. Expected a string with maximum length
# 40" in openai/openai-python#1769 and others (2026-11).
CHAT_IDS: Final = IdForm(re.compile(r".{1,40}", re.DOTALL), 24)
"""OpenAI's Chat Completions: up to 40 characters."""

RESPONSES_IDS: Final = IdForm(re.compile(r".{1,64}", re.DOTALL), 24)
"""OpenAI's Responses: up to 64 characters. Source: vis#152 on GitHub (2026-11)."""

MISTRAL_IDS: Final = IdForm(re.compile(r"[a-zA-Z0-9]{9}"), 9)
"""Mistral: nine letters and digits. Source: nanobot#1293 and ironclaw#1241 (2026-11)."""

MESSAGES_IDS: Final = IdForm(re.compile(r"[a-zA-Z0-9_-]{1,64}"), 24)
"""Anthropic's Messages. Source: https://platform.claude.com/docs/en/api/messages (2026-11)."""


@final
@attrs.define(eq=False, repr=False)
class CallIds:
    """The ids of one conversation, in the order in which they are sent."""

    _form: IdForm
    _used: set[str] = attrs.field(init=False, factory=lambda: set())  # noqa: PLW0108  # as for lists
    _attempts: dict[str, int] = attrs.field(init=False, factory=lambda: {})
    """How many replacements each id has had: some servers give the same id to all calls."""
    _open: dict[str, deque[str]] = attrs.field(init=False, factory=lambda: {})

    def of_call(self, call_id: str) -> str:
        """Return the id of the next call, which the model named *call_id*."""
        sent, attempt = call_id, self._attempts.get(call_id, 0)
        while sent in self._used or not self._form.pattern.fullmatch(sent):
            sent, attempt = self._other(call_id, attempt), attempt + 1
        self._used.add(sent)
        self._attempts[call_id] = attempt
        self._open.setdefault(call_id, deque()).append(sent)
        return sent

    def of_result(self, call_id: str) -> str:
        """Return the id of the call that the next result belongs to."""
        waiting = self._open.get(call_id)
        # A result of no call is left for the server to judge, with an id that it can read.
        return waiting.popleft() if waiting else self.of_call(call_id)

    def _other(self, call_id: str, attempt: int) -> str:
        said = f"{attempt} {call_id}".encode(errors="surrogatepass")
        number = int.from_bytes(hashlib.sha256(said).digest())
        digits: list[str] = []
        for _ in range(self._form.length):
            number, digit = divmod(number, len(_ALPHABET))
            digits.append(_ALPHABET[digit])
        return "".join(digits)
