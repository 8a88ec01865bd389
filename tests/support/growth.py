"""Whether what reads foreign text or structures takes time in proportion to them."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import agentpool

WHILE_SECONDS = 0.001
MOST = 32_000
MOST_GROWTH = 2.5
FAR = 16
MOST_FAR = 4 * FAR


def seconds(function: Callable[[Any], object], given: object) -> float:
    """Return the least time of three, of this thread alone."""
    times: list[float] = []
    for _ in range(3):
        begin = time.thread_time()
        function(given)
        times.append(time.thread_time() - begin)
    return min(times)


def assert_linear(function: Callable[[Any], object], make: Callable[[int], object]) -> None:
    """Raise a size until it takes a while; twice as much then takes twice as long.

    A machine with small caches, or a heap that grows, may make each item up to four times dearer
    where there are many. So at last sixteen times as much may take 64 times as long: what grows
    with the square takes 256 times.
    """
    gc.collect()
    gc.disable()
    try:
        n = 500
        while seconds(function, make(n)) < WHILE_SECONDS and n < MOST:
            n *= 4
        once, twice = make(n), make(2 * n)
        ratios = ((seconds(function, twice), seconds(function, once)) for _ in range(4))
        # What is that fast with so much has no growth to speak of.
        if any(b <= MOST_GROWTH * a or b < WHILE_SECONDS for b, a in ratios):
            return
        far = make(FAR * n)
        ratios = ((seconds(function, far), seconds(function, once)) for _ in range(4))
        assert any(d <= MOST_FAR * a for d, a in ratios)
    finally:
        gc.enable()


def lines_run(function: Callable[[], object], *rooms: str) -> int:
    """Return how many lines of *rooms* a function runs, which no busy machine changes.

    Of some rooms, so that what grows in one of them is not hidden by what does not elsewhere.
    """
    ours = tuple(str(Path(agentpool.__file__).parent / room) for room in rooms)
    count = 0

    def in_frame(_: FrameType, event: str, __: object) -> Any:  # noqa: ANN401  # as sys has it
        nonlocal count
        count += event == "line"
        return in_frame

    def at_call(frame: FrameType, _: str, __: object) -> Any:  # noqa: ANN401  # the same
        return in_frame if frame.f_code.co_filename.startswith(ours) else None

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        function()
    finally:
        sys.settrace(before)
    return count
