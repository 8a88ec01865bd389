"""The pool's ends and its bad input: a specific error at the caller, all else untouched."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool import (
    OWNER_ID,
    AgentCancelledError,
    AgentGoneError,
    AgentManifest,
    AgentOutcome,
    AgentPool,
    AgentPoolError,
    AgentStatus,
    LimitExceededError,
    ManifestError,
    PoolClosedError,
    PoolError,
    PoolFullError,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    StopReason,
    UnknownAgentError,
    UsageError,
    open_pool,
)
from agentpool.abc import AgentContext, Completion, CompletionRequest, Driver, OnDelta, ToolContext
from agentpool.drivers import FunctionDriver, ScriptedDriver
from agentpool.tools import ToolRegistry
from tests.support.fakes import (
    FakeTool,
    LiveDriver,
    RaisingObserver,
    Recorder,
    calling,
    hanging_driver,
    job,
    jobs,
    manifest,
    query_of,
    results_of,
    sleepy_driver,
    texts,
    tool_call,
    turns_of,
    wait_all,
)


class PlannedError(Exception):
    """Raised by a test, so that nobody else can have raised it."""


# --- numbers


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "2", None], ids=repr)
@pytest.mark.parametrize("name", ["max_concurrent", "inbox_capacity"])
async def test_sizes_are_whole_numbers_from_one_on(name: str, wrong: object) -> None:
    """A pool of nobody waits for ever; ``True`` is not a number of slots."""
    with pytest.raises(UsageError, match=rf"{name} must be a whole number >= 1, got "):
        async with open_pool(sleepy_driver(), **{name: wrong}):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("wrong", [-1, False, 0.5], ids=repr)
async def test_queue_has_no_negative_room(wrong: object) -> None:
    """0 is allowed and means: refuse at capacity."""
    with pytest.raises(UsageError, match=r"max_queued must be a whole number >= 0, got "):
        async with open_pool(sleepy_driver(), max_queued=wrong):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("wrong", [0, -3, True], ids=repr)
async def test_wrong_new_number_of_slots_changes_nothing(wrong: int) -> None:
    """A refused setting leaves the old one."""
    async with open_pool(sleepy_driver(), max_concurrent=2) as pool:
        with pytest.raises(UsageError, match="max_concurrent must be a whole number >= 1"):
            pool.max_concurrent = wrong
        assert pool.max_concurrent == 2


async def test_on_failure_is_one_of_two_words() -> None:
    """A typo would otherwise mean the default, and be noticed in production."""
    with pytest.raises(UsageError, match="'collect' or 'abort', got 'explode'"):
        async with open_pool(sleepy_driver(), on_failure="explode"):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("query", ["", "  \n"])
def test_empty_query_is_refused(query: str) -> None:
    """Nobody asks nothing on purpose."""
    with pytest.raises(UsageError, match="query must not be empty"):
        SpawnConfig(AgentManifest(), query)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_deadline_lies_ahead(seconds: float) -> None:
    """A run without any time is a mistake, not a wish."""
    with pytest.raises(UsageError, match="deadline_seconds must be > 0"):
        SpawnConfig(AgentManifest(), "hi", deadline_seconds=seconds)


# --- ids and handles


@pytest.mark.parametrize("agent_id", [0, 2, -1, 10**30])
async def test_pool_knows_no_agent_that_never_was(agent_id: int) -> None:
    """The error says which id is the last one."""
    async with open_pool(sleepy_driver()) as pool:
        await pool.spawn(job())
        with pytest.raises(UsageError, match=rf"no agent {agent_id} in this pool.* is 1"):
            pool[agent_id]


async def test_a_message_to_oneself_is_refused() -> None:
    """An agent that waits for its own answer waits for ever; the owner likewise."""

    def build(context: AgentContext) -> ToolRegistry:
        async def mutter(_: str, __: ToolContext) -> str:
            await context.send(context.agent_id, "note to self")
            return "sent"

        return ToolRegistry([FakeTool("mutter", mutter)])

    driver = ScriptedDriver([calling(tool_call("mutter")), "done"])
    async with open_pool(driver, tools=build) as pool:
        await pool.spawn(job())
        await pool.join_all()
        with pytest.raises(UsageError, match="agent 0 cannot send to itself"):
            pool.router.send_nowait(OWNER_ID, "hello me")
        assert pool.statistics().messages == 0
    (result,) = results_of(driver.requests[1])
    assert result.is_error
    assert "agent 1 cannot send to itself" in result.content


async def test_unknown_ids_of_messages_change_nothing() -> None:
    """No message, no number, no event."""
    recorder = Recorder()
    async with open_pool(hanging_driver(), observers=[recorder]) as pool:
        await pool.spawn(job())
        await wait_all_tasks_blocked()
        before = len(recorder.events)
        for wrong in (2, -1):
            with pytest.raises(UnknownAgentError, match="the last one is 1") as info:
                await pool.router.send(wrong, "hi")
            assert info.value.recipient == wrong
            with pytest.raises(UnknownAgentError):
                await pool.router.ask(wrong, "hi?")
        assert (len(recorder.events), pool.statistics().messages) == (before, 0)
        pool.abort_all()


async def test_asking_an_agent_that_has_ended_fails_at_once() -> None:
    """Nobody waits for an answer that cannot come."""
    async with open_pool(sleepy_driver()) as pool:
        handle = await pool.spawn(job())
        await handle.wait()
        with pytest.raises(AgentGoneError, match="agent 1 has ended"):
            await handle.ask("still there?")


async def test_cancel_after_the_end_changes_nothing() -> None:
    """An outcome is final: late cancels, interrupts and aborts are too late."""
    async with open_pool(sleepy_driver()) as pool:
        handle = await pool.spawn(job("say hi"))
        outcome = await handle.wait()
        handle.cancel("too late")
        handle.interrupt()
        pool.abort_all()
        assert await handle.wait() is outcome
        assert (outcome.status, outcome.text) == (AgentStatus.COMPLETED, "hi")


async def test_the_first_cancel_says_who_and_why() -> None:
    """Provenance is about the cause, and the cause is the first."""
    async with open_pool(hanging_driver()) as pool:
        handle = await pool.spawn(job("ann"))
        await wait_all_tasks_blocked()
        handle.cancel("bored")
        handle.cancel("very bored")
        pool.abort_all("closing")
        outcome = await handle.wait()
    assert isinstance(outcome.error, AgentCancelledError)
    assert (outcome.error.cancelled_by, outcome.error.reason) == ("owner", "bored")
    with pytest.raises(AgentCancelledError, match=r"agent 1 \(ann\) was cancelled by owner: bored"):
        outcome.unwrap()


async def test_cancelled_before_its_first_slot_an_agent_never_runs() -> None:
    """A queued agent ends at once, with its query as its transcript, and frees its place."""
    driver = hanging_driver()
    async with open_pool(driver, max_concurrent=1, max_queued=1) as pool:
        await pool.spawn(job("first"))
        queued = await pool.spawn(job("second"))
        await wait_all_tasks_blocked()
        queued.cancel("changed my mind")
        assert queued.status is AgentStatus.CANCELLED
        assert pool.queued_count == 0
        outcome = await queued.wait()
        assert (outcome.started_at, outcome.iterations, len(outcome.messages)) == (None, 0, 1)
        replacement = pool.spawn_nowait(job("third"))
        assert replacement.agent_id == 3
        pool.abort_all()
    assert driver.calls == 1


async def test_cancelled_in_the_middle_of_the_queue(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever leaves the queue does not hold up, or count for, those behind."""
    async with open_pool(sleepy_driver(), max_concurrent=1, max_queued=4) as pool:
        handles = await pool.fan_out(jobs("sleep 1", "say b", "say c", "say d", "say e"))
        handles[2].cancel()
        assert pool.queued_count == 3
        handles[1].cancel()
        handles[3].cancel()
        assert pool.queued_count == 1
        pool.fan_out_nowait(jobs("say f", "say g", "say h"))
        with pytest.raises(PoolFullError):
            pool.spawn_nowait(job("one too many"))
        statuses = [o.status.value for o in await wait_all(pool)]
    cancelled, completed = "cancelled", "completed"
    assert statuses == [completed, cancelled, cancelled, cancelled, *([completed] * 4)]


