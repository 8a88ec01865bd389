"""Messages of a team that crashes anywhere: sent once, under one number, whoever sends at once."""

from __future__ import annotations

import re
from collections import Counter

import msgspec
import trio

from agentpool import (
    AgentManifest,
    AgentMessage,
    Capability,
    CapabilityKind,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, ToolMessage, call, calls
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, Journal, RecordKind
from agentpool.testing import crash_everywhere, simulate
from agentpool.tools import TEAM_TOOLS, ToolRegistry, tool

TEAM = AgentManifest(name="team", capabilities=(Capability(CapabilityKind.MESSAGE),))


def query(request: CompletionRequest) -> str:
    """Return what an agent is for."""
    return request.messages[0].text  # type: ignore[union-attr]  # a query


def results(request: CompletionRequest) -> list[str]:
    """Return what calls came to."""
    return [one.content for one in request.messages if isinstance(one, ToolMessage)]


def everything(request: CompletionRequest) -> str:
    """Return all that was said: what arrives between two turns is no result."""
    texts = [one.content if isinstance(one, ToolMessage) else one.text for one in request.messages]
    return "\n".join(texts)


async def sent(journal: Journal) -> list[AgentMessage]:
    """Return the messages that the journal has, each of which was accepted once."""
    records = [one for one in await journal.read("kept") if one.kind is RecordKind.SENT]
    assert max(Counter(one.digest for one in records).values()) == 1
    messages = [msgspec.json.decode(one.body, type=AgentMessage) for one in records]
    assert [one.message_id for one in messages] == list(range(1, len(messages) + 1))
    return messages


def test_two_sends_of_one_answer_keep_their_numbers() -> None:
    """Each is heard once, and a result names the number that its recipient saw."""

    def tell_both(request: CompletionRequest) -> Answer:
        done = results(request)
        if not done:
            return calls(
                call("send_message", to=2, content="for two"),
                call("send_message", to=3, content="for three"),
            )
        replies = re.findall(r"heard \d", everything(request))
        return " ".join(done[:2]) if len(replies) == 2 else call("wait_for_message")

    async def answer(request: CompletionRequest) -> Answer:
        if query(request) == "tell both":
            await trio.sleep(1)
            return tell_both(request)
        heard = re.findall(r"essage (\d+) from agent 1\b", everything(request))
        if not heard:
            return call("wait_for_message")
        if any(one.startswith("sent as") for one in results(request)):
            return f"{query(request)} heard {heard[0]}"
        reply_to = int(heard[0])
        return call("send_message", to=1, content=f"heard {reply_to}", reply_to=reply_to)

    async def scenario(journal: Journal) -> object:
        driver, tools = FunctionDriver(answer), ToolRegistry(TEAM_TOOLS)
        async with open_pool(
            driver, name="kept", resume=True, journal=journal, tools=tools
        ) as pool:
            names = ("tell both", "two", "three")
            pool.fan_out_nowait([SpawnConfig(TEAM, one, key=one) for one in names])
            texts = [outcome.text for outcome in (await pool.join_all()).values()]
        messages = await sent(journal)
        number_of = {one.recipient: one.message_id for one in messages if one.sender == 1}
        assert texts == [
            f"sent as message {number_of[2]} sent as message {number_of[3]}",
            f"two heard {number_of[2]}",
            f"three heard {number_of[3]}",
        ]
        told = {one.sender: (one.content, one.reply_to) for one in messages if one.sender != 1}
        assert told == {who: (f"heard {n}", n) for who, n in number_of.items()}
        return len(messages)

    assert crash_everywhere(scenario).points > 10


def test_two_questions_of_one_answer_have_their_own_answers() -> None:
    """To the same agent, answered in either order, and asked and answered once."""

    async def answer(request: CompletionRequest) -> Answer:
        done = results(request)
        if query(request) == "ask twice":
            await trio.sleep(1)
            if done:
                return ", ".join(done)
            return calls(
                call("ask_agent", to=2, question="first"),
                call("ask_agent", to=2, question="second"),
            )
        heard = re.findall(r"message (\d+) from agent 1:\n~+\n(first|second)", everything(request))
        replied = sum(one.startswith("sent as") for one in done)
        if len(heard) < 2:
            return call("wait_for_message")
        if replied < 2:
            number, what = sorted(heard, reverse=True)[replied]
            return call("send_message", to=1, content=f"{what}!", reply_to=int(number))
        return "answered"

    async def scenario(journal: Journal) -> object:
        driver, tools = FunctionDriver(answer), ToolRegistry(TEAM_TOOLS)
        async with open_pool(
            driver, name="kept", resume=True, journal=journal, tools=tools
        ) as pool:
            names = ("ask twice", "answerer")
            pool.fan_out_nowait([SpawnConfig(TEAM, one, key=one) for one in names])
            texts = [outcome.text for outcome in (await pool.join_all()).values()]
        assert len(await sent(journal)) == 4
        return texts

    assert crash_everywhere(scenario).points > 10
    assert simulate(scenario, InMemoryJournal()) == ["first!, second!", "answered"]


def test_a_reply_to_a_call_that_is_not_made_again_is_not_lost() -> None:
    """Its tool says nothing of running again, so the model is told that it may have run."""

    @tool(capability=Capability(CapabilityKind.MESSAGE))
    async def tell(context: ToolContext) -> str:
        """Tell agent 2, and take long over it."""
        await context.agent.send(2, "news")
        await trio.sleep(5)
        return "told"

    def answer(request: CompletionRequest) -> Answer:
        done, said = results(request), everything(request)
        if query(request) == "teller":
            if not done:
                return call("tell")
            if "may or may not have been done" in done[-1]:
                return call("send_message", to=2, content="news, once more")
            return "heard yes" if "yes" in said else call("wait_for_message")
        heard = re.findall(r"essage (\d+) from agent 1\b", said)
        if not heard:
            return call("wait_for_message")
        if any(one.startswith("sent as") for one in done):
            return "answered"
        return call("send_message", to=1, content="yes", reply_to=int(heard[0]))

    async def scenario(journal: Journal) -> object:
        driver, tools = FunctionDriver(answer), ToolRegistry([*TEAM_TOOLS, tell])
        async with open_pool(
            driver, name="kept", resume=True, journal=journal, tools=tools
        ) as pool:
            names = ("teller", "answerer")
            pool.fan_out_nowait([SpawnConfig(TEAM, one, key=one) for one in names])
            texts = [outcome.text for outcome in (await pool.join_all()).values()]
        await sent(journal)
        return texts

    assert crash_everywhere(scenario).points > 10


def test_a_reply_wakes_whoever_waits_beside_the_call_that_sends_again() -> None:
    """It is held until the call has shown that it only sends."""

    @tool(capability=Capability(CapabilityKind.MESSAGE), on_unknown="rerun")
    async def tell(context: ToolContext) -> str:
        """Tell agent 2, after a while, and take long over it."""
        await trio.sleep(1)
        await context.agent.send(2, "news")
        await trio.sleep(5)
        return "told"

    def answer(request: CompletionRequest) -> Answer:
        said = everything(request)
        if query(request) == "teller":
            if not results(request):
                return calls(call("wait_for_message"), call("tell"))
            return "heard yes" if "yes" in said else "heard nothing"
        heard = re.findall(r"essage (\d+) from agent 1\b", said)
        if not heard:
            return call("wait_for_message")
        if any(one.startswith("sent as") for one in results(request)):
            return "answered"
        return call("send_message", to=1, content="yes", reply_to=int(heard[0]))

    async def scenario(journal: Journal) -> object:
        driver, tools = FunctionDriver(answer), ToolRegistry([*TEAM_TOOLS, tell])
        async with open_pool(
            driver, name="kept", resume=True, journal=journal, tools=tools
        ) as pool:
            names = ("teller", "answerer")
            pool.fan_out_nowait([SpawnConfig(TEAM, one, key=one) for one in names])
            return [outcome.text for outcome in (await pool.join_all()).values()]

    assert crash_everywhere(scenario).points > 10


def test_a_reply_to_the_owner_is_heard_by_an_owner_that_only_sends() -> None:
    """It asked nothing, so the reply is in its inbox, also when it comes after the crash."""

    def answer(request: CompletionRequest) -> Answer:
        heard = re.findall(r"essage (\d+) from the owner", everything(request))
        if not heard:
            return call("wait_for_message")
        if any(one.startswith("sent as") for one in results(request)):
            return "answered"
        return call("send_message", to=0, content="yes", reply_to=int(heard[0]))

    async def scenario(journal: Journal) -> object:
        driver, tools = FunctionDriver(answer), ToolRegistry(TEAM_TOOLS)
        async with open_pool(
            driver, name="kept", resume=True, journal=journal, tools=tools
        ) as pool:
            handle = await pool.spawn(SpawnConfig(TEAM, "answerer", key="a"))
            await handle.send("well?")
            (reply,) = await pool.receive_many()
            return reply.content, reply.reply_to, (await handle.wait()).text

    assert crash_everywhere(scenario).points > 6


def test_a_question_is_another_message_than_one_that_asked_nothing() -> None:
    """Of the same text, in whichever order: its answer is an answer to it."""

    def answer(request: CompletionRequest) -> Answer:
        heard = re.findall(r"essage (\d+) from the owner", everything(request))
        said = [one for one in results(request) if one.startswith("sent as")]
        if len(said) == len(heard):
            return call("wait_for_message")
        number = int(heard[len(said)])
        return call("send_message", to=0, content=f"to {number}", reply_to=number)

    async def main(asks_first: bool) -> list[str]:  # noqa: FBT001  # simulate() passes it by place
        journal, said = InMemoryJournal(), list[str]()
        for asks in (asks_first, not asks_first):
            with trio.CancelScope() as scope:
                async with open_pool(
                    FunctionDriver(answer), name="kept", resume=True, journal=journal,
                    tools=ToolRegistry(TEAM_TOOLS),
                ) as pool:  # fmt: skip
                    handle = await pool.spawn(SpawnConfig(TEAM, "answerer", key="a"))
                    if asks:
                        said.append((await handle.ask("well?")).content)
                    else:
                        await handle.send("well?")
                        (reply,) = await pool.receive_many()
                        said.append(reply.content)
                    scope.cancel()
                    await trio.sleep_forever()
        return said

    for asks_first in (True, False):
        assert simulate(main, asks_first) == ["to 1", "to 3"]  # 2 is the first answer
