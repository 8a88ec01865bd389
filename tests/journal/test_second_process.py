"""What another process finds again: values, restarts, answers of the owner, used approvals."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    Capability,
    CapabilityKind,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import BadRequestError, FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, Journal, ResumeMismatchError
from agentpool.testing import crash_everywhere, simulate
from agentpool.tools import TEAM_TOOLS, ApprovalRequest, Approved, ToolRegistry, tool

READER = AgentManifest(capabilities=())
MATE = AgentManifest(capabilities=(Capability(CapabilityKind.MESSAGE),))


class Fact(msgspec.Struct):
    """What one agent is to answer."""

    year: int


class Place(msgspec.Struct):
    """What another program wants in its place."""

    town: str


async def ask_for(kind: type | None, journal: Journal, *, accept: bool = False) -> AgentOutcome:
    """Return the outcome of the agent ``k``, whose answer is of that type."""
    driver = FunctionDriver(lambda _: '{"year": 5}')
    resume: Literal["accept"] | bool = "accept" if accept else True
    async with open_pool(driver, journal=journal, resume=resume) as pool:
        config = SpawnConfig(READER, "when", output_type=kind, key="k")
        return await (await pool.spawn(config)).wait()


def test_a_value_has_its_type_again() -> None:
    """Another type is a change like any other: refused, or the old data."""

    async def main() -> None:
        journal = InMemoryJournal()
        for _ in range(2):
            assert (await ask_for(Fact, journal)).unwrap_as(Fact) == Fact(5)
        with pytest.raises(
            ResumeMismatchError, match="agent 1 with key 'k' no longer fits its out"
        ):
            await ask_for(Place, journal)
        assert (await ask_for(Place, journal, accept=True)).value == {"year": 5}

    simulate(main)


def test_a_type_that_was_not_asked_for_before_is_another_question() -> None:
    """No old answer without a value is given for one, and no old value where none is wanted."""

    async def main() -> None:
        for first, second in ((None, Fact), (Fact, None)):
            journal = InMemoryJournal()
            await ask_for(first, journal)
            with pytest.raises(ResumeMismatchError, match="no longer fits its output_type"):
                await ask_for(second, journal)
            outcome = await ask_for(second, journal, accept=True)
            assert outcome.text == '{"year": 5}'

    simulate(main)


def test_an_agent_that_failed_has_no_value_to_fit() -> None:
    """It is found as it ended, whatever type its answer was to have."""

    def refuse(_: CompletionRequest) -> str:
        raise BadRequestError("no")

    async def main() -> None:
        journal = InMemoryJournal()
        for _ in range(2):
            async with open_pool(FunctionDriver(refuse), journal=journal, resume=True) as pool:
                config = SpawnConfig(READER, "q", output_type=Fact, key="k")
                outcome = await (await pool.spawn(config)).wait()
                assert outcome.status.value == "failed"

    simulate(main)


def test_a_supervised_agent_with_a_key_is_restarted() -> None:
    """Each restart is an agent with a key of its own, at every crash the same."""

    async def scenario(journal: Journal) -> list[str]:
        asked: list[str] = []

        def answer(request: CompletionRequest) -> Answer:
            asked.append(request.messages[0].text)  # type: ignore[union-attr]  # the query
            if len(asked) < 3:
                raise BadRequestError("no")
            return "yes"

        async with open_pool(FunctionDriver(answer), journal=journal, resume=True) as pool:
            wanted = [SpawnConfig(READER, "one", key="x"), SpawnConfig(READER, "two", key="y")]
            return [one.status.value for one in await pool.supervise(wanted)]

    async def main() -> None:
        journal = InMemoryJournal()
        assert await scenario(journal) == ["completed", "completed"]
        assert await scenario(journal) == ["completed", "completed"]

    simulate(main)


def test_an_owner_may_answer_in_another_order() -> None:
    """What it sends again is known by whom it is for, and by what it answers."""

    def answer(request: CompletionRequest) -> Answer:
        last = request.messages[-1]
        if isinstance(last, ToolMessage):
            return f"told {last.content}"
        return call("ask_agent", to=0, question=f"what? {last.text}")

    async def scenario(journal: Journal) -> list[str]:
        async with open_pool(
            FunctionDriver(answer), tools=ToolRegistry(TEAM_TOOLS), journal=journal, resume=True,
            max_concurrent=1,
        ) as pool:  # fmt: skip
            handles = [await pool.spawn(SpawnConfig(MATE, word, key=word)) for word in ("x", "y")]

            async def reply() -> None:
                while True:
                    for one in await pool.receive_many():
                        if not pool[one.sender].has_ended:
                            text = f"A: {one.content}"
                            await pool[one.sender].send(text, reply_to=one.message_id)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(reply)
                texts = [(await handle.wait()).text for handle in handles]
                nursery.cancel_scope.cancel()
            return texts

    for seed in range(3):
        assert crash_everywhere(scenario, seed=seed).points > 15


def test_a_yes_lets_a_call_begin_again_once() -> None:
    """After another kill nobody knows again, and so it is asked again."""

    async def main() -> None:
        journal, begun = InMemoryJournal(), list[int]()
        questions, texts = list[bool](), list[str]()

        async def yes(request: ApprovalRequest) -> Approved:
            questions.append(request.may_have_run)
            await trio.lowlevel.checkpoint()
            return Approved()

        @tool(on_unknown="ask")
        async def pay(context: ToolContext) -> str:  # a tool has one
            """Pay."""
            begun.append(1)
            if len(begun) < 3:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            return "paid"

        def answer(request: CompletionRequest) -> Answer:
            return "done" if isinstance(request.messages[-1], ToolMessage) else call("pay")

        for asked in (0, 1, 2):
            with trio.move_on_after(5):
                async with open_pool(
                    FunctionDriver(answer), tools=ToolRegistry([pay]), journal=journal,
                    resume=True, approve=yes,
                ) as pool:  # fmt: skip
                    handle = await pool.spawn(SpawnConfig(READER, "buy", key="k"))
                    texts.append((await handle.wait()).text)
            assert questions == [True] * asked
        assert len(begun) == 3
        assert texts == ["done"]

    simulate(main)


@pytest.mark.parametrize("had_memory", [False, True])
def test_a_memory_that_comes_or_goes_is_refused_and_costs_nothing(*, had_memory: bool) -> None:
    """The change shifts every step of the run, so no mode reads its records as others."""
    keeper = AgentManifest(capabilities=(Capability(CapabilityKind.MEMORY),))

    @tool
    async def act() -> str:
        """Act."""
        await trio.lowlevel.checkpoint()
        return "acted"

    async def run(
        journal: Journal, *, has_memory: bool, resume: Literal["accept", "branch"] | bool = True,
        stops: bool = False,
    ) -> AgentOutcome:  # fmt: skip
        async def answer(request: CompletionRequest) -> Answer:
            done = sum(isinstance(one, ToolMessage) for one in request.messages)
            if stops and done == 1:
                await trio.sleep_forever()
            return "the end" if done == 2 else call("act")

        async with open_pool(
            FunctionDriver(answer), tools=ToolRegistry([act]), journal=journal, resume=resume
        ) as pool:
            scope = "shared" if has_memory else None
            config = SpawnConfig(keeper, "go", key="k", memory_scope=scope)
            return await (await pool.spawn(config)).wait()

    async def main() -> None:
        journal = InMemoryJournal()
        with trio.move_on_after(1):
            await run(journal, has_memory=had_memory, stops=True)
        modes: tuple[Literal["accept"] | bool, ...] = (True, "accept")
        for mode in modes:
            error = (await run(journal, has_memory=not had_memory, resume=mode)).error
            assert isinstance(error, ResumeMismatchError)
            assert "it has a memory now and had none before, or the reverse" in str(error)
        assert (await run(journal, has_memory=had_memory)).text == "the end"

    simulate(main)
