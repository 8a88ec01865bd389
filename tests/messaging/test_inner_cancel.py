"""One call is cancelled while its caller goes on: what was accepted is not lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from agentpool import (
    AgentGoneError,
    AgentMessage,
    Capability,
    CapabilityKind,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import Observer
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.observe import AgentParked, WaitReason
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import (
    Recorder,
    calling,
    manifest,
    of_type,
    query_of,
    results_of,
    tool_call,
)
from tests.support.inner_cancel import cancel_inner_everywhere

TEAM = manifest(capabilities=(Capability(CapabilityKind.MESSAGE), Capability.spawn(2)))


def one_call(request: CompletionRequest) -> Completion | str:
    """Call the tool that the query names, then say what came of it."""
    results = results_of(request)
    return results[0].content if results else calling(tool_call(query_of(request)))


async def _asks_and_gives_up(
    scope: trio.CancelScope,
    replies: list[AgentMessage],
    *,
    slots: int = 1,
    observers: Sequence[Observer] = (),
) -> None:
    """Let agent 2 ask agent 1, give up, and read what came later.

    In a pool of one slot agent 1 answers after a while, and otherwise in its next step.
    Agent 1 listens before: what comes before its first request, its model is told at once.
    """
    seen: Counter[int] = Counter()
    sent: list[AgentMessage] = []

    @tool
    async def asker(context: ToolContext) -> str:
        """Ask, perhaps in vain."""
        with scope:
            answer = await context.agent.ask(1, "how much?")
            seen[answer.message_id] += 1
        with trio.move_on_after(5):
            while True:
                seen.update(one.message_id for one in await context.agent.receive_many())
        return "done"

    @tool
    async def answerer(context: ToolContext) -> str:
        """Answer what comes."""
        for question in await context.agent.receive_many():
            seen[question.message_id] += 1
            sent.append(question)
            if slots == 1:
                await trio.sleep(1)
            sent.append(await context.agent.send(2, "42", reply_to=question.message_id))
            replies.append(sent[-1])
        return "done"

    driver = FunctionDriver(one_call)
    tools = ToolRegistry([asker, answerer])
    async with open_pool(driver, tools=tools, max_concurrent=slots, observers=observers) as pool:
        await pool.spawn(SpawnConfig(TEAM, "answerer"))
        if slots > 1:
            await trio.testing.wait_all_tasks_blocked()
        await pool.spawn(SpawnConfig(TEAM, "asker"))
        if scope.cancel_called:
            # Nobody may ever ask agent 1.
            with trio.move_on_after(20):
                await pool.join_all()
            pool.abort_all("nobody asked")
        await pool.join_all()
    # The question itself may be a dead letter, if agent 1 had ended by then.
    accepted = {message.message_id for message in sent}
    seen = Counter({number: n for number, n in seen.items() if number in accepted})
    seen.update(
        letter.message.message_id
        for letter in pool.router.dead_letters
        if letter.message.message_id in accepted
    )
    assert seen == Counter(accepted)


@pytest.mark.parametrize("slots", [1, 2])
def test_a_reply_that_was_accepted_is_returned_or_read_or_a_dead_letter(slots: int) -> None:
    """Its sender was told "sent", and the asker, who had given up, never saw it."""
    replies: list[AgentMessage] = []
    cancelled = cancel_inner_everywhere(partial(_asks_and_gives_up, replies=replies, slots=slots))
    assert cancelled > 50
    # Or it would show nothing: in most runs there is a reply that can be lost.
    assert len(replies) > cancelled / 2


async def test_an_answer_that_comes_in_the_next_step_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    """To give the slot back and to take one again costs more than a look."""
    recorder = Recorder()
    await _asks_and_gives_up(trio.CancelScope(), [], slots=2, observers=[recorder])
    parked = of_type(recorder.events, AgentParked)
    assert [one.reason for one in parked] == [WaitReason.MESSAGE, WaitReason.MESSAGE]


async def test_messages_to_and_fro_are_not_waited_for(autojump_clock: MockClock) -> None:
    """Tasks run in any order in a tick, so a reader that looks once misses every second one."""

    @tool
    async def listen(context: ToolContext) -> str:
        """Play."""
        for _ in range(20):
            await context.agent.receive_many()
            await context.agent.send(2, "ball")
        return "done"

    @tool
    async def begin(context: ToolContext) -> str:
        """Play, and begin."""
        for _ in range(20):
            await context.agent.send(1, "ball")
            await context.agent.receive_many()
        return "done"

    recorder = Recorder()
    tools = ToolRegistry([listen, begin])
    async with open_pool(FunctionDriver(one_call), tools=tools, observers=[recorder]) as pool:
        await pool.spawn(SpawnConfig(TEAM, "listen"))
        # What comes before its first request, its model is told at once.
        await trio.testing.wait_all_tasks_blocked()
        await pool.spawn(SpawnConfig(TEAM, "begin"))
        outcomes = await pool.join_all()
    assert [one.text for one in outcomes.values()] == ["done", "done"]
    assert len(of_type(recorder.events, AgentParked)) == 1  # for the first ball


async def _owner_gives_up(scope: trio.CancelScope, replies: list[AgentMessage]) -> None:
    """Let the owner ask, give up and read on: in one scope of its own."""
    seen: Counter[int] = Counter()
    sent: list[AgentMessage] = []

    @tool
    async def answerer(context: ToolContext) -> str:
        """Answer what comes."""
        (question,) = await context.agent.receive_many()
        sent.append(await context.agent.send(0, "42", reply_to=question.message_id))
        replies.append(sent[-1])
        return "done"

    async with open_pool(FunctionDriver(one_call), tools=ToolRegistry([answerer])) as pool:
        handle = await pool.spawn(SpawnConfig(TEAM, "answerer"))
        await trio.sleep(1)  # what comes before its first request, its model is told at once
        # Whether an answer is heard is not asked here, only that none is lost or heard twice.
        with suppress(AgentGoneError), scope:
            seen[(await handle.ask("how much?")).message_id] += 1
        with trio.move_on_after(5):
            while True:
                seen.update(one.message_id for one in await pool.receive_many())
        pool.abort_all("the end")
        await pool.join_all()
    check = Counter({number: n for number, n in seen.items() if n})
    for letter in pool.router.dead_letters:
        if letter.message.sender:
            check[letter.message.message_id] += 1
    assert check == Counter({message.message_id: 1 for message in sent})


def test_the_owner_loses_no_reply_either() -> None:
    """In the same tick, the reply was accepted for somebody who had just been cancelled."""
    replies: list[AgentMessage] = []
    cancelled = cancel_inner_everywhere(partial(_owner_gives_up, replies=replies))
    assert cancelled > 40
    assert len(replies) > cancelled / 2
