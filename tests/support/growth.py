"""Whether what reads foreign text or structures takes time in proportion to them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

WHILE_SECONDS = 0.001
MOST = 32_000


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

    A busy machine slows one measurement or the other, so the best of some counts: what grows
    with the square takes four times as long in each.
    """
    gc.collect()
    gc.disable()
    try:
        n = 500
        while seconds(function, make(n)) < WHILE_SECONDS and n < MOST:
            n *= 4
        once, twice = make(n), make(2 * n)
        ratios = ((seconds(function, twice), seconds(function, once)) for _ in range(5))
        # What is that fast with so much has no growth to speak of.
        assert any(b <= 2.5 * a or b < WHILE_SECONDS for b, a in ratios)
    finally:
        gc.enable()
