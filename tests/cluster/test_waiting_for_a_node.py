"""What has no node at the moment waits for one that is started again, and for no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from agentpool import (
    AgentManifest,
    PrivacyTier,
    RetryPolicy,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.cluster import (
    Cluster,
    NodeLostError,
    NodeState,
    _nodes,
    open_cluster,
    open_cluster_pool,
)
from agentpool.cluster._node_loop import NodeHost
from agentpool.cluster._node_messages import SHARED, AgentFacts, Begin, Done, RunTool
from agentpool.cluster._portable import pack, unpack
from agentpool.drivers import (
    Completion,
    CompletionRequest,
    FunctionDriver,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from tests.cluster.conftest import MODEL
from tests.cluster.test_edges import Odd, found, opened, terms
from tests.cluster.test_nodes import Muted, lose
from tests.cluster.test_same_behaviour import job, started
from tests.support import node_work

ONCE = RetryPolicy(max_attempts=1)
TOOLS = "tests.support.node_work:TOOLS"


async def test_a_request_waits_until_a_lost_node_works_again() -> None:
    """It was not made, so it is no attempt that failed."""
    async with (
        open_cluster(MODEL, address="local:2", lease_seconds=1.0) as cluster,
        open_cluster_pool(cluster, request_retries=ONCE, max_concurrent=1) as pool,
    ):
        for name in ("local-1", "local-2"):
            lose(cluster, name)
        with trio.fail_after(60):
            while any(one.state is NodeState.WORKING for one in cluster.nodes()):  # noqa: ASYNC110
                await trio.sleep(0.01)
        first = await pool.spawn(job("say first"))
        second = await pool.spawn(job("say second"))
        assert [(await one.wait()).text for one in (first, second)] == ["first", "second"]


async def test_work_with_labels_waits_for_its_node(tmp_path: Path) -> None:
    """Others that work are of no use to it. It does not hold a slot meanwhile."""

    def labels(manifest: AgentManifest) -> dict[str, str]:
        return {"name": manifest.name}

    file = tmp_path / "marks"
    async with (
        open_cluster(MODEL, address="local:2", labels=labels, lease_seconds=1.0) as cluster,
        open_cluster_pool(cluster, max_concurrent=1) as pool,
    ):
        there = SpawnConfig(AgentManifest(name="local-2"), f"mark {file} m sleep 1")
        handle = await pool.spawn(there)
        await started(1, file)
        lose(cluster, "local-2")
        other = await pool.spawn(SpawnConfig(AgentManifest(name="local-1"), "say other"))
        assert (await other.wait()).text == "other"
        assert (await handle.wait()).text == "slept 1"
        nowhere = await (await pool.spawn(SpawnConfig(AgentManifest(name="gpu"), "x"))).wait()
    assert isinstance(nowhere.error, UsageError)


async def test_nothing_waits_for_nodes_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next look says that the cluster has them no more."""
    monkeypatch.setattr(_nodes, "LOOK_SECONDS", 0.05)
    source = Odd(found("n1"), found("n1"), found())
    async with opened(source) as cluster:
        lose(cluster, "n1")
        with trio.fail_after(60):
            while not any(one.state is NodeState.LOST for one in cluster.nodes()):  # noqa: ASYNC110
                await trio.sleep(0.01)
        with trio.fail_after(60), pytest.raises(NodeLostError, match="no node works"):
            await cluster._nodes.wait_for_one({})


async def test_nothing_waits_for_ever_for_a_node_that_does_not_start() -> None:
    """It may be tried again and again, but a request fails after the lease and one start."""
    source = Odd(found("n1"))
    async with opened(source, 2.0, lease_seconds=1.0) as cluster:
        source.broken["n1"] = "raise"
        lose(cluster, "n1")
        with trio.fail_after(60):
            while cluster._nodes.choose({}) is not None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            with pytest.raises(NodeLostError, match="no node works"):
                await cluster._nodes.wait_for_one({})


