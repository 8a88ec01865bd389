"""Breaks one line of a room at a time, and looks whether its tests notice.

``python -m tests.mutation.mutate`` takes a seeded sample from the pure and the concurrent
rooms, runs the tests of each room against a copy of the package with one mutant in it, and
prints those that no test noticed: of each mutant, the tests that run its line. ``nox -s
mutants`` does the same. Mutants that change nothing are in ``equivalent.py``, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

import attrs
import msgspec
from coverage import CoverageData

from tests.mutation.equivalent import EQUIVALENT

ROOT: Final = Path(__file__).parent.parent.parent

ROOMS: Final[dict[str, tuple[str, ...]]] = {
    "_scheduling/fair_queue.py": ("tests/scheduling", "tests/pool"),
    "_scheduling/slot.py": ("tests/scheduling", "tests/pool"),
    "_messaging/inbox.py": ("tests/messaging",),
    "_messaging/post_office.py": (
        "tests/messaging", "tests/pool", "tests/journal", "tests/test_bad_input.py",
    ),
    "_pool/admission.py": ("tests/pool",),
    "_pool/deadlock.py": ("tests/pool",),
    "_pool/fan_in.py": ("tests/pool",),
    "_pool/map.py": ("tests/pool", "tests/test_bad_input.py"),
    "_pool/nursery.py": ("tests/pool", "tests/agent", "tests/journal"),
    "_agent/retry_policy.py": ("tests/agent", "tests/test_bad_input.py"),
    "_agent/request.py": (
        "tests/agent", "tests/journal", "tests/budget", "tests/drivers/test_thoughts.py",
    ),
    "_budget/account.py": ("tests/budget", "tests/agent"),
    "_budget/budget.py": ("tests/budget", "tests/agent"),
    "_loop/guard.py": ("tests/loop",),
    "drivers/_throttle.py": ("tests/drivers/test_throttle.py", "tests/drivers/test_gate.py"),
    "drivers/_gate.py": (
        "tests/drivers/test_gate.py", "tests/observe/test_events.py", "tests/test_bad_input.py",
    ),
    "memory/_rank.py": ("tests/memory",),
}  # fmt: skip
"""Each room, with the tests that should notice."""

LEAST: Final = 97
"""Percent of the sample that must be noticed."""

LEAST_OF_A_ROOM: Final = 92
"""Percent of the mutants of each room."""

MOST_SECONDS: Final = 150
"""Of tests for one mutant, the fastest first: those that are left out look at much else."""

Covering: TypeAlias = dict[tuple[str, int], list[tuple[str, float]]]
"""The tests that run a line of a room, with their seconds, the fastest first."""

_FLIPPED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip

_CHECKPOINT: Final = "await __import__('trio').lowlevel.checkpoint()"

_BREAKABLE: Final = (
    ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.AugAssign, ast.Constant, ast.Expr,
    ast.AsyncFunctionDef,
)  # fmt: skip


@attrs.frozen
class Mutant:
    """A room with one fault in it."""

    room: str
    line: int
    what: str
    source: str
    text: str = ""
    """The line as it was."""

    @property
    def is_equivalent(self) -> bool:
        """Whether it is known to change nothing that anybody can see."""
        return (self.room, self.text, self.what) in EQUIVALENT


def mutants_of(room: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of *source*."""
    lines = source.splitlines()
    for index, first in enumerate(ast.walk(ast.parse(source))):
        if not isinstance(first, _BREAKABLE):
            continue
        tree = ast.parse(source)
        node = next(node for nth, node in enumerate(ast.walk(tree)) if nth == index)
        what = _break(node)
        if what is not None:
            broken = ast.unparse(ast.fix_missing_locations(tree))
            # What a function begins with, for its first line runs when it is loaded.
            at = node.body[-1] if isinstance(node, ast.AsyncFunctionDef) else node
            line = getattr(at, "lineno", 0)
            yield Mutant(room, line, what, broken, lines[line - 1].strip() if line else "")


def _break(node: ast.AST) -> str | None:  # noqa: PLR0911  # a table
    """Change *node*, and return how. ``None``: there is no way."""
    match node:
        case ast.Compare(ops=[first, *_]) if type(first) in _FLIPPED:
            node.ops[0] = _FLIPPED[type(first)]()
            return "a comparison is turned around"
        case ast.BoolOp():
            node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            return "and is or, or is and"
        case ast.UnaryOp(op=ast.Not()):
            node.op = ast.UAdd()
            node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
            return "a not is gone"
        case ast.BinOp(op=ast.Add()):
            node.op = ast.Sub()
            return "plus is minus"
        case ast.BinOp(op=ast.Sub()):
            node.op = ast.Add()
            return "minus is plus"
        case ast.AugAssign(op=ast.Add() | ast.Sub()):
            node.value = ast.Constant(0)
            return "nothing is added or taken away"
        case ast.Constant(value=int() as number) if not isinstance(number, bool):
            node.value = number + 1
            return "a number is one more"
        case ast.Expr(value=ast.Call()):
            node.value = ast.Constant(None)
            return "a call is gone"
        case ast.AsyncFunctionDef():
            start = 1 if ast.get_docstring(node) is not None else 0
            node.body[start:start] = ast.parse(_CHECKPOINT, mode="exec").body
            return "there is one more await"
        case _:
            return None


