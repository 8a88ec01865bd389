"""Children that a tool spawned in the background, and that were at work when the process ended."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    Budget,
    Capability,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, Journal, RecordKind, ResumeMismatchError
from agentpool.testing import crash_everywhere, simulate
from agentpool.tools import ToolRegistry, tool

LEAD = AgentManifest(name="lead", capabilities=(Capability.spawn(1),))
LEAF = AgentManifest(name="leaf", capabilities=())


@attrs.frozen
class Count:
    """A number."""

    value: int


class Team:
    """A lead whose tool starts a leaf and ends. The leaf takes two seconds, the lead four."""

    def __init__(self, journal: Journal, lead_seconds: float = 4.0, **terms: Any) -> None:  # noqa: ANN401  # of a spawn
        """Make a team whose leaf is spawned on these *terms*."""
        self.journal, self.lead_seconds, self.terms = journal, lead_seconds, terms
        self.asked: list[str] = []

    async def answer(self, request: CompletionRequest) -> Answer:
        """Answer as the lead or as the leaf."""
        query = str(request.messages[0].text)  # type: ignore[union-attr]  # a query
        self.asked.append(query)
        if query == "leaf":
            await trio.sleep(2)
            return "5"
        if not isinstance(request.messages[-1], ToolMessage):
            return call("start_child")
        await trio.sleep(self.lead_seconds)
        return request.messages[-1].content

    async def live(
        self,
        seconds: float = 100,
        system: str = "",
        **terms: Any,  # noqa: ANN401  # of a pool
    ) -> dict[int, AgentOutcome]:
        """Run the team; end the process after some seconds."""

        @tool(on_unknown="rerun")
        async def start_child() -> str:
            """Start a child in the background."""
            handle = await pool.spawn(SpawnConfig(LEAF, "leaf", **self.terms))
            return f"started {handle.agent_id}"

        lead = AgentManifest(name="lead", capabilities=LEAD.capabilities, description=system)
        terms.setdefault("resume", True)
        tools, driver = ToolRegistry([start_child]), FunctionDriver(self.answer)
        async with open_pool(driver, tools=tools, journal=self.journal, **terms) as pool:
            await pool.spawn(SpawnConfig(lead, "lead", key="lead"))
            await trio.sleep(seconds)
            pool.abort_all()
            return await pool.join_all()


@pytest.mark.parametrize("lead_seconds", [1.0, 4.0])
@pytest.mark.parametrize("key", [None, "child"])
@pytest.mark.parametrize("outlives", [False, True])
def test_a_child_of_a_call_that_has_ended_is_gone_on_with(
    lead_seconds: float,
    key: str | None,
    outlives: bool,  # noqa: FBT001  # parametrized
) -> None:
    """As the child of its parent, after any crash, whether or not that has ended."""

    async def scenario(journal: Journal) -> object:
        team = Team(journal, lead_seconds, key=key, outlives_parent=outlives)
        budget = Budget(requests=100, cost_usd=10, tool_calls=100)
        ended = await team.live(budget=budget)
        kinds = [one.kind for one in await journal.read("pool") if one.agent_id]
        assert kinds.count(RecordKind.ENDED) == kinds.count(RecordKind.ACCEPTED) == 2
        repeated = sum(one.repeated_requests for one in ended.values())
        spent = budget.statistics()
        assert (spent.tool_calls.committed, spent.requests.committed) == (1, 3 + repeated)
        return {number: (one.name, one.text) for number, one in ended.items()}

    if outlives or lead_seconds > 2:
        crash_everywhere(scenario)
        assert simulate(scenario, InMemoryJournal()) == {1: ("lead", "started 2"), 2: ("leaf", "5")}
    else:
        assert simulate(scenario, InMemoryJournal()) == {1: ("lead", "started 2"), 2: ("leaf", "")}


def test_a_pool_that_is_opened_again_has_all_outcomes_of_before() -> None:
    """Also of the children that a tool spawned; none of them is asked anything."""

    async def scenario() -> None:
        team = Team(InMemoryJournal())
        first = await team.live()
        team.asked.clear()
        again = await team.live()
        assert [one.text for one in again.values()] == [one.text for one in first.values()]
        assert not team.asked

    simulate(scenario)


def test_a_child_that_the_journal_has_in_part_fails_and_says_so() -> None:
    """An output type and a budget are in no file, and its call does not run again."""

    async def scenario() -> None:
        team = Team(InMemoryJournal(), output_type=Count)
        await team.live(1)
        team.asked.clear()
        ended = await team.live()
        assert ended[1].text == "started 2"
        assert ended[2].status is AgentStatus.FAILED
        assert "agent 2 (leaf) has an output_type or its own budget" in str(ended[2].error)
        assert "leaf" not in team.asked
        again = await team.live()
        assert str(again[2].error) == str(ended[2].error)

    simulate(scenario)


def test_a_child_whose_parent_ended_at_the_crash_ends_with_it() -> None:
    """It was about to be cancelled when the process ended."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        team = Team(journal, 1.0)
        await team.live(1.5)  # its parent has ended after one second
        records = await journal.read("pool")
        kept = [one for one in records if (one.agent_id, one.kind) != (2, RecordKind.ENDED)]
        assert [one.agent_id for one in kept if one.kind is RecordKind.ENDED] == [1]
        team.journal = InMemoryJournal()
        lease = await team.journal.claim("pool")
        await team.journal.append(lease, kept)
        await team.journal.release(lease)
        ended = await team.live()
        assert ended[2].status is AgentStatus.CANCELLED
        assert str(ended[2].error).endswith("was cancelled by agent 1: its parent has ended")

    simulate(scenario)


def test_a_child_goes_on_when_its_parent_is_branched() -> None:
    """What its parent had settled stays, and the child belongs to that."""

    async def scenario() -> None:
        team = Team(InMemoryJournal())
        await team.live(1)
        with pytest.raises(ResumeMismatchError):
            await team.live(system="Be quick.")
        ended = await team.live(system="Be quick.", resume="branch")
        assert ended[2].text == "5"
        assert (await team.live(system="Be quick."))[2].text == "5"

    simulate(scenario)
