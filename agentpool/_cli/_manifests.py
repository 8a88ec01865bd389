"""Loads the manifests of a command, changed by its options."""

from __future__ import annotations

import os
from collections.abc import Sequence

import attrs

from agentpool import AgentManifest, ManifestError, PrivacyTier
from agentpool._cli._hidden_keys import hide_keys_of
from agentpool._cli._inputs import file_beside
from agentpool._cli._override import THE_OPTIONS, Override
from agentpool._errors import Fault


def load_all(paths: Sequence[str], override: Override) -> list[AgentManifest]:
    """Load the manifests in the files *paths*, changed by *override*.

    Raises:
        ManifestError: If a manifest is wrong. The error has the faults of all manifests.
        UsageError: If the override does not fit one of the manifests.
    """
    manifests: list[AgentManifest] = []
    wrong: list[ManifestError] = []
    for path in paths:
        try:
            manifest = load_manifest(path)
            manifests.append(override.apply(manifest, source=path, environ=os.environ))
            hide_keys_of(manifests[-1:])
        except ManifestError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise ManifestError([_placed(error, f) for error in wrong for f in error.faults], source="")
    return manifests


def load_manifest(path: str) -> AgentManifest:
    """Load the manifest in the file *path*, and hide its keys in all output from now on.

    Raises:
        ManifestError: If the manifest is wrong. If there is no such file, the error names a file
            that was probably meant.
    """
    try:
        manifest = AgentManifest.load(path)
    except ManifestError as error:
        if not (hint := file_beside(error)):
            raise
        faults = [Fault(fault.path, f"{fault.text}{hint}") for fault in error.faults]
        raise ManifestError(faults, source=error.source) from error
    hide_keys_of([manifest])
    return manifest


def without_manifest(override: Override) -> AgentManifest:
    """Make a manifest for a query that comes without one, changed by *override*.

    The agent has no tools. With a model on this machine, the data stays on this machine. If the
    user names a model elsewhere, the data may go there.

    Raises:
        ManifestError: If the manifest is invalid with the override.
        UsageError: If the override does not fit such a manifest.
    """
    bare = AgentManifest(privacy=PrivacyTier.STANDARD, capabilities=())
    manifest = override.apply(bare, source=THE_OPTIONS, environ=os.environ)
    hide_keys_of([manifest])
    place = manifest.model.place
    if place is None or place.is_here:
        return attrs.evolve(manifest, privacy=PrivacyTier.SOVEREIGN)
    return manifest


def _placed(error: ManifestError, fault: Fault) -> Fault:
    """Return *fault* with the name of its file before its path."""
    return Fault(f"{error.source}: {fault.path}".removesuffix(": "), fault.text)
