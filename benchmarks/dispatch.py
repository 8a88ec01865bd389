"""What one instruction of Python costs, by how many different ones are run over and over.

    python benchmarks/dispatch.py

A processor foresees which instruction comes next as long as it can remember what came after what.
A loop of a few hundred instructions is foreseen. Where it holds more than the processor remembers,
each of them takes up to twice as long: on some processors from 2,500 on, which is between what the
yardsticks run for an agent or a turn and what agentpool runs. On these, ratios are higher than on
others, though the instructions are the same: see ``benchmarks/steps.py``.
"""

from __future__ import annotations

import argparse
import dis
import time
from collections.abc import Callable
from random import Random
from types import FunctionType
from typing import Final, cast

from meter import Parser, at_least

LINES: Final = (500, 1000, 1500, 2000, 2500, 3000, 4000, 6000, 10_000, 20_000, 30_000)
"""How many instructions the loops shall have, about."""

EACH: Final = 4
"""About how many instructions a statement has."""

STATEMENTS: Final = (
    "a = b", "b = c + 1", "c = a - b", "d = [1]", "e = d[0]", "f = (a, 2)", "a = -c", "x = b < c",
    "y = a is b", "g = a if x else b", "a = len(f)", "b = a & 255", "c = b | 1", "a = c ^ b",
    "z = not x", "b = f[1] & 255",
)  # fmt: skip


def loop_of(statements: int, dice: Random) -> Callable[[int], object]:
    """Return a function that runs that many statements of random kinds, some times."""
    body = "\n".join(f"        {dice.choice(STATEMENTS)}" for _ in range(statements))
    source = f"""
def run(times):
    a = b = c = 1
    x, d, f = True, [1], (1, 2)
    for _ in range(times):
{body}
"""
    names: dict[str, object] = {}
    exec(source, names)  # noqa: S102  # our own words
    return cast("Callable[[int], object]", names["run"])


def nanoseconds(run: Callable[[int], object], instructions: int, rounds: int) -> float:
    """Return the least CPU time of an instruction in some rounds."""
    times = max(4, 400_000 // instructions)
    run(times)
    found: list[float] = []
    for _ in range(rounds):
        began = time.process_time_ns()
        run(times)
        found.append((time.process_time_ns() - began) / times / instructions)
    return min(found)


def main() -> None:
    """Print a line for each length."""
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=at_least(1), default=7, help="default: %(default)s")
    options, dice = parser.parse_args(), Random(1)  # noqa: S311  # no secret
    print("| different instructions | ns each |\n|---|---|")
    for wanted in LINES:
        run = loop_of(wanted // EACH, dice)
        code = cast("FunctionType", run).__code__
        instructions = sum(1 for _ in dis.get_instructions(code))
        print(f"| {instructions:,} | {nanoseconds(run, instructions, options.rounds):.2f} |")


if __name__ == "__main__":
    main()
