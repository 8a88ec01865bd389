"""The part of a conversation that a model is not sent any more, or only as a stub."""

from __future__ import annotations

from typing import Final, final

import msgspec

from agentpool._base import Live
from agentpool._events import Event, RequestStarted, WindowCut

_MARKED: Final = (RequestStarted, WindowCut)


@final
class WindowMark(Live):
    """One cut of a window, and where it stands in the conversation."""

    cut: WindowCut
    """The event."""
    place: int
    """The place of the first message that was not there yet."""
    turn: int
    """The turn whose request is the first one after it."""


@final
class WindowMarks(Live):
    """All cuts of one agent's window so far."""

    cuts: list[WindowMark] = []  # noqa: RUF012  # each has its own
    """The cuts, oldest first."""
    gone: dict[int, int] = {}  # noqa: RUF012  # each has its own
    """Places of messages that are not sent any more, with the first turn that went without."""
    stubs: dict[int, int] = {}  # noqa: RUF012  # each has its own
    """Places of results that are sent as stubs, with the first turn that had the stub."""
    _ends: dict[int, int] = {}  # noqa: RUF012  # each has its own
    """Where what is not sent ends, by where it begins: what has left stays out."""
    _turn: int = 0
    _told: int = 0
    """Cuts whose next request is known."""

    @property
    def stubbed(self) -> int:
        """Results that are sent as stubs, without those that are not sent at all."""
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
    """Why an agent got no summary of what had left its window, as often as that was the reason."""

    agent_id: int
    """The agent."""
    failure: str
    """The reason."""
    count: int
    """How often."""
    turn: int
    """The first turn without one."""
    at_seconds: float
    """When that was."""

    def words(self) -> str:
        """Return in one line how often there was no summary, and why."""
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
