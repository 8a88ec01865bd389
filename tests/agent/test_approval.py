"""Asking a person before a tool call runs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    Capability,
    CapabilityKind,
    SpawnConfig,
    open_pool,
)
from agentpool._manifest.capability import asks_first
from agentpool._spawn import child_of
from agentpool.abc import Completion, CompletionRequest, Tool
from agentpool.drivers import FunctionDriver, RequestGate, ScriptedDriver, ToolMessage
from agentpool.observe import AgentParked, ApprovalAsked, ApprovalGiven, ToolFinished, ToolStarted
from agentpool.testing import cancel_everywhere, check_tool
from agentpool.tools import (
    ApprovalRequest,
    Approved,
    Approver,
    Changed,
    Decision,
    Denied,
    ToolRegistry,
    tool,
)
from tests.support.fakes import (
    Recorder,
    calling,
    job,
    manifest,
    of_type,
    query_of,
    results_of,
    tool_call,
)

DONE: list[str] = []
"""What ``erase`` has erased, in the order of the calls. Emptied by the fixture."""


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@tool(needs_approval=True)
def erase(name: str) -> str:
    """Erase a file."""
    DONE.append(name)
    return f"erased {name}"


def yes(_: ApprovalRequest) -> Decision:
    """Approve."""
    return Approved()


async def for_ever(_: ApprovalRequest) -> Decision:
    """Never answer."""
    await trio.sleep_forever()


async def run_erase(
    approve: Approver | None,
    *,
    recorder: Recorder | None = None,
    config: SpawnConfig | None = None,
    tools: tuple[Tool, ...] = (erase,),
) -> tuple[AgentOutcome, str]:
    """Return what became of an agent that erases ``a.txt``, and what it was told of it."""
    driver = ScriptedDriver([calling(tool_call("erase", name="a.txt")), "done"])
    async with open_pool(
        driver,
        tools=ToolRegistry(tools),
        approve=approve,
        observers=[recorder] if recorder else [],
        max_concurrent=1,
    ) as pool:
        outcome = await (await pool.spawn(config or job())).wait()
    requests = driver.requests
    return outcome, results_of(requests[1])[0].content if len(requests) > 1 else ""


# --- what can be said


async def test_an_approved_call_runs() -> None:
    """It is asked once, with everything that there is to know."""
    asked: list[ApprovalRequest] = []

    async def approve(request: ApprovalRequest) -> Decision:
        await trio.lowlevel.checkpoint()
        asked.append(request)
        return Approved()

    outcome, result = await run_erase(approve)
    assert (DONE, result, outcome.tool_calls_run) == (["a.txt"], "erased a.txt", 1)
    (request,) = asked
    assert (request.agent_id, request.agent_name, request.capability) == (1, "hello", None)
    assert (request.call.name, request.call.arguments) == ("erase", '{"name": "a.txt"}')


async def test_a_denied_call_is_told_and_counted() -> None:
    """The agent goes on without; the call counts as asked for, and not as run."""
    recorder = Recorder()
    outcome, result = await run_erase(lambda _: Denied("it is the only copy"), recorder=recorder)
    assert DONE == []
    assert result == "not run: it was not approved: it is the only copy"
    assert (outcome.status, outcome.text) == (AgentStatus.COMPLETED, "done")
    assert (outcome.tool_calls, outcome.tool_calls_run) == (1, 0)
    (given,) = of_type(recorder.events, ApprovalGiven)
    assert (given.approved, given.reason) == (False, "it is the only copy")
    assert not of_type(recorder.events, ToolStarted)


async def test_a_denial_needs_no_reason() -> None:
    """Then there is none, and no empty one."""
    _, result = await run_erase(lambda _: Denied())
    assert result == "not run: it was not approved"


async def test_a_changed_call_runs_with_other_arguments() -> None:
    """The model is told which: it would build on what it did not do otherwise."""
    recorder = Recorder()
    _, result = await run_erase(lambda _: Changed('{"name": "copy.txt"}'), recorder=recorder)
    assert DONE == ["copy.txt"]
    assert result == 'It was run with other arguments: {"name": "copy.txt"}\nerased copy.txt'
    (asked,) = of_type(recorder.events, ApprovalAsked)
    (given,) = of_type(recorder.events, ApprovalGiven)
    assert asked.call.arguments == '{"name": "a.txt"}'
    assert (given.approved, given.call.arguments) == (True, '{"name": "copy.txt"}')
    (finished,) = of_type(recorder.events, ToolFinished)
    assert (finished.call.arguments, finished.content) == (given.call.arguments, "erased copy.txt")


async def test_changed_arguments_are_checked_like_any_others() -> None:
    """Whoever edits JSON by hand makes mistakes as well."""
    _, result = await run_erase(lambda _: Changed('{"nmae": "a.txt"}'))
    assert DONE == []
    assert "name" in result


async def test_arguments_that_were_changed_to_themselves_are_not_mentioned() -> None:
    """An editor that was left without a change."""
    _, result = await run_erase(lambda request: Changed(request.call.arguments))
    assert result == "erased a.txt"


# --- who is asked, and when nobody is


async def test_a_tool_that_needs_no_approval_asks_nobody() -> None:
    """By default nothing does."""

    @tool
    def erase(name: str) -> str:
        """Erase a file."""
        return f"erased {name}"

    def never(_: ApprovalRequest) -> Decision:
        raise AssertionError("it was asked")

    assert not erase.needs_approval
    _, result = await run_erase(never, tools=(erase,))
    assert result == "erased a.txt"


async def test_without_an_approver_the_call_does_not_run() -> None:
    """What was to be asked is not to be done unasked."""
    _, result = await run_erase(None)
    assert DONE == []
    assert result.startswith("not run: it was not approved: this tool needs approval")


async def test_a_grant_may_ask_first() -> None:
    """The one who writes the manifest may be stricter than the one who wrote the tool."""

    @tool(capability=Capability.file_write())
    def erase(name: str) -> str:
        """Erase a file."""
        return f"erased {name}"

    asked: list[ApprovalRequest] = []

    def approve(request: ApprovalRequest) -> Decision:
        asked.append(request)
        return Approved()

    text = '[[capabilities]]\ntype = "file_write"\nallowed_paths = ["/"]\n'
    for line, times in (("", 0), ("ask_first = false", 0), ("ask_first = true", 1)):
        asked.clear()
        config = SpawnConfig(AgentManifest.parse(text + line), "hello")
        _, result = await run_erase(approve, config=config, tools=(erase,))
        assert result == "erased a.txt"
        assert len(asked) == times
        assert all(request.capability == Capability.file_write() for request in asked)


def test_which_grants_ask() -> None:
    """One of the kind is enough, since only the tool knows which of them covers a call."""
    shell = Capability(CapabilityKind.SHELL, ("rm",), ask_first=True)
    git = Capability(CapabilityKind.MCP, ("git", "push"), ask_first=True)
    grants = (Capability.shell("ls"), shell, Capability.mcp("git", "*"), git)
    assert asks_first(grants, Capability.shell())
    assert asks_first(grants, Capability.mcp("git", "push"))
    assert not asks_first(grants, Capability.mcp("git", "log"))
    assert not asks_first(grants, Capability.network())
    assert not asks_first(grants, None)
    assert not asks_first(grants[:1], Capability.shell())
    assert str(shell) == "shell [rm], asks first"
    assert str(Capability(CapabilityKind.RAG, ask_first=True)) == "rag, asks first"


@pytest.mark.parametrize("asks", [True, False])
def test_a_child_asks_as_its_parent_does(asks: bool) -> None:  # noqa: FBT001  # a parameter
    """Rights only ever shrink; to ask nobody would be one more."""
    grant = Capability(CapabilityKind.SPAWN, max_depth=3, ask_first=asks)
    parent = SpawnConfig(manifest(capabilities=(grant,)), "hello")
    child = child_of(parent, "x", name="child", used_tokens=0, seconds_left=math.inf)
    assert child.manifest.capabilities == (
        Capability(CapabilityKind.SPAWN, max_depth=2, ask_first=asks),
    )


# --- waiting


async def test_who_waits_for_a_person_has_no_slot() -> None:
    """In a pool of one another agent runs meanwhile."""
    recorder, answered = Recorder(), trio.Event()

    async def approve(_: ApprovalRequest) -> Decision:
        await answered.wait()
        return Approved()

    def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "eraser" and not results_of(request):
            return calling(tool_call("erase", name="a.txt"))
        return "done"

    async with open_pool(
        FunctionDriver(answer),
        tools=ToolRegistry([erase]),
        approve=approve,
        max_concurrent=1,
        observers=[recorder],
    ) as pool:
        eraser, other = await pool.fan_out([job("eraser"), job("other")])
        assert (await other.wait()).text == "done"
        assert eraser.status is AgentStatus.PARKED
        answered.set()
        assert (await eraser.wait()).text == "done"
    assert DONE == ["a.txt"]
    assert [event.waits_for for event in of_type(recorder.events, AgentParked)] == ["an approval"]


async def test_an_approver_may_wait_as_agents_do(autojump_clock: MockClock) -> None:
    """One that asked another agent, or a model at a gate, was taken for one that failed."""
    gate = RequestGate(max_in_flight=1)

    async def judge(_: CompletionRequest) -> str:
        await trio.sleep(1)
        return "fine"

    async def approve(_: ApprovalRequest) -> Decision:
        verdict = await (await pool.spawn(job("judge"))).wait()
        async with gate.request():
            return Approved() if verdict.text == "fine" else Denied()

    async def hold() -> None:
        async with gate.request():
            await trio.sleep(5)

    async def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "judge":
            return await judge(request)
        return "done" if results_of(request) else calling(tool_call("erase", name="a.txt"))

    tools = ToolRegistry([erase])
    recorder = Recorder()
    with trio.fail_after(60):
        async with (
            trio.open_nursery() as nursery,
            open_pool(
                FunctionDriver(answer),
                tools=tools,
                approve=approve,
                max_concurrent=1,
                observers=[recorder],
            ) as pool,
        ):
            nursery.start_soon(hold)
            outcome = await (await pool.spawn(job())).wait()
    assert (outcome.status, DONE) == (AgentStatus.COMPLETED, ["a.txt"])
    assert [event.reason for event in of_type(recorder.events, ApprovalGiven)] == [""]
    assert trio.current_time() == 5


async def test_the_time_of_the_tool_begins_after_the_approval(autojump_clock: MockClock) -> None:
    """A person who thinks for half an hour does not use up the two minutes of the tool."""
    times: list[float] = []

    @tool(needs_approval=True, timeout_seconds=5)
    async def erase(name: str) -> str:
        """Erase a file."""
        times.append(trio.current_effective_deadline() - trio.current_time())
        await trio.sleep(4)
        return f"erased {name}"

    async def approve(_: ApprovalRequest) -> Decision:
        await trio.sleep(1800)
        return Approved()

    _, result = await run_erase(approve, tools=(erase,))
    assert (result, times, trio.current_time()) == ("erased a.txt", [5.0], 1804)


async def test_a_person_who_never_answers_is_waited_for_an_hour(
    autojump_clock: MockClock,
) -> None:
    """Then the call is refused, the agent goes on, and the pool ends."""
    outcome, result = await run_erase(for_ever)
    assert result == "not run: it was not approved: no answer within 3600 seconds"
    assert (outcome.text, DONE, trio.current_time()) == ("done", [], 3600)


async def test_the_manifest_says_how_long(autojump_clock: MockClock) -> None:
    """And the end of the run is earlier than that if it is nearer."""
    config = SpawnConfig(manifest(approval_seconds=60), "hello")
    _, result = await run_erase(for_ever, config=config)
    assert "within 60 seconds" in result
    config = SpawnConfig(manifest(approval_seconds=None, run_seconds=9), "hello")
    outcome, _ = await run_erase(for_ever, config=config)
    assert (outcome.status, DONE, trio.current_time()) == (AgentStatus.STOPPED, [], 69)


# --- approvers that fail


def _raise(_: ApprovalRequest) -> Decision:
    raise OSError("the chat is down")


async def _raise_later(_: ApprovalRequest) -> Decision:
    await trio.lowlevel.checkpoint()
    raise ExceptionGroup("two", [OSError("the chat is down"), ValueError("x")])


async def _say_nothing(_: ApprovalRequest) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("approve", "told"),
    [
        (_raise, "OSError: the chat is down"),
        (_raise_later, "OSError: the chat is down; ValueError: x"),
        (lambda _: True, "approve must return Approved, Denied or Changed, got True"),
        (_say_nothing, "approve must return Approved, Denied or Changed, got None"),
    ],
)
async def test_an_approver_that_fails_is_an_error_of_the_call(
    approve: Callable[[ApprovalRequest], Decision],
    told: str,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing runs, the model reads why, its author reads where, and the pool goes on."""
    outcome, result = await run_erase(approve)
    assert DONE == []
    assert result.startswith("not run: it was not approved: asking for approval failed")
    assert told in result
    assert "tool" not in result  # it is not the tool's fault
    assert outcome.text == "done"
    (record,) = [record for record in caplog.records if record.name == "agentpool"]
    log = record.getMessage()
    assert log.startswith("the approver broke when asked about 'erase' of agent 1 (")
    assert "Traceback" in log
    assert told.partition(";")[0] in log


