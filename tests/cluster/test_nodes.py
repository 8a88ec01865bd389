"""Nodes: what is checked before they get work, who gets which, and what is lost with one."""

from __future__ import annotations

import json
import os
import pickle
import socket
import sys
from pathlib import Path

import attrs
import pytest
import trio

import agentpool.cluster as face
from agentpool import (
    AgentManifest,
    AgentStatus,
    Budget,
    PrivacyError,
    PrivacyTier,
    RetryPolicy,
    SpawnConfig,
    UsageError,
)
from agentpool.cluster import (
    ClusterError,
    NodeCheckError,
    NodeLostError,
    NodeState,
    RemoteError,
    open_cluster,
    open_cluster_pool,
)
from agentpool.cluster._lease import Lease, Phase
from agentpool.cluster._names import find, path_of
from agentpool.cluster._node_checks import Here, Terms, faults
from agentpool.cluster._node_link import Wire
from agentpool.cluster._node_messages import Greeting
from agentpool.cluster._placement import choose
from agentpool.cluster._portable import pack, portable, unpack
from agentpool.drivers import BadRequestError, RequestGate
from agentpool.observe import (
    CompletionReceived,
    RequestFailed,
    TraceWriter,
    read_trace,
    render_report,
)
from tests.cluster.conftest import MODEL
from tests.cluster.test_same_behaviour import job, started
from tests.support import node_work

TOOLS = "tests.support.node_work:TOOLS"
ONCE = RetryPolicy(max_attempts=1)


# --- rules


@attrs.frozen
class Candidate:
    """A node that takes work."""

    labels: dict[str, str]
    load: int
    models: tuple[int, ...] = ()

    def has_model(self, model: int) -> bool:
        """Return whether a driver is open there."""
        return model in self.models


def test_the_least_loaded_of_those_with_the_labels_gets_it() -> None:
    """Of equals the first."""
    a = Candidate({"gpu": "no"}, 0)
    b = Candidate({"gpu": "yes", "zone": "1"}, 7)
    c = Candidate({"gpu": "yes", "zone": "2"}, 7)
    assert choose([b, a, c], {}) is a
    assert choose([a, b, c], {"gpu": "yes"}) is b
    assert choose([a, b, c], {"gpu": "yes", "zone": "2"}) is c
    assert choose([a, b, c], {"gpu": "maybe"}) is None


def test_where_the_model_is_goes_first_but_not_for_ever() -> None:
    """A model that is open is worth a queue, and no endless one."""
    idle, warm, hot = Candidate({}, 1), Candidate({}, 6, (3,)), Candidate({}, 7, (3,))
    assert choose([idle, warm], {}, 3) is warm
    assert choose([idle, warm], {}, 4) is idle
    assert choose([idle, hot], {}, 3) is idle
    assert choose([hot, warm, idle], {}, 3) is warm
    assert choose([hot, warm, idle], {}) is idle


def test_a_lease_ends_and_a_late_word_renews_nothing() -> None:
    """First the work is cancelled, then the process ends."""
    lease = Lease(10.0)
    assert lease.phase(1_000_000) is Phase.WORK
    lease.begin(100.0)
    lease.begin(200.0)  # it has begun
    assert [lease.phase(at) for at in (100, 107.4, 107.5, 110)] == [
        Phase.WORK, Phase.WORK, Phase.CANCEL, Phase.END,
    ]  # fmt: skip
    assert (lease.seconds_to(Phase.CANCEL, 101), lease.seconds_to(Phase.END, 120)) == (6.5, 0)
    lease.renew(104.0, 105.0)
    lease.renew(102.0, 105.0)  # a word that was long on its way
    assert lease.renewed_at == 104.0
    lease.renew(111.0, 111.6)
    assert lease.renewed_at == 104.0


