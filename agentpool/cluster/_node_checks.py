"""Checks whether a node has everything it needs before it gets work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import msgspec

from agentpool._manifest.manifest import AgentManifest


@final
class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The program's requirements for each node."""

    agentpool: str
    """The version of the program's agentpool."""
    python: tuple[int, int]
    """The version of the program's Python."""
    ray: str
    """The version of the program's Ray. Empty: Ray is not used."""
    driver: str | None
    """The import path of the driver. ``None``: each manifest names its own."""
    tools: str | None
    """The import path of the tools. ``None``: no tools run on nodes."""
    modules: tuple[str, ...]
    """Modules that the node must have."""
    keys: tuple[str, ...]
    """Environment variables that must be set on the node."""
    lease_seconds: float
    """How long a node works without a message from the program."""
    start_seconds: float
    """How long a node may take to start. Its lease begins after that."""


@final
class Here(msgspec.Struct, frozen=True, kw_only=True):
    """The versions and packages of a node."""

    agentpool: str
    python: tuple[int, int]
    ray: str


def faults(terms: Terms, here: Here, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the faults of a node, one sentence for each."""
    if here.python != terms.python:
        yield (
            f"it runs Python {_dotted(here.python)}, but the program runs "
            f"{_dotted(terms.python)}; install the same version"
        )
    if here.agentpool != terms.agentpool:
        yield (
            f"it has agentpool {here.agentpool}, but the program has {terms.agentpool}; install "
            "the same version"
        )
    if terms.ray and here.ray != terms.ray:
        yield f"it has Ray {here.ray}, but the program has {terms.ray}; install the same version"
    for key in terms.keys:
        if not environ.get(key, "").strip():
            yield f"{key} is not set in its environment; set it where the node is started"


def key_names(manifest: AgentManifest) -> set[str]:
    """Return the environment variables that a manifest's models name for their API keys."""
    models = (manifest.model, manifest.model.fallback)
    places = [model.place for model in models if model is not None]
    return {place.api_key_env for place in places if place is not None and place.api_key_env}


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
