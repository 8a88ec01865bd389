"""Opens a pool from manifests, with the models that they name and the tools that they grant."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import final

import attrs

from agentpool._opening import opening
from agentpool._checks import expect_arguments, expect_each, expect_fields
from agentpool import memory as memories
from agentpool._agent.retry_policy import RetryPolicy
from agentpool._approval import Approver
from agentpool._budget.budget import Budget
from agentpool._budget.store import BudgetStore
from agentpool._build.budgets import build_budget
from agentpool._build.drivers import check_prices, check_spawns, find_secrets, open_drivers
from agentpool._build.tools import SystemTools, build_tools, missing_tools
from agentpool._errors import UsageError
from agentpool._manifest.manifest import AgentManifest
from agentpool._pool.starting import ToolBuilder
from agentpool._pool.open import open_pool
from agentpool._pool.pool import AgentPool
from agentpool._needs_trio import check_trio
from agentpool.abc import Driver, DriverFactory, Journal, Memory, Observer
from agentpool.drivers._gated import ProviderGates
from agentpool.memory import InMemoryMemory
from agentpool.tools import EMPTY_REGISTRY, ToolRegistry
from agentpool.tools.mcp._servers import McpServers, open_mcp_servers


@final
@attrs.frozen(kw_only=True)
class PoolPlan:
    """The drivers, tools and budget for a pool of some manifests. See ``open_manifest_pool``.

    >>> from agentpool import AgentManifest, PoolPlan
    >>> manifest = AgentManifest.parse('''
    ... name = "reader"
    ... [[capabilities]]
    ... type = "compute"
    ... ''')
    >>> PoolPlan(manifests=(manifest,)).warnings[0][:38]
    "manifest 'reader' grants 'compute', fo"
    """

    manifests: tuple[AgentManifest, ...]
    """The manifests of all agents."""
    max_concurrent: int = 8
    """Agents that run at the same time."""
    max_queued: int = 10_000
    """Agents that may wait for their first slot. 0: refuse agents instead."""
    keep_outcomes: int | None = None
    """How many of the retrieved outcomes the pool still keeps. Set a number if the pool lives as
    long as a server. ``None``: all."""
    driver: Driver | DriverFactory | None = None
    """A driver that answers in place of every model, or a function that chooses one, such as
    ``Cluster.driver_of``; no model is opened then. ``None``: the models answer."""
    gates: ProviderGates | None = None
    """The gates for requests to providers. ``None``: requests do not wait."""
    folder: str | Path = "."
    """The folder for relative paths of grants and models, and for programs."""
    tools: ToolRegistry = EMPTY_REGISTRY
    """Your own tools, which every agent has in addition to its granted ones."""
    memory_file: str | None = None
    """The file of the agents' memory. ``None``: in memory, while the pool is open."""
    request_retries: RetryPolicy | None = None
    """When a failed request is made again. ``None``: four attempts at most."""
    budget: Budget | None = None
    """The budget that all agents share. ``None``: only the limits of each run, and the
    ``[budget]`` of a manifest."""
    budget_store: BudgetStore | None = None
    """The store for the ``[budget]`` of manifests: a journal. ``None``: ``journal`` is the
    store."""
    approve: Approver | None = None
    """Asked before calls that need approval. ``None``: such calls are refused."""
    observers: Sequence[Observer] = ()
    """Called with every event, as it happens; they must not block."""
    name: str = "pool"
    """The pool's name in events, memory scopes and its journal."""
    journal: Journal | None = None
    """The journal of runs, for resuming in another process. ``None``: runs are not recorded."""
    resume: bool = False
    """Whether to continue the runs that the journal has under the pool's name."""

    def __attrs_post_init__(self) -> None:
        """Refuse a plan without manifests or with fields of the wrong type."""
        expect_fields(self, but=("manifests",))
        expect_each(
            self.manifests, AgentManifest, "manifests must be AgentManifest objects",
            "write PoolPlan(manifests=(manifest,))",
        )  # fmt: skip
        if not self.manifests:
            raise UsageError("a PoolPlan needs at least one manifest, got none")
        for manifest in self.manifests:
            if not isinstance(manifest, AgentManifest):  # pyright: ignore[reportUnnecessaryIsInstance]  # from a newcomer's hand
                raise UsageError(
                    f"manifests must be AgentManifest objects, got {manifest!r}; read a file "
                    "with AgentManifest.load(path)"
                )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys in the environment for its models and servers, longest first.

        Remove them before you show texts of agents or errors.
        """
        return find_secrets(self.manifests, os.environ)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The grants for which this program has no tool, one sentence each."""
        return tuple(self._warnings())

    def _warnings(self) -> Iterator[str]:
        for manifest in dict.fromkeys(self.manifests):
            for missing in missing_tools(manifest):
                yield f"manifest {manifest.name!r} {missing}"


