"""Opens a pool, and closes it properly however its block ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, cast

import trio

from agentpool._agent.retry_policy import RetryPolicy
from agentpool._agent.stored_spending import look_at
from agentpool._approval import Approver
from agentpool._block_errors import raise_unless_cancelled
from agentpool._budget.budget import Budget
from agentpool._chat_markers import Cleaner, default_cleaner
from agentpool._checks import (
    at_least,
    expect,
    expect_arguments,
    expect_each,
    expect_function,
    expect_name,
)
from agentpool._errors import PoolError, UsageError
from agentpool._messages import OWNER_ID
from agentpool._needs_trio import check_trio
from agentpool._opening import AsyncOnce, Once, Opening, opening
from agentpool._pool.memory import PoolMemory
from agentpool._pool.nursery import AgentNursery
from agentpool._pool.pool import AgentPool
from agentpool._pool.run_outcome import OUTSIDE
from agentpool._pool.spawn_checks import Entry
from agentpool._pool.starting import ToolBuilder
from agentpool._scheduling.ctrl_c import let_in, unbroken
from agentpool._scheduling.random import build_random
from agentpool.abc import Driver, DriverFactory, Journal, Memory, Observer
from agentpool.abc._driver_facts import check_facts
from agentpool.observe._hub import EventHub
from agentpool.tools._registry import EMPTY_REGISTRY, ToolRegistry

if TYPE_CHECKING:
    from agentpool._agent.run_journal import OnMismatch
    from agentpool._pool.journal import PoolJournal


# Ctrl-C in the step that enters or leaves a block would find it half open. Here and not there,
# since what opens blocks, and what tells events, stands below what knows of Ctrl-C.
_WHOLE: tuple[type[object], ...] = (Opening, Once, AsyncOnce, EventHub)
for _one in _WHOLE:
    unbroken(_one)


@opening("pool")
@asynccontextmanager
async def open_pool(
    driver: Driver | DriverFactory,
    *,
    max_concurrent: int = 8,
    max_queued: int = 10_000,
    inbox_capacity: int = 32,
    memory: Memory | None = None,
    tools: ToolRegistry | ToolBuilder | None = None,
    budget: Budget | None = None,
    approve: Approver | None = None,
    request_retries: RetryPolicy | None = None,
    observers: Sequence[Observer] = (),
    on_failure: Literal["collect", "abort"] = "collect",
    name: str = "pool",
    markers: Sequence[str] | None = None,
    random_seed: int | None = None,
    keep_outcomes: int | None = None,
    journal: Journal | None = None,
    resume: bool | Literal["accept", "branch"] = False,
) -> AsyncGenerator[AgentPool, None]:
    """Open a pool of agents. Leaving the block waits for all of them.

    If the block raises, the agents are aborted and awaited first.

    Args:
        driver: Answers the agents' requests, or chooses a driver by manifest.
        max_concurrent: Agents that run at the same time.
        max_queued: Agents that may wait for their first slot. 0: refuse agents instead.
        inbox_capacity: How many messages can wait for one agent before senders must wait.
        memory: Where agents store fragments. ``None``: in a memory that ends with the pool.
        tools: The agents' tools, or a function that builds them for each agent.
        budget: What all agents may spend together. ``None``: each run has only its own limits.
        approve: Asked before calls that need approval. ``None``: such calls are refused.
        request_retries: When a failed request is made again. ``None``: four attempts at most.
        observers: Called with every event, as it happens; they must not block.
        on_failure: ``collect`` goes on after a failure; ``abort`` cancels the others.
        name: The pool's name in events and in memory scopes.
        markers: Texts to remove from tool results and recalled memories. ``None``: `MARKERS`.
        keep_outcomes: How many retrieved outcomes the pool keeps. ``None``: all, but only the
            last 1,000 of agents that parents, maps, races and supervisions started.
        random_seed: Seed of the jitter in retries. ``None``: the system chooses one.
        journal: Where runs are recorded under the pool's name. ``None``: nowhere.
        resume: ``True``: continue old runs. ``accept``: changed ones too. ``branch``: restart them.

    Raises:
        PoolError: At the exit, if agents failed and their outcomes were never retrieved.
        UsageError: If an argument is invalid.
        JournalError: If the journal cannot be used, or another process runs that pool.
    """
    _check_parts(locals())
    agents = AgentNursery(
        name, inbox_capacity, EventHub.open(_let_in(observers)), PoolMemory(memory),
        EMPTY_REGISTRY if tools is None else tools, abort_on_failure=_is_abort(on_failure),
        random=build_random(random_seed), budget=budget, cleaner=_cleaner(markers),
        approve=approve, retries=request_retries or _usual_retries())  # fmt: skip
    pool_of = _pool_of(agents, driver, keep_outcomes)
    block = _block(pool_of, max_concurrent, max_queued)
    async with _kept(journal, name, resume) as kept, block as pool:
        agents.resume(kept)
        yield pool


_usual_retries: Final = cache(RetryPolicy)  # one for all pools: it never changes


def _cleaner(markers: Sequence[str] | None) -> Cleaner:
    return default_cleaner() if markers is None else Cleaner(markers)


# The arguments whose checks have words of their own.
_CHECKED: Final = frozenset(
    {"driver", "max_concurrent", "max_queued", "inbox_capacity", "memory", "tools", "budget",
     "approve", "request_retries", "observers"}
)  # fmt: skip


def _check_parts(given: Mapping[str, object]) -> None:
    """Raise if an argument of open_pool() is wrong, before anything is opened."""
    check_trio("open_pool")
    expect_arguments(open_pool, given, but=_CHECKED)
    expect_name(cast("str", given["name"]))
    at_least(0, "max_queued", given["max_queued"])
    at_least(1, "max_concurrent", given["max_concurrent"])
    at_least(1, "inbox_capacity", given["inbox_capacity"])
    request_retries = given["request_retries"]
    driver, tools, memory = given["driver"], given["tools"], given["memory"]
    budget, approve, observers = given["budget"], given["approve"], given["observers"]
    if isinstance(driver, Driver):
        check_facts(driver)
    else:
        expect_function(
            driver,
            "driver must be a Driver, or a function from a manifest to one",
            _driver_advice(driver),
            object if isinstance(driver, type) and hasattr(driver, "complete") else Driver,
        )
    if tools is not None and not isinstance(tools, ToolRegistry):
        expect_function(
            tools,
            "tools must be a ToolRegistry, or a function that makes one",
            "write ToolRegistry([tool, ...])",
            ToolRegistry,
        )
    if memory is not None:
        expect(memory, Memory, "memory must be a Memory", "write agentpool.memory.InMemoryMemory()")
    if budget is not None:
        expect(budget, Budget, "budget must be a Budget", "write Budget(tokens=...)")
    if approve is not None:
        made = getattr(approve, "__name__", "")  # a class answers with objects of itself
        advice = f"write {made}(...)" if isinstance(approve, type) else "leave it out to refuse all"
        expect_function(approve, "approve must be a function", advice, object)
    if request_retries is not None:
        expect(
            request_retries,
            RetryPolicy,
            "request_retries must be a RetryPolicy",
            "write RetryPolicy(...)",
        )
    _check_observers(observers)


def _check_observers(observers: object) -> None:
    expect_each(
        observers, Observer, "observers must be a sequence of Observer objects",
        "write observers=[observer]",
    )  # fmt: skip
    for observer in cast("Sequence[object]", observers):
        advice, kind = "inherit from Observer", observer
        if isinstance(kind, type) and issubclass(kind, Observer):
            advice = f"write {kind.__name__}()"
        expect(observer, Observer, "each observer must be an Observer", advice)
    for observer in cast("Sequence[Observer]", observers):
        if missing := observer._missing:  # pyright: ignore[reportPrivateUsage]  # ours alone have it
            raise UsageError(missing)


def _let_in(observers: Sequence[Observer]) -> Sequence[Observer]:
    """Let Ctrl-C into what *observers* do when they are told of something; return them."""
    for observer in observers:
        for told in (observer.on_open, observer.on_event, observer.on_close):
            let_in(told)
    return observers


def _driver_advice(driver: object) -> str:
    """Return what to write in place of *driver*, which cannot be used as one."""
    kind: type[object] = driver if isinstance(driver, type) else type(driver)
    if issubclass(kind, Driver):
        return f"write {kind.__name__}(...)"
    if hasattr(kind, "complete"):
        made = f", and write {kind.__name__}(...)" if kind is driver else ""
        return f"let {kind.__name__} inherit from agentpool.abc.Driver{made}"
    return "open one with agentpool.drivers.open_driver(manifest.model)"


def _kept(
    journal: Journal | None,
    name: str,
    resume: bool | Literal["accept", "branch"],  # noqa: FBT001  # see open_pool
) -> AbstractAsyncContextManager[PoolJournal | None]:
    if journal is None:
        if resume:
            raise UsageError("resume=True needs a journal; give one with journal=")
        return nullcontext()
    # What keeps runs is loaded by whoever has them kept.
    from agentpool._pool.journal_opening import open_pool_journal  # noqa: PLC0415

    mismatch: OnMismatch = "refuse" if isinstance(resume, bool) else resume
    return open_pool_journal(journal, name, resume=bool(resume), on_mismatch=mismatch)


_SHOWN_FAILURES: Final = 3
"""How many of the failed agents the error's text names. Its fields have all of them."""


