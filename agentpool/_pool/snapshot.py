"""A pool's statistics, repr, and advice about wrong names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from agentpool._budget.statistics import PoolStatistics
from agentpool._pool.nursery import AgentNursery

ADVICE: Final[Mapping[str, str]] = {
    "run": "write `(await (await pool.spawn(SpawnConfig(manifest, query))).wait()).text`",
    "ask": "write `(await (await pool.spawn(SpawnConfig(manifest, query))).wait()).text`",
    "submit": "write `await pool.spawn(SpawnConfig(manifest, query))`",
    "start_soon": "write `await pool.spawn(SpawnConfig(manifest, query))`",
    "gather": "write `await pool.fan_out(configs)`, and `await pool.join_all()` for the outcomes",
    "join": "write `await pool.join_all()`, or `await pool.join_next()` for the next one",
    "wait": "write `await pool.join_all()`, or `await handle.wait()` for one agent",
    "cancel": "write `pool.abort_all(reason)`, or `handle.cancel(reason)` for one agent",
    "agents": "`pool[agent_id]` is the handle of one, and `await pool.join_all()` has all outcomes",
    "send": "write `await pool.router.send(agent_id, text)`",
    "stats": "write `pool.statistics()`",
}
"""What to write instead of wrong names that users may try."""


def refuse_iteration(pool: object, *_: object) -> NoReturn:
    """Say what to write instead of ``for agent in pool`` and ``agent in pool``.

    Raises:
        TypeError: Always.
    """
    raise TypeError(
        f"{type(pool).__name__!r} object cannot be iterated over, and `in` cannot be used with it; "
        "`await pool.join_all()` has all outcomes, and `pool[agent_id]` is the handle of one agent"
    )


def shown(agents: AgentNursery) -> str:
    """Return name and load: ``<AgentPool 'pool' 2/8 running>``."""
    admission = agents.admission
    parts = [f"{admission.running_count}/{admission.slots} running"]
    parked = len(agents.running) - admission.running_count
    parts += [f"{parked} parked"] * (parked > 0)
    parts += [f"{admission.queued_count} queued"] * (admission.queued_count > 0)
    return f"<AgentPool {agents.name!r} {', '.join(parts)}>"


def statistics_of(agents: AgentNursery) -> PoolStatistics:
    """Return a snapshot of a pool's numbers."""
    running = agents.admission.running_count
    return PoolStatistics(
        running=running,
        parked=len(agents.running) - running,
        at_gate=agents.admission.lent_count,
        queued=agents.admission.queued_count,
        spawned=agents.last_id,
        max_concurrent=agents.admission.slots,
        messages=agents.router.message_count,
        dead_letters=agents.router.dead_letter_count,
        warnings=agents.hub.warnings,
        observer_failures=agents.hub.observer_failures,
        observer_failure=agents.hub.observer_failure,
        budget=None if agents.budget is None else agents.budget.statistics(),
    )