def test_a_node_that_differs_is_told_apart() -> None:
    """By every fault at once."""
    terms = Terms(agentpool="1", python=(3, 11), ray="2.60", driver=None, tools=None, modules=(),
                  keys=("KEY", "OTHER"), lease_seconds=1.0, start_seconds=1.0)  # fmt: skip
    same = Here(agentpool="1", python=(3, 11), ray="2.60")
    assert list(faults(terms, same, {"KEY": "k", "OTHER": "o"})) == []
    other = Here(agentpool="2", python=(3, 13), ray="2.50")
    found = list(faults(terms, other, {"KEY": " "}))
    assert [one.partition(";")[0] for one in found] == [
        "it runs Python 3.13, but the program runs 3.11",
        "it has agentpool 2, but the program has 1",
        "it has Ray 2.50, but the program has 2.60",
        "KEY is not set in its environment",
        "OTHER is not set in its environment",
    ]


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        ("no_colon", "must be an import path"),
        ("a:b:c", "must be an import path"),
        (":b", "must be an import path"),
        (lambda _: None, "at the top of a module"),
        (3, "at the top of a module"),
    ],
)
def test_what_a_node_cannot_import_is_refused(thing: object, text: str) -> None:
    """At once, in the program."""
    with pytest.raises(UsageError, match=text):
        path_of("driver", thing)


