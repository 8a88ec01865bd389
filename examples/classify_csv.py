"""Sort the rows of a CSV file, however long, into a few classes; write a CSV file of them.

    python classify_csv.py mails.csv --column text > sorted.csv

Rows are read as agents take them, so the file may be larger than memory. A row that could not
be sorted has an empty class and says why; no row is lost, and none waits for another.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TextIO

import attrs
import trio

from agentpool import AgentManifest, AgentPoolError, PoolPlan, open_manifest_pool
from agentpool.abc import Driver

CLERK = AgentManifest.parse(
    """
name = "clerk"
capabilities = []
[model]
system_prompt = "Say of each text whether it is a question, praise, or a complaint."
temperature = 0.0
max_tokens = 60
[resources]
max_iterations = 4
run_seconds = 120
"""
)


@attrs.frozen
class Kind:
    """What a text is."""

    kind: Literal["question", "praise", "complaint"]


def texts_of(file: TextIO, column: str) -> Iterator[str]:
    """Yield the text of each row.

    Raises:
        ValueError: If there is no such column.
    """
    rows = csv.DictReader(file)
    if column not in (rows.fieldnames or ()):
        raise ValueError(f"there is no column {column!r}; there are {rows.fieldnames}")
    for row in rows:
        yield row[column] or "(empty)"


async def classify(
    file: TextIO, out: TextIO, *, column: str, at_once: int, driver: Driver | None = None
) -> Mapping[str, int]:
    """Write a line for each row of *file* to *out*, and return how many there are of each kind.

    Args:
        file: A CSV file with a line of names.
        out: Where lines go, in the order of the rows.
        column: The column with the text.
        at_once: How many rows are worked on at the same time.
        driver: Answers in place of the model, for tests.
    """
    counts: dict[str, int] = {}
    lines = csv.writer(out)
    lines.writerow(("row", "kind", "fault"))
    plan = PoolPlan(manifests=(CLERK,), max_concurrent=at_once, driver=driver)
    async with (
        open_manifest_pool(plan) as pool,
        pool.map(CLERK, texts_of(file, column), ordered=True, output_type=Kind) as outcomes,
    ):
        row = 0
        async for outcome in outcomes:
            row += 1
            kind = outcome.value.kind if isinstance(outcome.value, Kind) else ""
            lines.writerow((row, kind, "" if kind else outcome.error))
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def main(
    argv: Sequence[str] | None = None, driver: Driver | None = None, out: TextIO = sys.stdout
) -> int:
    """Do what the command line says: 0 if every row has a class, 1 if one has none."""
    parser = argparse.ArgumentParser(description="Sort the rows of a CSV file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--column", default="text", help="the column to read (%(default)s)")
    parser.add_argument("--at-once", type=int, default=4, help="rows at a time (%(default)s)")
    words = parser.parse_args(argv)
    try:
        with words.file.open(newline="", encoding="utf-8") as file:
            counts = trio.run(
                lambda: classify(
                    file, out, column=words.column, at_once=words.at_once, driver=driver
                )
            )
    except (AgentPoolError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{n} {kind or 'without a class'}" for kind, n in sorted(counts.items())),
          file=sys.stderr)  # fmt: skip
    return 1 if counts.get("") else 0


if __name__ == "__main__":
    sys.exit(main())
