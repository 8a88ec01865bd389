"""Splits long texts into words without blocking the event loop."""

from __future__ import annotations

from typing import Final

import trio

from agentpool.memory._word_search import words

AT_ONCE_CHARS: Final = 20_000
"""The longest text that is split in the event loop: about 1 ms. A longer one goes to a thread."""


async def words_of(text: str) -> list[str]:
    """Return the words of *text*; a long one is split in a thread.

    Cancellation:
        Nothing has happened. The thread ends when it has split its text.
    """
    if len(text) <= AT_ONCE_CHARS:
        await trio.lowlevel.checkpoint()
        return words(text)
    return await trio.to_thread.run_sync(words, text, abandon_on_cancel=True)
