"""Opens a cluster, and pools that use its nodes."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal, TypedDict, Unpack, cast, final

import attrs

from agentpool._agent.retry_policy import RetryPolicy
from agentpool._approval import Approver
from agentpool._background import background
from agentpool._base import Shown, Unique
from agentpool._budget.budget import Budget
from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool._install import as_installed
from agentpool._manifest.capability import PrivacyTier
from agentpool._manifest.manifest import AgentManifest
from agentpool._needs_trio import check_trio
from agentpool._numbers import is_number, quoted
from agentpool._opening import opening
from agentpool._pool.open import open_pool
from agentpool._pool.pool import AgentPool
from agentpool._pool.starting import ToolBuilder
from agentpool._version import __version__
from agentpool.abc import Driver, DriverFactory, Journal, Memory, Observer
from agentpool.cluster._agent_tools import Labels
from agentpool.cluster._errors import ClusterError
from agentpool.cluster._far_driver import FarDrivers
from agentpool.cluster._far_tools import FarTools
from agentpool.cluster._local_nodes import LocalSource
from agentpool.cluster._names import find, find_as, path_of
from agentpool.cluster._node_checks import Terms
from agentpool.cluster._node_status import NodeStatus
from agentpool.cluster._node_work import facts_of_shared
from agentpool.cluster._nodes import Nodes
from agentpool.cluster._source import Source
from agentpool.drivers._gate import RequestGate
from agentpool.drivers._gated import GatedDriver
from agentpool.tools._registry import ToolRegistry


class PoolTerms(TypedDict, total=False):
    """The arguments of ``open_pool`` that ``open_cluster_pool`` passes on."""

    max_concurrent: int
    max_queued: int
    inbox_capacity: int
    memory: Memory | None
    budget: Budget | None
    approve: Approver | None
    request_retries: RetryPolicy | None
    observers: Sequence[Observer]
    on_failure: Literal["collect", "abort"]
    name: str
    markers: Sequence[str] | None
    random_seed: int | None
    keep_outcomes: int | None
    journal: Journal | None
    resume: bool | Literal["accept"]


@final
@attrs.define(eq=False, repr=False)
class Cluster(Unique, Shown):
    """Nodes that work for this program. Opened by ``open_cluster``."""

    _nodes: Nodes
    _drivers: FarDrivers
    _tools: FarTools | None

    def __repr__(self) -> str:
        """Return how many nodes work: ``<Cluster 2/3 nodes work>``."""
        nodes = self.nodes()
        working = sum(one.state.value == "working" for one in nodes)
        return f"<Cluster {working}/{len(nodes)} nodes work>"

    def nodes(self) -> tuple[NodeStatus, ...]:
        """Return every node ever seen, in the order of discovery."""
        return self._nodes.status()

    def driver_of(self, manifest: AgentManifest) -> Driver:
        """Return a driver whose requests the nodes answer, for agents with *manifest*.

        Use this in pools that ``open_cluster_pool`` does not open:
        ``PoolPlan(driver=cluster.driver_of)``.
        """
        return self._drivers(manifest)

    async def drain(self, name: str) -> None:
        """Give a node no new work, and wait until it has finished its work.

        A node that has the tools of an agent has work as long as that agent runs.

        Raises:
            UsageError: If no node of that name works.

        Cancellation:
            The node gets no new work. The work that it already has goes on.
        """
        await self._nodes.drain(name)


@opening("cluster")
@asynccontextmanager
async def open_cluster(
    driver: str | Callable[[AgentManifest], object] | None = None,
    *,
    address: str = "auto",
    tools: str | Callable[..., object] | None = None,
    labels: Labels | None = None,
    manifests: Iterable[AgentManifest] = (),
    modules: Sequence[str] = (),
    keys: Sequence[str] = (),
    lease_seconds: float = 10.0,
    start_seconds: float = 60.0,
    model_seconds: float = 600.0,
    privacy: PrivacyTier | None = None,
    every_node: bool = True,
    runtime_env: Mapping[str, object] | None = None,
) -> AsyncGenerator[Cluster, None]:
    """Start a process on each node of a cluster, and check that nothing is missing there.

    Args:
        driver: The import path of a driver, or of a function that takes a manifest and returns a
            driver or an async context manager of one; nodes import it. ``None``: each node opens
            the driver that the manifest names.
        address: The head of the Ray cluster, ``host:port``. ``auto``: the one that Ray finds on
            this machine. ``local:3``: three nodes in threads of this process, without Ray.
        tools: The import path of a tool builder or registry; nodes import it, and the tools run
            there. ``None``: no tools run on nodes.
        labels: Returns the labels that a node must have for a manifest. ``None``: any node will do.
        manifests: Manifests of agents that will be spawned. Each node opens their models now.
        modules: Modules that each node must have.
        keys: Variables that must be set in each node's environment.
        lease_seconds: How long a node goes on without a message from this program.
        start_seconds: How long a node may take to start.
        model_seconds: How long a node may take to open a model.
        privacy: The strictest tier of agents whose data may go to the nodes. ``None``: Private for
            other machines, Sovereign for threads of this process.
        every_node: Whether it is an error if a node lacks something or cannot open a model.
            ``False``: that node gets no work, and ``nodes()`` says why. A node that is lost while
            it opens a model is started again up to two times.
        runtime_env: What Ray ships to the nodes, in Ray's format. ``None``: nothing.

    Raises:
        ClusterError: If there is no Ray, no answer or no node. Also if the head is lost later; the
            block is then cancelled.
        NodeCheckError: If a node lacks something, or cannot open a model. The error names the node.
        UsageError: If an argument is invalid, or no node has the labels for a manifest.
    """
    _check_arguments(locals())
    named = {"driver": driver, "tools": tools}
    names = [None if one is None else path_of(what, one) for what, one in named.items()]
    needs = (tuple(modules), tuple(keys))
    async with (
        _open_source(address, runtime_env or {}) as source,
        _running(
            source, _terms(source, names, needs, (lease_seconds, start_seconds)),
            privacy or source.privacy, every_node=every_node, model_seconds=model_seconds,
        ) as nodes,
    ):  # fmt: skip
        drivers = FarDrivers(nodes, labels)
        await drivers.open_everywhere(manifests, every_node=every_node)
        yield Cluster(nodes, drivers, None if tools is None else FarTools(nodes, labels))


def _check_arguments(given: Mapping[str, object]) -> None:
    """Raise if an argument of open_cluster() is wrong, before anything has been started."""
    check_trio("open_cluster")
    expect_arguments(open_cluster, given, but=("driver", "tools", "labels", "manifests"))
    for name in ("lease_seconds", "start_seconds", "model_seconds"):
        seconds = given[name]
        if not (is_number(seconds) and 0 < cast("float", seconds) < math.inf):
            raise UsageError(f"{name} must be > 0, got {quoted(seconds)}")


def _terms(
    source: Source,
    names: Sequence[str | None],
    needs: tuple[tuple[str, ...], tuple[str, ...]],
    seconds: tuple[float, float],
) -> Terms:
    """Return the requirements for each node. What these name must be importable here as well."""
    for what, name in zip(("driver", "tools"), names, strict=True):
        if name is not None:
            find_as(what, name)
    return Terms(
        agentpool=__version__,
        python=(sys.version_info.major, sys.version_info.minor),
        ray=source.ray,
        driver=names[0],
        tools=names[1],
        modules=needs[0],
        keys=needs[1],
        lease_seconds=seconds[0],
        start_seconds=seconds[1],
    )


@asynccontextmanager
async def _running(
    source: Source,
    terms: Terms,
    privacy: PrivacyTier,
    *,
    every_node: bool = True,
    model_seconds: float = 600.0,
) -> AsyncGenerator[Nodes, None]:
    """Keep the nodes working inside the block; errors of the block are raised unwrapped."""
    async with background() as nursery:
        tools = None if terms.tools is None else facts_of_shared(find(terms.tools))
        nodes = Nodes(source, terms, privacy, nursery, tools, model_seconds)
        try:
            await nodes.open(every_node=every_node)
            yield nodes
        finally:
            nodes.close()
    if nodes.failure is not None:
        raise nodes.failure


@asynccontextmanager
async def _open_source(
    address: str, runtime_env: Mapping[str, object]
) -> AsyncGenerator[Source, None]:
    kind, _, count = address.partition(":")
    if kind == "local":
        if not count.isdigit() or int(count) < 1:
            raise UsageError(
                f"address must be like 'local:3', which is three nodes, got {address!r}"
            )
        yield LocalSource(int(count))
        return
    try:
        from agentpool.cluster import _ray  # noqa: PLC0415  # Ray is large, and an extra
    except ImportError as error:
        raise ClusterError(
            as_installed(
                f"a cluster needs Ray, which cannot be imported ({error}); run: "
                "pip install 'trio-agentpool[ray]', or try the program with address='local:2'"
            )
        ) from error
    async with _ray.connected(address, runtime_env) as source:
        yield source


@opening("pool")
@asynccontextmanager
async def open_cluster_pool(
    driver: Cluster | str | Callable[[AgentManifest], object] | None = None,
    *,
    address: str = "auto",
    tools: ToolRegistry | ToolBuilder | str | None = None,
    gate: RequestGate | None = None,
    lease_seconds: float = 10.0,
    **terms: Unpack[PoolTerms],
) -> AsyncGenerator[AgentPool, None]:
    """Open a pool whose requests, and named tools, run on the nodes of a cluster.

    It is an ``AgentPool`` like any other: agents, messages, budgets, events and the journal stay in
    this program; only the costly or dangerous work runs on nodes.

    >>> import trio
    >>> from agentpool import AgentManifest, SpawnConfig
    >>> from agentpool.cluster import open_cluster_pool
    >>> async def main() -> None:
    ...     echo = "agentpool.cluster:open_echo"
    ...     async with open_cluster_pool(echo, address="local:2") as pool:
    ...         handle = await pool.spawn(SpawnConfig(AgentManifest(), "Hello!"))
    ...         print((await handle.wait()).text)
    >>> trio.run(main)
    Hello!

    Args:
        driver: An open cluster, or a driver as in ``open_cluster``.
        address: As in ``open_cluster``. Leave it out for an open cluster, which has an address
            already.
        tools: The import path of tools that run on nodes, or tools as in ``open_pool``, which run
            in this program. ``None``: the cluster's tools, if it has any.
        gate: The gate where requests wait, whichever node they go to. ``None``: requests do not
            wait.
        lease_seconds: As in ``open_cluster``.
        terms: All other arguments of ``open_pool``.

    Raises:
        ClusterError: As in ``open_cluster``.
        NodeCheckError: As in ``open_cluster``.
        PoolError: As in ``open_pool``.
    """
    if isinstance(driver, Cluster):
        if isinstance(tools, str):
            raise UsageError(
                "the tools of an open cluster cannot change; pass them to open_cluster()"
            )
        async with _pool_on(driver, tools, gate, terms) as pool:
            yield pool
        return
    there = tools if isinstance(tools, str) else None
    here = None if isinstance(tools, str) else tools
    async with (
        open_cluster(driver, address=address, tools=there, lease_seconds=lease_seconds) as cluster,
        _pool_on(cluster, here, gate, terms) as pool,
    ):
        yield pool


@asynccontextmanager
async def _pool_on(
    cluster: Cluster,
    tools: ToolRegistry | ToolBuilder | None,
    gate: RequestGate | None,
    terms: PoolTerms,
) -> AsyncGenerator[AgentPool, None]:
    # One package: what a cluster is made of is not for its users.
    if cluster._nodes.is_closed:  # pyright: ignore[reportPrivateUsage]
        raise UsageError("this cluster is closed; open the pool in the block of open_cluster()")
    drivers = cluster._drivers  # pyright: ignore[reportPrivateUsage]
    choose: DriverFactory = drivers if gate is None else _Gated(drivers, gate)
    own = cluster._tools  # pyright: ignore[reportPrivateUsage]
    here = own if tools is None else tools
    async with open_pool(choose, tools=here, **terms) as pool:
        yield pool


@final
@attrs.define(eq=False)
class _Gated:
    """Chooses a driver, and puts a gate in front of it."""

    _drivers: FarDrivers
    _gate: RequestGate
    _known: dict[int, Driver] = attrs.field(factory=dict[int, Driver])

    def __call__(self, manifest: AgentManifest) -> Driver:
        """Return the driver of *manifest*."""
        driver = self._drivers(manifest)
        if driver.number not in self._known:
            self._known[driver.number] = GatedDriver(driver, self._gate)
        return self._known[driver.number]
