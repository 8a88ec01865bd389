"""Drives the loop of one agent: it performs the effects that the loop yields."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from agentpool._agent.agent import Agent, output_of, room_tokens
from agentpool._agent.past_usage import begin, take_back
from agentpool._agent.stored_spending import owed_by
from agentpool._agent.tool_calls import end_late, run_calls
from agentpool._agent.tool_request import complete_aside
from agentpool._agent.turn_request import complete
from agentpool._chat_markers import Cleaner
from agentpool._errors import DriverError, LimitExceededError, NetworkError
from agentpool._events import Phase, WindowCut
from agentpool._loop.guard import LoopGuard, Warn
from agentpool._loop.loop import run_loop
from agentpool._loop.run import (
    Complete,
    Effect,
    LeftOut,
    Recall,
    Receive,
    Remember,
    Run,
    RunTools,
    Summarize,
)
from agentpool._loop.thoughts import without_thoughts
from agentpool._messages import OWNER_ID, AgentMessage
from agentpool._scheduling.ctrl_c import interruptible
from agentpool._scheduling.request_clock import RequestClock
from agentpool._scheduling.step_limit import allow
from agentpool._spawn import SpawnConfig
from agentpool.abc import Fragment, MemoryQuery
from agentpool.abc._driver_facts import count_of
from agentpool.tools._registry import ToolRegistry

if TYPE_CHECKING:
    from agentpool._agent.run_journal import RunJournal


def _cleaned(messages: Sequence[AgentMessage], cleaner: Cleaner) -> tuple[AgentMessage, ...]:
    """Return *messages* without markers. Those of the owner are trusted and unchanged."""
    return tuple(
        message
        if message.sender == OWNER_ID
        else msgspec.structs.replace(message, content=cleaner.clean(message.content))
        for message in messages
    )


def set_out(agent: Agent, registry: ToolRegistry) -> None:
    """Create the run of *agent*, which is about to begin."""
    agent.registry = registry
    if agent.journal is not None:
        # Only a run that goes on can have changed.
        from agentpool._agent.branching import branch_if_changed  # noqa: PLC0415

        branch_if_changed(agent, agent.journal, registry, _new_run)
    agent.run = _new_run(agent, agent.config, registry)
    if agent.journal is not None and agent.purse is not None and agent.purse.is_stored:
        agent.journal.owed = partial(owed_by, agent.purse.kept_with(agent.journal))
    if agent.hub.listening:
        agent.phase(Phase.PERCEIVE, 0)


def is_plain(agent: Agent) -> bool:
    """Return whether no step of the run has a limit or is recorded in a journal.

    If so, the caller performs the effects of *agent* itself, one after the other: a coroutine for
    that would cost 250 bytes in each agent that waits. All other runs need ``drive``.
    """
    return agent.journal is None and not _has_limits(agent)


def effects_of(agent: Agent) -> Iterable[Effect]:
    """Return the effects of the run, for ``perform``."""
    assert agent.run is not None  # noqa: S101  # set_out() made it
    return run_loop(agent.run)


def _has_limits(agent: Agent) -> bool:
    assert agent.run is not None  # noqa: S101  # set_out() made it
    return agent.config.manifest.resources.request_seconds is not None or len(agent.run.tools) > 0


def drive(agent: Agent) -> Awaitable[None]:
    """Run *agent* to its end. ``agent.outcome`` then says how it ended.

    Returns:
        An awaitable. Await it immediately.

    Raises:
        Exception: The error that the driver failed with.

    Cancellation:
        The run keeps its results so far, and all of its work has ended.
    """
    return _drive_limited(agent) if _has_limits(agent) else _drive_kept(agent)


async def _drive_kept(agent: Agent) -> None:  # noqa: ASYNC910  # every run asks its driver
    """Perform a run with a journal and without limits on its steps."""
    for effect in effects_of(agent):
        work = _perform_kept(agent, effect)
        if work is not None:
            await work
    assert agent.journal is not None  # noqa: S101  # or it would be plain
    agent.journal.refuse_early_end()
    await agent.journal.flush()


async def _drive_limited(agent: Agent) -> None:  # noqa: ASYNC910  # as _drive_kept()
    """Perform a run whose steps may have limits."""
    perform_next = perform if agent.journal is None else _perform_kept
    effects, now = iter(effects_of(agent)), agent.hub.now
    effect: Effect | None = None
    is_over = False
    while not is_over:
        error: Exception | None = None
        scope = agent.step_scope = trio.CancelScope()
        try:
            with scope:
                for effect in effects:
                    work = perform_next(agent, effect)
                    if work is None:
                        continue
                    await work
                    # Its deadline alone cancels it, and one that is ahead has not: to ask the scope
                    # takes twice as long. Where a clock stands still, there is none.
                    deadline = scope.deadline
                    if now() >= deadline or (deadline == math.inf and scope.cancel_called):
                        break  # it is used up
                else:
                    is_over = True
        except Exception as raised:
            if not scope.cancelled_caught:
                raise
            error = raised  # what else was wrong when its time was over
        if scope.cancelled_caught:
            # It stands where it was ended.
            await _end_late(agent, effect, error)
    if agent.journal is not None:
        agent.journal.refuse_early_end()
        await agent.journal.flush()


def perform(agent: Agent, effect: Effect) -> Awaitable[object] | None:
    """Perform *effect* and store the result in it.

    Returns:
        An awaitable, to be awaited immediately. ``None``: the effect is done. (One more coroutine
        around it would cost a tenth of a turn.)
    """
    # An instance check of another struct takes ten times as long as a look at its type.
    if type(effect) is Receive:
        # To write into a struct takes five times as long as to read it.
        if agent.interrupted is not effect.interrupted:
            effect.interrupted = agent.interrupted
        messages = agent.post.receive_many_nowait(agent.agent_id)
        if messages or effect.messages:
            effect.messages = _cleaned(messages, agent.home.cleaner)
        return None
    if type(effect) is Complete:
        return complete(agent, effect)
    if type(effect) is RunTools:
        return run_calls(agent, effect)
    return _do_aside(agent, effect)


def _perform_kept(agent: Agent, effect: Effect) -> Awaitable[object] | None:
    """Take the result of *effect* from the journal; or perform it and record the result.

    Returns:
        An awaitable, to be awaited immediately. ``None``: the effect is done.
    """
    journal, run = agent.journal, agent.run
    assert journal is not None and run is not None  # noqa: S101, PT018  # or nothing would be kept
    is_known = journal.give_back(effect, run)
    if journal.is_in_the_past:
        take_back(agent, effect)
    if is_known:
        return None
    if type(effect) is Receive:
        perform(agent, effect)
        journal.keep(effect, run)
        return None
    return _perform_and_keep(agent, effect, run, journal)


async def _perform_and_keep(agent: Agent, effect: Effect, run: Run, journal: RunJournal) -> None:  # noqa: ASYNC910  # see perform
    if type(effect) is Complete or type(effect) is Summarize:
        if begin(agent, effect.request):
            allow(
                agent.step_scope, None
            )  # what is left of the step before is not a time of the disk's
            try:
                await journal.flush()
            except trio.Cancelled:
                journal.keep_unsent()
                raise
    elif type(effect) is not RunTools:
        journal.writer.wake()
    work = perform(agent, effect)
    assert work is not None  # noqa: S101  # only what is received needs no wait
    await work
    if type(effect) is not RunTools:
        journal.keep(effect, run)


@interruptible
async def _do_aside(  # noqa: ASYNC910  # see below
    agent: Agent, effect: Recall | Remember | Summarize | LeftOut | Warn
) -> None:
    """Perform an effect that has no time limit."""
    if isinstance(effect, Warn | LeftOut):
        _tell(agent, effect)
        return  # noqa: ASYNC910  # there is nothing to wait for
    allow(agent.step_scope, None)
    if isinstance(effect, Recall):
        await _recall(agent, effect)
    elif isinstance(effect, Summarize):
        await _summarize(agent, effect)
    else:
        await _remember(agent, effect)


def _tell(agent: Agent, effect: Warn | LeftOut) -> None:
    if isinstance(effect, Warn):
        agent.hub.warned(agent.agent_id, agent.name, effect.text)
    else:
        cut = effect.cut
        what = (effect.strategy, cut.messages, cut.results, cut.tokens)
        told = (*what, effect.summary, effect.failure, cut.stubs)
        agent.hub.tell(WindowCut, agent.agent_id, agent.name, *told)


async def _summarize(agent: Agent, effect: Summarize) -> None:  # noqa: ASYNC910  # what is refused waits for nothing
    """Ask for a summary within the time of one request. A failure is only reported."""
    seconds = agent.config.manifest.resources.request_seconds
    limit_seconds = math.inf if seconds is None else seconds
    effect.failure = f"no summary within {limit_seconds:g} seconds"
    with trio.move_on_after(limit_seconds) as scope, RequestClock(scope):  # noqa: ASYNC912  # the same
        try:
            asked = await complete_aside(agent, agent.driver, effect.request, None)
        except (DriverError, LimitExceededError) as error:
            effect.failure = f"{type(error).__name__}: {error}"
        else:
            effect.completion, effect.reserved = asked
            effect.text = without_thoughts(effect.completion.text)
            effect.failure = "the model wrote nothing"


async def _end_late(agent: Agent, effect: Effect | None, error: Exception | None) -> None:  # noqa: ASYNC910  # it has been waited for
    """Record that *effect* ran out of time.

    Raises:
        NetworkError: If it was a request: the run cannot go on without an answer.
    """
    if isinstance(effect, RunTools):
        if None in effect.results:  # or it broke as it was ended, and that is its result
            end_late(agent, effect, effect.results.index(None))
        if not agent.slot.held:
            await agent.slot.leave_behind()
        return  # noqa: ASYNC910  # it has been waited for
    # Nothing else has a limit.
    assert isinstance(effect, Complete)  # noqa: S101
    raise error or NetworkError(
        f"no complete answer within {agent.config.manifest.resources.request_seconds:g} seconds; "
        "increase resources.request_seconds if the model is slow"
    )


def _new_run(agent: Agent, config: SpawnConfig, registry: ToolRegistry) -> Run:
    manifest = config.limited_manifest
    allowed = registry.allowed(manifest.capabilities, manifest.privacy)
    return Run(
        manifest,
        config.query,
        config.history,
        allowed.definitions,
        allowed.refusal,
        room_tokens(agent.driver, config, registry),
        LoopGuard(manifest.resources, allowed.waiting),
        agent.memory is not None,
        output_of(config),
        max_output_tokens=agent.driver.max_output_tokens,
        attachments=config.attachments,
        attachment_tokens=count_of(agent.driver),
    )


async def _recall(agent: Agent, effect: Recall) -> None:  # noqa: ASYNC910  # a broken memory need not have one
    assert agent.memory is not None  # noqa: S101  # only then the run asks
    query = MemoryQuery(text=effect.query, scope=agent.memory_scope, limit=effect.limit)
    try:
        hits = await agent.memory.recall(query)
        # What a tool once wrote into it is no better than what tools write now.
        effect.fragments = [agent.home.cleaner.clean(hit.fragment.content) for hit in hits]
    except Exception as error:  # noqa: BLE001  # foreign code: told and counted
        _tolerate(agent, "recall", error)


async def _remember(agent: Agent, effect: Remember) -> None:  # noqa: ASYNC910  # a broken memory need not have one
    assert agent.memory is not None  # noqa: S101  # only then the run asks
    fragment = Fragment(
        content=effect.content, scope=agent.memory_scope, created_at=agent.memory.now()
    )
    try:
        await agent.memory.remember(fragment)
    except Exception as error:  # noqa: BLE001  # foreign code: told and counted
        _tolerate(agent, "remember", error)


def _tolerate(agent: Agent, what: str, error: Exception) -> None:
    text = f"memory failed to {what}: {type(error).__name__}: {error}; the run goes on"
    agent.hub.warned(agent.agent_id, agent.name, text)
