"""What somebody wants done: the commands, as values."""

from __future__ import annotations

from typing import TypeAlias, final

import attrs

from agentpool._override import Override


@final
@attrs.frozen(kw_only=True)
class Options:
    """What ``run`` and ``map`` have in common."""

    json: bool
    """Whether results are JSON lines."""
    quiet: bool
    """Whether nothing but results and errors is said."""
    max_concurrent: int
    """Agents that run at the same time."""
    override: Override
    """What goes before the manifests' own words."""
    script: str | None
    """The file that answers in place of a model. ``None``: models answer."""
    deadline_seconds: float | None
    """The longest that one agent may run. ``None``: as its manifest says."""


@final
@attrs.frozen(kw_only=True)
class RunCommand:
    """``agentpool run``."""

    manifests: tuple[str, ...]
    """Their paths; one agent each."""
    query: str
    """What they are asked. ``-``: what is on standard input."""
    options: Options


@final
@attrs.frozen(kw_only=True)
class MapCommand:
    """``agentpool map``."""

    manifest: str
    """Its path; one agent for each file."""
    files: tuple[str, ...]
    """The paths of the inputs."""
    prompt: str | None
    """What is said before each text. ``None``: nothing."""
    reduce: str | None
    """The path of the manifest that gets all answers. ``None``: nobody does."""
    reduce_prompt: str | None
    """What is said before the answers. ``None``: nothing."""
    options: Options


@final
@attrs.frozen(kw_only=True)
class CheckCommand:
    """``agentpool check``."""

    manifests: tuple[str, ...]
    """Their paths."""
    model_file: bool
    """Whether the model's file must be there."""
    json: bool
    """Whether findings are JSON lines."""


Command: TypeAlias = RunCommand | MapCommand | CheckCommand
"""What somebody wants done."""
