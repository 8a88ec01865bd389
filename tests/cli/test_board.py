"""What a progress display knows, and how it is put into words."""

import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    Capability,
    SpawnConfig,
    Usage,
    open_pool,
)
from agentpool._scheduling.slot import current_slot
from agentpool.abc import Completion, CompletionRequest, ToolContext
from agentpool.drivers import (
    FinishReason,
    FunctionDriver,
    OverloadedError,
    ScriptedDriver,
    call,
    say,
)
from agentpool.live import Board, BoardView
from agentpool.live._board import MOST_LINES, TAIL_CHARACTERS
from agentpool.live._display import counts_line
from agentpool.observe import (
    AgentFinished,
    AgentParked,
    AgentResumed,
    AgentStarted,
    CompletionReceived,
    Phase,
    PhaseChanged,
    TextDelta,
    record_of,
)
from agentpool.testing import EventLog
from agentpool.tools import TEAM_TOOLS, ToolRegistry, tool
from tests.support.fakes import query_of

STAMP = (1, 0.0, 1, "reader")


def texts(board: Board) -> list[str]:
    """Return the lines so far."""
    return [line.text for line in board.take_lines()]


async def test_a_row_says_what_an_agent_does(autojump_clock: object) -> None:
    """Name, phase, seconds, tokens so far, last words."""
    board = Board(2)
    board.on_event(AgentStarted(*STAMP))
    assert board.look().agents[0].phase == "starts"
    await trio.sleep(2)
    board.on_event(PhaseChanged(*STAMP, Phase.REASON))
    assert board.look().agents[0].phase == "thinks"
    board.on_event(TextDelta(*STAMP, "four words, \x1b[2J"))
    board.on_event(TextDelta(*STAMP, "more"))
    view = board.look()
    (agent,) = view.agents
    assert (agent.name, agent.phase, agent.seconds) == ("reader", "writes", 2.0)
    assert agent.tokens == 5
    assert agent.last_words.endswith("more")
    assert (view.done, view.queued, view.tokens) == (0, 1, 5)
    board.on_event(CompletionReceived(*STAMP, FinishReason.TOOL_USE, Usage(9, 3), 2.0))
    assert board.look().agents[0].tokens == 3
    board.on_event(CompletionReceived(*STAMP, FinishReason.TOOL_USE, None, 2.0))
    board.on_event(PhaseChanged(*STAMP, Phase.ACT, "recall"))
    assert board.look().agents[0].phase == "recall"
    board.on_event(AgentParked(*STAMP, "agent 3 (critic)"))
    assert board.look().agents[0].phase == "waits for agent 3 (critic)"
    board.on_event(AgentResumed(*STAMP))
    assert board.look().agents[0].phase == "recall"


async def test_only_the_end_of_what_was_written_is_kept() -> None:  # noqa: ASYNC124  # its clock is trio's
    """An agent that writes a book costs no book."""
    board = Board(1)
    board.on_event(AgentStarted(*STAMP))
    board.on_event(TextDelta(*STAMP, "x" * 10_000))
    assert len(board.look().agents[0].last_words) == TAIL_CHARACTERS


async def test_tokens_per_second_are_of_the_last_seconds(autojump_clock: object) -> None:
    """A model that has slowed down is seen to."""
    board = Board(1)
    board.on_event(AgentStarted(*STAMP))
    assert board.look().tokens_per_second == 0
    await trio.sleep(1)
    board.on_event(TextDelta(*STAMP, "x" * 400))
    assert board.look().tokens_per_second == 100
    for _ in range(10):
        await trio.sleep(1)
        board.look()
    assert board.look().tokens_per_second == 0


async def test_an_agent_that_never_started_is_counted_and_no_more() -> None:  # noqa: ASYNC124  # its clock is trio's
    """It was cancelled in the queue: there is nothing to tell."""
    board = Board(1)
    outcome = AgentOutcome(agent_id=1, name="reader", status=AgentStatus.CANCELLED)
    board.on_event(AgentFinished(*STAMP, outcome))
    board.on_event(TextDelta(*STAMP, "a late word"))
    view = board.look()
    assert (view.ended_otherwise, view.agents, texts(board)) == (1, (), [])


