"""Charts as SVG, written by hand: a few lines on two axes need no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import final

import attrs

WIDTH, HEIGHT = 720, 330
"""Of one chart, in pixels."""

LEFT, RIGHT, TOP, BOTTOM = 72, 250, 44, 52
"""What is kept free around the lines, for the texts. The names stand on the right."""

BAR, NAMES, AFTER = 24, 180, 70
"""Of bars: the height of one, what is kept free for names and for figures, in pixels."""

GREY = "#666666"


@final
@attrs.frozen(kw_only=True)
class Line:
    """One line of a chart."""

    name: str
    """What stands beside it."""
    points: Sequence[tuple[float, float]]
    """From left to right."""
    colour: str
    dashed: bool = False
    """Whether it is not measured: a bound, or an ideal."""
    steps: bool = False
    """Whether it jumps from point to point, as counts do."""


@final
@attrs.frozen(kw_only=True)
class Chart:
    """Lines on two axes that begin at zero, or at one if they are logarithmic."""

    title: str
    x_name: str
    y_name: str
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    lines: Sequence[Line]
    logarithmic: bool = False
    """Whether the upright axis is."""

    def svg(self, top: int) -> str:
        """Return the chart, so far from the top of its page."""
        parts = [f'<g transform="translate(0 {top})">']
        parts.append(_text(LEFT, 22, self.title, size=15, weight="bold"))
        for tick in self.y_ticks:
            y = self._y(tick)
            parts.append(_stroke([(LEFT, y), (WIDTH - RIGHT, y)], "#e3e3e3"))
            parts.append(_text(LEFT - 8, y + 4, f"{tick:,g}", anchor="end", colour=GREY))
        for tick in self.x_ticks:
            x = self._x(tick)
            parts.append(_stroke([(x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 5)], GREY))
            parts.append(_text(x, HEIGHT - BOTTOM + 19, f"{tick:,g}", anchor="middle", colour=GREY))
        parts.append(_stroke([(LEFT, self._y(self.y_ticks[0])),
                              (WIDTH - RIGHT, self._y(self.y_ticks[0]))], GREY))  # fmt: skip
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(_text(middle, HEIGHT - 12, self.x_name, anchor="middle", colour=GREY))
        parts.append(
            f'<g transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
            + _text(0, 0, self.y_name, anchor="middle", colour=GREY) + "</g>"
        )  # fmt: skip
        parts += [
            _stroke(self._path(line), line.colour, width=2.2, dashed=line.dashed)
            for line in self.lines
        ]
        parts += self._names()
        return "\n".join([*parts, "</g>"])

    def _path(self, line: Line) -> list[tuple[float, float]]:
        path: list[tuple[float, float]] = []
        for x, y in line.points:
            if line.steps and path:
                path.append((self._x(x), path[-1][1]))
            path.append((self._x(x), self._y(y)))
        return path

    def _names(self) -> list[str]:
        """Put each line's name beside its end, and none over another."""
        placed: list[str] = []
        below = -math.inf
        for line in sorted(self.lines, key=lambda line: -line.points[-1][1]):
            lines = line.name.split("\n")
            y = max(self._y(line.points[-1][1]) + 4 - 8 * (len(lines) - 1), below + 20)
            for number, text in enumerate(lines):
                below = y + 16 * number
                placed.append(_text(WIDTH - RIGHT + 10, below, text, colour=line.colour))
        return placed

    def _x(self, x: float) -> float:
        return LEFT + x / self.x_ticks[-1] * (WIDTH - LEFT - RIGHT)

    def _y(self, y: float) -> float:
        if self.logarithmic:
            share = math.log(max(y, self.y_ticks[0]) / self.y_ticks[0]) / math.log(
                self.y_ticks[-1] / self.y_ticks[0]
            )
        else:
            share = y / self.y_ticks[-1]
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


@final
@attrs.frozen(kw_only=True)
class Bars:
    """Lying bars on a logarithmic axis, one under the other."""

    title: str
    x_name: str
    bars: Sequence[tuple[str, float, str]]
    """Name, length and colour of each."""

    @property
    def height(self) -> int:
        """How much of the page they take, in pixels."""
        return TOP + BAR * len(self.bars) + BOTTOM

    def svg(self, top: int) -> str:
        """Return the bars, so far from the top of their page."""
        lengths = [length for _, length, _ in self.bars]
        least = 10 ** math.floor(math.log10(min(lengths)))
        decades = math.ceil(math.log10(max(lengths) / least)) or 1
        wide = WIDTH - NAMES - AFTER
        foot = TOP + BAR * len(self.bars)
        parts = [f'<g transform="translate(0 {top})">']
        parts.append(_text(8, 22, self.title, size=15, weight="bold"))
        for decade in range(decades + 1):
            x = NAMES + wide * decade / decades
            parts.append(_stroke([(x, TOP), (x, foot)], "#e3e3e3"))
            tick = f"{least * 10**decade:,g}"
            parts.append(_text(x, foot + 18, tick, anchor="middle", colour=GREY))
        for number, (name, length, colour) in enumerate(self.bars):
            y = TOP + BAR * number
            along = wide * math.log10(length / least) / decades
            parts.append(_text(NAMES - 8, y + 16, name, anchor="end"))
            parts.append(
                f'<rect x="{NAMES}" y="{y + 4}" width="{max(along, 1):.1f}" '
                f'height="{BAR - 8}" fill="{colour}"/>'
            )
            figure = f"{length:,.0f}" if length >= 10 else f"{length:,.1f}"
            parts.append(_text(NAMES + along + 6, y + 16, figure, colour=GREY))
        parts.append(_text(WIDTH / 2, foot + 38, self.x_name, anchor="middle", colour=GREY))
        return "\n".join([*parts, "</g>"])


def page_of_bars(charts: Sequence[Bars]) -> str:
    """Return the bars, one chart under the other, as a whole file."""
    tops = [sum(chart.height for chart in charts[:number]) for number in range(len(charts))]
    drawn = "\n".join(chart.svg(top) for chart, top in zip(charts, tops, strict=True))
    return _page(sum(chart.height for chart in charts), drawn)


def page(charts: Sequence[Chart]) -> str:
    """Return the charts, one under the other, as a whole file."""
    height = HEIGHT * len(charts)
    drawn = "\n".join(chart.svg(HEIGHT * number) for number, chart in enumerate(charts))
    return _page(height, drawn)


def _page(height: int, drawn: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n{drawn}\n</svg>\n'
    )


def _stroke(
    path: Sequence[tuple[float, float]], colour: str, width: float = 1, *, dashed: bool = False
) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
    dashes = ' stroke-dasharray="6 4"' if dashed else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" '
        f'stroke-width="{width}"{dashes}/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = "#222222",
    size: int = 13,
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size}" font-weight="{weight}">{escape(text)}</text>'
    )
