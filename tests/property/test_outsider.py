"""Whole pools at work, written from the promises alone and judged by what anybody can see.

A scenario says who does what; ``world`` judges each of them by the same ledger, which is kept
from events and return values and knows nothing of how a pool works. They mix what other tests
look at one by one: many senders, observers that use the pool, calls that are given up, owners
that end early, pools that are resized in the middle.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from hypothesis import settings

from agentpool import (
    AgentGoneError,
    AgentMessage,
    AgentPool,
    AgentPoolError,
    AgentStatus,
    Budget,
    Capability,
    CapabilityKind,
    DeadlockError,
    InboxFullError,
    LimitExceededError,
    PoolClosedError,
    PoolFullError,
    RestartPolicy,
    SpawnConfig,
    UnknownAgentError,
    UsageLimits,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest, Event, Observer, OnDelta
from agentpool.drivers import UserMessage
from agentpool.journal import InMemoryJournal
from agentpool.observe import (
    AgentFinished,
    AgentParked,
    AgentResumed,
    AgentSpawned,
    AgentStarted,
    MessageDropped,
    MessagesAdded,
    MessageSent,
    SlotsChanged,
)
from agentpool.testing import assert_quiescent, cancel_everywhere, explore
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import LiveDriver, calling, manifest, query_of, results_of, tool_call

pytestmark = pytest.mark.usefixtures("slots_handed_on")

IS_LONG = settings().max_examples >= 1000
SCHEDULES = 1000 if IS_LONG else 5

TOLD = re.compile(r"^Message (\d+) from", re.MULTILINE)
"""How a model is told of a message."""

GRANTS = (Capability(CapabilityKind.MESSAGE), Capability.spawn(3))


class Ledger(Observer):
    """What anybody can see of a pool, and whether it is what was promised."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.events: list[Event] = []
        self.spawned: list[int] = []
        self.ended: list[int] = []
        self.at_work: set[int] = set()
        self.slots: float = math.inf
        self.sent: list[AgentMessage] = []
        self.dropped: list[AgentMessage] = []
        self.taken: list[AgentMessage] = []
        self.told: list[int] = []
        self.faults: list[str] = []
        self.resumed = False
        self.acts: Callable[[Event], None] = lambda _: None

    def check(self, holds: object, what: str) -> None:
        """Keep what does not hold: what an observer raises is heard by nobody."""
        if not holds:
            self.faults.append(what)

    def on_event(self, event: Event) -> None:  # noqa: C901  # a table
        """Write it down; G3 and G5 hold at every instant."""
        self.check(not self.events or self.events[-1].sequence < event.sequence, "G11: the order")
        self.events.append(event)
        match event:
            case AgentSpawned(agent_id=agent_id):
                self.check(self.resumed or agent_id == len(self.spawned) + 1, "G5: the ids")
                self.spawned.append(agent_id)
            case AgentStarted(agent_id=agent_id) | AgentResumed(agent_id=agent_id):
                self.at_work.add(agent_id)
                self.check(len(self.at_work) <= self.slots, "G3: more run than may")
            case AgentParked(agent_id=agent_id):
                self.at_work.discard(agent_id)
            case AgentFinished(agent_id=agent_id):
                self.at_work.discard(agent_id)
                self.check(agent_id not in self.ended, "G2: two outcomes")
                self.ended.append(agent_id)
            case MessagesAdded(messages=messages):
                # Those that wait before a request are told the model at once.
                for message in messages:
                    if isinstance(message, UserMessage):
                        self.told += map(int, TOLD.findall(message.text))
            case SlotsChanged(max_concurrent=slots):
                # Those that have a slot keep it until they wait or end.
                self.slots = max(slots, len(self.at_work)) if slots < self.slots else slots
            case MessageSent(message=message):
                self.sent.append(message)
            case MessageDropped(message=message):
                self.dropped.append(message)
            case _:
                pass
        self.acts(event)

    def took(self, messages: tuple[AgentMessage, ...]) -> tuple[AgentMessage, ...]:
        """Write down what somebody received."""
        self.taken += messages
        return messages

    def judge(self) -> None:
        """Hold what was seen against the promises, when the pool is over."""
        assert not self.faults, self.faults
        assert sorted(self.spawned) == sorted(self.ended), "G2: an agent without an outcome"
        ids = [message.message_id for message in (*self.taken, *self.dropped)] + self.told
        assert max(Counter(ids).values(), default=1) == 1, "G8: delivered twice"
        assert not {message.message_id for message in self.sent} - set(ids), "G8: lost"
        by_pair: dict[tuple[int, int], list[int]] = defaultdict(list)
        for message in self.taken:
            if message.reply_to is None:
                by_pair[message.sender, message.recipient].append(message.message_id)
        assert all(numbers == sorted(numbers) for numbers in by_pair.values()), "G8: the order"


