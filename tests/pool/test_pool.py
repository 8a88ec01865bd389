"""The pool: how many at once, in which order, and what becomes of each.

The behaviours of the original's pool ("Pool" in seed-behaviour.md), restated. The number
stands in the docstring of the test that holds it:

1. Ids start at 1 and rise by 1 per accepted spawn.
2. Ids are never reused, also after the agents have ended.
3. A rejected spawn consumes no id.
4. Id 0 is the owner's, no agent's.
5. An agent is spawned from a manifest and a query, and nothing else is needed.
6. A pool is made of a driver and a number of slots.
7. A pool has a memory of its own, in memory, unless it is given one.
8. An inbox holds 32 messages unless the pool is told otherwise.
9. Who watches a pool sees what its agents do; nobody has to.
10. Without tools an agent has none.
11. The tool builder is called once per agent, for that agent.
12. Right after a spawn, ``active_count`` is one more.
13. Right after a spawn, ``router.agent_count`` is one more.
14. ``max_concurrent`` says how many slots there are.
15. A pool that may not queue refuses at capacity, and says how full it is.
16. ``fan_out`` spawns in order.
17. ``join_all`` has an outcome for every agent.
18. After ``join_all`` nobody is active and nobody is registered.
19. ``join_next`` gives out one end at a time, and ``None`` when nobody is left.
20. ``abort_all`` ends every agent, and does not wait.
21. A failure of one agent is its own outcome, and the others go on.

After them, one test per row of severity C or H in the P section of seed-defects.md, named
after the row: each fails on what the original does.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool import (
    OWNER_ID,
    AgentGoneError,
    AgentHandle,
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    DriverError,
    ManifestError,
    PoolError,
    PoolFullError,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    StopReason,
    UnknownAgentError,
    open_pool,
)
from agentpool.abc import (
    AgentContext,
    Completion,
    CompletionRequest,
    MemoryQuery,
    OnDelta,
    ToolContext,
)
from agentpool.drivers import (
    AuthenticationError,
    FunctionDriver,
    ScriptedDriver,
    ToolMessage,
    UserMessage,
)
from agentpool.memory import InMemoryMemory
from agentpool.tools import ToolRegistry
from tests.support.fakes import (
    WITH_MEMORY,
    FakeTool,
    Gauge,
    LiveDriver,
    Recorder,
    calling,
    echo_tool,
    hanging_driver,
    job,
    jobs,
    manifest,
    of_type,
    query_of,
    results_of,
    sleepy_driver,
    texts,
    told,
    tool_call,
    turns_of,
    wait_all,
)

# --- the original's behaviours


async def test_ids_start_at_one_and_rise_by_one() -> None:
    """1: an id says how many came before."""
    async with open_pool(sleepy_driver()) as pool:
        assert [(await pool.spawn(job())).agent_id for _ in range(3)] == [1, 2, 3]


async def test_ids_are_never_reused() -> None:
    """2: an id names one agent for the life of the pool."""
    async with open_pool(sleepy_driver()) as pool:
        await pool.fan_out(jobs("a", "b"))
        await pool.join_all()
        assert (await pool.spawn(job("c"))).agent_id == 3


async def test_refused_spawn_consumes_no_id(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """3: ids have no gaps that somebody would look for."""
    async with open_pool(sleepy_driver(), max_concurrent=1, max_queued=0) as pool:
        pool.spawn_nowait(job("sleep 1"))
        with pytest.raises(PoolFullError):
            pool.spawn_nowait(job("no room"))
        await pool.join_all()
        assert pool.spawn_nowait(job("again")).agent_id == 2


async def test_id_zero_is_the_owner(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """4: a message of the owner has a sender that no agent can have."""
    async with open_pool(sleepy_driver()) as pool:
        handle = await pool.spawn(job("sleep 1"))
        message = handle.send_nowait("hi")
        assert OWNER_ID == 0
        assert (message.sender, message.recipient) == (0, 1)
        assert handle.parent_id == 0


async def test_manifest_and_query_are_enough() -> None:
    """5: everything else of a spawn has a default."""
    driver = ScriptedDriver(["hi"])
    async with open_pool(driver) as pool:
        await pool.spawn(SpawnConfig(AgentManifest(name="greeter"), "greet me"))
        (outcome,) = await wait_all(pool)
    assert (outcome.name, outcome.text) == ("greeter", "hi")
    assert told(driver.requests[0]) == ["greet me"]


async def test_driver_and_slots_make_a_pool() -> None:
    """6, 14: the pool says how many slots it has."""
    async with open_pool(sleepy_driver(), max_concurrent=3) as pool:
        assert pool.max_concurrent == 3
        assert (pool.active_count, pool.queued_count, pool.router.agent_count) == (0, 0, 0)


async def test_pool_has_a_memory_of_its_own() -> None:
    """7: an agent with the grant remembers, without anybody setting up a memory."""
    driver = ScriptedDriver(["blue", "still blue"])
    async with open_pool(driver) as pool:
        for query in ("what colour is the sky", "what colour was the sky"):
            config = SpawnConfig(manifest(capabilities=WITH_MEMORY), query, memory_scope="ours")
            await (await pool.spawn(config)).wait()
    assert any("blue" in text for text in told(driver.requests[1]))


async def test_pools_do_not_share_their_own_memories() -> None:
    """7: what one pool's agents learn is not business of another pool's."""
    driver = FunctionDriver(lambda _: "blue")
    for _ in range(2):
        async with open_pool(driver) as pool:
            config = SpawnConfig(
                manifest(capabilities=WITH_MEMORY), "what colour", memory_scope="everybody"
            )
            await (await pool.spawn(config)).wait()
    assert [told(request) for request in driver.requests] == [["what colour"]] * 2


async def test_inbox_holds_32_messages() -> None:
    """8: the default is the original's."""
    async with open_pool(hanging_driver()) as pool:
        handle = await pool.spawn(job())
        assert pool.router.inbox_capacity == 32
        # Until the agent first looks, which is when it starts.
        for _ in range(32):
            handle.send_nowait("one more")
        pool.abort_all()


