"""The options of ``agentpool map`` for several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentpool._cli._inputs import FROM_STANDARD_INPUT, may_wait
from agentpool._cli._options import count, seconds
from agentpool._cli._parser import Parser, Words

LEASE_SECONDS: Final = 30.0
"""How long a worker may be silent, unless the command line says otherwise."""


def add_workers(parser: Parser) -> None:
    """Add the options of ``--workers`` to *parser*."""
    parser.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="share the inputs among N processes, through the file of --journal; each "
        "opens its own model. The same command in another terminal joins in",
    )
    parser.add_argument(
        "--lease",
        type=seconds,
        metavar="SECONDS",
        help="with --workers: how long one may be silent before another one continues what it "
        f"had ({LEASE_SECONDS:g}); with --cluster: how long a node works without a word from "
        "here (10)",
    )


def read_workers(parser: Parser, found: Words, argv: Sequence[str]) -> int | None:
    """Return how many processes share the inputs. ``None``: only this process has them.

    If *argv* does not give the total number of agents, each process has at least one agent.

    Raises:
        UsageError: If other options exclude it.
    """
    if found.workers is None:
        if found.lease is not None and found.cluster is None:
            parser.error("--lease has no effect without --workers or --cluster; leave it out")
        return None
    if found.journal is None:
        parser.error("--workers shares the inputs through a journal; add --journal FILE")
    for word in ("trace", "report", "live"):
        if getattr(found, word) is not None:
            parser.error(f"--{word} works with one process only; leave it out, or --workers")
    if found.approve == "later":
        parser.error("--approve later works with one process only; leave it out, or --workers")
    for path in (path for source in found.each for path in source):
        if may_wait(path):
            name = "standard input" if path == FROM_STANDARD_INPUT else f"{path!r}"
            parser.error(f"workers cannot share {name}; write it to a file")
    if not any(word.partition("=")[0] == "--max-concurrent" for word in argv):
        found.max_concurrent = max(found.max_concurrent, found.workers)
    _refuse_too_many(parser, found, found.workers)
    return found.workers


def _refuse_too_many(parser: Parser, found: Words, workers: int) -> None:
    for word in ("max_concurrent", "rpm", "tpm"):
        number = getattr(found, word)
        if number is not None and number < workers:
            option = f"--{word.replace('_', '-')}"
            parser.error(
                f"{workers} workers divide {option} among them, but it is only {number}; give a "
                "larger number, or use fewer workers"
            )
