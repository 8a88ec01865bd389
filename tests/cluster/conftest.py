"""Pools here, on nodes in threads, and on nodes of a real Ray cluster."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from agentpool import AgentPool, PrivacyTier, open_pool
from agentpool.cluster import open_cluster, open_cluster_pool
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


# What Ray warns of in its own code is not ours to mend.
ON_RAY = (pytest.mark.cluster, pytest.mark.filterwarnings("ignore"))


@pytest.fixture
def no_network() -> None:
    """Let Ray connect to this machine by its name; nothing here looks anything else up."""


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Start a head and one more node, and join them from this process."""
    from tests.support.ray_nodes import environment, ray_cluster

    with ray_cluster("w0", "w1", env={"ONLY_ON_W0": "x"}) as cluster:
        import ray

        os.environ.update(environment())
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        try:
            yield cluster.address
        finally:
            ray.shutdown()


@pytest.fixture
def open_on_ray(ray_address: str) -> Opener:
    """Return what opens a pool whose work the nodes of a real cluster do."""

    def open_one(**terms: object) -> AbstractAsyncContextManager[AgentPool]:
        return open_ray(ray_address, **terms)

    return open_one


@asynccontextmanager
async def open_ray(
    address: str, *, tools: object = None, **terms: object
) -> AsyncGenerator[AgentPool, None]:
    """Open a pool on Ray. These nodes are this machine, so what is Sovereign may go there."""
    there = tools if isinstance(tools, str) else None
    here = None if there else tools
    async with (
        open_cluster(MODEL, address=address, tools=there, privacy=PrivacyTier.SOVEREIGN) as cluster,
        open_cluster_pool(cluster, tools=here, **terms) as pool,  # type: ignore[arg-type]
    ):
        yield pool


@pytest.fixture(params=["open_pool", "threads", pytest.param("ray", marks=ON_RAY)])
def open_any(request: pytest.FixtureRequest) -> Opener:
    """Return what opens a pool of one kind."""
    if request.param == "ray":
        opener: Opener = request.getfixturevalue("open_on_ray")
        return opener
    return open_here if request.param == "open_pool" else open_local
