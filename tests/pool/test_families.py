"""Children belong to their parent: they run within its limits, and end when it does."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from agentpool import (
    AgentManifest,
    AgentPool,
    AgentStatus,
    Budget,
    Capability,
    CapabilityDeniedError,
    CapabilityKind,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    StopReason,
    Usage,
    open_pool,
)
from agentpool.abc import Driver, OnDelta
from agentpool.drivers import Completion, CompletionRequest, OverloadedError
from agentpool.observe import record_of
from agentpool.testing import assert_quiescent, cancel_everywhere, explore
from agentpool.tools import TEAM_TOOLS, ToolContext, ToolRegistry, tool
from tests.support.fakes import (
    LiveDriver,
    Recorder,
    calling,
    manifest,
    query_of,
    results_of,
    tool_call,
)

PLAIN = manifest("parent", capabilities=(Capability(CapabilityKind.MESSAGE),))


async def act(request: CompletionRequest, _: OnDelta) -> Completion | str:
    """Call the tool that the query names, or sleep as long as it says."""
    query = query_of(request)
    if results_of(request):
        return results_of(request)[0].content
    if query.startswith("call_"):
        return calling(tool_call(query))
    await trio.sleep(float(query))
    return f"slept {query}"


def other(query: str, **limits: float) -> SpawnConfig:
    """Return a child of another kind than its parent."""
    return SpawnConfig(manifest("critic"), query, deadline_seconds=limits.get("deadline_seconds"))


def family(child: SpawnConfig, name: str | None = None) -> ToolRegistry:
    """Return a tool that runs *child* of the agent that calls it."""

    @tool(timeout_seconds=math.inf)
    async def call_child(context: ToolContext) -> str:
        """Run a child."""
        outcome = await context.agent.run_child(child, name=name)
        return f"{outcome.name}: {outcome.text}{outcome.stop_reason}"

    return ToolRegistry([call_child])


async def test_a_child_of_another_kind_belongs_to_its_parent(
    autojump_clock: MockClock,
) -> None:
    """It needs no grant: the tool's own code says what it runs."""
    async with open_pool(LiveDriver(act), tools=family(other("3")), max_concurrent=1) as pool:
        outcome = await (await pool.spawn(SpawnConfig(PLAIN, "call_child"))).wait()
        assert outcome.text == f"critic: slept 3{StopReason.END_TURN}"
        assert (pool[2].parent_id, pool[2].depth) == (1, 1)


async def test_a_child_is_not_begun_when_the_time_for_it_is_over(
    autojump_clock: MockClock,
) -> None:
    """A tool that computed for too long hears of that, and not of a wrong number of seconds."""

    @tool(timeout_seconds=math.inf)
    async def call_child(context: ToolContext) -> str:
        """Compute until the time for a child is over, and run one."""
        with trio.move_on_after(5) as scope:
            autojump_clock.jump(7)  # without a checkpoint, so that nobody has noticed
            await context.agent.run_child(other("1"))
        return f"given up: {scope.cancelled_caught}"

    async with open_pool(LiveDriver(act), tools=ToolRegistry([call_child])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(PLAIN, "call_child"))).wait()
        assert (outcome.text, pool.statistics().spawned) == ("given up: True", 1)


async def test_it_has_no_longer_than_its_parent(autojump_clock: MockClock) -> None:
    """It ran on for 95 s after the parent's deadline."""
    async with open_pool(LiveDriver(act), tools=family(other("100"), "late")) as pool:
        parent = await pool.spawn(SpawnConfig(PLAIN, "call_child", deadline_seconds=5))
        assert (await parent.wait()).stop_reason is StopReason.DEADLINE
        child = await pool[2].wait()
        assert child.name == "late"
        assert child.status in {AgentStatus.STOPPED, AgentStatus.CANCELLED}
    assert trio.current_time() == pytest.approx(5)
    async with open_pool(LiveDriver(act), tools=family(other("100", deadline_seconds=2))) as pool:
        await pool.spawn(SpawnConfig(PLAIN, "call_child", deadline_seconds=5))
        assert (await pool.join_all())[1].text == f"critic: {StopReason.DEADLINE}"


async def test_it_keeps_to_its_parents_tier_and_budget(autojump_clock: MockClock) -> None:
    """What its parent may not send anywhere, it may not either."""
    lax = SpawnConfig(manifest("lax", privacy=PrivacyTier.STANDARD), "0")
    async with open_pool(LiveDriver(act), tools=family(lax)) as pool:
        outcome = await (await pool.spawn(SpawnConfig(PLAIN, "call_child"))).wait()
    assert "PrivacyError" in outcome.text
    assert pool.statistics().spawned == 1
    budget = Budget(requests=2)
    async with open_pool(LiveDriver(act), tools=family(other("0")), budget=budget) as pool:
        outcome = await (await pool.spawn(SpawnConfig(PLAIN, "call_child"))).wait()
    # The child's request was the second of two, and so there is none for the parent.
    assert outcome.stop_reason is StopReason.REQUEST_BUDGET