async def test_cancelled_in_the_step_of_its_start() -> None:
    """An agent that has its slot and has not taken a step yet ends like any other."""
    async with open_pool(sleepy_driver()) as pool:
        handle = pool.spawn_nowait(job())
        assert handle.status is AgentStatus.RUNNING
        handle.cancel("at once")
        assert (await handle.wait()).status is AgentStatus.CANCELLED
        assert pool.statistics().running == 0


# --- from inside


async def run_inside(act: FakeTool, *, extra: Iterable[SpawnConfig] = ()) -> list[AgentOutcome]:
    """Return the outcomes of a pool whose first agent calls *act*, and tells its result."""

    async def answer(request: CompletionRequest) -> Completion | str:
        await trio.lowlevel.checkpoint()
        if query_of(request) == "hang":
            await trio.sleep_forever()
        if turns_of(request):
            return results_of(request)[-1].content
        return calling(tool_call("act")) if query_of(request) == "actor" else "done"

    async with open_pool(FunctionDriver(answer), tools=ToolRegistry([act])) as pool:
        pools.append(pool)
        try:
            await pool.fan_out([job("actor"), *extra])
            return await wait_all(pool)
        finally:
            pools.remove(pool)


pools: list[AgentPool] = []
"""The pool that is open, for tools that were made before it."""


async def test_join_from_inside_is_refused() -> None:
    """An agent that joins its own pool would wait for itself."""

    async def act(_: str, __: ToolContext) -> str:
        refused: list[str] = []
        for join in (pools[-1].join_all, pools[-1].join_next, pools[-1].as_completed().__anext__):
            with pytest.raises(UsageError, match="would wait for itself") as info:
                await join()
            refused.append(str(info.value).partition("(")[0])
        return ", ".join(refused)

    (outcome,) = await run_inside(FakeTool("act", act))
    assert outcome.text == (
        "agent 1 called join_all, agent 1 called join_next, agent 1 called join_next"
    )


async def test_waiting_for_oneself_is_refused() -> None:
    """The same by handle."""

    async def act(_: str, __: ToolContext) -> str:
        with pytest.raises(UsageError, match="agent 1 cannot wait for itself"):
            await pools[-1][1].wait()
        return "refused"

    (outcome,) = await run_inside(FakeTool("act", act))
    assert outcome.text == "refused"


