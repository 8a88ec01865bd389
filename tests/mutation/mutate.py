"""Breaks one line of a room at a time, and looks whether its tests notice.

``python -m tests.mutation.mutate`` takes a seeded sample from the pure and the concurrent
rooms, runs the tests of each room against a copy of the package with one mutant in it, and
prints those that no test noticed. ``nox -s mutants`` does the same.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import attrs

ROOT: Final = Path(__file__).parent.parent.parent

ROOMS: Final[dict[str, tuple[str, ...]]] = {
    "_scheduling/fair_queue.py": ("tests/scheduling/test_fair_queue.py", "tests/pool"),
    "_scheduling/slot.py": ("tests/scheduling", "tests/pool"),
    "_messaging/inbox.py": ("tests/messaging",),
    "_pool/admission.py": ("tests/pool",),
    "_pool/deadlock.py": ("tests/pool/test_deadlock.py", "tests/pool"),
    "_pool/fan_in.py": ("tests/pool",),
    "_pool/map.py": ("tests/pool/test_map.py", "tests/pool"),
    "_agent/retry.py": ("tests/agent/test_retry.py", "tests/agent"),
    "_budget/account.py": ("tests/budget",),
    "_loop/guard.py": ("tests/loop",),
    "drivers/_throttle.py": ("tests/drivers/test_throttle.py", "tests/drivers/test_gate.py"),
    "drivers/_gate.py": ("tests/drivers/test_gate.py",),
    "memory/_rank.py": ("tests/memory",),
}
"""Each room, with the tests that should notice, the fastest first."""

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


def mutants_of(room: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of *source*."""
    for index, first in enumerate(ast.walk(ast.parse(source))):
        if not isinstance(first, _BREAKABLE):
            continue
        tree = ast.parse(source)
        node = next(node for nth, node in enumerate(ast.walk(tree)) if nth == index)
        what = _break(node)
        if what is not None:
            text = ast.unparse(ast.fix_missing_locations(tree))
            yield Mutant(room, getattr(node, "lineno", 0), what, text)


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
        room: list(mutants_of(room, (ROOT / "agentpool" / room).read_text())) for room in rooms
    }
    for found in by_room.values():
        dice.shuffle(found)
    while len(drawn) < count and any(by_room.values()):
        for found in by_room.values():
            if found and len(drawn) < count:
                drawn.append(found.pop())
    return drawn


def is_noticed(mutant: Mutant, folder: Path, seconds: float) -> bool:
    """Return whether the tests of its room fail with *mutant* in a copy of the package."""
    copied = folder / "agentpool"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(ROOT / "agentpool", copied, ignore=shutil.ignore_patterns("__pycache__"))
    (copied / mutant.room).write_text(mutant.source)
    # -P: or the package in the current folder would be found first.
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    env = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            [*command, *ROOMS[mutant.room]],
            cwd=ROOT, env=env, capture_output=True, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True  # it hangs, and somebody would see that
    return done.returncode != 0


def main() -> None:
    """Try a sample, and print what was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument("--seconds", type=float, default=120.0, help="the longest for each")
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), help="which rooms")
    wanted = parser.parse_args()
    drawn = sample(wanted.count, wanted.seed, tuple(wanted.rooms))
    unnoticed: list[Mutant] = []
    with tempfile.TemporaryDirectory() as folder:
        for nth, mutant in enumerate(drawn, 1):
            noticed = is_noticed(mutant, Path(folder), wanted.seconds)
            if not noticed:
                unnoticed.append(mutant)
            word = "noticed" if noticed else "NOT NOTICED"
            print(f"{nth}/{len(drawn)} {mutant.room}:{mutant.line} {mutant.what}: {word}", flush=True)  # noqa: E501, T201  # fmt: skip
    print(f"{len(drawn) - len(unnoticed)} of {len(drawn)} were noticed")  # noqa: T201  # what it is for
    for mutant in unnoticed:
        print(f"  {mutant.room}:{mutant.line} {mutant.what}")  # noqa: T201  # the same


if __name__ == "__main__":
    main()