@opening("pool")
@asynccontextmanager
async def open_manifest_pool(
    plan: PoolPlan, *, warn: Callable[[str], object] | None = None
) -> AsyncGenerator[AgentPool, None]:
    """Open a pool whose agents have the models, memory and tools that their manifests name.

    Every grant works as on the command line. Relative paths begin in the plan's ``folder``::

        plan = PoolPlan(manifests=(AgentManifest.load("reviewer.toml"),), max_concurrent=4)
        async with open_manifest_pool(plan) as pool:
            handle = await pool.spawn(SpawnConfig(plan.manifests[0], "Review this"))
            print((await handle.wait()).text)

    Args:
        plan: What to open.
        warn: Called with each of ``plan.warnings``. ``None``: each is a ``UserWarning``.

    Yields:
        The pool.

    Raises:
        DriverError: If a model cannot be opened; says what is missing.
        ManifestError: If a manifest cannot work with its model.
        PrivacyError: If a manifest's tier forbids its model.
        UsageError: If there is a limit on cost and a model has no price, or a manifest has a
            ``[budget]`` and there is no store for it.
        JournalError: If the journal cannot be used, or another process runs the pool.
        PoolError: At the exit, if agents failed and their outcomes were never retrieved.

    Cancellation:
        All agents have ended, and everything that was opened is closed.
    """
    expect_arguments(open_manifest_pool, locals())
    check_trio("open_manifest_pool")
    _warn(plan, warn)
    budget = _budget_of(plan)
    async with (
        open_drivers(plan.manifests, stand_in=plan.driver, gates=plan.gates) as choose,
        _open_memory(plan.memory_file) as memory,
        open_mcp_servers() as servers,
        open_pool(
            choose,
            max_concurrent=plan.max_concurrent,
            max_queued=plan.max_queued,
            keep_outcomes=plan.keep_outcomes,
            memory=memory,
            tools=_tools_of(plan, memory, servers, choose),
            budget=budget,
            approve=plan.approve,
            request_retries=plan.request_retries,
            observers=plan.observers,
            name=plan.name,
            journal=plan.journal,
            resume=plan.resume,
        ) as pool,
    ):
        check_spawns(plan.manifests, choose)
        if _limits_cost(plan):
            check_prices(plan.manifests, choose)
        yield pool


def _tools_of(
    plan: PoolPlan, memory: Memory, servers: McpServers, choose: DriverFactory
) -> ToolBuilder:
    return build_tools(
        memory,
        servers,
        SystemTools(os.environ, plan.folder),
        choose,
        plan.tools,
        # With a file it was asked for, and a driver of one's own is no packaged model.
        spares_packaged=plan.memory_file is None and not isinstance(plan.driver, Driver),
    )


def _warn(plan: PoolPlan, warn: Callable[[str], object] | None) -> None:
    for text in plan.warnings:
        if warn is None:
            # A frame of contextlib and one of ours stand between this and who opens the pool.
            warnings.warn(text, UserWarning, stacklevel=5)
        else:
            warn(text)


def _budget_of(plan: PoolPlan) -> Budget | None:
    journal: object = plan.journal
    kept_in = journal if isinstance(journal, BudgetStore) else None
    return build_budget(plan.manifests, plan.budget, plan.budget_store or kept_in)


def _limits_cost(plan: PoolPlan) -> bool:
    whole = plan.budget is not None and plan.budget._needs_prices  # pyright: ignore[reportPrivateUsage]  # no pool needs it
    budgets = (manifest.budget for manifest in plan.manifests)
    return whole or any(one is not None and one.cost_usd is not None for one in budgets)


@asynccontextmanager
async def _open_memory(file: str | None) -> AsyncGenerator[Memory]:
    if file is None:
        yield InMemoryMemory()
    else:
        # Looked up here, since it loads SQLite.
        async with memories.open_sqlite_memory(file) as opened:
            yield opened
