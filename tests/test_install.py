"""How an extra is installed: as this installation was."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import attrs
import pytest

from agentpool._install import as_installed

ADVICE = "it needs llama.cpp; run: pip install 'trio-agentpool[local]', or name another"


@attrs.define(eq=False)
class Installed(importlib.metadata.Distribution):
    """An installation with a record of where it came from."""

    record: object

    def read_text(self, filename: str) -> str | None:
        """Return the record."""
        assert filename == "direct_url.json"
        return None if self.record is None else json.dumps(self.record)

    def locate_file(self, path: object) -> None:  # type: ignore[override]
        """Find nothing."""


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (None, "'trio-agentpool[local]'"),
        ({"url": "file:///my/a%20clone", "dir_info": {}}, "'/my/a clone[local]'"),
        ({"url": "file:///my/clone", "dir_info": {"editable": True}}, "-e '/my/clone[local]'"),
        ({"url": "file:///a-1-py3.whl", "archive_info": {}}, "'/a-1-py3.whl[local]'"),
        (
            {"url": "https://host.example/a.whl", "archive_info": {}},
            "'trio-agentpool[local] @ https://host.example/a.whl'",
        ),
        (
            {"url": "https://host.example/a", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            "'trio-agentpool[local] @ git+https://host.example/a'",
        ),
    ],
)
def test_an_extra_comes_from_where_the_package_came(
    record: object, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name alone only from PyPI."""
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed(record))
    said = as_installed(ADVICE)
    assert said == f"it needs llama.cpp; run: pip install {wanted}, or name another"


@pytest.mark.parametrize(
    ("missing", "face", "name", "extra"),
    [
        ("hypothesis", "testing", "PoolMachine", "testing"),
        ("numpy", "memory", "open_semantic_memory", "vectors"),
    ],
)
def test_a_name_that_needs_an_extra_says_how_to_have_it(
    missing: str, face: str, name: str, extra: str
) -> None:
    """It says how to have it from here, and that the rest does not need it."""
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom agentpool.{face} import {name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    how = as_installed(f"run: pip install 'trio-agentpool[{extra}]'; ")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"{how}the rest of agentpool.{face} works without " in last


def test_a_source_tree_has_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not installed at all."""

    def fail(name: str) -> object:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", fail)
    assert as_installed(ADVICE) == ADVICE