async def test_an_agent_may_cancel_another_and_says_so() -> None:
    """Provenance names the agent that did it."""

    async def act(_: str, __: ToolContext) -> str:  # noqa: ASYNC124  # a tool is async
        pools[-1][2].cancel("in my way")
        return "done"

    _, second = await run_inside(FakeTool("act", act), extra=jobs("hang"))
    assert isinstance(second.error, AgentCancelledError)
    assert (second.error.cancelled_by, second.error.reason) == ("agent 1", "in my way")


async def test_an_agent_may_abort_the_pool_itself_included() -> None:
    """Whoever pulls the cord is on the train."""

    async def act(_: str, __: ToolContext) -> str:
        pools[-1].abort_all("cord pulled")
        await trio.lowlevel.checkpoint()
        return "never seen"

    (outcome,) = await run_inside(FakeTool("act", act))
    assert isinstance(outcome.error, AgentCancelledError)
    assert (outcome.error.cancelled_by, outcome.error.reason) == ("agent 1", "cord pulled")


async def test_an_agent_may_cancel_itself() -> None:
    """It has an outcome with what it had, and its open call has a result."""

    async def act(_: str, __: ToolContext) -> str:
        pools[-1][1].cancel("enough")
        await trio.lowlevel.checkpoint()
        return "never"  # pragma: no cover

    (outcome,) = await run_inside(FakeTool("act", act))
    assert outcome.status is AgentStatus.CANCELLED
    assert len(outcome.messages) == 3


async def test_children_know_their_parent_and_depth() -> None:
    """Spawned from inside an agent's tool, an agent is that agent's child."""

    async def act(_: str, __: ToolContext) -> str:
        child = await pools[-1].spawn(job("child"))
        return f"{child.parent_id} {child.depth}"

    (outcome,) = await run_inside(FakeTool("act", act))
    assert outcome.text == "1 1"


# --- drivers and factories that break


async def test_a_driver_factory_that_raises_spawns_nobody() -> None:
    """The caller of ``spawn`` gets the factory's own error, and nothing has changed."""

    def factory(_: AgentManifest) -> Driver:
        raise PlannedError("no such model")

    async with open_pool(factory) as pool:
        for spawn in (pool.spawn_nowait, pool.spawn):
            with pytest.raises(PlannedError):  # noqa: PT012  # the block is what raises
                handle = spawn(job())
                await handle  # type: ignore[misc]
        with pytest.raises(PlannedError):
            pool.fan_out_nowait(jobs("a", "b"))
        assert (pool.router.agent_count, pool.statistics().spawned) == (0, 0)


async def test_a_driver_factory_that_returns_no_driver_spawns_nobody() -> None:
    """What is not a driver is named at the spawn, not found by an attribute that it lacks."""
    async with open_pool(lambda _: "gpt") as pool:  # type: ignore[arg-type, return-value]
        with pytest.raises(UsageError, match="driver"):
            pool.spawn_nowait(job())
        assert pool.statistics().spawned == 0


async def test_a_driver_that_returns_no_completion_fails_its_agent_alone() -> None:
    """G2: an outcome all the same, and the others are not touched."""
    answers = iter([None, "fine"])
    driver = FunctionDriver(lambda _: next(answers))  # type: ignore[arg-type, return-value]
    async with open_pool(driver, max_concurrent=1) as pool:
        await pool.fan_out(jobs("a", "b"))
        first, second = await wait_all(pool)
    assert (first.status, second.text) == (AgentStatus.FAILED, "fine")


async def test_fan_out_with_one_refused_manifest_starts_nobody() -> None:
    """G9: after a specific error the state is as before, and no id is lost."""
    cloud = FunctionDriver(lambda _: "hi", privacy=PrivacyTier.STANDARD)
    fine = SpawnConfig(manifest(privacy=PrivacyTier.STANDARD), "hi")
    async with open_pool(cloud) as pool:
        for fan_out in (pool.fan_out, pool.fan_out_nowait):
            with pytest.raises(PrivacyError):  # noqa: PT012  # the block is what raises
                handles = fan_out([fine, fine, job("secret")])
                await handles  # type: ignore[misc]
        assert (pool.active_count, pool.statistics().spawned) == (0, 0)


# --- tool builders and tools that break


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_tool_builder_that_raises_fails_its_agent_alone(is_async: bool) -> None:  # noqa: FBT001
    """An outcome with the error itself; the original lost the agent."""

    def build(context: AgentContext) -> ToolRegistry:
        if context.agent_id == 1:
            raise PlannedError("no tools today")
        return ToolRegistry()

    async def build_async(context: AgentContext) -> ToolRegistry:
        await trio.lowlevel.checkpoint()
        return build(context)

    driver = sleepy_driver()
    async with open_pool(driver, tools=build_async if is_async else build) as pool:
        await pool.fan_out(jobs("say a", "say b"))
        first, second = await wait_all(pool)
    assert isinstance(first.error, PlannedError)
    assert (first.status, len(first.messages)) == (AgentStatus.FAILED, 1)
    assert (second.status, second.text) == (AgentStatus.COMPLETED, "b")
    assert driver.calls == 1


