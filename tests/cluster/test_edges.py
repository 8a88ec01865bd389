"""The edges of a cluster: what rarely happens, and what must not hang when it does."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agentpool import AgentManifest, AgentStatus, Budget, PrivacyTier, RetryPolicy
from agentpool._version import __version__
from agentpool.cluster import (
    Cluster,
    ClusterError,
    NodeCheckError,
    NodeLostError,
    NodeState,
    _nodes,
    _tool_questions,
    open_cluster,
    open_cluster_pool,
)
from agentpool.cluster._far_driver import FarDrivers
from agentpool.cluster._lease import Phase
from agentpool.cluster._local_nodes import LocalSource
from agentpool.cluster._node_checks import Terms
from agentpool.cluster._node_link import Link, Wire
from agentpool.cluster._node_loop import NodeHost
from agentpool.cluster._node_messages import Begin, Done, End, Order, Prepare, Reply, Withdraw
from agentpool.cluster._open import _running
from agentpool.cluster._portable import pack, unpack
from agentpool.cluster._source import FoundNode, Source
from agentpool.cluster._tool_questions import answer_for
from agentpool.observe import ThoughtDelta
from agentpool.testing import lone_context
from tests.cluster.conftest import MODEL
from tests.cluster.test_link import Scripted
from tests.cluster.test_nodes import Muted, lose
from tests.cluster.test_same_behaviour import job, started
from tests.support import node_work
from tests.support.fakes import Recorder, of_type

TOOLS = "tests.support.node_work:TOOLS"
ONCE = RetryPolicy(max_attempts=1)


def terms(lease_seconds: float = 10.0, driver: str = MODEL, start_seconds: float = 60.0) -> Terms:
    """Return what a program like ours needs."""
    return Terms(agentpool=__version__, python=sys.version_info[:2], ray="", driver=driver,
                 tools=TOOLS, modules=(), keys=(), lease_seconds=lease_seconds,
                 start_seconds=start_seconds)  # fmt: skip


@pytest.mark.parametrize("watched", [False, True])
async def test_thoughts_arrive_apart_from_text(watched: bool) -> None:  # noqa: FBT001
    """If anybody watches."""
    recorder = Recorder()
    async with open_cluster_pool(MODEL, address="local:1", observers=[recorder] * watched) as pool:
        outcome = await (await pool.spawn(job("x", name="thinker"))).wait()
    assert outcome.text == "so it is"
    assert outcome.cost_usd is None
    assert [one.text for one in of_type(recorder.events, ThoughtDelta)] == ["hm"] * watched


async def test_an_answer_that_cannot_cross_fails_its_agent() -> None:
    """And no other one."""
    async with open_cluster_pool(MODEL, address="local:1") as pool:
        odd = await (await pool.spawn(job("x", name="uncrossable"))).wait()
        good = await (await pool.spawn(job("say good"))).wait()
    assert odd.status is AgentStatus.FAILED
    assert good.text == "good"


async def test_a_request_that_cannot_cross_fails_its_agent() -> None:
    """With what is wrong with it. It was not sent, so a budget is not charged."""
    async with open_cluster_pool(
        MODEL, address="local:1", tools=node_work.UNCROSSABLE, budget=Budget(requests=9)
    ) as pool:
        outcome = await (await pool.spawn(job("say x"))).wait()
        budget = pool.statistics().budget
    assert isinstance(outcome.error, TypeError)
    assert budget is not None
    assert (budget.requests.committed, budget.requests.reserved) == (0, 0)


async def test_tools_that_cannot_cross_fail_their_agent() -> None:
    """The node works all the same."""
    tools = "tests.support.node_work:UNCROSSABLE"
    async with open_cluster_pool(MODEL, address="local:1", tools=tools) as pool:
        outcome = await (await pool.spawn(job("say x"))).wait()
    assert outcome.status is AgentStatus.FAILED
    assert "pickle" in str(outcome.error)


async def test_agents_of_one_node_may_have_other_tools() -> None:
    """As whoever makes them says."""
    kit = "tests.support.node_work:build_kit"
    async with open_cluster_pool(MODEL, address="local:1", tools=kit) as pool:
        names = ("worker", "modest", "worker")
        handles = [await pool.spawn(job('call tell {"recipient": 0, "text": "x"}', name=name))
                   for name in names]  # fmt: skip
        texts = [(await one.wait()).text for one in handles]
    assert texts[0] == "1 to 0"
    assert texts[2] == "3 to 0"
    assert "tell" in texts[1]
    assert "2 to 0" not in texts[1]


async def test_a_question_that_was_answered_cannot_be_withdrawn() -> None:
    """The node did not know yet that it was."""
    agent = lone_context().agent
    wire = Scripted()
    link = Link("n", "n", {}, wire, 600.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        wire.send.send_nowait([Withdraw(1, 7), Done(1, "done", None)])
        assert await answer_for(agent, link, Prepare(1, AgentManifest())) == "done"
        nursery.cancel_scope.cancel()


async def test_a_node_that_was_refused_is_passed_over() -> None:
    """Though it was found first."""
    source = Odd(found("n1", "n2"))
    source.broken["n1"] = "raise"
    async with _running(source, terms(), PrivacyTier.SOVEREIGN, every_node=False) as nodes:
        link = nodes.choose({})
        assert link is not None
        assert link.node == "n2"


async def test_what_only_the_program_can_import_is_found_by_the_check() -> None:
    """A node says so before it gets work."""
    path = "tests.support.node_work:open_only_here"
    with pytest.raises(NodeCheckError, match=r"local-1 cannot do this work.*open_only_here"):
        async with open_cluster(path, address="local:1"):
            raise AssertionError("it was opened")


async def test_a_tool_on_a_node_has_no_budget() -> None:
    """And is told what to use."""
    async with open_cluster_pool(MODEL, address="local:1", tools=TOOLS, budget=Budget(requests=9)
                                 ) as pool:  # fmt: skip
        outcome = await (await pool.spawn(job("call budget_of"))).wait()
    assert "a budget is in the program" in outcome.text


async def test_too_many_agents_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call would carry them."""
    monkeypatch.setattr(_tool_questions, "MAX_LISTED", -1)
    async with open_cluster_pool(MODEL, address="local:1", tools=TOOLS) as pool:
        outcome = await (await pool.spawn(job("call look"))).wait()
    assert "too many agents" in outcome.text


