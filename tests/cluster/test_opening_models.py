"""Models that are opened on nodes: side by side, and what it means if one cannot open its own."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest
import trio

from agentpool import AgentManifest, ModelConfig, PrivacyTier, SpawnConfig
from agentpool._version import __version__
from agentpool.cluster import NodeCheckError, NodeState, open_cluster, open_cluster_pool
from agentpool.cluster._far_driver import FarDrivers
from agentpool.cluster._local_nodes import LocalSource
from agentpool.cluster._node_checks import Terms
from agentpool.cluster._open import _running
from agentpool.drivers import BadRequestError
from tests.cluster.test_same_behaviour import started

TURNS = "tests.support.node_work:open_by_turns"
FAULTS = [
    ("file", "FileNotFoundError: no such file: mine.gguf"),
    ("odd", "this and that"),
    ("exit", "SystemExit: 3"),
    ("number", "the context manager must return a Driver, got 42"),
]


def manifest(name: str) -> AgentManifest:
    """Return one whose data stays here."""
    return AgentManifest(name=name, privacy=PrivacyTier.SOVEREIGN)


@pytest.mark.parametrize(("name", "cause"), FAULTS)
async def test_a_model_that_one_node_cannot_open_names_the_node(name: str, cause: str) -> None:
    """Whatever it failed with."""
    one = manifest(f"{name} strict")
    with pytest.raises(NodeCheckError, match="cannot open the model of manifest") as caught:
        async with open_cluster(TURNS, address="local:2", manifests=[one]):
            raise AssertionError
    assert cause in str(caught.value)
    assert caught.value.node in {"local-1", "local-2"}
    assert str(caught.value).startswith(f"node {caught.value.node} ")


@pytest.mark.parametrize(("name", "cause"), FAULTS)
async def test_such_a_node_gets_no_work_if_not_every_node_must(name: str, cause: str) -> None:
    """Its status says why; the other one does everything."""
    one = manifest(f"{name} lax")
    async with open_cluster(TURNS, address="local:2", manifests=[one], every_node=False) as cluster:
        states = {node.state: node for node in cluster.nodes()}
        assert set(states) == {NodeState.WORKING, NodeState.REFUSED}
        assert cause in states[NodeState.REFUSED].reason
        async with open_cluster_pool(cluster) as pool:
            handles = await pool.fan_out(SpawnConfig(one, f"say {n}") for n in range(4))
            assert [(await handle.wait()).text for handle in handles] == list("0123")
        assert {node.state for node in cluster.nodes()} == set(states)


@pytest.mark.parametrize("every_node", [True, False])
async def test_a_node_that_is_lost_while_it_opens_a_model_is_named(
    every_node: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """As one that cannot open it; if not every node must, it is started again."""
    file = tmp_path / "marks"
    needs = Terms(
        agentpool=__version__, python=(sys.version_info.major, sys.version_info.minor), ray="",
        driver="tests.support.node_work:open_held", tools=None, modules=(), keys=(),
        lease_seconds=1.0, start_seconds=60.0,
    )  # fmt: skip
    async with _running(LocalSource(1), needs, PrivacyTier.SOVEREIGN) as nodes:
        drivers = FarDrivers(nodes, None)

        async def lose() -> None:
            await started(1, file)
            nodes.links["local-1"]._wire.kill()

        raised: list[NodeCheckError] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            try:
                await drivers.open_everywhere([manifest(f"slow {file}")], every_node=every_node)
            except NodeCheckError as error:
                raised.append(error)
        (status,) = nodes.status()
    assert len(raised) == int(every_node)
    for one in raised:
        assert str(one).startswith("node local-1 did not open the model of manifest 'slow ")
        assert "was lost" in str(one)
    assert status.state is NodeState.LOST
    assert "node local-1 was lost" in status.reason


async def test_models_are_opened_side_by_side() -> None:
    """One that takes long keeps no other node waiting."""
    opener = "tests.support.node_work:open_beside_another"
    with trio.fail_after(60):
        async with open_cluster(opener, address="local:2", manifests=[manifest("m")]) as cluster:
            assert {node.state for node in cluster.nodes()} == {NodeState.WORKING}


@pytest.mark.parametrize("kind", ["ours", "system", "odd", "python"])
async def test_a_key_of_a_node_does_not_leave_it_in_an_error(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program may not know it, so the node hides it: in the text and where it was raised."""
    monkeypatch.setenv("READERS_WORD", "named/by=the-manifest")
    monkeypatch.setenv("NODES_OWN_TOKEN", "looks-like-a-key-here")
    at = ModelConfig(remote_model="m", base_url="http://127.0.0.1:9", api_key_env="READERS_WORD")
    one = AgentManifest(name=kind, model=at, privacy=PrivacyTier.SOVEREIGN)
    opener = "tests.support.node_work:open_quoting"
    with pytest.raises(NodeCheckError, match=r"refused") as caught:
        async with open_cluster(opener, address="local:1", manifests=[one]):
            raise AssertionError
    cause = caught.value.__cause__
    assert isinstance(cause, BadRequestError if kind == "ours" else Exception)
    told = "".join(traceback.format_exception(caught.value))
    assert "[secret]" in told
    assert "named/by=the-manifest" not in told
    assert "looks-like-a-key-here" not in told
