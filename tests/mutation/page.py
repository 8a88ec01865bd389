"""The page of the documentation that lists each finding beside its test.

``python -m tests.mutation.page`` writes it anew; a test compares it with what is here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.mutation.fault import Fault
from tests.mutation.faults import EVERY
from tests.mutation.mutant import ROOT

PAGE: Final[Path] = ROOT / "docs" / "explanation" / "faults-found.md"

SEARCHED: Final[Mapping[str, str]] = {
    "D1": "50 drawn orders; every order with two preemptions (`d01`, `g08` of the proofs)",
    "D2": "50 drawn orders; every order with two preemptions (`d01` of the proofs)",
    "D3": "4 drawn orders of each way to wait, alone and beside agents at work",
    "D4": "4 drawn orders of each of 14 calls in which an owner waits, with one slot and with two; "
    "all of an owner's calls side by side in 6; `g14` of the proofs",
    "D5": "steps counted at 5, 40 and 80 agents; a circle of 1,000",
    "D6": "cancelled at each of more than 50 steps in 6 orders; 40 drawn orders; "
    "`d06` of the proofs",
    "D7": "the pool's machine, whose observers act; `g06` of the proofs",
    "D8": "the pool's machine, whose observers act; `g06` of the proofs",
    "D9": "30 drawn orders; the pool's machine; `g07` of the proofs",
    "D10": "10 drawn orders of each act of an observer; the pool's machine; `g11` of the proofs",
    "D11": "one order; `g09` of the proofs",
    "D12": "one order, with agents of every origin",
    "D13": "one order",
    "D14": "one order, closed and shut down; the pool's machine",
    "D15": "one order",
    "D16": "cancelled at each of more than 50 steps; `g16` of the proofs",
    "D17": "a scope cancelled at each step of an agent and of an owner; `d17` of the proofs",
    "D18": "12 runs of one seed with other addresses; `g15` of the proofs",
}
"""In how many orders or steps a guarantee is searched today."""

_HEAD: Final = """\
# Faults that were found, and what finds them now

Each of these was found from outside: by use (A), in public reports (B), by attack (C, H, M, L),
by tests written from the list of promises alone (D), and by breaking single lines (E).
A letter with a number is one finding; several rows of one are several ways in which it shows.

All tests here are green. Each is red when its line of the module is broken again, as it was or
to the same effect. `python -m tests.mutation.faults` breaks one after the other in a copy of the
package, runs the test, and prints `red` or `GREEN`; it exits with 1 if one is green.
The {count} rows of this page are made from what it breaks: `python -m tests.mutation.page`.
"""

_CROWDS: Final = """\
## In crowds

What `python -m benchmarks.crowds` printed, on two very busy cores of an ordinary machine.
The clock of the pools is a virtual one, so no deadline is waited for; the seconds are the
processor's.

| what | came of it | processor |
|---|---|---|
| 1,000 agents report to the owner | 1,000 of 1,000 heard, inbox of 32 | 0.50 s |
| 10,000 senders to one inbox of 1 | 10,000 of 10,000 heard | 6.54 s |
| a ring of 10,000 questions with deadlines | 10,000 of 10,000 went on, none was told of a \
circle | 11.34 s |
| a circle of 1,000 | named in 0.029 s after the question that closed it | 0.84 s |
| the owner waits where nobody can go on: the end of the block, `join_all`, `join_next`, \
`as_completed`, `wait`, `receive_many`, `ask`, `send`, `map`, `race`, `supervise` | each is over \
after 0 s of the clock | 0.02 s or less, each |
"""

_GROUPS: Final = (
    ("A", "What is paid for is lost, or an answer is spoilt"),
    ("B", "Inputs of public reports"),
    ("CHML", "Ways in"),
    ("D", "Guarantees"),
    ("E", "Lines that no test noticed"),
)


def page() -> str:
    """Return the whole page."""
    parts = [_HEAD.format(count=len(EVERY))]
    for letters, title in _GROUPS:
        ours = (one for one in EVERY if any(name[0] in letters for name in _names(one)))
        rows = sorted(ours, key=lambda one: _place(one, letters))
        parts.append(f"## {title}\n")
        if letters == "D":
            parts.append(
                "The proofs are `nox -s proofs`: every order of steps with up to two preemptions, "
                "with an exact clock and a late one.\n"
            )
        parts.append("\n".join(_table(rows, searched=letters == "D")) + "\n")
    return "\n".join([*parts, _CROWDS])


def _names(fault: Fault) -> list[str]:
    return fault.row.split(", ")


def _place(fault: Fault, letters: str) -> tuple[int, int]:
    name = next(name for name in _names(fault) if name[0] in letters)
    return letters.index(name[0]), int(name[1:] or 0)


def _table(rows: list[Fault], *, searched: bool) -> list[str]:
    names = ["row", "what it was", "broken in", "red then", *["searched in"] * searched]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for one in rows:
        cells = [one.row, one.what, f"`{one.room}`", f"`{one.tests}`: {_chosen(one)}"]
        if searched:
            cells.append(next(SEARCHED[name] for name in _names(one) if name in SEARCHED))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _chosen(fault: Fault) -> str:
    return re.sub(r"_", " ", fault.chosen.partition(" and ")[0])


if __name__ == "__main__":
    PAGE.write_text(page())
