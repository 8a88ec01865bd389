"""The live display on a terminal. Only this module uses rich.

Without rich there is no display, and plain lines are written instead.
"""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Final, TextIO, final

import attrs

from agentpool._base import Shown, Unique
from agentpool._checks import expect_arguments, expect_method
from agentpool._one_line import printable
from agentpool.live._board import AgentView, BoardView

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

FRAMES_PER_SECOND: Final = 8
"""The most times per second that the display is redrawn: often enough to look alive, and seldom
enough to cost little."""

_NAME_COLUMNS: Final = 24
_PHASE_COLUMNS: Final = 14
_NUMBER_COLUMNS: Final = 8

_FIXED_COLUMNS: Final = _NAME_COLUMNS + _PHASE_COLUMNS + 2 * _NUMBER_COLUMNS + 4
"""The width of all columns together, including 4 for gaps, except the column of last words, which
gets the rest. On a narrower terminal the tokens are left out and names are shorter."""

_NARROWEST_NAME: Final = 6
"""The fewest columns of a name, on any terminal."""

_OTHER_LINES: Final = 2
"""The number of lines besides those of agents. One line says how many agents are not shown, and one
belongs to the cursor. Lines for counts, loading and keys are added to this number."""


@final
@attrs.define(eq=False, repr=False)
class LiveDisplay(Unique, Shown):
    """Lines at the bottom of a terminal that are redrawn in place.

    Made by ``open_display``. The display writes to the terminal and so may block: call its methods
    in a thread.
    """

    _console: Console
    _live: Live | None = None
    _last: BoardView | None = None

    def draw(self, view: BoardView) -> None:
        """Show *view*."""
        from rich.live import Live  # noqa: PLC0415  # the optional door

        self._last = view
        picture = self._render(view)
        if self._live is None:
            # A new one each time: one that was stopped remembers its height, and would
            # wipe so many lines of what was written since.
            self._live = Live(
                picture,
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)
        else:
            self._live.update(picture, refresh=True)

    def hide(self) -> None:
        """Remove the display, so that other text can be written."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self) -> None:
        """Draw the hidden display again."""
        if self._last is not None:
            self.draw(self._last)

    def close(self) -> None:
        """Remove the display for good and restore the cursor."""
        self._last = None
        self.hide()

    def _render(self, view: BoardView) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415  # the optional door
        from rich.text import Text  # noqa: PLC0415  # the optional door

        width, height = self._console.size
        counts = counts_line(view)
        # Where one line has no room it is two, or as many as it takes.
        parts = counts.split(" · ") if len(counts) > width else [counts]
        parts = [line for part in parts for line in wrap(part, width)]
        room = max(1, height - _OTHER_LINES - len(parts) - bool(view.loading) - bool(view.keys))
        lines = [self._agent_line(agent, width) for agent in view.agents[:room]]
        if len(view.agents) > room:
            lines.append(Text(f"… and {len(view.agents) - room} more", style="dim"))
        lines += [Text(part, style="bold", no_wrap=True, overflow="ellipsis") for part in parts]
        if view.loading:
            # The time first: it is what moves, and a path may be long.
            text = f"loads, {view.loading_seconds:.1f} s: {view.loading}"
            lines.insert(0, Text(text, style="cyan", no_wrap=True, overflow="ellipsis"))
        if view.keys:
            lines.append(Text(view.keys, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    @staticmethod
    def _agent_line(agent: AgentView, width: int) -> RenderableType:
        from rich.text import Text  # noqa: PLC0415  # the optional door

        line = Text(no_wrap=True, overflow="crop")
        is_narrow = width < _FIXED_COLUMNS
        rest = _PHASE_COLUMNS + _NUMBER_COLUMNS + 2
        columns = max(_NARROWEST_NAME, width - rest) if is_narrow else _NAME_COLUMNS
        line.append(_fitted(agent.name, min(columns, _NAME_COLUMNS)), style="cyan")
        line.append(" " + _fitted(agent.phase, _PHASE_COLUMNS))
        line.append(f" {agent.seconds:.1f} s".rjust(_NUMBER_COLUMNS + 1))
        if is_narrow:
            return line
        line.append(f" {agent.tokens} tok".rjust(_NUMBER_COLUMNS + 1))
        words = printable(agent.last_words)
        left = width - _FIXED_COLUMNS - 2
        if left > 0:
            line.append("  " + _tail(words, left), style="dim")
        return line


def open_display(stream: TextIO) -> LiveDisplay | None:
    """Return a display on *stream*. ``None``: rich is missing, or *stream* is not suitable."""
    expect_method(stream, "write", "stream must be a text stream", "write open_display(sys.stderr)")
    try:
        from rich.console import Console  # noqa: PLC0415  # the optional door
    except ImportError:
        return None
    # Rich itself looks at NO_COLOR and at TERM.
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    return LiveDisplay(console)


def counts_line(view: BoardView) -> str:
    """Return the counts in words.

    >>> counts_line(BoardView(agents=(), done=3, failed=0, ended_otherwise=1, queued=2,
    ...                       tokens=1234, tokens_per_second=81.4))
    '3 done, 1 ended early, 0 running, 2 queued · 1,234 tokens, 81 per second'
    """
    expect_arguments(counts_line, locals())
    parts = [f"{view.done} done"]
    if view.failed:
        parts.append(f"{view.failed} failed")
    if view.ended_otherwise:
        parts.append(f"{view.ended_otherwise} ended early")
    parts += [f"{len(view.agents)} running", f"{view.queued} queued"]
    rate = f"{view.tokens:,} tokens, {view.tokens_per_second:.0f} per second"
    return f"{', '.join(parts)} · {rate}"


def _fitted(text: str, columns: int) -> str:
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415  # the optional door

    text = printable(text)
    if cell_len(text) > columns:
        text = set_cell_size(text, columns - 1) + "…"
    return set_cell_size(text, columns)


def _tail(text: str, columns: int) -> str:
    """Return the end of *text* that fits *columns*; some characters are two columns wide."""
    from rich.cells import cell_len  # noqa: PLC0415  # the optional door

    tail = text[-columns:]
    while cell_len(tail) > columns:
        tail = tail[1:]
    return tail