async def test_watching_is_optional() -> None:
    """9: the same run, watched and not, comes to the same."""
    recorder = Recorder()
    for observers in ((), (recorder,)):
        async with open_pool(sleepy_driver(), observers=observers) as pool:
            await pool.spawn(job("say hi"))
            assert texts(await wait_all(pool)) == ["hi"]
    assert recorder.events


async def test_without_tools_an_agent_has_none() -> None:
    """10: a call of a tool that is not there is refused by name, and the run goes on."""
    driver = ScriptedDriver([calling(tool_call("rm")), "fine"])
    async with open_pool(driver) as pool:
        await pool.spawn(job())
        (outcome,) = await wait_all(pool)
    assert driver.requests[0].tools == ()
    assert [r.content for r in results_of(driver.requests[1])] == [
        "unknown tool: rm; there are no tools"
    ]
    assert (outcome.text, outcome.tool_calls, outcome.tool_calls_run) == ("fine", 1, 0)


async def test_tool_builder_is_called_once_per_agent() -> None:
    """11: each agent gets the tools that were built for it."""
    built: list[tuple[int, str, int]] = []

    def build(context: AgentContext) -> ToolRegistry:
        built.append((context.agent_id, context.name, context.depth))
        return ToolRegistry([echo_tool(f"echo-{context.agent_id}")])

    driver = FunctionDriver(lambda request: ",".join(tool.name for tool in request.tools))
    async with open_pool(driver, tools=build, max_concurrent=1) as pool:
        await pool.fan_out(jobs("a", "b"))
        outcomes = await wait_all(pool)
    assert built == [(1, "a", 0), (2, "b", 0)]
    assert texts(outcomes) == ["echo-1", "echo-2"]


async def test_one_registry_serves_all_agents() -> None:
    """11: tools that need no context are given as they are."""
    driver = FunctionDriver(lambda request: ",".join(tool.name for tool in request.tools))
    async with open_pool(driver, tools=ToolRegistry([echo_tool()])) as pool:
        await pool.fan_out(jobs("a", "b"))
        assert texts(await wait_all(pool)) == ["echo", "echo"]


async def test_counts_rise_with_the_spawn() -> None:
    """12, 13: no await lies between a spawn and its being seen."""
    async with open_pool(sleepy_driver()) as pool:
        for count in (1, 2):
            pool.spawn_nowait(job())
            assert (pool.active_count, pool.router.agent_count) == (count, count)


