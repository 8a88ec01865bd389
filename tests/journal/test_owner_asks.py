"""The owner of a pool asks, its process is killed, and its program asks once more."""

from __future__ import annotations

import re

import pytest
import trio

from agentpool import (
    AgentGoneError,
    AgentManifest,
    Capability,
    CapabilityKind,
    SpawnConfig,
    open_pool,
)
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


async def hush(request: CompletionRequest) -> str:
    """End without an answer to anybody."""
    await trio.sleep(10)
    return "done"


@pytest.mark.parametrize("spawns_again", [False, True])
def test_an_agent_that_ended_without_an_answer_gives_none_to_who_asks_again(
    *, spawns_again: bool
) -> None:
    """It is as one that has ended, whether it was asked before or not."""

    async def main() -> None:
        journal, config = InMemoryJournal(), SpawnConfig(CLERK, "slow", key="clerk")
        async with open_pool(FunctionDriver(hush), journal=journal) as pool:
            handle = await pool.spawn(config)
            with pytest.raises(AgentGoneError):
                await pool.router.ask(1, "How many?")
            await handle.wait()
        async with open_pool(FunctionDriver(hush), journal=journal, resume=True) as pool:
            if spawns_again:
                await pool.spawn(config)
            with pytest.raises(AgentGoneError):
                await pool.router.ask(1, "How many?")

    simulate(main)


async def idle(_: CompletionRequest) -> str:
    """Work until it is cancelled."""
    await trio.sleep_forever()


def test_another_text_is_another_message() -> None:
    """Only what is said once more with the same words was said before, in whatever order."""

    async def main() -> None:
        journal, config = InMemoryJournal(), SpawnConfig(CLERK, "slow", key="clerk")
        sent: list[tuple[str, int]] = []
        for texts in (["hello", "hello"], ["goodbye", "hello"], ["hello", "goodbye", "hello"]):
            async with open_pool(FunctionDriver(idle), journal=journal, resume=True) as pool:
                handle = await pool.spawn(config)
                for text in texts:
                    message = await handle.send(text)
                    assert message.content == text
                    sent.append((text, message.message_id))
                pool.abort_all()
        hello = [("hello", 1), ("hello", 2)]
        assert sent == [*hello, ("goodbye", 3), hello[0], hello[0], ("goodbye", 3), hello[1]]

    simulate(main)


class Rerun:
    """A tool that sends two messages in one order, and after a kill in the other."""

    def __init__(self, first: list[str], then: list[str]) -> None:
        """Take the texts of both processes."""
        self.texts = [first, then]
        self.returned: list[str] = []
        self.ids: list[int] = []

    def tools(self) -> ToolRegistry:
        """Return the tool for the next process."""
        texts, is_first = self.texts.pop(0), len(self.texts) == 1

        @tool(on_unknown="rerun")
        async def tell(context: ToolContext) -> str:
            """Tell agent 1."""
            for text in texts:
                message = await context.agent.send(1, text)
                self.returned.append(message.content)
                self.ids.append(message.message_id)
                if is_first:
                    await trio.sleep(100)
            return "told"

        return ToolRegistry([tell])


@pytest.mark.parametrize(
    ("then", "ids"), [(["A", "B"], [1, 1, 2]), (["B", "A"], [1, 2, 1]), (["A2", "B"], [1, 2, 3])]
)
def test_a_call_that_runs_again_may_send_in_another_order(then: list[str], ids: list[int]) -> None:
    """A message is known by its text, not by its place in the call."""

    async def teller(request: CompletionRequest) -> Answer:
        if said(request).startswith("idle"):
            await trio.sleep_forever()
        return "done" if len(request.messages) > 1 else call("tell")

    async def main() -> None:
        journal, rerun = InMemoryJournal(), Rerun(["A", "B"], then)
        for seconds in (5, 200):
            with trio.move_on_after(seconds):
                async with open_pool(
                    FunctionDriver(teller), journal=journal, resume=True, tools=rerun.tools()
                ) as pool:
                    await pool.spawn(SpawnConfig(CLERK, "idle", key="idle"))
                    await (await pool.spawn(SpawnConfig(CLERK, "tell", key="tell"))).wait()
                    pool.abort_all()
        assert rerun.returned == ["A", *then]
        assert rerun.ids == ids

    simulate(main)
