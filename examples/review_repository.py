"""Let one reviewer read each file of a folder; exit with 1 if one finds something grave.

    python review_repository.py src
    python review_repository.py src --model anthropic/claude-opus-4-5 --tokens 400000

Without --model the packaged model answers, on this machine: it shows that the program runs, but
is no reviewer, and takes up to a minute for each file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import attrs
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentPoolError,
    Budget,
    PoolPlan,
    SpawnConfig,
    open_manifest_pool,
)
from agentpool.abc import Driver

PROMPT = (
    "You review one file of a program. Report what will break, leak or hang, and nothing "
    "about style. An empty list is a good answer."
)


@attrs.frozen
class Finding:
    """Something in a file that should be looked at."""

    line: int
    severity: Literal["low", "high"]
    text: str


@attrs.frozen
class Review:
    """What a reviewer says of one file."""

    findings: tuple[Finding, ...] = ()


def reviewer(model: str | None) -> AgentManifest:
    """Return the manifest of a reviewer that *model*, such as ``openai/gpt-5``, answers."""
    provider, _, name = (model or "").partition("/")
    where = (
        f'provider = "{provider}"\nremote_model = "{name}"'
        if name
        else "temperature = 0.0\nmax_tokens = 200"
    )
    privacy = "Standard" if name else "Sovereign"
    return AgentManifest.parse(
        f'name = "reviewer"\nprivacy = "{privacy}"\ncapabilities = []\n'
        f'[model]\nsystem_prompt = "{PROMPT}"\n{where}\n'
        "[resources]\nmax_iterations = 4\nrun_seconds = 300\n"
    )


async def review(
    paths: Sequence[Path], *, model: str | None, tokens: int, driver: Driver | None = None
) -> list[AgentOutcome]:
    """Return what became of the reviewer of each file, in the order of *paths*.

    A line on standard error says which file is done.

    Args:
        paths: The files, as UTF-8.
        model: Who answers. ``None``: the packaged model.
        tokens: What all reviewers may use together.
        driver: Answers in place of the model, for tests.
    """
    manifest = reviewer(model)
    plan = PoolPlan(
        manifests=(manifest,), max_concurrent=4, budget=Budget(tokens=tokens), driver=driver
    )
    async with open_manifest_pool(plan) as pool:
        handles = [
            await pool.spawn(
                SpawnConfig(
                    manifest,
                    f"{path.name}:\n\n{await trio.Path(path).read_text('utf-8') or '(empty)'}",
                    name=path.name,
                    output_type=Review,
                )
            )
            for path in paths
        ]
        ended = 0
        async for outcome in pool.as_completed():
            ended += 1
            what = f"{ended} of {len(paths)}: {outcome.name} {outcome.status.value}"
            print(what, file=sys.stderr)
        return [await handle.wait() for handle in handles]


def tell(paths: Sequence[Path], outcomes: Sequence[AgentOutcome]) -> int:
    """Print what was found, and return the exit code: 0 fine, 1 grave, 2 not all was read."""
    code = 0
    for path, outcome in zip(paths, outcomes, strict=True):
        if not isinstance(outcome.value, Review):
            print(f"{path}: not reviewed: {outcome.error}")
            code = 2
            continue
        for finding in outcome.value.findings:
            print(f"{path}:{finding.line}: {finding.severity}: {finding.text}")
            if finding.severity == "high":
                code = max(code, 1)
    return code


def main(argv: Sequence[str] | None = None, driver: Driver | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Review each file of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--glob", default="**/*.py", help="which, but hidden ones (%(default)s)")
    parser.add_argument("--model", metavar="PROVIDER/NAME")
    parser.add_argument("--tokens", type=int, default=200_000, help="for all (%(default)s)")
    words = parser.parse_args(argv)
    paths = sorted(
        path
        for path in words.folder.glob(words.glob)
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(words.folder).parts)
    )
    if not paths:
        print(f"no file in {words.folder} is like {words.glob}", file=sys.stderr)
        return 2
    who = words.model or "the packaged model"
    print(f"{who} reads {len(paths)} files, at most four at a time", file=sys.stderr)
    ask = {"model": words.model, "tokens": words.tokens, "driver": driver}
    try:
        outcomes = trio.run(lambda: review(paths, **ask))
    except AgentPoolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return tell(paths, outcomes)


if __name__ == "__main__":
    sys.exit(main())