async def test_pool_at_capacity_refuses_and_says_how_full_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """15: with no queue, the third of two is refused and nothing has changed."""
    recorder = Recorder()
    async with open_pool(
        sleepy_driver(), max_concurrent=2, max_queued=0, observers=[recorder]
    ) as pool:
        pool.spawn_nowait(job("sleep 1"))
        pool.spawn_nowait(job("sleep 2"))
        before = (len(recorder.events), pool.router.agent_count, pool.statistics())
        with pytest.raises(PoolFullError, match=r"2 of 2 slots .* 0 of 0 places") as info:
            pool.spawn_nowait(job("sleep 3"))
        assert (info.value.running, info.value.queued) == (2, 0)
        assert (len(recorder.events), pool.router.agent_count, pool.statistics()) == before


async def test_fan_out_spawns_in_order() -> None:
    """16: handles, ids and outcomes stand in the order of the configs."""
    async with open_pool(sleepy_driver(), max_concurrent=2) as pool:
        handles = await pool.fan_out(jobs("a", "b", "c", "d"))
        assert [(h.agent_id, h.name) for h in handles] == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
        outcomes = await pool.join_all()
    assert [outcome.name for outcome in outcomes.values()] == ["a", "b", "c", "d"]


async def test_fan_out_takes_any_iterable_also_an_empty_one() -> None:
    """16: a generator is read once, and nothing is a fan-out of nobody."""
    async with open_pool(sleepy_driver()) as pool:
        assert await pool.fan_out(iter(())) == []
        assert pool.fan_out_nowait([]) == []
        assert len(await pool.fan_out(job(str(n)) for n in range(3))) == 3


async def test_join_all_has_everyone_in_spawn_order(autojump_clock: trio.testing.MockClock) -> None:
    """17: in spawn order, although they end the other way round."""
    async with open_pool(sleepy_driver()) as pool:
        await pool.fan_out(jobs("sleep 3 say c", "sleep 2 say b", "sleep 1 say a"))
        outcomes = await pool.join_all()
    assert list(outcomes) == [1, 2, 3]
    assert texts(list(outcomes.values())) == ["c", "b", "a"]
    assert trio.current_time() == 3


async def test_nobody_is_left_after_join_all() -> None:
    """18: no slot, no place, no inbox."""
    async with open_pool(sleepy_driver(), max_concurrent=2) as pool:
        await pool.fan_out(jobs("a", "b", "c", "raise x"))
        await pool.join_all()
        assert (pool.active_count, pool.queued_count, pool.router.agent_count) == (0, 0, 0)


async def test_join_next_gives_each_end_once(autojump_clock: trio.testing.MockClock) -> None:
    """19: in the order of the ends, then ``None`` for good."""
    async with open_pool(sleepy_driver()) as pool:
        await pool.fan_out(jobs("sleep 3", "sleep 1", "sleep 2"))
        order = [outcome.agent_id for _ in range(3) if (outcome := await pool.join_next())]
        assert order == [2, 3, 1]
        assert await pool.join_next() is None
        assert await pool.join_next() is None


async def test_join_next_begins_again_after_none() -> None:
    """19: ``None`` says that nobody is left now, not that the pool is over."""
    async with open_pool(sleepy_driver()) as pool:
        assert await pool.join_next() is None
        await pool.spawn(job("a"))
        outcome = await pool.join_next()
    assert outcome is not None
    assert outcome.name == "a"


async def test_abort_all_ends_everyone_and_does_not_wait() -> None:
    """20: queued ones too; each has an outcome that says who and why."""
    async with open_pool(hanging_driver(), max_concurrent=1) as pool:
        await pool.fan_out(jobs("a", "b"))
        await wait_all_tasks_blocked()
        pool.abort_all("enough")
        assert pool.queued_count == 0
        assert pool.active_count == 1  # it is told, and has not had its turn yet
        outcomes = await wait_all(pool)
    assert [outcome.status for outcome in outcomes] == [AgentStatus.CANCELLED] * 2
    assert [str(outcome.error) for outcome in outcomes] == [
        "agent 1 (a) was cancelled by owner: enough",
        "agent 2 (b) was cancelled by owner: enough",
    ]


