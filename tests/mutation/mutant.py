"""A room with one fault in it, and the sample of them that is tried."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from tests.mutation.equivalent import EQUIVALENT

ROOT: Final = Path(__file__).parent.parent.parent

_FLIPPED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip

_CHECKPOINT: Final = "await __import__('trio').lowlevel.checkpoint()"


@attrs.frozen
class Mutant:
    """A room with one fault in it."""

    room: str
    line: int
    what: str
    text: str
    """The line as it was."""
    index: int
    """Which node of the tree is broken."""
    again: int
    """How many like it are above: equal lines, broken in the same way."""
    whole: str = attrs.field(repr=False)
    """The room as it was."""

    @property
    def source(self) -> str:
        """The room as it is with the fault."""
        return ast.unparse(break_node(self.whole, self.index))

    @property
    def digest(self) -> str:
        """What it is known by as long as the room stays as it is."""
        return hashlib.sha256(f"{self.index} {self.room} {self.whole}".encode()).hexdigest()

    @property
    def is_equivalent(self) -> bool:
        """Whether it is known to change nothing that anybody can see."""
        return (self.room, self.text, self.what) in EQUIVALENT

    def rank(self, seed: int) -> bytes:
        """Return its place in the draw, which no change of another line moves."""
        known = f"{seed} {self.room} {self.what} {self.again} {self.text}"
        return hashlib.sha256(known.encode()).digest()


def mutants_of(room: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of *source*."""
    lines = source.splitlines()
    seen = Counter[tuple[str, str]]()
    # A list: to break one changes what is below it.
    for index, node in enumerate(list(ast.walk(ast.parse(source)))):
        what = _break(node)
        if what is not None:
            # What a function begins with, for its first line runs when it is loaded.
            at = node.body[-1] if isinstance(node, ast.AsyncFunctionDef) else node
            line = getattr(at, "lineno", 0)
            text = lines[line - 1].strip() if line else ""
            yield Mutant(room, line, what, text, index, seen[what, text], source)
            seen[what, text] += 1


def break_node(source: str, index: int) -> ast.Module:
    """Return the tree of *source* with the node at *index* broken."""
    tree = ast.parse(source)
    _break(next(node for nth, node in enumerate(ast.walk(tree)) if nth == index))
    return ast.fix_missing_locations(tree)


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


def sample(count: int, seed: int, rooms: Iterable[str]) -> list[Mutant]:
    """Return *count* mutants, drawn by *seed*, as many of each room as there are."""
    drawn: list[Mutant] = []
    by_room = {
        room: [
            mutant
            for mutant in mutants_of(room, (ROOT / "agentpool" / room).read_text())
            if not mutant.is_equivalent
        ]
        for room in rooms
    }
    for found in by_room.values():
        found.sort(key=lambda mutant: mutant.rank(seed))
    while len(drawn) < count and any(by_room.values()):
        for found in by_room.values():
            if found and len(drawn) < count:
                drawn.append(found.pop())
    return drawn