async def test_lines_come_to_the_one_who_waits_for_them() -> None:
    """Each once."""
    board = Board(3)
    board.unreadable("x.txt cannot be read")
    await board.wait_lines()
    assert texts(board) == ["[1/3] x.txt cannot be read"]
    assert texts(board) == []
    assert board.look().failed == 1


async def test_retries_and_warnings_are_notable(autojump_clock: object) -> None:
    """Somebody who only sees the display is told them as well."""
    board = Board(1)
    driver = ScriptedDriver([OverloadedError("too many of you"), "hm"])
    async with open_pool(driver, observers=[board], random_seed=1) as pool:
        manifest = AgentManifest(name="reader")
        await (await pool.spawn(SpawnConfig(manifest, "?"))).wait()
    (retry,) = [line.text for line in board.take_lines() if line.notable]
    assert retry.startswith("[0/1] reader asks again in ")
    assert retry.endswith(" s: too many of you")


async def test_children_come_on_top() -> None:
    """They are nobody's job, so the total grows with them."""
    board = Board(1)
    manifest = AgentManifest(name="parent", capabilities=(Capability.spawn(1),))

    def answer(request: CompletionRequest) -> Completion | str:
        alone = len(request.messages) == 1 and "help" not in str(request.messages)
        return call("spawn_agent", query="help") if alone else "done"

    async with open_pool(
        FunctionDriver(answer), observers=[board], tools=ToolRegistry(TEAM_TOOLS)
    ) as pool:
        await (await pool.spawn(SpawnConfig(manifest, "work"))).wait()
    assert current_slot.get() is None
    assert texts(board)[-1].startswith("[2/2] parent completed")
    assert board.look().done == 2


@pytest.mark.parametrize(
    ("failed", "early", "says"),
    [
        (0, 0, "3 done, 0 running, 2 queued · 1,234 tokens, 81 per second"),
        (1, 2, "3 done, 1 failed, 2 ended early, 0 running, 2 queued · 1,234 tokens, 81"),
    ],
)
def test_counts_in_words(failed: int, early: int, says: str) -> None:
    """What is zero and would only frighten is left out."""
    view = BoardView(
        agents=(), done=3, failed=failed, ended_otherwise=early, queued=2, tokens=1234,
        tokens_per_second=81.4,
    )  # fmt: skip
    assert counts_line(view).startswith(says)


async def test_a_board_says_what_is_loaded(autojump_clock: object) -> None:
    """And for how long, until it is there."""
    board = Board(1)
    board.load("smol\x1b[2J.gguf")
    await trio.sleep(3)
    view = board.look()
    assert (view.loading, view.loading_seconds) == ("smol [2J.gguf", 3.0)
    assert texts(board) == ["[0/1] loads smol [2J.gguf"]
    board.load("")
    assert board.look().loading == ""
    assert texts(board) == []


async def test_what_children_write_is_counted_once() -> None:
    """A parent's outcome has it as well."""

    @tool
    async def child(context: ToolContext) -> str:
        """Let a child write."""
        assert context.agent is not None
        return (await context.agent.run_child("leaf")).text

    def answer(request: CompletionRequest) -> Completion:
        if query_of(request) == "leaf":
            return say("leaf", usage=Usage(1, 1000))
        return call("child") if len(request.messages) == 1 else say("ok", usage=Usage(1, 1))

    board, log = Board(), EventLog()
    async with open_pool(
        FunctionDriver(answer), observers=[board, log], tools=ToolRegistry([child])
    ) as pool:
        await pool.spawn(SpawnConfig(AgentManifest(), "go"))
    assert board.look().tokens == record_of(log.events).usage.output_tokens


def test_lines_that_nobody_takes_do_not_pile_up() -> None:
    """The newest are kept, and whoever takes them is told of the others."""
    board = Board()
    for number in range(MOST_LINES + 7):
        board.say(f"line {number}")
    told, first, *rest = board.take_lines()
    assert told.text == "[...] 7 lines before this one were left out"
    assert told.notable
    assert first.text.endswith("line 7")
    assert len(rest) == MOST_LINES - 1
    assert not board.take_lines()
    board.say("more")
    assert [line.text.endswith("more") for line in board.take_lines()] == [True]
