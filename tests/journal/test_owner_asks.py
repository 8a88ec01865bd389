"""The owner of a pool asks, its process is killed, and its program asks once more."""

from __future__ import annotations

import re

import trio

from agentpool import AgentManifest, Capability, CapabilityKind, SpawnConfig, open_pool
from agentpool._messages import DeadLetter
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, Journal
from agentpool.testing import crash_everywhere, simulate
from agentpool.tools import TEAM_TOOLS, ToolRegistry, tool

CLERK = AgentManifest(name="clerk", capabilities=(Capability(CapabilityKind.MESSAGE),))


def said(request: CompletionRequest) -> str:
    """Return all that was said: what arrives between two turns is no result."""
    texts = [one.content if isinstance(one, ToolMessage) else one.text for one in request.messages]
    return "\n".join(texts)


async def clerk(request: CompletionRequest) -> Answer:
    """Wait for a question, answer it with seven, and end."""
    question = re.search(r"essage (\d+) from the owner", said(request))
    if question is None:
        return call("wait_for_message")
    await trio.sleep(1)
    if "sent as message" in said(request):
        return "done"
    return call("send_message", to=0, content="Seven", reply_to=int(question[1]))


async def curious_clerk(request: CompletionRequest) -> Answer:
    """Do the same, and ask the owner something before the end."""
    if "sent as message" not in said(request):
        return await clerk(request)
    if "because" not in said(request):
        return call("ask_agent", to=0, question="Why?")
    return "done"


def test_an_owner_that_comes_late_to_its_question_has_the_answer() -> None:
    """The agent goes on at once, and has ended before its owner's program asks again."""

    async def scenario(journal: Journal) -> object:
        driver, tools = FunctionDriver(clerk), ToolRegistry(TEAM_TOOLS)
        async with open_pool(driver, resume=True, journal=journal, tools=tools) as pool:
            handle = await pool.spawn(SpawnConfig(CLERK, "You know the numbers.", key="clerk"))
            await trio.sleep(5)
            reply = await handle.ask("How many?")
            return (
                reply.content,
                reply.reply_to,
                (await handle.wait()).text,
                pool.router.dead_letters,
            )

    assert crash_everywhere(scenario).points > 6
    assert simulate(scenario, InMemoryJournal()) == ("Seven", 1, "done", ())


def test_an_agent_that_asks_back_is_in_no_circle_with_its_owner() -> None:
    """Its answer was given before it asked, whenever the owner's program comes to it."""

    async def scenario(journal: Journal) -> object:
        driver, tools = FunctionDriver(curious_clerk), ToolRegistry(TEAM_TOOLS)
        async with open_pool(driver, resume=True, journal=journal, tools=tools) as pool:
            handle = await pool.spawn(SpawnConfig(CLERK, "You know the numbers.", key="clerk"))
            await trio.sleep(5)
            reply = await handle.ask("How many?")
            (question,) = await pool.receive_many()
            await handle.send("because", reply_to=question.message_id)
            return reply.content, question.content, (await handle.wait()).text

    assert crash_everywhere(scenario).points > 8
    assert simulate(scenario, InMemoryJournal()) == ("Seven", "Why?", "done")


def test_an_answer_that_is_not_asked_for_again_is_a_dead_letter() -> None:
    """And what else its agent writes is heard as always, in the order in which it was sent."""

    @tool(capability=Capability(CapabilityKind.MESSAGE))
    async def answer_twice(context: ToolContext) -> str:
        """Answer the owner's first message, and write more."""
        await trio.sleep(1)
        for text, reply_to in (("Seven", 1), ("or eight", 1), ("or nine", None)):
            await context.agent.send(0, text, reply_to=reply_to)
        return "answered"

    def answer(request: CompletionRequest) -> Answer:
        if "from the owner" not in said(request):
            return call("wait_for_message")
        return "done" if "answered" in said(request) else call("answer_twice")

    async def live(journal: Journal, *, asks: bool) -> tuple[list[str], tuple[DeadLetter, ...]]:
        driver, tools = FunctionDriver(answer), ToolRegistry([*TEAM_TOOLS, answer_twice])
        async with open_pool(driver, resume=True, journal=journal, tools=tools) as pool:
            handle = await pool.spawn(SpawnConfig(CLERK, "You know the numbers.", key="clerk"))
            if asks:
                with trio.move_on_after(0.5):
                    await handle.ask("How many?")
                pool.abort_all()
            await handle.wait()
            heard = [] if asks else [one.content for one in await pool.receive_many()]
        return heard, pool.router.dead_letters

    async def scenario() -> None:
        journal = InMemoryJournal()
        await live(journal, asks=True)
        heard, dead = await live(journal, asks=False)
        assert heard == ["or eight", "or nine"]
        assert [(one.message.content, one.reason) for one in dead] == [("Seven", "the pool closed")]

    simulate(scenario)


def test_answers_to_messages_that_were_no_questions_keep_their_order() -> None:
    """They are heard when the owner sends again, in the order in which they were written."""

    async def answer(request: CompletionRequest) -> Answer:  # noqa: ASYNC124  # as drivers are
        if "from the owner" not in said(request):
            return call("wait_for_message")
        texts = {0: ("Seven", 1), 1: ("or eight", 1), 2: ("or nine", None)}
        done = said(request).count("sent as message")
        if done == len(texts):
            return "done"
        content, reply_to = texts[done]
        terms = {} if reply_to is None else {"reply_to": reply_to}
        return call("send_message", to=0, content=content, **terms)

    async def scenario(journal: Journal) -> object:
        driver, tools = FunctionDriver(answer), ToolRegistry(TEAM_TOOLS)
        async with open_pool(driver, resume=True, journal=journal, tools=tools) as pool:
            handle = await pool.spawn(SpawnConfig(CLERK, "You know the numbers.", key="clerk"))
            await trio.sleep(5)
            await handle.send("How many?")
            await handle.wait()
            return [one.content for one in await pool.receive_many()]

    assert crash_everywhere(scenario).points > 8
    assert simulate(scenario, InMemoryJournal()) == ["Seven", "or eight", "or nine"]