@pytest.mark.parametrize("garbage", [None, [], "tools"], ids=repr)
async def test_a_tool_builder_that_returns_garbage_is_named(garbage: object) -> None:
    """The error says what came and what was expected."""
    async with open_pool(sleepy_driver(), tools=lambda _: garbage) as pool:  # type: ignore[arg-type, return-value]
        await pool.spawn(job())
        (outcome,) = await wait_all(pool)
    assert isinstance(outcome.error, UsageError)
    assert f"must return a ToolRegistry, got {type(garbage).__name__}" in str(outcome.error)


async def test_a_tool_builder_that_hangs_can_be_cancelled() -> None:
    """It runs in the agent's own task, so the agent's handle ends it."""
    cancelled: list[int] = []

    async def build(context: AgentContext) -> ToolRegistry:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(context.agent_id)
            raise
        raise AssertionError("unreachable")  # pragma: no cover

    async with open_pool(sleepy_driver(), tools=build) as pool:
        handle = await pool.spawn(job())
        await wait_all_tasks_blocked()
        handle.cancel("no patience")
        outcome = await handle.wait()
    assert (outcome.status, outcome.iterations, cancelled) == (AgentStatus.CANCELLED, 0, [1])


async def test_a_tool_builder_that_hangs_meets_the_runs_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The run's time counts from its first slot, not from its first request."""

    async def build(_: AgentContext) -> ToolRegistry:
        await trio.sleep_forever()
        raise AssertionError("unreachable")  # pragma: no cover

    async with open_pool(sleepy_driver(), tools=build) as pool:
        outcome = await (await pool.spawn(job(deadline_seconds=5))).wait()
    assert (outcome.status, outcome.stop_reason) == (AgentStatus.STOPPED, StopReason.DEADLINE)
    assert (outcome.finished_at, trio.current_time()) == (5, 5)
    assert isinstance(outcome.error, LimitExceededError)
    assert (outcome.error.used, outcome.error.limit) == (5, 5)


async def test_tools_of_a_cancelled_agent_that_raise_do_not_turn_it_into_a_failure() -> None:
    """Cleanup that breaks while an agent is cancelled does not hide who cancelled it."""

    async def act(_: str, __: ToolContext) -> str:
        try:
            await trio.sleep_forever()
        finally:
            raise PlannedError("cleanup broke")

    driver = ScriptedDriver([calling(tool_call("act"))])
    async with open_pool(driver, tools=ToolRegistry([FakeTool("act", act)])) as pool:
        handle = await pool.spawn(job())
        await wait_all_tasks_blocked()
        handle.cancel("enough")
        outcome = await handle.wait()
    assert outcome.status is AgentStatus.CANCELLED


# --- observers


async def test_an_observer_that_raises_is_counted_and_disturbs_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G2, G11: reported once; the observers after it are told all the same."""
    broken, recorder = RaisingObserver(), Recorder()
    async with open_pool(sleepy_driver(), observers=[broken, recorder]) as pool:
        await pool.fan_out(jobs("say a", "say b"))
        assert texts(await wait_all(pool)) == ["a", "b"]
        assert pool.statistics().observer_failures == broken.calls == len(recorder.events)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# --- how the block ends


async def test_leaving_the_block_waits_for_everyone(autojump_clock: trio.testing.MockClock) -> None:
    """G1: what starts inside ends inside, the queued ones too."""
    async with open_pool(sleepy_driver(), max_concurrent=1) as pool:
        handles = await pool.fan_out(jobs("sleep 1", "sleep 2", "sleep 3"))
    assert trio.current_time() == 6
    assert [handle.status for handle in handles] == [AgentStatus.COMPLETED] * 3


async def test_post_for_an_owner_who_has_left_does_not_hold_up_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After the block nobody reads the owner's post: who waits for room there is told so."""

    def build(context: AgentContext) -> ToolRegistry:
        async def flood(_: str, __: ToolContext) -> str:
            for _unused in range(3):
                await context.send(OWNER_ID, "read me")
            return "sent"

        return ToolRegistry([FakeTool("flood", flood)])

    driver = ScriptedDriver([calling(tool_call("flood")), "done"])
    with trio.fail_after(60):
        async with open_pool(driver, tools=build, inbox_capacity=1) as pool:
            handle = await pool.spawn(SpawnConfig(manifest(tool_seconds=None), "hello"))
    assert handle.status is AgentStatus.COMPLETED
    (result,) = results_of(driver.requests[1])
    assert result.is_error


async def test_agents_may_spawn_while_the_pool_waits_for_its_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The block has ended, the work has not: a parent may still need a child."""

    async def act(_: str, __: ToolContext) -> str:
        await trio.sleep(1)
        return (await (await pool.spawn(job("say child"))).wait()).text

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        await trio.lowlevel.checkpoint()
        if query_of(request) != "parent":
            return "child"
        return results_of(request)[-1].content if turns_of(request) else calling(tool_call("act"))

    tools = ToolRegistry([FakeTool("act", act)])
    async with open_pool(LiveDriver(answer), tools=tools, max_concurrent=1) as pool:
        handle = await pool.spawn(job("parent"))
    assert (await handle.wait()).text == "child"


async def test_a_body_that_raises_comes_out_as_itself() -> None:
    """Not in a group; and the agents were aborted and awaited before it comes out."""
    ended: list[str] = []

    async def answer(_: CompletionRequest, __: OnDelta) -> str:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            ended.append("agent")
        raise AssertionError("unreachable")  # pragma: no cover

    error = PlannedError("the body broke")
    with pytest.raises(PlannedError) as info:  # noqa: PT012  # the block is what raises
        async with open_pool(LiveDriver(answer), max_concurrent=1) as pool:
            handles = await pool.fan_out(jobs("a", "b"))
            await wait_all_tasks_blocked()
            raise error
    assert info.value is error
    assert ended == ["agent"]
    for handle in handles:
        assert handle.outcome is not None
        assert isinstance(handle.outcome.error, AgentCancelledError)
        assert handle.outcome.error.cancelled_by == "pool"
        assert handle.outcome.error.reason == "its block raised PlannedError"


async def test_a_body_that_raises_takes_unseen_failures_along() -> None:
    """The body's error comes out; that agents had failed as well is noted on it."""
    with pytest.raises(PlannedError) as info:  # noqa: PT012  # the block is what raises
        async with open_pool(sleepy_driver()) as pool:
            await pool.spawn(job("raise flour"))
            await wait_all_tasks_blocked()
            raise PlannedError("the body broke")
    assert info.value.__notes__ == ["agent 1 failed as well: ValueError: flour"]


