"""What a tool, the owner or an observer can reach by public names, and what it cannot.

Nobody sets the sender of a message, ends an agent but by its handle, or touches a slot.
"""

import inspect
import re

import pytest
import trio
import trio.testing

from agentpool import (
    OWNER_ID,
    AgentHandle,
    AgentMessage,
    AgentPool,
    AgentStatus,
    Budget,
    MessageRouter,
    OutcomeStream,
    SpawnConfig,
    TextStream,
    UsageError,
    open_pool,
)
from agentpool.abc import AgentContext, ToolContext
from agentpool.drivers import FallbackDriver, RequestGate, ScriptedDriver
from agentpool.observe import Event, EventReader, MessageSent, Observer
from agentpool.tools import Reservation, ToolRegistry
from tests.support.fakes import FakeTool, calling, hanging_driver, job, manifest, tool_call

SURFACE: dict[type, str] = {
    AgentHandle: "agent_id ask cancel depth forget has_ended interrupt name outcome parent_id send "
    "send_nowait status stream wait waits_for",
    AgentPool: "abort_all active_count as_completed broadcast close events fan_out "
    "fan_out_nowait join_all join_next map max_concurrent name queued_count race receive_many "
    "router shutdown spawn spawn_nowait statistics supervise",
    Budget: "change_limit is_within name parent reserve statistics",
    EventReader: "close",
    MessageRouter: "agent_count ask dead_letter_count dead_letters inbox_capacity live_ids "
    "message_count send send_nowait",
    OutcomeStream: "",
    TextStream: "close",
    Reservation: "charge commit cost_usd is_settled refund tokens",
}


@pytest.mark.parametrize("kind", SURFACE, ids=lambda kind: kind.__name__)
def test_a_live_class_has_these_public_members(kind: type) -> None:
    """Every other one would be a way into the pool's machine room."""
    assert sorted(name for name in dir(kind) if name[0] != "_") == SURFACE[kind].split()


@pytest.mark.parametrize("kind", SURFACE, ids=lambda kind: kind.__name__)
def test_no_public_method_takes_a_sender(kind: type) -> None:
    """It is whoever calls."""
    for name in SURFACE[kind].split():
        member = getattr(kind, name)
        if callable(member):
            names = set(inspect.signature(member).parameters)
            assert names.isdisjoint({"sender", "slot", "cancelled_by", "outcome"}), name


async def test_a_message_is_of_whoever_calls() -> None:
    """The owner by the router or a handle, a tool by whatever it got hold of."""
    sent = list[AgentMessage]()

    class Meddler(Observer):
        """Writes as well, when it is told of the first message."""

        def on_event(self, event: Event) -> None:
            """Keep messages."""
            if isinstance(event, MessageSent):
                sent.append(event.message)
                if len(sent) == 1:
                    pool.router.send_nowait(2, "of an observer")

    def build(_: AgentContext) -> ToolRegistry:
        async def forge(_: str, __: ToolContext) -> str:
            await pool.router.send(2, "by the router")
            pool.router.send_nowait(2, "at once")
            await pool[2].send("by a handle")
            await pool.broadcast("to all")
            return "done"

        return ToolRegistry([FakeTool("forge", forge)])

    forging = ScriptedDriver([calling(tool_call("forge")), "done"])
    drivers = {"forger": forging, "reader": hanging_driver()}
    async with open_pool(lambda one: drivers[one.name], tools=build, observers=[Meddler()]) as pool:
        forger = await pool.spawn(SpawnConfig(manifest("forger"), "forge"))
        await pool.spawn(SpawnConfig(manifest("reader"), "read"))
        assert (await forger.wait()).status is AgentStatus.COMPLETED
        pool.router.send_nowait(2, "of the owner")
        pool.abort_all()
    senders = {message.content: message.sender for message in sent}
    assert senders == {
        "by the router": 1, "of an observer": OWNER_ID, "at once": 1, "by a handle": 1, "to all": 1,
        "of the owner": OWNER_ID,
    }  # fmt: skip


async def test_a_tool_is_given_what_the_abstract_context_has_and_no_more() -> None:
    """It charged calls that nobody made, and broke the pool by what it had called at the end."""
    seen = list[AgentContext]()

    async def look(_: str, context: ToolContext) -> str:  # noqa: ASYNC124  # a stand-in
        seen.append(context.agent)
        return "seen"

    driver = ScriptedDriver([calling(tool_call("look")), "done"])
    async with open_pool(driver, tools=ToolRegistry([FakeTool("look", look)])) as pool:
        await (await pool.spawn(job())).wait()
    (context,) = seen
    assert {name for name in dir(context) if name[0] != "_"} == {
        name for name in dir(AgentContext) if name[0] != "_"
    }


async def test_handles_of_one_agent_are_equal_and_cannot_be_changed() -> None:
    """So they are good keys, and nobody rewrites what an agent is called."""
    async with open_pool(hanging_driver()) as pool:
        handle, other = await pool.fan_out([job(), job()])
        assert (handle, len({handle, pool[1], other})) == (pool[1], 2)
        for name in ("name", "agent_id", "status", "outcome"):
            with pytest.raises(AttributeError):
                setattr(handle, name, "changed")
        assert repr(pool.router) == "<MessageRouter of 2 agents: 0 messages, 0 dead letters>"
        assert (handle.parent_id, handle.depth) == (OWNER_ID, 0)
        pool.abort_all()


async def test_live_things_say_what_they_do() -> None:
    """At a prompt or in a log one sees how full a pool is, and no secret."""
    gate, driver = RequestGate("mine", max_in_flight=4), hanging_driver()
    assert repr(gate).startswith("<RequestGate 'mine' 0/")
    assert repr(FallbackDriver(driver, driver)) == "<FallbackDriver LiveDriver, LiveDriver>"
    async with open_pool(driver, max_concurrent=2, name="house") as pool:
        assert repr(pool) == "<AgentPool 'house' 0/2 running>"
        with pool.events() as events:
            assert repr(events) == "<EventReader 0 events>"
            pool.fan_out_nowait([job(), job(), job()])
            told = repr(events)
            assert re.fullmatch(r"<EventReader [1-9]\d* events>", told)
            assert repr(pool) == "<AgentPool 'house' 2/2 running, 1 queued>"
            assert repr(pool[3]) == "<AgentHandle 3 (hello) queued>"
        assert repr(events) == told.replace(">", ", closed>")
        pool.abort_all()
    async with gate.request(), trio.open_nursery() as nursery:
        narrow = RequestGate("narrow", max_in_flight=1)

        async def pass_through() -> None:
            async with narrow.request():
                await trio.sleep_forever()

        nursery.start_soon(pass_through)
        nursery.start_soon(pass_through)
        await trio.testing.wait_all_tasks_blocked()
        assert repr(narrow) == "<RequestGate 'narrow' 1/1 in flight, 1 waiting>"
        nursery.cancel_scope.cancel()


async def test_the_owner_asks_by_the_router() -> None:
    """And is told at once that it cannot ask itself."""
    async with open_pool(hanging_driver()) as pool:
        with pytest.raises(UsageError, match="cannot send to itself"):
            await pool.router.ask(OWNER_ID, "me?")
        await trio.lowlevel.checkpoint()
