"""What is wrong with tools, labels and models is told when a cluster is opened, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import pytest
import trio

from agentpool import AgentManifest, PrivacyTier, SpawnConfig, UsageError
from agentpool.cluster import (
    NodeCheckError,
    NodeState,
    _far_driver,
    _nodes,
    open_cluster,
    open_cluster_pool,
)
from agentpool.cluster._far_driver import FarDrivers
from agentpool.cluster._node_checks import Terms
from agentpool.cluster._node_link import Wire
from agentpool.cluster._open import _running
from agentpool.cluster._source import FoundNode
from tests.cluster.conftest import MODEL
from tests.cluster.test_edges import Odd, found, terms
from tests.cluster.test_same_behaviour import job, started
from tests.support import node_work

WORK = "tests.support.node_work:"
HERE = PrivacyTier.SOVEREIGN

KINDS = [
    ("tools", "process", "is a single tool; name a registry"),
    ("tools", "MEETING", "must be a ToolRegistry, or a function"),
    ("driver", "MEETING", "must be a Driver, or a function"),
]


@pytest.mark.parametrize(("what", "name", "says"), KINDS)
async def test_what_is_of_no_use_is_refused_before_anything_starts(
    what: str, name: str, says: str
) -> None:
    """It is named, and what it must be."""
    given: Mapping[str, str] = {"driver": MODEL} | {what: WORK + name}
    with pytest.raises(UsageError, match=says) as caught:
        async with open_cluster(address="local:1", **given):  # type: ignore[arg-type]
            raise AssertionError
    assert repr(WORK + name) in str(caught.value)


UNLIKE = [
    ("less", "it has no tool 'nap', but the program does; install the same"),
    ("more", "it has a tool 'refuse', but the program does not; install the same"),
    ("schema", "its tool 'nap' differs from the program's in description, input_schema"),
    ("asked", "its tool 'process' differs from the program's in timeout_seconds, needs_approval"),
    ("made", "its tools are made for each agent, but the program's are one registry"),
    ("number", "must be a ToolRegistry, or a function that makes one for each agent, got 42"),
]


@pytest.mark.parametrize(("kind", "says"), UNLIKE)
async def test_a_node_with_other_tools_is_named(kind: str, says: str) -> None:
    """With the tool. If not every node must do, it gets no work."""
    tools = f"{WORK}UNLIKE_{kind}"
    with pytest.raises(NodeCheckError) as caught:
        async with open_cluster(MODEL, address="local:2", tools=tools):
            raise AssertionError
    assert caught.value.node == "local-2"
    assert str(caught.value).startswith("node local-2 cannot do this work: ")
    assert says in str(caught.value)
    async with open_cluster(MODEL, address="local:2", tools=tools, every_node=False) as cluster:
        assert [one.state for one in cluster.nodes()] == [NodeState.WORKING, NodeState.REFUSED]
        async with open_cluster_pool(cluster) as pool:
            handles = await pool.fan_out(job("call process {}") for _ in range(3))
            assert all([(await one.wait()).text.isdigit() for one in handles])


async def test_labels_that_no_node_has_are_told_with_the_manifest() -> None:
    """Before its first agent is there."""

    def labels(manifest: AgentManifest) -> dict[str, str]:
        return {"gpu": "yes", "zone": "a"} if manifest.name == "picky" else {}

    manifests = [AgentManifest(name=name, privacy=HERE) for name in ("easy", "picky")]
    with pytest.raises(UsageError) as caught:
        async with open_cluster(MODEL, address="local:2", labels=labels, manifests=manifests):
            raise AssertionError
    told = (
        "manifest 'picky': no node has the labels gpu=yes, zone=a; the nodes are local-1, local-2"
    )
    assert str(caught.value) == told


async def test_a_model_that_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether what opens it can be cancelled or not; and requests do not wait for it either."""
    monkeypatch.setattr(_far_driver, "LATE_SECONDS", 0.1)
    node_work.STUCK.clear()
    try:
        for name in ("slow", "held"):
            one = AgentManifest(name=name, privacy=HERE)
            with trio.fail_after(50), pytest.raises(NodeCheckError) as caught:
                async with open_cluster(
                    WORK + "open_stuck", address="local:1", manifests=[one], model_seconds=0.1
                ):
                    raise AssertionError
            told = f"node local-1 did not open the model of manifest {name!r} within 0.1 seconds"
            assert str(caught.value) == told
    finally:
        node_work.STUCK.set()
    slow = SpawnConfig(AgentManifest(name="slow", privacy=HERE), "x")
    async with (
        open_cluster(WORK + "open_stuck", address="local:1", model_seconds=0.1) as cluster,
        open_cluster_pool(cluster) as pool,
    ):
        outcome = await (await pool.spawn(slow)).wait()
        quick = await (await pool.spawn(job("say quick"))).wait()
    assert isinstance(outcome.error, NodeCheckError)
    assert "within 0.1 seconds" in str(outcome.error)
    assert quick.text == "quick"


