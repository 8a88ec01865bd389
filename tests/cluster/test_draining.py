"""Nodes that are drained: how the agents that had tools there have ended does not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import trio

from agentpool import SpawnConfig
from agentpool.cluster import NodeState, open_cluster, open_cluster_pool
from tests.cluster.conftest import MODEL
from tests.cluster.test_same_behaviour import job, started

BOTH = ["tests.support.node_work:TOOLS", "tests.support.node_work:build_kit"]
End = Literal["cancel", "deadline", "abort", "pool"]


@pytest.mark.parametrize("tools", BOTH)
@pytest.mark.parametrize("how", ["cancel", "deadline", "abort", "pool"])
async def test_an_agent_that_was_ended_in_a_tool_call_keeps_no_node(
    how: End, tools: str, tmp_path: Path
) -> None:
    """Shared tools and tools of its own are let go when it has ended."""
    file = tmp_path / "marks"
    call = job(f'call nap {{"seconds": 600, "file": "{file}"}}')
    if how == "deadline":
        call = SpawnConfig(call.manifest, call.query, deadline_seconds=2.0)
    with trio.fail_after(120):
        async with open_cluster(MODEL, address="local:1", tools=tools) as cluster:
            async with open_cluster_pool(cluster) as pool:
                handle = await pool.spawn(call)
                await started(1, file)
                if how == "cancel":
                    handle.cancel("enough")
                elif how != "deadline":
                    pool.abort_all("enough")
                if how != "pool":
                    await handle.wait()
                    await cluster.drain("local-1")
            if how == "pool":
                await cluster.drain("local-1")
            assert [one.state for one in cluster.nodes()] == [NodeState.DRAINED]