@pytest.mark.parametrize("error", [StopIteration("a"), StopAsyncIteration("b")], ids=repr)
async def test_a_body_may_raise_what_generators_end_with(error: Exception) -> None:
    """``open_pool`` is made of a generator; nobody outside has to know."""
    with pytest.raises(type(error)) as info:
        async with open_pool(sleepy_driver()):
            raise error
    assert info.value is error


async def test_unseen_failures_come_out_at_the_end() -> None:
    """Errors do not pass silently: a group that knows whose each error was."""
    with pytest.raises(
        PoolError, match=r"2 of 3 agents failed .* never retrieved: agent 1 \(.+\), agent 3 \(.+\)$"
    ) as info:
        async with open_pool(sleepy_driver()) as pool:
            await pool.fan_out(jobs("raise a", "say b", "raise c"))
    assert list(info.value.by_agent) == [1, 3]
    assert [str(error) for error in info.value.exceptions] == ["a", "c"]
    with pytest.raises(PoolError, match=r"agent 3 \(.+\), \.\.\.$"):
        async with open_pool(sleepy_driver()) as pool:
            await pool.fan_out(jobs(*["raise a"] * 4))
    with pytest.raises(PoolError):  # noqa: PT012  # the block is what raises
        async with open_pool(sleepy_driver()) as pool:
            await pool.fan_out(jobs("raise a", "raise b"))
            await pool.join_next()  # one of two


@pytest.mark.parametrize("look", ["join_all", "join_next", "wait", "outcome", "as_completed"])
async def test_seen_failures_stay_inside(look: str) -> None:
    """Whoever has been given the outcome has been told."""
    async with open_pool(sleepy_driver()) as pool:
        handle = await pool.spawn(job("raise a"))
        await wait_all_tasks_blocked()
        if look == "join_all":
            await pool.join_all()
        elif look == "join_next":
            await pool.join_next()
        elif look == "wait":
            await handle.wait()
        elif look == "as_completed":
            assert [outcome.agent_id async for outcome in pool.as_completed()] == [1]
        else:
            assert handle.outcome is not None


async def test_a_status_is_no_look_at_the_failure() -> None:
    """A status bar that prints handles does not swallow errors."""
    with pytest.raises(PoolError):  # noqa: PT012  # the block is what raises
        async with open_pool(sleepy_driver()) as pool:
            handle = await pool.spawn(job("raise a"))
            await wait_all_tasks_blocked()
            assert handle.status is AgentStatus.FAILED
            assert "failed" in repr(handle)


async def test_stopped_and_cancelled_agents_are_no_failures() -> None:
    """Only what went wrong comes out at the end, not what was ended on purpose."""
    async with open_pool(hanging_driver()) as pool:
        await pool.fan_out(jobs("a", "b"))
        await wait_all_tasks_blocked()
        pool[1].cancel()
        pool.abort_all()


async def test_on_failure_abort_stops_the_pool_at_the_first_failure() -> None:
    """The others are cancelled, queued ones too, and it says by whom and why."""
    with pytest.raises(PoolError) as info:
        async with open_pool(sleepy_driver(), max_concurrent=2, on_failure="abort") as pool:
            handles = await pool.fan_out(jobs("hang", "raise boom", "say never"))
    assert list(info.value.by_agent) == [2]
    for handle in (handles[0], handles[2]):
        assert handle.outcome is not None
        assert isinstance(handle.outcome.error, AgentCancelledError)
        assert handle.outcome.error.cancelled_by == "pool"
        assert handle.outcome.error.reason == "agent 2 (raise boom) failed"


async def test_a_closed_pool_takes_nobody() -> None:
    """And says so, rather than that it is full."""
    async with open_pool(sleepy_driver()) as pool:
        handle = await pool.spawn(job())
    for spawn in (pool.spawn, pool.spawn_nowait):
        with pytest.raises(PoolClosedError, match="the pool has closed"):  # noqa: PT012  # the block is what raises
            result = spawn(job())
            await result  # type: ignore[misc]
    for fan_out in (pool.fan_out, pool.fan_out_nowait):
        with pytest.raises(PoolClosedError):  # noqa: PT012  # the block is what raises
            results = fan_out(jobs("a"))
            await results  # type: ignore[misc]
    assert (await pool.join_next()) is handle.outcome
    assert await pool.join_next() is None
    assert list(await pool.join_all()) == [1]
    with pytest.raises(AgentGoneError):
        await handle.send("hi")