@pytest.mark.parametrize("losses", [1, 3])
async def test_a_node_that_is_lost_while_it_opens_a_model_is_started_again(
    losses: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever it was, it may have had another cause; but not three times."""
    monkeypatch.setattr(_nodes, "LOOK_SECONDS", 0.05)
    file = tmp_path / "marks"
    slow = AgentManifest(name=f"slow {file}", privacy=HERE)
    needs = terms(0.5, WORK + "open_held_once_more")
    async with _running(Odd(found("n1")), needs, HERE, every_node=False) as nodes:
        drivers = FarDrivers(nodes, None)

        async def lose_all() -> None:
            for number in range(losses):
                await started(number + 1, file)
                nodes.links["n1"]._wire.kill()

        node_work.HELD_TIMES[slow.name] = losses
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose_all)
            await drivers.open_everywhere([slow], every_node=False)
        wanted = NodeState.WORKING if losses == 1 else NodeState.REFUSED
        with trio.fail_after(60):
            while nodes.status()[0].state is not wanted:  # noqa: ASYNC110
                await trio.sleep(0.02)
        (link,) = nodes.links.values()
        (status,) = nodes.status()
    assert (drivers(slow).number in link.models) is (losses == 1)
    assert ("did not open the model of manifest 'slow " in status.reason) is (losses == 3)


@final
class Counting(Odd):
    """Nodes whose starts are counted."""

    starts = 0

    async def start(self, node: FoundNode, terms: Terms) -> Wire:
        """Start a node, if it may."""
        self.starts += 1
        return await super().start(node, terms)


async def test_a_start_that_fails_is_no_loss_while_a_model_is_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However often it fails after such a loss: the node may be used once it starts again."""
    monkeypatch.setattr(_nodes, "LOOK_SECONDS", 0.05)
    file = tmp_path / "marks"
    slow = AgentManifest(name=f"slow {file}", privacy=HERE)
    node_work.HELD_TIMES[slow.name] = 2
    source = Counting(found("n1"))
    needs = terms(0.3, WORK + "open_held_once_more", start_seconds=0.3)
    async with _running(source, needs, HERE, every_node=False) as nodes:

        async def lose_twice() -> None:
            await started(1, file)
            nodes.links["n1"]._wire.kill()
            await started(2, file)
            source.broken["n1"] = "raise"
            nodes.links["n1"]._wire.kill()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose_twice)
            await FarDrivers(nodes, None).open_everywhere([slow], every_node=False)
        with trio.fail_after(60):
            while source.starts < 7:  # noqa: ASYNC110
                await trio.sleep(0.02)
            nodes.terms = terms(0.3, needs.driver or "", start_seconds=30.0)
            source.broken.clear()
            while nodes.status()[0].state is not NodeState.WORKING:  # noqa: ASYNC110
                await trio.sleep(0.02)


@pytest.mark.parametrize(("name", "state"), [("good", "working"), ("broken", "refused")])
async def test_a_node_that_joins_opens_its_models_before_it_gets_work(
    name: str, state: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that cannot gets none, and the log says why."""
    monkeypatch.setattr(_nodes, "LOOK_SECONDS", 0.05)
    one = AgentManifest(name=name, privacy=HERE)
    source = Odd(found("n1"), found("n1"), found("n1", "n2"))
    source.broken["n1"] = "raise"
    async with _running(source, terms(driver=WORK + "open_held"), HERE, every_node=False) as nodes:
        drivers = FarDrivers(nodes, None)
        await drivers.open_everywhere([one], every_node=True)
        with trio.fail_after(60):
            while [node.state.value for node in nodes.status()][1:] != [state]:  # noqa: ASYNC110
                await trio.sleep(0.02)
        (link,) = nodes.links.values()
        while nodes._joining:  # noqa: ASYNC110
            await trio.sleep(0.02)
    assert (drivers(one).number in link.models) is (name == "good")
    assert ("no weights here" in caplog.text) is (name == "broken")