def _raise_unseen(agents: AgentNursery) -> None:
    unseen = agents.fan_in.unseen_failures()
    if unseen:
        shown = [agents.fan_in.find(one) for one in list(unseen)[:_SHOWN_FAILURES]]
        first = [f"agent {one.agent_id} ({one.name})" for one in shown if one is not None]
        raise PoolError(
            f"{len(unseen)} of {agents.last_id} agents failed and their outcomes were "
            f"never retrieved: {', '.join(first)}{', ...' * (len(unseen) > len(first))}",
            list(unseen.values()),
            tuple(unseen),
        )


def _pool_of(
    agents: AgentNursery, driver: Driver | DriverFactory, keep_outcomes: int | None
) -> AgentPool:
    if keep_outcomes is not None:
        agents.fan_in.keep_outcomes = at_least(0, "keep_outcomes", keep_outcomes)
    known = agents.tools if isinstance(agents.tools, ToolRegistry) else EMPTY_REGISTRY
    agents.entry = Entry(driver, known, agents.budget_of)
    return AgentPool(agents)


def _is_abort(on_failure: str) -> bool:
    return on_failure == "abort"


@asynccontextmanager
async def _block(pool: AgentPool, slots: float, max_queued: int) -> AsyncGenerator[AgentPool, None]:
    """Run the block with the agents inside; an error of the block is raised unwrapped."""
    agents = pool._agents  # pyright: ignore[reportPrivateUsage]  # this opens the pool
    failed: Exception | None = None
    await look_at(agents.budget)
    try:
        async with trio.open_nursery() as nursery:
            agents.open(nursery, slots, max_queued)
            try:
                yield pool
                agents.router.give_up(OWNER_ID)
                await agents.wait_empty()
                # At once, since the trio nursery takes no task either from here on.
                pool.close()
            except trio.Cancelled:
                pool.close()
                agents.abort(*OUTSIDE)
                raise
            except Exception as raised:  # noqa: BLE001  # raised again below
                # After the nursery, so that it comes out as itself and in no group.
                failed = raised
                pool.close()
                agents.abort("pool", f"its block raised {type(raised).__name__}")
            except BaseException as raised:  # Ctrl-C, or the end of the program
                pool.close()
                agents.abort("pool", f"its block raised {type(raised).__name__}")
                raise
            finally:
                agents.deadlocks.leave()
                if agents.journal is not None:
                    agents.journal.stop()
    except BaseException as outside:  # noqa: ASYNC103, BLE001  # see there
        raise_unless_cancelled(failed, outside)
    finally:
        if agents.journal is not None:
            # Who was cancelled on purpose may have ended after the rest was cut.
            await agents.journal.writer.write_rest()  # noqa: ASYNC102  # it shields itself
        pool.close()
        agents.abort(*OUTSIDE)
        agents.deadlocks.close()
        agents.router.unregister(OWNER_ID, reason="the pool closed")
        agents.hub.close(pool.statistics())
    if failed is not None:
        for agent_id, error in agents.fan_in.unseen_failures().items():
            failed.add_note(f"agent {agent_id} failed as well: {type(error).__name__}: {error}")
        raise failed
    _raise_unseen(agents)