async def test_a_child_is_told_no_key_that_has_not_set_its_limit() -> None:
    """It has ten turns, whatever its parent's manifest says."""

    @tool(timeout_seconds=math.inf)
    async def call_child(context: ToolContext, n: int = 0) -> str:
        """Run a child, which calls this as well."""
        if context.agent.parent_id:
            return str(n)
        return str((await context.agent.run_child("on and on")).error)

    async def ask_on(request: CompletionRequest, _: OnDelta) -> Completion | str:  # noqa: ASYNC124  # as drivers are
        results = results_of(request)
        if results and query_of(request) == "begin":
            return results[0].content
        return calling(tool_call("call_child", n=len(results)))

    parent = manifest("parent", capabilities=(Capability.spawn(1),))
    async with open_pool(LiveDriver(ask_on), tools=ToolRegistry([call_child])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(parent, "begin"))).wait()
    assert outcome.text == "max iterations reached (10)"


def spawner(pool: list[AgentPool], *, outlives_parent: bool = False) -> ToolRegistry:
    """Return a tool that spawns an agent and does not wait for it."""

    @tool
    async def call_spawn() -> str:
        """Spawn an agent that works for a while."""
        config = SpawnConfig(manifest("late"), "50", outlives_parent=outlives_parent)
        await pool[0].spawn(config)
        await trio.sleep(1)
        return "left"

    return ToolRegistry([call_spawn])


@pytest.mark.parametrize("slots", [1, 2])
async def test_an_agent_that_ends_takes_its_children_along(
    slots: int, autojump_clock: MockClock
) -> None:
    """Whether they run or wait in the queue; each still has its outcome."""
    pools: list[AgentPool] = []
    async with open_pool(LiveDriver(act), tools=spawner(pools), max_concurrent=slots) as pool:
        pools.append(pool)
        await (await pool.spawn(SpawnConfig(PLAIN, "call_spawn"))).wait()
        outcomes = await pool.join_all()
    assert trio.current_time() == 1
    assert [one.status for one in outcomes.values()] == [
        AgentStatus.COMPLETED,
        AgentStatus.CANCELLED,
    ]
    assert "cancelled by agent 1: its parent has ended" in str(outcomes[2].error)


async def test_unless_it_was_told_otherwise(autojump_clock: MockClock) -> None:
    """An agent that goes on is the pool's, and the pool's block waits for it."""
    pools: list[AgentPool] = []
    tools = spawner(pools, outlives_parent=True)
    async with open_pool(LiveDriver(act), tools=tools) as pool:
        pools.append(pool)
        await (await pool.spawn(SpawnConfig(PLAIN, "call_spawn"))).wait()
        outcomes = await pool.join_all()
        assert_quiescent(pool)
    assert trio.current_time() == 50
    assert outcomes[2].text == "slept 50"


async def _family() -> None:
    pools: list[AgentPool] = []
    tools = ToolRegistry([*spawner(pools), *family(other("1"))])
    async with open_pool(LiveDriver(act), tools=tools, max_concurrent=2) as pool:
        pools.append(pool)
        await pool.fan_out([SpawnConfig(PLAIN, "call_spawn"), SpawnConfig(PLAIN, "call_child")])
        await pool.join_all()
        # Those that came later have been cancelled, and end now.
        await pool.join_all(children=True)
        assert_quiescent(pool)


def test_no_child_is_left_at_any_point() -> None:
    """The whole, all agents, and one of them, cancelled before every step."""
    cancel_everywhere(_family)
    cancel_everywhere(_family, target="agents")
    cancel_everywhere(_family, target="agent")


# --- What a tree of agents asks is limited as a whole


def multiplying(depth: int) -> SpawnConfig:
    """Return an agent whose every answer asks for five children."""
    grants = (Capability.spawn(depth),)
    config = manifest("root", capabilities=grants, max_iterations=3, max_tool_calls=10)
    return SpawnConfig(config, "multiply")