@pytest.mark.parametrize("observers", [(), (Recorder(),)], ids=["alone", "watched"])
async def test_aborted_before_its_first_slot(
    observers: tuple[Recorder, ...], autojump_clock: trio.testing.MockClock
) -> None:
    """Its outcome is of the time of its end, whenever somebody asks, and the same each time."""
    async with open_pool(hanging_driver(), max_concurrent=1, observers=observers) as pool:
        _, awaited, asked, read, forgotten = await pool.fan_out(jobs(*"abcde"))
        async with trio.open_nursery() as nursery:
            ends: list[AgentOutcome] = []

            async def wait() -> None:
                ends.append(await awaited.wait())

            nursery.start_soon(wait)
            await trio.sleep(3)
            pool.abort_all("enough")
            assert asked.has_ended
            assert asked.status is AgentStatus.CANCELLED
            forgotten.forget()
            await trio.sleep(2)
        assert ends == [awaited.outcome]
        late, again = asked.outcome, await asked.wait()
        outcomes = await pool.join_all()
    assert late is again is outcomes[asked.agent_id]
    assert late is not None
    assert (late.started_at, late.finished_at, late.messages) == (None, 3.0, (UserMessage("c"),))
    assert str(late.error) == "agent 3 (c) was cancelled by owner: enough"
    assert read.outcome == outcomes[read.agent_id]
    assert list(outcomes) == [1, 2, 3, 4]


async def test_one_failure_leaves_the_others_alone() -> None:
    """21: agents share a pool, not a fate."""
    async with open_pool(sleepy_driver()) as pool:
        await pool.fan_out(jobs("say a", "raise boom", "say c"))
        outcomes = await wait_all(pool)
    assert texts(outcomes) == ["a", "", "c"]
    assert outcomes[1].status is AgentStatus.FAILED


# --- the original's defects


async def test_a_spawned_agent_receives_messages() -> None:
    """The receiving end belongs to the agent; the original dropped it at spawn."""
    driver = ScriptedDriver([calling(tool_call("echo")), "done"])
    async with open_pool(driver, tools=ToolRegistry([echo_tool()])) as pool:
        handle = await pool.spawn(job())
        await handle.send("watch out")
    assert any("watch out" in text for text in told(driver.requests[-1]))


async def test_agents_address_each_other_through_their_tools() -> None:
    """A tool builder gets the agent's id and post, and the loop reads its inbox."""

    def build(context: AgentContext) -> ToolRegistry:
        async def tell(_: str, __: ToolContext) -> str:
            message = await context.send(2, f"greetings from {context.agent_id}")
            return f"sent {message.message_id}"

        async def hear(_: str, __: ToolContext) -> str:
            return "; ".join(m.content for m in await context.receive_many())

        return ToolRegistry([FakeTool("tell", tell), FakeTool("hear", hear)])

    def answer(request: CompletionRequest) -> Completion | str:
        if turns_of(request):
            return results_of(request)[-1].content
        return calling(tool_call(query_of(request)))

    async with open_pool(FunctionDriver(answer), tools=build) as pool:
        await pool.fan_out(jobs("tell", "hear"))
        outcomes = await wait_all(pool)
    assert texts(outcomes) == ["sent 1", "greetings from 1"]


async def test_full_unknown_and_gone_are_three_errors() -> None:
    """The original said full and waited, and had one error for all the rest."""
    async with open_pool(hanging_driver(), inbox_capacity=1) as pool:
        handle = await pool.spawn(job())
        gone = await pool.spawn(job())
        gone.cancel()
        await gone.wait()
        handle.send_nowait("fits")
        with pytest.raises(trio.TooSlowError), trio.fail_after(0):
            await handle.send("waits")
        with pytest.raises(AgentGoneError):
            await gone.send("too late")
        with pytest.raises(UnknownAgentError):
            pool.router.send_nowait(99, "who")
        pool.abort_all()