async def test_a_tool_that_waits_no_more_goes_on(tmp_path: Path) -> None:
    """What it asked for is given up in the program as well."""
    async with open_cluster_pool(MODEL, address="local:1", tools=TOOLS) as pool:
        outcome = await (await pool.spawn(job("call impatient"))).wait()
        assert outcome.text == "gave up"
        assert pool.router.agent_count == 0


async def test_a_cancelled_call_can_ask_nothing_more(tmp_path: Path) -> None:
    """So its cleanup does not wait for ever."""
    file = tmp_path / "marks"
    async with open_cluster_pool(MODEL, address="local:1", tools=TOOLS) as pool:
        handle = await pool.spawn(job(f'call stubborn {{"file": "{file}"}}'))
        await started(1, file)
        handle.cancel()
        await handle.wait()
    assert node_work.marks(file) == ["began", "refused"]


async def test_a_question_that_is_not_known_is_refused() -> None:
    """A node of another version may have it."""
    async with open_cluster_pool(MODEL, address="local:1", tools=TOOLS) as pool:
        outcome = await (await pool.spawn(job("call nonsense"))).wait()
    assert "not known here" in outcome.text


async def test_a_child_that_cannot_cross_is_refused() -> None:
    """In the tool that wants it."""
    async with open_cluster_pool(MODEL, address="local:1", tools=TOOLS) as pool:
        outcome = await (await pool.spawn(job("call local_child"))).wait()
    assert "must be picklable" in outcome.text
    assert "define its classes at the top of a module" in outcome.text


async def test_echo_repeats() -> None:
    """It is there to try a cluster with."""
    async with open_cluster_pool("agentpool.cluster:open_echo", address="local:1") as pool:
        assert (await (await pool.spawn(job("hello"))).wait()).text == "hello"