Act = Callable[["World", ToolContext], Awaitable[object]]


class World:
    """A pool, what its agents do, and the ledger."""

    def __init__(self, pool: AgentPool, ledger: Ledger, budget: Budget | None) -> None:
        """Take what was opened."""
        self.pool = pool
        self.ledger = ledger
        self.budget = budget

    async def receive(self, context: ToolContext) -> tuple[AgentMessage, ...]:
        """Receive as an agent."""
        return self.ledger.took(await context.agent.receive_many())

    async def ask(self, context: ToolContext, recipient: int) -> str:
        """Ask as an agent."""
        reply = await context.agent.ask(recipient, "?")
        self.ledger.took((reply,))
        return reply.content

    async def hear(self) -> tuple[AgentMessage, ...]:
        """Receive as the owner."""
        return self.ledger.took(await self.pool.receive_many())

    async def answer_all(self, context: ToolContext, count: int) -> None:
        """Answer *count* questions or more."""
        while count > 0:
            for question in await self.receive(context):
                count -= 1
                with suppress(AgentGoneError):
                    await context.agent.send(question.sender, "yes", reply_to=question.message_id)


def one(name: str, **more: object) -> SpawnConfig:
    """Return an agent that does what *name* says."""
    return SpawnConfig(manifest(capabilities=GRANTS), name, name=name, **more)  # type: ignore[arg-type]  # any of its fields


@asynccontextmanager
async def world(
    acts: dict[str, Act],
    *,
    slots: int = 2,
    inbox: int = 1,
    queued: int = 100,
    budget: Budget | None = None,
    journal: InMemoryJournal | None = None,
    resume: bool = False,
    on_failure: str = "collect",
) -> AsyncGenerator[World]:
    """Open a pool whose agents do what their names say; judge it when it is over."""
    ledger = Ledger()
    ledger.slots, ledger.resumed = slots, resume
    made: list[World] = []

    @tool(timeout_seconds=math.inf)
    async def act(name: str, context: ToolContext) -> str:
        """Do something."""
        return str(await acts[name](made[0], context))

    async def think(request: CompletionRequest, on_delta: OnDelta) -> Completion | str:
        name = query_of(request)
        results = results_of(request)
        if name in acts and not results:
            return calling(tool_call("act", name=name))
        on_delta(name)
        if name.startswith("nap"):
            await trio.sleep(float(name[3:]))
        if name == "break":
            raise ValueError("broken")
        return results[0].content if results else name

    try:
        async with open_pool(
            LiveDriver(think), max_concurrent=slots, max_queued=queued, inbox_capacity=inbox,
            tools=ToolRegistry([act]), observers=[ledger], budget=budget, journal=journal,
            resume=resume, on_failure=on_failure, random_seed=0,  # type: ignore[arg-type]  # one of two words
        ) as pool:  # fmt: skip
            made.append(World(pool, ledger, budget))
            yield made[0]
    finally:
        if made:
            assert_quiescent(made[0].pool)
            ledger.judge()
            if budget is not None:
                now = budget.statistics()
                meters = (now.tokens, now.cost, now.requests, now.tool_calls)
                assert all(meter.reserved == 0 for meter in meters), "G12: something is set aside"
                for meter in (now.requests, now.tool_calls):
                    assert meter.limit is None or meter.committed <= meter.limit, "G12: exact"


