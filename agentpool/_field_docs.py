"""What ``help`` shows of fields: their types, and the texts below them in the source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise


def with_short_types(kind: type, signature: inspect.Signature) -> inspect.Signature:
    """Return the *signature* of *kind* with its types as they are written in the source."""
    written = dict[str, object]()
    for base in reversed(kind.__mro__):
        written |= inspect.get_annotations(base)
    parameters = signature.parameters.values()
    return signature.replace(
        parameters=[one.replace(annotation=written[one.name]) for one in parameters]
    )


@cache
def with_fields(kind: type, words: str) -> str:
    """Return *words*, the docstring of *kind*, followed by the meaning of each field."""
    fields = dict[str, str]()
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("agentpool"):
            fields.update(_fields_of(base))
    if not fields:
        return words
    told = (f"    {name}: {' '.join(text.split())}" for name, text in fields.items())
    shown = (textwrap.fill(one, 90, subsequent_indent=" " * 8) for one in told)
    return "\n".join((inspect.cleandoc(words), "", "Fields:", *shown))


def _fields_of(kind: type) -> Iterator[tuple[str, str]]:
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):  # the program was packed without its source
        return
    (node,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(node, ast.ClassDef)  # noqa: S101  # it is a class's
    yield from _texts(node.body)
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            yield from _texts(part.body)


def _texts(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield the public names assigned in *body*, each with the text below it."""
    for above, below in pairwise(body):
        match above, below:
            case (
                (ast.AnnAssign(target=target) | ast.Assign(targets=[target])),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                name = target.attr if isinstance(target, ast.Attribute) else ast.unparse(target)
                if not name.startswith("_"):
                    yield name, text
            case _:
                pass
