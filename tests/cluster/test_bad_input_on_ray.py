"""What is wrong with a real cluster: one clear error each, before the first agent starts there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agentpool.cluster import NodeCheckError, open_cluster
from tests.cluster.conftest import MODEL, ON_RAY
from tests.support.ray_nodes import ROOT, environment, ray_cluster

pytestmark = list(ON_RAY)

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-some-length"}
OTHER_PYTHON = """
import ray._private.utils as utils
from agentpool._cli import main
utils.compute_version_info = lambda: (utils.ray.__version__, "3.99.0")
raise SystemExit(main())
"""
"""A command whose Python says that it is another one, as only one is certain to be here."""

OURS = "agentpool: error: "
"""What our lines begin with: Ray logs on its own what it tries each second."""


@pytest.fixture(scope="module")
def guarded_address() -> Iterator[str]:
    """Start a head that wants a token."""
    with ray_cluster("w0", env=TOKEN) as cluster:
        yield cluster.address


def status(address: str, *start: str, **env: str) -> tuple[int, str, list[str]]:
    """Ask for the state of a cluster. Return exit code, output and our errors."""
    done = subprocess.run(
        [sys.executable, *(start or ("-m", "agentpool")), "cluster", "status", address], cwd=ROOT,
        env={**os.environ, **environment(), **env}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    return done.returncode, done.stdout, [one for one in lines if one.startswith(OURS)]


def test_a_wrong_token_is_told_in_one_line(guarded_address: str) -> None:
    """It says what must be the same; the right one opens the cluster."""
    wrong = status(guarded_address, **{**TOKEN, "RAY_AUTH_TOKEN": "another-token-altogether"})
    code, _, lines = wrong
    assert (code, len(lines)) == (2, 1), lines
    (line,) = lines
    assert "RAY_AUTH_TOKEN must be those of its nodes" in line
    code, out, _ = status(guarded_address, **TOKEN)
    assert (code, out.split()[:2]) == (0, ["w0", "working"])


def test_another_python_is_told_in_one_line(ray_address: str) -> None:
    """With both versions."""
    code, _, lines = status(ray_address, "-c", OTHER_PYTHON)
    assert (code, len(lines)) == (2, 1), lines
    (line,) = lines
    assert f"Python: {sys.version.split()[0]}" in line
    assert "Python: 3.99.0" in line


async def test_a_key_that_one_node_lacks_names_that_node(ray_address: str) -> None:
    """The other one has it."""
    with pytest.raises(NodeCheckError, match=r"w1 .*ONLY_ON_W0 is not set") as caught:
        async with open_cluster(MODEL, address=ray_address, keys=["ONLY_ON_W0"]):
            raise AssertionError("it was opened")
    assert caught.value.node == "w1"


async def test_a_node_that_answers_late_is_named(ray_address: str) -> None:
    """It imports a module that takes too long."""
    with pytest.raises(NodeCheckError, match=r"node w\d did not answer within 5 seconds") as caught:
        async with open_cluster(
            "tests.support.node_work:open_late", address=ray_address, start_seconds=5.0,
            runtime_env={"env_vars": {"AGENTPOOL_TEST_LATE": "1"}},
        ):  # fmt: skip
            raise AssertionError("it was opened")
    assert caught.value.node in {"w0", "w1"}
