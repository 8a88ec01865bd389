"""Finds the parts of a conversation that are no longer sent, or only as a stub."""

from __future__ import annotations

from typing import Final, final

import msgspec

from agentpool._base import Record
from agentpool._events import Event, RequestStarted, WindowCut

_MARKED: Final = (RequestStarted, WindowCut)


@final
class WindowMark(Record):
    """One cut of a window, and its place in the conversation."""

    cut: WindowCut
    """The event."""
    place: int
    """The place of the first message that came after the cut."""
    turn: int
    """The turn of the first request after the cut."""


@final
class WindowMarks(Record):
    """All cuts of one agent's window so far."""

    cuts: list[WindowMark] = []  # noqa: RUF012  # each has its own
    """The cuts, oldest first."""
    gone: dict[int, int] = {}  # noqa: RUF012  # each has its own
    """Places of messages that are no longer sent, each with the first turn without the message."""
    stubs: dict[int, int] = {}  # noqa: RUF012  # each has its own
    """Places of results that are sent as stubs, each with the first turn that had the stub."""
    _ends: dict[int, int] = {}  # noqa: RUF012  # each has its own
    """The end of each range of messages that are left out, by its beginning. A message that is left
    out never returns."""
    _turn: int = 0
    _told: int = 0
    """The number of cuts whose next request is known."""

    @property
    def stubbed(self) -> int:
        """Places of results that are sent as stubs.

        Results that are not sent at all are not among them.
        """
        return sum(place not in self.gone for place in self.stubs)

    def take(self, event: Event, known: int) -> None:
        """Handle *event*, where *known* messages of the conversation have come."""
        if not isinstance(event, _MARKED):
            return
        if isinstance(event, WindowCut):
            self.cuts.append(WindowMark(event, known, self._turn + 1))
            self.stubs |= dict.fromkeys(event.stubs, self._turn + 1)
        elif event.sent:
            self._turn = event.turn
            self._leave_out(event)
            for mark in self.cuts[self._told :]:
                mark.place, mark.turn = event.sent[-1][1], event.turn
            self._told = len(self.cuts)

    def _leave_out(self, event: RequestStarted) -> None:
        begin = 0
        for start, stop in sorted(event.sent):
            # Only what is new: a conversation can be long.
            known = self._ends.get(begin, begin)
            if start > known:
                self.gone |= dict.fromkeys(range(known, start), event.turn)
                self._ends[begin] = start
            begin = stop


@final
class LostSummary(msgspec.Struct, frozen=True):
    """Why an agent got no summary of messages that had left its window, and how often."""

    agent_id: int
    """The agent."""
    failure: str
    """The reason."""
    count: int
    """How often it was the reason."""
    turn: int
    """The first turn without a summary."""
    at_seconds: float
    """When that turn was, in seconds since the pool opened."""

    def words(self) -> str:
        """Say in one line how often a summary was missing, and why."""
        times = "" if self.count == 1 else f"{self.count:,} times, first before "
        return f"{times}turn {self.turn}: {self.failure}"


def lost_summaries(marks: WindowMarks) -> list[LostSummary]:
    """Return the reasons for missing summaries of one agent, each once."""
    found: dict[str, LostSummary] = {}
    for mark in marks.cuts:
        cut = mark.cut
        if cut.failure:
            first = found.get(cut.failure)
            if first is None:
                first = LostSummary(cut.agent_id, cut.failure, 0, mark.turn, cut.at_seconds)
            found[cut.failure] = msgspec.structs.replace(first, count=first.count + 1)
    return list(found.values())
