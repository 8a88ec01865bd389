"""The pool of a command: opens models, checks manifests, prints warnings."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from socket import socket
from typing import TYPE_CHECKING

import attrs
import trio

from agentpool import AgentManifest, AgentPool, PoolPlan, UsageError, open_manifest_pool
from agentpool import journal as journals
from agentpool._cli._budget_file import BudgetFile
from agentpool._cli._cluster import open_cluster_drivers
from agentpool._cli._command import NOTHING_HELD_BACK, ClusterOptions, Options
from agentpool._cli._recording import open_recording
from agentpool._cli._script import load_script
from agentpool.abc import Driver, Journal, Observer
from agentpool.drivers import ProviderGates
from agentpool.live import ApprovalDesk, listen, serve_live
from agentpool.tools import Approver

if TYPE_CHECKING:
    from agentpool.journal import SqliteJournal


@asynccontextmanager
async def open_command_pool(
    manifests: Sequence[AgentManifest],
    options: Options,
    *,
    budget_file: BudgetFile,
    gates: ProviderGates | None,
    observers: Sequence[Observer],
    warn: Callable[[str], Awaitable[None]],
    approve: Approver | None = None,
    kept_as: str = "pool",
    journal: Journal | None = None,
    desk: ApprovalDesk | None = None,
    say: Callable[[str], Awaitable[None]],
    lost: Callable[[str], Awaitable[None]] | None = None,
    loading: Callable[[str], None] = lambda _: None,
) -> AsyncGenerator[AgentPool, None]:
    """Open the models of *manifests* and a pool of agents that use them.

    Args:
        manifests: The manifests of all agents that will run.
        options: How to run them.
        budget_file: The limit for all agents together, and the file with the spending.
        gates: The gates for their requests. ``None``: there are none.
        observers: Called with every event.
        warn: Called with each warning.
        approve: Asked before calls that need approval. ``None``: they fail.
        kept_as: The pool's name in the journal.
        journal: The journal. ``None``: the file that the options name, if they name one.
        desk: The desk where calls wait for a person at the live page.
        say: Called with the link to that page.
        lost: Called if a requested recording is not complete. ``None``: a warning is printed.
        loading: Called with the models that are being loaded here, and then with an empty text.

    Raises:
        AgentPoolError: If a model cannot be opened, or a manifest cannot work.
    """
    plan = PoolPlan(
        manifests=tuple(manifests),
        max_concurrent=options.max_concurrent,
        max_queued=options.max_concurrent,  # who finds no place waits where it is
        driver=await _load_stand_in(options.script),
        gates=gates,
        memory_file=options.memory,
        budget=budget_file.budget,
        budget_store=budget_file,
        approve=approve,
    )
    await _warn_of(plan, warn)
    with nullcontext() if options.live is None else listen(*options.live) as listener:
        async with (
            open_options_journal(None if journal is not None else options.journal) as opened,
            open_recording(plan.secrets, options, lost or warn) as recording,
        ):
            plan = attrs.evolve(plan, observers=(*observers, *recording))
            if (kept := journal or opened) is not None:
                plan = attrs.evolve(plan, journal=kept, resume=True, name=kept_as)
            loaded = _loaded(plan, options, budget_file, loading)
            async with loaded as pool, _shown(pool, listener, desk, say):
                await _warn_of_gates(gates, warn)
                yield pool


async def _warn_of(plan: PoolPlan, warn: Callable[[str], Awaitable[None]]) -> None:
    await trio.lowlevel.checkpoint()
    for text in plan.warnings:
        await warn(text)


async def _warn_of_gates(
    gates: ProviderGates | None, warn: Callable[[str], Awaitable[None]]
) -> None:
    await trio.lowlevel.checkpoint()
    if gates is not None and not gates.statistics():
        await warn(NOTHING_HELD_BACK)


@asynccontextmanager
async def _on_nodes(
    plan: PoolPlan, cluster: ClusterOptions | None, loading: Callable[[str], None]
) -> AsyncGenerator[PoolPlan]:
    """Use the nodes of *cluster*, if it is given, in place of the models on this machine."""
    if cluster is None:
        yield plan
    else:
        loading(f"the models on the nodes of {cluster.address}")
        async with open_cluster_drivers(plan.manifests, cluster, plan.gates) as choose:
            yield attrs.evolve(plan, driver=choose)


@asynccontextmanager
async def _shown(
    pool: AgentPool,
    listener: socket | None,
    desk: ApprovalDesk | None,
    say: Callable[[str], Awaitable[None]],
) -> AsyncGenerator[None]:
    """Serve the live page on *listener*, if there is one."""
    if listener is None:
        yield
    else:
        async with serve_live(pool, listener=listener, approvals=desk) as page:
            await say(f"watch and step in at {page.url}")
            yield


async def _load_stand_in(file: str | None) -> Driver | None:  # noqa: ASYNC910  # there may be none
    """Return a driver that replaces every model. ``None``: the models answer."""
    if file is None:
        return None  # noqa: ASYNC910  # there is nothing to wait for
    # In a thread, like all files: it may be a pipe that is never written.
    return await trio.to_thread.run_sync(load_script, file, abandon_on_cancel=True)


@asynccontextmanager
async def open_options_journal(file: str | None) -> AsyncGenerator[SqliteJournal | None]:
    """Open the journal *file*. ``None``: the command has no journal.

    Raises:
        JournalError: If the journal cannot be opened.
    """
    if file is None:
        yield None
    else:
        # Looked up here, since it loads SQLite.
        async with journals.open_journal(file) as opened:
            yield opened


@asynccontextmanager
async def _loaded(
    plan: PoolPlan, options: Options, budget_file: BudgetFile, loading: Callable[[str], None]
) -> AsyncGenerator[AgentPool]:
    """Open the pool of *plan*, and show on *loading* what is being loaded."""
    async with (
        budget_file.opened(plan.manifests, plan.journal),
        _on_nodes(plan, options.cluster, loading) as placed,
    ):
        loading(_loaded_by(placed))
        async with open_manifest_pool(placed, warn=_was_told) as pool:
            loading("")
            yield pool


def _loaded_by(plan: PoolPlan) -> str:
    """Return the names of the models that run on this machine."""
    manifests = plan.manifests if plan.driver is None else ()
    models = [one.model for one in manifests if one.model.remote_model is None]
    names = [model.model_path or model.model_repo or "the local model" for model in models]
    return ", ".join(dict.fromkeys(names))


def _was_told(_text: str) -> None:
    """Ignore a warning that has already been written to standard error."""


@asynccontextmanager
async def only_here(journal: SqliteJournal | None, kept_as: str) -> AsyncGenerator[None]:
    """Refuse to continue, in a single process, a pool that workers share.

    Raises:
        UsageError: If workers share the pool.
    """
    if journal is not None and await journal.shared_work(kept_as).states():
        raise UsageError(
            f"{kept_as!r} in journal {str(journal.path)!r} is shared by workers; add --workers, or "
            "name another file with --journal"
        )
    yield