async def test_close_refuses_newcomers_and_lets_the_others_end() -> None:
    """A pool that closes early finishes what it has accepted."""
    async with open_pool(sleepy_driver(), max_concurrent=1) as pool:
        await pool.fan_out(jobs("say a", "say b"))
        pool.close()
        with pytest.raises(PoolClosedError):
            await pool.spawn(job())
        assert texts(await wait_all(pool)) == ["a", "b"]


async def test_whoever_waits_for_room_learns_that_the_pool_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A spawn that waits for a place does not wait for ever."""
    refused: list[str] = []

    async def late() -> None:
        try:
            await pool.spawn(job("late"))
        except PoolClosedError as error:
            refused.append(str(error))

    async with (
        trio.open_nursery() as nursery,
        open_pool(sleepy_driver(), max_concurrent=1, max_queued=1) as pool,
    ):
        await pool.fan_out(jobs("sleep 1", "sleep 1"))
        nursery.start_soon(late)
        await wait_all_tasks_blocked()
        pool.close()
    assert refused == ["the pool has closed or was shut down, and takes no more agents"]
    assert pool.statistics().spawned == 2


async def test_a_spawn_at_the_very_end_runs_or_is_refused() -> None:
    """A task beside the pool may spawn in the step in which the last agent ended."""

    async def restart(pool: AgentPool, results: list[str]) -> None:
        await pool[1].wait()
        try:
            handle = pool.spawn_nowait(job("say again"))
        except PoolClosedError:
            results.append("refused")
        else:
            results.append((await handle.wait()).text)

    # Who goes first, that task or the pool's block, is trio's to decide, and it throws dice.
    for _ in range(30):
        results: list[str] = []
        async with trio.open_nursery() as nursery, open_pool(sleepy_driver()) as pool:
            await pool.spawn(job("say once"))
            nursery.start_soon(restart, pool, results)  # noqa: ASYNC111  # a task beside the pool
        assert results in (["refused"], ["again"])
        assert len(await pool.join_all()) == pool.statistics().spawned


async def test_events_of_a_closed_pool_end_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """A reader that comes too late has nothing to read, and does not wait for it."""
    async with open_pool(sleepy_driver()) as pool:
        pass
    with trio.fail_after(1):
        assert [event async for event in pool.events()] == []


async def test_the_owner_waiting_for_messages_is_told_that_the_pool_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A task that waits for the agents' messages learns that none will come, in our words."""
    errors: list[Exception] = []

    async def listen() -> None:
        try:
            await pool.receive_many()
        except Exception as error:  # noqa: BLE001  # what it is, is what this test is about
            errors.append(error)

    async with trio.open_nursery() as nursery, open_pool(sleepy_driver()) as pool:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
    (error,) = errors
    assert isinstance(error, AgentPoolError)


# --- cancelled from outside, and Ctrl-C