async def _multiply(depth: int, asked: list[int], broken: int = 0, slots: int = 4) -> None:
    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        await trio.lowlevel.checkpoint()
        asked.append(1)
        if len(asked) == broken:
            raise OverloadedError("busy")
        if not request.tools:
            return "done"
        return calling(*[tool_call("spawn_agent", f"c{n}", query="multiply") for n in range(5)])

    async with open_pool(
        LiveDriver(answer), tools=ToolRegistry(TEAM_TOOLS), max_concurrent=slots
    ) as pool:
        handle = await pool.spawn(multiplying(depth))
        outcome = await handle.wait()
        outcomes = await pool.join_all(children=True)
    assert len(asked) <= 3
    assert sum(one.tool_calls_run for one in outcomes.values()) <= 10
    assert outcome.status is AgentStatus.STOPPED
    assert_quiescent(pool)


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_children_do_not_multiply_the_limits(depth: int, slots: int) -> None:
    """Three requests and ten calls came to 13, 133 and 1,333 requests."""

    async def scenario() -> None:
        await _multiply(depth, [], slots=slots)

    explore(scenario, schedules=20)


def test_retries_count_as_well() -> None:
    """Of a tree that has begun: what a request costs, a second one costs again."""

    async def scenario() -> None:
        await _multiply(2, [], broken=2)

    explore(scenario, schedules=10)


def test_a_tree_that_is_cancelled_has_asked_no_more() -> None:
    """At any point."""

    async def scenario() -> None:
        await _multiply(2, [])

    cancel_everywhere(scenario)


async def test_nothing_left_is_no_child_of_any_kind() -> None:
    """Its last turn is its own: a child could ask nothing."""
    config = manifest("root", capabilities=PLAIN.capabilities, max_iterations=1)
    seen: list[str] = []

    @tool(timeout_seconds=math.inf)
    async def call_child(context: ToolContext) -> str:
        """Run a child."""
        with pytest.raises(CapabilityDeniedError, match="no requests are left for a child") as c:
            await context.agent.run_child(other("1"))
        seen.append(str(c.value))
        return "denied"

    async with open_pool(LiveDriver(act), tools=ToolRegistry([call_child])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(config, "call_child"))).wait()
        assert await pool.join_all(children=True) == {1: outcome}
    assert outcome.stop_reason is StopReason.MAX_ITERATIONS
    assert len(seen) == 1


async def start(pool: AgentPool, way: str, config: SpawnConfig) -> None:
    """Run *config* in one of the ways in which a pool takes agents."""
    if way == "spawn":
        await pool.spawn(config)
    elif way == "fan_out_nowait":
        pool.fan_out_nowait([config])
    elif way == "map":
        async with pool.map(config.manifest, [config.query]) as outcomes:
            await anext(outcomes)
    else:
        await {"fan_out": pool.fan_out, "race": pool.race, "supervise": pool.supervise}[way](
            [config]
        )


@pytest.mark.parametrize("way", ["spawn", "fan_out", "fan_out_nowait", "race", "supervise", "map"])
async def test_what_a_tool_spawns_is_held_to_the_tier_of_its_agent(way: str) -> None:
    """Through the pool as through ``run_child``: what the agent knows goes nowhere laxer."""
    lax = SpawnConfig(manifest("lax", privacy=PrivacyTier.STANDARD), "0")
    cloud = LiveDriver(act, PrivacyTier.STANDARD)
    local = LiveDriver(act)

    @tool
    async def call_child() -> str:
        """Spawn a child through the pool."""
        with pytest.raises(PrivacyError, match="'parent' is Sovereign, and that of its child"):
            await start(pool, way, lax)
        return "refused"

    def choose(one: AgentManifest) -> Driver:
        return cloud if one is lax.manifest else local

    async with open_pool(choose, tools=ToolRegistry([call_child]), random_seed=0) as pool:
        outcome = await (await pool.spawn(SpawnConfig(PLAIN, "call_child"))).wait()
        assert (outcome.text, cloud.calls, pool.statistics().spawned) == ("refused", 0, 1)
        await start(pool, way, lax)  # the owner's data is its own
        await pool.join_all()
    assert cloud.calls == 1


async def test_a_parent_counts_what_is_unknown_of_its_children() -> None:
    """A request of a child that broke off is charged to the parent, so its total is too low."""

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:  # noqa: ASYNC124  # as drivers are
        if query_of(request) == "child":
            raise RuntimeError("the connection broke")
        if results_of(request):
            return Completion("done", usage=Usage(1, 1))
        return calling(tool_call("call_child"), usage=Usage(1, 1))

    log, books = Recorder(), Budget(tokens=100_000)
    tools = family(other("child"))
    async with open_pool(
        LiveDriver(answer, price_per_token_usd=1e-6), tools=tools, observers=[log], budget=books
    ) as pool:
        outcome = await (await pool.spawn(SpawnConfig(PLAIN, "parent"))).wait()
        spent = pool.statistics().budget
    assert outcome.cost_usd is None
    assert spent is not None
    assert outcome.unmeasured_requests == spent.unmeasured == 1
    record = record_of(log.events)
    assert {key: bill.unmeasured for key, bill in record.with_children().items()} == {1: 1, 2: 1}
    assert record.agents[1].bill.unmeasured == 0
