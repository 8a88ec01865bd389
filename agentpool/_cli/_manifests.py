"""The manifests that a command names, with the words of its options in them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from agentpool import AgentManifest, ManifestError
from agentpool._cli._override import Override
from agentpool._errors import Fault


def load_all(paths: Sequence[str], override: Override) -> list[AgentManifest]:
    """Return the manifests in the files *paths*, changed by *override*.

    Raises:
        ManifestError: If any of them is wrong. Carries the faults of all.
        UsageError: If the override has no meaning for one of them.
    """
    manifests: list[AgentManifest] = []
    wrong: list[ManifestError] = []
    for path in paths:
        try:
            manifest = AgentManifest.load(path)
            manifests.append(override.apply(manifest, source=path, environ=os.environ))
        except ManifestError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise ManifestError([_placed(error, f) for error in wrong for f in error.faults], source="")
    return manifests


def _placed(error: ManifestError, fault: Fault) -> Fault:
    """Return *fault* with its file before its path: it stands beside those of other files."""
    return Fault(f"{error.source}: {fault.path}".removesuffix(": "), fault.text)
