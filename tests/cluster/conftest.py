"""Pools here, on nodes in threads, and on nodes of a real Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from agentpool import AgentPool, open_pool
from agentpool.cluster import open_cluster_pool
from tests.support import node_work

Opener = Callable[..., AbstractAsyncContextManager[AgentPool]]
"""Opens a pool with the arguments of ``open_pool``, but for the driver."""

MODEL = "tests.support.node_work:open_model"


def open_here(**terms: object) -> AbstractAsyncContextManager[AgentPool]:
    """Open a pool in which all is done here."""
    tools = terms.pop("tools", None)
    there = {"tests.support.node_work:TOOLS": node_work.TOOLS,
             "tests.support.node_work:build_kit": node_work.build_kit}  # fmt: skip
    return open_pool(node_work.open_model, tools=there.get(str(tools)), **terms)  # type: ignore[arg-type]


def open_local(**terms: object) -> AbstractAsyncContextManager[AgentPool]:
    """Open a pool whose work two nodes in threads do."""
    return open_cluster_pool(MODEL, address="local:2", **terms)  # type: ignore[arg-type]


@pytest.fixture(params=["open_pool", "threads", pytest.param("ray", marks=pytest.mark.cluster)])
def open_any(request: pytest.FixtureRequest) -> Opener:
    """Return what opens a pool of one kind."""
    if request.param == "ray":
        opener: Opener = request.getfixturevalue("open_on_ray")
        return opener
    return open_here if request.param == "open_pool" else open_local