async def test_a_node_is_lost_while_it_opens_a_model(tmp_path: Path) -> None:
    """That is a lost node, and no missing model."""
    file = tmp_path / "marks"
    async with (
        open_cluster(
            "tests.support.node_work:open_held", address="local:1", lease_seconds=1.0
        ) as cluster,
        open_cluster_pool(cluster, request_retries=ONCE) as pool,
    ):
        handle = await pool.spawn(job(f"say {file}", name=f"slow {file}"))
        await started(1, file)
        lose(cluster, "local-1")
        outcome = await handle.wait()
    assert isinstance(outcome.error, NodeLostError)


async def test_tools_are_made_again_when_their_node_is_lost(tmp_path: Path) -> None:
    """An agent does not end with a node."""
    file = tmp_path / "marks"
    kit = "tests.support.node_work:build_slowly"
    async with (
        open_cluster(MODEL, address="local:2", tools=kit, lease_seconds=1.0) as cluster,
        open_cluster_pool(cluster) as pool,
    ):
        handle = await pool.spawn(job("call process", name=f"{file}"))
        await started(1, file)
        lose(cluster, "local-1")
        assert (await handle.wait()).status is AgentStatus.COMPLETED


# --- sources


class Odd(Source):
    """Nodes that do as a test says."""

    def __init__(self, *steps: Callable[[], list[FoundNode]]) -> None:
        """Answer with these, the last one again and again."""
        self.local = LocalSource(1)
        self.steps = list(steps)
        self.broken: dict[str, str] = {}

    @property
    def privacy(self) -> PrivacyTier:
        """All is here."""
        return self.local.privacy

    @property
    def ray(self) -> str:
        """There is none."""
        return self.local.ray

    async def look(self) -> list[FoundNode]:
        """Take the next step."""
        await trio.lowlevel.checkpoint()
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if step is mute:
            await trio.sleep_forever()
        return step()

    async def start(self, node: FoundNode, terms: Terms) -> Wire:
        """Start a node, if it may."""
        match self.broken.get(node.name):
            case "mute":
                return Muted(await self.local.start(node, terms))
            case "raise":
                raise OSError("no room")
            case _:
                return await self.local.start(node, terms)


def found(*names: str) -> Callable[[], list[FoundNode]]:
    """Return a step that finds nodes."""
    return lambda: [FoundNode(name, name, {"name": name}) for name in names]


def mute() -> list[FoundNode]:
    """Never answer."""
    raise TimeoutError


def unreachable() -> list[FoundNode]:
    """Fail."""
    raise ClusterError("no head")


@asynccontextmanager
async def opened(
    source: Odd, start_seconds: float = 30.0, *, lease_seconds: float = 10.0
) -> AsyncGenerator[Cluster, None]:
    """Open a cluster with nodes of a source."""
    needs = terms(lease_seconds, start_seconds=start_seconds)
    async with _running(source, needs, PrivacyTier.SOVEREIGN) as nodes:
        yield Cluster(nodes, FarDrivers(nodes, None), None)


async def test_a_cluster_without_a_node_is_none() -> None:
    """It says so at once."""
    with pytest.raises(ClusterError, match="has no node"):
        async with opened(Odd(found())):
            raise AssertionError("it was opened")


@pytest.mark.parametrize(
    ("how", "text"),
    [("mute", "did not answer within 0.2"), ("raise", "cannot be started: OSError: no room")],
)
async def test_a_node_that_does_not_start_is_named(how: str, text: str) -> None:
    """Late or broken."""
    source = Odd(found("n1"))
    source.broken["n1"] = how
    with pytest.raises(NodeCheckError, match=text):
        async with opened(source, 0.2):
            raise AssertionError("it was opened")


