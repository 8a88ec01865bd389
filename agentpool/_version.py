"""The version of the installed distribution."""

from __future__ import annotations

import importlib.metadata


def _installed() -> str:
    try:
        return importlib.metadata.version("trio-agentpool")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"  # a source tree on the path


__version__ = _installed()
"""The version that is installed."""