Scenario = Callable[[], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Have it run in every way below."""
    SCENARIOS[function.__name__] = function
    return function


# --- many senders


@scenario
async def many_report_to_an_owner_who_reads_late() -> None:
    """All that was sent is read."""

    async def report(_: World, context: ToolContext) -> None:
        for number in range(3):
            await context.agent.send(0, f"{number}")

    async with world({"report": report}, slots=2) as here:
        await here.pool.fan_out([one("report")] * 4)
        await trio.sleep(1)
        count = 0
        while count < 12:
            count += len(await here.hear())
        await here.pool.join_all()


@scenario
async def two_write_to_each_other_with_full_inboxes() -> None:
    """Each sends more than fits before it reads."""

    async def left(here: World, context: ToolContext) -> int:
        for number in range(4):
            with suppress(DeadlockError, AgentGoneError):
                await context.agent.send(2, f"{number}")
        return len(await here.receive(context)) if here.pool[2].outcome is None else 0

    async def right(here: World, context: ToolContext) -> int:
        for number in range(4):
            with suppress(DeadlockError, AgentGoneError):
                await context.agent.send(1, f"{number}")
        return 0

    async with world({"left": left, "right": right}) as here:
        await here.pool.fan_out([one("left"), one("right")])
        await here.pool.join_all()


@scenario
async def askers_of_one_who_ends_after_two_answers() -> None:
    """Two are answered, the others hear at once that it is gone."""

    async def ask(here: World, context: ToolContext) -> str:
        try:
            return await here.ask(context, 1)
        except AgentGoneError:
            return "gone"

    async def answer(here: World, context: ToolContext) -> None:
        await here.answer_all(context, 2)

    async with world({"ask": ask, "answer": answer}, slots=3, inbox=8) as here:
        await here.pool.spawn(one("answer"))
        await trio.sleep(0.1)  # what comes before its first request, its model is told
        await here.pool.fan_out([one("ask")] * 5)
        texts = [outcome.text for outcome in (await here.pool.join_all()).values()]
        assert set(texts[1:]) <= {"yes", "gone"}
        assert texts.count("yes") >= 2


@scenario
async def a_broadcast_beside_agents_that_end() -> None:
    """Those that are alive have it, and nobody twice."""

    async def listen(here: World, context: ToolContext) -> int:
        return len(await here.receive(context))

    async with world({"listen": listen}, slots=4) as here:
        await here.pool.fan_out([one("listen"), one("nap1"), one("listen"), one("nap0")])
        await trio.sleep(0.5)
        await here.pool.broadcast("hello")
        await here.pool.join_all()


@scenario
async def an_owner_asks_many_at_once_and_gives_up_half() -> None:
    """A reply that comes too late is read or dropped, never lost."""

    async def answer(here: World, context: ToolContext) -> None:
        (question,) = await here.receive(context)
        await trio.sleep(2)
        with suppress(AgentGoneError):
            await context.agent.send(0, "yes", reply_to=question.message_id)

    async def ask(here: World, number: int, seconds: float) -> None:
        with trio.move_on_after(seconds):
            reply = await here.pool[number].ask("?")
            here.ledger.took((reply,))

    async with world({"answer": answer}, slots=3, inbox=2) as here:
        await here.pool.fan_out([one("answer")] * 4)
        async with trio.open_nursery() as nursery:
            for number in range(1, 5):
                nursery.start_soon(ask, here, number, 1 if number % 2 else 100)
        await here.pool.join_all()


@scenario
async def messages_that_fit_nowhere_are_refused_and_leave_nothing() -> None:
    """G9: each refusal is its own error, and the state is as before."""

    async def listen(here: World, context: ToolContext) -> int:
        with suppress(DeadlockError):  # it may have been told before its first request
            await trio.sleep(1)
            await here.receive(context)
        return 1

    async with world({"listen": listen}, inbox=1) as here:
        handle = await here.pool.spawn(one("listen"))
        handle.send_nowait("1")
        with pytest.raises(InboxFullError):
            handle.send_nowait("2")
        with pytest.raises(UnknownAgentError):
            await here.pool.router.send(9, "x")
        assert "1" in str((await handle.wait()).messages)
        with pytest.raises(AgentGoneError):
            await handle.send("3")
        assert len(here.ledger.sent) == 1


# --- observers that use the pool


@scenario
async def an_observer_that_spawns_one_for_each_end() -> None:
    """Up to a number; each has an outcome."""
    async with world({}, slots=1, queued=3) as here:

        def act(event: Event) -> None:
            if isinstance(event, AgentFinished) and len(here.ledger.spawned) < 6:
                with suppress(PoolFullError, PoolClosedError):
                    here.pool.spawn_nowait(one("nap0"))

        here.ledger.acts = act
        await here.pool.fan_out([one("nap1"), one("nap1")])
        while await here.pool.join_next() is not None:
            pass


@scenario
async def an_observer_that_cancels_whoever_starts_second() -> None:
    """The cancelled one has an outcome, the others go on."""
    async with world({}, slots=2) as here:

        def act(event: Event) -> None:
            if isinstance(event, AgentStarted) and event.agent_id == 2:
                here.pool[2].cancel("no")

        here.ledger.acts = act
        await here.pool.fan_out([one("nap1")] * 3)
        ends = [outcome.status for outcome in (await here.pool.join_all()).values()]
    assert ends == [AgentStatus.COMPLETED, AgentStatus.CANCELLED, AgentStatus.COMPLETED]


@scenario
async def an_observer_that_resizes_at_every_end() -> None:
    """Between one and three, while others wait."""
    async with world({}, slots=2) as here:

        def act(event: Event) -> None:
            if isinstance(event, AgentFinished):
                here.pool.max_concurrent = 1 + event.agent_id % 3

        here.ledger.acts = act
        await here.pool.fan_out([one(f"nap{n % 3}") for n in range(7)])
        assert len(await here.pool.join_all()) == 7


@scenario
async def an_observer_that_writes_when_it_hears_of_a_message() -> None:
    """Its own messages are in the same order for everybody."""

    async def talk(_: World, context: ToolContext) -> None:
        await context.agent.send(0, "hello")

    async with world({"talk": talk}, inbox=10) as here:

        def act(event: Event) -> None:
            if isinstance(event, MessageSent) and event.message.content == "hello":
                with suppress(AgentPoolError):
                    here.pool[event.message.sender].send_nowait("thanks")

        here.ledger.acts = act
        await here.pool.fan_out([one("talk")] * 3)
        await here.pool.join_all()
        heard = 0
        while heard < 3:
            heard += len(await here.hear())


@scenario
async def an_observer_that_aborts_all_at_the_first_failure() -> None:
    """What was queued ends as well."""
    async with world({}, slots=1) as here:

        def act(event: Event) -> None:
            if isinstance(event, AgentFinished) and event.outcome.status is AgentStatus.FAILED:
                here.pool.abort_all("one failed")

        here.ledger.acts = act
        here.pool.fan_out_nowait([one("break"), one("nap1"), one("nap1")])
        ends = [outcome.status for outcome in (await here.pool.join_all()).values()]
    assert ends == [AgentStatus.FAILED, AgentStatus.CANCELLED, AgentStatus.CANCELLED]


@scenario
async def a_reader_of_events_that_leaves_in_the_middle() -> None:
    """Nobody waits for it."""
    async with world({}, slots=2) as here:
        await here.pool.fan_out([one("nap1")] * 4)
        seen = 0
        async for _ in here.pool.events():
            seen += 1
            if seen == 3:
                break
        assert len(await here.pool.join_all()) == 4


# --- calls that are given up while their caller goes on


@scenario
async def a_child_that_is_given_up_and_another_that_is_not() -> None:
    """The first has ended when the call returns; the second has its text."""

    async def parent(_: World, context: ToolContext) -> str:
        with trio.move_on_after(1):
            await context.agent.run_child("nap5")
        return (await context.agent.run_child("nap0")).text

    async with world({"parent": parent}, slots=1) as here:
        outcome = await (await here.pool.spawn(one("parent"))).wait()
        assert outcome.text == "nap0"
        assert len(here.ledger.ended) == 3


@scenario
async def an_ask_that_is_given_up_again_and_again() -> None:
    """Late replies are in the inbox of the asker, in order."""

    async def ask(here: World, context: ToolContext) -> int:
        replies = 0
        for _ in range(3):
            with trio.move_on_after(1):
                await here.ask(context, 1)
                replies += 1
        while replies < 3:
            replies += len(await here.receive(context))
        return replies

    async def slow(here: World, context: ToolContext) -> None:
        await trio.sleep(1.5)
        await here.answer_all(context, 3)

    async with world({"ask": ask, "slow": slow}, slots=1, inbox=5) as here:
        await here.pool.spawn(one("slow"))
        await trio.sleep(0.1)  # what comes before its first request, its model is told
        await here.pool.spawn(one("ask"))
        outcomes = await here.pool.join_all()
        assert outcomes[2].text == "3", outcomes


@scenario
async def a_send_that_is_given_up_at_a_full_inbox() -> None:
    """It was not accepted, so nobody gets it; the next one fits."""

    async def send(_: World, context: ToolContext) -> None:
        await context.agent.send(0, "1")
        with trio.move_on_after(1):
            await context.agent.send(0, "2")
        await context.agent.send(0, "3")

    async with world({"send": send}, inbox=1) as here:
        await here.pool.spawn(one("send"))
        await trio.sleep(2)
        heard: list[str] = []
        while "3" not in heard:
            heard += [message.content for message in await here.hear()]
        assert heard in (["1", "3"], ["1", "2", "3"])


@scenario
async def joins_that_are_given_up_beside_one_that_is_not() -> None:
    """Each outcome is given out once."""
    async with world({}, slots=2) as here:
        given: list[int] = []

        async def take(seconds: float) -> None:
            with trio.move_on_after(seconds):
                while (outcome := await here.pool.join_next()) is not None:
                    given.append(outcome.agent_id)

        await here.pool.fan_out([one(f"nap{n}") for n in (1, 2, 3, 4, 5)])
        async with trio.open_nursery() as nursery:
            for seconds in (1, 2.5, math.inf):
                nursery.start_soon(take, seconds)
        assert sorted(given) == [1, 2, 3, 4, 5]


@scenario
async def a_spawn_that_is_given_up_at_a_full_queue() -> None:
    """It is not an agent, or it is one that has an outcome."""
    async with world({}, slots=1, queued=1) as here:
        await here.pool.fan_out([one("nap2"), one("nap0")])
        with trio.move_on_after(1):
            await here.pool.spawn(one("nap0"))
        assert here.ledger.spawned == [1, 2]
        await here.pool.spawn(one("nap0"))
        assert len(await here.pool.join_all()) == 3


@scenario
async def a_race_that_is_given_up() -> None:
    """All racers have ended when it returns."""
    async with world({}, slots=2) as here:
        with trio.move_on_after(1):
            await here.pool.race([one("nap5")] * 4)
        assert here.pool.active_count == here.pool.queued_count == 0


# --- owners that end early


@scenario
async def an_owner_who_closes_while_a_child_is_wanted() -> None:
    """The parent is told, and may still answer."""

    async def parent(_: World, context: ToolContext) -> str:
        await trio.sleep(1)
        try:
            return (await context.agent.run_child("nap0")).text
        except PoolClosedError:
            return "closed"

    async with world({"parent": parent}) as here:
        handle = await here.pool.spawn(one("parent"))
        here.pool.close()
        assert (await handle.wait()).text == "closed"


@scenario
async def an_owner_who_shuts_down_beside_a_map() -> None:
    """The map ends, its agents have outcomes, nothing starts any more."""
    async with world({}, slots=2) as here, trio.open_nursery() as nursery:

        async def read() -> None:
            with suppress(PoolClosedError):
                async with here.pool.map(manifest(), ["nap3"] * 6) as outcomes:
                    async for _ in outcomes:
                        pass

        nursery.start_soon(read)
        await trio.sleep(1)
        await here.pool.shutdown(grace_seconds=1)
        assert here.pool.active_count == 0


@scenario
async def an_owner_who_leaves_a_map_in_a_race_with_its_agents() -> None:
    """What is left is cancelled and awaited."""
    async with world({}, slots=3) as here:
        async with here.pool.map(manifest(), ["nap1", "nap1", "nap1", "nap9"]) as outcomes:
            await anext(outcomes)
        assert here.pool.active_count == 0
        assert (await (await here.pool.spawn(one("nap0"))).wait()).text == "nap0"


@scenario
async def an_owner_whose_body_raises() -> None:
    """Its error comes out as itself, and everybody has ended."""

    async def run() -> None:
        async with world({}, slots=1) as here:
            await here.pool.fan_out([one("nap5"), one("nap5")])
            await trio.sleep(1)
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await run()


@scenario
async def an_owner_who_waits_for_nobody() -> None:
    """Failures nobody looked at come out of the block."""
    with pytest.raises(AgentPoolError):
        async with world({}, slots=2) as here:
            await here.pool.fan_out([one("break"), one("nap1"), one("break")])


@scenario
async def an_owner_who_aborts_while_agents_wait_for_each_other() -> None:
    """Askers, parents and those who wait for room."""

    async def ask(here: World, context: ToolContext) -> str:
        return await here.ask(context, 2)

    async def parent(_: World, context: ToolContext) -> str:
        return (await context.agent.run_child("nap9")).text

    async def fill(_: World, context: ToolContext) -> None:
        while True:
            await context.agent.send(2, "x")

    async with world({"ask": ask, "parent": parent, "fill": fill}, slots=2) as here:
        here.pool.fan_out_nowait([one("ask"), one("parent"), one("fill")])
        await trio.sleep(1)
        here.pool.abort_all("enough")
        ends = {outcome.status for outcome in (await here.pool.join_all()).values()}
        assert ends == {AgentStatus.CANCELLED}


# --- race, map, fan-out, children and restarts together


@scenario
async def a_race_of_parents() -> None:
    """The losers' children have ended as well."""

    async def parent(_: World, context: ToolContext) -> str:
        return (await context.agent.run_child("nap2")).text

    async with world({"parent": parent}, slots=2) as here:
        winner = await here.pool.race([one("parent"), one("parent"), one("nap1")])
        assert winner.text in {"nap1", "nap2"}
        assert len(here.ledger.ended) == len(here.ledger.spawned)


@scenario
async def a_map_inside_of_a_map() -> None:
    """In a pool of one."""

    async def inner(here: World, _: ToolContext) -> int:
        async with here.pool.map(manifest(), ["nap0", "nap1"]) as outcomes:
            return len([outcome async for outcome in outcomes])

    async with (
        world({"inner": inner}, slots=1) as here,
        here.pool.map(manifest(capabilities=GRANTS), ["inner", "inner"]) as outcomes,
    ):
        assert [outcome.text async for outcome in outcomes] == ["2", "2"]


@scenario
async def a_supervision_inside_of_a_child() -> None:
    """A supervised agent that fails for good ends its supervision, and not the pool."""

    async def keep(here: World, _: ToolContext) -> str:
        policy = RestartPolicy(max_restarts=2, delay_seconds=1)
        try:
            await here.pool.supervise([one("break"), one("nap9")], policy)
        except LimitExceededError as error:
            return type(error).__name__
        return "fine"

    async def parent(_: World, context: ToolContext) -> str:
        return (await context.agent.run_child("keep")).text

    async with world({"keep": keep, "parent": parent}, slots=1) as here:
        outcome = await (await here.pool.spawn(one("parent"))).wait()
        assert outcome.text == "RestartLimitError"


@scenario
async def a_tree_that_reports_while_it_grows() -> None:
    """Three generations in a pool of one, each of which writes to the owner."""

    async def grow(_: World, context: ToolContext) -> int:
        await context.agent.send(0, f"depth {context.agent.depth}")
        if context.agent.depth < 2:
            async with trio.open_nursery() as nursery:
                for _number in range(2):
                    nursery.start_soon(context.agent.run_child, "grow")
        return 1

    async with world({"grow": grow}, slots=1, inbox=1) as here:
        await here.pool.spawn(one("grow"))
        heard = 0
        while heard < 7:
            heard += len(await here.hear())
        await here.pool.join_all()


@scenario
async def an_agent_that_spawns_and_joins_by_handle() -> None:
    """Its grandchildren outlive it only if it says so."""

    async def boss(here: World, _: ToolContext) -> str:
        first = await here.pool.spawn(one("nap1"))
        await here.pool.spawn(one("nap2", outlives_parent=True))
        await here.pool.spawn(one("nap9"))
        return (await first.wait()).text

    async with world({"boss": boss}, slots=1) as here:
        await (await here.pool.spawn(one("boss"))).wait()
        outcomes = await here.pool.join_all(children=True)
    ends = {outcome.name: outcome.status for outcome in outcomes.values()}
    assert ends == {
        "boss": AgentStatus.COMPLETED,
        "nap1": AgentStatus.COMPLETED,
        "nap2": AgentStatus.COMPLETED,
        "nap9": AgentStatus.CANCELLED,
    }


@scenario
async def a_retried_map_beside_a_race() -> None:
    """In a pool of one, while its queue is nearly full."""
    async with world({}, slots=1, queued=1) as here, trio.open_nursery() as nursery:
        nursery.start_soon(here.pool.race, [one("nap1"), one("nap2")])
        async with here.pool.map(manifest(), ["break", "nap0"], retries=1) as outcomes:
            ends = Counter([outcome.status async for outcome in outcomes])
        assert ends == {AgentStatus.FAILED: 1, AgentStatus.COMPLETED: 1}


# --- resized in the middle


@scenario
async def a_pool_that_is_made_small_while_children_run() -> None:
    """And large again; nobody is forgotten."""

    async def parent(_: World, context: ToolContext) -> str:
        return (await context.agent.run_child("nap1")).text

    async with world({"parent": parent}, slots=3) as here:
        await here.pool.fan_out([one("parent")] * 4)
        for slots in (1, 2, 1, 4):
            await trio.sleep(0.3)
            here.pool.max_concurrent = slots
        assert {one.text for one in (await here.pool.join_all()).values()} == {"nap1"}


@scenario
async def a_map_whose_pool_is_resized() -> None:
    """It goes on with what there is."""
    async with (
        world({}, slots=1) as here,
        here.pool.map(manifest(), [f"nap{n % 2}" for n in range(8)]) as outcomes,
    ):
        count = 0
        async for _ in outcomes:
            count += 1
            here.pool.max_concurrent = 1 + count % 3
        assert count == 8


# --- budgets


@scenario
async def a_budget_that_many_race_for() -> None:
    """Five requests for eight agents: five are made."""
    async with world({}, slots=4, budget=Budget(requests=5)) as here:
        await here.pool.fan_out([one("nap1")] * 8)
        ends = Counter(o.status for o in (await here.pool.join_all()).values())
    assert ends == {AgentStatus.COMPLETED: 5, AgentStatus.STOPPED: 3}


@scenario
async def a_budget_of_tokens_that_children_share_and_some_give_up() -> None:
    """What was set aside for those that were cancelled is settled."""

    async def parent(_: World, context: ToolContext) -> str:
        with trio.move_on_after(1):
            await context.agent.run_child("nap5")
        return (await context.agent.run_child("nap0")).status.value

    async with world({"parent": parent}, slots=2, budget=Budget(tokens=9000)) as here:
        await here.pool.fan_out([one("parent", limits=UsageLimits(total_tokens_limit=8000))] * 3)
        await trio.sleep(0.5)
        here.pool[2].cancel("enough")
        await here.pool.join_all()


@scenario
async def calls_that_many_race_for() -> None:
    """Three tool calls for five agents."""

    async def work(_: World, __: ToolContext) -> None:
        await trio.sleep(1)

    async with world({"work": work}, slots=5, budget=Budget(tool_calls=3)) as here:
        await here.pool.fan_out([one("work")] * 5)
        ran = sum(o.tool_calls_run for o in (await here.pool.join_all()).values())
    assert ran == 3


# --- a journal


@scenario
async def a_journal_beside_everything() -> None:
    """What was done is not done again by the next process."""
    journal = InMemoryJournal()
    done: list[str] = []

    async def parent(_: World, context: ToolContext) -> str:
        done.append("parent")
        await context.agent.send(0, "begun")
        return (await context.agent.run_child("nap1")).text

    for resume in (False, True):
        async with world(
            {"parent": parent}, slots=1, inbox=5, journal=journal, resume=resume
        ) as here:
            handles = [await here.pool.spawn(one(name, key=name)) for name in ("parent", "nap1")]
            if not resume:
                assert (await here.hear())[0].content == "begun"
            texts = [(await handle.wait()).text for handle in handles]
        assert texts == ["nap1", "nap1"]
    assert done == ["parent"]


@scenario
async def a_journal_whose_pool_is_cancelled_and_goes_on() -> None:
    """Every agent ends once, in the one process or in the other."""
    journal = InMemoryJournal()
    with trio.move_on_after(2.5):
        async with world({}, slots=1, journal=journal) as here:
            await here.pool.fan_out([one("nap1")] * 4)
            await here.pool.join_all()
    async with world({}, slots=1, journal=journal, resume=True) as here:
        outcomes = await here.pool.join_all()
    assert [outcome.status for outcome in outcomes.values()] == [AgentStatus.COMPLETED] * 4


# --- sources and sinks


@scenario
async def a_source_that_asks_the_pool() -> None:
    """It takes its next query from the outcome of an agent that it spawned itself."""
    async with world({}, slots=1) as here:

        async def queries() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
            for _ in range(3):
                outcome = await (await here.pool.spawn(one("nap0"))).wait()
                yield outcome.text

        async with here.pool.map(manifest(), queries()) as outcomes:
            assert [outcome.text async for outcome in outcomes] == ["nap0"] * 3


@scenario
async def a_pool_in_a_tool_of_a_pool() -> None:
    """Each keeps its own bound; the inner one is over when the call is."""

    async def nested(_: World, __: ToolContext) -> int:
        async with world({}, slots=1) as inner:
            await inner.pool.fan_out([one("nap1")] * 2)
            return len(await inner.pool.join_all())

    async with world({"nested": nested}, slots=1) as here:
        await here.pool.fan_out([one("nested"), one("nested")])
        assert {o.text for o in (await here.pool.join_all()).values()} == {"2"}


@scenario
async def a_pool_that_stops_at_the_first_failure() -> None:
    """With children, a map and askers in it."""

    async def parent(_: World, context: ToolContext) -> str:
        return (await context.agent.run_child("nap9")).text

    async with world({"parent": parent}, slots=3, on_failure="abort") as here:
        here.pool.fan_out_nowait([one("parent"), one("nap1"), one("break")])
        ends = {o.name: o.status for o in (await here.pool.join_all()).values()}
        assert ends["break"] is AgentStatus.FAILED
        assert ends["parent"] is AgentStatus.CANCELLED


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_keeps_the_promises_in_every_order(name: str) -> None:
    """And at every point at which it, or an agent of it, is cancelled."""
    explore(SCENARIOS[name], schedules=SCHEDULES, late_clock=False)


@pytest.mark.parametrize("name", list(SCENARIOS)[:: 1 if IS_LONG else 4])
def test_a_scenario_keeps_the_promises_when_it_is_cancelled(name: str) -> None:
    """At every point."""
    cancel_everywhere(SCENARIOS[name], may_raise=(OSError, AgentPoolError))