async def test_nodes_join_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that can work; the others are logged, and tried again."""
    monkeypatch.setattr(_nodes, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(_nodes, "FAILED_LOOK_SECONDS", 0.05)
    source = Odd(found("n1"), unreachable, found("n1", "n2", "n3"))
    source.broken["n3"] = "raise"

    def states(cluster: Cluster) -> list[str]:
        return [one.state.value for one in cluster.nodes()]

    async with opened(source, 0.3) as cluster:
        with trio.fail_after(60):
            while states(cluster) != ["working", "working", "refused"]:  # noqa: ASYNC110
                await trio.sleep(0.02)
            source.broken.clear()
            while states(cluster) != ["working"] * 3:  # noqa: ASYNC110
                await trio.sleep(0.02)
    assert NodeState.STARTING.value == "starting"


@pytest.mark.parametrize("how", ["raises", "is silent"])
async def test_a_cluster_whose_head_is_lost_ends_the_block(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """With one error, in no group; one failed look alone ends nothing."""
    silent = how == "is silent"
    monkeypatch.setattr(_nodes, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(_nodes, "FAILED_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(_nodes, "MOST_LOOK_SECONDS", 0.5 if silent else 60.0)
    source = Odd(found("n1"), *[mute if silent else unreachable] * 2, found("n1"), unreachable)
    with trio.fail_after(60), pytest.raises(ClusterError, match="head of the cluster is lost"):
        async with opened(source):
            await trio.sleep_forever()
    assert silent or len(source.steps) == 1


async def test_a_node_that_has_just_been_lost_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look for nodes may come before it is known how long its lease has to be waited for."""
    monkeypatch.setattr(_nodes, "LOOK_SECONDS", 0.01)
    source = Odd(*[found("n1")] * 6)
    async with opened(source) as cluster:
        (link,) = cluster._nodes.links.values()
        link._wire = Muted(link._wire)
        link.lose("as a test says")
        with trio.fail_after(60):
            while len(source.steps) > 1:  # noqa: ASYNC110  # until it was looked for
                await trio.sleep(0.01)
        assert [one.state for one in cluster.nodes()] == [NodeState.LOST]
        assert list(cluster._nodes.links.values()) == [link]


# --- one host, without a pool


def test_a_host_ends_with_its_lease() -> None:
    """First it takes nothing new, then it is over."""
    ended = threading.Event()
    host = NodeHost("n", terms(1.0), ray="", environ={}, end_process=ended.set)
    assert host.hello().faults == ()
    manifest = AgentManifest()
    assert host.push(pack(orders(Begin(1, Prepare(1, manifest), 9.0), End(77)), _same))
    news = host.poll(0, 30.0)
    assert news is not None
    (done,) = unpack(news)
    assert isinstance(done, Done)
    assert done.error is None
    cancelled = host._lease.seconds_to(Phase.CANCEL, time.monotonic())
    threading.Event().wait(cancelled + 0.02)
    assert host.push(pack(orders(Begin(2, Prepare(1, manifest), None)), _same))
    late = host.poll(5, 30.0)
    assert late is not None
    (refused,) = unpack(late)
    assert isinstance(refused, Done)
    assert isinstance(refused.error, NodeLostError)
    assert ended.wait(30)
    host.stop()
    host._thread.join(30)
    assert host.poll(6, 0.1) is None
    assert not host.push(b"")
    host.stop()


def test_a_lease_begins_when_the_node_has_answered() -> None:
    """What it imports may take longer than that. A program that never asks has its time as well."""
    ended = threading.Event()
    node_work.MAY_BE_FOUND.clear()
    slow = terms(0.05, "tests.support.node_work:open_late")
    host = NodeHost("n", slow, ray="", environ={}, end_process=ended.set)
    assert not ended.wait(0.3)
    node_work.MAY_BE_FOUND.set()
    before = time.monotonic()
    assert host.hello().faults == ()
    assert host._lease.renewed_at >= before
    assert ended.wait(30)
    host.stop()
    host._thread.join(30)
    alone = threading.Event()
    host = NodeHost("n", terms(0.05, start_seconds=0.05), ray="", environ={}, end_process=alone.set)
    assert alone.wait(30)
    host.stop()
    host._thread.join(30)


def _same(item: Order, error: Exception) -> Order:
    raise AssertionError(item, error)


def orders(*given: Order) -> list[Order]:
    """Return orders as what they are."""
    return list(given)


async def test_an_order_that_cannot_cross_has_something_in_its_place() -> None:  # noqa: ASYNC124  # what it makes needs a running loop
    """An answer that cannot cross is an error for the tool."""
    link = Link("n", "n", {}, Muted(Muted(None)), 1.0)  # type: ignore[arg-type]
    instead = link._instead(Reply(3, lambda: 0, None), TypeError("no"))
    assert isinstance(instead, Reply)
    assert isinstance(instead.error, TypeError)
