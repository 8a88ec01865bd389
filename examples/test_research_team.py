"""The team of `research_team.py` in many orders, cancelled everywhere, and too late.

    cd examples && python -m pytest --noconftest test_research_team.py

No model is asked, and an hour takes a millisecond.
"""

from __future__ import annotations

import re

import trio
from research_team import research  # type: ignore[import-not-found]  # beside this file

from agentpool import AgentStatus, ToolMessage
from agentpool.abc import Completion, CompletionRequest
from agentpool.drivers import FunctionDriver, call, calls
from agentpool.testing import cancel_everywhere, explore, simulate


def answer(request: CompletionRequest) -> Completion | str:
    """Answer as a team that does what it is told."""
    last = request.messages[-1]
    if "You wait for questions" in request.system:
        # A question that comes before the first turn is told with it, and waits for no tool.
        text = last.content if isinstance(last, ToolMessage) else last.text
        found = re.search(r"[Mm]essage (\d+) from agent (\d+)", text)
        if found is None:
            return call("wait_for_message")
        number, sender = map(int, found.groups())
        return call("send_message", to=sender, content="By the sun.", reply_to=number)
    if not isinstance(last, ToolMessage):
        return call("list_agents")
    if last.name == "list_agents":
        return calls(*(call("ask_agent", to=member, question="How?") for member in (1, 2)))
    return f"They say: {last.content}"


async def team() -> None:
    """Let the team work, and look at what comes out."""
    lead, members = await research("How?", seconds=60, driver=FunctionDriver(answer))
    assert lead.text == "They say: By the sun."
    # Whoever waits when the lead has ended is cancelled, or told before that nobody is left.
    assert {member.status for member in members} <= {AgentStatus.CANCELLED, AgentStatus.FAILED}


async def late_team() -> None:
    """Let the deadline strike while the lead waits for its model."""

    async def think(request: CompletionRequest) -> Completion | str:
        await trio.sleep(3600)
        return answer(request)

    lead, members = await research("How?", seconds=60, driver=FunctionDriver(think))
    assert lead.status is AgentStatus.STOPPED
    assert trio.current_time() == 60
    assert len(members) == 2


def test_the_team_answers_in_any_order() -> None:
    """Whoever runs first."""
    explore(team, schedules=50)


def test_the_deadline_ends_all_of_it() -> None:
    """Nobody works on for an answer that no one waits for."""
    simulate(late_team)


def test_nothing_is_left_when_it_is_cancelled() -> None:
    """Wherever that happens."""
    cancel_everywhere(team)