async def test_fan_out_nowait_starts_all_or_none() -> None:
    """The original left half a fan-out running, and lost its ids."""
    recorder = Recorder()
    async with open_pool(
        sleepy_driver(), max_concurrent=2, max_queued=1, observers=[recorder]
    ) as pool:
        with pytest.raises(PoolFullError):
            pool.fan_out_nowait(jobs("a", "b", "c", "d"))
        assert (pool.active_count, pool.queued_count, pool.router.agent_count) == (0, 0, 0)
        assert recorder.events == []
        handles = pool.fan_out_nowait(jobs("a", "b", "c"))
        assert [handle.agent_id for handle in handles] == [1, 2, 3]
        assert (pool.active_count, pool.queued_count) == (2, 1)


async def test_more_agents_than_slots_wait_their_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Heijunka: ten on three slots need no polling by the caller."""
    gauge = Gauge()
    async with open_pool(sleepy_driver(gauge), max_concurrent=3) as pool:
        await pool.fan_out(jobs(*(f"sleep 1 say {n}" for n in range(10))))
        assert (pool.active_count, pool.queued_count) == (3, 7)
        outcomes = await wait_all(pool)
    assert texts(outcomes) == [str(n) for n in range(10)]
    assert gauge.peak == 3
    assert trio.current_time() == 4


async def test_three_manifests_at_concurrency_two_complete() -> None:
    """The original's documented example, which always failed."""
    async with open_pool(sleepy_driver(), max_concurrent=2) as pool:
        configs = [SpawnConfig(manifest(name), "say hi") for name in ("one", "two", "three")]
        await pool.fan_out(configs)
        outcomes = await wait_all(pool)
    assert [(o.name, o.text) for o in outcomes] == [("one", "hi"), ("two", "hi"), ("three", "hi")]


async def test_ended_agents_do_not_count_against_the_limit() -> None:
    """A pool whose agents have all ended takes work, joined or not."""
    async with open_pool(sleepy_driver(), max_concurrent=1, max_queued=0) as pool:
        for name in ("a", "b", "c"):
            pool.spawn_nowait(job(name))
            await wait_all_tasks_blocked()
            assert pool.active_count == 0
        assert len(await pool.join_all()) == 3


async def test_join_next_is_none_only_at_the_end() -> None:
    """A crash or a cancellation is an outcome, so ``while`` loops do not stop at it."""
    async with open_pool(sleepy_driver()) as pool:
        (_, __, hung, ___) = await pool.fan_out(jobs("raise a", "say b", "hang", "raise d"))
        await wait_all_tasks_blocked()
        hung.cancel("too slow")
        statuses: dict[int, AgentStatus] = {}
        while outcome := await pool.join_next():
            statuses[outcome.agent_id] = outcome.status
    assert statuses == {
        1: AgentStatus.FAILED,
        2: AgentStatus.COMPLETED,
        3: AgentStatus.CANCELLED,
        4: AgentStatus.FAILED,
    }


async def test_as_completed_gives_everyone(autojump_clock: trio.testing.MockClock) -> None:
    """The same as an iterator, also for agents spawned while it is read."""
    seen: list[int] = []
    async with open_pool(sleepy_driver()) as pool:
        await pool.fan_out(jobs("sleep 2", "raise x"))
        async for outcome in pool.as_completed():
            seen.append(outcome.agent_id)
            if outcome.agent_id == 2:
                await pool.spawn(job("sleep 3"))
    assert seen == [2, 1, 3]


async def test_join_all_loses_nobody() -> None:
    """Crashed and aborted agents have an entry and an id like everybody else."""
    async with open_pool(sleepy_driver(), max_concurrent=2) as pool:
        await pool.fan_out(jobs("raise a", "hang", "hang", "hang"))
        await wait_all_tasks_blocked()
        pool.abort_all()
        outcomes = await pool.join_all()
    assert [(i, o.status.value) for i, o in outcomes.items()] == [
        (1, "failed"),
        (2, "cancelled"),
        (3, "cancelled"),
        (4, "cancelled"),
    ]


async def test_join_all_has_those_that_were_given_out_before() -> None:
    """Whoever asks for all gets all, whatever others have taken."""
    async with open_pool(sleepy_driver()) as pool:
        await pool.fan_out(jobs("a", "b"))
        await pool.join_next()
        assert list(await pool.join_all()) == [1, 2]
        assert await pool.join_next() is None
        assert list(await pool.join_all()) == [1, 2]