async def test_whoever_is_cancelled_asks_no_longer() -> None:
    """The approver is cancelled with its agent, and nothing ran."""
    began, ended = trio.Event(), trio.Event()

    async def approve(_: ApprovalRequest) -> Decision:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    driver = ScriptedDriver(
        [calling(tool_call("erase", name="a"), tool_call("erase", "b", name="b"))]
    )
    async with open_pool(driver, tools=ToolRegistry([erase]), approve=approve) as pool:
        handle = await pool.spawn(job())
        await began.wait()
        await wait_all_tasks_blocked()
        handle.cancel("enough")
        outcome = await handle.wait()
    assert (outcome.status, DONE, ended.is_set()) == (AgentStatus.CANCELLED, [], True)
    assert [m.content for m in outcome.messages if isinstance(m, ToolMessage)] == [
        "not run: the agent was cancelled"
    ] * 2


@pytest.mark.parametrize("target", ["scenario", "agents", "agent"])
def test_cancelled_anywhere_nothing_is_left(target: str) -> None:
    """Two calls side by side, one approved and one denied."""

    async def approve(request: ApprovalRequest) -> Decision:
        await trio.sleep(1)
        return Denied("no") if request.call.call_id == "b" else Approved()

    async def scenario() -> None:
        calls = calling(tool_call("erase", "a", name="a"), tool_call("erase", "b", name="b"))
        driver = ScriptedDriver([calls, "done"])
        async with open_pool(
            driver, tools=ToolRegistry([erase]), approve=approve, max_concurrent=1
        ) as pool:
            await (await pool.spawn(job())).wait()

    report = cancel_everywhere(scenario, target=target)  # type: ignore[arg-type]
    assert report.points > 5


async def test_the_tool_itself_is_a_tool_like_any_other() -> None:
    """Called by hand nobody is asked: it is the agent that asks."""
    await check_tool(lambda: erase, arguments='{"name": "a.txt"}')


async def test_a_decision_is_told_when_it_is_made(autojump_clock: MockClock) -> None:
    """And not when the agent has its slot again, which others may hold for a minute."""

    async def approve(_: ApprovalRequest) -> Decision:
        await trio.sleep(1)
        return Approved(by="ann")

    async def answer(request: CompletionRequest) -> Completion:
        if query_of(request) == "long":
            await trio.sleep(60)
            return Completion(text="done")
        if results_of(request):
            return Completion(text="done")
        return calling(tool_call("erase", name="a.txt"))

    log = Recorder()
    async with open_pool(
        FunctionDriver(answer), max_concurrent=1, approve=approve, observers=[log],
        tools=ToolRegistry([erase]),
    ) as pool:  # fmt: skip
        await pool.spawn(job("short"))
        await pool.spawn(job("long"))
        await pool.join_all()
    (given,) = of_type(log.events, ApprovalGiven)
    assert (given.at_seconds, given.waited_seconds, given.decided_by) == (1, 1, "ann")
    assert DONE == ["a.txt"]
