"""Creates an agent when it gets its first slot, and its tools.

``new_agent`` is a separate function because everything that a task's outermost coroutine has in
variables or on its stack is kept twice for each agent that waits, by Python and by trio.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from agentpool._agent.agent import Agent, Home
from agentpool._agent.spending import Purse
from agentpool._errors import UsageError
from agentpool._messaging.post_office import PostOffice
from agentpool._pool.memory import PoolMemory
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.ctrl_c import interruptible
from agentpool._scheduling.owner import looking_on
from agentpool._scheduling.slot import Slot, current_slot
from agentpool._scheduling.strand import current_strand
from agentpool._served_call import current_call
from agentpool._spawn import seconds_of
from agentpool.abc import AgentContext
from agentpool.tools._registry import ToolRegistry

if TYPE_CHECKING:
    from agentpool._pool.journal import PoolJournal

ToolBuilder: TypeAlias = Callable[[AgentContext], ToolRegistry | Awaitable[ToolRegistry]]
"""Makes the tools of one agent. Async or not; it runs in the agent's own task."""

# A method of what was imported is made anew for each call.
_set_slot: Final = current_slot.set
_strand_now: Final = current_strand.get
_call_now: Final = current_call.get
_looks_on: Final = looking_on.get


def _take_task(slot: Slot) -> None:
    """Make the current task the main task of the agent with *slot*."""
    _set_slot(slot)
    if _strand_now() is not None:
        current_strand.set(None)  # it was started by a strand of another agent
    if _call_now() is not None:
        current_call.set(None)  # or while the other one served a call
    if _looks_on():
        looking_on.set(False)  # or while the other one was a bystander
    slot.task = trio.lowlevel.current_task()


def new_agent(
    home: Home,
    record: AgentRecord,
    slot: Slot,
    router: PostOffice,
    memory: PoolMemory,
    *,
    journal: PoolJournal | None,
) -> Agent:
    """Make the agent of *record*, with its deadline, and the current task its main task."""
    _take_task(slot)
    config, driver = record.take_work()
    agent_id, name, origin = record.agent_id, record.name, record.origin
    budget, hub = origin.budget, origin.pool.hub
    purse = None if budget is None else Purse(budget, slot, hub, agent_id, name)
    agent = Agent(
        agent_id, name, home, config, driver, slot, hub, router, memory.memory_for(config), purse
    )
    record.reach(agent)
    rare = record.rare
    if rare is not None:
        agent.interrupted = rare.interrupted
    if journal is not None:
        agent.journal = journal.run_of(agent_id, budget)
    seconds = seconds_of(config)
    if seconds is not None:
        slot.scope.deadline = trio.current_time() + seconds
        if rare is not None and rare.is_guarded:
            slot.guards = (slot.scope.deadline,)
    return agent


@interruptible
async def tools_of_agent(context: AgentContext, build: ToolBuilder) -> ToolRegistry:  # noqa: ASYNC910  # the run that follows has checkpoints
    """Return the tools that a builder makes for one agent."""
    built = build(context)
    if inspect.isawaitable(built):
        built = await built
    # Foreign code, and type checkers are optional.
    if not isinstance(built, ToolRegistry):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"the tool builder must return a ToolRegistry, got {type(built).__name__}")
    return built  # noqa: ASYNC910  # the run follows