async def test_every_end_closes_the_inbox() -> None:
    """A crash or an abort leaves no inbox, and senders are told that it has ended."""
    async with open_pool(sleepy_driver()) as pool:
        handles = await pool.fan_out(jobs("raise a", "hang", "say c"))
        await wait_all_tasks_blocked()
        pool.abort_all()
        await pool.join_all()
        assert pool.router.agent_count == 0
        for handle in handles:
            with pytest.raises(AgentGoneError, match="has ended"):
                handle.send_nowait("anybody there?")


async def test_nobody_waits_for_a_reader_of_events() -> None:
    """Join first and read later, the natural order, hung after 64 events."""
    async with open_pool(sleepy_driver(), max_concurrent=5) as pool:
        with pool.events() as events:
            await pool.fan_out(jobs(*(f"say {n}" for n in range(100))))
            assert len(await pool.join_all()) == 100
        assert sum([1 async for _ in events]) >= 500


async def test_every_event_says_whose_it_is_and_when() -> None:
    """Interleaved agents were indistinguishable; here each event has id and name."""
    recorder = Recorder()
    tools = ToolRegistry([echo_tool()])

    def answer(request: CompletionRequest) -> Completion | str:
        return "done" if turns_of(request) else calling(tool_call("echo"))

    async with open_pool(FunctionDriver(answer), tools=tools, observers=[recorder]) as pool:
        first, second = await pool.fan_out(jobs("ann", "bob"))
        await first.send("hi")
        await second.send("hi")
        await pool.join_all()
    names = {1: "ann", 2: "bob", 0: ""}
    assert [e.sequence for e in recorder.events] == list(range(1, len(recorder.events) + 1))
    assert all(event.agent_name == names[event.agent_id] for event in recorder.events)


async def test_message_events_carry_the_agents_name() -> None:
    """An event about a message of an agent names that agent, as all others do."""
    recorder = Recorder()

    def build(context: AgentContext) -> ToolRegistry:
        async def tell(_: str, __: ToolContext) -> str:
            await context.send(OWNER_ID, "hi")
            return "sent"

        return ToolRegistry([FakeTool("tell", tell)])

    driver = ScriptedDriver([calling(tool_call("tell")), "done"])
    async with open_pool(driver, tools=build, observers=[recorder]) as pool:
        await pool.spawn(job("ann"))
        await pool.receive_many()
    assert {e.agent_name for e in recorder.events if e.agent_id == 1} == {"ann"}


async def test_errors_are_kept_whole() -> None:
    """Type and fields, so that a caller can tell a wrong key from a busy provider."""
    error = AuthenticationError("bad key", status_code=401)
    async with open_pool(ScriptedDriver([error])) as pool:
        await pool.spawn(job())
        (outcome,) = await wait_all(pool)
        assert outcome.error is error
        with pytest.raises(DriverError) as info:
            outcome.unwrap()
    assert info.value.status_code == 401


async def test_each_manifest_gets_its_own_driver() -> None:
    """The original sent every agent to the first manifest's model."""
    drivers = {name: ScriptedDriver([name]) for name in ("small", "large")}
    async with open_pool(lambda m: drivers[m.name]) as pool:
        await pool.fan_out(SpawnConfig(manifest(name), "who are you") for name in drivers)
        assert texts(await wait_all(pool)) == ["small", "large"]
    assert [len(driver.requests) for driver in drivers.values()] == [1, 1]


async def test_a_sovereign_agent_meets_no_laxer_driver() -> None:
    """G17: refused at the spawn, before anything could be sent."""
    cloud = FunctionDriver(lambda _: "leaked", privacy=PrivacyTier.STANDARD)
    async with open_pool(cloud) as pool:
        with pytest.raises(PrivacyError, match="'secret' is Sovereign"):
            await pool.spawn(SpawnConfig(manifest("secret"), "my diary"))
        with pytest.raises(PrivacyError):
            pool.spawn_nowait(SpawnConfig(manifest("secret"), "my diary"))
        assert (pool.router.agent_count, pool.statistics().spawned) == (0, 0)
        open_hearted = SpawnConfig(manifest(privacy=PrivacyTier.STANDARD), "my blog")
        assert (await pool.spawn(open_hearted)).agent_id == 1
    assert [told(request) for request in cloud.requests] == [["my blog"]]