def test_what_is_in_the_main_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node has another one."""

    def top() -> None: ...

    top.__qualname__, top.__module__ = "top", "__main__"
    with pytest.raises(UsageError, match="main file"):
        path_of("driver", top)


def test_paths_lead_there_and_back() -> None:
    """A function is named by where it is."""
    assert path_of("driver", node_work.open_model) == MODEL
    assert path_of("driver", MODEL) == MODEL
    assert find(MODEL) is node_work.open_model
    assert find("agentpool:AgentManifest.load") == AgentManifest.load
    for wrong in ("no_such_module:x", "agentpool:NoSuchName"):
        with pytest.raises(UsageError, match="cannot be imported"):
            find(wrong)


class UnprintableError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError


class OddBuiltinError(ValueError):
    """Says that it is from where all are known, and does not come back the same."""

    def __init__(self, one: str, two: str) -> None:
        """Make it of two."""
        super().__init__(one + two)


OddBuiltinError.__module__ = "builtins"


def test_errors_cross_as_themselves_or_as_data() -> None:
    """Never as something else, and their place goes with them."""
    known = portable(BadRequestError("no", status_code=400), "n1")
    assert isinstance(known, BadRequestError)
    assert known.status_code == 400
    assert "raised on node n1" in known.__notes__[0]
    for odd in (node_work.OddError("a", "b"), OddBuiltinError("a", "b"), SystemExit(3)):
        other = portable(odd, "n1")
        assert isinstance(other, RemoteError)
        assert other.type_name == type(odd).__name__
        assert type(pickle.loads(pickle.dumps(other))) is RemoteError
    assert "cannot be printed" in str(portable(UnprintableError(), "n1"))


def test_one_value_that_cannot_cross_does_not_keep_the_others() -> None:
    """It fails alone."""
    items: list[object] = [1, lambda: None, "two"]
    assert unpack(pack(items, lambda _, error: type(error).__name__)) == [
        1, unpack(pack([items[1]], lambda _, error: type(error).__name__))[0], "two",
    ]  # fmt: skip


# --- bad input


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ({"driver": "no_such_module:open"}, "no_such_module"),
        ({"address": "local:0"}, "local:3"),
        ({"address": "local:"}, "local:3"),
        ({"lease_seconds": 0.0}, "must be > 0"),
        ({"keys": 3}, "keys"),
    ],
)
async def test_a_wrong_argument_is_refused(terms: dict[str, object], text: str) -> None:
    """Before any node has begun."""
    with pytest.raises(UsageError, match=text):
        async with open_cluster(**{"address": "local:1", **terms}):  # type: ignore[arg-type]
            raise AssertionError("it was opened")


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ({"modules": ("no_such_module",)}, "local-1 .*module 'no_such_module' is missing"),
        ({"keys": ("AGENTPOOL_NO_SUCH_KEY",)}, "local-1 .*AGENTPOOL_NO_SUCH_KEY is not set"),
        ({"manifests": [AgentManifest(name="broken")]}, "local-1 cannot open the model.*no weigh"),
    ],
)
async def test_a_node_that_lacks_something_is_named(terms: dict[str, object], text: str) -> None:
    """Before the first agent."""
    held = "tests.support.node_work:open_held"
    with pytest.raises(NodeCheckError, match=text) as caught:
        async with open_cluster(held, address="local:1", **terms):  # type: ignore[arg-type]
            raise AssertionError("it was opened")
    assert caught.value.node == "local-1"


async def test_a_driver_that_is_none_fails_its_agents(tmp_path: Path) -> None:
    """With the name of the node."""
    async with open_cluster_pool("tests.support.node_work:open_nothing", address="local:1") as pool:
        outcome = await (await pool.spawn(job("say x"))).wait()
    assert isinstance(outcome.error, NodeCheckError)
    assert "must be a Driver" in str(outcome.error)


@pytest.mark.parametrize("name", ["open_held", "SAME", "open_model"])
async def test_a_driver_may_be_given_in_three_ways(name: str) -> None:
    """As itself, by a function, or open for a while."""
    path = f"tests.support.node_work:{name}"
    manifest = AgentManifest()
    async with open_cluster(path, address="local:2", manifests=[manifest]) as cluster:
        assert repr(cluster) == "<Cluster 2/2 nodes work>"
        async with open_cluster_pool(cluster) as pool:
            outcome = await (await pool.spawn(SpawnConfig(manifest, "say yes"))).wait()
    assert outcome.text == "yes"


async def test_without_ray_it_is_said_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And how to try without it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "agentpool.cluster._ray", raising=False)
    with pytest.raises(ClusterError, match=r"\[ray\].*local:2"):
        async with open_cluster(MODEL):
            raise AssertionError("it was opened")


async def test_a_cluster_that_is_open_has_its_own_tools() -> None:
    """They are named when it is opened."""
    async with open_cluster(MODEL, address="local:1", tools=TOOLS) as cluster:
        with pytest.raises(UsageError, match="pass them to open_cluster"):
            async with open_cluster_pool(cluster, tools=TOOLS):
                raise AssertionError("it was opened")
        async with open_cluster_pool(cluster) as pool:
            outcome = await (await pool.spawn(job("call process"))).wait()
    assert int(outcome.text) == os.getpid()


# --- placement, gates, tiers


async def test_work_goes_where_the_labels_are() -> None:
    """And nowhere else."""

    def labels(manifest: AgentManifest) -> dict[str, str]:
        return {"name": manifest.name}

    async with (
        open_cluster(
            MODEL, address="local:3", labels=labels, manifests=[AgentManifest(name="local-2")]
        ) as cluster,
        open_cluster_pool(cluster) as pool,
    ):
        right = await (await pool.spawn(SpawnConfig(AgentManifest(name="local-2"), "x"))).wait()
        wrong = await (await pool.spawn(SpawnConfig(AgentManifest(name="gpu"), "x"))).wait()
    assert right.status is AgentStatus.COMPLETED
    assert "no node has the labels name=gpu" in str(wrong.error)


async def test_what_waits_for_a_model_to_be_opened_is_spread(tmp_path: Path) -> None:
    """All at once, before any node has it open; the opening itself is work as well."""
    file = tmp_path / "marks"
    async with (
        open_cluster("tests.support.node_work:open_held", address="local:2") as cluster,
        open_cluster_pool(cluster) as pool,
    ):
        await pool.fan_out(job("say x", name=f"slow {file}") for _ in range(8))
        await started(2, file)
        with trio.fail_after(60):
            while sum(one.load for one in cluster.nodes()) < 10:  # noqa: ASYNC110  # until all wait
                await trio.sleep(0.02)
        assert [one.load for one in cluster.nodes()] == [5, 5]
        pool.abort_all()


async def test_a_gate_holds_over_all_nodes(tmp_path: Path) -> None:
    """So many requests are under way, wherever they go."""
    file, gate = tmp_path / "marks", RequestGate("both", max_in_flight=2)
    async with open_cluster_pool(MODEL, address="local:2", gate=gate) as pool:
        await pool.fan_out(job(f"mark {file} m sleep 0.3") for _ in range(4))
        await started(2, file)
        assert gate.statistics().in_flight == 2
        assert pool.statistics().at_gate == 2
        assert len(node_work.marks(file)) == 2
        await pool.join_all()
    assert len(node_work.marks(file)) == 4


async def test_what_may_not_leave_this_machine_does_not() -> None:
    """A node is another machine, whatever runs there."""
    async with (
        open_cluster(MODEL, address="local:1", privacy=PrivacyTier.PRIVATE) as cluster,
        open_cluster_pool(cluster) as pool,
    ):
        with pytest.raises(PrivacyError):
            await pool.spawn(job("say secret"))
        assert pool.statistics().spawned == 0


# --- errors, and the end of a node


async def test_odd_errors_fail_their_agent_alone() -> None:
    """Also one that would end a program."""
    async with open_cluster_pool(MODEL, address="local:1") as pool:
        odd = await (await pool.spawn(job("fail odd"))).wait()
        leaving = await (await pool.spawn(job("exit"))).wait()
        good = await (await pool.spawn(job("say good"))).wait()
    assert isinstance(odd.error, RemoteError)
    assert odd.error.type_name == "OddError"
    assert "this and that" in str(odd.error)
    assert isinstance(leaving.error, RemoteError)
    assert good.text == "good"


async def test_a_node_is_drained(tmp_path: Path) -> None:
    """It ends what it has; then all goes to the other one, and at last nowhere."""
    file = tmp_path / "marks"
    async with (
        open_cluster(MODEL, address="local:2", lease_seconds=2.0) as cluster,
        open_cluster_pool(cluster, request_retries=ONCE) as pool,
    ):
        handles = await pool.fan_out(job(f"mark {file} m sleep 1") for _ in range(4))
        await started(4, file)
        await cluster.drain("local-1")
        first, second = cluster.nodes()
        assert (first.state, second.state) == (NodeState.DRAINED, NodeState.WORKING)
        assert [(await one.wait()).text for one in handles] == ["slept 1"] * 4
        assert (await (await pool.spawn(job("say on"))).wait()).text == "on"
        with pytest.raises(UsageError, match="no node 'local-1' works"):
            await cluster.drain("local-1")
        await cluster.drain("local-2")
        gone = await (await pool.spawn(job("say off"))).wait()
    assert isinstance(gone.error, NodeLostError)
    assert "no node works" in str(gone.error)


def lose(cluster: face.Cluster, name: str) -> None:
    """End a node's process, as a fault would."""
    (link,) = (one for one in cluster._nodes.links.values() if one.node == name)
    link._wire.kill()