async def test_a_node_that_takes_long_keeps_no_other_one_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are started side by side."""
    monkeypatch.setattr(_nodes, "LOOK_SECONDS", 0.05)
    source = Odd(found("n1"), found("n1", "late", "n2"))
    source.broken["late"] = "mute"
    async with opened(source, 600.0) as cluster:
        with trio.fail_after(60):
            while [one.load for one in cluster.nodes() if one.state is NodeState.WORKING] != [0, 0]:  # noqa: ASYNC110
                await trio.sleep(0.02)


@pytest.mark.parametrize("tools", [TOOLS, "tests.support.node_work:build_kit"])
async def test_a_tool_call_that_had_not_begun_begins_elsewhere(tmp_path: Path, tools: str) -> None:
    """It is certain that it was not done, so the model need not be told of it."""
    file, ran = tmp_path / "marks", tmp_path / "ran"
    nap = json.dumps({"seconds": 0, "file": str(ran)})
    async with (
        open_cluster(MODEL, address="local:2", tools=tools, lease_seconds=1.0) as cluster,
        open_cluster_pool(cluster) as pool,
    ):
        handles = await pool.fan_out(job(f"mark {file} m slowly nap {nap}") for _ in range(2))
        await started(2, file)
        lose(cluster, "local-1")
        outcomes = [await one.wait() for one in handles]
    assert [one.text for one in outcomes] == ["rested"] * 2
    assert sorted(node_work.marks(ran)) == ["began"] * 2 + ["ended"] * 2


async def test_a_tool_call_that_was_not_sent_begins_elsewhere() -> None:
    """One that was may have been done; so the model is told of it, and of the other not."""
    ready, go = [trio.Event() for _ in range(2)], [trio.Event() for _ in range(2)]

    async def answer(request: CompletionRequest) -> Completion | str:
        if isinstance(last := request.messages[-1], ToolMessage):
            return last.content
        assert isinstance(last, UserMessage)
        number = int(last.text)
        ready[number].set()
        await go[number].wait()
        return Completion(tool_calls=(ToolCall("c", "process", "{}"),))

    driver = FunctionDriver(answer, privacy=PrivacyTier.SOVEREIGN)
    async with (
        open_cluster(MODEL, address="local:1", tools=TOOLS, lease_seconds=1.0) as cluster,
        open_pool(driver, tools=cluster._tools) as pool,
    ):
        handles = [await pool.spawn(job(f"{number}")) for number in range(2)]
        for one in ready:
            await one.wait()
        (link,) = cluster._nodes.links.values()
        link._wire = Muted(link._wire)
        for one in go:
            one.set()
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(60):  # noqa: ASYNC100  # each wait is one
            told, elsewhere = [(await one.wait()).text for one in handles]
    assert "may or may not have been done" in told
    assert elsewhere.isdigit()


async def test_a_tool_call_that_finds_no_node_is_told_as_not_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """None works any more when the model asks for it."""
    file = tmp_path / "marks"
    monkeypatch.setattr(_nodes, "LOOK_SECONDS", 0.05)
    async with open_cluster(MODEL, address="local:1", tools=TOOLS, lease_seconds=0.5) as cluster:

        async def answer(request: CompletionRequest) -> Completion | str:
            if isinstance(last := request.messages[-1], ToolMessage):
                return last.content
            await cluster_gone(cluster)
            return Completion(tool_calls=(ToolCall("c", "process", "{}"),))

        assert cluster._tools is not None
        driver = FunctionDriver(answer, privacy=PrivacyTier.SOVEREIGN)
        async with open_pool(driver, tools=cluster._tools) as pool:
            outcome = await (await pool.spawn(job("x"))).wait()
    assert "no node works any more for this work: node local-1 was lost" in outcome.text
    assert not node_work.marks(file)


async def cluster_gone(cluster: Cluster) -> None:
    """Lose the node, and have the cluster not know it any more."""
    cluster._nodes._source._names.clear()  # type: ignore[attr-defined]
    lose(cluster, "local-1")
    with trio.fail_after(60):
        while any(one.state is not NodeState.LOST for one in cluster.nodes()):  # noqa: ASYNC110
            await trio.sleep(0.01)


def test_a_tool_that_a_node_does_not_have_is_told_to_the_model() -> None:
    """It may have another version of what it imports than the node that was lost."""
    host = NodeHost("n", terms(), ray="", environ={})
    assert host.hello().tools is not None
    agent = AgentFacts(1, "a", AgentManifest(), 0, 0, "m", 0.0, ())
    work = RunTool(SHARED, "another", "{}", "c", "k", None, agent)
    assert host.push(pack([Begin(1, work, None)], same))
    news = host.poll(0, 30.0)
    assert news is not None
    (done,) = unpack(news)
    assert isinstance(done, Done)
    assert "node n has no tool 'another'" in str(done.error)
    host.stop()
    host._thread.join(30)


def same(item: Begin, error: Exception) -> Begin:
    """Never called."""
    raise AssertionError(item, error)


async def test_a_node_is_drained_when_its_last_agent_with_tools_has_ended() -> None:
    """Though nothing of it is done there, and its tools are those of all."""
    reached, go, drained = trio.Event(), trio.Event(), trio.Event()

    async def answer(_: CompletionRequest) -> str:
        reached.set()
        await go.wait()
        return "done"

    async def drain(cluster: Cluster) -> None:
        await cluster.drain("local-1")
        drained.set()

    driver = FunctionDriver(answer, privacy=PrivacyTier.SOVEREIGN)
    async with (
        open_cluster(MODEL, address="local:1", tools=TOOLS) as cluster,
        open_pool(driver, tools=cluster._tools) as pool,
        trio.open_nursery() as nursery,
    ):
        handle = await pool.spawn(job("x"))
        await reached.wait()
        nursery.start_soon(drain, cluster)
        await trio.testing.wait_all_tasks_blocked()
        assert [one.state for one in cluster.nodes()] == [NodeState.DRAINING]
        assert not drained.is_set()
        go.set()
        await handle.wait()
        with trio.fail_after(60):
            await drained.wait()


async def test_where_no_node_is_left_agents_fail_at_once() -> None:
    """With one attempt, and the words why; what waits is told when the last one goes."""
    async with open_cluster(MODEL, address="local:1", lease_seconds=600.0) as cluster:
        await cluster.drain("local-1")
        assert [(one.state, one.reason) for one in cluster.nodes()] == [(NodeState.DRAINED, "")]
        async with open_cluster_pool(cluster) as pool:
            with trio.fail_after(60):
                outcome = await (await pool.spawn(job("say x"))).wait()
        outside = cluster.driver_of(job("x").manifest)
    error = outcome.error
    assert isinstance(error, NodeLostError)
    assert str(error) == "no node works any more for this work: node local-1 is drained"
    assert (error.attempts, error.retryable, error.was_sent) == (1, False, False)
    with pytest.raises(UsageError, match="this cluster is closed"):
        async with open_cluster_pool(cluster):
            raise AssertionError
    with trio.fail_after(60):
        async with open_pool(outside) as pool:
            late = await (await pool.spawn(job("say x"))).wait()
    assert "the block of open_cluster() has ended" in str(late.error)
    assert isinstance(late.error, NodeLostError)
    assert late.error.attempts == 1


async def test_what_waits_for_a_node_fails_when_none_is_to_come_any_more() -> None:
    """Though its lease and the time for a start are not over."""
    source = Odd(found("n1"))
    async with opened(source, 600.0, lease_seconds=600.0) as cluster:
        lose(cluster, "n1")
        with trio.fail_after(60):
            while cluster._nodes.choose({}) is not None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            raised: list[NodeLostError] = []

            async def wait() -> None:
                try:
                    await cluster._nodes.wait_for_one({})
                except NodeLostError as error:
                    raised.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                assert not raised
                cluster._nodes.close()
    assert [one.retryable for one in raised] == [False]