async def test_one_agents_memory_is_not_anothers() -> None:
    """The same prompt to many gave the later ones an earlier one's answer."""
    driver = FunctionDriver(lambda _: "the answer is 42")
    async with open_pool(driver, max_concurrent=1) as pool:
        config = SpawnConfig(manifest(capabilities=WITH_MEMORY), "what is the answer")
        await pool.fan_out([config, config, config])
        await pool.join_all()
    assert [told(request) for request in driver.requests] == [["what is the answer"]] * 3


async def test_pools_on_one_memory_do_not_mix_their_agents() -> None:
    """Agent 1 of today is not agent 1 of yesterday, though both have that id."""
    memory = InMemoryMemory()
    driver = FunctionDriver(lambda _: "the answer is 42")
    for _ in range(2):
        async with open_pool(driver, memory=memory) as pool:
            config = SpawnConfig(manifest(capabilities=WITH_MEMORY), "what is the answer")
            await (await pool.spawn(config)).wait()
    assert [told(request) for request in driver.requests] == [["what is the answer"]] * 2


async def test_every_agent_gets_the_pools_tools_children_too() -> None:
    """The original's command line gave agents, and children, no tools at all."""
    names: dict[str, tuple[str, ...]] = {}

    def build(context: AgentContext) -> ToolRegistry:
        async def spawn(_: str, __: ToolContext) -> str:
            return (await (await pool.spawn(job("child"))).wait()).text

        return ToolRegistry([FakeTool("spawn", spawn), echo_tool()])

    def answer(request: CompletionRequest) -> Completion | str:
        names[query_of(request)] = tuple(tool.name for tool in request.tools)
        if query_of(request) == "child" or turns_of(request):
            return "done"
        return calling(tool_call("spawn"))

    async with open_pool(FunctionDriver(answer), tools=build) as pool:
        await pool.spawn(job("parent"))
    assert names == {"parent": ("spawn", "echo"), "child": ("spawn", "echo")}


async def test_failures_that_nobody_saw_come_out() -> None:
    """The original's pool said nothing, and exited 0 when every agent had failed."""
    with pytest.raises(PoolError) as info:
        async with open_pool(sleepy_driver()) as pool:
            await pool.fan_out(jobs("raise a", "say b", "raise c"))
    assert {i: str(error) for i, error in info.value.by_agent.items()} == {1: "a", 3: "c"}
    assert str(info.value.first) == "a"


# --- what an outcome tells


async def test_outcome_tells_the_whole_story(autojump_clock: trio.testing.MockClock) -> None:
    """Name, times, turns, calls, cost and transcript, not only the text."""

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        await trio.sleep(2)
        return "done" if turns_of(request) else calling(tool_call("echo"), text="wait")

    async with open_pool(LiveDriver(answer), tools=ToolRegistry([echo_tool()])) as pool:
        await trio.sleep(1)
        await pool.spawn(job("hi"))
        (outcome,) = await wait_all(pool)
    assert (outcome.name, outcome.text, outcome.stop_reason) == ("hi", "done", StopReason.END_TURN)
    assert (outcome.started_at, outcome.finished_at) == (1, 5)
    assert (outcome.iterations, outcome.tool_calls, outcome.tool_calls_run) == (2, 1, 1)
    # The driver said nothing about usage, and nobody can price it: unknown, not zero.
    assert (outcome.unmeasured_requests, outcome.cost_usd) == (2, None)
    assert len(outcome.messages) == 4
    assert outcome.messages[2] == ToolMessage("id-echo", "echo", "{}")
    assert outcome.unwrap() == "done"


async def test_an_unmeasured_answer_has_no_cost_but_a_free_one_costs_nothing() -> None:
    """Unknown is ``None`` and zero is zero."""
    free, unknown = (
        FunctionDriver(lambda _: "hi"),
        FunctionDriver(lambda _: "hi", price_per_token_usd=None),
    )
    costs: list[float | None] = []
    for driver in (free, unknown):
        async with open_pool(driver) as pool:
            await pool.spawn(job())
            (outcome,) = await wait_all(pool)
            costs.append(outcome.cost_usd)
    assert costs == [0.0, None]