def sample(count: int, seed: int, rooms: tuple[str, ...] = tuple(ROOMS)) -> list[Mutant]:
    """Return *count* mutants, drawn by *seed*, as many of each room as there are."""
    drawn: list[Mutant] = []
    dice = Random(seed)  # noqa: S311  # no secret
    by_room = {
        room: [
            mutant
            for mutant in mutants_of(room, (ROOT / "agentpool" / room).read_text())
            if not mutant.is_equivalent
        ]
        for room in rooms
    }
    for found in by_room.values():
        dice.shuffle(found)
    while len(drawn) < count and any(by_room.values()):
        for found in by_room.values():
            if found and len(drawn) < count:
                drawn.append(found.pop())
    return drawn


def copy_package(folder: Path) -> dict[str, str]:
    """Copy the package into *folder*; return the environment in which the copy is tested."""
    copied = folder / "agentpool"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(ROOT / "agentpool", copied, ignore=shutil.ignore_patterns("__pycache__"))
    path = f"{folder}{os.pathsep}{ROOT}"
    # Safe: or the processes that tests start would find the package in their folder first.
    safe = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, "PYTHONPATH": path, **safe}


def pytest(*arguments: str) -> list[str]:
    """Return the command that tests what is on the path."""
    # -P: or the package in the current folder would be found first.
    return [sys.executable, "-P", *arguments, "-q", "-p", "no:cacheprovider"]


def find_covering(rooms: Iterable[str], folder: Path) -> Covering:
    """Run the tests of *rooms* once; return which of them run which lines, the fastest first."""
    env = copy_package(folder)
    seconds, data = folder / "seconds.json", folder / "coverage"
    env["AGENTPOOL_TEST_SECONDS"] = str(seconds)
    paths = sorted({path for room in rooms for path in ROOMS[room]})
    include = ",".join(str(folder / "agentpool" / room) for room in rooms)
    measure = ("-m", "coverage", "run", f"--data-file={data}", f"--include={include}", "--rcfile=")
    command = pytest(*measure, "-m", "pytest", "-p", "tests.mutation.covering")
    done = subprocess.run([*command, *paths], cwd=ROOT, env=env, check=False)
    if done.returncode:
        sys.exit("the tests fail without a mutant")
    took = msgspec.json.decode(seconds.read_bytes(), type=dict[str, float])
    measured = CoverageData(str(data))
    measured.read()
    covering: Covering = {}
    for room in rooms:
        by_line = measured.contexts_by_lineno(str(folder / "agentpool" / room))
        # For lines that run when the room is loaded: whatever runs anything of it.
        by_line[0] = [test for tests in by_line.values() for test in tests]
        for line, tests in by_line.items():
            known = sorted(set(tests) & took.keys(), key=took.__getitem__)
            covering[room, line] = [(test, took[test]) for test in known]
    return covering


def is_noticed(mutant: Mutant, covering: Covering, folder: Path) -> bool:
    """Return whether a test that runs the line fails with *mutant* in a copy of the package."""
    tests = covering.get((mutant.room, mutant.line)) or covering.get((mutant.room, 0), [])
    whole = accumulate(seconds for _, seconds in tests)
    tests = [test for test, so_far in zip(tests, whole, strict=True) if so_far <= MOST_SECONDS]
    env = copy_package(folder)
    (folder / "agentpool" / mutant.room).write_text(mutant.source)
    for begin, end in ((0, 12), (12, 60), (60, None)):
        some = tests[begin:end]
        if not some:
            break
        longest = 60 + 4 * sum(seconds for _, seconds in some)
        command = [*pytest("-m", "pytest", "-x"), *(test for test, _ in some)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=env, capture_output=True, timeout=longest, check=False
            )
        except subprocess.TimeoutExpired:
            return True  # it hangs, and somebody would see that
        if done.returncode:
            return True
    return False


def report(drawn: Sequence[Mutant], unnoticed: Sequence[Mutant]) -> tuple[str, bool]:
    """Return what was found, for people, and whether it is enough."""
    lines: list[str] = []
    enough = True
    for room in dict.fromkeys(mutant.room for mutant in drawn):
        count = sum(mutant.room == room for mutant in drawn)
        missed = sum(mutant.room == room for mutant in unnoticed)
        share = 100 * (count - missed) / count
        enough = enough and share >= LEAST_OF_A_ROOM
        lines.append(f"{share:6.1f} %  {count - missed:4} of {count:4}  {room}")
    share = 100 * (len(drawn) - len(unnoticed)) / len(drawn)
    enough = enough and share >= LEAST
    lines.append(f"{share:6.1f} %  {len(drawn) - len(unnoticed):4} of {len(drawn):4}  in all")
    lines += [f"not noticed: {one.room}:{one.line} {one.what}: {one.text}" for one in unnoticed]
    return "\n".join(lines), enough


def main() -> None:
    """Try a sample, print what was not noticed, and exit with 1 if that is too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=260, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument("--report", type=Path, help="a file for the report")
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), help="which rooms")
    wanted = parser.parse_args()
    drawn = sample(wanted.count, wanted.seed, tuple(wanted.rooms))
    unnoticed: list[Mutant] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        covering = find_covering(wanted.rooms, folder)
        for nth, mutant in enumerate(drawn, 1):
            noticed = is_noticed(mutant, covering, folder)
            if not noticed:
                unnoticed.append(mutant)
            word = "noticed" if noticed else "NOT NOTICED"
            print(f"{nth}/{len(drawn)} {mutant.room}:{mutant.line} {mutant.what}: {word}", flush=True)  # noqa: E501, T201  # fmt: skip
    text, enough = report(drawn, unnoticed)
    print(text)  # noqa: T201  # what it is for
    if wanted.report is not None:
        wanted.report.write_text(f"{text}\n")
    sys.exit(not enough)


if __name__ == "__main__":
    main()