async def test_outer_cancellation_ends_everyone_and_goes_through(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The scope around the pool is obeyed; each agent has an outcome that says so."""
    with trio.move_on_after(5) as scope:
        async with open_pool(hanging_driver(), max_concurrent=2) as pool:
            handles = await pool.fan_out(jobs("a", "b", "c", "d"))
            await pool.join_all()
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    for handle in handles:
        assert handle.outcome is not None
        assert isinstance(handle.outcome.error, AgentCancelledError)
        assert handle.outcome.error.cancelled_by == "outside"
    assert (pool.active_count, pool.queued_count, pool.router.agent_count) == (0, 0, 0)


async def cancelled_outside(*, by_agent: bool) -> list[AgentOutcome | None]:
    """Cancel the scope around a pool with three slots and five agents in the queue."""
    is_over = trio.Event()

    async def answer(request: CompletionRequest, _: OnDelta) -> str:
        await is_over.wait() if query_of(request) == "b" else await trio.sleep_forever()
        outer.cancel()
        return "the last one"

    with trio.CancelScope() as outer:
        async with open_pool(LiveDriver(answer), max_concurrent=3) as pool:
            handles = await pool.fan_out(map(job, "abcdefgh"))
            await wait_all_tasks_blocked()
            if by_agent:
                is_over.set()
            else:
                outer.cancel()
            await pool.join_all()
    assert outer.cancelled_caught
    return [handle.outcome for handle in handles]


@pytest.mark.parametrize("by_agent", [False, True])
async def test_after_an_outer_cancellation_no_agent_begins(by_agent: bool) -> None:  # noqa: FBT001
    """Whoever takes the next step: the owner, or an agent whose slot is then free."""
    for _ in range(20):  # trio runs the tasks of one tick in any order
        ended = await cancelled_outside(by_agent=by_agent)
        assert [one and one.started_at is not None for one in ended] == [True] * 3 + [False] * 5
        assert [one and one.text for one in ended] == ["", "the last one" * by_agent] + [""] * 6


async def test_outer_cancellation_while_the_pool_waits_for_its_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The same when the body is over and only the agents are left, queued ones too."""
    with trio.move_on_after(5) as scope:
        async with open_pool(hanging_driver(), max_concurrent=2) as pool:
            handles = await pool.fan_out(jobs("a", "b", "c", "d"))
    assert scope.cancelled_caught
    assert [h.status for h in handles] == [AgentStatus.CANCELLED] * 4
    assert pool.statistics().running == 0


async def test_outer_cancellation_reaches_parked_agents(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also those that wait for a slot to go on: they end without one."""

    async def act(_: str, __: ToolContext) -> str:
        with trio.move_on_after(1):
            await (await pool.spawn(job("hang"))).wait()
        return "gave up"

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        if query_of(request) == "hang":
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return calling(tool_call("act"))

    tools = ToolRegistry([FakeTool("act", act)])
    with trio.move_on_after(5) as scope:
        async with open_pool(LiveDriver(answer), tools=tools, max_concurrent=1) as pool:
            await pool.fan_out(jobs("parent"))
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert [o.status.value for o in (await pool.join_all()).values()] == ["cancelled"] * 2


async def test_ctrl_c_in_the_body_comes_out_as_itself() -> None:
    """Nobody catches a group to find Ctrl-C, and nobody survives it."""
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # the block is what raises
        async with open_pool(hanging_driver(), max_concurrent=1) as pool:
            handles = await pool.fan_out(jobs("a", "b"))
            await wait_all_tasks_blocked()
            raise KeyboardInterrupt
    assert [handle.status for handle in handles] == [AgentStatus.CANCELLED] * 2


async def test_ctrl_c_in_an_agent_comes_out_as_itself() -> None:
    """Ctrl-C hits whatever runs, so as a rule some driver or tool; that agent has an outcome."""

    async def answer(request: CompletionRequest, _: OnDelta) -> str:
        await trio.lowlevel.checkpoint()
        if query_of(request) == "a":
            raise KeyboardInterrupt
        await trio.sleep_forever()
        raise AssertionError("unreachable")  # pragma: no cover

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # the block is what raises
        async with open_pool(LiveDriver(answer), max_concurrent=2) as pool:
            handles = await pool.fan_out(jobs("a", "b", "c"))
            await trio.sleep_forever()
    assert [handle.status for handle in handles] == [AgentStatus.CANCELLED] * 3


async def test_a_body_that_raises_while_the_scope_around_it_is_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The error comes out as itself, as in a pool that nobody cancels: `except` finds it."""

    async def answer(_: CompletionRequest, __: OnDelta) -> str:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
        raise AssertionError("unreachable")  # pragma: no cover

    with pytest.raises(PlannedError), trio.move_on_after(5):  # noqa: PT012  # the block is what raises
        async with open_pool(LiveDriver(answer)) as pool:
            await pool.spawn(job())
            await trio.sleep(1)
            raise PlannedError("the body broke")


async def test_a_body_with_a_nursery_that_fails_aborts_the_agents() -> None:
    """An error in a group, as nurseries raise it, is an error of the body like any other."""

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise PlannedError("in a task")

    with pytest.RaisesGroup(PlannedError):
        async with open_pool(hanging_driver()) as pool:
            handle = await pool.spawn(job())
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112  # a group is what it is about
                nursery.start_soon(fail)
    assert handle.status is AgentStatus.CANCELLED


# --- joins and cancellation


async def test_a_cancelled_join_loses_no_outcome(autojump_clock: trio.testing.MockClock) -> None:
    """G16: whoever asks next gets what the cancelled caller did not."""
    async with open_pool(sleepy_driver()) as pool:
        await pool.fan_out(jobs("sleep 2", "sleep 4"))
        for join in (pool.join_all, pool.join_next, pool[1].wait):
            with trio.move_on_after(0.5) as scope:
                await join()
            assert scope.cancelled_caught
        assert [o.agent_id for _ in range(2) if (o := await pool.join_next())] == [1, 2]


async def test_a_join_that_is_cancelled_beforehand_takes_nothing() -> None:
    """A call that raises ``Cancelled`` has not happened, although an outcome was ready."""
    async with open_pool(sleepy_driver()) as pool:
        handle = await pool.spawn(job())
        await wait_all_tasks_blocked()
        for call in (pool.join_next, pool.join_all, handle.wait, lambda: pool.spawn(job())):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
        assert pool.statistics().spawned == 1
        assert await pool.join_next() is not None


async def test_several_joiners_share_the_ends(autojump_clock: trio.testing.MockClock) -> None:
    """Each end is given to exactly one of them, and all of them learn that it is over."""
    given: list[int | None] = []

    async def take() -> None:
        outcome = await pool.join_next()
        given.append(outcome and outcome.agent_id)

    async with open_pool(sleepy_driver()) as pool:
        await pool.fan_out(jobs("sleep 1", "sleep 2"))
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(take)
    assert sorted(given, key=str) == [1, 2, None, None]


async def test_join_all_does_not_wait_for_later_ones(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Everyone spawned so far: otherwise it might never return."""
    async with open_pool(sleepy_driver()) as pool:
        await pool.spawn(job("sleep 2"))

        async def spawn_later() -> None:
            await trio.sleep(1)
            await pool.spawn(job("sleep 5"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spawn_later)
            assert list(await pool.join_all()) == [1]
        assert trio.current_time() == 2
        assert await pool.join_next() is not None
        assert trio.current_time() == 6


async def test_spawn_waits_while_the_queue_is_full(autojump_clock: trio.testing.MockClock) -> None:
    """Back pressure: the caller waits, nobody is refused."""
    async with open_pool(sleepy_driver(), max_concurrent=1, max_queued=1) as pool:
        for _ in range(4):
            await pool.spawn(job("sleep 1"))
        assert trio.current_time() == 2


async def test_spawn_waits_for_a_slot_when_there_is_no_queue(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A pool that refuses at capacity can be waited for all the same."""
    with trio.fail_after(60):
        async with open_pool(sleepy_driver(), max_concurrent=1, max_queued=0) as pool:
            for _ in range(3):
                await pool.spawn(job("sleep 1"))
            assert trio.current_time() == 2


async def test_a_spawn_cancelled_while_it_waits_has_accepted_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """No id is used up by somebody who gave up waiting."""
    async with open_pool(sleepy_driver(), max_concurrent=1, max_queued=1) as pool:
        await pool.fan_out(jobs("sleep 5", "sleep 5"))
        with trio.move_on_after(1) as scope:
            await pool.spawn(job("impatient"))
        assert scope.cancelled_caught
        assert pool.statistics().spawned == 2
        assert (await pool.spawn(job("patient"))).agent_id == 3


async def test_a_wrong_manifest_is_refused_with_its_faults() -> None:
    """Refused before it is accepted, not discovered by the provider."""
    async with open_pool(ScriptedDriver([], context_window=100)) as pool:
        with pytest.raises(ManifestError) as info:
            pool.spawn_nowait(job())
        assert [fault.path for fault in info.value.faults] == ["model.max_tokens"]
        assert re.search("window of 100 tokens", str(info.value))


# --- shutdown in three steps


async def test_shutdown_of_an_idle_pool_only_asks() -> None:
    """Nobody was there to wait for; the queue is ended at once; nobody is taken any more."""
    async with open_pool(sleepy_driver()) as pool:
        assert (await pool.shutdown(grace_seconds=5)).value == "asked"
        with pytest.raises(PoolClosedError):
            pool.spawn_nowait(job())


async def test_shutdown_lets_turns_end(autojump_clock: trio.testing.MockClock) -> None:
    """Who ends within the grace has its outcome as ever; the queued never start."""
    async with open_pool(sleepy_driver(), max_concurrent=1) as pool:
        await pool.fan_out(jobs("sleep 3 say done", "say never"))
        await wait_all_tasks_blocked()
        assert (await pool.shutdown(grace_seconds=5)).value == "waited"
        assert trio.current_time() == 3
        running, queued = await wait_all(pool)
    assert (running.status, running.text) == (AgentStatus.COMPLETED, "done")
    assert isinstance(queued.error, AgentCancelledError)
    assert queued.error.reason == "the pool shuts down"


async def test_shutdown_asks_agents_to_stop_after_their_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One that would go on for hours has ended long before the grace is over."""

    async def look(_: str, __: ToolContext) -> str:
        await trio.sleep(3)
        return "nothing yet"

    driver = FunctionDriver(lambda _: calling(tool_call("look")))
    tools = ToolRegistry([FakeTool("look", look)])
    async with open_pool(driver, tools=tools) as pool:
        await pool.spawn(job())
        await trio.sleep(1)
        assert (await pool.shutdown(grace_seconds=60)).value == "waited"
        assert trio.current_time() == 3
        (outcome,) = await wait_all(pool)
    assert outcome.stop_reason is StopReason.INTERRUPTED


async def test_shutdown_cancels_who_does_not_end(autojump_clock: trio.testing.MockClock) -> None:
    """After the grace, and says so in the result and in the outcome."""
    async with open_pool(sleepy_driver()) as pool:
        await pool.fan_out(jobs("sleep 1 say done", "hang"))
        await wait_all_tasks_blocked()
        assert (await pool.shutdown(grace_seconds=5)).value == "cancelled"
        assert trio.current_time() == 5
        done, hung = await wait_all(pool)
    assert done.status is AgentStatus.COMPLETED
    assert isinstance(hung.error, AgentCancelledError)
    assert "5 seconds" in hung.error.reason


async def test_a_cancelled_shutdown_has_asked(autojump_clock: trio.testing.MockClock) -> None:
    """Agents that were asked to stop stop; they are not cancelled by it."""
    async with open_pool(sleepy_driver()) as pool:
        handle = await pool.spawn(job("sleep 3 say done"))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await pool.shutdown(grace_seconds=5)
        assert scope.cancelled_caught
    assert handle.status is AgentStatus.COMPLETED


async def test_shutdown_from_inside_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    """An agent that waits for all agents to end waits for itself, as with a join."""

    async def act(_: str, __: ToolContext) -> str:
        with pytest.raises(UsageError):
            await pools[-1].shutdown(grace_seconds=5)
        return "refused"

    (outcome,) = await run_inside(FakeTool("act", act))
    assert outcome.text == "refused"


async def test_joining_a_pool_from_a_pool_inside_it_is_refused() -> None:
    """The inner pool's agent would wait for the outer agent in which it runs."""
    refused: list[str] = []

    async def act(_: str, __: ToolContext) -> str:
        outer = pools[-1]

        async def join(_: str, __: ToolContext) -> str:
            with pytest.raises(UsageError, match="agent 1 called join_all"):
                await outer.join_all()
            refused.append("inner")
            return "refused"

        (outcome,) = await run_inside(FakeTool("act", join))
        return outcome.text

    (outcome,) = await run_inside(FakeTool("act", act))
    assert outcome.text == "refused"
    assert refused == ["inner"]