async def test_status_follows_the_agents_life(autojump_clock: trio.testing.MockClock) -> None:
    """A handle says where its agent is, without anybody joining it."""
    async with open_pool(sleepy_driver(), max_concurrent=1) as pool:
        first, second = await pool.fan_out(jobs("sleep 1", "sleep 1"))
        assert (first.status, second.status) == (AgentStatus.RUNNING, AgentStatus.QUEUED)
        assert repr(second) == "<AgentHandle 2 (sleep 1) queued>"
        assert second.outcome is None
        await first.wait()
        assert first.status is AgentStatus.COMPLETED
        assert (await second.wait()) is second.outcome


async def test_pool_finds_the_handle_of_every_agent() -> None:
    """Whoever kept the id alone can still wait, cancel and send."""
    async with open_pool(sleepy_driver()) as pool:
        handle: AgentHandle = await pool.spawn(job("say hi"))
        assert pool[1] == handle
        await handle.wait()
        assert pool[1].outcome is handle.outcome


async def test_statistics_count_the_pool(autojump_clock: trio.testing.MockClock) -> None:
    """One frozen value says how the pool is at this moment."""
    async with open_pool(sleepy_driver(), max_concurrent=2) as pool:
        handles = await pool.fan_out(jobs("sleep 1", "sleep 1", "sleep 1"))
        await trio.sleep(0.5)
        await handles[0].send("will be a dead letter")
        now = pool.statistics()
        assert (now.running, now.parked, now.queued, now.spawned) == (2, 0, 1, 3)
        assert (now.max_concurrent, now.messages, now.dead_letters) == (2, 1, 0)
        await pool.join_all()
        later = pool.statistics()
        assert (later.running, later.queued, later.dead_letters) == (0, 0, 1)
        assert (later.warnings, later.observer_failures) == (0, 0)
    assert pool.name == "pool"


async def test_a_memory_that_is_given_is_used_also_an_empty_one() -> None:
    """A memory may have a length, and be empty: it is the user's all the same."""

    class Counted(InMemoryMemory):  # type: ignore[misc]  # final for people, not for a fake
        def __len__(self) -> int:
            return self.statistics().fragments

    memory = Counted()
    async with open_pool(ScriptedDriver(["blue"]), memory=memory) as pool:
        config = SpawnConfig(manifest(capabilities=WITH_MEMORY), "colour?", memory_scope="mine")
        await (await pool.spawn(config)).wait()
    (hit,) = await memory.recall(MemoryQuery(text="", scope="mine"))
    assert hit.fragment.content == "Q: colour?\nA: blue"


async def test_manifest_that_leaves_no_room_for_a_query_is_refused() -> None:
    """The original's defaults sent an empty conversation and called it a success."""
    driver = ScriptedDriver(["never"], context_window=1024)
    async with open_pool(driver) as pool:
        with pytest.raises(ManifestError, match=r"model\.max_tokens: 1024 leaves no room"):
            await pool.spawn(job())
        assert pool.statistics().spawned == 0
    assert driver.requests == ()


async def test_events_begin_with_the_spawn_and_end_with_the_outcome() -> None:
    """Spawn, start and end are events, for those that fail as well."""
    recorder = Recorder()
    async with open_pool(sleepy_driver(), max_concurrent=1, observers=[recorder]) as pool:
        await pool.fan_out(jobs("raise a", "say b"))
        outcomes = await pool.join_all()
    for agent_id in (1, 2):
        names = [name for name in recorder.names(agent_id) if name != "AgentQueued"]
        assert names[:2] == ["AgentSpawned", "AgentStarted"]
        assert names[-1] == "AgentFinished"
    from agentpool.observe import AgentFinished

    finished = of_type(recorder.events, AgentFinished)
    assert [event.outcome for event in finished] == list(outcomes.values())


async def test_a_handle_says_where_its_outcome_is() -> None:
    """Where other libraries have a result."""
    async with open_pool(ScriptedDriver(["So."])) as pool:
        handle = await pool.spawn(SpawnConfig(AgentManifest(), "Why?"))
        with pytest.raises(AttributeError, match=r"the outcome is what `await handle\.wait\(\)`"):
            getattr(handle, "result")  # noqa: B009  # a type checker would refuse the usual way
        assert (await handle.wait()).text == "So."
