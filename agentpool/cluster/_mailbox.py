"""Keeps a node's news until its program fetches it. Used by two threads."""

from __future__ import annotations

import threading
from typing import Final, final

from agentpool.cluster._node_messages import Done, News
from agentpool.cluster._portable import pack, portable

MOST: Final = 2_000
"""The most items in one batch. A larger batch would block the program for too long."""


@final
class Mailbox:
    """News in the order in which it happened, taken in batches."""

    __slots__ = ("_closed", "_filled", "_news", "_node")

    def __init__(self, node: str) -> None:
        self._node = node
        self._news: list[News] = []
        self._filled = threading.Condition()
        self._closed = False

    def put(self, news: News) -> None:
        """Add *news*, and wake the thread that waits for news."""
        with self._filled:
            self._news.append(news)
            self._filled.notify()

    def take(self, seconds: float) -> bytes | None:
        """Return the news, waiting at most *seconds* for it. ``None``: the mailbox is closed."""
        with self._filled:
            if not (self._news or self._closed):
                self._filled.wait(seconds)
            if self._closed:
                return None
            taken, self._news = self._news[:MOST], self._news[MOST:]
        return pack(taken, self._instead)

    def close(self) -> None:
        """Wake the waiting thread, and give out no more news."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()

    def _instead(self, news: News, error: Exception) -> News:
        """Return a replacement for news that cannot be pickled."""
        return Done(news.call, None, portable(error, self._node))
