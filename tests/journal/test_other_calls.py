"""Tool calls of a resumed run that cannot be made as they were then: nothing is done for real.

A tool may be gone, or be granted only now. With ``resume="accept"`` whoever resumes takes old
answers for new questions, and still no call is made at a place that is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import attrs
import pytest
import trio

from agentpool import AgentManifest, AgentOutcome, AgentStatus, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest, Tool
from agentpool.drivers import FunctionDriver, ToolMessage, call, calls
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, ResumeMismatchError
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry, tool

Resume: TypeAlias = Literal["accept", "branch", True]
REFUSE: Final = True

READER = AgentManifest(name="reader", capabilities=())


@attrs.define(eq=False)
class Office:
    """A model that calls ``look`` and ``pay`` at once, then ``look``, and tools that count."""

    done: list[str] = attrs.field(factory=list[str])
    asked: int = 0
    hangs: str = ""
    """Which tool, or which request, has no end."""
    only: tuple[str, ...] = ("look", "pay")
    """What is called first."""
    journal: InMemoryJournal = attrs.field(factory=InMemoryJournal)

    async def answer(self, request: CompletionRequest) -> Answer:
        """Call both, then one, then say what came of it."""
        self.asked += 1
        results = [one.content for one in request.messages if isinstance(one, ToolMessage)]
        if self.hangs == f"request {len(results)}":
            await trio.sleep_forever()
        if not results:
            return calls(*map(call, self.only))
        return call("look") if len(results) == len(self.only) else "; ".join(results)

    async def work(self, name: str) -> str:
        """Count a deed."""
        self.done.append(name)
        if self.hangs == name:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return f"did {name}"

    def tools(self, names: Sequence[str]) -> ToolRegistry:
        """Return tools that count, with these names."""

        def make(name: str) -> Tool:
            @tool(name=name)
            async def act() -> str:
                """Act."""
                return await self.work(name)

            return act

        return ToolRegistry([make(name) for name in names])

    async def run(
        self, names: Sequence[str], resume: Resume, manifest: AgentManifest = READER
    ) -> AgentOutcome:
        """Run the agent with the tools of those names, or go on with it."""
        async with open_pool(
            FunctionDriver(self.answer),
            tools=self.tools(names), name="kept", journal=self.journal, resume=resume,
        ) as pool:  # fmt: skip
            return await (await pool.spawn(SpawnConfig(manifest, "go", key="a"))).wait()

    async def killed(self, names: Sequence[str]) -> None:
        """Run the agent until nothing happens any more."""
        with trio.move_on_after(1):
            await self.run(names, REFUSE)
        self.hangs = ""


@pytest.mark.parametrize("only", [("look", "pay"), ("pay",)])
@pytest.mark.parametrize("resume", [REFUSE, "accept"])
def test_a_call_that_was_refused_is_not_made_when_it_is_granted_later(
    only: tuple[str, ...], resume: Resume
) -> None:
    """The model has read that it was refused, and has gone on from there."""

    async def scenario() -> None:
        office = Office(hangs=f"request {len(only) + 1}", only=only)
        await office.killed(["look"])
        before, asked = list(office.done), office.asked
        error = (await office.run(["look", "pay"], resume)).error
        assert isinstance(error, ResumeMismatchError)
        if resume == "accept":
            assert error.differs == "tool 'pay' is called now and was not run then,"
        assert (office.done, office.asked) == (before, asked)
        again = await office.run(["look"], REFUSE)
        assert (again.status, office.asked) == (AgentStatus.COMPLETED, asked + 1)
        assert office.done == before

    simulate(scenario)


@pytest.mark.parametrize("only", [("look", "pay"), ("pay",)])
def test_a_branch_knows_that_a_call_was_refused_that_is_granted_now(only: tuple[str, ...]) -> None:
    """All that was settled is in the history of the new run, and it may call what it likes."""

    async def scenario() -> None:
        office = Office(hangs=f"request {len(only) + 1}", only=only)
        await office.killed(["look"])
        before = list(office.done)
        outcome = await office.run(["look", "pay"], "branch")
        results = [one for one in outcome.messages if isinstance(one, ToolMessage)]
        said = [(one.name, one.is_error) for one in results]
        assert said == [*((name, name == "pay") for name in only), ("look", False)]
        assert (outcome.status, office.done) == (AgentStatus.COMPLETED, before)

    simulate(scenario)


def test_a_message_was_read_where_a_call_is_made_now() -> None:
    """Nothing came after it, and still the call is not the result that is there."""

    async def scenario() -> None:
        office = Office(hangs="request 1", only=("pay",))
        asks, sent = trio.Event(), trio.Event()

        async def run(names: Sequence[str], resume: Resume) -> AgentOutcome:
            async def answer(request: CompletionRequest) -> Answer:
                asks.set()
                await sent.wait()
                return await office.answer(request)

            async with open_pool(
                FunctionDriver(answer),
                tools=office.tools(names), name="kept", journal=office.journal, resume=resume,
            ) as pool:  # fmt: skip
                handle = await pool.spawn(SpawnConfig(READER, "go", key="a"))
                await asks.wait()
                await pool.router.send(handle.agent_id, "and hurry")
                sent.set()
                return await handle.wait()

        with trio.move_on_after(1):
            await run(["look"], REFUSE)
        office.hangs = ""
        records = office.journal._pools["kept"]
        while b"and hurry" not in records[-1].body or records[-1].kind.value == "sent":
            records.pop()
        error = (await run(["look", "pay"], "accept")).error
        assert isinstance(error, ResumeMismatchError)
        assert error.differs == "tool 'pay' is called now and was not run then,"
        assert office.done == []

    simulate(scenario)


@pytest.mark.parametrize(
    ("only", "names", "said"),
    [
        (("look", "pay"), ["look"], "tool 'pay' was called and may have run,"),
        (("look", "pay"), [], "tool 'look' was called,"),
        (("pay",), ["look"], "tool was called and may have run,"),
    ],
)
def test_a_call_that_had_begun_of_a_tool_that_is_gone_is_told_as_such(
    only: tuple[str, ...], names: list[str], said: str
) -> None:
    """It may have run: the model is not asked as if it had been refused."""

    async def scenario() -> None:
        office = Office(hangs="pay", only=only)
        await office.killed(["look", "pay"])
        asked = office.asked
        modes: tuple[Resume, ...] = (REFUSE, "accept")
        for mode in modes:
            error = (await office.run(names, mode)).error
            assert isinstance(error, ResumeMismatchError)
            if mode == "accept":
                assert error.differs == f"{said} which it no longer has or may not call,"
        assert (office.done.count("pay"), office.asked) == (1, asked)
        branched = await office.run(names, "branch")
        results = [one for one in branched.messages if isinstance(one, ToolMessage)]
        assert "was begun; it may or may not have been done" in results[len(only) - 1].content
        assert office.done.count("pay") == 1

    simulate(scenario)


@pytest.mark.parametrize("only", [("look", "pay"), ("pay", "look")])
def test_one_of_two_that_ended_and_is_gone_is_missed_wherever_it_stood(
    only: tuple[str, ...],
) -> None:
    """The other had been refused, so that nothing was known of the first place."""

    async def scenario() -> None:
        office = Office(hangs="request 2", only=only)
        await office.killed(["pay"])
        asked = office.asked
        error = (await office.run(["other"], "accept")).error
        assert isinstance(error, ResumeMismatchError)
        assert error.differs == "tool 'pay' was called, which it no longer has or may not call,"
        assert (office.done, office.asked) == (["pay"], asked)

    simulate(scenario)


@pytest.mark.parametrize(
    ("hangs", "limit", "said"),
    [
        ("request 2", "max_tool_calls = 1", "a tool was called at place 5, and it ends now"),
        ("look", "max_tool_calls = 1", "a tool was called at place 5, and it ends now"),
        ("request 1", "max_iterations = 1", "it went on, and it ends now"),
    ],
)
def test_a_run_that_would_end_now_before_what_was_done_is_not_resumed(
    hangs: str, limit: str, said: str
) -> None:
    """A lower limit would tell the call as "not run", and forget a request that was paid."""

    async def scenario() -> None:
        office = Office(hangs=hangs, only=("pay",))
        await office.killed(["look", "pay"])
        asked, done = office.asked, list(office.done)
        less = AgentManifest.parse(f"name = 'reader'\n[resources]\n{limit}")
        error = (await office.run(["look", "pay"], "accept", less)).error
        assert isinstance(error, ResumeMismatchError)
        assert error.differs == said
        assert (office.asked, office.done) == (asked, done)
        again = await office.run(["look", "pay"], REFUSE)
        assert (again.status, office.done) == (AgentStatus.COMPLETED, ["pay", "look"])

    simulate(scenario)
