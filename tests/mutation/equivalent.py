"""Mutants that change nothing that anybody can see, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EQUIVALENT: Final[Mapping[tuple[str, str, str], str]] = {}
"""The room, the line as it is, and how it is broken; and why nobody can see it."""