async def test_what_a_lost_node_did_fails_or_is_asked_again(tmp_path: Path) -> None:
    """As ``request_retries`` says; and nobody waits for ever."""
    file = tmp_path / "marks"
    manifests = [job("x").manifest]
    async with open_cluster(
        MODEL, address="local:2", lease_seconds=1.0, manifests=manifests
    ) as cluster:
        async with open_cluster_pool(cluster, request_retries=ONCE) as pool:
            handles = await pool.fan_out(job(f"mark {file} m sleep 2") for _ in range(4))
            await started(4, file)
            lose(cluster, "local-1")
            outcomes = [await one.wait() for one in handles]
        failed = [one for one in outcomes if one.status is AgentStatus.FAILED]
        assert len(failed) == 2
        assert all(isinstance(one.error, NodeLostError) for one in failed)
        assert len(node_work.marks(file)) == 4
        async with open_cluster_pool(cluster) as pool:
            again = await pool.fan_out(job(f"mark {file} m sleep 1") for _ in range(4))
            await started(8, file)
            lose(cluster, "local-2")
            assert {(await one.wait()).text for one in again} == {"slept 1"}
        assert len(node_work.marks(file)) >= 8


async def test_a_lost_tool_call_is_told_or_run_again(tmp_path: Path) -> None:
    """As the tool says: once is not twice."""
    file, again = tmp_path / "once", tmp_path / "again"
    async with (
        open_cluster(MODEL, address="local:1", tools=TOOLS, lease_seconds=1.0) as cluster,
        open_cluster_pool(cluster) as pool,
    ):
        one = json.dumps({"seconds": 600, "file": str(file)})
        two = json.dumps({"seconds": 600, "file": str(again)})
        told = await pool.spawn(job(f"call nap {one}"))
        rerun = await pool.spawn(job(f"call nap_again {two}"))
        await started(1, file)
        await started(1, again)
        lose(cluster, "local-1")
        assert "may or may not" in str((await told.wait()).messages)
        assert (await rerun.wait()).text == "rested"
    assert node_work.marks(again) == ["began", "began"]


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_tool_call_that_runs_again_is_charged_again(tmp_path: Path, limit: int) -> None:
    """What the first run took is not known. Where the limit is reached, the model is told."""
    file = tmp_path / "began"
    async with (
        open_cluster(MODEL, address="local:1", tools=TOOLS, lease_seconds=1.0) as cluster,
        open_cluster_pool(cluster, budget=Budget(tool_calls=limit)) as pool,
    ):
        again = json.dumps({"seconds": 600, "file": str(file)})
        handle = await pool.spawn(job(f"call nap_again {again}"))
        await started(1, file)
        lose(cluster, "local-1")
        text = (await handle.wait()).text
        budget = pool.statistics().budget
    assert budget is not None
    assert budget.tool_calls.committed == len(node_work.marks(file)) == limit
    assert text == "rested" if limit == 2 else "it was not run again" in text


