"""How an agent is driven: the effects of its loop, performed for real."""

from __future__ import annotations

from agentpool._agent import Agent, output_of, room_tokens
from agentpool._calls import run_calls
from agentpool._events import Phase
from agentpool._guard import LoopGuard
from agentpool._loop import run_loop
from agentpool._request import complete
from agentpool._run import Complete, Recall, Receive, Remember, Run, RunTools
from agentpool.abc import Fragment, MemoryQuery
from agentpool.tools._registry import ToolRegistry


async def drive(agent: Agent, registry: ToolRegistry) -> None:  # noqa: ASYNC910  # every run asks its driver
    """Take *agent* to the end of its run. ``agent.outcome`` says how it ended.

    Raises:
        Exception: Whatever the driver failed with.

    Cancellation:
        The run keeps what it had; nothing of it goes on.
    """
    agent.registry = registry
    agent.run = run = _new_run(agent, registry)
    agent.phase(Phase.PERCEIVE)
    for effect in run_loop(run):
        if isinstance(effect, Receive):
            agent.home.receive(agent, effect)
        elif isinstance(effect, Complete):
            effect.completion = await complete(agent, effect.request, run)
        elif isinstance(effect, RunTools):
            await run_calls(agent, effect)
        elif isinstance(effect, Recall):
            await _recall(agent, effect)
        elif isinstance(effect, Remember):
            await _remember(agent, effect)
        else:
            agent.hub.warned(agent.agent_id, agent.name, effect.text)
    if run.stop is None:
        agent.phase(Phase.DONE)


def _new_run(agent: Agent, registry: ToolRegistry) -> Run:
    manifest = agent.config.limited_manifest
    allowed = registry.allowed(manifest.capabilities, manifest.privacy)
    return Run(
        manifest,
        agent.config.query,
        agent.config.history,
        allowed.definitions,
        allowed.refusal,
        room_tokens(agent.driver, agent.config, registry),
        LoopGuard(manifest.resources),
        agent.memory is not None,
        output_of(agent.config),
    )


async def _recall(agent: Agent, effect: Recall) -> None:  # noqa: ASYNC910  # a broken memory need not have one
    assert agent.memory is not None  # noqa: S101  # only then the run asks
    query = MemoryQuery(text=effect.query, scope=agent.memory_scope, limit=effect.limit)
    try:
        hits = await agent.memory.recall(query)
        # What a tool once wrote into it is no better than what tools write now.
        effect.fragments = [agent.cleaner.clean(hit.fragment.content) for hit in hits]
    except Exception as error:  # noqa: BLE001  # somebody else's code: told and counted
        _tolerate(agent, "recall", error)


async def _remember(agent: Agent, effect: Remember) -> None:  # noqa: ASYNC910  # a broken memory need not have one
    assert agent.memory is not None  # noqa: S101  # only then the run asks
    fragment = Fragment(
        content=effect.content, scope=agent.memory_scope, created_at=agent.memory.now()
    )
    try:
        await agent.memory.remember(fragment)
    except Exception as error:  # noqa: BLE001  # somebody else's code: told and counted
        _tolerate(agent, "remember", error)


def _tolerate(agent: Agent, what: str, error: Exception) -> None:
    text = f"memory failed to {what}: {type(error).__name__}: {error}; the run goes on"
    agent.hub.warned(agent.agent_id, agent.name, text)