class Muted(Wire):
    """A way to a node on which nothing arrives any more."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Wire) -> None:
        """Cut *inner*."""
        self._inner = inner

    async def hello(self) -> Greeting:
        """Say nothing."""
        await trio.sleep_forever()
        raise AssertionError

    async def push(self, batch: bytes) -> bool:  # noqa: ARG002
        """Bring nothing."""
        await trio.sleep_forever()
        raise AssertionError

    async def poll(self, heard: int, seconds: float) -> bytes | None:  # noqa: ARG002
        """Hear nothing."""
        await trio.sleep_forever()
        raise AssertionError

    def kill(self) -> None:
        """Reach nobody."""


async def test_a_program_that_is_silent_ends_its_nodes_work(tmp_path: Path) -> None:
    """Nothing goes on longer than the lease, though nobody says so."""
    file = tmp_path / "marks"
    nap = json.dumps({"seconds": 600, "file": str(file)})
    async with (
        open_cluster(MODEL, address="local:1", tools=TOOLS, lease_seconds=1.0) as cluster,
        open_cluster_pool(cluster, request_retries=ONCE) as pool,
    ):
        handle = await pool.spawn(job(f"call nap {nap}"))
        await started(1, file)
        (link,) = cluster._nodes.links.values()
        link._wire = Muted(link._wire)
        outcome = await handle.wait()
        await started(2, file)
    assert node_work.marks(file) == ["began", "cancelled"]
    assert "lost" in str(outcome.messages) or isinstance(outcome.error, NodeLostError)


async def test_a_trace_and_its_report_say_which_node_was_asked(tmp_path: Path) -> None:
    """All nodes in one order, as everything else that happens in the pool."""
    file = tmp_path / "trace.jsonl"
    queries = [*(job(f"sleep {n / 10}") for n in range(4)), job("fail")]
    async with (
        TraceWriter(file, secrets=()) as writer,
        open_cluster(MODEL, address="local:2", manifests=[queries[0].manifest]) as cluster,
        open_cluster_pool(cluster, observers=[writer]) as pool,
    ):
        await pool.fan_out(queries)
        await pool.join_all()
    trace = read_trace(file)
    answered = [one.node for one in trace.events if isinstance(one, CompletionReceived)]
    failed = [one.node for one in trace.events if isinstance(one, RequestFailed)]
    assert set(answered) == {"local-1", "local-2"}
    assert failed[0].startswith("local-")
    report = render_report(trace)
    assert "(not said) on local-1" in report
    assert "(not said) on local-2" in report


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
async def test_an_address_where_nothing_is_is_told_at_once() -> None:
    """Ray itself would try for a minute, and then end the process."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match="nothing answers at"):
            async with open_cluster(MODEL, address=address):
                raise AssertionError("it was opened")
